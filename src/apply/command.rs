//! `Command`: what enters the Raft log, and `Outcome`: what every member answers to it.
//!
//! These are our own types with our own encoding (`apply::codec`): the wire may change, the log
//! may not. A command holds everything that its result depends on besides the state (ids and
//! times are chosen before it is proposed), so that applying it is the same on every member.

use bytes::Bytes;

use crate::auth::{AuthOp, AuthView, Caller};
use crate::storage::{RangeQuery, RangeResult};
use crate::types::{KeyRange, KeyValue, LeaseId, MemberId, RaftIndex, RequestError};

/// One change to the replicated state.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Put one key.
    Put(PutOp),
    /// Delete a range.
    DeleteRange(DeleteOp),
    /// Compare and change in one revision.
    Txn(TxnOp),
    /// Forget history below a revision.
    Compact {
        /// The lowest revision that stays readable.
        revision: i64,
    },
    /// Create a lease.
    LeaseGrant {
        /// Its id, chosen by the client or by the proposer; never 0.
        id: LeaseId,
        /// Granted time to live in seconds, already raised to the minimum.
        ttl_secs: i64,
    },
    /// End one lease at a client's wish; an error if there is none.
    LeaseRevoke {
        /// Which.
        id: LeaseId,
    },
    /// End many leases that ran out, in one entry; each that has keys makes one revision, those already gone are skipped.
    LeaseExpire {
        /// Which, in the order in which they end.
        ids: Vec<LeaseId>,
    },
    /// Remember how long leases have left.
    LeaseCheckpoint {
        /// Lease and remaining seconds.
        remaining: Vec<(LeaseId, i64)>,
    },
    /// Raise or clear an alarm.
    Alarm(AlarmOp),
    /// Change users, roles, or what authentication does.
    Auth(AuthOp),
    /// One of the others on somebody's behalf: whether they may is looked at where it is applied, since that may
    /// have changed meanwhile. What comes without is nobody's, and refused while authentication is on.
    As(Box<OnBehalf>),
}

impl Command {
    /// This command as `caller` wishes it.
    pub fn by(self, caller: Caller) -> Self {
        match caller {
            Caller::Nobody => self,
            caller => Self::As(Box::new(OnBehalf { caller, command: self })),
        }
    }

    /// This command as this cluster itself wishes it. Without authentication that is not written down.
    pub fn by_member(self, auth: &AuthView) -> Self {
        if auth.look().is_enabled() { self.by(Caller::Member) } else { self }
    }

    /// What is to be done, whoever wishes it.
    pub fn plain(&self) -> &Self {
        match self {
            Self::As(on_behalf) => &on_behalf.command,
            plain => plain,
        }
    }
}

/// A command with who wishes it.
#[derive(Clone, Debug, PartialEq)]
pub struct OnBehalf {
    /// Who.
    pub caller: Caller,
    /// What; never itself on somebody's behalf.
    pub command: Command,
}

/// A put.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutOp {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The lease, or none (which detaches).
    pub lease: LeaseId,
    /// Return the pair before.
    pub prev_kv: bool,
    /// Keep the value that is there.
    pub ignore_value: bool,
    /// Keep the lease that is there.
    pub ignore_lease: bool,
}

/// A delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteOp {
    /// Which keys.
    pub range: KeyRange,
    /// Return the deleted pairs.
    pub prev_kv: bool,
}

/// A transaction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TxnOp {
    /// All must hold (an empty list holds).
    pub compares: Vec<Compare>,
    /// Done if they hold.
    pub success: Vec<Op>,
    /// Done if not.
    pub failure: Vec<Op>,
}

/// One operation inside a transaction.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Read.
    Range(RangeQuery),
    /// Put.
    Put(PutOp),
    /// Delete.
    Delete(DeleteOp),
    /// A transaction inside.
    Txn(TxnOp),
}

/// One condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// Which keys it must hold for.
    pub range: KeyRange,
    /// How to compare.
    pub result: CompareResult,
    /// With what.
    pub target: CompareTarget,
}

/// How a compare relates the stored to the given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompareResult {
    /// =
    Equal,
    /// >
    Greater,
    /// <
    Less,
    /// ≠
    NotEqual,
    /// A number that etcd doesn't know: always true there, and here.
    Unknown,
}

/// What is compared, with the given side (0 or empty where the wire had another union member).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompareTarget {
    /// The version.
    Version(i64),
    /// The creation revision.
    Create(i64),
    /// The modification revision.
    Mod(i64),
    /// The value.
    Value(Bytes),
    /// The lease.
    Lease(i64),
    /// A number that etcd doesn't know: the comparison's result counts as "equal".
    Unknown,
}

/// Raise or clear an alarm (a GET is a read and never proposed).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlarmOp {
    /// Raise it, or clear it.
    pub activate: bool,
    /// For which member (not checked, as in etcd).
    pub member: MemberId,
    /// Which; `None` changes nothing.
    pub kind: Option<AlarmKind>,
}

/// The alarms there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlarmKind {
    /// The quota is used up.
    NoSpace,
    /// State was found to differ, and nobody knows whose is right.
    Corrupt,
    /// This member's state was found to differ from the majority's. It alone doesn't serve; clients see `CORRUPT`.
    Diverged,
}

/// A command's deterministic answer and the store's revision right after it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The answer, or why it was refused (then nothing was changed).
    pub result: Result<Response, RequestError>,
    /// For the response's header.
    pub revision: i64,
}

impl Outcome {
    /// Bytes of the pairs that it tells.
    pub fn pair_bytes(&self) -> usize {
        match &self.result {
            Ok(Response::Put(put)) => put.prev_kv.as_ref().map_or(0, pair_bytes),
            Ok(Response::DeleteRange(delete)) => delete.prev_kvs.iter().map(pair_bytes).sum(),
            Ok(Response::Txn(txn)) => txn.pair_bytes(),
            _ => 0,
        }
    }

    /// Lets go of the pairs that it tells: nobody is going to be told.
    pub fn forget_pairs(&mut self) {
        match &mut self.result {
            Ok(Response::Put(put)) => put.prev_kv = None,
            Ok(Response::DeleteRange(delete)) => delete.prev_kvs = Vec::new(),
            Ok(Response::Txn(txn)) => txn.forget_pairs(),
            _ => {}
        }
    }
}

/// What a pair takes in memory, in bytes.
fn pair_bytes(pair: &KeyValue) -> usize {
    size_of::<KeyValue>() + pair.key.len() + pair.value.len()
}

/// What a command answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// To a put.
    Put(PutResult),
    /// To a delete.
    DeleteRange(DeleteResult),
    /// To a transaction.
    Txn(TxnResult),
    /// To a compaction.
    Compact,
    /// To a grant.
    LeaseGrant {
        /// The lease.
        id: LeaseId,
        /// Seconds granted.
        ttl_secs: i64,
    },
    /// To a revoke, an expiry or a checkpoint.
    Lease,
    /// To an alarm: the alarms that the request names (after etcd's rules), as member and kind.
    Alarm(Vec<(MemberId, AlarmKind)>),
    /// To a change of users or roles.
    Auth,
    /// To a token: the entry that gave it out, which is part of it.
    Token(RaftIndex),
}

/// A put's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutResult {
    /// The pair before, if asked for and there.
    pub prev_kv: Option<KeyValue>,
}

/// A delete's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteResult {
    /// How many keys went.
    pub deleted: i64,
    /// Them, if asked for.
    pub prev_kvs: Vec<KeyValue>,
}

/// A transaction's answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TxnResult {
    /// Whether the compares held.
    pub succeeded: bool,
    /// One answer for each operation that ran.
    pub responses: Vec<OpResult>,
}

impl TxnResult {
    fn pair_bytes(&self) -> usize {
        let of = |response: &OpResult| match response {
            OpResult::Range { result, .. } => result.kvs.iter().map(pair_bytes).sum(),
            OpResult::Put { result, .. } => result.prev_kv.as_ref().map_or(0, pair_bytes),
            OpResult::Delete { result, .. } => result.prev_kvs.iter().map(pair_bytes).sum(),
            OpResult::Txn(txn) => txn.pair_bytes(),
        };
        self.responses.iter().map(of).sum()
    }

    fn forget_pairs(&mut self) {
        for response in &mut self.responses {
            match response {
                OpResult::Range { result, .. } => result.kvs = Vec::new(),
                OpResult::Put { result, .. } => result.prev_kv = None,
                OpResult::Delete { result, .. } => result.prev_kvs = Vec::new(),
                OpResult::Txn(txn) => txn.forget_pairs(),
            }
        }
    }
}

/// One operation's answer, with the revision for its nested header.
#[derive(Clone, Debug, PartialEq)]
pub enum OpResult {
    /// To a read.
    Range {
        /// What it found.
        result: RangeResult,
        /// Its header's revision.
        revision: i64,
    },
    /// To a put.
    Put {
        /// What it was.
        result: PutResult,
        /// Its header's revision.
        revision: i64,
    },
    /// To a delete.
    Delete {
        /// What went.
        result: DeleteResult,
        /// Its header's revision.
        revision: i64,
    },
    /// To a transaction inside (its header is all zero on the wire).
    Txn(TxnResult),
}
