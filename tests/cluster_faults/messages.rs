//! Messages that nobody would send: made from the descriptors, so that a new method or field needs no line here.
//!
//! ```text
//! MessageDescriptor, seed ─┬► message(): well formed, of extremes ─► bytes ─► broken(): cut, flipped, doubled
//!                          └► json(): the same as text, now and then of the wrong type, cut, or nested for ever
//! ```

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use prost::Message;
use prost_reflect::{Cardinality, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// Levels of messages within messages, but for those that are made to be deep.
const DEPTH_MAX: usize = 6;
/// Fields of one message, those within included.
const FIELDS_MAX: usize = 400;

const NUMBERS: [i64; 12] = [0, 1, -1, 2, 3, 7, 100, i32::MAX as i64, i32::MIN as i64, i64::MAX, i64::MIN, 1 << 40];
/// Few, so that they meet: keys, names of users, roles, locks and checks.
const TEXTS: [&str; 12] =
    ["", "k", "k", "a", "z", "\0", "l/", "eve", "bob", "linearizable_read", "http://127.0.0.1:1", "\u{1F980} \\\"{}\n"];

/// A message of that type.
pub(crate) fn message(kind: &MessageDescriptor, rng: &mut StdRng) -> Bytes {
    let mut left = FIELDS_MAX;
    let deep = rng.random_bool(0.03);
    filled(kind, rng, if deep { 40 } else { DEPTH_MAX }, &mut left).encode_to_vec().into()
}

fn filled(kind: &MessageDescriptor, rng: &mut StdRng, depth: usize, left: &mut usize) -> DynamicMessage {
    let mut message = DynamicMessage::new(kind.clone());
    let share = *[0.0, 0.3, 0.6, 1.0].choose(rng).expect("some");
    for field in kind.fields() {
        if *left == 0 || !rng.random_bool(share) {
            continue;
        }
        *left -= 1;
        if field.is_map() {
            continue;
        }
        if field.cardinality() == Cardinality::Repeated {
            let count = if rng.random_bool(0.05) { rng.random_range(100..300) } else { rng.random_range(0..4) };
            let values = (0..count).map_while(|_| value(&field, rng, depth, left)).collect();
            message.set_field(&field, Value::List(values));
        } else if let Some(value) = value(&field, rng, depth, left) {
            message.set_field(&field, value);
        }
    }
    message
}

fn value(field: &FieldDescriptor, rng: &mut StdRng, depth: usize, left: &mut usize) -> Option<Value> {
    Some(match field.kind() {
        Kind::Message(kind) => {
            if depth == 0 || *left == 0 {
                return None;
            }
            *left -= 1;
            Value::Message(filled(&kind, rng, depth - 1, left))
        }
        Kind::Enum(kind) => {
            let known: Vec<_> = kind.values().map(|value| value.number()).chain([99, -1, i32::MAX]).collect();
            Value::EnumNumber(*known.choose(rng).expect("some"))
        }
        Kind::Bool => Value::Bool(rng.random()),
        Kind::String => Value::String(text(rng)),
        Kind::Bytes => Value::Bytes(blob(rng)),
        Kind::Double => Value::F64(number(rng) as f64),
        Kind::Float => Value::F32(number(rng) as f32),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(number(rng) as i32),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(number(rng) as u32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(number(rng)),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(number(rng) as u64),
    })
}

fn number(rng: &mut StdRng) -> i64 {
    match rng.random_range(0..4) {
        0 => rng.random(),
        1 => rng.random_range(0..50),
        _ => *NUMBERS.choose(rng).expect("some"),
    }
}

fn text(rng: &mut StdRng) -> String {
    match rng.random_range(0..20) {
        0 => "x".repeat(rng.random_range(0..5_000)),
        1 => (0..rng.random_range(0..20)).map(|_| rng.random::<char>()).collect(),
        _ => (*TEXTS.choose(rng).expect("some")).to_owned(),
    }
}

fn blob(rng: &mut StdRng) -> Bytes {
    match rng.random_range(0..200) {
        0 => vec![7; 60_000].into(),
        1..20 => (0..rng.random_range(0..300)).map(|_| rng.random::<u8>()).collect(),
        _ => text(rng).into_bytes().into(),
    }
}

/// What is left of a message after an accident.
pub(crate) fn broken(message: &Bytes, rng: &mut StdRng) -> Bytes {
    let mut bytes = message.to_vec();
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..=bytes.len());
        match rng.random_range(0..5) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            2 => bytes.insert(at, rng.random()),
            3 => bytes.extend_from_within(at..),
            _ => bytes.extend((0..rng.random_range(0..40)).map(|_| rng.random::<u8>())),
        }
        bytes.truncate(200_000);
    }
    bytes.into()
}

/// The text of a message, or of what is none.
pub(crate) fn json(kind: &MessageDescriptor, rng: &mut StdRng) -> String {
    let text = match rng.random_range(0..20) {
        0 => ["[", "{\"a\":", "[{\"\":"].choose(rng).expect("some").repeat(rng.random_range(1..20_000)),
        1 => junk(rng),
        _ => {
            let mut left = FIELDS_MAX;
            object(kind, rng, DEPTH_MAX, &mut left)
        }
    };
    if !rng.random_bool(0.1) {
        return text;
    }
    let at = rng.random_range(0..=text.len());
    let (mut at, text) = (at, text);
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    format!("{}{}", &text[..at], junk(rng))
}

fn object(kind: &MessageDescriptor, rng: &mut StdRng, depth: usize, left: &mut usize) -> String {
    let share = *[0.0, 0.4, 0.8, 1.0].choose(rng).expect("some");
    let mut parts = Vec::new();
    for field in kind.fields() {
        if *left == 0 || !rng.random_bool(share) {
            continue;
        }
        *left -= 1;
        let name = if rng.random() { field.name() } else { field.json_name() };
        let one = |rng: &mut StdRng, left: &mut usize| match field.kind() {
            _ if rng.random_bool(0.03) => junk(rng),
            Kind::Message(kind) if depth > 0 => object(&kind, rng, depth - 1, left),
            Kind::Message(_) => "{}".to_owned(),
            Kind::Bytes => quoted(&STANDARD.encode(blob(rng))),
            Kind::String => quoted(&text(rng)),
            Kind::Bool => rng.random::<bool>().to_string(),
            Kind::Enum(kind) if rng.random() => {
                let values: Vec<_> = kind.values().collect();
                quoted(values.choose(rng).expect("some").name())
            }
            _ if rng.random() => quoted(&number(rng).to_string()),
            _ => number(rng).to_string(),
        };
        let value = if field.cardinality() == Cardinality::Repeated {
            let values: Vec<_> = (0..rng.random_range(0..4)).map(|_| one(rng, left)).collect();
            format!("[{}]", values.join(","))
        } else {
            one(rng, left)
        };
        parts.push(format!("{}:{value}", quoted(name)));
    }
    format!("{{{}}}", parts.join(","))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn junk(rng: &mut StdRng) -> String {
    let words =
        ["null", "-", "1e999", "-0", "1e-1", "\"\\ud800\"", "\"", "}", "]", ",", "[]", "{}", "tru", "\"=\"", "0x1"];
    (*words.choose(rng).expect("some")).to_owned()
}
