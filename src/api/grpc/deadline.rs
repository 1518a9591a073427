//! `grpc-timeout`: how long a client waits for its answer.

use std::time::Duration;

use http::{HeaderMap, HeaderName};
use tonic::Status;

/// Digits of a timeout, as gRPC bounds them.
const DIGITS_MAX: usize = 8;

/// A call with less time than this is over before it begins.
pub(crate) const SHORTEST: Duration = Duration::from_micros(1);

static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The time that the client gives; `None` if it gives as much as it takes.
///
/// # Errors
/// What isn't a number and a unit, as grpc-go says it.
pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get(&GRPC_TIMEOUT) else { return Ok(None) };
    match parse(value.as_bytes()) {
        Some(timeout) => Ok(Some(timeout)),
        None => {
            let fault = fault(&String::from_utf8_lossy(value.as_bytes()));
            Err(Status::internal(format!("malformed grpc-timeout: {fault}")))
        }
    }
}

fn unit(letter: u8) -> Option<Duration> {
    Some(match letter {
        b'H' => Duration::from_secs(3600),
        b'M' => Duration::from_secs(60),
        b'S' => Duration::from_secs(1),
        b'm' => Duration::from_millis(1),
        b'u' => Duration::from_micros(1),
        b'n' => Duration::from_nanos(1),
        _ => return None,
    })
}

fn parse(text: &[u8]) -> Option<Duration> {
    let (letter, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > DIGITS_MAX || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // Eight digits at most, so that nothing overflows.
    let count = digits.iter().fold(0, |count, digit| count * 10 + u32::from(digit - b'0'));
    Some(unit(*letter)? * count)
}

/// What is wrong with `text`.
fn fault(text: &str) -> String {
    let letter = text.bytes().last();
    match text.len() {
        0 | 1 => format!("transport: timeout string is too short: {text:?}"),
        len if len > DIGITS_MAX + 1 => format!("transport: timeout string is too long: {text:?}"),
        _ if letter.and_then(unit).is_none() => format!("transport: timeout unit is not recognized: {text:?}"),
        len => format!("strconv.ParseUint: parsing {:?}: invalid syntax", text.get(..len - 1).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_bounds_are_grpcs() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("99999999m", Some(Duration::from_millis(99_999_999))),
            ("5u", Some(Duration::from_micros(5))),
            ("0n", Some(Duration::ZERO)),
            ("", None),
            ("S", None),
            ("5", None),
            ("-1S", None),
            ("1.5S", None),
            ("123456789S", None),
            ("5s", None),
        ] {
            assert_eq!(parse(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn faults_are_told_as_grpc_go_tells_them() {
        for (text, expected) in [
            ("", r#"transport: timeout string is too short: """#),
            ("S", r#"transport: timeout string is too short: "S""#),
            ("123456789S", r#"transport: timeout string is too long: "123456789S""#),
            ("1x", r#"transport: timeout unit is not recognized: "1x""#),
            ("-1S", r#"strconv.ParseUint: parsing "-1": invalid syntax"#),
            ("1\u{fc}", r#"transport: timeout unit is not recognized: "1\u{fc}""#),
        ] {
            assert_eq!(fault(text), expected.replace("\\u{fc}", "\u{fc}"), "{text}");
        }
    }
}
