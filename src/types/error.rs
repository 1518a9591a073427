//! The error family: what a request can be refused for, and what can go wrong with the disk.
//!
//! `RequestError` is part of the deterministic result of a command: every member gives the same
//! one. `api` maps it to a gRPC code and etcd's exact text, and nothing else does.

use std::io;
use std::path::PathBuf;

/// Why a request was refused. The texts are etcd's, since clients compare them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// An empty key.
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    /// A put that keeps the value or the lease of a key that isn't there; an empty operation in a txn.
    #[error("etcdserver: key not found")]
    KeyNotFound,
    /// `ignore_value` with a value.
    #[error("etcdserver: value is provided")]
    ValueProvided,
    /// `ignore_lease` with a lease.
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    /// More compares or operations than `Limits::txn_ops_max`.
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    /// Two changes to one key in one txn.
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    /// An unknown sort order or target.
    #[error("etcdserver: invalid sort option")]
    InvalidSortOption,
    /// `client-api-version` metadata that is not text.
    #[error("etcdserver: invalid client api version")]
    InvalidClientApiVersion,
    /// A read or a compaction below the compacted revision.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    /// A read or a compaction above the current revision.
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    /// The quota is used up, or the NOSPACE alarm is on.
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    /// No such lease.
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    /// A grant with the id of a living lease.
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    /// A TTL above `Limits::lease_ttl_secs_max`.
    #[error("etcdserver: too large lease TTL")]
    LeaseTtlTooLarge,
    /// The CORRUPT alarm is on.
    #[error("etcdserver: corrupt cluster")]
    Corrupt,
    /// A command larger than `Limits::request_bytes_max`.
    #[error("etcdserver: request is too large")]
    RequestTooLarge,
    /// An answer that no client could take, or that would hold too much; grpc-go's text.
    #[error("grpc: trying to send message larger than max ({bytes} vs. {max})")]
    AnswerTooLarge {
        /// Its bytes, as far as it was made.
        bytes: usize,
        /// The most that there may be.
        max: usize,
    },
    /// More proposals under way than `Limits::proposals_pending_max`.
    #[error("etcdserver: too many requests")]
    TooManyRequests,
    /// No leader is known.
    #[error("etcdserver: no leader")]
    NoLeader,
    /// The leader changed while a read waited.
    #[error("etcdserver: leader changed")]
    LeaderChanged,
    /// The server is going down.
    #[error("etcdserver: server stopped")]
    Stopped,
    /// Not done within `Limits::request_timeout`.
    #[error("etcdserver: request timed out")]
    Timeout,
    /// Not done in time, and begun shortly before another leader was elected.
    #[error("etcdserver: request timed out, possibly due to previous leader failure")]
    TimeoutLeaderFailure,
    /// Not done in time, and the leader was out of touch meanwhile.
    #[error("etcdserver: request timed out, possibly due to connection lost")]
    TimeoutConnectionLost,
    /// Not done within `Limits::request_timeout`, and no leader was known.
    #[error("context deadline exceeded")]
    DeadlineExceeded,
    /// A transfer of leadership to nobody.
    #[error("etcdserver: bad leader transferee")]
    BadLeaderTransferee,
    /// A request for the leader came to another member.
    #[error("etcdserver: not leader")]
    NotLeader,
    /// A transfer of leadership that didn't come about in time.
    #[error("etcdserver: request timed out, leader transfer took too long")]
    LeaderTransferTimeout,
    /// No such member, or one that was removed.
    #[error("etcdserver: member not found")]
    MemberNotFound,
    /// A member that is added has the id of another one.
    #[error("etcdserver: member ID already exist")]
    MemberExists,
    /// Another member has one of the peer URLs.
    #[error("etcdserver: Peer URLs already exists")]
    PeerUrlExists,
    /// Peer URLs that are none, or not one.
    #[error("etcdserver: given member URLs are invalid")]
    BadMemberUrls,
    /// Too few members would have started for the quorum that there would be.
    #[error("etcdserver: re-configuration failed due to not enough started members")]
    NotEnoughStartedMembers,
    /// The leader hasn't been in touch with enough members for long enough.
    #[error("etcdserver: unhealthy cluster")]
    UnhealthyCluster,
    /// Only a learner becomes a voter.
    #[error("etcdserver: can only promote a learner member")]
    NotLearner,
    /// The learner lacks too much of the log.
    #[error("etcdserver: can only promote a learner member which is in sync with leader")]
    LearnerNotReady,
    /// More learners than `--max-learners`.
    #[error("etcdserver: too many learner members in cluster")]
    TooManyLearners,
    /// The root user is to turn authentication on, and isn't there.
    #[error("etcdserver: root user does not exist")]
    RootUserNotFound,
    /// It is there without its role.
    #[error("etcdserver: root user does not have root role")]
    RootRoleNotGranted,
    /// A user that is added is there.
    #[error("etcdserver: user name already exists")]
    UserExists,
    /// A user without a name; a request without a user while authentication is on.
    #[error("etcdserver: user name is empty")]
    UserEmpty,
    /// No such user.
    #[error("etcdserver: user name not found")]
    UserNotFound,
    /// A role that is added is there.
    #[error("etcdserver: role name already exists")]
    RoleExists,
    /// No such role.
    #[error("etcdserver: role name not found")]
    RoleNotFound,
    /// A role without a name.
    #[error("etcdserver: role name is empty")]
    RoleEmpty,
    /// An unknown user, or a wrong password: which of them isn't told.
    #[error("etcdserver: authentication failed, invalid user ID or password")]
    AuthFailed,
    /// A password for a user that has none; the text is that of etcd's own error, which it doesn't map.
    #[error("auth: authentication failed, password was given for no password user")]
    NoPasswordUser,
    /// A password of more than 72 bytes; Go's text.
    #[error("bcrypt: password length exceeds 72 bytes")]
    PasswordTooLong,
    /// Log in where only the public key is known.
    #[error("auth: token signing attempted with verify-only key")]
    VerifyOnlyKey,
    /// A grant of nothing.
    #[error("etcdserver: permission not given")]
    PermissionNotGiven,
    /// The user's roles don't allow it.
    #[error("etcdserver: permission denied")]
    PermissionDenied,
    /// A role is to be taken from a user that hasn't it.
    #[error("etcdserver: role is not granted to the user")]
    RoleNotGranted,
    /// A permission is to be taken from a role that hasn't it.
    #[error("etcdserver: permission is not granted to the role")]
    PermissionNotGranted,
    /// Log in while authentication is off.
    #[error("etcdserver: authentication is not enabled")]
    AuthNotEnabled,
    /// A token that is none, or is over.
    #[error("etcdserver: invalid auth token")]
    AuthTokenInvalid,
    /// A change that would lock everybody out, or a range of keys that is none.
    #[error("etcdserver: invalid auth management")]
    AuthManagementInvalid,
    /// Users or roles were changed since the caller was let in.
    #[error("etcdserver: revision of auth store is old")]
    AuthRevisionOld,
    /// An enum value or method that is not known.
    #[error("etcdserver: unknown method")]
    UnknownMethod,
    /// The disk failed under a read; the text is for the operator.
    #[error("rusd: storage failed: {0}")]
    Storage(String),
}

/// What can go wrong below the request: files, engines, damaged bytes.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The operating system refused a file operation.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried, as a verb ("write", "fsync").
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Bytes on disk are not what was written.
    #[error("damaged data in {path} at byte {offset}: {what}")]
    Damaged {
        /// The file or directory.
        path: PathBuf,
        /// Where in it; 0 where the engine can't tell.
        offset: u64,
        /// What was found.
        what: String,
    },
    /// The disk has no room left.
    #[error("no space left for {path}")]
    Full {
        /// Where it was needed.
        path: PathBuf,
    },
    /// The engine reported something else.
    #[error("{engine}: {message}")]
    Engine {
        /// "sled" or "redb".
        engine: &'static str,
        /// Its text.
        message: String,
    },
    /// The data directory is of another engine, format or member.
    #[error("{0}")]
    Mismatch(String),
    /// Used after it was closed or after a failure that ended it.
    #[error("storage is closed: {0}")]
    Closed(String),
}

impl StorageError {
    /// Wraps an I/O error with what was tried and where; a full disk, or one of which a user's part is full, becomes [`StorageError::Full`].
    pub fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            Self::Full { path }
        } else {
            Self::Io { action, path, source }
        }
    }
}

impl StorageError {
    /// What doesn't say that anything is damaged, where that isn't sure: a machine that stood still may be the reason.
    #[must_use]
    pub fn undecided(self) -> Self {
        match self {
            Self::Damaged { .. } => Self::Closed(self.to_string()),
            other => other,
        }
    }
}

impl From<StorageError> for RequestError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error.to_string())
    }
}
