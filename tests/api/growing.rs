//! Users and roles that grow: bounded in all and each by itself, one change at a time. (`bounds` has how many there may be.)

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use rusd::storage::snapshot::write_snapshot;
use rusd::types::Limits;
use rusd_proto::authpb;
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::auth_client::AuthClient;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::gate::comes;
use crate::server::Server;

const TOO_MANY: &str = "etcdserver: too many requests";

async fn add_role(channel: Channel, name: &str) -> Result<(), Status> {
    AuthClient::new(channel).role_add(pb::AuthRoleAddRequest { name: name.into() }).await.map(drop)
}

async fn add_user(channel: Channel, name: &str) -> Result<(), Status> {
    let options = Some(authpb::UserAddOptions { no_password: true });
    let user = pb::AuthUserAddRequest { name: name.into(), options, ..Default::default() };
    AuthClient::new(channel).user_add(user).await.map(drop)
}

async fn grant_role(channel: Channel, user: &str, role: &str) -> Result<(), Status> {
    let grant = pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() };
    AuthClient::new(channel).user_grant_role(grant).await.map(drop)
}

/// Lets a role read and write `bytes` of a key that begins with `number`.
async fn grant(channel: Channel, role: &str, number: u8, bytes: usize) -> Result<(), Status> {
    let perm = authpb::Permission { perm_type: 2, key: key(number, bytes), range_end: Bytes::new() };
    let grant = pb::AuthRoleGrantPermissionRequest { name: role.into(), perm: Some(perm) };
    AuthClient::new(channel).role_grant_permission(grant).await.map(drop)
}

fn key(number: u8, bytes: usize) -> Bytes {
    let mut key = vec![b'k'; bytes];
    key[0] = number;
    key.into()
}

async fn roles(server: &Server) -> Vec<String> {
    let list = pb::AuthRoleListRequest {};
    AuthClient::new(server.connect().await).role_list(list).await.unwrap().into_inner().roles
}

fn is_too_many(answer: Result<(), Status>) {
    let status = answer.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unknown, TOO_MANY));
}

// Cause: a role is one row, written as a whole at each grant, and nothing bounded it. Symptom: 45 grants of large keys by
// anybody, and no snapshot could be made any more: the log was never purged, and no other member could be healed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_grows_only_as_far_as_snapshots_take_it() {
    const KEY_BYTES: usize = 1_200_000;
    let _memory = crate::MEMORY.lock().await;
    let server = Server::with_limits(Limits::default());
    let channel = server.connect().await;
    add_role(channel.clone(), "r").await.unwrap();
    grant(channel.clone(), "r", 0, KEY_BYTES).await.unwrap();
    for number in 1..60 {
        if let Err(status) = grant(channel.clone(), "r", number, KEY_BYTES).await {
            assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "etcdserver: request is too large"));
        }
    }
    let reader = server.member.reader.clone();
    let (pinned, frozen) = (reader.snapshot_pinned(), reader.values().freeze());
    let frozen = frozen.await.unwrap();
    write_snapshot(&frozen, reader.values(), &mut std::io::sink()).expect("a snapshot");
    drop(pinned);
    let longest = frozen.rows.iter().map(|(_, key, row)| key.len() + row.len()).max();
    assert!(longest.is_some_and(|longest| longest > KEY_BYTES && longest <= Limits::AUTH_ROW_BYTES_MAX), "{longest:?}");
    // A user's roles are a row as well.
    add_user(channel.clone(), "u").await.unwrap();
    let name = |letter: &str| letter.repeat(KEY_BYTES);
    for letter in ["a", "b"] {
        add_role(channel.clone(), &name(letter)).await.unwrap();
    }
    grant_role(channel.clone(), "u", &name("a")).await.unwrap();
    let refused = grant_role(channel.clone(), "u", &name("b")).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, "etcdserver: request is too large"));
    // What there is goes on: the same again, and another one in its place.
    grant(channel.clone(), "r", 0, KEY_BYTES).await.unwrap();
    let revoke =
        pb::AuthRoleRevokePermissionRequest { role: "r".into(), key: key(0, KEY_BYTES), range_end: Bytes::new() };
    AuthClient::new(channel.clone()).role_revoke_permission(revoke).await.unwrap();
    grant(channel, "r", 1, KEY_BYTES).await.unwrap();
}

// Cause: each user has the keys of its roles' permissions compiled, which no row shows. Symptom: small requests, and users
// times permissions in memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_users_times_permissions_take_is_bounded() {
    let server = Server::with_limits(Limits { auth_bytes_max: 1 << 20, ..Limits::default() });
    let channel = server.connect().await;
    add_role(channel.clone(), "r").await.unwrap();
    for number in 0..10 {
        grant(channel.clone(), "r", number, 10_000).await.unwrap();
    }
    let mut users = 0;
    let refused = loop {
        let name = format!("u{users}");
        add_user(channel.clone(), &name).await.unwrap();
        match grant_role(channel.clone(), &name, "r").await {
            Ok(()) => users += 1,
            refused => break refused,
        }
        assert!(users < 10, "a role of 100 kB, with its keys twice for each of ten users, is more than 1 MiB");
    };
    is_too_many(refused);
    assert!(users >= 3, "{users}");
    is_too_many(grant(channel.clone(), "r", 99, 100_000).await);
    assert_eq!(server.services.budgets.users_and_roles.refused(), 2);
    let held = server.services.auth.view.look().held_bytes();
    assert!(held <= 1 << 20, "{held}");
    // As soon as one has less.
    let revoke = pb::AuthUserRevokeRoleRequest { name: "u0".into(), role: "r".into() };
    AuthClient::new(channel.clone()).user_revoke_role(revoke).await.unwrap();
    grant_role(channel, &format!("u{users}"), "r").await.unwrap();
}

// Cause: what is there was looked at, and not what is on its way. Symptom: as many changes at once as there may be proposals
// passed any bound together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_that_come_together_pass_no_bound() {
    let server = Server::with_limits(Limits { roles_max: 3, ..Limits::default() });
    let changes = &server.member.front.changes;
    changes.close();
    let channel = server.connect().await;
    let adds: Vec<_> = (0..16)
        .map(|number| {
            let channel = channel.clone();
            tokio::spawn(async move { add_role(channel, &format!("r{number}")).await })
        })
        .collect();
    changes.is_reached().await;
    comes("all sixteen", || server.services.budgets.open.taken() == 16).await;
    // Where they didn't wait for each other they would all be at the gate by now, or soon.
    tokio::time::sleep(Duration::from_millis(100)).await;
    changes.open();
    let (added, refused): (Vec<_>, Vec<_>) =
        join_all(adds).await.into_iter().map(Result::unwrap).partition(Result::is_ok);
    assert_eq!((added.len(), roles(&server).await.len()), (3, 3));
    refused.into_iter().for_each(is_too_many);
}

// Cause: a turn that goes with its call. Symptom: a client that resets its calls had any number of changes under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_whose_client_has_gone_keeps_its_turn() {
    let server = Server::with_limits(Limits { roles_max: 1, ..Limits::default() });
    let (changes, open) = (&server.member.front.changes, &server.services.budgets.open);
    changes.close();
    let channel = server.connect().await;
    let gone = {
        let channel = channel.clone();
        tokio::spawn(async move { add_role(channel, "gone").await })
    };
    changes.is_reached().await;
    gone.abort();
    comes("the server hears of it", || open.taken() == 0).await;
    let next = tokio::spawn(async move { add_role(channel, "next").await });
    comes("the next one", || open.taken() == 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!next.is_finished(), "it is not its turn");
    changes.open();
    is_too_many(next.await.unwrap());
    assert_eq!(roles(&server).await, ["gone"]);
}

// Cause: a proposal whose time is over may be applied later, so what is seen says nothing of it. Symptom: while there is no
// quorum, each change that timed out would have made room for the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_change_of_unknown_outcome_the_next_one_catches_up_first() {
    let server = Server::with_limits(Limits::default());
    let front = &server.member.front;
    let channel = server.connect().await;
    front.barrier_fails.store(true, Ordering::Relaxed);
    add_role(channel.clone(), "first").await.expect("nothing is unknown");
    front.loses_changes.store(true, Ordering::Relaxed);
    let lost = add_role(channel.clone(), "lost").await.unwrap_err();
    assert_eq!(lost.message(), "etcdserver: request timed out");
    front.loses_changes.store(false, Ordering::Relaxed);
    for _ in 0..2 {
        let refused = add_role(channel.clone(), "next").await.unwrap_err();
        assert_eq!(refused.message(), "etcdserver: leader changed");
    }
    front.barrier_fails.store(false, Ordering::Relaxed);
    add_role(channel.clone(), "next").await.unwrap();
    front.barrier_fails.store(true, Ordering::Relaxed);
    add_role(channel, "last").await.expect("what became of the one before is known");
    front.barrier_fails.store(false, Ordering::Relaxed);
    assert_eq!(roles(&server).await, ["first", "last", "next"]);
}
