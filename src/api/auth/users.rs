//! Users. Passwords are hashed here, before they go anywhere.

use rusd_proto::etcdserverpb as pb;
use tonic::Status;

use super::{CallContext, change};
use crate::api::grpc::body::ReplyBody;
use crate::api::reply::Prost;
use crate::api::{errors, kv};
use crate::auth::{AuthOp, Secret};
use crate::types::RequestError;

/// `UserAdd`. A hash that the client made is not taken: etcd replaces it by that of the password, too.
pub(crate) async fn user_add(call: CallContext, request: pb::AuthUserAddRequest) -> Result<ReplyBody, Status> {
    let without = request.options.is_some_and(|options| options.no_password);
    let revision = add(&call, request.name, Secret::new(request.password), without)
        .await
        .map_err(|error| errors::status(&error))?;
    ReplyBody::small(&Prost(pb::AuthUserAddResponse { header: call.message_header(revision) }))
}

async fn add(call: &CallContext, name: String, password: Secret, without: bool) -> Result<i64, RequestError> {
    let password = if without { None } else { Some(call.auth.hash(password).await?) };
    change(call, AuthOp::UserAdd { name, password }).await
}

/// `UserGet`: of root, or of oneself.
pub(crate) async fn user_get(call: CallContext, request: pb::AuthUserGetRequest) -> Result<ReplyBody, Status> {
    let roles = get(&call, &request.name).await.map_err(|error| errors::status(&error))?;
    let header = call.message_header(call.reader.revision());
    ReplyBody::message(&Prost(pb::AuthUserGetResponse { header, roles }), &call.budgets.answers)
}

async fn get(call: &CallContext, name: &str) -> Result<Vec<String>, RequestError> {
    kv::barrier_as_logged(call).await?;
    let state = call.auth.view.load();
    let caller = call.caller(&state)?;
    if let Err(refused) = state.check_admin(&caller)
        && caller.name() != Some(name)
    {
        return Err(refused);
    }
    let user = state.user(name).ok_or(RequestError::UserNotFound)?;
    Ok(user.roles.iter().cloned().collect())
}

/// `UserList`.
pub(crate) async fn user_list(call: CallContext, _: pb::AuthUserListRequest) -> Result<ReplyBody, Status> {
    kv::barrier_as_logged(&call).await.map_err(|error| errors::status(&error))?;
    call.check_admin_here().map_err(|error| errors::status(&error))?;
    let users = call.auth.view.load().users().map(|(name, _)| name.to_owned()).collect();
    let header = call.message_header(call.reader.revision());
    ReplyBody::message(&Prost(pb::AuthUserListResponse { header, users }), &call.budgets.answers)
}

/// `UserDelete`.
pub(crate) async fn user_delete(call: CallContext, request: pb::AuthUserDeleteRequest) -> Result<ReplyBody, Status> {
    let op = AuthOp::UserDelete { name: request.name };
    let revision = change(&call, op).await.map_err(|error| errors::status(&error))?;
    ReplyBody::small(&Prost(pb::AuthUserDeleteResponse { header: call.message_header(revision) }))
}

/// `UserChangePassword`.
pub(crate) async fn user_change_password(
    call: CallContext,
    request: pb::AuthUserChangePasswordRequest,
) -> Result<ReplyBody, Status> {
    let revision = change_password(&call, request.name, Secret::new(request.password))
        .await
        .map_err(|error| errors::status(&error))?;
    ReplyBody::small(&Prost(pb::AuthUserChangePasswordResponse { header: call.message_header(revision) }))
}

async fn change_password(call: &CallContext, name: String, password: Secret) -> Result<i64, RequestError> {
    let password = call.auth.hash(password).await?;
    change(call, AuthOp::UserChangePassword { name, password }).await
}

/// `UserGrantRole`.
pub(crate) async fn user_grant_role(
    call: CallContext,
    request: pb::AuthUserGrantRoleRequest,
) -> Result<ReplyBody, Status> {
    let op = AuthOp::UserGrantRole { name: request.user, role: request.role };
    let revision = change(&call, op).await.map_err(|error| errors::status(&error))?;
    ReplyBody::small(&Prost(pb::AuthUserGrantRoleResponse { header: call.message_header(revision) }))
}

/// `UserRevokeRole`.
pub(crate) async fn user_revoke_role(
    call: CallContext,
    request: pb::AuthUserRevokeRoleRequest,
) -> Result<ReplyBody, Status> {
    let op = AuthOp::UserRevokeRole { name: request.name, role: request.role };
    let revision = change(&call, op).await.map_err(|error| errors::status(&error))?;
    ReplyBody::small(&Prost(pb::AuthUserRevokeRoleResponse { header: call.message_header(revision) }))
}
