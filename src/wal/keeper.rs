//! The background half: has the next segment's file ready, takes away files that hold nothing any more.
//!
//! ```text
//! log thread ── the segment is half full ──► keeper has a spare ready: allocate, zeros bit by bit, fsync
//!            └─ after a durable purge ─────► keeper makes the oldest file the spare, or removes it,
//!                                            and syncs the directory; then the next …
//! ```
//! Files go oldest first with a directory sync between them, so that a crash never leaves a hole. In
//! the steady state the purge gives a file back before the next is needed, and nothing is allocated.

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
    drafts: AtomicU64,
}

#[derive(Debug, Default)]
struct Desk {
    spare: Option<Spare>,
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
        desk.spare.take_if(|spare| spare.capacity >= least)
    }

    /// Asks for the file of this segment.
    pub(super) fn want_spare(&self, sequence: u64) {
        self.desk.lock().wanted = Some(sequence);
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
        let (unused, has_spare, wanted) = {
            let mut desk = self.chores.desk.lock();
            if desk.is_closing && desk.unused.is_empty() {
                return Step::Stopped;
            }
            let wanted = desk.wanted.filter(|_| desk.spare.is_none() && !desk.is_closing);
            (desk.unused.pop_front(), desk.spare.is_some(), wanted)
        };
        if let Some(mut segment) = unused {
            let Err(error) = self.discard(&mut segment, has_spare) else {
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
    /// Makes an unused file the spare if nobody reads it any more and it is of full length.
    fn discard(&self, segment: &mut Segment, has_spare: bool) -> io::Result<()> {
        let disk = &self.env.disk;
        let is_free = Arc::get_mut(&mut segment.file).is_some();
        let is_whole = segment.file.size()? == u64::from(self.options.segment_bytes);
        let draft = self.dir.join(self.chores.draft_name());
        let recycle = is_free && is_whole && !has_spare && self.draft.is_none();
        let gone = if recycle { disk.rename(&segment.path, &draft) } else { disk.remove(&segment.path) };
        match gone {
            // An earlier try came as far as this.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return disk.sync_dir(&self.dir),
            gone => gone?,
        }
        // The old name must be gone for good before the file gets other contents.
        disk.sync_dir(&self.dir)?;
        if recycle {
            let file = segment.file.clone();
            let spare = Spare { path: draft, file, capacity: self.options.segment_bytes, is_recycled: true };
            self.chores.desk.lock().spare = Some(spare);
        }
        Ok(())
    }

    fn make_spare(&mut self, sequence: u64) -> Step {
        let wanted = fitting_bytes(&*self.env.disk, &self.dir, sequence, &self.options);
        match self.advance(wanted) {
            Ok(None) => Step::Worked,
            Ok(Some(Draft { spare, wanted, .. })) => {
                self.chores.set_space_low(spare.capacity < wanted);
                self.chores.desk.lock().spare = Some(spare);
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
            let spare = Spare::make(&*self.env.disk, &path, wanted, least)?;
            self.draft = Some(Draft { spare, zeroed: 0, wanted });
            return Ok(None);
        };
        draft.zeroed = draft.spare.fill(draft.zeroed)?;
        if draft.zeroed >= draft.spare.capacity {
            return Ok(Some(draft));
        }
        self.draft = Some(draft);
        Ok(None)
    }
}
