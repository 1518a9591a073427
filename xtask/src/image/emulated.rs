//! The image of the other processor, whose program qemu runs.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::build::Arch;
use super::story::Unpacked;
use crate::report::{Tried, expect, passed, skipped};
use crate::{peers, ports, sh};

const READY_MAX: Duration = Duration::from_secs(120);

/// Ends it whatever happens.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A member that serves, a put and a get, its own health check; nothing of it is fast.
pub(super) fn serves(image: &Unpacked, arch: Arch) -> Tried {
    let emulator = format!("qemu-{}-static", arch.rust);
    if Command::new(&emulator).arg("--version").stdout(Stdio::null()).status().is_err() {
        return skipped(format!("{emulator} isn't here (Debian: qemu-user-static)"));
    }
    let program = image.root.join("usr/local/bin/rusd");
    let version = sh::output({
        let mut command = Command::new(&emulator);
        command.arg(&program).arg("--version");
        command
    })?;
    let version = String::from_utf8_lossy(&version).into_owned();
    expect(version.contains(&format!("linux/{}", arch.name)), format!("it says {version}"))?;
    let dir = sh::target().join("image/volumes").join(format!("{}-emulated", std::process::id()));
    fs::create_dir_all(&dir)?;
    let [client, peer] = ports::free(2)?[..] else { return Err("two ports".into()) };
    let [client, peer] = [client, peer].map(|port| format!("http://127.0.0.1:{port}"));
    let log = dir.join("log");
    let mut command = Command::new(&emulator);
    command
        .arg(&program)
        .arg(format!("--data-dir={}", dir.join("data").display()))
        .args([format!("--listen-client-urls={client}"), format!("--advertise-client-urls={client}")])
        .args([format!("--listen-peer-urls={peer}"), format!("--initial-advertise-peer-urls={peer}")])
        .arg(format!("--initial-cluster=default={peer}"))
        .stdin(Stdio::null())
        .stderr(File::create(&log)?);
    let begun = Instant::now();
    let mut process = Process(command.spawn()?);
    while !fs::read_to_string(&log)?.contains("ready to serve client requests") {
        let ended = process.0.try_wait()?;
        if ended.is_some() || begun.elapsed() > READY_MAX {
            return Err(format!("it isn't ready ({ended:?}):\n{}", fs::read_to_string(&log)?).into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let ready = begun.elapsed();
    let endpoint = format!("--endpoints={client}");
    let run = |program: PathBuf, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args);
        sh::output(command)
    };
    let etcdctl = peers::directory().join("etcdctl");
    run(etcdctl.clone(), &[&endpoint, "put", "greeting", "hello"])?;
    let got = run(etcdctl, &[&endpoint, "get", "greeting", "--print-value-only"])?;
    expect(got.starts_with(b"hello"), "the value is another")?;
    let program = program.to_str().ok_or("the target directory's path is not text")?;
    run(PathBuf::from(&emulator), &[program, "status", "--exit-code", &endpoint])?;
    drop(process);
    fs::remove_dir_all(dir)?;
    passed(format!("serves under {emulator} after {} ms; put, get, health check", ready.as_millis()))
}
