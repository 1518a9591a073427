//! The store's upkeep as clients ask for it: sizes, checksums, a snapshot to save.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use super::door::Door;
use crate::api::{Maintain, Propose as _};
use crate::env::Env;
use crate::ops::metrics::Metrics;
use crate::storage::StoreReader;
use crate::types::StorageError;

/// [`Maintain`] over the store's read side.
pub(super) struct Keeper {
    env: Env,
    reader: StoreReader,
    door: Arc<Door>,
    metrics: Arc<Metrics>,
    /// Where files for `snapshot save` are built.
    scratch: PathBuf,
}

impl Keeper {
    pub(super) fn new(env: Env, reader: StoreReader, door: Arc<Door>, metrics: Arc<Metrics>, scratch: PathBuf) -> Self {
        Self { env, reader, door, metrics, scratch }
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
    fn disk_size(&self) -> u64 {
        self.reader.values().disk_size().unwrap_or(0)
    }

    fn defragment(&self) -> Result<(), StorageError> {
        // The engines give space back by themselves; what is pending goes to disk first.
        let flush = || futures::executor::block_on(self.reader.values().flush()).map(drop);
        self.timed(&self.metrics.histograms.backend_defrag, flush)
    }

    fn snapshot_file(&self) -> Result<(Box<dyn Read + Send>, u64), StorageError> {
        let export = || super::export::export(&self.env, &self.reader, &self.door.members(), &self.scratch);
        self.timed(&self.metrics.histograms.backend_snapshot, export)
    }

    fn hash(&self) -> Result<u32, StorageError> {
        self.timed(&self.metrics.histograms.hash, || {
            let digest = self.reader.snapshot().digest();
            Ok((digest ^ (digest >> 32)) as u32)
        })
    }
}
