//! Whether what the clients were answered is one history. Revisions are the witness of the order.
//!
//! 1. A write that was acknowledged is in the events at its revision; one that was refused isn't; one
//!    whose outcome is unknown is there as a whole or not at all; nothing is there that nobody asked for.
//! 2. A write with a condition was done only where the condition held.
//! 3. A read gave what the events up to its revision add up to.
//! 4. Whoever asked after an answer sees at least what that answer saw: a linearizable read at any
//!    member, and a write gets a later revision than all that was seen before it was asked for.
//! 5. On one member revisions never go back, serializable reads included.
//! 6. A delete took what was there, all of it, and nothing is deleted that nobody wanted away.
//!
//! Leases are looked at in `leases`, what was compacted in `compactions`.

mod compactions;
mod leases;

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;

use crate::history::Change;
use crate::load::ops::{LEASED, Op, Outcome, Taken, Wish};

pub(crate) use self::compactions::check as check_compactions;
pub(crate) use self::leases::{Lease, check as check_leases};

/// Keys with this beginning are there for their weight.
pub(crate) const BALLAST: &[u8] = b"big/";

/// The changes of each key, by revision: what was put, or that it was deleted.
type Keys = BTreeMap<Bytes, BTreeMap<i64, Option<Bytes>>>;

/// Fails with a text unless something holds.
macro_rules! demand {
    ($holds:expr, $($text:tt)+) => {
        if !$holds {
            return Err(format!($($text)+));
        }
    };
}
pub(crate) use demand;

/// Checks all of it.
///
/// # Errors
/// The first contradiction.
pub(crate) fn check(ops: &[Op], changes: &[Change]) -> Result<(), String> {
    let mut keys = Keys::new();
    let mut values: BTreeMap<Bytes, Vec<(i64, Bytes)>> = BTreeMap::new();
    let mut deletes: BTreeMap<i64, Vec<Bytes>> = BTreeMap::new();
    for Change { revision, key, put } in changes.iter().filter(|change| !change.key.starts_with(BALLAST)) {
        let value = put.as_ref().map(|put| put.value.clone());
        match &value {
            Some(value) => values.entry(value.clone()).or_default().push((*revision, key.clone())),
            // It went with its lease.
            None if key.starts_with(LEASED.as_bytes()) => {}
            None => deletes.entry(*revision).or_default().push(key.clone()),
        }
        keys.entry(key.clone()).or_default().insert(*revision, value);
    }
    // Deletes of which nobody knows whether they were done.
    let mut doubtful: Vec<&Op> = Vec::new();
    let mut seen: Vec<(&Op, i64)> = Vec::new();
    let mut seen_at: BTreeMap<usize, Vec<(&Op, i64)>> = BTreeMap::new();
    // Writes and linearizable reads, with the revision that they took place at.
    let mut placed: Vec<(&Op, i64)> = Vec::new();
    for op in ops {
        let revision = match &op.wish {
            Some(wish) if wish.keys.is_empty() => match op.outcome {
                Outcome::Wrote(revision) => Some(revision),
                Outcome::Unknown => {
                    doubtful.push(op);
                    None
                }
                _ => None,
            },
            Some(wish) => effect(op, values.remove(&wish.value).as_deref())?,
            None => None,
        };
        if let (Some(Wish { gone: Some(gone), .. }), Some(revision)) = (&op.wish, revision) {
            let there = between(&keys, gone, revision - 1);
            let away: Vec<_> = there.iter().map(|(key, ..)| key.clone()).collect();
            let done = deletes.remove(&revision).unwrap_or_default();
            demand!(done == away, "{done:?} was deleted in the place of {away:?}: {op:?}");
            let is_told = matches!(op.outcome, Outcome::Unknown) || op.took == there;
            demand!(is_told, "not what it deleted, that was {there:?}: {op:?}");
        }
        if let (Some(wish), Some(revision)) = (&op.wish, revision)
            && let Some(expected) = wish.expected
        {
            let before = last(&keys, &op.key, revision - 1).map_or(0, |(revision, _)| revision);
            demand!(before == expected, "its condition didn't hold: {op:?}");
        }
        if let Outcome::Found(at, found) = &op.outcome {
            demand!(last(&keys, &op.key, op.at.unwrap_or(*at)) == *found, "not what the events add up to: {op:?}");
        }
        if let Outcome::Wrote(at) | Outcome::Found(at, _) = op.outcome {
            seen.push((op, at));
            seen_at.entry(op.member).or_default().push((op, at));
        }
        let read = match &op.outcome {
            Outcome::Found(at, _) if !op.serializable => Some(*at),
            _ => None,
        };
        placed.extend(revision.or(read).map(|revision| (op, revision)));
    }
    demand!(values.is_empty(), "nobody asked for {values:?}");

    let seen = Floor::of(seen);
    whose(&deletes, &doubtful, &seen)?;
    for (op, revision) in placed {
        let (floor, by) = seen.before(op.begun);
        let writes = i64::from(!matches!(op.outcome, Outcome::Found(..)));
        demand!(
            revision >= floor + writes,
            "revision {floor} was seen before it began, and it is of {revision}: {op:?}; seen by {by:?}"
        );
    }
    let seen_at: BTreeMap<_, _> = seen_at.into_iter().map(|(member, seen)| (member, Floor::of(seen))).collect();
    for op in ops {
        if let Outcome::Wrote(at) | Outcome::Found(at, _) = op.outcome {
            let (floor, by) = seen_at[&op.member].before(op.begun);
            demand!(at >= floor, "m{} went back from revision {floor} to {at}: {op:?}; seen by {by:?}", op.member);
        }
    }
    Ok(())
}

/// The revision at which a write was done, if it was: as answered and as in the events.
fn effect(op: &Op, made: Option<&[(i64, Bytes)]>) -> Result<Option<i64>, String> {
    let Some(wish) = op.wish.as_ref() else { return Ok(None) };
    let Some(made) = made else {
        demand!(!matches!(op.outcome, Outcome::Wrote(_)), "acknowledged and lost: {op:?}");
        return Ok(None);
    };
    let revision = made[0].0;
    match &op.outcome {
        Outcome::Wrote(answered) => demand!(*answered == revision, "acknowledged elsewhere: {op:?}"),
        Outcome::Unknown => {}
        refused => return Err(format!("done at {revision}, though {refused:?}: {op:?}")),
    }
    let mut done: Vec<_> = made.iter().map(|(_, key)| key).collect();
    let mut asked: Vec<_> = wish.keys.iter().collect();
    done.sort();
    asked.sort();
    demand!(done == asked && made.iter().all(|(at, _)| *at == revision), "done in part or twice: {made:?}, {op:?}");
    Ok(Some(revision))
}

/// Finds for each delete that nobody answered for one that nobody knows of, of the same key and asked for before.
fn whose(deletes: &BTreeMap<i64, Vec<Bytes>>, doubtful: &[&Op], seen: &Floor) -> Result<(), String> {
    let mut floors: BTreeMap<&Bytes, Vec<i64>> = BTreeMap::new();
    for op in doubtful {
        floors.entry(&op.key).or_default().push(seen.before(op.begun).0);
    }
    floors.values_mut().for_each(|floors| floors.sort_unstable());
    let mut taken: BTreeMap<&Bytes, usize> = BTreeMap::new();
    for (revision, keys) in deletes {
        let [key] = &keys[..] else { return Err(format!("nobody asked to delete {keys:?} at {revision}")) };
        let count = taken.entry(key).or_default();
        let floor = floors.get(key).and_then(|floors| floors.get(*count));
        demand!(floor.is_some_and(|floor| floor < revision), "nobody asked to delete {key:?} at {revision}");
        *count += 1;
    }
    Ok(())
}

fn last(keys: &Keys, key: &Bytes, revision: i64) -> Option<(i64, Bytes)> {
    let (at, value) = keys.get(key)?.range(..=revision).next_back()?;
    value.clone().map(|value| (*at, value))
}

/// What was there at a revision, of the keys from one up to another.
fn between(keys: &Keys, (first, end): &(Bytes, Bytes), revision: i64) -> Vec<Taken> {
    let keys_there = keys.range::<Bytes, _>(first..end).map(|(key, _)| key);
    keys_there.filter_map(|key| last(keys, key, revision).map(|(at, value)| (key.clone(), at, value))).collect()
}

/// Answers in the order in which they came, each with the highest revision up to then and who saw it.
struct Floor<'a>(Vec<(Instant, i64, &'a Op)>);

impl<'a> Floor<'a> {
    fn of(mut seen: Vec<(&'a Op, i64)>) -> Self {
        seen.sort_by_key(|(op, _)| op.ended);
        let mut highest = None::<(i64, &Op)>;
        let mut floor = Vec::new();
        for (op, revision) in seen {
            let (most, by) = highest.filter(|known| known.0 >= revision).unwrap_or((revision, op));
            highest = Some((most, by));
            floor.push((op.ended, most, by));
        }
        Self(floor)
    }

    /// The highest revision that was answered before a moment.
    fn before(&self, moment: Instant) -> (i64, Option<&'a Op>) {
        let count = self.0.partition_point(|(ended, ..)| *ended < moment);
        count.checked_sub(1).map_or((0, None), |last| (self.0[last].1, Some(self.0[last].2)))
    }
}

/// The oracle itself must be able to say no.
#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rusd_proto::mvccpb::KeyValue;

    use super::*;
    fn put(value: &str, from: u64, to: u64, outcome: Outcome) -> Op {
        let wish = Wish { keys: vec!["k".into()], value: value.to_owned().into(), ..Wish::default() };
        Op { wish: Some(wish), ..read(0, from, to, outcome) }
    }

    fn read(member: usize, from: u64, to: u64, outcome: Outcome) -> Op {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        let at = |ms| *START.get_or_init(Instant::now) + Duration::from_millis(ms);
        let op = Op::of(member, at(from), "k".into(), Ok(outcome));
        Op { ended: at(to), ..op }
    }

    fn found(revision: i64, kv: Option<(i64, &str)>) -> Outcome {
        Outcome::Found(revision, kv.map(|(at, value)| (at, value.to_owned().into())))
    }

    /// A delete of `k` that took what was put at a revision.
    fn delete(from: u64, to: u64, outcome: Outcome, took: Option<(i64, &str)>) -> Op {
        let wish = Wish { gone: Some(("k".into(), "l".into())), ..Wish::default() };
        let took = took.map(|(at, value)| ("k".into(), at, value.to_owned().into()));
        Op { wish: Some(wish), took: took.into_iter().collect(), ..read(0, from, to, outcome) }
    }

    /// Puts of `k`; without a value, its delete.
    fn events(values: &[&str]) -> Vec<Change> {
        let event = |(at, value): (usize, &&str)| {
            let put = KeyValue { value: (*value).to_owned().into(), ..KeyValue::default() };
            Change { revision: at as i64 + 2, key: "k".into(), put: (!value.is_empty()).then_some(put) }
        };
        values.iter().enumerate().map(event).collect()
    }

    fn holds(ops: &[Op], values: &[&str]) -> bool {
        check(ops, &events(values)).is_ok()
    }

    #[test]
    fn the_check_sees_what_is_wrong() {
        let (a, b) = (put("a", 0, 1, Outcome::Wrote(2)), put("b", 2, 3, Outcome::Wrote(3)));
        assert!(holds(&[a.clone(), b.clone(), read(1, 4, 5, found(3, Some((3, "b"))))], &["a", "b"]));
        assert!(!holds(&[a.clone(), b.clone()], &["a"]), "a write is lost");
        assert!(!holds(std::slice::from_ref(&a), &["a", "b"]), "nobody wrote it");
        assert!(!holds(&[a.clone(), put("b", 2, 3, Outcome::Refused)], &["a", "b"]), "it was refused");
        assert!(holds(&[a.clone(), put("b", 2, 3, Outcome::Unknown)], &["a", "b"]));
        assert!(!holds(&[a.clone(), b.clone(), read(1, 4, 5, found(2, Some((2, "a"))))], &["a", "b"]), "stale");
        let stale = Op { serializable: true, ..read(1, 4, 5, found(2, Some((2, "a")))) };
        assert!(holds(&[a.clone(), b.clone(), stale.clone()], &["a", "b"]), "that one may be");
        let newer = Op { serializable: true, ..read(1, 0, 1, found(3, Some((3, "b")))) };
        assert!(!holds(&[a.clone(), b.clone(), newer, stale], &["a", "b"]), "but not go back");
        assert!(!holds(&[a.clone(), b.clone(), read(1, 4, 5, found(3, Some((2, "a"))))], &["a", "b"]), "torn");
        assert!(!holds(&[put("a", 2, 3, Outcome::Wrote(2)), put("b", 0, 1, Outcome::Wrote(3))], &["a", "b"]), "order");
    }

    #[test]
    fn the_check_sees_what_is_wrong_with_deletes() {
        let a = put("a", 0, 1, Outcome::Wrote(2));
        let took = delete(2, 3, Outcome::Wrote(3), Some((2, "a")));
        assert!(holds(&[a.clone(), took.clone(), read(1, 4, 5, found(3, None))], &["a", ""]));
        assert!(!holds(&[a.clone(), took.clone()], &["a"]), "a delete is lost");
        assert!(!holds(&[a.clone(), took.clone(), read(1, 4, 5, found(3, Some((2, "a"))))], &["a", ""]), "back again");
        assert!(!holds(&[a.clone(), took.clone(), read(1, 4, 5, found(2, Some((2, "a"))))], &["a", ""]), "stale");
        assert!(!holds(std::slice::from_ref(&a), &["a", ""]), "nobody deleted it");
        assert!(!holds(&[a.clone(), delete(2, 3, Outcome::Refused, None)], &["a", ""]), "it was refused");
        assert!(!holds(&[a.clone(), delete(2, 3, Outcome::Wrote(3), Some((2, "b")))], &["a", ""]), "something else");
        assert!(!holds(&[a.clone(), delete(2, 3, found(2, None), None)], &["a"]), "it was there");
        assert!(holds(&[delete(0, 1, found(1, None), None), put("a", 2, 3, Outcome::Wrote(2))], &["a"]));
        let doubtful = delete(2, 3, Outcome::Unknown, None);
        assert!(holds(&[a.clone(), doubtful.clone()], &["a"]));
        assert!(holds(&[a.clone(), doubtful.clone()], &["a", ""]));
        let (b, c) = (put("b", 4, 5, Outcome::Wrote(4)), put("b", 0, 9, Outcome::Wrote(4)));
        assert!(holds(&[a.clone(), doubtful.clone(), b], &["a", "", "b"]));
        assert!(!holds(&[a.clone(), doubtful.clone(), c.clone()], &["a", "", "b", ""]), "deleted twice");
        let late = Op { begun: c.ended + Duration::from_millis(1), ..doubtful };
        assert!(!holds(&[a, c, late], &["a", "", "b"]), "before anybody asked for it");
    }
}
