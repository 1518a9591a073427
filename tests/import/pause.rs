//! How long nobody can write at a live move: from the last write that the source acknowledged to the first that rusd does.

use std::time::{Duration, Instant};

use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::Tools;
use crate::large::write;
use crate::live::wait_for;
use crate::member::{Member, Place, must, rusd, words};

fn put(value: u64) -> pb::PutRequest {
    pb::PutRequest { key: "counter".into(), value: value.to_string().into(), ..Default::default() }
}

/// Counts up at the source until that refuses, then at the other one until the first write is acknowledged there: the
/// pause, and the last count that was acknowledged before.
async fn count_through(source: Channel, target: Channel) -> (Duration, u64) {
    let mut kv = KvClient::new(source);
    let (mut last, mut at) = (0, Instant::now());
    for count in 1u64.. {
        match kv.put(put(count)).await {
            Ok(_) => (last, at) = (count, Instant::now()),
            Err(refused) => {
                assert!(refused.message().contains("corrupt"), "{refused}");
                break;
            }
        }
    }
    let mut kv = KvClient::new(target);
    // Unreachable until it serves.
    while kv.put(put(last + 1)).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (at.elapsed(), last)
}

/// Moves so many keys live, under writes; tells the pause.
async fn moved(test: &str, keys: usize) {
    let Some(tools) = Tools::find(test) else { return };
    let dir = TempDir::new().unwrap();
    let (place, data) = (Place::free(), dir.path().join("etcd"));
    let flags = [place.flags(&data), words("--unsafe-no-fsync --quota-backend-bytes=8000000000")].concat();
    let etcd = Member::start(&tools.etcd, place, &flags, &dir.path().join("etcd.log")).await;
    write(&etcd, 0..keys).await;
    let (to, data) = (Place::free(), dir.path().join("rusd"));
    let mut follow = words(&format!("import --from {} --serve --quota-backend-bytes=8000000000", place.client()));
    follow.extend(to.flags(&data));
    let log = dir.path().join("rusd.log");
    let begun = Instant::now();
    let member = Member::spawn(&rusd(), to, &follow, &log);
    wait_for(&log, "following its changes").await;
    let following = begun.elapsed();
    let counting = tokio::spawn(count_through(etcd.channel(), member.channel()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    must(&rusd(), &words(&format!("import take-over --data-dir {}", data.display())));
    let (pause, last) = counting.await.unwrap();
    println!("SUMMARY live move of {keys} keys: following after {following:?}, no writes for {pause:?}");
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("same HashKV as the source"), "{}", member.log());
    // What was acknowledged there is what this one went on from.
    let range = pb::RangeRequest { key: "counter".into(), ..Default::default() };
    let read = KvClient::new(member.channel()).range(range).await.unwrap().into_inner();
    assert_eq!(read.kvs[0].value, (last + 1).to_string());
    assert_eq!(read.kvs[0].version, i64::try_from(last + 1).unwrap(), "no write came twice, and none is missing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_go_on_at_the_next_count() {
    moved("writers_go_on_at_the_next_count", 2_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes a gigabyte, and takes minutes"]
async fn writers_go_on_after_a_million_keys() {
    moved("writers_go_on_after_a_million_keys", crate::large::KEYS).await;
}
