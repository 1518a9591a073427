//! YAML as JSON values: anchors are followed, and `<<` merges, as compose files have it. For files of our own.

use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::{Map, Value};

/// The documents of a text.
///
/// # Errors
/// What isn't YAML, or has no likeness in JSON.
pub(crate) fn documents(text: &str) -> Result<Vec<Value>, String> {
    let documents = Yaml::load_from_str(text).map_err(|error| error.to_string())?;
    documents.iter().map(value).collect()
}

fn value(yaml: &Yaml<'_>) -> Result<Value, String> {
    Ok(match yaml {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(on)) => (*on).into(),
        Yaml::Value(Scalar::Integer(number)) => (*number).into(),
        Yaml::Value(Scalar::FloatingPoint(number)) => number.into_inner().into(),
        Yaml::Value(Scalar::String(text)) => text.as_ref().into(),
        Yaml::Sequence(items) => Value::Array(items.iter().map(value).collect::<Result<_, _>>()?),
        Yaml::Mapping(mapping) => {
            let (mut merged, mut own) = (Map::new(), Map::new());
            for (key, inner) in mapping {
                let key = key.as_str().ok_or_else(|| format!("{key:?} is no key"))?;
                match (key, value(inner)?) {
                    ("<<", Value::Object(more)) => merged.extend(more),
                    (key, inner) => {
                        own.insert(key.to_owned(), inner);
                    }
                }
            }
            // What stands there itself comes before what is merged in, wherever it stands.
            merged.extend(own);
            Value::Object(merged)
        }
        other => return Err(format!("{other:?} is nothing that JSON has")),
    })
}

/// The texts of a list.
pub(crate) fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_merge_and_what_is_said_itself_comes_first() {
        let read = documents("a: &x {b: 1, c: true}\nd:\n  b: two\n  <<: *x\n---\n- 1.5\n- ~\n").expect("YAML");
        assert_eq!(read[0]["d"], serde_json::json!({"b": "two", "c": true}));
        assert_eq!(read[1], serde_json::json!([1.5, null]));
        assert!(documents("a: [").is_err());
        assert_eq!(texts(&serde_json::json!(["x", 1, "y"])), ["x", "y"]);
    }
}
