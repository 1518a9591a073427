//! The disk is nearly full: what makes the state smaller is still done, whatever it is dressed in.
//!
//! Cause: all transactions were refused together with puts. Symptom: a Kubernetes API server deletes
//! by a transaction (if the version is still this one, delete), so nothing could be removed by it.
//! Now a command is refused by what it costs, which for a transaction without a put is nothing.

use std::time::{Duration, Instant};

use rusd_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::lease_client::LeaseClient;
use rusd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use rusd_proto::etcdserverpb::request_op::Request;
use rusd_proto::etcdserverpb::{
    CompactionRequest, Compare, DefragmentRequest, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RequestOp,
    TxnRequest,
};
use tonic::Status;
use tonic::transport::Channel;

use crate::client::{gauge, revision};
use crate::member::Member;
use crate::settings;
use crate::volume::Volume;

const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";
const WAIT_MAX: Duration = Duration::from_secs(30);

async fn put(channel: &Channel, key: &'static str) -> Result<i64, Status> {
    let request = PutRequest { key: key.into(), value: "v".into(), ..PutRequest::default() };
    let answer = KvClient::new(channel.clone()).put(request).await?.into_inner();
    Ok(answer.header.map_or(0, |header| header.revision))
}

/// Waits until the member says, to whoever watches its metrics, that its disk is short of room (1), or isn't (0).
async fn until_short_is(said: f64, member: &Member) {
    let begun = Instant::now();
    while gauge(&member.url(), "rusd_disk_short").await != Some(said) {
        assert!(begun.elapsed() < WAIT_MAX, "rusd_disk_short isn't {said}\n{}", member.log_tail());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn op(request: Request) -> Vec<RequestOp> {
    vec![RequestOp { request: Some(request) }]
}

/// What a Kubernetes API server sends to delete an object.
fn delete_if(key: &'static str, mod_revision: i64) -> TxnRequest {
    let compare = Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: key.into(),
        target_union: Some(TargetUnion::ModRevision(mod_revision)),
        ..Compare::default()
    };
    let delete = DeleteRangeRequest { key: key.into(), ..DeleteRangeRequest::default() };
    TxnRequest { compare: vec![compare], success: op(Request::RequestDeleteRange(delete)), ..TxnRequest::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nearly_full_disk_lets_transactions_delete() {
    let Some(volume) = Volume::tmpfs(300, "a_nearly_full_disk_lets_transactions_delete") else { return };
    let mut member = Member::new(&volume.path().join("data"), &volume.beside("log"), &settings::plain("sled"));
    let channel = member.start().await;
    let mut kv = KvClient::new(channel.clone());
    let written = put(&channel, "object").await.unwrap();
    until_short_is(0.0, &member).await;
    volume.fill_up_to(8 << 10);
    until_short_is(1.0, &member).await;
    let begun = Instant::now();
    while put(&channel, "other").await.is_ok() {
        assert!(begun.elapsed() < WAIT_MAX, "puts are not refused\n{}", member.log_tail());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(put(&channel, "other").await.unwrap_err().message(), NO_SPACE);
    let grant = LeaseClient::new(channel.clone()).lease_grant(LeaseGrantRequest { ttl: 60, id: 1 }).await;
    assert_eq!(grant.unwrap_err().message(), NO_SPACE);

    let before = revision(&channel).await.unwrap();
    let mut dear = delete_if("object", written);
    dear.failure = op(Request::RequestPut(PutRequest { key: "k".into(), ..PutRequest::default() }));
    assert_eq!(kv.txn(dear).await.unwrap_err().message(), NO_SPACE, "a put in either branch costs room");
    let answer = kv.txn(delete_if("object", written)).await.expect("a transaction that deletes").into_inner();
    assert!(answer.succeeded);
    assert_eq!(revision(&channel).await.unwrap(), before + 1);

    volume.make_room();
    until_short_is(0.0, &member).await;
    put(&channel, "other").await.expect("a put, with room again");
}

/// Puts so many keys below "/many/" as quickly as transactions do.
async fn put_many(channel: &Channel, keys: usize) {
    let put = |number| {
        let key = format!("/many/{number:030}").into();
        RequestOp { request: Some(Request::RequestPut(PutRequest { key, value: "v".into(), ..PutRequest::default() })) }
    };
    let mut kv = KvClient::new(channel.clone());
    for first in (0..keys).step_by(100) {
        let success = (first..keys.min(first + 100)).map(put).collect();
        kv.txn(TxnRequest { success, ..TxnRequest::default() }).await.expect("puts, with room");
    }
}

// Cause: what can't be written but as a whole had to find three times its room. Symptom: the deletion that was to make room
// stood for ever, and every compaction behind it, through restarts as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nearly_full_disk_lets_very_many_keys_be_deleted_at_once() {
    const KEYS: usize = 90_000;
    let test = "a_nearly_full_disk_lets_very_many_keys_be_deleted_at_once";
    for backend in settings::backends() {
        let Some(volume) = Volume::tmpfs(300, test) else { return };
        let mut flags = settings::plain(&backend);
        flags.push(format!("--wal-dir={}", volume.beside("wal").display()));
        let mut member = Member::new(&volume.path().join("data"), &volume.beside("log"), &flags);
        let channel = member.start().await;
        let (mut kv, mut maintenance) = (KvClient::new(channel.clone()), MaintenanceClient::new(channel.clone()));
        put_many(&channel, KEYS).await;
        maintenance.defragment(DefragmentRequest {}).await.expect("a flush, with room");
        // Enough for them twice, and for what is kept free.
        volume.fill_up_to(62 << 10);
        until_short_is(1.0, &member).await;
        let all =
            DeleteRangeRequest { key: "/many/".into(), range_end: "/many0".into(), ..DeleteRangeRequest::default() };
        let answer = kv.delete_range(all).await.expect("a deletion").into_inner();
        assert_eq!(answer.deleted, KEYS as i64);
        let flushed = tokio::time::timeout(WAIT_MAX, maintenance.defragment(DefragmentRequest {})).await;
        flushed
            .unwrap_or_else(|_| panic!("the deletion isn't written: {backend}\n{}", member.log_tail()))
            .expect("a flush");
        assert_eq!(gauge(&member.url(), "rusd_store_pending_bytes").await, Some(0.0), "{backend}");
        let revision = revision(&channel).await.unwrap();
        let compaction = CompactionRequest { revision, physical: true };
        let compacted = tokio::time::timeout(WAIT_MAX, kv.compact(compaction)).await;
        compacted
            .unwrap_or_else(|_| panic!("nothing is removed: {backend}\n{}", member.log_tail()))
            .expect("a compaction");
        volume.make_room();
        until_short_is(0.0, &member).await;
        put(&channel, "other").await.expect("a put, with room again");
    }
}
