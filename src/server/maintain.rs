//! The store's upkeep as clients ask for it: sizes, checksums, a snapshot to save.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use super::door::Door;
use crate::api::{Maintain, Propose as _};
use crate::env::Env;
use crate::storage::StoreReader;
use crate::types::StorageError;

/// [`Maintain`] over the store's read side.
pub(super) struct Keeper {
    env: Env,
    reader: StoreReader,
    door: Arc<Door>,
    /// Where files for `snapshot save` are built.
    scratch: PathBuf,
}

impl Keeper {
    pub(super) fn new(env: Env, reader: StoreReader, door: Arc<Door>, scratch: PathBuf) -> Self {
        Self { env, reader, door, scratch }
    }
}

impl Maintain for Keeper {
    fn disk_size(&self) -> u64 {
        self.reader.values().disk_size().unwrap_or(0)
    }

    fn defragment(&self) -> Result<(), StorageError> {
        // The engines give space back by themselves; what is pending goes to disk first.
        futures::executor::block_on(self.reader.values().flush()).map(drop)
    }

    fn snapshot_file(&self) -> Result<(Box<dyn Read + Send>, u64), StorageError> {
        super::export::export(&self.env, &self.reader, &self.door.members(), &self.scratch)
    }

    fn hash(&self) -> Result<u32, StorageError> {
        let digest = self.reader.snapshot().digest();
        Ok((digest ^ (digest >> 32)) as u32)
    }
}
