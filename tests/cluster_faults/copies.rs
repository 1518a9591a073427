//! States that came by a snapshot: two of three that hold the same may be one, and its copy.

use std::fs;
use std::time::{Duration, Instant};

use rusd_proto::etcdserverpb::PutRequest;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use tonic::Code;

use crate::cluster::{CALM, COMES_MAX, Cluster};
use crate::divergence::{alarms, is_healed, puts, tamper};

/// Snapshots and purges all the time; nobody else comes to lead by chance, and says who isn't as it is.
const FLAGS: [&str; 6] =
    ["--backend=redb", "--snapshot-count=20", "--snapshot-log-mb=0", "--snapshot-catchup-entries=10", CALM[0], CALM[1]];

async fn until(what: &str, cluster: &Cluster, mut comes: impl FnMut(&Cluster) -> bool) {
    let begun = Instant::now();
    while !comes(cluster) {
        let logs: Vec<_> = (0..cluster.len()).map(|member| cluster.log(member)).collect();
        assert!(begun.elapsed() < COMES_MAX, "{what}: it never comes\n{}", logs.join("\n"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn is_said(cluster: &Cluster, what: &str) -> bool {
    (0..cluster.len()).any(|member| cluster.log(member).contains(what))
}

/// Three, of which the second is dead and further behind than the others' log reaches.
async fn with_one_behind() -> (Cluster, [usize; 3]) {
    let mut cluster = Cluster::rusd(3, &FLAGS).await;
    let first = cluster.leader().await;
    let (second, third) = ((first + 1) % 3, (first + 2) % 3);
    puts(&cluster, first, 20).await;
    cluster.kill(second);
    let saved = |cluster: &Cluster, member: usize| cluster.log(member).matches("saved snapshot").count();
    let before = [first, third].map(|member| saved(&cluster, member));
    puts(&cluster, first, 200).await;
    let are_saved = |cluster: &Cluster| {
        [first, third].iter().zip(before).all(|(member, before)| saved(cluster, *member) > before + 1)
    };
    until("snapshots", &cluster, are_saved).await;
    // Until the log is purged behind the last of them.
    tokio::time::sleep(Duration::from_secs(1)).await;
    (cluster, [first, second, third])
}

/// Cause: the leader's state rots, another member gets it by a snapshot, and the third, which is sound, was away
/// meanwhile. Symptom: two of three held the same, so the third was told that it is wrong, and what was right was
/// replaced. Nobody can say who is right, so now nobody is healed, and the alarm that stops all names the third.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotten_leader_and_its_copy_heal_nobody() {
    let (mut cluster, [rotten, copy, sound]) = with_one_behind().await;
    let id = cluster.id(sound).await;
    cluster.terminate(sound).await;
    cluster.terminate(rotten).await;
    tamper(&cluster, rotten);
    // They were made before it rotted.
    for file in fs::read_dir(cluster.data(rotten).join("member/snap")).unwrap() {
        fs::remove_file(file.unwrap().path()).unwrap();
    }
    cluster.spawn(rotten);
    cluster.spawn(copy);
    until("a copy", &cluster, |cluster| cluster.log(rotten).contains("sent database snapshot")).await;
    cluster.spawn(sound);

    let begun = Instant::now();
    loop {
        let put = PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
        let answer = KvClient::new(cluster.channel(rotten)).put(put).await;
        if answer.is_err_and(|status| status.code() == Code::DataLoss) {
            break;
        }
        assert!(begun.elapsed() < COMES_MAX, "writes go on\n{}", cluster.log(rotten));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let named: Vec<_> =
        alarms(&cluster, rotten).await.into_iter().map(|alarm| (alarm.member_id, alarm.alarm)).collect();
    assert_eq!(named, [(id, 2)], "CORRUPT, of the one that isn't as the leader");
    assert!(is_said(&cluster, "its state is a copy"), "why that says nothing isn't said");
    tokio::time::sleep(Duration::from_secs(3)).await;
    for member in 0..3 {
        for name in ["diverged", "store.diverged"] {
            assert!(!cluster.data(member).join("member").join(name).exists(), "m{member} has {name}");
        }
    }
}

/// A cluster whose members were brought up by snapshots has nothing but copies. What rots later on is found all the same:
/// all of them were found to hold the same after the last of them came in, which lasts over a start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_of_one_state_are_witnesses_once_they_agreed() {
    let (mut cluster, [first, copy, third]) = with_one_behind().await;
    cluster.spawn(copy);
    until("an agreement", &cluster, |cluster| is_said(cluster, "copies of one state among them: noted")).await;
    cluster.agree().await;
    for member in 0..3 {
        cluster.terminate(member).await;
    }
    tamper(&cluster, third);
    for member in [first, copy, third] {
        cluster.spawn(member);
    }
    // Until the members were compared for the first time it is served.
    until("a finding", &cluster, |cluster| cluster.log(third).contains("is not served any more")).await;
    is_healed(&cluster, third).await;
}
