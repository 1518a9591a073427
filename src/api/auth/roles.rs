//! Roles and their permissions.

use bytes::Bytes;
use rusd_proto::authpb;
use rusd_proto::etcdserverpb as pb;
use tonic::Status;

use super::{CallContext, change};
use crate::api::grpc::body::ReplyBody;
use crate::api::reply::Prost;
use crate::api::{errors, kv};
use crate::auth::{AuthOp, PermissionKind, ROOT, Role};
use crate::types::RequestError;

/// `RoleAdd`.
pub(crate) async fn role_add(call: CallContext, request: pb::AuthRoleAddRequest) -> Result<ReplyBody, Status> {
    let op = AuthOp::RoleAdd { name: request.name };
    let revision = change(&call, op).await.map_err(|error| errors::status(&error))?;
    ReplyBody::small(&Prost(pb::AuthRoleAddResponse { header: call.message_header(revision) }))
}

/// `RoleGet`: of root, or of a role that one has.
pub(crate) async fn role_get(call: CallContext, request: pb::AuthRoleGetRequest) -> Result<ReplyBody, Status> {
    let role = get(&call, &request.role).await.map_err(|error| errors::status(&error))?;
    let header = call.message_header(call.reader.revision());
    let perm = match &*request.role {
        // Granted nothing, it may do everything, and etcd says so.
        ROOT => vec![authpb::Permission { perm_type: 2, key: Bytes::new(), range_end: Bytes::from_static(&[0]) }],
        _ => permissions(&role),
    };
    ReplyBody::message(&Prost(pb::AuthRoleGetResponse { header, perm }), &call.budgets.answers)
}

async fn get(call: &CallContext, name: &str) -> Result<Role, RequestError> {
    kv::barrier_as_logged(call).await?;
    let state = call.auth.view.load();
    let caller = call.caller(&state)?;
    let is_own = || caller.name().and_then(|caller| state.user(caller)).is_some_and(|user| user.roles.contains(name));
    if let Err(refused) = state.check_admin(&caller)
        && !is_own()
    {
        return Err(refused);
    }
    state.role(name).cloned().ok_or(RequestError::RoleNotFound)
}

/// A role's permissions as the wire has them.
pub(super) fn permissions(role: &Role) -> Vec<authpb::Permission> {
    let permission = |held: &crate::auth::Permission| authpb::Permission {
        perm_type: match held.kind {
            PermissionKind::Read => 0,
            PermissionKind::Write => 1,
            PermissionKind::ReadWrite => 2,
        },
        key: held.key.clone(),
        range_end: held.range_end.clone(),
    };
    role.permissions.iter().map(permission).collect()
}

/// `RoleList`.
pub(crate) async fn role_list(call: CallContext, _: pb::AuthRoleListRequest) -> Result<ReplyBody, Status> {
    kv::barrier_as_logged(&call).await.map_err(|error| errors::status(&error))?;
    call.check_admin_here().map_err(|error| errors::status(&error))?;
    let roles = call.auth.view.load().roles().map(|(name, _)| name.to_owned()).collect();
    let header = call.message_header(call.reader.revision());
    ReplyBody::message(&Prost(pb::AuthRoleListResponse { header, roles }), &call.budgets.answers)
}

/// `RoleDelete`.
pub(crate) async fn role_delete(call: CallContext, request: pb::AuthRoleDeleteRequest) -> Result<ReplyBody, Status> {
    let op = AuthOp::RoleDelete { name: request.role };
    let revision = change(&call, op).await.map_err(|error| errors::status(&error))?;
    ReplyBody::small(&Prost(pb::AuthRoleDeleteResponse { header: call.message_header(revision) }))
}

/// `RoleGrantPermission`.
pub(crate) async fn role_grant_permission(
    call: CallContext,
    request: pb::AuthRoleGrantPermissionRequest,
) -> Result<ReplyBody, Status> {
    let revision = grant(&call, request).await.map_err(|error| errors::status(&error))?;
    ReplyBody::small(&Prost(pb::AuthRoleGrantPermissionResponse { header: call.message_header(revision) }))
}

async fn grant(call: &CallContext, request: pb::AuthRoleGrantPermissionRequest) -> Result<i64, RequestError> {
    let permission = request.perm.ok_or(RequestError::PermissionNotGiven)?;
    let kind = match permission.perm_type {
        0 => PermissionKind::Read,
        1 => PermissionKind::Write,
        2 => PermissionKind::ReadWrite,
        // etcd stores such a number and gives no right for it.
        _ => return Err(RequestError::AuthManagementInvalid),
    };
    // They are kept as long as the role is: as parts of the message they would keep all of it, whatever else there is in it.
    let [key, range_end] = [permission.key, permission.range_end].map(|bytes| Bytes::copy_from_slice(&bytes));
    change(call, AuthOp::RoleGrant { role: request.name, kind, key, range_end }).await
}

/// `RoleRevokePermission`.
pub(crate) async fn role_revoke_permission(
    call: CallContext,
    request: pb::AuthRoleRevokePermissionRequest,
) -> Result<ReplyBody, Status> {
    let op = AuthOp::RoleRevoke { role: request.role, key: request.key, range_end: request.range_end };
    let revision = change(&call, op).await.map_err(|error| errors::status(&error))?;
    ReplyBody::small(&Prost(pb::AuthRoleRevokePermissionResponse { header: call.message_header(revision) }))
}
