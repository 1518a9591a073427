//! Several connections driven by one thread.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::connection::{Connection, Event};
use super::sender::Sender;

/// Connections to a server, or to the members of a cluster.
pub(crate) struct Pool {
    connections: Vec<Connection>,
}

impl Pool {
    /// Connects so many times, to one address after the other.
    ///
    /// # Errors
    /// Those of the sockets.
    pub(crate) fn open(addresses: &[SocketAddr], count: usize) -> io::Result<Self> {
        let epoch = Instant::now();
        let addresses = addresses.iter().cycle().take(count);
        let connections = addresses.map(|address| Connection::open(*address, epoch)).collect::<io::Result<_>>()?;
        Ok(Self { connections })
    }

    /// The way out of one connection.
    pub(crate) fn sender(&mut self, connection: usize) -> &mut Sender {
        let at = connection % self.connections.len();
        &mut self.connections[at].sender
    }

    /// Has all calls from here on show a token.
    pub(crate) fn set_token(&mut self, token: Option<&str>) {
        for connection in &mut self.connections {
            connection.sender.token = token.map(str::to_owned);
        }
    }

    /// Writes what is to be written, waits at most `timeout`, hands out what came.
    ///
    /// # Errors
    /// Those of the sockets, and a server that says goodbye.
    pub(crate) fn turn(&mut self, timeout: Duration, mut on: impl FnMut(&mut Sender, Event<'_>)) -> io::Result<()> {
        self.connections.iter_mut().try_for_each(Connection::flush)?;
        let mut waits: Vec<_> = self
            .connections
            .iter()
            .map(|connection| {
                let out = if connection.is_behind() { PollFlags::OUT } else { PollFlags::empty() };
                PollFd::new(&connection.socket, PollFlags::IN | out)
            })
            .collect();
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        match poll(&mut waits, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = waits
            .iter()
            .map(|wait| wait.revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR))
            .collect();
        for (connection, _) in self.connections.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            connection.fill(&mut on)?;
        }
        Ok(())
    }
}
