//! Two of five members differ at once: they heal one after the other, and the others' clients notice nothing.
//!
//! ```text
//! A and B changed while they were down ─► found, alarmed ─► A's turn: starts again … serves ─► B's turn: … ─► all alike
//!                                          a client of C writes all the time ──────────────────────────────►
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusd_proto::etcdserverpb::PutRequest;
use rusd_proto::etcdserverpb::kv_client::KvClient;

use crate::cluster::Cluster;
use crate::divergence::{has_no_alarm, puts, refuses, serves_what_was_agreed, tamper_with};

/// Puts that an election may cost: each waits for it.
const FAILED_MAX: u64 = 3;

/// What a member says when its turn has come, when it is there again, and when it is healed.
const BEGINS: &str = "the others' state has arrived; starting again with it";
const IS_BACK: &str = "ready to serve client requests";
const ENDS: &str = "this member holds what the others do again, and serves; its old store is kept aside";

/// When a member's turn began that healed it, when it was there again after that, and when it was healed: all members'
/// times are of one machine, and sort as texts. A state that didn't fit may have come before.
fn turn(cluster: &Cluster, member: usize) -> [String; 3] {
    let log = cluster.log(member);
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let said: Vec<_> = lines.map(|line| (line["msg"].to_string(), line["ts"].to_string())).collect();
    let find = |what: &str, after: &str| {
        let mut found = said.iter().filter(|(text, time)| text.trim_matches('"') == what && time.as_str() >= after);
        found.next().unwrap_or_else(|| panic!("m{member} never said after {after}: {what}\n{log}")).1.clone()
    };
    let began = said.iter().rfind(|(text, _)| text.trim_matches('"') == BEGINS);
    let began = began.unwrap_or_else(|| panic!("m{member} never had its turn\n{log}")).1.clone();
    [began.clone(), find(IS_BACK, &began), find(ENDS, &began)]
}

/// Cause: all members that differ start again as soon as they have a state to start with. Symptom: two of five are away at
/// a time, and with one more that is down the cluster is without a quorum, by its own doing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_five_that_differ_heal_one_after_the_other() {
    let mut cluster = Cluster::rusd(5, &["--backend=redb"]).await;
    let leader = cluster.leader().await;
    let bad = [(leader + 1) % 5, (leader + 2) % 5];
    let good = (leader + 3) % 5;
    puts(&cluster, leader, 20).await;
    for member in bad {
        cluster.terminate(member).await;
        tamper_with(&cluster, member, format!("nobody else's {member}"));
    }
    let term = cluster.status_of(good).await.raft_term;
    let (mut kv, ends) = (KvClient::new(cluster.channel(good)), Arc::<AtomicBool>::default());
    let over = ends.clone();
    let writes = tokio::spawn(async move {
        let (mut written, mut failed) = (0, 0);
        while !over.load(Ordering::Relaxed) {
            let put = PutRequest { key: "all the time".into(), ..PutRequest::default() };
            match kv.put(put).await {
                Ok(_) => written += 1,
                // On a busy machine a heartbeat may come late, and an election be held for it.
                Err(status) => {
                    println!("  a put failed: {}", status.message());
                    failed += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        (written, failed)
    });
    bad.iter().for_each(|member| cluster.spawn(*member));
    // Until it is found, a member serves what it has.
    tokio::join!(refuses(&cluster, bad[0]), refuses(&cluster, bad[1]));
    for member in bad {
        serves_what_was_agreed(&cluster, member).await;
    }
    has_no_alarm(&cluster, good).await;
    ends.store(true, Ordering::Relaxed);
    let (written, failed) = writes.await.unwrap();
    let elections = cluster.status_of(good).await.raft_term - term;
    let failed_max = FAILED_MAX * elections.max(1);
    assert!(written > 0 && failed <= failed_max, "{written} were written, {failed} failed in {elections} elections");
    cluster.agree().await;
    let mut turns = bad.map(|member| turn(&cluster, member));
    turns.sort();
    println!("  {turns:?}");
    let [[_, first_is_back, _], [second_began, ..]] = turns;
    assert!(first_is_back < second_began, "both were away at a time");
}
