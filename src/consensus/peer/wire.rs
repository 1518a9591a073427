//! Between openraft's messages and the wire's.
//!
//! ```text
//! Append, Vote, Transfer ─► pb ─► the other member ─► pb ─► Append, Vote, Transfer
//! ```
//! A message that lacks a field which it can't be without is refused, never guessed.

use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::vote::RaftLeaderId;
use rusd_proto::rusdpeer as pb;

use super::super::log_store::{entry_from, entry_parts};
use super::super::types::{Entry, LogId, TypeConfig, Vote, log_id};

/// A message that can't be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    /// A field is missing.
    #[error("a message of a peer lacks {0}")]
    Missing(&'static str),
    /// The entries don't follow one another; counted as openraft does, from 0.
    #[error("a peer sent the log entry {found} in the place of {expected}")]
    Hole {
        /// Where the log would go on.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// An entry is of no kind that is known here.
    #[error("a peer's log entry can't be read: {0}")]
    Entry(String),
}

impl From<WireError> for tonic::Status {
    fn from(error: WireError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

pub(super) fn ballot(vote: &Vote) -> pb::Ballot {
    let leader = vote.leader_id();
    pb::Ballot { term: leader.term(), node: *leader.node_id(), committed: vote.is_committed() }
}

pub(super) fn vote(ballot: Option<pb::Ballot>) -> Result<Vote, WireError> {
    let ballot = ballot.ok_or(WireError::Missing("a vote"))?;
    let leader_id = openraft::impls::leader_id_std::LeaderId::new(ballot.term, ballot.node);
    Ok(Vote { leader_id, committed: ballot.committed })
}

pub(super) fn entry_id(id: &LogId) -> pb::EntryId {
    pb::EntryId { term: id.leader_id.term, index: id.index }
}

pub(super) fn id(entry_id: pb::EntryId) -> LogId {
    log_id(entry_id.term, entry_id.index)
}

pub(super) fn append_request(request: &AppendEntriesRequest<TypeConfig>, unsure: bool) -> pb::AppendRequest {
    pb::AppendRequest {
        vote: Some(ballot(&request.vote)),
        prev: request.prev_log_id.as_ref().map(entry_id),
        committed: request.leader_commit.as_ref().map(entry_id),
        entries: request.entries.iter().map(log_entry).collect(),
        unsure,
    }
}

fn log_entry(entry: &Entry) -> pb::LogEntry {
    let (kind, payload) = entry_parts(entry);
    pb::LogEntry { term: entry.log_id.leader_id.term, index: entry.log_id.index, kind: u32::from(kind), payload }
}

pub(super) fn append(request: pb::AppendRequest) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    let entry = |entry: pb::LogEntry| -> Result<Entry, WireError> {
        let kind = u8::try_from(entry.kind).map_err(|_| WireError::Entry(format!("kind {}", entry.kind)))?;
        entry_from(log_id(entry.term, entry.index), kind, entry.payload)
            .map_err(|error| WireError::Entry(error.to_string()))
    };
    let request: AppendEntriesRequest<TypeConfig> = AppendEntriesRequest {
        vote: vote(request.vote)?,
        prev_log_id: request.prev.map(id),
        leader_commit: request.committed.map(id),
        entries: request.entries.into_iter().map(entry).collect::<Result<Vec<Entry>, _>>()?,
    };
    let mut next = request.prev_log_id.map_or(0, |prev| prev.index.saturating_add(1));
    for entry in &request.entries {
        if entry.log_id.index != next {
            return Err(WireError::Hole { expected: next, found: entry.log_id.index });
        }
        next = next.saturating_add(1);
    }
    Ok(request)
}

pub(super) fn append_reply(result: StreamAppendResult<TypeConfig>) -> pb::AppendReply {
    match result {
        Ok(matched) => pb::AppendReply { matched: matched.as_ref().map(entry_id), ..Default::default() },
        Err(StreamAppendError::Conflict(at)) => pb::AppendReply { conflict: Some(entry_id(&at)), ..Default::default() },
        Err(StreamAppendError::HigherVote(vote)) => {
            pb::AppendReply { higher: Some(ballot(&vote)), ..Default::default() }
        }
    }
}

pub(super) fn append_result(reply: pb::AppendReply) -> Result<StreamAppendResult<TypeConfig>, WireError> {
    Ok(match (reply.higher, reply.conflict) {
        (Some(higher), _) => Err(StreamAppendError::HigherVote(vote(Some(higher))?)),
        (None, Some(conflict)) => Err(StreamAppendError::Conflict(id(conflict))),
        (None, None) => Ok(reply.matched.map(id)),
    })
}

pub(super) fn vote_request(request: &VoteRequest<TypeConfig>) -> pb::VoteRequest {
    pb::VoteRequest {
        vote: Some(ballot(&request.vote)),
        last: request.last_log_id.as_ref().map(entry_id),
        transfer: request.leadership_transfer,
    }
}

pub(super) fn ask_vote(request: pb::VoteRequest) -> Result<VoteRequest<TypeConfig>, WireError> {
    Ok(VoteRequest {
        vote: vote(request.vote)?,
        last_log_id: request.last.map(id),
        leadership_transfer: request.transfer,
    })
}

pub(super) fn vote_reply(response: &VoteResponse<TypeConfig>) -> pb::VoteReply {
    pb::VoteReply {
        vote: Some(ballot(&response.vote)),
        last: response.last_log_id.as_ref().map(entry_id),
        granted: response.vote_granted,
    }
}

pub(super) fn vote_response(reply: pb::VoteReply) -> Result<VoteResponse<TypeConfig>, WireError> {
    Ok(VoteResponse::new(vote(reply.vote)?, reply.last.map(id), reply.granted))
}

pub(super) fn transfer_request(request: &TransferLeaderRequest<TypeConfig>) -> pb::TransferRequest {
    pb::TransferRequest {
        from: Some(ballot(request.from_leader())),
        to: *request.to_node_id(),
        last: request.last_log_id().map(entry_id),
    }
}

pub(super) fn transfer(request: pb::TransferRequest) -> Result<TransferLeaderRequest<TypeConfig>, WireError> {
    Ok(TransferLeaderRequest::new(vote(request.from)?, request.to, request.last.map(id)))
}

pub(super) fn transfer_reply(response: &TransferLeaderResponse<TypeConfig>) -> pb::TransferReply {
    use openraft::raft::TransferLeaderError as E;
    match response {
        Ok(()) => pb::TransferReply::default(),
        Err(E::VoteChanged { actual, .. }) => {
            pb::TransferReply { vote_now: Some(ballot(actual)), ..Default::default() }
        }
        Err(E::LogNotFlushed { actual, .. }) => {
            pb::TransferReply { log_behind: true, last: actual.as_ref().map(entry_id), ..Default::default() }
        }
    }
}

pub(super) fn transfer_response(
    request: &TransferLeaderRequest<TypeConfig>,
    reply: pb::TransferReply,
) -> Result<TransferLeaderResponse<TypeConfig>, WireError> {
    use openraft::raft::TransferLeaderError as E;
    if let Some(now) = reply.vote_now {
        return Ok(Err(E::VoteChanged { expected: *request.from_leader(), actual: vote(Some(now))? }));
    }
    if reply.log_behind {
        return Ok(Err(E::LogNotFlushed { expected: request.last_log_id().copied(), actual: reply.last.map(id) }));
    }
    Ok(Ok(()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use openraft::EntryPayload;

    use super::super::super::types::LogData;
    use super::*;

    fn some_vote() -> Vote {
        Vote { leader_id: openraft::impls::leader_id_std::LeaderId::new(4, 9), committed: true }
    }

    #[test]
    fn messages_come_back_as_they_went() {
        let data = LogData::stored(Bytes::from_static(b"commands"));
        let forwarded = LogData::forwarded(Bytes::from_static(b"0123456789abcdefcommands"));
        let request = AppendEntriesRequest::<TypeConfig> {
            vote: some_vote(),
            prev_log_id: Some(log_id(3, 7)),
            leader_commit: None,
            entries: vec![
                Entry { log_id: log_id(4, 8), payload: EntryPayload::Blank },
                Entry { log_id: log_id(4, 9), payload: EntryPayload::Normal(data) },
                Entry { log_id: log_id(4, 10), payload: EntryPayload::Normal(forwarded) },
            ],
        };
        let back = append(append_request(&request, false)).expect("whole");
        assert_eq!(back.entries, request.entries);
        assert_eq!((back.vote, back.prev_log_id, back.leader_commit), (request.vote, request.prev_log_id, None));
        for result in [
            Ok(None),
            Ok(Some(log_id(1, 1))),
            Err(StreamAppendError::Conflict(log_id(2, 2))),
            Err(StreamAppendError::HigherVote(some_vote())),
        ] {
            assert_eq!(append_result(append_reply(result.clone())), Ok(result));
        }
        let ask =
            VoteRequest::<TypeConfig> { vote: some_vote(), last_log_id: Some(log_id(1, 2)), leadership_transfer: true };
        assert_eq!(ask_vote(vote_request(&ask)), Ok(ask));
    }

    #[test]
    fn what_lacks_a_vote_or_an_entry_or_is_of_another_kind_is_refused() {
        assert_eq!(append(pb::AppendRequest::default()).err(), Some(WireError::Missing("a vote")));
        let entry = |index| pb::LogEntry { term: 4, index, ..Default::default() };
        let request = |prev: Option<u64>, indexes: &[u64]| pb::AppendRequest {
            vote: Some(ballot(&some_vote())),
            prev: prev.map(|index| pb::EntryId { term: 4, index }),
            entries: indexes.iter().map(|index| entry(*index)).collect(),
            ..Default::default()
        };
        assert!(append(request(Some(3), &[4, 5])).is_ok() && append(request(None, &[0, 1])).is_ok());
        for holed in [request(Some(3), &[5]), request(Some(3), &[4, 6]), request(None, &[1]), request(Some(3), &[4, 4])]
        {
            assert!(matches!(append(holed), Err(WireError::Hole { .. })));
        }
        assert!(append(request(Some(u64::MAX), &[u64::MAX])).is_ok(), "refused further on, without a panic");
        let entry = pb::LogEntry { kind: 77, ..Default::default() };
        let request =
            pb::AppendRequest { vote: Some(ballot(&some_vote())), entries: vec![entry], ..Default::default() };
        assert!(matches!(append(request), Err(WireError::Entry(_))));
    }
}
