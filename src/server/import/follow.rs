//! Following a running etcd, revision for revision, until told to take over.
//!
//! ```text
//! snapshot ─► a store for the time being ─► changes from there on, each where it stood ◄─┐ broken: again from there
//!    ▲                                           └─ compacted there, or other than it says ─┘
//!    └───────────────────────────────────────────────────────┘ a new snapshot
//! told to take over ─► fence: the source refuses writes ─► up to its last revision ─► leases, users ─► data directory
//! ```
//! With `--serve` the process goes on as the member, and at later starts by the same line at once.
//! Nothing is served meanwhile. The word to take over is a file, so that another process can say it.

mod apply;
mod compare;
mod take_over;
mod word;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

pub(super) use word::is_followed;
pub use word::tell_to_take_over;

use super::build::{Fence, check_unused, remove_dir, write_snapshot};
use super::{ImportFailure, Progress};
use apply::apply;
use word::{LOOK_EVERY, Word, forget};

use crate::env::{Access, DiskFile, Env, make_dir_durably, unblock};
use crate::import::remote::{Feed, Remote, RemoteError, SaveError};
use crate::import::{Database, ImportError};
use crate::ops::config::Config;
use crate::ops::data_dir::DataDir;
use crate::server::rebuild;
use crate::storage::backend::Engine;
use crate::storage::{AppliedPosition, Store, StoreConfig};
use crate::types::Revision;

/// Where the state lies while it follows, inside the data directory that it becomes.
pub(super) const SCRATCH: &str = "follow.tmp";
/// Between two tries of a source that doesn't answer, at first and at most.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Tries to let the source write again before this process ends.
const LAST_TRIES: u32 = 5;
/// Between two lines of the log.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Whether the data directory is one that took over already, which makes it in one step; not that of any other member. What
/// is left over of the following goes.
///
/// # Errors
/// The directory can't be read.
pub fn is_taken_over(env: &Env, config: &Config) -> Result<bool, ImportFailure> {
    let disk = env.disk.as_ref();
    if !DataDir::is_taken_over(disk, &config.member.data_dir)? {
        return Ok(false);
    }
    let scratch = config.member.data_dir.join(SCRATCH);
    if let Err(error) = remove_dir(disk, &scratch) {
        tracing::warn!(%error, "taken over before; remove this by hand");
    }
    Ok(true)
}

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

/// How a source is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowOptions {
    /// It is kept from writing.
    pub fence: bool,
    /// Its HashKV is compared with that of what was taken over.
    pub compare: bool,
}

/// Follows one source into one data directory.
pub struct Follower {
    env: Env,
    config: Config,
    remote: Remote,
    options: FollowOptions,
    /// The source may be kept from writing, and wasn't taken over.
    may_be_fenced: bool,
    scratch: PathBuf,
    _lock: Arc<dyn DiskFile>,
}

/// The state so far.
struct State {
    store: Store,
    position: AppliedPosition,
    /// The source's count of changes of users and roles, as of those in the store.
    auth_revision: u64,
    /// What its HashKV counts besides records.
    marks: Vec<Revision>,
}

impl Follower {
    /// Makes the place in the data directory; nobody is asked yet.
    ///
    /// # Errors
    /// A directory that is used, or followed into by another process.
    pub fn open(env: Env, config: Config, remote: Remote, options: FollowOptions) -> Result<Self, ImportFailure> {
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
        Ok(Self { env, config, remote, options, may_be_fenced: false, scratch, _lock: lock })
    }

    /// Follows until it has taken over.
    ///
    /// # Errors
    /// What the source refuses for good, and what goes wrong on this side.
    pub async fn run(mut self) -> Result<TakenOver, FollowError> {
        let mut pause = RETRY_MIN;
        loop {
            self.unfence().await;
            match self.round().await {
                Ok(taken) => {
                    // The member is made: what is left over doesn't undo that.
                    if let Err(error) = remove_dir(self.env.disk.as_ref(), &self.scratch) {
                        tracing::warn!(%error, "taken over; remove this by hand");
                    }
                    return Ok(taken);
                }
                Err(Ended::Again(why)) => tracing::warn!(why, "beginning again with a new snapshot"),
                Err(Ended::Failed(FollowError::Remote(error))) if error.is_passing() => {
                    tracing::warn!(%error, again_in = ?pause, "no snapshot of the source; will try again");
                    tokio::time::sleep(pause).await;
                    pause = (2 * pause).min(RETRY_MAX);
                    self.remote = self.remote.elsewhere();
                }
                Err(Ended::Failed(error)) => {
                    for _ in 0..LAST_TRIES {
                        if self.unfence().await {
                            break;
                        }
                        tokio::time::sleep(RETRY_MIN).await;
                    }
                    return Err(error);
                }
            }
        }
    }

    /// From a snapshot on, until it was taken over.
    async fn round(&mut self) -> Result<TakenOver, Ended> {
        let mut state = self.begin().await?;
        let mut told = self.env.clock.now();
        let mut unfence_again: Instant = told;
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
                            && let Some(taken) = self.take_over(&mut state, &mut feed, word).await?
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
                    if let Some(word) = self.word()? {
                        if let Some(taken) = self.take_over(&mut state, &mut feed, word).await? {
                            return Ok(taken);
                        }
                        unfence_again = self.env.clock.now() + RETRY_MAX;
                    } else if self.may_be_fenced && self.env.clock.now() >= unfence_again {
                        self.unfence().await;
                        unfence_again = self.env.clock.now() + RETRY_MAX;
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
    async fn wait_for(&mut self, error: RemoteError, pause: &mut Duration) -> Result<(), Ended> {
        match error {
            RemoteError::Compacted(at) => Err(Ended::Again(format!("the source compacted its history up to {at}"))),
            error if error.is_passing() => {
                tracing::warn!(%error, again_in = ?*pause, "the watch of the source broke; will go on where it stood");
                self.unfence().await;
                tokio::time::sleep(*pause).await;
                *pause = (2 * *pause).min(RETRY_MAX);
                self.remote = self.remote.elsewhere();
                Ok(())
            }
            error => Err(error.into()),
        }
    }

    fn word(&self) -> Result<Option<Word>, FollowError> {
        Ok(word::heard(self.env.disk.as_ref(), &self.scratch)?)
    }
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
    let written = write_snapshot(env, &database, position, &Bytes::new(), 0, Fence::Down, &base)?;
    let (mut store, _) = Store::open(env, StoreConfig::new(Engine::Redb, &dir))?;
    rebuild::install(env, &mut store, &base)?;
    let auth_revision = database.auth_revision()?;
    forget(disk, &base)?;
    forget(disk, file)?;
    Ok(State { store, position, auth_revision, marks: written.marks })
}

#[cfg(test)]
mod tests {
    use super::*;

    // Cause: any member's directory passed for one that was taken over. Symptom: with a `--data-dir` typed wrong the member of
    // another cluster was served to clients that were sent to the new one.
    #[test]
    fn only_what_was_taken_over_is_served_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real();
        let mut config = Config::default();
        config.member.data_dir = dir.path().to_owned();
        assert!(!is_taken_over(&env, &config).unwrap());
        let data = DataDir::open(env.disk.as_ref(), &config, None).unwrap();
        assert!(!is_taken_over(&env, &config).unwrap(), "somebody else's");
        data.mark_taken_over(env.disk.as_ref()).unwrap();
        assert!(is_taken_over(&env, &config).unwrap());
    }
}
