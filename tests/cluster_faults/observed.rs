//! What a cluster shows of itself: who a read waited for, and what passed between the members.

use std::time::Duration;

use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::cluster::Cluster;

/// The values of a family's series on a member.
async fn series(cluster: &Cluster, member: usize, name: &str) -> Vec<f64> {
    let url = cluster.url(member);
    let address = url.strip_prefix("http://").unwrap();
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET /metrics HTTP/1.0\r\nhost: {address}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    let of_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
    text.lines().filter(of_it).map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap()).collect()
}

/// The others stand still, so that nobody confirms that the leader leads: its reader waits for that and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_waits_for_a_quorum_is_told_so_and_members_count_what_passes() {
    // Far above the pause, so that nobody else comes to lead.
    let cluster = Cluster::rusd(3, &["--election-timeout=5000", "--warning-unary-request-duration=200ms"]).await;
    let leader = cluster.leader().await;
    let mut kv = KvClient::new(cluster.channel(leader));
    kv.put(pb::PutRequest { key: "k".into(), ..Default::default() }).await.unwrap();
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
