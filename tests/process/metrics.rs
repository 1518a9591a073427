//! `/metrics` of the real etcd and of rusd after the same calls: every family that etcd shows is there with its type,
//! its labels and its buckets, and what counts calls, keys and leases counts the same.
//!
//! ```text
//! etcd, rusd ─► the same calls ─► GET /metrics ─► families ─► rusd has all of etcd's? equal where they must be?
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::server::{Kind, Server, ports};
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::lease_client::LeaseClient;
use rusd_proto::etcdserverpb::request_op::Request as Op;
use rusd_proto::etcdserverpb::watch_client::WatchClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A family's type, the names of its labels, and the bounds of its buckets.
type Shape = (String, BTreeSet<String>, BTreeSet<String>);

/// What a scrape shows.
#[derive(Default)]
pub(crate) struct Scrape {
    families: BTreeMap<String, Shape>,
    /// Each series with its labels sorted.
    values: BTreeMap<String, String>,
}

impl Scrape {
    fn parse(text: &str) -> Self {
        let mut scrape = Self::default();
        for line in text.lines() {
            if let Some(family) = line.strip_prefix("# TYPE ") {
                let (name, kind) = family.split_once(' ').expect("a name and a type");
                scrape.families.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new(), BTreeSet::new()));
            } else if !line.starts_with('#') && !line.is_empty() {
                scrape.series(line);
            }
        }
        scrape
    }

    fn series(&mut self, line: &str) {
        let (series, value) = line.rsplit_once(' ').expect("a series and a value");
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let mut labels: Vec<&str> = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()).collect();
        labels.sort_unstable();
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let family = base.filter(|base| self.families.contains_key(*base)).unwrap_or(name);
        let (_, names, bounds) = self.families.get_mut(family).expect("the type comes before the series");
        for label in &labels {
            let (label, value) = label.split_once('=').expect("a label and a value");
            if label == "le" {
                bounds.insert(value.trim_matches('"').parse::<f64>().expect("a bound is a number").to_string());
            } else {
                names.insert(label.to_owned());
            }
        }
        self.values.insert(format!("{name}{{{}}}", labels.join(",")), value.to_owned());
    }

    fn value(&self, series: &str) -> Option<f64> {
        self.values.get(series).map(|value| value.parse().expect("a value is a number"))
    }
}

/// What must be equal after the calls below.
const EQUAL: &[&str] = &[
    "etcd_server_has_leader{}",
    "etcd_server_is_leader{}",
    "etcd_server_leader_changes_seen_total{}",
    "etcd_server_proposals_failed_total{}",
    "etcd_server_proposals_pending{}",
    "etcd_server_quota_backend_bytes{}",
    "etcd_server_health_success{}",
    "etcd_server_health_failures{}",
    "etcd_mvcc_put_total{}",
    "etcd_mvcc_delete_total{}",
    "etcd_mvcc_txn_total{}",
    "etcd_debugging_mvcc_total_put_size_in_bytes{}",
    "etcd_debugging_mvcc_keys_total{}",
    "etcd_debugging_mvcc_events_total{}",
    "etcd_debugging_mvcc_watcher_total{}",
    "etcd_debugging_mvcc_watch_stream_total{}",
    "etcd_debugging_mvcc_current_revision{}",
    "etcd_debugging_mvcc_compact_revision{}",
    "etcd_debugging_mvcc_db_compaction_keys_total{}",
    "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count{}",
    "etcd_debugging_lease_granted_total{}",
    "etcd_debugging_lease_revoked_total{}",
    "etcd_debugging_lease_renewed_total{}",
    "etcd_debugging_lease_ttl_total_count{}",
    "etcd_debugging_lease_ttl_total_sum{}",
    "etcd_debugging_server_lease_expired_total{}",
    "etcd_server_apply_duration_seconds_count{op=\"Put\",success=\"true\",version=\"v3\"}",
    "etcd_server_apply_duration_seconds_count{op=\"Txn\",success=\"true\",version=\"v3\"}",
    "etcd_server_apply_duration_seconds_count{op=\"LeaseRevoke\",success=\"true\",version=\"v3\"}",
    "etcd_server_request_duration_seconds_count{success=\"true\",type=\"Put\"}",
    "etcd_server_request_duration_seconds_count{success=\"true\",type=\"Txn\"}",
    "etcd_server_request_duration_seconds_count{success=\"false\",type=\"Range\"}",
    "etcd_server_range_duration_seconds_count{success=\"false\"}",
    "grpc_server_handling_seconds_count{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}",
    "grpc_server_msg_received_total{grpc_method=\"Watch\",grpc_service=\"etcdserverpb.Watch\",grpc_type=\"bidi_stream\"}",
    "grpc_server_msg_sent_total{grpc_method=\"Watch\",grpc_service=\"etcdserverpb.Watch\",grpc_type=\"bidi_stream\"}",
];

/// What must have been noted, by as many as it may be.
const NOTED: &[&str] = &[
    "etcd_disk_wal_fsync_duration_seconds_count{}",
    "etcd_disk_backend_commit_duration_seconds_count{}",
    "etcd_debugging_mvcc_db_compaction_last{}",
    "etcd_mvcc_db_total_size_in_bytes{}",
    "etcd_mvcc_range_total{}",
    "etcd_network_client_grpc_received_bytes_total{}",
    "etcd_network_client_grpc_sent_bytes_total{}",
    "process_resident_memory_bytes{}",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rusd_shows_what_etcd_shows() {
    let flags = ["--metrics=extensive".to_owned()];
    let Some(etcd) = Server::start(Kind::Etcd, &flags, "metrics").await else { return };
    let rusd = Server::start(Kind::Rusd, &flags, "metrics").await.expect("our own is always there");
    let (etcd, rusd) = tokio::join!(used(&etcd), used(&rusd));
    let mut faults = Vec::new();
    for (name, shape) in &etcd.families {
        match rusd.families.get(name) {
            // Go's summary of its garbage collections has nothing to stand for.
            Some(_) if name == "go_gc_duration_seconds" => {}
            Some(ours) if ours == shape => {}
            ours => faults.push(format!("{name}: etcd {shape:?}, rusd {ours:?}")),
        }
    }
    for series in EQUAL {
        let (theirs, ours) = (etcd.value(series), rusd.value(series));
        if theirs.is_none() || theirs != ours {
            faults.push(format!("{series}: etcd {theirs:?}, rusd {ours:?}"));
        }
    }
    for series in NOTED {
        let (theirs, ours) = (etcd.value(series), rusd.value(series));
        if theirs.is_none_or(|value| value <= 0.0) || ours.is_none_or(|value| value <= 0.0) {
            faults.push(format!("{series}: etcd {theirs:?}, rusd {ours:?}"));
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

/// The usual detail, and a port of their own for those who scrape: on both it shows the same families. Without a quota
/// both say -1. (Cause: rusd said 0, so that any size was above any part of it, and alerts fired for ever.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_usual_detail_and_the_port_for_metrics_are_etcds() {
    let mut shown = Vec::new();
    for kind in [Kind::Rusd, Kind::Etcd] {
        let free = format!("127.0.0.1:{}", ports::free());
        let flags = [format!("--listen-metrics-urls=http://{free}"), "--quota-backend-bytes=-1".to_owned()];
        let Some(_server) = Server::start(kind, &flags, "metrics").await else { continue };
        let scrape = Scrape::parse(&get(&free, "/metrics").await);
        assert!(!scrape.families.contains_key("grpc_server_handling_seconds"), "{kind:?}");
        assert_eq!(scrape.value("etcd_server_has_leader{}"), Some(1.0), "{kind:?}");
        assert_eq!(scrape.value("etcd_server_quota_backend_bytes{}"), Some(-1.0), "{kind:?}");
        assert!(get(&free, "/health").await.contains("true"), "{kind:?}");
        shown.push(scrape.families);
    }
    if let [rusd, etcd] = &shown[..] {
        let missing: Vec<_> = etcd.keys().filter(|name| !rusd.contains_key(*name)).collect();
        // Members' attributes go through etcd's log, in rusd not as a request of this kind.
        let of_attributes = ["etcd_server_apply_duration_seconds", "etcd_server_request_duration_seconds"];
        assert!(missing.iter().all(|name| of_attributes.contains(&name.as_str())), "{missing:?}");
    }
}

/// What alerts ask for, the chart's and etcd's: NOSPACE (1) and CORRUPT (2), as they are raised and taken back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raised_alarms_are_counted() {
    let server = Server::start(Kind::Rusd, &[], "metrics").await.expect("our own is always there");
    let mut client = pb::maintenance_client::MaintenanceClient::new(server.connect().await);
    let (mut seen, mut named) = (Vec::new(), Vec::new());
    for (action, alarm) in [(0, 0), (1, 1), (1, 2), (2, 1), (2, 2)] {
        client.alarm(pb::AlarmRequest { action, member_id: 5, alarm }).await.unwrap();
        let scrape = Scrape::parse(&http(&server, "/metrics").await);
        seen.push(["rusd_alarms_nospace{}", "rusd_alarms_corrupt{}"].map(|series| scrape.value(series).unwrap()));
        named.push(["NOSPACE", "CORRUPT"].map(|kind| {
            scrape.value(&format!("etcd_debugging_server_alarms{{alarm_type=\"{kind}\",server_id=\"5\"}}")).is_some()
        }));
    }
    assert_eq!(named, [[false, false], [true, false], [true, true], [false, true], [false, false]]);
    assert_eq!(seen, [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]);
}

/// A server's figures after some use.
pub(crate) async fn used(server: &Server) -> Scrape {
    let channel = server.connect().await;
    let mut kv = KvClient::new(channel.clone());
    let put = |key: &'static str, value: &'static str, lease| pb::PutRequest {
        key: key.into(),
        value: value.into(),
        lease,
        ..Default::default()
    };
    let get = |revision| pb::RangeRequest { key: "a".into(), revision, ..Default::default() };
    let create = pb::WatchCreateRequest { key: "w".into(), ..Default::default() };
    let create = pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
    let requests = futures::StreamExt::chain(futures::stream::iter([create]), futures::stream::pending());
    let mut watch = WatchClient::new(channel.clone()).watch(requests).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    for (key, value) in [("a", "1"), ("a", "22"), ("b", "333"), ("w", "4444")] {
        kv.put(put(key, value, 0)).await.unwrap();
    }
    watch.message().await.unwrap().unwrap();
    kv.range(get(0)).await.unwrap();
    kv.range(get(99)).await.unwrap_err();
    kv.delete_range(pb::DeleteRangeRequest { key: "b".into(), ..Default::default() }).await.unwrap();
    let op = |request| pb::RequestOp { request: Some(request) };
    let success = vec![op(Op::RequestPut(put("t", "5", 0))), op(Op::RequestRange(get(0)))];
    kv.txn(pb::TxnRequest { success, ..Default::default() }).await.unwrap();

    let mut lease = LeaseClient::new(channel.clone());
    for (id, ttl) in [(7, 60), (8, 4)] {
        lease.lease_grant(pb::LeaseGrantRequest { id, ttl }).await.unwrap();
        kv.put(put(if id == 7 { "l7" } else { "l8" }, "", id)).await.unwrap();
    }
    let renewal = futures::stream::iter([pb::LeaseKeepAliveRequest { id: 7 }]);
    let mut renewed = lease.lease_keep_alive(renewal).await.unwrap().into_inner();
    while renewed.message().await.unwrap().is_some() {}
    lease.lease_revoke(pb::LeaseRevokeRequest { id: 7 }).await.unwrap();
    kv.compact(pb::CompactionRequest { revision: 4, physical: true }).await.unwrap();
    http(server, "/health").await;
    // The short lease runs out; etcd samples and flushes now and then.
    for _ in 0..100 {
        let text = http(server, "/metrics").await;
        if text.contains("\netcd_debugging_server_lease_expired_total 1\n") && text.contains("lease_revoked_total 2\n")
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    Scrape::parse(&http(server, "/metrics").await)
}

pub(crate) async fn http(server: &Server, path: &str) -> String {
    let [url, _] = server.urls();
    get(url.strip_prefix("http://").expect("plain HTTP"), path).await
}

async fn get(address: &str, path: &str) -> String {
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer.split_once("\r\n\r\n").expect("a head and a body").1.to_owned()
}
