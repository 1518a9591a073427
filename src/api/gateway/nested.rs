//! `Nested`: protobuf messages written inside out, whose lengths are known only when they end.
//!
//! ```text
//! open(tag) … fields … close   ─► the length goes where the message began, all of them in one pass at the end
//! ```
//! However deep messages lie in each other, each byte is copied twice at most.

use crate::api::grpc::frame::HEAD_LEN;
use crate::api::wire::varint_len;

/// A message in the making, of up to so many bytes. A larger one is forgotten, and only counted on: a refusal says
/// its length.
#[derive(Debug)]
pub(super) struct Nested {
    /// Everything but the lengths; nothing once it is too large.
    out: Vec<u8>,
    /// Where a length belongs, and how much it says; in the order of the places.
    lengths: Vec<(usize, u64)>,
    /// The messages that are open.
    open: Vec<Begun>,
    /// Bytes of everything but the lengths.
    written: usize,
    /// Bytes of the lengths of all messages that were closed.
    inserted: usize,
    max: usize,
    is_forgotten: bool,
}

/// How it stood as a message began.
#[derive(Clone, Copy, Debug)]
struct Begun {
    /// Its length's number.
    number: usize,
    written: usize,
    inserted: usize,
}

impl Nested {
    /// Nothing yet, and up to `max` bytes.
    pub(super) fn new(max: usize) -> Self {
        let (out, lengths, open) = (Vec::new(), Vec::new(), Vec::new());
        Self { out, lengths, open, written: 0, inserted: 0, max, is_forgotten: false }
    }

    /// Begins a message as a field.
    pub(super) fn open(&mut self, field: u32) {
        self.tag(field, 2);
        self.open.push(Begun { number: self.lengths.len(), written: self.written, inserted: self.inserted });
        if !self.is_forgotten {
            self.lengths.push((self.out.len(), 0));
        }
    }

    /// Ends the message that was begun last.
    pub(super) fn close(&mut self) {
        let Some(begun) = self.open.pop() else { return };
        let length = (self.written - begun.written + self.inserted - begun.inserted) as u64;
        if let Some((_, place)) = self.lengths.get_mut(begun.number) {
            *place = length;
        }
        self.inserted += varint_len(length);
        self.bound();
    }

    /// A field that is a number.
    pub(super) fn number(&mut self, field: u32, value: u64) {
        self.tag(field, 0);
        self.varint(value);
    }

    /// A field that is text or bytes.
    pub(super) fn bytes(&mut self, field: u32, value: &[u8]) {
        self.tag(field, 2);
        self.varint(value.len() as u64);
        self.written += value.len();
        self.bound();
        if !self.is_forgotten {
            self.out.extend_from_slice(value);
        }
    }

    /// The message with gRPC's head.
    ///
    /// # Errors
    /// The message's length, if that is too much.
    pub(super) fn framed(self) -> Result<Vec<u8>, usize> {
        let len = self.written + self.inserted;
        if self.is_forgotten {
            return Err(len);
        }
        let mut framed = Vec::with_capacity(HEAD_LEN + len);
        framed.push(0);
        framed.extend_from_slice(&u32::try_from(len).map_err(|_| len)?.to_be_bytes());
        let mut done = 0;
        for (at, length) in self.lengths {
            framed.extend_from_slice(&self.out[done..at]);
            put_varint(&mut framed, length);
            done = at;
        }
        framed.extend_from_slice(&self.out[done..]);
        Ok(framed)
    }

    fn tag(&mut self, field: u32, wire_type: u8) {
        self.varint(u64::from(field) << 3 | u64::from(wire_type));
    }

    fn varint(&mut self, value: u64) {
        self.written += varint_len(value);
        self.bound();
        if !self.is_forgotten {
            put_varint(&mut self.out, value);
        }
    }

    /// Forgets the message once it is too large.
    fn bound(&mut self) {
        if !self.is_forgotten && self.written + self.inserted > self.max {
            self.is_forgotten = true;
            (self.out, self.lengths) = (Vec::new(), Vec::new());
        }
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
            let mut out = Nested::new(usize::MAX);
            write(&mut out, &txn);
            let (framed, expected) = (out.framed().unwrap(), txn.encode_to_vec());
            assert_eq!(framed[..HEAD_LEN], [&[0], &(expected.len() as u32).to_be_bytes()[..]].concat());
            assert_eq!(framed[HEAD_LEN..], expected, "{levels} levels");
            for max in [0, 1, expected.len() / 2, expected.len().saturating_sub(1), expected.len()] {
                let mut out = Nested::new(max);
                write(&mut out, &txn);
                assert!(out.out.len() <= max);
                let whole = max >= expected.len();
                assert_eq!(out.framed(), if whole { Ok(framed.clone()) } else { Err(expected.len()) }, "{max}");
            }
        }
    }
}
