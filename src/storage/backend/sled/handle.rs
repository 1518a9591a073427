//! Opening and closing sled on helper threads with a time limit.

use std::io;
use std::sync::Once;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use sled::{Config, Db, Tree};

use super::{FANOUT, damaged, failure, verify};
use crate::env::{Env, Step, Worker};
use crate::storage::backend::BackendConfig;
use crate::types::StorageError;

/// Opening takes 2–60 ms for millions of keys; what takes this long never ends. (Sled reads leaves
/// while it opens, and a damaged one makes it wait for ever.)
const OPEN_LIMIT: Duration = Duration::from_secs(30);
/// Closing flushes what the last flush left, which is nothing.
const CLOSE_LIMIT: Duration = Duration::from_secs(30);
/// After a failure it mostly never ends; the thread that tries is left behind.
const CLOSE_FAILED_LIMIT: Duration = Duration::from_secs(1);

/// The part of the cache that holds leaves as they are on the disk, by their bytes without what each entry takes besides.
/// The rest is for those that were written since opening, and for a flush.
const CLEAN_PART: usize = 2;

/// How often and at what distance sled's lock is asked for.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

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
        let settings = Config::new()
            .path(&config.dir)
            .flush_every_ms(None)
            .zstd_compression_level(1)
            .cache_capacity_bytes(usize::try_from(config.cache_bytes).unwrap_or(usize::MAX) / CLEAN_PART);
        let opened = limited(env, "sled-open", OPEN_LIMIT, move || open_locked(&settings));
        let db = match opened {
            Ok(db) => db.map_err(|error| failure(config, "open", error))?,
            Err(Unfinished::Late) => return Err(damaged(config, "opening sled does not come to an end")),
            Err(Unfinished::Panicked) => return Err(damaged(config, "sled panicked while opening")),
            Err(Unfinished::NotStarted(error)) => return Err(io("start a thread for", error)),
        };
        // The names of new files must be as durable as what a flush puts into them.
        for dir in [&*config.dir, &config.dir.join("slabs"), &config.dir.join("metadata")] {
            env.disk.sync_dir(dir).map_err(|error| io("fsync", error))?;
        }
        if let Some(parent) = config.dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            env.disk.sync_dir(parent).map_err(|error| io("fsync", error))?;
        }
        Ok(Self { db, written: 0, opened: env.clock.now() })
    }

    /// A clone for a reader; it goes back by [`Handle::close`].
    pub(super) fn tree(&self) -> Tree<FANOUT> {
        Tree::clone(&self.db)
    }

    pub(super) fn tree_ref(&self) -> &Tree<FANOUT> {
        &self.db
    }

    /// Lets the database and all clones go.
    pub(super) fn close(
        self,
        env: &Env,
        config: &BackendConfig,
        readers: Vec<Tree<FANOUT>>,
        failed: bool,
    ) -> Result<(), StorageError> {
        let what = (readers, self.db);
        let limit = if failed { CLOSE_FAILED_LIMIT } else { CLOSE_LIMIT };
        limited(env, "sled-close", limit, move || drop(what)).map_err(|_| StorageError::Engine {
            engine: "sled",
            message: format!("closing {} does not come to an end", config.dir.display()),
        })
    }
}

enum Unfinished {
    Late,
    Panicked,
    NotStarted(std::io::Error),
}

/// Opening runs the program `sync` twice, which waits for everything that the machine has to write:
/// let that be done before the time limit runs and before readers are shut out.
pub(super) fn settle() {
    rustix::fs::sync();
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
struct OneStep<F>(F);

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
