//! The log as its callers see it.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::env::sync::Mutex;
use crate::env::{Env, WorkerHandle};
use crate::types::RaftIndex;

use super::keeper::{Chores, Keeper};
use super::log::{Done, Log, Work};
use super::owner::DirLock;
use super::scan;
use super::types::{EntryId, Fatal, Recovered, Scrubbed, WalEntry, WalError, WalOptions};
use super::writer::{Group, Restated, Writer};
use super::{reader, recovery};

/// What the callers and the log thread share.
pub(super) struct Shared {
    pub(super) log: Mutex<Log>,
    pub(super) fatal: watch::Sender<Option<Arc<Fatal>>>,
}

struct Inner {
    shared: Arc<Shared>,
    chores: Arc<Chores>,
    writer: Arc<dyn WorkerHandle>,
    keeper: Arc<dyn WorkerHandle>,
    /// Until the threads have ended.
    lock: Mutex<Option<DirLock>>,
}

/// The Raft log; clones are handles of the same log, and the last one closes it.
///
/// Changes take effect for readers at once and are durable when their callback gets `Ok`. Callbacks
/// run on the log thread in the order of the calls, so they must be short and must not block.
#[derive(Clone)]
pub struct Wal(Arc<Inner>);

impl Wal {
    /// Name of the log thread, for a [`crate::env::ManualSpawn`].
    pub const WRITER: &'static str = "wal-writer";
    /// Name of the background thread.
    pub const KEEPER: &'static str = "wal-keeper";

    /// Opens the log in `dir` or starts a new one there. Blocks while the log is read.
    ///
    /// # Errors
    /// Those of the disk; damaged or missing files; a format of another version; a log that another
    /// process has open, or that is another member's.
    pub fn open(env: Env, dir: &Path, options: WalOptions) -> Result<(Self, Recovered), WalError> {
        let mut opened = recovery::recover(&env, dir, &options)?;
        let recovered = opened.recovered.clone();
        let (active, lock) = (opened.active.take(), Mutex::new(opened.lock.take()));
        let head = Restated { vote: recovered.vote.clone(), purged: recovered.purged, committed: recovered.committed };
        let mut log = Log::new(opened, options.cache_bytes);
        let chores = Arc::new(Chores::default());
        if let Some(active) = &active {
            chores.discard(log.drop_segments(active.sequence));
        }
        let shared = Arc::new(Shared { log: Mutex::new(log), fatal: watch::Sender::new(None) });
        let keeper = Keeper {
            env: env.clone(),
            dir: dir.to_owned(),
            options: options.clone(),
            chores: chores.clone(),
            fatal: shared.fatal.clone(),
            draft: None,
        };
        let spawned = |result: io::Result<_>| result.map_err(WalError::io("start the threads of", dir));
        let keeper = spawned(env.spawn.spawn(Self::KEEPER, Box::new(keeper)))?;
        let writer = Writer {
            env: env.clone(),
            dir: dir.to_owned(),
            options,
            shared: shared.clone(),
            chores: chores.clone(),
            keeper: keeper.clone(),
            needs_mark: active.is_some(),
            wanted_spare: 0,
            active,
            head,
            new_committed: None,
            has_closed: false,
            pending: VecDeque::new(),
            group: Group::default(),
        };
        let writer = spawned(env.spawn.spawn(Self::WRITER, Box::new(writer)))?;
        Ok((Self(Arc::new(Inner { shared, chores, writer, keeper, lock })), recovered))
    }

    /// Adds entries, which must follow the last one without a hole; an empty log that was never
    /// purged takes any index first. Returns at once; the entries can be read when it does.
    ///
    /// `done` gets `InvalidInput` and nothing changes if the entries don't follow or are too long.
    pub fn append(&self, entries: Vec<WalEntry>, done: impl FnOnce(io::Result<()>) + Send + 'static) {
        self.submit(Box::new(done), |log| log.append(entries));
    }

    /// Saves the vote, in the caller's own bytes.
    pub fn save_vote(&self, vote: Bytes, done: impl FnOnce(io::Result<()>) + Send + 'static) {
        self.submit(Box::new(done), |log| log.save_vote(vote));
    }

    /// Voids the entries after `keep`; all that aren't purged if `None`.
    ///
    /// `done` gets `InvalidInput` if purged entries would be among them.
    pub fn truncate_after(&self, keep: Option<RaftIndex>, done: impl FnOnce(io::Result<()>) + Send + 'static) {
        self.submit(Box::new(done), |log| log.truncate_after(keep));
    }

    /// Drops the entries up to `id`; an id beyond the last entry empties the log and becomes its
    /// last id, as after a snapshot was installed. Files go when the purge is durable.
    pub fn purge_to(&self, id: EntryId, done: impl FnOnce(io::Result<()>) + Send + 'static) {
        self.submit(Box::new(done), |log| log.purge_to(id));
    }

    /// Notes the entry known to be committed. It is written along with the next group and never
    /// costs a sync of its own, so after a crash it may be an older one.
    pub fn note_committed(&self, committed: EntryId) {
        self.0.shared.log.lock().committed = Some(committed);
    }

    fn submit(&self, done: Done, prepare: impl FnOnce(&mut Log) -> io::Result<Work>) {
        let mut log = self.0.shared.log.lock();
        let prepared = if let Some(fatal) = &log.failed {
            Err((**fatal).clone().into())
        } else if log.is_closing {
            Err(io::Error::new(io::ErrorKind::BrokenPipe, "the raft log is closed"))
        } else {
            prepare(&mut log)
        };
        let outcome = match prepared {
            Ok(work) => {
                log.enqueue(work, done);
                Ok(std::mem::take(&mut log.is_idle))
            }
            Err(error) => Err((done, error)),
        };
        drop(log);
        match outcome {
            Ok(true) => self.0.writer.wake(),
            Ok(false) => {}
            Err((done, error)) => done(Err(error)),
        }
    }

    /// The entries of `range` that the log has, in order; after the first only as many as stay
    /// within `bytes_max`. May block on the disk where entries have left the cache.
    ///
    /// # Errors
    /// Those of the disk; `InvalidData` where bytes on disk have changed.
    pub fn read(&self, range: Range<RaftIndex>, bytes_max: usize) -> io::Result<Vec<WalEntry>> {
        let plan = self.0.shared.log.lock().plan_read(range.start.get(), range.end.get(), bytes_max);
        let (on_disk, mut cached) = plan?;
        if on_disk.places.is_empty() {
            return Ok(cached);
        }
        let mut entries = reader::read(&on_disk)?;
        entries.append(&mut cached);
        Ok(entries)
    }

    /// As [`Wal::read`], but never touches the disk: `None` if it would have to.
    pub fn read_cached(&self, range: Range<RaftIndex>, bytes_max: usize) -> Option<Vec<WalEntry>> {
        let plan = self.0.shared.log.lock().plan_read(range.start.get(), range.end.get(), bytes_max);
        plan.ok().filter(|(on_disk, _)| on_disk.places.is_empty()).map(|(_, cached)| cached)
    }

    /// The id of the entry at `index`, if the log has it or it is the purged one.
    pub fn id_at(&self, index: RaftIndex) -> Option<EntryId> {
        let log = self.0.shared.log.lock();
        if let Some(purged) = log.purged.filter(|purged| purged.index == index) {
            return Some(purged);
        }
        log.last.filter(|last| index <= last.index).and_then(|_| log.terms.id(index.get()))
    }

    /// The first entry of each leadership in the log, in order.
    pub fn leadership_starts(&self) -> Vec<EntryId> {
        self.0.shared.log.lock().terms.starts()
    }

    /// Bytes of the records of the durable entries after `index`. Looks at each of them.
    pub fn bytes_after(&self, index: RaftIndex) -> u64 {
        self.0.shared.log.lock().places.bytes_after(index.get())
    }

    /// The last entry; the purged one if there is none after it.
    pub fn last(&self) -> Option<EntryId> {
        self.0.shared.log.lock().last
    }

    /// The entry up to which the log is purged.
    pub fn purged(&self) -> Option<EntryId> {
        self.0.shared.log.lock().purged
    }

    /// The vote saved last.
    pub fn vote(&self) -> Option<Bytes> {
        self.0.shared.log.lock().vote.clone()
    }

    /// What was noted as committed last.
    pub fn committed(&self) -> Option<EntryId> {
        self.0.shared.log.lock().committed
    }

    /// Bytes of entries that wait for the log thread; a caller that must bound memory waits while
    /// this is high.
    pub fn queued_bytes(&self) -> usize {
        self.0.shared.log.lock().queued_bytes()
    }

    /// Whether no further segment of full length fits on the disk. The current one still has room,
    /// so what is under way can be finished, but clients' writes should be refused.
    pub fn is_space_low(&self) -> bool {
        self.0.chores.is_space_low()
    }

    /// Turns to `Some` when a write or a sync has failed. Nothing is written any more; reads go on.
    pub fn fatal(&self) -> watch::Receiver<Option<Arc<Fatal>>> {
        self.0.shared.fatal.subscribe()
    }

    /// Reads every finished segment again and checks each byte of it. Blocks on the disk; gives the
    /// bytes checked.
    ///
    /// # Errors
    /// Those of the disk, and damage.
    pub fn scrub(&self) -> Result<u64, WalError> {
        let (mut after, mut bytes) = (0, 0);
        while let Some(Scrubbed { segment, result, .. }) = self.scrub_after(after) {
            bytes += result?;
            after = segment;
        }
        Ok(bytes)
    }

    /// Reads the first finished segment after the one of this number (0 for the first of all) again
    /// and checks each byte of it; `None` if there is none. Blocks on the disk.
    pub fn scrub_after(&self, after: u64) -> Option<Scrubbed> {
        let (segments, last) = {
            let log = self.0.shared.log.lock();
            (log.segments(), log.last.map_or(RaftIndex(0), |last| last.index))
        };
        let at = segments.iter().position(|(number, _)| *number > after)?;
        let ((number, segment), (_, next)) = (segments.get(at)?, segments.get(at + 1)?);
        let next = match scan::open(&next.path, &*next.file) {
            Ok(next) => next.header,
            Err(error) => return Some(Scrubbed { segment: *number, last, result: Err(error) }),
        };
        let checked = scan::open(&segment.path, &*segment.file)
            .and_then(|opening| scan::scan(&segment.path, &*segment.file, &opening, Some(&next), |_, _, _| Ok(())));
        let last = RaftIndex(next.first_index.saturating_sub(1));
        Some(Scrubbed { segment: *number, last, result: checked.map(|scanned| scanned.end.into()) })
    }

    /// Finishes what is queued, marks the end as clean and ends the threads. Blocks until then.
    /// Later changes are refused; reads go on.
    pub fn close(&self) {
        self.0.close();
    }
}

impl Inner {
    fn close(&self) {
        self.shared.log.lock().is_closing = true;
        self.writer.wake();
        self.writer.join();
        self.chores.close();
        self.keeper.wake();
        self.keeper.join();
        drop(self.lock.lock().take());
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal").field("last", &self.last()).field("purged", &self.purged()).finish_non_exhaustive()
    }
}
