//! Errors of the leader on their way to the member that asked.

use rusd_proto::rusdpeer as pb;

use crate::types::RequestError as E;

/// Numbers of the errors that have no text of their own. Never given to another one.
const NUMBERS: &[(u32, E)] = &[
    (1, E::NoLeader),
    (2, E::LeaderChanged),
    (3, E::Stopped),
    (4, E::Timeout),
    (5, E::DeadlineExceeded),
    (6, E::NotLeader),
    (7, E::TooManyRequests),
    (8, E::LeaseNotFound),
    (9, E::NoSpace),
    (10, E::Corrupt),
    (11, E::BadLeaderTransferee),
    (12, E::MemberNotFound),
    (13, E::MemberExists),
    (14, E::PeerUrlExists),
    (15, E::BadMemberUrls),
    (16, E::NotEnoughStartedMembers),
    (17, E::UnhealthyCluster),
    (18, E::NotLearner),
    (19, E::LearnerNotReady),
    (20, E::TooManyLearners),
    (21, E::LeaderTransferTimeout),
    (22, E::TimeoutLeaderFailure),
    (23, E::TimeoutConnectionLost),
];

/// As a message.
pub(super) fn encode(error: &E) -> pb::Refusal {
    let code = NUMBERS.iter().find(|(_, known)| known == error).map_or(0, |(number, _)| *number);
    pb::Refusal { code, text: error.to_string() }
}

/// Whether it is one of a question that the other member doesn't know, as one of an older build.
pub(super) fn is_of_unknown(refusal: &pb::Refusal) -> bool {
    // It never had a number, and one given now wouldn't come from those that are meant.
    refusal.code == 0 && refusal.text == E::UnknownMethod.to_string()
}

/// From a message.
pub(super) fn decode(refusal: pb::Refusal) -> E {
    let known = NUMBERS.iter().find(|(number, _)| *number == refusal.code).map(|(_, error)| error.clone());
    known.unwrap_or(E::Storage(refusal.text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_come_back_as_they_went() {
        for (_, error) in NUMBERS {
            assert_eq!(decode(encode(error)), *error);
        }
        let numbers: std::collections::BTreeSet<_> = NUMBERS.iter().map(|(number, _)| number).collect();
        assert_eq!(numbers.len(), NUMBERS.len());
        assert_eq!(decode(encode(&E::EmptyKey)), E::Storage(E::EmptyKey.to_string()));
    }
}
