//! Transactions within transactions, as deep as a real etcd 3.7.1 takes them: no conversation can hold these,
//! since what renders answers gives up at a hundred messages within messages.
//!
//! ```text
//! depth ─► TxnRequest in a RequestOp in a TxnRequest … ─► etcd, rusd ─► both answer as written here
//! ```
//! etcd's budget of operations ends at 129 levels, of which the innermost is empty. With more of it, its wire takes
//! 5000, and rusd as many as [`TXN_DEPTH_MAX`].

use bytes::{Buf, Bytes};
use prost::Message;
use rusd::apply::codec::TXN_DEPTH_MAX;
use rusd_proto::etcdserverpb::request_op::Request;
use rusd_proto::etcdserverpb::{PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest};

use crate::server::{Kind, Server};
use crate::wire::{CallOptions, Wire};

const KEY: &str = "deep";

/// What stands in the innermost one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inner {
    Put,
    Nothing,
}
use Inner::{Nothing, Put};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_deep_as_the_budget_of_operations() {
    let served = [(49, Put), (50, Put), (64, Put), (100, Put), (128, Put), (129, Nothing)];
    let refused = [(129, Put), (130, Nothing), (TXN_DEPTH_MAX + 1, Nothing), (4999, Put)];
    for kind in [Kind::Etcd, Kind::Rusd] {
        play(kind, &[], &served, &refused).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deeper_with_a_greater_budget() {
    let flags = ["--max-txn-ops=1000".to_owned()];
    let served = [(129, Put), (130, Put), (200, Put), (TXN_DEPTH_MAX, Put), (TXN_DEPTH_MAX, Nothing)];
    play(Kind::Etcd, &flags, &served, &[(1001, Put)]).await;
    play(Kind::Rusd, &flags, &served, &[(TXN_DEPTH_MAX + 1, Nothing), (1001, Put), (6000, Put)]).await;
}

async fn play(kind: Kind, flags: &[String], served: &[(usize, Inner)], refused: &[(usize, Inner)]) {
    let Some(mut server) = Server::start(kind, flags, "deep_txn").await else { return };
    let wire = Wire::new(server.connect().await);
    let call = |path, message| {
        let wire = wire.clone();
        async move { wire.unary(path, message, &CallOptions::default()).await }
    };
    let (mut revision, mut last) = (1, 0);
    for &(depth, inner) in served {
        if inner == Put {
            (revision, last) = (revision + 1, depth);
        }
        let what = format!("{kind:?}, {depth} levels, {inner:?}");
        let answer = call("/etcdserverpb.KV/Txn", request(depth, inner)).await;
        let answer = answer.unwrap_or_else(|status| panic!("{what}: {status}"));
        assert_eq!(without_header(answer), response(depth, inner, revision), "{what}");
    }
    for &(depth, inner) in refused {
        let what = format!("{kind:?}, {depth} levels, {inner:?}");
        let status = call("/etcdserverpb.KV/Txn", request(depth, inner)).await.expect_err(&what);
        assert_eq!(status.message(), "etcdserver: too many operations in txn request", "{what}");
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{what}");
    }
    // What went into the log comes out of it.
    server.restart().await;
    let wire = Wire::new(server.connect().await);
    let range = RangeRequest { key: KEY.into(), ..RangeRequest::default() };
    let answer = wire.unary("/etcdserverpb.KV/Range", range.encode_to_vec().into(), &CallOptions::default()).await;
    let answer = RangeResponse::decode(answer.expect("it serves again")).expect("an answer");
    assert_eq!(answer.header.unwrap_or_default().revision, i64::from(revision), "{kind:?}");
    assert_eq!(answer.kvs[0].value, last.to_string(), "{kind:?}");
}

/// `depth` levels; the put's value is the depth.
fn request(depth: usize, inner: Inner) -> Bytes {
    let put = PutRequest { key: KEY.into(), value: depth.to_string().into(), ..PutRequest::default() };
    let success = match inner {
        Put => vec![RequestOp { request: Some(Request::RequestPut(put)) }],
        Nothing => Vec::new(),
    };
    let innermost = TxnRequest { success, ..TxnRequest::default() }.encode_to_vec();
    (1..depth).fold(innermost.into(), |inner, _| field(2, &field(4, &inner)))
}

/// The answer without the outermost header: all comparisons hold, there being none, and nested headers are empty.
fn response(depth: usize, inner: Inner, revision: u8) -> Bytes {
    const SUCCEEDED: [u8; 2] = [2 << 3, 1];
    let header = field(1, &[3 << 3, revision]);
    let innermost = match inner {
        Put => [&SUCCEEDED[..], &field(3, &field(2, &header))].concat(),
        Nothing => SUCCEEDED.to_vec(),
    };
    (1..depth).fold(innermost.into(), |inner: Bytes, _| {
        let inner = [&field(1, &[])[..], &inner].concat();
        [&SUCCEEDED[..], &field(3, &field(4, &inner))].concat().into()
    })
}

/// A message as a field of another.
fn field(number: u8, message: &[u8]) -> Bytes {
    let mut out = vec![number << 3 | 2];
    prost::encode_length_delimiter(message.len(), &mut out).expect("a vector grows");
    out.extend_from_slice(message);
    out.into()
}

fn without_header(mut answer: Bytes) -> Bytes {
    assert_eq!(answer.get_u8(), 1 << 3 | 2, "the header comes first");
    let len = prost::decode_length_delimiter(&mut answer).expect("a length");
    answer.split_off(len)
}
