//! An engine whose writes and flushes are timed, for whoever shows figures.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Backend, Batch, Remains, Table, Visitor};
use crate::env::Env;
use crate::types::StorageError;

/// Is told how long the engine took. Called on the store thread; must not block.
pub trait EngineObserver: Send + Sync + fmt::Debug {
    /// A batch was written (not durable yet).
    fn written(&self, took: Duration);
    /// A flush was done.
    fn flushed(&self, took: Duration);
}

/// `inner`, timed.
#[derive(Debug)]
pub(super) struct Observed {
    pub(super) inner: Arc<dyn Backend>,
    pub(super) env: Env,
    pub(super) observer: Arc<dyn EngineObserver>,
}

impl Backend for Observed {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.inner.get(table, key)
    }

    fn visit(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        visitor: &mut Visitor<'_>,
    ) -> Result<(), StorageError> {
        self.inner.visit(table, start, end, visitor)
    }

    fn write(&self, batch: &Batch) -> Result<(), StorageError> {
        let begun = self.env.clock.now();
        self.inner.write(batch)?;
        self.observer.written(self.env.clock.now().saturating_duration_since(begun));
        Ok(())
    }

    fn get_many(
        &self,
        table: Table,
        keys: &mut dyn Iterator<Item = Vec<u8>>,
        visitor: &mut Visitor<'_>,
    ) -> Result<(), StorageError> {
        self.inner.get_many(table, keys, visitor)
    }

    fn room(&self, bytes: u64) -> Result<(), StorageError> {
        self.inner.room(bytes)
    }

    fn remove(&self, table: Table, keys: &[Vec<u8>]) -> Result<(), StorageError> {
        self.inner.remove(table, keys)
    }

    fn flush(&self) -> Result<(), StorageError> {
        let begun = self.env.clock.now();
        self.inner.flush()?;
        self.observer.flushed(self.env.clock.now().saturating_duration_since(begun));
        Ok(())
    }

    fn size(&self) -> Result<u64, StorageError> {
        self.inner.size()
    }

    fn recycled(&self) -> (u64, Duration) {
        self.inner.recycled()
    }

    fn abandon(&self) -> Remains {
        self.inner.abandon()
    }

    fn close(&self) -> Result<(), StorageError> {
        self.inner.close()
    }
}
