//! What the store thread works on, behind one lock: the home, the work that was taken, the content.
//!
//! The lock is the store thread's; the writer takes it only to put a snapshot in place of
//! everything.

use std::collections::HashSet;
use std::iter::successors;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::commit::Content;
use super::doomed::Doomed;
use super::freeze::Frozen;
use super::load::finish_removals;
use super::queue::{Part, Work};
use super::segment::SHIFT;
use super::shared::{Health, Shared};
use super::state::{REMOVING_KEY, STATE_KEY, State, Totals};
use crate::storage::backend::{Backend, BackendConfig, Home, Remains, Table};
use crate::types::{Revision, StorageError};

/// The most bytes of records in a step, so that a batch's copies are small.
const STEP_BYTES: u64 = 8 << 20;
/// The most segments that removals of one step rewrite, and bytes of them if they are more than one.
const REMOVE_SEGMENTS_MAX: usize = 512;
const REWRITTEN_MAX: u64 = 256 << 20;
/// About the most bytes of records that a step removes, and how many records it may remove however large they are.
const REMOVE_BYTES: u64 = 64 << 20;
const REMOVE_LEAST: u64 = 64;
/// How many steps an end may take that only remove.
const LAST_TRIES_MAX: u32 = 16;
/// Removals of a step, segments that they rewrite, and bytes of those, where hardly anything may be written.
const REMOVE_FEW: (usize, u64, u64) = (1024, 16, 8 << 20);

/// Moves of a process (see [`Home::move_house`]) after which what waits to be written is tried again at once.
const MOVES_FREE: u64 = 2;
/// How long it waits after the next move; four times as long after each one more, up to the second of these. Each move takes
/// memory and files, and nothing says that a disk that took half of a flush will soon take all of it. What is applied
/// meanwhile has to stay in memory, so a longer rest would hold up a leader's writes when the disk has long had room again.
const REST: [Duration; 2] = [Duration::from_secs(8), Duration::from_secs(32)];

/// Who has the engine's files.
#[derive(Debug)]
enum Files {
    /// The engine that is in use, or was until it failed.
    InUse,
    /// One that failed, and isn't let go yet.
    LeftBy(Arc<dyn Backend>),
    /// Nobody.
    Free,
}

/// How a step ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stepped {
    /// What was due is durable.
    Done,
    /// The engine is there, but nothing is written yet.
    Resting,
}

#[derive(Debug)]
pub(super) struct Core {
    pub(super) home: Home,
    pub(super) content: Content,
    /// What was taken and isn't durable.
    pub(super) work: Work,
    /// Removals whose compaction point is durable.
    remove: Doomed,
    /// Who is to be told when there are none left.
    removed: Vec<(watch::Sender<i64>, i64)>,
    /// The engine failed and may hold a part of the work: it must be opened again first.
    pub(super) reopen: bool,
    files: Files,
    /// Nothing is written before.
    rest_until: Option<Instant>,
    /// Removals that an engine that failed may have left half done are to be done again before the row that names them is
    /// written anew: what it named would stay for ever. Not at the opening, which is to need no room.
    finish_removals: bool,
    /// What waits was put off for want of room in the last step, which only removed.
    put_off: bool,
    /// Steps of the end that only removed.
    last_tries: u32,
}

impl Core {
    pub(super) fn new(home: Home, content: Content) -> Self {
        Self {
            home,
            content,
            work: Work::default(),
            remove: Doomed::default(),
            removed: Vec::new(),
            reopen: false,
            files: Files::InUse,
            rest_until: None,
            finish_removals: false,
            put_off: false,
            last_tries: 0,
        }
    }

    /// Whether there is nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        self.work.is_empty() && self.remove.is_empty() && !self.reopen
    }

    /// Whether removals are left whose turn has come.
    pub(super) fn is_removing(&self) -> bool {
        !self.remove.is_empty()
    }

    /// Whether removals were taken, whether or not their turn has come.
    pub(super) fn has_removals(&self) -> bool {
        self.is_removing() || !self.work.remove.is_empty()
    }

    /// Whether a step right after this one makes sense: more appends wait than one step takes.
    pub(super) fn is_behind(&self) -> bool {
        !self.work.parts.is_empty()
    }

    /// Whether what waits was put off for want of room, so that hurrying is in vain.
    pub(super) fn is_put_off(&self) -> bool {
        self.put_off && self.is_behind()
    }

    /// Commits a step's worth of what there is.
    pub(super) fn step(&mut self, shared: &Shared, remove_step: usize) -> Result<Stepped, StorageError> {
        if self.reopen {
            self.open_again(shared)?;
        }
        if self.rest_until.is_some_and(|until| !self.work.last && shared.now() < until) {
            return Ok(Stepped::Resting);
        }
        let engine = shared.engine();
        self.freeze(&*engine)?;
        let stop = self.work.freezes.front().map(|(target, _)| *target);
        let (mut parts, mut bytes) = (0, 0);
        for part in &self.work.parts {
            let beyond = stop.is_some_and(|stop| part.position > stop);
            if beyond || (parts > 0 && bytes + part.bytes > STEP_BYTES) {
                break;
            }
            (parts, bytes) = (parts + 1, bytes + part.bytes);
        }
        if parts > 1 && engine.room(bytes).is_err() {
            // There may be room for it part by part, and removals wait behind it.
            (parts, bytes) = (1, self.work.parts.front().map_or(0, |part| part.bytes));
        }
        // One alone can't be made smaller, and may be the deletion of a million keys: a flush writes keys twice, and what it
        // writes besides is no multiple of them.
        let asked = if parts == 1 { (bytes * 2).div_ceil(BackendConfig::WRITTEN_FOR_ONE) } else { bytes };
        let refused = if parts > 0 { engine.room(asked.max(1)).err() } else { None };
        if refused.is_some() {
            // Removals may make the room.
            (parts, bytes) = (0, 0);
        }
        self.put_off = refused.is_some();
        let held = shared.holds.load(Ordering::SeqCst) > 0;
        let (remove, segments) = if held || !self.has_removals() {
            (Vec::new(), 0)
        } else {
            let has_room = |bytes| engine.room(bytes).is_ok();
            self.due_removals(shared, bounds(self.content.state.records, bytes, remove_step, has_room))
        };
        if let Some(error) = refused
            && (remove.is_empty() || self.is_last_try())
        {
            return Err(error);
        }
        if parts == 0 && remove.is_empty() {
            self.notify(shared);
            return Ok(Stepped::Done);
        }
        engine.room(0)?;
        // Until this is through, the engine may hold a part of it.
        self.reopen = true;
        if self.finish_removals {
            finish_removals(&*engine, |what| shared.damaged(what))?;
            self.finish_removals = false;
        }
        let before = self.content.state;
        let after = self.content.advance(shared, &*engine, self.work.parts.range(..parts), &remove)?;
        if after.state.position != before.position {
            self.home.testify(after.state.position)?;
        }
        self.content = after;
        self.reopen = false;
        self.finish(shared, parts, before);
        self.home.keep_ballast();
        self.let_go(shared, &remove, segments);
        self.notify(shared);
        self.freeze(&*engine)?;
        Ok(Stepped::Done)
    }

    /// Whether an end has removed as often as it may to make room; the log has what is put off.
    fn is_last_try(&mut self) -> bool {
        self.last_tries += u32::from(self.work.last);
        self.last_tries > LAST_TRIES_MAX
    }

    /// Gives the small tables to those who want them as of the position that is reached.
    fn freeze(&mut self, engine: &dyn Backend) -> Result<(), StorageError> {
        while self.work.freezes.front().is_some_and(|(target, _)| *target <= self.content.state.position) {
            // It flushes: an engine that failed by that, for want of room as well, is to be opened again.
            let frozen = Frozen::read(engine, &self.content.state).inspect_err(|_| self.reopen = true)?;
            if let Some((_, asked)) = self.work.freezes.pop_front() {
                let _ = asked.send(Ok(frozen));
            }
        }
        Ok(())
    }

    /// Refuses all freezes for want of room: whoever asked holds removals off meanwhile, and those are
    /// what makes room.
    pub(super) fn refuse_freezes(&mut self, path: &Path) {
        for (_, asked) in self.work.freezes.drain(..) {
            let _ = asked.send(Err(StorageError::Full { path: path.to_owned() }));
        }
    }

    /// Takes in removals whose turn has come; gives the lowest of all, about so many of whole segments, of so many at most, and
    /// of how many they are.
    fn due_removals(&mut self, shared: &Shared, (count, segments_max): (usize, usize)) -> (Vec<Revision>, usize) {
        while let Some(next) = self.work.remove.front()
            && next.after <= self.content.state.position
            && let Some(next) = self.work.remove.pop_front()
        {
            let known = self.remove.merge(next.revisions);
            shared.removals.fetch_sub(known, Ordering::Relaxed);
            self.removed.extend(next.done);
        }
        self.remove.lowest(count, segments_max)
    }

    /// Publishes a finished step and lets go of what it was made from.
    fn finish(&mut self, shared: &Shared, parts: usize, before: State) {
        shared.listed.outdate();
        let mut appended = 0;
        let parts: Vec<Part> = self.work.parts.drain(..parts).collect();
        let superseded: HashSet<Revision> = parts.iter().flat_map(|part| &part.superseded).copied().collect();
        for part in &parts {
            if let Some((first, last)) = part.mains {
                appended += keep_hot(shared, first, last, &superseded);
                shared.pending.retire(last, part.bytes);
            }
        }
        // Only now, so that watchers that want the previous pair of a fresh event found it here.
        for at in &superseded {
            shared.hot.remove(*at);
        }
        let removed = before.records.bytes.wrapping_add(appended).wrapping_sub(self.content.state.records.bytes);
        shared.logical_bytes.fetch_sub(removed, Ordering::Relaxed);
        shared.queue.signal_room();
        // Before anyone is told that it is durable: they may look at the health next.
        shared.health.send_if_modified(|health| {
            // A failure that someone else met meanwhile is final.
            let waited = matches!(health, Health::Waiting(_)) && !self.put_off;
            if waited {
                *health = Health::Good;
            }
            waited
        });
    }

    /// Forgets what is removed for good, which was so many segments' of what is to be removed.
    fn let_go(&mut self, shared: &Shared, removed: &[Revision], segments: usize) {
        self.remove.drop_lowest(segments);
        for at in removed {
            shared.hot.remove(*at);
        }
        shared.removals.fetch_sub(removed.len(), Ordering::Relaxed);
    }

    fn notify(&mut self, shared: &Shared) {
        let position = self.content.state.position;
        shared.durable.send_if_modified(|durable| std::mem::replace(durable, position) != position);
        for (_, waiter) in self.work.waiters.extract_if(.., |(target, _)| *target <= position) {
            let _ = waiter.send(position);
        }
        if self.remove.is_empty() {
            for (to, reached) in self.removed.drain(..) {
                to.send_if_modified(|to| std::mem::replace(to, reached.max(*to)) < reached);
            }
        }
    }

    /// Takes the engine up again after a failure: it must hold what the last flush left, or what
    /// was written after it as a whole.
    fn open_again(&mut self, shared: &Shared) -> Result<(), StorageError> {
        let _opening = shared.opening();
        if matches!(self.files, Files::InUse) {
            self.files = Files::LeftBy(shared.engine());
        }
        self.get_files_back(shared)?;
        // Whether it is damaged a start finds out in the same way, with nothing else that could have hindered this.
        let engine = self.home.engine().map_err(StorageError::undecided)?;
        let content = match self.examine(shared, &*engine) {
            Ok(content) => content,
            Err(error) => {
                self.files = Files::LeftBy(engine);
                return Err(error);
            }
        };
        let found = content.state.position;
        self.finish_removals = content.removing;
        shared.replace_engine(engine);
        self.files = Files::InUse;
        self.reopen = false;
        // What turned out to be written already is not written again.
        let parts = self.work.parts.iter().take_while(|part| part.position <= found).count();
        self.home.testify(found)?;
        let before = std::mem::replace(&mut self.content, content).state;
        self.finish(shared, parts, before);
        self.notify(shared);
        Ok(())
    }

    /// Sees to it that the files of an engine that failed can be opened, where they are or elsewhere.
    fn get_files_back(&mut self, shared: &Shared) -> Result<(), StorageError> {
        let Files::LeftBy(failed) = &self.files else { return Ok(()) };
        match failed.abandon() {
            Remains::Nothing => {}
            Remains::Lock => {
                self.home.move_house()?;
                self.rest_until = rest(self.home.moves()).map(|rest| shared.now() + rest);
            }
            Remains::Writer => {
                let message = "what failed has not come to its end and can't be opened again yet".to_owned();
                return Err(StorageError::Engine { engine: failed.name(), message });
            }
        }
        self.files = Files::Free;
        Ok(())
    }

    /// Whether what failed keeps the files from this process, and would not from another one; `last` is the last failure.
    pub(super) fn is_stuck(&self, last: &StorageError) -> bool {
        match &self.files {
            Files::InUse => false,
            Files::LeftBy(failed) => failed.abandon() != Remains::Nothing,
            // A lock that an end kept which came too late to be noted, or too many open files: those go with the process.
            Files::Free => matches!(last, StorageError::Io { .. }),
        }
    }

    /// What an engine holds that was just opened in place of one that failed.
    fn examine(&self, shared: &Shared, engine: &dyn Backend) -> Result<Content, StorageError> {
        let content = read_content(shared, engine)?;
        let (known, found) = (self.content.state.position, content.state.position);
        let last = self.work.parts.back().map_or(known, |part| part.position);
        if found < known || found > last {
            return Err(shared.damaged("an engine that failed came back with another state"));
        }
        Ok(content)
    }
}

/// About how many records a step may remove, and of how many segments at most. Their leaves are written anew before what was
/// there is free, and stay in memory for a while: taken to be all of these segments, with values as large as all are in the mean.
fn bounds(records: Totals, parts: u64, count: usize, has_room: impl Fn(u64) -> bool) -> (usize, usize) {
    let mean = records.bytes.checked_div(records.count).unwrap_or(0).max(1);
    let segment = mean.saturating_mul(1 << SHIFT);
    let most = (REMOVE_BYTES / mean).max(REMOVE_LEAST);
    let fits = |segments: &usize| {
        let rewritten = segment.saturating_mul(*segments as u64).min(records.bytes);
        (*segments == 1 || rewritten <= REWRITTEN_MAX)
            && has_room(parts.saturating_add(rewritten / BackendConfig::WRITTEN_FOR_ONE))
    };
    let halves = successors(Some(REMOVE_SEGMENTS_MAX), |segments| (*segments > 1).then_some(segments / 2));
    let (most, segments) = match halves.into_iter().find(fits) {
        Some(segments) => (most, segments),
        None => {
            let (few, segments, bytes) = REMOVE_FEW;
            (most.min(few as u64), (bytes / segment).clamp(1, segments) as usize)
        }
    };
    (count.min(usize::try_from(most).unwrap_or(usize::MAX)), segments)
}

/// How long nothing is written after so many moves.
fn rest(moves: u64) -> Option<Duration> {
    let more = u32::try_from(moves.checked_sub(MOVES_FREE + 1)?).unwrap_or(u32::MAX);
    Some(REST[0].saturating_mul(4u32.saturating_pow(more)).min(REST[1]))
}

/// The engine's own account of itself.
pub(super) fn read_content(shared: &Shared, engine: &dyn Backend) -> Result<Content, StorageError> {
    let stored = engine.get(Table::Meta, STATE_KEY)?;
    let state = stored.map_or(Ok(State::default()), |bytes| State::decode(&bytes));
    let state = state.map_err(|error| shared.undecodable("the state row", error))?;
    let removing = engine.get(Table::Meta, REMOVING_KEY)?.is_some();
    Ok(Content { state, removing, flush_took: Duration::ZERO })
}

/// Copies records that are durable now, but for the `superseded`, to the hot cache; returns the
/// logical bytes of all of them.
fn keep_hot(shared: &Shared, first: i64, last: i64, superseded: &HashSet<Revision>) -> u64 {
    let mut bytes = 0;
    let epoch = shared.hot.epoch();
    let view = shared.pending.view();
    // The same records were written a moment ago: there is no hole.
    for (at, record) in view.range(Revision::new(first, 0), Revision::new(last.saturating_add(1), 0), &mut None) {
        bytes += super::record_bytes(record);
        if record.version.is_some() && !superseded.contains(&at) {
            shared.hot.insert(epoch, at, record);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    // Cause: removals were bounded by their number. Symptom: with large values they filled a disk that had room, and memory.
    #[test]
    fn removals_are_bounded_by_what_they_write_anew() {
        let records = |count, mean: u64| Totals { count, bytes: count * mean, sum: 0 };
        let free = |mib: u64| move |bytes: u64| bytes * BackendConfig::WRITTEN_FOR_ONE <= mib << 20;
        assert_eq!(bounds(records(1 << 20, 300), 0, 50_000, free(100)), (50_000, 512));
        assert_eq!(bounds(records(1 << 20, 4096), 0, 50_000, free(300)), (16_384, 512));
        assert_eq!(bounds(records(1 << 20, 4096), 0, 50_000, free(100)), (16_384, 128));
        assert_eq!(bounds(records(1 << 20, 4096), 20 << 20, 50_000, free(100)), (16_384, 64), "parts come on top");
        assert_eq!(bounds(records(1000, 4096), 0, 50_000, free(5)), (16_384, 512), "no more than there is");
        assert_eq!(bounds(records(1 << 20, 16 << 10), 0, 50_000, free(10_000)), (4096, 128), "nor for long at a time");
        assert_eq!(bounds(records(9000, 1 << 20), 0, 50_000, free(10_000)), (64, 2));
        let none = |_| false;
        assert_eq!(bounds(records(1 << 20, 300), 0, 50_000, none), (1024, 16));
        assert_eq!(bounds(records(1 << 20, 8192), 0, 50_000, none), (1024, 8));
        assert_eq!(bounds(records(9000, 1 << 20), 0, 7, none), (7, 1));
        assert_eq!(bounds(records(0, 0), 0, 50_000, none), (1024, 16));
        assert_eq!(bounds(records(2, u64::MAX / 2), u64::MAX, 50_000, none), (64, 1));
    }

    #[test]
    fn the_more_often_it_moved_the_longer_it_rests() {
        let secs: Vec<_> = (1..9).map(|moves| rest(moves).map_or(0, |rest| rest.as_secs())).collect();
        assert_eq!(secs, [0, 0, 8, 32, 32, 32, 32, 32]);
        assert_eq!(rest(u64::MAX), Some(REST[1]));
    }
}
