//! Users and what they do, in few words.

use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::auth_client::AuthClient;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Logs in.
pub(crate) async fn login(channel: &Channel, name: &str, password: &str) -> Result<String, Status> {
    let request = pb::AuthenticateRequest { name: name.to_owned(), password: password.to_owned() };
    Ok(AuthClient::new(channel.clone()).authenticate(request).await?.into_inner().token)
}

/// A request with a token, if there is one.
pub(crate) fn with<T>(token: Option<&str>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        request.metadata_mut().insert("token", token.parse().expect("a token is text"));
    }
    request
}

pub(crate) async fn put(channel: &Channel, token: Option<&str>, key: &str, value: &str) -> Result<(), Status> {
    let put = pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() };
    KvClient::new(channel.clone()).put(with(token, put)).await.map(drop)
}

pub(crate) async fn get(channel: &Channel, token: Option<&str>, key: &str) -> Result<Option<String>, Status> {
    let range = pb::RangeRequest { key: key.to_owned().into(), ..Default::default() };
    let answer = KvClient::new(channel.clone()).range(with(token, range)).await?.into_inner();
    Ok(answer.kvs.into_iter().next().map(|kv| String::from_utf8_lossy(&kv.value).into_owned()))
}

pub(crate) async fn add_user(channel: &Channel, token: Option<&str>, name: &str, password: &str) -> Result<(), Status> {
    let request = pb::AuthUserAddRequest { name: name.to_owned(), password: password.to_owned(), ..Default::default() };
    AuthClient::new(channel.clone()).user_add(with(token, request)).await.map(drop)
}

pub(crate) async fn grant_role(channel: &Channel, token: Option<&str>, user: &str, role: &str) -> Result<(), Status> {
    let request = pb::AuthUserGrantRoleRequest { user: user.to_owned(), role: role.to_owned() };
    AuthClient::new(channel.clone()).user_grant_role(with(token, request)).await.map(drop)
}

pub(crate) async fn add_role(
    channel: &Channel,
    token: Option<&str>,
    name: &str,
    permission: Option<(i32, &str, &str)>,
) -> Result<(), Status> {
    let mut client = AuthClient::new(channel.clone());
    client.role_add(with(token, pb::AuthRoleAddRequest { name: name.to_owned() })).await?;
    let Some((perm_type, key, end)) = permission else { return Ok(()) };
    let perm =
        rusd_proto::authpb::Permission { perm_type, key: key.to_owned().into(), range_end: end.to_owned().into() };
    let request = pb::AuthRoleGrantPermissionRequest { name: name.to_owned(), perm: Some(perm) };
    client.role_grant_permission(with(token, request)).await.map(drop)
}

pub(crate) async fn enable(channel: &Channel) -> Result<(), Status> {
    AuthClient::new(channel.clone()).auth_enable(pb::AuthEnableRequest {}).await.map(drop)
}

pub(crate) async fn status(channel: &Channel) -> Result<(bool, u64), Status> {
    let status = AuthClient::new(channel.clone()).auth_status(pb::AuthStatusRequest {}).await?.into_inner();
    Ok((status.enabled, status.auth_revision))
}
