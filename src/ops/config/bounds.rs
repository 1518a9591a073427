//! `Bounds`: how much clients may ask for at a time; rusd's own flags beside etcd's few.

use std::time::Duration;

/// Bounds on clients. A field is named as its flag.
#[derive(Clone, Debug, Default)]
pub struct Bounds {
    /// `--max-connections`: of all clients; 0 leaves it to the limit of open files.
    pub max_connections: usize,
    /// `--max-connections-per-address`: of one client's address; 0 is no bound.
    pub max_connections_per_address: usize,
    /// `--max-open-requests`: requests of all clients, streams among them.
    pub max_open_requests: usize,
    /// `--max-pending-proposals`: writes that wait for their outcome.
    pub max_pending_proposals: usize,
    /// `--max-watchers`: of all streams.
    pub max_watchers: usize,
    /// `--max-watchers-per-stream`.
    pub max_watchers_per_stream: usize,
    /// `--watch-keys-mb`, in bytes: keys and range ends of all watchers, and again names of calls that wait for locks.
    pub watch_keys_bytes: usize,
    /// `--max-leases`.
    pub max_leases: usize,
    /// `--max-users`.
    pub max_users: usize,
    /// `--max-roles`.
    pub max_roles: usize,
    /// `--users-and-roles-mb`, in bytes: their rows, and the keys of what each user may do.
    pub users_and_roles_bytes: usize,
    /// `--max-lock-waiters`: calls that wait for a lock or to be elected.
    pub max_lock_waiters: usize,
    /// `--max-pending-logins`: logins that wait for their password to be checked.
    pub max_pending_logins: usize,
    /// `--max-pending-logins-per-connection`.
    pub max_pending_logins_per_connection: usize,
    /// `--client-write-timeout`: how long a client may take nothing of what is there for it.
    pub client_write_timeout: Duration,
}
