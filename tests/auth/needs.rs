//! What each call needs, method by method: the other half of the matrix.

use crate::callers::Kind;

/// What a call needs of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing at all.
    Nothing,
    /// Nothing, but a token that is shown must be one.
    GoodTokenIfAny,
    /// To be a user.
    User,
    /// To be root.
    Root,
    /// To be root, or this one.
    RootOr(Kind),
    /// To read (0) or write (1) these keys: first key and end.
    Keys(&'static [(u8, &'static str, &'static str)]),
}

const K: (u8, &str, &str) = (0, "k", "");
const WRITE_K: (u8, &str, &str) = (1, "k", "");
const X: (u8, &str, &str) = (0, "x", "");
const WRITE_X: (u8, &str, &str) = (1, "x", "");

/// Whether a kind of caller that is a user has what a call needs.
pub(crate) fn has(kind: Kind, need: Need) -> bool {
    match need {
        Need::Nothing | Need::GoodTokenIfAny | Need::User => true,
        Need::Root => kind == Kind::Root,
        Need::RootOr(other) => kind == Kind::Root || kind == other,
        Need::Keys(keys) => {
            kind == Kind::Root || keys.iter().all(|needed| kind.grant().is_some_and(|grant| covers(grant, *needed)))
        }
    }
}

/// Whether one grant covers one need, whose ends are as on the wire.
fn covers((kind, start, end): (i32, &str, &str), (write, key, range_end): (u8, &str, &str)) -> bool {
    let right = kind == 2 || kind == i32::from(write);
    let inside = match (end, range_end) {
        ("", "") => key == start,
        ("", _) => false,
        ("\0", _) => key >= start,
        (end, "") => key >= start && key < end,
        (_, "\0") => false,
        (end, range_end) => key >= start && range_end <= end,
    };
    right && inside
}

/// Calls of a method: what is sent, and what that needs. Empty for a method that nobody thought of.
pub(crate) fn of(method: &str) -> &'static [(&'static str, Need)] {
    use Need::{GoodTokenIfAny, Keys, Nothing, Root, RootOr, User};
    match method {
        "KV.Range" | "KV.RangeStream" => &[
            ("key: 'k'", Keys(&[K])),
            ("key: 'x'", Keys(&[X])),
            ("key: 'k' count_only: true", Keys(&[K])),
            ("key: 'k' serializable: true", Keys(&[K])),
            ("key: 'a' range_end: 'm'", Keys(&[(0, "a", "m")])),
            ("key: 'a' range_end: 'n'", Keys(&[(0, "a", "n")])),
            ("key: 'k' range_end: '\\x00'", Keys(&[(0, "k", "\0")])),
            ("key: '\\x00' range_end: '\\x00' keys_only: true", Keys(&[(0, "\0", "\0")])),
        ],
        "KV.Put" => &[
            ("key: 'k' value: '1'", Keys(&[WRITE_K])),
            ("key: 'x' value: '1'", Keys(&[WRITE_X])),
            ("key: 'k' value: '1' prev_kv: true", Keys(&[WRITE_K, K])),
            ("key: 'k' ignore_value: true", Keys(&[WRITE_K])),
            ("key: 'k' value: '1' ignore_lease: true", Keys(&[WRITE_K])),
            ("key: 'x' value: '1' ignore_lease: true prev_kv: true", Keys(&[WRITE_X, X])),
            ("key: 'k' value: '1' lease: 101", Keys(&[WRITE_K])),
            ("key: 'k' value: '1' lease: 102", Keys(&[WRITE_K, WRITE_X])),
        ],
        "KV.DeleteRange" => &[
            ("key: 'k'", Keys(&[WRITE_K])),
            ("key: 'k' prev_kv: true", Keys(&[WRITE_K, K])),
            ("key: 'a' range_end: 'm'", Keys(&[(1, "a", "m")])),
            ("key: 'a' range_end: '\\x00'", Keys(&[(1, "a", "\0")])),
        ],
        "KV.Txn" => &[
            ("compare { key: 'k' target: VERSION }", Keys(&[K])),
            ("compare { key: 'x' target: VERSION }", Keys(&[X])),
            ("compare { key: 'a' range_end: 'm' target: VERSION }", Keys(&[(0, "a", "m")])),
            ("compare { key: 'a' range_end: '\\x00' target: VERSION }", Keys(&[(0, "a", "\0")])),
            ("success { request_range { key: 'k' } } failure { request_range { key: 'k' } }", Keys(&[K])),
            ("success { request_range { key: 'k' } } failure { request_range { key: 'x' } }", Keys(&[K, X])),
            ("success { request_put { key: 'k' value: '1' } }", Keys(&[WRITE_K])),
            ("failure { request_put { key: 'x' value: '1' } }", Keys(&[WRITE_X])),
            ("success { request_put { key: 'k' value: '1' prev_kv: true } }", Keys(&[WRITE_K, K])),
            ("success { request_put { key: 'k' value: '1' lease: 102 } }", Keys(&[WRITE_K, WRITE_X])),
            ("success { request_delete_range { key: 'k' prev_kv: true } }", Keys(&[WRITE_K, K])),
            (
                "success { request_txn { failure { request_txn { failure { request_put { key: 'x' } } } } } }",
                Keys(&[WRITE_X]),
            ),
            (
                "success { request_txn { success { request_put { key: 'k' value: '1' prev_kv: true } } } }",
                Keys(&[WRITE_K, K]),
            ),
            (
                "failure { request_txn { failure { request_put { key: 'k' value: '1' lease: 102 } } } }",
                Keys(&[WRITE_K, WRITE_X]),
            ),
            (
                "success { request_txn { failure { request_txn { success { request_put { key: 'k' value: '1' prev_kv: true } } } } } }",
                Keys(&[WRITE_K, K]),
            ),
            (
                "failure { request_txn { success { request_txn { failure { request_put { key: 'k' value: '1' lease: 102 } } } } } }",
                Keys(&[WRITE_K, WRITE_X]),
            ),
            (
                "success { request_txn { success { request_txn { success { request_put { key: 'x' value: '1' ignore_lease: true } } } } } }",
                Keys(&[WRITE_X]),
            ),
            (
                "success { request_txn { success { request_txn { success { request_delete_range { key: 'k' prev_kv: true } } } } } }",
                Keys(&[WRITE_K, K]),
            ),
            ("success { request_txn { success { request_range { key: 'x' } } } }", Keys(&[X])),
            ("success { request_txn { success { request_delete_range { key: 'x' } } } }", Keys(&[WRITE_X])),
            (
                "failure { request_txn { success { request_txn { compare { key: 'x' target: VERSION } } } } }",
                Keys(&[X]),
            ),
        ],
        "KV.Compact" => &[("revision: 1", Root), ("revision: 99999", Root)],
        "Watch.Watch" => &[
            ("create_request { key: 'k' }", Keys(&[K])),
            ("create_request { key: 'x' prev_kv: true }", Keys(&[X])),
            ("create_request { key: 'a' range_end: 'm' start_revision: 1 }", Keys(&[(0, "a", "m")])),
            ("create_request { key: 'k' range_end: '\\x00' }", Keys(&[(0, "k", "\0")])),
            ("create_request { range_end: '\\x00' }", Keys(&[(0, "\0", "\0")])),
        ],
        "Lease.LeaseGrant" => &[("TTL: 60", User)],
        "Lease.LeaseTimeToLive" => &[
            ("ID: 102", User),
            ("ID: 101 keys: true", Keys(&[K])),
            ("ID: 102 keys: true", Keys(&[X])),
            ("ID: 103 keys: true", User),
        ],
        "Lease.LeaseLeases" => &[("", Keys(&[K, X]))],
        "Lease.LeaseKeepAlive" => {
            &[("ID: 101", Keys(&[WRITE_K])), ("ID: 102", Keys(&[WRITE_X])), ("ID: 103", User), ("ID: 999", User)]
        }
        "Lease.LeaseRevoke" => {
            &[("ID: 102", Keys(&[WRITE_X])), ("ID: 101", Keys(&[WRITE_K])), ("ID: 103", User), ("ID: 999", User)]
        }
        "Cluster.MemberList" => &[("", User), ("linearizable: true", User)],
        "Cluster.MemberAdd" => &[("peerURLs: 'http://127.0.0.1:1' isLearner: true", Root)],
        "Cluster.MemberRemove" | "Cluster.MemberPromote" => &[("ID: 5", Root)],
        "Cluster.MemberUpdate" => &[("ID: 5 peerURLs: 'http://127.0.0.1:1'", Root)],
        "Maintenance.Alarm" => {
            &[("action: GET", User), ("action: ACTIVATE memberID: 5", Root), ("action: DEACTIVATE memberID: 5", Root)]
        }
        "Maintenance.Status" => &[("", User)],
        "Maintenance.Defragment" | "Maintenance.Hash" | "Maintenance.HashKV" | "Maintenance.Snapshot" => &[("", Root)],
        "Maintenance.MoveLeader" => &[("targetID: 5", Root)],
        "Maintenance.Downgrade" => &[
            ("action: VALIDATE version: '3.6'", Root),
            // What it has begun is cancelled at once.
            ("action: ENABLE version: '3.6'", Root),
            ("action: CANCEL", Root),
        ],
        "Auth.AuthStatus" => &[("", GoodTokenIfAny)],
        "Auth.Authenticate" => &[("name: 'nobody' password: 'x'", Nothing)],
        "Auth.AuthEnable" => &[("", Root)],
        // By root it would end the test.
        "Auth.AuthDisable" => &[("", Root)],
        "Auth.UserAdd" => &[("name: 'root' password: 'x'", Root)],
        "Auth.UserGet" => &[("name: 'root'", Root), ("name: 'ReadOne'", RootOr(Kind::ReadOne))],
        "Auth.UserList" | "Auth.RoleList" => &[("", Root)],
        "Auth.UserDelete" | "Auth.UserChangePassword" => &[("name: 'nobody'", Root)],
        "Auth.UserGrantRole" => &[("user: 'nobody' role: 'root'", Root)],
        "Auth.UserRevokeRole" => &[("name: 'nobody' role: 'root'", Root)],
        "Auth.RoleAdd" => &[("name: 'Range'", Root)],
        "Auth.RoleGet" => &[("role: 'nothing'", Root), ("role: 'ReadOne'", RootOr(Kind::ReadOne))],
        "Auth.RoleDelete" | "Auth.RoleRevokePermission" => &[("role: 'nothing'", Root)],
        "Auth.RoleGrantPermission" => &[("name: 'nothing' perm { key: 'k' }", Root)],
        // Their refusals come as Unknown: of those, the conversations and `tests/golden` know.
        "Lock.Lock" => &[("name: 'k' lease: 104", Keys(&[(1, "k/68", ""), (0, "k/", "k0")]))],
        "Lock.Unlock" => &[("key: 'k'", Keys(&[WRITE_K]))],
        "Election.Campaign" => &[("name: 'k' lease: 104", Keys(&[(1, "k/68", ""), (0, "k/", "k0")]))],
        "Election.Leader" => &[("name: 'z'", Keys(&[(0, "z/", "z0")]))],
        "Election.Proclaim" => &[("leader { name: 'k' key: 'k' rev: 1 }", Keys(&[WRITE_K, K]))],
        "Election.Resign" => &[("leader { name: 'k' key: 'k' rev: 1 }", Keys(&[WRITE_K, K]))],
        // There is a key below it.
        "Election.Observe" => &[("name: 'y'", Keys(&[(0, "y/", "y0")]))],
        "Health.Check" | "Health.List" | "Health.Watch" => &[("", Nothing)],
        _ => &[],
    }
}
