//! Every call at the one member of three that is left, after it has noticed: etcd's codes and texts, and at etcd itself.

use std::fmt::Debug;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, join_all};
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::auth_client::AuthClient;
use rusd_proto::etcdserverpb::cluster_client::ClusterClient;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::lease_client::LeaseClient;
use rusd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use rusd_proto::v3electionpb::election_client::ElectionClient;
use rusd_proto::v3electionpb::{CampaignRequest, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest};
use rusd_proto::v3lockpb::lock_client::LockClient;
use rusd_proto::v3lockpb::{LockRequest, UnlockRequest};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use crate::cluster::{COMES_MAX, Cluster, Program};

const OK: &str = "answered";
const NO_LEADER: &str = "Unavailable: etcdserver: no leader";
const TIMED_OUT: &str = "Unavailable: etcdserver: request timed out";
const OVER: &str = "DeadlineExceeded: context deadline exceeded";
const NOT_LEADER: &str = "FailedPrecondition: etcdserver: not leader";
const UNHEALTHY: &str = "Unavailable: etcdserver: unhealthy cluster";

/// What a call must come to, and what it comes to.
type Call = (&'static str, &'static str, BoxFuture<'static, String>);

fn call<T: Debug + 'static>(
    name: &'static str,
    expected: &'static str,
    asked: impl Future<Output = Result<Response<T>, Status>> + Send + 'static,
) -> Call {
    let said = async move {
        match asked.await {
            Ok(_) => OK.to_owned(),
            Err(status) => format!("{:?}: {}", status.code(), status.message()),
        }
    };
    (name, expected, said.boxed())
}

/// `call!(client.method(request))` on a client of its own.
macro_rules! asks {
    ($name:literal, $expected:expr, $client:expr, $method:ident, $request:expr) => {
        call($name, $expected, {
            let (mut client, request) = ($client.clone(), $request);
            async move { client.$method(request).await }
        })
    };
}

fn of_keys(channel: &Channel) -> Vec<Call> {
    let kv = KvClient::new(channel.clone());
    let put = pb::PutRequest { key: "k".into(), ..Default::default() };
    let range = pb::RangeRequest { key: "k".into(), ..Default::default() };
    let local = pb::RangeRequest { serializable: true, ..range.clone() };
    let op = |op| pb::TxnRequest { success: vec![pb::RequestOp { request: Some(op) }], ..Default::default() };
    let mut wants_leader = Request::new(put.clone());
    wants_leader.metadata_mut().insert("hasleader", "true".parse().unwrap());
    let txn = |request| op(request);
    use pb::request_op::Request as Op;
    vec![
        asks!("put, wants a leader", NO_LEADER, kv, put, wants_leader),
        asks!("put", OVER, kv, put, put.clone()),
        asks!("delete", OVER, kv, delete_range, pb::DeleteRangeRequest { key: "k".into(), ..Default::default() }),
        asks!("range", TIMED_OUT, kv, range, range.clone()),
        asks!("serializable range", OK, kv, range, local.clone()),
        asks!("txn that reads", TIMED_OUT, kv, txn, txn(Op::RequestRange(range))),
        asks!("txn that reads serializably", OK, kv, txn, txn(Op::RequestRange(local))),
        asks!("txn that writes", OVER, kv, txn, txn(Op::RequestPut(put))),
        asks!("compact", OVER, kv, compact, pb::CompactionRequest { revision: 1, ..Default::default() }),
    ]
}

fn of_leases(channel: &Channel, lease: i64) -> Vec<Call> {
    let leases = LeaseClient::new(channel.clone());
    let renew = |id: i64| {
        let mut leases = leases.clone();
        async move {
            let mut stream = leases.lease_keep_alive(tokio_stream::once(pb::LeaseKeepAliveRequest { id })).await?;
            stream.get_mut().message().await.map(Response::new)
        }
    };
    let left = |id, keys| pb::LeaseTimeToLiveRequest { id, keys };
    vec![
        asks!("grant", OVER, leases, lease_grant, pb::LeaseGrantRequest { ttl: 100, id: 0 }),
        asks!("revoke of none", OVER, leases, lease_revoke, pb::LeaseRevokeRequest { id: 99 }),
        asks!("revoke", OVER, leases, lease_revoke, pb::LeaseRevokeRequest { id: lease + 1 }),
        call("keep alive", NO_LEADER, renew(lease)),
        call("keep alive of none", NO_LEADER, renew(99)),
        asks!("time to live", NO_LEADER, leases, lease_time_to_live, left(lease, false)),
        asks!("time to live with keys", NO_LEADER, leases, lease_time_to_live, left(lease, true)),
        asks!("time to live of none", NO_LEADER, leases, lease_time_to_live, left(99, false)),
        asks!("leases", OK, leases, lease_leases, pb::LeaseLeasesRequest {}),
    ]
}

fn of_members(channel: &Channel, ids: [u64; 2], learner: u64, program: Program) -> Vec<Call> {
    let members = ClusterClient::new(channel.clone());
    let list = |linearizable| pb::MemberListRequest { linearizable };
    let add = |is_learner| pb::MemberAddRequest { peer_ur_ls: vec!["http://127.0.0.1:2".into()], is_learner };
    let update = pb::MemberUpdateRequest { id: ids[0], peer_ur_ls: vec!["http://127.0.0.1:2".into()] };
    let mut calls = vec![
        asks!("members", OK, members, member_list, list(false)),
        asks!("members, linearizable", TIMED_OUT, members, member_list, list(true)),
        asks!("add", UNHEALTHY, members, member_add, add(false)),
        asks!("add a learner", UNHEALTHY, members, member_add, add(true)),
        asks!("promote", NO_LEADER, members, member_promote, pb::MemberPromoteRequest { id: learner }),
        asks!("promote none", NO_LEADER, members, member_promote, pb::MemberPromoteRequest { id: 12345 }),
    ];
    // etcd waits for as long as the client does.
    if program == Program::Rusd {
        calls.extend([
            asks!("remove", OVER, members, member_remove, pb::MemberRemoveRequest { id: ids[1] }),
            asks!("remove none", OVER, members, member_remove, pb::MemberRemoveRequest { id: 12345 }),
            asks!("update", OVER, members, member_update, update),
        ]);
    }
    calls
}

fn of_maintenance(channel: &Channel, ids: [u64; 2]) -> Vec<Call> {
    let member = MaintenanceClient::new(channel.clone());
    let [own, other] = ids.map(|target_id| pb::MoveLeaderRequest { target_id });
    let raise = pb::AlarmRequest { action: 1, member_id: ids[0], alarm: 1 };
    let validate = pb::DowngradeRequest { action: 0, version: "3.6".into() };
    vec![
        asks!("move the leader", NOT_LEADER, member, move_leader, other),
        asks!("move the leader to itself", NOT_LEADER, member, move_leader, own),
        asks!("alarms", OVER, member, alarm, pb::AlarmRequest::default()),
        asks!("raise an alarm", OVER, member, alarm, raise),
        asks!("status", OK, member, status, pb::StatusRequest {}),
        asks!("hash", OK, member, hash, pb::HashRequest {}),
        asks!("hash of keys", OK, member, hash_kv, pb::HashKvRequest::default()),
        asks!("defragment", OK, member, defragment, pb::DefragmentRequest {}),
        asks!("snapshot", OK, member, snapshot, pb::SnapshotRequest {}),
        asks!("could it be downgraded", TIMED_OUT, member, downgrade, validate),
    ]
}

fn of_users(channel: &Channel) -> Vec<Call> {
    let auth = AuthClient::new(channel.clone());
    let (name, role) = ("a".to_owned(), "r".to_owned());
    let add = pb::AuthUserAddRequest { name: name.clone(), password: "b".into(), ..Default::default() };
    let login = pb::AuthenticateRequest { name: name.clone(), password: "b".into() };
    let grant = pb::AuthUserGrantRoleRequest { user: name.clone(), role: role.clone() };
    vec![
        asks!("auth status", OVER, auth, auth_status, pb::AuthStatusRequest {}),
        asks!("auth enable", OVER, auth, auth_enable, pb::AuthEnableRequest {}),
        asks!("auth disable", OVER, auth, auth_disable, pb::AuthDisableRequest {}),
        asks!("authenticate", TIMED_OUT, auth, authenticate, login),
        asks!("user add", OVER, auth, user_add, add),
        asks!("user get", OVER, auth, user_get, pb::AuthUserGetRequest { name: name.clone() }),
        asks!("user list", OVER, auth, user_list, pb::AuthUserListRequest {}),
        asks!("user delete", OVER, auth, user_delete, pb::AuthUserDeleteRequest { name }),
        asks!("user grant", OVER, auth, user_grant_role, grant),
        asks!("role add", OVER, auth, role_add, pb::AuthRoleAddRequest { name: role.clone() }),
        asks!("role get", OVER, auth, role_get, pb::AuthRoleGetRequest { role }),
        asks!("role list", OVER, auth, role_list, pb::AuthRoleListRequest {}),
    ]
}

fn of_recipes(channel: &Channel, lease: i64) -> Vec<Call> {
    let (lock, election) = (LockClient::new(channel.clone()), ElectionClient::new(channel.clone()));
    let leader = || Some(LeaderKey { name: "e".into(), key: "e/1".into(), rev: 3, lease });
    let campaign = |lease| CampaignRequest { name: "e".into(), lease, value: "v".into() };
    vec![
        asks!("lock", OVER, lock, lock, LockRequest { name: "l".into(), lease: 0 }),
        asks!("lock with a lease", OVER, lock, lock, LockRequest { name: "l".into(), lease }),
        asks!("unlock", OVER, lock, unlock, UnlockRequest { key: "l/1".into() }),
        asks!("campaign", OVER, election, campaign, campaign(0)),
        asks!("campaign with a lease", OVER, election, campaign, campaign(lease)),
        asks!("proclaim", OVER, election, proclaim, ProclaimRequest { leader: leader(), value: "v".into() }),
        asks!("resign", OVER, election, resign, ResignRequest { leader: leader() }),
        asks!(
            "leader of an election",
            "Unknown: etcdserver: request timed out",
            election,
            leader,
            LeaderRequest { name: "e".into() }
        ),
    ]
}

/// Kills two of three, the leader among them or not, and asks the one that is left for everything at once.
async fn all_calls(program: Program, led: bool) {
    let Some(mut cluster) = Cluster::of(program, 3, &[], "all_calls_without_a_quorum").await else { return };
    let leader = cluster.leader().await;
    let left = if led { leader } else { (leader + 1) % 3 };
    let (other, lease) = ((left + 1) % 3, 77);
    let mut leases = LeaseClient::new(cluster.channel(leader));
    for id in [lease, lease + 1] {
        leases.lease_grant(pb::LeaseGrantRequest { id, ttl: 10_000 }).await.unwrap();
    }
    // It is never started.
    let learner = cluster.add(0, "http://127.0.0.1:1", true).await;
    let mut ids = [0; 2];
    for (id, member) in ids.iter_mut().zip([left, other]) {
        *id = cluster.id(member).await;
    }
    for member in [other, (left + 2) % 3] {
        cluster.kill(member);
    }
    let begun = std::time::Instant::now();
    while cluster.status(left).await.map_or(1, |status| status.leader) != 0 {
        assert!(begun.elapsed() < COMES_MAX, "{program:?}: it doesn't notice");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // etcd tries some reads twice, of seven seconds each.
    let endpoint = Endpoint::from_shared(cluster.url(left)).unwrap().timeout(Duration::from_secs(30));
    let channel = endpoint.connect().await.unwrap();
    let mut calls = of_keys(&channel);
    calls.extend(of_leases(&channel, lease));
    calls.extend(of_members(&channel, ids, learner, program));
    calls.extend(of_maintenance(&channel, ids));
    calls.extend(of_users(&channel));
    calls.extend(of_recipes(&channel, lease));
    let said = calls.into_iter().map(|(name, expected, said)| async move { (name, expected, said.await) });
    let wrong: Vec<_> = join_all(said).await.into_iter().filter(|(_, expected, said)| said != expected).collect();
    assert!(wrong.is_empty(), "{program:?}, led: {led}: {wrong:#?}");
}

/// Cause: each call waited by itself, and said that its time was over. Symptom: clients of rusd were told of a timeout
/// where etcd tells them that there is no leader (keep-alives, promotions), and the other way round. At etcd, where it
/// is built, the same comes of the same calls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_calls_without_a_quorum_end_as_at_etcd() {
    tokio::join!(all_calls(Program::Rusd, false), all_calls(Program::Rusd, true), all_calls(Program::Etcd, false));
}
