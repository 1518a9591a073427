//! Leases as a client sees them: granted, renewed, and never gone before the time that somebody was told.

use std::time::{Duration, Instant};

use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::lease_client::LeaseClient;
use rusd_proto::etcdserverpb::{LeaseGrantRequest, LeaseKeepAliveRequest, PutRequest, RangeRequest};
use tokio_stream::StreamExt;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::cluster::{COMES_MAX, Cluster, passes};
use crate::divergence::refuses;

/// A renewal that was answered with some time: when it was sent, and the time.
pub(crate) type Renewed = (Instant, Duration);

/// Grants a lease of so many seconds, with a key.
pub(crate) async fn grant(channel: &Channel, id: i64, ttl_secs: i64) -> Result<Renewed, Status> {
    let sent = Instant::now();
    let granted = LeaseClient::new(channel.clone()).lease_grant(LeaseGrantRequest { id, ttl: ttl_secs }).await?;
    attach(channel, id).await?;
    Ok((sent, Duration::from_secs(granted.get_ref().ttl as u64)))
}

/// The same, whatever elections there are meanwhile: one whose answer was lost is renewed instead.
pub(crate) async fn grant_surely(channel: &Channel, id: i64, ttl_secs: i64) -> Renewed {
    let begun = Instant::now();
    loop {
        let granted = match grant(channel, id, ttl_secs).await {
            Err(status) if status.code() == Code::FailedPrecondition => match attach(channel, id).await {
                Ok(()) => renew(channel, id).await.and_then(|kept| kept.ok_or_else(|| Status::unavailable("it ended"))),
                Err(status) => Err(status),
            },
            granted => granted,
        };
        match granted {
            Ok(granted) => return granted,
            Err(status) => assert!(passes(&status) && begun.elapsed() < COMES_MAX, "lease {id}: {status:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Gives it its key.
async fn attach(channel: &Channel, id: i64) -> Result<(), Status> {
    let put = PutRequest { key: key(id).into(), lease: id, ..PutRequest::default() };
    KvClient::new(channel.clone()).put(put).await.map(drop)
}

/// Of those keys that the check of the load leaves alone: it goes with its lease.
fn key(id: i64) -> String {
    format!("big/lease/{id}")
}

/// Renews once; `None` if the lease is gone.
pub(crate) async fn renew(channel: &Channel, id: i64) -> Result<Option<Renewed>, Status> {
    let sent = Instant::now();
    let requests = tokio_stream::once(LeaseKeepAliveRequest { id }).chain(tokio_stream::pending());
    let mut answers = LeaseClient::new(channel.clone()).lease_keep_alive(requests).await?.into_inner();
    let answer = answers.message().await?.ok_or_else(|| Status::unavailable("the stream ended"))?;
    Ok((answer.ttl > 0).then(|| (sent, Duration::from_secs(answer.ttl as u64))))
}

/// Whether a lease's key is there.
pub(crate) async fn is_there(channel: &Channel, id: i64) -> Result<bool, Status> {
    let request = RangeRequest { key: key(id).into(), count_only: true, ..RangeRequest::default() };
    Ok(KvClient::new(channel.clone()).range(request).await?.get_ref().count == 1)
}

/// Waits for a lease's end and checks that it is in nobody's promised time.
pub(crate) async fn ends_in_time(cluster: &Cluster, reader: usize, id: i64, renewed: &[Renewed]) {
    let begun = Instant::now();
    let channel = cluster.channel(reader);
    while is_there(&channel, id).await.unwrap_or(true) {
        assert!(begun.elapsed() < COMES_MAX, "lease {id} never ends");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let gone = Instant::now();
    for (sent, ttl) in renewed {
        let early = (*sent + *ttl).saturating_duration_since(gone);
        assert!(early.is_zero(), "lease {id} ended {early:?} before the time that a renewal was told");
    }
}

/// Cause: a leader that was found to differ, and had nobody to hand over to, went on ending leases by its clock, though
/// its leases may be what differs. Symptom: keys of clients that renewed were deleted on all members. It does so no more,
/// and tells nobody that a lease is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_differs_ends_no_lease() {
    let mut cluster = Cluster::rusd(1, &["--backend=redb"]).await;
    let (_, ttl) = grant(&cluster.channel(0), 7, 2).await.unwrap();
    cluster.terminate(0).await;
    let mark = cluster.data(0).join("member/diverged");
    std::fs::write(&mark, "1\nattempts 0\nproven 1\n").unwrap();
    cluster.spawn(0);
    refuses(&cluster, 0).await;
    // As long as it takes, the time of an election on top.
    tokio::time::sleep(3 * ttl).await;
    cluster.terminate(0).await;
    std::fs::remove_file(&mark).unwrap();
    cluster.restart(0).await;
    assert!(is_there(&cluster.channel(0), 7).await.unwrap(), "{}", cluster.log(0));
    ends_in_time(&cluster, 0, 7, &[]).await;
}
