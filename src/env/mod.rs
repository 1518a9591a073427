//! The doors to the world: clock, randomness, file system, threads.
//!
//! ```text
//! a room ─► Env ─┬─ disk:  Disk        RealDisk     | MemDisk (forgets what was not synced, fails on demand)
//!                ├─ clock: Clock       SystemClock  | ManualClock
//!                ├─ rng:   Rng         SystemRng    | SeededRng
//!                └─ spawn: WriterSpawn ThreadSpawn  | ManualSpawn (steps a worker by hand)
//! ```
//! Long work beside requests goes through [`gently`]; what threads hand to each other under locks of [`sync`] is tried
//! under many schedules (`schedules`).
//!
//! Nothing else in the house opens a file, reads a clock, draws a random number or starts a thread
//! (`clippy.toml` says so), so that a test can put a fault at every one of them. This room knows
//! nothing of what the bytes mean.

mod clock;
mod disk;
mod gentle;
mod mem_disk;
mod real_disk;
mod rng;
#[cfg(test)]
pub(crate) mod schedules;
mod sectors;
mod spawn;
pub mod sync;

use std::sync::Arc;

pub use clock::{Clock, ManualClock, SystemClock};
pub use disk::{Access, Disk, DiskFile, make_dir_durably, read_all, write_atomic};
pub use gentle::{Spread, gently, gently_once};
pub use mem_disk::{CrashStyle, DiskOp, MemDisk};
pub use real_disk::RealDisk;
pub use rng::{Rng, SeededRng, SystemRng};
pub use sectors::{Direct, SECTOR_BYTES_MAX, Sectors, write_zeros};
pub use spawn::{ManualSpawn, Step, ThreadSpawn, Worker, WorkerHandle, WriterSpawn, may_block, unblock};

/// All the doors together; a clone costs four reference counts.
#[derive(Clone, Debug)]
pub struct Env {
    /// Files and directories.
    pub disk: Arc<dyn Disk>,
    /// Monotonic and wall time.
    pub clock: Arc<dyn Clock>,
    /// Random numbers, fit for secrets in production.
    pub rng: Arc<dyn Rng>,
    /// Where blocking workers (the log writer, the store's writer) run.
    pub spawn: Arc<dyn WriterSpawn>,
}

impl Env {
    /// The operating system's own.
    pub fn real() -> Self {
        Self {
            disk: Arc::new(RealDisk),
            clock: Arc::new(SystemClock),
            rng: Arc::new(SystemRng),
            spawn: Arc::new(ThreadSpawn),
        }
    }
}
