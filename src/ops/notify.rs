//! Telling the service manager that the member is ready: systemd's `Type=notify`, as the Debian unit has it.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The service manager's socket: a path, or a name that begins with `@`.
const VARIABLE: &str = "NOTIFY_SOCKET";
/// What it is told.
const READY: &[u8] = b"READY=1";
/// A manager that doesn't read must not hold up the start.
const WRITE_MAX: Duration = Duration::from_secs(1);

/// Tells whoever started the process by such a unit; does nothing without one.
///
/// # Errors
/// The system's answer, when there is such a socket and it can't be written to.
pub fn ready() -> io::Result<()> {
    match std::env::var(VARIABLE) {
        Ok(name) if !name.is_empty() => send(&name, READY),
        _ => Ok(()),
    }
}

fn send(name: &str, message: &[u8]) -> io::Result<()> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(WRITE_MAX))?;
    socket.send_to_addr(message, &address).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> Vec<u8> {
        let mut buffer = [0; 64];
        let bytes = socket.recv(&mut buffer).expect("a message");
        buffer[..bytes].to_vec()
    }

    #[test]
    fn a_socket_by_path_and_one_by_name_are_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("bound");
        send(path.to_str().expect("text"), READY).expect("sent");
        assert_eq!(received(&socket), READY);

        let name = format!("rusd-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("an address");
        let socket = UnixDatagram::bind_addr(&address).expect("bound");
        send(&format!("@{name}"), READY).expect("sent");
        assert_eq!(received(&socket), READY);
    }

    #[test]
    fn a_socket_that_nobody_has_is_an_error() {
        assert!(send("/nowhere/at/all", READY).is_err());
    }
}
