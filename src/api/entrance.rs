//! From an accepted socket to a connection that may be served: TLS, or not, in bearable time.
//!
//! ```text
//! socket ─► Security ─┬► Plain ───────────────────────────────► Line
//!                     ├► Tls ───────────────► handshake ──────► Line, with who calls
//!                     └► Either ─► first byte ─► one of the two
//! a handshake ends ─► done · refused ─► logged · HANDSHAKE_MAX over · pushed out by newer ones
//! ```
//! Handshakes under way are bounded apart from connections: whoever begins many and ends none pushes out
//! his own, since those of honest clients are done long before they are the oldest.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::line::{Begun, Duplex};
use crate::tls::{Acceptor, ClientIdentity, HandshakeError};

/// How a TLS record begins that opens a connection; no request of plain HTTP begins so.
const HANDSHAKE_RECORD: u8 = 0x16;
/// Between two lines of the log about refused connections; those in between are counted.
const LOG_EVERY: Duration = Duration::from_millis(100);

/// How a listener's bytes are protected.
#[derive(Clone, Debug, Default)]
pub enum Security {
    /// Not at all.
    #[default]
    Plain,
    /// By TLS.
    Tls(Acceptor),
    /// As each client likes, on one port.
    Either(Acceptor),
}

/// How long clients may take to become a connection.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// The TLS handshake, the first byte included.
    pub handshake: Duration,
    /// From the socket, or the handshake, to knowing which protocol is spoken.
    pub first_bytes: Duration,
    /// Handshakes under way at a time on one listener.
    pub handshakes_max: usize,
}

impl Default for Patience {
    fn default() -> Self {
        Self { handshake: Duration::from_secs(10), first_bytes: Duration::from_secs(30), handshakes_max: 512 }
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller {
    /// By a certificate that was verified.
    pub(crate) identity: Option<Arc<ClientIdentity>>,
}

/// The entrance of one listener.
pub(super) struct Entrance {
    security: Security,
    handshake_max: Duration,
    /// For whom it is, in logs.
    whom: &'static str,
    pending: Arc<Pending>,
    refusals: Mutex<Refusals>,
}

impl Entrance {
    /// `connections` is how many there may be at a time.
    pub(super) fn new(security: Security, patience: Patience, connections: usize, whom: &'static str) -> Self {
        let max = patience.handshakes_max.min(connections / 2).max(1);
        let pending = Arc::new(Pending { max, entered: Mutex::default() });
        Self { security, handshake_max: patience.handshake, whom, pending, refusals: Mutex::default() }
    }

    /// Lets a client in, or logs why not.
    pub(super) async fn open<S: Duplex>(
        &self,
        stream: S,
        address: Option<IpAddr>,
    ) -> Option<(Box<dyn Duplex>, Caller)> {
        if matches!(self.security, Security::Plain) {
            return Some((Box::new(stream), Caller::default()));
        }
        let ticket = self.pending.enter();
        let opened = tokio::select! {
            biased;
            opened = tokio::time::timeout(self.handshake_max, self.handshake(stream, address)) => opened,
            () = ticket.pushed_out() => Ok(Err(HandshakeError::Refused("too many handshakes are under way".to_owned()))),
        };
        match opened {
            Ok(Ok(opened)) => return Some(opened),
            Ok(Err(HandshakeError::Gone)) => {
                tracing::debug!(address = ?address, "a connection on the {} endpoint ended at once", self.whom);
            }
            Ok(Err(HandshakeError::Refused(why))) => self.refused(address, &why),
            Err(_) => self.refused(address, "tls: the handshake took too long"),
        }
        None
    }

    async fn handshake<S: Duplex>(
        &self,
        mut stream: S,
        address: Option<IpAddr>,
    ) -> Result<(Box<dyn Duplex>, Caller), HandshakeError> {
        match &self.security {
            Security::Plain => Ok((Box::new(stream), Caller::default())),
            Security::Tls(acceptor) => private(acceptor, stream, address).await,
            Security::Either(acceptor) => {
                let first = stream.read_u8().await.map_err(|_| HandshakeError::Gone)?;
                let stream = Begun::new(first, stream);
                if first == HANDSHAKE_RECORD {
                    private(acceptor, stream, address).await
                } else {
                    Ok((Box::new(stream), Caller::default()))
                }
            }
        }
    }

    fn refused(&self, address: Option<IpAddr>, why: &str) {
        let Some(before) = self.refusals.lock().say(Instant::now()) else { return };
        let address = address.map(|address| address.to_string()).unwrap_or_default();
        tracing::warn!(
            "remote-addr" = address,
            error = why,
            "not-logged-before" = before,
            "rejected connection on {} endpoint",
            self.whom
        );
    }
}

async fn private<S: Duplex>(
    acceptor: &Acceptor,
    stream: S,
    address: Option<IpAddr>,
) -> Result<(Box<dyn Duplex>, Caller), HandshakeError> {
    let (stream, identity) = acceptor.accept(stream, address).await?;
    Ok((Box::new(stream), Caller { identity: identity.map(Arc::new) }))
}

/// Refusals are many when somebody wants them to be.
#[derive(Default)]
struct Refusals {
    said: Option<Instant>,
    unsaid: u64,
}

impl Refusals {
    /// Whether to log one now: how many were not logged since the last one.
    fn say(&mut self, now: Instant) -> Option<u64> {
        if self.said.is_some_and(|said| now.saturating_duration_since(said) < LOG_EVERY) {
            self.unsaid += 1;
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

/// Handshakes under way.
struct Pending {
    max: usize,
    entered: Mutex<Entered>,
}

#[derive(Default)]
struct Entered {
    next: u64,
    /// In the order in which they began.
    open: BTreeMap<u64, oneshot::Sender<()>>,
}

/// One handshake's place among them.
struct Ticket {
    number: u64,
    pushed: Option<oneshot::Receiver<()>>,
    pending: Arc<Pending>,
}

impl Pending {
    /// Takes a place; from the oldest if there is none.
    fn enter(self: &Arc<Self>) -> Ticket {
        let (push, pushed) = oneshot::channel();
        let mut entered = self.entered.lock();
        let number = entered.next;
        entered.next += 1;
        entered.open.insert(number, push);
        if entered.open.len() > self.max {
            // Its receiver sees the sender gone.
            entered.open.pop_first();
        }
        drop(entered);
        Ticket { number, pushed: Some(pushed), pending: self.clone() }
    }
}

impl Ticket {
    async fn pushed_out(mut self) {
        if let Some(pushed) = self.pushed.take() {
            // Nothing is ever sent.
            let _ = pushed.await;
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.pending.entered.lock().open.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_handshake_makes_room() {
        let pending = Arc::new(Pending { max: 2, entered: Mutex::default() });
        let (first, second) = (pending.enter(), pending.enter());
        drop(second);
        let third = pending.enter();
        assert_eq!(pending.entered.lock().open.len(), 2);
        let fourth = pending.enter();
        first.pushed_out().await;
        assert_eq!(pending.entered.lock().open.len(), 2);
        let stays = tokio::time::timeout(Duration::from_millis(20), third.pushed_out()).await;
        assert!(stays.is_err());
        drop(fourth);
        assert!(pending.entered.lock().open.is_empty());
    }

    #[test]
    fn a_flood_of_refusals_is_counted_and_not_logged() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        assert_eq!(refusals.say(now), Some(0));
        assert_eq!(refusals.say(now + LOG_EVERY / 2), None);
        assert_eq!(refusals.say(now + LOG_EVERY / 2), None);
        assert_eq!(refusals.say(now + LOG_EVERY), Some(2));
        assert_eq!(refusals.say(now + 2 * LOG_EVERY), Some(0));
    }
}
