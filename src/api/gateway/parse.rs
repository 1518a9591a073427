//! From a request as JSON to the same message on the wire, by the shape of its type.
//!
//! ```text
//! Text ─► key ─► Field ─┬► scalar ─► Nested
//!                       ├► message ─► open … close     (a stack of our own: depth costs no recursion)
//!                       └► nobody's ─► passed by
//! ```
//! The rules are protojson's, as etcd's gateway sets it: both names of a field, unknown fields and unknown names
//! of enums are passed by, null is nothing, a number may be a string, bytes are base64 of either alphabet.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet::{Alphabet, STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use rusd_proto::{Field, Kind, Shape, choice, shape_at};

use super::nested::Nested;
use super::number;
use super::text::{At, Fault, Text, Token};

/// What is being read.
enum Level {
    Object(Object),
    /// A list of messages, as the field that it is.
    List(&'static Field, usize),
}

struct Object {
    shape: &'static Shape,
    /// The fields that were there, a bit for each.
    seen: u64,
    /// The oneofs that are set.
    set: u64,
}

impl Object {
    const fn new(shape: &'static Shape) -> Self {
        Self { shape, seen: 0, set: 0 }
    }
}

/// The message of type `shape` that `json`, one whole value, means, if it has `max` bytes at most.
///
/// # Errors
/// What protojson says to it.
pub(super) fn to_wire(json: &[u8], shape: &'static Shape, max: usize) -> Result<Nested, Fault> {
    let mut text = Text::new(json);
    let mut out = Nested::new(max);
    open(&mut text)?;
    let mut levels = vec![Level::Object(Object::new(shape))];
    while let Some(level) = levels.last_mut() {
        let inner = match level {
            Level::Object(object) => match text.key()? {
                Some((key, at)) => member(&mut text, &mut out, object, &key, at)?,
                None => {
                    levels.pop();
                    out.close();
                    None
                }
            },
            Level::List(field, inner) => {
                if text.element() {
                    open(&mut text)?;
                    out.open(field.number);
                    Some(Level::Object(Object::new(shape_at(*inner))))
                } else {
                    levels.pop();
                    None
                }
            }
        };
        levels.extend(inner);
    }
    Ok(out)
}

/// One member of an object; what is to be read next if it isn't done with it.
fn member(
    text: &mut Text<'_>,
    out: &mut Nested,
    object: &mut Object,
    key: &str,
    at: At,
) -> Result<Option<Level>, Fault> {
    let Some((index, field)) = object.shape.by_key(key) else { return text.skip().map(|()| None) };
    if object.seen & 1 << index != 0 {
        return Err(text.fault(at, &format!("duplicate field {}", text.raw(at))));
    }
    object.seen |= 1 << index;
    if text.null() {
        return Ok(None);
    }
    if field.repeated {
        match text.token()? {
            (Token::Array, _) => {}
            (_, at) => return Err(text.unexpected(at)),
        }
        if let Kind::Message(inner) = field.kind {
            return Ok(Some(Level::List(field, inner)));
        }
        while text.element() {
            scalar(text, out, field)?;
        }
        return Ok(None);
    }
    if let Some((index, name)) = field.oneof {
        if object.set & 1 << index != 0 {
            return Err(text.fault(at, &format!("error parsing {}, oneof {name} is already set", text.raw(at))));
        }
        object.set |= 1 << index;
    }
    if let Kind::Message(inner) = field.kind {
        open(text)?;
        out.open(field.number);
        return Ok(Some(Level::Object(Object::new(shape_at(inner)))));
    }
    scalar(text, out, field)?;
    Ok(None)
}

fn open(text: &mut Text<'_>) -> Result<(), Fault> {
    match text.token()? {
        (Token::Object, _) => Ok(()),
        (_, at) => Err(text.unexpected(at)),
    }
}

fn scalar(text: &mut Text<'_>, out: &mut Nested, field: &Field) -> Result<(), Fault> {
    let (token, at) = text.token()?;
    let written = match (field.kind, &token) {
        (Kind::Bool, Token::Bool(value)) => {
            out.number(field.number, u64::from(*value));
            true
        }
        (Kind::String, Token::String(value)) => {
            out.bytes(field.number, value.as_bytes());
            true
        }
        (Kind::Bytes, Token::String(value)) => base64_of(value).map(|bytes| out.bytes(field.number, &bytes)).is_some(),
        (Kind::Enum(list), Token::String(name)) => {
            // A name that nobody knows is passed by, as an unknown field is.
            if let Some(number) = choice(list).number(name) {
                out.number(field.number, i64::from(number).cast_unsigned());
            }
            true
        }
        (_, Token::Number(_)) | (Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64, Token::String(_)) => {
            put_integer(out, field, number_of(&token))
        }
        _ => false,
    };
    if written {
        return Ok(());
    }
    let kind = match field.kind {
        Kind::Bool => "bool",
        Kind::Int32 => "int32",
        Kind::Int64 => "int64",
        Kind::Uint32 => "uint32",
        Kind::Uint64 => "uint64",
        Kind::String => "string",
        Kind::Bytes => "bytes",
        Kind::Enum(_) => "enum",
        Kind::Message(_) => "message",
    };
    Err(text.fault(at, &format!("invalid value for {kind} field {}: {}", field.json_name, text.raw(at))))
}

fn number_of(token: &Token<'_>) -> Option<i128> {
    match token {
        Token::Number(text) => number::integer(text),
        Token::String(text) => number::quoted(text).and_then(number::integer),
        _ => None,
    }
}

/// Whether a number is one of the field's kind; then it is written.
fn put_integer(out: &mut Nested, field: &Field, value: Option<i128>) -> bool {
    let wire = value.and_then(|value| match field.kind {
        Kind::Int32 | Kind::Enum(_) => i32::try_from(value).ok().map(|value| i64::from(value).cast_unsigned()),
        Kind::Int64 => i64::try_from(value).ok().map(i64::cast_unsigned),
        Kind::Uint32 => u32::try_from(value).ok().map(u64::from),
        Kind::Uint64 => u64::try_from(value).ok(),
        Kind::Bool | Kind::String | Kind::Bytes | Kind::Message(_) => None,
    });
    if let Some(wire) = wire {
        out.number(field.number, wire);
    }
    wire.is_some()
}

/// Base64 as Go's protojson takes it: of either alphabet, with padding if the length says so, line ends passed by.
fn base64_of(text: &str) -> Option<Vec<u8>> {
    const fn engine(alphabet: &Alphabet, padding: DecodePaddingMode) -> GeneralPurpose {
        let config = GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
        GeneralPurpose::new(alphabet, config.with_decode_padding_mode(padding))
    }
    static PADDED: [GeneralPurpose; 2] = [
        engine(&STANDARD, DecodePaddingMode::RequireCanonical),
        engine(&URL_SAFE, DecodePaddingMode::RequireCanonical),
    ];
    static BARE: [GeneralPurpose; 2] =
        [engine(&STANDARD, DecodePaddingMode::RequireNone), engine(&URL_SAFE, DecodePaddingMode::RequireNone)];
    let alphabet = usize::from(text.contains(['-', '_']));
    let engines = if text.len().is_multiple_of(4) { &PADDED } else { &BARE };
    let text = if text.contains(['\r', '\n']) { Cow::Owned(text.replace(['\r', '\n'], "")) } else { text.into() };
    engines[alphabet].decode(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use rusd_proto::etcdserverpb as pb;
    use rusd_proto::shape;

    use super::*;

    fn parsed<M: Message + Default>(name: &str, json: &str) -> Result<M, String> {
        let message = to_wire(json.as_bytes(), shape(name).unwrap(), usize::MAX).map_err(|fault| fault.0)?;
        let framed = message.framed().unwrap();
        Ok(M::decode(&framed[5..]).expect("what is written can be read"))
    }

    fn range(json: &str) -> Result<pb::RangeRequest, String> {
        parsed("etcdserverpb.RangeRequest", json)
    }

    #[test]
    fn a_request_is_read_by_either_name_of_its_fields() {
        let expected = pb::RangeRequest {
            key: "foo".into(),
            range_end: "a".into(),
            limit: -3,
            sort_order: 2,
            serializable: true,
            ..Default::default()
        };
        for json in [
            r#"{"key":"Zm9v","range_end":"YQ==","limit":"-3","sort_order":"DESCEND","serializable":true}"#,
            r#" { "rangeEnd" : "YQ" , "sortOrder":2,"limit":-3.0,"key":"Zm\n9v", "serializable":true, "x":{"y":[{}]} }"#,
        ] {
            assert_eq!(range(json).as_ref(), Ok(&expected));
        }
        assert_eq!(range(r#"{"key":null,"sort_order":"NOPE","RangeEnd":7,"":1}"#), Ok(pb::RangeRequest::default()));
    }

    #[test]
    fn faults_are_protojsons() {
        for (json, fault) in [
            ("null", "syntax error (line 1:1): unexpected token null"),
            ("[]", "syntax error (line 1:1): unexpected token ["),
            (r#"{"key":5}"#, "(line 1:8): invalid value for bytes field key: 5"),
            (r#"{"key":{"a":1}}"#, "(line 1:8): invalid value for bytes field key: {"),
            (r#"{"key":"nope!"}"#, r#"(line 1:8): invalid value for bytes field key: "nope!""#),
            (r#"{"key":"Zm9v="}"#, r#"(line 1:8): invalid value for bytes field key: "Zm9v=""#),
            (
                r#"{"limit":9223372036854775808}"#,
                "(line 1:10): invalid value for int64 field limit: 9223372036854775808",
            ),
            (r#"{"limit":true}"#, "(line 1:10): invalid value for int64 field limit: true"),
            (r#"{"sort_order":1.5}"#, "(line 1:15): invalid value for enum field sortOrder: 1.5"),
            (r#"{"serializable":1}"#, "(line 1:17): invalid value for bool field serializable: 1"),
            ("{\"key\":\"\",\n \"key\":\"\"}", "(line 2:2): duplicate field \"key\""),
            (r#"{"rangeEnd":"","range_end":""}"#, "(line 1:16): duplicate field \"range_end\""),
        ] {
            assert_eq!(range(json), Err(format!("proto: {fault}")), "{json}");
        }
    }

    #[test]
    fn messages_in_lists_in_messages() {
        let txn = |json: &str| parsed::<pb::TxnRequest>("etcdserverpb.TxnRequest", json);
        let read = txn(
            r#"{"compare":[{"key":"YQ==","version":"0"},{}],"success":[{"request_txn":{"failure":[{"requestPut":{"key":"Yg=="}}]}}]}"#,
        );
        let put = pb::PutRequest { key: "b".into(), ..Default::default() };
        let op = |request| pb::RequestOp { request: Some(request) };
        let inner =
            pb::TxnRequest { failure: vec![op(pb::request_op::Request::RequestPut(put))], ..Default::default() };
        let version = pb::compare::TargetUnion::Version(0);
        let expected = pb::TxnRequest {
            compare: vec![
                pb::Compare { key: "a".into(), target_union: Some(version), ..Default::default() },
                pb::Compare::default(),
            ],
            success: vec![op(pb::request_op::Request::RequestTxn(inner))],
            ..Default::default()
        };
        assert_eq!(read, Ok(expected));
        assert_eq!(txn(r#"{"success":null,"failure":[{"request_put":null}]}"#).unwrap().failure.len(), 1);
        for (json, fault) in [
            (r#"{"success":[null]}"#, "syntax error (line 1:13): unexpected token null"),
            (r#"{"success":{}}"#, "syntax error (line 1:12): unexpected token {"),
            (
                r#"{"success":[{"request_put":{},"request_range":{}}]}"#,
                r#"(line 1:31): error parsing "request_range", oneof etcdserverpb.RequestOp.request is already set"#,
            ),
        ] {
            assert_eq!(txn(json), Err(format!("proto: {fault}")), "{json}");
        }
    }

    #[test]
    fn a_list_of_names_and_depth() {
        let json = r#"{"create_request":{"key":"YQ==","filters":["NOPUT","NODELETE",1,"?"],"watch_id":"5"}}"#;
        let watch: pb::WatchRequest = parsed("etcdserverpb.WatchRequest", json).unwrap();
        let Some(pb::watch_request::RequestUnion::CreateRequest(create)) = watch.request_union else { panic!() };
        assert_eq!((create.filters, create.watch_id), (vec![0, 1, 1], 5));
        let deep = format!("{}{{}}{}", r#"{"success":[{"request_txn":"#.repeat(3_000), "}]}".repeat(3_000));
        assert!(to_wire(deep.as_bytes(), shape("etcdserverpb.TxnRequest").unwrap(), 1 << 20).is_ok());
    }
}
