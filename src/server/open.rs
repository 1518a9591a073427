//! Opening what lies in the data directory: the store, the log, and the one from the other.
//!
//! ```text
//! store ─► whole? ───────────────────────────┬► position P ─► log begins at P or before, and reaches it
//!          damaged ─► set aside ─► an empty one ┘      └► older than the log's beginning ─► newest snapshot ─► P
//!                         └► sled: the process starts again and finds no store
//! ```
//! A damaged sled may go on for ever in threads that can't be stopped, and hold the pool that a new
//! one needs. So no second sled is opened in a process that met a damaged one.

use std::path::Path;
use std::sync::Arc;

use crate::consensus::{MEMBERSHIP_KEY, members_of};
use crate::env::Env;
use crate::ops::config::{Config, EngineKind};
use crate::ops::data_dir::{DataDir, DataDirError};
use crate::storage::backend::{self, Engine};
use crate::storage::{Opened, Store, StoreConfig};
use crate::types::{RaftIndex, StorageError, Term};
use crate::wal::{Recovered, Wal, WalError, WalOptions};

use super::meters::{EngineMeter, LogMeter};
use super::{heal, limits, rebuild};

/// What is left to do for a member that is alone.
const RESTORE: &str = "restore a snapshot into a new data directory";
/// And for one of several.
const JOIN_AGAIN: &str = "remove this member and add it again with an empty data directory";

/// Why the data can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store.
    #[error("opening the store: {0}{instead}", instead = instead(.0))]
    Store(#[from] StorageError),
    /// The log.
    #[error(transparent)]
    Log(#[from] WalError),
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The log was lost, as a whole or its end.
    #[error(
        "the raft log in {log} is lost or was replaced: the store holds entry {have}, the newest snapshot entry \
         {snapshot}, the log {last}. Put the right one back (--wal-dir), or {instead}", last = ends(*last)
    )]
    LogLost {
        /// The log's directory.
        log: String,
        /// What the store holds.
        have: RaftIndex,
        /// What the newest snapshot holds.
        snapshot: RaftIndex,
        /// What the log ends with.
        last: Option<RaftIndex>,
        /// What to do without it.
        instead: &'static str,
    },
    /// The log lost its end after a state had come that was to heal this member.
    #[error(
        "the raft log in {log} lost its end: it held entry {had} in term {had_term} when the state came that heals this \
         member, and ends with entry {last} in term {term} now. Put the right one back (--wal-dir), or remove this \
         member and add it again with an empty data directory"
    )]
    LogEndLost {
        /// The log's directory.
        log: String,
        /// The last entry that it held.
        had: RaftIndex,
        /// The term of the vote in it.
        had_term: Term,
        /// What it ends with.
        last: RaftIndex,
        /// The term of the vote in it.
        term: Term,
    },
    /// A state that was to heal this member could not be read in; the next start puts the old one in its place again.
    #[error("the state that heals this member can't be read in: start again, and the old one is put back")]
    PutBack,
    /// The store was damaged and set aside, and another can't be opened in this process.
    #[error("the damaged store was set aside as {aside}: start again")]
    SetAside {
        /// Where it is now.
        aside: String,
    },
    /// The store was damaged or lost, and what is left can't bring it back.
    #[error(
        "the store in {store} can't be rebuilt: it stands after entry {have}, and the log begins after entry {purged}. \
         Put the old one back, or {instead}"
    )]
    Gap {
        /// The store's directory.
        store: String,
        /// What the store holds.
        have: RaftIndex,
        /// What the log has dropped.
        purged: RaftIndex,
        /// What to do without it.
        instead: &'static str,
    },
}

/// Store and log, opened and fitting together.
pub(super) struct Opening {
    pub(super) store: Store,
    pub(super) opened: Opened,
    pub(super) wal: Arc<Wal>,
    pub(super) recovered: Recovered,
}

/// Opens both.
///
/// # Errors
/// See [`OpenError`].
pub(super) fn open(
    env: &Env,
    config: &Config,
    data: &DataDir,
    log: Arc<LogMeter>,
    engine: Arc<EngineMeter>,
) -> Result<Opening, OpenError> {
    let identity = data.identity();
    let owner = format!("member {:x} of cluster {:x}", identity.member.get(), identity.cluster.get());
    let options = WalOptions {
        owner: Some(owner),
        observer: Some(log),
        direct_io: config.engine.wal_direct_io,
        ..WalOptions::default()
    };
    let (wal, recovered) = Wal::open(env.clone(), data.wal(), options)?;
    // Whoever makes this member the only one has chosen the state that it holds.
    let heals = config.clustering.heal_diverged && !config.features.force_new_cluster;
    let healed = heal::install(env, data, &wal, &recovered, heals)?;
    let dir = data.store();
    let (mut store, mut opened) = match open_store(env, config, data, engine.clone()) {
        Err(error @ StorageError::Damaged { .. }) => {
            let aside = backend::quarantine(env, &dir)?;
            tracing::error!(
                %error, aside = %aside.display(),
                "the store is damaged; set it aside and rebuild it from the newest snapshot and the log"
            );
            if matches!(data.format().engine, EngineKind::Sled) {
                return Err(OpenError::SetAside { aside: aside.display().to_string() });
            }
            open_store(env, config, data, engine)?
        }
        result => result?,
    };
    let purged = recovered.purged.map_or(RaftIndex(0), |id| id.index);
    // Damaged, lost as a whole, or set aside by a start that came no further than that. A state that differed is
    // never made anew from the log alone: something in it may be what made it differ.
    let mut passing = None;
    if opened.position.index < purged.max(healed) {
        match rebuild::from_snapshot(env, &mut store, &data.snapshots())? {
            rebuild::Rebuilt::Of(rebuilt) => opened = rebuilt,
            rebuild::Rebuilt::No(error) => passing = error,
        }
    }
    let have = opened.position.index;
    if have < healed {
        let is_full = matches!(passing, Some(StorageError::Full { .. }));
        if heal::ask_back(env.disk.as_ref(), data, is_full)? {
            tracing::error!("the others' state can't be read in: starting again to put the old one back");
            return Err(OpenError::PutBack);
        }
    } else {
        heal::note_read(env.disk.as_ref(), data);
    }
    // Another start may read it in, and nothing else is as good.
    if have < purged.max(healed)
        && let Some(error) = passing
    {
        return Err(error.into());
    }
    rebuild::finish_received(env, &data.snapshots(), have)?;
    // For one of several, a restored snapshot would be another cluster.
    let stored = opened.meta.iter().find(|(key, _)| key == MEMBERSHIP_KEY);
    let is_alone = match stored.and_then(|(_, membership)| members_of(membership)) {
        Some(members) => members <= 1,
        None => !data.has_joined() && config.clustering.initial_cluster.len() <= 1,
    };
    let instead = if is_alone { RESTORE } else { JOIN_AGAIN };
    if have < purged {
        return Err(OpenError::Gap { store: dir.display().to_string(), have, purged, instead });
    }
    let snapshot = rebuild::newest(env, &data.snapshots())?.map_or(RaftIndex(0), |newest| newest.position.index);
    if is_log_lost(have, snapshot, data.has_served(), &recovered) {
        let last = recovered.last.map(|id| id.index);
        return Err(OpenError::LogLost { log: data.wal().display().to_string(), have, snapshot, last, instead });
    }
    Ok(Opening { store, opened, wal: Arc::new(wal), recovered })
}

/// Whether the log lacks what this member once had: a member that forgot what it acknowledged or how
/// it voted must not start, least of all as an empty cluster.
///
/// The store may be ahead of the log only by a snapshot that was installed and is still there. A
/// snapshot is never ahead of both: it was written of what the log held, or is installed at once.
pub(super) fn is_log_lost(have: RaftIndex, snapshot: RaftIndex, has_served: bool, recovered: &Recovered) -> bool {
    let last = recovered.last.map_or(RaftIndex(0), |id| id.index);
    let is_blank = recovered.vote.is_none() && recovered.last.is_none();
    let installed = recovered.vote.is_some() && snapshot == have;
    (has_served && is_blank) || snapshot > have.max(last) || (have > last && !installed)
}

/// What to do about an error that a person can mend.
fn instead(error: &StorageError) -> &'static str {
    match error {
        StorageError::Full { .. } => ". Nothing is lost: make room on that disk and start again",
        _ => "",
    }
}

fn ends(last: Option<RaftIndex>) -> String {
    last.map_or_else(|| "nothing".to_owned(), |last| format!("ends with entry {last}"))
}

fn open_store(
    env: &Env,
    config: &Config,
    data: &DataDir,
    meter: Arc<EngineMeter>,
) -> Result<(Store, Opened), StorageError> {
    let mut store = store_config(config, data, &data.store());
    store.values.backend.observer = Some(meter);
    Store::open(env, store)
}

fn store_config(config: &Config, data: &DataDir, dir: &Path) -> StoreConfig {
    let engine = match data.format().engine {
        EngineKind::Sled => Engine::Sled,
        EngineKind::Redb => Engine::Redb,
    };
    let mut store = StoreConfig::new(engine, dir);
    store.values.cache_bytes = config.engine.cache_bytes;
    store.values.backend.moves_max = limits::moves_of_process();
    store
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::EntryId;

    fn log(voted: bool, last: u64) -> Recovered {
        let id = EntryId { term: Term(1), index: RaftIndex(last), node: None };
        Recovered {
            vote: voted.then(|| bytes::Bytes::from_static(b"vote")),
            last: (last > 0).then_some(id),
            ..Recovered::default()
        }
    }

    /// Cause: with the store damaged and the log's disk not mounted, both were empty, and nothing was
    /// missing between them. Symptom: an empty cluster was started beside a whole snapshot.
    #[test]
    fn a_log_that_lacks_what_was_there_is_lost() {
        let lost =
            |have, snapshot, served, log: &Recovered| is_log_lost(RaftIndex(have), RaftIndex(snapshot), served, log);
        let fresh = log(false, 0);
        assert!(!lost(0, 0, false, &fresh), "the first start");
        assert!(!lost(0, 0, false, &log(true, 0)), "and one that was cut short");
        assert!(lost(0, 0, true, &fresh), "it has served");
        assert!(lost(0, 90, false, &fresh), "there is a snapshot");
        assert!(lost(0, 90, true, &log(true, 50)), "an older log");
        assert!(lost(100, 90, false, &fresh), "the store holds more");
        assert!(lost(100, 90, true, &log(true, 50)));
        assert!(!lost(100, 100, true, &log(true, 50)), "a snapshot was installed");
        assert!(!lost(100, 90, true, &log(true, 100)));
        assert!(!lost(100, 90, true, &log(true, 200)), "the usual case");
        assert!(!lost(0, 90, true, &log(true, 200)), "a store to be rebuilt");
    }
}
