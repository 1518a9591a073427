//! What other members ask of this one and Raft doesn't know: its leases, that its state differs, whose turn it is to heal.
//!
//! ```text
//! leader: you differ ─► of the state that is held now? ─► not served, and noted (`marks`) ─► answered ─► the alarm
//! member: may I start again to be healed? ─► its turn (`turns`)
//! ```

use std::sync::Arc;

use super::marks::Marks;
use super::turns::Turns;
use crate::consensus::Finding;
use crate::consensus::peer::{Asking, LeaseLeft, Questions};
use crate::propose::Leases;
use crate::types::{LeaseId, MemberId};

/// Answers them.
pub(super) struct Answers {
    pub(super) leases: Leases,
    pub(super) marks: Arc<Marks>,
    pub(super) turns: Arc<Turns>,
}

impl Questions for Answers {
    fn lease(&self, id: LeaseId, renew: bool) -> Asking<LeaseLeft> {
        self.leases.asked(id, renew)
    }

    fn diverged(&self, finding: Finding) -> Asking<bool> {
        let marks = self.marks.clone();
        Box::pin(async move { marks.found(&finding) })
    }

    fn turn(&self, member: MemberId, takes: bool) -> Asking<bool> {
        let turns = self.turns.clone();
        Box::pin(async move { turns.ask(member, takes) })
    }
}
