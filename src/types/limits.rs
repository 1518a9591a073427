//! Every limit that a request can run into, with etcd's defaults.

use std::time::Duration;

/// Bounds on requests and on what they may hold. One value is made from the flags at start.
#[derive(Clone, Debug)]
pub struct Limits {
    /// `--max-request-bytes`: the largest command that may enter the log, in bytes.
    pub request_bytes_max: usize,
    /// `--max-txn-ops`: the most compares or operations of one transaction.
    pub txn_ops_max: usize,
    /// `--quota-backend-bytes`: logical size from which writes are refused; `None` is no quota.
    pub quota_bytes: Option<u64>,
    /// How long a proposal or a read barrier may wait (5 s and twice the election timeout).
    pub request_timeout: Duration,
    /// `--max-pending-proposals`: the most proposals under way; further ones get `too many requests`.
    pub proposals_pending_max: usize,
    /// `--max-open-requests`: the most requests of all clients, streams among them, until their answers are
    /// written; one connection may have half of them.
    pub requests_open_max: usize,
    /// `--max-leases`: the most leases that there may be for one more to be granted.
    pub leases_max: usize,
    /// `--max-users`: the most users that there may be after one more is added.
    pub users_max: usize,
    /// `--max-roles`: the same of roles.
    pub roles_max: usize,
    /// `--users-and-roles-mb`: bytes of the rows of users and roles, and of the keys of each user's roles' permissions; what
    /// makes them more is refused.
    pub auth_bytes_max: usize,
    /// `--max-lock-waiters`: the most calls that wait for a lock or to be elected.
    pub lock_waiters_max: usize,
    /// `--max-pending-logins`: the most logins that wait for their password to be checked.
    pub logins_pending_max: usize,
    /// `--max-pending-logins-per-connection`: the same of one connection.
    pub logins_per_connection_max: usize,
    /// `--max-watchers`: the most watchers of all streams.
    pub watchers_max: usize,
    /// `--max-watchers-per-stream`.
    pub stream_watchers_max: usize,
    /// `--watch-keys-mb`: bytes of the keys and range ends of all watchers, of which one stream may have a
    /// quarter; as many again of the names that calls of locks and elections hold while they wait or observe.
    pub watch_ranges_bytes_max: usize,
    /// `--pending-requests-mb`: bytes of requests that are being received, and of those that wait for the log;
    /// further ones get `too many requests`.
    pub requests_pending_bytes_max: usize,
    /// `--request-arrival-timeout`: how long the message of a call with one may take to come, and on a
    /// stream any message that has begun.
    pub request_arrival_max: Duration,
    /// `--pending-answers-mb`: bytes of large answers that wait for their clients to read them; likewise.
    pub answers_pending_bytes_max: usize,
    /// The longest lease, in seconds.
    pub lease_ttl_secs_max: i64,
    /// The shortest lease, in seconds; shorter ones are raised to it.
    pub lease_ttl_secs_min: i64,
    /// Bytes of events that may wait for one watch stream before it falls back to history.
    pub watch_stream_bytes_max: usize,
}

impl Limits {
    /// What the transport takes beyond `request_bytes_max`, as etcd has it.
    pub const TRANSPORT_OVERHEAD_BYTES: usize = 512 * 1024;
    /// Default of `requests_pending_bytes_max`.
    pub const REQUESTS_BYTES_DEFAULT: usize = 128 * 1024 * 1024;
    /// Default of `answers_pending_bytes_max`.
    pub const ANSWERS_BYTES_DEFAULT: usize = 512 * 1024 * 1024;
    /// What part of them there is besides for answers to writes: who reads much and takes nothing must not stop those who write.
    pub const WRITE_ANSWERS_PART: usize = 4;
    /// The largest answer: grpc-go's limit of 2 GiB less one byte.
    pub const ANSWER_BYTES_MAX: usize = i32::MAX as usize;
    /// The most that one write gathers to answer with (reads in a transaction, pairs that it deletes): writes wait
    /// meanwhile. The same on every member, since a write beyond it is refused when it is applied.
    pub const WRITE_ANSWER_BYTES_MAX: usize = 512 * 1024 * 1024;
    /// The longest row of a user or a role, with its name, that grows any longer: what etcd would take as one request, and so
    /// far below what a snapshot takes that some members may let one grow at the same time.
    pub const AUTH_ROW_BYTES_MAX: usize = 2 * 1024 * 1024;
    /// etcd's default quota.
    pub const QUOTA_BYTES_DEFAULT: u64 = 2 * 1024 * 1024 * 1024;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes_max: 1_572_864,
            txn_ops_max: 128,
            quota_bytes: Some(Self::QUOTA_BYTES_DEFAULT),
            request_timeout: Duration::from_secs(7),
            proposals_pending_max: 5_000,
            requests_open_max: 131_072,
            leases_max: 5_000_000,
            users_max: 10_000,
            roles_max: 10_000,
            auth_bytes_max: 64 * 1024 * 1024,
            lock_waiters_max: 16_384,
            logins_pending_max: 256,
            logins_per_connection_max: 16,
            watchers_max: 4_000_000,
            stream_watchers_max: 1_000_000,
            watch_ranges_bytes_max: 256 * 1024 * 1024,
            requests_pending_bytes_max: Self::REQUESTS_BYTES_DEFAULT,
            request_arrival_max: Duration::from_secs(60),
            answers_pending_bytes_max: Self::ANSWERS_BYTES_DEFAULT,
            lease_ttl_secs_max: 9_000_000_000,
            lease_ttl_secs_min: 2,
            watch_stream_bytes_max: 4 * 1024 * 1024,
        }
    }
}
