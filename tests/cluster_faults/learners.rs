//! Learners that run: who gets a vote, and who doesn't.

use std::time::{Duration, Instant};

use rusd_proto::etcdserverpb::cluster_client::ClusterClient;
use rusd_proto::etcdserverpb::{Member, MemberUpdateRequest};

use crate::cluster::{COMES_MAX, Cluster, until_answered};

/// Starts one more member, a learner; gives its id.
async fn grow(cluster: &mut Cluster) -> u64 {
    let at = cluster.len();
    let mut new = cluster.newcomer(at).await;
    let peer = new.place.peer[1].clone();
    let id = cluster.add(0, &peer, true).await;
    let urls = cluster.members(0).await.into_iter().map(|member| {
        let name = if member.id == id { &new.name } else { &member.name };
        format!("{name}={}", member.peer_ur_ls[0])
    });
    new.set_flag("initial-cluster", &urls.collect::<Vec<_>>().join(","));
    new.set_flag("initial-cluster-state", "existing");
    cluster.push(new);
    cluster.restart(at).await;
    id
}

async fn listed(cluster: &Cluster, asked: usize, id: u64) -> Member {
    cluster.members(asked).await.into_iter().find(|member| member.id == id).unwrap()
}

/// etcd 21736: an update of a learner's URLs gave it a vote, at once or at the next start. Here it runs and is in step,
/// so that nothing but its role keeps it from one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_of_a_learner_leaves_it_one() {
    let mut cluster = Cluster::rusd(3, &[]).await;
    let id = grow(&mut cluster).await;
    for update in 1..=3 {
        let own = listed(&cluster, 0, id).await.peer_ur_ls[0].clone();
        let peer_ur_ls = vec![own, format!("http://127.0.0.1:{update}")];
        let request = MemberUpdateRequest { id, peer_ur_ls: peer_ur_ls.clone() };
        let ask = || {
            let (mut client, request) = (ClusterClient::new(cluster.channel(0)), request.clone());
            async move { client.member_update(request).await }
        };
        until_answered("an update", ask).await;
        for asked in 0..3 {
            let member = listed(&cluster, asked, id).await;
            assert_eq!((member.is_learner, member.peer_ur_ls), (true, peer_ur_ls.clone()), "at m{asked}");
        }
        assert!(cluster.status_of(3).await.is_learner);
    }
    let leader = cluster.leader().await;
    for member in [leader, 3] {
        cluster.terminate(member).await;
        cluster.restart(member).await;
    }
    assert!(listed(&cluster, 0, id).await.is_learner && cluster.status_of(3).await.is_learner);
}

/// `--auto-promote-learners`: it has its vote without being asked for, and the members after it as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_in_step_is_promoted_if_that_is_wished() {
    let mut cluster = Cluster::rusd(3, &["--auto-promote-learners"]).await;
    let id = grow(&mut cluster).await;
    let begun = Instant::now();
    while listed(&cluster, 0, id).await.is_learner || cluster.status_of(3).await.is_learner {
        assert!(begun.elapsed() < COMES_MAX, "it stays a learner\n{}", cluster.log(3));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // A quorum is three of four now: it votes and counts.
    let dead = (cluster.leader().await + 1) % 3;
    cluster.kill(dead);
    cluster.let_lead(3).await;
    cluster.restart(dead).await;
    cluster.agree().await;
}
