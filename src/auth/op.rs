//! `AuthOp`: a change of users, roles or what authentication does, as it goes through the log.

use bytes::Bytes;

use super::{PasswordHash, PermissionKind};

/// One change. Passwords are hashed before: no plain one gets this far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthOp {
    /// Turn authentication on.
    Enable,
    /// Turn it off.
    Disable,
    /// Add a user.
    UserAdd {
        /// Its name.
        name: String,
        /// Its password's hash; `None` for a user without a password.
        password: Option<PasswordHash>,
    },
    /// Remove a user.
    UserDelete {
        /// Its name.
        name: String,
    },
    /// Give a user another password; one without stays without.
    UserChangePassword {
        /// Its name.
        name: String,
        /// The new password's hash.
        password: PasswordHash,
    },
    /// Give a user a role.
    UserGrantRole {
        /// The user.
        name: String,
        /// The role.
        role: String,
    },
    /// Take a role from a user.
    UserRevokeRole {
        /// The user.
        name: String,
        /// The role.
        role: String,
    },
    /// Add a role.
    RoleAdd {
        /// Its name.
        name: String,
    },
    /// Remove a role, from its users too.
    RoleDelete {
        /// Its name.
        name: String,
    },
    /// Let a role do something with a range of keys.
    RoleGrant {
        /// The role.
        role: String,
        /// What.
        kind: PermissionKind,
        /// The first key.
        key: Bytes,
        /// The end as on the wire.
        range_end: Bytes,
    },
    /// Take a permission from a role, by its exact range.
    RoleRevoke {
        /// The role.
        role: String,
        /// The first key.
        key: Bytes,
        /// The end as on the wire.
        range_end: Bytes,
    },
    /// A token was made for a user whose password was right. Of the token only its hash is in the log.
    Issue {
        /// The user.
        name: String,
        /// The hash of the token's secret part.
        token: TokenHash,
        /// The revision of users and roles at which the password was looked at.
        revision: u64,
    },
}

impl AuthOp {
    /// What it does, in a log line: no names, no keys.
    pub fn title(&self) -> &'static str {
        match self {
            Self::Enable => "authentication on",
            Self::Disable => "authentication off",
            Self::UserAdd { .. } => "user added",
            Self::UserDelete { .. } => "user deleted",
            Self::UserChangePassword { .. } => "password changed",
            Self::UserGrantRole { .. } => "role given to a user",
            Self::UserRevokeRole { .. } => "role taken from a user",
            Self::RoleAdd { .. } => "role added",
            Self::RoleDelete { .. } => "role deleted",
            Self::RoleGrant { .. } => "permission given to a role",
            Self::RoleRevoke { .. } => "permission taken from a role",
            Self::Issue { .. } => "token given out",
        }
    }
}

/// BLAKE3 of a token's secret part.
pub type TokenHash = [u8; 32];
