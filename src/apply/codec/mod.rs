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

mod decode;
mod encode;
mod sink;
mod source;

use bytes::{Bytes, BytesMut};

use super::Command;
use sink::{Count, Sink};
use source::Source;

/// The version that this build writes.
const VERSION: u8 = 1;

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
    #[error("unknown command version {0}; this build reads version {VERSION}")]
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
    out.byte(VERSION);
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
    let commands = commands.into_iter();
    out.byte(VERSION);
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

fn open(bytes: Bytes) -> Result<Source, CodecError> {
    let mut source = Source::new(bytes);
    match source.byte("its version")? {
        VERSION => Ok(source),
        other => Err(CodecError::UnknownVersion(other)),
    }
}

#[cfg(test)]
mod tests;
