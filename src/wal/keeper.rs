//! The background half: has the next segment's file ready, takes away files that hold nothing any more.
//!
//! ```text
//! log thread ── the segment is half full ──► keeper has a spare ready: allocate, zeros bit by bit, fsync
//!            └─ after a durable purge ─────► keeper makes the oldest file a spare, or removes it,
//!                                            and syncs the directory; then the next …
//! ```
//! Files go oldest first with a directory sync between them, so that a crash never leaves a hole. In
//! the steady state a purge gives back what is written until the next one, and nothing is allocated or zeroed.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::env::sync::Mutex;
use crate::env::{Env, Step, Worker};
use crate::failpoint::{Point, hit};

use super::segment::{DRAFT_SUFFIX, Segment, Spare, fitting_bytes};
use super::types::{Fatal, WalOptions};

/// How long to wait before the disk is asked for room again.
pub(super) const RETRY: Duration = Duration::from_millis(500);

/// What the keeper and the log thread share.
#[derive(Debug, Default)]
pub(super) struct Chores {
    desk: Mutex<Desk>,
    is_space_low: AtomicBool,
    /// The keeper has begun a file that isn't a spare yet.
    is_half_made: AtomicBool,
    drafts: AtomicU64,
}

#[derive(Debug, Default)]
struct Desk {
    /// Together at most a segment of full length, or one that is longer.
    spares: VecDeque<Spare>,
    /// The segment that the next spare will be; `None` while it isn't needed yet.
    wanted: Option<u64>,
    unused: VecDeque<Segment>,
    is_closing: bool,
}

pub(super) struct Keeper {
    pub(super) env: Env,
    pub(super) dir: PathBuf,
    pub(super) options: WalOptions,
    pub(super) chores: Arc<Chores>,
    /// Told when this thread ends by a panic; the log thread would run out of files unheard.
    pub(super) fatal: watch::Sender<Option<Arc<Fatal>>>,
    pub(super) draft: Option<Draft>,
}

/// A spare in the making.
pub(super) struct Draft {
    spare: Spare,
    /// It is zeroed up to here.
    zeroed: u32,
    /// Its length was to be this; a later segment's may be more by the time that it is done.
    wanted: u32,
}

impl Chores {
    /// The file made ahead, if it is at least this long.
    pub(super) fn take_spare(&self, least: u32) -> Option<Spare> {
        let mut desk = self.desk.lock();
        desk.wanted = None;
        let fitting = desk.spares.iter().position(|spare| spare.capacity >= least)?;
        desk.spares.remove(fitting)
    }

    /// Asks for the file of this segment.
    pub(super) fn want_spare(&self, sequence: u64) {
        self.desk.lock().wanted = Some(sequence);
    }

    /// Whether a purged file of this length is to be a spare, so that all together are no longer than one of `whole`
    /// bytes; and the shorter spares that make place for it, as it is of a log that has grown. Where the disk has filled up
    /// since, `whole` is less, and spares go before anything is kept.
    fn place_for(&self, capacity: u32, whole: u32) -> (bool, Vec<Spare>) {
        let mut desk = self.desk.lock();
        let (capacity, whole) = (u64::from(capacity), u64::from(whole));
        let sum = |spares: &mut dyn Iterator<Item = &Spare>| spares.map(|spare| u64::from(spare.capacity)).sum::<u64>();
        let lasting = sum(&mut desk.spares.iter().filter(|spare| u64::from(spare.capacity) >= capacity));
        let is_kept = capacity >= u64::from(WalOptions::SEGMENT_BYTES_MIN).min(whole) && lasting + capacity <= whole;
        let room = if is_kept { whole - capacity } else { whole };
        let mut displaced = Vec::new();
        while sum(&mut desk.spares.iter()) > room {
            let shortest = (0..desk.spares.len()).min_by_key(|at| desk.spares[*at].capacity);
            displaced.extend(shortest.and_then(|at| desk.spares.remove(at)));
        }
        (is_kept, displaced)
    }

    /// Whether the keeper has begun a file: it holds room, and is gone on with only while one is wanted.
    pub(super) fn is_half_made(&self) -> bool {
        self.is_half_made.load(Ordering::Acquire)
    }

    /// Gives up all spares, for one who finds none long enough, and no room for another file.
    pub(super) fn give_up_spares(&self) -> VecDeque<Spare> {
        std::mem::take(&mut self.desk.lock().spares)
    }

    /// A name that no other draft of this run has: a spare keeps its own until its first group is
    /// synced, and the next one must not come in its place.
    pub(super) fn draft_name(&self) -> String {
        format!("draft-{}{DRAFT_SUFFIX}", self.drafts.fetch_add(1, Ordering::Relaxed))
    }

    /// Hands over segments that hold nothing any more, oldest first.
    pub(super) fn discard(&self, segments: Vec<Segment>) {
        self.desk.lock().unused.extend(segments);
    }

    pub(super) fn close(&self) {
        self.desk.lock().is_closing = true;
    }

    /// Whether no further segment of full length could be made.
    pub(super) fn is_space_low(&self) -> bool {
        self.is_space_low.load(Ordering::Acquire)
    }

    pub(super) fn set_space_low(&self, is_low: bool) {
        if self.is_space_low.swap(is_low, Ordering::AcqRel) != is_low {
            if is_low {
                tracing::error!("the raft log's disk is full: writes are refused until there is room again");
            } else {
                tracing::info!("the raft log's disk has room again");
            }
        }
    }
}

impl Worker for Keeper {
    fn step(&mut self) -> Step {
        let (unused, wanted) = {
            let mut desk = self.chores.desk.lock();
            if desk.is_closing && desk.unused.is_empty() {
                return Step::Stopped;
            }
            let wanted = desk.wanted.filter(|_| desk.spares.is_empty() && !desk.is_closing);
            (desk.unused.pop_front(), wanted)
        };
        if let Some(mut segment) = unused {
            let Err(error) = self.discard(&mut segment) else {
                hit(Point::RaftAfterWalRelease);
                return Step::Worked;
            };
            tracing::warn!(path = %segment.path.display(), %error, "an old raft log file could not be removed");
            let mut desk = self.chores.desk.lock();
            // Newer ones must stay as long as it does; at the latest the next start removes them.
            desk.unused.push_front(segment);
            return if desk.is_closing { Step::Stopped } else { Step::IdleFor(RETRY) };
        }
        if let Some(sequence) = wanted {
            return self.make_spare(sequence);
        }
        if self.chores.is_space_low() {
            let free = self.env.disk.free_bytes(&self.dir).unwrap_or(0);
            if free < u64::from(self.options.segment_bytes) {
                return Step::IdleFor(RETRY);
            }
            self.chores.set_space_low(false);
        }
        Step::Idle
    }

    fn abandon(&mut self, why: &str) {
        let fatal = Fatal::panicked("keep the files of", &self.dir, why);
        tracing::error!(error = %fatal, "the raft log has failed");
        self.fatal.send_replace(Some(Arc::new(fatal)));
    }
}

impl Keeper {
    /// Makes an unused file a spare if nobody reads it any more and there aren't enough.
    fn discard(&self, segment: &mut Segment) -> io::Result<()> {
        let disk = &self.env.disk;
        let is_free = Arc::get_mut(&mut segment.file).is_some();
        let capacity = u32::try_from(segment.file.size()?).unwrap_or(u32::MAX);
        let draft = self.dir.join(self.chores.draft_name());
        let whole = fitting_bytes(&**disk, &self.dir, u64::MAX, &self.options);
        // One that is still read goes.
        let (recycle, displaced) = self.chores.place_for(if is_free { capacity } else { 0 }, whole);
        for spare in displaced {
            // One that stays is a draft, which the next start removes.
            let _ = disk.remove(&spare.path);
        }
        let gone = if recycle { disk.rename(&segment.path, &draft) } else { disk.remove(&segment.path) };
        match gone {
            // An earlier try came as far as this.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return disk.sync_dir(&self.dir),
            gone => gone?,
        }
        if recycle {
            // Another try, if the sync fails, begins at this name.
            segment.path.clone_from(&draft);
        }
        // The old name must be gone for good before the file gets other contents.
        disk.sync_dir(&self.dir)?;
        if recycle {
            let file = segment.file.clone();
            let spare = Spare { path: draft, file, capacity, is_recycled: true, direct: None };
            self.chores.desk.lock().spares.push_back(spare);
        }
        Ok(())
    }

    fn make_spare(&mut self, sequence: u64) -> Step {
        let wanted = fitting_bytes(&*self.env.disk, &self.dir, sequence, &self.options);
        let advanced = self.advance(wanted);
        self.chores.is_half_made.store(self.draft.is_some(), Ordering::Release);
        match advanced {
            Ok(None) => Step::Worked,
            Ok(Some(Draft { spare, wanted, .. })) => {
                self.chores.set_space_low(spare.capacity < wanted);
                self.chores.desk.lock().spares.push_back(spare);
                Step::Worked
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::StorageFull {
                    self.chores.set_space_low(true);
                } else {
                    // The log thread makes its own when it needs one, and reports what it meets.
                    tracing::warn!(%error, "the raft log's next file could not be made ahead");
                }
                Step::IdleFor(RETRY)
            }
        }
    }

    /// Goes on with the draft by one part; gives it when it is done.
    fn advance(&mut self, wanted: u32) -> io::Result<Option<Draft>> {
        let Some(mut draft) = self.draft.take() else {
            let least = WalOptions::SEGMENT_BYTES_MIN.min(wanted);
            let path = self.dir.join(self.chores.draft_name());
            let spare = Spare::make(&*self.env.disk, &path, wanted, least, &self.options)?;
            self.draft = Some(Draft { spare, zeroed: 0, wanted });
            return Ok(None);
        };
        draft.zeroed = match draft.spare.fill(draft.zeroed) {
            Ok(zeroed) => zeroed,
            Err(error) => {
                // The next try makes another. One that stays is a draft, which the next start removes.
                let _ = self.env.disk.remove(&draft.spare.path);
                return Err(error);
            }
        };
        if draft.zeroed >= draft.spare.capacity {
            return Ok(Some(draft));
        }
        self.draft = Some(draft);
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::env::{Disk, MemDisk};

    #[test]
    fn spares_are_no_more_than_one_of_full_length_and_short_ones_make_place() {
        const KIB: u32 = 1024;
        let disk = MemDisk::new();
        disk.create_dir_all(Path::new("/d")).unwrap();
        let (chores, whole) = (Chores::default(), 1024 * KIB);
        let keep = |capacity: u32| {
            let (is_kept, displaced) = chores.place_for(capacity, whole);
            if !is_kept {
                assert!(displaced.is_empty());
                return None;
            }
            let path = Path::new("/d").join(chores.draft_name());
            let spare = Spare::make(&disk, &path, capacity, capacity, &WalOptions::default()).unwrap();
            chores.desk.lock().spares.push_back(spare);
            Some(displaced.iter().map(|spare| spare.capacity / KIB).collect::<Vec<_>>())
        };
        assert_eq!(keep(10 * KIB), None, "shorter than any that is made");
        assert_eq!(keep(256 * KIB), Some(vec![]));
        assert_eq!(keep(128 * KIB), Some(vec![]));
        assert_eq!(keep(512 * KIB), Some(vec![]));
        assert_eq!(keep(256 * KIB), Some(vec![128]), "the shortest goes");
        assert_eq!(keep(128 * KIB), None, "none that is shorter goes");
        assert_eq!(chores.take_spare(300 * KIB).map(|spare| spare.capacity), Some(512 * KIB));
        assert_eq!(keep(1024 * KIB), Some(vec![256, 256]), "a log that has grown");
        assert_eq!(keep(1025 * KIB), None);
        assert_eq!(chores.take_spare(1).map(|spare| spare.capacity), Some(1024 * KIB));
        assert!(chores.take_spare(1).is_none());
        for _ in 0..4 {
            assert_eq!(keep(256 * KIB), Some(vec![]));
        }
        let (is_kept, displaced) = chores.place_for(1024 * KIB, 300 * KIB);
        assert_eq!((is_kept, displaced.len()), (false, 3), "where there is little room, little is kept");
    }
}
