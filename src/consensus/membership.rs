//! Who is in the cluster: changes, one at a time, on the leader.
//!
//! ```text
//! request_change ─► the leader, wherever it is
//! change_members ─► turn ─► View (Raft's metrics, contacts, removed) ─► plan ─► one membership entry ─► applied
//!                     └──────────── again: a change under way, a lease that expired ◄──────┘
//! ```
//! A change of votes is one entry that differs in one voter, as in etcd; there is no joint membership.

mod change;
mod contact;
mod hand_over;
mod plan;
mod removed;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::raft::Precondition;
use openraft::{EntryPayload, Instant as _};
use parking_lot::Mutex;
use tokio::time::Instant;

use self::contact::{Contact, Contacts};
use self::plan::{Role, Step, View};
use super::node::Node;
use super::status::NodeStatus;
use super::types::{Membership, TypeConfig};
use crate::types::{MemberId, RequestError, Term};

pub use change::{MemberChange, MemberRecord};
pub use plan::MemberRules;
pub use removed::RemovedMembers;
pub(super) use removed::{removed_between, removed_key};

/// Between two tries of a change that has to wait for another one.
const RETRY_AFTER: Duration = Duration::from_millis(10);
/// Between two tries to find a leader that takes a change.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// A transfer begins when its target lacks at most so many entries.
const TRANSFER_BEHIND_MAX: u64 = 1_000;

type Metrics = openraft::RaftMetrics<TypeConfig>;

/// What changes of the membership need besides Raft.
#[derive(Debug)]
pub(super) struct Desk {
    rules: MemberRules,
    turn: tokio::sync::Mutex<()>,
    contacts: Mutex<Contacts>,
}

impl Desk {
    /// Nobody is in touch yet; `gap` is how long a member may be silent and still count as in touch.
    pub(super) fn new(rules: MemberRules, gap: Duration) -> Self {
        Self { rules, turn: tokio::sync::Mutex::default(), contacts: Mutex::new(Contacts::new(gap)) }
    }

    /// Takes in what Raft knows now of who answers whom.
    pub(super) fn observe(&self, metrics: &Metrics) {
        let now = Instant::now();
        let answered = metrics.heartbeat.as_ref().filter(|_| metrics.current_leader == Some(metrics.id));
        let answered = answered.map(|heartbeat| {
            let others = heartbeat.iter().filter(|(id, _)| **id != metrics.id);
            others.map(|(id, at)| (*id, at.and_then(|at| now.checked_sub(at.elapsed())))).collect::<BTreeMap<_, _>>()
        });
        self.contacts.lock().observe(now, metrics.current_leader.is_some(), answered.as_ref());
    }

    /// Runs `work` over what is known now.
    fn view<T>(&self, status: &NodeStatus, metrics: &Metrics, work: impl FnOnce(&View<'_>) -> T) -> T {
        let now = Instant::now();
        let contacts = self.contacts.lock();
        let contact = |id: u64| -> Contact { contacts.of(id, now) };
        let entries = |index: u64| index + 1;
        let others = metrics.replication.iter().flatten();
        let mut matched: BTreeMap<u64, u64> =
            others.filter_map(|(id, last)| Some((*id, entries(last.as_ref()?.index)))).collect();
        matched.insert(metrics.id, metrics.last_log_index.map_or(0, entries));
        work(&View {
            me: metrics.id,
            membership: metrics.membership_config.membership(),
            removed: status.removed(),
            matched,
            contact: &contact,
            rules: self.rules,
        })
    }
}

/// The members as clients see them, by id.
pub(super) fn records(membership: &Membership) -> Vec<MemberRecord> {
    let record = |(id, node): (&u64, &super::types::PeerNode)| MemberRecord {
        id: MemberId(*id),
        name: node.name.clone(),
        peer_urls: node.peer_urls.clone(),
        client_urls: node.client_urls.clone(),
        is_learner: plan::role(membership, *id) == Some(Role::Learner),
    };
    membership.nodes().map(record).collect()
}

/// Whether `id` is a member that has no vote and waits for none.
pub(super) fn is_learner(membership: &Membership, id: u64) -> bool {
    plan::role(membership, id) == Some(Role::Learner)
}

impl Node {
    /// Has the leader change the membership, whoever it is, and returns the members after it, by id.
    ///
    /// # Errors
    /// As [`Node::change_members`]; `UnhealthyCluster` at once for an addition while nobody leads,
    /// others that found no leader in time end with `NoLeader` if they promote, and with `DeadlineExceeded`.
    pub async fn request_change(&self, change: MemberChange) -> Result<Vec<MemberRecord>, RequestError> {
        let deadline = Instant::now() + self.desk().rules.timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let result = match self.status().leader() {
                Some(leader) if leader == self.status().member() => self.change_members(change.clone()).await,
                Some(leader) => self.peers().change_members(leader, &change, left).await,
                None if self.desk().rules.strict && matches!(change, MemberChange::Add { .. }) => {
                    return Err(RequestError::UnhealthyCluster);
                }
                None => Err(RequestError::NoLeader),
            };
            match result {
                // It surely wasn't done; the next leader is asked.
                Err(RequestError::NotLeader | RequestError::NoLeader) if !self.status().is_stopped() => {}
                result => return result,
            }
            if Instant::now() + ASK_AGAIN_AFTER >= deadline {
                return Err(match change {
                    MemberChange::Promote { .. } => RequestError::NoLeader,
                    _ => RequestError::DeadlineExceeded,
                });
            }
            tokio::time::sleep(ASK_AGAIN_AFTER).await;
        }
    }

    /// Changes the membership and returns the members after it, by id. Only the leader can.
    ///
    /// # Errors
    /// etcd's refusals; `NotLeader` or `NoLeader` if this member doesn't lead; `Timeout` if the change
    /// was not done in time: it may still come.
    pub async fn change_members(&self, change: MemberChange) -> Result<Vec<MemberRecord>, RequestError> {
        let work = self.in_turn(|view| plan::plan(&change, view));
        tokio::time::timeout(self.desk().rules.timeout, work).await.unwrap_or(Err(RequestError::Timeout))
    }

    /// Gives the next member that is due its vote; `false` if none is.
    pub(super) async fn promote_due(&self, behind_max: u64) -> Result<bool, RequestError> {
        let metrics = self.raft().metrics().borrow_watched().clone();
        self.desk().observe(&metrics);
        let due = |view: &View<'_>| view.due(behind_max);
        if metrics.current_leader != Some(metrics.id) {
            return Ok(false);
        }
        let Some(id) = self.desk().view(self.status(), &metrics, due) else { return Ok(false) };
        let give =
            |view: &View<'_>| if view.due(behind_max) == Some(id) { view.give_vote(id) } else { Ok(Step::Nothing) };
        let work = self.in_turn(give);
        tokio::time::timeout(self.desk().rules.timeout, work).await.unwrap_or(Err(RequestError::Timeout))?;
        tracing::info!(member = %MemberId(id), "a member is in step and votes from now on");
        Ok(true)
    }

    /// Makes one step that `plan` decides on, alone, as often as it has to be decided anew.
    async fn in_turn(
        &self,
        plan: impl Fn(&View<'_>) -> Result<Step, RequestError>,
    ) -> Result<Vec<MemberRecord>, RequestError> {
        let _turn = self.desk().turn.lock().await;
        loop {
            let metrics = self.raft().metrics().borrow_watched().clone();
            self.leads(&metrics)?;
            if plan::role(metrics.membership_config.membership(), metrics.id).is_none() {
                // It has removed itself and leads until others know that; what comes next is the next leader's.
                return Err(RequestError::NoLeader);
            }
            self.desk().observe(&metrics);
            let seen = metrics.membership_config.log_id();
            if seen == metrics.committed_membership_config.log_id() {
                let step = match self.desk().view(self.status(), &metrics, &plan) {
                    Ok(step) => step,
                    Err(refusal) => return Err(self.confirmed(refusal).await),
                };
                if let Some(members) = self.take(step, &metrics).await? {
                    return Ok(members);
                }
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    /// A refusal that goes by who the members are holds only if this member still leads.
    async fn confirmed(&self, refusal: RequestError) -> RequestError {
        match refusal {
            RequestError::UnhealthyCluster | RequestError::NotEnoughStartedMembers => refusal,
            _ => self.confirm_read(self.desk().rules.timeout).await.err().unwrap_or(refusal),
        }
    }

    fn leads(&self, metrics: &Metrics) -> Result<(), RequestError> {
        match metrics.current_leader {
            Some(leader) if leader == metrics.id => Ok(()),
            Some(_) => Err(RequestError::NotLeader),
            None => Err(RequestError::NoLeader),
        }
    }

    /// Gets a step through the log; `None` if it has to be decided anew.
    async fn take(&self, step: Step, metrics: &Metrics) -> Result<Option<Vec<MemberRecord>>, RequestError> {
        let last_membership_log_id = *metrics.membership_config.log_id();
        let unchanged = [Precondition::LastMembershipLogId { last_membership_log_id }];
        let result = match step {
            Step::Nothing => return Ok(Some(records(metrics.membership_config.membership()))),
            Step::Append(membership) => self.raft().append_membership(membership, EntryPayload::Blank, unchanged).await,
            Step::Describe(id, node) => {
                let described = openraft::ChangeMembers::SetNodes(BTreeMap::from([(id, node)]));
                self.raft().change_membership_if(described, true, unchanged).await
            }
        };
        match result {
            Ok(done) => Ok(Some(done.membership.as_ref().map(records).unwrap_or_default())),
            Err(RaftError::Fatal(_)) => Err(RequestError::Stopped),
            Err(RaftError::APIError(error)) => match error {
                // Not written: another change is under way, the lease has expired, or something came between.
                ClientWriteError::ForwardToLeader(_) | ClientWriteError::PreconditionFailed(_) => Ok(None),
                ClientWriteError::ChangeMembershipError(
                    ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
                ) => Ok(None),
                ClientWriteError::ChangeMembershipError(error) => {
                    tracing::error!(%error, "Raft refuses a change of the membership");
                    Err(RequestError::UnhealthyCluster)
                }
                // It may have been committed by the next leader.
                ClientWriteError::LogEntryDiscarded(_) => Err(RequestError::Timeout),
            },
        }
    }

    /// Hands leadership to another voter and returns when it leads.
    ///
    /// # Errors
    /// `NotLeader`; `BadLeaderTransferee` if `to` is no voter; `LeaderTransferTimeout` if it didn't take over in
    /// time, as one that is down.
    pub async fn transfer_leader(&self, to: MemberId) -> Result<(), RequestError> {
        let mut metrics = self.raft().metrics();
        let now = metrics.borrow_watched().clone();
        if self.leads(&now).is_err() {
            return Err(RequestError::NotLeader);
        }
        if plan::role(now.membership_config.membership(), to.get()) != Some(Role::Voter) {
            return Err(RequestError::BadLeaderTransferee);
        }
        if to.get() == now.id {
            return Ok(());
        }
        let transfer = async {
            self.until_ready_to_lead(to.get()).await;
            // Whoever is asked to take over is elected although the others have granted this leader their time.
            self.lease().void(Term(now.current_term));
            self.raft().trigger().transfer_leader(to.get()).await.map_err(|_| RequestError::Stopped)?;
            loop {
                let leader = metrics.borrow_watched().current_leader;
                match leader {
                    Some(leader) if leader == to.get() => return Ok(()),
                    // The vote went another way.
                    Some(leader) if leader != now.id => return Err(RequestError::LeaderTransferTimeout),
                    _ => metrics.changed().await.map_err(|_| RequestError::Stopped)?,
                }
            }
        };
        let timeout = self.desk().rules.timeout;
        tokio::time::timeout(timeout, transfer).await.unwrap_or(Err(RequestError::LeaderTransferTimeout))
    }

    /// Waits until `id` is in touch and nearly in step: a leader that has begun to hand over takes no
    /// writes any more.
    async fn until_ready_to_lead(&self, id: u64) {
        while !self.is_ready_to_lead(id) {
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    fn is_ready_to_lead(&self, id: u64) -> bool {
        let metrics = self.raft().metrics().borrow_watched().clone();
        self.desk().observe(&metrics);
        let is_ready =
            |view: &View<'_>| (view.contact)(id) != Contact::Lost && view.is_in_step(id, TRANSFER_BEHIND_MAX);
        self.desk().view(self.status(), &metrics, is_ready)
    }

    /// Whether the voters that are in touch with this leader, itself among them, are a quorum without `member`, which
    /// wants to be away for a while; false if this member doesn't lead.
    pub fn is_quorum_without(&self, member: MemberId) -> bool {
        let metrics = self.raft().metrics().borrow_watched().clone();
        self.desk().observe(&metrics);
        metrics.current_leader == Some(metrics.id)
            && self.desk().view(self.status(), &metrics, |view| view.is_quorum_without(member.get()))
    }

    /// Whether this leader has applied an entry of its own term, and so all that was committed before it led.
    pub fn has_applied_own(&self) -> bool {
        let metrics = self.raft().metrics().borrow_watched().clone();
        metrics.current_leader == Some(metrics.id)
            && metrics.last_applied.is_some_and(|applied| applied.leader_id.term == metrics.current_term)
    }

    /// Whether the member is in touch with this leader.
    pub fn is_in_touch(&self, member: MemberId) -> bool {
        let metrics = self.raft().metrics().borrow_watched().clone();
        self.desk().observe(&metrics);
        self.desk().view(self.status(), &metrics, |view| (view.contact)(member.get()) != Contact::Lost)
    }

    /// The other voters that could take over at once, as far as this leader knows.
    pub fn could_lead(&self) -> Vec<MemberId> {
        let metrics = self.raft().metrics().borrow_watched().clone();
        let voters = metrics.membership_config.membership().voter_ids();
        voters.filter(|id| *id != metrics.id && self.is_ready_to_lead(*id)).map(MemberId).collect()
    }
}
