//! The server's end with streams open: each is told, none is waited for.
//!
//! Cause: only watches were ended; renewals, health watches and range streams had to be cut after the
//! grace of two seconds. Symptom: a stop took that long, and clients saw a broken connection. Now
//! streams end at once with etcd's words, and those whose clients take nothing are cut soon.

use std::time::Duration;

use bytes::Bytes;
use rusd::types::Limits;
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::lease_client::LeaseClient;
use rusd_proto::health::HealthCheckRequest;
use rusd_proto::health::health_client::HealthClient;
use tonic::{Code, Status};

use crate::server::Server;

/// How long an end may take: less than whoever takes nothing is waited for.
const STOPS_MAX: Duration = Duration::from_secs(30);

fn told<T: std::fmt::Debug>(end: Result<T, Status>) {
    let end = end.expect_err("the stream ended with the server");
    assert_eq!((end.code(), end.message()), (Code::Unavailable, "etcdserver: server stopped"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_streams_are_told_that_the_server_stops() {
    let mut server = Server::with_limits(Limits::default());
    let mut lease = LeaseClient::new(server.connect().await);
    lease.lease_grant(pb::LeaseGrantRequest { ttl: 60, id: 7 }).await.unwrap();
    let renewal = futures::stream::iter([pb::LeaseKeepAliveRequest { id: 7 }]);
    let renewals = futures::StreamExt::chain(renewal, futures::stream::pending());
    let mut renewals = lease.lease_keep_alive(renewals).await.unwrap().into_inner();
    assert_eq!(renewals.message().await.unwrap().unwrap().ttl, 60);
    let mut health = HealthClient::new(server.connect().await);
    let mut health = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert!(health.message().await.unwrap().is_some());

    // A reader that takes nothing: what is under way to it fills all windows.
    let mut kv = KvClient::new(server.connect().await);
    let value = Bytes::from(vec![7; 400_000]);
    for number in 0..40 {
        let put = pb::PutRequest { key: format!("k{number}").into(), value: value.clone(), ..Default::default() };
        kv.put(put).await.unwrap();
    }
    let all = pb::RangeRequest { key: "k".into(), range_end: "l".into(), ..Default::default() };
    let mut slow = kv.range_stream(all).await.unwrap().into_inner();
    slow.message().await.unwrap().unwrap();

    tokio::time::timeout(STOPS_MAX, server.stop()).await.expect("nobody is waited for");
    told(renewals.message().await);
    told(health.message().await);
    let end = loop {
        match slow.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("16 MB fit into no buffer on the way"),
            Err(status) => break status,
        }
    };
    assert_ne!(end.code(), Code::Ok);
}
