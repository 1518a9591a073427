//! What a cluster shows of itself: who a read waited for, and what passed between the members.

use std::time::Duration;

use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::cluster::{Cluster, Program};

/// The values of a family's series on a member.
pub(crate) async fn series(cluster: &Cluster, member: usize, name: &str) -> Vec<f64> {
    let of_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
    let text = page(cluster, member, "/metrics").await;
    text.lines().filter(of_it).map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap()).collect()
}

/// A page, head and body.
pub(crate) async fn page(cluster: &Cluster, member: usize, path: &str) -> String {
    let url = cluster.url(member);
    let address = url.strip_prefix("http://").unwrap();
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    text
}

/// What the alerts of etcd's mixin are made of, and what people look at when one fires. Not heartbeats that failed: etcd counts
/// those that it sent too late itself, rusd also those that a member didn't answer in time.
const ALERTS: [&str; 10] = [
    "etcd_server_leader_changes_seen_total",
    "etcd_server_proposals_failed_total",
    "etcd_server_read_indexes_failed_total",
    "etcd_server_slow_read_indexes_total",
    "etcd_server_health_failures",
    "etcd_server_health_success",
    "etcd_network_peer_sent_failures_total",
    "grpc_server_handled_total{Put, refused}",
    "grpc_server_handled_total{Range, refused}",
    "grpc_server_handled_total{Put, OK}",
];

/// Those of them that may move, or not, while a quorum comes back.
const BY_CHANCE: [&str; 7] = [
    "etcd_server_proposals_failed_total",
    "etcd_server_read_indexes_failed_total",
    "etcd_server_slow_read_indexes_total",
    "etcd_server_health_failures",
    "etcd_network_peer_sent_failures_total",
    "grpc_server_handled_total{Put, refused}",
    "grpc_server_handled_total{Range, refused}",
];

/// The sum of a family's series; of calls those of one method that went well, or didn't.
pub(crate) fn sum(metrics: &str, name: &str) -> f64 {
    let (family, of) = name.split_once('{').unwrap_or((name, ""));
    let counts = |line: &&str| {
        let Some(labels) = line.strip_prefix(family).filter(|rest| rest.starts_with(['{', ' '])) else { return false };
        let Some((method, outcome)) = of.trim_end_matches('}').split_once(", ") else { return true };
        labels.contains(&format!("grpc_method=\"{method}\""))
            && labels.contains("grpc_code=\"OK\"") == (outcome == "OK")
            // Both know codes that mean the same for a client: no leader, out of time.
            && (outcome == "OK" || labels.contains("Unavailable") || labels.contains("DeadlineExceeded"))
    };
    metrics.lines().filter(counts).map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

/// Those of [`ALERTS`] that moved, and whether there is a leader.
fn moved(before: &str, after: &str) -> (Vec<&'static str>, f64) {
    let grew = |name: &&str| sum(after, name) > sum(before, name);
    (ALERTS.into_iter().filter(grew).collect(), sum(after, "etcd_server_has_leader"))
}

/// A cluster that loses its quorum and gets it back: what moves on etcd's survivor moves on rusd's, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_alerts_look_at_moves_as_etcds_does() {
    let mut seen = Vec::new();
    for program in [Program::Etcd, Program::Rusd] {
        let Some(mut cluster) = Cluster::of(program, 3, &[], "alerts").await else { continue };
        let survivor = cluster.leader().await;
        let others: Vec<usize> = (0..3).filter(|member| *member != survivor).collect();
        let put = || pb::PutRequest { key: "k".into(), ..Default::default() };
        let get = || pb::RangeRequest { key: "k".into(), ..Default::default() };
        let mut kv = KvClient::new(cluster.channel(survivor));
        cluster.put(survivor, put()).await;
        let calm = page(&cluster, survivor, "/metrics").await;
        others.iter().for_each(|member| cluster.kill(*member));
        // The first finds a leader that can't do it, later ones none.
        for _ in 0..2 {
            kv.put(put()).await.unwrap_err();
            kv.range(get()).await.unwrap_err();
        }
        let health = page(&cluster, survivor, "/health").await;
        assert!(health.contains("503") && health.contains("RAFT NO LEADER"), "{program:?}: {health}");
        let alone = page(&cluster, survivor, "/metrics").await;
        for member in &others {
            cluster.spawn(*member);
        }
        for member in &others {
            cluster.serves(*member).await;
        }
        cluster.serves(survivor).await;
        let begun = std::time::Instant::now();
        while kv.put(put()).await.is_err() || kv.range(get()).await.is_err() {
            assert!(begun.elapsed() < crate::cluster::COMES_MAX, "{program:?} doesn't come back");
        }
        assert!(page(&cluster, survivor, "/health").await.contains("true"));
        let back = page(&cluster, survivor, "/metrics").await;
        let mut rounds = [("alone", moved(&calm, &alone)), ("back", moved(&alone, &back))];
        // Whether somebody was asked in vain before the others were there, or the new leader was sure to lead, is chance.
        rounds[1].1.0.retain(|name| !BY_CHANCE.contains(name));
        println!("SUMMARY alerts on {program:?}: {rounds:?}");
        assert_eq!((rounds[0].1.1, rounds[1].1.1), (0.0, 1.0), "{program:?}: has_leader");
        seen.push(rounds);
    }
    if let [etcd, rusd] = &seen[..] {
        assert_eq!(etcd, rusd, "etcd, rusd");
    }
}

/// The others stand still, so that nobody confirms that the leader leads: its reader waits for that and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_waits_for_a_quorum_is_told_so_and_members_count_what_passes() {
    // Far above the pause, so that nobody else comes to lead.
    let cluster = Cluster::rusd(3, &["--election-timeout=5000", "--warning-unary-request-duration=200ms"]).await;
    let leader = cluster.leader().await;
    let mut kv = KvClient::new(cluster.channel(leader));
    cluster.put(leader, pb::PutRequest { key: "k".into(), ..Default::default() }).await;
    let others: Vec<usize> = (0..3).filter(|member| *member != leader).collect();
    others.iter().for_each(|member| cluster.pause(*member));
    let read = tokio::spawn(async move { kv.range(pb::RangeRequest { key: "k".into(), ..Default::default() }).await });
    tokio::time::sleep(Duration::from_millis(600)).await;
    others.iter().for_each(|member| cluster.resume(*member));
    read.await.unwrap().unwrap();
    let log = cluster.log(leader);
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut slow =
        lines.filter(|line| line["msg"] == "request stats" && line["response type"] == "/etcdserverpb.KV/Range");
    let line = slow.next_back().unwrap_or_else(|| panic!("nothing was said\n{log}"));
    assert_eq!(line["slowest stage"], "read index", "{line}");

    for member in 0..3 {
        assert_eq!(series(&cluster, member, "etcd_network_known_peers").await, [1.0; 3], "member {member}");
        assert!(series(&cluster, member, "etcd_network_active_peers").await.contains(&1.0), "member {member}");
        for bytes in ["etcd_network_peer_sent_bytes_total", "etcd_network_peer_received_bytes_total"] {
            assert!(series(&cluster, member, bytes).await.iter().any(|bytes| *bytes > 0.0), "{bytes} of {member}");
        }
    }
    let heartbeats = series(&cluster, leader, "etcd_network_peer_round_trip_time_seconds_count").await;
    assert!(heartbeats.len() == 2 && heartbeats.iter().all(|count| *count > 0.0), "{heartbeats:?}");
}
