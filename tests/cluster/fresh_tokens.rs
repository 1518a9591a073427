//! A token is good at every member as soon as one has given it out, also where strangers get no more places.
//!
//! ```text
//! root's watches at a follower take what strangers may ─► log in at the leader ─► a call at the follower, at once ─► served
//! ```

use futures::StreamExt;
use rusd_proto::etcdserverpb::watch_client::WatchClient;
use rusd_proto::etcdserverpb::watch_request::RequestUnion;
use rusd_proto::etcdserverpb::{self as pb};

use crate::cluster::{Cluster, passes, until};
use crate::secrets::http;
use crate::users::{add_user, enable, get, grant_role, login, put, with};

/// With so many open, strangers get no more: the fewest that there are for them.
const WATCHES: usize = 64;
/// Logins, each of which the follower learns of after the leader has answered.
const LOGINS: usize = 40;

// Cause: a member that hadn't come to the entry of a token yet took its user for a stranger. Symptom: while there were many
// requests, who had just logged in at another member was told that the token is invalid, and logged in again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_token_of_another_member_is_good_at_a_busy_one() {
    let cluster = Cluster::start(3, &["--bcrypt-cost=4", "--max-open-requests=512"]).await;
    let (leader, _) = cluster.leader().await;
    let follower = (leader + 1) % 3;
    let giver = cluster.members[leader].channel().await.expect("it serves");
    let busy = cluster.members[follower].channel().await.expect("it serves");
    add_user(&giver, None, "root", "pw").await.expect("root is added");
    grant_role(&giver, None, "root", "root").await.expect("it gets its role");
    enable(&giver).await.expect("it is turned on");
    let root = until("root logs in", || login(&giver, "root", "pw")).await;
    until("root puts a key", || put(&giver, Some(&root), "k", "v")).await;

    let mut watches = Vec::new();
    for _ in 0..WATCHES {
        let create = pb::WatchCreateRequest { key: "k".into(), ..Default::default() };
        let create = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let asked = futures::stream::iter([create]).chain(futures::stream::pending());
        let answers = WatchClient::new(busy.clone()).watch(with(Some(&root), asked)).await.expect("root watches");
        let mut answers = answers.into_inner();
        assert!(answers.message().await.expect("it is answered").is_some_and(|answer| answer.created));
        watches.push(answers);
    }
    let scraped = http(&cluster.members[follower].client, "GET /metrics", "", "").await.1;
    let taken = scraped.lines().find_map(|line| line.strip_prefix("rusd_limit_used{limit=\"max-open-requests\"} "));
    assert!(taken.is_some_and(|taken| taken.parse::<usize>().is_ok_and(|taken| taken >= WATCHES)), "{taken:?}");

    for number in 0..LOGINS {
        let token = until("root logs in", || login(&giver, "root", "pw")).await;
        match get(&busy, Some(&token), "k").await {
            Ok(value) => assert_eq!(value.as_deref(), Some("v")),
            // The lead may change on a slow machine; whoever is known then is told of that.
            Err(status) => assert!(passes(&status), "login {number}: {status}"),
        }
    }
}
