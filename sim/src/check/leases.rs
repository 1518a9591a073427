//! Promise 5: a lease whose renewal was answered lives as long as the answer said; its keys go in one revision.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Answer, Call, Micros, Op, Outcome};
use crate::ledger::{Change, Ledger};

/// Clocks go apart by this much of the time, in thousandths; the members' own skew is below it.
const SKEW_PERMILLE: u64 = 20;
/// Deadlines are kept in milliseconds, and rounded.
const SLACK: Micros = 5_000;

/// When each lease that ran out was first ended by a member.
pub type Expiries = BTreeMap<i64, Micros>;

/// All that is wrong with the history's leases.
pub fn check(history: &[Op], expiries: &Expiries, ledger: &Ledger) -> Vec<String> {
    let mut faults = Vec::new();
    let mut granted = BTreeMap::new();
    for op in history {
        if let Call::Grant { id, ttl } = op.call {
            granted.insert(id, ttl);
        }
        let (Call::Grant { id, .. } | Call::KeepAlive { id }) = op.call else { continue };
        let (Outcome::Ok(Answer::Lease { ttl: 1.. }), Some(ended)) = (&op.outcome, expiries.get(&id)) else { continue };
        let ttl = granted.get(&id).copied().unwrap_or(0);
        let promised = u64::try_from(ttl).unwrap_or(0) * 1_000 * (1_000 - SKEW_PERMILLE);
        if *ended + SLACK < op.invoked + promised {
            let left = op.invoked + promised - ended;
            faults.push(format!("lease {id} of {ttl} s ended {left} µs early, at {ended}: {op:?}"));
        }
    }
    faults.extend(pieces(history, expiries, ledger));
    faults
}

/// Leases whose keys went in more than one revision without anybody asking for it.
fn pieces(history: &[Op], expiries: &Expiries, ledger: &Ledger) -> Vec<String> {
    let asked = |op: &&Op| matches!(op.call, Call::Delete { .. }) && !matches!(op.outcome, Outcome::Failed(_));
    let asked: Vec<&Op> = history.iter().filter(asked).collect();
    let mut ends: BTreeMap<i64, BTreeSet<i64>> = BTreeMap::new();
    for (revision, block) in ledger.from(0) {
        for change in &block.changes {
            let Change::Delete(key) = change else { continue };
            let lease = ledger.at(key, revision - 1).map_or(0, |kv| kv.lease);
            let by_client = asked.iter().any(|op| match (&op.call, &op.outcome) {
                (Call::Delete { prefix }, Outcome::Unknown(_)) => key.starts_with(prefix),
                (_, Outcome::Ok(Answer::Deleted { revision: at, .. })) => *at == revision,
                _ => false,
            });
            if expiries.contains_key(&lease) && !by_client {
                ends.entry(lease).or_default().insert(revision);
            }
        }
    }
    let torn = ends.into_iter().filter(|(_, revisions)| revisions.len() > 1);
    torn.map(|(lease, revisions)| format!("the keys of lease {lease} went in revisions {revisions:?}")).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::ledger::Kv;

    fn op(call: Call, invoked: Micros, ttl: i64) -> Op {
        let outcome = Outcome::Ok(Answer::Lease { ttl });
        Op { client: 0, member: 0, boot: 0, call, invoked, returned: invoked + 500, outcome }
    }

    fn history() -> Vec<Op> {
        vec![op(Call::Grant { id: 7, ttl: 2 }, 0, 2), op(Call::KeepAlive { id: 7 }, 1_500_000, 2)]
    }

    #[test]
    fn a_lease_that_lives_as_long_as_was_said_passes() {
        let late = Expiries::from([(7, 3_500_000)]);
        assert_eq!(check(&history(), &late, &Ledger::default()), Vec::<String>::new());
        let mut gone = history();
        gone.push(op(Call::KeepAlive { id: 7 }, 3_400_000, 0));
        assert_eq!(check(&gone, &late, &Ledger::default()), Vec::<String>::new());
    }

    #[test]
    fn a_lease_that_ends_early_is_found() {
        let early = Expiries::from([(7, 2_100_000)]);
        assert!(check(&history(), &early, &Ledger::default()).join("").contains("early"));
    }

    #[test]
    fn a_renewal_that_is_answered_after_the_end_is_found() {
        let mut history = history();
        history.push(op(Call::KeepAlive { id: 7 }, 3_600_000, 2));
        assert!(check(&history, &Expiries::from([(7, 3_550_000)]), &Ledger::default()).join("").contains("early"));
    }

    #[test]
    fn keys_that_go_one_by_one_are_found() {
        let kv = |key: &'static str, at| Kv {
            key: key.into(),
            value: key.into(),
            create: at,
            modified: at,
            version: 1,
            lease: 7,
        };
        let ledger = |together: bool| {
            let mut ledger = Ledger::default();
            ledger.publish(2, vec![Change::Put(kv("x", 2)), Change::Put(kv("y", 2))], 1).unwrap();
            let gone = |key: &'static str| Change::Delete(Bytes::from_static(key.as_bytes()));
            if together {
                ledger.publish(3, vec![gone("x"), gone("y")], 2).unwrap();
            } else {
                ledger.publish(3, vec![gone("x")], 2).unwrap();
                ledger.publish(4, vec![gone("y")], 3).unwrap();
            }
            ledger
        };
        let ended = Expiries::from([(7, 3_600_000)]);
        assert_eq!(check(&history(), &ended, &ledger(true)), Vec::<String>::new());
        assert!(check(&history(), &ended, &ledger(false)).join("").contains("went in revisions"));
    }
}
