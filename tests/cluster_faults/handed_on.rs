//! Writes that a follower has handed to a leader that goes: its successor gets them, once.
//!
//! ```text
//! writers at the followers ─► their batches ─► the leader: killed, paused, cut off ─► an entry of the next term
//!                                                              the next leader ◄── what was lost ◄──┘
//! ```
//! Cause: what was in the hands of a leader that was lost was waited for until the client's time was up, as in etcd. Symptom:
//! under Kubernetes one write was refused after 7 s at each end of a leader.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::{PutRequest, RangeRequest};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::cluster::Cluster;
use crate::settings;

/// At each of the followers; many, so that a leader never goes without some of their writes.
const WRITERS: usize = 24;

#[derive(Clone, Copy, Debug)]
enum Goes {
    Killed,
    Paused,
    CutOff,
}

/// Puts one value after the other under a key of its own until the end.
async fn write(channel: Channel, key: String, ends: Arc<AtomicBool>) -> Wrote {
    let mut client = KvClient::new(channel);
    let mut wrote = Wrote { key, puts: 0, longest: Duration::ZERO };
    while !ends.load(Ordering::Relaxed) {
        let (begun, key) = (Instant::now(), wrote.key.clone().into_bytes());
        let put = PutRequest { key: key.into(), value: "v".into(), ..PutRequest::default() };
        let answer = client.put(put).await;
        assert!(answer.is_ok(), "after {:?}: {answer:?}", begun.elapsed());
        wrote.longest = wrote.longest.max(begun.elapsed());
        wrote.puts += 1;
    }
    wrote
}

/// How many puts there were, and the longest time one took.
struct Wrote {
    key: String,
    puts: i64,
    longest: Duration,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lost_leader_was_given_is_written_once_by_the_next() {
    let mut cluster = Cluster::rusd(3, &[]).await;
    for round in 0..settings::rounds_or(1, 10) {
        for goes in [Goes::Killed, Goes::Paused, Goes::CutOff] {
            let old = cluster.leader().await;
            let (ends, mut writers) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
            for at in 0..2 * WRITERS {
                let key = format!("{goes:?}/{round}/{at}");
                writers.spawn(write(cluster.channel((old + 1 + at % 2) % 3), key, ends.clone()));
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
            match goes {
                Goes::Killed => cluster.kill(old),
                Goes::Paused => cluster.pause(old),
                Goes::CutOff => cluster.net.isolate(old, 3),
            }
            let new = cluster.leader_but(Some(old)).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            ends.store(true, Ordering::Relaxed);
            let mut longest = Duration::ZERO;
            let mut client = KvClient::new(cluster.channel(new));
            while let Some(wrote) = writers.join_next().await {
                let wrote = wrote.unwrap();
                longest = longest.max(wrote.longest);
                let range = RangeRequest { key: wrote.key.clone().into_bytes().into(), ..RangeRequest::default() };
                let found = client.range(range).await.unwrap().into_inner().kvs;
                assert_eq!(found[0].version, wrote.puts, "{}: each put is there once", wrote.key);
            }
            println!("  {goes:?}, round {round}: no write took longer than {longest:.2?}");
            match goes {
                Goes::Killed => cluster.restart(old).await,
                Goes::Paused => cluster.resume(old),
                Goes::CutOff => cluster.net.heal(),
            }
            cluster.serves(old).await;
            cluster.agree().await;
        }
    }
}
