//! Strict serializability, with revisions as the witness.
//!
//! ```text
//! each answer ─► its place in the order: the revision that it wrote, or whose state it read
//!              ─► is it what the ledger says of that place?
//! all places  ─► does the order of time hold? (what began after another's end isn't before it)
//! the rest    ─► refused writes are not in the ledger; deletes there have somebody who asked
//! ```
//! Because the order is known, this is a sort and not a search: O(n log n).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::history::{Answer, Call, Micros, Op, Outcome};
use crate::ledger::{Change, Kv, Ledger};

/// Where an answered call stands in the order of all revisions.
#[derive(Clone, Copy)]
struct Place {
    revision: i64,
    /// It made the revision; else it saw its state.
    wrote: bool,
    /// It must not be older than what ended before it.
    is_current: bool,
}

/// All that is wrong with the history.
pub fn check(history: &[Op], ledger: &Ledger) -> Vec<String> {
    let mut faults = Vec::new();
    let mut places = Vec::with_capacity(history.len());
    for op in history {
        match &op.outcome {
            Outcome::Ok(answer) => match place(op, answer, ledger) {
                Ok(place) => places.extend(place.map(|place| (op, place))),
                Err(fault) => faults.push(format!("{fault}: {op:?}")),
            },
            Outcome::Failed(_) => faults.extend(refused(op, ledger)),
            Outcome::Unknown(_) => {}
        }
    }
    order(&mut places, &mut faults);
    sessions(&places, &mut faults);
    faults.extend(deletes(history, ledger));
    faults
}

/// Where the call stands, if what it was told agrees with the ledger there.
fn place(op: &Op, answer: &Answer, ledger: &Ledger) -> Result<Option<Place>, String> {
    let place = match (&op.call, answer) {
        (Call::Put { key, value, lease }, Answer::Done { revision }) => {
            match ledger.at(key, *revision) {
                Some(kv) if kv.value == *value && kv.modified == *revision && kv.lease == *lease => {}
                other => return Err(format!("an acknowledged write is lost; there is {other:?}")),
            }
            Place { revision: *revision, wrote: true, is_current: true }
        }
        (Call::Delete { prefix }, Answer::Deleted { revision, count }) => {
            let before = if *count > 0 { *revision - 1 } else { *revision };
            let there = ledger.range_at(prefix, before).len();
            if i64::try_from(there) != Ok(*count) || !ledger.range_at(prefix, *revision).is_empty() {
                return Err(format!("{there} keys were there to be deleted"));
            }
            Place { revision: *revision, wrote: *count > 0, is_current: true }
        }
        (Call::Txn { compares, puts, deletes, reads }, Answer::Txn { revision, held, found }) => {
            let wrote = *held && !puts.is_empty();
            let before = if wrote { *revision - 1 } else { *revision };
            let modified = |key: &Bytes| ledger.at(key, before).map_or(0, |kv| kv.modified);
            if compares.iter().all(|(key, expected)| modified(key) == *expected) != *held {
                let seen: Vec<_> = compares.iter().map(|(key, _)| modified(key)).collect();
                return Err(format!("the compares saw {seen:?}"));
            }
            let written = |(key, value): &(_, _)| {
                ledger.at(key, *revision).is_some_and(|kv| kv.value == *value && kv.modified == *revision)
            };
            if wrote && !(puts.iter().all(written) && deletes.iter().all(|key| ledger.at(key, *revision).is_none())) {
                return Err("an acknowledged transaction is lost, or a part of it".to_owned());
            }
            same(found, &reads.iter().filter_map(|key| ledger.at(key, *revision)).collect::<Vec<_>>())?;
            Place { revision: *revision, wrote, is_current: true }
        }
        (Call::Get { prefix, serializable, revision: asked }, Answer::Found { revision, kvs }) => {
            let at = if *asked > 0 { *asked } else { *revision };
            same(kvs, &ledger.range_at(prefix, at))?;
            Place { revision: *revision, wrote: false, is_current: !serializable }
        }
        (Call::Revoke { .. } | Call::Compact { .. }, Answer::Done { revision }) => {
            Place { revision: *revision, wrote: false, is_current: true }
        }
        (Call::Grant { .. } | Call::KeepAlive { .. }, Answer::Lease { .. }) => return Ok(None),
        _ => return Err("an answer to another question".to_owned()),
    };
    let seen = match ledger.block(place.revision) {
        Some(block) => block.seen,
        None if place.revision == Ledger::EMPTY => 0,
        None => return Err("a revision that was never published".to_owned()),
    };
    if seen > op.returned {
        return Err("an answer from the future".to_owned());
    }
    if place.wrote && seen < op.invoked {
        return Err("a write that was there before it was asked for".to_owned());
    }
    Ok(Some(place))
}

fn same(found: &[Kv], expected: &[&Kv]) -> Result<(), String> {
    if found.iter().eq(expected.iter().copied()) {
        return Ok(());
    }
    Err(format!("the read should have found {expected:?}"))
}

/// A refused write that was written all the same.
fn refused(op: &Op, ledger: &Ledger) -> Option<String> {
    let values: Vec<_> = match &op.call {
        Call::Put { value, .. } => vec![value],
        Call::Txn { puts, .. } => puts.iter().map(|(_, value)| value).collect(),
        _ => Vec::new(),
    };
    let written = values.into_iter().find_map(|value| ledger.tag(value))?;
    Some(format!("a refused write is there, in revision {written}: {op:?}"))
}

/// What began after another's end must not stand before it.
fn order<'a>(places: &mut [(&'a Op, Place)], faults: &mut Vec<String>) {
    let mut ended: Vec<_> = places.iter().filter(|(_, place)| place.is_current).copied().collect();
    ended.sort_by_key(|(op, _)| op.returned);
    places.sort_by_key(|(op, _)| op.invoked);
    let mut ended = ended.into_iter().peekable();
    let mut newest: Option<(&'a Op, Place)> = None;
    for (op, place) in places.iter() {
        while let Some(next) = ended.next_if(|(other, _)| other.returned < op.invoked) {
            if newest.is_none_or(|(_, newest)| next.1.revision > newest.revision) {
                newest = Some(next);
            }
        }
        let Some((before, bound)) = newest.filter(|_| place.is_current) else { continue };
        if place.revision < bound.revision || (place.wrote && place.revision == bound.revision) {
            faults.push(format!("stale: {op:?} began after the end of {before:?}"));
        }
    }
}

/// One client at one life of a member never sees it go back.
fn sessions(places: &[(&Op, Place)], faults: &mut Vec<String>) {
    let mut seen: BTreeMap<(usize, usize, u64), i64> = BTreeMap::new();
    for (op, place) in places {
        let last = seen.entry((op.client, op.member, op.boot)).or_default();
        if place.revision < *last {
            faults.push(format!("the revision went back from {last}: {op:?}"));
        }
        *last = place.revision.max(*last);
    }
}

/// Deletes in the ledger that nobody can have asked for.
fn deletes(history: &[Op], ledger: &Ledger) -> Vec<String> {
    let mut acknowledged = BTreeSet::new();
    let mut open: Vec<(&[u8], Micros)> = Vec::new();
    for op in history {
        match (&op.call, &op.outcome) {
            (Call::Delete { .. }, Outcome::Ok(Answer::Deleted { revision, count: 1.. })) => {
                acknowledged.insert(*revision);
            }
            (Call::Txn { deletes, .. }, Outcome::Ok(Answer::Txn { revision, held: true, .. }))
                if !deletes.is_empty() =>
            {
                acknowledged.insert(*revision);
            }
            (Call::Delete { prefix }, Outcome::Unknown(_)) => open.push((prefix, op.invoked)),
            (Call::Txn { deletes, .. }, Outcome::Unknown(_)) => {
                open.extend(deletes.iter().map(|key| (key.as_ref(), op.invoked)));
            }
            _ => {}
        }
    }
    let mut faults = Vec::new();
    for (revision, block) in ledger.from(0) {
        let gone = block.changes.iter().filter_map(|change| match change {
            Change::Delete(key) => Some(key),
            Change::Put(_) => None,
        });
        for key in gone {
            let leased = ledger.at(key, revision - 1).is_some_and(|kv| kv.lease != 0);
            let asked = || open.iter().any(|(prefix, invoked)| key.starts_with(prefix) && *invoked <= block.seen);
            if !leased && !acknowledged.contains(&revision) && !asked() {
                faults.push(format!("nobody deleted {key:?} in revision {revision}"));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::tests::{kv, ledger};

    fn op(call: Call, invoked: Micros, returned: Micros, outcome: Outcome) -> Op {
        Op { client: 0, member: 0, boot: 0, call, invoked, returned, outcome }
    }

    fn put(key: &'static str, value: &'static str) -> Call {
        Call::Put { key: key.into(), value: value.into(), lease: 0 }
    }

    fn get(prefix: &'static str, serializable: bool) -> Call {
        Call::Get { prefix: prefix.into(), serializable, revision: 0 }
    }

    fn done(revision: i64) -> Outcome {
        Outcome::Ok(Answer::Done { revision })
    }

    fn found(revision: i64, kvs: &[Kv]) -> Outcome {
        Outcome::Ok(Answer::Found { revision, kvs: kvs.to_vec() })
    }

    /// The writes of `ledger()`, as they were really made.
    fn good() -> Vec<Op> {
        vec![
            op(put("a", "1"), 1500, 2500, done(2)),
            op(put("a", "2"), 2600, 3500, done(3)),
            op(put("b", "3"), 2700, 4500, done(4)),
            op(Call::Delete { prefix: Bytes::from_static(b"a") }, 4600, 5500, Outcome::Unknown("lost".into())),
        ]
    }

    fn faults_with(extra: Op) -> String {
        let mut history = good();
        history.push(extra);
        check(&history, &ledger()).join("\n")
    }

    #[test]
    fn a_good_history_passes() {
        assert_eq!(check(&good(), &ledger()), Vec::<String>::new());
        assert_eq!(faults_with(op(get("a", false), 4700, 4800, found(4, &[kv("a", "2", 2, 3, 2)]))), "");
        let old = Op { member: 1, ..op(get("a", true), 4700, 4800, found(2, &[kv("a", "1", 2, 2, 1)])) };
        assert_eq!(faults_with(old), "", "old, not torn");
        let other = Answer::Txn { revision: 4, held: false, found: vec![kv("b", "3", 4, 4, 1)] };
        assert_eq!(faults_with(op(txn(&[("b", 9)], &[("b", "7")], &[], &["b"]), 4700, 4800, Outcome::Ok(other))), "");
    }

    fn txn(
        compares: &[(&'static str, i64)],
        puts: &[(&'static str, &'static str)],
        deletes: &[&'static str],
        reads: &[&'static str],
    ) -> Call {
        Call::Txn {
            compares: compares.iter().map(|(key, expected)| ((*key).into(), *expected)).collect(),
            puts: puts.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
            deletes: deletes.iter().map(|key| (*key).into()).collect(),
            reads: reads.iter().map(|key| (*key).into()).collect(),
        }
    }

    #[test]
    fn a_stale_read_is_found() {
        let stale = op(get("a", false), 3600, 3700, found(2, &[kv("a", "1", 2, 2, 1)]));
        assert!(faults_with(stale).contains("stale"));
    }

    #[test]
    fn a_torn_read_is_found() {
        let torn = op(get("", true), 4700, 4800, found(4, &[kv("b", "3", 4, 4, 1)]));
        assert!(faults_with(torn).contains("should have found"));
    }

    #[test]
    fn a_lost_write_is_found() {
        assert!(faults_with(op(put("c", "9"), 4700, 4800, done(4))).contains("lost"));
        assert!(faults_with(op(put("c", "9"), 5700, 5800, done(6))).contains("lost"));
    }

    #[test]
    fn a_refused_write_that_was_written_is_found() {
        let refused = op(put("b", "3"), 3600, 3700, Outcome::Failed("no leader".into()));
        assert!(check(&[refused], &ledger()).join("").contains("refused"));
    }

    #[test]
    fn a_transaction_that_compared_wrongly_is_found() {
        let answer = |held, found: &[Kv]| Outcome::Ok(Answer::Txn { revision: 4, held, found: found.to_vec() });
        let call = || txn(&[("a", 2), ("b", 0)], &[("b", "3")], &[], &["a"]);
        let a = kv("a", "2", 2, 3, 2);
        assert!(faults_with(op(call(), 3600, 4800, answer(true, &[]))).contains("compares saw [3, 0]"));
        let call = || txn(&[("a", 3), ("b", 0)], &[("b", "3")], &[], &["a"]);
        let all = faults_with(op(call(), 3600, 4800, answer(true, std::slice::from_ref(&a))));
        assert_eq!(all, "", "the same write with compares that hold");
        assert!(faults_with(op(call(), 3600, 4800, answer(true, &[]))).contains("should have found"));
        let call = txn(&[("a", 3), ("b", 4)], &[("b", "7")], &[], &["a"]);
        assert!(faults_with(op(call, 3600, 4800, answer(false, &[a]))).contains("compares saw"), "they all hold");
        let half = txn(&[("a", 3)], &[("b", "3")], &["a"], &[]);
        assert!(faults_with(op(half, 3600, 4800, answer(true, &[]))).contains("a part of it"));
    }

    #[test]
    fn an_answer_from_the_future_is_found() {
        let early = op(get("a", false), 100, 200, found(2, &[kv("a", "1", 2, 2, 1)]));
        assert!(faults_with(early).contains("future"));
    }

    #[test]
    fn a_delete_that_nobody_asked_for_is_found() {
        let history = &good()[..3];
        assert!(check(history, &ledger()).join("").contains("nobody deleted"));
    }

    #[test]
    fn a_member_that_goes_back_is_found() {
        let mut history = good();
        history.push(op(get("b", true), 4700, 4800, found(4, &[kv("b", "3", 4, 4, 1)])));
        history.push(op(get("b", true), 4900, 4950, found(3, &[])));
        assert!(check(&history, &ledger()).join("").contains("went back"));
    }
}
