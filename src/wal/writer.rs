//! The log thread: group commit.
//!
//! ```text
//! queue ─► encode until the group or the segment is full ─► one write ─► one fdatasync ─► publish ─► callbacks, in order
//!                            │ no room: a new segment in a file made ahead; header, vote, purge and the
//!                            │ group in one write, fsync, rename to its name, fsync of the directory
//! ```
//! A crash at any line leaves: before the write, nothing; after the write, a torn or whole group that
//! nobody was told of; after the sync, a group that counts; before the rename, a draft that the next
//! start removes; after it, a segment whose first group is whole. A failed write or sync ends the
//! writing for ever: what is on disk is not known any more, and only a restart reads it again.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::env::{Env, Sectors, Step, Worker, WorkerHandle};
use crate::failpoint::{Point, hit};
use crate::types::{RaftIndex, Term};

use super::format::{self, Chain, HEADER_BYTES, Header, Kind};
use super::handle::Shared;
use super::keeper::{Chores, RETRY};
use super::log::{Change, Done, Queued, Work};
use super::places::Place;
use super::segment::{Active, FIRST_BYTES, Segment, Spare, fitting_bytes, name, open_direct};
use super::types::{EntryId, Fatal, GroupStats, WalOptions};
use bytes::Bytes;

const NO_ID: EntryId = EntryId { term: Term(0), index: RaftIndex(0), node: None };

pub(super) struct Writer {
    pub(super) env: Env,
    pub(super) dir: PathBuf,
    pub(super) options: WalOptions,
    pub(super) shared: Arc<Shared>,
    pub(super) chores: Arc<Chores>,
    pub(super) keeper: Arc<dyn WorkerHandle>,
    pub(super) active: Option<Active>,
    /// What a new segment's head restates.
    pub(super) head: Restated,
    /// The commit that is known but not yet in a group.
    pub(super) new_committed: Option<EntryId>,
    /// A mark is due: after a start and before an end.
    pub(super) needs_mark: bool,
    pub(super) has_closed: bool,
    /// The segment whose file the keeper was asked for last.
    pub(super) wanted_spare: u64,
    pub(super) pending: VecDeque<Queued>,
    pub(super) group: Group,
}

/// The state that every segment starts with.
#[derive(Debug, Default)]
pub(super) struct Restated {
    pub(super) vote: Option<Bytes>,
    pub(super) purged: Option<EntryId>,
    pub(super) committed: Option<EntryId>,
}

/// What is being written.
#[derive(Default)]
pub(super) struct Group {
    bytes: Vec<u8>,
    changes: Vec<Change>,
    done: Vec<Done>,
    durable_op: u64,
    records: usize,
    is_written: bool,
    write_time: Duration,
}

/// Why a group can't go on.
enum Stop {
    /// No room for another segment; nothing was written, so it can be tried again.
    Full,
    Fatal(Fatal),
}

impl Worker for Writer {
    fn step(&mut self) -> Step {
        let result = if self.group.is_written { self.sync() } else { self.write() };
        match result {
            Ok(step) => step,
            Err(Stop::Full) if !self.shared.log.lock().is_closing => {
                self.chores.set_space_low(true);
                Step::IdleFor(RETRY)
            }
            Err(Stop::Full) => {
                let full = io::Error::from(io::ErrorKind::StorageFull);
                self.fail(Fatal::new("make a segment in", &self.dir, 0, &full))
            }
            Err(Stop::Fatal(fatal)) => self.fail(fatal),
        }
    }

    fn abandon(&mut self, why: &str) {
        self.fail(Fatal::panicked("write to", &self.dir, why));
    }
}

impl Writer {
    fn write(&mut self) -> Result<Step, Stop> {
        {
            let mut log = self.shared.log.lock();
            if self.pending.is_empty() {
                log.take_queue(&mut self.pending);
            }
            self.new_committed = log.committed.filter(|_| log.committed != self.head.committed);
            log.is_idle = false;
            if self.pending.is_empty() && !self.needs_mark {
                if !log.is_closing {
                    log.is_idle = true;
                    return Ok(Step::Idle);
                }
                if self.has_closed || self.active.is_none() {
                    return Ok(Step::Stopped);
                }
                self.has_closed = true;
                self.needs_mark = true;
            }
        }
        self.fill()?;
        self.finish_group();
        let Some(active) = self.active.as_mut().filter(|_| !self.group.bytes.is_empty()) else {
            self.publish();
            return Ok(Step::Worked);
        };
        hit(Point::RaftBeforeSave);
        let started = self.env.clock.now();
        let offset = u64::from(active.offset);
        active
            .write(&self.group.bytes)
            .map_err(|error| Stop::Fatal(Fatal::new("write to", &active.path, offset, &error)))?;
        self.group.write_time = self.since(started);
        self.group.is_written = true;
        Ok(Step::Wrote)
    }

    fn since(&self, started: Instant) -> Duration {
        self.env.clock.now().saturating_duration_since(started)
    }

    fn sync(&mut self) -> Result<Step, Stop> {
        let started = self.env.clock.now();
        if let Some(active) = &self.active {
            let offset = active.offset.into();
            let fatal = |action| {
                let path = &active.path;
                move |error: io::Error| Stop::Fatal(Fatal::new(action, path, offset, &error))
            };
            hit(Point::WalBeforeSync);
            active.file.sync_data().map_err(fatal("fsync"))?;
            hit(Point::WalAfterSync);
            if let Some(draft) = &active.draft {
                self.env.disk.rename(draft, &active.path).map_err(fatal("rename a new segment to"))?;
                self.env.disk.sync_dir(&self.dir).map_err(fatal("fsync the directory of"))?;
            }
        }
        if let Some(observer) = &self.options.observer {
            observer.group_synced(GroupStats {
                records: self.group.records,
                bytes: self.group.bytes.len(),
                write: self.group.write_time,
                sync: self.since(started),
            });
        }
        hit(Point::RaftAfterSave);
        self.publish();
        Ok(Step::Worked)
    }

    /// Encodes pending work until the group is full, making a new segment first if the work needs it.
    fn fill(&mut self) -> Result<(), Stop> {
        while let Some(queued) = self.pending.front() {
            let (id, payload_len) = match &queued.work {
                Work::Append(entries) => match entries.as_slice().first() {
                    Some(entry) => (entry.id, entry.payload.len()),
                    None => {
                        self.complete_front();
                        continue;
                    }
                },
                Work::Vote(vote) => (NO_ID, vote.len()),
                Work::Truncate(_) => (NO_ID, 0),
                Work::Purge(id) => (*id, 0),
                Work::Nothing => {
                    self.complete_front();
                    continue;
                }
            };
            let needed = format::encoded_len(&id, payload_len);
            if self.group.bytes.len() >= self.options.group_bytes_max {
                return Ok(());
            }
            if !self.has_room(needed) {
                if !self.group.bytes.is_empty() {
                    return Ok(());
                }
                self.rotate(needed)?;
            }
            self.encode_front();
        }
        Ok(())
    }

    fn has_room(&self, needed: usize) -> bool {
        self.active
            .as_ref()
            .is_some_and(|active| active.offset as usize + self.group.bytes.len() + needed <= active.capacity as usize)
    }

    /// Takes the first pending work's callback into the group.
    fn complete_front(&mut self) {
        if let Some(queued) = self.pending.pop_front() {
            self.group.done.push(queued.done);
            self.group.durable_op = queued.op;
        }
    }

    /// Encodes the first record of the first pending work.
    fn encode_front(&mut self) {
        let Some(queued) = self.pending.front_mut() else { return };
        match &mut queued.work {
            Work::Append(entries) => {
                let Some(entry) = entries.next() else { return };
                let place =
                    record(&mut self.active, &mut self.group, Kind::Entry, entry.kind, &entry.id, &entry.payload);
                self.group.changes.extend(place.map(|place| Change::Push(entry.id.index.get(), place)));
                if !entries.as_slice().is_empty() {
                    return;
                }
            }
            Work::Vote(vote) => {
                record(&mut self.active, &mut self.group, Kind::Vote, 0, &NO_ID, vote);
                self.head.vote = Some(vote.clone());
            }
            Work::Truncate(from) => {
                let id = EntryId { index: RaftIndex(*from), ..NO_ID };
                record(&mut self.active, &mut self.group, Kind::Truncate, 0, &id, &[]);
                self.group.changes.push(Change::Truncate(*from));
            }
            Work::Purge(id) => {
                record(&mut self.active, &mut self.group, Kind::Purge, 0, id, &[]);
                self.group.changes.push(Change::Purge(id.index.get()));
                self.head.purged = Some(*id);
            }
            Work::Nothing => {}
        }
        self.complete_front();
    }

    /// Adds what rides along: the newest commit, and the mark. Neither is worth a new segment.
    fn finish_group(&mut self) {
        if let Some(committed) = self.new_committed.take()
            && (!self.group.bytes.is_empty() || self.needs_mark)
            && self.has_room(format::encoded_len(&committed, 0))
        {
            record(&mut self.active, &mut self.group, Kind::Committed, 0, &committed, &[]);
            self.head.committed = Some(committed);
        }
        if std::mem::take(&mut self.needs_mark) && self.has_room(format::encoded_len(&NO_ID, 0)) {
            record(&mut self.active, &mut self.group, Kind::Mark, 0, &NO_ID, &[]);
        }
        if let Some(active) = self.active.as_ref().filter(|active| active.offset == 0)
            && !self.group.bytes.is_empty()
        {
            let head_end = u32::try_from(self.group.bytes.len()).unwrap_or(active.capacity);
            Header::finish(&mut self.group.bytes[..HEADER_BYTES], head_end);
        }
    }

    /// Starts a segment that has room for a record of `needed` bytes after its head.
    fn rotate(&mut self, needed: usize) -> Result<(), Stop> {
        let restated = [
            (Kind::Vote, self.head.vote.as_ref().map(|_| NO_ID), self.head.vote.clone().unwrap_or_default()),
            (Kind::Purge, self.head.purged, Bytes::new()),
            (Kind::Committed, self.head.committed, Bytes::new()),
        ];
        let head_bytes: usize =
            restated.iter().filter_map(|(_, id, payload)| id.map(|id| format::encoded_len(&id, payload.len()))).sum();
        let least = u32::try_from(HEADER_BYTES + head_bytes + needed)
            .map_err(|_| Stop::Fatal(self.fatal_in_dir("make a segment in", &io::ErrorKind::FileTooLarge.into())))?;
        let (previous_crc, previous_end, sequence) =
            self.active.as_ref().map_or((0, 0, 1), |old| (old.chain.previous, old.offset, old.sequence + 1));
        let spare = self.take_spare(least, sequence)?;
        let first_index = self.shared.log.lock().next_index_on_disk(self.head.purged);
        let salt = self.env.rng.next_u64();
        let is_recycled = spare.is_recycled;
        let direct = spare.direct.or_else(|| open_direct(&*self.env.disk, &spare.path, &self.options));
        let header = Header { sequence, first_index, previous_crc, previous_end, salt, is_recycled, head_end: 0 };
        let header = header.encode();
        let seed = Header::seed(&header);
        self.group.bytes.extend_from_slice(&header);
        self.active = Some(Active {
            file: spare.file,
            path: self.dir.join(name(sequence)),
            draft: Some(spare.path),
            sequence,
            chain: Chain { seed, previous: seed },
            offset: 0,
            capacity: spare.capacity,
            sectors: direct.map(Sectors::new),
        });
        for (kind, id, payload) in restated {
            if let Some(id) = id {
                record(&mut self.active, &mut self.group, kind, 0, &id, &payload);
            }
        }
        Ok(())
    }

    /// The keeper's spare; if it has none, one made here, and zeroed only if that is quickly done.
    fn take_spare(&self, least: u32, sequence: u64) -> Result<Spare, Stop> {
        if let Some(spare) = self.chores.take_spare(least) {
            return Ok(spare);
        }
        let wanted = fitting_bytes(&*self.env.disk, &self.dir, sequence, &self.options);
        let least = least.max(WalOptions::SEGMENT_BYTES_MIN.min(wanted));
        let make = || {
            let path = self.dir.join(self.chores.draft_name());
            let mut spare = Spare::make(&*self.env.disk, &path, wanted, least, &self.options)?;
            let mut zeroed = if spare.capacity <= FIRST_BYTES { 0 } else { spare.capacity };
            while zeroed < spare.capacity {
                zeroed = spare.fill(zeroed).inspect_err(|_| self.remove(&spare))?;
            }
            Ok(spare)
        };
        let full = |error: &io::Error| error.kind() == io::ErrorKind::StorageFull;
        let mut made = make();
        if made.as_ref().is_err_and(full) {
            // They are too short for this, and hold the room that it needs.
            self.chores.give_up_spares().iter().for_each(|spare| self.remove(spare));
            made = make();
        }
        made.map_err(|error: io::Error| match error.kind() {
            io::ErrorKind::StorageFull => {
                // A file that the keeper has half made holds room, and it goes on with it only where it is wanted.
                if self.chores.is_half_made() {
                    self.chores.want_spare(sequence);
                    self.keeper.wake();
                }
                Stop::Full
            }
            _ => Stop::Fatal(self.fatal_in_dir("make a segment in", &error)),
        })
    }

    /// One that stays is a draft, which the next start removes.
    fn remove(&self, spare: &Spare) {
        let _ = self.env.disk.remove(&spare.path);
    }

    /// Asks for the next segment's file once this one is half full; a purge may give one until then.
    fn order_spare(&mut self) {
        if let Some(active) = &self.active
            && active.offset >= active.capacity / 2
            && self.wanted_spare <= active.sequence
        {
            self.wanted_spare = active.sequence + 1;
            self.chores.want_spare(self.wanted_spare);
            self.keeper.wake();
        }
    }

    fn fatal_in_dir(&self, action: &'static str, error: &io::Error) -> Fatal {
        Fatal::new(action, &self.dir, 0, error)
    }

    /// Tells the world that the group counts.
    fn publish(&mut self) {
        let group = &mut self.group;
        let mut created = None;
        let mut sequence = 0;
        if let Some(active) = &mut self.active {
            // The group lies within the segment's capacity, a u32.
            active.offset += u32::try_from(group.bytes.len()).unwrap_or(0);
            sequence = active.sequence;
            if active.draft.take().is_some() {
                let segment = Segment { path: active.path.clone(), file: active.file.clone(), seed: active.chain.seed };
                created = Some((sequence, segment));
            }
        }
        let unused = self.shared.log.lock().publish(&group.changes, group.durable_op, created, sequence);
        group.changes.clear();
        group.bytes.clear();
        group.bytes.shrink_to(self.options.group_bytes_max.saturating_mul(2));
        group.records = 0;
        group.is_written = false;
        for done in group.done.drain(..) {
            done(Ok(()));
        }
        if !unused.is_empty() {
            self.chores.discard(unused);
            self.keeper.wake();
        }
        self.order_spare();
    }

    fn fail(&mut self, fatal: Fatal) -> Step {
        tracing::error!(error = %fatal, "the raft log has failed");
        let fatal = Arc::new(fatal);
        let queue = self.shared.log.lock().fail(fatal.clone());
        self.shared.fatal.send_replace(Some(fatal.clone()));
        let pending = std::mem::take(&mut self.pending);
        let waiting = pending.into_iter().chain(queue).map(|queued| queued.done);
        for done in self.group.done.drain(..).chain(waiting) {
            done(Err((*fatal).clone().into()));
        }
        Step::Stopped
    }
}

/// Encodes one record into the group and gives its place.
fn record(
    active: &mut Option<Active>,
    group: &mut Group,
    kind: Kind,
    tag: u8,
    id: &EntryId,
    payload: &[u8],
) -> Option<Place> {
    let active = active.as_mut()?;
    let before = group.bytes.len();
    format::encode(&mut group.bytes, &mut active.chain, active.offset, kind, tag, id, payload);
    group.records += 1;
    let offset = active.offset + u32::try_from(before).ok()?;
    Some(Place { segment: active.sequence, offset, len: u32::try_from(group.bytes.len() - before).ok()? })
}
