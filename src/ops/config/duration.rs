//! Durations as Go writes them: `300ms`, `1h30m`, `1.5s`; the flags of etcd are in this form.

use std::time::Duration;

use super::value::BadValue;

/// Nanoseconds of each unit, longest name first so that `ms` isn't read as `m`.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration; `0` needs no unit, everything else does.
///
/// # Errors
/// On a missing or unknown unit, a negative value, or more than Go's `int64` nanoseconds.
pub fn parse_duration(text: &str) -> Result<Duration, BadValue> {
    let bad = || BadValue::new(text, "a duration such as 5m, 1.5s or 300ms");
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(bad());
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, tail) = rest.split_at(digits);
        let (unit, nanos) = UNITS.iter().find(|(unit, _)| tail.starts_with(unit)).ok_or_else(bad)?;
        total = total.checked_add(scaled(number, *nanos).ok_or_else(bad)?).ok_or_else(bad)?;
        rest = &tail[unit.len()..];
    }
    let nanos = i64::try_from(total).map_err(|_| bad())?;
    Ok(Duration::from_nanos(nanos.unsigned_abs()))
}

/// `number` (digits with at most one point) times `nanos`.
fn scaled(number: &str, nanos: u64) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || whole.len() > 19 {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // Nothing below a nanosecond survives, and an hour has thirteen digits of them.
    let fraction = &fraction[..fraction.len().min(14)];
    let parts: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    Some(whole * u128::from(nanos) + parts * u128::from(nanos) / scale)
}

/// Writes a duration in the shortest of Go's forms that says it exactly to the millisecond.
pub fn format_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis == 0 && !duration.is_zero() {
        return format!("{}µs", duration.as_micros());
    }
    if !millis.is_multiple_of(1000) {
        return if millis < 1000 { format!("{millis}ms") } else { format!("{}.{:03}s", millis / 1000, millis % 1000) };
    }
    let secs = duration.as_secs();
    match (secs / 3600, secs / 60 % 60, secs % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_reads() {
        for (text, nanos) in [
            ("0", 0),
            ("5s", 5_000_000_000),
            ("+5s", 5_000_000_000),
            ("300ms", 300_000_000),
            ("1us", 1_000),
            ("1µs", 1_000),
            ("1.5h", 5_400_000_000_000),
            ("1h30m", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("10000000ns", 10_000_000),
        ] {
            assert_eq!(parse_duration(text).map(|d| d.as_nanos()), Ok(nanos), "{text}");
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        for text in ["", "5", "s", ".s", "5x", "-5s", "1..5s", "99999999999h", "5 s", "五s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn writes_gos_form() {
        for text in ["300ms", "1.500s", "5s", "2m0s", "2h0m0s"] {
            assert_eq!(format_duration(parse_duration(text).expect("well-formed")), text);
        }
    }
}
