//! Users and roles in the bytes that etcd stores: for the file of `Snapshot`.

use prost::Message;
use rusd_proto::authpb;

use super::roles::permissions;
use crate::auth::{Role, User};

/// A user as etcd stores it.
pub fn etcd_user(name: &str, user: &User) -> Vec<u8> {
    let password = user.password.as_ref().map(|hash| hash.reveal().as_bytes().to_vec());
    let options = Some(authpb::UserAddOptions { no_password: password.is_none() });
    let roles = user.roles.iter().cloned().collect();
    authpb::User {
        name: name.as_bytes().to_vec().into(),
        password: password.unwrap_or_default().into(),
        roles,
        options,
    }
    .encode_to_vec()
}

/// A role as etcd stores it.
pub fn etcd_role(name: &str, role: &Role) -> Vec<u8> {
    authpb::Role { name: name.as_bytes().to_vec().into(), key_permission: permissions(role) }.encode_to_vec()
}
