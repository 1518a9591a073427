//! What the image of this machine's processor is held against, in containers.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::build::Arch;
use super::container::{Container, Net, Plan, volume};
use super::layout::{HEALTH, Layout};
use crate::report::{Tried, expect, passed, skipped};
use crate::{peers, sh};

/// From `runc run` to "ready to serve client requests", at most.
const START_MAX: Duration = Duration::from_millis(150);
/// What a registry sends, at most: 30 MB.
const COMPRESSED_MAX: u64 = 30_000_000;
/// Starts of which the middle one counts.
const STARTS: usize = 9;
/// So many rounds of them, for others may come in between.
const ROUNDS: usize = 3;
/// The part of all processors' time that others may take at most, or starts say nothing of ours.
const TAKEN_MAX: f64 = 0.1;
/// How long it is looked at what others take, and how long it is waited for them: a build goes on long after its last line.
const LOOK: Duration = Duration::from_secs(2);
const QUIET_WAIT_MAX: Duration = Duration::from_secs(240);

/// An image that is unpacked here.
pub(super) struct Unpacked {
    pub(super) root: PathBuf,
    pub(super) config: Value,
}

impl Unpacked {
    pub(super) fn new(layout: &Layout, arch: Arch, name: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let root = sh::target().join("image/roots").join(format!("{name}-{}", arch.name));
        layout.unpack(arch, &root)?;
        Ok(Self { root, config: layout.config(arch)? })
    }

    /// A container with nothing but what the image says, and a volume.
    fn plain<'a>(&'a self, name: &'a str, volume: &Path) -> Plan<'a> {
        Plan {
            name,
            root: &self.root,
            config: &self.config,
            command: None,
            args: Vec::new(),
            mounts: vec![(volume.to_owned(), super::assemble::DATA.to_owned())],
            net: Net::Own,
        }
    }
}

/// Bytes that a registry sends.
pub(super) fn size(layout: &Layout, arch: Arch) -> Tried {
    let bytes = layout.compressed(arch)?;
    expect(bytes < COMPRESSED_MAX, format!("{} MiB compressed", mib(bytes)))?;
    passed(format!("{} MiB compressed, below {}", mib(bytes), mib(COMPRESSED_MAX)))
}

fn mib(bytes: u64) -> String {
    // A tenth is all that is shown.
    format!("{}.{}", bytes >> 20, ((bytes % (1 << 20)) * 10) >> 20)
}

/// Put and get through a container that may do nothing; its health check; its end.
pub(super) fn serves(image: &Unpacked) -> Tried {
    let volume = volume("serves", &image.config)?;
    let mut container = Container::start(&image.plain("serves", &volume))?;
    container.ready()?;
    let seen = confined(&container)?;
    let etcdctl = peers::directory().join("etcdctl");
    let ask = |args: &[&str]| -> Result<String, Box<dyn std::error::Error>> {
        let output = container.in_network(&etcdctl, args)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        expect(output.status.success(), format!("etcdctl {}: {said}", args.join(" ")))?;
        Ok(said)
    };
    ask(&["put", "greeting", "hello"])?;
    expect(ask(&["get", "greeting", "--print-value-only"])?.trim() == "hello", "the value is another")?;
    // Behind the prompt of Docker and Podman it is exactly this.
    let health = container.exec(&HEALTH)?;
    let said = String::from_utf8_lossy(&health.stdout).into_owned();
    expect(health.status.success() && said.starts_with("well"), format!("the health check says {said}"))?;
    let lost = container.exec(&[&HEALTH[..], &["--endpoints=http://127.0.0.1:1"]].concat())?;
    expect(lost.status.code() == Some(1), format!("a health check of nobody ends with {}", lost.status))?;
    let status = container.stop()?;
    expect(status.success(), format!("after SIGTERM it ends with {status}"))?;
    // The same volume again: what was put is there.
    drop(container);
    let container = Container::start(&image.plain("again", &volume))?;
    container.ready()?;
    let output = container.in_network(&etcdctl, &["get", "greeting", "--print-value-only"])?;
    expect(output.stdout.starts_with(b"hello"), "what was put is gone after a restart")?;
    drop(container);
    fs::remove_dir_all(volume)?;
    passed(format!("{seen}; put, get, health check 0 and 1, end 0 by SIGTERM, data there after a restart"))
}

/// What the kernel says of its first process.
pub(super) fn confined(container: &Container) -> Result<String, Box<dyn std::error::Error>> {
    let proc = PathBuf::from(format!("/proc/{}", container.pid()?));
    let status = fs::read_to_string(proc.join("status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().split_whitespace().next().unwrap_or_default().to_owned()
    };
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let value = field(name);
        expect(!value.is_empty() && value.bytes().all(|byte| byte == b'0'), format!("{name} is {value}"))?;
    }
    expect(field("NoNewPrivs") == "1", "it may gain privileges")?;
    let mounts = fs::read_to_string(proc.join("mountinfo"))?;
    expect(is_read_only(&mounts), "its root can be written to")?;
    let filter =
        if field("Seccomp") == "2" { "with RuntimeDefault's seccomp" } else { "without seccomp (no profile here)" };
    Ok(format!("user {}, root read-only, no capabilities, {filter}", field("Uid")))
}

/// Whether the root's line in `mountinfo` says so.
fn is_read_only(mounts: &str) -> bool {
    let root = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|words| words.get(4) == Some(&"/"));
    root.and_then(|words| words.get(5).map(|options| options.split(',').any(|option| option == "ro"))).unwrap_or(false)
}

/// How long a start takes: with an empty volume, and runc's own share of it. It can't be told only where others never leave the
/// machine alone.
pub(super) fn starts(image: &Unpacked) -> Tried {
    let mut wanted = String::new();
    for _ in 0..ROUNDS {
        if !is_quiet_soon()? {
            break;
        }
        let (middle, shown) = started(image)?;
        if middle < START_MAX {
            return passed(shown);
        }
        wanted = format!("{shown}: {} are allowed", START_MAX.as_millis());
        if taken()? <= TAKEN_MAX {
            return Err(wanted.into());
        }
    }
    skipped(format!("others take the processors, however long it is waited; {wanted}"))
}

/// The middle one of some starts, and all of them in words.
fn started(image: &Unpacked) -> Result<(Duration, String), Box<dyn std::error::Error>> {
    let mut all = Vec::new();
    for _ in 0..STARTS {
        let volume = volume("starts", &image.config)?;
        let mut container = Container::start(&image.plain("starts", &volume))?;
        all.push(container.ready()?);
        container.stop()?;
        drop(container);
        fs::remove_dir_all(volume)?;
    }
    all.sort_unstable();
    let (middle, worst) = (all[STARTS / 2], all[STARTS - 1]);
    let shown = format!(
        "{} ms from `runc run` to ready in the middle of {STARTS}, {} at worst",
        middle.as_millis(),
        worst.as_millis()
    );
    Ok((middle, shown))
}

/// Waits until others leave the machine alone; whether they do.
fn is_quiet_soon() -> Result<bool, Box<dyn std::error::Error>> {
    let begun = Instant::now();
    loop {
        if taken()? <= TAKEN_MAX {
            return Ok(true);
        }
        if begun.elapsed() > QUIET_WAIT_MAX {
            return Ok(false);
        }
    }
}

/// The part of all processors' time that others take, while this one only waits.
fn taken() -> Result<f64, Box<dyn std::error::Error>> {
    let look = || -> Result<_, Box<dyn std::error::Error>> { ticks(&fs::read_to_string("/proc/stat")?) };
    let (busy, all) = look()?;
    std::thread::sleep(LOOK);
    let (busy_then, all_then) = look()?;
    Ok((busy_then - busy) as f64 / (all_then - all).max(1) as f64)
}

/// Ticks in which the processors worked, and all of them.
fn ticks(stat: &str) -> Result<(u64, u64), Box<dyn std::error::Error>> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).ok_or("/proc/stat has no sum")?;
    let all = line.split_whitespace().take(8).map(str::parse).collect::<Result<Vec<u64>, _>>()?;
    let [user, nice, system, idle, waiting, rest @ ..] = all.as_slice() else {
        return Err("/proc/stat is short".into());
    };
    let busy = user + nice + system + rest.iter().sum::<u64>();
    Ok((busy, busy + idle + waiting))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_s_options_are_read() {
        let root = |options: &str| {
            format!("1 2 0:3 / /proc rw - proc proc rw\n5 6 0:7 /x / {options} shared:1 - ext4 /dev/vda rw\n")
        };
        assert!(is_read_only(&root("ro,relatime")));
        assert!(!is_read_only(&root("rw,relatime")));
        assert!(!is_read_only(""));
    }

    #[test]
    fn what_others_take_is_all_but_idle_and_waiting() {
        // user nice system idle iowait irq softirq steal, and guests, which are in user already.
        let stat = "cpu  10 1 5 70 4 2 3 5 9 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(ticks(stat).expect("a line"), (26, 100));
        assert!(ticks("cpu0 1 2 3 4 5 6\n").is_err() && ticks("cpu  1 2\n").is_err() && ticks("cpu  x").is_err());
    }

    #[test]
    fn sizes_are_shown_in_tenths() {
        assert_eq!(mib(30 << 20), "30.0");
        assert_eq!(mib((9 << 20) + (1 << 19)), "9.5");
    }
}
