//! Whether each lease lived as long as somebody was told, and is gone once that was said.
//!
//! ```text
//! Call (grant, attach, keep, revoke) ─► Lease: promised until, revoked from, gone from ─┐
//! events of its keys, and when somebody saw them first ─────────────────────────────────┴► check
//! ```
//! 1. It ends in nobody's promised time, unless somebody asked to revoke it: neither do its keys go, nor is anybody told.
//! 2. Its keys go together, in one revision, and none comes afterwards.
//! 3. Once it was revoked, or somebody was told that it is gone, it is never there again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::demand;
use crate::history::Change;
use crate::load::ops::{Ask, Call, LEASED, Said};

/// What is known of a lease.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    /// The end of the longest time that somebody was told.
    pub(crate) promised: Option<Instant>,
    /// When its revocation was first asked for.
    pub(crate) revoking: Option<Instant>,
    /// From when on it is surely gone, and the revision by which its keys are.
    pub(crate) gone: Option<(Instant, i64)>,
    /// Those of its keys that are there in the end.
    pub(crate) keys: Vec<Bytes>,
}

impl Lease {
    /// Whether it must not have ended by a moment.
    pub(crate) fn must_live(&self, moment: Instant) -> bool {
        self.revoking.is_none_or(|revoking| moment < revoking)
            && self.promised.is_some_and(|promised| moment < promised)
    }

    /// Takes in a call, in the order in which they were made.
    fn called(&mut self, call: &Call) -> Result<(), String> {
        if call.ask == Ask::Revoke {
            self.revoking.get_or_insert(call.begun);
        }
        let is_back = self.gone.is_some() && !matches!(call.said, Said::Gone | Said::Unknown);
        demand!(!is_back, "a lease that was gone is there again: {call:?}, {self:?}");
        match call.said {
            Said::Lives(secs) => {
                let promised = call.begun + Duration::from_secs(secs);
                self.promised = self.promised.max(Some(promised));
            }
            Said::Done(revision) if call.ask == Ask::Revoke => self.gone = Some((call.ended, revision)),
            Said::Gone => {
                demand!(!self.must_live(call.ended), "a lease ended early: {call:?}, {self:?}");
                self.gone.get_or_insert((call.ended, i64::MAX));
            }
            Said::Done(_) | Said::Unknown => {}
        }
        Ok(())
    }
}

/// The lease that a key goes with.
fn lease_of(key: &Bytes) -> Option<i64> {
    let name = key.strip_prefix(LEASED.as_bytes())?;
    std::str::from_utf8(name).ok()?.split('/').next()?.parse().ok()
}

/// Checks all of it; `came` says when each revision was seen first.
///
/// # Errors
/// The first contradiction.
pub(crate) fn check(
    calls: &[Call],
    changes: &[Change],
    came: &BTreeMap<i64, Instant>,
) -> Result<BTreeMap<i64, Lease>, String> {
    let mut leases: BTreeMap<i64, Lease> = BTreeMap::new();
    for call in calls {
        leases.entry(call.lease).or_default().called(call)?;
    }
    // When the keys of each went.
    let mut ends: BTreeMap<i64, i64> = BTreeMap::new();
    for change in changes {
        let Some(id) = lease_of(&change.key) else { continue };
        let Some(lease) = leases.get_mut(&id) else { return Err(format!("of a lease that nobody has: {change:?}")) };
        let end = ends.get(&id).copied();
        match &change.put {
            Some(put) => {
                demand!(put.lease == id, "without its lease: {change:?}");
                demand!(end.is_none(), "its lease ended at {end:?}: {change:?}");
                lease.keys.retain(|key| key != &change.key);
                lease.keys.push(change.key.clone());
            }
            None => {
                demand!(end.is_none_or(|end| end == change.revision), "its lease ended at {end:?} already: {change:?}");
                ends.insert(id, change.revision);
                lease.keys.retain(|key| key != &change.key);
                let seen = came[&change.revision];
                demand!(!lease.must_live(seen), "its lease ended early: {change:?}, {lease:?}, seen {seen:?}");
            }
        }
    }
    for (id, lease) in &leases {
        let (end, keys) = (ends.get(id), &lease.keys);
        demand!(end.is_none() || keys.is_empty(), "lease {id} ended at {end:?}, and {keys:?} stayed");
        if let Some((_, by)) = lease.gone {
            demand!(keys.is_empty(), "lease {id} is gone, and {keys:?} stayed");
            demand!(end.is_none_or(|end| *end <= by), "lease {id} was revoked by {by}, and its keys went at {end:?}");
        }
    }
    Ok(leases)
}

/// The oracle itself must be able to say no.
#[cfg(test)]
mod tests {
    use rusd_proto::mvccpb::KeyValue;

    use super::*;

    fn moment(ms: u64) -> Instant {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *START.get_or_init(Instant::now) + Duration::from_millis(ms)
    }

    fn call(ask: Ask, from: u64, said: Said) -> Call {
        let call = Call::of(7, ask, moment(from), Ok(said));
        Call { ended: moment(from + 10), ..call }
    }

    /// Puts and deletes of two keys, each with its revision; all of a revision is seen at 100 ms each.
    fn holds(calls: &[Call], events: &[(i64, &str, bool)]) -> Result<BTreeMap<i64, Lease>, String> {
        let change = |(revision, key, is_put): &(i64, &str, bool)| {
            let put = is_put.then(|| KeyValue { lease: 7, ..KeyValue::default() });
            Change { revision: *revision, key: format!("l/7/{key}").into(), put }
        };
        let changes: Vec<_> = events.iter().map(change).collect();
        let came = changes.iter().map(|change| (change.revision, moment(change.revision as u64 * 100))).collect();
        check(calls, &changes, &came)
    }

    #[test]
    fn the_check_sees_what_is_wrong() {
        let granted = call(Ask::Grant, 0, Said::Lives(1));
        let kept = call(Ask::Keep, 500, Said::Lives(1));
        let (a, b) = ((2, "a", true), (3, "b", true));
        let both = |at| [a, b, (at, "a", false), (at, "b", false)];
        let told = |call: Call| holds(&[granted.clone(), call], &[]);
        // By its time: not before the last that was promised.
        holds(std::slice::from_ref(&granted), &both(10)).unwrap();
        holds(std::slice::from_ref(&granted), &both(9)).expect_err("early");
        holds(&[granted.clone(), kept.clone()], &both(14)).expect_err("earlier than the renewal says");
        told(call(Ask::Keep, 980, Said::Gone)).expect_err("told early");
        told(call(Ask::Keep, 1_000, Said::Gone)).unwrap();
        // As a whole, and for good.
        holds(std::slice::from_ref(&granted), &[a, b, (11, "a", false)]).expect_err("one stayed");
        holds(std::slice::from_ref(&granted), &[a, b, (11, "a", false), (12, "b", false)])
            .expect_err("one after the other");
        holds(std::slice::from_ref(&granted), &[a, (11, "a", false), (12, "b", true)])
            .expect_err("one came afterwards");
        // Revoked: at once, by the revision that was answered, and not again.
        let revoked = call(Ask::Revoke, 300, Said::Done(4));
        let leases = holds(&[granted.clone(), revoked.clone()], &both(4)).unwrap();
        assert!(!leases[&7].must_live(moment(400)) && leases[&7].keys.is_empty());
        holds(&[granted.clone(), revoked.clone()], &[a, b]).expect_err("nothing went");
        holds(&[granted.clone(), revoked.clone()], &both(5)).expect_err("went later than was said");
        holds(&[granted.clone(), revoked.clone(), kept.clone()], &both(4)).expect_err("it was kept alive afterwards");
        let doubtful = call(Ask::Revoke, 300, Said::Unknown);
        assert_eq!(holds(&[granted.clone(), doubtful.clone(), kept], &[a, b]).unwrap()[&7].keys, ["l/7/a", "l/7/b"]);
        holds(&[granted, doubtful], &both(4)).unwrap();
        holds(&[], &[a]).expect_err("of no lease");
    }
}
