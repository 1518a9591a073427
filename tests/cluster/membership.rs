//! Changes of the membership of three real members, while they serve.

use std::process::Command;
use std::time::{Duration, Instant};

use tonic::Code;

use crate::cluster::{Cluster, passes, until, until_refused};
use crate::peers::peer;

/// Without the check that wants members to be in touch for five seconds.
const AT_ONCE: &[&str] = &["--strict-reconfig-check=false"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_right_after_the_start_are_refused_as_unhealthy() {
    let begun = Instant::now();
    let cluster = Cluster::start(3, &[]).await;
    loop {
        match cluster.members[0].add("http://127.0.0.1:1", false).await {
            // Where the start took as long as that, it is taken.
            Ok(_) => {
                let late = begun.elapsed();
                assert!(late >= Duration::from_secs(5), "after {late:?}");
                break;
            }
            Err(refused) if refused.message() == "etcdserver: unhealthy cluster" => {
                assert_eq!(refused.code(), Code::Unavailable);
                break;
            }
            Err(other) => assert!(passes(&other) && begun.elapsed() < Duration::from_secs(60), "{other:?}"),
        }
    }
    // Five seconds later.
    cluster.added(1, "http://127.0.0.1:1", false).await;
    // Four members count, three have started; one more would need four. The others are three started ones of four.
    cluster.removed(2, 2, cluster.id(0).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fourth_member_joins_and_gets_its_vote_by_itself() {
    let mut cluster = Cluster::start(3, AT_ONCE).await;
    for at in 0..100 {
        let key = format!("k{at}");
        until("three of three", || cluster.members[0].put(&key, "v")).await;
    }
    let new = cluster.prepare(4).peer.clone();
    let added = cluster.added(1, &new, false).await;
    assert!(!added.is_learner && added.name.is_empty());
    // It has not started: with a vote for it, two of the three others had to be enough, and are.
    cluster.members[0].kill();
    until("two of three", || cluster.members[1].put("x", "1")).await;
    cluster.members[3].start();
    cluster.is_up(&cluster.members[3]).await;
    assert_eq!(until("it has all", || cluster.members[3].get("k99")).await, "v");
    cluster.members[0].start();
    cluster.is_up(&cluster.members[0]).await;
    // It votes: the leader can be handed to it.
    let id = cluster.id(3).await;
    until("its vote", || async {
        let (leader, own) = cluster.leader().await;
        if own == id {
            return Ok(());
        }
        let mut client = rusd_proto::etcdserverpb::maintenance_client::MaintenanceClient::new(
            cluster.members[leader].channel().await?,
        );
        client.move_leader(rusd_proto::etcdserverpb::MoveLeaderRequest { target_id: id }).await.map(drop)
    })
    .await;
    until("writes go on", || cluster.members[2].put("y", "2")).await;
    assert_eq!(until("it leads", || cluster.members[3].get("y")).await, "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_is_promoted_when_it_is_in_step() {
    let mut cluster = Cluster::start(3, AT_ONCE).await;
    let new = cluster.prepare(4).peer.clone();
    let added = cluster.added(0, &new, true).await;
    assert!(added.is_learner);
    // It has not started.
    let words = "etcdserver: can only promote a learner member which is in sync with leader";
    until_refused(words, || cluster.members[2].promote(added.id)).await;
    // One at a time.
    let words = "etcdserver: too many learner members in cluster";
    until_refused(words, || cluster.members[1].add("http://127.0.0.1:1", true)).await;
    cluster.members[3].start();
    cluster.promoted(1, added.id).await;
    cluster.is_up(&cluster.members[3]).await;
    // It votes.
    until_refused("etcdserver: can only promote a learner member", || cluster.members[1].promote(added.id)).await;
    assert!(until("listed", || cluster.members[3].list()).await.iter().all(|member| !member.is_learner));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removed_members_end_by_themselves_the_leader_too() {
    let mut cluster = Cluster::start(3, AT_ONCE).await;
    let (gone, id) = cluster.leader().await;
    let other = (gone + 1) % 3;
    until("written", || cluster.members[other].put("a", "1")).await;
    cluster.removed(other, other, id).await;
    assert!(cluster.members[gone].ended().await.success());
    until("a new leader", || cluster.members[other].put("a", "2")).await;
    let (leader, _) = cluster.leader().await;
    let follower = (0..3).find(|place| *place != gone && *place != leader).expect("two are left");
    let id = cluster.id(follower).await;
    cluster.removed(leader, leader, id).await;
    assert!(cluster.members[follower].ended().await.success());
    until("a cluster of one", || cluster.members[leader].put("a", "3")).await;
    assert_eq!(until("listed", || cluster.members[leader].list()).await.len(), 1);
    // It stays removed, whatever it has on its disk.
    cluster.members[follower].start();
    assert!(cluster.members[follower].ended().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_member_is_replaced() {
    let mut cluster = Cluster::start(3, AT_ONCE).await;
    let dead = cluster.id(2).await;
    until("written", || cluster.members[0].put("a", "1")).await;
    cluster.members[2].kill();
    cluster.removed(0, 1, dead).await;
    cluster.members.truncate(2);
    let new = cluster.prepare(4).peer.clone();
    cluster.added(1, &new, false).await;
    cluster.members[2].start();
    cluster.is_up(&cluster.members[2]).await;
    assert_eq!(until("read", || cluster.members[2].get("a")).await, "1");
    // Once it votes, one of the others may go.
    let id = cluster.id(2).await;
    until("its vote", || async {
        let (leader, own) = cluster.leader().await;
        if own == id {
            return Ok(());
        }
        let channel = cluster.members[leader].channel().await?;
        let mut client = rusd_proto::etcdserverpb::maintenance_client::MaintenanceClient::new(channel);
        client.move_leader(rusd_proto::etcdserverpb::MoveLeaderRequest { target_id: id }).await.map(drop)
    })
    .await;
    cluster.members[0].kill();
    until("two of three", || cluster.members[2].put("a", "2")).await;
    assert_eq!(until("read", || cluster.members[1].get("a")).await, "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lost_its_data_does_not_vote_again() {
    let mut cluster = Cluster::start(3, AT_ONCE).await;
    cluster.members[2].kill();
    cluster.members[2].lose_data();
    cluster.members[2].start();
    assert!(!cluster.members[2].ended().await.success());
    let log = cluster.members[2].log_tail();
    assert!(log.contains("has already been bootstrapped"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_of_a_lost_cluster_goes_on_alone() {
    let mut cluster = Cluster::start(3, &[]).await;
    until("written", || cluster.members[1].put("a", "1")).await;
    assert_eq!(until("read", || cluster.members[2].get("a")).await, "1");
    cluster.members.iter_mut().for_each(crate::cluster::Member::kill);
    cluster.members[2].start_with(&["--force-new-cluster"]);
    until("alone", || cluster.members[2].put("b", "2")).await;
    assert_eq!(cluster.members[2].get("a").await.expect("read"), "1");
    let list = cluster.members[2].list().await.expect("listed");
    assert!(list.len() == 1 && list[0].name == "m3" && list[0].client_ur_ls.len() == 1, "{list:?}");
    for flags in [&["--force-new-cluster"][..], &[]] {
        cluster.members[2].kill();
        cluster.members[2].start_with(flags);
        until("again", || cluster.members[2].put("c", "3")).await;
        assert_eq!(cluster.members[2].list().await.expect("listed").len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_lists_and_moves() {
    let Some(etcdctl) = peer("etcdctl", "etcdctl_lists_and_moves") else { return };
    // Nobody else is to lead meanwhile, however busy the machine is.
    let cluster = Cluster::start(3, &["--election-timeout=4000"]).await;
    let run = |endpoint: &str, arguments: &[&str]| {
        let output = Command::new(&etcdctl).arg(format!("--endpoints={endpoint}")).args(arguments).output();
        let output = output.expect("etcdctl runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    };
    let (ok, list) = run(&cluster.members[0].client, &["member", "list"]);
    assert!(
        ok && list.lines().filter(|line| line.contains(", started, m") && line.ends_with(", false")).count() == 3,
        "{list}"
    );
    let (leader, _) = cluster.leader().await;
    let target = (leader + 1) % 3;
    let id = format!("{:x}", cluster.id(target).await);
    let (ok, text) = run(&cluster.members[target].client, &["move-leader", &id]);
    assert!(!ok, "only the leader can: {text}");
    let (ok, text) = run(&cluster.members[leader].client, &["move-leader", &id]);
    assert!(ok && text.contains("Leadership transferred"), "{text}");
    assert_eq!(cluster.leader().await.0, target);
    let (ok, text) = run(&cluster.members[0].client, &["endpoint", "health", "--cluster"]);
    assert!(ok, "{text}");
}
