//! The client port in this process: real gRPC and HTTP on loopback over a machine with no log and no disk behind it.
//!
//! ```text
//! golden conversations, own tests ─► socket ─► api ─► Member (one thread: Machine, hub, leases) ─► memory
//! ```
//! The conversations are those that `tests/golden` plays on processes; here they run without a
//! data directory, so that a fault of the api is told from one of the rooms below it.

#![expect(clippy::unwrap_used, reason = "a test that can't go on ends where it is")]
#![expect(clippy::disallowed_methods, reason = "the member's applier is a thread, and conversations are files")]

mod abuse;
mod bounds;
mod calls;
mod ending;
mod endpoints;
mod gate;
mod gateway;
mod given_up;
mod growing;
mod hostile;
mod limits;
mod listeners;
mod logins;
mod member;
mod raw;
mod renewals;
mod rights;
mod server;
mod sockets;
mod strangers;
mod streams;
mod unseen;

#[path = "../support/frames.rs"]
mod frames;
#[path = "../golden/http.rs"]
mod http;
#[path = "../golden/player.rs"]
mod player;
#[path = "../golden/render.rs"]
mod render;
#[path = "../golden/script.rs"]
mod script;
#[expect(dead_code, reason = "others read, and add roles")]
#[path = "../support/users.rs"]
mod users;
#[path = "../golden/websocket.rs"]
mod websocket;
#[path = "../golden/wire.rs"]
mod wire;

use std::path::Path;

use player::Player;
use script::Script;
use server::Kind;

/// Held by whoever looks at how much memory this process has, or has it take much.
static MEMORY: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

macro_rules! conversations {
    ($($name:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            converse(stringify!($name)).await;
        })*
    };
}

// Not here: membership (not served yet).
conversations! {
    alarm_corrupt
    alarm_nospace
    bad_input
    compaction
    compaction_first
    compaction_zero
    delete
    gateway_http
    gateway_json
    gateway_kv
    gateway_lease
    hashkv
    lease_expiry
    lease_grant
    lease_keys
    lease_restart
    maintenance
    put
    put_size
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

async fn converse(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name).with_extension("txt");
    let text = std::fs::read_to_string(&path).expect("the conversation can be read");
    let script = Script::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut player = Player::start(Kind::Rusd, &script, name, false).await.expect("it runs in this process");
    let answers = player.play(&script).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut faults = Vec::new();
    for (step, answer) in script.steps.iter().zip(&answers) {
        if !step.accepts(answer) {
            faults.push(format!(
                "{name}.txt:{}\n> {}\nrecorded:\n{}\nanswered:\n{}\n",
                step.line,
                step.request.chars().take(300).collect::<String>(),
                step.answer.join("\n"),
                answer.join("\n")
            ));
        }
    }
    assert!(faults.is_empty(), "{} answers differ\n\n{}", faults.len(), faults.join("\n"));
}
