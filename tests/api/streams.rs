//! RangeStream and keep-alive under what the conversations can't show: change meanwhile, many messages, an end.

use std::time::Duration;

use bytes::Bytes;
use rusd::types::Limits;
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::lease_client::LeaseClient;
use rusd_proto::etcdserverpb::watch_client::WatchClient;
use tonic::Code;
use tonic::transport::Channel;

use crate::server::Server;

/// How long an end may take: less than whoever takes nothing is waited for.
const STOPS_MAX: Duration = Duration::from_secs(30);

fn server() -> Server {
    Server::with_limits(Limits::default())
}

async fn fill(kv: &mut KvClient<Channel>, keys: usize, value: usize) {
    let value = Bytes::from(vec![7; value]);
    for number in 0..keys {
        let put = pb::PutRequest { key: format!("k{number:05}").into(), value: value.clone(), ..Default::default() };
        kv.put(put).await.unwrap();
    }
}

fn all() -> pb::RangeRequest {
    pb::RangeRequest { key: "k".into(), range_end: "l".into(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_is_the_same_as_a_stream_of_it() {
    let server = server();
    let mut kv = KvClient::new(server.connect().await).max_decoding_message_size(usize::MAX);
    fill(&mut kv, 1_500, 1_000).await;
    let whole = kv.range(all()).await.unwrap().into_inner();
    assert_eq!((whole.kvs.len(), whole.count), (1_500, 1_500));
    let limited = kv.range(pb::RangeRequest { limit: 1_200, ..all() }).await.unwrap().into_inner();
    assert!(limited.more && limited.kvs == whole.kvs[..1_200]);
    let mut stream = kv.range_stream(all()).await.unwrap().into_inner();
    let (mut kvs, mut last) = (Vec::new(), None);
    while let Some(chunk) = stream.message().await.unwrap() {
        let mut chunk = chunk.range_response.unwrap();
        assert!(last.is_none(), "the header comes in the last message only");
        kvs.append(&mut chunk.kvs);
        last = chunk.header.map(|header| (header, chunk.count, chunk.more));
    }
    let (header, count, more) = last.unwrap();
    assert!(kvs == whole.kvs);
    assert_eq!((header.revision, count, more), (1_501, 1_500, false));
}

// Cause: a chunk had as many keys as the small ones before it had led to, and its size was looked at when all of it was in
// memory. Symptom: many small keys before large ones made one chunk of everything, twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_of_a_stream_is_bounded_by_its_bytes() {
    let server = server();
    let mut kv = KvClient::new(server.connect().await).max_decoding_message_size(usize::MAX);
    let put = |key: String, value: usize| pb::PutRequest {
        key: key.into(),
        value: vec![7; value].into(),
        ..Default::default()
    };
    for number in 0..3_000 {
        kv.put(put(format!("ka{number:05}"), 1)).await.unwrap();
    }
    for number in 0..40 {
        kv.put(put(format!("kb{number:05}"), 400_000)).await.unwrap();
    }
    for limit in [0, 3_020] {
        let mut stream = kv.range_stream(pb::RangeRequest { limit, ..all() }).await.unwrap().into_inner();
        let (mut found, mut count, mut more) = (Vec::new(), 0, false);
        while let Some(chunk) = stream.message().await.unwrap() {
            let chunk = chunk.range_response.unwrap();
            let bytes: usize = chunk.kvs.iter().map(|kv| kv.value.len()).sum();
            assert!(bytes < 2_000_000, "{bytes} bytes in one chunk");
            (count, more) = (chunk.count, chunk.more);
            found.extend(chunk.kvs.into_iter().map(|kv| kv.key));
        }
        let wanted = if limit > 0 { 3_020 } else { 3_040 };
        assert_eq!((found.len(), count, more), (wanted, 3_040, limit > 0));
        assert!(found.is_sorted());
    }
    assert_eq!(server.services.budgets.answers.used(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compaction_past_its_revision_ends_a_stream() {
    let server = server();
    let mut kv = KvClient::new(server.connect().await);
    fill(&mut kv, 40, 400_000).await;
    let mut stream = kv.range_stream(all()).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    fill(&mut kv, 2, 1).await;
    kv.compact(pb::CompactionRequest { revision: 43, physical: true }).await.unwrap();
    let end = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("16 MB fit into no buffer on the way"),
            Err(status) => break status,
        }
    };
    assert_eq!(
        (end.code(), end.message()),
        (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewals_are_answered_in_order_however_many_there_are() {
    const RENEWALS: i64 = 20_000;
    let server = server();
    let mut lease = LeaseClient::new(server.connect().await);
    for id in 1..=10 {
        lease.lease_grant(pb::LeaseGrantRequest { ttl: 60 + id, id }).await.unwrap();
    }
    let requests = futures::stream::iter((0..RENEWALS).map(|at| pb::LeaseKeepAliveRequest { id: at % 12 + 1 }));
    let mut answers = lease.lease_keep_alive(requests).await.unwrap().into_inner();
    for at in 0..RENEWALS {
        let answer = answers.message().await.unwrap().unwrap();
        let id = at % 12 + 1;
        assert_eq!((answer.id, answer.ttl), (id, if id <= 10 { 60 + id } else { 0 }));
    }
    assert!(answers.message().await.unwrap().is_none(), "half-closed: the stream ends in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orderly_end_ends_streams_and_connections() {
    let mut server = server();
    let channel = server.connect().await;
    let create = pb::WatchCreateRequest { key: "k".into(), ..Default::default() };
    let request = pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
    let requests = futures::StreamExt::chain(futures::stream::iter([request]), futures::stream::pending());
    let mut watch = WatchClient::new(channel.clone()).watch(requests).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().unwrap().created);
    let port = server.port();
    tokio::time::timeout(STOPS_MAX, server.stop()).await.expect("the end does not wait for clients");
    assert!(watch.message().await.is_err());
    assert!(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err(), "nobody listens any more");
}
