//! The data directory: who holds it, what made it, where each room's files lie.
//!
//! ```text
//! <data-dir>/            0700
//!   member/
//!     lock               held for as long as the process lives; names who holds it
//!     format             version, engine and identity; written first, never changed
//!     served             there once this member's log has begun: from then on it is never empty
//!     diverged           there once its state was found to differ from the other members': it isn't served
//!     wal/               the Raft log (or --wal-dir)
//!     store/             the engine
//!     healings           when the state was replaced by the other members' lately
//!     store.diverged/    the engine of a state that differed, until another one does
//!     store.diverged.later/  that of one that had taken its place, and differed, too; until the member is healed
//!     store.diverged.gone/   one of these while it is removed
//!     snap/              snapshots
//!   fixtures/            certificates that were made here, of --auto-tls and --peer-auto-tls
//! ```
//!
//! `format` is written before anything else is, so that a directory without it holds no data of ours.

mod diverged;
mod format;
mod healings;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::config::{Config, EngineKind};
use super::identity::Identity;
use crate::env::{Access, Disk, DiskFile, make_dir_durably, read_all, write_atomic};

pub use diverged::{Aside, Divergence, LogEnd};
pub use format::{FORMAT_VERSION, Format, FormatError};
pub use healings::{HEALINGS_MAX, HEALINGS_WITHIN, Healings};

/// No file that is read whole here is longer.
const SMALL_FILE_BYTES_MAX: usize = 4096;
/// The mark that this member's log has begun.
const SERVED: &str = "served";
/// Says that this directory took over what a running cluster held.
const TAKEN_OVER: &str = "taken-over";
/// The mark that this member's state was found to differ from the others'.
const DIVERGED: &str = "diverged";
/// There once the state was replaced by the other members'.
const HEALINGS: &str = "healings";

/// An open data directory; the lock is held until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    wal: PathBuf,
    format: Format,
    fresh: bool,
    served: bool,
    _lock: Arc<dyn DiskFile>,
}

/// Why a data directory can't be used; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The system refused.
    #[error("data directory {}: can't {action} {}: {source}", root.display(), path.display())]
    Io {
        /// `--data-dir`.
        root: PathBuf,
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// Another process has it.
    #[error("data directory {} is in use by {holder}. Stop that one, or type another --data-dir", root.display())]
    InUse {
        /// `--data-dir`.
        root: PathBuf,
        /// What the lock file says.
        holder: String,
    },
    /// It is etcd's.
    #[error(
        "data directory {} was made by etcd; rusd has a format of its own. \
         Type another --data-dir, and take it over: rusd import {0} --data-dir …", root.display()
    )]
    OfEtcd {
        /// `--data-dir`.
        root: PathBuf,
    },
    /// It holds something else.
    #[error(
        "data directory {} holds {found} but no member/format, so rusd didn't make it. \
         Type another --data-dir, or empty it", root.display()
    )]
    Foreign {
        /// `--data-dir`.
        root: PathBuf,
        /// A name in it.
        found: String,
    },
    /// Its format file is not of this version.
    #[error("data directory {}: {source}", root.display())]
    Format {
        /// `--data-dir`.
        root: PathBuf,
        /// What is wrong.
        source: FormatError,
    },
    /// It was made for another engine.
    #[error(
        "data directory {} was made with --backend={made}, but --backend={asked} was asked for. \
         Leave --backend out, or type another --data-dir", root.display()
    )]
    Engine {
        /// `--data-dir`.
        root: PathBuf,
        /// What it holds.
        made: &'static str,
        /// What was typed.
        asked: &'static str,
    },
}

impl DataDir {
    /// Whether the directory was made before: there is nothing to ask of a cluster then.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn is_made(disk: &dyn Disk, config: &Config) -> Result<bool, DataDirError> {
        let root = &config.member.data_dir;
        let path = root.join("member").join("format");
        disk.exists(&path).map_err(Opener { disk, root }.io("look for", &path))
    }

    /// Whether the member of this directory has served before.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn is_served(disk: &dyn Disk, config: &Config) -> Result<bool, DataDirError> {
        let root = &config.member.data_dir;
        let path = root.join("member").join(SERVED);
        disk.exists(&path).map_err(Opener { disk, root }.io("look for", &path))
    }

    /// The engine that this directory was made with.
    ///
    /// # Errors
    /// Those of the disk, and of what is written there.
    pub fn engine(disk: &dyn Disk, config: &Config) -> Result<EngineKind, DataDirError> {
        let root = &config.member.data_dir;
        let path = root.join("member").join("format");
        let opener = Opener { disk, root };
        let bytes = read_all(disk, &path, SMALL_FILE_BYTES_MAX).map_err(opener.io("read", &path))?;
        let format = Format::parse(&String::from_utf8_lossy(&bytes));
        format.map(|format| format.engine).map_err(|source| DataDirError::Format { root: root.clone(), source })
    }

    /// Refuses a directory that holds somebody else's files; one that isn't there is fine.
    ///
    /// # Errors
    /// Whose they are, and those of the disk.
    pub fn refuse_foreign(disk: &dyn Disk, config: &Config) -> Result<(), DataDirError> {
        let root = &config.member.data_dir;
        Opener { disk, root }.refuse_foreign(&root.join("member"))
    }

    /// Opens the directory of the configuration, or makes it; takes the lock. A new one is `joined`'s, who is
    /// a member of a cluster that is there, or else of the member that the initial cluster makes of this one.
    ///
    /// # Errors
    /// [`DataDirError`], which says what to do. Nothing is changed in a directory that is refused,
    /// but for the lock file.
    pub fn open(disk: &dyn Disk, config: &Config, joined: Option<Identity>) -> Result<Self, DataDirError> {
        let root = config.member.data_dir.clone();
        let opener = Opener { disk, root: &root };
        let member = root.join("member");
        opener.refuse_foreign(&member)?;
        opener.make_dir(&root)?;
        opener.make_dir(&member)?;
        let lock = opener.lock(&member.join("lock"))?;
        let path = member.join("format");
        let fresh = !disk.exists(&path).map_err(opener.io("look for", &path))?;
        let format = if fresh { opener.create(config, &path, joined)? } else { opener.load(config, &path)? };
        let path = member.join(SERVED);
        let served = disk.exists(&path).map_err(opener.io("look for", &path))?;
        let wal = config.member.wal_dir.clone().unwrap_or_else(|| member.join("wal"));
        for dir in [&wal, &member.join("store"), &member.join("snap")] {
            opener.make_dir(dir)?;
        }
        disk.sync_dir(&member).map_err(opener.io("sync", &member))?;
        Ok(Self { root, wal, format, fresh, served, _lock: lock })
    }

    /// `--data-dir`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn member(&self) -> PathBuf {
        self.root.join("member")
    }

    /// Where the certificates are that were made here, for clients and for members.
    pub fn made_certificates(&self) -> [PathBuf; 2] {
        ["client", "peer"].map(|whom| self.root.join("fixtures").join(whom))
    }

    /// The Raft log's directory.
    pub fn wal(&self) -> &Path {
        &self.wal
    }

    /// The engine's directory.
    pub fn store(&self) -> PathBuf {
        self.root.join("member").join("store")
    }

    /// Where a store that was put aside and isn't wanted any more lies while it is removed: half of it must not be taken
    /// for one.
    pub fn discarded_store(&self) -> PathBuf {
        self.root.join("member").join("store.diverged.gone")
    }

    /// Where the engine is kept of a state that differed from the others'.
    pub fn diverged_store(&self, which: Aside) -> PathBuf {
        self.root.join("member").join(match which {
            Aside::First => "store.diverged",
            Aside::Later => "store.diverged.later",
        })
    }

    /// The snapshots' directory.
    pub fn snapshots(&self) -> PathBuf {
        self.root.join("member").join("snap")
    }

    /// What made it: its engine, not the flag's, is the one to open.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// Who this member is; on a restart what was recorded, whatever the flags say, as in etcd.
    pub fn identity(&self) -> Identity {
        self.format.identity
    }

    /// Whether this member's log had begun before: it held something then, if only a vote.
    pub fn has_served(&self) -> bool {
        self.served
    }

    /// Notes durably that this member's log has begun; to be done before anybody is told what is in it.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn mark_served(&self, disk: &dyn Disk) -> Result<(), DataDirError> {
        if self.served {
            return Ok(());
        }
        let path = self.root.join("member").join(SERVED);
        write_atomic(disk, &path, b"").map_err(Opener { disk, root: &self.root }.io("write", &path))
    }

    /// Notes durably that this directory took over what a running cluster held.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn mark_taken_over(&self, disk: &dyn Disk) -> Result<(), DataDirError> {
        let path = self.member().join(TAKEN_OVER);
        write_atomic(disk, &path, b"").map_err(Opener { disk, root: &self.root }.io("write", &path))
    }

    /// Whether the data directory at `root` is a member's that took over what a running cluster held.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn is_taken_over(disk: &dyn Disk, root: &Path) -> Result<bool, DataDirError> {
        let path = root.join("member").join(TAKEN_OVER);
        disk.exists(&path).map_err(Opener { disk, root }.io("look for", &path))
    }

    /// Whether this member joined a cluster that was there, and so never begins one by itself.
    pub fn has_joined(&self) -> bool {
        self.format.joined
    }

    /// Whether this is its first start.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }
}

struct Opener<'a> {
    disk: &'a dyn Disk,
    root: &'a Path,
}

impl Opener<'_> {
    fn io(&self, action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
        let (root, path) = (self.root.to_owned(), path.to_owned());
        move |source| DataDirError::Io { root, action, path, source }
    }

    fn make_dir(&self, dir: &Path) -> Result<(), DataDirError> {
        make_dir_durably(self.disk, dir).map_err(self.io("make", dir))
    }

    fn names(&self, dir: &Path) -> Result<Vec<String>, DataDirError> {
        if !self.disk.exists(dir).map_err(self.io("look for", dir))? {
            return Ok(Vec::new());
        }
        let names = self.disk.list(dir).map_err(self.io("list", dir))?;
        Ok(names.into_iter().map(|name| name.to_string_lossy().into_owned()).collect())
    }

    /// Refuses a directory that holds someone else's files.
    fn refuse_foreign(&self, member: &Path) -> Result<(), DataDirError> {
        let inside = self.names(member)?;
        if inside.iter().any(|name| name == "format") {
            return Ok(());
        }
        if self.names(&member.join("snap"))?.iter().any(|name| name == "db") {
            return Err(DataDirError::OfEtcd { root: self.root.to_owned() });
        }
        let ours = |name: &str| matches!(name, "member" | "lock" | "format.tmp" | "lost+found" | "fixtures");
        let outside = self.names(self.root)?;
        match outside.into_iter().chain(inside).find(|name| !ours(name)) {
            Some(found) => Err(DataDirError::Foreign { root: self.root.to_owned(), found }),
            None => Ok(()),
        }
    }

    fn lock(&self, path: &Path) -> Result<Arc<dyn DiskFile>, DataDirError> {
        let file = self.disk.open(path, Access::Create).map_err(self.io("open", path))?;
        if !file.try_lock().map_err(self.io("lock", path))? {
            let holder = read_all(self.disk, path, SMALL_FILE_BYTES_MAX)
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .map(|text| text.trim().to_owned())
                .filter(|text| !text.is_empty())
                .unwrap_or_else(|| "another process".to_owned());
            return Err(DataDirError::InUse { root: self.root.to_owned(), holder });
        }
        let holder = format!("rusd, process {}\n", std::process::id());
        match file.set_len(0).and_then(|()| file.write_at(holder.as_bytes(), 0)) {
            // The text is a courtesy: what lies on a full disk must still be readable.
            Err(error) if error.kind() != io::ErrorKind::StorageFull => Err(self.io("write", path)(error)),
            _ => Ok(file),
        }
    }

    fn create(&self, config: &Config, path: &Path, joined: Option<Identity>) -> Result<Format, DataDirError> {
        let identity = joined.unwrap_or_else(|| Identity::bootstrap(config));
        let format = Format { engine: config.engine.kind, identity, joined: joined.is_some() };
        write_atomic(self.disk, path, format.to_string().as_bytes()).map_err(self.io("write", path))?;
        Ok(format)
    }

    fn load(&self, config: &Config, path: &Path) -> Result<Format, DataDirError> {
        let bytes = read_all(self.disk, path, SMALL_FILE_BYTES_MAX).map_err(self.io("read", path))?;
        let format = Format::parse(&String::from_utf8_lossy(&bytes))
            .map_err(|source| DataDirError::Format { root: self.root.to_owned(), source })?;
        if config.is_given("backend") && config.engine.kind != format.engine {
            let (made, asked) = (format.engine.name(), config.engine.kind.name());
            return Err(DataDirError::Engine { root: self.root.to_owned(), made, asked });
        }
        Ok(format)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::env::RealDisk;
    use crate::ops::config::flags;

    fn config(root: &Path, pairs: &[(&str, &str)]) -> Config {
        let mut config = Config::default();
        config.member.data_dir = root.to_owned();
        for (name, value) in pairs {
            config.set(flags::find(name).expect("known"), value).expect("well-formed");
        }
        config
    }

    fn open(root: &Path, pairs: &[(&str, &str)]) -> Result<DataDir, DataDirError> {
        DataDir::open(&RealDisk, &config(root, pairs), None)
    }

    #[test]
    fn is_made_once_and_remembers() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("m.etcd");
        let first = open(&root, &[("backend", "redb")]).expect("made");
        assert!(first.is_fresh());
        let mode = std::fs::metadata(root.join("member/wal")).expect("made").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let identity = first.identity();
        drop(first);
        let again = open(&root, &[("initial-cluster-token", "other")]).expect("opened");
        assert!(!again.is_fresh());
        assert_eq!(again.identity(), identity);
        assert_eq!(again.format().engine, EngineKind::Redb);
    }

    #[test]
    fn that_it_served_is_remembered() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = open(dir.path(), &[]).expect("made");
        assert!(!first.has_served());
        first.mark_served(&RealDisk).expect("written");
        drop(first);
        let again = open(dir.path(), &[]).expect("opened");
        assert!(again.has_served());
        again.mark_served(&RealDisk).expect("nothing to write");
    }

    #[test]
    fn a_second_process_is_told_who_holds_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("m.etcd");
        let _held = open(&root, &[]).expect("made");
        let error = open(&root, &[]).expect_err("in use").to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    }

    #[test]
    fn another_engine_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        drop(open(dir.path(), &[]).expect("made"));
        assert!(matches!(open(dir.path(), &[("backend", "redb")]), Err(DataDirError::Engine { .. })));
        assert!(open(dir.path(), &[("backend", "sled")]).is_ok());
    }

    #[test]
    fn directories_of_others_are_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir_all(dir.path().join("member/snap")).expect("made");
        std::fs::write(dir.path().join("member/snap/db"), b"bbolt").expect("written");
        assert!(matches!(open(dir.path(), &[]), Err(DataDirError::OfEtcd { .. })));
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("thesis.tex"), b"x").expect("written");
        assert!(matches!(open(dir.path(), &[]), Err(DataDirError::Foreign { .. })));
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 1);
    }

    #[test]
    fn a_member_that_joins_keeps_the_ids_that_it_was_given() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = config(dir.path(), &[]);
        assert!(!DataDir::is_made(&RealDisk, &config).expect("looked for"));
        let given = Identity { cluster: crate::types::ClusterId(7), member: crate::types::MemberId(9) };
        let made = DataDir::open(&RealDisk, &config, Some(given)).expect("made");
        assert!(made.has_joined() && made.identity() == given);
        drop(made);
        assert!(DataDir::is_made(&RealDisk, &config).expect("looked for"));
        let again = open(dir.path(), &[]).expect("opened");
        assert!(again.has_joined() && again.identity() == given);
    }

    #[test]
    fn a_crash_before_the_format_leaves_a_fresh_directory() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("member")).expect("made");
        std::fs::write(dir.path().join("member/format.tmp"), b"half").expect("written");
        assert!(open(dir.path(), &[]).expect("made").is_fresh());
    }
}
