//! `rusd status`, `rusd doctor` and the texts, as a person, a health check or a script runs them.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const ENDPOINT: &str = "--endpoints=unix://localhost:1";

/// Ends it whatever happens.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if the process is gone already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn start(dir: &Path) -> Process {
    // Sockets by relative names, so that no port can be taken.
    let flags = [
        "--name=one",
        "--listen-client-urls=unix://localhost:1",
        "--advertise-client-urls=unix://localhost:1",
        "--listen-peer-urls=unix://localhost:2",
        "--initial-advertise-peer-urls=unix://localhost:2",
        "--initial-cluster=one=unix://localhost:2",
        "--data-dir=data",
    ];
    let log = File::create(dir.join("log")).expect("a log");
    let child = Command::new(env!("CARGO_BIN_EXE_rusd"))
        .args(flags)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("rusd starts");
    Process(child)
}

fn rusd(dir: &Path, arguments: &[&str]) -> (Output, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rusd"));
    let output = command.args(arguments).current_dir(dir).stdin(Stdio::null()).output().expect("rusd runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output, text)
}

#[test]
fn a_members_health_is_an_exit_code() {
    let dir = tempfile::tempdir().expect("a directory");
    let (output, text) = rusd(dir.path(), &["status", ENDPOINT, "--exit-code"]);
    assert_eq!(output.status.code(), Some(1), "nobody is there: {text}");
    let process = start(dir.path());
    let well = |text: &[&str]| {
        let arguments = [&["status", ENDPOINT, "--exit-code"], text].concat();
        // Until it leads.
        for _ in 0..200 {
            let (output, text) = rusd(dir.path(), &arguments);
            if output.status.success() {
                return text;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("it isn't well");
    };
    let text = well(&[]);
    assert!(text.starts_with("well: cluster ") && text.contains(", leader one,"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&well(&["--cluster", "-w=json"])).expect("JSON");
    assert_eq!((&json["well"], &json["members"][0]["role"]), (&true.into(), &"leader".into()), "{json}");
    let (output, text) = rusd(dir.path(), &["status", ENDPOINT, "--cluster", "--members=3", "--exit-code"]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("there should be 3"), "{text}");
    // What isn't well is no failure of the asking.
    let (output, _) = rusd(dir.path(), &["status", ENDPOINT, "--members=3"]);
    assert!(output.status.success());

    let (output, text) = rusd(dir.path(), &["doctor", "--data-dir=data"]);
    assert!(text.contains("a process runs on it") && text.contains("fsync p50"), "{text}");
    assert!(output.status.code().is_some_and(|code| code < 2), "{output:?}");
    drop(process);
    let (output, text) = rusd(dir.path(), &["status", ENDPOINT]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("GONE"), "{text}");
    let (_, text) = rusd(dir.path(), &["doctor", "--data-dir=data", "-w=json"]);
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert!(json["findings"][0]["seen"].as_str().is_some_and(|seen| seen.contains("no process")), "{json}");
}

#[test]
fn texts_are_printed_without_a_server() {
    let dir = tempfile::tempdir().expect("a directory");
    for (arguments, part) in [
        (&["explain", "etcdserver: no leader"][..], "majority"),
        (&["explain", "etcdserver:", "no", "leader"], "majority"),
        (&["completions", "bash"], "_rusd"),
        (&["man"], ".TH rusd"),
        (&["status", "--help"], "--exit-code"),
    ] {
        let (output, text) = rusd(dir.path(), arguments);
        assert!(output.status.success() && text.contains(part), "{arguments:?}: {text}");
    }
    let (output, _) = rusd(dir.path(), &["explain", "nothing of the kind"]);
    assert_eq!(output.status.code(), Some(2));
}
