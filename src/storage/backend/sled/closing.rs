//! Letting a handle go, and what one leaves that can't be let go.
//!
//! ```text
//! flushes until nothing is to be written ─► dropped: its lock is free           Remains::Nothing
//!        └─► one fails ─► forgotten: nobody calls it again, so nothing writes    Remains::Lock
//! on a helper thread, which may take longer than anyone waits for it             Remains::Writer
//! ```
//!
//! To drop a handle whose flush failed waits for ever: dropping flushes, and a flush waits for the one before it. Why one
//! that is forgotten writes nothing any more: `docs/adr/0043-moving-away-from-a-failed-sled.md`.

use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use parking_lot::Mutex;
use sled::{Db, Tree};

use super::handle::OneStep;
use super::{FANOUT, failure, panicked};
use crate::env::Env;
use crate::storage::backend::{BackendConfig, Remains};
use crate::types::StorageError;

/// Flushes after which no more are tried: moving leaves together may make room for moving more of them. Many, as a flush
/// that writes where nobody hears of its failure is followed by one that never ends.
const FLUSHES_MAX: u32 = 16;

/// Flushes, and says how many leaves were written. After an error the handle is only to be [let go](Closing::begin).
///
/// # Errors
/// sled's.
pub(super) fn flush(tree: &Tree<FANOUT>, config: &BackendConfig) -> Result<u64, StorageError> {
    match catch_unwind(AssertUnwindSafe(|| tree.flush())) {
        Ok(flushed) => flushed.map(|stats| stats.objects_flushed).map_err(|error| failure(config, "flush", error)),
        Err(panic) => {
            // The thread that merges metadata logs has met an error, ended, and taken what it had noted of it along.
            // Everything was written and synced before this.
            let text = panic.downcast_ref::<String>().map(String::as_str);
            if text.is_some_and(|text| text.starts_with("unable to send log to compact to worker")) {
                let what = "the thread that merges the metadata logs has ended, most often for want of room";
                return Err(failure(config, "flush", io::Error::other(what)));
            }
            Err(panicked(config, tree))
        }
    }
}

/// Flushes until nothing is written by it, so that what flushes where nobody hears of a failure writes nothing: each
/// end of a clone or an iterator does.
///
/// # Errors
/// As [`flush`].
pub(super) fn drain(tree: &Tree<FANOUT>, config: &BackendConfig) -> Result<(), StorageError> {
    for _ in 0..FLUSHES_MAX {
        if flush(tree, config)? == 0 {
            break;
        }
    }
    Ok(())
}

/// A handle that is being let go.
pub(super) enum Closing {
    Done(Remains),
    UnderWay(Receiver<Result<(), StorageError>>),
}

impl Closing {
    /// Begins it, with all clones that there are; `spent` if a flush of it failed.
    pub(super) fn begin(
        env: &Env,
        config: &BackendConfig,
        db: Db<FANOUT>,
        clones: Vec<Tree<FANOUT>>,
        spent: bool,
    ) -> Self {
        if spent {
            mem::forget((clones, db));
            return Self::Done(Remains::Lock);
        }
        // Taken out by whoever closes it, so that it isn't dropped where no thread could be started.
        let what = Arc::new(Mutex::new(Some((clones, db))));
        let (sender, receiver) = sync_channel(1);
        let (config, taken) = (config.clone(), what.clone());
        let close = OneStep(move || {
            let Some((clones, db)) = taken.lock().take() else { return };
            let drained = drain(&db, &config);
            match &drained {
                Ok(()) => drop((clones, db)),
                Err(_) => mem::forget((clones, db)),
            }
            let _ = sender.send(drained);
        });
        match env.spawn.spawn("sled-close", Box::new(close)) {
            Ok(_) => Self::UnderWay(receiver),
            Err(error) => {
                tracing::warn!(%error, "no thread could be started that closes sled");
                mem::forget(what.lock().take());
                Self::Done(Remains::Lock)
            }
        }
    }

    /// Waits for its end, for so long at most.
    ///
    /// # Errors
    /// That of a flush that failed; [`StorageError::Engine`] if it doesn't come to an end.
    pub(super) fn wait(&mut self, config: &BackendConfig, limit: Duration) -> Result<(), StorageError> {
        let (remains, result) = match self {
            Self::Done(_) => return Ok(()),
            Self::UnderWay(receiver) => match receiver.recv_timeout(limit) {
                Ok(Ok(())) => (Some(Remains::Nothing), Ok(())),
                Ok(Err(error)) => (Some(Remains::Lock), Err(error)),
                Err(late) => {
                    let message = format!("closing {} does not come to an end", config.dir.display());
                    // Ended by a panic: what it had then isn't known.
                    let gone = (late == RecvTimeoutError::Disconnected).then_some(Remains::Writer);
                    (gone, Err(StorageError::Engine { engine: "sled", message }))
                }
            },
        };
        if let Some(remains) = remains {
            *self = Self::Done(remains);
        }
        result
    }

    pub(super) fn remains(&self) -> Remains {
        match self {
            Self::Done(remains) => *remains,
            Self::UnderWay(_) => Remains::Writer,
        }
    }
}
