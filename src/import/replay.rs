//! A request in etcd's log as the command that does the same here.
//!
//! ```text
//! entry ─► InternalRaftRequest ─► put, delete, txn, compaction, lease, alarm, users ─► Command, on behalf of its user
//!                              └► the cluster's version, members' names, tokens ─► nothing: they aren't taken over
//! ```
//! etcd looked at a request's shape before it entered the log, so one of another shape ends the import. At everything
//! else it looks when it applies it, as is done here: what is refused here was refused there. Nobody hears the answers,
//! so none are made: they might be too large.

use std::sync::Arc;

use base64::Engine as _;
use prost::Message;
use rusd_proto::etcdserverpb as pb;

use super::{ImportError, LogEntry};
use crate::api::convert;
use crate::apply::{AlarmKind, AlarmOp, Command, DeleteOp, Op, PutOp, TxnOp};
use crate::auth::{AuthOp, Caller, PasswordHash, PermissionKind};
use crate::types::{LeaseId, MemberId, RequestError};

/// etcd raises a shorter one to this where it is granted, with its default election timeout.
const LEASE_SECS_MIN: i64 = 2;
/// And refuses a longer one there.
const LEASE_SECS_MAX: i64 = 9_000_000_000;

#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(string, tag = "2")]
    username: String,
    #[prost(uint64, tag = "3")]
    auth_revision: u64,
}

/// A request of etcd's API v2: up to 3.5 members tell each other their names and the cluster's version by these.
#[derive(Clone, PartialEq, Message)]
struct RequestV2 {
    #[prost(string, tag = "2")]
    method: String,
    #[prost(string, tag = "3")]
    path: String,
}

const METHODS_V2: [&str; 5] = ["PUT", "POST", "DELETE", "QGET", "SYNC"];

/// What an entry holds; those that aren't named change nothing that is taken over.
#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(message, optional, tag = "4")]
    put: Option<pb::PutRequest>,
    #[prost(message, optional, tag = "5")]
    delete_range: Option<pb::DeleteRangeRequest>,
    #[prost(message, optional, tag = "6")]
    txn: Option<pb::TxnRequest>,
    #[prost(message, optional, tag = "7")]
    compaction: Option<pb::CompactionRequest>,
    #[prost(message, optional, tag = "8")]
    lease_grant: Option<pb::LeaseGrantRequest>,
    #[prost(message, optional, tag = "9")]
    lease_revoke: Option<pb::LeaseRevokeRequest>,
    #[prost(message, optional, tag = "10")]
    alarm: Option<pb::AlarmRequest>,
    #[prost(message, optional, tag = "11")]
    lease_checkpoint: Option<pb::LeaseCheckpointRequest>,
    #[prost(message, optional, tag = "100")]
    header: Option<Header>,
    #[prost(message, optional, tag = "1000")]
    auth_enable: Option<pb::AuthEnableRequest>,
    #[prost(message, optional, tag = "1011")]
    auth_disable: Option<pb::AuthDisableRequest>,
    #[prost(message, optional, tag = "1100")]
    user_add: Option<pb::AuthUserAddRequest>,
    #[prost(message, optional, tag = "1101")]
    user_delete: Option<pb::AuthUserDeleteRequest>,
    #[prost(message, optional, tag = "1103")]
    user_change_password: Option<pb::AuthUserChangePasswordRequest>,
    #[prost(message, optional, tag = "1104")]
    user_grant_role: Option<pb::AuthUserGrantRoleRequest>,
    #[prost(message, optional, tag = "1105")]
    user_revoke_role: Option<pb::AuthUserRevokeRoleRequest>,
    #[prost(message, optional, tag = "1200")]
    role_add: Option<pb::AuthRoleAddRequest>,
    #[prost(message, optional, tag = "1201")]
    role_delete: Option<pb::AuthRoleDeleteRequest>,
    #[prost(message, optional, tag = "1203")]
    role_grant: Option<pb::AuthRoleGrantPermissionRequest>,
    #[prost(message, optional, tag = "1204")]
    role_revoke: Option<pb::AuthRoleRevokePermissionRequest>,
}

/// The commands of an entry: one, or none if it changes nothing that is taken over.
///
/// # Errors
/// A request that can't be read.
pub fn commands(entry: &LogEntry) -> Result<Vec<Command>, ImportError> {
    if !entry.is_request || entry.data.is_empty() {
        return Ok(Vec::new());
    }
    if RequestV2::decode(entry.data.clone()).is_ok_and(|request| METHODS_V2.contains(&request.method.as_str())) {
        return Ok(Vec::new());
    }
    let refused = |what: String| ImportError::Refused(format!("entry {} of etcd's log: {what}", entry.index));
    let mut request = Request::decode(entry.data.clone()).map_err(|error| refused(error.to_string()))?;
    let header = request.header.take().unwrap_or_default();
    let command = match command(request) {
        Ok(command) => command,
        Err(Unusable::Refused) => None,
        Err(Unusable::Odd(what)) => return Err(refused(format!("a request that etcd lets nobody make: {what}"))),
        Err(Unusable::Old) => {
            return Err(refused("a plain password, as before etcd 3.5: start etcd once, and stop it".into()));
        }
    };
    let caller = match header.username {
        // etcd looks at who asks for these before they enter the log, and no more where they are applied.
        _ if matches!(
            command,
            Some(
                Command::Compact { .. }
                    | Command::Alarm(_)
                    | Command::LeaseGrant { .. }
                    | Command::LeaseCheckpoint { .. }
            )
        ) =>
        {
            Caller::Member
        }
        name if name.is_empty() => Caller::Nobody,
        name => Caller::User { name: Arc::from(name), revision: header.auth_revision },
    };
    Ok(command.into_iter().map(|command| command.by(caller.clone())).collect())
}

/// Why a request becomes no command.
enum Unusable {
    /// etcd refused it, too.
    Refused,
    /// Its form is of an etcd that is too old.
    Old,
    /// etcd can't have let it in.
    Odd(String),
}

impl From<RequestError> for Unusable {
    fn from(error: RequestError) -> Self {
        Self::Odd(error.to_string())
    }
}

fn command(request: Request) -> Result<Option<Command>, Unusable> {
    Ok(Some(match request {
        Request { put: Some(put), .. } => Command::Put(PutOp { prev_kv: false, ..convert::put(put) }),
        Request { delete_range: Some(delete), .. } => {
            Command::DeleteRange(DeleteOp { prev_kv: false, ..convert::delete(delete) })
        }
        Request { txn: Some(txn), .. } => {
            let mut txn = convert::txn(txn, usize::MAX)?;
            hush(&mut txn);
            Command::Txn(txn)
        }
        Request { compaction: Some(compaction), .. } => Command::Compact { revision: compaction.revision },
        Request { lease_grant: Some(grant), .. } if grant.ttl > LEASE_SECS_MAX || grant.id == 0 => {
            return Err(Unusable::Refused);
        }
        Request { lease_grant: Some(grant), .. } => {
            Command::LeaseGrant { id: LeaseId(grant.id), ttl_secs: grant.ttl.max(LEASE_SECS_MIN) }
        }
        Request { lease_revoke: Some(revoke), .. } => Command::LeaseRevoke { id: LeaseId(revoke.id) },
        Request { lease_checkpoint: Some(points), .. } => Command::LeaseCheckpoint {
            remaining: points.checkpoints.iter().map(|point| (LeaseId(point.id), point.remaining_ttl)).collect(),
        },
        Request { alarm: Some(alarm), .. } => match alarm_of(&alarm) {
            Some(op) => Command::Alarm(op),
            None => return Ok(None),
        },
        others => match auth(others)? {
            Some(op) => Command::Auth(op),
            None => return Ok(None),
        },
    }))
}

/// Takes what only makes answers larger from a transaction; what its ranges are refused for stays.
fn hush(txn: &mut TxnOp) {
    for op in txn.success.iter_mut().chain(&mut txn.failure) {
        match op {
            Op::Range(query) => query.count_only = true,
            Op::Put(put) => put.prev_kv = false,
            Op::Delete(delete) => delete.prev_kv = false,
            Op::Txn(txn) => hush(txn),
        }
    }
}

fn alarm_of(alarm: &pb::AlarmRequest) -> Option<AlarmOp> {
    let activate = match alarm.action {
        1 => true,
        2 => false,
        _ => return None,
    };
    let kind = match alarm.alarm {
        1 => Some(AlarmKind::NoSpace),
        2 => Some(AlarmKind::Corrupt),
        _ => None,
    };
    Some(AlarmOp { activate, member: MemberId(alarm.member_id), kind })
}

fn auth(request: Request) -> Result<Option<AuthOp>, Unusable> {
    Ok(Some(match request {
        Request { auth_enable: Some(_), .. } => AuthOp::Enable,
        Request { auth_disable: Some(_), .. } => AuthOp::Disable,
        Request { user_add: Some(add), .. } => {
            let without = add.options.as_ref().is_some_and(|options| options.no_password);
            let password = if without { None } else { Some(hash(&add.hashed_password, &add.password)?) };
            AuthOp::UserAdd { name: add.name, password }
        }
        Request { user_delete: Some(delete), .. } => AuthOp::UserDelete { name: delete.name },
        Request { user_change_password: Some(change), .. } => {
            AuthOp::UserChangePassword { password: hash(&change.hashed_password, &change.password)?, name: change.name }
        }
        Request { user_grant_role: Some(grant), .. } => AuthOp::UserGrantRole { name: grant.user, role: grant.role },
        Request { user_revoke_role: Some(revoke), .. } => {
            AuthOp::UserRevokeRole { name: revoke.name, role: revoke.role }
        }
        Request { role_add: Some(add), .. } => AuthOp::RoleAdd { name: add.name },
        Request { role_delete: Some(delete), .. } => AuthOp::RoleDelete { name: delete.role },
        Request { role_grant: Some(grant), .. } => {
            let permission = grant.perm.ok_or(Unusable::Refused)?;
            let kind = match permission.perm_type {
                0 => PermissionKind::Read,
                1 => PermissionKind::Write,
                2 => PermissionKind::ReadWrite,
                other => return Err(Unusable::Odd(format!("a permission of kind {other}"))),
            };
            AuthOp::RoleGrant { role: grant.name, kind, key: permission.key, range_end: permission.range_end }
        }
        Request { role_revoke: Some(revoke), .. } => {
            AuthOp::RoleRevoke { role: revoke.role, key: revoke.key, range_end: revoke.range_end }
        }
        _ => return Ok(None),
    }))
}

/// A password's hash, which stands in the log as Base64.
fn hash(hashed: &str, plain: &str) -> Result<PasswordHash, Unusable> {
    if hashed.is_empty() && !plain.is_empty() {
        return Err(Unusable::Old);
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(hashed).map_err(|_| Unusable::Refused)?;
    Ok(PasswordHash::new(String::from_utf8(bytes).map_err(|_| Unusable::Refused)?))
}
