//! Ports for servers of a command's own.

use std::net::TcpListener;

/// Ports to choose from: below those that the kernel takes for outgoing connections.
const PORTS: std::ops::Range<u16> = 13_000..32_000;

/// So many ports that nobody listens on.
pub(crate) fn free(count: usize) -> Result<Vec<u16>, String> {
    // Commands that run at the same time begin to look at different places.
    let all = u32::from(PORTS.end - PORTS.start);
    let first = PORTS.start + u16::try_from(std::process::id() % all).map_err(|error| error.to_string())?;
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let found: Vec<u16> = (first..PORTS.end).chain(PORTS.start..first).filter(is_free).take(count).collect();
    if found.len() == count { Ok(found) } else { Err("no port is free".to_owned()) }
}
