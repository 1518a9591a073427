//! What a change becomes, or why it is refused: rules over a view, with no I/O.
//!
//! ```text
//! (change, View) ─► etcd's checks, in etcd's order ─► Step: a new membership, a new description, or nothing
//! ```
//! A member that is added to vote counts as a voter in every check and for clients, but Raft has it
//! as a learner until its log is in step: so adding one that never starts costs no quorum.

use std::collections::{BTreeMap, BTreeSet};

use super::change::MemberChange;
use super::contact::Contact;
use super::removed::RemovedMembers;
use crate::consensus::types::{Membership, PeerNode};
use crate::types::RequestError;

/// A learner that lacks more of the leader's entries than this is not in step, whatever its share of the log.
const BEHIND_MAX: u64 = 10_000;

/// The flags that the checks go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberRules {
    /// `--strict-reconfig-check`.
    pub strict: bool,
    /// `--max-learners`.
    pub learners_max: usize,
    /// `--auto-promote-learners`: learners that are in step become voters by themselves.
    pub auto_promote: bool,
    /// How long a change or a transfer of leadership may take.
    pub timeout: std::time::Duration,
}

impl Default for MemberRules {
    fn default() -> Self {
        Self { strict: true, learners_max: 1, auto_promote: false, timeout: std::time::Duration::from_secs(7) }
    }
}

/// What the leader knows when it decides.
pub(super) struct View<'a> {
    pub(super) me: u64,
    pub(super) membership: &'a Membership,
    pub(super) removed: &'a RemovedMembers,
    /// How many entries each member's log matches; those who never answered are missing.
    pub(super) matched: BTreeMap<u64, u64>,
    pub(super) contact: &'a dyn Fn(u64) -> Contact,
    pub(super) rules: MemberRules,
}

/// What has to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is so already.
    Nothing,
    /// Members or votes change: this is the membership to come.
    Append(Membership),
    /// A member is described otherwise.
    Describe(u64, PeerNode),
}

/// What a member is for clients and for the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Voter,
    /// Added to vote, not in step yet.
    Pending,
    Learner,
}

/// What `id` is; `None` if it is no member.
pub(super) fn role(membership: &Membership, id: u64) -> Option<Role> {
    let node = membership.get_node(&id)?;
    Some(match (membership.voter_ids().any(|voter| voter == id), node.wants_vote) {
        (true, _) => Role::Voter,
        (false, true) => Role::Pending,
        (false, false) => Role::Learner,
    })
}

/// Plans a change.
///
/// # Errors
/// etcd's, as facts on its 3.7.1 have them.
pub(super) fn plan(change: &MemberChange, view: &View<'_>) -> Result<Step, RequestError> {
    let id = change.id().get();
    match change {
        MemberChange::Add { peer_urls, learner, .. } => view.add(id, peer_urls, *learner),
        MemberChange::Remove { .. } => view.remove(id),
        MemberChange::Update { peer_urls, .. } => {
            let node = view.node(id)?;
            view.check_urls(id, peer_urls)?;
            Ok(described(id, node, |node| node.peer_urls.clone_from(peer_urls)))
        }
        MemberChange::Promote { .. } => view.promote(id),
        MemberChange::Publish { name, client_urls, .. } => {
            let node = view.node(id)?;
            Ok(described(id, node, |node| {
                node.name.clone_from(name);
                node.client_urls.clone_from(client_urls);
            }))
        }
    }
}

fn described(id: u64, node: &PeerNode, change: impl FnOnce(&mut PeerNode)) -> Step {
    let mut new = node.clone();
    change(&mut new);
    if new == *node { Step::Nothing } else { Step::Describe(id, new) }
}

fn quorum(members: usize) -> usize {
    members / 2 + 1
}

impl View<'_> {
    fn node(&self, id: u64) -> Result<&PeerNode, RequestError> {
        self.membership.get_node(&id).ok_or(RequestError::MemberNotFound)
    }

    /// Those that vote or will.
    fn voting(&self) -> impl Iterator<Item = (u64, &PeerNode)> {
        let ids = self.membership.nodes().map(|(id, node)| (*id, node));
        ids.filter(|(id, _)| role(self.membership, *id).is_some_and(|role| role != Role::Learner))
    }

    fn contact(&self, id: u64) -> Contact {
        if id == self.me { Contact::Steady } else { (self.contact)(id) }
    }

    fn steady(&self) -> usize {
        self.voting().filter(|(id, _)| self.contact(*id) == Contact::Steady).count()
    }

    fn is_started(node: &PeerNode) -> bool {
        !node.name.is_empty()
    }

    fn check_urls(&self, id: u64, peer_urls: &[String]) -> Result<(), RequestError> {
        if peer_urls.is_empty() {
            return Err(RequestError::BadMemberUrls);
        }
        let mut others = self.membership.nodes().filter(|(other, _)| **other != id);
        let is_taken = others.any(|(_, node)| node.peer_urls.iter().any(|url| peer_urls.contains(url)));
        if is_taken { Err(RequestError::PeerUrlExists) } else { Ok(()) }
    }

    fn voters(&self) -> BTreeSet<u64> {
        self.membership.voter_ids().collect()
    }

    fn nodes(&self) -> BTreeMap<u64, PeerNode> {
        self.membership.nodes().map(|(id, node)| (*id, node.clone())).collect()
    }

    fn add(&self, id: u64, peer_urls: &[String], learner: bool) -> Result<Step, RequestError> {
        if self.rules.strict {
            let voting = self.voting().count();
            let started = self.voting().filter(|(_, node)| Self::is_started(node)).count();
            // The new one hasn't started; a cluster of one may grow all the same.
            let is_sole = started == 1 && voting == 1;
            if !learner && !is_sole && started < quorum(voting + 1) {
                return Err(RequestError::NotEnoughStartedMembers);
            }
            if voting > 1 && self.steady() < quorum(voting + 1) {
                return Err(RequestError::UnhealthyCluster);
            }
        }
        if self.removed.contains(id.into()) {
            return Err(RequestError::MemberNotFound);
        }
        if self.membership.get_node(&id).is_some() {
            return Err(RequestError::MemberExists);
        }
        self.check_urls(id, peer_urls)?;
        let learners = self.membership.nodes().filter(|(id, _)| role(self.membership, **id) == Some(Role::Learner));
        if learner && learners.count() >= self.rules.learners_max {
            return Err(RequestError::TooManyLearners);
        }
        let mut nodes = self.nodes();
        nodes.insert(id, PeerNode { peer_urls: peer_urls.to_vec(), wants_vote: !learner, ..PeerNode::default() });
        self.append(self.voters(), nodes)
    }

    fn remove(&self, id: u64) -> Result<Step, RequestError> {
        let role = role(self.membership, id);
        // Who has no vote is in no quorum.
        if self.rules.strict && !matches!(role, Some(Role::Learner | Role::Pending)) {
            let left = || self.voting().filter(|(other, _)| *other != id);
            if left().filter(|(_, node)| Self::is_started(node)).count() < quorum(left().count()) {
                return Err(RequestError::NotEnoughStartedMembers);
            }
            // One that is down anyhow can go.
            let is_active = role.is_some() && self.contact(id) != Contact::Lost;
            if is_active && self.steady().saturating_sub(1) < quorum(self.voting().count().saturating_sub(1)) {
                return Err(RequestError::UnhealthyCluster);
            }
        }
        if role.is_none() {
            return Err(RequestError::MemberNotFound);
        }
        let (mut voters, mut nodes) = (self.voters(), self.nodes());
        voters.remove(&id);
        nodes.remove(&id);
        if voters.is_empty() {
            return Err(RequestError::NotEnoughStartedMembers);
        }
        self.append(voters, nodes)
    }

    fn promote(&self, id: u64) -> Result<Step, RequestError> {
        let role = role(self.membership, id).ok_or(RequestError::MemberNotFound)?;
        if !self.is_in_step(id, BEHIND_MAX) {
            return Err(RequestError::LearnerNotReady);
        }
        if self.rules.strict {
            // The learner counts as one that has started.
            let started = self.voting().filter(|(_, node)| Self::is_started(node)).count() + 1;
            if started < quorum(self.voting().count() + 1) {
                return Err(RequestError::NotEnoughStartedMembers);
            }
        }
        if role != Role::Learner {
            return Err(RequestError::NotLearner);
        }
        self.give_vote(id)
    }

    /// Makes a voter of a member that has none.
    pub(super) fn give_vote(&self, id: u64) -> Result<Step, RequestError> {
        let mut voters = self.voters();
        if !voters.insert(id) {
            return Ok(Step::Nothing);
        }
        self.append(voters, self.nodes())
    }

    /// Whether a member has nine tenths of the leader's log, as etcd asks for, and lacks at most so many entries.
    pub(super) fn is_in_step(&self, id: u64, behind_max: u64) -> bool {
        let of = |id: u64| self.matched.get(&id).copied().unwrap_or(0);
        let (own, other) = (of(self.me), of(id));
        other > 0 && u128::from(other) * 10 >= u128::from(own) * 9 && own.saturating_sub(other) <= behind_max
    }

    /// Whether the voters in touch, this leader among them, are a quorum without this member.
    pub(super) fn is_quorum_without(&self, id: u64) -> bool {
        let is_there = |voter: &u64| *voter == self.me || self.contact(*voter) != Contact::Lost;
        let there = self.membership.voter_ids().filter(|voter| *voter != id && is_there(voter)).count();
        there * 2 > self.membership.voter_ids().count()
    }

    /// Who has no vote and should get one without being asked for it.
    pub(super) fn due(&self, behind_max: u64) -> Option<u64> {
        let mut ids = self.membership.nodes().map(|(id, _)| *id);
        ids.find(|id| {
            let wants = match role(self.membership, *id) {
                Some(Role::Pending) => true,
                Some(Role::Learner) => self.rules.auto_promote,
                Some(Role::Voter) | None => false,
            };
            wants && self.contact(*id) != Contact::Lost && self.is_in_step(*id, behind_max)
        })
    }

    fn append(&self, voters: BTreeSet<u64>, nodes: BTreeMap<u64, PeerNode>) -> Result<Step, RequestError> {
        let membership = Membership::new(vec![voters], nodes).map_err(|_| RequestError::MemberNotFound)?;
        Ok(Step::Append(membership))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::MemberId;

    fn node(id: u64) -> PeerNode {
        PeerNode { name: format!("m{id}"), peer_urls: vec![url(id)], ..PeerNode::default() }
    }

    fn url(id: u64) -> String {
        format!("http://localhost:{id}")
    }

    /// A cluster whose members are all started, in touch and in step; member 1 leads.
    struct Cluster {
        voters: BTreeSet<u64>,
        nodes: BTreeMap<u64, PeerNode>,
        contacts: BTreeMap<u64, Contact>,
        matched: BTreeMap<u64, u64>,
        removed: RemovedMembers,
        rules: MemberRules,
    }

    impl Cluster {
        fn of(count: u64) -> Self {
            let ids = 1..=count;
            Self {
                voters: ids.clone().collect(),
                nodes: ids.clone().map(|id| (id, node(id))).collect(),
                contacts: ids.clone().map(|id| (id, Contact::Steady)).collect(),
                matched: ids.map(|id| (id, 100)).collect(),
                removed: RemovedMembers::default(),
                rules: MemberRules::default(),
            }
        }

        fn without_vote(mut self, id: u64, wants_vote: bool) -> Self {
            self.nodes.insert(id, PeerNode { wants_vote, ..node(id) });
            self
        }

        fn unstarted(mut self, id: u64) -> Self {
            self.nodes.get_mut(&id).expect("a member").name.clear();
            self
        }

        fn with<T>(&self, run: impl FnOnce(&View<'_>) -> T) -> T {
            let membership = Membership::new(vec![self.voters.clone()], self.nodes.clone()).expect("well-formed");
            let contact = |id: u64| self.contacts.get(&id).copied().unwrap_or(Contact::Lost);
            run(&View {
                me: 1,
                membership: &membership,
                removed: &self.removed,
                matched: self.matched.clone(),
                contact: &contact,
                rules: self.rules,
            })
        }

        fn plan(&self, change: &MemberChange) -> Result<Step, RequestError> {
            self.with(|view| plan(change, view))
        }

        fn refusal(&self, change: &MemberChange) -> RequestError {
            self.plan(change).expect_err("refused")
        }

        fn membership(&self, change: &MemberChange) -> Membership {
            match self.plan(change).expect("planned") {
                Step::Append(membership) => membership,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Cause: a member ended for its healing without asking who was left. Symptom: with another one down, the cluster had
    /// no quorum until it came back.
    #[test]
    fn a_quorum_without_one_is_of_those_in_touch() {
        let mut three = Cluster::of(3);
        assert!(three.with(|view| view.is_quorum_without(3) && view.is_quorum_without(2)));
        three.contacts.insert(2, Contact::Lost);
        assert!(three.with(|view| !view.is_quorum_without(3)), "the leader alone");
        assert!(three.with(|view| view.is_quorum_without(2)), "whoever is away already costs nothing more");
        let mut five = Cluster::of(5);
        five.contacts.insert(2, Contact::Lost);
        assert!(five.with(|view| view.is_quorum_without(3)));
        five.contacts.insert(4, Contact::Lost);
        assert!(five.with(|view| !view.is_quorum_without(3)));
        assert!(Cluster::of(2).with(|view| !view.is_quorum_without(2)));
        let learner = Cluster::of(2).without_vote(9, false);
        assert!(learner.with(|view| view.is_quorum_without(9)), "a learner's end costs nobody a vote");
    }

    fn add(id: u64) -> MemberChange {
        MemberChange::Add { id: MemberId(id), peer_urls: vec![url(id)], learner: false }
    }

    fn add_learner(id: u64) -> MemberChange {
        MemberChange::Add { id: MemberId(id), peer_urls: vec![url(id)], learner: true }
    }

    fn remove(id: u64) -> MemberChange {
        MemberChange::Remove { id: MemberId(id) }
    }

    fn promote(id: u64) -> MemberChange {
        MemberChange::Promote { id: MemberId(id) }
    }

    #[test]
    fn an_added_voter_has_no_vote_before_it_is_in_step() {
        let new = Cluster::of(1).membership(&add(2));
        assert_eq!(new.voter_ids().collect::<Vec<_>>(), [1]);
        assert_eq!(role(&new, 2), Some(Role::Pending));
        let mut cluster = Cluster::of(1).without_vote(2, true);
        assert_eq!(cluster.with(|view| view.due(10)), None, "it never answered");
        cluster.contacts.insert(2, Contact::Recent);
        cluster.matched.insert(2, 89);
        assert_eq!(cluster.with(|view| view.due(10)), None, "it lacks 11 entries");
        cluster.matched.insert(2, 90);
        assert_eq!(cluster.with(|view| view.due(10)), Some(2));
        let Ok(Step::Append(new)) = cluster.with(|view| view.give_vote(2)) else { panic!("no step") };
        assert_eq!(role(&new, 2), Some(Role::Voter));
    }

    #[test]
    fn learners_wait_for_promote_unless_the_flag_says_otherwise() {
        let mut cluster = Cluster::of(1).without_vote(2, false);
        cluster.contacts.insert(2, Contact::Steady);
        cluster.matched.insert(2, 100);
        assert_eq!(cluster.with(|view| view.due(10)), None);
        cluster.rules.auto_promote = true;
        assert_eq!(cluster.with(|view| view.due(10)), Some(2));
        assert_eq!(role(&cluster.membership(&promote(2)), 2), Some(Role::Voter));
    }

    #[test]
    fn adding_is_refused_as_etcd_refuses_it() {
        let mut cluster = Cluster::of(3);
        assert_eq!(cluster.refusal(&add(3)), RequestError::MemberExists);
        let taken = MemberChange::Add { id: MemberId(9), peer_urls: vec![url(9), url(2)], learner: false };
        assert_eq!(cluster.refusal(&taken), RequestError::PeerUrlExists);
        cluster.removed.note([MemberId(7)]);
        assert_eq!(cluster.refusal(&add(7)), RequestError::MemberNotFound);
        cluster.contacts.insert(3, Contact::Recent);
        assert_eq!(cluster.refusal(&add(4)), RequestError::UnhealthyCluster);
        assert_eq!(cluster.refusal(&add_learner(4)), RequestError::UnhealthyCluster);
        cluster.rules.strict = false;
        assert!(cluster.plan(&add(4)).is_ok());
        let cluster = Cluster::of(1).without_vote(2, true).unstarted(2);
        assert_eq!(cluster.refusal(&add(3)), RequestError::NotEnoughStartedMembers);
        let cluster = Cluster::of(1).without_vote(2, false);
        assert_eq!(cluster.refusal(&add_learner(3)), RequestError::TooManyLearners);
    }

    #[test]
    fn removing_is_refused_as_etcd_refuses_it() {
        let mut cluster = Cluster::of(3);
        assert_eq!(cluster.refusal(&remove(9)), RequestError::MemberNotFound);
        cluster.contacts.insert(3, Contact::Recent);
        assert_eq!(cluster.refusal(&remove(2)), RequestError::UnhealthyCluster);
        assert_eq!(cluster.refusal(&remove(1)), RequestError::UnhealthyCluster);
        assert_eq!(Cluster::of(1).refusal(&remove(1)), RequestError::NotEnoughStartedMembers);
        let mut alone = Cluster::of(1).without_vote(2, true);
        alone.rules.strict = false;
        assert_eq!(alone.refusal(&remove(1)), RequestError::NotEnoughStartedMembers, "nobody could vote");
    }

    #[test]
    fn the_dead_the_voteless_and_the_leader_can_go() {
        let mut cluster = Cluster::of(3).without_vote(4, true).unstarted(4);
        cluster.contacts.insert(3, Contact::Lost);
        let new = cluster.membership(&remove(3));
        assert_eq!(new.voter_ids().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(role(&new, 3), None);
        assert_eq!(role(&cluster.membership(&remove(4)), 4), None);
        assert_eq!(Cluster::of(3).membership(&remove(1)).voter_ids().collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn promoting_is_refused_as_etcd_refuses_it() {
        let mut cluster = Cluster::of(1).without_vote(2, false);
        assert_eq!(cluster.refusal(&promote(9)), RequestError::MemberNotFound);
        assert_eq!(cluster.refusal(&promote(1)), RequestError::NotLearner);
        cluster.matched.insert(2, 89);
        assert_eq!(cluster.refusal(&promote(2)), RequestError::LearnerNotReady);
        cluster.matched.extend([(1, 1_000_000), (2, 989_999)]);
        assert_eq!(cluster.refusal(&promote(2)), RequestError::LearnerNotReady, "99 %, but too many entries");
        cluster.matched.insert(2, 990_000);
        assert!(cluster.plan(&promote(2)).is_ok());
    }

    /// etcd issue 21736. Cause: an update was applied as if the member had been added anew, without its
    /// mark as a learner. Symptom: a learner had a vote after its URL was changed. Here an update touches
    /// nothing else.
    #[test]
    fn history_21736_an_update_gives_no_vote() {
        let cluster = Cluster::of(1).without_vote(2, false);
        let update = MemberChange::Update { id: MemberId(2), peer_urls: vec![url(22)] };
        let Ok(Step::Describe(2, new)) = cluster.plan(&update) else { panic!("no step") };
        assert_eq!(new, PeerNode { peer_urls: vec![url(22)], ..node(2) });
        let taken = MemberChange::Update { id: MemberId(2), peer_urls: vec![url(1)] };
        assert_eq!(cluster.refusal(&taken), RequestError::PeerUrlExists);
        let none = MemberChange::Update { id: MemberId(2), peer_urls: vec![] };
        assert_eq!(cluster.refusal(&none), RequestError::BadMemberUrls);
        let unknown = MemberChange::Update { id: MemberId(3), peer_urls: vec![url(3)] };
        assert_eq!(cluster.refusal(&unknown), RequestError::MemberNotFound);
    }

    #[test]
    fn publishing_twice_changes_nothing() {
        let cluster = Cluster::of(1);
        let publish = |name: &str| MemberChange::Publish { id: MemberId(1), name: name.into(), client_urls: vec![] };
        assert_eq!(cluster.plan(&publish("m1")), Ok(Step::Nothing));
        assert!(matches!(cluster.plan(&publish("other")), Ok(Step::Describe(1, _))));
    }
}
