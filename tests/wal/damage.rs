//! Every bit flipped, every length cut: noticed or harmless, never other data, never a panic.

use std::path::{Path, PathBuf};

use rusd::env::{CrashStyle, Disk, MemDisk};
use rusd::types::RaftIndex;
use rusd::wal::{Recovered, WalError};

use super::rig::{DIR, Rig, View, entry, id, small};

/// The files of a log and the states that it went through, one for each record.
struct Written {
    disk: MemDisk,
    files: Vec<PathBuf>,
    states: Vec<View>,
}

/// A few groups over a few segments, with every kind of record; ended cleanly or not.
fn written(is_clean: bool) -> Written {
    end(Rig::new(small()), is_clean, false)
}

/// The same on a file system that has no writes past the page cache.
fn cached(is_clean: bool) -> Written {
    let rig = Rig::new(small());
    rig.disk.set_cached_only();
    end(rig, is_clean, false)
}

/// The same in files that were used before, by entries far below.
fn recycled(is_clean: bool) -> Written {
    let mut rig = Rig::new(small());
    let (wal, _) = rig.open().unwrap();
    for index in 0..40 {
        wal.append(vec![entry(1, index, 90)], |_| {});
        rig.run();
        wal.purge_to(id(1, index), |_| {});
    }
    rig.run();
    rig.close(wal);
    end(rig, is_clean, true)
}

fn end(mut rig: Rig, is_clean: bool, is_recycled: bool) -> Written {
    let (wal, _) = rig.open().unwrap();
    let start = View::of(&wal);
    let base = start.next_index();
    let mut states = vec![start];
    let mut change = |change: &dyn Fn(&mut View)| {
        let mut next: View = states.last().cloned().unwrap_or_default();
        change(&mut next);
        states.push(next);
    };
    for round in 0..5u64 {
        let first = base + round * 3;
        let entries: Vec<_> = (first..first + 4).map(|index| entry(round + 1, index, 60)).collect();
        if round > 0 {
            wal.truncate_after(Some(RaftIndex(first - 1)), |_| {});
            change(&|view| view.truncate_after(Some(first - 1)));
        }
        for entry in &entries {
            change(&|view| view.entries.push(entry.clone()));
        }
        wal.append(entries, |_| {});
        let vote = bytes::Bytes::from(format!("vote {round}"));
        change(&|view| view.vote = Some(vote.clone()));
        wal.save_vote(vote, |_| {});
        rig.run();
    }
    for index in [base + 16, base + 17] {
        wal.append(vec![entry(9, index, 500)], |_| {});
        change(&|view| view.entries.push(entry(9, index, 500)));
        // A purge that comes before the keeper has made a file gives it one: the next is recycled.
        if !is_recycled {
            rig.run();
        }
        let purged = id(index - base - 13, base + 3 * (index - base - 14));
        wal.purge_to(purged, |_| {});
        change(&|view| view.purge_to(purged));
        rig.run();
    }
    for index in [base + 18, base + 19] {
        wal.append(vec![entry(9, index, 20)], |_| {});
        change(&|view| view.entries.push(entry(9, index, 20)));
        rig.run();
    }
    assert_eq!(&View::of(&wal), states.last().unwrap());
    if is_clean {
        rig.close(wal);
    } else {
        rig.crash(wal, CrashStyle::LoseAll);
    }
    let files = rig.files();
    assert!(files.len() >= 3, "{files:?}");
    Written { disk: rig.disk, files, states }
}

/// Opens a copy with one file changed; what it gives must be a state that was.
fn try_with(written: &Written, path: &Path, bytes: Vec<u8>) -> Result<(View, Recovered), WalError> {
    let disk = written.disk.fork();
    disk.set_bytes(path, bytes);
    let mut rig = Rig::on(disk, small());
    let (wal, recovered) = rig.open()?;
    let view = View::of(&wal);
    assert!(written.states.contains(&view), "made up: {view:?}");
    Ok((view, recovered))
}

#[test]
fn every_flipped_bit_is_noticed_or_harmless() {
    for (written, is_clean, is_recycled) in [
        (written(true), true, false),
        (written(false), false, false),
        (cached(false), false, false),
        (recycled(true), true, true),
        (recycled(false), false, true),
    ] {
        let full = written.states.last().unwrap();
        let flags = written.disk.bytes(written.files.last().unwrap()).unwrap()[36];
        assert_eq!(flags == 1, is_recycled, "the last file is of the kind that is tried");
        let (mut refused, mut cut) = (0, 0);
        for path in &written.files {
            let good = written.disk.bytes(path).unwrap();
            let is_last = path == written.files.last().unwrap();
            for at in 0..good.len() {
                let mut bytes = good.clone();
                bytes[at] ^= 1 << (at % 8);
                match try_with(&written, path, bytes) {
                    Err(WalError::Damaged { path: named, .. }) => {
                        refused += 1;
                        assert!(named == *path || !is_last, "{named:?} for a flip in {path:?}");
                    }
                    Err(WalError::Format { .. }) => refused += 1,
                    Err(other) => panic!("{other}"),
                    Ok((view, recovered)) if &view == full => {
                        let is_behind = good[at..].iter().all(|byte| *byte == 0);
                        assert!(is_last || recovered.cut.is_none(), "byte {at} of {path:?}");
                        assert!(
                            !is_last || is_recycled || !is_behind || recovered.cut.is_some(),
                            "byte {at} of {path:?}"
                        );
                    }
                    Ok((_, recovered)) => {
                        cut += 1;
                        assert!(is_last && recovered.cut.is_some(), "byte {at} of {path:?}");
                        assert!(!is_clean, "after a clean end nothing can be torn: byte {at} of {path:?}");
                    }
                }
            }
        }
        assert!(refused > 500 && (is_clean || cut > 20), "{refused} refused, {cut} cut");
    }
}

#[test]
fn every_cut_length_is_noticed_or_a_torn_end() {
    [written(false), cached(false)].iter().for_each(every_cut_length);
}

fn every_cut_length(written: &Written) {
    for path in &written.files {
        let good = written.disk.bytes(path).unwrap();
        let is_last = path == written.files.last().unwrap();
        let used = good.iter().rposition(|byte| *byte != 0).unwrap();
        let mut before = None;
        for len in 0..good.len() {
            match try_with(written, path, good[..len].to_vec()) {
                Err(WalError::Damaged { .. }) => {}
                Err(other) => panic!("{other}"),
                Ok((view, _)) => {
                    assert!(is_last || len > used, "length {len} of {path:?}");
                    let reached = written.states.iter().rposition(|state| state == &view);
                    assert!(reached >= before, "a longer file never holds less");
                    before = reached;
                }
            }
        }
        assert!(!is_last || before == Some(written.states.len() - 1));
    }
}

#[test]
fn a_missing_or_misplaced_file_is_named() {
    let written = written(true);
    let (first, middle) = (&written.files[0], &written.files[1]);
    for gone in [first, middle] {
        let disk = written.disk.fork();
        disk.remove(gone).unwrap();
        let error = Rig::on(disk, small()).open().unwrap_err().to_string();
        assert!(error.contains("missing") && error.contains(DIR), "{error}");
    }
    let disk = written.disk.fork();
    disk.rename(middle, first).unwrap();
    let error = Rig::on(disk, small()).open().unwrap_err().to_string();
    assert!(error.contains("renamed"), "{error}");
}

/// Cause: a segment copied from an older backup of the same member fits by name.
/// Symptom: old entries would stand where newer ones were.
/// Holds: the chain of checksums over segments refuses it.
#[test]
fn a_segment_of_another_log_does_not_fit() {
    let one = written(true);
    let mut rig = Rig::new(small());
    for boot in 0..2 {
        let (wal, _) = rig.open().unwrap();
        wal.append((0..20).map(|index| entry(7, boot * 20 + index, 70)).collect(), |_| {});
        rig.run();
        rig.close(wal);
    }
    let foreign = rig.disk.bytes(&one.files[1]).unwrap();
    let error = try_with(&one, &one.files[1], foreign).unwrap_err();
    assert!(matches!(error, WalError::Damaged { .. }), "{error}");
}

#[test]
fn a_newer_format_is_refused_with_advice() {
    let written = written(true);
    let path = written.files.last().unwrap();
    let mut bytes = written.disk.bytes(path).unwrap();
    bytes[8] = 2;
    let crc = crc32c::crc32c(&bytes[..60]).to_le_bytes();
    bytes[60..64].copy_from_slice(&crc);
    let error = try_with(&written, path, bytes).unwrap_err();
    assert!(matches!(error, WalError::Format { found: 2, .. }), "{error}");
    assert!(error.to_string().contains("start the version that wrote it"));
}

/// Cause: a record's sectors reach the disk in any order, so a power cut in one large write can
/// leave a bad record with a valid one of the same write after it.
/// Symptom: refusing that as damage, a member would not start after an ordinary power cut.
/// Holds: only a valid record of a later write proves damage.
#[test]
fn a_write_torn_in_its_middle_is_cut_and_not_damage() {
    let options = rusd::wal::WalOptions { segment_bytes: 16 * 1024, group_bytes_max: 8 * 1024, ..small() };
    let mut rig = Rig::new(options.clone());
    let (wal, _) = rig.open().unwrap();
    wal.append(vec![entry(1, 0, 10)], |_| {});
    rig.run();
    wal.append((1..9).map(|index| entry(1, index, 500)).collect(), |_| {});
    rig.run();
    drop(wal);
    let path = rig.files().remove(0);
    let mut bytes = rig.disk.bytes(&path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[1500..1900].fill(0);
    rig.disk.set_bytes(&path, bytes.clone());
    let mut again = Rig::on(rig.disk.fork(), options.clone());
    let (wal, recovered) = again.open().unwrap();
    let cut = recovered.cut.unwrap();
    assert_eq!((recovered.last.unwrap().index.get(), cut.offset + cut.bytes), (2, used as u64 + 1));
    again.run();
    assert_eq!(wal.last().unwrap().index.get(), 2);
    let tail = again.disk.bytes(&path).unwrap();
    assert!(tail[usize::try_from(cut.offset).unwrap() + 36..].iter().all(|byte| *byte == 0), "the rest is cleared");

    bytes[100..120].fill(0);
    rig.disk.set_bytes(&path, bytes);
    let error = Rig::on(rig.disk.fork(), options).open().unwrap_err();
    assert!(matches!(error, WalError::Damaged { .. }), "{error}");
}
