//! Opening what lies in the data directory: the store, the log, and the one from the other.
//!
//! ```text
//! store ─► whole? ───────────────────────────┬► position P ─► log begins at P or before, and reaches it
//!          damaged ─► set aside ─► an empty one ┘      └► older than the log's beginning ─► newest snapshot ─► P
//! ```

use std::path::Path;
use std::sync::Arc;

use crate::env::Env;
use crate::ops::config::{Config, EngineKind};
use crate::ops::data_dir::DataDir;
use crate::storage::backend::{self, Engine};
use crate::storage::{Opened, Store, StoreConfig};
use crate::types::{RaftIndex, StorageError};
use crate::wal::{Recovered, Wal, WalError, WalOptions};

use super::gauges::LogCounters;
use super::rebuild;

/// Why the data can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store.
    #[error("opening the store: {0}")]
    Store(#[from] StorageError),
    /// The log.
    #[error(transparent)]
    Log(#[from] WalError),
    /// The log was lost, as a whole or its end.
    #[error(
        "the raft log in {log} is lost or was replaced: the store holds entry {have}, the log {last}. \
         Put the right one back, or restore a snapshot into a new data directory", last = ends(*last)
    )]
    LogLost {
        /// The log's directory.
        log: String,
        /// What the store holds.
        have: RaftIndex,
        /// What the log ends with.
        last: Option<RaftIndex>,
    },
    /// The store was damaged or lost, and what is left can't bring it back.
    #[error(
        "the store in {store} can't be rebuilt: it stands after entry {have}, and the log begins after entry {purged}. \
         Restore a snapshot into a new data directory, or put the old one back"
    )]
    Gap {
        /// The store's directory.
        store: String,
        /// What the store holds.
        have: RaftIndex,
        /// What the log has dropped.
        purged: RaftIndex,
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
    counters: Arc<LogCounters>,
) -> Result<Opening, OpenError> {
    let identity = data.identity();
    let owner = format!("member {:x} of cluster {:x}", identity.member.get(), identity.cluster.get());
    let options = WalOptions { owner: Some(owner), observer: Some(counters), ..WalOptions::default() };
    let (wal, recovered) = Wal::open(env.clone(), data.wal(), options)?;
    let dir = data.store();
    let (mut store, mut opened) = match open_store(env, config, data) {
        Err(error @ StorageError::Damaged { .. }) => {
            let aside = backend::quarantine(env, &dir)?;
            tracing::error!(
                %error, aside = %aside.display(),
                "the store is damaged; set it aside and rebuild it from the newest snapshot and the log"
            );
            open_store(env, config, data)?
        }
        result => result?,
    };
    let purged = recovered.purged.map_or(RaftIndex(0), |id| id.index);
    // Damaged, lost as a whole, or set aside by a start that came no further than that.
    if opened.position.index < purged
        && let Some(rebuilt) = rebuild::from_snapshot(env, &mut store, &data.snapshots())?
    {
        opened = rebuilt;
    }
    let have = opened.position.index;
    if have < purged {
        return Err(OpenError::Gap { store: dir.display().to_string(), have, purged });
    }
    if is_log_lost(env, data, have, &recovered)? {
        let last = recovered.last.map(|id| id.index);
        return Err(OpenError::LogLost { log: data.wal().display().to_string(), have, last });
    }
    Ok(Opening { store, opened, wal: Arc::new(wal), recovered })
}

/// Whether the log lacks entries that the store holds, other than those of a snapshot that was being
/// installed: a member that forgot what it acknowledged or how it voted must not start.
fn is_log_lost(env: &Env, data: &DataDir, have: RaftIndex, recovered: &Recovered) -> Result<bool, StorageError> {
    let last = recovered.last.map_or(RaftIndex(0), |id| id.index);
    if have <= last {
        return Ok(false);
    }
    let snapshot = rebuild::newest(env, &data.snapshots())?;
    let installed = snapshot.is_some_and(|snapshot| snapshot.position.index >= have);
    Ok(recovered.vote.is_none() || !installed)
}

fn ends(last: Option<RaftIndex>) -> String {
    last.map_or_else(|| "nothing".to_owned(), |last| format!("ends with entry {last}"))
}

fn open_store(env: &Env, config: &Config, data: &DataDir) -> Result<(Store, Opened), StorageError> {
    Store::open(env, store_config(config, data, &data.store()))
}

fn store_config(config: &Config, data: &DataDir, dir: &Path) -> StoreConfig {
    let engine = match data.format().engine {
        EngineKind::Sled => Engine::Sled,
        EngineKind::Redb => Engine::Redb,
    };
    let mut store = StoreConfig::new(engine, dir);
    store.values.cache_bytes = config.engine.cache_bytes;
    store
}
