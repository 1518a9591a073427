//! A member whose store isn't what the others hold: noticed, told, not served, and healed unless that is switched off.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rusd::env::Env;
use rusd::storage::backend::Engine;
use rusd::storage::{Store, StoreConfig};
use rusd::types::LeaseId;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use rusd_proto::etcdserverpb::{AlarmMember, AlarmRequest, MoveLeaderRequest, PutRequest, RangeRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use crate::cluster::{COMES_MAX, Cluster, until_answered};

/// Entries after which every member has passed a landmark.
const ENTRIES: usize = 300;

/// Writes what is always the same, so often; what an election loses is written again.
pub(crate) async fn puts(cluster: &Cluster, member: usize, count: usize) {
    for at in 0..count {
        let put = PutRequest { key: format!("k{}", at % 10).into(), value: "v".into(), ..Default::default() };
        cluster.put(member, put).await;
    }
}

pub(crate) async fn read(cluster: &Cluster, member: usize, serializable: bool) -> Result<(), Code> {
    let range = RangeRequest { key: "k1".into(), serializable, ..Default::default() };
    KvClient::new(cluster.channel(member)).range(range).await.map(drop).map_err(|status| status.code())
}

/// Waits until the member refuses even what needs nobody else.
pub(crate) async fn refuses(cluster: &Cluster, member: usize) {
    let begun = Instant::now();
    while read(cluster, member, true).await != Err(Code::DataLoss) {
        assert!(begun.elapsed() < COMES_MAX, "it is still served\n{}", cluster.log(member));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The alarms, as a member tells them.
pub(crate) async fn alarms(cluster: &Cluster, member: usize) -> Vec<AlarmMember> {
    let ask = || {
        let mut client = MaintenanceClient::new(cluster.channel(member));
        async move { client.alarm(AlarmRequest::default()).await }
    };
    until_answered("the alarms", ask).await.into_inner().alarms
}

/// What `/health` answers at a member.
async fn health(cluster: &Cluster, member: usize) -> u16 {
    let url = cluster.url(member);
    let mut socket = TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
    socket.write_all(b"GET /health HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

/// What the changed key is at a member, if that answers.
async fn changed(cluster: &Cluster, member: usize) -> Option<String> {
    let range = RangeRequest { key: "k3".into(), serializable: true, ..Default::default() };
    let found = KvClient::new(cluster.channel(member)).range(range).await.ok()?.into_inner();
    Some(String::from_utf8_lossy(&found.kvs[0].value).into_owned())
}

/// Reads at the member for some seconds; whatever it answers was agreed.
fn serves_only(cluster: &Cluster, member: usize) -> tokio::task::JoinHandle<()> {
    let channel = cluster.channel(member);
    tokio::spawn(async move {
        for _ in 0..200 {
            let range = RangeRequest { key: "k3".into(), serializable: true, ..Default::default() };
            let mut client = KvClient::new(channel.clone());
            let asked = tokio::time::timeout(Duration::from_millis(100), client.range(range)).await;
            if let Ok(Ok(found)) = asked {
                assert_eq!(found.into_inner().kvs[0].value, "v", "it serves what nobody agreed to");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
}

/// Members with whom what is found to differ stays as it is.
pub(crate) const UNHEALED: [&str; 2] = ["--backend=redb", "--heal-diverged=false"];

/// Three members, of which one (the number) was changed while it was down; it is up again.
async fn with_a_bad_one(flags: &[&str]) -> (Cluster, usize) {
    let (mut cluster, bad) = with_a_bad_one_down(flags).await;
    cluster.restart(bad).await;
    (cluster, bad)
}

/// The same, but that it is still down.
async fn with_a_bad_one_down(flags: &[&str]) -> (Cluster, usize) {
    let mut cluster = Cluster::rusd(3, flags).await;
    let leader = cluster.leader().await;
    let bad = (leader + 1) % 3;
    puts(&cluster, leader, 20).await;
    cluster.terminate(bad).await;
    tamper(&cluster, bad);
    (cluster, bad)
}

/// Waits until the cluster knows of it, as another member than the bad one tells.
pub(crate) async fn is_alarmed(cluster: &Cluster, good: usize) -> Vec<AlarmMember> {
    let begun = Instant::now();
    loop {
        let alarms = alarms(cluster, good).await;
        if !alarms.is_empty() {
            return alarms;
        }
        assert!(begun.elapsed() < COMES_MAX, "no alarm is raised\n{}", cluster.log(good));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until the member serves what was agreed; nothing else is ever served, and a clean end shows in its files.
pub(crate) async fn is_healed(cluster: &Cluster, bad: usize) {
    serves_what_was_agreed(cluster, bad).await;
    cluster.agree().await;
    has_no_alarm(cluster, (bad + 1) % 3).await;
}

/// The first half of it: the others may not be there.
pub(crate) async fn serves_what_was_agreed(cluster: &Cluster, bad: usize) {
    let begun = Instant::now();
    loop {
        match changed(cluster, bad).await {
            Some(value) => {
                assert_eq!(value, "v", "it serves what nobody agreed to\n{}", cluster.log(bad));
                break;
            }
            None => assert!(begun.elapsed() < 2 * COMES_MAX, "it isn't healed\n{}", cluster.log(bad)),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!cluster.data(bad).join("member/diverged").exists(), "the mark is still there");
    assert!(cluster.data(bad).join("member/store.diverged").exists(), "the old store isn't kept");
}

/// Waits until no alarm is raised any more, as a member tells.
pub(crate) async fn has_no_alarm(cluster: &Cluster, good: usize) {
    let begun = Instant::now();
    while !alarms(cluster, good).await.is_empty() {
        assert!(begun.elapsed() < 2 * COMES_MAX, "the alarm is still raised");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Changes a store behind its member's back, as a broken machine could.
pub(crate) fn tamper(cluster: &Cluster, member: usize) {
    tamper_with(cluster, member, "not what was agreed".to_owned());
}

/// The same, to this value.
pub(crate) fn tamper_with(cluster: &Cluster, member: usize, value: String) {
    let env = Env::real();
    let dir = cluster.data(member).join("member/store");
    let (mut store, opened) = Store::open(&env, StoreConfig::new(Engine::Redb, dir)).unwrap();
    let mut txn = store.begin();
    txn.put(Bytes::from_static(b"k3"), Bytes::from(value), LeaseId(0));
    txn.commit();
    store.publish(opened.position).unwrap();
    futures::executor::block_on(store.reader().values().flush()).unwrap();
}

/// Cause: bytes of one member's store changed without its log. Symptom (etcd issues 13839, 14571): its clients are
/// given other data than the others'. Now the leader finds it by the digests at the next landmark, the member
/// refuses everything, also after a restart, and the keys are named. With `--heal-diverged=false` it stays so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_differs_is_found_and_not_served() {
    let mut cluster = Cluster::rusd(3, &UNHEALED).await;
    let leader = cluster.leader().await;
    let (bad, good) = ((leader + 1) % 3, (leader + 2) % 3);
    puts(&cluster, leader, 20).await;
    cluster.terminate(bad).await;
    tamper(&cluster, bad);
    cluster.restart(bad).await;
    let writer = cluster.leader().await;
    puts(&cluster, writer, ENTRIES).await;
    let (begun, mark) = (Instant::now(), cluster.data(bad).join("member/diverged"));
    while alarms(&cluster, leader).await.is_empty() {
        assert!(begun.elapsed() < COMES_MAX, "no alarm is raised\n{}", cluster.log(writer));
    }
    assert!(mark.exists(), "the alarm is raised, and a start wouldn't know");
    refuses(&cluster, bad).await;
    assert_eq!(read(&cluster, bad, false).await, Err(Code::DataLoss));
    for member in [leader, good] {
        // Not while there is an election.
        while (read(&cluster, member, false).await, health(&cluster, member).await) != (Ok(()), 200) {
            assert!(begun.elapsed() < 2 * COMES_MAX, "m{member} doesn't go on, or isn't told to be well");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert_eq!(health(&cluster, bad).await, 503);

    // Which keys: known after one landmark more.
    let begun = Instant::now();
    loop {
        puts(&cluster, writer, ENTRIES).await;
        let named = (0..3).any(|member| {
            cluster.log(member).lines().any(|line| line.contains("these keys differ") && line.contains("k3"))
        });
        if named {
            break;
        }
        assert!(begun.elapsed() < COMES_MAX, "no key is named\n{}", cluster.log(writer));
    }

    // Noted on its disk before the leader took it to be told, and heeded by the next start.
    cluster.kill(bad);
    cluster.spawn(bad);
    refuses(&cluster, bad).await;
    // It judged for itself, too, and would have been healed by now.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(read(&cluster, bad, true).await, Err(Code::DataLoss));
    assert!(std::fs::read_to_string(&mark).unwrap().contains("proven"), "{}", cluster.log(bad));
    assert!(!cluster.data(bad).join("member/store.diverged").exists(), "it was healed");
}

/// Cause: a member that was proven wrong, and isn't healed, bore witness all the same. Symptom: with a third one down, the
/// next leader found two that differ and nobody who is right, and CORRUPT stopped all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_differs_stops_nobody_when_the_leader_is_gone() {
    let (mut cluster, bad) = with_a_bad_one(&UNHEALED).await;
    // The bad one may be elected, and then hands over.
    let leader = cluster.leader_but(Some(bad)).await;
    let good = 3 - bad - leader;
    let before = is_alarmed(&cluster, good).await;
    cluster.kill(leader);
    let begun = Instant::now();
    while cluster.find_leader().await != Some(good) {
        assert!(begun.elapsed() < COMES_MAX, "the one that is sound doesn't lead\n{}", cluster.log(good));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Longer than a third one is waited for.
    for _ in 0..14 {
        puts(&cluster, good, 5).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(alarms(&cluster, good).await, before, "it is said of somebody else, too");
    assert!(!cluster.log(good).contains("no majority says whose is right"), "{}", cluster.log(good));
    puts(&cluster, good, 1).await;
}

/// Cause: a member whose machine is broken heals, differs, and heals again. Symptom: it starts again for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_healed_too_often_is_left_to_a_person() {
    let (mut cluster, bad) = with_a_bad_one_down(&["--backend=redb"]).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let today = format!("{}\n{}\n{}\n", now - 80_000, now - 40_000, now - 60);
    std::fs::write(cluster.data(bad).join("member/healings"), today).unwrap();
    cluster.restart(bad).await;
    let begun = Instant::now();
    while !cluster.log(bad).contains("differs again and again: remove it") {
        assert!(begun.elapsed() < COMES_MAX, "it isn't said\n{}", cluster.log(bad));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    refuses(&cluster, bad).await;
    cluster.kill(bad);
    cluster.restart(bad).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(read(&cluster, bad, true).await, Err(Code::DataLoss), "a start forgets it");
    assert!(!cluster.data(bad).join("member/store.diverged").exists(), "it was healed");
}

/// Cause: the mark outlasted the cluster that it speaks of. Symptom: a member that was made the only one, as the others are
/// gone for good, had nobody to compare itself with, and served nobody for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_marked_member_that_is_made_the_only_one_serves() {
    let (mut cluster, bad) = with_a_bad_one(&UNHEALED).await;
    is_alarmed(&cluster, (bad + 1) % 3).await;
    for member in 0..3 {
        cluster.terminate(member).await;
    }
    cluster.process(bad).set_flag("force-new-cluster", "true");
    cluster.restart(bad).await;
    let begun = Instant::now();
    while changed(&cluster, bad).await.as_deref() != Some("not what was agreed") {
        assert!(begun.elapsed() < COMES_MAX, "it doesn't serve what it holds\n{}", cluster.log(bad));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(cluster.log(bad).contains("it is what counts from now on"), "{}", cluster.log(bad));
    assert!(!cluster.data(bad).join("member/diverged").exists(), "the mark is still there");
    while !alarms(&cluster, bad).await.is_empty() {
        assert!(begun.elapsed() < COMES_MAX, "the alarm is still raised");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// As above, as it is by default: the member takes the leader's state. Nothing is written after it has come back, so its
/// divergence is found, named and healed without any help of clients. The alarm is raised meanwhile and stops nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_differs_is_healed_from_the_leader() {
    let (cluster, bad) = with_a_bad_one(&["--backend=redb"]).await;
    let good = (bad + 1) % 3;
    let id = cluster.id(bad).await;
    let raised: Vec<_> =
        is_alarmed(&cluster, good).await.into_iter().map(|alarm| (alarm.member_id, alarm.alarm)).collect();
    assert_eq!(raised, [(id, 2)], "CORRUPT, of that member");
    puts(&cluster, good, 20).await;
    is_healed(&cluster, bad).await;
    let named = |member: usize| {
        cluster.log(member).lines().any(|line| line.contains("these keys differ") && line.contains("k3"))
    };
    assert!((0..3).any(named), "no key is named");
}

/// Cause: a kill in the middle of healing. Symptom that must not be: a member that serves its old state, a part of the
/// new one, or nothing for ever. It is killed as soon as a file of each step is seen, and at other times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_killed_while_it_heals_heals_later() {
    let (mut cluster, bad) = with_a_bad_one(&["--backend=redb"]).await;
    let writer = (bad + 1) % 3;
    let member = cluster.data(bad).join("member");
    let steps = [member.join("diverged"), member.join("snap/healing.ready"), member.join("store.diverged")];
    for (at, step) in steps.iter().enumerate() {
        let begun = Instant::now();
        // Some are there for a moment only.
        while !steps[at..].iter().any(|step| step.exists()) {
            assert!(begun.elapsed() < COMES_MAX, "{} doesn't come\n{}", step.display(), cluster.log(bad));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        cluster.kill(bad);
        puts(&cluster, writer, 50).await;
        cluster.spawn(bad);
    }
    let served = serves_only(&cluster, bad);
    for pause_ms in [30, 60, 120, 240] {
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        cluster.kill(bad);
        cluster.spawn(bad);
    }
    is_healed(&cluster, bad).await;
    served.await.unwrap();
}

/// A leader that differs hands over, whoever made it the leader, and whether or not it may heal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_differs_hands_over() {
    let (cluster, bad) = with_a_bad_one(&UNHEALED).await;
    refuses(&cluster, bad).await;
    let target_id = cluster.id(bad).await;
    let begun = Instant::now();
    while !cluster.log(bad).contains("handing the lead over") {
        let leader = cluster.leader().await;
        if leader != bad {
            // It may be over by the time that it is told so.
            let _ = MaintenanceClient::new(cluster.channel(leader)).move_leader(MoveLeaderRequest { target_id }).await;
        }
        assert!(begun.elapsed() < COMES_MAX, "it never leads\n{}", cluster.log(bad));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    while cluster.leader().await == bad {
        assert!(begun.elapsed() < COMES_MAX, "it still leads\n{}", cluster.log(bad));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    puts(&cluster, (bad + 1) % 3, 5).await;
}

/// Where each holds something else, nobody knows what is right: the alarm stops all, and nobody is healed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_all_differ_are_not_healed() {
    let mut cluster = Cluster::rusd(3, &["--backend=redb"]).await;
    let leader = cluster.leader().await;
    puts(&cluster, leader, 20).await;
    for member in 0..3 {
        cluster.terminate(member).await;
        tamper_with(&cluster, member, format!("nobody else's {member}"));
    }
    for member in 0..3 {
        cluster.spawn(member);
    }
    let begun = Instant::now();
    loop {
        let put = PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
        let answer = KvClient::new(cluster.channel(leader)).put(put).await;
        if answer.is_err_and(|status| status.code() == Code::DataLoss) {
            break;
        }
        assert!(begun.elapsed() < COMES_MAX, "writes go on\n{}", cluster.log(leader));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    while alarms(&cluster, leader).await.len() < 2 {
        assert!(begun.elapsed() < COMES_MAX, "only of one of the two that aren't as the leader");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    for member in 0..3 {
        assert!(!cluster.data(member).join("member/store.diverged").exists(), "m{member} was healed");
    }
}
