//! `AuthState`: who there is and who may do what: the replicated state and its compiled form in one.
//!
//! ```text
//! AuthOp ─► apply ─► users, roles, enabled, revision ─► changed rows (Table::Auth)
//!                        └► a user's roles ─► Rights: two sets of keys ─► access(Caller) ─► may it?
//! ```
//! Cloning it costs a pointer for each user and role: the clone is what `AuthView` publishes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::access::{Access, Account, KeptAccess};
use super::record::{ROLE_PREFIX, STATE_KEY, USER_PREFIX, decode_state, encode_state, role_key, user_key};
use super::{AuthOp, Caller, PasswordHash, Permission, Role, Spans, User, growth};
use crate::types::{KeyRange, RaftIndex, RequestError};

/// The user and the role that may do everything.
pub const ROOT: &str = "root";

/// One more than the highest cost that bcrypt knows.
const COSTS: usize = 32;

/// How many passwords there are of each cost.
#[derive(Clone, Debug, Default)]
struct Costs([u32; COSTS]);

impl Costs {
    /// Counts a user's password by `change`.
    fn note(&mut self, user: &User, change: fn(u32, u32) -> u32) {
        let cost = user.password.as_ref().and_then(PasswordHash::cost).and_then(|cost| usize::try_from(cost).ok());
        if let Some(count) = cost.and_then(|cost| self.0.get_mut(cost)) {
            *count = change(*count, 1);
        }
    }

    fn highest(&self) -> Option<u32> {
        self.0.iter().rposition(|count| *count > 0).and_then(|cost| u32::try_from(cost).ok())
    }
}

/// A change of rows in `Table::Auth`; `None` removes.
pub type RowChanges = Vec<(Bytes, Option<Bytes>)>;

/// Users, roles, and whether authentication is on.
#[derive(Clone, Debug)]
pub struct AuthState {
    enabled: bool,
    revision: u64,
    users: BTreeMap<Arc<str>, Arc<Account>>,
    roles: BTreeMap<Arc<str>, Arc<Role>>,
    /// How many users have a password of each cost: each login asks for the highest.
    costs: Costs,
    /// What [`AuthState::published`] was told.
    since: RaftIndex,
    digest: u64,
    /// As of the same time.
    held_bytes: usize,
    /// Of the states that one `AuthView` has shown; no two have the same.
    version: u64,
}

impl Default for AuthState {
    fn default() -> Self {
        Self {
            enabled: false,
            revision: 1,
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
            costs: Costs::default(),
            since: RaftIndex(0),
            digest: 0,
            held_bytes: 0,
            version: 0,
        }
    }
}

impl AuthState {
    /// The state that rows of `Table::Auth` hold.
    ///
    /// # Errors
    /// The key of a row that can't be read.
    pub fn load(rows: &[(Bytes, Bytes)]) -> Result<Self, Bytes> {
        let mut state = Self::default();
        let mut users = Vec::new();
        for (key, row) in rows {
            let damaged = || key.clone();
            let name = |prefix: &[u8]| std::str::from_utf8(&key[prefix.len()..]).map_err(|_| damaged());
            if key == STATE_KEY {
                (state.enabled, state.revision) = decode_state(row).ok_or_else(damaged)?;
            } else if key.starts_with(USER_PREFIX) {
                users.push((name(USER_PREFIX)?, User::decode(row).ok_or_else(damaged)?));
            } else if key.starts_with(ROLE_PREFIX) {
                let role = Role::decode(row).ok_or_else(damaged)?;
                state.roles.insert(name(ROLE_PREFIX)?.into(), Arc::new(role));
            } else {
                return Err(damaged());
            }
        }
        for (name, user) in users {
            state.put_user(name, user);
        }
        Ok(state)
    }

    /// Whether authentication is on.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Counts changes; begins with 1.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// A user.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name).map(|account| &account.user)
    }

    /// A user's name as it is shared here.
    pub fn shared_name(&self, name: &str) -> Option<Arc<str>> {
        self.users.get_key_value(name).map(|(name, _)| name.clone())
    }

    /// All users, by name.
    pub fn users(&self) -> impl Iterator<Item = (&str, &User)> {
        self.users.iter().map(|(name, account)| (&**name, &account.user))
    }

    /// How many users there are.
    pub fn user_count(&self) -> usize {
        self.users.len()
    }

    /// How many roles there are.
    pub fn role_count(&self) -> usize {
        self.roles.len()
    }

    /// A role.
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.get(name).map(|role| &**role)
    }

    /// All roles, by name.
    pub fn roles(&self) -> impl Iterator<Item = (&str, &Role)> {
        self.roles.iter().map(|(name, role)| (&**name, &**role))
    }

    /// What `caller` may do with keys.
    ///
    /// # Errors
    /// `UserEmpty` for nobody, `AuthRevisionOld` for one let in before a change, `PermissionDenied` for a user that is
    /// gone. None of them while authentication is off.
    pub fn access(&self, caller: &Caller) -> Result<Access<'_>, RequestError> {
        Ok(Access::of(self.restricted(caller)?.map(Arc::as_ref)))
    }

    /// The same, to be kept: it stays as it was.
    pub(super) fn kept_access(&self, caller: &Caller) -> Result<KeptAccess, RequestError> {
        Ok(KeptAccess::of(self.restricted(caller)?.cloned()))
    }

    /// The account whose keys are all that `caller` may use; `None` if it may do everything.
    fn restricted(&self, caller: &Caller) -> Result<Option<&Arc<Account>>, RequestError> {
        if !self.enabled {
            return Ok(None);
        }
        match caller {
            Caller::Nobody => Err(RequestError::UserEmpty),
            Caller::Member => Ok(None),
            Caller::User { revision, .. } if *revision < self.revision => Err(RequestError::AuthRevisionOld),
            Caller::User { name, .. } => {
                let account = self.users.get(name).ok_or(RequestError::PermissionDenied)?;
                Ok((!account.is_root).then_some(account))
            }
        }
    }

    /// Whether `caller` is somebody at all.
    ///
    /// # Errors
    /// `UserEmpty` while authentication is on.
    pub fn check_known(&self, caller: &Caller) -> Result<(), RequestError> {
        if self.enabled && *caller == Caller::Nobody { Err(RequestError::UserEmpty) } else { Ok(()) }
    }

    /// Whether `caller` may do what only root may.
    ///
    /// # Errors
    /// `UserEmpty`, `UserNotFound`, `PermissionDenied`. None of them while authentication is off.
    pub fn check_admin(&self, caller: &Caller) -> Result<(), RequestError> {
        if !self.enabled {
            return Ok(());
        }
        match caller {
            Caller::Nobody => Err(RequestError::UserEmpty),
            Caller::Member => Ok(()),
            // By a certificate without a common name.
            Caller::User { name, .. } if name.is_empty() => Err(RequestError::UserEmpty),
            Caller::User { name, .. } => {
                let account = self.users.get(name).ok_or(RequestError::UserNotFound)?;
                if account.is_root { Ok(()) } else { Err(RequestError::PermissionDenied) }
            }
        }
    }

    /// Does a change; the rows that are to be written. On an error nothing is changed.
    ///
    /// [`AuthOp::Issue`] only checks whether a token may be given.
    ///
    /// # Errors
    /// Those of etcd for each of them.
    pub fn apply(&mut self, op: &AuthOp) -> Result<RowChanges, RequestError> {
        use RequestError as E;
        match op {
            AuthOp::Enable => {
                let root = self.user(ROOT).ok_or(E::RootUserNotFound)?;
                if !root.roles.contains(ROOT) {
                    return Err(E::RootRoleNotGranted);
                }
                if self.enabled {
                    return Ok(Vec::new());
                }
                self.enabled = true;
                Ok(vec![self.state_row()])
            }
            AuthOp::Disable => {
                if !self.enabled {
                    return Ok(Vec::new());
                }
                self.enabled = false;
                Ok(self.changed(Vec::new()))
            }
            AuthOp::UserAdd { name, password } => {
                if name.is_empty() {
                    return Err(E::UserEmpty);
                }
                if self.users.contains_key(name.as_str()) {
                    return Err(E::UserExists);
                }
                let user = User { password: password.clone(), roles: Default::default() };
                Ok(self.change_user(name, user))
            }
            AuthOp::UserDelete { name } => {
                if self.enabled && name == ROOT {
                    return Err(E::AuthManagementInvalid);
                }
                let account = self.users.remove(name.as_str()).ok_or(E::UserNotFound)?;
                self.costs.note(&account.user, u32::wrapping_sub);
                Ok(self.changed(vec![(user_key(name), None)]))
            }
            AuthOp::UserChangePassword { name, password } => {
                let mut user = self.user(name).ok_or(E::UserNotFound)?.clone();
                user.password = user.password.map(|_| password.clone());
                Ok(self.change_user(name, user))
            }
            AuthOp::UserGrantRole { name, role } => {
                let mut user = self.user(name).ok_or(E::UserNotFound)?.clone();
                if role != ROOT && !self.roles.contains_key(role.as_str()) {
                    return Err(E::RoleNotFound);
                }
                if !user.roles.insert(role.clone()) {
                    return Ok(Vec::new());
                }
                Ok(self.change_user(name, user))
            }
            AuthOp::UserRevokeRole { name, role } => {
                if self.enabled && name == ROOT && role == ROOT {
                    return Err(E::AuthManagementInvalid);
                }
                let mut user = self.user(name).ok_or(E::UserNotFound)?.clone();
                if !user.roles.remove(role) {
                    return Err(E::RoleNotGranted);
                }
                Ok(self.change_user(name, user))
            }
            AuthOp::RoleAdd { name } => {
                if name.is_empty() {
                    return Err(E::RoleEmpty);
                }
                if self.roles.contains_key(name.as_str()) {
                    return Err(E::RoleExists);
                }
                Ok(self.change_role(name, Role::default()))
            }
            AuthOp::RoleDelete { name } => self.delete_role(name),
            AuthOp::RoleGrant { role, kind, key, range_end } => {
                let permission = Permission { kind: *kind, key: key.clone(), range_end: range_end.clone() };
                self.grant(role, permission)
            }
            AuthOp::RoleRevoke { role, key, range_end } => {
                let mut changed = self.role(role).ok_or(E::RoleNotFound)?.clone();
                let before = changed.permissions.len();
                changed.permissions.retain(|held| held.key != *key || held.range_end != *range_end);
                if changed.permissions.len() == before {
                    return Err(E::PermissionNotGranted);
                }
                Ok(self.change_role(role, changed))
            }
            AuthOp::Issue { name, revision, .. } => {
                if !self.enabled {
                    return Err(E::AuthNotEnabled);
                }
                // The password may have been changed since it was looked at.
                if *revision != self.revision || !self.users.contains_key(name.as_str()) {
                    return Err(E::AuthRevisionOld);
                }
                Ok(Vec::new())
            }
        }
    }

    fn delete_role(&mut self, name: &str) -> Result<RowChanges, RequestError> {
        if self.enabled && name == ROOT {
            return Err(RequestError::AuthManagementInvalid);
        }
        self.roles.remove(name).ok_or(RequestError::RoleNotFound)?;
        let mut rows = vec![(role_key(name), None)];
        for (user_name, mut user) in self.users_of(name) {
            user.roles.remove(name);
            rows.push((user_key(&user_name), Some(user.encode())));
            self.put_user(&user_name, user);
        }
        Ok(self.changed(rows))
    }

    fn grant(&mut self, name: &str, permission: Permission) -> Result<RowChanges, RequestError> {
        if permission.key.is_empty() || permission.range().is_empty() {
            return Err(RequestError::AuthManagementInvalid);
        }
        let mut role = self.role(name).ok_or(RequestError::RoleNotFound)?.clone();
        let held = &mut role.permissions;
        match held.iter_mut().find(|held| held.key == permission.key && held.range_end == permission.range_end) {
            Some(same) => same.kind = permission.kind,
            None => {
                let at = held.partition_point(|held| held.key <= permission.key);
                held.insert(at, permission);
            }
        }
        Ok(self.change_role(name, role))
    }

    fn change_user(&mut self, name: &str, user: User) -> RowChanges {
        let row = (user_key(name), Some(user.encode()));
        self.put_user(name, user);
        self.changed(vec![row])
    }

    fn change_role(&mut self, name: &str, role: Role) -> RowChanges {
        let row = (role_key(name), Some(role.encode()));
        self.roles.insert(name.into(), Arc::new(role));
        for (user_name, user) in self.users_of(name) {
            self.put_user(&user_name, user);
        }
        self.changed(vec![row])
    }

    /// Users that have a role, to be compiled again.
    fn users_of(&self, role: &str) -> Vec<(Arc<str>, User)> {
        let having = self.users.iter().filter(|(_, account)| account.user.roles.contains(role));
        having.map(|(name, account)| (name.clone(), account.user.clone())).collect()
    }

    /// Sets a user, with its roles' permissions merged.
    fn put_user(&mut self, name: &str, user: User) {
        let permissions: Vec<&Permission> =
            user.roles.iter().filter_map(|role| self.role(role)).flat_map(|role| &role.permissions).collect();
        let ranges = |wanted: fn(&Permission) -> bool| {
            let ranges: Vec<KeyRange> = permissions
                .iter()
                .filter(|permission| wanted(permission))
                .map(|permission| permission.range())
                .collect();
            Spans::new(&ranges)
        };
        let account = Account {
            is_root: user.roles.contains(ROOT),
            read: ranges(|permission| permission.kind.reads()),
            write: ranges(|permission| permission.kind.writes()),
            compiled_bytes: permissions.iter().map(|permission| growth::compiled_bytes(permission)).sum(),
            user,
        };
        self.costs.note(&account.user, u32::wrapping_add);
        if let Some(before) = self.users.insert(name.into(), Arc::new(account)) {
            self.costs.note(&before.user, u32::wrapping_sub);
        }
    }

    /// Counts a change, whose rows come with it.
    fn changed(&mut self, mut rows: RowChanges) -> RowChanges {
        self.revision += 1;
        rows.push(self.state_row());
        rows
    }

    fn state_row(&self) -> (Bytes, Option<Bytes>) {
        (Bytes::from_static(STATE_KEY), Some(encode_state(self.enabled, self.revision)))
    }

    /// The same, to be shown to readers as of entry `since`, with its digest and size.
    pub fn published(&mut self, since: RaftIndex) -> Self {
        self.since = since;
        (self.digest, self.held_bytes) = self.measured();
        self.clone()
    }

    /// What all users and roles take, in bytes, when they were published last: their rows, and for each user the keys of its
    /// roles' permissions.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// A hash of all of it when it was published last, for members to compare; 0 while nothing was ever changed.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// From which entry on readers see it; the end of all entries while it is being replaced.
    pub fn since(&self) -> RaftIndex {
        self.since
    }

    /// Tells it from all others that the same `AuthView` has shown, also from those with the same content.
    pub fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn set_version(&mut self, version: u64) {
        self.version = version;
    }

    /// The digest, and what [`AuthState::held_bytes`] says.
    fn measured(&self) -> (u64, usize) {
        let mut hasher = blake3::Hasher::new();
        let mut add = |key: &[u8], row: &[u8]| {
            for part in [key, row] {
                hasher.update(&(part.len() as u64).to_be_bytes()).update(part);
            }
            key.len() + row.len()
        };
        add(STATE_KEY, &encode_state(self.enabled, self.revision));
        let mut bytes = 0;
        for (name, account) in &self.users {
            bytes += add(&user_key(name), &account.user.encode()) + account.compiled_bytes;
        }
        for (name, role) in self.roles() {
            bytes += add(&role_key(name), &role.encode());
        }
        if self.revision == 1 && !self.enabled {
            return (0, bytes);
        }
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        (u64::from_be_bytes(first), bytes)
    }

    /// The highest cost of a stored password, so that all that isn't right can take as long.
    pub fn usual_cost(&self) -> Option<u32> {
        self.costs.highest()
    }
}
