//! One of three members ends at a failpoint, under load: the others go on, it comes back, nothing acknowledged is lost.
//!
//! Only with the feature `failpoints`: `cargo xtask failpoints`.

use std::fs;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rusd_proto::etcdserverpb::PutRequest;
use rusd_proto::etcdserverpb::kv_client::KvClient;

use crate::cluster::Cluster;
use crate::failpoint::{PANICKED, ask};
use crate::leases::{ends_in_time, grant, renew};
use crate::run::Run;
use crate::settings;

/// A point, and whether only the leader (or only a follower) comes by.
const POINTS: [(&str, Option<bool>); 9] = [
    ("raftBeforeSave", None),
    ("raftAfterSave", None),
    ("walBeforeSync", None),
    ("walAfterSync", None),
    ("raftBeforeLeaderSend", Some(true)),
    ("raftBeforeFollowerSend", Some(false)),
    ("beforeApplyOneEntryNormal", None),
    ("beforeCommit", None),
    ("afterCommit", None),
];

/// Where a member that gets a snapshot comes by.
const SNAPSHOT_POINTS: [&str; 6] = [
    "raftBeforeSaveSnap",
    "raftAfterSaveSnap",
    "raftBeforeApplySnap",
    "applyBeforeOpenSnapshot",
    "applyAfterOpenSnapshot",
    "raftAfterApplySnap",
];

/// How often a member is left behind at most, and how long its end is waited for each time.
const TRIES: u32 = 12;
const SOON: Duration = Duration::from_secs(8);

/// Snapshots and purges all the time.
const EAGER: [&str; 3] = ["--snapshot-count=20", "--snapshot-log-mb=0", "--snapshot-catchup-entries=10"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_ends_at_each_failpoint() {
    let mut run = Run::start("failpoints", 3, &[]).await;
    for round in 0..settings::rounds_or(1, 3) {
        for (at, (name, leads)) in POINTS.into_iter().enumerate() {
            let leader = run.cluster.leader().await;
            let wants_leader = leads.unwrap_or((at + round as usize).is_multiple_of(2));
            let member = if wants_leader { leader } else { (leader + 1) % 3 };
            assert_eq!(ask(run.cluster.failpoints(member), "PUT", name, "panic").0, 204, "{name}");
            let status = run.cluster.ended(member).await;
            assert_eq!(status.code(), Some(PANICKED), "{name}: {status}");
            run.cluster.leader_but(Some(member)).await;
            run.load.goes_on(50).await;
            run.cluster.restart(member).await;
            run.load.goes_on(50).await;
        }
    }
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_ends_at_each_failpoint_of_a_snapshot() {
    let mut run = Run::start("failpoints of a snapshot", 3, &EAGER).await;
    for _ in 0..settings::rounds_or(1, 3) {
        for name in SNAPSHOT_POINTS {
            let follower = (run.cluster.leader().await + 1) % 3;
            let status = ends_at(&mut run, follower, name).await;
            assert_eq!(status.code(), Some(PANICKED), "{name}: {status}");
            assert!(run.cluster.log(follower).contains(&format!("failpoint panic: {name}")), "{name}");
            run.cluster.restart(follower).await;
            run.load.goes_on(100).await;
        }
    }
    run.finish().await;
}

/// How it ended. A member that was away gets no snapshot if the others' log still reaches back to it, as they purge what
/// their engines hold durably: it is left behind again then.
async fn ends_at(run: &mut Run, follower: usize, name: &str) -> ExitStatus {
    for _ in 0..TRIES {
        run.cluster.kill(follower);
        run.load.goes_on(300).await;
        run.cluster.spawn_with(follower, &[("GOFAIL_FAILPOINTS", &format!("{name}=panic"))]);
        let back = Instant::now();
        while back.elapsed() < SOON {
            if run.cluster.process(follower).has_ended().is_some() {
                return run.cluster.ended(follower).await;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    panic!("{name}: it never ends\n{}", run.cluster.log(follower));
}

/// A member ends before the first line of its log is written, and is started again for another cluster. Nothing but its
/// flags would say which one to begin, so it must refuse; with those of its first start it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failpoint_before_the_cluster_began_and_other_flags_then() {
    let mut cluster = Cluster::rusd(3, &[]).await;
    for member in 0..3 {
        cluster.kill(member);
        fs::remove_dir_all(cluster.data(member)).unwrap();
    }
    cluster.spawn_with(2, &[("GOFAIL_FAILPOINTS", "raftBeforeSave=panic")]);
    assert_eq!(cluster.ended(2).await.code(), Some(PANICKED));
    let told = cluster.process(2).flag("initial-cluster").to_owned();
    let alone = format!("m2={}", cluster.process(2).place.peer[1]);
    cluster.process(2).set_flag("initial-cluster", &alone);
    cluster.spawn(2);
    assert_eq!(cluster.ended(2).await.code(), Some(1));
    let log = cluster.log(2);
    assert!(log.contains("was made for another cluster than --initial-cluster=m2="), "{log}");
    cluster.process(2).set_flag("initial-cluster", &told);
    for member in 0..3 {
        cluster.spawn(member);
    }
    for member in 0..3 {
        cluster.serves(member).await;
    }
    cluster.agree().await;
}

/// etcd 15247: a leader stood in its disk while another one was elected. Its clocks ran on and heard of no renewal, and
/// when the disk let go of it, all leases were revoked, through its successor.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failpoint_holds_a_leader_in_its_disk_and_it_revokes_no_lease() {
    const TTL_SECS: i64 = 3;
    let cluster = Cluster::rusd(3, &[]).await;
    let old = cluster.leader().await;
    let other = cluster.channel((old + 1) % 3);
    let leases = 1..=20;
    let mut renewed = Vec::new();
    for id in leases.clone() {
        renewed.push(vec![grant(&other, id, TTL_SECS).await.unwrap()]);
    }
    assert_eq!(ask(cluster.failpoints(old), "PUT", "walBeforeSync", "sleep(9000)").0, 204);
    let mut stuck = KvClient::new(cluster.channel(old));
    tokio::spawn(async move { stuck.put(PutRequest { key: "k".into(), ..PutRequest::default() }).await });
    cluster.net.isolate(old, 3);
    let begun = Instant::now();
    // Longer than each has to live, by the old one's clock as well, and than the disk holds it.
    let mut healed = false;
    while begun.elapsed() < Duration::from_secs(14) {
        for (id, renewed) in leases.clone().zip(&mut renewed) {
            if let Ok(renewal) = renew(&other, id).await {
                renewed.push(renewal.expect("a lease that is renewed lives"));
            }
        }
        if !healed && begun.elapsed() > Duration::from_secs(7) {
            assert_eq!(ask(cluster.failpoints(old), "DELETE", "walBeforeSync", "").0, 204);
            cluster.net.heal();
            healed = true;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for (id, renewed) in leases.zip(&renewed) {
        assert!(renewed.len() > 5, "lease {id} was renewed {} times", renewed.len());
        ends_in_time(&cluster, (old + 1) % 3, id, renewed).await;
    }
    cluster.agree().await;
}
