//! `grpc-timeout`: how long a client waits for its answer.

use std::time::Duration;

use http::HeaderMap;
use tonic::Status;

/// Digits of a timeout, as gRPC bounds them.
const DIGITS_MAX: usize = 8;

/// The time that the client gives; `None` if it gives as much as it takes.
///
/// # Errors
/// What isn't a number and a unit, as grpc-go says it.
pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    match parse(value.as_bytes()) {
        Some(timeout) => Ok(Some(timeout)),
        None => {
            let text = String::from_utf8_lossy(value.as_bytes());
            Err(Status::internal(format!("malformed grpc-timeout: {}", fault(&text))))
        }
    }
}

fn parse(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > DIGITS_MAX || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0, |count, digit| count * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

fn fault(text: &str) -> String {
    format!("transport: timeout string is not valid: {text:?}")
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
}
