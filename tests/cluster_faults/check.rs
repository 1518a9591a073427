//! Whether what the clients were answered is one history. Revisions are the witness of the order.
//!
//! 1. A write that was acknowledged is in the events at its revision; one that was refused isn't; one
//!    whose outcome is unknown is there as a whole or not at all; nothing is there that nobody asked for.
//! 2. A write with a condition was done only where the condition held.
//! 3. A read gave what the events up to its revision add up to.
//! 4. Whoever asked after an answer sees at least what that answer saw: a linearizable read at any
//!    member, and a write gets a later revision than all that was seen before it was asked for.
//! 5. On one member revisions never go back, serializable reads included.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;

use crate::history::Change;
use crate::load::{Op, Outcome};

/// Keys with this beginning are there for their weight.
pub(crate) const BALLAST: &[u8] = b"big/";

/// The changes of each key, by revision.
type Keys = BTreeMap<Bytes, BTreeMap<i64, Bytes>>;

/// Fails with a text unless something holds.
macro_rules! demand {
    ($holds:expr, $($text:tt)+) => {
        if !$holds {
            return Err(format!($($text)+));
        }
    };
}

/// Checks all of it.
///
/// # Errors
/// The first contradiction.
pub(crate) fn check(ops: &[Op], changes: &[Change]) -> Result<(), String> {
    let mut keys = Keys::new();
    let mut values: BTreeMap<Bytes, Vec<(i64, Bytes)>> = BTreeMap::new();
    for Change { revision, key, put } in changes.iter().filter(|change| !change.key.starts_with(BALLAST)) {
        let value = put.as_ref().expect("nobody deletes").value.clone();
        values.entry(value.clone()).or_default().push((*revision, key.clone()));
        keys.entry(key.clone()).or_default().insert(*revision, value);
    }
    let mut seen: Vec<(&Op, i64)> = Vec::new();
    let mut seen_at: BTreeMap<usize, Vec<(&Op, i64)>> = BTreeMap::new();
    // Writes and linearizable reads, with the revision that they took place at.
    let mut placed: Vec<(&Op, i64)> = Vec::new();
    for op in ops {
        let made = op.wish.as_ref().and_then(|wish| values.remove(&wish.value));
        let revision = effect(op, made.as_deref())?;
        if let (Some(wish), Some(revision)) = (&op.wish, revision)
            && let Some(expected) = wish.expected
        {
            let before = last(&keys, &op.key, revision - 1).map_or(0, |(revision, _)| revision);
            demand!(before == expected, "its condition didn't hold: {op:?}");
        }
        if let Outcome::Found(at, found) = &op.outcome {
            demand!(last(&keys, &op.key, *at) == *found, "not what the events add up to: {op:?}");
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

fn last(keys: &Keys, key: &Bytes, revision: i64) -> Option<(i64, Bytes)> {
    let (at, value) = keys.get(key)?.range(..=revision).next_back()?;
    Some((*at, value.clone()))
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
    use crate::load::Wish;

    fn put(value: &str, from: u64, to: u64, outcome: Outcome) -> Op {
        let wish = Wish { keys: vec!["k".into()], value: value.to_owned().into(), expected: None };
        Op { wish: Some(wish), ..read(0, from, to, outcome) }
    }

    fn read(member: usize, from: u64, to: u64, outcome: Outcome) -> Op {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        let at = |ms| *START.get_or_init(Instant::now) + Duration::from_millis(ms);
        let (begun, ended, error) = (at(from), at(to), String::new());
        Op { member, begun, ended, serializable: false, key: "k".into(), wish: None, outcome, error }
    }

    fn found(revision: i64, kv: Option<(i64, &str)>) -> Outcome {
        Outcome::Found(revision, kv.map(|(at, value)| (at, value.to_owned().into())))
    }

    fn events(values: &[&str]) -> Vec<Change> {
        let event = |(at, value): (usize, &&str)| {
            let put = KeyValue { value: (*value).to_owned().into(), ..KeyValue::default() };
            Change { revision: at as i64 + 2, key: "k".into(), put: Some(put) }
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
}
