//! `ValueReader`: records by revision, for any thread.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::freeze::Frozen;
use super::listed::Listed;
use super::segment::Segment;
use super::shared::{Health, Shared};
use super::state::Totals;
use crate::env::sync::point;
use crate::storage::AppliedPosition;
use crate::storage::Record;
use crate::storage::backend::Table;
use crate::storage::backend::codec::decode_record;
use crate::types::{Revision, StorageError};

/// Segments from this size on are kept between two pages of a walk.
const LARGE_BYTES: usize = 256 << 10;

/// How much a page may hold.
#[derive(Clone, Copy, Debug)]
pub struct PageLimits {
    /// Records.
    pub records: usize,
    /// Bytes of keys and values, about; a single record may be larger.
    pub bytes: usize,
}

/// A stretch of the records.
#[derive(Debug, Default)]
pub struct Page {
    /// In the order of their revisions. There may be none though there are pages after this one, as those that were to be in
    /// it were removed meanwhile.
    pub records: Vec<(Revision, Record)>,
    /// Where the next page begins; `None` if this one is the last.
    pub next: Option<Revision>,
}

impl Page {
    /// As one of the limits was reached.
    fn cut(self) -> Self {
        let last = self.records.last().map(|(last, _)| *last);
        last.map(|last| Self { next: Some(behind(last)), ..self }).unwrap_or_default()
    }
}

fn behind(last: Revision) -> Revision {
    Revision::new(last.main, last.sub.saturating_add(1))
}

/// What came of [`ValueReader::warm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warmed {
    /// How many of the revisions are left to do, the first ones; none once there is no more room.
    pub left: usize,
    /// Bytes that were read, and some for each that was looked for.
    pub bytes: usize,
}

/// Reads records. It has no method that writes.
#[derive(Clone, Debug)]
pub struct ValueReader {
    pub(super) shared: Arc<Shared>,
}

impl ValueReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Logical bytes of all records, those on their way out included until they are gone.
    pub fn logical_size(&self) -> u64 {
        self.shared.logical_bytes.load(Ordering::Relaxed)
    }

    /// The record of a revision if it is in memory. Never waits.
    pub fn cached(&self, at: Revision) -> Option<Record> {
        self.shared.pending.get(at).or_else(|| self.shared.hot.get(at))
    }

    /// The newest record of `key`, if it is a put, memory knows it, and it is not above main revision `main`,
    /// which the caller has loaded as the published one. Never waits. `None` says nothing.
    pub fn newest(&self, key: &[u8], main: i64) -> Option<(Revision, Record)> {
        let at = self.shared.front.find(key, main)?;
        let record = self.cached(at)?;
        (record.version.is_some() && record.key == key).then_some((at, record))
    }

    /// Adds the record of each of some revisions, or `None` if it isn't in memory; quicker than as many
    /// [`ValueReader::cached`], about [`ValueReader::MANY`] at a time. Never waits.
    pub fn cached_many(&self, revisions: &[Revision], found: &mut Vec<Option<Record>>) {
        let (start, first_pending) = (found.len(), self.shared.pending.first());
        self.shared.hot.many(revisions, found);
        for (record, at) in found[start..].iter_mut().zip(revisions) {
            if record.is_none() && at.main >= first_pending {
                *record = self.cached(*at);
            }
        }
    }

    /// How many revisions [`ValueReader::cached_many`] is best asked for.
    pub const MANY: usize = 48;

    /// The record of a revision; `None` if there is none or it was removed. May block on the disk.
    ///
    /// # Errors
    /// I/O errors, and [`StorageError::Damaged`] if the record should be there or isn't what was
    /// written.
    pub fn record(&self, at: Revision) -> Result<Option<Record>, StorageError> {
        if let Some(record) = self.cached(at) {
            return Ok(Some(record));
        }
        // What leaves the pending map here is on the engine.
        point();
        let epoch = self.shared.hot.epoch();
        let Some(bytes) = self.shared.read(|engine| engine.get(Table::Kv, &at.to_bytes()))? else {
            return if self.is_listed(at)? { Err(self.missing(at)) } else { Ok(None) };
        };
        let record = self.decode(at, bytes.into())?;
        self.shared.hot.insert(epoch, at, &record);
        Ok(Some(record))
    }

    /// Up to `limit` records with `from <= revision < to`, in order; removed ones are absent. May
    /// block on the disk.
    ///
    /// # Errors
    /// As [`ValueReader::record`].
    pub fn scan(&self, from: Revision, to: Revision, limit: usize) -> Result<Vec<(Revision, Record)>, StorageError> {
        let (mut found, mut from) = (Vec::new(), from);
        loop {
            let page = self.page(from, to, PageLimits { records: limit - found.len(), bytes: usize::MAX })?;
            found.extend(page.records);
            match page.next {
                Some(next) if found.len() < limit => from = next,
                _ => return Ok(found),
            }
        }
    }

    /// As [`ValueReader::scan`], but no more than the limits allow: the record that reaches one is the page's last. May
    /// block on the disk.
    ///
    /// # Errors
    /// As [`ValueReader::record`].
    pub fn page(&self, from: Revision, to: Revision, limits: PageLimits) -> Result<Page, StorageError> {
        // Taken first: what leaves the pending map later is still in this view, and what had left
        // it before is on the engine.
        let view = self.shared.pending.view();
        point();
        let border = view.first().map_or(to, |first| to.min(first));
        let mut page = Page { records: Vec::new(), next: None };
        let (mut base, mut bytes_left) = (Segment::base_of(from.main), limits.bytes.max(1));
        while Revision::new((base << 7) as i64, 0) < border && page.records.len() < limits.records {
            let Some(listed) = self.segment(base)? else {
                break;
            };
            let (first, end) = (
                listed.revisions.partition_point(|at| *at < from),
                listed.revisions.partition_point(|at| *at < border),
            );
            let stop = end.min(first.saturating_add(limits.records - page.records.len()));
            let wanted = listed.revisions.get(first..stop).unwrap_or_default();
            if !self.records(wanted, &mut bytes_left, &mut page.records)? {
                return Ok(page.cut());
            }
            if stop < end {
                // By what was looked for: some of it may have been removed meanwhile, and what is behind it is still there.
                return Ok(Page { next: wanted.last().map(|last| behind(*last)), ..page });
            }
            self.shared.listed.forget(listed.base);
            base = listed.base + 1;
        }
        let mut hole = None;
        let mut pending = view.range(from.max(border), to, &mut hole);
        while page.records.len() < limits.records
            && bytes_left > 0
            && let Some((at, record)) = pending.next()
        {
            bytes_left = bytes_left.saturating_sub(record.size());
            page.records.push((at, record.clone()));
        }
        drop(pending);
        match hole {
            Some(hole) => Err(hole.into()),
            None if page.records.len() >= limits.records || bytes_left == 0 => Ok(page.cut()),
            None => Ok(page),
        }
    }

    /// Those of the records of `revisions` that weren't removed, in the order given; they aren't kept in
    /// memory. May block on the disk.
    ///
    /// # Errors
    /// As [`ValueReader::record`].
    pub fn many(&self, revisions: &[Revision]) -> Result<Vec<Record>, StorageError> {
        let mut found = Vec::with_capacity(revisions.len());
        let mut bytes_left = usize::MAX;
        self.records(revisions, &mut bytes_left, &mut found)?;
        Ok(found.into_iter().map(|(_, record)| record).collect())
    }

    /// Those of the records of ascending `revisions` that weren't removed, in order, up to the one that reaches
    /// `bytes_max`; they are kept in memory. May block on the disk.
    ///
    /// # Errors
    /// As [`ValueReader::record`].
    pub fn bring(&self, revisions: &[Revision], bytes_max: usize) -> Result<Vec<(Revision, Record)>, StorageError> {
        let epoch = self.shared.hot.epoch();
        let (mut found, mut bytes_left) = (Vec::with_capacity(revisions.len()), bytes_max.max(1));
        self.records(revisions, &mut bytes_left, &mut found)?;
        for (at, record) in &found {
            self.shared.hot.insert(epoch, *at, record);
        }
        Ok(found)
    }

    /// Has those of `revisions`, which ascend, in memory that have room in a half of the hot cache, the last ones first, until
    /// about `bytes_max` bytes of them were read; what is newer has the other half. May block on the disk.
    ///
    /// # Errors
    /// As [`ValueReader::record`].
    pub fn warm(&self, revisions: &[Revision], bytes_max: usize) -> Result<Warmed, StorageError> {
        let mut warmed = Warmed { left: revisions.len(), bytes: 0 };
        while warmed.left > 0 && warmed.bytes < bytes_max {
            if self.shared.hot.is_half_full() {
                return Ok(Warmed { left: 0, ..warmed });
            }
            let end = warmed.left;
            warmed.left = end.saturating_sub(Self::MANY);
            let some = &revisions[warmed.left..end];
            let mut found = Vec::with_capacity(some.len());
            self.cached_many(some, &mut found);
            let lacks = some.iter().zip(found).filter(|(_, found)| found.is_none());
            let lacking: Vec<_> = lacks.map(|(at, _)| *at).collect();
            let read = self.bring(&lacking, bytes_max)?;
            warmed.bytes += size_of_val(some) + read.iter().map(|(_, record)| record.size()).sum::<usize>();
        }
        Ok(warmed)
    }

    /// The records of these revisions, which a segment lists. False if the bytes that were left didn't reach for all of
    /// them: the last one that was found is the last one that was looked for then.
    fn records(
        &self,
        revisions: &[Revision],
        bytes_left: &mut usize,
        found: &mut Vec<(Revision, Record)>,
    ) -> Result<bool, StorageError> {
        let mut stored: Vec<(Revision, Bytes)> = Vec::with_capacity(revisions.len());
        let mut left = *bytes_left;
        self.shared.read(|engine| {
            stored.clear();
            left = *bytes_left;
            let mut keys = revisions.iter().map(|at| at.to_bytes().to_vec());
            engine.get_many(Table::Kv, &mut keys, &mut |key, value| {
                stored.extend(Revision::from_bytes(key).map(|at| (at, Bytes::copy_from_slice(value))));
                left = left.saturating_sub(value.len());
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
        })?;
        *bytes_left = left;
        let looked_for = match stored.last() {
            Some((last, _)) if left == 0 => revisions.partition_point(|at| at <= last),
            _ => revisions.len(),
        };
        let mut stored = stored.into_iter().peekable();
        for at in &revisions[..looked_for] {
            match stored.next_if(|(got, _)| got == at) {
                Some((_, bytes)) => found.push((*at, self.decode(*at, bytes)?)),
                // Removed between the two looks, or damage.
                None if self.is_listed(*at)? => return Err(self.missing(*at)),
                None => {}
            }
        }
        Ok(left > 0)
    }

    /// The first segment from `base` on.
    fn segment(&self, base: u64) -> Result<Option<Listed>, StorageError> {
        if let Some(listed) = self.shared.listed.get(base) {
            return Ok(Some(listed));
        }
        let epoch = self.shared.listed.epoch();
        // In a dense stretch of history the very segment is there, and a get is in nobody's way.
        let mut first =
            self.shared.read(|engine| engine.get(Table::Index, &Segment::key(base)))?.map(|value| (base, value));
        if first.is_none() {
            self.shared.read(|engine| {
                engine.visit(Table::Index, &Segment::key(base), None, &mut |key, value| {
                    first = key.try_into().ok().map(|key| (u64::from_be_bytes(key), value.to_vec()));
                    ControlFlow::Break(())
                })
            })?;
        }
        let Some((base, value)) = first else {
            return Ok(None);
        };
        let mut revisions = Vec::new();
        Segment::heads(base, &value, &mut Totals::default(), |at, _| revisions.push(at))
            .map_err(|error| self.shared.undecodable(format_args!("segment {base}"), error))?;
        let listed = Listed { base, revisions: revisions.into() };
        if value.len() >= LARGE_BYTES {
            self.shared.listed.keep(epoch, listed.clone());
        }
        Ok(Some(listed))
    }

    fn is_listed(&self, at: Revision) -> Result<bool, StorageError> {
        let base = Segment::base_of(at.main);
        let Some(value) = self.shared.read(|engine| engine.get(Table::Index, &Segment::key(base)))? else {
            return Ok(false);
        };
        let mut listed = false;
        Segment::heads(base, &value, &mut Totals::default(), |found, _| listed |= found == at)
            .map_err(|error| self.shared.undecodable(format_args!("segment {base}"), error))?;
        Ok(listed)
    }

    fn missing(&self, at: Revision) -> StorageError {
        self.shared.damaged(format_args!("the record of revision {at} is missing"))
    }

    fn decode(&self, at: Revision, bytes: Bytes) -> Result<Record, StorageError> {
        decode_record(at, &bytes)
            .map_err(|error| self.shared.undecodable(format_args!("the record of revision {at}"), error))
    }

    /// Holds removals off, those that the writer has handed over already included, until as many
    /// [`ValueReader::release`]s. A removal under way is through before a later freeze is answered:
    /// what is read from then on until the release is the state as of that freeze and no mixture.
    pub(in crate::storage) fn hold(&self) {
        self.shared.holds.fetch_add(1, Ordering::SeqCst);
    }

    /// Ends a [`ValueReader::hold`].
    pub(in crate::storage) fn release(&self) {
        self.shared.holds.fetch_sub(1, Ordering::SeqCst);
    }

    /// The position of the last finished flush.
    pub fn durable(&self) -> watch::Receiver<AppliedPosition> {
        self.shared.durable.subscribe()
    }

    /// How the store thread is.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }

    /// Whether the store was given up only because this process can't open its engine again: another process can.
    pub fn is_stuck(&self) -> bool {
        self.shared.is_stuck.load(Ordering::Acquire)
    }

    /// Bytes on disk.
    ///
    /// # Errors
    /// The engine's.
    pub fn disk_size(&self) -> Result<u64, StorageError> {
        self.shared.engine().size()
    }

    /// How often the engine's handle was closed and opened again, and how long that took in all. One that was given up
    /// and opened anew by its owner begins with 0.
    pub fn recycled(&self) -> (u64, Duration) {
        self.shared.engine().recycled()
    }

    /// Makes everything appended so far durable; gives the position that then is.
    ///
    /// # Errors
    /// [`StorageError::Closed`] if the engine was given up first.
    pub fn flush(&self) -> impl Future<Output = Result<AppliedPosition, StorageError>> + Send + use<> {
        self.shared.flush()
    }

    /// Whether the next append would wait for the store thread; who may not block waits for
    /// [`ValueReader::durable`] to change and asks again.
    pub fn is_full(&self) -> bool {
        self.shared.pending.bytes() >= self.shared.pending_bytes_max && self.shared.failed().is_none()
    }

    /// The small tables as of the last append before this call, for a snapshot: call it where the
    /// applier stands still, wait anywhere. See [`Frozen`].
    ///
    /// # Errors
    /// [`StorageError::Full`] if what comes before it finds no room on the disk (try again later, and
    /// hold nothing meanwhile), [`StorageError::Closed`] if the engine was given up first.
    pub fn freeze(&self) -> impl Future<Output = Result<Frozen, StorageError>> + Send + use<> {
        self.shared.freeze()
    }

    /// Gives the store up, as damage under a read does.
    #[cfg(test)]
    pub(crate) fn give_up(&self, why: &str) {
        self.shared.fail(why.to_owned());
    }

    /// Takes a record away from under the engine, as a disk does that lost it.
    #[cfg(test)]
    pub(crate) fn lose(&self, at: Revision) {
        self.shared.engine().remove(Table::Kv, &[at.to_bytes().to_vec()]).expect("an engine");
    }

    /// Bytes in the pending map and in the hot cache.
    pub fn memory(&self) -> (u64, u64) {
        (self.shared.pending.bytes(), self.shared.hot.bytes())
    }
}
