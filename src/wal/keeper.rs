//! The background half: makes the next segment's file ahead, removes files that hold nothing any more.
//!
//! ```text
//! log thread ── takes the spare ──► keeper makes another (allocate + fsync), or says the disk is full
//!            └─ after a durable purge ──► keeper removes the oldest file, syncs the directory, the next …
//! ```
//! Files go oldest first with a directory sync between them, so that a crash never leaves a hole.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::env::{Env, Step, Worker};

use super::segment::{DRAFT_SUFFIX, Spare, fitting_bytes};
use super::types::WalOptions;

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
    remove: VecDeque<PathBuf>,
    is_closing: bool,
}

pub(super) struct Keeper {
    pub(super) env: Env,
    pub(super) dir: PathBuf,
    pub(super) options: WalOptions,
    pub(super) chores: Arc<Chores>,
}

impl Chores {
    /// The file made ahead, if it is at least this long.
    pub(super) fn take_spare(&self, least: u32) -> Option<Spare> {
        let mut desk = self.desk.lock();
        desk.spare.take_if(|spare| spare.capacity >= least)
    }

    /// A name that no other draft of this run has: a spare keeps its own until its first group is
    /// synced, and the next one must not come in its place.
    pub(super) fn draft_name(&self) -> String {
        format!("draft-{}{DRAFT_SUFFIX}", self.drafts.fetch_add(1, Ordering::Relaxed))
    }

    /// Hands over files to remove, oldest first.
    pub(super) fn remove(&self, paths: Vec<PathBuf>) {
        self.desk.lock().remove.extend(paths);
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
        let (remove, needs_spare) = {
            let mut desk = self.chores.desk.lock();
            if desk.is_closing && desk.remove.is_empty() {
                return Step::Stopped;
            }
            (desk.remove.pop_front(), desk.spare.is_none() && !desk.is_closing)
        };
        if let Some(path) = remove {
            let removed = self.env.disk.remove(&path).and_then(|()| self.env.disk.sync_dir(&self.dir));
            if let Err(error) = removed {
                // It holds nothing that counts; the next start tries again.
                tracing::warn!(path = %path.display(), %error, "an old raft log file could not be removed");
            }
            return Step::Worked;
        }
        if needs_spare {
            return self.make_spare();
        }
        if self.chores.is_space_low() {
            let free = self.env.disk.free_bytes(&self.dir).unwrap_or(0);
            if free < u64::from(self.wanted()) {
                return Step::IdleFor(RETRY);
            }
            self.chores.set_space_low(false);
        }
        Step::Idle
    }
}

impl Keeper {
    fn wanted(&self) -> u32 {
        fitting_bytes(&*self.env.disk, &self.dir, &self.options)
    }

    fn make_spare(&self) -> Step {
        let wanted = self.wanted();
        let least = WalOptions::SEGMENT_BYTES_MIN.min(wanted);
        match Spare::make(&*self.env.disk, &self.dir.join(self.chores.draft_name()), wanted, least) {
            Ok(spare) => {
                self.chores.set_space_low(spare.capacity < wanted);
                self.chores.desk.lock().spare = Some(spare);
                Step::Worked
            }
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                self.chores.set_space_low(true);
                Step::IdleFor(RETRY)
            }
            Err(error) => {
                // The log thread makes its own when it needs one, and reports what it meets.
                tracing::warn!(%error, "the raft log's next file could not be made ahead");
                Step::IdleFor(RETRY)
            }
        }
    }
}
