//! JSON numbers as integers, as Go's protojson takes them: `1.0`, `1e2` and `"12"` are integers, `1.5` is none.

/// Digits of the largest integer there is.
const DIGITS_MAX: usize = 20;

/// The integer of a JSON number's text; `None` if it is none or doesn't fit.
pub(super) fn integer(text: &str) -> Option<i128> {
    let (is_negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let whole = if whole == "0" { "" } else { whole };
    let fraction = fraction.trim_end_matches('0');
    if whole.is_empty() && fraction.is_empty() {
        return Some(0);
    }
    let exponent = i64::from(exponent.parse::<i32>().ok()?);
    let digits = if exponent > 0 {
        let shift = usize::try_from(exponent).ok()?;
        if fraction.len() > shift || whole.len().saturating_add(shift) > DIGITS_MAX {
            return None;
        }
        format!("{whole}{fraction}{}", "0".repeat(shift - fraction.len()))
    } else {
        let cut = usize::try_from(-exponent).ok()?;
        let kept = whole.len().checked_sub(cut)?;
        if !fraction.is_empty() || whole.bytes().skip(kept).any(|digit| digit != b'0') {
            return None;
        }
        whole.get(..kept)?.to_owned()
    };
    let value: i128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    Some(if is_negative { -value } else { value })
}

/// The number that a JSON string begins with: it may be followed by what can't be part of it, as in Go.
pub(super) fn quoted(text: &str) -> Option<&str> {
    if text.trim() != text {
        return None;
    }
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.' | b'_');
    let len = text.bytes().position(|byte| !is_part(byte)).unwrap_or(text.len());
    let number = text.get(..len)?;
    is_number(number).then_some(number)
}

/// Whether a text is a number by JSON's grammar.
fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let rest = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (rest, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_may_be_written_in_many_ways() {
        for (text, value) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("0e99999", Some(0)),
            ("0.000", Some(0)),
            ("17", Some(17)),
            ("-17", Some(-17)),
            ("1.0", Some(1)),
            ("1e0", Some(1)),
            ("1.0E+2", Some(100)),
            ("1.25e2", Some(125)),
            ("100e-2", Some(1)),
            ("0.5e1", Some(5)),
            ("9223372036854775808", Some(1 << 63)),
            ("18446744073709551615", Some(u64::MAX.into())),
            ("1.5", None),
            ("1e-1", None),
            ("10.5e-1", None),
            ("1e400", None),
            ("1e99999999999", None),
        ] {
            assert_eq!(integer(text), value, "{text}");
        }
        assert_eq!(integer(&"9".repeat(400)), None);
    }

    #[test]
    fn a_string_may_hold_a_number() {
        for (text, number) in [
            ("1", Some("1")),
            ("-1.5e+3", Some("-1.5e+3")),
            ("1 x", Some("1")),
            ("1,", Some("1")),
            (" 1", None),
            ("1 ", None),
            ("", None),
            ("01", None),
            ("+1", None),
            ("1x", None),
            ("-", None),
            ("1.", None),
            (".5", None),
            ("0x1", None),
        ] {
            assert_eq!(quoted(text), number, "{text:?}");
        }
    }
}
