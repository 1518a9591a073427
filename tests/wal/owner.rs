//! One log, one process, one member.
//!
//! Cause: a log's directory outside the data directory was nobody's. Symptom: two processes with the
//! same `--wal-dir` wrote over each other's acknowledged entries, and a member took another's log for
//! its own. Holds: whoever has it open holds its lock, and it says whose it is.

use rusd::env::{CrashStyle, Disk};
use rusd::wal::{WalError, WalOptions};

use super::rig::{DIR, Rig, entry, small};

fn rig(owner: &str) -> Rig {
    Rig::new(WalOptions { owner: Some(owner.to_owned()), ..small() })
}

#[test]
fn a_second_opener_is_refused_until_the_first_has_ended() {
    let mut rig = rig("member a");
    let (wal, _) = rig.open().unwrap();
    wal.append(vec![entry(1, 0, 10)], |result| result.unwrap());
    rig.run();
    let text = match rig.open() {
        Err(error @ WalError::InUse { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(text.contains(DIR) && text.contains(&format!("process {}", std::process::id())), "{text}");
    wal.append(vec![entry(1, 1, 10)], |result| result.unwrap());
    rig.run();
    rig.close(wal.clone());
    let (again, recovered) = rig.open().expect("a closed log may be opened, whoever still holds a handle");
    assert_eq!(recovered.last, again.last());
    assert_eq!(recovered.last.map(|last| last.index.get()), Some(1));
    drop(wal);
    assert!(
        matches!(rig.open(), Err(WalError::InUse { .. })),
        "the old handle gave nothing back that it no longer had"
    );
}

#[test]
fn a_log_of_another_member_is_refused_and_left_as_it_is() {
    let mut rig = rig("member a");
    let (wal, _) = rig.open().unwrap();
    wal.append(vec![entry(1, 0, 10)], |result| result.unwrap());
    rig.run();
    rig.crash(wal, CrashStyle::LoseAll);
    let files = rig.files();
    let bytes: Vec<_> = files.iter().map(|path| rig.disk.bytes(path)).collect();
    rig.options.owner = Some("member b".to_owned());
    match rig.open() {
        Err(error @ WalError::Foreign { .. }) => {
            let text = error.to_string();
            assert!(text.contains("belongs to member a") && text.contains("this is member b"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(files.iter().map(|path| rig.disk.bytes(path)).collect::<Vec<_>>(), bytes);
    rig.options.owner = Some("member a".to_owned());
    assert!(rig.open().is_ok(), "the refusal let go of the lock");
}

#[test]
fn a_log_from_before_owners_becomes_its_openers() {
    let mut rig = Rig::new(small());
    let (wal, _) = rig.open().unwrap();
    wal.append(vec![entry(1, 0, 10)], |result| result.unwrap());
    rig.run();
    rig.close(wal);
    assert!(!rig.disk.exists(format!("{DIR}/owner").as_ref()).unwrap());
    rig.options.owner = Some("member a".to_owned());
    let (wal, recovered) = rig.open().expect("it opens");
    assert_eq!(recovered.last.map(|last| last.index.get()), Some(0));
    rig.crash(wal, CrashStyle::LoseAll);
    rig.options.owner = Some("member b".to_owned());
    assert!(matches!(rig.open(), Err(WalError::Foreign { .. })), "it was written durably");
}
