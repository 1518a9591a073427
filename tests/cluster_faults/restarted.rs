//! Members that come back with other flags than they were made with.

use rusd_proto::etcdserverpb::PutRequest;
use rusd_proto::etcdserverpb::kv_client::KvClient;

use crate::cluster::Cluster;

/// Once a member's log has begun it says who the members are, and `--initial-cluster` is not looked at any more, as in
/// etcd: whoever replaced members and left the unit files as they were must not be kept from a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_with_a_wrong_initial_cluster_serves() {
    let mut cluster = Cluster::rusd(3, &[]).await;
    let told = cluster.process(0).flag("initial-cluster").to_owned();
    let own = cluster.process(2).place.peer[1].clone();
    let wrong = [
        "other=http://127.0.0.1:1".to_owned(),
        format!("{told},m9={own}"),
        // A cluster of one: a member that believed it would lead alone.
        format!("m2={own}"),
    ];
    for (member, wrong) in wrong.iter().enumerate() {
        cluster.terminate(member).await;
        cluster.process(member).set_flag("initial-cluster", wrong);
        cluster.restart(member).await;
        let mut kv = KvClient::new(cluster.channel(member));
        let put = PutRequest { key: format!("k{member}").into(), ..PutRequest::default() };
        kv.put(put).await.expect("the cluster that it was made for");
        let members = cluster.members(member).await;
        assert_eq!(members.len(), 3, "{members:?}");
    }
    cluster.agree().await;
}
