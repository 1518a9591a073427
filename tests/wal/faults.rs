//! A disk that fails or is full: writing stops with a clear error, reading goes on, nothing
//! acknowledged is lost.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rusd::env::{CrashStyle, Disk, DiskOp, MemDisk, Step};
use rusd::types::RaftIndex;
use rusd::wal::{Wal, WalOptions};

use super::rig::{DIR, Results, Rig, View, entry, id, note, small};

const EIO: i32 = 5;
const EINVAL: i32 = 22;

/// What callbacks were given, as text.
type Errors = Arc<Mutex<Vec<Option<(io::ErrorKind, String)>>>>;

fn keep(errors: &Errors) -> impl FnOnce(io::Result<()>) + Send + 'static {
    let errors = errors.clone();
    move |result| errors.lock().push(result.err().map(|error| (error.kind(), error.to_string())))
}

#[test]
fn every_nth_write_sync_rename_fails_for_good_and_loses_nothing() {
    for op in [DiskOp::Write, DiskOp::Sync, DiskOp::Rename, DiskOp::SyncDir, DiskOp::Open] {
        let mut has_failed = false;
        for nth in 0..25 {
            let mut rig = Rig::new(small());
            let (wal, _) = rig.open().unwrap();
            rig.disk.fail(op, nth, EIO);
            let results = Results::default();
            for index in 0..20 {
                wal.append(vec![entry(1, index, 100)], note(&results, usize::try_from(index).unwrap()));
                rig.run();
            }
            let acknowledged = results.lock().iter().filter(|(_, ok)| *ok).count();
            let fatal = wal.fatal().borrow().clone();
            assert_eq!(results.lock().len(), 20, "every callback came");
            if let Some(fatal) = fatal {
                has_failed = true;
                assert_eq!(fatal.errno, Some(EIO));
                let text = fatal.to_string();
                assert!(
                    text.contains("/member/wal") && text.contains("at byte") && text.contains("check it"),
                    "{text}"
                );
                assert!(results.lock().iter().all(|(op, ok)| *ok == (*op < acknowledged)), "nothing after the failure");
                assert!(wal.read(RaftIndex(0)..RaftIndex(20), usize::MAX).unwrap().len() >= acknowledged);
                let late = Errors::default();
                wal.save_vote(Bytes::new(), keep(&late));
                assert!(late.lock()[0].as_ref().unwrap().1.contains("at byte"));
            }
            rig.crash(wal, CrashStyle::LoseAll);
            let (wal, _) = rig.open().unwrap();
            assert!(View::of(&wal).entries.len() >= acknowledged, "{op:?} {nth}");
        }
        assert!(has_failed, "{op:?} was never hit");
    }
}

/// Cause: a file may be opened for writes past the page cache on a file system that refuses such a write after all.
/// Symptom: the log would end at its first group on a disk that is in good health.
/// Holds: the group, and the segment's later ones, go through the page cache; other failures stay final.
#[test]
fn a_refused_write_past_the_cache_goes_through_it() {
    for nth in 0..25 {
        let mut rig = Rig::new(small());
        let (wal, _) = rig.open().unwrap();
        rig.disk.fail(DiskOp::Write, nth, EINVAL);
        for index in 0..20 {
            wal.append(vec![entry(1, index, 100)], |result| result.unwrap());
            rig.run();
        }
        assert!(wal.fatal().borrow().is_none(), "write {nth}");
        let before = View::of(&wal);
        rig.crash(wal, CrashStyle::LoseAll);
        let (wal, recovered) = rig.open().unwrap();
        assert_eq!((View::of(&wal), recovered.cut), (before, None), "write {nth}");
    }
}

/// Cause: the log was written past the page cache wherever the file system said that it can.
/// Symptom: on a disk that is slow at such writes there was no way out.
/// Holds: with `direct_io` off no write goes past it, and a refused one is final as any failure; the next start, which
/// writes past it, reads what was written.
#[test]
fn without_direct_io_no_write_goes_past_the_cache() {
    for nth in 0..4 {
        let mut rig = Rig::new(rusd::wal::WalOptions { direct_io: false, ..small() });
        let (wal, _) = rig.open().unwrap();
        rig.disk.fail(DiskOp::Write, nth, EINVAL);
        for index in 0..20 {
            wal.append(vec![entry(1, index, 100)], |_| {});
            rig.run();
        }
        let is_group = wal.fatal().borrow().is_some();
        let durable = View::of(&wal).entries.len();
        assert!(is_group, "write {nth} of {durable} entries");
    }
    let mut rig = Rig::new(rusd::wal::WalOptions { direct_io: false, ..small() });
    for round in 0..4 {
        let (wal, _) = rig.open().unwrap();
        for index in round * 7..round * 7 + 7 {
            wal.append(vec![entry(1, index, 100)], |result| result.unwrap());
            rig.run();
        }
        let before = View::of(&wal);
        rig.crash(wal, CrashStyle::LoseAll);
        rig.options.direct_io = !rig.options.direct_io;
        let (wal, recovered) = rig.open().unwrap();
        assert_eq!((View::of(&wal), recovered.cut), (before, None), "round {round}");
        rig.crash(wal, CrashStyle::LoseAll);
    }
}

/// Cause: what was purged was used again only at full length, which a log has after hundreds of MiB.
/// Symptom: every byte of a log that stays short was written twice, once as a zero ahead of it.
/// Holds: a purge gives its files back whatever their length; what is allocated is what the log has at a time.
#[test]
fn short_segments_are_used_again() {
    let options = WalOptions { segment_bytes: 64 << 20, ..WalOptions::default() };
    let mut rig = Rig::new(options);
    let (wal, _) = rig.open().unwrap();
    for index in 0..40 {
        wal.append(vec![entry(1, index, 1_000_000)], |result| result.unwrap());
        rig.run();
        if index >= 3 {
            wal.purge_to(id(1, index - 3), |result| result.unwrap());
            rig.run();
        }
    }
    let allocated = rig.disk.count(DiskOp::Allocate);
    assert!(allocated <= 4, "{allocated} of 10 segments were made anew");
    let last = rig.disk.bytes(rig.files().last().unwrap()).unwrap();
    assert_eq!((last.len(), last[36]), (4 << 20, 1), "the last is as long as the first, and was used before");
    let before = View::of(&wal);
    rig.crash(wal, CrashStyle::LoseAll);
    let (wal, recovered) = rig.open().unwrap();
    assert_eq!((View::of(&wal), recovered.cut), (before, None));
    let last = rig.disk.bytes(rig.files().last().unwrap()).unwrap();
    assert_eq!(last.len(), 4 << 20, "a start doesn't lengthen what was used before");
}

/// A log whose disk has filled up since: three of its segments, of 4 MiB each, are to be purged, and little is free.
fn on_a_disk_that_filled_up() -> (Rig, Wal) {
    let mut rig = Rig::new(WalOptions { segment_bytes: 64 << 20, ..WalOptions::default() });
    let (wal, _) = rig.open().unwrap();
    for index in 0..15 {
        wal.append(vec![entry(1, index, 1_000_000)], |result| result.unwrap());
        rig.run();
    }
    let used: usize = rig.disk.list(Path::new(DIR)).unwrap().iter().map(|name| length(&rig, name)).sum();
    rig.disk.set_capacity(Some(used as u64 + (1 << 20)));
    (rig, wal)
}

fn length(rig: &Rig, name: impl AsRef<Path>) -> usize {
    rig.disk.bytes(&Path::new(DIR).join(name.as_ref())).map_or(0, |bytes| bytes.len())
}

/// Cause: a purge kept files for later up to a segment's full length, however little was free.
/// Symptom: a small disk that was full stayed so, as all that a purge gives back was held by files of no use.
/// Holds: where little is free, little is kept.
#[test]
fn a_purge_on_a_disk_that_filled_up_gives_room_back() {
    let (rig, wal) = on_a_disk_that_filled_up();
    let free = || rig.disk.free_bytes(Path::new(DIR)).unwrap();
    assert!(free() <= 1 << 20);
    wal.purge_to(id(1, 13), |result| result.unwrap());
    for _ in 0..6 {
        rig.run();
    }
    assert!(free() >= 12 << 20, "{} bytes are free", free());
}

/// Cause: files kept for later were all shorter than the next record, and a longer one found no room beside them.
/// Symptom: the log waited for ever for room that it held itself.
/// Holds: whoever finds no room gives up what it keeps first.
#[test]
fn files_kept_for_later_give_way_to_a_longer_one() {
    let mut rig = Rig::new(WalOptions { segment_bytes: 1 << 20, ..WalOptions::default() });
    let (wal, _) = rig.open().unwrap();
    for index in 0..6 {
        wal.append(vec![entry(1, index, 400_000)], |result| result.unwrap());
        rig.run();
    }
    wal.purge_to(id(1, 5), |result| result.unwrap());
    for _ in 0..6 {
        rig.run();
    }
    let used: usize = rig.disk.list(Path::new(DIR)).unwrap().iter().map(|name| length(&rig, name)).sum();
    assert!(used >= 2 << 20, "one is kept: {used}");
    rig.disk.set_capacity(Some(used as u64 + (700 << 10)));
    let results = Results::default();
    wal.append(vec![entry(1, 6, 1_500_000)], note(&results, 0));
    for _ in 0..6 {
        rig.run();
    }
    assert_eq!(*results.lock(), [(0, true)]);
}

/// Cause: a file was half made when the segment before it was full, and the disk too; who finds no file made ahead ended
/// the wish for it.
/// Symptom: the log waited for ever for room that it held itself.
/// Holds: a log without room has the file finished that it began.
#[test]
fn a_half_made_file_is_finished_on_a_full_disk() {
    let mut rig = Rig::new(WalOptions { segment_bytes: 8 << 20, ..WalOptions::default() });
    let (wal, _) = rig.open().unwrap();
    let results = Results::default();
    let mut asked = 0;
    let mut append = |rig: &Rig| {
        wal.append(vec![entry(1, asked, 200_000)], note(&results, usize::try_from(asked).unwrap()));
        asked += 1;
        rig.spawn.run(Wal::WRITER);
        asked as usize
    };
    let drafts = |rig: &Rig| {
        let names = rig.disk.list(Path::new(DIR)).unwrap();
        names.iter().filter(|name| name.to_string_lossy().contains("draft")).count()
    };
    while rig.files().len() < 3 {
        append(&rig);
        rig.run();
    }
    while drafts(&rig) == 0 {
        append(&rig);
        rig.spawn.step(Wal::KEEPER);
    }
    let used: usize = rig.disk.list(Path::new(DIR)).unwrap().iter().map(|name| length(&rig, name)).sum();
    rig.disk.set_capacity(Some(used as u64));
    while append(&rig) == results.lock().len() {}
    for _ in 0..20 {
        rig.run();
    }
    assert_eq!(results.lock().len() as u64, asked);
    assert!(results.lock().iter().all(|(_, ok)| *ok));
}

/// Cause: a directory's sync failed after a purged file had its new name, and the next try looked for the old one.
/// Symptom: a file of up to 64 MiB that no one knew of, until the next start.
/// Holds: the next try begins at the name that it has.
#[test]
fn a_purge_that_failed_midway_loses_no_file() {
    for nth in 0..3 {
        let mut rig = Rig::new(WalOptions { segment_bytes: 64 << 20, ..WalOptions::default() });
        let (wal, _) = rig.open().unwrap();
        for index in 0..15 {
            wal.append(vec![entry(1, index, 1_000_000)], |result| result.unwrap());
            rig.run();
        }
        wal.purge_to(id(1, 13), |result| result.unwrap());
        rig.spawn.run(Wal::WRITER);
        rig.disk.fail(DiskOp::SyncDir, nth, EIO);
        for _ in 0..8 {
            rig.spawn.run(Wal::KEEPER);
        }
        rig.disk.forgive();
        let before = rig.disk.count(DiskOp::Allocate);
        for index in 15..33 {
            wal.append(vec![entry(1, index, 1_000_000)], |result| result.unwrap());
            rig.run();
        }
        let made = rig.disk.count(DiskOp::Allocate) - before;
        assert_eq!(made, 0, "files were made beside those that were purged, after sync {nth} failed");
    }
}

/// Cause: after a failed fsync the kernel holds the lost pages for clean, so a second fsync succeeds.
/// Symptom: a restart reads the entries from the page cache, counts them as durable, and a later
/// power cut takes them.
/// Holds: a start writes the last group again before its sync.
#[test]
fn what_a_failed_sync_left_in_the_cache_is_made_durable_by_the_next_start() {
    let mut rig = Rig::new(small());
    let (wal, _) = rig.open().unwrap();
    wal.append(vec![entry(1, 0, 10)], |_| {});
    rig.run();
    rig.disk.fail(DiskOp::Sync, 0, EIO);
    wal.append(vec![entry(1, 1, 10)], |result| assert!(result.is_err()));
    rig.run();
    rig.crash(wal, CrashStyle::KeepAll);
    let (wal, recovered) = rig.open().unwrap();
    assert_eq!(recovered.last, Some(id(1, 1)));
    rig.crash(wal, CrashStyle::LoseAll);
    let (_, recovered) = rig.open().unwrap();
    assert_eq!(recovered.last, Some(id(1, 1)));
}

#[test]
fn a_full_disk_is_seen_early_and_the_log_waits_for_room() {
    let disk = MemDisk::new();
    disk.set_capacity(Some(2 * 1024 + 600));
    let mut rig = Rig::on(disk, small());
    let (wal, _) = rig.open().unwrap();
    let results = Results::default();
    let mut index = 0;
    while !wal.is_space_low() {
        wal.append(vec![entry(1, index, 100)], note(&results, usize::try_from(index).unwrap()));
        index += 1;
        rig.run();
        assert!(index < 30, "never said that space is low");
    }
    assert_eq!(results.lock().len(), usize::try_from(index).unwrap(), "all before was done");
    for _ in 0..12 {
        wal.append(vec![entry(1, index, 100)], note(&results, usize::try_from(index).unwrap()));
        index += 1;
        rig.run();
    }
    let waiting = results.lock().len();
    assert!(waiting < usize::try_from(index).unwrap(), "the last segment is full");
    assert!(wal.fatal().borrow().is_none());
    assert_eq!(View::of(&wal).entries.len(), usize::try_from(index).unwrap(), "reads go on");
    assert!(matches!(rig.step(), Some(Step::IdleFor(_))));
    rig.disk.set_capacity(None);
    rig.run();
    assert_eq!(results.lock().len(), usize::try_from(index).unwrap());
    assert!(results.lock().iter().all(|(_, ok)| *ok));
    rig.run();
    assert!(!wal.is_space_low());
    rig.crash(wal, CrashStyle::LoseAll);
    let (wal, _) = rig.open().unwrap();
    assert_eq!(View::of(&wal).entries.len(), usize::try_from(index).unwrap());
}

#[test]
fn closing_on_a_full_disk_answers_what_waits() {
    let disk = MemDisk::new();
    disk.set_capacity(Some(100));
    let mut rig = Rig::on(disk, small());
    let (wal, _) = rig.open().unwrap();
    let errors = Errors::default();
    wal.append(vec![entry(1, 0, 10)], keep(&errors));
    rig.run();
    assert!(errors.lock().is_empty());
    rig.close(wal);
    assert_eq!(errors.lock()[0].as_ref().unwrap().0, io::ErrorKind::StorageFull);
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let mut rig = Rig::new(small());
    let (wal, _) = rig.open().unwrap();
    wal.append((5..9).map(|index| entry(1, index, 10)).collect(), |result| result.unwrap());
    wal.purge_to(id(1, 6), |result| result.unwrap());
    rig.run();
    let before = View::of(&wal);
    let errors = Errors::default();
    wal.append(vec![entry(1, 10, 1)], keep(&errors));
    wal.append(vec![entry(1, 9, 1), entry(1, 9, 1)], keep(&errors));
    wal.truncate_after(Some(RaftIndex(5)), keep(&errors));
    assert!(errors.lock().iter().all(|error| error.as_ref().unwrap().0 == io::ErrorKind::InvalidInput));
    wal.truncate_after(Some(RaftIndex(8)), |result| result.unwrap());
    wal.purge_to(id(1, 3), |result| result.unwrap());
    wal.append(Vec::new(), |result| result.unwrap());
    rig.run();
    assert_eq!((errors.lock().len(), View::of(&wal)), (3, before));
    wal.close();
    wal.save_vote(Bytes::new(), keep(&errors));
    assert_eq!(errors.lock()[3].as_ref().unwrap().0, io::ErrorKind::BrokenPipe);
}

#[test]
fn purged_segments_go_or_are_used_again() {
    let mut rig = Rig::new(small());
    let (wal, _) = rig.open().unwrap();
    for index in 0..60 {
        wal.append(vec![entry(1, index, 100)], |_| {});
        rig.run();
        if index > 20 {
            wal.purge_to(id(1, index - 10), |_| {});
        }
    }
    rig.run();
    assert!(rig.files().len() <= 4, "{:?}", rig.files());
    assert!(rig.disk.count(DiskOp::Allocate) < 8, "files are used again");
    assert!(wal.scrub().unwrap() > 0);
    let read = wal.read(RaftIndex(0)..RaftIndex(100), 250).unwrap();
    assert_eq!(read.iter().map(|entry| entry.id.index.get()).collect::<Vec<_>>(), [50]);
    assert!(wal.read_cached(RaftIndex(0)..RaftIndex(100), 250).is_none());
    assert_eq!(wal.read_cached(RaftIndex(59)..RaftIndex(60), 0).unwrap(), [entry(1, 59, 100)]);
    rig.crash(wal, CrashStyle::LoseAll);
    let (wal, recovered) = rig.open().unwrap();
    assert_eq!((recovered.purged, recovered.last, recovered.cut), (Some(id(1, 49)), Some(id(1, 59)), None));
    drop(wal);
}

#[test]
fn damage_under_a_running_log_is_an_error_with_its_place() {
    let mut rig = Rig::new(small());
    let (wal, _) = rig.open().unwrap();
    for index in 0..30 {
        wal.append(vec![entry(1, index, 100)], |_| {});
        rig.run();
    }
    let path = rig.files().remove(0);
    let mut bytes = rig.disk.bytes(&path).unwrap();
    bytes[130] ^= 4;
    // The open handle sees the same file.
    rig.disk.set_bytes(&path, bytes);
    let read = wal.read(RaftIndex(0)..RaftIndex(3), usize::MAX).unwrap_err();
    assert_eq!(read.kind(), io::ErrorKind::InvalidData);
    assert!(read.to_string().contains("0000000000000001.wal at byte"), "{read}");
    assert!(wal.scrub().is_err());
    assert_eq!(wal.read(RaftIndex(20)..RaftIndex(30), usize::MAX).unwrap().len(), 10);
}

#[test]
fn a_committed_hint_rides_along_and_never_leads() {
    let mut rig = Rig::new(small());
    let (wal, _) = rig.open().unwrap();
    wal.append(vec![entry(1, 0, 10), entry(1, 1, 10)], |_| {});
    rig.run();
    let syncs = rig.disk.count(DiskOp::Sync);
    wal.note_committed(id(1, 1));
    rig.run();
    assert_eq!(rig.disk.count(DiskOp::Sync), syncs, "costs no sync of its own");
    rig.close(wal);
    let (wal, recovered) = rig.open().unwrap();
    assert_eq!(recovered.committed, Some(id(1, 1)));
    wal.truncate_after(Some(RaftIndex(0)), |_| {});
    rig.run();
    rig.crash(wal, CrashStyle::LoseAll);
    assert_eq!(rig.open().unwrap().1.committed, None);
}

#[test]
fn a_drop_finishes_what_is_queued() {
    let rig = Rig::new(small());
    let env = rusd::env::Env { disk: Arc::new(rig.disk.clone()), ..rusd::env::Env::real() };
    let (wal, _) = Wal::open(env.clone(), super::rig::DIR.as_ref(), small()).unwrap();
    let results = Results::default();
    for index in 0..50 {
        wal.append(vec![entry(1, index, 30)], note(&results, usize::try_from(index).unwrap()));
    }
    drop(wal);
    assert_eq!(results.lock().len(), 50);
    let (wal, recovered) = Wal::open(env, super::rig::DIR.as_ref(), small()).unwrap();
    assert_eq!((recovered.last, recovered.cut), (Some(id(1, 49)), None));
    drop(wal);
}
