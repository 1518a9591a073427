//! `Machine`: the replicated state and the only way to change it.
//!
//! ```text
//! entry ─► apply: alarms? ─► Exec (one WriteTxn) ─► commit ─► leases, alarms, meta ─► outcomes
//!                                                                    publish ─► readers, watchers
//! ```
//! The same commands at the same positions give the same state, outcomes and events on every
//! member, however they are batched: no clock, no random number and no setting is looked at. A
//! refused command changes nothing.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::exec::Exec;
use super::{AlarmOp, AlarmView, Alarms, Command, Op, Outcome, Response, rights};
use crate::auth::{AuthOp, AuthState, AuthView, Caller, IssuedTokens};
use crate::lease::{LeaseRecord, LeaseWriter, Lessor};
use crate::storage::{AppliedPosition, EventBatch, InstallHook, Opened, Store, StoreReader, Table};
use crate::types::planted::{Bug, is_planted};
use crate::types::{KeyRange, LeaseId, RaftIndex, RequestError, StorageError};

/// Commands whose keys are looked for together, and the most keys.
const EXPECTED_COMMANDS: usize = 16;
const EXPECTED_KEYS: usize = 64;

/// Why a machine can't go on. Its member must stop: it would answer differently from the others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MachineError {
    /// The disk failed under a command.
    #[error("applying entry {} failed: {reason}", position.index)]
    Storage {
        /// At which entry.
        position: AppliedPosition,
        /// The storage's text.
        reason: String,
    },
    /// An entry came twice or went missing.
    #[error("entry {} came after entry {}", found.index, last.index)]
    OutOfOrder {
        /// What was applied last.
        last: AppliedPosition,
        /// What came.
        found: AppliedPosition,
    },
    /// What is stored can't be understood.
    #[error("damaged {what}: {key:?}")]
    Damaged {
        /// A lease or an alarm.
        what: &'static str,
        /// Its key in its table.
        key: Bytes,
    },
}

/// The deterministic machine. It owns the store's writer, the leases' writer and the alarms.
#[derive(Debug)]
pub struct Machine {
    store: Store,
    leases: LeaseWriter,
    alarms: Alarms,
    alarm_view: AlarmView,
    auth: AuthState,
    auth_view: AuthView,
    /// Whether `auth` was changed since it was published.
    auth_changed: bool,
    tokens: Arc<IssuedTokens>,
    applied: AppliedPosition,
}

/// Shows a snapshot's users and roles before its keys: who may not read them would, by what was here before. All tokens
/// end before that: one that ended in what is skipped would stand for its user as it is now.
#[derive(Debug)]
struct RightsFirst {
    view: AuthView,
    tokens: Arc<IssuedTokens>,
    next: Option<AuthState>,
}

impl InstallHook for RightsFirst {
    fn prepare(&mut self, opened: &Opened) -> Result<(), StorageError> {
        let mut state = AuthState::load(&opened.auth)
            .map_err(|key| StorageError::Mismatch(format!("damaged user or role: {key:?}")))?;
        self.next = Some(state.published(opened.position.index));
        Ok(())
    }

    fn before_shown(&mut self) {
        if let Some(state) = self.next.take() {
            self.tokens.clear();
            self.view.store(state);
        }
    }
}

impl Machine {
    /// A machine over what `store` was opened with; `leases` is empty and gets what is stored.
    ///
    /// # Errors
    /// `Damaged` if a stored lease or alarm can't be read.
    pub fn open(mut store: Store, opened: &Opened, leases: LeaseWriter) -> Result<Self, MachineError> {
        let (auth_view, tokens) = (AuthView::default(), Arc::<IssuedTokens>::default());
        let hook = RightsFirst { view: auth_view.clone(), tokens: tokens.clone(), next: None };
        store.set_install_hook(Box::new(hook));
        let mut machine = Self {
            store,
            leases,
            alarms: Alarms::default(),
            alarm_view: AlarmView::default(),
            auth: AuthState::default(),
            auth_view,
            auth_changed: false,
            tokens,
            applied: AppliedPosition::default(),
        };
        machine.load(opened)?;
        Ok(machine)
    }

    /// Replaces the whole state: `install` puts another one into the store and says what is in it.
    ///
    /// # Errors
    /// What `install` says, or `Damaged`; the machine is of no use then.
    pub fn install<E: From<MachineError>>(
        &mut self,
        install: impl FnOnce(&mut Store) -> Result<Opened, E>,
    ) -> Result<(), E> {
        // Until the new users are known, nobody may take the old ones for those of the new keys.
        self.auth_view.store(self.auth.published(RaftIndex(u64::MAX)));
        let opened = install(&mut self.store)?;
        Ok(self.load(&opened)?)
    }

    fn load(&mut self, opened: &Opened) -> Result<(), MachineError> {
        self.leases.clear();
        for (key, value) in &opened.leases {
            let lease = LeaseRecord::id(key).zip(LeaseRecord::decode(value));
            let (id, record) = lease.ok_or_else(|| MachineError::Damaged { what: "lease", key: key.clone() })?;
            self.leases.insert(id, record);
        }
        let leases = &mut self.leases;
        self.store.begin().visit(&KeyRange::all(), |meta, key| {
            if !meta.lease.is_none() {
                leases.attach(meta.lease, key);
            }
        });
        self.leases.announce();
        self.alarms = Alarms::load(opened.meta.iter().map(|(key, _)| key))
            .map_err(|key| MachineError::Damaged { what: "alarm", key })?;
        self.alarm_view.store(self.alarms.clone());
        self.auth = AuthState::load(&opened.auth).map_err(|key| MachineError::Damaged { what: "user or role", key })?;
        self.auth_view.store(self.auth.published(opened.position.index));
        self.auth_changed = false;
        // Whose tokens ended in what was skipped isn't known.
        self.tokens.clear();
        self.applied = opened.position;
        Ok(())
    }

    /// Applies the commands of one entry. Readers see them after the next [`Machine::publish`].
    ///
    /// # Errors
    /// See [`MachineError`]; none of them is a command's own refusal, which is in its outcome.
    pub fn apply(&mut self, position: AppliedPosition, commands: &[Command]) -> Result<Vec<Outcome>, MachineError> {
        let mut outcomes = Vec::with_capacity(commands.len());
        self.apply_each(position, commands, |outcome| outcomes.push(outcome))?;
        Ok(outcomes)
    }

    /// The same; `take` is given each outcome before the next command is applied, since all of them may be too much to keep.
    ///
    /// # Errors
    /// As [`Machine::apply`].
    pub fn apply_each(
        &mut self,
        position: AppliedPosition,
        commands: &[Command],
        mut take: impl FnMut(Outcome),
    ) -> Result<(), MachineError> {
        self.advance(position, position.index > self.applied.index)?;
        if is_planted(Bug::ApplyTwice) && position.index.get().is_multiple_of(97) {
            commands.iter().for_each(|command| drop(self.execute(command)));
        }
        for some in commands.chunks(EXPECTED_COMMANDS) {
            self.store.expect(&expected_keys(some));
            for command in some {
                take(match self.execute(command) {
                    Err(RequestError::Storage(reason)) => return Err(MachineError::Storage { position, reason }),
                    result => Outcome { result, revision: self.store.revision() },
                });
            }
        }
        Ok(())
    }

    /// Shows what was applied to readers, as of `position`; then wakes who waits for the end of a lease.
    ///
    /// `None` if no key changed. Entries without commands only need this.
    ///
    /// # Errors
    /// `OutOfOrder` if `position` is before an applied one, `Storage` if the store was given up: what
    /// was applied is not shown, so nobody may be told of it.
    pub fn publish(&mut self, position: AppliedPosition) -> Result<Option<Arc<EventBatch>>, MachineError> {
        self.advance(position, position.index >= self.applied.index)?;
        if std::mem::take(&mut self.auth_changed) {
            // Before the keys: who may no longer read must not see what is written after that.
            self.auth_view.store(self.auth.published(position.index));
        }
        let events = self
            .store
            .publish(position)
            .map_err(|error| MachineError::Storage { position, reason: error.to_string() })?;
        self.leases.announce();
        Ok(events)
    }

    fn advance(&mut self, position: AppliedPosition, in_order: bool) -> Result<(), MachineError> {
        if !in_order || position.term < self.applied.term {
            return Err(MachineError::OutOfOrder { last: self.applied, found: position });
        }
        self.applied = position;
        Ok(())
    }

    /// The last position that was applied or published.
    pub fn applied(&self) -> AppliedPosition {
        self.applied
    }

    /// The store's read side.
    pub fn reader(&self) -> StoreReader {
        self.store.reader()
    }

    /// The store's writer, for what is not a command (membership, snapshots, digests).
    pub fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    /// The shared half of the leases.
    pub fn lessor(&self) -> &Arc<Lessor> {
        self.leases.lessor()
    }

    /// The alarms for readers.
    pub fn alarms(&self) -> AlarmView {
        self.alarm_view.clone()
    }

    /// Users and roles for readers.
    pub fn auth(&self) -> AuthView {
        self.auth_view.clone()
    }

    /// A hash of users and roles as they were published last; 0 while nothing was ever changed.
    pub fn auth_digest(&self) -> u64 {
        self.auth.digest()
    }

    /// The tokens that were given out.
    pub fn tokens(&self) -> Arc<IssuedTokens> {
        Arc::clone(&self.tokens)
    }

    fn execute(&mut self, command: &Command) -> Result<Response, RequestError> {
        self.alarms.check(command)?;
        let (caller, command) = match command {
            Command::As(on_behalf) => (&on_behalf.caller, &on_behalf.command),
            plain => (&Caller::Nobody, plain),
        };
        rights::check(command, caller, &self.auth, self.leases.lessor())?;
        match command {
            Command::Put(op) => self.keys(|exec| exec.put_checked(op).map(Response::Put)),
            Command::DeleteRange(op) => self.keys(|exec| exec.delete(op).map(Response::DeleteRange)),
            Command::Txn(op) => self.keys(|exec| exec.txn_checked(op).map(Response::Txn)),
            Command::Compact { revision } => self.store.compact(*revision).map(|()| Response::Compact),
            Command::LeaseGrant { id, ttl_secs } => self.grant(*id, *ttl_secs),
            Command::LeaseRevoke { id } => {
                if !self.end_lease(*id) {
                    return Err(RequestError::LeaseNotFound);
                }
                Ok(Response::Lease)
            }
            Command::LeaseExpire { ids } => {
                for id in ids {
                    self.end_lease(*id);
                }
                Ok(Response::Lease)
            }
            Command::LeaseCheckpoint { remaining } => {
                for (id, secs) in remaining {
                    if let Some(record) = self.leases.checkpoint(*id, *secs) {
                        self.store.put_meta(Table::Lease, LeaseRecord::key(*id), Some(record.encode()));
                    }
                }
                Ok(Response::Lease)
            }
            Command::Alarm(op) => self.alarm(op),
            Command::Auth(op) => self.change_auth(op),
            // Refused above, as everybody's.
            Command::As(_) => Err(RequestError::PermissionDenied),
        }
    }

    fn change_auth(&mut self, op: &AuthOp) -> Result<Response, RequestError> {
        let rows = self.auth.apply(op)?;
        self.auth_changed |= !rows.is_empty();
        for (key, value) in rows {
            self.store.put_meta(Table::Auth, key, value);
        }
        match op {
            AuthOp::Issue { name, token, .. } => {
                if let Some(name) = self.auth.shared_name(name) {
                    self.tokens.issue(*token, self.applied.index, name);
                }
                return Ok(Response::Token(self.applied.index));
            }
            AuthOp::UserDelete { name } | AuthOp::UserChangePassword { name, .. } => self.tokens.end_user(name),
            AuthOp::Disable => self.tokens.clear(),
            _ => {}
        }
        Ok(Response::Auth)
    }

    /// Runs a change of keys as one revision: all of it, or nothing on an error.
    fn keys(
        &mut self,
        run: impl FnOnce(&mut Exec<'_>) -> Result<Response, RequestError>,
    ) -> Result<Response, RequestError> {
        let mut exec = Exec::new(self.store.begin(), self.leases.lessor());
        let response = run(&mut exec)?;
        for moved in exec.commit() {
            if !moved.from.is_none() {
                self.leases.detach(moved.from, &moved.key);
            }
            if !moved.to.is_none() {
                self.leases.attach(moved.to, &moved.key);
            }
        }
        Ok(response)
    }

    fn grant(&mut self, id: LeaseId, ttl_secs: i64) -> Result<Response, RequestError> {
        if id.is_none() {
            return Err(RequestError::LeaseNotFound);
        }
        if !self.leases.grant(id, ttl_secs) {
            return Err(RequestError::LeaseExists);
        }
        let record = LeaseRecord { ttl_secs, remaining_secs: 0 };
        self.store.put_meta(Table::Lease, LeaseRecord::key(id), Some(record.encode()));
        Ok(Response::LeaseGrant { id, ttl_secs })
    }

    /// Ends a lease and deletes its keys, sorted, in one revision (none if it has no key); false if it isn't there.
    fn end_lease(&mut self, id: LeaseId) -> bool {
        let Some(keys) = self.leases.lessor().keys(id) else { return false };
        if !keys.is_empty() {
            let mut txn = self.store.begin();
            for key in keys {
                txn.delete(&KeyRange::single(key));
            }
            txn.commit();
        }
        self.leases.remove(id);
        self.store.put_meta(Table::Lease, LeaseRecord::key(id), None);
        true
    }

    fn alarm(&mut self, op: &AlarmOp) -> Result<Response, RequestError> {
        let answer = self.alarms.apply(op)?;
        for (member, kind) in &answer {
            let value = op.activate.then(Bytes::new);
            self.store.put_meta(Table::Meta, Alarms::meta_key(*member, *kind), value);
        }
        if !answer.is_empty() {
            self.alarm_view.store(self.alarms.clone());
        }
        Ok(Response::Alarm(answer))
    }
}

/// Keys that these commands are likely to put: those of puts, and of transactions whose compares hold.
fn expected_keys(commands: &[Command]) -> SmallVec<[&Bytes; EXPECTED_COMMANDS]> {
    let keys = commands.iter().map(Command::plain).flat_map(|command| {
        let (put, success) = match command {
            Command::Put(op) => (Some(op), &[][..]),
            Command::Txn(op) => (None, &op.success[..]),
            _ => (None, &[][..]),
        };
        let puts = success.iter().filter_map(|op| match op {
            Op::Put(op) => Some(op),
            _ => None,
        });
        put.into_iter().chain(puts).map(|op| &op.key)
    });
    keys.take(EXPECTED_KEYS).collect()
}
