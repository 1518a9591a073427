//! Starts and ends in order, and what a member says when it may not start.

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
