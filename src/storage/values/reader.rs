//! `ValueReader`: records by revision, for any thread.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::segment::Segment;
use super::shared::{Health, Shared};
use super::state::Totals;
use crate::storage::AppliedPosition;
use crate::storage::Record;
use crate::storage::backend::Table;
use crate::storage::backend::codec::decode_record;
use crate::types::{Revision, StorageError};

/// Bytes of records that one look at the engine takes at most; longer scans take several.
const PAGE_BYTES: usize = 1 << 20;

/// Reads records. It has no method that writes.
#[derive(Clone, Debug)]
pub struct ValueReader {
    shared: Arc<Shared>,
}

impl ValueReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The record of a revision if it is in memory. Never waits.
    pub fn cached(&self, at: Revision) -> Option<Record> {
        self.shared.pending.get(at).or_else(|| self.shared.hot.get(at))
    }

    /// The record of a revision; `None` if there is none or it was removed. May block on the disk.
    ///
    /// # Errors
    /// I/O errors, and [`StorageError::Damaged`] if the record should be there or isn't what was
    /// written.
    pub fn record(&self, at: Revision) -> Result<Option<Record>, StorageError> {
        if let Some(record) = self.cached(at) {
            return Ok(Some(record));
        }
        let engine = self.shared.engine();
        let Some(bytes) = engine.get(Table::Kv, &at.to_bytes())? else {
            // It may have been on its way out of the pending map into an engine that was replaced.
            if let Some(record) = self.cached(at) {
                return Ok(Some(record));
            }
            return if self.listed(at, Revision::new(at.main, at.sub.saturating_add(1)))?.is_empty() {
                Ok(None)
            } else {
                Err(self.shared.damaged(format_args!("the record of revision {at} is missing")))
            };
        };
        let record = self.decode(at, bytes)?;
        self.shared.hot.insert(at, record.clone());
        Ok(Some(record))
    }

    /// Up to `limit` records with `from <= revision < to`, in order; removed ones are absent. May
    /// block on the disk.
    ///
    /// # Errors
    /// As [`ValueReader::record`].
    pub fn scan(&self, from: Revision, to: Revision, limit: usize) -> Result<Vec<(Revision, Record)>, StorageError> {
        // Taken first: what leaves the pending map later is still in this view, and what had left
        // it before is on the engine.
        let view = self.shared.pending.view();
        let border = view.first_main().map_or(to, |main| to.min(Revision::new(main, 0)));
        let mut found = Vec::new();
        let mut next = from;
        while next < border && found.len() < limit {
            let (page, end) = self.page(next, border, limit - found.len())?;
            found.extend(page);
            next = end;
        }
        let left = limit - found.len();
        found.extend(view.range(from, to).take(left).map(|(at, record)| (at, record.clone())));
        Ok(found)
    }

    /// Some records of the engine from `from` on, and where the next page begins.
    fn page(
        &self,
        from: Revision,
        to: Revision,
        limit: usize,
    ) -> Result<(Vec<(Revision, Record)>, Revision), StorageError> {
        let mut raw: Vec<(Option<Revision>, Bytes)> = Vec::new();
        let mut bytes = 0;
        let mut stopped = false;
        self.shared.engine().visit(Table::Kv, &from.to_bytes(), Some(&to.to_bytes()), &mut |key, value| {
            raw.push((Revision::from_bytes(key), Bytes::copy_from_slice(value)));
            bytes += value.len();
            stopped = raw.len() >= limit || bytes >= PAGE_BYTES;
            if stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let mut page = Vec::with_capacity(raw.len());
        for (at, bytes) in raw {
            let at = at.ok_or_else(|| self.shared.damaged("a record's key is not a revision"))?;
            page.push((at, self.decode_bytes(at, &bytes)?));
        }
        let end = match page.last() {
            Some((last, _)) if stopped => Revision::new(last.main, last.sub.saturating_add(1)),
            _ => to,
        };
        for at in self.listed(from, end)? {
            // Looked up again: it may have been removed between the two looks.
            if page.binary_search_by_key(&at, |(found, _)| *found).is_err()
                && self.shared.engine().get(Table::Kv, &at.to_bytes())?.is_none()
                && !self.listed(at, Revision::new(at.main, at.sub.saturating_add(1)))?.is_empty()
            {
                return Err(self.shared.damaged(format_args!("the record of revision {at} is missing")));
            }
        }
        Ok((page, end))
    }

    /// The revisions that the segments list with `from <= revision < to`.
    fn listed(&self, from: Revision, to: Revision) -> Result<Vec<Revision>, StorageError> {
        let (first, last) = (Segment::base_of(from.main), Segment::base_of(to.main));
        let mut listed = Vec::new();
        let mut failed = None;
        let end = last.checked_add(1).map(Segment::key);
        self.shared.engine().visit(
            Table::Index,
            &Segment::key(first),
            end.as_ref().map(<[u8; 8]>::as_slice),
            &mut |key, value| {
                let base = key.try_into().map(u64::from_be_bytes).unwrap_or(u64::MAX);
                let keep = |at, _: super::segment::HeadRef<'_>| {
                    if at >= from && at < to {
                        listed.push(at);
                    }
                };
                match Segment::heads(base, value, &mut Totals::default(), keep) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => {
                        failed = Some(self.shared.undecodable(format_args!("segment {base}"), error));
                        ControlFlow::Break(())
                    }
                }
            },
        )?;
        failed.map_or(Ok(listed), Err)
    }

    fn decode(&self, at: Revision, bytes: Vec<u8>) -> Result<Record, StorageError> {
        self.decode_bytes(at, &bytes.into())
    }

    fn decode_bytes(&self, at: Revision, bytes: &Bytes) -> Result<Record, StorageError> {
        decode_record(at, bytes)
            .map_err(|error| self.shared.undecodable(format_args!("the record of revision {at}"), error))
    }

    /// The position of the last finished flush.
    pub fn durable(&self) -> watch::Receiver<AppliedPosition> {
        self.shared.durable.subscribe()
    }

    /// How the store thread is.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }

    /// Bytes on disk.
    ///
    /// # Errors
    /// The engine's.
    pub fn disk_size(&self) -> Result<u64, StorageError> {
        self.shared.engine().size()
    }

    /// Makes everything appended so far durable; gives the position that then is.
    ///
    /// # Errors
    /// [`StorageError::Closed`] if the engine was given up first.
    pub fn flush(&self) -> impl Future<Output = Result<AppliedPosition, StorageError>> + Send + use<> {
        self.shared.flush()
    }

    /// Bytes in the pending map and in the hot cache.
    pub fn memory(&self) -> (u64, u64) {
        (self.shared.pending.bytes(), self.shared.hot.bytes())
    }
}
