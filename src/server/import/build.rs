//! The making of a data directory.

use std::ffi::OsString;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::follow::{SCRATCH, is_followed};
use super::{ImportFailure, ImportOptions, Progress, Source, wal_dir};
use crate::apply::{AlarmKind, Alarms, Command, Machine};
use crate::auth::Caller;
use crate::consensus::{seed_log, seed_membership};
use crate::env::{Access, Disk, Env, make_dir_durably};
use crate::import::remote::FENCE;
use crate::import::{Database, ImportError, REVISION_MAX, commands};
use crate::lease::Lessor;
use crate::ops::config::{ClusterState, Config};
use crate::ops::data_dir::DataDir;
use crate::server::{core, rebuild};
use crate::storage::backend::Engine;
use crate::storage::snapshot::{FileStream, MEMBERSHIP_KEY, SnapshotHeader, SnapshotWriter};
use crate::storage::{AppliedPosition, Store, StoreConfig, Table, compact_row};
use crate::types::{Revision, StorageError};
use crate::wal::{Wal, WalOptions};

/// Where a data directory is made, inside the one that it becomes.
pub(super) const DRAFT: &str = "import.tmp";
const BUFFER_BYTES: usize = 256 << 10;
/// Tries to make a finished member's name durable.
const SYNC_TRIES: u32 = 10;
const SYNC_PAUSE: Duration = Duration::from_millis(100);

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
    /// Those among them that were refused, as etcd refuses them where it applies them.
    pub refused: u64,
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
    let mut imported = Imported { revision: 0, position, replayed: 0, uncertain: 0, refused: 0 };
    make(env, config, position, &mut |draft| {
        if source.log.entries.is_empty() {
            let path = rebuild::path_of(&draft.snapshots(), position.index);
            let bump = options.bump_revision;
            let written = write_snapshot(env, &source.database, position, &membership, bump, Fence::Down, &path)?;
            imported.revision = written.revision;
        } else {
            replay(env, source, draft, position, &membership, options, &mut imported)?;
        }
        Ok(())
    })?;
    Ok(imported)
}

/// Whether the alarm by which an import keeps a source from writing is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fence {
    /// As the source has it: what its log holds was refused under it.
    Kept,
    /// A member begins without.
    Down,
}

/// Makes the data directory of `config`: `fill` puts a snapshot at `position` into it, all else is done here. Once the
/// member is there, nothing is an error any more.
pub(super) fn make(
    env: &Env,
    config: &Config,
    position: AppliedPosition,
    fill: &mut dyn FnMut(&DataDir) -> Result<(), ImportFailure>,
) -> Result<(), ImportFailure> {
    let disk = env.disk.as_ref();
    let root = &config.member.data_dir;
    let staged = root.join(DRAFT);
    remove_draft(disk, config, &staged)?;
    make_dir_durably(disk, root).map_err(ImportError::io("make", root))?;
    let mut drafted = config.clone();
    drafted.member.data_dir.clone_from(&staged);
    let draft = DataDir::open(disk, &drafted, None)?;
    fill(&draft)?;
    if let Some(dir) = &config.member.wal_dir {
        wal_dir::mark(env, &staged, dir)?;
    }
    let identity = draft.identity();
    let owner = format!("member {:x} of cluster {:x}", identity.member.get(), identity.cluster.get());
    let direct_io = config.engine.wal_direct_io;
    let options = WalOptions { owner: Some(owner), direct_io, ..WalOptions::default() };
    let (wal, _) = Wal::open(env.clone(), draft.wal(), options)?;
    let seeded = futures::executor::block_on(seed_log(&wal, identity.member, position));
    seeded.map_err(ImportError::io("write", draft.wal()))?;
    wal.close();
    drop(wal);
    let (from, to) = (staged.join("member"), root.join("member"));
    disk.sync_dir(&from).map_err(ImportError::io("sync", &from))?;
    disk.rename(&from, &to).map_err(ImportError::io("rename", &from))?;
    sync_made(disk, root);
    drop(draft);
    let unmarked = config.member.wal_dir.as_ref().map_or(Ok(()), |dir| wal_dir::unmark(disk, dir));
    if let Err(error) = unmarked.and_then(|()| remove_dir(disk, &staged)) {
        tracing::warn!(%error, "the data directory is made; remove this by hand");
    }
    Ok(())
}

/// Makes the member's name durable. It is there already and may be started, so this is tried, and told of.
#[expect(clippy::disallowed_methods, reason = "waits for a disk, on a thread for blocking work")]
fn sync_made(disk: &dyn Disk, root: &Path) {
    for _ in 0..SYNC_TRIES {
        let Err(error) = disk.sync_dir(root) else { return };
        tracing::error!(%error, dir = %root.display(), "the data directory is made, and may not be durable; syncing again");
        std::thread::sleep(SYNC_PAUSE);
    }
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
    if is_followed(disk, &config.member.data_dir.join(SCRATCH))? {
        return refused(
            "another process follows a running etcd into this directory (rusd import --from): stop it first",
        );
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
        let is_left = dir != root && wal_dir::is_left(disk, &root.join(DRAFT), dir)?;
        let ours = |name: &OsString| {
            ["lost+found", DRAFT, SCRATCH].iter().any(|ours| name == ours)
                || dir != root && (is_left && wal_dir::is_known(name) || wal_dir::is_nothing(name))
        };
        if let Some(name) = names.iter().find(|name| !ours(name)) {
            return Err(used(format!("it holds {}", name.display())));
        }
    }
    Ok(())
}

/// Removes what another try left, unless that is still at it.
fn remove_draft(disk: &dyn Disk, config: &Config, staged: &Path) -> Result<(), ImportFailure> {
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
    wal_dir::clean(disk, staged, config.member.wal_dir.as_deref())?;
    remove_dir(disk, staged)
}

/// Removes a directory with all that is in it, if it is there.
pub(super) fn remove_dir(disk: &dyn Disk, dir: &Path) -> Result<(), ImportFailure> {
    if disk.exists(dir).map_err(ImportError::io("look for", dir))? {
        disk.remove_dir(dir).map_err(ImportError::io("remove", dir))?;
    }
    Ok(())
}

/// What a snapshot file was written of.
pub(super) struct Written {
    /// The database's revision, raised by `bump_revision`.
    pub(super) revision: i64,
    /// Pairs of its bucket of keys that are no records.
    pub(super) marks: Vec<Revision>,
}

/// Writes the database's state as a snapshot file, durably.
pub(super) fn write_snapshot(
    env: &Env,
    database: &Database,
    position: AppliedPosition,
    membership: &Bytes,
    bump_revision: u64,
    fence: Fence,
    path: &Path,
) -> Result<Written, ImportFailure> {
    let mut rows = database.rows()?;
    if fence == Fence::Down {
        let fence = fence_row();
        rows.retain(|(table, key, _)| (*table, key) != (Table::Meta, &fence));
    }
    let mut header = SnapshotHeader {
        position,
        revision: database.revision()?,
        compact_revision: database.compact_revision()?,
        membership: membership.clone(),
    };
    if bump_revision > 0 {
        let bumped = i64::try_from(bump_revision).ok().and_then(|bump| header.revision.checked_add(bump));
        let bumped = bumped.filter(|bumped| *bumped <= REVISION_MAX);
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
    let marks = database.records(|at, record| {
        progress.add((record.key.len() + record.version.as_ref().map_or(0, |version| version.value.len())) as u64);
        Ok(out.record(at, &record)?)
    })?;
    out.finish().map_err(ImportError::from)?;
    file.sync_all().map_err(ImportError::io("sync", &draft))?;
    rebuild::rename(disk, &draft, path)?;
    Ok(Written { revision, marks })
}

fn fence_row() -> Bytes {
    Alarms::meta_key(FENCE, AlarmKind::Corrupt)
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
    write_snapshot(env, &source.database, source.database.position()?, membership, 0, Fence::Kept, &base)?;
    let (mut store, _) = Store::open(env, StoreConfig::new(Engine::Redb, scratch.join("store")))?;
    let opened = rebuild::install(env, &mut store, &base)?;
    let (leases, _) = Lessor::new(env.clock.now());
    let mut machine = Machine::open(store, &opened, leases)?;
    for entry in &source.log.entries {
        let position = AppliedPosition { index: entry.index.into(), term: entry.term.into() };
        let commands: Vec<_> = commands(entry)?.into_iter().map(|command| as_applied(command, &machine)).collect();
        imported.replayed += u64::from(!commands.is_empty());
        imported.uncertain += u64::from(!commands.is_empty() && entry.index > source.log.committed);
        let outcomes = machine.apply(position, &commands)?;
        imported.refused += outcomes.iter().filter(|outcome| outcome.result.is_err()).count() as u64;
        machine.publish(position)?;
        wait_for_room(&machine)?;
    }
    machine.store_mut().put_meta(Table::Meta, Bytes::from_static(MEMBERSHIP_KEY), Some(membership.clone()));
    machine.store_mut().put_meta(Table::Meta, fence_row(), None);
    machine.publish(end)?;
    imported.revision = machine.store_mut().revision();
    rebuild::save(env.clone(), machine.reader(), draft.snapshots())()?;
    drop(machine);
    remove_dir(disk, &scratch)
}

/// A lease's end as etcd applies it: whoever has the role of root may, even if users changed since it was asked for.
fn as_applied(command: Command, machine: &Machine) -> Command {
    match command {
        Command::As(on_behalf)
            if matches!(on_behalf.command, Command::LeaseRevoke { .. })
                && machine.auth().look().check_admin(&on_behalf.caller).is_ok() =>
        {
            on_behalf.command.by(Caller::Member)
        }
        other => other,
    }
}

/// Waits until the store has brought enough to the disk to take more.
pub(super) fn wait_for_room(machine: &Machine) -> Result<(), StorageError> {
    let reader = machine.reader();
    if reader.values().is_full() {
        futures::executor::block_on(reader.values().flush())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::MemDisk;

    #[test]
    fn nothing_is_made_where_another_process_follows() {
        let disk = MemDisk::new();
        let mut config = Config::default();
        config.member.data_dir = "/d".into();
        let scratch = config.member.data_dir.join(SCRATCH);
        disk.create_dir_all(&scratch).unwrap();
        let lock = disk.open(&scratch.join("lock"), Access::Create).unwrap();
        assert!(check(&disk, &config, ImportOptions::default()).is_ok(), "nobody does");
        assert!(lock.try_lock().unwrap());
        let refused = check(&disk, &config, ImportOptions::default()).unwrap_err().to_string();
        assert!(refused.contains("another process follows"), "{refused}");
    }
}
