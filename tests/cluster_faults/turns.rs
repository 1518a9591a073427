//! Two of five members differ at once: they heal one after the other, and the others' clients notice nothing.
//!
//! ```text
//! A and B changed while they were down ─► found, alarmed ─► A's turn: starts again … serves ─► B's turn: … ─► all alike
//!                                          a client of C writes all the time ──────────────────────────────►
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusd_proto::etcdserverpb::PutRequest;
use rusd_proto::etcdserverpb::kv_client::KvClient;

use crate::cluster::Cluster;
use crate::divergence::{has_no_alarm, puts, refuses, serves_what_was_agreed, tamper_with};

/// What a member says when its turn has come, and when it is healed.
const BEGINS: &str = "the others' state has arrived; starting again with it";
const ENDS: &str = "this member holds what the others do again, and serves; its old store is kept aside";

/// When a member said this, once: all members' times are of one machine, and sort as texts.
fn said(cluster: &Cluster, member: usize, what: &str) -> String {
    let log = cluster.log(member);
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let times: Vec<_> = lines.filter(|line| line["msg"] == what).map(|line| line["ts"].to_string()).collect();
    assert_eq!(times.len(), 1, "m{member} said it {} times: {what}\n{log}", times.len());
    times.concat()
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
    let (mut kv, ends) = (KvClient::new(cluster.channel(good)), Arc::<AtomicBool>::default());
    let over = ends.clone();
    let writes = tokio::spawn(async move {
        let mut written = 0;
        while !over.load(Ordering::Relaxed) {
            let put = PutRequest { key: "all the time".into(), ..PutRequest::default() };
            kv.put(put).await.expect("the others are a quorum all the time, and have a leader");
            written += 1;
        }
        written
    });
    bad.iter().for_each(|member| cluster.spawn(*member));
    // Until it is found, a member serves what it has.
    tokio::join!(refuses(&cluster, bad[0]), refuses(&cluster, bad[1]));
    for member in bad {
        serves_what_was_agreed(&cluster, member).await;
    }
    has_no_alarm(&cluster, good).await;
    ends.store(true, Ordering::Relaxed);
    assert!(writes.await.unwrap() > 0);
    cluster.agree().await;
    let mut turns = bad.map(|member| (said(&cluster, member, BEGINS), said(&cluster, member, ENDS)));
    turns.sort();
    let [(first_began, first_ended), (second_began, second_ended)] = turns;
    println!("  {first_began} to {first_ended}, {second_began} to {second_ended}");
    assert!(first_began < first_ended && first_ended < second_began, "both were away at a time");
}
