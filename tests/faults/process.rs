//! Starts and ends in order, and what a member says when it may not start.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use rusd_proto::etcdserverpb::PutRequest;
use rusd_proto::etcdserverpb::kv_client::KvClient;

use crate::check::check;
use crate::client;
use crate::history::History;
use crate::load::Load;
use crate::member::Member;
use crate::settings;
use crate::volume::Volume;

/// SIGTERM under load: nothing answered is lost, the parent sees the signal, a start is fast.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_ends_it_in_order() {
    const SIGTERM: i32 = 15;
    for backend in settings::backends() {
        let dir = tempfile::tempdir().unwrap();
        let mut member = Member::new(&dir.path().join("data"), &dir.path().join("log"), &settings::plain(&backend));
        let history = History::default();
        let follower = history.follow(member.url());
        let mut load = Load::new(settings::seed(), 6);
        let mut channel = member.start().await;
        for _ in 0..2 {
            let running = load.start(&channel, &history);
            tokio::time::sleep(Duration::from_millis(400)).await;
            let asked = Instant::now();
            let status = member.terminate().await;
            assert_eq!(status.signal(), Some(SIGTERM), "{status}");
            println!("{backend}: ended within {:.2} s", asked.elapsed().as_secs_f64());
            load.finish(running).await;
            assert!(!member.log().contains("panicked"), "{}", member.log_tail());
            let began = Instant::now();
            channel = member.start().await;
            println!("{backend}: served again after {:.2} s", began.elapsed().as_secs_f64());
            assert!(!member.log().contains("unfinished write"), "an orderly end leaves a clean log");
            let ledger = std::mem::take(&mut *load.ledger.lock().unwrap());
            check(&channel, &ledger, &history, &follower).await;
            *load.ledger.lock().unwrap() = ledger;
        }
        follower.abort();
    }
}

/// Two processes on one directory would write over each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_is_refused_and_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut first = Member::new(&data, &dir.path().join("log"), &[]);
    let channel = first.start().await;
    let mut second = Member::new(&data, &dir.path().join("log2"), &[]);
    second.spawn();
    let status = second.ended(Duration::from_secs(30)).await.expect("it doesn't stay");
    assert_eq!(status.code(), Some(1));
    let said = second.log();
    assert!(said.contains("is in use by rusd, process") && said.contains("--data-dir"), "{said}");
    let put = PutRequest { key: "a".into(), value: "1".into(), ..PutRequest::default() };
    KvClient::new(channel.clone()).put(put).await.unwrap();
    assert_eq!(client::revision(&channel).await.unwrap(), 2);
    // A kill leaves the lock file behind, but not the lock.
    first.kill();
    second.start().await;
}

/// A start that gets no further (here the log's disk is full) took no notice of signals: only a kill
/// ended it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_waits_for_room_ends_with_a_signal() {
    const SIGTERM: i32 = 15;
    let Some(volume) = Volume::tmpfs(1, "a_start_that_waits_for_room_ends_with_a_signal") else { return };
    let other = volume.path().join("other");
    fs::write(&other, vec![0; (1 << 20) - (40 << 10)]).unwrap();
    let flags = [format!("--wal-dir={}", volume.path().join("wal").display())];
    let mut member = Member::new(&volume.beside("data"), &volume.beside("log"), &flags);
    member.spawn();
    let begun = Instant::now();
    while !member.log().contains("disk is full") {
        assert!(begun.elapsed() < Duration::from_secs(30), "{}", member.log_tail());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let status = member.terminate().await;
    assert_eq!(status.signal(), Some(SIGTERM), "{status}\n{}", member.log_tail());
    fs::remove_file(other).unwrap();
    member.start().await;
    member.terminate().await;
}

/// Two members with one `--wal-dir` would write over each other, and the one would take the other's
/// votes and entries for its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_one_members() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let flags = [format!("--wal-dir={}", at("wal").display())];
    let mut first = Member::new(&at("data"), &at("log"), &flags);
    let channel = first.start().await;
    let put = PutRequest { key: "a".into(), value: "1".into(), ..PutRequest::default() };
    KvClient::new(channel.clone()).put(put).await.unwrap();
    let mut second = Member::new(&at("data2"), &at("log2"), &flags);
    for wanted in ["is in use by rusd, process", "belongs to member"] {
        second.spawn();
        let status = second.ended(Duration::from_secs(30)).await.expect("it doesn't stay");
        assert_eq!(status.code(), Some(1));
        let said = second.log();
        assert!(said.contains(wanted) && said.contains("--wal-dir"), "{said}");
        first.kill();
    }
    let channel = first.start().await;
    assert_eq!(client::revision(&channel).await.unwrap(), 2);
}

/// Cause: with the log's disk not mounted and the store lost, both were empty and fitted together.
/// Symptom: a member that had served began an empty cluster. Holds: it says that its log is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_has_served_never_begins_again_from_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let flags = [format!("--wal-dir={}", at("wal").display())];
    let mut member = Member::new(&at("data"), &at("log"), &flags);
    let channel = member.start().await;
    let put = PutRequest { key: "a".into(), value: "1".into(), ..PutRequest::default() };
    KvClient::new(channel.clone()).put(put).await.unwrap();
    member.terminate().await;
    fs::rename(at("wal"), at("elsewhere")).unwrap();
    fs::remove_dir_all(at("data/member/store")).unwrap();
    member.spawn();
    let status = member.ended(Duration::from_secs(30)).await.expect("it doesn't stay");
    assert_eq!(status.code(), Some(1));
    assert!(member.log().contains("is lost or was replaced"), "{}", member.log_tail());
    fs::remove_dir_all(at("wal")).unwrap();
    fs::rename(at("elsewhere"), at("wal")).unwrap();
    let channel = member.start().await;
    assert_eq!(client::revision(&channel).await.unwrap(), 2);
}
