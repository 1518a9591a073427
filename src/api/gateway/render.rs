//! From a message on the wire to JSON, as it comes: pieces in, pieces out, and nothing is kept but a few bytes.
//!
//! ```text
//! bytes, cut anywhere ─► tag ─┬► varint ─► number · "number" · name · true
//!                             ├► length ─┬► message: its fields, until it ends
//!                             │          ├► bytes ─► base64, three at a time
//!                             │          └► string ─► escapes
//!                             └► nobody's ─► passed by
//! ```
//! The rules are protojson's, as etcd's gateway sets it: fields by their names in the schema, nothing for what is
//! zero, 64 bits in quotes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rusd_proto::{Field, Kind, Shape, choice, shape_at};

/// A message on its way. Made anew for each.
#[derive(Debug)]
pub(super) struct Renderer {
    levels: Vec<Level>,
    /// Bytes that were taken in.
    at: u64,
    state: State,
}

/// A message that isn't over.
#[derive(Debug)]
struct Level {
    shape: &'static Shape,
    /// Where it ends.
    end: u64,
    is_empty: bool,
    /// The list that its last field is of.
    list: Option<u32>,
}

#[derive(Debug)]
enum State {
    /// At a tag, or the end of a message.
    Tag(Varint),
    /// At a number, of a field if the shape knows it.
    Number(Option<&'static Field>, Varint),
    /// At a length likewise.
    Length(Option<&'static Field>, Varint),
    /// In bytes: how many are left, and those that make no three yet.
    Bytes(u64, Vec<u8>),
    /// In a string: how many bytes are left.
    String(u64),
    /// In what nobody asks for.
    Unknown(u64),
    /// At the end, or at what is no message.
    Over,
}

#[derive(Clone, Copy, Debug, Default)]
struct Varint {
    value: u64,
    shift: u32,
}

impl Varint {
    /// The number, once a byte ends it; `None` inside for one that never ends.
    fn push(&mut self, byte: u8) -> Option<Option<u64>> {
        if self.shift > 63 {
            return Some(None);
        }
        self.value |= u64::from(byte & 0x7f) << self.shift;
        self.shift += 7;
        (byte < 0x80).then_some(Some(self.value))
    }
}

const TAG: State = State::Tag(Varint { value: 0, shift: 0 });

impl Renderer {
    /// A message of that type and of `len` bytes. What it begins with is written at once.
    pub(super) fn new(shape: &'static Shape, len: u64, out: &mut Vec<u8>) -> Self {
        out.push(b'{');
        let mut new = Self { levels: vec![Level { shape, end: len, is_empty: true, list: None }], at: 0, state: TAG };
        new.close_ended(out);
        new
    }

    /// Takes in bytes of the message, and none that come after it.
    pub(super) fn feed(&mut self, mut data: &[u8], out: &mut Vec<u8>) {
        while let Some((&byte, rest)) = data.split_first() {
            match &mut self.state {
                State::Bytes(left, carry) => {
                    let len = usize::try_from(*left).unwrap_or(usize::MAX).min(data.len());
                    let (now, later) = data.split_at(len);
                    data = later;
                    *left -= len as u64;
                    let is_last = *left == 0;
                    encode(now, carry, is_last, out);
                    self.passed(len, is_last, b"\"", out);
                }
                State::String(left) => {
                    let len = usize::try_from(*left).unwrap_or(usize::MAX).min(data.len());
                    let (now, later) = data.split_at(len);
                    data = later;
                    *left -= len as u64;
                    let is_last = *left == 0;
                    escape(now, out);
                    self.passed(len, is_last, b"\"", out);
                }
                State::Unknown(left) => {
                    let len = usize::try_from(*left).unwrap_or(usize::MAX).min(data.len());
                    data = &data[len..];
                    *left -= len as u64;
                    let is_last = *left == 0;
                    self.passed(len, is_last, b"", out);
                }
                State::Tag(varint) => {
                    data = rest;
                    let value = varint.push(byte);
                    self.at += 1;
                    if let Some(value) = value {
                        self.state = self.tagged(value);
                    }
                }
                State::Number(field, varint) => {
                    data = rest;
                    let (field, value) = (*field, varint.push(byte));
                    self.at += 1;
                    if let Some(value) = value {
                        self.state = TAG;
                        if let (Some(field), Some(value)) = (field, value) {
                            self.number(field, value, out);
                        }
                        self.close_ended(out);
                    }
                }
                State::Length(field, varint) => {
                    data = rest;
                    let (field, value) = (*field, varint.push(byte));
                    self.at += 1;
                    if let Some(value) = value {
                        self.state = self.measured(field, value, out);
                        self.close_ended(out);
                    }
                }
                State::Over => return,
            }
        }
    }

    /// So many bytes of a field were taken in; behind the last one stands `end`.
    fn passed(&mut self, len: usize, is_last: bool, end: &[u8], out: &mut Vec<u8>) {
        self.at += len as u64;
        if is_last {
            out.extend_from_slice(end);
            self.state = TAG;
            self.close_ended(out);
        }
    }

    /// What comes after a tag.
    fn tagged(&self, tag: Option<u64>) -> State {
        let Some((tag, level)) = tag.zip(self.levels.last()) else { return State::Over };
        let field = u32::try_from(tag >> 3).ok().and_then(|number| level.shape.by_number(number));
        match tag & 7 {
            0 => State::Number(field, Varint::default()),
            1 => State::Unknown(8),
            2 => State::Length(field, Varint::default()),
            5 => State::Unknown(4),
            // Groups: no message of ours has one.
            _ => State::Over,
        }
    }

    /// What comes after a length.
    fn measured(&mut self, field: Option<&'static Field>, len: Option<u64>, out: &mut Vec<u8>) -> State {
        let Some((len, level)) = len.zip(self.levels.last()) else { return State::Over };
        let left = level.end.saturating_sub(self.at);
        let len = len.min(left);
        match field {
            Some(field @ Field { kind: Kind::Message(inner), .. }) => {
                self.begin(field, out);
                out.push(b'{');
                let end = self.at + len;
                self.levels.push(Level { shape: shape_at(*inner), end, is_empty: true, list: None });
                TAG
            }
            Some(field @ Field { kind: Kind::Bytes | Kind::String, .. }) => {
                if len == 0 && !field.repeated && field.oneof.is_none() {
                    return TAG;
                }
                self.begin(field, out);
                out.push(b'"');
                match field.kind {
                    _ if len == 0 => {
                        out.push(b'"');
                        TAG
                    }
                    Kind::Bytes => State::Bytes(len, Vec::new()),
                    _ => State::String(len),
                }
            }
            _ if len == 0 => TAG,
            _ => State::Unknown(len),
        }
    }

    fn number(&mut self, field: &'static Field, value: u64, out: &mut Vec<u8>) {
        if value == 0 && !field.repeated && field.oneof.is_none() {
            return;
        }
        let signed = value.cast_signed();
        let text = match field.kind {
            Kind::Bool => (value != 0).to_string(),
            Kind::Int32 => (signed as i32).to_string(),
            Kind::Uint32 => (value as u32).to_string(),
            Kind::Int64 => format!("\"{signed}\""),
            Kind::Uint64 => format!("\"{value}\""),
            Kind::Enum(list) => match choice(list).name(signed as i32) {
                Some(name) => format!("\"{name}\""),
                None => (signed as i32).to_string(),
            },
            Kind::String | Kind::Bytes | Kind::Message(_) => return,
        };
        self.begin(field, out);
        out.extend_from_slice(text.as_bytes());
    }

    /// Writes what comes before a value: the end of a list, a comma, the name.
    fn begin(&mut self, field: &'static Field, out: &mut Vec<u8>) {
        let Some(level) = self.levels.last_mut() else { return };
        let goes_on = level.list == Some(field.number);
        if level.list.is_some() && !goes_on {
            out.push(b']');
        }
        if !level.is_empty {
            out.push(b',');
        }
        level.is_empty = false;
        level.list = field.repeated.then_some(field.number);
        if goes_on {
            return;
        }
        out.push(b'"');
        out.extend_from_slice(field.name.as_bytes());
        out.extend_from_slice(if field.repeated { b"\":[" } else { b"\":" });
    }

    /// Ends the messages that end here.
    fn close_ended(&mut self, out: &mut Vec<u8>) {
        if !matches!(self.state, State::Tag(_)) {
            return;
        }
        while let Some(level) = self.levels.pop_if(|level| level.end <= self.at) {
            if level.list.is_some() {
                out.push(b']');
            }
            out.push(b'}');
        }
        if self.levels.is_empty() {
            self.state = State::Over;
        }
    }
}

/// Appends base64 of `carry` and `data` as far as it is threes, and all of it at the last.
fn encode(mut data: &[u8], carry: &mut Vec<u8>, is_last: bool, out: &mut Vec<u8>) {
    if !carry.is_empty() || data.len() < 3 {
        let (head, rest) = data.split_at((3 - carry.len()).min(data.len()));
        carry.extend_from_slice(head);
        data = rest;
        if carry.len() == 3 || is_last {
            put_base64(carry, out);
            carry.clear();
        }
    }
    let whole = if is_last { data.len() } else { data.len() - data.len() % 3 };
    put_base64(&data[..whole], out);
    carry.extend_from_slice(&data[whole..]);
}

fn put_base64(data: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + data.len().div_ceil(3) * 4, 0);
    // There is room for just this.
    let written = STANDARD.encode_slice(data, &mut out[start..]).unwrap_or_default();
    out.truncate(start + written);
}

/// Appends a string's bytes as they stand between quotes.
pub(super) fn escape(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            byte => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use rusd_proto::{etcdserverpb as pb, mvccpb, shape};

    use super::*;

    /// The JSON of a message, taken in by pieces of `step` bytes.
    fn rendered(name: &str, wire: &[u8], step: usize) -> String {
        let mut out = Vec::new();
        let mut renderer = Renderer::new(shape(name).unwrap(), wire.len() as u64, &mut out);
        for piece in wire.chunks(step) {
            renderer.feed(piece, &mut out);
        }
        assert!(matches!(renderer.state, State::Over));
        String::from_utf8(out).unwrap()
    }

    fn each_way(name: &str, message: &impl Message, expected: &str) {
        let wire = message.encode_to_vec();
        for step in (1..=wire.len().max(1)).chain([1 << 20]) {
            assert_eq!(rendered(name, &wire, step), expected, "by {step}");
        }
    }

    #[test]
    fn a_range_is_written_as_etcd_writes_it_however_it_comes() {
        let header = Some(pb::ResponseHeader { cluster_id: u64::MAX, member_id: 7, revision: 2, raft_term: 0 });
        let pair = |key: &'static str, value: &'static [u8], lease| mvccpb::KeyValue {
            key: key.into(),
            value: value.into(),
            lease,
            ..Default::default()
        };
        let kvs =
            vec![pair("foo", b"bar!", 0), pair("a", b"", -1), mvccpb::KeyValue::default(), pair("bc", b"\xff\xfe", 3)];
        each_way(
            "etcdserverpb.RangeResponse",
            &pb::RangeResponse { header, kvs, more: true, count: 4 },
            r#"{"header":{"cluster_id":"18446744073709551615","member_id":"7","revision":"2"},"kvs":[{"key":"Zm9v","value":"YmFyIQ=="},{"key":"YQ==","lease":"-1"},{},{"key":"YmM=","value":"//4=","lease":"3"}],"more":true,"count":"4"}"#,
        );
        each_way("etcdserverpb.RangeResponse", &pb::RangeResponse::default(), "{}");
    }

    #[test]
    fn names_texts_numbers_and_lists() {
        let alarm = |alarm, member_id| pb::AlarmMember { alarm, member_id };
        each_way(
            "etcdserverpb.AlarmResponse",
            &pb::AlarmResponse { header: None, alarms: vec![alarm(1, 5), alarm(0, 0), alarm(9, 1)] },
            r#"{"alarms":[{"memberID":"5","alarm":"NOSPACE"},{},{"memberID":"1","alarm":9}]}"#,
        );
        each_way(
            "etcdserverpb.AuthUserListResponse",
            &pb::AuthUserListResponse { header: None, users: vec!["a\"\\\n\u{1}é".into(), String::new()] },
            r#"{"users":["a\"\\\n\u0001é",""]}"#,
        );
        each_way(
            "etcdserverpb.HashResponse",
            &pb::HashResponse { header: None, hash: u32::MAX },
            r#"{"hash":4294967295}"#,
        );
        let nested = pb::TxnResponse { header: Some(pb::ResponseHeader::default()), ..Default::default() };
        let op = |response| pb::ResponseOp { response: Some(response) };
        each_way(
            "etcdserverpb.TxnResponse",
            &pb::TxnResponse {
                header: None,
                succeeded: true,
                responses: vec![
                    op(pb::response_op::Response::ResponseTxn(nested)),
                    op(pb::response_op::Response::ResponsePut(pb::PutResponse::default())),
                ],
            },
            r#"{"succeeded":true,"responses":[{"response_txn":{"header":{}}},{"response_put":{}}]}"#,
        );
    }

    #[test]
    fn what_nobody_knows_is_passed_by() {
        let mut wire =
            vec![15 << 3, 7, 14 << 3 | 2, 2, 1, 2, 13 << 3 | 1, 1, 2, 3, 4, 5, 6, 7, 8, 12 << 3 | 5, 1, 2, 3, 4];
        wire.extend(pb::RangeResponse { count: 3, ..Default::default() }.encode_to_vec());
        for step in 1..wire.len() {
            assert_eq!(rendered("etcdserverpb.RangeResponse", &wire, step), r#"{"count":"3"}"#);
        }
    }

    /// A packed list of numbers would be passed by: no answer has one.
    #[test]
    fn no_answer_has_a_list_of_numbers() {
        for route in rusd_proto::routes() {
            let mut open = vec![shape(route.response).unwrap()];
            let mut seen = Vec::new();
            while let Some(shape) = open.pop() {
                if seen.contains(&shape.name) {
                    continue;
                }
                seen.push(shape.name);
                for field in shape.fields {
                    if let Kind::Message(inner) = field.kind {
                        open.push(shape_at(inner));
                    } else {
                        assert!(!field.repeated || matches!(field.kind, Kind::Bytes | Kind::String), "{field:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn junk_does_no_harm() {
        let mut junk = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..2_000 {
            let wire: Vec<u8> = (0..round % 97)
                .map(|_| {
                    junk = junk.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (junk >> 56) as u8
                })
                .collect();
            let mut out = Vec::new();
            let mut renderer = Renderer::new(shape("etcdserverpb.TxnResponse").unwrap(), wire.len() as u64, &mut out);
            wire.chunks(round % 7 + 1).for_each(|piece| renderer.feed(piece, &mut out));
        }
    }
}
