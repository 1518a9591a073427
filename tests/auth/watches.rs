//! A watch that is open when its right is taken away, on etcd and on rusd.

use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::auth_client::AuthClient;
use rusd_proto::etcdserverpb::watch_client::WatchClient;
use rusd_proto::etcdserverpb::watch_request::RequestUnion;
use tokio::sync::mpsc;
use tokio::time::{Duration, timeout};
use tokio_stream::wrappers::ReceiverStream;

use crate::server::{Kind, Server};
use crate::users::{add_role, add_user, enable, get, grant_role, login, put, with};

const COMES_MAX: Duration = Duration::from_secs(30);

fn create(key: &'static str) -> pb::WatchRequest {
    let create = pb::WatchCreateRequest { key: key.into(), ..Default::default() };
    pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}

/// Who was let in goes on seeing what it was let in for; reads and further watches, of the same stream too, are refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_that_is_taken_away() {
    for kind in [Kind::Etcd, Kind::Rusd] {
        let Some(server) = Server::start(kind, &["--bcrypt-cost=4".to_owned()], "watches").await else { continue };
        let channel = server.connect().await;
        add_user(&channel, None, "root", "pw").await.expect("root is added");
        grant_role(&channel, None, "root", "root").await.expect("root gets its role");
        add_user(&channel, None, "u", "pw").await.expect("a user is added");
        add_role(&channel, None, "r", Some((0, "k", ""))).await.expect("a role is added");
        grant_role(&channel, None, "u", "r").await.expect("a role is granted");
        enable(&channel).await.expect("it is turned on");
        let root = login(&channel, "root", "pw").await.expect("root logs in");
        let user = login(&channel, "u", "pw").await.expect("the user logs in");
        let (say, requests) = mpsc::channel(4);
        say.send(create("k")).await.expect("open");
        let request = with(Some(&user), ());
        let mut watch = tonic::Request::new(ReceiverStream::new(requests));
        *watch.metadata_mut() = request.metadata().clone();
        let mut answers = WatchClient::new(channel.clone()).watch(watch).await.expect("let in").into_inner();
        let mut next = async || {
            let answer = timeout(COMES_MAX, answers.message()).await.unwrap_or_else(|_| panic!("{kind:?} is silent"));
            answer.expect("the stream is open").expect("the stream is open")
        };
        let created = next().await;
        assert!(created.created && !created.canceled, "{kind:?}: {created:?}");
        let revoke = pb::AuthUserRevokeRoleRequest { name: "u".into(), role: "r".into() };
        AuthClient::new(channel.clone()).user_revoke_role(with(Some(&root), revoke)).await.expect("it is revoked");
        let refused = get(&channel, Some(&user), "k").await.expect_err("no right, no read");
        assert!(["etcdserver: permission denied", "etcdserver: invalid auth token"].contains(&refused.message()));
        put(&channel, Some(&root), "k", "after").await.expect("root writes");
        let event = next().await;
        assert_eq!(event.events.len(), 1, "{kind:?}: {event:?}");
        say.send(create("k")).await.expect("open");
        let refused = next().await;
        assert!(refused.created && refused.canceled && refused.watch_id == -1, "{kind:?}: {refused:?}");
        assert!(refused.cancel_reason.starts_with("rpc error: code = "), "{kind:?}: {refused:?}");
        put(&channel, Some(&root), "k", "again").await.expect("root writes");
        let event = next().await;
        assert_eq!(event.events.len(), 1, "{kind:?}: {event:?}");
    }
}
