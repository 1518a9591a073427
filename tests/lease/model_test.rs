//! Random grants, renewals, hand-outs, elections and time against a list of leases with deadlines.
//!
//! What must hold: no lease is handed out before its promised end, each one is handed out soon
//! after it, a renewal succeeds exactly while the lease lives and no revoke is under way, and a
//! promotion starts from the checkpoint or the full time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use rusd::env::{Clock, SystemClock};
use rusd::lease::{EXPIRE_RETRY, LeaseWriter, Lessor, Renewal};
use rusd::types::LeaseId;

const EXTEND_MS: u64 = 1000;
/// Deadlines are rounded up by up to this.
const ROUNDING_MS: u64 = 2;

#[derive(Clone, Debug)]
enum Step {
    Grant(i64, i64),
    Remove(i64),
    Renew(i64),
    Revoke(i64),
    Release(i64),
    Checkpoint(i64, i64),
    Expire(usize),
    Advance(u64),
    Promote,
    Demote,
}

#[derive(Clone, Debug)]
struct PlainLease {
    ttl_secs: i64,
    checkpoint_secs: i64,
    /// When it ends, without roundings; `None` while nobody leads.
    deadline_ms: Option<u64>,
    /// Handed out then, and not before the retry again.
    taken_ms: Option<u64>,
    revoking_until_ms: u64,
}

#[derive(Clone, Debug, Default)]
struct Plain {
    now_ms: u64,
    leading: bool,
    leases: BTreeMap<i64, PlainLease>,
}

impl Plain {
    fn step(&mut self, step: &Step) {
        let now = self.now_ms;
        match *step {
            Step::Grant(id, ttl_secs) => {
                let deadline_ms = self.leading.then(|| now + ttl_secs as u64 * 1000);
                self.leases.entry(id).or_insert(PlainLease {
                    ttl_secs,
                    checkpoint_secs: 0,
                    deadline_ms,
                    taken_ms: None,
                    revoking_until_ms: 0,
                });
            }
            Step::Remove(id) => {
                self.leases.remove(&id);
            }
            Step::Renew(id) => {
                if self.renewable(id) == Some(true) {
                    self.extend(id);
                }
            }
            Step::Revoke(id) => {
                if let Some(lease) = self.leases.get_mut(&id) {
                    lease.revoking_until_ms = now + EXPIRE_RETRY.as_millis() as u64;
                }
            }
            Step::Release(id) => {
                if let Some(lease) = self.leases.get_mut(&id) {
                    lease.revoking_until_ms = 0;
                    lease.taken_ms = None;
                }
            }
            Step::Checkpoint(id, secs) => {
                if let Some(lease) = self.leases.get_mut(&id) {
                    lease.checkpoint_secs = if secs > 0 && secs < lease.ttl_secs { secs } else { 0 };
                }
            }
            Step::Expire(_) => {}
            Step::Advance(ms) => self.now_ms += ms,
            Step::Promote => {
                self.leading = true;
                for lease in self.leases.values_mut() {
                    let secs = if lease.checkpoint_secs > 0 { lease.checkpoint_secs } else { lease.ttl_secs };
                    lease.deadline_ms = Some(now + secs as u64 * 1000 + EXTEND_MS);
                    // A revoke that has begun goes on: it may be in the log, or on its way there.
                    lease.taken_ms = None;
                }
            }
            Step::Demote => {
                self.leading = false;
                for lease in self.leases.values_mut() {
                    lease.deadline_ms = None;
                    lease.taken_ms = None;
                    lease.revoking_until_ms = 0;
                }
            }
        }
    }

    /// The whole time from now on, unless more is left.
    fn extend(&mut self, id: i64) {
        let lease = self.leases.get_mut(&id).expect("only what lives is renewed");
        lease.deadline_ms = lease.deadline_ms.max(Some(self.now_ms + lease.ttl_secs as u64 * 1000));
    }

    /// Whether a lease can be renewed now; `None` if that hangs on roundings.
    fn renewable(&self, id: i64) -> Option<bool> {
        let Some(lease) = self.leases.get(&id) else { return Some(false) };
        let Some(deadline) = lease.deadline_ms else { return Some(false) };
        if self.now_ms < lease.revoking_until_ms || deadline + ROUNDING_MS <= self.now_ms {
            return Some(false);
        }
        if self.now_ms < deadline { Some(true) } else { None }
    }
}

impl ReferenceStateMachine for Plain {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(state: &Self) -> BoxedStrategy<Step> {
        let id = 1..5i64;
        let ends = state.leases.values().filter_map(|lease| lease.deadline_ms);
        let to_end = ends.filter_map(|end| end.checked_sub(state.now_ms)).map(|left| left + 5);
        let to_end: Vec<_> = to_end.chain([5]).collect();
        prop_oneof![
            4 => (id.clone(), 2..20i64).prop_map(|(id, ttl)| Step::Grant(id, ttl)),
            3 => id.clone().prop_map(Step::Remove),
            10 => id.clone().prop_map(Step::Renew),
            1 => id.clone().prop_map(Step::Revoke),
            1 => id.clone().prop_map(Step::Release),
            1 => (id, -1..25i64).prop_map(|(id, secs)| Step::Checkpoint(id, secs)),
            12 => (0..8usize).prop_map(Step::Expire),
            // Never onto the edge of a deadline, where roundings would decide.
            8 => (0..300u64).prop_map(|tens| Step::Advance(tens * 10 + 5)),
            // Just past one, where what is late is seen.
            6 => proptest::sample::select(to_end).prop_map(Step::Advance),
            2 => Just(Step::Promote),
            1 => Just(Step::Demote),
        ]
        .boxed()
    }

    fn apply(mut state: Self, step: &Step) -> Self {
        state.step(step);
        state
    }
}

struct Real {
    writer: LeaseWriter,
    lessor: Arc<Lessor>,
    start: Instant,
    plain: Plain,
}

impl Real {
    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.plain.now_ms)
    }

    fn renew(&mut self, id: i64) {
        let found = self.lessor.renew(LeaseId(id), self.now());
        let lease = self.plain.leases.get(&id);
        match (self.plain.leading, lease) {
            (false, _) => assert_eq!(found, Renewal::NotLeading),
            (true, None) => assert_eq!(found, Renewal::Unknown),
            (true, Some(lease)) => {
                let renewed =
                    Renewal::Renewed { ttl_secs: lease.ttl_secs, reset_checkpoint: lease.checkpoint_secs > 0 };
                match self.plain.renewable(id) {
                    Some(true) => assert_eq!(found, renewed),
                    Some(false) => assert_eq!(found, Renewal::Ending),
                    // On the edge either is right, and the list goes on with what was answered.
                    None if found == renewed => self.plain.extend(id),
                    None => assert_eq!(found, Renewal::Ending),
                }
            }
        }
    }

    fn expire(&mut self, max: usize) {
        let found = self.lessor.expired(self.now(), max);
        assert!(found.len() <= max);
        let now = self.plain.now_ms;
        let retry = EXPIRE_RETRY.as_millis() as u64;
        for id in &found {
            let lease = self.plain.leases.get_mut(&id.get()).expect("only living leases");
            assert!(lease.deadline_ms.is_some_and(|end| end <= now), "{id} too early");
            assert!(lease.taken_ms.is_none_or(|taken| taken + retry <= now), "{id} twice");
            lease.taken_ms = Some(now);
        }
        if found.len() < max {
            for (id, lease) in &self.plain.leases {
                let over = lease.deadline_ms.is_some_and(|end| end + ROUNDING_MS <= now);
                let due = lease.taken_ms.is_none_or(|taken| taken + retry <= now);
                assert!(!over || !due, "{id} forgotten");
            }
        }
    }
}

impl StateMachineTest for Real {
    type SystemUnderTest = Self;
    type Reference = Plain;

    fn init_test(_: &Plain) -> Self {
        let start = SystemClock.now();
        let (writer, lessor) = Lessor::new(start);
        Self { writer, lessor, start, plain: Plain::default() }
    }

    fn apply(mut state: Self, _: &Plain, step: Step) -> Self {
        let now = state.now();
        match step {
            Step::Grant(id, ttl) => {
                let granted = state.writer.grant(LeaseId(id), ttl);
                assert_eq!(granted, !state.plain.leases.contains_key(&id));
                state.lessor.arm(now);
            }
            Step::Remove(id) => {
                assert_eq!(state.writer.remove(LeaseId(id)), state.plain.leases.contains_key(&id));
            }
            Step::Renew(id) => state.renew(id),
            Step::Revoke(id) => state.lessor.begin_revoke(LeaseId(id), now),
            Step::Release(id) => state.lessor.release(&[LeaseId(id)], now),
            Step::Checkpoint(id, secs) => {
                state.writer.checkpoint(LeaseId(id), secs);
            }
            Step::Expire(max) => state.expire(max),
            Step::Advance(_) => {}
            Step::Promote => state.lessor.promote(now, Duration::from_millis(EXTEND_MS)),
            Step::Demote => state.lessor.demote(),
        }
        state.plain.step(&step);
        state
    }

    fn check_invariants(state: &Self, _: &Plain) {
        let now = state.now();
        assert_eq!(state.lessor.len(), state.plain.leases.len());
        for (id, lease) in &state.plain.leases {
            let status = state.lessor.remaining(LeaseId(*id), now).expect("it lives");
            assert_eq!(status.granted_secs, lease.ttl_secs);
            if let Some(end) = lease.deadline_ms {
                let left = end.saturating_sub(state.plain.now_ms);
                let range = left.saturating_sub(ROUNDING_MS) / 1000..=(left + ROUNDING_MS) / 1000;
                assert!(range.contains(&(status.remaining_secs as u64)), "{status:?} but {left} ms");
            }
        }
        let ids: Vec<_> = state.lessor.ids().into_iter().map(LeaseId::get).collect();
        let ends: Vec<_> = ids.iter().map(|id| state.plain.leases[id].deadline_ms).collect();
        assert!(ends.is_sorted(), "{ids:?}");
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]
    #[test]
    fn the_lessor_does_what_the_list_does(sequential 1..150 => Real);
}
