//! Flags that bound what clients may ask for at a time.

use super::super::{parse_duration, value};
use super::{BadValue, Flag, Kind};

/// rusd's own; etcd bounds only a request's size, a transaction's operations and a connection's streams.
pub(super) const FLAGS: &[Flag] = &[
    Flag {
        name: "max-connections",
        kind: Kind::Number,
        default: "0",
        help: "most connections of clients, more wait; 0 is as many as there may be open files for",
        set: |config, text| {
            config.bounds.max_connections = value::integer(text)?;
            Ok(())
        },
    },
    Flag {
        name: "max-connections-per-address",
        kind: Kind::Number,
        default: "0",
        help: "most connections from one address, more are closed; 0 is no bound",
        set: |config, text| {
            config.bounds.max_connections_per_address = value::integer(text)?;
            Ok(())
        },
    },
    Flag {
        name: "max-open-requests",
        kind: Kind::Number,
        default: "131072",
        help: "most requests of all clients at a time, streams among them; more are refused",
        set: |config, text| {
            config.bounds.max_open_requests = count(text)?;
            Ok(())
        },
    },
    Flag {
        name: "max-pending-proposals",
        kind: Kind::Number,
        default: "5000",
        help: "most writes that wait for their outcome; more are refused",
        set: |config, text| {
            config.bounds.max_pending_proposals = count(text)?;
            Ok(())
        },
    },
    Flag {
        name: "max-watchers",
        kind: Kind::Number,
        default: "4000000",
        help: "most watchers of all streams; more are refused",
        set: |config, text| {
            config.bounds.max_watchers = count(text)?;
            Ok(())
        },
    },
    Flag {
        name: "max-watchers-per-stream",
        kind: Kind::Number,
        default: "1000000",
        help: "most watchers of one stream; more are refused",
        set: |config, text| {
            config.bounds.max_watchers_per_stream = count(text)?;
            Ok(())
        },
    },
    Flag {
        name: "watch-keys-mb",
        kind: Kind::Number,
        default: "256",
        help: "keys of watchers (one stream: a quarter), and as much for locks, in MiB",
        set: |config, text| {
            config.bounds.watch_keys_bytes = count(text)?.saturating_mul(1 << 20);
            Ok(())
        },
    },
    Flag {
        name: "max-leases",
        kind: Kind::Number,
        default: "5000000",
        help: "most leases; a further one isn't granted",
        set: |config, text| {
            config.bounds.max_leases = count(text)?;
            Ok(())
        },
    },
    Flag {
        name: "max-users",
        kind: Kind::Number,
        default: "10000",
        help: "most users; a further one isn't added",
        set: |config, text| {
            config.bounds.max_users = count(text)?;
            Ok(())
        },
    },
    Flag {
        name: "max-roles",
        kind: Kind::Number,
        default: "10000",
        help: "most roles; a further one isn't added",
        set: |config, text| {
            config.bounds.max_roles = count(text)?;
            Ok(())
        },
    },
    Flag {
        name: "users-and-roles-mb",
        kind: Kind::Number,
        default: "64",
        help: "users, roles and the keys of each user's permissions, in MiB; more are refused",
        set: |config, text| {
            config.bounds.users_and_roles_bytes = count(text)?.saturating_mul(1 << 20);
            Ok(())
        },
    },
    Flag {
        name: "max-lock-waiters",
        kind: Kind::Number,
        default: "16384",
        help: "most calls that wait for a lock or to be elected; more are refused",
        set: |config, text| {
            config.bounds.max_lock_waiters = count(text)?;
            Ok(())
        },
    },
    Flag {
        name: "max-pending-logins",
        kind: Kind::Number,
        default: "256",
        help: "most logins that wait for the check of their password; more are refused",
        set: |config, text| {
            config.bounds.max_pending_logins = count(text)?;
            Ok(())
        },
    },
    Flag {
        name: "max-pending-logins-per-connection",
        kind: Kind::Number,
        default: "16",
        help: "most of them on one connection",
        set: |config, text| {
            config.bounds.max_pending_logins_per_connection = count(text)?;
            Ok(())
        },
    },
    Flag {
        name: "client-write-timeout",
        kind: Kind::Duration,
        default: "1m",
        help: "how long a client may take nothing of what it asked for; then it is cut off",
        set: |config, text| {
            config.bounds.client_write_timeout = parse_duration(text)?;
            Ok(())
        },
    },
];

/// A bound below which nothing would work; 0 is 1.
fn count(text: &str) -> Result<usize, BadValue> {
    value::integer::<usize>(text).map(|count| count.max(1))
}
