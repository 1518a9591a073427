//! Moving house: an engine's files get second names in a directory of their own. There this process can open them, though
//! an engine that failed keeps the lock of the old directory.
//!
//! ```text
//! hard links ─► did nothing come or go? ─► witness ─► syncs ─► CURRENT ─► the old names go
//!     a crash: the old place, as it was ◄──────────────────────┘└──────► a crash: the new place
//! ```
//!
//! Both names are of the same file, so only one place may ever be written through: nobody opens the new one before CURRENT
//! durably names it, and nobody the old one after that. What failed must write no more ([`super::super::Remains::Lock`]).

use std::io;
use std::mem;
use std::path::Path;
use std::sync::atomic::Ordering;

use super::{Home, Witness, remove_tree};
use crate::env::Env;
use crate::types::StorageError;

/// How often files are linked until none came or went meanwhile.
const LINK_TRIES: u32 = 16;
/// A file that ends so is a draft: it is still being written, and counts for nothing.
const DRAFT: &str = ".tmp";

impl Home {
    /// Gives the engine's files another place. Only for an engine that never writes into them again.
    ///
    /// # Errors
    /// [`StorageError::Full`], I/O errors (a file system may have no hard links), and [`StorageError::Engine`] after
    /// too many moves. It can be tried again.
    pub fn move_house(&mut self) -> Result<(), StorageError> {
        let moves = self.used.moves.load(Ordering::Relaxed);
        // What failed keeps its open files, the bytes of files that are removed later, and its part of the cache, which only
        // the process's end gives back.
        if moves >= self.config.moves_max {
            let engine = self.config.engine.name();
            let message =
                format!("it failed after its files had been moved {moves} times; a new process has to open them");
            return Err(StorageError::Engine { engine, message });
        }
        let ballast = self.ballast.clone();
        match &ballast {
            Some(ballast) => ballast.with_room(|| self.try_to_move())?,
            None => self.try_to_move()?,
        }
        self.used.moves.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// How often this process has moved.
    pub fn moves(&self) -> u64 {
        self.used.moves.load(Ordering::Relaxed)
    }

    fn try_to_move(&mut self) -> Result<(), StorageError> {
        let next = match self.prepared.take() {
            Some(next) => next,
            None => self.prepare()?,
        };
        if let Err(error) = next.write_current() {
            // It may name the new place all the same, which therefore stays. The two are equal until one is opened.
            self.prepared = Some(next);
            return Err(error);
        }
        let old = mem::replace(self, *next);
        tracing::warn!(
            from = %old.engine_dir().display(), to = %self.engine_dir().display(),
            "a storage engine that failed keeps its lock; its files were moved away from it"
        );
        old.remove();
        Ok(())
    }

    /// The next place with everything in it, durably; CURRENT has never named it.
    fn prepare(&self) -> Result<Box<Self>, StorageError> {
        let mut next = self.beside();
        let filled = next.fill_from(self);
        if filled.is_err() {
            next.clear();
        }
        filled.map(|()| Box::new(next))
    }

    fn fill_from(&mut self, old: &Self) -> Result<(), StorageError> {
        self.clear();
        let (from, to) = (old.engine_dir(), self.engine_dir());
        link_dir(&self.env, &from, &to).map_err(|error| StorageError::io("link", &from, error))?;
        let witness = Witness::open(&self.env, self.path("witness"))?;
        if let Some(old) = &old.witness {
            witness.write(old.position())?;
        }
        self.witness = Some(witness);
        let dir = &self.config.dir;
        self.env.disk.sync_dir(dir).map_err(|error| StorageError::io("fsync", dir, error))
    }

    pub(super) fn clear(&self) {
        remove_tree(&self.env, &self.path("engine"));
        remove_tree(&self.env, &self.path("witness"));
    }
}

/// Links all that is in a directory and below; durable at return, but for the name of `to`.
fn link_dir(env: &Env, from: &Path, to: &Path) -> io::Result<()> {
    for _ in 0..LINK_TRIES {
        if try_link_dir(env, from, to)? {
            return env.disk.sync_dir(to);
        }
        remove_tree(env, to);
    }
    Err(io::Error::other("its files come and go all the time"))
}

/// Whether nothing came or went meanwhile. Names never come back, so what was linked then is what was there at one moment.
fn try_link_dir(env: &Env, from: &Path, to: &Path) -> io::Result<bool> {
    env.disk.create_dir_all(to)?;
    let list = || {
        let mut names = env.disk.list(from)?;
        names.retain(|name| !name.to_string_lossy().ends_with(DRAFT));
        io::Result::Ok(names)
    };
    let names = list()?;
    for name in &names {
        let (old, new) = (from.join(name), to.join(name));
        if env.disk.list(&old).is_ok() {
            link_dir(env, &old, &new)?;
            continue;
        }
        match env.disk.hard_link(&old, &new) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            linked => linked?,
        }
    }
    Ok(list()? == names)
}
