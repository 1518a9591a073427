//! Faults that the model once found, each as a short story of its own: cause, symptom, what now holds.
//!
//! The seeds of those runs were not kept, so the stories are told by hand. Each was seen to fail with
//! its fault put back in.

use rusd::env::{CrashStyle, DiskOp, Step};
use rusd::wal::{Wal, WalOptions};

use super::rig::{Rig, View, entry, id, small};

const EIO: i32 = 5;

/// Cause: every file made ahead had the same draft's name. While the log thread had written the first
/// group of a new segment and not yet synced and renamed it, the keeper made the next file, or used a
/// purged one again, under that very name.
/// Symptom: the rename gave the segment's name to the wrong file; the acknowledged group was lost.
/// Holds: no two drafts of a run have one name, so whatever the keeper does in between, the segment
/// gets the file that was written.
#[test]
fn a_draft_being_written_keeps_its_name_to_itself() {
    for lag in 1..=12 {
        let mut rig = Rig::new(small());
        let (wal, _) = rig.open().unwrap();
        for index in 0..60 {
            wal.append(vec![entry(1, index, 100)], |result| result.unwrap());
            if index > lag {
                wal.purge_to(id(1, index - lag), |result| result.unwrap());
            }
            let mut step = rig.step();
            while step != Some(Step::Idle) {
                if step == Some(Step::Wrote) {
                    // Between each write and its sync, and never else.
                    rig.spawn.run(Wal::KEEPER);
                }
                step = rig.step();
            }
        }
        let before = View::of(&wal);
        rig.crash(wal, CrashStyle::LoseAll);
        let (wal, _) = rig.open().unwrap_or_else(|error| panic!("purged {lag} behind: {error}"));
        assert_eq!(View::of(&wal), before, "purged {lag} behind");
    }
}

/// Cause: when a purged file couldn't be removed, the keeper went on with the next newer one.
/// Symptom: the chain of files had a hole, and the next start refused the log as damaged.
/// Holds: files go oldest first, and none goes before the one before it is gone.
#[test]
fn a_removal_that_fails_leaves_no_hole() {
    let mut rig = Rig::new(small());
    let (wal, _) = rig.open().unwrap();
    for index in 0..40 {
        wal.append(vec![entry(1, index, 100)], |result| result.unwrap());
        rig.run();
    }
    let files = rig.files();
    assert!(files.len() > 4, "{files:?}");
    // The oldest is either removed or renamed to be used again.
    rig.disk.fail(DiskOp::Remove, 0, EIO);
    rig.disk.fail(DiskOp::Rename, 0, EIO);
    wal.purge_to(id(1, 38), |result| result.unwrap());
    rig.run();
    assert_eq!(rig.files(), files, "nothing goes while the oldest stays");
    let before = View::of(&wal);
    rig.crash(wal, CrashStyle::KeepAll);
    let (wal, _) = rig.open().expect("no hole");
    assert_eq!(View::of(&wal), before);
    rig.run();
    assert!(rig.files().len() < 3, "the start removes what was left: {:?}", rig.files());
}

/// Cause: each segment restates the last purge at its head. A start that read such a record before it
/// had seen any entry took the purge for the end of the log and expected the entry right after it.
/// Symptom: the segment's first entry, far above, looked like damage: the member refused to start.
/// Holds: a segment's header says which entry comes next; a purge below that changes nothing.
#[test]
fn a_purge_restated_at_the_head_of_the_oldest_segment_is_not_the_end_of_the_log() {
    let mut rig = Rig::new(small());
    let (wal, _) = rig.open().unwrap();
    let append = |wal: &Wal, rig: &Rig, indexes: std::ops::Range<u64>| {
        for index in indexes {
            wal.append(vec![entry(1, index, 100)], |result| result.unwrap());
            rig.run();
        }
    };
    append(&wal, &rig, 0..5);
    wal.purge_to(id(1, 2), |result| result.unwrap());
    append(&wal, &rig, 5..30);
    // Takes the files away whose heads don't restate the first purge.
    let oldest = rig.files().remove(0);
    wal.purge_to(id(1, 20), |result| result.unwrap());
    rig.run();
    assert!(!rig.files().contains(&oldest), "{:?}", rig.files());
    let before = View::of(&wal);
    assert_eq!(before.entries.len(), 9);
    rig.crash(wal, CrashStyle::LoseAll);
    let (wal, recovered) = rig.open().expect("what is restated is older than what is here");
    assert_eq!((View::of(&wal), recovered.purged), (before, Some(id(1, 20))));
}

/// Cause: a log whose entries were all truncated, and that was never purged, gave away the segments
/// before the one being written, since they held no entry that counted.
/// Symptom: without a purge point nothing said why the first file was missing: the next start but one
/// refused the log as damaged.
/// Holds: a log that was never purged keeps its files from the first one on.
#[test]
fn a_log_emptied_by_truncation_keeps_its_first_file() {
    let mut rig = Rig::new(small());
    let (wal, _) = rig.open().unwrap();
    for index in 0..20 {
        wal.append(vec![entry(1, index, 100)], |result| result.unwrap());
        rig.run();
    }
    wal.truncate_after(None, |result| result.unwrap());
    rig.run();
    for _ in 0..3 {
        rig.crash(wal.clone(), CrashStyle::LoseAll);
        let (again, recovered) = rig.open().expect("nothing is missing");
        assert_eq!((recovered.last, recovered.purged), (None, None));
        rig.run();
        drop(again);
    }
    assert!(rig.files()[0].ends_with("0000000000000001.wal"));
}

/// Cause: the file made ahead was as long as the second segment is to be, and was done when the log had gone on by
/// itself to the third, whose file would have been longer.
/// Symptom: a member that caught up said that its disk was full, and refused writes for a moment.
/// Holds: the file is measured by what it was to be.
#[test]
fn a_file_made_ahead_for_an_earlier_segment_is_no_sign_of_a_full_disk() {
    let mut rig = Rig::new(WalOptions::default());
    let (wal, _) = rig.open().unwrap();
    let mut begun = false;
    for index in 0..20 {
        wal.append(vec![entry(1, index, 1 << 20)], |result| result.unwrap());
        rig.spawn.run("wal-writer");
        // One step: begun for the second segment, and left there.
        begun = begun || rig.spawn.step("wal-keeper") == Some(Step::Worked);
    }
    assert!(begun);
    let files = rig.files();
    assert!(files.iter().filter(|file| file.extension().is_some_and(|kind| kind == "wal")).count() > 2, "{files:?}");
    while rig.spawn.step("wal-keeper") == Some(Step::Worked) {
        assert!(!wal.is_space_low());
    }
}
