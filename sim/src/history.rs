//! What clients asked, when, and what they were told.

use bytes::Bytes;

use crate::ledger::Kv;

/// Simulated time since the beginning.
pub type Micros = u64;

/// What a client asks.
#[derive(Clone, Debug)]
pub enum Call {
    /// Write a key; the value is this write's own.
    Put {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
        /// The lease; 0 is none.
        lease: i64,
    },
    /// Delete the keys with a prefix (one key, mostly).
    Delete {
        /// The prefix.
        prefix: Bytes,
    },
    /// If all compares hold: write, delete and read; else only read.
    Txn {
        /// Keys, and the revision in which each was last changed (0: it isn't there).
        compares: Vec<(Bytes, i64)>,
        /// Keys and values.
        puts: Vec<(Bytes, Bytes)>,
        /// Keys that go; none of those that are put, and only beside one that is.
        deletes: Vec<Bytes>,
        /// Keys that are read, after the writes.
        reads: Vec<Bytes>,
    },
    /// Read the keys with a prefix.
    Get {
        /// The prefix.
        prefix: Bytes,
        /// From whatever the member has.
        serializable: bool,
        /// As of this revision; 0 is the newest.
        revision: i64,
    },
    /// Begin a lease.
    Grant {
        /// Its number, never used before.
        id: i64,
        /// Its seconds.
        ttl: i64,
    },
    /// Renew a lease.
    KeepAlive {
        /// Which.
        id: i64,
    },
    /// End a lease.
    Revoke {
        /// Which.
        id: i64,
    },
    /// Forget what is older.
    Compact {
        /// The oldest that stays.
        revision: i64,
    },
}

/// What a member answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a put, a revoke and a compaction: the header's revision.
    Done {
        /// It.
        revision: i64,
    },
    /// To a delete.
    Deleted {
        /// The header's.
        revision: i64,
        /// How many keys went.
        count: i64,
    },
    /// To a transaction.
    Txn {
        /// The header's.
        revision: i64,
        /// Whether the compares held.
        held: bool,
        /// What was read.
        found: Vec<Kv>,
    },
    /// To a read.
    Found {
        /// The header's.
        revision: i64,
        /// The pairs, in order.
        kvs: Vec<Kv>,
    },
    /// To a grant or a renewal: seconds left, 0 if the lease is gone.
    Lease {
        /// They.
        ttl: i64,
    },
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer.
    Ok(Answer),
    /// Refused: it has changed nothing and never will.
    Failed(String),
    /// Nobody knows.
    Unknown(String),
}

/// One call.
#[derive(Clone, Debug)]
pub struct Op {
    /// Who.
    pub client: usize,
    /// At which member.
    pub member: usize,
    /// At which of its lives.
    pub boot: u64,
    /// What.
    pub call: Call,
    /// When it began.
    pub invoked: Micros,
    /// When it ended.
    pub returned: Micros,
    /// How.
    pub outcome: Outcome,
}
