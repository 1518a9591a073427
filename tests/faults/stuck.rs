//! A store that this process can't open again, and another one can: it starts again in its place.

use std::time::{Duration, Instant};

use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::{CompactionRequest, PutRequest, RangeRequest};
use tokio::task::JoinSet;

use crate::member::Member;
use crate::settings;

/// Until it is the next process.
const AGAIN_MAX: Duration = Duration::from_secs(120);
/// Keys, how often each is put, and how much: an engine with the least cache is opened anew when all but the last of them go,
/// as its leaves hold many of these.
const KEYS: u8 = 16;
const PUTS: u8 = 24;
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
    let mut puts = JoinSet::new();
    for key in 0..KEYS {
        let mut kv = kv.clone();
        puts.spawn(async move {
            for number in 1..=PUTS {
                let value = vec![number; VALUE_BYTES].into();
                kv.put(PutRequest { key: vec![key].into(), value, ..Default::default() }).await.unwrap();
            }
        });
    }
    puts.join_all().await;
    member.allow_files(6);
    let revision = 1 + i64::from(KEYS) * i64::from(PUTS);
    kv.compact(CompactionRequest { revision, physical: false }).await.unwrap();
    let begun = Instant::now();
    while !member.has_variable("RUSD_STARTED_AGAIN=stuck") {
        assert!(begun.elapsed() < AGAIN_MAX, "{}", member.log_tail());
        assert_eq!(member.ended(Duration::from_millis(20)).await, None, "{}", member.log_tail());
    }
    let mut kv = KvClient::new(member.ready().await);
    for key in 0..KEYS {
        let found = kv.range(RangeRequest { key: vec![key].into(), ..Default::default() }).await.unwrap().into_inner();
        assert_eq!(found.header.unwrap().revision, revision);
        assert!(found.kvs[0].value == vec![PUTS; VALUE_BYTES], "{key}");
    }
    assert!(member.log().contains("starting again to open the store"), "{}", member.log_tail());
}
