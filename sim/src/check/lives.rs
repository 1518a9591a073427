//! Leases as a whole: what was acknowledged of one is so on every member, and none lives for ever.
//!
//! ```text
//! applied commands ─► Lives (granted when, ended when) ─► each answer: is it what was so then?
//!                                                      ─► the end: whoever was not renewed is gone
//! ```
//! `leases` says that none ends early; this says that none is lost, and that each ends.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Answer, Call, Micros, Op, Outcome};
use crate::ledger::Ledger;

/// After a change of leader a lease has its whole time again, and a little more. So much later it must be gone.
const GRACE: Micros = 4_000_000;
/// How a call is refused that names a lease which isn't there.
const NOT_FOUND: &str = "requested lease not found";

/// What members have applied, by whichever did first.
#[derive(Debug, Default)]
pub struct Lives {
    granted: BTreeMap<i64, Micros>,
    ended: BTreeMap<i64, Micros>,
    compacted: BTreeSet<i64>,
    /// When somebody began to lead last.
    led: Micros,
}

impl Lives {
    /// A member has applied a grant.
    pub fn grant(&mut self, id: i64, now: Micros) {
        self.granted.entry(id).or_insert(now);
    }

    /// A member has ended a lease, as asked or because it ran out.
    pub fn end(&mut self, id: i64, now: Micros) {
        self.ended.entry(id).or_insert(now);
    }

    /// A member has applied a compaction.
    pub fn compact(&mut self, revision: i64) {
        self.compacted.insert(revision);
    }

    /// A member has begun to lead.
    pub fn lead(&mut self, now: Micros) {
        self.led = self.led.max(now);
    }

    /// Whether anybody asked for a compaction to this revision.
    pub fn is_compacted(&self, revision: i64) -> bool {
        self.compacted.contains(&revision)
    }

    /// The leases that live now, in order.
    pub fn alive(&self) -> BTreeSet<i64> {
        self.granted.keys().filter(|id| !self.ended.contains_key(id)).copied().collect()
    }

    /// It was granted before `invoked`, and not ended by `returned`.
    fn lived_through(&self, id: i64, invoked: Micros, returned: Micros) -> bool {
        self.granted.get(&id).is_some_and(|granted| *granted < invoked)
            && self.ended.get(&id).is_none_or(|ended| *ended > returned)
    }
}

/// All that is wrong with the leases of a history that ended at `over`.
pub fn check(history: &[Op], lives: &Lives, ledger: &Ledger, over: Micros) -> Vec<String> {
    let mut faults: Vec<_> = history.iter().filter_map(|op| answer(op, lives, ledger)).collect();
    let mut due: BTreeMap<i64, (Micros, i64)> = BTreeMap::new();
    for op in history {
        match op.call {
            Call::Grant { id, ttl } => drop(due.insert(id, (op.returned, ttl))),
            // Also one that nobody heard of may have been made.
            Call::KeepAlive { id } => {
                if let Some((renewed, _)) = due.get_mut(&id) {
                    *renewed = op.returned.max(*renewed);
                }
            }
            _ => {}
        }
    }
    for id in lives.alive() {
        let Some((renewed, ttl)) = due.get(&id) else {
            faults.push(format!("lease {id} was granted to nobody"));
            continue;
        };
        let gone_by = (*renewed).max(lives.led) + u64::try_from(*ttl).unwrap_or(0) * 1_000_000 + GRACE;
        if gone_by < over {
            faults.push(format!("lease {id} of {ttl} s was renewed at {renewed} and still lives at {over}"));
        }
    }
    faults
}

/// What is wrong with an answer about a lease.
fn answer(op: &Op, lives: &Lives, ledger: &Ledger) -> Option<String> {
    let fault = match (&op.call, &op.outcome) {
        (Call::Grant { id, .. }, Outcome::Ok(_)) if lives.granted.get(id).is_none_or(|at| *at > op.returned) => {
            "an acknowledged lease was never granted"
        }
        (Call::KeepAlive { id }, Outcome::Ok(Answer::Lease { ttl: 0 }))
            if lives.lived_through(*id, op.invoked, op.returned) =>
        {
            "a living lease is said to be gone"
        }
        (Call::Put { lease: id @ 1.., .. } | Call::Revoke { id }, Outcome::Failed(why))
            if why.contains(NOT_FOUND) && lives.lived_through(*id, op.invoked, op.returned) =>
        {
            "a living lease was not found"
        }
        (Call::Revoke { id }, Outcome::Ok(Answer::Done { revision })) => {
            let is_over = lives.ended.get(id).is_some_and(|at| *at <= op.returned);
            let is_empty = ledger.range_at(b"", *revision).iter().all(|kv| kv.lease != *id);
            match (is_over, is_empty) {
                (false, _) => "an acknowledged end of a lease was none",
                (true, false) => "a lease has ended, and its keys are there",
                (true, true) => return None,
            }
        }
        _ => return None,
    };
    Some(format!("{fault}: {op:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Change, Kv};

    fn op(call: Call, invoked: Micros, outcome: Outcome) -> Op {
        Op { client: 0, member: 0, boot: 0, call, invoked, returned: invoked + 1_000, outcome }
    }

    fn granted() -> Op {
        op(Call::Grant { id: 7, ttl: 2 }, 1_000, Outcome::Ok(Answer::Lease { ttl: 2 }))
    }

    fn renewed(invoked: Micros, ttl: i64) -> Op {
        op(Call::KeepAlive { id: 7 }, invoked, Outcome::Ok(Answer::Lease { ttl }))
    }

    fn lives(granted: Option<Micros>, ended: Option<Micros>) -> Lives {
        let mut lives = Lives::default();
        granted.into_iter().for_each(|at| lives.grant(7, at));
        ended.into_iter().for_each(|at| lives.end(7, at));
        lives
    }

    fn faults(history: &[Op], lives: &Lives) -> String {
        check(history, lives, &Ledger::default(), 20_000_000).join("\n")
    }

    #[test]
    fn a_lease_that_is_granted_renewed_and_gone_passes() {
        let history = [granted(), renewed(1_500_000, 2), renewed(4_000_000, 0)];
        assert_eq!(faults(&history, &lives(Some(1_500), Some(3_600_000))), "");
        assert!(lives(Some(1), None).alive().contains(&7) && lives(Some(1), Some(2)).alive().is_empty());
    }

    #[test]
    fn a_lease_that_is_lost_is_found() {
        assert!(faults(&[granted()], &lives(None, None)).contains("never granted"));
        let gone = [granted(), renewed(1_500_000, 0)];
        assert!(faults(&gone, &lives(Some(1_500), Some(3_600_000))).contains("said to be gone"));
        let refused = Outcome::Failed("etcdserver: requested lease not found".into());
        for call in [Call::Put { key: "k".into(), value: "v".into(), lease: 7 }, Call::Revoke { id: 7 }] {
            let history = [granted(), op(call, 1_500_000, refused.clone())];
            assert!(faults(&history, &lives(Some(1_500), Some(3_600_000))).contains("was not found"));
            assert_eq!(faults(&history, &lives(Some(1_500), Some(1_400_000))), "", "it had ended");
        }
    }

    #[test]
    fn a_revoke_that_did_nothing_or_left_keys_is_found() {
        let revoke = op(Call::Revoke { id: 7 }, 1_500_000, Outcome::Ok(Answer::Done { revision: 2 }));
        let history = [granted(), revoke];
        assert!(faults(&history, &lives(Some(1_500), Some(1_600_000))).contains("was none"));
        let mut ledger = Ledger::default();
        let kv = Kv { key: "x".into(), value: "x".into(), create: 2, modified: 2, version: 1, lease: 7 };
        ledger.publish(2, vec![Change::Put(kv)], 1).unwrap();
        let all = check(&history, &lives(Some(1_500), Some(1_500_500)), &ledger, 20_000_000).join("\n");
        assert!(all.contains("its keys are there"), "{all}");
    }

    #[test]
    fn a_lease_that_never_ends_is_found() {
        assert!(faults(&[granted()], &lives(Some(1_500), None)).contains("still lives"));
        let mut led = lives(Some(1_500), None);
        led.lead(15_000_000);
        assert_eq!(faults(&[granted()], &led), "", "it began anew");
        assert_eq!(faults(&[granted(), renewed(19_000_000, 2)], &lives(Some(1_500), None)), "");
    }
}
