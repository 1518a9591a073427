//! rusd under a service manager, as systemd's `Type=notify` has it: the manager is told once the member serves, and a
//! stop that it asks for ends the process by the same signal.

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Ends it whatever happens.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if the process is gone already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn a_service_manager_is_told_that_the_member_serves() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = UnixDatagram::bind(dir.path().join("notify")).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let log = File::create(dir.path().join("log")).expect("a log");
    // Sockets by relative names, so that no port can be taken.
    let flags = [
        "--listen-client-urls=unix://localhost:1",
        "--advertise-client-urls=unix://localhost:1",
        "--listen-peer-urls=unix://localhost:2",
        "--initial-advertise-peer-urls=unix://localhost:2",
        "--initial-cluster=default=unix://localhost:2",
        "--data-dir=data",
    ];
    let child = Command::new(env!("CARGO_BIN_EXE_rusd"))
        .args(flags)
        .current_dir(dir.path())
        .env("NOTIFY_SOCKET", "notify")
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("rusd starts");
    let mut process = Process(child);
    let mut told = [0; 64];
    let bytes = socket.recv(&mut told).expect("the manager is told");
    assert_eq!(&told[..bytes], b"READY=1");
    let text = fs::read_to_string(dir.path().join("log")).expect("a log");
    assert!(text.contains("ready to serve client requests"), "{text}");

    let pid = i32::try_from(process.0.id()).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, Signal::TERM).expect("it is there");
    let status = process.0.wait().expect("it ends");
    assert_eq!(status.signal(), Some(Signal::TERM.as_raw()), "{status}");
}
