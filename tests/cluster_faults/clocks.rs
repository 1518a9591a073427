//! Members whose clocks jump. Leases must not end early for it, nor live for ever, and nothing else may notice.
//!
//! ```text
//! wall clock: a library put before the C library's (`tests/support/wall_clock.c`) adds what a file says, at once
//! monotonic clock: a time namespace shifts it from a process's start on, as a reboot does
//! ```
//! What this covers: every reading of the wall clock by the process, jumping while it runs; a monotonic clock that
//! begins elsewhere after a restart. What it doesn't: a monotonic clock that jumps or drifts under a running process,
//! which Linux rules out; the simulation has drifting ones. The kernel's own timers keep the true time.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::cluster::{COMES_MAX, Cluster, until_answered};
use crate::leases::{Renewed, ends_in_time, grant_surely, is_there, renew};
use crate::run::Run;
use crate::settings::rounds_or;

const DAY_SECS: i64 = 86_400;
/// Some years, so that a log line tells.
const FAR_DAYS: i64 = 4_000;
const TTL_SECS: i64 = 5;

fn skip(test: &str, why: &str) {
    // Written past the test runner's capture, which would hide it in a passing test.
    writeln!(std::io::stdout(), "SKIPPED {test}: {why}").ok();
}

/// The library, and a file for each member that says by how much its wall clock is wrong.
struct WallClocks {
    library: PathBuf,
    dir: TempDir,
}

impl WallClocks {
    /// `None` where there is no C compiler, said loudly for `test`.
    fn build(test: &str) -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let library = dir.path().join("wall_clock.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/wall_clock.c");
        let built = Command::new("cc").args(["-shared", "-fPIC", "-O2", "-o"]).arg(&library).arg(&source).output();
        match built {
            Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => {
                skip(test, &format!("`cc`: {error}"));
                return None;
            }
        }
        Some(Self { library, dir })
    }

    fn file(&self, member: usize) -> PathBuf {
        self.dir.path().join(format!("m{member}"))
    }

    /// Has a member's clock be wrong by so many seconds from now on.
    fn set(&self, member: usize, secs: i64) {
        let file = File::options().write(true).create(true).truncate(false).open(self.file(member)).unwrap();
        file.write_all_at(&secs.to_ne_bytes(), 0).unwrap();
    }

    /// Puts the library into a member's next start.
    fn equip(&self, cluster: &mut Cluster, member: usize) {
        self.set(member, 0);
        let variables = [("LD_PRELOAD", &self.library), ("WALL_CLOCK", &self.file(member))];
        let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
        cluster.process(member).variables = variables.map(|(name, path)| (name.to_owned(), text(path))).to_vec();
    }
}

/// The leases of one round: one that is renewed, one that is left alone.
struct Pair {
    ids: [i64; 2],
    renewed: [Vec<Renewed>; 2],
}

impl Pair {
    async fn grant(cluster: &Cluster, asked: usize, round: i64) -> Self {
        let ids = [2 * round + 1, 2 * round + 2];
        let channel = cluster.channel(asked);
        let mut renewed = [Vec::new(), Vec::new()];
        for (id, renewed) in ids.iter().zip(&mut renewed) {
            renewed.push(grant_surely(&channel, *id, TTL_SECS).await);
        }
        Self { ids, renewed }
    }

    /// Renews the one that is to live, for so long, wherever that goes; whoever doesn't answer soon isn't waited for.
    async fn keep(&mut self, cluster: &Cluster, secs: u64) {
        for turn in 0..secs * 4 {
            let channel = cluster.channel(turn as usize % cluster.len());
            let asked = tokio::time::timeout(Duration::from_secs(1), renew(&channel, self.ids[0])).await;
            if let Ok(Ok(answer)) = asked {
                self.renewed[0].push(answer.expect("a lease that is renewed lives"));
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// Starts a member, and renews until it serves.
    async fn keep_until_serves(&mut self, cluster: &mut Cluster, member: usize) {
        let begun = Instant::now();
        cluster.spawn(member);
        while cluster.status(member).await.map_or(0, |status| status.leader) == 0 {
            assert!(begun.elapsed() < COMES_MAX, "m{member} doesn't serve\n{}", cluster.log(member));
            self.keep(cluster, 1).await;
        }
    }

    /// Both end, in nobody's promised time, and not in a day's either.
    async fn end(&self, cluster: &Cluster, asked: usize) {
        let channel = cluster.channel(asked);
        let (sent, ttl) = *self.renewed[0].last().expect("it was granted");
        let is_there = until_answered("its key", || is_there(&channel, self.ids[0])).await;
        assert!(is_there || sent.elapsed() >= ttl, "it was renewed all the time");
        for (id, renewed) in self.ids.iter().zip(&self.renewed) {
            ends_in_time(cluster, asked, *id, renewed).await;
        }
    }
}

/// The years in which a member has said something, as it believes.
fn years(log: &str) -> Vec<u32> {
    let stamps = log.split("\"ts\":\"").skip(1);
    stamps.filter_map(|stamp| stamp.get(..4)?.parse().ok()).collect()
}

/// The leader's wall clock jumps years ahead and back while leases run, then the others' do, then the leader is killed and
/// another one with a wrong clock takes over, and the first one comes back with another wrong clock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wall_clocks_jump() {
    let Some(clocks) = WallClocks::build("wall_clocks_jump") else { return };
    let mut run = Run::start("wall clocks jump", 3, &[]).await;
    for member in 0..3 {
        run.cluster.kill(member);
        clocks.equip(&mut run.cluster, member);
        run.cluster.restart(member).await;
    }
    // Whoever led may take itself for the leader for a moment after its restart: a lease that it grants then may be lost.
    run.load.goes_on(100).await;
    for round in 0..i64::from(rounds_or(2, 16)) {
        let days = [FAR_DAYS, -1, 1, -FAR_DAYS][round as usize % 4];
        let leader = run.cluster.leader().await;
        let (asked, other) = ((leader + 1) % 3, (leader + 2) % 3);
        println!("  the clock of m{leader}, which leads, jumps by {days} days");
        let mut pair = Pair::grant(&run.cluster, asked, round).await;
        clocks.set(leader, days * DAY_SECS);
        pair.keep(&run.cluster, 1).await;
        clocks.set(asked, -days * DAY_SECS);
        clocks.set(other, 3 * days * DAY_SECS);
        pair.keep(&run.cluster, 1).await;
        // Whoever leads next has another time of the day, and the one that comes back yet another.
        run.cluster.kill(leader);
        run.cluster.leader_but(Some(leader)).await;
        clocks.set(leader, -2 * days * DAY_SECS);
        pair.keep_until_serves(&mut run.cluster, leader).await;
        pair.keep(&run.cluster, 1).await;
        pair.end(&run.cluster, asked).await;
        run.load.goes_on(50).await;
    }
    let years: Vec<u32> = (0..3).flat_map(|member| years(&run.cluster.log(member))).collect();
    let (first, last) = (years.iter().min().unwrap(), years.iter().max().unwrap());
    assert!(last - first >= 20, "no clock was ever wrong: {first} to {last}");
    run.finish().await;
}

/// The clock of the whole system, that of a boot, as a process started now would have it.
fn uptime_secs() -> i64 {
    let text = fs::read_to_string("/proc/uptime").unwrap();
    text.split('.').next().unwrap().parse().unwrap()
}

/// Whether a process can be put into a time namespace here; if not, it is said loudly for `test`.
fn can_shift(test: &str) -> bool {
    let own = fs::read_link("/proc/self/ns/time").unwrap_or_default();
    match Command::new("unshare").args(["--time", "--monotonic", "1000", "readlink", "/proc/self/ns/time"]).output() {
        // The program itself is in it, not only what it starts.
        Ok(output) if output.status.success() && output.stdout.trim_ascii() != own.as_os_str().as_bytes() => true,
        Ok(output) => {
            skip(test, &format!("no time namespaces here: {}", String::from_utf8_lossy(&output.stderr).trim()));
            false
        }
        Err(error) => {
            skip(test, &format!("`unshare`: {error}"));
            false
        }
    }
}

/// The leader is killed while leases run, and comes back with a monotonic clock that is days ahead or hours behind, as after a
/// reboot; the next leader's clock was never near the first one's. What is left of a lease must not be reckoned from
/// one's clock to another's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn monotonic_clocks_begin_elsewhere() {
    if !can_shift("monotonic_clocks_begin_elsewhere") {
        return;
    }
    let mut run = Run::start("monotonic clocks shifted", 3, &[]).await;
    let back = -uptime_secs() / 2;
    let shift = |run: &mut Run, member: usize, secs: i64| {
        let secs = secs.to_string();
        let words = ["unshare", "--time", "--monotonic", &secs, "--boottime", &secs];
        run.cluster.process(member).within = words.map(str::to_owned).to_vec();
    };
    for (member, secs) in [30 * DAY_SECS, back, 0].into_iter().enumerate() {
        run.cluster.kill(member);
        shift(&mut run, member, secs);
        run.cluster.restart(member).await;
    }
    // As above.
    run.load.goes_on(100).await;
    for round in 0..i64::from(rounds_or(2, 12)) {
        let leader = run.cluster.leader().await;
        let asked = (leader + 1) % 3;
        let secs = [back, 365 * DAY_SECS, 1][round as usize % 3];
        println!("  m{leader}, which leads, comes back with its clock shifted by {secs} s");
        let mut pair = Pair::grant(&run.cluster, asked, round).await;
        pair.keep(&run.cluster, 1).await;
        run.cluster.kill(leader);
        shift(&mut run, leader, secs);
        run.cluster.leader_but(Some(leader)).await;
        pair.keep_until_serves(&mut run.cluster, leader).await;
        pair.keep(&run.cluster, 2).await;
        pair.end(&run.cluster, asked).await;
        run.load.goes_on(50).await;
    }
    run.finish().await;
}
