//! Messages as lines of text that can be compared and read.
//!
//! Protobuf's text format with three liberties: each element of a repeated message field has a line of its own
//! (`|`), a response header that carries the server's own ids and a term reads `ids`, and whatever differs from
//! run to run is masked: `~` for "something is there", `${name}` for a value that the conversation knows.

use std::collections::BTreeMap;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage, Value};

/// Fields whose values belong to a run or to an implementation, not to the conversation.
pub(crate) const MASKED: [&str; 8] =
    ["dbSize", "dbSizeInUse", "raftIndex", "raftAppliedIndex", "raftTerm", "hash", "raft_term", "token"];

/// Lists whose order etcd leaves to chance.
const UNORDERED: [&str; 1] = ["keys"];

/// More elements than this are folded to the first and the last.
const ELEMENTS_SHOWN_MAX: usize = 20;
/// Strings of bytes longer than this are not shown in full.
const BYTES_SHOWN_MAX: usize = 200;
/// Smaller numbers are shown as they are, even if a variable has the same value by chance.
const VARIABLE_MIN: u64 = 1 << 20;

/// What the player knows that a line may stand for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// Values by name: `${name}` in requests and answers.
    pub(crate) variables: BTreeMap<String, String>,
    /// Additional masked fields for one step.
    pub(crate) masked: Vec<String>,
}

impl Known {
    /// The lines of one message: the first holds the single fields, the others one element each.
    pub(crate) fn lines(&self, message: &DynamicMessage) -> Vec<String> {
        let wrapped = message.get_field_by_name("range_response");
        if let Some(Value::Message(inner)) =
            wrapped.as_deref().filter(|_| message.is("etcdserverpb.RangeStreamResponse"))
        {
            // Only a wrapping: its content is as interesting as a plain range's.
            return self.lines(inner);
        }
        let (mut head, mut rows) = (Vec::new(), Vec::new());
        for (field, value) in message.fields() {
            match value {
                Value::List(items) if matches!(field.kind(), Kind::Message(_)) => {
                    let all: Vec<String> = items.iter().map(|item| self.field(&field, item)).collect();
                    rows.extend(fold(field.name(), all));
                }
                value => head.extend(self.values(&field, value)),
            }
        }
        rows.insert(0, head.join(" "));
        rows
    }

    fn values(&self, field: &FieldDescriptor, value: &Value) -> Vec<String> {
        match value {
            Value::List(items) => {
                let mut all: Vec<String> = items.iter().map(|item| self.field(field, item)).collect();
                if UNORDERED.contains(&field.name()) {
                    all.sort();
                }
                fold(field.name(), all)
            }
            Value::Map(entries) => {
                let mut all: Vec<String> = entries
                    .iter()
                    .map(|(key, value)| match value {
                        Value::Message(message) => {
                            format!("{}[{}] {{ {} }}", field.name(), map_key(key), self.inline(message))
                        }
                        other => format!("{}[{}] {other:?}", field.name(), map_key(key)),
                    })
                    .collect();
                all.sort();
                all
            }
            value => vec![self.field(field, value)],
        }
    }

    fn field(&self, field: &FieldDescriptor, value: &Value) -> String {
        let name = field.name();
        if MASKED.contains(&name) || self.masked.iter().any(|masked| masked == name) {
            return format!("{name}: ~");
        }
        match value {
            Value::Message(message) => {
                let body = self.inline(message);
                if body.is_empty() { format!("{name} {{ }}") } else { format!("{name} {{ {body} }}") }
            }
            Value::EnumNumber(number) => {
                let known = match field.kind() {
                    Kind::Enum(kind) => kind.get_value(*number).map(|value| value.name().to_owned()),
                    _ => None,
                };
                format!("{name}: {}", known.unwrap_or_else(|| number.to_string()))
            }
            Value::Bytes(bytes) => format!("{name}: {}", self.bytes(bytes)),
            Value::String(text) => match self.variable(text) {
                Some(variable) => format!("{name}: {variable}"),
                None => format!("{name}: {text:?}"),
            },
            Value::I64(number) => format!("{name}: {}", self.number(&number.to_string(), number.unsigned_abs())),
            Value::U64(number) => format!("{name}: {}", self.number(&number.to_string(), *number)),
            Value::Bool(value) => format!("{name}: {value}"),
            Value::U32(number) => format!("{name}: {number}"),
            other => format!("{name}: {other:?}"),
        }
    }

    /// All fields of a message on one line.
    fn inline(&self, message: &DynamicMessage) -> String {
        if message.is("etcdserverpb.ResponseHeader") && self.is_own(message) {
            let revision = number(message, "revision");
            return if revision == 0 { "ids".to_owned() } else { format!("ids revision: {revision}") };
        }
        message.fields().flat_map(|(field, value)| self.values(&field, value)).collect::<Vec<_>>().join(" ")
    }

    /// Whether a header names this server in this cluster and a term.
    fn is_own(&self, header: &DynamicMessage) -> bool {
        let known = |name: &str, field: &str| {
            self.variables.get(name).is_some_and(|value| *value == number(header, field).to_string())
        };
        known("cluster", "cluster_id") && known("self", "member_id") && number(header, "raft_term") != 0
    }

    fn number(&self, text: &str, magnitude: u64) -> String {
        if magnitude < VARIABLE_MIN {
            return text.to_owned();
        }
        self.variable(text).unwrap_or_else(|| text.to_owned())
    }

    fn variable(&self, value: &str) -> Option<String> {
        self.variables.iter().find(|(_, known)| *known == value).map(|(name, _)| format!("${{{name}}}"))
    }

    fn bytes(&self, bytes: &[u8]) -> String {
        if bytes.len() > BYTES_SHOWN_MAX {
            return match bytes.first() {
                Some(first) if bytes.iter().all(|b| b == first) && first.is_ascii_alphanumeric() => {
                    format!("\"${{{}*{}}}\"", char::from(*first), bytes.len())
                }
                _ => format!("<{} bytes>", bytes.len()),
            };
        }
        let mut text = String::from('"');
        for byte in bytes {
            match byte {
                b'"' | b'\\' => text.extend(['\\', char::from(*byte)]),
                0x20..=0x7e => text.push(char::from(*byte)),
                _ => text.push_str(&format!("\\x{byte:02x}")),
            }
        }
        // A key that holds a variable's value, such as a lock's name with a lease id, is left as it is.
        text.push('"');
        text
    }
}

fn map_key(key: &MapKey) -> String {
    key.as_str().map_or_else(|| format!("{key:?}"), |text| format!("{text:?}"))
}

fn fold(name: &str, mut items: Vec<String>) -> Vec<String> {
    if items.len() <= ELEMENTS_SHOWN_MAX {
        return items;
    }
    let count = items.len();
    let last = items.pop().unwrap_or_default();
    items.truncate(1);
    items.push(format!(".. {count} {name} in all .."));
    items.push(last);
    items
}

fn number(message: &DynamicMessage, field: &str) -> i128 {
    match message.get_field_by_name(field).as_deref() {
        Some(Value::U64(value)) => i128::from(*value),
        Some(Value::I64(value)) => i128::from(*value),
        _ => 0,
    }
}

/// The text of a top-level field's value, for a variable.
pub(crate) fn value_of(message: &DynamicMessage, field: &str) -> Option<String> {
    if let Some((outer, inner)) = field.split_once('.') {
        return value_of(message.get_field_by_name(outer)?.as_message()?, inner);
    }
    match message.get_field_by_name(field).as_deref()? {
        Value::U64(value) => Some(value.to_string()),
        Value::I64(value) => Some(value.to_string()),
        Value::String(value) => Some(value.clone()),
        _ => None,
    }
}

trait Is {
    /// Whether this is the message's full name.
    fn is(&self, full_name: &str) -> bool;
}

impl Is for DynamicMessage {
    fn is(&self, full_name: &str) -> bool {
        self.descriptor().full_name() == full_name
    }
}
