//! Following a running etcd, revision for revision, until told to take over.
//!
//! ```text
//! snapshot ─► a store for the time being ─► changes from there on, each where it stood ◄─┐ broken: again from there
//!    ▲                                           └─ compacted there, or other than it says ─┘
//!    └───────────────────────────────────────────────────────┘ a new snapshot
//! told to take over ─► fence: the source refuses writes ─► up to its last revision ─► leases, users ─► data directory
//! ```
//! Nothing is served meanwhile. The word to take over is a file, so that another process can say it.

mod apply;
mod word;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use word::tell_to_take_over;

use super::build::{check_unused, make, remove_dir, write_snapshot};
use super::{ImportFailure, Progress};
use apply::{apply, replace_rows};
use word::{LOOK_EVERY, Word, forget};

use crate::consensus::seed_membership;
use crate::env::{Access, DiskFile, Env, make_dir_durably, unblock};
use crate::import::remote::{Feed, Remote, RemoteError, SaveError};
use crate::import::{Database, ImportError};
use crate::lease::LeaseRecord;
use crate::ops::config::Config;
use crate::server::{core, rebuild};
use crate::storage::backend::Engine;
use crate::storage::snapshot::MEMBERSHIP_KEY;
use crate::storage::{AppliedPosition, Store, StoreConfig, StoreReader, Table};
use crate::types::RaftIndex;

/// Where the state lies while it follows, inside the data directory that it becomes.
pub(super) const SCRATCH: &str = "follow.tmp";
/// Between two tries of a source that doesn't answer, at first and at most.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How long the last revisions may take to come after the source was fenced.
const CATCH_UP_MAX: Duration = Duration::from_secs(60);
/// Between two lines of the log.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Why it doesn't follow any more.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The source says no.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// This side.
    #[error(transparent)]
    Import(#[from] ImportFailure),
}

impl From<ImportError> for FollowError {
    fn from(error: ImportError) -> Self {
        Self::Import(error.into())
    }
}

impl From<crate::types::StorageError> for FollowError {
    fn from(error: crate::types::StorageError) -> Self {
        Self::Import(error.into())
    }
}

impl From<SaveError> for FollowError {
    fn from(error: SaveError) -> Self {
        match error {
            SaveError::Remote(error) => error.into(),
            SaveError::Disk(error) => error.into(),
        }
    }
}

/// What was taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakenOver {
    /// The last revision.
    pub revision: i64,
    /// From the fence until the data directory was there: nobody could write.
    pub pause: Duration,
}

/// Why a round of following ended.
enum Ended {
    /// It has to begin again with a snapshot.
    Again(String),
    Failed(FollowError),
}

impl<E: Into<FollowError>> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Follows one source into one data directory.
pub struct Follower {
    env: Env,
    config: Config,
    remote: Remote,
    /// Whether the source is kept from writing at the take-over.
    fence: bool,
    scratch: PathBuf,
    _lock: Arc<dyn DiskFile>,
}

/// The state so far.
struct State {
    store: Store,
    position: AppliedPosition,
    /// The source's count of changes of users and roles, as of the snapshot.
    auth_revision: u64,
}

impl Follower {
    /// Makes the place in the data directory; nobody is asked yet.
    ///
    /// # Errors
    /// A directory that is used, or followed into by another process.
    pub fn open(env: Env, config: Config, remote: Remote, fence: bool) -> Result<Self, ImportFailure> {
        if config.clustering.initial_cluster.len() != 1 {
            return Err(ImportFailure::Refused(
                "who takes over is alone at first: leave --initial-cluster at this member, and add the others \
                 afterwards (member add)"
                    .into(),
            ));
        }
        let disk = env.disk.as_ref();
        check_unused(disk, &config)?;
        let scratch = config.member.data_dir.join(SCRATCH);
        make_dir_durably(disk, &scratch).map_err(ImportError::io("make", &scratch))?;
        let path = scratch.join("lock");
        let lock = disk.open(&path, Access::Create).map_err(ImportError::io("open", &path))?;
        if !lock.try_lock().map_err(ImportError::io("lock", &path))? {
            return Err(ImportFailure::Refused(format!("another process follows into {}", scratch.display())));
        }
        word::begin(disk, &scratch)?;
        Ok(Self { env, config, remote, fence, scratch, _lock: lock })
    }

    /// Follows until it has taken over.
    ///
    /// # Errors
    /// What the source refuses for good, and what goes wrong on this side.
    pub async fn run(self) -> Result<TakenOver, FollowError> {
        let mut pause = RETRY_MIN;
        loop {
            match self.round().await {
                Ok(taken) => {
                    let scratch = self.scratch.clone();
                    remove_dir(self.env.disk.as_ref(), &scratch)?;
                    return Ok(taken);
                }
                Err(Ended::Again(why)) => tracing::warn!(why, "beginning again with a new snapshot"),
                Err(Ended::Failed(FollowError::Remote(error))) if error.is_passing() => {
                    tracing::warn!(%error, again_in = ?pause, "no snapshot of the source; will try again");
                    tokio::time::sleep(pause).await;
                    pause = (2 * pause).min(RETRY_MAX);
                }
                Err(Ended::Failed(error)) => return Err(error),
            }
        }
    }

    /// From a snapshot on, until it was taken over.
    async fn round(&self) -> Result<TakenOver, Ended> {
        let mut state = self.begin().await?;
        let mut told = self.env.clock.now();
        let mut pause = RETRY_MIN;
        let mut feed: Option<Feed> = None;
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let Some(open) = &mut feed else {
                match self.remote.feed(state.store.revision() + 1).await {
                    Ok(opened) => feed = Some(opened),
                    Err(error) => {
                        if let Some(word) = self.word()?
                            && let Some(taken) = self.take_over(&mut state, None, word).await?
                        {
                            return Ok(taken);
                        }
                        self.wait_for(error, &mut pause).await?;
                    }
                }
                continue;
            };
            tokio::select! {
                biased;
                _ = look.tick() => {
                    let Some(word) = self.word()? else { continue };
                    if let Some(taken) = self.take_over(&mut state, Some(open), word).await? {
                        return Ok(taken);
                    }
                }
                next = open.next() => match next {
                    Ok((changes, at)) => {
                        pause = RETRY_MIN;
                        apply(&mut state, changes).await?;
                        let now = self.env.clock.now();
                        if now.saturating_duration_since(told) >= TELL_EVERY {
                            told = now;
                            let revision = state.store.revision();
                            tracing::info!(revision, behind = at - revision, "following");
                        }
                    }
                    Err(error) => {
                        feed = None;
                        self.wait_for(error, &mut pause).await?;
                    }
                },
            }
        }
    }

    /// A snapshot of the source in a new store.
    async fn begin(&self) -> Result<State, Ended> {
        let file = self.scratch.join("source.db");
        self.download(&file).await?;
        let (env, scratch) = (self.env.clone(), self.scratch.clone());
        let opened = unblock(move || fill(&env, &scratch, &file)).await;
        let state = opened.map_err(|error| ended_task(&error))??;
        tracing::info!(revision = state.store.revision(), "has the source's snapshot; following its changes");
        Ok(state)
    }

    async fn download(&self, file: &Path) -> Result<(), FollowError> {
        let mut progress = Progress::new(&self.env.clock, "snapshot", 0);
        let mut seen = 0;
        let mut tell = |done: u64, total: u64| {
            progress.expect(total);
            progress.add(done - seen);
            seen = done;
        };
        self.remote.save(self.env.disk.clone(), file, &mut tell).await?;
        Ok(())
    }

    /// After an error of the watch: waits if it passes, says how to go on if not.
    async fn wait_for(&self, error: RemoteError, pause: &mut Duration) -> Result<(), Ended> {
        match error {
            RemoteError::Compacted(at) => Err(Ended::Again(format!("the source compacted its history up to {at}"))),
            error if error.is_passing() => {
                tracing::warn!(%error, again_in = ?*pause, "the watch of the source broke; will go on where it stood");
                tokio::time::sleep(*pause).await;
                *pause = (2 * *pause).min(RETRY_MAX);
                Ok(())
            }
            error => Err(error.into()),
        }
    }

    fn word(&self) -> Result<Option<Word>, FollowError> {
        Ok(word::heard(self.env.disk.as_ref(), &self.scratch)?)
    }

    /// Takes over, or says why not and follows on.
    async fn take_over(
        &self,
        state: &mut State,
        feed: Option<&mut Feed>,
        word: Word,
    ) -> Result<Option<TakenOver>, Ended> {
        let begun = self.env.clock.now();
        tracing::info!(revision = state.store.revision(), "told to take over");
        let last = self.last_state(state, feed, word).await;
        let why = match last {
            Ok(()) => match self.finish(state).await {
                Ok(()) => {
                    let pause = self.env.clock.now().saturating_duration_since(begun);
                    return Ok(Some(TakenOver { revision: state.store.revision(), pause }));
                }
                Err(error) => error.to_string(),
            },
            Err(Ended::Failed(error)) => error.to_string(),
            Err(again) => {
                self.unfence(word).await;
                // The word stays: the next round hears it.
                return Err(again);
            }
        };
        self.unfence(word).await;
        tracing::error!(why, "did not take over; following on");
        word::refuse(self.env.disk.as_ref(), &self.scratch, &why)?;
        Ok(None)
    }

    /// Lets the source write again, as it was not taken over.
    async fn unfence(&self, word: Word) {
        if self.fence
            && word == Word::Now
            && let Err(error) = self.remote.unfence().await
        {
            tracing::error!(%error, "the source may still refuse writes: etcdctl alarm disarm lets it write again");
        }
    }

    /// Brings the state to the source's last.
    async fn last_state(&self, state: &mut State, feed: Option<&mut Feed>, word: Word) -> Result<(), Ended> {
        if word == Word::WithoutSource {
            tracing::warn!(revision = state.store.revision(), "taking over what is known, without the source");
            return Ok(());
        }
        let feed = feed.ok_or_else(|| RemoteError::Unreachable("its watch is broken".into()))?;
        // Users first: a whole snapshot may be needed for them, which is better taken while the source still writes.
        let fresh = self.users(state).await?;
        let last = if self.fence { self.remote.fence().await? } else { self.remote.revision().await? };
        let fenced: Instant = self.env.clock.now();
        while state.store.revision() < last {
            let left = CATCH_UP_MAX.saturating_sub(self.env.clock.now().saturating_duration_since(fenced));
            let next = tokio::time::timeout(left, feed.next()).await;
            let next = next.map_err(|_| RemoteError::Unreachable("its last changes don't come".into()))?;
            match next {
                Ok((changes, _)) => apply(state, changes).await?,
                Err(RemoteError::Compacted(at)) => {
                    return Err(Ended::Again(format!("the source compacted its history up to {at}")));
                }
                Err(error) => return Err(error.into()),
            }
        }
        if state.store.revision() != last {
            let why = "the source is still written to: leave --fence at true, or stop its writers";
            return Err(ImportFailure::Refused(why.into()).into());
        }
        let auth = match self.users(state).await? {
            Some(later) => Some(later),
            None => fresh,
        };
        if let Some(rows) = auth {
            replace_rows(&mut state.store, Table::Auth, rows);
        }
        let leases = self.remote.leases().await?;
        let rows = leases.iter().map(|(id, record)| (LeaseRecord::key(*id), record.encode()));
        replace_rows(&mut state.store, Table::Lease, rows.collect());
        Ok(())
    }

    /// Users and roles by a new snapshot, if they were changed since the last one.
    async fn users(&self, state: &mut State) -> Result<Option<Vec<(Bytes, Bytes)>>, Ended> {
        if self.remote.auth_revision().await? == state.auth_revision {
            return Ok(None);
        }
        let file = self.scratch.join("users.db");
        self.download(&file).await?;
        let disk = self.env.disk.clone();
        let read = unblock(move || -> Result<_, ImportError> {
            let database = Database::open(disk.as_ref(), &file)?;
            Ok((database.auth()?, database.auth_revision()?))
        });
        let (rows, revision) = read.await.map_err(|error| ended_task(&error))??;
        state.auth_revision = revision;
        Ok(Some(rows))
    }

    /// Makes the data directory of the state.
    async fn finish(&self, state: &mut State) -> Result<(), FollowError> {
        let position = AppliedPosition { index: RaftIndex(state.position.index.get() + 1), ..state.position };
        let membership = seed_membership(position, core::initial(&self.config));
        let membership = membership.map_err(|error| ImportFailure::Refused(error.to_string()))?;
        state.store.put_meta(Table::Meta, Bytes::from_static(MEMBERSHIP_KEY), Some(membership));
        state.store.publish(position)?;
        state.position = position;
        let (env, config, reader) = (self.env.clone(), self.config.clone(), state.store.reader());
        let made = unblock(move || finish_files(&env, &config, position, &reader)).await;
        made.map_err(|error| ended_task(&error))?.map_err(FollowError::from)
    }
}

fn finish_files(
    env: &Env,
    config: &Config,
    position: AppliedPosition,
    reader: &StoreReader,
) -> Result<(), ImportFailure> {
    make(env, config, position, &mut |draft| {
        rebuild::save(env.clone(), reader.clone(), draft.snapshots())()?;
        Ok(())
    })
}

fn ended_task(error: &io::Error) -> FollowError {
    ImportFailure::Refused(format!("a task of the import ended: {error}")).into()
}

/// Puts the database of a snapshot into a new store; blocks.
fn fill(env: &Env, scratch: &Path, file: &Path) -> Result<State, ImportFailure> {
    let disk = env.disk.as_ref();
    let dir = scratch.join("store");
    remove_dir(disk, &dir)?;
    make_dir_durably(disk, &dir).map_err(ImportError::io("make", &dir))?;
    let database = Database::open(disk, file)?;
    let position = database.position()?;
    let base = scratch.join("base.snapshot");
    forget(disk, &base)?;
    write_snapshot(env, &database, position, &Bytes::new(), 0, &base)?;
    let (mut store, _) = Store::open(env, StoreConfig::new(Engine::Redb, &dir))?;
    rebuild::install(env, &mut store, &base)?;
    let auth_revision = database.auth_revision()?;
    forget(disk, &base)?;
    forget(disk, file)?;
    Ok(State { store, position, auth_revision })
}
