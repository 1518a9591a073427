//! What the image of this machine's processor is held against, in containers.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::build::Arch;
use super::container::{Container, Net, Plan, volume};
use super::layout::{HEALTH, Layout};
use crate::report::{Tried, expect, passed, skipped};
use crate::{peers, sh};

/// From `runc run` to "ready to serve client requests", at most.
const START_MAX: Duration = Duration::from_millis(150);
/// What a registry sends, at most.
const COMPRESSED_MAX: u64 = 30 << 20;
/// Starts of which the middle one counts.
const STARTS: usize = 9;

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

/// How long a start takes: with an empty volume, and runc's own share of it.
pub(super) fn starts(image: &Unpacked) -> Tried {
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
    if middle < START_MAX {
        return passed(shown);
    }
    let wanted = format!("{shown}: {} are allowed", START_MAX.as_millis());
    // Among other work it says nothing of ours.
    match busy()? {
        Some(load) => skipped(format!("{wanted} when nothing else runs, and the load is {load}")),
        None => Err(wanted.into()),
    }
}

/// The machine's load, if others leave no processor free.
fn busy() -> Result<Option<f64>, Box<dyn std::error::Error>> {
    let processors = std::thread::available_parallelism()?.get();
    Ok(load(&fs::read_to_string("/proc/loadavg")?)?.filter(|load| *load >= processors as f64))
}

/// The mean of the last minute.
fn load(text: &str) -> Result<Option<f64>, std::num::ParseFloatError> {
    text.split_whitespace().next().map(str::parse).transpose()
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
    fn the_load_is_the_first_number() {
        assert_eq!(load("2.50 1.00 0.50 3/400 1234\n"), Ok(Some(2.5)));
        assert_eq!(load(""), Ok(None));
        assert!(load("x").is_err());
    }

    #[test]
    fn sizes_are_shown_in_tenths() {
        assert_eq!(mib(30 << 20), "30.0");
        assert_eq!(mib((9 << 20) + (1 << 19)), "9.5");
    }
}
