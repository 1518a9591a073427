//! Networks for containers, each a namespace: machines on one wire, or one with an address of its own.

use std::process::Command;

use crate::sh;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Machines on a wire; taken away at drop.
pub(super) struct Wire {
    tag: String,
    spaces: Vec<String>,
}

fn ip(args: &[&str]) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(args);
    sh::output(command)?;
    Ok(())
}

impl Wire {
    /// One machine with this address and loopback, and no wire at all.
    pub(super) fn alone(name: &str, address: &str) -> Result<Self> {
        let mut wire = Self { tag: format!("rusd-{}-{name}", std::process::id()), spaces: Vec::new() };
        let space = wire.space("node")?;
        ip(&["-n", &space, "addr", "add", &format!("{address}/32"), "dev", "lo"])?;
        Ok(wire)
    }

    /// Machines with these addresses of one network of 256.
    pub(super) fn joined(name: &str, addresses: &[String]) -> Result<Self> {
        let mut wire = Self { tag: format!("rusd-{}-{name}", std::process::id()), spaces: Vec::new() };
        let hub = wire.space("hub")?;
        ip(&["-n", &hub, "link", "add", "wire", "type", "bridge"])?;
        ip(&["-n", &hub, "link", "set", "wire", "up"])?;
        for (at, address) in addresses.iter().enumerate() {
            let (space, port) = (wire.space(&at.to_string())?, format!("port{at}"));
            ip(&["-n", &hub, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &space])?;
            ip(&["-n", &hub, "link", "set", &port, "master", "wire", "up"])?;
            ip(&["-n", &space, "addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
            ip(&["-n", &space, "link", "set", "eth0", "up"])?;
        }
        Ok(wire)
    }

    /// Makes one, with loopback up.
    fn space(&mut self, name: &str) -> Result<String> {
        let space = format!("{}-{name}", self.tag);
        ip(&["netns", "add", &space])?;
        self.spaces.push(space.clone());
        ip(&["-n", &space, "link", "set", "lo", "up"])?;
        Ok(space)
    }

    /// The namespace's name of a machine, in the order of the addresses; of the one that is alone with 0.
    pub(super) fn machine(&self, at: usize) -> &str {
        let hubs = usize::from(self.spaces.len() > 1);
        &self.spaces[at + hubs]
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for space in self.spaces.iter().rev() {
            // Its wire goes with it. What can't be removed is said by the next look at `ip netns`.
            let _ = ip(&["netns", "del", space]);
        }
    }
}
