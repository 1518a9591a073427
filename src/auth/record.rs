//! Users, roles and permissions, and the bytes of their rows in `Table::Auth`.
//!
//! ```text
//! "state"     version(1) enabled(1) revision(8, big-endian)
//! "user/NAME" version(1) has-password(1) [hash] count role*
//! "role/NAME" version(1) count (kind(1) key end)*       text and keys carry their length (4, big-endian)
//! ```

use std::collections::BTreeSet;

use bytes::{Buf, BufMut, Bytes};

use super::PasswordHash;
use crate::types::KeyRange;

/// The version of each row.
const VERSION: u8 = 1;

/// The row that says whether authentication is on.
pub(super) const STATE_KEY: &[u8] = b"state";
/// What the keys of users' rows begin with.
pub(super) const USER_PREFIX: &[u8] = b"user/";
/// What the keys of roles' rows begin with.
pub(super) const ROLE_PREFIX: &[u8] = b"role/";

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// `None` for one that only a certificate's common name can stand for.
    pub password: Option<PasswordHash>,
    /// The names of its roles.
    pub roles: BTreeSet<String>,
}

/// What a permission allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PermissionKind {
    /// To read.
    Read,
    /// To write.
    Write,
    /// Both.
    ReadWrite,
}

impl PermissionKind {
    /// Whether it allows to read.
    pub fn reads(self) -> bool {
        self != Self::Write
    }

    /// Whether it allows to write.
    pub fn writes(self) -> bool {
        self != Self::Read
    }
}

/// A permission on a range of keys, as it was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// What is allowed.
    pub kind: PermissionKind,
    /// The first key.
    pub key: Bytes,
    /// The end as on the wire: empty for one key, a zero byte for all from the first on.
    pub range_end: Bytes,
}

impl Permission {
    /// Its keys.
    pub fn range(&self) -> KeyRange {
        KeyRange::from_wire(self.key.clone(), self.range_end.clone())
    }

    /// Its part of a role's row, in bytes.
    pub(super) fn encoded_len(&self) -> usize {
        1 + field_len(&self.key) + field_len(&self.range_end)
    }
}

/// A role's permissions, by key; those of the same key in the order of their granting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// Them.
    pub permissions: Vec<Permission>,
}

pub(super) fn user_key(name: &str) -> Bytes {
    [USER_PREFIX, name.as_bytes()].concat().into()
}

pub(super) fn role_key(name: &str) -> Bytes {
    [ROLE_PREFIX, name.as_bytes()].concat().into()
}

pub(super) fn encode_state(enabled: bool, revision: u64) -> Bytes {
    let mut out = vec![VERSION, u8::from(enabled)];
    out.put_u64(revision);
    out.into()
}

pub(super) fn decode_state(mut row: &[u8]) -> Option<(bool, u64)> {
    let version = row.try_get_u8().ok()?;
    let enabled = row.try_get_u8().ok()?;
    let revision = row.try_get_u64().ok()?;
    (version == VERSION && enabled <= 1 && row.is_empty()).then_some((enabled == 1, revision))
}

impl User {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = vec![VERSION, u8::from(self.password.is_some())];
        if let Some(hash) = &self.password {
            put_bytes(&mut out, hash.reveal().as_bytes());
        }
        put_len(&mut out, self.roles.len());
        for role in &self.roles {
            put_bytes(&mut out, role.as_bytes());
        }
        out.into()
    }

    /// The length of what [`User::encode`] gives, in bytes.
    pub(super) fn encoded_len(&self) -> usize {
        let password = self.password.as_ref().map_or(0, |hash| field_len(hash.reveal().as_bytes()));
        let roles: usize = self.roles.iter().map(|role| field_len(role.as_bytes())).sum();
        2 + password + LEN_BYTES + roles
    }

    pub(super) fn decode(row: &Bytes) -> Option<Self> {
        let mut row = row.clone();
        let version = row.try_get_u8().ok()?;
        let password = match row.try_get_u8().ok()? {
            0 => None,
            1 => Some(PasswordHash::new(text(&mut row)?)),
            _ => return None,
        };
        let mut roles = BTreeSet::new();
        for _ in 0..row.try_get_u32().ok()? {
            roles.insert(text(&mut row)?);
        }
        (version == VERSION && row.is_empty()).then_some(Self { password, roles })
    }
}

impl Role {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        put_len(&mut out, self.permissions.len());
        for permission in &self.permissions {
            out.push(match permission.kind {
                PermissionKind::Read => 0,
                PermissionKind::Write => 1,
                PermissionKind::ReadWrite => 2,
            });
            put_bytes(&mut out, &permission.key);
            put_bytes(&mut out, &permission.range_end);
        }
        out.into()
    }

    /// The length of what [`Role::encode`] gives, in bytes.
    pub(super) fn encoded_len(&self) -> usize {
        1 + LEN_BYTES + self.permissions.iter().map(Permission::encoded_len).sum::<usize>()
    }

    pub(super) fn decode(row: &Bytes) -> Option<Self> {
        let mut row = row.clone();
        let version = row.try_get_u8().ok()?;
        let mut permissions = Vec::new();
        for _ in 0..row.try_get_u32().ok()? {
            let kind = match row.try_get_u8().ok()? {
                0 => PermissionKind::Read,
                1 => PermissionKind::Write,
                2 => PermissionKind::ReadWrite,
                _ => return None,
            };
            permissions.push(Permission { kind, key: get_bytes(&mut row)?, range_end: get_bytes(&mut row)? });
        }
        (version == VERSION && row.is_empty()).then_some(Self { permissions })
    }
}

/// The rows of `Table::Auth` of a whole state, as for one that comes from elsewhere.
pub fn rows<'a>(
    enabled: bool,
    revision: u64,
    users: impl IntoIterator<Item = (&'a str, &'a User)>,
    roles: impl IntoIterator<Item = (&'a str, &'a Role)>,
) -> Vec<(Bytes, Bytes)> {
    let state = (Bytes::from_static(STATE_KEY), encode_state(enabled, revision));
    let users = users.into_iter().map(|(name, user)| (user_key(name), user.encode()));
    let roles = roles.into_iter().map(|(name, role)| (role_key(name), role.encode()));
    std::iter::once(state).chain(users).chain(roles).collect()
}

/// Bytes of a length, and of a count.
const LEN_BYTES: usize = 4;

/// The length of a text or a key with its own, which a row says before it.
pub(super) fn field_len(bytes: &[u8]) -> usize {
    LEN_BYTES + bytes.len()
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    // A request is far smaller than that.
    out.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_len(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn get_bytes(row: &mut Bytes) -> Option<Bytes> {
    let len = usize::try_from(row.try_get_u32().ok()?).ok()?;
    (len <= row.len()).then(|| Bytes::copy_from_slice(&row.split_to(len)))
}

fn text(row: &mut Bytes) -> Option<String> {
    String::from_utf8(get_bytes(row)?.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_were() {
        let user = User { password: Some(PasswordHash::new("$2a$")), roles: ["a".into(), "".into()].into() };
        assert_eq!(User::decode(&user.encode()), Some(user.clone()));
        let bare = User { password: None, roles: BTreeSet::new() };
        assert_eq!(User::decode(&bare.encode()), Some(bare));
        let permission = |kind| Permission { kind, key: "k".into(), range_end: Bytes::from_static(&[0]) };
        let kinds = [PermissionKind::Read, PermissionKind::Write, PermissionKind::ReadWrite];
        let role = Role { permissions: kinds.map(permission).into() };
        assert_eq!(Role::decode(&role.encode()), Some(role.clone()));
        assert_eq!(decode_state(&encode_state(true, 7)), Some((true, 7)));
        assert_eq!((user.encode().len(), role.encode().len()), (user.encoded_len(), role.encoded_len()));
        for row in [user.encode(), role.encode()] {
            for end in 0..row.len() {
                let cut = row.slice(..end);
                assert!(User::decode(&cut).is_none() && Role::decode(&cut).is_none(), "cut at {end}");
            }
        }
        assert_eq!(decode_state(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 1]), None, "another version");
    }
}
