//! Questions to the leader: proposals, the index for a read, leases, changes of the membership.

use std::time::Duration;

use bytes::Bytes;
use rusd_proto::rusdpeer as pb;

use super::channels::{Channels, Client, was_not_sent};
use super::{Peers, refusal, wire};
use crate::consensus::divergence::{DIGESTS_OF, Finding};
use crate::consensus::lineage::Lineage;
use crate::consensus::membership::{MemberChange, MemberRecord};
use crate::consensus::status::DiskState;
use crate::consensus::types::Vote;
use crate::types::{LeaseId, MemberId, RaftIndex, RequestError, Term};

/// What became of a batch that was forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// It is in the leader's log; it is applied here once it is committed.
    Accepted,
    /// It surely isn't, and never will be.
    Refused,
    /// The same, as a leader of an older build can't bind it to a term.
    NotBound,
    /// Nobody knows.
    Unknown,
}

/// A member's digests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// After which entries, and what.
    pub digests: Vec<(RaftIndex, u64)>,
    /// After which entry the state is kept.
    pub kept: Option<RaftIndex>,
    /// Where the state comes from.
    pub lineage: Lineage,
    /// The member knows that its state differs.
    pub differs: bool,
}

/// A lease as the leader's clock sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseLeft {
    /// What was granted, in seconds; −1 if there is no such lease.
    pub granted_secs: i64,
    /// What is left, in seconds.
    pub remaining_secs: i64,
}

/// Why a question has no answer.
enum Unanswered {
    /// It surely didn't come to the other member's knowledge.
    NotSent,
    /// The call broke.
    Broken,
    /// Not in time.
    Late,
}

impl From<Unanswered> for RequestError {
    /// For what may be asked again, whatever became of it.
    fn from(why: Unanswered) -> Self {
        match why {
            Unanswered::NotSent | Unanswered::Broken => Self::NoLeader,
            Unanswered::Late => Self::Timeout,
        }
    }
}

/// A question that is all of what is asked.
fn only(question: pb::question::Question) -> pb::Question {
    pb::Question { question: Some(question), differing: None }
}

impl Peers {
    /// Hands a batch to the leader's log. `tag` comes back with the entry when it is applied here. With a term, only the
    /// leader of that term takes it.
    pub async fn forward(
        &self,
        leader: MemberId,
        payload: Bytes,
        tag: u64,
        term: Option<Term>,
        limit: Duration,
    ) -> Forwarded {
        let channels = self.channels(leader);
        let question = match term {
            Some(Term(term)) => pb::question::Question::Bound(pb::BoundProposal { payload, tag, term }),
            None => pb::question::Question::Proposal(pb::Proposal { payload, tag }),
        };
        match self.call(&channels, channels.append(), only(question), limit).await {
            Ok(Some(pb::answer::Answer::Accepted(true))) => Forwarded::Accepted,
            Ok(Some(pb::answer::Answer::Accepted(false))) => Forwarded::Refused,
            Ok(Some(pb::answer::Answer::Refusal(refused))) if refusal::is_of_unknown(&refused) => Forwarded::NotBound,
            Ok(Some(pb::answer::Answer::Refusal(_))) => Forwarded::Refused,
            Err(Unanswered::NotSent) => Forwarded::Refused,
            Ok(_) | Err(Unanswered::Broken | Unanswered::Late) => Forwarded::Unknown,
        }
    }

    /// One question within a limit; a failure is counted.
    async fn call(
        &self,
        channels: &Channels,
        mut client: Client,
        question: pb::Question,
        limit: Duration,
    ) -> Result<Option<pb::answer::Answer>, Unanswered> {
        let why = match tokio::time::timeout(limit, client.ask(channels.request(question))).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner().answer),
            Ok(Err(status)) => {
                self.heed(&status);
                if was_not_sent(&status) { Unanswered::NotSent } else { Unanswered::Broken }
            }
            Err(_) => Unanswered::Late,
        };
        channels.meter().send_failed();
        Err(why)
    }

    async fn ask(
        &self,
        member: MemberId,
        question: pb::question::Question,
        limit: Duration,
    ) -> Result<pb::answer::Answer, RequestError> {
        self.ask_all(member, only(question), limit).await
    }

    async fn ask_all(
        &self,
        member: MemberId,
        question: pb::Question,
        limit: Duration,
    ) -> Result<pb::answer::Answer, RequestError> {
        let channels = self.channels(member);
        match self.call(&channels, channels.control(), question, limit).await? {
            Some(pb::answer::Answer::Refusal(refused)) => Err(match refusal::decode(refused) {
                // It is the other member that ends, not this one.
                RequestError::Stopped => RequestError::NoLeader,
                error => error,
            }),
            Some(answer) => Ok(answer),
            None => Err(RequestError::UnknownMethod),
        }
    }

    /// The entry (openraft's index) that has to be applied before a read is linearizable. What this member has voted for is
    /// to be looked up after the read began (`consensus/vouched.rs`).
    ///
    /// # Errors
    /// `NoLeader` if the member asked doesn't lead or isn't there, `Timeout`.
    pub(in crate::consensus) async fn read_index(
        &self,
        leader: MemberId,
        vouched: Option<Vote>,
        limit: Duration,
    ) -> Result<u64, RequestError> {
        let question = pb::ReadIndex { vouched: vouched.as_ref().map(wire::ballot) };
        match self.ask(leader, pb::question::Question::ReadIndex(question), limit).await? {
            pb::answer::Answer::ReadIndex(index) => Ok(index),
            _ => Err(RequestError::UnknownMethod),
        }
    }

    /// Has the leader renew a lease, or say what is left of it.
    ///
    /// # Errors
    /// As above, and what the leader answers.
    pub async fn lease(
        &self,
        leader: MemberId,
        id: LeaseId,
        renew: bool,
        limit: Duration,
    ) -> Result<LeaseLeft, RequestError> {
        let question = pb::LeaseQuestion { id: id.get(), renew };
        match self.ask(leader, pb::question::Question::Lease(question), limit).await? {
            pb::answer::Answer::Lease(pb::LeaseAnswer { granted_secs, remaining_secs }) => {
                Ok(LeaseLeft { granted_secs, remaining_secs })
            }
            _ => Err(RequestError::UnknownMethod),
        }
    }

    /// A member's digests; it keeps the state after its next landmark, or lets go of it, if `keep` says so.
    ///
    /// # Errors
    /// As above.
    pub async fn digests(
        &self,
        member: MemberId,
        keep: Option<bool>,
        limit: Duration,
    ) -> Result<Digests, RequestError> {
        let question = pb::DigestsQuestion { keep: keep == Some(true), look: keep.is_none() };
        let question = pb::question::Question::Digests(question);
        match self.ask(member, question, limit).await? {
            // Of another build, whose digests are of something else: no witness.
            pb::answer::Answer::Digests(pb::Digests { of, .. }) if of != DIGESTS_OF => Ok(Digests::default()),
            pb::answer::Answer::Digests(pb::Digests { indexes, digests, kept, lineage, differs, .. }) => Ok(Digests {
                digests: indexes.into_iter().map(RaftIndex).zip(digests).collect(),
                kept: (kept > 0).then_some(RaftIndex(kept)),
                // Of a member that says nothing of it nothing is known.
                lineage: Lineage::decode(&lineage).unwrap_or_default(),
                differs,
            }),
            _ => Err(RequestError::UnknownMethod),
        }
    }

    /// The digests of the parts of a prefix in the state that a member keeps after the entry `index`.
    ///
    /// # Errors
    /// As above; `UnknownMethod` if it doesn't keep that state.
    pub async fn parts(
        &self,
        member: MemberId,
        index: RaftIndex,
        prefix: Bytes,
        limit: Duration,
    ) -> Result<Vec<u64>, RequestError> {
        let question = pb::question::Question::Parts(pb::PartsQuestion { index: index.get(), prefix });
        match self.ask(member, question, limit).await? {
            pb::answer::Answer::Parts(parts) => Ok(parts.digests),
            _ => Err(RequestError::UnknownMethod),
        }
    }

    /// Tells a member that it differs from the others. False if it doesn't hold any more what was found.
    ///
    /// # Errors
    /// As above.
    pub async fn tell_diverged(
        &self,
        member: MemberId,
        finding: Finding,
        limit: Duration,
    ) -> Result<bool, RequestError> {
        let question = pb::question::Question::Diverged(finding.index.get());
        let differing = pb::Differing { digest: finding.digest, term: finding.term.get() };
        let question = pb::Question { question: Some(question), differing: Some(differing) };
        match self.ask_all(member, question, limit).await? {
            pb::answer::Answer::Noted(noted) => Ok(noted),
            _ => Err(RequestError::UnknownMethod),
        }
    }

    /// How the disk does at a member now.
    ///
    /// # Errors
    /// As above.
    pub async fn disk(&self, member: MemberId, limit: Duration) -> Result<DiskState, RequestError> {
        match self.ask(member, pb::question::Question::Disk(true), limit).await? {
            pb::answer::Answer::Disk(disk) => Ok(DiskState {
                pace: (disk.pace_us > 0).then(|| Duration::from_micros(disk.pace_us)),
                is_full: disk.is_full,
            }),
            _ => Err(RequestError::UnknownMethod),
        }
    }

    /// Has a member note that all had this digest after the entry `index`. False if it didn't.
    ///
    /// # Errors
    /// As above.
    pub async fn agree(
        &self,
        member: MemberId,
        (index, digest): (RaftIndex, u64),
        limit: Duration,
    ) -> Result<bool, RequestError> {
        let agreement = pb::Agreement { index: index.get(), digest };
        match self.ask(member, pb::question::Question::Agreed(agreement), limit).await? {
            pb::answer::Answer::Noted(noted) => Ok(noted),
            _ => Err(RequestError::UnknownMethod),
        }
    }

    /// Asks the leader for a snapshot in place of this member's state, which differs. False if it is to be asked
    /// again.
    ///
    /// # Errors
    /// As above.
    pub async fn ask_healing(&self, leader: MemberId, limit: Duration) -> Result<bool, RequestError> {
        match self.ask(leader, pb::question::Question::Heal(true), limit).await? {
            pb::answer::Answer::Noted(begun) => Ok(begun),
            _ => Err(RequestError::UnknownMethod),
        }
    }

    /// Asks the leader whether this member may end and start again with the state that heals it; it will if it `takes` its
    /// turn. False if it is to be asked again.
    ///
    /// # Errors
    /// As above.
    pub async fn ask_turn(&self, leader: MemberId, takes: bool, limit: Duration) -> Result<bool, RequestError> {
        match self.ask(leader, pb::question::Question::Turn(takes), limit).await? {
            pb::answer::Answer::Noted(granted) => Ok(granted),
            _ => Err(RequestError::UnknownMethod),
        }
    }

    /// Has the leader change the membership; gives the members after it.
    ///
    /// # Errors
    /// `NotLeader` or `NoLeader` if it surely wasn't done, `Timeout` if nobody knows, and the leader's refusals.
    pub(in crate::consensus) async fn change_members(
        &self,
        leader: MemberId,
        change: &MemberChange,
        limit: Duration,
    ) -> Result<Vec<MemberRecord>, RequestError> {
        let channels = self.channels(leader);
        let question = only(pb::question::Question::Change(change.encode()));
        let answer = match self.call(&channels, channels.control(), question, limit).await {
            Ok(answer) => answer,
            Err(Unanswered::NotSent) => return Err(RequestError::NoLeader),
            Err(Unanswered::Broken | Unanswered::Late) => return Err(RequestError::Timeout),
        };
        match answer {
            Some(pb::answer::Answer::Members(pb::Members { members })) => Ok(members.into_iter().map(record).collect()),
            Some(pb::answer::Answer::Refusal(refused)) => Err(match refusal::decode(refused) {
                // It is the other member that ends, and the change may be in its log.
                RequestError::Stopped => RequestError::Timeout,
                error => error,
            }),
            _ => Err(RequestError::UnknownMethod),
        }
    }
}

fn record(row: pb::MemberRow) -> MemberRecord {
    let pb::MemberRow { id, name, peer_urls, client_urls, learner } = row;
    MemberRecord { id: MemberId(id), name, peer_urls, client_urls, is_learner: learner }
}

/// A member as it travels.
pub(super) fn row(record: MemberRecord) -> pb::MemberRow {
    let MemberRecord { id, name, peer_urls, client_urls, is_learner } = record;
    pb::MemberRow { id: id.get(), name, peer_urls, client_urls, learner: is_learner }
}
