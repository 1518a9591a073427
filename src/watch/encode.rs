//! The wire's bytes of watch responses, written by hand so that an event is encoded once for all streams.
//!
//! ```text
//! gRPC message: [0][length u32 be] WatchResponse
//! WatchResponse: header(1) watch_id(2) created(3) canceled(4) compact_revision(5) reason(6) fragment(7) events(11)…
//! ```
//!
//! The field numbers are etcd's (`rpc.proto`, `kv.proto`). `tests/watch_service.rs` and the tests below decode with the
//! generated types what is written here.

use bytes::{BufMut, Bytes, BytesMut};

use crate::types::{Event, EventKind, KeyValue};

/// Bytes before each message on a gRPC stream: a flag and the length.
#[cfg(test)]
pub(crate) const PREFIX_BYTES: usize = 5;

const TAG_EVENTS: u8 = (11 << 3) | 2;
const TAG_WATCH_ID: u8 = 2 << 3;

/// The length of `value` as a varint, in bytes.
pub(crate) fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Writes `value` as a varint.
pub(crate) fn put_varint(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value as u8) | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// A numeric field; left out when it is zero, as proto3 has it. Negative numbers take ten bytes, as there.
fn put_number(out: &mut Vec<u8>, field: u8, value: u64) {
    if value != 0 {
        out.push(field << 3);
        put_varint(out, value);
    }
}

fn number_len(value: u64) -> usize {
    if value == 0 { 0 } else { 1 + varint_len(value) }
}

fn bytes_len(value: &[u8]) -> usize {
    if value.is_empty() { 0 } else { 1 + varint_len(value.len() as u64) + value.len() }
}

fn put_bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    if !value.is_empty() {
        out.push((field << 3) | 2);
        put_varint(out, value.len() as u64);
        out.extend_from_slice(value);
    }
}

fn key_value_len(kv: &KeyValue) -> usize {
    bytes_len(&kv.key)
        + number_len(kv.create_revision as u64)
        + number_len(kv.mod_revision as u64)
        + number_len(kv.version as u64)
        + bytes_len(&kv.value)
        + number_len(kv.lease.get() as u64)
}

fn put_key_value(out: &mut Vec<u8>, field: u8, kv: &KeyValue) {
    out.push((field << 3) | 2);
    put_varint(out, key_value_len(kv) as u64);
    put_bytes(out, 1, &kv.key);
    put_number(out, 2, kv.create_revision as u64);
    put_number(out, 3, kv.mod_revision as u64);
    put_number(out, 4, kv.version as u64);
    put_bytes(out, 5, &kv.value);
    put_number(out, 6, kv.lease.get() as u64);
}

fn nested_len(inner: usize) -> usize {
    1 + varint_len(inner as u64) + inner
}

/// An event as a whole `events` field of a response: tag, length, `mvccpb.Event`.
///
/// The bytes are an allocation of their own, so that who keeps them keeps nothing else.
pub(crate) fn event_field(event: &Event, prev: Option<&KeyValue>) -> Bytes {
    let kind = u64::from(event.kind == EventKind::Delete);
    let prev_len = prev.map_or(0, |prev| nested_len(key_value_len(prev)));
    let inner = number_len(kind) + nested_len(key_value_len(&event.kv)) + prev_len;
    let mut out = Vec::with_capacity(nested_len(inner));
    out.push(TAG_EVENTS);
    put_varint(&mut out, inner as u64);
    put_number(&mut out, 1, kind);
    put_key_value(&mut out, 2, &event.kv);
    if let Some(prev) = prev {
        put_key_value(&mut out, 3, prev);
    }
    out.into()
}

/// The same event field with its previous pair added, from the bytes without it.
pub(crate) fn event_field_with_prev(plain: &[u8], prev: &KeyValue) -> Bytes {
    let body_at = plain.iter().skip(1).position(|byte| byte & 0x80 == 0).map_or(plain.len(), |at| at + 2);
    let body = plain.get(body_at..).unwrap_or_default();
    let inner = body.len() + nested_len(key_value_len(prev));
    let mut out = Vec::with_capacity(nested_len(inner));
    out.push(TAG_EVENTS);
    put_varint(&mut out, inner as u64);
    out.extend_from_slice(body);
    put_key_value(&mut out, 3, prev);
    out.into()
}

/// Who answers: the parts of a response header besides the revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeaderIds {
    /// The cluster.
    pub cluster_id: u64,
    /// The member.
    pub member_id: u64,
    /// Its Raft term now.
    pub raft_term: u64,
}

/// A response header as a whole field.
pub(crate) fn header_field(out: &mut Vec<u8>, ids: HeaderIds, revision: i64) {
    let inner = number_len(ids.cluster_id)
        + number_len(ids.member_id)
        + number_len(revision as u64)
        + number_len(ids.raft_term);
    out.push((1 << 3) | 2);
    put_varint(out, inner as u64);
    put_number(out, 1, ids.cluster_id);
    put_number(out, 2, ids.member_id);
    put_number(out, 3, revision as u64);
    put_number(out, 4, ids.raft_term);
}

/// A response without events: an answer to a create or a cancel, or progress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Control {
    pub(crate) revision: i64,
    pub(crate) watch_id: i64,
    pub(crate) created: bool,
    pub(crate) canceled: bool,
    pub(crate) compact_revision: i64,
    pub(crate) cancel_reason: String,
}

/// Writes one whole gRPC message of a response without events.
pub(crate) fn put_control(out: &mut BytesMut, ids: HeaderIds, control: &Control) {
    let mut body = Vec::with_capacity(64 + control.cancel_reason.len());
    header_field(&mut body, ids, control.revision);
    put_number(&mut body, 2, control.watch_id as u64);
    put_number(&mut body, 3, u64::from(control.created));
    put_number(&mut body, 4, u64::from(control.canceled));
    put_number(&mut body, 5, control.compact_revision as u64);
    put_bytes(&mut body, 6, control.cancel_reason.as_bytes());
    put_prefix(out, body.len());
    out.put_slice(&body);
}

fn put_prefix(out: &mut BytesMut, message_len: usize) {
    out.put_u8(0);
    // A message above 4 GiB can't exist: a response's events are bounded by history rounds and request sizes.
    out.put_u32(u32::try_from(message_len).unwrap_or(u32::MAX));
}

/// Writes the beginning of a message up to its events: prefix, header, id, fragment flag.
pub(crate) fn put_message_start(out: &mut BytesMut, header: &[u8], watch_id: i64, fragment: bool, events_len: usize) {
    let id = watch_id as u64;
    put_prefix(out, header.len() + number_len(id) + 2 * usize::from(fragment) + events_len);
    out.put_slice(header);
    if id != 0 {
        out.put_u8(TAG_WATCH_ID);
        put_varint(out, id);
    }
    if fragment {
        out.put_slice(&[7 << 3, 1]);
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use rusd_proto::etcdserverpb::WatchResponse;

    use super::*;
    use crate::types::{LeaseId, Revision};

    fn pair(version: i64) -> KeyValue {
        KeyValue {
            key: Bytes::from_static(b"key"),
            value: Bytes::from(vec![7; 300]),
            create_revision: 2,
            mod_revision: 1 << 40,
            version,
            lease: LeaseId(-5),
        }
    }

    fn message(header: &[u8], id: i64, events: &[Bytes]) -> WatchResponse {
        let mut out = BytesMut::new();
        put_message_start(&mut out, header, id, true, events.iter().map(Bytes::len).sum());
        for event in events {
            out.put_slice(event);
        }
        assert_eq!(u32::from_be_bytes(out[1..5].try_into().unwrap()) as usize, out.len() - PREFIX_BYTES);
        WatchResponse::decode(&out[PREFIX_BYTES..]).unwrap()
    }

    #[test]
    fn the_generated_types_read_what_is_written_by_hand() {
        let put = Event { kind: EventKind::Put, kv: pair(9), revision: Revision::new(1 << 40, 0) };
        let gone = KeyValue { key: Bytes::from_static(b"key"), mod_revision: 3, ..KeyValue::default() };
        let delete = Event { kind: EventKind::Delete, kv: gone, revision: Revision::new(3, 1) };
        let plain = event_field(&put, None);
        let with = event_field_with_prev(&plain, &pair(8));
        assert_eq!(with, event_field(&put, Some(&pair(8))));

        let mut header = Vec::new();
        header_field(&mut header, HeaderIds { cluster_id: u64::MAX, member_id: 5, raft_term: 300 }, 77);
        for id in [0, 1, -1, i64::MAX] {
            let response = message(&header, id, &[plain.clone(), with.clone(), event_field(&delete, None)]);
            assert_eq!(response.watch_id, id);
            assert!(response.fragment);
            let head = response.header.as_ref().unwrap();
            assert_eq!((head.cluster_id, head.member_id, head.revision, head.raft_term), (u64::MAX, 5, 77, 300));
            assert_eq!(response.events.len(), 3);
            let kv = response.events[0].kv.as_ref().unwrap();
            assert_eq!((kv.version, kv.lease, kv.mod_revision, kv.value.len()), (9, -5, 1 << 40, 300));
            assert_eq!(response.events[0].prev_kv, None);
            assert_eq!(response.events[1].prev_kv.as_ref().unwrap().version, 8);
            assert_eq!(response.events[2].r#type, 1);
            assert_eq!(response.events[2].kv.as_ref().unwrap().mod_revision, 3);
        }
    }

    #[test]
    fn control_responses_decode() {
        let control = Control {
            revision: 0,
            watch_id: -1,
            created: true,
            canceled: true,
            compact_revision: 12,
            cancel_reason: "why".into(),
        };
        let mut out = BytesMut::new();
        put_control(&mut out, HeaderIds { cluster_id: 1, member_id: 2, raft_term: 3 }, &control);
        let response = WatchResponse::decode(&out[PREFIX_BYTES..]).unwrap();
        assert_eq!(response.header.unwrap().revision, 0);
        assert_eq!((response.watch_id, response.created, response.canceled), (-1, true, true));
        assert_eq!((response.compact_revision, response.cancel_reason.as_str()), (12, "why"));
    }

    #[test]
    fn varints_have_the_length_that_is_said() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out.len(), varint_len(value));
        }
    }
}
