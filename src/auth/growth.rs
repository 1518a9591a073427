//! `Growth`: what a change would add to users and roles, for whoever lets it in to say whether that is too much.
//!
//! ```text
//! AuthOp ─► AuthState::growth ─┬► Growth: users, roles, bytes of all, of its row
//!                              └► None: nothing grows, or applying it refuses it
//! rows + keys of the permissions of each user's roles ─► AuthState::held_bytes
//! ```
//! Keys are counted as they are before what touches is merged: that is what compiling them costs, and the sum says what a
//! change adds to it without doing the change. Applying looks at none of it, or members with other bounds would differ.

use super::record::{ROLE_PREFIX, USER_PREFIX, field_len};
use super::{AuthOp, AuthState, Permission, PermissionKind, ROOT, Role, Spans, User};

/// What a change would add.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    /// Users.
    pub users: usize,
    /// Roles.
    pub roles: usize,
    /// To [`AuthState::held_bytes`].
    pub bytes: usize,
    /// How long the row of its user or role would be, with its key; 0 if that grows no longer.
    pub row_bytes: usize,
}

impl Growth {
    /// A row that isn't there yet.
    fn of_row(row_bytes: usize) -> Self {
        Self { bytes: row_bytes, row_bytes, ..Self::default() }
    }
}

impl AuthOp {
    /// Whether there is anything of which [`AuthState::growth`] could say that it grows. A password's hash takes as much as
    /// the one before: bcrypt's are of one length.
    pub fn may_grow(&self) -> bool {
        matches!(
            self,
            Self::UserAdd { .. } | Self::UserGrantRole { .. } | Self::RoleAdd { .. } | Self::RoleGrant { .. }
        )
    }
}

impl AuthState {
    /// What `op` would add; `None` if it adds nothing, or would be refused.
    pub fn growth(&self, op: &AuthOp) -> Option<Growth> {
        match op {
            AuthOp::UserAdd { name, password } => {
                let user = User { password: password.clone(), roles: Default::default() };
                let is_new = !name.is_empty() && self.user(name).is_none();
                is_new.then(|| Growth { users: 1, ..Growth::of_row(user_row_bytes(name, &user)) })
            }
            AuthOp::RoleAdd { name } => {
                let is_new = !name.is_empty() && self.role(name).is_none();
                is_new.then(|| Growth { roles: 1, ..Growth::of_row(role_row_bytes(name, &Role::default())) })
            }
            AuthOp::UserGrantRole { name, role } => {
                let user = self.user(name).filter(|user| !user.roles.contains(role))?;
                let compiled = match self.role(role) {
                    Some(role) => role.permissions.iter().map(compiled_bytes).sum(),
                    None if role == ROOT => 0,
                    None => return None,
                };
                let added = field_len(role.as_bytes());
                let row_bytes = user_row_bytes(name, user) + added;
                Some(Growth { bytes: added + compiled, row_bytes, ..Growth::default() })
            }
            AuthOp::RoleGrant { role: name, kind, key, range_end } => {
                let granted = Permission { kind: *kind, key: key.clone(), range_end: range_end.clone() };
                let role = self.role(name)?;
                if granted.key.is_empty() || granted.range().is_empty() {
                    return None;
                }
                let is_same = |held: &&Permission| held.key == granted.key && held.range_end == granted.range_end;
                let held = role.permissions.iter().find(is_same);
                let each = compiled_bytes(&granted).saturating_sub(held.map_or(0, compiled_bytes));
                let added = if held.is_none() { granted.encoded_len() } else { 0 };
                if each == 0 && added == 0 {
                    return None;
                }
                let users = self.users().filter(|(_, user)| user.roles.contains(name)).count();
                let row_bytes = if added == 0 { 0 } else { role_row_bytes(name, role) + added };
                Some(Growth { bytes: each.saturating_mul(users).saturating_add(added), row_bytes, ..Growth::default() })
            }
            _ => None,
        }
    }
}

/// What a permission's keys take for each user that has it, in bytes.
pub(super) fn compiled_bytes(permission: &Permission) -> usize {
    let sets = if permission.kind == PermissionKind::ReadWrite { 2 } else { 1 };
    sets * Spans::bytes_of(&permission.range())
}

fn user_row_bytes(name: &str, user: &User) -> usize {
    USER_PREFIX.len() + name.len() + user.encoded_len()
}

fn role_row_bytes(name: &str, role: &Role) -> usize {
    ROLE_PREFIX.len() + name.len() + role.encoded_len()
}
