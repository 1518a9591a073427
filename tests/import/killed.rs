//! An import that is killed while it makes the log in a `--wal-dir`: the next try needs no hand.

use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::Tools;
use crate::fill::{content, fill};
use crate::member::{Member, Place, must, rusd, words};
use crate::save;

/// Imports that may come too late to be killed.
const TRIES: usize = 40;

fn log_files(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).into_iter().flatten();
    names.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

#[tokio::test]
async fn the_log_of_a_killed_import_is_no_obstacle() {
    let Some(tools) = Tools::find("the_log_of_a_killed_import_is_no_obstacle") else { return };
    let dir = TempDir::new().unwrap();
    let (place, data) = (Place::free(), dir.path().join("etcd"));
    let etcd = Member::start(&tools.etcd, place, &place.flags(&data), &dir.path().join("etcd.log")).await;
    fill(&etcd, false).await;
    let first = content(&etcd, None).await;
    let file = dir.path().join("etcd.db");
    save(&etcd, &file, false);
    etcd.end();

    let (to, moved, wal) = (Place::free(), dir.path().join("rusd"), dir.path().join("wal"));
    let import = |wal: &Path| {
        let mut import = words(&format!("import {} --wal-dir {}", file.display(), wal.display()));
        import.extend(to.identity(&moved));
        import
    };
    let killed = (0..TRIES).any(|_| {
        for dir in [&moved, &wal] {
            std::fs::remove_dir_all(dir).ok();
        }
        let mut child =
            Command::new(rusd()).args(import(&wal)).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        while log_files(&wal).len() < 3 && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().ok();
        child.wait().unwrap();
        log_files(&wal).len() > 1 && !moved.join("member").exists()
    });
    assert!(killed, "all {TRIES} imports were done before they could be killed");

    // Somebody else's file among them is a reason to stop; so is the same log for another data directory.
    let thesis = wal.join("thesis.tex");
    std::fs::write(&thesis, "x").unwrap();
    let refused = crate::member::run(&rusd(), &import(&wal));
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("thesis.tex"));
    std::fs::remove_file(&thesis).unwrap();
    let mut elsewhere = words(&format!("import {} --wal-dir {}", file.display(), wal.display()));
    elsewhere.extend(to.identity(&dir.path().join("elsewhere")));
    assert!(!crate::member::run(&rusd(), &elsewhere).status.success());
    assert!(log_files(&wal).len() > 1, "nothing of it is gone");

    must(&rusd(), &import(&wal));
    assert!(!wal.join("import.unfinished").exists());
    let flags = [to.flags(&moved), words(&format!("--wal-dir {}", wal.display()))].concat();
    let member = Member::start(&rusd(), to, &flags, &dir.path().join("rusd.log")).await;
    assert_eq!(content(&member, None).await, first);
}
