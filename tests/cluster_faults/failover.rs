//! How long nothing is written after the leader was killed, on etcd and rusd side by side. A measurement:
//! `cargo test --test cluster_faults failover -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use rusd_proto::etcdserverpb::PutRequest;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use tokio::task::JoinSet;

use crate::cluster::{COMES_MAX, Cluster, Program};
use crate::load::Load;
use crate::settings;

/// Between two tries at each member that is left.
const TRY: Duration = Duration::from_millis(10);

/// From the kill to the first acknowledgement of a write that was sent after it.
async fn kill_leader(cluster: &mut Cluster) -> Duration {
    let leader = cluster.leader().await;
    let left: Vec<_> = (0..cluster.len()).filter(|member| *member != leader).collect();
    let killed = Instant::now();
    cluster.kill(leader);
    let mut tries: JoinSet<Option<Instant>> = JoinSet::new();
    let mut tick = tokio::time::interval(TRY);
    let first = loop {
        assert!(killed.elapsed() < COMES_MAX, "writes don't go on");
        tokio::select! {
            Some(tried) = tries.join_next() => if let Some(at) = tried.unwrap() { break at },
            _ = tick.tick() => for member in &left {
                let mut kv = KvClient::new(cluster.channel(*member));
                let put = PutRequest { key: "big/probe".into(), ..PutRequest::default() };
                tries.spawn(async move { kv.put(put).await.ok().map(|_| Instant::now()) });
            },
        }
    };
    drop(tries);
    cluster.restart(leader).await;
    first.duration_since(killed)
}

/// 20 times each, unless `RUSD_FAULT_ROUNDS` says otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement of some minutes, not a test"]
async fn failover_side_by_side() {
    let rounds = settings::rounds(20);
    for (program, name) in [(Program::Etcd, "etcd"), (Program::Rusd, "rusd")] {
        let Some(mut cluster) = Cluster::of(program, 3, &[], "failover_side_by_side").await else { return };
        let load = Load::start(&cluster, 1, 2);
        let mut took = Vec::new();
        for _ in 0..rounds {
            load.goes_on(50).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            took.push(kill_leader(&mut cluster).await);
        }
        drop(load);
        let shown: Vec<_> = took.iter().map(|took| format!("{:.2}", took.as_secs_f64())).collect();
        took.sort_unstable();
        let (median, worst) = (took[took.len() / 2], took[took.len() - 1]);
        println!(
            "{name}: median {:.2} s, worst {:.2} s: {}",
            median.as_secs_f64(),
            worst.as_secs_f64(),
            shown.join(" ")
        );
    }
}
