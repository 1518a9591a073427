//! What the source holds, and what a server says it holds.

use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::auth_client::AuthClient;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::lease_client::LeaseClient;
use rusd_proto::etcdserverpb::request_op::Request as Op;
use rusd_proto::{authpb, mvccpb};
use tonic::Request;

use crate::member::Member;

/// Everything that a server tells of its state.
#[derive(Debug, PartialEq)]
pub(crate) struct Content {
    pub(crate) revision: i64,
    pub(crate) keys: Vec<mvccpb::KeyValue>,
    /// Id and granted time.
    pub(crate) leases: Vec<(i64, i64)>,
    pub(crate) auth: (bool, u64),
    pub(crate) users: Vec<(String, Vec<String>)>,
    pub(crate) roles: Vec<(String, Vec<authpb::Permission>)>,
    /// Names and passwords, and whether they let in; nothing without users.
    pub(crate) logins: Vec<(&'static str, &'static str, bool)>,
}

/// The password is "secret", the name root.
pub(crate) async fn token(member: &Member) -> String {
    let login = pb::AuthenticateRequest { name: "root".into(), password: "secret".into() };
    AuthClient::new(member.channel()).authenticate(login).await.unwrap().into_inner().token
}

fn with<T>(message: T, token: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        request.metadata_mut().insert("token", token.parse().unwrap());
    }
    request
}

pub(crate) async fn content(member: &Member, token: Option<&str>) -> Content {
    let range = pb::RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..Default::default() };
    let read = KvClient::new(member.channel()).range(with(range, token)).await.unwrap().into_inner();
    let mut lease = LeaseClient::new(member.channel());
    let mut leases = Vec::new();
    for listed in lease.lease_leases(with(pb::LeaseLeasesRequest {}, token)).await.unwrap().into_inner().leases {
        let ask = pb::LeaseTimeToLiveRequest { id: listed.id, keys: false };
        let told = lease.lease_time_to_live(with(ask, token)).await.unwrap().into_inner();
        assert!(told.ttl > 0 && told.ttl <= told.granted_ttl, "{told:?}");
        leases.push((listed.id, told.granted_ttl));
    }
    leases.sort_unstable();
    let mut auth = AuthClient::new(member.channel());
    let status = auth.auth_status(with(pb::AuthStatusRequest {}, token)).await.unwrap().into_inner();
    let (mut users, mut roles) = (Vec::new(), Vec::new());
    for name in auth.user_list(with(pb::AuthUserListRequest {}, token)).await.unwrap().into_inner().users {
        let ask = pb::AuthUserGetRequest { name: name.clone() };
        users.push((name, auth.user_get(with(ask, token)).await.unwrap().into_inner().roles));
    }
    for name in auth.role_list(with(pb::AuthRoleListRequest {}, token)).await.unwrap().into_inner().roles {
        let ask = pb::AuthRoleGetRequest { role: name.clone() };
        roles.push((name, auth.role_get(with(ask, token)).await.unwrap().into_inner().perm));
    }
    let mut logins = Vec::new();
    if token.is_some() {
        for (name, password) in [("root", "secret"), ("ann", "other"), ("ann", "pw"), ("bare", ""), ("nobody", "pw")] {
            let login = pb::AuthenticateRequest { name: name.into(), password: password.into() };
            logins.push((name, password, auth.authenticate(login).await.is_ok()));
        }
    }
    Content {
        revision: read.header.unwrap().revision,
        keys: read.kvs,
        leases,
        auth: (status.enabled, status.auth_revision),
        users,
        roles,
        logins,
    }
}

fn put(key: &str, value: impl Into<String>, lease: i64) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: value.into().into(), lease, ..Default::default() }
}

fn op(request: Op) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

/// Keys that come, change and go; leases; a compaction in the middle; large values; and users, if asked for.
pub(crate) async fn fill(member: &Member, with_users: bool) {
    let (mut kv, mut lease) = (KvClient::new(member.channel()), LeaseClient::new(member.channel()));
    for (id, ttl) in [(11, 3600), (12, 7200), (13, 1)] {
        lease.lease_grant(pb::LeaseGrantRequest { id, ttl }).await.unwrap();
    }
    lease.lease_grant(pb::LeaseGrantRequest { id: 14, ttl: 3600 }).await.unwrap();
    for round in 0..4 {
        for at in 0..120 {
            let lease = if at % 10 == 3 { 11 + i64::from(at % 2) } else { 0 };
            kv.put(put(&format!("k{at}"), format!("{round}-{at}"), lease)).await.unwrap();
        }
        let delete = pb::DeleteRangeRequest { key: "k2".into(), range_end: "k3".into(), ..Default::default() };
        kv.delete_range(delete).await.unwrap();
        let txn = pb::TxnRequest {
            compare: vec![],
            success: vec![
                op(Op::RequestPut(put("t/a", format!("{round}"), 0))),
                op(Op::RequestPut(put("t/b", "b", 14))),
                op(Op::RequestDeleteRange(pb::DeleteRangeRequest { key: "k1".into(), ..Default::default() })),
                op(Op::RequestPut(put("t/large", "x".repeat(50_000), 0))),
            ],
            failure: vec![],
        };
        kv.txn(txn).await.unwrap();
        if round == 1 {
            let revision = kv.put(put("mark", "1", 0)).await.unwrap().into_inner().header.unwrap().revision;
            kv.compact(pb::CompactionRequest { revision: revision - 50, physical: true }).await.unwrap();
        }
        // One that fails changes nothing, and is in the log all the same.
        assert!(kv.put(put("nothing", "", 999)).await.is_err());
    }
    lease.lease_revoke(pb::LeaseRevokeRequest { id: 14 }).await.unwrap();
    // The short one runs out meanwhile; what hung on it is gone by an entry of etcd's own.
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    kv.put(put("last", "1", 12)).await.unwrap();
    if !with_users {
        return;
    }
    let mut auth = AuthClient::new(member.channel());
    auth.role_add(pb::AuthRoleAddRequest { name: "reader".into() }).await.unwrap();
    for (kind, key, end) in [(0, "k", "l"), (1, "w", ""), (2, "z", "\0")] {
        let perm = authpb::Permission { perm_type: kind, key: key.to_owned().into(), range_end: end.to_owned().into() };
        let grant = pb::AuthRoleGrantPermissionRequest { name: "reader".into(), perm: Some(perm) };
        auth.role_grant_permission(grant).await.unwrap();
    }
    auth.role_add(pb::AuthRoleAddRequest { name: "root".into() }).await.unwrap();
    for (name, password, role) in [("root", "secret", "root"), ("ann", "pw", "reader"), ("bare", "", "reader")] {
        let options = Some(authpb::UserAddOptions { no_password: password.is_empty() });
        let add =
            pb::AuthUserAddRequest { name: name.into(), password: password.into(), options, ..Default::default() };
        auth.user_add(add).await.unwrap();
        auth.user_grant_role(pb::AuthUserGrantRoleRequest { user: name.into(), role: role.into() }).await.unwrap();
    }
    let change =
        pb::AuthUserChangePasswordRequest { name: "ann".into(), password: "other".into(), ..Default::default() };
    auth.user_change_password(change).await.unwrap();
    auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
    let root = token(member).await;
    kv.put(with(put("by-root", "1", 0), Some(&root))).await.unwrap();
    // Who may not changes nothing, wherever it is applied.
    let ann = pb::AuthenticateRequest { name: "ann".into(), password: "other".into() };
    let ann = auth.authenticate(ann).await.unwrap().into_inner().token;
    assert!(kv.put(with(put("k5", "no", 0), Some(&ann))).await.is_err());
    kv.put(with(put("w", "yes", 0), Some(&ann))).await.unwrap();
}
