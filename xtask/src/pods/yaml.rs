//! Documents of YAML as JSON's values, which is what they mean to Kubernetes.

use saphyr::{LoadableYamlNode as _, Scalar, Yaml};
use serde_json::{Map, Value};

/// All documents of a text; empty ones are left out.
pub(super) fn documents(text: &str) -> Result<Vec<Value>, String> {
    let documents = Yaml::load_from_str(text).map_err(|error| error.to_string())?;
    let values: Result<Vec<_>, _> = documents.iter().map(value).collect();
    Ok(values?.into_iter().filter(|value| !value.is_null()).collect())
}

fn value(node: &Yaml<'_>) -> Result<Value, String> {
    Ok(match node {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(truth)) => (*truth).into(),
        Yaml::Value(Scalar::Integer(number)) => (*number).into(),
        Yaml::Value(Scalar::FloatingPoint(number)) => number.into_inner().into(),
        Yaml::Value(Scalar::String(text)) => text.as_ref().into(),
        Yaml::Sequence(items) => Value::Array(items.iter().map(value).collect::<Result<_, _>>()?),
        Yaml::Mapping(pairs) => {
            let mut map = Map::new();
            for (key, item) in pairs {
                let key = key.as_str().ok_or_else(|| format!("a key that is no text: {key:?}"))?;
                map.insert(key.to_owned(), value(item)?);
            }
            Value::Object(map)
        }
        other => return Err(format!("not of JSON: {other:?}")),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_are_read_as_kubernetes_reads_them() {
        let text = "---\n# nothing\n---\na: 1\nb: [x, \"2\", {c: true}]\n---\nd:\n  - --e=f\n";
        let expected = [json!({"a": 1, "b": ["x", "2", {"c": true}]}), json!({"d": ["--e=f"]})];
        assert_eq!(documents(text).expect("documents"), expected);
        assert!(documents("a: [").is_err());
    }
}
