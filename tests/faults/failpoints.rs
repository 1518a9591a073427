//! The process ends at each failpoint that one member comes by, under load, and nothing acknowledged is lost.
//!
//! Only with the feature `failpoints`: `cargo xtask failpoints`.

use std::time::Duration;

use rusd::failpoint::NAMES;

use crate::check::check;
use crate::failpoint::{PANICKED, ask};
use crate::history::History;
use crate::load::Load;
use crate::member::Member;
use crate::settings;

const WORKERS: usize = 8;
/// A point that the load doesn't come by within this is a fault.
const REACHED_MAX: Duration = Duration::from_secs(60);
/// What one member never does: it sends nothing, gets no snapshot, and the load asks for no lease's time and renews none for long.
const NOT_ALONE: [&str; 10] = [
    "raftBeforeLeaderSend",
    "raftBeforeFollowerSend",
    "raftBeforeSaveSnap",
    "raftAfterSaveSnap",
    "raftBeforeApplySnap",
    "raftAfterApplySnap",
    "applyBeforeOpenSnapshot",
    "applyAfterOpenSnapshot",
    "beforeLookupWhenLeaseTimeToLive",
    "beforeCheckpointInLeaseRenew",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failpoints_are_listed_told_and_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut member = Member::new(&dir.path().join("data"), &dir.path().join("log"), &[]);
    let port = crate::ports::free();
    member.set_variable("GOFAIL_HTTP", format!("127.0.0.1:{port}"));
    member.start().await;
    let (status, list) = ask(port, "GET", "", "");
    assert_eq!((status, list.lines().count()), (200, NAMES.len()));
    assert!(list.lines().any(|line| line == "raftBeforeSave="), "{list}");
    assert_eq!(ask(port, "GET", "raftBeforeSave", "").0, 404);
    assert_eq!(ask(port, "PUT", "raftBeforeSave", "1*sleep(\"1ms\")").0, 204);
    assert_eq!(ask(port, "GET", "raftBeforeSave", ""), (200, "1*sleep(\"1ms\")\n".to_owned()));
    assert!(ask(port, "GET", "", "").1.contains("raftBeforeSave=1*sleep(\"1ms\")\n"));
    assert_eq!(ask(port, "PUT", "raftBeforeSave", "jump").0, 400);
    assert_eq!(ask(port, "PUT", "noSuchPoint", "panic").0, 400);
    assert_eq!(ask(port, "DELETE", "raftBeforeSave", "").0, 204);
    assert_eq!(ask(port, "DELETE", "raftBeforeSave", "").0, 400);
    assert_eq!(ask(port, "POST", "raftBeforeSave", "").0, 405);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_at_each_failpoint_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let backend = settings::backends().pop().expect("an engine");
    let mut member = Member::new(&dir.path().join("data"), &dir.path().join("log"), &settings::eager(&backend));
    let port = crate::ports::free();
    member.set_variable("GOFAIL_HTTP", format!("127.0.0.1:{port}"));
    let history = History::default();
    let follower = history.follow(member.url());
    let mut load = Load::new(settings::seed(), WORKERS);
    let mut channel = member.start().await;
    for round in 0..settings::rounds_or(1, 3) {
        for name in NAMES.iter().filter(|name| !NOT_ALONE.contains(name)) {
            // It is passed at the start only, when the member makes itself known.
            if *name == "beforeApplyOneConfChange" {
                continue;
            }
            let running = load.start(&channel, &history);
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert_eq!(ask(port, "PUT", name, "panic").0, 204, "{name}");
            let status = member.ended(REACHED_MAX).await;
            let status = status.unwrap_or_else(|| panic!("{name} is never reached"));
            assert_eq!(status.code(), Some(PANICKED), "{name}: {status}\n{}", member.log_tail());
            assert!(member.log().contains(&format!("failpoint panic: {name}")), "{name}: {}", member.log_tail());
            load.finish(running).await;
            channel = member.start().await;
            let ledger = std::mem::take(&mut *load.ledger.lock().unwrap());
            check(&channel, &ledger, &history, &follower).await;
            println!("{name}, round {}: {} acknowledged", round + 1, ledger.acknowledged());
            *load.ledger.lock().unwrap() = ledger;
        }
    }
    follower.abort();
}
