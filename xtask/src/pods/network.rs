//! The pods' network: a namespace for each, joined by a bridge; an address is never given twice.
//!
//! ```text
//! bridge ─┬─ .254 the cluster's DNS   .253 the service
//!         └─ veth ── namespace of a pod (.1, .2, …)
//! ```

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

use super::Result;
use crate::subnet::Subnet;

const PREFIX: &str = "xpod-";
const BRIDGE: &str = "xb";
/// Addresses for pods end before those of the cluster's own.
const PODS_MAX: u8 = 250;

/// All of it is taken away at drop.
pub(super) struct Network {
    /// What all names here end with: this process.
    tag: u32,
    subnet: Subnet,
    next: AtomicU8,
}

/// Where a pod is; taken away at drop.
pub(super) struct Place {
    pub(super) space: String,
    pub(super) address: Ipv4Addr,
}

impl Network {
    /// An error if there are no namespaces here.
    pub(super) fn new() -> Result<Self> {
        clear_away();
        let tag = std::process::id();
        // Of the range for tests between networks, which nobody routes.
        let made = Self { tag, subnet: Subnet::claim([198, 19], tag)?, next: AtomicU8::new(1) };
        let bridge = made.bridge();
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        for address in [made.dns(), made.service()] {
            ip(&["addr", "add", &format!("{address}/24"), "dev", &bridge])?;
        }
        ip(&["link", "set", &bridge, "up"])?;
        Ok(made)
    }

    fn bridge(&self) -> String {
        format!("{BRIDGE}{}", self.tag)
    }

    pub(super) fn dns(&self) -> Ipv4Addr {
        self.subnet.address(254)
    }

    pub(super) fn service(&self) -> Ipv4Addr {
        self.subnet.address(253)
    }

    /// A place for a new pod.
    pub(super) fn place(&self) -> Result<Place> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if number > PODS_MAX {
            return Err("there are no more addresses".into());
        }
        let (space, port) = (format!("{PREFIX}{}-{number}", self.tag), format!("xv{}-{number}", self.tag));
        ip(&["netns", "add", &space])?;
        let place = Place { space, address: self.subnet.address(number) };
        ip(&["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &place.space])?;
        ip(&["link", "set", &port, "master", &self.bridge(), "up"])?;
        ip(&["-n", &place.space, "addr", "add", &format!("{}/24", place.address), "dev", "eth0"])?;
        ip(&["-n", &place.space, "link", "set", "lo", "up"])?;
        ip(&["-n", &place.space, "link", "set", "eth0", "up"])?;
        Ok(place)
    }
}

impl Place {
    /// Pulls the cable: whoever is connected hears nothing any more.
    pub(super) fn unplug(&self) -> Result<()> {
        ip(&["-n", &self.space, "link", "set", "eth0", "down"])
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // It takes its end of the cable with it, and that the other end.
        let _ = ip(&["netns", "del", &self.space]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = ip(&["link", "del", &self.bridge()]);
    }
}

/// Takes away what processes of this command that live no more left behind.
fn clear_away() {
    let names = |dir: &str| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let is_gone = |rest: &str| {
        let owner: String = rest.chars().take_while(char::is_ascii_digit).collect();
        !owner.is_empty() && !Path::new("/proc").join(owner).exists()
    };
    for name in names("/run/netns").iter().filter(|name| name.strip_prefix(PREFIX).is_some_and(is_gone)) {
        let _ = ip(&["netns", "del", name]);
    }
    for name in names("/sys/class/net").iter().filter(|name| name.strip_prefix(BRIDGE).is_some_and(is_gone)) {
        let _ = ip(&["link", "del", name]);
    }
}

fn ip(words: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(words).output().map_err(|error| format!("`ip`: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("ip {}: {}", words.join(" "), said.trim()).into()) }
}
