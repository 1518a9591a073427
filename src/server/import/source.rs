//! What is to be taken over: a snapshot file, or a directory of etcd's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{ImportFailure, ImportOptions, Progress};
use crate::env::{Access, Disk, DiskFile, Env};
use crate::import::{Database, ImportError, Log, Trailer, check_trailer};
use crate::types::{RaftIndex, Term};

/// A source that was looked at, and whose files nobody else changes while this is held.
#[derive(Debug)]
pub struct Source {
    pub(super) database: Database,
    /// What the log holds beyond the database; nothing for a snapshot file.
    pub(super) log: Log,
    /// etcd locks its database; held so that it isn't started meanwhile.
    _lock: Option<Arc<dyn DiskFile>>,
}

impl Source {
    /// Opens `path`, and checks a snapshot file's checksum. `wal` is where a directory's log is, if not inside.
    ///
    /// # Errors
    /// What is damaged, in use, or none of the two.
    pub fn open(env: &Env, path: &Path, wal: Option<&Path>, options: ImportOptions) -> Result<Self, ImportFailure> {
        let disk = env.disk.as_ref();
        if !disk.exists(path).map_err(ImportError::io("look for", path))? {
            return Err(ImportFailure::Refused(format!("{}: there is no such file or directory", path.display())));
        }
        match member_dir(disk, path) {
            Some(member) => Self::directory(disk, &member, wal),
            None => Self::file(env, path, options),
        }
    }

    fn file(env: &Env, path: &Path, options: ImportOptions) -> Result<Self, ImportFailure> {
        let disk = env.disk.as_ref();
        if !options.skip_hash_check {
            let len = disk.open(path, Access::Read).and_then(|file| file.size());
            let mut progress = Progress::new(&env.clock, "checking", len.map_err(ImportError::io("open", path))?);
            match check_trailer(disk, path, &mut |bytes| progress.add(bytes))? {
                Trailer::Right => {}
                Trailer::Missing => {
                    return Err(ImportFailure::Refused(
                        "snapshot missing hash but --skip-hash-check=false. Only what a server sent has one: type \
                         --skip-hash-check for a copy of a member/snap/db"
                            .into(),
                    ));
                }
                Trailer::Wrong => {
                    return Err(ImportFailure::Refused(format!(
                        "{}: its SHA-256 doesn't fit: it isn't as it was sent. Take another copy",
                        path.display()
                    )));
                }
            }
        }
        Ok(Self { database: Database::open(disk, path)?, log: Log::default(), _lock: None })
    }

    fn directory(disk: &dyn Disk, member: &Path, wal: Option<&Path>) -> Result<Self, ImportFailure> {
        let path = member.join("snap").join("db");
        let file = disk.open(&path, Access::Read).map_err(ImportError::io("open", &path))?;
        if !file.try_lock().map_err(ImportError::io("lock", &path))? {
            return Err(ImportFailure::Refused(format!(
                "{} is in use: stop etcd, or take a snapshot of it (rusd snapshot save), or follow it (rusd import --from)",
                path.display()
            )));
        }
        let database = Database::open(disk, &path)?;
        let position = database.position()?;
        let wal = wal.map_or_else(|| member.join("wal"), Path::to_owned);
        if !disk.exists(&wal).map_err(ImportError::io("look for", &wal))? {
            return Err(ImportFailure::Refused(format!(
                "{}: the log isn't there, and without it the last writes would be lost. Name it by --source-wal-dir",
                wal.display()
            )));
        }
        let log = Log::read(disk, &wal, position.index.get(), position.term.get())?;
        Ok(Self { database, log, _lock: Some(file) })
    }

    /// Where the state stands once the log's entries are in it.
    pub(super) fn end(&self) -> Result<(RaftIndex, Term), ImportError> {
        let position = self.database.position()?;
        Ok(match self.log.entries.last() {
            Some(last) => (RaftIndex(last.index), Term(last.term.max(position.term.get()))),
            None => (position.index, position.term),
        })
    }
}

/// etcd's directory `member`, if `path` is it or holds it.
fn member_dir(disk: &dyn Disk, path: &Path) -> Option<PathBuf> {
    let has_database = |dir: &PathBuf| disk.exists(&dir.join("snap").join("db")).unwrap_or(false);
    [path.join("member"), path.to_owned()].into_iter().find(has_database)
}
