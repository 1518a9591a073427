//! What the rest of the server may know of Raft without asking it: a handful of atomics.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::divergence::Landmarks;
use super::lineage::Lineage;
use super::membership::RemovedMembers;
use super::tenure::Tenure;
use super::types::Membership;
use crate::types::{MemberId, RaftIndex, RequestError, Term};

/// How a member's disk does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskState {
    /// How long a sync of the log takes; `None` if that isn't known, as nothing is written.
    pub pace: Option<Duration>,
    /// Whether too little room is left for what makes the state larger.
    pub is_full: bool,
}

/// This member's place in the cluster, as last seen. Read by every request, written by Raft's watchers.
#[derive(Debug)]
pub struct NodeStatus {
    member: MemberId,
    leader: AtomicU64,
    /// The same with its term.
    lead: Mutex<Option<(MemberId, Term)>>,
    term: AtomicU64,
    committed: AtomicU64,
    /// Up to where the leader says so.
    heard_commit: AtomicU64,
    applied: AtomicU64,
    sole_leader: AtomicBool,
    learner: AtomicBool,
    stopped: AtomicBool,
    installing: AtomicBool,
    leader_changes: AtomicU64,
    tenure: Tenure,
    /// The leader as above, for those who wait for one.
    leader_seen: watch::Sender<Option<MemberId>>,
    /// The last entry applied and published, for those who wait for one.
    applied_seen: watch::Sender<RaftIndex>,
    /// The last sync of the log: up to which entry, and when it ended.
    logged_at: Mutex<Option<(RaftIndex, std::time::Instant)>>,
    /// How far this member's log is durable; `None` once it has failed.
    logged: watch::Sender<Option<RaftIndex>>,
    begun: Instant,
    /// Whom entries or heartbeats came from last, and when, in milliseconds since `begun`.
    heard: AtomicU64,
    heard_from: AtomicU64,
    removed: RemovedMembers,
    /// Who is a member, as of the last entry that is published.
    membership: Mutex<Arc<Membership>>,
    landmarks: Landmarks,
    lineage: Mutex<Lineage>,
    diverged: AtomicU64,
    /// A state is on its way that is to take this one's place.
    awaits_state: AtomicBool,
    disk: Mutex<DiskState>,
    /// Called once this member is found to differ.
    when_diverged: Called,
    /// The term of the last vote that is durable.
    voted: AtomicU64,
    /// Of whom the keys that differ are searched; it isn't healed before they are named.
    naming: AtomicU64,
}

/// Entries behind the leader's commit from which a member is not one that is a little slow, but catches up.
const FAR_BEHIND: u64 = 1_000;

/// What is called at an event.
#[derive(Default)]
struct Called(OnceLock<Box<dyn Fn() + Send + Sync>>);

impl fmt::Debug for Called {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Called")
    }
}

impl NodeStatus {
    /// The status of a member that has seen nothing yet.
    pub fn new(member: MemberId) -> Self {
        Self {
            member,
            leader: AtomicU64::new(0),
            lead: Mutex::default(),
            term: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            heard_commit: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            sole_leader: AtomicBool::new(false),
            learner: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            installing: AtomicBool::new(false),
            leader_changes: AtomicU64::new(0),
            tenure: Tenure::default(),
            leader_seen: watch::Sender::new(None),
            applied_seen: watch::Sender::new(RaftIndex(0)),
            logged_at: Mutex::default(),
            // Without a log there is nothing to wait for.
            logged: watch::Sender::new(Some(RaftIndex(u64::MAX))),
            begun: Instant::now(),
            heard: AtomicU64::new(0),
            heard_from: AtomicU64::new(0),
            removed: RemovedMembers::default(),
            membership: Mutex::default(),
            landmarks: Landmarks::default(),
            lineage: Mutex::default(),
            diverged: AtomicU64::new(0),
            awaits_state: AtomicBool::new(false),
            disk: Mutex::default(),
            when_diverged: Called::default(),
            voted: AtomicU64::new(0),
            naming: AtomicU64::new(0),
        }
    }

    /// This member.
    pub fn member(&self) -> MemberId {
        self.member
    }

    /// The leader, if one is known.
    pub fn leader(&self) -> Option<MemberId> {
        match self.leader.load(Ordering::Acquire) {
            0 => None,
            id => Some(MemberId(id)),
        }
    }

    /// The leader with the term in which it leads, if one is known.
    pub fn lead(&self) -> Option<(MemberId, Term)> {
        *self.lead.lock()
    }

    /// Whether this member leads.
    pub fn is_leader(&self) -> bool {
        self.leader() == Some(self.member)
    }

    /// Whether this member leads and its state isn't known to differ: what a leader does of itself, by its own state, it
    /// does only then.
    pub fn leads_rightly(&self) -> bool {
        self.is_leader() && self.diverged().is_none()
    }

    /// Whether this member leads and is the only voter, so that nobody else can commit anything.
    pub fn is_sole_leader(&self) -> bool {
        self.sole_leader.load(Ordering::Acquire)
    }

    /// Whether this member has no vote.
    pub fn is_learner(&self) -> bool {
        self.learner.load(Ordering::Relaxed)
    }

    /// Whether Raft has ended.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Whether another member's snapshot is taking the state's place.
    pub fn is_installing(&self) -> bool {
        self.installing.load(Ordering::Relaxed)
    }

    pub(super) fn set_installing(&self, installing: bool) {
        self.installing.store(installing, Ordering::Relaxed);
    }

    /// The current term.
    pub fn term(&self) -> Term {
        Term(self.term.load(Ordering::Acquire))
    }

    /// The last entry known to be committed.
    pub fn committed(&self) -> RaftIndex {
        RaftIndex(self.committed.load(Ordering::Acquire))
    }

    /// The last entry applied and published.
    pub fn applied(&self) -> RaftIndex {
        RaftIndex(self.applied.load(Ordering::Acquire))
    }

    /// How often the leader changed since the start.
    pub fn leader_changes(&self) -> u64 {
        self.leader_changes.load(Ordering::Relaxed)
    }

    /// Sees the leader come and go.
    pub fn leaders(&self) -> watch::Receiver<Option<MemberId>> {
        self.leader_seen.subscribe()
    }

    /// Waits until this member is no longer the leader, as far as is known here: what it was asked is then no
    /// longer waited for.
    pub async fn leader_is_not(&self, leader: MemberId) {
        // The sender lives as long as `self`.
        let _ = self.leader_seen.subscribe().wait_for(|seen| *seen != Some(leader)).await;
    }

    /// Waits until the entry is applied and published here.
    pub async fn wait_applied(&self, index: RaftIndex) {
        if self.applied() < index {
            // The sender lives as long as `self`.
            let _ = self.applied_seen.subscribe().wait_for(|applied| *applied >= index).await;
        }
    }

    /// Who was removed from the cluster; this member among them has to end.
    pub fn removed(&self) -> &RemovedMembers {
        &self.removed
    }

    /// The membership as of [`NodeStatus::applied`] or a later entry; nobody before the first one.
    pub(super) fn membership(&self) -> Arc<Membership> {
        self.membership.lock().clone()
    }

    pub(super) fn set_membership(&self, published: &Membership) {
        *self.membership.lock() = Arc::new(published.clone());
    }

    /// The digests of this member's state.
    pub fn landmarks(&self) -> &Landmarks {
        &self.landmarks
    }

    /// Where this member's state comes from. Whoever wants to know of which digests has to look at those before.
    pub fn lineage(&self) -> Lineage {
        self.lineage.lock().clone()
    }

    pub(super) fn set_lineage(&self, lineage: Lineage) {
        *self.lineage.lock() = lineage;
    }

    /// As if the state were this member's own since the entry.
    #[cfg(test)]
    pub(crate) fn of_a_state_since(&self, index: RaftIndex) {
        self.set_lineage(Lineage::default().copied(self.member, 1, index));
    }

    /// Has `end` called as soon as this member is found to differ: what it serves must end then. The first one counts.
    pub fn when_diverged(&self, end: impl Fn() + Send + Sync + 'static) {
        let _ = self.when_diverged.0.set(Box::new(end));
    }

    /// The entry after which this member's state was found to differ from the others'. It must not serve then.
    pub fn diverged(&self) -> Option<RaftIndex> {
        match self.diverged.load(Ordering::Acquire) {
            0 => None,
            index => Some(RaftIndex(index)),
        }
    }

    /// Notes that it does; the first entry counts.
    pub fn set_diverged(&self, index: RaftIndex) {
        let first = self.diverged.compare_exchange(0, index.get(), Ordering::AcqRel, Ordering::Acquire);
        if first.is_ok() {
            tracing::error!(
                %index,
                "this member's state differs from the others' and is not served any more"
            );
            if let Some(end) = self.when_diverged.0.get() {
                end();
            }
        }
    }

    /// Notes that it is what the others hold again.
    pub fn clear_diverged(&self) {
        self.diverged.store(0, Ordering::Release);
    }

    /// Notes whether a state is on its way that is to take this one's place.
    pub fn set_awaits_state(&self, awaits: bool) {
        self.awaits_state.store(awaits, Ordering::Relaxed);
    }

    /// Whether a state is on its way in place of this one, which differs: until it is there, the log has to reach back as
    /// far as now.
    pub fn awaits_state(&self) -> bool {
        self.diverged().is_some() && self.awaits_state.load(Ordering::Relaxed)
    }

    /// Notes how this member's disk does now.
    pub fn set_disk(&self, disk: DiskState) {
        *self.disk.lock() = disk;
    }

    /// How this member's disk does.
    pub fn disk(&self) -> DiskState {
        *self.disk.lock()
    }

    /// Notes of which member the differing keys are searched, if of any.
    pub fn set_naming(&self, member: Option<MemberId>) {
        self.naming.store(member.map_or(0, MemberId::get), Ordering::Relaxed);
    }

    /// Whether it is this one.
    pub(super) fn is_naming(&self, member: MemberId) -> bool {
        self.naming.load(Ordering::Relaxed) == member.get()
    }

    /// Why a command that was proposed then wasn't done in time, by etcd's rules.
    pub(super) fn blame(&self, begun: Instant, election_timeout: Duration) -> RequestError {
        self.tenure.blame(begun, election_timeout)
    }

    /// Whether the member once belonged to the cluster and was removed.
    pub fn is_removed(&self, member: MemberId) -> bool {
        self.removed.contains(member)
    }

    /// Notes up to where the leader says that entries are committed.
    pub(super) fn heard_commit(&self, index: RaftIndex) {
        self.heard_commit.fetch_max(index.get(), Ordering::Relaxed);
    }

    /// Whether a leader has spoken to this member since it started, which then belonged to the cluster.
    pub fn has_heard_leader(&self) -> bool {
        self.heard_commit.load(Ordering::Relaxed) > 0
    }

    /// Whether so much is committed after this entry that what is applied now is read by nobody soon.
    pub(super) fn is_far_behind(&self, index: RaftIndex) -> bool {
        self.heard_commit.load(Ordering::Relaxed).saturating_sub(index.get()) > FAR_BEHIND
    }

    /// Notes that the leader of `term` spoke.
    pub(super) fn heard_from(&self, leader: MemberId, term: u64) {
        // One of an older term speaks to itself.
        if term >= self.term().get() {
            let now_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.heard_from.store(leader.get(), Ordering::Relaxed);
            self.heard.store(now_ms, Ordering::Release);
        }
    }

    /// How long nothing was heard of `leader`.
    pub(super) fn silent_for(&self, leader: MemberId) -> Duration {
        let heard = Duration::from_millis(self.heard.load(Ordering::Acquire));
        if self.heard_from.load(Ordering::Relaxed) == leader.get() {
            self.begun.elapsed().saturating_sub(heard)
        } else {
            Duration::MAX
        }
    }

    pub(super) fn set_leader(&self, leader: Option<MemberId>, term: Term) {
        *self.lead.lock() = leader.map(|leader| (leader, term));
        let new = leader.map_or(0, MemberId::get);
        let old = self.leader.swap(new, Ordering::AcqRel);
        if let Some(leader) = leader {
            self.tenure.seen(leader, term, old == new);
        }
        if old != new {
            self.leader_seen.send_replace(leader);
            if new != 0 {
                self.leader_changes.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn set_term(&self, term: Term) {
        self.term.fetch_max(term.get(), Ordering::AcqRel);
    }

    /// Waits until this member's own log holds the entry durably.
    ///
    /// # Errors
    /// The log has failed.
    pub(super) async fn wait_logged(&self, index: RaftIndex) -> io::Result<()> {
        let mut logged = self.logged.subscribe();
        // The sender lives as long as `self`.
        let reached = logged.wait_for(|logged| logged.is_none_or(|logged| logged >= index)).await;
        match reached.map(|logged| *logged) {
            Ok(Some(_)) => Ok(()),
            _ => Err(io::Error::other("the raft log has failed")),
        }
    }

    /// Up to which entry this member's log is durable, and the term of the last vote that is; `None` once the log has
    /// failed.
    pub fn durable(&self) -> Option<(RaftIndex, Term)> {
        let last = (*self.logged.borrow())?;
        Some((last, Term(self.voted.load(Ordering::Acquire))))
    }

    /// Whether this member's log holds anything, durably: from then on it must never begin with an empty one.
    pub fn has_log(&self) -> bool {
        self.durable().is_some_and(|(last, voted)| last > RaftIndex(0) || voted > Term(0))
    }

    pub(super) fn set_voted(&self, term: Term) {
        self.voted.fetch_max(term.get(), Ordering::AcqRel);
    }

    /// When this member's log came to hold the entry durably, or a later one with it; `None` if it doesn't yet, or
    /// nobody keeps time.
    pub(super) fn logged_at(&self, index: RaftIndex) -> Option<std::time::Instant> {
        self.logged_at.lock().filter(|(last, _)| *last >= index).map(|(_, at)| at)
    }

    pub(super) fn set_logged_at(&self, last: RaftIndex, at: std::time::Instant) {
        *self.logged_at.lock() = Some((last, at));
    }

    /// This member's log is durable up to here; `None` once it has failed.
    pub(super) fn set_logged(&self, last: Option<RaftIndex>) {
        self.logged.send_replace(last);
    }

    pub(super) fn set_applied(&self, index: RaftIndex) {
        self.applied.fetch_max(index.get(), Ordering::AcqRel);
        self.committed.fetch_max(index.get(), Ordering::AcqRel);
        self.applied_seen.send_replace(index);
    }

    pub(super) fn set_committed(&self, index: RaftIndex) {
        self.committed.fetch_max(index.get(), Ordering::AcqRel);
    }

    pub(super) fn set_sole_leader(&self, sole: bool) {
        self.sole_leader.store(sole, Ordering::Release);
    }

    pub(super) fn set_learner(&self, learner: bool) {
        self.learner.store(learner, Ordering::Relaxed);
    }

    pub(super) fn set_stopped(&self) {
        self.set_sole_leader(false);
        self.stopped.store(true, Ordering::Release);
        // Whoever waits for a leader looks again.
        self.leader_seen.send_replace(None);
    }
}
