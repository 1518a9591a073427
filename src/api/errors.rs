//! From a `RequestError` to a gRPC code and etcd's exact text; nothing else in the house does this.
//!
//! Clients turn the text back into a typed error, so both must match byte for byte. Some of
//! etcd's codes look wrong and are kept all the same: `too many requests` and `unknown method` go
//! out as `Unknown` there, since its server hands the client-side error type to gRPC.

use tonic::{Code, Status};

use crate::types::RequestError;

/// The gRPC status of a refused request.
pub fn status(error: &RequestError) -> Status {
    Status::new(code(error), error.to_string())
}

/// The gRPC code that etcd answers for `error`.
pub fn code(error: &RequestError) -> Code {
    use RequestError as E;
    match error {
        E::EmptyKey
        | E::KeyNotFound
        | E::ValueProvided
        | E::LeaseProvided
        | E::TooManyOps
        | E::DuplicateKey
        | E::InvalidSortOption
        | E::InvalidClientApiVersion
        | E::BadMemberUrls
        | E::UserEmpty
        | E::RoleEmpty
        | E::AuthFailed
        | E::PermissionNotGiven
        | E::AuthManagementInvalid
        | E::AuthRevisionOld
        | E::RequestTooLarge => Code::InvalidArgument,
        E::Compacted | E::FutureRevision | E::LeaseTtlTooLarge => Code::OutOfRange,
        E::NoSpace | E::AnswerTooLarge { .. } => Code::ResourceExhausted,
        E::LeaseNotFound | E::MemberNotFound => Code::NotFound,
        E::LeaseExists
        | E::BadLeaderTransferee
        | E::NotLeader
        | E::MemberExists
        | E::PeerUrlExists
        | E::NotLearner
        | E::LearnerNotReady
        | E::RootUserNotFound
        | E::RootRoleNotGranted
        | E::UserExists
        | E::UserNotFound
        | E::RoleExists
        | E::RoleNotFound
        | E::RoleNotGranted
        | E::PermissionNotGranted
        | E::AuthNotEnabled
        | E::TooManyLearners => Code::FailedPrecondition,
        E::Corrupt => Code::DataLoss,
        E::NoLeader
        | E::LeaderChanged
        | E::Stopped
        | E::Timeout
        | E::TimeoutLeaderFailure
        | E::TimeoutConnectionLost
        | E::UnhealthyCluster => Code::Unavailable,
        E::DeadlineExceeded => Code::DeadlineExceeded,
        E::PermissionDenied => Code::PermissionDenied,
        E::AuthTokenInvalid => Code::Unauthenticated,
        E::NoPasswordUser | E::PasswordTooLong | E::VerifyOnlyKey => Code::Unknown,
        E::TooManyRequests | E::UnknownMethod | E::NotEnoughStartedMembers | E::LeaderTransferTimeout => Code::Unknown,
        E::Storage(_) => Code::Internal,
    }
}

/// The refusal of a call that only a voter serves.
pub(crate) fn learner() -> Status {
    Status::failed_precondition("etcdserver: rpc not supported for learner")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_odd_codes_are_etcds() {
        for (error, code, text) in [
            (RequestError::EmptyKey, Code::InvalidArgument, "etcdserver: key is not provided"),
            (RequestError::TooManyRequests, Code::Unknown, "etcdserver: too many requests"),
            (RequestError::UnknownMethod, Code::Unknown, "etcdserver: unknown method"),
            (RequestError::LeaseTtlTooLarge, Code::OutOfRange, "etcdserver: too large lease TTL"),
            (RequestError::Corrupt, Code::DataLoss, "etcdserver: corrupt cluster"),
            (RequestError::DeadlineExceeded, Code::DeadlineExceeded, "context deadline exceeded"),
            (
                RequestError::TimeoutLeaderFailure,
                Code::Unavailable,
                "etcdserver: request timed out, possibly due to previous leader failure",
            ),
            (
                RequestError::TimeoutConnectionLost,
                Code::Unavailable,
                "etcdserver: request timed out, possibly due to connection lost",
            ),
            (RequestError::MemberNotFound, Code::NotFound, "etcdserver: member not found"),
            (
                RequestError::NotEnoughStartedMembers,
                Code::Unknown,
                "etcdserver: re-configuration failed due to not enough started members",
            ),
            (RequestError::LeaseExists, Code::FailedPrecondition, "etcdserver: lease already exists"),
        ] {
            let status = status(&error);
            assert_eq!((status.code(), status.message()), (code, text));
        }
    }
}
