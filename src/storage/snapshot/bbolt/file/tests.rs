//! Files as the writer beside makes them, whole and damaged in every byte.

use super::*;
use crate::env::MemDisk;
use crate::storage::snapshot::bbolt::pages::BboltWriter;

const PATH: &str = "/d/db";

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// A disk with a file of three buckets; the middle one has a pair for each number.
fn disk(count: u32, value_bytes: usize) -> (MemDisk, Pairs) {
    let disk = MemDisk::new();
    disk.create_dir_all(Path::new("/d")).unwrap();
    let file = disk.open(Path::new(PATH), Access::CreateNew).unwrap();
    let mut out = BboltWriter::new(file);
    out.bucket("alpha", std::iter::once((&b"one"[..], &b"1"[..]))).unwrap();
    let pairs: Pairs =
        (0..count).map(|at| (at.to_be_bytes().to_vec(), vec![at as u8; value_bytes * (at as usize % 3 + 1)])).collect();
    out.bucket("key", pairs.iter().map(|(key, value)| (&key[..], &value[..]))).unwrap();
    out.bucket("meta", std::iter::empty()).unwrap();
    out.finish().unwrap();
    (disk, pairs)
}

fn all(file: &BboltFile, bucket: &[u8]) -> Result<Option<Pairs>, BboltError> {
    let mut pairs = Pairs::new();
    let is_there = file.each(bucket, |key, value| {
        pairs.push((key.to_vec(), value.to_vec()));
        Ok::<_, BboltError>(())
    })?;
    Ok(is_there.then_some(pairs))
}

#[test]
fn what_was_written_is_read() {
    // A tree of one page, of two levels, of three, and one of values that take pages of their own.
    for (count, bytes) in [(0, 1), (3, 10), (2_000, 20), (60_000, 1), (50, 9_000)] {
        let (disk, pairs) = disk(count, bytes);
        let file = BboltFile::open(&disk, Path::new(PATH)).unwrap();
        assert_eq!(file.buckets().unwrap(), [&b"alpha"[..], b"key", b"meta"]);
        assert_eq!(all(&file, b"key").unwrap(), Some(pairs));
        assert_eq!(all(&file, b"meta").unwrap(), Some(vec![]));
        assert_eq!(all(&file, b"none").unwrap(), None);
        assert_eq!(file.get(b"alpha", b"one").unwrap(), Some(b"1".to_vec()));
        let mut progress = 0;
        let checked = file.check(&mut |bytes| progress += bytes).unwrap();
        assert_eq!((checked.buckets, checked.pairs, checked.bytes), (3, u64::from(count) + 1, progress));
        assert_eq!(file.size(), disk.bytes(Path::new(PATH)).unwrap().len() as u64);
    }
}

/// With each byte turned round, the file is refused, or read to its end: never a panic, never without end. No key
/// comes twice.
#[test]
fn any_byte_may_be_wrong() {
    let (disk, pairs) = disk(150, 6);
    let path = Path::new(PATH);
    let whole = disk.bytes(path).unwrap();
    let (mut refused, mut found) = (0, 0);
    // Of the room that nothing is in, a few will do.
    for at in (0..whole.len()).filter(|at| whole[*at] != 0 || at % 64 < 8) {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            disk.set_bytes(path, bytes);
            let Ok(file) = BboltFile::open(&disk, path) else {
                refused += 1;
                continue;
            };
            found += usize::from(file.check(&mut |_| ()).is_err());
            if let Ok(Some(read)) = all(&file, b"key") {
                assert!(read.is_sorted_by(|a, b| a.0 < b.0) && read.len() <= pairs.len(), "byte {at}");
            }
        }
    }
    assert_eq!(refused, 0, "one of the meta pages is always whole");
    assert!(found > 1_000, "only {found} of the damaged files are said to be so");
}

#[test]
fn a_file_that_is_cut_short_is_refused() {
    let (disk, _) = disk(300, 12);
    let path = Path::new(PATH);
    let whole = disk.bytes(path).unwrap();
    for len in (0..whole.len()).step_by(13) {
        disk.set_bytes(path, whole[..len].to_vec());
        let opened = BboltFile::open(&disk, path);
        assert!(matches!(opened, Err(BboltError::Foreign(_) | BboltError::Damaged { .. })), "cut at {len}");
    }
}

/// One whole meta page is enough, and the newer of two counts.
#[test]
fn the_newer_whole_meta_page_counts() {
    let (disk, _) = disk(10, 12);
    let path = Path::new(PATH);
    let whole = disk.bytes(path).unwrap();
    for page in 0..2 {
        let mut bytes = whole.clone();
        bytes[page * 4096..][..4096].fill(0);
        disk.set_bytes(path, bytes);
        let file = BboltFile::open(&disk, path).unwrap();
        assert_eq!(file.meta.transaction, 1 - page as u64);
        file.check(&mut |_| ()).unwrap();
    }
    let mut bytes = whole;
    bytes[..8192].fill(0);
    disk.set_bytes(path, bytes);
    assert!(matches!(BboltFile::open(&disk, path), Err(BboltError::Foreign(_))));
}

/// Pages that lead to themselves, to each other, or to one page twice.
#[test]
fn circles_end() {
    let (disk, _) = disk(2_000, 20);
    let path = Path::new(PATH);
    let whole = disk.bytes(path).unwrap();
    let branches: Vec<_> = (2..whole.len() / 4096).filter(|page| whole[page * 4096 + 8] == 1).collect();
    assert!(!branches.is_empty());
    for branch in branches {
        for (element, target) in [(0, branch as u64), (1, 3), (0, 0), (0, u64::MAX), (1, branch as u64 - 1)] {
            let mut bytes = whole.clone();
            let at = branch * 4096 + 16 + element * 16 + 8;
            bytes[at..at + 8].copy_from_slice(&target.to_le_bytes());
            disk.set_bytes(path, bytes);
            let file = BboltFile::open(&disk, path).unwrap();
            assert!(matches!(all(&file, b"key"), Err(BboltError::Damaged { .. })), "{branch} {element} {target}");
            assert!(file.check(&mut |_| ()).is_err());
        }
    }
}

/// A walk holds a page of each level: they must be small.
#[test]
fn a_page_of_branches_is_bounded() {
    let (disk, _) = disk(2_000, 20);
    let path = Path::new(PATH);
    let mut bytes = disk.bytes(path).unwrap();
    let branch = (2..bytes.len() / 4096).find(|page| bytes[page * 4096 + 8] == 1).unwrap() * 4096;
    for (overflow, says) in [(255u32, "its overflow is out of bounds"), (256, "it takes more pages")] {
        bytes[branch + 12..branch + 16].copy_from_slice(&overflow.to_le_bytes());
        disk.set_bytes(path, bytes.clone());
        let refused = all(&BboltFile::open(&disk, path).unwrap(), b"key").unwrap_err().to_string();
        assert!(refused.contains(says), "{refused}");
    }
}

#[test]
fn arbitrary_bytes_never_panic() {
    bolero::check!().with_iterations(2_000).for_each(|bytes: &[u8]| {
        let (disk, _) = disk(1, 1);
        disk.set_bytes(Path::new(PATH), bytes.to_vec());
        assert!(BboltFile::open(&disk, Path::new(PATH)).is_err());
    });
}

#[test]
fn the_last_key_is_found_without_the_others() {
    for count in [0, 1, 2_000, 60_000] {
        let (disk, pairs) = disk(count, 3);
        let file = BboltFile::open(&disk, Path::new(PATH)).unwrap();
        assert_eq!(file.last_key(b"key").unwrap(), pairs.last().map(|(key, _)| key.clone()));
        assert_eq!(file.last_key(b"none").unwrap(), None);
    }
}
