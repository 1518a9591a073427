//! `v3lockpb.Lock` and `v3electionpb.Election`: etcd's recipes, run in the server.
//!
//! ```text
//! contend: name/<lease in hex>, made by a txn if it isn't there ─► who in name/ is older? ─► wait until it is gone
//! ```
//! Whoever's key in `name/` has the smallest creation revision holds the lock or leads. Each that waits follows only
//! the one before it, so that an end wakes one and not all.

mod election;
mod leaving;
mod lock;
mod observe;
mod room;

use bytes::{BufMut, Bytes, BytesMut};
use leaving::{Session, Waiting};
use room::{Full, Room};
use tonic::Status;

use super::auth::CallContext;
use super::methods::Method;
use super::{errors, kv};
use crate::apply::TxnResult;
use crate::apply::{Command, Compare, CompareResult, CompareTarget, DeleteOp, Op, OpResult, PutOp, Response, TxnOp};
use crate::storage::{RangeQuery, SortOrder, SortTarget};
use crate::types::{KeyRange, KeyValue, LeaseId, RequestError};
use crate::watch::Follow;

pub(crate) use election::{campaign, leader, proclaim, resign};
pub(crate) use lock::{lock, unlock};
pub(crate) use observe::observe;

/// etcd runs these through a client of its own, so that whatever goes wrong inside comes out as `Unknown`, but for the
/// end of a wait for a leader, which gRPC knows.
pub(crate) fn unknown(error: &RequestError) -> Status {
    match error {
        RequestError::DeadlineExceeded => errors::status(error),
        _ => Status::unknown(error.to_string()),
    }
}

/// Whether a method is one of these.
pub(crate) fn is_one(method: Method) -> bool {
    matches!(method.parts().0, "v3lockpb.Lock" | "v3electionpb.Election")
}

/// The prefix of all who contend for `name`.
fn prefix(name: &Bytes) -> Bytes {
    let mut prefix = BytesMut::with_capacity(name.len() + 1);
    prefix.put_slice(name);
    prefix.put_u8(b'/');
    prefix.freeze()
}

/// The key of who contends for `name` with `lease`: the prefix of all, and the lease.
fn own_key(name: &Bytes, lease: LeaseId) -> Bytes {
    // As Go writes a negative number in hexadecimal.
    let sign = if lease.get() < 0 { "-" } else { "" };
    let hex = format!("{sign}{:x}", lease.get().unsigned_abs());
    let mut key = BytesMut::with_capacity(name.len() + 1 + hex.len());
    key.put_slice(name);
    key.put_u8(b'/');
    key.put_slice(hex.as_bytes());
    key.freeze()
}

/// The pair in `range` that was created first.
fn oldest(range: KeyRange) -> RangeQuery {
    RangeQuery { limit: 1, order: SortOrder::Ascend, target: SortTarget::Create, ..RangeQuery::latest(range) }
}

/// A compare of the creation revision of all keys in `range`; it holds for 0 if there are none.
fn created_at(range: KeyRange, revision: i64) -> Compare {
    Compare { range, result: CompareResult::Equal, target: CompareTarget::Create(revision) }
}

/// Runs a transaction; its result and the header's revision.
async fn txn(call: &CallContext, txn: TxnOp) -> Result<(TxnResult, i64), RequestError> {
    match kv::submit(call, Command::Txn(txn)).await? {
        (Response::Txn(result), revision) => Ok((result, revision)),
        (other, _) => Err(kv::unexpected("a txn", &other)),
    }
}

/// The first pair that the read at `at` among a transaction's answers found.
fn found(result: &TxnResult, at: usize) -> Option<&KeyValue> {
    match result.responses.get(at) {
        Some(OpResult::Range { result, .. }) => result.kvs.first(),
        _ => None,
    }
}

/// A place among those who contend.
struct Place {
    /// A part of `key`.
    prefix: Bytes,
    key: Bytes,
    lease: LeaseId,
    /// When the key was created.
    revision: i64,
    /// The key was there already, with another value. (Not that value: who waits would keep it.)
    has_other_value: bool,
    is_first: bool,
    /// The revision of the header.
    header: i64,
    /// What it waits in, unless it is the first.
    room: Option<Room>,
}

/// The lease to contend with, and the room to wait in; without room no lease is granted to who would have to wait.
///
/// # Errors
/// `TooManyRequests`, and nothing was changed; those of a read, and of a grant.
async fn begin(call: &CallContext, name: &Bytes, lease: i64) -> Result<(Session, Result<Room, Full>), RequestError> {
    let room = Room::try_take(&call.budgets, name.len());
    if let (0, Err(full)) = (lease, &room) {
        let first = RangeQuery { keys_only: true, ..oldest(KeyRange::prefix(prefix(name))) };
        let (reply, _) = kv::read_range(call, first, false).await?;
        if !reply.result.kvs.is_empty() {
            return Err(full.refuse(&call.budgets));
        }
    }
    Ok((Session::open(call, lease).await?, room))
}

/// Takes a place, or finds the one that is there.
///
/// Whether there is room for one more that waits is known before: calls with the same lease share one key, so that a
/// refusal afterwards could not take it away again. Where there is none, only who needs not wait takes a place.
///
/// # Errors
/// `TooManyRequests`, and nothing was changed; those of a transaction.
async fn contend(
    call: &CallContext,
    name: &Bytes,
    lease: LeaseId,
    value: Bytes,
    room: Result<Room, Full>,
) -> Result<Place, RequestError> {
    let key = own_key(name, lease);
    let prefix = key.slice(..name.len() + 1);
    let first = || Op::Range(oldest(KeyRange::prefix(prefix.clone())));
    let put = PutOp { key: key.clone(), value: value.clone(), lease, ..PutOp::default() };
    let taken = if room.is_ok() { KeyRange::single(key.clone()) } else { KeyRange::prefix(prefix.clone()) };
    let (result, header) = txn(
        call,
        TxnOp {
            compares: vec![created_at(taken, 0)],
            success: vec![Op::Put(put), first()],
            failure: vec![Op::Range(RangeQuery::latest(KeyRange::single(key.clone()))), first()],
        },
    )
    .await?;
    let own = if result.succeeded { None } else { found(&result, 0) };
    let revision = own.map_or(header, |kv| kv.create_revision);
    // Without a key of its own the header's revision is that of whatever was written last, which may be the first one's key.
    let has_key = result.succeeded || own.is_some();
    let is_first = has_key && found(&result, 1).is_none_or(|kv| kv.create_revision == revision);
    let room = if is_first { None } else { Some(room.map_err(|full| full.refuse(&call.budgets))?) };
    let has_other_value = own.is_some_and(|kv| kv.value != value);
    Ok(Place { prefix, key, lease, revision, has_other_value, is_first, header, room })
}

/// Waits until nobody in the place's prefix is older than it.
async fn wait_first(call: &CallContext, place: &Place, waiting: &mut Waiting) -> Result<(), RequestError> {
    // Made for each look, so that the end of its range isn't kept during the wait.
    let before = || RangeQuery {
        limit: 1,
        order: SortOrder::Descend,
        target: SortTarget::Create,
        max_create_revision: place.revision - 1,
        keys_only: true,
        ..RangeQuery::latest(KeyRange::prefix(place.prefix.clone()))
    };
    loop {
        let (reply, _) = kv::read_range(call, before(), false).await?;
        let Some(ahead) = reply.result.kvs.into_iter().next() else { return Ok(()) };
        if let Some(room) = &mut waiting.room {
            room.names.for_key(ahead.key.len())?;
        }
        let single = KeyRange::single(ahead.key.clone());
        let mut follow = Follow::new(call.watch.hub(), single.clone());
        // It may have gone before it was followed.
        loop {
            if !is_there(call, single.clone(), ahead.create_revision).await? {
                break;
            }
            follow.next().await.map_err(|_| RequestError::Stopped)?;
        }
    }
}

/// Whether a key that was created at `revision` is there, as far as this member knows. (Its answer isn't kept during a wait.)
async fn is_there(call: &CallContext, key: KeyRange, revision: i64) -> Result<bool, RequestError> {
    let query = RangeQuery { keys_only: true, ..RangeQuery::latest(key) };
    let (reply, _) = kv::read_range(call, query, true).await?;
    Ok(reply.result.kvs.first().is_some_and(|kv| kv.create_revision == revision))
}

/// The revision at which the place's key was seen to be there still; `None` if it is gone: its lease has ended, or whoever waited with the same lease gave it up.
async fn own(call: &CallContext, place: &Place) -> Result<Option<i64>, RequestError> {
    let query = RangeQuery { keys_only: true, ..RangeQuery::latest(KeyRange::single(place.key.clone())) };
    let (reply, _) = kv::read_range(call, query, false).await?;
    let is_there = reply.result.kvs.first().is_some_and(|kv| kv.create_revision == place.revision);
    Ok(reply.header.map(|header| header.revision).filter(|_| is_there))
}

/// Deletes a key if it is still the one that was created then; the header's revision.
async fn give_up(call: &CallContext, key: Bytes, revision: i64) -> Result<i64, RequestError> {
    txn(call, giving_up(key, revision)).await.map(|(_, header)| header)
}

/// The delete of a key if it is still the one that was created then.
fn giving_up(key: Bytes, revision: i64) -> TxnOp {
    let key = KeyRange::single(key);
    let compares = vec![created_at(key.clone(), revision)];
    let delete = Op::Delete(DeleteOp { range: key, prev_kv: false });
    TxnOp { compares, success: vec![delete], failure: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_as_go_names_them() {
        let key = |name: &'static str, lease| own_key(&Bytes::from_static(name.as_bytes()), LeaseId(lease));
        assert_eq!(key("lk1", 0xabc), "lk1/abc");
        assert_eq!(key("", 0xabc), "/abc");
        assert_eq!(key("x", -255), "x/-ff");
        assert_eq!(key("x", i64::MIN), "x/-8000000000000000");
    }
}
