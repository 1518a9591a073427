//! A member whose store isn't what the others hold: noticed, told, and never served again.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rusd::env::Env;
use rusd::storage::backend::Engine;
use rusd::storage::{Store, StoreConfig};
use rusd::types::LeaseId;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::{PutRequest, RangeRequest};
use tonic::Code;

use crate::cluster::{COMES_MAX, Cluster};

/// Entries after which every member has passed a landmark.
const ENTRIES: usize = 300;

async fn puts(cluster: &Cluster, member: usize, count: usize) {
    let mut kv = KvClient::new(cluster.channel(member));
    for at in 0..count {
        let put = PutRequest { key: format!("k{}", at % 10).into(), value: "v".into(), ..Default::default() };
        kv.put(put).await.unwrap();
    }
}

async fn read(cluster: &Cluster, member: usize, serializable: bool) -> Result<(), Code> {
    let range = RangeRequest { key: "k1".into(), serializable, ..Default::default() };
    KvClient::new(cluster.channel(member)).range(range).await.map(drop).map_err(|status| status.code())
}

/// Waits until the member refuses even what needs nobody else.
async fn refuses(cluster: &Cluster, member: usize) {
    let begun = Instant::now();
    while read(cluster, member, true).await != Err(Code::DataLoss) {
        assert!(begun.elapsed() < COMES_MAX, "it is still served\n{}", cluster.log(member));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Changes a store behind its member's back, as a broken machine could.
fn tamper(cluster: &Cluster, member: usize) {
    let env = Env::real();
    let dir = cluster.data(member).join("member/store");
    let (mut store, opened) = Store::open(&env, StoreConfig::new(Engine::Redb, dir)).unwrap();
    let mut txn = store.begin();
    txn.put(Bytes::from_static(b"k3"), Bytes::from_static(b"not what was agreed"), LeaseId(0));
    txn.commit();
    store.publish(opened.position).unwrap();
    futures::executor::block_on(store.reader().values().flush()).unwrap();
}

/// Cause: bytes of one member's store changed without its log. Symptom (etcd issues 13839, 14571): its clients are
/// given other data than the others'. Now the leader finds it by the digests at the next landmark, the member
/// refuses everything, also after a restart, and the keys are named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_differs_is_found_and_not_served() {
    let mut cluster = Cluster::rusd(3, &["--backend=redb"]).await;
    let leader = cluster.leader().await;
    let (bad, good) = ((leader + 1) % 3, (leader + 2) % 3);
    puts(&cluster, leader, 20).await;
    cluster.terminate(bad).await;
    tamper(&cluster, bad);
    cluster.restart(bad).await;
    let writer = cluster.leader().await;
    puts(&cluster, writer, ENTRIES).await;
    refuses(&cluster, bad).await;
    assert_eq!(read(&cluster, bad, false).await, Err(Code::DataLoss));
    for member in [leader, good] {
        assert_eq!(read(&cluster, member, false).await, Ok(()), "the majority goes on");
    }

    // Which keys: known after one landmark more.
    let begun = Instant::now();
    loop {
        puts(&cluster, writer, ENTRIES).await;
        let named = (0..3).any(|member| {
            cluster.log(member).lines().any(|line| line.contains("these keys differ") && line.contains("k3"))
        });
        if named {
            break;
        }
        assert!(begun.elapsed() < COMES_MAX, "no key is named\n{}", cluster.log(writer));
    }

    // Noted on its disk within a second or two, and heeded by the next start.
    let mark = cluster.data(bad).join("member/diverged");
    while !mark.exists() {
        assert!(begun.elapsed() < COMES_MAX, "it isn't noted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cluster.kill(bad);
    cluster.spawn(bad);
    refuses(&cluster, bad).await;
}
