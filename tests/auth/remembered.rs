//! A connection that has shown a token before: what is taken from it, or from its user, counts for its next call.
//!
//! rusd remembers with a connection what its token proved, so each way in which that may change is tried right after
//! calls that were let in; and a real etcd, which remembers nothing, answers the same.

use rusd_proto::authpb;
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::auth_client::AuthClient;
use tonic::Status;
use tonic::transport::Channel;

use crate::key;
use crate::server::{Kind, Server};
use crate::users::{add_role, add_user, enable, get, grant_role, login, put, with};

/// What a call is answered.
fn words<T>(answer: Result<T, Status>) -> String {
    answer.map_or_else(|status| status.message().to_owned(), |_| "ok".to_owned())
}

/// A user's connection, and what it was answered.
struct Seat {
    channel: Channel,
    said: Vec<String>,
}

impl Seat {
    /// Reads and writes with a token, more than once: the second call finds what the first one left.
    async fn use_keys(&mut self, what: &str, token: &str) {
        for _ in 0..3 {
            let (read, wrote) =
                (get(&self.channel, Some(token), "k").await, put(&self.channel, Some(token), "k", "v").await);
            self.said.push(format!("{what}: {} · {}", words(read), words(wrote)));
        }
    }
}

async fn grant(root: &Channel, token: &str, role: &str, perm_type: i32) {
    let perm = authpb::Permission { perm_type, key: "k".into(), range_end: "".into() };
    let request = pb::AuthRoleGrantPermissionRequest { name: role.to_owned(), perm: Some(perm) };
    AuthClient::new(root.clone()).role_grant_permission(with(Some(token), request)).await.expect("root may");
}

async fn revoke(root: &Channel, token: &str, role: &str) {
    let request = pb::AuthRoleRevokePermissionRequest { role: role.to_owned(), key: "k".into(), range_end: "".into() };
    AuthClient::new(root.clone()).role_revoke_permission(with(Some(token), request)).await.expect("root may");
}

/// A server with root, and a user `u` with a role that may read and write `k`; root's connection and token.
async fn open(kind: Kind, flags: &[String]) -> Option<(Server, Channel, String)> {
    let server = Server::start(kind, flags, "remembered tokens").await?;
    let root = server.connect().await;
    add_user(&root, None, "root", "pw").await.expect("root is added");
    grant_role(&root, None, "root", "root").await.expect("root gets its role");
    for name in ["u", "v"] {
        add_user(&root, None, name, "pw").await.expect("a user is added");
    }
    add_role(&root, None, "r", Some((2, "k", ""))).await.expect("a role is added");
    grant_role(&root, None, "u", "r").await.expect("a role is granted");
    enable(&root).await.expect("authentication is turned on");
    let token = login(&root, "root", "pw").await.expect("root logs in");
    Some((server, root, token))
}

/// Plays `story` on both servers, which must have the same words.
async fn alike(flags: &[String], story: impl AsyncFn(&Server, &Channel, &str) -> Vec<String>) -> Vec<String> {
    let mut heard: Option<Vec<String>> = None;
    for kind in [Kind::Etcd, Kind::Rusd] {
        let Some((server, root, token)) = open(kind, flags).await else { continue };
        let said = story(&server, &root, &token).await;
        if let Some(theirs) = &heard {
            assert_eq!(&said, theirs, "rusd, and etcd");
        }
        heard = Some(said);
    }
    heard.expect("our own server is always there")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_away_is_gone_at_the_next_call() {
    let said = alike(&["--bcrypt-cost=4".to_owned()], async |server, root, by_root| {
        let mut seat = Seat { channel: server.connect().await, said: Vec::new() };
        let first = login(&seat.channel, "u", "pw").await.expect("it logs in");
        seat.use_keys("as granted", &first).await;
        revoke(root, by_root, "r").await;
        seat.use_keys("without a permission", &first).await;
        grant(root, by_root, "r", 0).await;
        seat.use_keys("may read", &first).await;
        grant(root, by_root, "r", 2).await;
        seat.use_keys("may do both", &first).await;
        let second = login(root, "u", "pw").await.expect("it logs in once more");
        seat.use_keys("with another login elsewhere", &first).await;
        let request =
            pb::AuthUserChangePasswordRequest { name: "u".into(), password: "new".into(), ..Default::default() };
        let mut auth = AuthClient::new(root.clone());
        auth.user_change_password(with(Some(by_root), request)).await.expect("root may");
        seat.use_keys("with the token of before a new password", &first).await;
        seat.use_keys("with the other one", &second).await;
        let third = login(&seat.channel, "u", "new").await.expect("it logs in with the new one");
        seat.use_keys("with a new one", &third).await;
        let request = pb::AuthUserRevokeRoleRequest { name: "u".into(), role: "r".into() };
        auth.user_revoke_role(with(Some(by_root), request)).await.expect("root may");
        seat.use_keys("without its role", &third).await;
        grant_role(root, Some(by_root), "u", "r").await.expect("root may");
        seat.use_keys("with it again", &third).await;
        let request = pb::AuthUserDeleteRequest { name: "u".into() };
        auth.user_delete(with(Some(by_root), request)).await.expect("root may");
        seat.use_keys("when it is no user", &third).await;
        add_user(root, Some(by_root), "u", "pw").await.expect("root may");
        grant_role(root, Some(by_root), "u", "r").await.expect("root may");
        seat.use_keys("when another one has its name", &third).await;
        auth.auth_disable(with(Some(by_root), pb::AuthDisableRequest {})).await.expect("root may");
        seat.use_keys("when nobody is asked", &third).await;
        enable(root).await.expect("it is turned on again");
        seat.use_keys("with a token of before", &third).await;
        seat.said
    })
    .await;
    let count = |words: &str| said.iter().filter(|said| said.contains(words)).count();
    assert_eq!(count("ok · ok"), 6 * 3, "{said:#?}");
    assert_eq!(count("ok · etcdserver: permission denied"), 3, "{said:#?}");
    assert_eq!(count("invalid auth token · etcdserver: invalid auth token"), 5 * 3, "{said:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_token_ends_with_the_next_change() {
    let token = format!("--auth-token=jwt,priv-key={},sign-method=RS256,ttl=10m", key("rsa.key.pem"));
    let said = alike(&["--bcrypt-cost=4".to_owned(), token], async |server, root, by_root| {
        let mut seat = Seat { channel: server.connect().await, said: Vec::new() };
        let first = login(&seat.channel, "u", "pw").await.expect("it logs in");
        seat.use_keys("as granted", &first).await;
        let other = login(root, "v", "pw").await.expect("another one logs in");
        seat.use_keys("with another login elsewhere", &first).await;
        revoke(root, by_root, "r").await;
        seat.use_keys("of before a change", &first).await;
        let second = login(&seat.channel, "u", "pw").await.expect("it logs in again");
        seat.use_keys("without a permission", &second).await;
        seat.use_keys("of another user, of before", &other).await;
        seat.said
    })
    .await;
    let count = |words: &str| said.iter().filter(|said| said.contains(words)).count();
    assert_eq!((count("ok · ok"), count("revision of auth store is old")), (2 * 3, 2 * 3), "{said:#?}");
}

/// As through a proxy, all over one connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_that_share_a_connection_keep_to_their_own_rights() {
    let said = alike(&["--bcrypt-cost=4".to_owned()], async |_, root, by_root| {
        let [by_u, by_v] =
            [login(root, "u", "pw").await, login(root, "v", "pw").await].map(|login| login.expect("a user"));
        let forged = format!("x{by_u}");
        let mut calls = Vec::new();
        for round in 0..40 {
            for token in [Some(&*by_u), Some(&*by_v), Some(&*by_u), None, Some(by_root), Some(&*forged)] {
                let (channel, token) = (root.clone(), token.map(str::to_owned));
                let call = async move { words(get(&channel, token.as_deref(), "k").await) };
                // One after the other, and then many at a time.
                calls.push(if round < 20 { Ok(call.await) } else { Err(tokio::spawn(call)) });
            }
        }
        let mut said = Vec::new();
        for call in calls {
            said.push(match call {
                Ok(said) => said,
                Err(coming) => coming.await.expect("no panic"),
            });
        }
        said
    })
    .await;
    let denied = "etcdserver: permission denied";
    let as_meant = ["ok", denied, "ok", "etcdserver: user name is empty", "ok", "etcdserver: invalid auth token"];
    for (at, said) in said.chunks(as_meant.len()).enumerate() {
        assert_eq!(said, as_meant, "round {at}");
    }
}
