//! A key's superseded versions as bytes, newest first, each as what differs from the one after it.
//!
//! ```text
//! version: flags u8 · main as difference varint · [sub varint] · [main - create zigzag varint]
//!          · [puts varint] · [lease zigzag varint]
//! ```
//!
//! A put over a put of the same generation and lease is 4 bytes or 5. A newer version is
//! written before all others, and the oldest ones are cut off at the end: what stays isn't touched.
//! A superseded version's digest isn't here: who wants it reads the record's head.

use super::Version;
use super::packed::Buffer;
use super::version::KeyMeta;
use crate::storage::backend::codec::{unzigzag, zigzag};
use crate::types::{LeaseId, Revision};

/// It ends a generation: of the rest there is nothing.
const TOMBSTONE: u8 = 1;
/// A sub follows; else it is 0.
const SUB: u8 = 2;
/// The creation follows; else it is that of the version after.
const CREATED: u8 = 4;
/// The number of puts follows; else it is one less than that of the version after.
const COUNTED: u8 = 8;
/// A lease follows; else it is that of the version after.
const LEASED: u8 = 16;

/// Adds `version`, which `next` took the place of.
pub(super) fn write(out: &mut Buffer, version: &Version, next: &Version) {
    let (at, after) = (version.modified(), next.modified());
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    let mut flags = flag(at.sub != 0, SUB) | flag(!version.is_live(), TOMBSTONE);
    if version.is_live() {
        flags |= flag(version.create() != next.create(), CREATED);
        flags |= flag(version.version().wrapping_add(1) != next.version(), COUNTED);
        flags |= flag(version.lease() != next.lease(), LEASED);
    }
    out.push(flags);
    put_varint(out, after.main.wrapping_sub(at.main).cast_unsigned());
    if flags & SUB != 0 {
        put_varint(out, at.sub.cast_unsigned());
    }
    if flags & CREATED != 0 {
        put_varint(out, zigzag(at.main.wrapping_sub(version.create())));
    }
    if flags & COUNTED != 0 {
        put_varint(out, version.version().cast_unsigned());
    }
    if flags & LEASED != 0 {
        put_varint(out, zigzag(version.lease()));
    }
}

/// Reads such bytes: the versions, newest first.
#[derive(Clone, Debug)]
pub(super) struct Older<'a> {
    next: Version,
    rest: &'a [u8],
}

impl<'a> Older<'a> {
    /// Of the versions before `next`.
    pub(super) fn new(next: Version, bytes: &'a [u8]) -> Self {
        Self { next, rest: bytes }
    }

    /// The bytes that weren't read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl Iterator for Older<'_> {
    type Item = Version;

    fn next(&mut self) -> Option<Version> {
        let (&flags, rest) = self.rest.split_first()?;
        self.rest = rest;
        let next = self.next;
        let main = next.main().wrapping_sub(self.varint().cast_signed());
        let sub = if flags & SUB != 0 { self.varint().cast_signed() } else { 0 };
        let modified = Revision::new(main, sub);
        if flags & TOMBSTONE != 0 {
            self.next = Version::tombstone(modified);
            return Some(self.next);
        }
        let create = if flags & CREATED != 0 { main.wrapping_sub(unzigzag(self.varint())) } else { next.create() };
        let version = if flags & COUNTED != 0 { self.varint().cast_signed() } else { next.version().wrapping_sub(1) };
        let lease = LeaseId(if flags & LEASED != 0 { unzigzag(self.varint()) } else { next.lease() });
        self.next = Version::put(KeyMeta { create, modified, version, lease }, 0);
        Some(self.next)
    }
}

impl Older<'_> {
    /// A number; bytes that end in it read as zeros.
    fn varint(&mut self) -> u64 {
        let (mut number, mut shift) = (0, 0);
        while let Some((&byte, rest)) = self.rest.split_first() {
            self.rest = rest;
            number |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 || shift > 63 {
                break;
            }
        }
        number
    }
}

fn put_varint(out: &mut Buffer, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(main: i64, create: i64, version: i64, lease: i64) -> Version {
        let modified = Revision::new(main, main & 3);
        Version::put(KeyMeta { create, modified, version, lease: LeaseId(lease) }, 0)
    }

    #[test]
    fn every_number_comes_back() {
        let numbers = [0, 1, 127, 128, 1 << 32, i64::MAX - 1, i64::MAX];
        let mut versions = vec![put(i64::MAX, 5, 6, 7)];
        for main in numbers.iter().rev() {
            for other in numbers {
                versions.push(put(*main, other, other.max(1), other));
                versions.push(put(*main, *main, 1, -other));
                versions.push(Version::tombstone(Revision::new(*main, 9)));
            }
        }
        let mut bytes = Buffer::new();
        for pair in versions.windows(2) {
            write(&mut bytes, &pair[1], &pair[0]);
        }
        assert_eq!(Older::new(versions[0], &bytes).collect::<Vec<_>>(), versions[1..]);
    }

    #[test]
    fn an_overwritten_put_is_small() {
        let (old, new) = (put(1_000_000, 900, 17, 0), put(2_000_000, 900, 18, 0));
        let mut bytes = Buffer::new();
        write(&mut bytes, &old, &new);
        assert_eq!(bytes.len(), 4);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic() {
        bolero::check!().with_type::<Vec<u8>>().for_each(|bytes| {
            assert!(Older::new(put(9, 1, 2, 3), bytes).count() <= bytes.len());
        });
    }
}
