//! Members on machines of their own, as far as the network goes: one namespace each, joined by a bridge.
//!
//! ```text
//! test ── bridge (.254) ─┬─ veth ── namespace of member 0 (.1)
//!                        ├─ veth ── namespace of member 1 (.2)
//!                        └─ …
//! ```
//! A direction is cut at the sender: its neighbour table says a hardware address that nobody has, so frames go out and are
//! lost without a word, while the other direction works. TCP sees what it sees on a broken wire: silence, its own
//! repeats that get rarer, connections that hang. The proxies of `net` can't show that. What is lost by chance, or late, is
//! `weather`'s. All is taken away at drop, and what a killed
//! test left behind by the next one.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::process::Place;
use crate::subnet::Subnet;

/// Inside a namespace nobody else listens.
const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
/// Nobody has it.
const NOBODY: &str = "02:00:5e:00:00:01";
const PREFIX: &str = "rusd-";

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The namespaces of one cluster's members.
pub(crate) struct Namespaces {
    /// What all names here begin with: process and number.
    tag: String,
    subnet: Subnet,
    members: usize,
}

impl Namespaces {
    /// Makes them; `None` where that can't be done, said loudly for `test`.
    pub(crate) fn new(members: usize, test: &str) -> Option<Self> {
        clear_away();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // Of the range for tests between networks, which nobody routes; another one than the last test's.
        let made = Subnet::claim([198, 18], std::process::id().wrapping_add(number)).and_then(|subnet| {
            // Dropped if one of the steps fails, with what was made up to then.
            let made = Self { tag: format!("{}x{number}", std::process::id()), subnet, members };
            made.make().map(|()| made)
        });
        // Written past the test runner's capture, which would hide it in a passing test.
        let skipped = |why| writeln!(std::io::stdout(), "SKIPPED {test}: no network namespaces here: {why}").ok();
        made.map_err(skipped).ok()
    }

    fn make(&self) -> Result<(), String> {
        let bridge = self.bridge();
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["addr", "add", &format!("{}/24", self.subnet.address(254)), "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        for at in 0..self.members {
            let (space, port) = (self.space(at), self.port(at));
            ip(&["netns", "add", &space])?;
            ip(&["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &space])?;
            ip(&["link", "set", &port, "master", &bridge, "up"])?;
            ip(&["-n", &space, "addr", "add", &format!("{}/24", self.address(at)), "dev", "eth0"])?;
            ip(&["-n", &space, "link", "set", "lo", "up"])?;
            ip(&["-n", &space, "link", "set", "eth0", "up"])?;
        }
        Ok(())
    }

    fn bridge(&self) -> String {
        format!("rb{}", self.tag)
    }

    fn port(&self, at: usize) -> String {
        format!("rv{}-{at}", self.tag)
    }

    fn space(&self, at: usize) -> String {
        format!("{PREFIX}{}-{at}", self.tag)
    }

    /// A member's address.
    pub(crate) fn address(&self, at: usize) -> String {
        self.subnet.address(at as u8 + 1).to_string()
    }

    /// Where a member listens.
    pub(crate) fn place(&self, at: usize) -> Place {
        let peer = format!("http://{}:{PEER_PORT}", self.address(at));
        let client = format!("http://{}:{CLIENT_PORT}", self.address(at));
        Place {
            client,
            peer: [peer.clone(), peer],
            #[cfg(feature = "failpoints")]
            failpoints: PEER_PORT + 1,
        }
    }

    /// What runs a program inside: it becomes the program, so signals reach it.
    pub(crate) fn within(&self, at: usize) -> Vec<String> {
        ["ip", "netns", "exec", &self.space(at)].map(str::to_owned).to_vec()
    }

    /// Loses what one member sends to another.
    pub(crate) fn cut(&self, from: usize, to: usize) {
        let nobody = ["lladdr", NOBODY, "dev", "eth0", "nud", "permanent"];
        let (space, address) = (self.space(from), self.address(to));
        ip(&[&["-n", &space, "neigh", "replace", &address], &nobody[..]].concat()).unwrap();
    }

    /// Loses everything between these members and the others.
    pub(crate) fn split(&self, side: &[usize]) {
        for (a, b) in self.pairs().filter(|(a, b)| side.contains(a) != side.contains(b)) {
            self.cut(a, b);
        }
    }

    /// Pulls a member's cable: nobody reaches it, clients neither. Or plugs it in again.
    pub(crate) fn plug(&self, at: usize, is_in: bool) {
        ip(&["link", "set", &self.port(at), if is_in { "up" } else { "down" }]).unwrap();
    }

    /// Everything between members passes again.
    pub(crate) fn heal(&self) {
        for (from, to) in self.pairs() {
            // It isn't there if nothing was cut.
            let _ = ip(&["-n", &self.space(from), "neigh", "del", &self.address(to), "dev", "eth0"]);
        }
    }

    /// How many members have one.
    pub(crate) fn len(&self) -> usize {
        self.members
    }

    /// All directions between two members: from, to.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        let members = self.members;
        (0..members).flat_map(move |from| (0..members).map(move |to| (from, to))).filter(|(from, to)| from != to)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // A namespace takes its end of the cable with it, and that the other end. What was never made can't be deleted.
        for at in 0..self.members {
            let _ = ip(&["netns", "del", &self.space(at)]);
        }
        let _ = ip(&["link", "del", &self.bridge()]);
    }
}

/// Takes away what test processes that live no more left behind.
fn clear_away() {
    let is_gone = |tag: &str| {
        let owner: String = tag.chars().take_while(char::is_ascii_digit).collect();
        !owner.is_empty() && tag[owner.len()..].starts_with('x') && !Path::new("/proc").join(owner).exists()
    };
    let names = |dir: &str| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    for name in names("/run/netns") {
        if name.strip_prefix(PREFIX).is_some_and(is_gone) {
            let _ = ip(&["netns", "del", &name]);
        }
    }
    for name in names("/sys/class/net") {
        if name.strip_prefix("rb").is_some_and(is_gone) {
            let _ = ip(&["link", "del", &name]);
        }
    }
}

fn ip(words: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(words).output().map_err(|error| format!("`ip`: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("ip {}: {}", words.join(" "), said.trim())) }
}
