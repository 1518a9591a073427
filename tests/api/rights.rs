//! What a member does that doesn't know whether authentication is on, and for who is nobody any more.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rusd::types::Limits;
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::cluster_client::ClusterClient;
use rusd_proto::etcdserverpb::lease_client::LeaseClient;
use rusd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use rusd_proto::v3lockpb::LockRequest;
use rusd_proto::v3lockpb::lock_client::LockClient;
use tonic::transport::Channel;

use crate::server::Server;
use crate::users::{add_user, enable, get, grant_role, login, with};

const COMES_MAX: Duration = Duration::from_secs(60);

/// A user with nothing, and root.
async fn add_users(channel: &Channel) {
    for name in ["root", "u"] {
        add_user(channel, None, name, "pw").await.unwrap();
    }
    grant_role(channel, None, "root", "root").await.unwrap();
}

// Cause: a barrier that failed was as good as one that passed while authentication was off as far as the member knew. Symptom:
// whoever asked a member that had just been started, and was cut off for a moment, changed who is in the cluster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_changes_members_through_one_that_may_not_know_of_authentication() {
    let server = Server::with_limits(Limits::default());
    let front = &server.member.front;
    let mut members = ClusterClient::new(server.connect().await);
    let mut member = MaintenanceClient::new(server.connect().await);
    let mut ask = async || {
        let peer_ur_ls = vec!["http://127.0.0.1:1".to_owned()];
        let update = pb::MemberUpdateRequest { id: 1, peer_ur_ls: peer_ur_ls.clone() };
        let add = pb::MemberAddRequest { peer_ur_ls, is_learner: true };
        let target_id = crate::member::MEMBER.get();
        [
            members.member_add(add).await.map(drop),
            members.member_update(update).await.map(drop),
            members.member_remove(pb::MemberRemoveRequest { id: 1 }).await.map(drop),
            members.member_promote(pb::MemberPromoteRequest { id: 1 }).await.map(drop),
            member.move_leader(pb::MoveLeaderRequest { target_id }).await.map(drop),
        ]
        .map(|answer| answer.err().map(|status| status.message().to_owned()))
    };
    assert_eq!(ask().await, [const { None }; 5]);
    front.barrier_fails.store(true, Ordering::Relaxed);
    let changed = || Some("etcdserver: leader changed".to_owned());
    assert_eq!(ask().await, [(); 5].map(|()| changed()));
    // Without a leader each says so in its own way.
    front.leaderless.store(true, Ordering::Relaxed);
    let over = "context deadline exceeded";
    let texts = ["etcdserver: unhealthy cluster", over, over, "etcdserver: no leader", "etcdserver: not leader"];
    assert_eq!(ask().await, texts.map(|text| Some(text.to_owned())));
}

// Cause: what a member knows that was away counted also for what tells of all keys. Symptom: it gave a snapshot, users with it,
// to anybody, though authentication had been turned on meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_there_are_users_a_member_catches_up_before_it_shows_everything() {
    let server = Server::with_limits(Limits::default());
    let front = &server.member.front;
    let channel = server.connect().await;
    let fails = |fails| front.barrier_fails.store(fails, Ordering::Relaxed);
    let ask = async || {
        let mut member = MaintenanceClient::new(channel.clone());
        let snapshot = async |mut member: MaintenanceClient<Channel>| {
            let mut parts = member.snapshot(pb::SnapshotRequest {}).await?.into_inner();
            while parts.message().await?.is_some() {}
            Ok::<_, tonic::Status>(())
        };
        [
            member.hash(pb::HashRequest {}).await.is_ok(),
            member.hash_kv(pb::HashKvRequest::default()).await.is_ok(),
            member.defragment(pb::DefragmentRequest {}).await.is_ok(),
            snapshot(member).await.is_ok(),
        ]
    };
    fails(true);
    assert_eq!(ask().await, [true; 4], "in a disaster there may be no leader");
    add_users(&channel).await;
    assert_eq!(ask().await, [false; 4]);
    fails(false);
    assert_eq!(ask().await, [true; 4]);
    fails(true);
    assert_eq!(ask().await, [true; 4], "it has caught up once");
}

// Cause: a place was given up by its caller's token, which may be over by then. Symptom: a lock that nobody waits for, and that
// stands in the way for as long as its lease is kept alive; thirty-two of them, and nobody's was given up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_is_given_up_though_its_callers_token_is_over() {
    let server = Server::with_limits(Limits::default());
    let channel = server.connect().await;
    add_users(&channel).await;
    grant_role(&channel, None, "u", "root").await.unwrap();
    enable(&channel).await.unwrap();
    let root = login(&channel, "root", "pw").await.unwrap();
    let user = login(&channel, "u", "pw").await.unwrap();
    let mut leases = LeaseClient::new(channel.clone());
    for id in [1, 2] {
        leases.lease_grant(with(Some(&root), pb::LeaseGrantRequest { id, ttl: 1_000 })).await.unwrap();
    }
    let lock = |lease| LockRequest { name: "l".into(), lease };
    LockClient::new(channel.clone()).lock(with(Some(&root), lock(1))).await.unwrap();
    let mut waits = LockClient::new(channel.clone());
    let request = with(Some(&user), lock(2));
    let waiting = tokio::spawn(async move { waits.lock(request).await.map(drop) });
    let is_there = async || get(&channel, Some(&root), "l/2").await.unwrap().is_some();
    let until = async |wanted: bool| {
        let until = async {
            while is_there().await != wanted {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(COMES_MAX, until).await.is_ok()
    };
    assert!(until(true).await, "it waits");
    let password =
        pb::AuthUserChangePasswordRequest { name: "u".into(), password: "other".into(), ..Default::default() };
    pb::auth_client::AuthClient::new(channel.clone()).user_change_password(with(Some(&root), password)).await.unwrap();
    waiting.abort();
    assert!(until(false).await, "its token is over, and it stands in the way");
    let freed = async {
        while server.services.budgets.lock_waiters.taken() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(COMES_MAX, freed).await.expect("its place among those that wait is free");
}
