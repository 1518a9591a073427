//! The proposer and the node as the API sees them.

use super::room::Room;
use crate::api::{MemberInfo, Propose, Standing, Waiting};
use crate::apply::{Command, Outcome, cost};
use crate::consensus::MemberChange;
use crate::propose::{Leases, Proposer};
use crate::types::{LeaseId, MemberId, RequestError, Term};

/// [`Propose`] over this member's own proposer.
pub(super) struct Door {
    proposer: Proposer,
    leases: Leases,
    room: Room,
}

impl Door {
    pub(super) fn new(proposer: Proposer, leases: Leases, room: Room) -> Self {
        Self { proposer, leases, room }
    }

    /// Whether the disk has too little room left for a command that makes the state larger. What
    /// frees space still goes through, a txn without a put as well: there is a reserve for it.
    fn is_disk_short(&self, command: &Command) -> bool {
        self.room.is_short() && cost::of(command) > 0
    }
}

impl Propose for Door {
    fn propose(&self, command: Command) -> Waiting<Result<Outcome, RequestError>> {
        if self.is_disk_short(&command) {
            return Box::pin(std::future::ready(Err(RequestError::NoSpace)));
        }
        let proposer = self.proposer.clone();
        Box::pin(async move { Ok(proposer.propose(command).await?.outcome) })
    }

    fn read_barrier(&self) -> Option<Waiting<Result<(), RequestError>>> {
        if self.proposer.node().status().is_sole_leader() {
            return None;
        }
        let proposer = self.proposer.clone();
        Some(Box::pin(async move { proposer.read_barrier().await }))
    }

    fn confirm_lead(&self, term: Term) -> Option<Waiting<Result<(), RequestError>>> {
        if self.proposer.node().status().is_sole_leader() {
            return None;
        }
        let proposer = self.proposer.clone();
        Some(Box::pin(async move { proposer.confirm_lead(term).await }))
    }

    fn renew_lease(&self, id: LeaseId) -> Waiting<Result<i64, RequestError>> {
        let leases = self.leases.clone();
        Box::pin(async move { leases.renew(id).await })
    }

    fn lease_left(&self, id: LeaseId) -> Waiting<Result<Option<(i64, i64)>, RequestError>> {
        let leases = self.leases.clone();
        Box::pin(async move {
            let left = leases.left(id).await?;
            Ok((left.granted_secs >= 0).then_some((left.granted_secs, left.remaining_secs)))
        })
    }

    fn standing(&self) -> Standing {
        let status = self.proposer.node().status();
        Standing {
            leader: status.leader(),
            term: status.term(),
            committed: status.committed(),
            applied: status.applied(),
            is_learner: status.is_learner(),
            is_diverged: status.diverged().is_some(),
        }
    }

    fn move_leader(&self, to: MemberId) -> Waiting<Result<(), RequestError>> {
        let node = self.proposer.node().clone();
        Box::pin(async move { node.transfer_leader(to).await })
    }

    fn members(&self) -> Vec<MemberInfo> {
        self.proposer.node().members()
    }

    fn change_members(&self, change: MemberChange) -> Waiting<Result<Vec<MemberInfo>, RequestError>> {
        let node = self.proposer.node().clone();
        Box::pin(async move { node.request_change(change).await })
    }
}
