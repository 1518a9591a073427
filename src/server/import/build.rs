//! The making of a data directory.

use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::follow::SCRATCH;
use super::{ImportFailure, ImportOptions, Progress, Source};
use crate::apply::Machine;
use crate::consensus::{seed_log, seed_membership};
use crate::env::{Access, Disk, Env, make_dir_durably};
use crate::import::{Database, ImportError, commands};
use crate::lease::Lessor;
use crate::ops::config::{ClusterState, Config};
use crate::ops::data_dir::DataDir;
use crate::server::{core, rebuild};
use crate::storage::backend::Engine;
use crate::storage::snapshot::{FileStream, MEMBERSHIP_KEY, SnapshotHeader, SnapshotWriter};
use crate::storage::{AppliedPosition, Store, StoreConfig, Table, compact_row};
use crate::types::StorageError;
use crate::wal::{Wal, WalOptions};

/// Where a data directory is made, inside the one that it becomes.
pub(super) const DRAFT: &str = "import.tmp";
const BUFFER_BYTES: usize = 256 << 10;

/// What was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The store's revision.
    pub revision: i64,
    /// The entry that the state is after.
    pub position: AppliedPosition,
    /// Requests of etcd's log that its database lacked.
    pub replayed: u64,
    /// Those among them that the member didn't know to be committed.
    pub uncertain: u64,
}

/// Makes the data directory of `config` of a source; durable at return. Blocks for as long as that takes.
///
/// # Errors
/// See [`ImportFailure`]; nothing is there then that a member would start from.
pub fn build(env: &Env, config: &Config, source: &Source, options: ImportOptions) -> Result<Imported, ImportFailure> {
    check(env.disk.as_ref(), config, options)?;
    let (index, term) = source.end()?;
    let position = AppliedPosition { index, term };
    let membership = seed_membership(position, core::initial(config)).map_err(|error| {
        ImportFailure::Refused(format!("the members of --initial-cluster can't be a cluster: {error}"))
    })?;
    let mut imported = Imported { revision: 0, position, replayed: 0, uncertain: 0 };
    make(env, config, position, &mut |draft| {
        if source.log.entries.is_empty() {
            let path = rebuild::path_of(&draft.snapshots(), position.index);
            let bump = options.bump_revision;
            imported.revision = write_snapshot(env, &source.database, position, &membership, bump, &path)?;
        } else {
            replay(env, source, draft, position, &membership, options, &mut imported)?;
        }
        Ok(())
    })?;
    Ok(imported)
}

/// Makes the data directory of `config`: `fill` puts a snapshot at `position` into it, all else is done here.
pub(super) fn make(
    env: &Env,
    config: &Config,
    position: AppliedPosition,
    fill: &mut dyn FnMut(&DataDir) -> Result<(), ImportFailure>,
) -> Result<(), ImportFailure> {
    let disk = env.disk.as_ref();
    let root = &config.member.data_dir;
    let staged = root.join(DRAFT);
    remove_draft(disk, &staged)?;
    make_dir_durably(disk, root).map_err(ImportError::io("make", root))?;
    let mut drafted = config.clone();
    drafted.member.data_dir.clone_from(&staged);
    let draft = DataDir::open(disk, &drafted, None)?;
    fill(&draft)?;
    let identity = draft.identity();
    let owner = format!("member {:x} of cluster {:x}", identity.member.get(), identity.cluster.get());
    let (wal, _) = Wal::open(env.clone(), draft.wal(), WalOptions { owner: Some(owner), ..WalOptions::default() })?;
    let seeded = futures::executor::block_on(seed_log(&wal, identity.member, position));
    seeded.map_err(ImportError::io("write", draft.wal()))?;
    wal.close();
    drop(wal);
    let (from, to) = (staged.join("member"), root.join("member"));
    disk.sync_dir(&from).map_err(ImportError::io("sync", &from))?;
    rebuild::rename(disk, &from, &to)?;
    drop(draft);
    remove_dir(disk, &staged)
}

/// Refuses what would be replaced, and options that contradict each other.
fn check(disk: &dyn Disk, config: &Config, options: ImportOptions) -> Result<(), ImportFailure> {
    let refused = |what: &str| Err(ImportFailure::Refused(what.into()));
    match (options.bump_revision, options.mark_compacted) {
        (0, true) => return refused("--mark-compacted without --bump-revision compacts what clients may still read"),
        (1.., false) => return refused("--mark-compacted required if --bump-revision > 0"),
        _ => {}
    }
    if config.clustering.initial_cluster_state == ClusterState::Existing {
        return refused("a state that comes from elsewhere begins a cluster: leave --initial-cluster-state at new");
    }
    check_unused(disk, config)
}

/// Refuses a directory with anything in it but an import that wasn't finished.
pub(super) fn check_unused(disk: &dyn Disk, config: &Config) -> Result<(), ImportFailure> {
    let root = &config.member.data_dir;
    let dirs = std::iter::once(root).chain(&config.member.wal_dir);
    for dir in dirs {
        if !disk.exists(dir).map_err(ImportError::io("look for", dir))? {
            continue;
        }
        let used = |why| ImportFailure::Used { path: dir.clone(), why };
        let names = disk.list(dir).map_err(|error| used(error.to_string()))?;
        if let Some(name) = names.iter().find(|name| !["lost+found", DRAFT, SCRATCH].iter().any(|ours| name == ours)) {
            return Err(used(format!("it holds {}", name.display())));
        }
    }
    Ok(())
}

/// Removes what another try left, unless that is still at it.
fn remove_draft(disk: &dyn Disk, staged: &Path) -> Result<(), ImportFailure> {
    if !disk.exists(staged).map_err(ImportError::io("look for", staged))? {
        return Ok(());
    }
    let lock = staged.join("member").join("lock");
    if disk.exists(&lock).map_err(ImportError::io("look for", &lock))? {
        let file = disk.open(&lock, Access::Read).map_err(ImportError::io("open", &lock))?;
        if !file.try_lock().map_err(ImportError::io("lock", &lock))? {
            return Err(ImportFailure::Refused(format!("another process is making {}", staged.display())));
        }
    }
    remove_dir(disk, staged)
}

/// Removes a directory with all that is in it, if it is there.
pub(super) fn remove_dir(disk: &dyn Disk, dir: &Path) -> Result<(), ImportFailure> {
    if disk.exists(dir).map_err(ImportError::io("look for", dir))? {
        disk.remove_dir(dir).map_err(ImportError::io("remove", dir))?;
    }
    Ok(())
}

/// Writes the database's state as a snapshot file, durably; gives its revision, which is raised by `bump_revision`.
pub(super) fn write_snapshot(
    env: &Env,
    database: &Database,
    position: AppliedPosition,
    membership: &Bytes,
    bump_revision: u64,
    path: &Path,
) -> Result<i64, ImportFailure> {
    let mut rows = database.rows()?;
    let mut header = SnapshotHeader {
        position,
        revision: database.revision()?,
        compact_revision: database.compact_revision()?,
        membership: membership.clone(),
    };
    if bump_revision > 0 {
        let bumped = i64::try_from(bump_revision).ok().and_then(|bump| header.revision.checked_add(bump));
        let bumped = bumped.ok_or_else(|| ImportFailure::Refused("--bump-revision is beyond all revisions".into()))?;
        let (key, value) = compact_row(bumped, -1);
        rows.retain(|(table, other, _)| (*table, other) != (Table::Meta, &key));
        rows.push((Table::Meta, key, value));
        (header.revision, header.compact_revision) = (bumped, bumped);
    }
    rows.push((Table::Meta, Bytes::from_static(MEMBERSHIP_KEY), membership.clone()));
    let revision = header.revision;

    let disk = env.disk.as_ref();
    let mut draft = path.as_os_str().to_owned();
    draft.push(".tmp");
    let draft = PathBuf::from(draft);
    let file = disk.open(&draft, Access::CreateNew).map_err(ImportError::io("make", &draft))?;
    let out = BufWriter::with_capacity(BUFFER_BYTES, FileStream::new(Arc::clone(&file)));
    let mut out = SnapshotWriter::new(header, out).map_err(ImportError::from)?;
    for (table, key, value) in &rows {
        out.row(*table, key, value).map_err(ImportError::from)?;
    }
    let mut progress = Progress::new(&env.clock, "importing", database.size());
    database.records(|at, record| {
        progress.add((record.key.len() + record.version.as_ref().map_or(0, |version| version.value.len())) as u64);
        Ok(out.record(at, &record)?)
    })?;
    out.finish().map_err(ImportError::from)?;
    file.sync_all().map_err(ImportError::io("sync", &draft))?;
    rebuild::rename(disk, &draft, path)?;
    Ok(revision)
}

/// Applies what the log holds beyond the database, and writes what comes of it.
fn replay(
    env: &Env,
    source: &Source,
    draft: &DataDir,
    end: AppliedPosition,
    membership: &Bytes,
    options: ImportOptions,
    imported: &mut Imported,
) -> Result<(), ImportFailure> {
    if options.bump_revision > 0 {
        return Err(ImportFailure::Refused(
            "--bump-revision is for snapshot files: this directory's log has entries beyond its database".into(),
        ));
    }
    let disk = env.disk.as_ref();
    let scratch = draft.root().join("scratch");
    make_dir_durably(disk, &scratch).map_err(ImportError::io("make", &scratch))?;
    let base = scratch.join("base.snapshot");
    write_snapshot(env, &source.database, source.database.position()?, membership, 0, &base)?;
    let (mut store, _) = Store::open(env, StoreConfig::new(Engine::Redb, scratch.join("store")))?;
    let opened = rebuild::install(env, &mut store, &base)?;
    let (leases, _) = Lessor::new(env.clock.now());
    let mut machine = Machine::open(store, &opened, leases)?;
    for entry in &source.log.entries {
        let position = AppliedPosition { index: entry.index.into(), term: entry.term.into() };
        let commands = commands(entry)?;
        imported.replayed += u64::from(!commands.is_empty());
        imported.uncertain += u64::from(!commands.is_empty() && entry.index > source.log.committed);
        machine.apply(position, &commands)?;
        machine.publish(position)?;
        wait_for_room(&machine)?;
    }
    machine.store_mut().put_meta(Table::Meta, Bytes::from_static(MEMBERSHIP_KEY), Some(membership.clone()));
    machine.publish(end)?;
    imported.revision = machine.store_mut().revision();
    rebuild::save(env.clone(), machine.reader(), draft.snapshots())()?;
    drop(machine);
    remove_dir(disk, &scratch)
}

/// Waits until the store has brought enough to the disk to take more.
pub(super) fn wait_for_room(machine: &Machine) -> Result<(), StorageError> {
    let reader = machine.reader();
    if reader.values().is_full() {
        futures::executor::block_on(reader.values().flush())?;
    }
    Ok(())
}
