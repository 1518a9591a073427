//! A store that this process can't open again, and another one can: it starts again in its place.

use std::time::{Duration, Instant};

use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::{CompactionRequest, PutRequest, RangeRequest};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::member::Member;
use crate::settings;

/// Until it is the next process.
const AGAIN_MAX: Duration = Duration::from_secs(120);
/// Versions of a key that are so far apart that no two are in one leaf of the engine. It is opened anew when all but the last are
/// removed, and with the least cache already for half as many: each keeps a leaf of such values in memory. The log needs no file
/// for that.
const VERSIONS: u8 = 9;
const APART: u8 = 64;
const VALUE_BYTES: usize = 16_000;

/// Cause: an engine is opened anew to give memory back, and the process may open no file any more, six times. Symptom: it ended,
/// and whoever started it had to start it again. Holds: under the same id a new one serves, with all that was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_can_open_no_file_starts_again_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let mut flags = settings::plain("sled");
    flags.push("--backend-cache-mb=16".to_owned());
    let mut member = Member::new(&dir.path().join("data"), &dir.path().join("log"), &flags);
    // Sled runs the program `sync` if it is found, which waits for all that the machine has to write.
    member.set_variable("PATH", "/no-such-dir".to_owned());
    let mut kv = KvClient::new(member.start().await);
    for version in 1..=VERSIONS {
        put(kv.clone(), vec![0], vec![version; VALUE_BYTES]).await;
        let others = (1..APART).map(|other| put(kv.clone(), vec![version, other], Vec::new()));
        others.collect::<JoinSet<_>>().join_all().await;
    }
    member.allow_files(6);
    let revision = 1 + i64::from(VERSIONS) * i64::from(APART);
    kv.compact(CompactionRequest { revision, physical: false }).await.unwrap();
    let begun = Instant::now();
    while !member.has_variable("RUSD_STARTED_AGAIN=stuck") {
        assert!(begun.elapsed() < AGAIN_MAX, "{}", member.log_tail());
        assert_eq!(member.ended(Duration::from_millis(20)).await, None, "{}", member.log_tail());
    }
    let mut kv = KvClient::new(member.ready().await);
    let all = RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..Default::default() };
    let found = kv.range(all).await.unwrap().into_inner();
    assert_eq!(found.header.map(|header| header.revision), Some(revision));
    assert_eq!(found.count, 1 + i64::from(VERSIONS) * i64::from(APART - 1));
    assert!(found.kvs[0].value == vec![VERSIONS; VALUE_BYTES]);
    assert!(member.log().contains("starting again to open the store"), "{}", member.log_tail());
}

async fn put(mut kv: KvClient<Channel>, key: Vec<u8>, value: Vec<u8>) {
    kv.put(PutRequest { key: key.into(), value: value.into(), ..Default::default() }).await.unwrap();
}
