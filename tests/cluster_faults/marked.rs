//! A member whose mark says that its state differs, though it holds what the others do: called wrong, healed, or proven wrong
//! at a time when it was.
//!
//! ```text
//! ended ─► a mark is written ─► started ─┬► it looks, and serves
//!                                        └► proven: only another state helps ─► alarm ─► turn ─► healed
//! ```

use std::time::{Duration, Instant};

use rusd_proto::etcdserverpb::AlarmRequest;
use rusd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use tonic::Code;

use crate::cluster::{COMES_MAX, Cluster, until_answered};
use crate::divergence::{UNHEALED, is_alarmed, is_healed, puts, read, refuses};

/// Above twice `--election-timeout`, for which a leader takes a member that is gone for there.
const MISSED_AFTER: Duration = Duration::from_secs(4);

/// Starts a member that holds what the others do with a mark that says otherwise: it is served once it has looked.
async fn is_served_with(mark: &str, flags: &[&str]) {
    let mut cluster = Cluster::rusd(3, flags).await;
    let leader = cluster.leader().await;
    let marked = (leader + 1) % 3;
    puts(&cluster, leader, 20).await;
    cluster.terminate(marked).await;
    let path = cluster.data(marked).join("member/diverged");
    std::fs::write(&path, mark).unwrap();
    cluster.spawn(marked);
    let begun = Instant::now();
    while read(&cluster, marked, true).await != Ok(()) {
        assert!(begun.elapsed() < COMES_MAX, "it isn't served\n{}", cluster.log(marked));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!path.exists(), "the mark is still there");
    assert!(!cluster.data(marked).join("member/store.diverged").exists(), "it was replaced");
}

/// Cause: a member that must not heal didn't compare either. Symptom: one whose state had been replaced just before that
/// was switched off was never served again, though it held what the others do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_healed_is_served_though_it_may_heal_no_more() {
    is_served_with("5\nhealed 5\nattempts 1\nproven 1\n", &UNHEALED).await;
}

/// Cause: a marked member took whatever it was sent. Symptom: a sound one, of whom a leader that judges by plain majority
/// had said that it differs, was replaced. It looks for itself before anything else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sound_member_that_was_called_wrong_is_not_replaced() {
    is_served_with("5\nattempts 0\n", &["--backend=redb"]).await;
}

/// Starts one of the cluster's members with the mark of one that was proven wrong, though it is as the others by now: as if
/// all that differed had been written anew.
async fn prove(cluster: &mut Cluster, marked: usize) {
    puts(cluster, marked, 20).await;
    cluster.terminate(marked).await;
    std::fs::write(cluster.data(marked).join("member/diverged"), "5\nattempts 0\nproven 1\n").unwrap();
    cluster.spawn(marked);
    refuses(cluster, marked).await;
}

/// Cause: a member that differs kept its log, and wrote no snapshot, until it was healed, and fetched the whole state though
/// it had no turn. Symptom: where that never comes, its disk filled up, and that of its leader was busy for nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_has_no_turn_keeps_no_log_and_fetches_nothing() {
    let flags = ["--backend=redb", "--snapshot-count=20", "--snapshot-log-mb=0", "--snapshot-catchup-entries=10"];
    let mut cluster = Cluster::rusd(5, &flags).await;
    let leader = cluster.leader().await;
    // Without it the others are no quorum, so it has no turn.
    let (marked, down) = ((leader + 1) % 5, [(leader + 2) % 5, (leader + 3) % 5]);
    for member in down {
        cluster.kill(member);
    }
    // The leader takes them for there as long as two elections take, and would give it a turn.
    tokio::time::sleep(MISSED_AFTER).await;
    prove(&mut cluster, marked).await;
    let saved = |cluster: &Cluster| cluster.log(marked).matches("saved snapshot").count();
    let (before, begun) = (saved(&cluster), Instant::now());
    // Not the marked one, which refuses: it may be elected, and then hands over.
    let writer = (leader + 4) % 5;
    while saved(&cluster) < before + 2 {
        assert!(begun.elapsed() < COMES_MAX, "nothing of its log is purged\n{}", cluster.log(marked));
        puts(&cluster, writer, 50).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(!cluster.log(marked).contains("the leader sends its state"), "{}", cluster.log(marked));
    assert_eq!(read(&cluster, marked, true).await, Err(Code::DataLoss), "it isn't healed");
    for member in down {
        cluster.restart(member).await;
    }
    is_healed(&cluster, marked).await;
}

/// Cause: the alarm of a member that differs was raised when that was seen, and by nothing else. Symptom: cleared by hand
/// once all that differed had been written anew, it stayed away; without it the member had no turn to be healed, and
/// without that it was never served again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_alarm_is_cleared_by_hand_is_healed_all_the_same() {
    let mut cluster = Cluster::rusd(3, &UNHEALED).await;
    let marked = (cluster.leader().await + 1) % 3;
    prove(&mut cluster, marked).await;
    let good = (marked + 1) % 3;
    let raised = is_alarmed(&cluster, good).await;
    let [alarm] = raised[..] else { panic!("{raised:?}") };
    assert_eq!((alarm.member_id, alarm.alarm), (cluster.id(marked).await, 2), "CORRUPT, of that member");
    let disarm = AlarmRequest { action: 2, member_id: alarm.member_id, alarm: alarm.alarm };
    let mut tries = 0;
    let clear = || {
        tries += 1;
        let mut client = MaintenanceClient::new(cluster.channel(good));
        async move { client.alarm(disarm).await }
    };
    let cleared = until_answered("it is cleared", clear).await.into_inner().alarms;
    // The answer of another time may have been lost with a leader.
    assert!(cleared == raised || tries > 1, "{cleared:?}");
    assert_eq!(is_alarmed(&cluster, good).await, raised, "it is raised as long as that member isn't served");
    cluster.terminate(marked).await;
    cluster.process(marked).set_flag("heal-diverged", "true");
    cluster.spawn(marked);
    is_healed(&cluster, marked).await;
}
