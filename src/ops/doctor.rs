//! `rusd doctor`: whether this machine is fit for a member.
//!
//! ```text
//! data directory ─► format, who holds it ─┐
//! a file there ─► write 4 KiB, sync, again ─► p50, p99 ─► Finding* ─► text, or JSON
//! clock, descriptors, room ───────────────┘
//! ```
//! It changes nothing but a file of its own, and may be run beside a member that serves.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::config::Config;
use super::data_dir::{FORMAT_VERSION, Format};
use crate::env::{Access, Env, read_all};

/// Syncs that are timed, as far as [`SYNC_TIME_MAX`] allows.
const SYNCS: usize = 200;
/// A disk that is slower than its time isn't measured more closely.
const SYNC_TIME_MAX: Duration = Duration::from_secs(5);
/// What is written before each sync: a page of the log.
const PAGE_BYTES: usize = 4096;
/// A p99 up to this is well: it is what etcd asks of a disk, too.
const SYNC_WELL: Duration = Duration::from_millis(10);
/// From here on, elections come of it with the usual heartbeat.
const SYNC_BAD: Duration = Duration::from_millis(100);
/// Open files that a member with many clients needs.
const FILES_WELL: u64 = 10_000;
/// With fewer there is hardly room for clients.
const FILES_BAD: u64 = 512;
const ROOM_WELL_BYTES: u64 = 4 << 30;
const ROOM_BAD_BYTES: u64 = 256 << 20;
/// 2026-01-01: no rusd was there before.
const EARLIEST_SECS: u64 = 1_767_225_600;
/// More than this between both clocks, over some seconds, is a jump.
const JUMP: Duration = Duration::from_millis(100);
/// Which of the kernel's clocks counts.
const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Well,
    /// It will do, and could be better.
    Poor,
    /// A member shouldn't run so.
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub what: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was seen.
    pub seen: String,
    /// What to do, where it isn't well.
    pub remedy: &'static str,
}

impl Finding {
    /// Whether a member shouldn't run so.
    pub fn is_bad(&self) -> bool {
        self.verdict == Verdict::Bad
    }
}

/// Looks at all of it; takes some seconds and blocks.
pub fn examine(env: &Env, data_dir: &Path, wal_dir: Option<&Path>) -> Vec<Finding> {
    let (begun, begun_wall) = (env.clock.now(), env.clock.wall());
    let mut findings = vec![data(env, data_dir)];
    let election = Config::default().member.election_timeout;
    let log = wal_dir.map_or_else(|| data_dir.join("member").join("wal"), Path::to_owned);
    // Writes wait for the log alone.
    findings.extend(existing(env, &log).map(|dir| syncs(env, &dir)));
    findings.extend(existing(env, data_dir).map(|dir| room(env, "room", &dir)));
    if let Some(dir) = wal_dir.and_then(|dir| existing(env, dir)) {
        findings.push(room(env, "log's room", &dir));
    }
    findings.push(files());
    let passed = env.clock.now().saturating_duration_since(begun);
    findings.push(clock(env, begun_wall, passed, election));
    findings
}

/// The nearest directory that is there.
fn existing(env: &Env, dir: &Path) -> Option<PathBuf> {
    let named = |dir: &Path| if dir.as_os_str().is_empty() { PathBuf::from(".") } else { dir.to_owned() };
    dir.ancestors().map(named).find(|dir| env.disk.exists(dir).unwrap_or(false))
}

fn data(env: &Env, dir: &Path) -> Finding {
    let finding = |verdict, seen, remedy| Finding { what: "data", verdict, seen, remedy };
    let path = dir.join("member").join("format");
    let bytes = match read_all(env.disk.as_ref(), &path, PAGE_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return finding(Verdict::Well, format!("{} holds no member yet", dir.display()), "");
        }
        Err(error) => {
            return finding(
                Verdict::Bad,
                format!("{}: {error}", path.display()),
                "Run it as the user that the server runs as.",
            );
        }
    };
    match Format::parse(&String::from_utf8_lossy(&bytes)) {
        Ok(format) => {
            let held = env.disk.open(&dir.join("member").join("lock"), Access::Read).and_then(|file| file.try_lock());
            let state = if matches!(held, Ok(false)) { "a process runs on it" } else { "no process runs on it" };
            let identity = format.identity;
            let seen = format!(
                "{}: format {FORMAT_VERSION}, engine {}, cluster {}, member {}; {state}",
                dir.display(),
                format.engine.name(),
                identity.cluster,
                identity.member
            );
            finding(Verdict::Well, seen, "")
        }
        Err(error) => finding(
            Verdict::Bad,
            format!("{}: {error}", dir.display()),
            "Start the version that made it, or restore a backup.",
        ),
    }
}

/// How long it takes until bytes are on the disk.
fn syncs(env: &Env, dir: &Path) -> Finding {
    let path = dir.join(format!("rusd-doctor-{:08x}.tmp", env.rng.next_u64() >> 32));
    let measured = measure(env, &path);
    // Made here alone, and of no use to anybody.
    let _ = env.disk.remove(&path);
    let finding = |verdict, seen, remedy| Finding { what: "log's disk", verdict, seen, remedy };
    match measured {
        Err(error) => finding(Verdict::Bad, format!("{}: {error}", path.display()), unwritten(error.kind())),
        Ok(mut took) => {
            took.sort_unstable();
            let at =
                |share: usize| took.get((took.len() * share / 100).min(took.len() - 1)).copied().unwrap_or_default();
            let (p50, p99) = (at(50), at(99));
            let verdict = match p99 {
                p99 if p99 <= SYNC_WELL => Verdict::Well,
                p99 if p99 < SYNC_BAD => Verdict::Poor,
                _ => Verdict::Bad,
            };
            let seen = format!("{}: fsync p50 {}, p99 {}, of {}", dir.display(), millis(p50), millis(p99), took.len());
            finding(verdict, seen, "Each write waits for this on a majority: take a local SSD, and nothing else on it.")
        }
    }
}

/// What to do where a file can't be written.
fn unwritten(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::PermissionDenied => "Let the user that the server runs as write there.",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "Make room, or enlarge the file system.",
        io::ErrorKind::ReadOnlyFilesystem => {
            "Mount it writable; the kernel's log (dmesg) says if a fault made it read-only."
        }
        _ => "Look at the kernel's log (dmesg) if the error is one of the disk's.",
    }
}

fn measure(env: &Env, path: &Path) -> io::Result<Vec<Duration>> {
    let file = env.disk.open(path, Access::CreateNew)?;
    // As the log does it: with the room taken before, a sync has no names or lengths to write.
    file.allocate(0, (SYNCS * PAGE_BYTES) as u64)?;
    file.sync_all()?;
    let (page, begun) = ([0x5a; PAGE_BYTES], env.clock.now());
    let mut took = Vec::with_capacity(SYNCS);
    for at in 0..SYNCS {
        let before = env.clock.now();
        file.write_at(&page, (at * PAGE_BYTES) as u64)?;
        file.sync_data()?;
        let after = env.clock.now();
        took.push(after.saturating_duration_since(before));
        if after.saturating_duration_since(begun) > SYNC_TIME_MAX {
            break;
        }
    }
    Ok(took)
}

fn room(env: &Env, what: &'static str, dir: &Path) -> Finding {
    let finding = |verdict, seen, remedy| Finding { what, verdict, seen, remedy };
    let remedy = "The log and the data need room to be written anew: enlarge the file system.";
    match env.disk.free_bytes(dir) {
        Err(error) => finding(Verdict::Poor, format!("{}: {error}", dir.display()), "Look by hand: df."),
        Ok(bytes) => {
            let verdict = judged(bytes, ROOM_WELL_BYTES, ROOM_BAD_BYTES);
            finding(verdict, format!("{}: {} MiB free", dir.display(), bytes >> 20), remedy)
        }
    }
}

fn files() -> Finding {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let seen = limit.map_or_else(|| "as many as one likes".to_owned(), |limit| format!("{limit} may be open"));
    let verdict = judged(limit.unwrap_or(u64::MAX), FILES_WELL, FILES_BAD);
    let remedy = "Each client takes one: ulimit -n 65536, or LimitNOFILE=65536 in the unit.";
    Finding { what: "descriptors", verdict, seen, remedy }
}

fn judged(there: u64, well: u64, bad: u64) -> Verdict {
    match there {
        there if there >= well => Verdict::Well,
        there if there >= bad => Verdict::Poor,
        _ => Verdict::Bad,
    }
}

/// What can be seen of the clock without asking anybody: that it is set, doesn't jump, and is cheap to read.
fn clock(env: &Env, before: SystemTime, passed: Duration, election: Duration) -> Finding {
    let finding = |verdict, seen, remedy| Finding { what: "clock", verdict, seen, remedy };
    let now = env.clock.wall();
    let unix = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    if unix.as_secs() < EARLIEST_SECS {
        return finding(
            Verdict::Bad,
            format!("it says {} seconds after 1970", unix.as_secs()),
            "Set it, and keep it set (chrony): certificates and logs go by it.",
        );
    }
    let by_wall = now.duration_since(before).unwrap_or_default();
    let apart = by_wall.max(passed) - by_wall.min(passed);
    if apart > JUMP {
        return finding(
            Verdict::Poor,
            format!("it was set by {} while it was looked at", millis(apart)),
            "Let chrony slew it instead of setting it.",
        );
    }
    let source = source(env);
    // They are read through a device, some microseconds each.
    let is_slow = matches!(source.as_str(), "hpet" | "acpi_pm" | "jiffies");
    finding(
        if is_slow { Verdict::Poor } else { Verdict::Well },
        format!("set, didn't jump in {}, source {source}; elections after {}", millis(passed), millis(election)),
        "Reading it is slow: look why the kernel doesn't trust the processor's (dmesg | grep -i tsc).",
    )
}

fn source(env: &Env) -> String {
    let mut name = [0; 32];
    let read = env.disk.open(Path::new(CLOCK_SOURCE), Access::Read).and_then(|file| file.read_at(&mut name, 0));
    match read {
        Ok(bytes) => String::from_utf8_lossy(name.get(..bytes).unwrap_or_default()).trim().to_owned(),
        Err(_) => "unknown".to_owned(),
    }
}

fn millis(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1_000.0)
}

/// A line for each, and what to do.
pub fn as_text(findings: &[Finding]) -> String {
    let shown = |finding: &Finding| {
        let verdict = match finding.verdict {
            Verdict::Well => "well",
            Verdict::Poor => "POOR",
            Verdict::Bad => "BAD",
        };
        let remedy = match finding.verdict {
            Verdict::Well => String::new(),
            _ => format!("{:<19}{}\n", "", finding.remedy),
        };
        format!("{verdict:<5} {:<12} {}\n{remedy}", finding.what, finding.seen)
    };
    findings.iter().map(shown).collect()
}

/// The same for programs.
pub fn as_json(findings: &[Finding]) -> String {
    let shown = |finding: &Finding| {
        let verdict = match finding.verdict {
            Verdict::Well => "well",
            Verdict::Poor => "poor",
            Verdict::Bad => "bad",
        };
        json!({ "what": finding.what, "verdict": verdict, "seen": finding.seen, "remedy": finding.remedy })
    };
    let worst = findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Well);
    let all: Vec<_> = findings.iter().map(shown).collect();
    format!("{}\n", json!({ "fit": worst < Verdict::Bad, "findings": all }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::env::{Disk, ManualClock, MemDisk, write_atomic};

    fn env() -> (Env, Arc<MemDisk>, Arc<ManualClock>) {
        let (disk, clock) = (Arc::new(MemDisk::new()), Arc::new(ManualClock::new()));
        clock.advance(Duration::from_secs(EARLIEST_SECS));
        (Env { disk: disk.clone(), clock: clock.clone(), ..Env::real() }, disk, clock)
    }

    fn of<'a>(findings: &'a [Finding], what: &str) -> &'a Finding {
        findings.iter().find(|finding| finding.what == what).expect("it was looked at")
    }

    #[test]
    fn a_machine_without_data_is_fit() {
        let (env, disk, _) = env();
        disk.create_dir_all(Path::new("/var")).expect("a directory");
        let findings = examine(&env, Path::new("/var/lib/rusd"), None);
        assert_eq!(of(&findings, "data").verdict, Verdict::Well, "{findings:?}");
        assert!(of(&findings, "log's disk").seen.contains("p99 0.0 ms, of 200"), "{findings:?}");
        assert_eq!(of(&findings, "clock").verdict, Verdict::Well, "{findings:?}");
        assert!(as_text(&findings).starts_with("well  data"), "{}", as_text(&findings));
        // Nothing stays behind.
        assert!(disk.list(Path::new("/var")).expect("a directory").is_empty());
    }

    /// Cause: one remedy for every error. Symptom: on a full disk doctor told people to change its owner.
    #[test]
    fn a_full_disk_is_told_from_one_that_may_not_be_written() {
        let remedy = |code| unwritten(io::Error::from_raw_os_error(code).kind());
        assert!(remedy(28).starts_with("Make room"), "ENOSPC: {}", remedy(28));
        assert!(remedy(13).starts_with("Let the user"), "EACCES: {}", remedy(13));
    }

    #[test]
    fn damaged_and_newer_data_are_bad() {
        let (env, disk, _) = env();
        disk.create_dir_all(Path::new("/d/member")).expect("a directory");
        for text in ["format 99\n", "what"] {
            write_atomic(disk.as_ref(), Path::new("/d/member/format"), text.as_bytes()).expect("written");
            let findings = examine(&env, Path::new("/d"), None);
            assert!(of(&findings, "data").is_bad(), "{findings:?}");
            assert!(as_json(&findings).contains("\"fit\":false"), "{}", as_json(&findings));
        }
    }

    #[test]
    fn a_clock_that_is_not_set_or_jumps_is_noticed() {
        let (env, _, clock) = env();
        let election = Duration::from_secs(1);
        let now = env.clock.wall();
        assert_eq!(super::clock(&env, now, Duration::ZERO, election).verdict, Verdict::Well);
        assert_eq!(super::clock(&env, now, Duration::from_secs(2), election).verdict, Verdict::Poor);
        clock.advance(Duration::from_secs(3));
        assert_eq!(super::clock(&env, now, Duration::from_secs(3), election).verdict, Verdict::Well);
        let unset = Env { clock: Arc::new(ManualClock::new()), ..env };
        assert!(super::clock(&unset, SystemTime::UNIX_EPOCH, Duration::ZERO, election).is_bad());
    }

    #[test]
    fn limits_are_judged() {
        assert_eq!([9, 5, 1].map(|there| judged(there, 8, 2)), [Verdict::Well, Verdict::Poor, Verdict::Bad]);
    }
}
