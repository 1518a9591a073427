//! Whether the disks have room for more, asked ten times a second.
//!
//! Log and store each find out by themselves that a disk is full, but late: with the log full even
//! a delete can't be answered any more. So writes that make the state larger are refused while
//! there is still room for those that make it smaller, and for what the store was given and has not written yet: it writes
//! in order, so that a delete frees nothing before that is through.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::env::Env;
use crate::storage::backend::BackendConfig;

/// How often the disks are asked; what is written meanwhile must fit in the reserve.
const LOOK: Duration = Duration::from_millis(100);
/// Free bytes below which nothing may grow, besides what waits for the store: half of them are for that and for removals,
/// half for the log.
const RESERVE_BYTES: u64 = BackendConfig::RESERVE_BYTES_DEFAULT;
/// Bytes that the store may use for one that waits: whole leaves or pages, and a log of them.
const WRITTEN_FOR_ONE: u64 = 2;
/// Free bytes beyond those, from which it may again.
const MARGIN_BYTES: u64 = RESERVE_BYTES / 8;

/// The room on the disks below some directories. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Room(Arc<AtomicBool>);

impl Room {
    /// Looks once, and from then on until the task is aborted; `waiting` says how many bytes wait for the store.
    pub(super) fn watch(
        env: Env,
        dirs: Vec<PathBuf>,
        waiting: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> (Self, JoinHandle<()>) {
        let room = Self::default();
        room.look(&env, &dirs, waiting());
        let watched = room.clone();
        let task = tokio::spawn(async move {
            let (dirs, waiting) = (Arc::new(dirs), Arc::new(waiting));
            let mut tick = tokio::time::interval(LOOK);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                let (room, env, dirs, waiting) = (watched.clone(), env.clone(), dirs.clone(), waiting.clone());
                // A disk that hangs must not hold up a thread that serves.
                if tokio::task::spawn_blocking(move || room.look(&env, &dirs, waiting())).await.is_err() {
                    return;
                }
            }
        });
        (room, task)
    }

    /// Whether too little is left for what makes the state larger.
    pub(super) fn is_short(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn look(&self, env: &Env, dirs: &[PathBuf], waiting_bytes: u64) {
        // A disk that doesn't answer says so when it is written to.
        let free = dirs.iter().filter_map(|dir| env.disk.free_bytes(dir).ok().map(|free| (free, dir)));
        let Some((free_bytes, dir)) = free.min() else { return };
        let was = self.is_short();
        let reserved = waiting_bytes.saturating_mul(WRITTEN_FOR_ONE).saturating_add(RESERVE_BYTES);
        let needed_bytes = reserved.saturating_add(MARGIN_BYTES);
        let is = free_bytes < if was { needed_bytes } else { reserved };
        self.0.store(is, Ordering::Relaxed);
        let path = dir.display();
        if is && !was {
            tracing::error!(%path, free_bytes, needed_bytes, waiting_bytes,
                "the disk is nearly full: puts, transactions with a put and new leases are refused until there is room again");
        } else if was && !is {
            tracing::info!(%path, free_bytes, "the disk has room again");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::env::{Disk, MemDisk};

    #[test]
    fn the_fullest_disk_counts_and_a_little_more_is_wanted_back() {
        let disk = MemDisk::new();
        disk.create_dir_all(Path::new("/d")).unwrap();
        let env = Env { disk: Arc::new(disk.clone()), ..Env::real() };
        let (room, dirs) = (Room::default(), [PathBuf::from("/d")]);
        let short_with = |free, waiting| {
            disk.set_capacity(Some(free));
            room.look(&env, &dirs, waiting);
            room.is_short()
        };
        assert!(!short_with(RESERVE_BYTES, 0));
        assert!(short_with(RESERVE_BYTES - 1, 0));
        let enough = RESERVE_BYTES + MARGIN_BYTES;
        assert!(short_with(enough - 1, 0), "no flutter at the edge");
        assert!(!short_with(enough, 0));
        // What waits for the store is to find room, too: it stands before each delete.
        let waits = 5 << 20;
        assert!(short_with(RESERVE_BYTES + waits * WRITTEN_FOR_ONE - 1, waits));
        assert!(!short_with(enough + waits * WRITTEN_FOR_ONE, waits));
        assert!(short_with(enough, u64::MAX));
    }
}
