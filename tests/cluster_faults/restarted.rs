//! Members that come back with other flags than they were made with.

use std::fs;
use std::time::{Duration, Instant};

use rusd_proto::etcdserverpb::PutRequest;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::rusdpeer::VoteRequest;
use rusd_proto::rusdpeer::peer_client::PeerClient;
use tonic::transport::Endpoint;

use crate::cluster::{COMES_MAX, Cluster};

/// Once a member's log has begun it says who the members are, and `--initial-cluster` is not looked at any more, as in
/// etcd: whoever replaced members and left the unit files as they were must not be kept from a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_with_a_wrong_initial_cluster_serves() {
    let mut cluster = Cluster::rusd(3, &[]).await;
    let told = cluster.process(0).flag("initial-cluster").to_owned();
    let own = cluster.process(2).place.peer[1].clone();
    let wrong = [
        "other=http://127.0.0.1:1".to_owned(),
        format!("{told},m9={own}"),
        // A cluster of one: a member that believed it would lead alone.
        format!("m2={own}"),
    ];
    for (member, wrong) in wrong.iter().enumerate() {
        cluster.terminate(member).await;
        cluster.process(member).set_flag("initial-cluster", wrong);
        cluster.restart(member).await;
        let mut kv = KvClient::new(cluster.channel(member));
        let put = PutRequest { key: format!("k{member}").into(), ..PutRequest::default() };
        kv.put(put).await.expect("the cluster that it was made for");
        let members = cluster.members(member).await;
        assert_eq!(members.len(), 3, "{members:?}");
    }
    cluster.agree().await;
}

/// Waits until others are answered at a member's peer port; nobody but them is there yet.
async fn is_open_to_others(cluster: &mut Cluster, member: usize) {
    let url = cluster.process(member).flag("listen-peer-urls").to_owned();
    let begun = Instant::now();
    loop {
        let asked = match Endpoint::from_shared(url.clone()).unwrap().connect().await {
            Ok(channel) => PeerClient::new(channel).vote(VoteRequest::default()).await.err(),
            Err(_) => None,
        };
        // It isn't said for whom that is.
        if asked.is_some_and(|refused| refused.message().contains("mismatch")) {
            return;
        }
        assert!(begun.elapsed() < COMES_MAX, "it isn't open\n{}", cluster.log(member));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Cause: that a member has begun was noted once it served clients, for which it waits for the others, while it gave its
/// vote already; and if it couldn't be noted, it went on. Symptom: one whose log was lost by then began once more, with
/// another vote to give in the same term.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_can_have_voted_never_begins_again() {
    let mut cluster = Cluster::rusd(3, &[]).await;
    for member in 0..3 {
        cluster.kill(member);
        fs::remove_dir_all(cluster.data(member)).unwrap();
    }
    let member = cluster.data(2).join("member");
    cluster.spawn(2);
    is_open_to_others(&mut cluster, 2).await;
    cluster.kill(2);
    fs::rename(member.join("wal"), member.join("wal.lost")).unwrap();
    cluster.spawn(2);
    assert_eq!(cluster.ended(2).await.code(), Some(1));
    let log = cluster.log(2);
    assert!(log.contains("is lost or was replaced") && log.contains("remove this member and add it again"), "{log}");

    fs::remove_dir_all(member.join("wal")).unwrap();
    fs::rename(member.join("wal.lost"), member.join("wal")).unwrap();
    fs::remove_file(member.join("served")).unwrap();
    // Where the mark is to be written.
    fs::create_dir(member.join("served.tmp")).unwrap();
    cluster.spawn(2);
    assert_eq!(cluster.ended(2).await.code(), Some(1), "it can't be noted");
    fs::remove_dir(member.join("served.tmp")).unwrap();
    for member in 0..3 {
        cluster.spawn(member);
    }
    for member in 0..3 {
        cluster.serves(member).await;
    }
    cluster.agree().await;
}
