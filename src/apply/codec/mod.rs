//! The bytes of commands in the Raft log: our own, versioned, independent of the wire.
//!
//! ```text
//! command = version(1) body
//! batch   = version(1) count body*
//! body    = kind(1) fields          fields: `put`, `txn`, `range`, `lease` below
//! ```
//! Numbers are LEB128 varints (signed ones zigzag), ids are 8 bytes little-endian, byte strings
//! carry their length in front. Decoding takes keys and values as slices of the input, so an
//! entry is not copied; whoever keeps a key for long must copy it, or the whole entry stays.
//! Every count, length and depth is checked against what is there: arbitrary bytes give an error.
//!
//! A new field or kind means a new version byte; old versions stay readable.

mod auth;
mod decode;
mod encode;
mod sink;
mod source;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::Command;
use sink::{Count, Sink};
use source::Source;

/// The first version. What has no part in authentication is written in it still, so that members of a build
/// before can read it.
const VERSION_1: u8 = 1;
/// With users, roles, and commands on somebody's behalf.
const VERSION: u8 = 2;

/// How deep transactions may nest, the outermost counted. etcd's budget of operations ends at 129 levels
/// unless `--max-txn-ops` is raised, and its wire at 5000; each level takes stack wherever a command goes.
pub const TXN_DEPTH_MAX: usize = 256;

/// Kinds of commands, in the byte after the version.
mod kind {
    pub(super) const PUT: u8 = 1;
    pub(super) const DELETE_RANGE: u8 = 2;
    pub(super) const TXN: u8 = 3;
    pub(super) const COMPACT: u8 = 4;
    pub(super) const LEASE_GRANT: u8 = 5;
    pub(super) const LEASE_REVOKE: u8 = 6;
    pub(super) const LEASE_EXPIRE: u8 = 7;
    pub(super) const LEASE_CHECKPOINT: u8 = 8;
    pub(super) const ALARM: u8 = 9;
    pub(super) const AUTH: u8 = 10;
    pub(super) const AS: u8 = 11;
}

/// Kinds of changes of users and roles.
mod auth_kind {
    pub(super) const ENABLE: u8 = 1;
    pub(super) const DISABLE: u8 = 2;
    pub(super) const USER_ADD: u8 = 3;
    pub(super) const USER_DELETE: u8 = 4;
    pub(super) const USER_CHANGE_PASSWORD: u8 = 5;
    pub(super) const USER_GRANT_ROLE: u8 = 6;
    pub(super) const USER_REVOKE_ROLE: u8 = 7;
    pub(super) const ROLE_ADD: u8 = 8;
    pub(super) const ROLE_DELETE: u8 = 9;
    pub(super) const ROLE_GRANT: u8 = 10;
    pub(super) const ROLE_REVOKE: u8 = 11;
    pub(super) const ISSUE: u8 = 12;
}

/// Kinds of callers.
mod caller_kind {
    pub(super) const MEMBER: u8 = 1;
    pub(super) const USER: u8 = 2;
}

/// Kinds of operations inside a transaction.
mod op_kind {
    pub(super) const RANGE: u8 = 1;
    pub(super) const PUT: u8 = 2;
    pub(super) const DELETE: u8 = 3;
    pub(super) const TXN: u8 = 4;
}

/// Bits of a put's first byte.
mod put_flag {
    pub(super) const PREV_KV: u8 = 1;
    pub(super) const IGNORE_VALUE: u8 = 2;
    pub(super) const IGNORE_LEASE: u8 = 4;
    pub(super) const LEASE: u8 = 8;
}

/// Bits of a range read's first byte: plain ones, and those that say which fields follow.
mod range_flag {
    pub(super) const KEYS_ONLY: u8 = 1;
    pub(super) const COUNT_ONLY: u8 = 2;
    pub(super) const LIMIT: u8 = 4;
    pub(super) const REVISION: u8 = 8;
    pub(super) const SORT: u8 = 16;
    pub(super) const FILTERS: u8 = 32;
}

/// Why bytes are no command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// There are fewer bytes than a field needs.
    #[error("a command ends in the middle of {0}")]
    Truncated(&'static str),
    /// Written by a newer build, or no command at all.
    #[error("unknown command version {0}; this build reads versions 1 to {VERSION}")]
    UnknownVersion(u8),
    /// A number that names nothing.
    #[error("unknown {what} {number} in a command")]
    Unknown {
        /// What it should have named.
        what: &'static str,
        /// The number.
        number: u8,
    },
    /// A varint of more than 64 bits.
    #[error("a number in a command is longer than 64 bits")]
    NumberTooLong,
    /// A count that the bytes after it can't hold.
    #[error("a command says {count} {what}, more than its bytes can hold")]
    CountTooLarge {
        /// Of what.
        what: &'static str,
        /// How many.
        count: u64,
    },
    /// Transactions nested deeper than [`TXN_DEPTH_MAX`].
    #[error("a command nests transactions deeper than {TXN_DEPTH_MAX}")]
    TooDeep,
    /// A name that isn't UTF-8.
    #[error("a name in a command is no text")]
    NoText,
    /// Bytes after the end.
    #[error("{0} bytes after the end of a command")]
    Trailing(usize),
}

/// How many bytes [`encode`] makes of it; this is the size that `Limits::request_bytes_max` bounds.
pub fn encoded_len(command: &Command) -> usize {
    let mut count = Count::default();
    encode::command(&mut count, command);
    1 + count.0
}

/// One command as bytes.
pub fn encode(command: &Command) -> Bytes {
    let mut out = BytesMut::with_capacity(encoded_len(command));
    out.byte(version_of([command]));
    encode::command(&mut out, command);
    out.freeze()
}

/// Reads what [`encode`] made.
///
/// # Errors
/// A [`CodecError`] for anything else.
pub fn decode(bytes: Bytes) -> Result<Command, CodecError> {
    let mut source = open(bytes)?;
    let command = decode::command(&mut source)?;
    source.end()?;
    Ok(command)
}

/// Appends several commands as one entry's payload, in order.
pub fn encode_batch<'a>(
    commands: impl IntoIterator<Item = &'a Command, IntoIter: ExactSizeIterator>,
    out: &mut BytesMut,
) {
    let commands: SmallVec<[&Command; 16]> = commands.into_iter().collect();
    out.byte(version_of(commands.iter().copied()));
    out.varint(commands.len() as u64);
    for command in commands {
        encode::command(out, command);
    }
}

/// Reads what [`encode_batch`] made.
///
/// # Errors
/// A [`CodecError`] for anything else.
pub fn decode_batch(bytes: Bytes) -> Result<Vec<Command>, CodecError> {
    let mut source = open(bytes)?;
    let commands = source.list("commands", 2, decode::command)?;
    source.end()?;
    Ok(commands)
}

/// The lowest version that has words for all of these.
fn version_of<'a>(commands: impl IntoIterator<Item = &'a Command>) -> u8 {
    let is_new = |command: &Command| matches!(command, Command::Auth(_) | Command::As(_));
    if commands.into_iter().any(is_new) { VERSION } else { VERSION_1 }
}

fn open(bytes: Bytes) -> Result<Source, CodecError> {
    let mut source = Source::new(bytes);
    match source.byte("its version")? {
        VERSION_1 | VERSION => Ok(source),
        other => Err(CodecError::UnknownVersion(other)),
    }
}

#[cfg(test)]
mod tests;
