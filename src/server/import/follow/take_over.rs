//! The take-over: the source stands still, the state is brought to its last, the data directory is made of it.
//!
//! ```text
//! users, if changed ─► fence ─► up to the last revision ─► users, leases ─► nothing moved? ─► data directory, HashKV
//!                        └───────────── anything failed: unfence, until the source hears it ◄─┘
//! ```

use std::pin::pin;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::apply::{apply, replace_rows};
use super::word::{self, Word};
use super::{Ended, FollowError, Follower, State, TakenOver, ended_task};
use crate::consensus::seed_membership;
use crate::env::{Env, unblock};
use crate::import::remote::{Feed, RemoteError};
use crate::import::{Database, ImportError};
use crate::lease::LeaseRecord;
use crate::ops::config::Config;
use crate::server::import::ImportFailure;
use crate::server::import::build::make;
use crate::server::{core, rebuild};
use crate::storage::snapshot::MEMBERSHIP_KEY;
use crate::storage::{AppliedPosition, StoreReader, Table};
use crate::types::{RaftIndex, StorageError};

/// How long the last revisions may take to come after the source was fenced.
pub(super) const CATCH_UP_MAX: Duration = Duration::from_secs(60);

impl Follower {
    /// Takes over, or says why not and follows on; without `feed`, if that broke meanwhile.
    pub(super) async fn take_over(
        &mut self,
        state: &mut State,
        feed: &mut Option<Feed>,
        word: Word,
    ) -> Result<Option<TakenOver>, Ended> {
        let begun = self.env.clock.now();
        tracing::info!(revision = state.store.revision(), "told to take over");
        let why = match self.last_state(state, feed, word).await {
            Ok(()) => match self.finish(state, word).await {
                Ok(()) => {
                    let pause = self.env.clock.now().saturating_duration_since(begun);
                    return Ok(Some(TakenOver { revision: state.store.revision(), pause }));
                }
                Err(error) => error.to_string(),
            },
            Err(Ended::Failed(error)) => error.to_string(),
            Err(again) => {
                self.unfence().await;
                // The word stays: the next round hears it.
                return Err(again);
            }
        };
        self.unfence().await;
        tracing::error!(why, "did not take over; following on");
        word::refuse(self.env.disk.as_ref(), &self.scratch, &why)?;
        Ok(None)
    }

    /// Lets the source write again, as it was not taken over. Whether it heard it; if not, that is tried again.
    pub(super) async fn unfence(&mut self) -> bool {
        if !self.may_be_fenced {
            return true;
        }
        match self.remote.unfence().await {
            Ok(()) => self.may_be_fenced = false,
            Err(error) => tracing::error!(
                %error,
                "the source may still refuse writes; will try to let it write again (etcdctl alarm disarm does it, too)"
            ),
        }
        !self.may_be_fenced
    }

    /// Brings the state to the source's last.
    async fn last_state(&mut self, state: &mut State, feed: &mut Option<Feed>, word: Word) -> Result<(), Ended> {
        if word == Word::WithoutSource {
            tracing::warn!(
                revision = state.store.revision(),
                "taking over what is known, without the source: keys of leases that were granted since its snapshot \
                 don't end by themselves"
            );
            return Ok(());
        }
        if feed.is_none() {
            return Err(RemoteError::Unreachable("its watch is broken".into()).into());
        }
        // Users first: a whole snapshot may be needed for them, which is better taken while the source still writes.
        self.users(state).await?;
        let last = if self.options.fence {
            // Before it is asked: an answer that doesn't come says nothing.
            self.may_be_fenced = true;
            self.remote.fence().await?
        } else {
            self.remote.revision().await?
        };
        let fenced: Instant = self.env.clock.now();
        while state.store.revision() < last {
            let left = CATCH_UP_MAX.saturating_sub(self.env.clock.now().saturating_duration_since(fenced));
            let Some(open) = feed.as_mut() else {
                return Err(RemoteError::Unreachable("its watch is broken".into()).into());
            };
            let next = tokio::time::timeout(left, open.next()).await;
            match next.map_err(|_| RemoteError::Unreachable("its last changes don't come".into()))? {
                Ok((changes, _)) => apply(state, changes).await?,
                Err(error) => {
                    *feed = None;
                    return Err(match error {
                        RemoteError::Compacted(at) => {
                            Ended::Again(format!("the source compacted its history up to {at}"))
                        }
                        error => error.into(),
                    });
                }
            }
        }
        self.users(state).await?;
        let leases = self.remote.leases().await?;
        self.has_not_moved(state, last).await?;
        let rows = leases.iter().map(|(id, record)| (LeaseRecord::key(*id), record.encode()));
        Ok(replace_rows(state, Table::Lease, rows.collect())?)
    }

    /// Refuses if anything was changed while the last was asked for, by a writer or by who manages users.
    async fn has_not_moved(&self, state: &State, last: i64) -> Result<(), Ended> {
        // A fence lets no revision come after.
        let now = if self.options.fence { last } else { self.remote.revision().await? };
        if now != last || state.store.revision() != last {
            let why = "the source is still written to: leave --fence at true, or stop its writers";
            return Err(ImportFailure::Refused(why.into()).into());
        }
        if self.remote.auth_revision().await? != state.auth_revision {
            let why = "users or roles of the source are being changed: take over again when that is done";
            return Err(ImportFailure::Refused(why.into()).into());
        }
        Ok(())
    }

    /// Takes users and roles from a new snapshot, if they were changed since those in the store.
    async fn users(&self, state: &mut State) -> Result<(), Ended> {
        if self.remote.auth_revision().await? == state.auth_revision {
            return Ok(());
        }
        let file = self.scratch.join("users.db");
        self.download(&file).await?;
        let disk = self.env.disk.clone();
        let read = unblock(move || -> Result<_, ImportError> {
            let database = Database::open(disk.as_ref(), &file)?;
            Ok((database.auth()?, database.auth_revision()?))
        });
        let (rows, revision) = read.await.map_err(|error| ended_task(&error))??;
        Ok(take_users(state, rows, revision)?)
    }

    /// Makes the data directory of the state, if that is the source's.
    async fn finish(&self, state: &mut State, word: Word) -> Result<(), FollowError> {
        let position = AppliedPosition { index: RaftIndex(state.position.index.get() + 1), ..state.position };
        let membership = seed_membership(position, core::initial(&self.config));
        let membership = membership.map_err(|error| ImportFailure::Refused(error.to_string()))?;
        state.store.put_meta(Table::Meta, Bytes::from_static(MEMBERSHIP_KEY), Some(membership));
        state.store.publish(position)?;
        state.position = position;
        let (env, config, reader) = (self.env.clone(), self.config.clone(), state.store.reader());
        let (say, verdict) = mpsc::sync_channel(1);
        let mut made = pin!(unblock(move || finish_files(&env, &config, position, &reader, &verdict)));
        // At the same time: both read everything, and nobody can write meanwhile.
        let compared = async {
            match word {
                Word::Now if self.options.compare => self.compare(state).await,
                _ => Ok(()),
            }
        };
        let made = tokio::select! {
            // It can't be done without the verdict, so it failed.
            made = &mut made => made,
            compared = compared => {
                let differs = compared.is_err();
                // Nobody hears it if that has failed meanwhile, which it then says.
                let _ = say.send(!differs);
                let made = made.await;
                compared?;
                made
            }
        };
        made.map_err(|error| ended_task(&error))?.map_err(FollowError::from)
    }
}

/// Rows and their count together: what counts as known is in the store, whatever comes of the take-over.
fn take_users(state: &mut State, rows: Vec<(Bytes, Bytes)>, revision: u64) -> Result<(), StorageError> {
    replace_rows(state, Table::Auth, rows)?;
    state.auth_revision = revision;
    Ok(())
}

fn finish_files(
    env: &Env,
    config: &Config,
    position: AppliedPosition,
    reader: &StoreReader,
    verdict: &mpsc::Receiver<bool>,
) -> Result<(), ImportFailure> {
    make(env, config, position, &mut |draft| {
        rebuild::save(env.clone(), reader.clone(), draft.snapshots())()?;
        draft.mark_taken_over(env.disk.as_ref())?;
        match verdict.recv() {
            Ok(true) => Ok(()),
            // The cause is told by whoever compared.
            _ => Err(ImportFailure::Refused("it was not compared with the source".into())),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Store;
    use crate::types::Term;

    #[test]
    fn users_of_a_refused_take_over_are_those_of_the_next_one() {
        let position = AppliedPosition { index: RaftIndex(5), term: Term(2) };
        let mut state = State { store: Store::in_memory(), position, auth_revision: 1, marks: Vec::new() };
        let row = |name: &'static str| (Bytes::from(name), Bytes::from("1"));
        take_users(&mut state, vec![row("ann"), row("bob")], 4).unwrap();
        take_users(&mut state, vec![row("ann"), row("eve")], 7).unwrap();
        let rows = state.store.reader().snapshot().rows().of(Table::Auth);
        let names: Vec<_> = rows.iter().map(|(key, _)| &key[..]).collect();
        assert_eq!((names, state.auth_revision), (vec![&b"ann"[..], b"eve"], 7), "what is counted as known is there");
    }
}
