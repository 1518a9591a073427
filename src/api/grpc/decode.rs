//! The bytes of one message into a request, with grpc-go's words for those that are none.
//!
//! ```text
//! bytes ─► prost, at most a hundred messages deep ─┬► request
//!                                                  └► too deep: a Txn? ─► level by level ─► request
//! ```
//! The decoder's bound keeps its stack from what a client sends. Of all that etcd's protocol has, only
//! transactions nest, two messages a level, and etcd takes 129 levels of them: with 128 operations, each level
//! spends one. So deeper ones are taken apart again with nested transactions left as bytes, down to
//! [`TXN_DEPTH_MAX`], which is the bound of the rooms below.

use bytes::Bytes;
use prost::{DecodeError, Message};
use rusd_proto::etcdserverpb as pb;
use tonic::Status;

use crate::api::errors;
use crate::apply::codec::TXN_DEPTH_MAX;
use crate::types::RequestError;

/// A request that can be read from its bytes.
pub(crate) trait FromWire: Sized + Send {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    fn from_wire(message: Bytes) -> Result<Self, Fault>;
}

impl<M: Message + Default> FromWire for M {
    fn from_wire(message: Bytes) -> Result<Self, Fault> {
        M::decode(message).map_err(Fault::from)
    }
}

/// What may be wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Not a message of this type.
    Junk,
    /// Text that is not UTF-8.
    NotText,
    /// Messages within messages beyond the decoder's bound.
    TooDeep,
    /// Transactions within transactions beyond [`TXN_DEPTH_MAX`].
    TooManyTxns,
}

impl From<DecodeError> for Fault {
    fn from(error: DecodeError) -> Self {
        let error = error.to_string();
        if error.ends_with("recursion limit reached") {
            Self::TooDeep
        } else if error.contains("not UTF-8") {
            Self::NotText
        } else {
            Self::Junk
        }
    }
}

impl Fault {
    /// The call's end: `doing` is what grpc-go says it was at.
    fn status(self, doing: &str) -> Status {
        let words = match self {
            Self::Junk => "proto: cannot parse invalid wire-format data",
            Self::NotText => "string field contains invalid UTF-8",
            Self::TooDeep => "proto: exceeded maximum recursion depth",
            Self::TooManyTxns => return errors::status(&RequestError::TooManyOps),
        };
        Status::internal(format!("grpc: {doing}: {words}"))
    }
}

/// Decodes a unary call's message.
///
/// # Errors
/// Not a message of this type, text that is not UTF-8, or nested too deep.
pub(crate) fn decode<R: FromWire>(message: Bytes) -> Result<R, Status> {
    R::from_wire(message).map_err(|fault| fault.status("error unmarshalling request"))
}

/// Decodes a message of a stream.
///
/// # Errors
/// As [`decode`], in grpc-go's other words.
pub(crate) fn decode_streamed<R: FromWire>(message: Bytes) -> Result<R, Status> {
    R::from_wire(message).map_err(|fault| fault.status("failed to unmarshal the received message"))
}

/// A transaction with up to [`TXN_DEPTH_MAX`] levels, itself counted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Nesting(pub(crate) pb::TxnRequest);

impl FromWire for Nesting {
    fn from_wire(message: Bytes) -> Result<Self, Fault> {
        let txn = match pb::TxnRequest::decode(message.clone()).map_err(Fault::from) {
            Err(Fault::TooDeep) => levels(message, 1)?,
            other => other?,
        };
        Ok(Self(txn))
    }
}

/// `TxnRequest` whose nested ones are still bytes: on the wire, both are a length and that many bytes.
#[derive(Message)]
struct Level {
    #[prost(message, repeated, tag = "1")]
    compare: Vec<pb::Compare>,
    #[prost(message, repeated, tag = "2")]
    success: Vec<LevelOp>,
    #[prost(message, repeated, tag = "3")]
    failure: Vec<LevelOp>,
}

/// `RequestOp` likewise.
#[derive(Message)]
struct LevelOp {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4")]
    request: Option<Kind>,
}

#[derive(prost::Oneof)]
enum Kind {
    #[prost(message, tag = "1")]
    Range(pb::RangeRequest),
    #[prost(message, tag = "2")]
    Put(pb::PutRequest),
    #[prost(message, tag = "3")]
    DeleteRange(pb::DeleteRangeRequest),
    #[prost(bytes = "bytes", tag = "4")]
    Txn(Bytes),
}

fn levels(message: Bytes, depth: usize) -> Result<pb::TxnRequest, Fault> {
    if depth > TXN_DEPTH_MAX {
        return Err(Fault::TooManyTxns);
    }
    let level = Level::decode(message)?;
    let branch = |ops: Vec<LevelOp>| ops.into_iter().map(|op| operation(op, depth)).collect::<Result<_, _>>();
    Ok(pb::TxnRequest { compare: level.compare, success: branch(level.success)?, failure: branch(level.failure)? })
}

fn operation(op: LevelOp, depth: usize) -> Result<pb::RequestOp, Fault> {
    use pb::request_op::Request;
    let request = match op.request {
        None => None,
        Some(Kind::Range(range)) => Some(Request::RequestRange(range)),
        Some(Kind::Put(put)) => Some(Request::RequestPut(put)),
        Some(Kind::DeleteRange(delete)) => Some(Request::RequestDeleteRange(delete)),
        Some(Kind::Txn(nested)) => Some(Request::RequestTxn(levels(nested, depth + 1)?)),
    };
    Ok(pb::RequestOp { request })
}

#[cfg(test)]
mod tests {
    use pb::request_op::Request;

    use super::*;

    fn op(request: Request) -> pb::RequestOp {
        pb::RequestOp { request: Some(request) }
    }

    /// One of each operation beside each nested transaction.
    fn nest(depth: usize) -> pb::TxnRequest {
        let leaf = pb::TxnRequest { success: vec![pb::RequestOp { request: None }], ..Default::default() };
        (1..depth).fold(leaf, |inner, level| pb::TxnRequest {
            compare: vec![pb::Compare { key: level.to_string().into(), ..Default::default() }],
            success: vec![
                op(Request::RequestPut(pb::PutRequest { key: "p".into(), value: "v".into(), ..Default::default() })),
                op(Request::RequestTxn(inner)),
            ],
            failure: vec![
                op(Request::RequestRange(pb::RangeRequest { key: "r".into(), limit: 3, ..Default::default() })),
                op(Request::RequestDeleteRange(pb::DeleteRangeRequest { key: "d".into(), ..Default::default() })),
                op(Request::RequestTxn(pb::TxnRequest::default())),
            ],
        })
    }

    #[test]
    fn a_nested_txn_is_read_however_deep_up_to_the_bound() {
        for depth in [1, 2, 49, 50, 51, 128, 129, TXN_DEPTH_MAX] {
            let txn = nest(depth);
            assert_eq!(Nesting::from_wire(txn.encode_to_vec().into()), Ok(Nesting(txn)), "{depth} levels");
        }
        for depth in [TXN_DEPTH_MAX + 1, 2_000] {
            let bytes = nest(depth).encode_to_vec().into();
            assert_eq!(Nesting::from_wire(bytes), Err(Fault::TooManyTxns), "{depth} levels");
        }
    }

    #[test]
    fn level_by_level_reads_what_the_whole_decoder_reads() {
        let txn = nest(20);
        assert_eq!(levels(txn.encode_to_vec().into(), 1), Ok(txn));
    }

    #[test]
    fn a_fault_in_the_depth_is_one_of_the_message() {
        let mut bytes = nest(80).encode_to_vec();
        let end = bytes.len() - 1;
        assert_eq!(Nesting::from_wire(bytes[..end].to_vec().into()), Err(Fault::Junk));
        // A field number of 0, in a message that is too deep for the whole decoder.
        bytes.extend([0, 0]);
        assert_eq!(Nesting::from_wire(bytes.into()), Err(Fault::Junk));
    }

    #[test]
    fn groups_within_groups_are_too_deep_wherever_they_are() {
        // Field 15 as a group, opened again and again; no message of ours has one.
        let groups = Bytes::from(vec![15 << 3 | 3; 100_000]);
        assert_eq!(Nesting::from_wire(groups.clone()), Err(Fault::TooDeep));
        assert_eq!(pb::PutRequest::from_wire(groups.clone()), Err(Fault::TooDeep));
        let status = decode::<pb::PutRequest>(groups).unwrap_err();
        assert_eq!(status.message(), "grpc: error unmarshalling request: proto: exceeded maximum recursion depth");
    }
}
