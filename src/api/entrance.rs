//! From an accepted socket to a connection that may be served: TLS, or not, in bearable time.
//!
//! ```text
//! socket ─► Security ─┬► Plain ───────────────────────────────► Line
//!                     ├► Tls ───────────────► handshake ──────► Line, with who calls
//!                     └► Either ─► first byte ─► one of the two
//! a handshake ends ─► done · refused ─► logged · HANDSHAKE_MAX over · pushed out by newer ones
//! ```
//! Handshakes under way are bounded apart from connections, and the bound is one on those that hang: where
//! there are more, the oldest is pushed out if it has had time enough. When a herd of honest clients comes at
//! once, nobody is pushed out, until half of all connections are handshakes. Then it hits who hasn't said
//! anything yet, or the newcomer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::connections::Asks;
use super::line::{Begun, Duplex};
use crate::tls::{Acceptor, ClientIdentity, HandshakeError};

/// How a TLS record begins that opens a connection; no request of plain HTTP begins so.
const HANDSHAKE_RECORD: u8 = 0x16;
/// Between two lines of the log about refused connections; those in between are counted.
const LOG_EVERY: Duration = Duration::from_millis(100);

/// Why a handshake was pushed out, or not begun.
const TOO_MANY: &str = "too many handshakes are under way";

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
    /// Handshakes under way at a time on one listener from which on those that hang are pushed out.
    pub handshakes_max: usize,
    /// How old a handshake is that hangs.
    pub hangs_after: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            first_bytes: Duration::from_secs(30),
            handshakes_max: 512,
            hangs_after: Duration::from_secs(2),
        }
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller {
    /// By a certificate that was verified.
    pub(crate) identity: Option<Arc<ClientIdentity>>,
    /// Whether nobody could listen in.
    pub(crate) is_private: bool,
    /// Whence it comes, as far as one client is told from another.
    pub(crate) address: Option<IpAddr>,
    /// To be told of its requests, if its place hangs on them.
    pub(crate) asks: Option<Arc<Asks>>,
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
        let most = (connections / 2).max(1);
        let max = patience.handshakes_max.clamp(1, most);
        let pending = Arc::new(Pending { max, most, hangs_after: patience.hangs_after, entered: Mutex::default() });
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
        let Some(mut ticket) = self.pending.enter(Instant::now()) else {
            self.refused(address, TOO_MANY);
            return None;
        };
        let number = ticket.number;
        let opened = tokio::select! {
            biased;
            opened = tokio::time::timeout(self.handshake_max, self.handshake(stream, address, number)) => opened,
            () = ticket.pushed_out() => Ok(Err(HandshakeError::Refused(TOO_MANY.to_owned()))),
        };
        drop(ticket);
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
        number: u64,
    ) -> Result<(Box<dyn Duplex>, Caller), HandshakeError> {
        let (acceptor, is_either) = match &self.security {
            Security::Plain => return Ok((Box::new(stream), Caller::default())),
            Security::Tls(acceptor) => (acceptor, false),
            Security::Either(acceptor) => (acceptor, true),
        };
        let first = stream.read_u8().await.map_err(|_| HandshakeError::Gone)?;
        self.pending.speaks(number);
        let stream = Begun::new(first, stream);
        if is_either && first != HANDSHAKE_RECORD {
            return Ok((Box::new(stream), Caller::default()));
        }
        private(acceptor, stream, address).await
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
    Ok((Box::new(stream), Caller { identity: identity.map(Arc::new), is_private: true, ..Caller::default() }))
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
    /// From here on those that hang make room.
    max: usize,
    /// There are never more.
    most: usize,
    hangs_after: Duration,
    entered: Mutex<Entered>,
}

#[derive(Default)]
struct Entered {
    next: u64,
    /// In the order in which they began.
    open: BTreeMap<u64, Place>,
    /// Those that haven't said anything yet.
    silent: BTreeSet<u64>,
}

struct Place {
    since: Instant,
    /// Its receiver sees it gone.
    _push: oneshot::Sender<()>,
}

impl Entered {
    fn remove(&mut self, number: u64) {
        self.open.remove(&number);
        self.silent.remove(&number);
    }
}

/// One handshake's place among them.
struct Ticket {
    number: u64,
    pushed: oneshot::Receiver<()>,
    pending: Arc<Pending>,
}

impl Pending {
    /// Takes a place, maybe another's; `None` if nobody has to make room.
    fn enter(self: &Arc<Self>, now: Instant) -> Option<Ticket> {
        let mut entered = self.entered.lock();
        if entered.open.len() >= self.max {
            let hangs = |place: &Place| now.saturating_duration_since(place.since) >= self.hangs_after;
            let hanging = entered.open.first_key_value().filter(|(_, place)| hangs(place)).map(|(number, _)| *number);
            if let Some(number) = hanging {
                entered.remove(number);
            } else if entered.open.len() >= self.most {
                let silent = *entered.silent.first()?;
                entered.remove(silent);
            }
        }
        let (push, pushed) = oneshot::channel();
        let number = entered.next;
        entered.next += 1;
        entered.open.insert(number, Place { since: now, _push: push });
        entered.silent.insert(number);
        drop(entered);
        Some(Ticket { number, pushed, pending: self.clone() })
    }

    /// Its first byte has come.
    fn speaks(&self, number: u64) {
        self.entered.lock().silent.remove(&number);
    }
}

impl Ticket {
    async fn pushed_out(&mut self) {
        // Nothing is ever sent.
        let _ = (&mut self.pushed).await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.pending.entered.lock().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(max: usize, most: usize) -> Arc<Pending> {
        Arc::new(Pending { max, most, hangs_after: Duration::from_secs(2), entered: Mutex::default() })
    }

    async fn is_out(ticket: &mut Ticket) -> bool {
        tokio::time::timeout(Duration::from_millis(20), ticket.pushed_out()).await.is_ok()
    }

    #[tokio::test]
    async fn a_handshake_that_hangs_makes_room() {
        let (pending, now) = (pending(2, 4), Instant::now());
        let enter = |secs| pending.enter(now + Duration::from_secs(secs)).expect("room");
        let (mut first, second, mut third) = (enter(0), enter(0), enter(1));
        assert!(!is_out(&mut first).await, "it is too young");
        let _fourth = enter(2);
        assert!(is_out(&mut first).await && !is_out(&mut third).await);
        assert_eq!(pending.entered.lock().open.len(), 3);
        drop((first, second));
        assert_eq!(pending.entered.lock().open.len(), 2);
        drop((third, _fourth));
        let entered = pending.entered.lock();
        assert!(entered.open.is_empty() && entered.silent.is_empty());
    }

    #[tokio::test]
    async fn in_a_flood_who_speaks_keeps_his_place() {
        let (pending, now) = (pending(1, 3), Instant::now());
        let mut tickets: Vec<_> = (0..3).map(|_| pending.enter(now).expect("room")).collect();
        pending.speaks(tickets[0].number);
        let fourth = pending.enter(now).expect("the place of one that is silent");
        assert!(!is_out(&mut tickets[0]).await && is_out(&mut tickets[1]).await && !is_out(&mut tickets[2]).await);
        pending.speaks(tickets[2].number);
        pending.speaks(fourth.number);
        assert!(pending.enter(now).is_none(), "all are busy");
        assert!(pending.enter(now + Duration::from_secs(2)).is_some());
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
