//! Readers of single values, as Go's flag package and etcd's own flag types read them.

use std::path::PathBuf;
use std::str::FromStr;

use super::url::Url;

/// A text that isn't a value of the wanted type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid value {value:?}: expected {expected}")]
pub struct BadValue {
    /// The text.
    pub value: String,
    /// What would have been right.
    pub expected: String,
}

impl BadValue {
    pub(super) fn new(value: &str, expected: impl Into<String>) -> Self {
        Self { value: value.to_owned(), expected: expected.into() }
    }
}

/// Go's `strconv.ParseBool`.
pub(super) fn boolean(text: &str) -> Result<bool, BadValue> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(BadValue::new(text, "true or false")),
    }
}

/// A whole number of the target type; also in hexadecimal, as Go takes it.
pub(super) fn integer<T: TryFrom<i128>>(text: &str) -> Result<T, BadValue> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let parsed = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16),
        None if digits.starts_with(['+', '-']) => {
            return Err(BadValue::new(text, "a whole number"));
        }
        None => digits.parse::<u64>(),
    };
    let number = parsed.map_err(|_| BadValue::new(text, "a whole number"))?;
    T::try_from(sign * i128::from(number)).map_err(|_| BadValue::new(text, "a smaller number"))
}

/// A comma-separated list; nothing between commas counts for nothing.
pub(super) fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

/// A comma-separated list of URLs, sorted and without doubles, as etcd keeps them.
pub(super) fn urls(text: &str) -> Result<Vec<Url>, BadValue> {
    let mut urls = list(text)
        .iter()
        .map(|item| Url::from_str(item).map_err(|error| BadValue::new(item, error.to_string())))
        .collect::<Result<Vec<_>, _>>()?;
    urls.sort();
    urls.dedup();
    Ok(urls)
}

/// A path, or none where the text is empty.
pub(super) fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

/// One of the named values.
pub(super) fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, BadValue> {
    choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).filter(|n| !n.is_empty()).collect();
        BadValue::new(text, format!("one of {}", names.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_know_their_bounds() {
        assert_eq!(integer::<u32>("4294967295"), Ok(u32::MAX));
        assert_eq!(integer::<i64>("-1"), Ok(-1));
        assert_eq!(integer::<u64>("0x10"), Ok(16));
        for text in ["", "-", "--1", "+-1", "1.5", "4294967296", "-1", "99999999999999999999"] {
            assert!(integer::<u32>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn url_lists_are_sorted_and_unique() {
        let urls = urls("http://b:2,http://a:1,,http://b:2").expect("well-formed");
        let texts: Vec<_> = urls.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["http://a:1", "http://b:2"]);
    }

    #[test]
    fn a_wrong_choice_names_the_right_ones() {
        let error = choice("x", &[("json", 1), ("console", 2)]).expect_err("not a choice");
        assert_eq!(error.expected, "one of json, console");
    }
}
