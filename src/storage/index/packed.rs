//! `Packed`: a key's versions as bytes, right behind the key in its leaf.
//!
//! ```text
//! number of versions u8, bit 7 if there are more out of line · the newest · the others, as in `delta`
//! newest: widths u16 · main · sub · puts (0 for a tombstone) · main - create · lease zigzag · hash u64
//! ```
//!
//! Each number has as many bytes as it needs, so that the newest version is 13 to 20 bytes, an older one
//! mostly 4, and a leaf full of them is copied by one `memcpy`. Since the newest's hash comes last, eight
//! bytes can be loaded from where any number begins, and no branch depends on the content. More than a few
//! versions don't fit: the older ones are out of line, in `History`.

use smallvec::SmallVec;

use super::Version;
use super::delta::Older;
use super::entry::{Entry, RECENT_MAX, Summary};
use super::history::History;
use super::spilled::Spill;
use super::version::KeyMeta;
use crate::types::{LeaseId, Revision};

/// In the number of versions: there are more out of line.
const MORE: u8 = 0x80;

/// The bytes of an entry while they are made.
pub(super) type Buffer = SmallVec<[u8; 128]>;

/// An entry as it lies in its leaf.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packed<'a> {
    bytes: &'a [u8],
    older: Spill<'a, History>,
}

impl<'a> Packed<'a> {
    pub(super) fn new(bytes: &'a [u8], older: Spill<'a, History>) -> Self {
        Self { bytes, older }
    }

    /// The newest version, a tombstone included.
    pub(super) fn head(self) -> Version {
        head(self.bytes)
    }

    /// The newest version at main revision `at`, tombstones included.
    pub(super) fn at(self, at: i64) -> Option<Version> {
        let found = self.versions().find(|version| version.main() <= at);
        found.or_else(|| self.older()?.at(at))
    }

    /// The version that lives now (`None`) or at a main revision.
    pub(super) fn live_at(self, at: Option<i64>) -> Option<Version> {
        at.map_or_else(|| Some(self.head()), |main| self.at(main)).filter(Version::is_live)
    }

    /// Where the oldest version was written.
    pub(super) fn oldest(self) -> Revision {
        let oldest = self.older().and_then(History::oldest);
        oldest.or_else(|| self.versions().last().map(|version| version.modified())).unwrap_or_default()
    }

    /// How many versions there are.
    pub(super) fn len(self) -> usize {
        self.inline() + self.older().map_or(0, History::len)
    }

    pub(super) fn summary(self) -> Summary {
        summary(self.bytes)
    }

    pub(super) fn to_entry(self) -> Entry {
        let (head, recent) = split(self.bytes);
        let older = self.older().cloned().unwrap_or_default();
        Entry { head, recent: Buffer::from_slice(recent), recent_len: self.inline().saturating_sub(1), older }
    }

    fn inline(self) -> usize {
        (count(self.bytes) & !MORE).into()
    }

    fn older(self) -> Option<&'a History> {
        if count(self.bytes) & MORE == 0 { None } else { self.older.get() }
    }

    /// Those that are inline, newest first.
    fn versions(self) -> impl Iterator<Item = Version> + use<'a> {
        let (head, recent) = split(self.bytes);
        std::iter::once(head).chain(Older::new(head, recent))
    }
}

impl Entry {
    /// The entry's bytes; its older versions stay apart.
    pub(super) fn write(&self, out: &mut Buffer) {
        const { assert!(RECENT_MAX + 1 < MORE as usize) };
        let more = if self.older.is_empty() { 0 } else { MORE };
        out.push((self.recent_len as u8 + 1) | more);
        write_version(out, &self.head);
        out.extend_from_slice(&self.recent);
    }
}

/// What an entry of these bytes adds to the sums; reads no more of the newest version than that takes.
pub(super) fn summary(bytes: &[u8]) -> Summary {
    let newest = bytes.get(1..).unwrap_or_default();
    let widths = word(newest, 0) as usize;
    let class = |place: usize| widths >> (3 * place) & 7;
    // A number of no bytes is 0, and a version of no puts a tombstone.
    let is_live = class(PUTS) != 0;
    let hash_at = (0..NUMBERS).fold(WIDTHS_BYTES, |at, place| at + WIDTHS[class(place)]);
    let garbage = count(bytes) > 1 || !is_live;
    Summary { live: is_live.into(), digest: if is_live { word(newest, hash_at) } else { 0 }, garbage: garbage.into() }
}

fn count(bytes: &[u8]) -> u8 {
    bytes.first().copied().unwrap_or(0)
}

fn head(bytes: &[u8]) -> Version {
    split(bytes).0
}

/// The newest version, and the bytes of the others that are here.
fn split(bytes: &[u8]) -> (Version, &[u8]) {
    let mut rest = bytes.get(1..).unwrap_or_default();
    (read_version(&mut rest), rest)
}

/// Bytes of `widths`.
const WIDTHS_BYTES: usize = 2;
/// Numbers that `widths` is of, and which of them says how many puts there were.
const NUMBERS: usize = 5;
const PUTS: usize = 2;
/// How many bytes a number may have; three bits of `widths` are a place in this list.
const WIDTHS: [usize; 8] = [0, 1, 2, 3, 4, 5, 6, 8];
/// The bits of a number of that width.
const MASKS: [u64; 8] = [0, 0xff, 0xffff, 0xff_ffff, 0xffff_ffff, 0xff_ffff_ffff, 0xffff_ffff_ffff, u64::MAX];

fn write_version(out: &mut Buffer, version: &Version) {
    let at = version.modified();
    let lease = version.lease();
    let created = if version.is_live() { at.main.wrapping_sub(version.create()) } else { 0 };
    let numbers = [at.main, at.sub, version.version(), created, lease << 1 ^ lease >> 63].map(i64::cast_unsigned);
    let start = out.len();
    let mut widths = 0_u16;
    out.extend_from_slice(&[0; 2]);
    for (place, number) in numbers.into_iter().enumerate() {
        let class = MASKS.partition_point(|mask| *mask < number);
        widths |= (class as u16) << (3 * place);
        out.extend_from_slice(&number.to_le_bytes()[..WIDTHS[class]]);
    }
    out[start..start + 2].copy_from_slice(&widths.to_le_bytes());
    out.extend_from_slice(&version.hash().to_le_bytes());
}

fn read_version(bytes: &mut &[u8]) -> Version {
    let widths = word(bytes, 0);
    let mut at = WIDTHS_BYTES;
    let number = |place: usize, at: &mut usize| {
        let class = (widths >> (3 * place)) as usize & 7;
        let number = word(bytes, *at) & MASKS[class];
        *at += WIDTHS[class];
        number.cast_signed()
    };
    let main = number(0, &mut at);
    let sub = number(1, &mut at);
    let version = number(PUTS, &mut at);
    let created = number(3, &mut at);
    let lease = number(4, &mut at).cast_unsigned();
    let hash = word(bytes, at);
    *bytes = bytes.get(at + 8..).unwrap_or_default();
    let modified = Revision::new(main, sub);
    if version == 0 {
        return Version::tombstone(modified);
    }
    let lease = LeaseId((lease >> 1).cast_signed() ^ -(lease & 1).cast_signed());
    Version::put(KeyMeta { create: main.wrapping_sub(created), modified, version, lease }, hash)
}

/// Eight bytes as a number. There always are so many, since a hash follows; it would read as 0.
fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |first| u64::from_le_bytes(*first))
}

#[cfg(test)]
mod tests {
    use super::super::spilled::Spilled;
    use super::*;

    #[test]
    fn every_number_comes_back() {
        let numbers = [0, 1, 127, 128, 1 << 32, i64::MAX - 1, i64::MAX];
        let mut versions: Vec<Version> = Vec::new();
        for main in numbers {
            for other in numbers {
                let meta = KeyMeta {
                    create: other,
                    modified: Revision::new(main, other.min(u32::MAX.into())),
                    version: other.max(1),
                    lease: LeaseId(other),
                };
                versions.push(Version::put(meta, other.cast_unsigned().wrapping_mul(3)));
                versions.push(Version::put(KeyMeta { lease: LeaseId(-other - 1), ..meta }, u64::MAX));
                versions.push(Version::tombstone(meta.modified));
            }
        }
        for version in &versions {
            let mut bytes = Buffer::new();
            Entry::new(*version).write(&mut bytes);
            let live = u64::from(version.is_live());
            assert_eq!(summary(&bytes), Summary { live, digest: version.hash(), garbage: 1 - live });
        }
        for group in versions.chunks(3) {
            let entry = Entry::from_ascending(group).unwrap();
            let mut bytes = Buffer::new();
            entry.write(&mut bytes);
            let none = Spilled::default();
            let packed = Packed::new(&bytes, none.get(0));
            assert_eq!(packed.head(), group[2]);
            let want = [group[0].with_hash(0), group[1].with_hash(0), group[2]];
            assert_eq!(packed.to_entry().ascending(), want);
            assert_eq!(packed.len(), 3);
        }
    }

    #[test]
    fn versions_out_of_line_are_found_too() {
        let versions: Vec<_> = (1..40).map(|main| Version::tombstone(Revision::new(main * 2, 0))).collect();
        let entry = Entry::from_ascending(&versions).unwrap();
        let mut bytes = Buffer::new();
        entry.write(&mut bytes);
        let mut spilled = Spilled::default();
        spilled.set(3, Some(entry.older));
        let packed = Packed::new(&bytes, spilled.get(3));
        assert_eq!((packed.len(), packed.to_entry().ascending()), (39, versions));
        for at in 2..100 {
            assert_eq!(packed.at(at).map(|version| version.main()), Some((at / 2 * 2).min(78)));
        }
        assert_eq!(packed.at(1), None);
    }
}
