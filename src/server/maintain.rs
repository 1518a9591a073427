//! The store's upkeep as clients ask for it: sizes, checksums, a snapshot to save.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::door::Door;
use crate::api::{Maintain, Propose as _};
use crate::env::Env;
use crate::ops::metrics::Metrics;
use crate::storage::StoreReader;
use crate::types::{RequestError, StorageError};

/// Files for `snapshot save` at a time: each takes as much disk as the data.
const EXPORTS_MAX: usize = 2;

/// [`Maintain`] over the store's read side.
pub(super) struct Keeper {
    env: Env,
    reader: StoreReader,
    door: Arc<Door>,
    metrics: Arc<Metrics>,
    /// Where files for `snapshot save` are built.
    scratch: PathBuf,
    /// Files for `snapshot save` that may be there at a time.
    exports: Arc<Semaphore>,
    building: Mutex<()>,
}

/// A file that is counted until it is dropped.
struct Permitted {
    file: Box<dyn Read + Send>,
    _permit: OwnedSemaphorePermit,
}

impl Read for Permitted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Keeper {
    pub(super) fn new(env: Env, reader: StoreReader, door: Arc<Door>, metrics: Arc<Metrics>, scratch: PathBuf) -> Self {
        Self {
            env,
            reader,
            door,
            metrics,
            scratch,
            exports: Arc::new(Semaphore::new(EXPORTS_MAX)),
            building: Mutex::new(()),
        }
    }

    /// Runs `work` and notes how long it took if it succeeded.
    fn timed<T>(
        &self,
        histogram: &prometheus::Histogram,
        work: impl FnOnce() -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let begun = self.env.clock.now();
        let done = work()?;
        histogram.observe(self.env.clock.now().saturating_duration_since(begun).as_secs_f64());
        Ok(done)
    }
}

impl Maintain for Keeper {
    fn defragment(&self) -> Result<(), StorageError> {
        // The engines give space back by themselves; what is pending goes to disk first.
        let flush = || futures::executor::block_on(self.reader.values().flush()).map(drop);
        self.metrics.defragmenting.fetch_add(1, Ordering::Relaxed);
        let done = self.timed(&self.metrics.histograms.backend_defrag, flush);
        self.metrics.defragmenting.fetch_sub(1, Ordering::Relaxed);
        done
    }

    fn snapshot_file(&self) -> Result<(Box<dyn Read + Send>, u64), RequestError> {
        let permit = self.exports.clone().try_acquire_owned().map_err(|_| RequestError::TooManyRequests)?;
        // One after the other, so that each sees how much room the one before has taken.
        let _building = self.building.lock();
        super::export::check_room(&self.env, &self.scratch, self.reader.logical_size())?;
        let export = || super::export::export(&self.env, &self.reader, &self.door.members(), &self.scratch);
        let (file, len) = self.timed(&self.metrics.histograms.backend_snapshot, export)?;
        Ok((Box::new(Permitted { file, _permit: permit }), len))
    }

    fn hash(&self) -> Result<u32, StorageError> {
        self.timed(&self.metrics.histograms.hash, || {
            let digest = self.reader.snapshot().digest();
            Ok((digest ^ (digest >> 32)) as u32)
        })
    }
}
