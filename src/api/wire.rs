//! Protobuf by hand, for the messages that are answered most: no intermediate structs, values
//! copied once, from the snapshot's bytes straight into the output.
//!
//! ```text
//! Writer { out }  varint · int64 · bool · bytes · message(len, |w| …)
//! *_len           the exact size of what the function beside it writes (proto3: zero is absent)
//! ```
//! The tests hold every function here against prost's encoding of the same message.

use bytes::{BufMut, BytesMut};

use crate::types::KeyValue;

/// Bytes that `value` takes as a varint.
pub(crate) const fn varint_len(value: u64) -> usize {
    ((63 - (value | 1).leading_zeros() as usize) * 9 + 73) / 64
}

/// Bytes of a field of one-byte tag with a varint; none if it is zero.
pub(crate) const fn uint_len(value: u64) -> usize {
    if value == 0 { 0 } else { 1 + varint_len(value) }
}

/// See [`uint_len`].
pub(crate) const fn int_len(value: i64) -> usize {
    uint_len(value.cast_unsigned())
}

/// Bytes of a field of one-byte tag with a length and that many bytes, also if it is empty.
pub(crate) const fn nested_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

/// Bytes of a `bytes` or `string` field of one-byte tag; none if it is empty.
pub(crate) const fn bytes_len(len: usize) -> usize {
    if len == 0 { 0 } else { nested_len(len) }
}

/// Appends a varint.
pub(crate) fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value as u8) | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Appends an unsigned field; nothing if it is zero.
pub(crate) fn put_uint(out: &mut BytesMut, field: u8, value: u64) {
    if value != 0 {
        out.put_u8(field << 3);
        put_varint(out, value);
    }
}

/// Appends an `int64` field; nothing if it is zero.
pub(crate) fn put_int(out: &mut BytesMut, field: u8, value: i64) {
    put_uint(out, field, value.cast_unsigned());
}

/// Appends a `bool` field; nothing if it is false.
pub(crate) fn put_bool(out: &mut BytesMut, field: u8, value: bool) {
    put_uint(out, field, u64::from(value));
}

/// Appends a `bytes` field; nothing if it is empty.
pub(crate) fn put_bytes(out: &mut BytesMut, field: u8, value: &[u8]) {
    if !value.is_empty() {
        put_nested(out, field, value.len());
        out.put_slice(value);
    }
}

/// Appends the head of a nested message of `len` bytes, also if it is empty.
pub(crate) fn put_nested(out: &mut BytesMut, field: u8, len: usize) {
    out.put_u8(field << 3 | 2);
    put_varint(out, len as u64);
}

/// A response's header, as it goes out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    /// The answering member's cluster.
    pub cluster_id: u64,
    /// The answering member.
    pub member_id: u64,
    /// The store's revision that the answer stands at.
    pub revision: i64,
    /// The answering member's term.
    pub raft_term: u64,
}

impl Header {
    /// A header inside a transaction's answer: only the revision.
    pub(crate) const fn nested(revision: i64) -> Self {
        Self { cluster_id: 0, member_id: 0, revision, raft_term: 0 }
    }

    fn body_len(&self) -> usize {
        uint_len(self.cluster_id) + uint_len(self.member_id) + int_len(self.revision) + uint_len(self.raft_term)
    }

    /// Bytes of the header as field 1 of a response.
    pub(crate) fn field_len(&self) -> usize {
        nested_len(self.body_len())
    }

    /// Appends the header as field 1.
    pub(crate) fn put_field(&self, out: &mut BytesMut) {
        put_nested(out, 1, self.body_len());
        put_uint(out, 1, self.cluster_id);
        put_uint(out, 2, self.member_id);
        put_int(out, 3, self.revision);
        put_uint(out, 4, self.raft_term);
    }
}

/// Bytes of a `mvccpb.KeyValue`.
pub(crate) fn kv_len(kv: &KeyValue) -> usize {
    bytes_len(kv.key.len())
        + int_len(kv.create_revision)
        + int_len(kv.mod_revision)
        + int_len(kv.version)
        + bytes_len(kv.value.len())
        + int_len(kv.lease.get())
}

/// Bytes of a `mvccpb.KeyValue` as a field of one-byte tag.
pub(crate) fn kv_field_len(kv: &KeyValue) -> usize {
    nested_len(kv_len(kv))
}

/// Appends a `mvccpb.KeyValue` as a field.
pub(crate) fn put_kv_field(out: &mut BytesMut, field: u8, kv: &KeyValue) {
    let mut head = Scratch::default();
    head.nested(field, kv_len(kv));
    if !kv.key.is_empty() {
        head.nested(1, kv.key.len());
    }
    out.put_slice(head.bytes());
    out.put_slice(&kv.key);
    let mut middle = Scratch::default();
    middle.int(2, kv.create_revision);
    middle.int(3, kv.mod_revision);
    middle.int(4, kv.version);
    if !kv.value.is_empty() {
        middle.nested(5, kv.value.len());
    }
    out.put_slice(middle.bytes());
    out.put_slice(&kv.value);
    put_int(out, 6, kv.lease.get());
}

/// Numbers on their way into the output: a few at a time, since each append there checks for room.
struct Scratch {
    bytes: [u8; Self::ROOM],
    len: usize,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { bytes: [0; Self::ROOM], len: 0 }
    }
}

impl Scratch {
    /// Four fields: a tag and a varint of at most ten bytes each.
    const ROOM: usize = 4 * 11;

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn byte(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte((value as u8) | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    fn int(&mut self, field: u8, value: i64) {
        if value != 0 {
            self.byte(field << 3);
            self.varint(value.cast_unsigned());
        }
    }

    fn nested(&mut self, field: u8, len: usize) {
        self.byte(field << 3 | 2);
        self.varint(len as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_varints_length_is_what_is_written() {
        for shift in 0..64 {
            for value in [1_u64 << shift, (1 << shift) - 1, (1_u64 << shift).wrapping_add(1), u64::MAX >> shift] {
                let mut out = BytesMut::new();
                put_varint(&mut out, value);
                assert_eq!(out.len(), varint_len(value), "{value}");
            }
        }
    }
}
