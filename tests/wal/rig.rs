//! A log on a disk in memory, with threads that move by hand.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rusd::env::{CrashStyle, Disk, Env, ManualClock, ManualSpawn, MemDisk, SeededRng, Step};
use rusd::types::{MemberId, RaftIndex, Term};
use rusd::wal::{EntryId, Recovered, Wal, WalEntry, WalError, WalOptions};

pub(crate) const DIR: &str = "/member/wal";

pub(crate) fn id(term: u64, index: u64) -> EntryId {
    EntryId { term: Term(term), index: RaftIndex(index), node: (term % 2 == 1).then_some(MemberId(term)) }
}

pub(crate) fn entry(term: u64, index: u64, len: usize) -> WalEntry {
    let kind = u8::try_from(index % 251).unwrap();
    let payload: Vec<u8> = (0..len).map(|at| u8::try_from((at as u64 * 7 + index + term) % 256).unwrap()).collect();
    WalEntry { id: id(term, index), kind, payload: Bytes::from(payload) }
}

pub(crate) fn small() -> WalOptions {
    WalOptions {
        segment_bytes: 1024,
        group_bytes_max: 300,
        cache_bytes: 400,
        direct_io: true,
        owner: None,
        observer: None,
    }
}

/// The state of a log as a reader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) vote: Option<Bytes>,
    pub(crate) purged: Option<EntryId>,
    pub(crate) entries: Vec<WalEntry>,
}

impl View {
    pub(crate) fn of(wal: &Wal) -> Self {
        let entries = wal.read(RaftIndex(0)..RaftIndex(u64::MAX), usize::MAX).unwrap();
        let view = Self { vote: wal.vote(), purged: wal.purged(), entries };
        assert_eq!(wal.last(), view.last());
        for entry in &view.entries {
            assert_eq!(wal.id_at(entry.id.index), Some(entry.id));
        }
        view
    }

    pub(crate) fn last(&self) -> Option<EntryId> {
        self.entries.last().map(|entry| entry.id).or(self.purged)
    }

    pub(crate) fn next_index(&self) -> u64 {
        self.last().map_or(0, |last| last.index.get() + 1)
    }

    pub(crate) fn truncate_after(&mut self, keep: Option<u64>) {
        self.entries.retain(|entry| keep.is_some_and(|keep| entry.id.index.get() <= keep));
    }

    pub(crate) fn purge_to(&mut self, id: EntryId) {
        if self.purged.is_none_or(|purged| purged.index < id.index) {
            self.entries.retain(|entry| entry.id.index > id.index);
            self.purged = Some(id);
        }
    }
}

/// Results of callbacks, in their order: `true` for `Ok`.
pub(crate) type Results = Arc<Mutex<Vec<(usize, bool)>>>;

pub(crate) fn note(results: &Results, op: usize) -> impl FnOnce(std::io::Result<()>) + Send + 'static {
    let results = results.clone();
    move |result| results.lock().push((op, result.is_ok()))
}

pub(crate) struct Rig {
    pub(crate) disk: MemDisk,
    pub(crate) spawn: ManualSpawn,
    pub(crate) options: WalOptions,
    boots: u64,
}

impl Rig {
    pub(crate) fn new(options: WalOptions) -> Self {
        Self::on(MemDisk::new(), options)
    }

    pub(crate) fn on(disk: MemDisk, options: WalOptions) -> Self {
        Self { disk, spawn: ManualSpawn::default(), options, boots: 0 }
    }

    pub(crate) fn open(&mut self) -> Result<(Wal, Recovered), WalError> {
        self.boots += 1;
        let env = Env {
            disk: Arc::new(self.disk.clone()),
            clock: Arc::new(ManualClock::new()),
            rng: Arc::new(SeededRng::new(self.boots)),
            spawn: Arc::new(self.spawn.clone()),
        };
        Wal::open(env, Path::new(DIR), self.options.clone())
    }

    pub(crate) fn step(&self) -> Option<Step> {
        self.spawn.step(Wal::WRITER)
    }

    pub(crate) fn run(&self) {
        self.spawn.run(Wal::WRITER);
        self.spawn.run(Wal::KEEPER);
        self.spawn.run(Wal::WRITER);
    }

    /// Ends the log without a word.
    pub(crate) fn crash(&self, wal: Wal, style: CrashStyle<'_>) {
        drop(wal);
        self.spawn.clear();
        self.disk.crash(style);
    }

    /// Ends it as a clean stop does.
    pub(crate) fn close(&self, wal: Wal) {
        wal.close();
        self.run();
        drop(wal);
        self.spawn.clear();
    }

    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let names = self.disk.list(Path::new(DIR)).unwrap();
        names
            .into_iter()
            .map(|name| Path::new(DIR).join(name))
            .filter(|path| path.extension().is_some_and(|ending| ending == "wal"))
            .collect()
    }
}
