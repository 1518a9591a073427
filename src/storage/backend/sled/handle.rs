//! An open sled: opened on a helper thread with a time limit, flushed, let go.

use std::io;
use std::sync::Once;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use sled::{Config, Db, Tree};

use super::closing::{self, Closing};
use super::{FANOUT, damaged, failure, verify};
use crate::env::{Env, Step, Worker};
use crate::storage::backend::{BackendConfig, free_bytes};
use crate::types::StorageError;

/// Opening takes 2–60 ms for millions of keys; what takes this long never ends. (Sled reads leaves
/// while it opens, and a damaged one makes it wait for ever.)
const OPEN_LIMIT: Duration = Duration::from_secs(30);
/// Closing flushes what the last flush left, which is nothing.
pub(super) const CLOSE_LIMIT: Duration = Duration::from_secs(30);
/// After a failure readers wait for it, and it is asked again.
pub(super) const CLOSE_FAILED_LIMIT: Duration = Duration::from_secs(1);

/// The part of the cache that holds leaves as they are on the disk, by their bytes and what each takes besides.
/// The rest is for those that were written since opening, and for a flush.
const CLEAN_PART: usize = 2;
/// The least of it: sled looks for ever for a leaf that was let go before it was written, which the first one of a new
/// directory would be.
const CLEAN_BYTES_MIN: usize = 64 << 10;

/// How often and at what distance sled's lock is asked for.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

fn clean_bytes(config: &BackendConfig) -> usize {
    (usize::try_from(config.cache_bytes).unwrap_or(usize::MAX) / CLEAN_PART).max(CLEAN_BYTES_MIN)
}

/// Opens, though a child that this process is just starting may hold the lock for a moment; sled
/// itself starts one (`sync`) at each opening.
fn open_locked(settings: &Config) -> io::Result<Db<FANOUT>> {
    for _ in 1..LOCK_TRIES {
        match settings.open::<FANOUT>() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            opened => return opened,
        }
        #[expect(clippy::disallowed_methods, reason = "opening blocks anyway, and nothing else runs on this thread")]
        std::thread::sleep(LOCK_PAUSE);
    }
    settings.open::<FANOUT>()
}

/// An open database and the bytes written since it was opened.
pub(super) struct Handle {
    db: Db<FANOUT>,
    /// A flush failed.
    spent: bool,
    pub(super) written: u64,
    pub(super) opened: Instant,
}

impl Handle {
    /// Checks the files and opens them.
    pub(super) fn open(env: &Env, config: &BackendConfig) -> Result<Self, StorageError> {
        one_rayon_thread();
        let io = |action, error| StorageError::io(action, &config.dir, error);
        env.disk.create_dir_all(&config.dir).map_err(|error| io("make", error))?;
        verify::metadata_logs(env, config)?;
        let mut settings = Config::new()
            .path(&config.dir)
            .flush_every_ms(None)
            .zstd_compression_level(1)
            .cache_capacity_bytes(clean_bytes(config));
        if free_bytes(env, config).is_ok_and(|free| free <= config.reserve_bytes) {
            // Each flush moves leaves of files that are less full than this, those that a read ends with as well: on a full
            // disk that would cost the handle, again and again.
            settings.target_heap_file_fill_ratio = 0.0;
        }
        let opened = limited(env, "sled-open", OPEN_LIMIT, move || open_locked(&settings));
        let db = match opened {
            Ok(db) => db.map_err(|error| failure(config, "open", error))?,
            Err(Unfinished::Late) => return Err(damaged(config, "opening sled does not come to an end")),
            Err(Unfinished::Panicked) => return Err(damaged(config, "sled panicked while opening")),
            Err(Unfinished::NotStarted(error)) => return Err(io("start a thread for", error)),
        };
        let handle = Self { db, spent: false, written: 0, opened: env.clock.now() };
        if let Err(error) = sync_names(env, config) {
            // Its lock is to be free when it is tried again.
            let _ = handle.close(env, config, Vec::new()).wait(config, CLOSE_FAILED_LIMIT);
            return Err(io("fsync", error));
        }
        Ok(handle)
    }

    /// Makes everything written durable. After an error it is only to be closed.
    pub(super) fn flush(&mut self, config: &BackendConfig) -> Result<(), StorageError> {
        closing::flush(&self.db, config).map(drop).inspect_err(|_| self.spent = true)
    }

    /// As [`Handle::flush`], until there is nothing to write: for what iterates, whose end flushes and tells nobody.
    pub(super) fn drain(&mut self, config: &BackendConfig) -> Result<(), StorageError> {
        closing::drain(&self.db, config).inspect_err(|_| self.spent = true)
    }

    /// A clone for a reader; it goes back by [`Handle::close`].
    pub(super) fn tree(&self) -> Tree<FANOUT> {
        Tree::clone(&self.db)
    }

    pub(super) fn tree_ref(&self) -> &Tree<FANOUT> {
        &self.db
    }

    /// Lets the database and all clones go.
    pub(super) fn close(self, env: &Env, config: &BackendConfig, readers: Vec<Tree<FANOUT>>) -> Closing {
        Closing::begin(env, config, self.db, readers, self.spent)
    }
}

/// The names of new files must be as durable as what a flush puts into them.
fn sync_names(env: &Env, config: &BackendConfig) -> io::Result<()> {
    for dir in [&*config.dir, &config.dir.join("slabs"), &config.dir.join("metadata")] {
        env.disk.sync_dir(dir)?;
    }
    match config.dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => env.disk.sync_dir(parent),
        None => Ok(()),
    }
}

enum Unfinished {
    Late,
    Panicked,
    NotStarted(std::io::Error),
}

/// Runs `work` on a thread of its own and stops waiting for it after `limit`.
fn limited<T: Send + 'static>(
    env: &Env,
    name: &str,
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Unfinished> {
    let (sender, receiver) = sync_channel(1);
    let mut work = Some(work);
    let once = OneStep(move || {
        if let Some(work) = work.take() {
            let _ = sender.send(work());
        }
    });
    env.spawn.spawn(name, Box::new(once)).map_err(Unfinished::NotStarted)?;
    receiver.recv_timeout(limit).map_err(|error| match error {
        RecvTimeoutError::Timeout => Unfinished::Late,
        RecvTimeoutError::Disconnected => Unfinished::Panicked,
    })
}

/// A worker of one step.
pub(super) struct OneStep<F>(pub(super) F);

impl<F: FnMut() + Send> Worker for OneStep<F> {
    fn step(&mut self) -> Step {
        (self.0)();
        Step::Stopped
    }
}

/// Sled spreads a flush over rayon's pool; the cores belong to the requests.
fn one_rayon_thread() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Err(error) = rayon::ThreadPoolBuilder::new().num_threads(1).build_global() {
            tracing::debug!(%error, "rayon's pool was there already");
        }
    });
}
