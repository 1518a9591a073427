//! The in-memory engine: for tests, for simulation, and as the plainest model of the door.
//!
//! What is flushed goes to a [`MemoryImage`] that outlives the engine, so that dropping the
//! engine and opening the image again is a crash and a restart.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::{Backend, Batch, Table, Visitor};
use crate::types::StorageError;

type Rows = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// What a "disk" of the in-memory engine holds. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryImage {
    rows: Arc<Mutex<Rows>>,
}

impl MemoryImage {
    /// Takes another image's content over.
    pub(super) fn replace(&self, other: &Self) {
        *self.rows.lock() = std::mem::take(&mut *other.rows.lock());
    }
}

/// The engine: a live map over the flushed image.
#[derive(Debug)]
pub(super) struct Memory {
    image: MemoryImage,
    live: RwLock<Live>,
}

#[derive(Debug)]
struct Live {
    rows: Rows,
    /// Keys changed since the last flush.
    dirty: Vec<(Table, Vec<u8>)>,
    closed: bool,
}

impl Memory {
    pub(super) fn open(image: MemoryImage) -> Self {
        let rows = image.rows.lock().clone();
        Self { image, live: RwLock::new(Live { rows, dirty: Vec::new(), closed: false }) }
    }
}

impl Live {
    fn check(&self) -> Result<(), StorageError> {
        if self.closed { Err(StorageError::Closed("the engine was closed".into())) } else { Ok(()) }
    }
}

impl Backend for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        let live = self.live.read();
        live.check()?;
        Ok(live.rows.get(&(table, key.to_vec())).cloned())
    }

    fn visit(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        visitor: &mut Visitor<'_>,
    ) -> Result<(), StorageError> {
        let live = self.live.read();
        live.check()?;
        let rows = live.rows.range((Bound::Included((table, start.to_vec())), Bound::Unbounded));
        for ((at, key), value) in rows {
            if *at != table || end.is_some_and(|end| key.as_slice() >= end) {
                break;
            }
            if let ControlFlow::Break(()) = visitor(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn write(&self, batch: &Batch) -> Result<(), StorageError> {
        let mut live = self.live.write();
        live.check()?;
        for (table, key, value) in batch.iter() {
            let key = (table, key.to_vec());
            live.dirty.push(key.clone());
            match value {
                Some(value) => live.rows.insert(key, value.to_vec()),
                None => live.rows.remove(&key),
            };
        }
        Ok(())
    }

    fn remove(&self, table: Table, keys: &[Vec<u8>]) -> Result<(), StorageError> {
        let mut live = self.live.write();
        live.check()?;
        for key in keys {
            let key = (table, key.clone());
            if live.rows.remove(&key).is_some() {
                live.dirty.push(key);
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StorageError> {
        let mut live = self.live.write();
        live.check()?;
        let mut image = self.image.rows.lock();
        for key in std::mem::take(&mut live.dirty) {
            match live.rows.get(&key) {
                Some(value) => image.insert(key, value.clone()),
                None => image.remove(&key),
            };
        }
        Ok(())
    }

    fn room(&self, _bytes: u64) -> Result<(), StorageError> {
        Ok(())
    }

    fn size(&self) -> Result<u64, StorageError> {
        let live = self.live.read();
        live.check()?;
        Ok(live.rows.iter().map(|((_, key), value)| (key.len() + value.len()) as u64).sum())
    }

    fn close(&self) -> Result<(), StorageError> {
        if self.live.read().closed {
            return Ok(());
        }
        self.flush()?;
        let mut live = self.live.write();
        live.closed = true;
        live.rows.clear();
        Ok(())
    }
}
