//! Putting a snapshot's state in place of everything.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;

use super::open::{Found, Opened};
use super::reclaim::Reclaim;
use super::store::Store;
use crate::storage::index::{Rows, Version};
use crate::storage::publish::{Compaction, Published};
use crate::storage::values::Replacement;
use crate::storage::{AppliedPosition, Record, Table};
use crate::types::{Revision, StorageError};

/// A piece of a snapshot: records come in the order of their revisions, rows anywhere, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotItem {
    /// A version of a key, or its end.
    Record(Revision, Record),
    /// A row of another table.
    Row(Table, Bytes, Bytes),
}

/// Told of a state that a snapshot puts in place of everything: for what must be known before its keys can be read.
pub trait InstallHook: Debug + Send + Sync {
    /// Looks at the state while the old one is still there.
    ///
    /// # Errors
    /// Why the state must not be installed; the old one stays.
    fn prepare(&mut self, opened: &Opened) -> Result<(), StorageError>;

    /// The state that was looked at last is there, and readers see it next.
    fn before_shown(&mut self);
}

impl Store {
    /// Has `hook` told of every state that is installed from now on.
    pub fn set_install_hook(&mut self, hook: Box<dyn InstallHook>) {
        self.install_hook = Some(hook);
    }

    /// Replaces the whole state by a snapshot's, durably and in one step; readers see it at return.
    ///
    /// What was committed and not published is dropped: it is part of the snapshot's later state.
    /// Snapshots that readers hold stay, but values that only they know are `Compacted`.
    ///
    /// # Errors
    /// What `items` gives, [`StorageError::Mismatch`] if they are out of order, and the engine's.
    /// The old state is then still there and whole.
    pub fn install<E: From<StorageError>>(
        &mut self,
        position: AppliedPosition,
        items: impl IntoIterator<Item = Result<SnapshotItem, E>>,
    ) -> Result<Opened, E> {
        let mut installation = self.begin_install()?;
        for item in items {
            installation.add(item?)?;
        }
        installation.seal(position)?;
        Ok(self.finish_install(installation.prepare(position)?)?)
    }

    /// Begins what [`Store::install`] does, for who has to pause now and then.
    ///
    /// # Errors
    /// The engine's.
    pub fn begin_install(&mut self) -> Result<Installation, StorageError> {
        Ok(Installation { values: self.values.replace()?, found: Found::default(), rows: Rows::default() })
    }

    /// Puts a state that is ready in place of everything; readers see it at return.
    ///
    /// # Errors
    /// The engine's, and the hook's. The old state is then still there and whole.
    pub fn finish_install(&mut self, prepared: Prepared) -> Result<Opened, StorageError> {
        let Prepared { values, published, opened } = prepared;
        if let Some(hook) = &mut self.install_hook {
            hook.prepare(&opened)?;
        }
        self.values.take_over(values)?;
        self.changes.clear();
        self.row_changes.clear();
        (self.index, self.rows) = (published.index.clone(), published.rows.clone());
        (self.revision, self.compact) = (published.revision, published.compact);
        self.reclaim = Reclaim::new(published.compact.revision);
        if let Some(hook) = &mut self.install_hook {
            hook.before_shown();
        }
        self.shared.published.store(Arc::new(published));
        self.shared.reclaimed.send_replace(Compaction::NEVER.revision);
        self.shared.compacted.send_replace(self.compact.revision);
        Ok(opened)
    }
}

/// A state that is taken in piece by piece, beside the one that is there.
#[derive(Debug)]
pub struct Installation {
    values: Replacement,
    found: Found,
    rows: Rows,
}

impl Installation {
    /// Adds a piece.
    ///
    /// # Errors
    /// [`StorageError::Mismatch`] if it is out of order, and the engine's.
    pub fn add(&mut self, item: SnapshotItem) -> Result<(), StorageError> {
        match item {
            SnapshotItem::Record(at, record) => {
                let digest = self.values.record(at, &record)?;
                // Copied, so that the index's keys don't keep whole chunks of the snapshot alive.
                self.found.add(at, Bytes::copy_from_slice(&record.key), version_of(at, &record, digest));
            }
            SnapshotItem::Row(table, key, value) => {
                self.rows.set(table, &key, Some(value.clone()));
                self.values.row(table, key, value)?;
            }
        }
        Ok(())
    }

    /// Writes what is left, durably; nothing may be added after it.
    ///
    /// # Errors
    /// The engine's.
    pub fn seal(&mut self, position: AppliedPosition) -> Result<(), StorageError> {
        self.values.seal(position)
    }

    /// Builds the index.
    ///
    /// # Errors
    /// [`StorageError::Mismatch`] if the rows aren't those of a store.
    pub fn prepare(self, position: AppliedPosition) -> Result<Prepared, StorageError> {
        let prepared = self.found.publish(self.rows, position);
        let (published, opened) = prepared.map_err(|what| StorageError::Mismatch(what.into()))?;
        Ok(Prepared { values: self.values, published, opened })
    }
}

/// A state that can take the place of another in one step.
#[derive(Debug)]
pub struct Prepared {
    values: Replacement,
    published: Published,
    opened: Opened,
}

fn version_of(at: Revision, record: &Record, digest: u64) -> Version {
    Version::stored(at, record.version.as_ref().map(|put| (put.create_revision, put.version, put.lease, digest)))
}
