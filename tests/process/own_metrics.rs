//! Every `rusd_` metric: its value is right where it is known, it moves under the work that moves it, and comes to rest.
//!
//! ```text
//! writers, a watcher and a reader that take nothing, leases ─► scrape after scrape ─► each name: seen as it has to be
//! ```
//! A name that nobody thought of here is a fault.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt;
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::lease_client::LeaseClient;
use rusd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use rusd_proto::etcdserverpb::watch_client::WatchClient;
use tokio::time::{Instant, timeout};

use crate::metrics::{http, used};
use crate::server::{Kind, Server};

/// How long anything that has to come may take.
const COMES_MAX: Duration = Duration::from_secs(60);
/// More of it than a connection's windows take.
const VALUE_BYTES: usize = 200 << 10;
const VALUES: usize = 60;
const WRITERS: usize = 64;

/// 0 at rest, and more while work is under way.
const BUSY: &[&str] = &[
    "rusd_proposals_pending_bytes",
    "rusd_queue_commands",
    "rusd_batches_in_flight",
    "rusd_wal_queued_bytes",
    "rusd_store_pending_bytes",
];
/// More while somebody takes nothing of what is there for it.
const HELD: &[&str] = &["rusd_snapshots_live", "rusd_snapshot_age_max_seconds", "rusd_watch_lag_revisions"];
/// They only grow, and have grown.
const GROWN: &[&str] = &[
    "rusd_store_durable_index",
    "rusd_watch_overflows_total",
    "rusd_watch_replays_total",
    "rusd_stage_duration_seconds_count{stage=\"queue\"}",
    "rusd_stage_duration_seconds_count{stage=\"commit\"}",
    "rusd_stage_duration_seconds_count{stage=\"fsync\"}",
    "rusd_stage_duration_seconds_count{stage=\"apply\"}",
    "rusd_stage_duration_seconds_count{stage=\"publish\"}",
];
/// 0 as long as nothing is wrong with the disk (`tests/faults/damage.rs` sees to that), or nothing was done for hours.
const QUIET: &[&str] = &[
    "rusd_alarms_corrupt",
    "rusd_alarms_nospace",
    "rusd_disk_short",
    "rusd_wal_damage_total",
    "rusd_snapshot_damage_total",
    "rusd_wal_checked_bytes_total",
    "rusd_store_checked_bytes_total",
    "rusd_store_recycled_total",
    "rusd_store_recycling_seconds_total",
];
/// Looked at below, each by itself.
const KNOWN: &[&str] = &[
    "rusd_build_info",
    "rusd_client_connections",
    "rusd_lease_count",
    "rusd_store_disk_bytes",
    "rusd_limit",
    "rusd_limit_used",
    "rusd_limit_refused_total",
    "rusd_stage_duration_seconds",
];

/// A scrape's own series, with their labels.
#[derive(Debug)]
struct Own(BTreeMap<String, f64>);

impl Own {
    async fn of(server: &Server) -> Self {
        let text = http(server, "/metrics").await;
        let lines = text.lines().filter(|line| line.starts_with("rusd_") && !line.contains("_bucket{"));
        let series = lines.map(|line| line.rsplit_once(' ').expect("a series and a value"));
        Self(series.map(|(series, value)| (series.to_owned(), value.parse().expect("a number"))).collect())
    }

    fn get(&self, series: &str) -> f64 {
        *self.0.get(series).unwrap_or_else(|| panic!("no {series}"))
    }

    fn families(&self) -> BTreeSet<String> {
        let name = |series: &String| series.split('{').next().unwrap_or_default().to_owned();
        let base = |name: String| {
            let times = "rusd_stage_duration_seconds";
            if name.starts_with(times) { times.to_owned() } else { name }
        };
        self.0.keys().map(name).map(base).collect()
    }
}

/// Waits for a scrape of which `holds` is true.
async fn until(server: &Server, what: &str, holds: impl Fn(&Own) -> bool) -> Own {
    let begun = Instant::now();
    loop {
        let own = Own::of(server).await;
        if holds(&own) {
            return own;
        }
        assert!(begun.elapsed() < COMES_MAX, "{what}: {own:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn put(key: String, len: usize) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: vec![7; len].into(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_rusds_own_figures_is_right_and_moves() {
    let flags = ["--max-leases=3".to_owned()];
    let server = Server::start(Kind::Rusd, &flags, "own metrics").await.expect("our own is always there");
    used(&server).await;
    let first = until(&server, "it comes to rest", |own| BUSY.iter().all(|name| own.get(name) == 0.0)).await;
    let known: BTreeSet<String> = [BUSY, HELD, QUIET, KNOWN].concat().into_iter().map(str::to_owned).collect();
    let families = first.families();
    let is_known = |name: &&String| known.contains(*name) || GROWN.contains(&name.as_str());
    let missed: Vec<_> = families.iter().filter(|name| !is_known(name)).collect();
    assert!(missed.is_empty(), "nobody looks at {missed:?}");
    let gone: Vec<_> = known.iter().filter(|name| !families.contains(*name)).collect();
    assert!(gone.is_empty(), "nothing shows {gone:?}");

    // What is known.
    let builds: Vec<_> = first.0.iter().filter(|(series, _)| series.starts_with("rusd_build_info{")).collect();
    let is_this = |(series, value): &(&String, &f64)| series.contains(env!("CARGO_PKG_VERSION")) && **value == 1.0;
    assert!(builds.len() == 1 && builds.iter().all(is_this), "{builds:?}");
    let mut lease = LeaseClient::new(server.connect().await);
    for id in 1..=3 {
        lease.lease_grant(pb::LeaseGrantRequest { id, ttl: 600 }).await.unwrap();
    }
    lease.lease_grant(pb::LeaseGrantRequest { id: 4, ttl: 600 }).await.expect_err("one too many");
    let leases = Own::of(&server).await;
    let limit = |name: &str| leases.get(&format!("{name}{{limit=\"max-leases\"}}"));
    assert_eq!((limit("rusd_limit"), limit("rusd_limit_used"), limit("rusd_limit_refused_total")), (3.0, 3.0, 1.0));
    assert_eq!(leases.get("rusd_lease_count"), 3.0);
    lease.lease_revoke(pb::LeaseRevokeRequest { id: 3 }).await.unwrap();
    assert_eq!(Own::of(&server).await.get("rusd_lease_count"), 2.0);
    // Those of before may still be closing; then it is looked at again.
    let (begun, mut rose) = (Instant::now(), false);
    while !rose {
        assert!(begun.elapsed() < COMES_MAX, "two more connections aren't counted");
        let before = Own::of(&server).await.get("rusd_client_connections");
        let more = [server.connect().await, server.connect().await];
        for _ in 0..200 {
            rose = Own::of(&server).await.get("rusd_client_connections") == before + 2.0;
            if rose {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        drop(more);
        until(&server, "as many as before", |own| own.get("rusd_client_connections") <= before).await;
    }

    // A watcher and a reader that take nothing.
    let channel = server.connect().await;
    let create = pb::WatchCreateRequest { key: "big".into(), range_end: "bih".into(), ..Default::default() };
    let create = pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
    let requests = futures::stream::iter([create]).chain(futures::stream::pending());
    let mut watch = WatchClient::new(channel.clone())
        .max_decoding_message_size(usize::MAX)
        .watch(requests)
        .await
        .unwrap()
        .into_inner();
    watch.message().await.unwrap().unwrap();
    let mut kv = KvClient::new(server.connect().await);
    for at in 0..VALUES {
        kv.put(put(format!("big/{at}"), VALUE_BYTES)).await.unwrap();
    }
    let all = pb::RangeRequest { key: "big".into(), range_end: "bih".into(), ..Default::default() };
    let mut reader = KvClient::new(server.connect().await).max_decoding_message_size(usize::MAX);
    let mut read = reader.range_stream(all).await.unwrap().into_inner();
    read.message().await.unwrap().unwrap();
    let held = until(&server, "something is held", |own| HELD.iter().all(|name| own.get(name) > 0.0)).await;
    // It is told to the second.
    let age = |own: &Own| own.get("rusd_snapshot_age_max_seconds");
    until(&server, "it gets older", |own| age(own) > age(&held)).await;
    let mut events = 0;
    while events < VALUES {
        let next = timeout(COMES_MAX, watch.message()).await.expect("it comes");
        events += next.unwrap().expect("it isn't ended").events.len();
    }
    while timeout(COMES_MAX, read.message()).await.expect("it comes").unwrap().is_some() {}
    drop((watch, read));
    // Members hold states of their own for a while, to compare them.
    until(&server, "nobody is behind", |own| own.get("rusd_watch_lag_revisions") == 0.0).await;

    // Writers.
    let mut busy: BTreeSet<&str> = BUSY.iter().copied().collect();
    let begun = Instant::now();
    let mut round = 0;
    while !busy.is_empty() {
        round += 1;
        let puts = futures::stream::iter(0..WRITERS * 8).map(|at| {
            let mut kv = kv.clone();
            async move { kv.put(put(format!("w/{at}/{round}"), 10_000)).await.map(drop) }
        });
        let puts = puts.buffer_unordered(WRITERS).collect::<Vec<_>>();
        let scrapes = async {
            loop {
                let own = Own::of(&server).await;
                busy.retain(|name| own.get(name) == 0.0);
            }
        };
        tokio::select! {
            written = puts => assert!(written.into_iter().all(|put| put.is_ok())),
            () = scrapes => {}
        }
        assert!(begun.elapsed() < COMES_MAX, "never seen above 0: {busy:?}");
    }
    let last = until(&server, "it comes to rest", |own| BUSY.iter().all(|name| own.get(name) == 0.0)).await;
    for name in GROWN {
        assert!(last.get(name) > first.get(name), "{name} stands at {}", first.get(name));
    }
    // Each entry is applied once it is committed, and a put is in one.
    let count = |stage: &str| last.get(&format!("rusd_stage_duration_seconds_count{{stage=\"{stage}\"}}"));
    assert_eq!(count("queue"), count("commit"));
    assert_eq!(count("commit"), count("apply"));
    assert!(last.get("rusd_store_disk_bytes") > 0.0);
    let applied = MaintenanceClient::new(channel).status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert!(last.get("rusd_store_durable_index") <= applied.raft_applied_index as f64);
    for name in QUIET {
        assert!(last.get(name) >= 0.0 && (!name.contains("damage") || last.get(name) == 0.0), "{name}");
    }
}
