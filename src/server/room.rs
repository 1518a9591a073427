//! Whether the disks have room for more, asked ten times a second.
//!
//! Log and store each find out by themselves that a disk is full, but late: with the log full even
//! a delete can't be answered any more. So writes that make the state larger are refused while
//! there is still room for those that make it smaller, and for what the store was given and has not written yet: it writes
//! in order, so that a delete frees nothing before that is through.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::env::Env;
use crate::storage::backend::BackendConfig;

/// How often the disks are asked; what is written meanwhile must fit in the reserve.
const LOOK: Duration = Duration::from_millis(100);
/// Free bytes below which nothing may grow, besides what waits for the store: half of them are for that and for removals,
/// half for the log.
const RESERVE_BYTES: u64 = BackendConfig::RESERVE_BYTES_DEFAULT;
/// The most that is asked for what waits for the store, which with a large cache may be gigabytes: beyond it the store finds out
/// by itself, and from then on all of it is.
const WAITING_BYTES_MAX: u64 = 3 * RESERVE_BYTES;
/// Looks in a row that find room before it is taken to be there: what waits comes and goes.
const LOOKS: u32 = 20;
/// Free bytes beyond those, from which it may again.
const MARGIN_BYTES: u64 = RESERVE_BYTES / 8;

/// The room on the disks below some directories. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Room(Arc<AtomicU32>);

/// A directory whose disk is looked at, and what waits to be written there.
pub(super) struct Place {
    pub(super) dir: PathBuf,
    pub(super) waiting_bytes: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Whether it could not be written when that was tried last.
    pub(super) is_refused: Box<dyn Fn() -> bool + Send + Sync>,
}

impl Room {
    /// Looks once, and from then on until the task is aborted.
    pub(super) fn watch(env: Env, places: Vec<Place>) -> (Self, JoinHandle<()>) {
        let room = Self::default();
        room.look(&env, &places);
        let watched = room.clone();
        let task = tokio::spawn(async move {
            let places = Arc::new(places);
            let mut tick = tokio::time::interval(LOOK);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                let (room, env, places) = (watched.clone(), env.clone(), places.clone());
                // A disk that hangs must not hold up a thread that serves.
                if tokio::task::spawn_blocking(move || room.look(&env, &places)).await.is_err() {
                    return;
                }
            }
        });
        (room, task)
    }

    /// Whether too little is left for what makes the state larger.
    pub(super) fn is_short(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    fn look(&self, env: &Env, places: &[Place]) {
        let left = self.0.load(Ordering::Relaxed);
        let margin = if left > 0 { MARGIN_BYTES } else { 0 };
        // A disk that doesn't answer says so when it is written to.
        let looks = places.iter().filter_map(|place| {
            let waiting = (place.waiting_bytes)();
            let most = if (place.is_refused)() { u64::MAX } else { WAITING_BYTES_MAX };
            let written = waiting.saturating_mul(BackendConfig::WRITTEN_FOR_ONE).min(most);
            let free = env.disk.free_bytes(&place.dir).ok()?;
            Some((free, (RESERVE_BYTES + margin).saturating_add(written), waiting, &place.dir))
        });
        let Some((free_bytes, needed_bytes, waiting_bytes, dir)) =
            looks.min_by_key(|(free, needed, ..)| i128::from(*free) - i128::from(*needed))
        else {
            return;
        };
        let now = if free_bytes < needed_bytes { LOOKS } else { left.saturating_sub(1) };
        self.0.store(now, Ordering::Relaxed);
        let path = dir.display();
        if now > 0 && left == 0 {
            let needed_bytes = needed_bytes.saturating_add(MARGIN_BYTES);
            tracing::error!(%path, free_bytes, needed_bytes, waiting_bytes,
                "the disk is nearly full: puts, transactions with a put and new leases are refused until there is room again");
        } else if now == 0 && left > 0 {
            tracing::info!(%path, free_bytes, "the disk has room again");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, AtomicU64};

    use super::*;
    use crate::env::{Disk, MemDisk};

    #[test]
    fn the_fullest_disk_counts_and_a_little_more_is_wanted_back_for_a_while() {
        let disk = MemDisk::new();
        disk.create_dir_all(Path::new("/d")).unwrap();
        let env = Env { disk: Arc::new(disk.clone()), ..Env::real() };
        let waits = Arc::new(AtomicU64::new(0));
        let waiting = waits.clone();
        let waiting_bytes = Box::new(move || waiting.load(Ordering::Relaxed));
        let refuses = Arc::new(AtomicBool::new(false));
        let refused = refuses.clone();
        let is_refused = Box::new(move || refused.load(Ordering::Relaxed));
        let (room, places) = (Room::default(), [Place { dir: PathBuf::from("/d"), waiting_bytes, is_refused }]);
        let short_with = |free, waiting, looks| {
            disk.set_capacity(Some(free));
            waits.store(waiting, Ordering::Relaxed);
            (0..looks).for_each(|_| room.look(&env, &places));
            room.is_short()
        };
        assert!(!short_with(RESERVE_BYTES, 0, 1));
        assert!(short_with(RESERVE_BYTES - 1, 0, 1));
        let enough = RESERVE_BYTES + MARGIN_BYTES;
        assert!(short_with(enough - 1, 0, 2 * LOOKS), "no flutter at the edge");
        assert!(short_with(enough, 0, LOOKS - 1), "nor by what comes and goes");
        assert!(!short_with(enough, 0, 1));
        // What waits for the store is to find room, too: it stands before each delete.
        let written = 5 * BackendConfig::WRITTEN_FOR_ONE;
        assert!(short_with(RESERVE_BYTES + (written << 20) - 1, 5 << 20, 1));
        assert!(!short_with(enough + (written << 20), 5 << 20, LOOKS));
        assert!(short_with(enough + WAITING_BYTES_MAX - MARGIN_BYTES - 1, u64::MAX, 1));
        assert!(!short_with(enough + WAITING_BYTES_MAX, u64::MAX, LOOKS));
        // Cause: no more was ever asked. Symptom: a deletion of very many keys found no room, and nobody was told.
        refuses.store(true, Ordering::Relaxed);
        assert!(short_with(
            RESERVE_BYTES + 2 * WAITING_BYTES_MAX - 1,
            2 * WAITING_BYTES_MAX / BackendConfig::WRITTEN_FOR_ONE,
            1
        ));
        assert!(short_with(u64::MAX - 1, u64::MAX, 1));
    }
}
