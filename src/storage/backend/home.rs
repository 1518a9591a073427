//! `Home`: the directory that an engine's files live in, and which of several is the current one.
//!
//! ```text
//! home/CURRENT         engine's name and generation; replaced in one step when a snapshot is installed
//! home/engine-N/       the engine's own files; N grows with each snapshot, and with each move ([`moving`])
//! home/DAMAGED         damage was met here while running: not to be opened again
//! home/ballast         room that an opening on a full disk may have
//! home/witness-N       the position of the last finished flush, beside the engine (see below)
//! ```
//!
//! The witness is what the engine itself can't say: that it once held more than it holds now. An
//! engine that lost the end of its log, or came back empty, is older than its witness: damaged.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::ballast::{BALLAST, Ballast};
use super::{Backend, BackendConfig, Engine};
use crate::env::{Access, DiskFile, Env, make_dir_durably, read_all, write_atomic};
use crate::storage::AppliedPosition;
use crate::types::{RaftIndex, StorageError, Term};

mod moving;

const CURRENT: &str = "CURRENT";
const MARK: &str = "DAMAGED";
const MARK_BYTES_MAX: usize = 4096;
const CURRENT_BYTES_MAX: usize = 256;
/// Two slots, written in turn, so that a torn write leaves the other.
const SLOT_BYTES: usize = 512;

/// A home with its current generation.
#[derive(Debug)]
pub struct Home {
    env: Env,
    config: BackendConfig,
    generation: u64,
    witness: Option<Witness>,
    /// None where nothing lies on a disk.
    ballast: Option<Arc<Ballast>>,
    used: Arc<Used>,
    /// Where the engine's files are linked already while CURRENT can't be written.
    prepared: Option<Box<Home>>,
}

/// What the generations of a process share.
#[derive(Debug, Default)]
struct Used {
    /// The last generation that was begun. No number comes twice: what goes on in the directory of one that was given up
    /// meets no other's files.
    generation: AtomicU64,
    moves: AtomicU64,
}

impl Home {
    /// Opens a home, or makes one, and clears away what a crash left of other generations.
    ///
    /// # Errors
    /// [`StorageError::Mismatch`] if it is of another engine, [`StorageError::Damaged`] if it
    /// doesn't say which generation is current.
    pub fn open(env: &Env, config: &BackendConfig) -> Result<Self, StorageError> {
        let mut home = Self {
            env: env.clone(),
            config: config.clone(),
            generation: 1,
            witness: None,
            ballast: None,
            used: Arc::default(),
            prepared: None,
        };
        if !home.on_disk() {
            return Ok(home);
        }
        // Its name lasts before anything in it is said to be durable: who embeds a store forgets its own log then.
        make_dir_durably(&*env.disk, &config.dir).map_err(|error| StorageError::io("make", &config.dir, error))?;
        let names = env.disk.list(&config.dir).map_err(|error| StorageError::io("list", &config.dir, error))?;
        let names: Vec<_> = names.iter().map(|name| name.to_string_lossy()).collect();
        if names.iter().any(|name| name == MARK) {
            let text = read_all(&*env.disk, &config.dir.join(MARK), MARK_BYTES_MAX).unwrap_or_default();
            let what = format!("an earlier run met damage here: {}", String::from_utf8_lossy(&text).trim());
            return Err(home.damaged(MARK, what));
        }
        if names.iter().any(|name| name == CURRENT) {
            home.generation = home.read_current()?;
        } else if names.iter().any(|name| name.starts_with("engine-")) {
            return Err(home.damaged(CURRENT, "it is missing".into()));
        } else {
            home.write_current()?;
        }
        home.used.generation.store(home.generation, Ordering::Relaxed);
        home.remove_others(&names);
        let ballast = Ballast::of(env, config);
        home.witness = Some(ballast.with_room(|| Witness::open(env, home.path("witness")))?);
        home.ballast = Some(Arc::new(ballast));
        Ok(home)
    }

    /// Marks a home in which damage was met, so that [`Home::open`] refuses it.
    ///
    /// # Errors
    /// I/O errors.
    pub fn condemn(env: &Env, config: &BackendConfig, what: &str) -> Result<(), StorageError> {
        if matches!(config.engine, Engine::Memory(_)) {
            return Ok(());
        }
        let path = config.dir.join(MARK);
        let text: String = what.chars().take(MARK_BYTES_MAX / 4).collect();
        write_atomic(&*env.disk, &path, text.as_bytes()).map_err(|error| StorageError::io("write", &path, error))
    }

    /// A new, empty generation beside this one; it takes over by [`Home::take_over`]. One that was begun before and didn't
    /// is removed.
    pub fn next(&self) -> Result<Self, StorageError> {
        let mut next = self.beside();
        if next.on_disk() {
            let dir = &self.config.dir;
            let names = self.env.disk.list(dir).map_err(|error| StorageError::io("list", dir, error))?;
            let names: Vec<_> = names.iter().map(|name| name.to_string_lossy()).collect();
            self.remove_others(&names);
            next.witness = Some(Witness::open(&self.env, next.path("witness"))?);
        } else {
            next.config.engine = Engine::Memory(super::MemoryImage::default());
        }
        Ok(next)
    }

    /// The next generation, of which nothing is on the disk.
    fn beside(&self) -> Self {
        let generation = self.used.generation.fetch_add(1, Ordering::Relaxed) + 1;
        let (env, config) = (self.env.clone(), self.config.clone());
        let (ballast, used) = (self.ballast.clone(), self.used.clone());
        Self { env, config, generation, witness: None, ballast, used, prepared: None }
    }

    /// Removes all generations but this one, and the one that CURRENT may name already.
    fn remove_others(&self, names: &[impl AsRef<str>]) {
        let prepared = self.prepared.as_ref().map(|home| home.generation);
        let kept = [Some(self.generation), prepared].map(|generation| generation.map(|number| number.to_string()));
        for name in names.iter().map(|name| name.as_ref()) {
            let generation = ["engine-", "witness-"].iter().find_map(|prefix| name.strip_prefix(prefix));
            if generation.is_some_and(|generation| kept.iter().flatten().all(|kept| kept != generation)) {
                remove_tree(&self.env, &self.config.dir.join(name));
            }
        }
    }

    /// Makes this generation the current one, durably, in place of `old`.
    pub fn take_over(&mut self, old: &Self) -> Result<(), StorageError> {
        if let (Engine::Memory(mine), Engine::Memory(before)) = (&self.config.engine, &old.config.engine) {
            before.replace(mine);
            self.config.engine = old.config.engine.clone();
            return Ok(());
        }
        self.write_current()
    }

    /// Removes the files of a generation that another one took over from, and those of a move of it that was cut off. Its
    /// engine is closed.
    pub fn remove(self) {
        if self.on_disk() {
            self.clear();
            if let Some(prepared) = &self.prepared {
                prepared.clear();
            }
        }
    }

    /// Opens this generation's engine, on a full disk as well where room was kept for that.
    pub fn engine(&self) -> Result<Arc<dyn Backend>, StorageError> {
        let config = BackendConfig { dir: self.engine_dir(), ..self.config.clone() };
        let open = || super::open(&self.env, &config);
        self.ballast.as_ref().map_or_else(open, |ballast| ballast.with_room(open))
    }

    /// Takes room for the next opening, if there is some and it has none.
    pub fn keep_ballast(&self) {
        if let Some(ballast) = &self.ballast {
            ballast.keep();
        }
    }

    /// Where this generation's engine lies.
    pub fn engine_dir(&self) -> PathBuf {
        self.path("engine")
    }

    /// Remembers that a flush at `position` is finished.
    pub fn testify(&self, position: AppliedPosition) -> Result<(), StorageError> {
        self.witness.as_ref().map_or(Ok(()), |witness| witness.write(position))
    }

    /// Checks that an engine at `position` has not lost what was flushed.
    pub fn cross_examine(&self, position: AppliedPosition) -> Result<(), StorageError> {
        let seen = self.witness.as_ref().map_or(position, Witness::position);
        if position < seen {
            let what = format!("it stands at entry {} and once stood at {}", position.index, seen.index);
            return Err(self.damaged(&format!("engine-{}", self.generation), what));
        }
        Ok(())
    }

    fn on_disk(&self) -> bool {
        !matches!(self.config.engine, Engine::Memory(_))
    }

    fn path(&self, what: &str) -> PathBuf {
        self.config.dir.join(format!("{what}-{}", self.generation))
    }

    fn damaged(&self, name: &str, what: String) -> StorageError {
        StorageError::Damaged { path: self.config.dir.join(name), offset: 0, what }
    }

    fn write_current(&self) -> Result<(), StorageError> {
        let path = self.config.dir.join(CURRENT);
        let body = format!("rusd engine 1\n{} {}\n", self.config.engine.name(), self.generation);
        let text = format!("{body}{:08x}\n", crc32c::crc32c(body.as_bytes()));
        write_atomic(&*self.env.disk, &path, text.as_bytes()).map_err(|error| StorageError::io("write", &path, error))
    }

    fn read_current(&self) -> Result<u64, StorageError> {
        let path = self.config.dir.join(CURRENT);
        let bytes = read_all(&*self.env.disk, &path, CURRENT_BYTES_MAX)
            .map_err(|error| StorageError::io("read", &path, error))?;
        let damaged = || self.damaged(CURRENT, "it is not what was written".into());
        let text = std::str::from_utf8(&bytes).map_err(|_| damaged())?;
        let lines: Vec<&str> = text.split('\n').collect();
        let [format, current, crc, ""] = lines[..] else {
            return Err(damaged());
        };
        if crc != format!("{:08x}", crc32c::crc32c(format!("{format}\n{current}\n").as_bytes())) {
            return Err(damaged());
        }
        let (engine, generation) = current.split_once(' ').ok_or_else(damaged)?;
        if format != "rusd engine 1" {
            return Err(StorageError::Mismatch(format!("{} is of another format: {format}", path.display())));
        }
        if engine != self.config.engine.name() {
            let text = format!("{} was made for {engine}, not for {}", path.display(), self.config.engine.name());
            return Err(StorageError::Mismatch(text));
        }
        generation.parse().map_err(|_| damaged())
    }
}

/// The position of the last finished flush, in two slots.
#[derive(Debug)]
struct Witness {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    /// Number of the last write and what it said.
    last: Mutex<(u64, AppliedPosition)>,
}

impl Witness {
    fn open(env: &Env, path: PathBuf) -> Result<Self, StorageError> {
        let io = |error| StorageError::io("open", &path, error);
        let fresh = !env.disk.exists(&path).map_err(io)?;
        let file = env.disk.open(&path, Access::Create).map_err(io)?;
        let mut bytes = vec![0; 2 * SLOT_BYTES];
        if fresh || file.size().map_err(io)? < bytes.len() as u64 {
            let witness = Self { path: path.clone(), file, last: Mutex::default() };
            witness.write(AppliedPosition::default())?;
            witness.write(AppliedPosition::default())?;
            witness.file.sync_all().map_err(io)?;
            env.disk.sync_dir(path.parent().unwrap_or(Path::new("."))).map_err(io)?;
            return Ok(witness);
        }
        file.read_exact_at(&mut bytes, 0).map_err(io)?;
        let last = bytes.chunks_exact(SLOT_BYTES).filter_map(read_slot).max_by_key(|(number, _)| *number);
        let what = "neither of its slots is whole".to_owned();
        let last = last.ok_or_else(|| StorageError::Damaged { path: path.clone(), offset: 0, what })?;
        Ok(Self { path, file, last: Mutex::new(last) })
    }

    fn position(&self) -> AppliedPosition {
        self.last.lock().1
    }

    fn write(&self, position: AppliedPosition) -> Result<(), StorageError> {
        let mut last = self.last.lock();
        let number = last.0 + 1;
        let mut slot = vec![0; SLOT_BYTES];
        for (field, value) in slot.chunks_exact_mut(8).zip([number, position.index.get(), position.term.get()]) {
            field.copy_from_slice(&value.to_le_bytes());
        }
        let crc = crc32c::crc32c(&slot[..24]);
        slot[24..28].copy_from_slice(&crc.to_le_bytes());
        let offset = number % 2 * SLOT_BYTES as u64;
        let io = |action| move |error| StorageError::io(action, &self.path, error);
        self.file.write_at(&slot, offset).map_err(io("write"))?;
        self.file.sync_data().map_err(io("fsync"))?;
        *last = (number, position);
        Ok(())
    }
}

fn read_slot(slot: &[u8]) -> Option<(u64, AppliedPosition)> {
    let number = |at: usize| Some(u64::from_le_bytes(slot.get(at..at + 8)?.try_into().ok()?));
    if slot.get(24..28)? != crc32c::crc32c(slot.get(..24)?).to_le_bytes() || number(0)? == 0 {
        return None;
    }
    Some((number(0)?, AppliedPosition { index: RaftIndex(number(8)?), term: Term(number(16)?) }))
}

/// Puts a damaged home aside, so that another can be made in its place; returns where it went.
///
/// # Errors
/// I/O errors.
pub fn quarantine(env: &Env, dir: &Path) -> Result<PathBuf, StorageError> {
    let io = |error| StorageError::io("put aside", dir, error);
    let mut name = dir.as_os_str().to_owned();
    name.push(".damaged");
    let mut aside = PathBuf::from(&name);
    for number in 1.. {
        if !env.disk.exists(&aside).map_err(io)? {
            break;
        }
        let mut next = name.clone();
        next.push(format!("-{number}"));
        aside = next.into();
    }
    env.disk.rename(dir, &aside).map_err(io)?;
    // It only takes room, which the new one needs; there may be none.
    let _ = env.disk.remove(&aside.join(BALLAST));
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        env.disk.sync_dir(parent).map_err(io)?;
    }
    Ok(aside)
}

/// Removes what is no longer needed; what can't be removed now is tried again at the next start.
fn remove_tree(env: &Env, path: &Path) {
    if let Ok(names) = env.disk.list(path) {
        for name in names {
            remove_tree(env, &path.join(name));
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "env::Disk has no directories to remove; only ones made here come this far"
        )]
        let _ = std::fs::remove_dir(path);
    } else {
        let _ = env.disk.remove(path);
    }
}
