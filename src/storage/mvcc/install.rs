//! Putting a snapshot's state in place of everything.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;

use super::open::{Found, Opened};
use super::reclaim::Reclaim;
use super::store::Store;
use crate::storage::digest;
use crate::storage::index::{Rows, Version};
use crate::storage::publish::Compaction;
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
        let mut replacement = self.values.replace()?;
        let mut found = Found::default();
        let mut rows = Rows::default();
        for item in items {
            match item? {
                SnapshotItem::Record(at, record) => {
                    replacement.record(at, &record)?;
                    // Copied, so that the index's keys don't keep whole chunks of the snapshot alive.
                    found.add(at, Bytes::copy_from_slice(&record.key), version_of(at, &record));
                }
                SnapshotItem::Row(table, key, value) => {
                    rows.set(table, &key, Some(value.clone()));
                    replacement.row(table, key, value)?;
                }
            }
        }
        let (published, opened) = found.publish(rows, position).map_err(|what| StorageError::Mismatch(what.into()))?;
        if let Some(hook) = &mut self.install_hook {
            hook.prepare(&opened)?;
        }
        replacement.finish(position)?;
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

fn version_of(at: Revision, record: &Record) -> Version {
    let digest = digest::of_record(at, record);
    Version::stored(at, record.version.as_ref().map(|put| (put.create_revision, put.version, put.lease, digest)))
}
