//! `Nested`: protobuf messages written inside out, whose lengths are known only when they end.
//!
//! ```text
//! open(tag) … fields … close   ─► the length goes where the message began, all of them in one pass at the end
//! ```
//! However deep messages lie in each other, each byte is copied twice at most.

use crate::api::grpc::frame::HEAD_LEN;
use crate::api::wire::varint_len;

/// A message in the making.
#[derive(Debug, Default)]
pub(super) struct Nested {
    /// Everything but the lengths.
    out: Vec<u8>,
    /// Where a length belongs, and how much it says; in the order of the places.
    lengths: Vec<(usize, u64)>,
    /// The messages that are open: their lengths' numbers, and `inserted` as they began.
    open: Vec<(usize, usize)>,
    /// Bytes of the lengths of all messages that were closed.
    inserted: usize,
}

impl Nested {
    /// Begins a message as a field.
    pub(super) fn open(&mut self, field: u32) {
        self.tag(field, 2);
        self.open.push((self.lengths.len(), self.inserted));
        self.lengths.push((self.out.len(), 0));
    }

    /// Ends the message that was begun last.
    pub(super) fn close(&mut self) {
        let Some((number, inserted)) = self.open.pop() else { return };
        let (at, length) = &mut self.lengths[number];
        *length = (self.out.len() - *at + self.inserted - inserted) as u64;
        self.inserted += varint_len(*length);
    }

    /// A field that is a number.
    pub(super) fn number(&mut self, field: u32, value: u64) {
        self.tag(field, 0);
        put_varint(&mut self.out, value);
    }

    /// A field that is text or bytes.
    pub(super) fn bytes(&mut self, field: u32, value: &[u8]) {
        self.tag(field, 2);
        put_varint(&mut self.out, value.len() as u64);
        self.out.extend_from_slice(value);
    }

    /// The message with gRPC's head.
    pub(super) fn framed(self) -> Vec<u8> {
        let len = self.out.len() + self.inserted;
        let mut framed = Vec::with_capacity(HEAD_LEN + len);
        framed.push(0);
        // A text is bounded far below that, and a message is hardly longer than its text.
        framed.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
        let mut done = 0;
        for (at, length) in self.lengths {
            framed.extend_from_slice(&self.out[done..at]);
            put_varint(&mut framed, length);
            done = at;
        }
        framed.extend_from_slice(&self.out[done..]);
        framed
    }

    fn tag(&mut self, field: u32, wire_type: u8) {
        put_varint(&mut self.out, u64::from(field) << 3 | u64::from(wire_type));
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use rusd_proto::etcdserverpb as pb;

    use super::*;

    /// A transaction in a transaction and so on, each with a value beside it, so that lengths have one to four bytes.
    fn deep(levels: usize) -> pb::TxnRequest {
        let op = |request| pb::RequestOp { request: Some(request) };
        (0..levels).fold(pb::TxnRequest::default(), |inner, level| pb::TxnRequest {
            success: vec![
                op(pb::request_op::Request::RequestTxn(inner)),
                op(pb::request_op::Request::RequestPut(pb::PutRequest {
                    value: vec![7; level * 50].into(),
                    lease: -1,
                    ..Default::default()
                })),
            ],
            ..Default::default()
        })
    }

    fn write(out: &mut Nested, txn: &pb::TxnRequest) {
        for op in &txn.success {
            out.open(2);
            match op.request.as_ref().unwrap() {
                pb::request_op::Request::RequestTxn(inner) => {
                    out.open(4);
                    write(out, inner);
                    out.close();
                }
                pb::request_op::Request::RequestPut(put) => {
                    out.open(2);
                    if !put.value.is_empty() {
                        out.bytes(2, &put.value);
                    }
                    out.number(3, put.lease.cast_unsigned());
                    out.close();
                }
                other => panic!("{other:?}"),
            }
            out.close();
        }
    }

    #[test]
    fn lengths_are_what_prost_writes() {
        for levels in [0, 1, 2, 3, 40] {
            let txn = deep(levels);
            let mut out = Nested::default();
            write(&mut out, &txn);
            let (framed, expected) = (out.framed(), txn.encode_to_vec());
            assert_eq!(framed[..HEAD_LEN], [&[0], &(expected.len() as u32).to_be_bytes()[..]].concat());
            assert_eq!(framed[HEAD_LEN..], expected, "{levels} levels");
        }
    }
}
