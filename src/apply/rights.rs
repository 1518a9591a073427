//! What a command needs: each of its keys to be read or written, or root.
//!
//! ```text
//! command ─► admin?  users and roles, compaction, alarms
//!         ─► keys    put: write, the lease's keys too; prev_kv: read; compares: read; both branches, all levels
//!         ─► anyone  a lease; one that ends: write all its keys
//! ```
//! Looked at before a command is proposed, and again where it is applied.

use super::{Command, DeleteOp, Op, PutOp, TxnOp};
use crate::auth::{Access, AuthOp, AuthState, Caller};
use crate::lease::{Lessor, Pass};
use crate::types::{LeaseId, RequestError};

/// Whether `caller` may do what `command` says. Nobody may while authentication is on.
///
/// # Errors
/// `UserEmpty`, `AuthRevisionOld`, `PermissionDenied`, `UserNotFound`.
pub fn check(command: &Command, caller: &Caller, state: &AuthState, lessor: &Lessor) -> Result<(), RequestError> {
    check_with(command, caller, state.access(caller), state, lessor)
}

/// The same for who knows already what `state` lets `caller` do with keys.
///
/// # Errors
/// Those of [`check`].
pub fn check_with(
    command: &Command,
    caller: &Caller,
    access: Result<Access<'_>, RequestError>,
    state: &AuthState,
    lessor: &Lessor,
) -> Result<(), RequestError> {
    if !state.is_enabled() {
        return Ok(());
    }
    match command {
        Command::Put(op) => put(op, access?, lessor),
        Command::DeleteRange(op) => delete(op, access?),
        Command::Txn(op) => txn(op, access?, lessor),
        // Where no key is touched a user is enough, as in etcd: one let in before a change, too.
        Command::LeaseRevoke { id } if !lessor.has_keys(*id) => state.check_known(caller),
        Command::LeaseRevoke { id } => write_attached(*id, access?, lessor),
        Command::LeaseGrant { .. } => state.check_known(caller),
        // Tokens are given out by members, who looked at the password.
        Command::Auth(AuthOp::Issue { .. }) if *caller == Caller::Member => Ok(()),
        Command::Auth(AuthOp::Issue { .. }) => Err(RequestError::PermissionDenied),
        Command::Auth(_) | Command::Compact { .. } | Command::Alarm(_) => state.check_admin(caller),
        // The cluster's own: no request becomes one of these.
        Command::LeaseExpire { .. } | Command::LeaseCheckpoint { .. } => Ok(()),
        Command::As(_) => Err(RequestError::PermissionDenied),
    }
}

/// Whether all keys of a lease may be written, as is asked of who ends it, renews it or hangs a key on it.
///
/// # Errors
/// `PermissionDenied`.
pub fn write_attached(id: LeaseId, access: Access<'_>, lessor: &Lessor) -> Result<(), RequestError> {
    let may = access.is_full() || id.is_none() || lessor.all_keys_pass(id, |key| pass(access.write_stretch(key)));
    if may { Ok(()) } else { Err(RequestError::PermissionDenied) }
}

/// Whether all keys of a lease may be read.
///
/// # Errors
/// `PermissionDenied`.
pub fn read_attached(id: LeaseId, access: Access<'_>, lessor: &Lessor) -> Result<(), RequestError> {
    let may = access.is_full() || lessor.all_keys_pass(id, |key| pass(access.read_stretch(key)));
    if may { Ok(()) } else { Err(RequestError::PermissionDenied) }
}

fn pass(stretch: Option<Option<&[u8]>>) -> Pass<'_> {
    match stretch {
        None => Pass::No,
        Some(None) => Pass::All,
        Some(Some(end)) => Pass::Below(end),
    }
}

/// Whether all conditions, reads and changes of a transaction are allowed, in both branches.
///
/// # Errors
/// `PermissionDenied`.
pub fn txn(op: &TxnOp, access: Access<'_>, lessor: &Lessor) -> Result<(), RequestError> {
    if access.is_full() {
        return Ok(());
    }
    op.compares.iter().try_for_each(|compare| access.read(&compare.range))?;
    op.success.iter().chain(&op.failure).try_for_each(|op| match op {
        Op::Range(query) => access.read(&query.range),
        Op::Put(op) => put(op, access, lessor),
        Op::Delete(op) => delete(op, access),
        Op::Txn(op) => txn(op, access, lessor),
    })
}

fn put(op: &PutOp, access: Access<'_>, lessor: &Lessor) -> Result<(), RequestError> {
    access.write_key(&op.key)?;
    if op.prev_kv {
        access.read_key(&op.key)?;
    }
    write_attached(op.lease, access, lessor)
}

fn delete(op: &DeleteOp, access: Access<'_>) -> Result<(), RequestError> {
    access.write(&op.range)?;
    if op.prev_kv { access.read(&op.range) } else { Ok(()) }
}
