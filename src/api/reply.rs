//! The answers that are written by hand, and the one trait by which every answer is sent.
//!
//! ```text
//! Scoped<RangeResult> ─► RangeReply ─┐
//! PutResult, DeleteResult, TxnResult ┼─► Reply::write ─► grpc::body
//! prost message ─► Prost ────────────┘
//! ```
//! A transaction's nested answers carry only a revision in their header, and a nested
//! transaction's header is there but empty, as etcd has it.

use bytes::{BufMut, BytesMut};
use prost::Message;

use super::wire::{Header, int_len, kv_field_len, nested_len, put_bool, put_int, put_kv_field, put_nested, uint_len};
use crate::apply::{DeleteResult, OpResult, PutResult, TxnResult};
use crate::storage::RangeResult;

/// An answer that can write itself.
pub(crate) trait Reply {
    /// The exact number of bytes that [`Reply::write`] appends.
    fn encoded_len(&self) -> usize;
    /// Appends the protobuf encoding.
    fn write(&self, out: &mut BytesMut);
}

/// Any generated message as an answer.
pub(crate) struct Prost<M>(pub M);

impl<M: Message> Reply for Prost<M> {
    fn encoded_len(&self) -> usize {
        self.0.encoded_len()
    }

    fn write(&self, out: &mut BytesMut) {
        // A `BytesMut` grows, and running out of room is the only error there is.
        let _ = self.0.encode(out);
    }
}

/// `RangeResponse`.
pub(crate) struct RangeReply {
    pub(crate) header: Option<Header>,
    pub(crate) result: RangeResult,
}

/// The fields of a `RangeResponse` after the header.
fn range_body_len(result: &RangeResult) -> usize {
    result.kvs.iter().map(kv_field_len).sum::<usize>() + range_tail_len(result)
}

fn range_tail_len(result: &RangeResult) -> usize {
    uint_len(u64::from(result.more)) + int_len(result.count)
}

fn put_range_tail(out: &mut BytesMut, result: &RangeResult) {
    put_bool(out, 3, result.more);
    put_int(out, 4, result.count);
}

impl RangeReply {
    /// Appends what comes before the pairs.
    pub(crate) fn write_head(&self, out: &mut BytesMut) {
        if let Some(header) = &self.header {
            header.put_field(out);
        }
    }

    /// Appends what comes after the pairs.
    pub(crate) fn write_tail(&self, out: &mut BytesMut) {
        put_range_tail(out, &self.result);
    }
}

impl Reply for RangeReply {
    fn encoded_len(&self) -> usize {
        self.header.map_or(0, |header| header.field_len()) + range_body_len(&self.result)
    }

    fn write(&self, out: &mut BytesMut) {
        self.write_head(out);
        for kv in &self.result.kvs {
            put_kv_field(out, 2, kv);
        }
        self.write_tail(out);
    }
}

/// `PutResponse`.
pub(crate) struct PutReply {
    pub(crate) header: Header,
    pub(crate) result: PutResult,
}

impl Reply for PutReply {
    fn encoded_len(&self) -> usize {
        self.header.field_len() + self.result.prev_kv.as_ref().map_or(0, kv_field_len)
    }

    fn write(&self, out: &mut BytesMut) {
        self.header.put_field(out);
        if let Some(kv) = &self.result.prev_kv {
            put_kv_field(out, 2, kv);
        }
    }
}

/// `DeleteRangeResponse`.
pub(crate) struct DeleteReply {
    pub(crate) header: Header,
    pub(crate) result: DeleteResult,
}

impl Reply for DeleteReply {
    fn encoded_len(&self) -> usize {
        self.header.field_len()
            + int_len(self.result.deleted)
            + self.result.prev_kvs.iter().map(kv_field_len).sum::<usize>()
    }

    fn write(&self, out: &mut BytesMut) {
        self.header.put_field(out);
        put_int(out, 2, self.result.deleted);
        for kv in &self.result.prev_kvs {
            put_kv_field(out, 3, kv);
        }
    }
}

/// `TxnResponse`. Its length is counted while it is made, and nested ones are written where they belong, so that
/// neither is done once for every level.
pub(crate) struct TxnReply {
    header: Header,
    succeeded: bool,
    responses: Vec<OpReply>,
    len: usize,
}

impl TxnReply {
    pub(crate) fn new(header: Header, result: TxnResult) -> Self {
        let responses: Vec<OpReply> = result.responses.into_iter().map(OpReply::new).collect();
        let len = header.field_len()
            + uint_len(u64::from(result.succeeded))
            + responses.iter().map(|response| nested_len(response.len())).sum::<usize>();
        Self { header, succeeded: result.succeeded, responses, len }
    }
}

impl Reply for TxnReply {
    fn encoded_len(&self) -> usize {
        self.len
    }

    fn write(&self, out: &mut BytesMut) {
        self.header.put_field(out);
        put_bool(out, 2, self.succeeded);
        for response in &self.responses {
            put_nested(out, 3, response.len());
            match response {
                OpReply::Written(bytes) => out.put_slice(bytes),
                OpReply::Txn(reply) => {
                    put_nested(out, 4, reply.len);
                    reply.write(out);
                }
            }
        }
    }
}

/// One `ResponseOp`: a oneof whose field number tells the kind.
enum OpReply {
    Written(BytesMut),
    Txn(TxnReply),
}

impl OpReply {
    fn new(result: OpResult) -> Self {
        Self::Written(match result {
            OpResult::Range { result, revision } => {
                wrap(1, &RangeReply { header: Some(Header::nested(revision)), result })
            }
            OpResult::Put { result, revision } => wrap(2, &PutReply { header: Header::nested(revision), result }),
            OpResult::Delete { result, revision } => wrap(3, &DeleteReply { header: Header::nested(revision), result }),
            OpResult::Txn(result) => return Self::Txn(TxnReply::new(Header::default(), result)),
        })
    }

    fn len(&self) -> usize {
        match self {
            Self::Written(bytes) => bytes.len(),
            Self::Txn(reply) => nested_len(reply.len),
        }
    }
}

fn wrap(field: u8, reply: &impl Reply) -> BytesMut {
    let len = reply.encoded_len();
    let mut out = BytesMut::with_capacity(nested_len(len));
    put_nested(&mut out, field, len);
    reply.write(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use rusd_proto::{etcdserverpb as pb, mvccpb};

    use super::*;
    use crate::types::{KeyValue, LeaseId};

    fn written(reply: &impl Reply) -> bytes::Bytes {
        let mut out = BytesMut::new();
        reply.write(&mut out);
        assert_eq!(out.len(), reply.encoded_len());
        out.freeze()
    }

    /// Pairs with fields at 0, at the edges of varint lengths, and negative.
    fn pairs() -> Vec<KeyValue> {
        let pair = |key: &'static str, number: i64, value: usize| KeyValue {
            key: key.into(),
            value: vec![7; value].into(),
            create_revision: number,
            mod_revision: number.saturating_add(1),
            version: number / 2,
            lease: LeaseId(-number),
        };
        vec![pair("a", 0, 0), pair("bb", 127, 127), pair("c", 1 << 40, 128), pair("", i64::MAX, 70_000)]
    }

    fn wire(kv: &KeyValue) -> mvccpb::KeyValue {
        mvccpb::KeyValue {
            key: kv.key.clone(),
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
            value: kv.value.clone(),
            lease: kv.lease.get(),
        }
    }

    const HEADER: Header = Header { cluster_id: u64::MAX, member_id: 300, revision: 9, raft_term: 0 };

    fn wire_header(header: Header) -> Option<pb::ResponseHeader> {
        let Header { cluster_id, member_id, revision, raft_term } = header;
        Some(pb::ResponseHeader { cluster_id, member_id, revision, raft_term })
    }

    fn range(header: Option<Header>) -> (RangeResult, pb::RangeResponse) {
        let result = RangeResult { kvs: pairs(), more: true, count: 1000 };
        let wire = pb::RangeResponse {
            header: header.and_then(wire_header),
            kvs: pairs().iter().map(wire).collect(),
            more: true,
            count: 1000,
        };
        (result, wire)
    }

    #[test]
    fn simple_answers_are_what_prost_writes() {
        for header in [None, Some(HEADER)] {
            let (result, wire) = range(header);
            assert_eq!(written(&RangeReply { header, result }), wire.encode_to_vec());
        }
        let put = PutReply { header: HEADER, result: PutResult { prev_kv: pairs().pop() } };
        let wire_put = pb::PutResponse { header: wire_header(HEADER), prev_kv: pairs().last().map(wire) };
        assert_eq!(written(&put), wire_put.encode_to_vec());
        let delete = DeleteReply { header: HEADER, result: DeleteResult { deleted: -1, prev_kvs: pairs() } };
        let wire_delete = pb::DeleteRangeResponse {
            header: wire_header(HEADER),
            deleted: -1,
            prev_kvs: pairs().iter().map(wire).collect(),
        };
        assert_eq!(written(&delete), wire_delete.encode_to_vec());
    }

    #[test]
    fn nested_answers_carry_a_revision_and_a_nested_txn_an_empty_header() {
        use pb::response_op::Response as Wire;
        let (result, wire_range) = range(wire_header(Header::nested(4)).map(|_| Header::nested(4)));
        let inner = TxnResult {
            succeeded: false,
            responses: vec![OpResult::Put { result: PutResult::default(), revision: 5 }],
        };
        let delete = OpResult::Delete { result: DeleteResult::default(), revision: 6 };
        let txn = TxnResult {
            succeeded: true,
            responses: vec![OpResult::Range { result, revision: 4 }, OpResult::Txn(inner), delete],
        };
        let op = |response| pb::ResponseOp { response: Some(response) };
        let wire_inner = pb::TxnResponse {
            header: Some(pb::ResponseHeader::default()),
            succeeded: false,
            responses: vec![op(Wire::ResponsePut(pb::PutResponse {
                header: wire_header(Header::nested(5)),
                prev_kv: None,
            }))],
        };
        let wire_delete = pb::DeleteRangeResponse { header: wire_header(Header::nested(6)), ..Default::default() };
        let expected = pb::TxnResponse {
            header: wire_header(HEADER),
            succeeded: true,
            responses: vec![
                op(Wire::ResponseRange(wire_range)),
                op(Wire::ResponseTxn(wire_inner)),
                op(Wire::ResponseDeleteRange(wire_delete)),
            ],
        };
        assert_eq!(written(&TxnReply::new(HEADER, txn)), expected.encode_to_vec());
    }
}
