//! Five members of which two are dead, and then three.

use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::{PutRequest, RangeRequest};
use tonic::Code;

use crate::run::Run;

/// Two of five are killed, the leader among them: the cluster goes on. Three: it refuses writes and
/// linearizable reads with etcd's errors, answers serializable reads, and goes on when one is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_members_go_on_without_two_and_wait_without_three() {
    let mut run = Run::start("five members", 5, &[]).await;
    let leader = run.cluster.leader().await;
    let dead = [leader, (leader + 1) % 5];
    for member in dead {
        run.cluster.kill(member);
    }
    let leader = run.cluster.leader_but(Some(leader)).await;
    run.load.goes_on(100).await;

    let third = (0..5).find(|member| *member != leader && !dead.contains(member)).expect("three live");
    run.cluster.kill(third);
    let alive = (0..5).filter(|member| *member != third && !dead.contains(member));
    for member in alive {
        let mut kv = KvClient::new(run.cluster.channel(member));
        let (mut reader, read) = (kv.clone(), RangeRequest { key: "k0".into(), ..RangeRequest::default() });
        let put = PutRequest { key: "big/refused".into(), ..PutRequest::default() };
        let (read_refused, put_refused) = tokio::join!(reader.range(read.clone()), kv.put(put));
        let refused = read_refused.expect_err("a linearizable read needs three");
        assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "etcdserver: request timed out"));
        let refused = put_refused.expect_err("a write needs three");
        let known = [
            (Code::Unavailable, "etcdserver: request timed out"),
            (Code::DeadlineExceeded, "context deadline exceeded"),
        ];
        assert!(known.contains(&(refused.code(), refused.message())), "{refused:?}");
        kv.range(RangeRequest { serializable: true, ..read }).await.expect("a serializable read needs nobody");
        // Nor does its status.
        let status = run.cluster.status_of(member).await;
        assert_eq!((status.leader, &status.errors[..]), (0, &["etcdserver: no leader".to_owned()][..]));
    }

    run.cluster.restart(third).await;
    run.load.goes_on(100).await;
    for member in dead {
        run.cluster.restart(member).await;
    }
    run.finish().await;
}
