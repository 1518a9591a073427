//! Golden conversations: `*.txt` beside this file hold requests and the answers that a real etcd 3.7.1 gave.
//! Each is played on a fresh etcd and on a fresh rusd, and both must answer as recorded.
//!
//! ```text
//! range.txt ─► script (text ─► steps) ─► player (server, streams) ─► wire (gRPC by name) · http (JSON) · websocket
//!                                             └─► render (messages ─► lines) ─► compared, or written back
//! ```
//!
//! `cargo xtask golden --record` writes what etcd answers into the files: read the diff.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the test starts real processes, which live in the real world"
)]

mod deep_txn;
mod http;
mod player;
mod render;
mod script;
mod websocket;
mod wire;

#[path = "../support/peers.rs"]
mod peers;
#[path = "../support/server.rs"]
mod server;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use player::Player;
use script::Script;
use server::Kind;

/// A test for each conversation, and one that no file is left out.
macro_rules! conversations {
    ($($name:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            converse(stringify!($name)).await;
        })*

        #[test]
        fn every_file_is_played() {
            let mut files: Vec<String> = fs::read_dir(directory())
                .expect("the directory is there")
                .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".txt").map(str::to_owned))
                .collect();
            files.sort();
            let mut played = vec![$(stringify!($name)),*];
            played.sort_unstable();
            assert_eq!(files, played);
        }
    };
}

conversations! {
    alarm_corrupt
    alarm_nospace
    auth_calls
    auth_enabled
    auth_keys
    auth_leases
    auth_users
    auth_watch
    bad_input
    compaction
    compaction_first
    compaction_watch
    compaction_zero
    delete
    downgrade
    election
    gateway_auth
    gateway_cluster
    gateway_http
    gateway_json
    gateway_kv
    gateway_lease
    gateway_off
    gateway_sockets
    gateway_streams
    hashkv
    lease_expiry
    lease_grant
    lease_keys
    lease_restart
    lock
    maintenance
    membership
    put
    put_size
    quota
    range_basics
    range_history
    range_options
    range_stream
    txn_basics
    txn_compare
    txn_limits
    txn_nested
    txn_open_delete
    txn_revisions
    watch_batches
    watch_empty_key
    watch_history
    watch_ids
    watch_long_history
    watch_notify
    watch_progress
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

async fn converse(name: &str) {
    let path = directory().join(name).with_extension("txt");
    let text = fs::read_to_string(&path).expect("the conversation can be read");
    let script = Script::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let recording = std::env::var("RUSD_GOLDEN").is_ok_and(|mode| mode == "record");
    if recording {
        let mut player = Player::start(Kind::Etcd, &script, name, true).await.expect("etcd is needed to record");
        let answers = player.play(&script).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        fs::write(&path, script.with_answers(&answers)).expect("the conversation can be written");
        return;
    }
    let mut faults = Vec::new();
    for kind in [Kind::Etcd, Kind::Rusd] {
        let Some(mut player) = Player::start(kind, &script, name, false).await else { continue };
        let mut answers = player.play(&script).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        for (step, answer) in script.steps.iter().zip(&mut answers) {
            if let (Kind::Etcd, Some((other, text))) = (kind, &step.chance) {
                answer.iter_mut().for_each(|line| *line = line.replace(other, text));
            }
            let at = format!("{name}.txt:{} on {kind:?}", step.line);
            match (&step.pending, step.accepts(answer)) {
                (Some(reason), false) if kind == Kind::Rusd => say(&format!("SKIPPED golden {at}: {reason}")),
                (Some(_), true) if kind == Kind::Rusd => faults.push(format!("{at}: as recorded, no longer @pending")),
                (_, true) => {}
                (_, false) => faults.push(format!(
                    "{at}\n> {}\nrecorded:\n{}\nanswered:\n{}\n",
                    step.request.chars().take(300).collect::<String>(),
                    step.answer.join("\n"),
                    answer.join("\n")
                )),
            }
        }
    }
    assert!(faults.is_empty(), "{} answers differ\n\n{}", faults.len(), faults.join("\n"));
}

/// Past the test runner's capture, which hides what a passing test has to say.
fn say(line: &str) {
    writeln!(std::io::stdout(), "{line}").ok();
}
