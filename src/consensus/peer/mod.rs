//! How members reach each other.
//!
//! ```text
//! Raft core ─► Peers (openraft's factory) ─► Link ─► Channels ─► Dial ─► socket ─► Service ─► Raft core
//!                                                    append · control · snapshot, a connection each
//! a follower's proposals and reads ─► Peers::ask ─► control ─► Service ─► the leader's Node
//! ```
//! Heartbeats, votes and questions have a connection of their own, so that they never wait behind
//! entries, and entries never behind a snapshot. Every call names the cluster and both members; one
//! from a member that was removed is told so, and it ends.

mod ask;
mod book;
mod channels;
mod dial;
mod ledger;
mod link;
mod meter;
mod outgoing;
mod patience;
mod quorum;
mod refusal;
mod service;
mod snapshot;
mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use openraft::RaftNetworkFactory;
use openraft::raft::AppendEntriesRequest;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::log_store::{LogStore, PurgedIndex};
use super::types::{PeerNode, TypeConfig};
use crate::env::Env;
use crate::types::{ClusterId, MemberId, RaftIndex};

pub use ask::{Digests, Forwarded, LeaseLeft};
pub use book::Book;
pub use dial::{Dial, Dialing, NoDial, SocketDial, Stream};
pub use meter::{MeterOf, PeerMeter, Way};
pub use service::{Asking, Questions, Service};
pub use snapshot::{HEALING, installed_name};

pub(super) use quorum::Lead;

use channels::Channels;
use link::Link;
use meter::{Meters, Unmetered};
use outgoing::Outgoing;

/// How this member reaches the others.
#[derive(Clone, Debug)]
pub struct PeerOptions {
    /// The cluster.
    pub cluster: ClusterId,
    /// This member.
    pub member: MemberId,
    /// `--election-timeout`: a connection that is silent for so long is given up.
    pub election_timeout: Duration,
    /// The largest message that is taken in, in bytes; above the largest log entry.
    pub message_bytes_max: usize,
    /// Where snapshots that come in are kept.
    pub snapshot_dir: PathBuf,
}

/// The other members. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    inner: Arc<Inner>,
}

struct Inner {
    options: PeerOptions,
    env: Env,
    dial: Arc<dyn Dial>,
    book: Arc<Book>,
    channels: Mutex<BTreeMap<MemberId, Arc<Channels>>>,
    removed: watch::Sender<bool>,
    lead: watch::Sender<Lead>,
    /// Bytes of the last snapshot that came to heal this member, or was to, and when that was.
    healing_bytes: Mutex<Option<(u64, Instant)>>,
    meters: OnceLock<Meters>,
    outgoing: Outgoing,
    /// Not kept alive from here: whoever waits for an entry is told of Raft's end when the log goes.
    log: OnceLock<PurgedIndex>,
}

impl Peers {
    /// Nobody is reached yet; connections are made when they are needed.
    pub fn new(options: PeerOptions, env: Env, dial: Arc<dyn Dial>) -> Self {
        let inner = Inner {
            options,
            env,
            dial,
            book: Arc::default(),
            channels: Mutex::default(),
            removed: watch::Sender::new(false),
            lead: watch::Sender::default(),
            healing_bytes: Mutex::default(),
            meters: OnceLock::new(),
            outgoing: Outgoing::default(),
            log: OnceLock::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Has what passes between the members counted, from before any of them is reached.
    pub fn metered(self, make: MeterOf) -> Self {
        // The first one stays.
        let _ = self.inner.meters.set(Meters::new(make));
        self
    }

    /// Counts what passes between this member and one that calls; nobody does for a stranger.
    fn meter(&self, caller: MemberId) -> Arc<dyn PeerMeter> {
        if self.inner.book.knows(caller) { self.meter_of(caller) } else { Arc::new(Unmetered) }
    }

    fn meter_of(&self, member: MemberId) -> Arc<dyn PeerMeter> {
        self.inner.meters.get().map_or_else(|| Arc::new(Unmetered) as _, |meters| meters.of(member))
    }

    /// Where the members are.
    pub fn book(&self) -> &Book {
        &self.inner.book
    }

    /// The cluster that this member belongs to.
    pub fn cluster(&self) -> ClusterId {
        self.inner.options.cluster
    }

    /// Becomes true when another member says that this one was removed.
    pub fn removed(&self) -> watch::Receiver<bool> {
        self.inner.removed.subscribe()
    }

    /// Names the log that this member replicates from.
    pub(super) fn set_log(&self, log: &LogStore) {
        // A node starts once.
        let _ = self.inner.log.set(log.purged_index());
    }

    /// Whether a request has nothing to say because the entries it should have carried are purged: openraft
    /// (0.10.0-alpha.37) goes on with a range that a snapshot has taken the place of when a commit wakes it. No
    /// error either, as that would begin the snapshot anew; openraft tries again until it has something better.
    pub(super) fn is_superseded(&self, request: &AppendEntriesRequest<TypeConfig>) -> bool {
        let purged = || self.inner.log.get().and_then(PurgedIndex::get);
        let prev = request.prev_log_id.map(|id| id.index);
        request.entries.is_empty() && purged().is_some_and(|purged| prev.is_none_or(|prev| prev < purged))
    }

    /// The last entry of the log that no member needs to which a snapshot was sent; see `outgoing`.
    pub(super) fn not_needed(&self, in_step: RaftIndex, has: impl Fn(MemberId) -> RaftIndex) -> Option<RaftIndex> {
        self.inner.outgoing.not_needed(in_step, has)
    }

    pub(super) fn options(&self) -> &PeerOptions {
        &self.inner.options
    }

    fn channels(&self, target: MemberId) -> Arc<Channels> {
        let mut all = self.inner.channels.lock();
        let make = || {
            let Inner { options, dial, book, .. } = &*self.inner;
            Arc::new(Channels::new(options, target, (dial, book), self.meter_of(target)))
        };
        Arc::clone(all.entry(target).or_insert_with(make))
    }

    /// Notes what an error of a call says about this member.
    fn heed(&self, status: &tonic::Status) {
        if channels::says_removed(status) {
            self.inner.removed.send_replace(true);
        }
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &PeerNode) -> Link {
        let target = MemberId(target);
        self.inner.book.set(target, node.peer_urls.clone());
        Link::new(self.clone(), target)
    }
}
