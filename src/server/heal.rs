//! A member whose state differs from the others' takes the leader's in its place.
//!
//! ```text
//! told (or found by itself) ─► noted on disk (`marks`) ─► it leads? hands over
//!   ─► compared by itself with the others ─┬► the same ─► serves, mark and alarm go
//!                                          ├► nobody can say ─► later
//!                                          └► proven wrong, noted ─► is there room? might it have a turn (`turns`)?
//!   ─► the leader, if it is right, sends a snapshot of now; the log is kept meanwhile (`fetch`)
//!   ─► fits the log? not too often lately? its turn? ─► counted ─► Raft ends ─► the log's end is noted
//!   ─► starts again ─► install: old store aside, new one of the snapshot and the log (`install`) ─► compared …
//! ```
//! Until the comparison it isn't served, whatever happened before it. The log is right all the time, so the member
//! keeps its vote. A snapshot is counted before anything is done with it, so that the tries come to an end.

mod fetch;
mod install;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::compare::ANSWER_MAX;
use super::marks::Marks;
use super::scrub::Care;
use super::witnesses::{Standing, own_digests, standing, witnesses};
use crate::apply::{AlarmKind, AlarmOp, AlarmView, Command};
use crate::auth::AuthView;
use crate::consensus::Node;
use crate::env::{Disk, Env, unblock};
use crate::ops::data_dir::{Aside, DataDir, DataDirError, Divergence, HEALINGS_MAX, HEALINGS_WITHIN, Healings};
use crate::propose::Proposer;
use crate::storage::StoreReader;
use crate::types::{MemberId, RequestError};
use crate::wal::Wal;
use crate::watch::StreamEnd;

use fetch::Fetch;
use install::ATTEMPTS_MAX;
pub(super) use install::{ask_back, install, note_arrival, note_read, settle};

/// Between two looks.
const EVERY: Duration = Duration::from_millis(500);
/// Looks between two times that the same is said of a mark that can't be read: a minute.
const SAID_EVERY: u32 = 120;
/// How long a leader that differs waits until another member leads.
const HAND_OVER_MAX: Duration = Duration::from_secs(2);
/// gRPC's number for "data loss".
const DATA_LOSS: i32 = 15;

/// How clients' streams end at a member that differs.
pub(super) fn streams_end() -> StreamEnd {
    StreamEnd { code: DATA_LOSS, message: RequestError::Corrupt.to_string() }
}

/// Looks after this member's own divergence.
pub(super) struct Healer {
    pub(super) node: Node,
    pub(super) proposer: Proposer,
    pub(super) alarms: AlarmView,
    pub(super) auth: AuthView,
    pub(super) marks: Arc<Marks>,
    pub(super) data: Arc<DataDir>,
    pub(super) env: Env,
    pub(super) wal: Arc<Wal>,
    pub(super) reader: StoreReader,
    pub(super) care: Arc<Care>,
    /// `--heal-diverged`.
    pub(super) enabled: bool,
    /// Becomes true when the process has to start again.
    pub(super) restart: watch::Sender<bool>,
}

/// What the healer remembers between two looks, while this member differs.
struct Sick {
    given_up: bool,
    /// Looks in which the mark could not be read.
    unread: u32,
    fetch: Fetch,
}

impl Healer {
    /// Runs until the task is aborted, or the process has to start again.
    pub(super) fn spawn(self) -> JoinHandle<()> {
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(EVERY);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let (mut sick, mut is_removed) = (None, false);
            while !*self.restart.borrow() {
                tick.tick().await;
                if self.node.status().diverged().is_none() {
                    sick = None;
                    self.node.status().set_awaits_state(false);
                    // Once: what comes in later is refused, or removed by whoever took it in.
                    is_removed = is_removed || self.remove_ready().await;
                    self.clear_alarm().await;
                    continue;
                }
                is_removed = false;
                if sick.is_none() && !self.enabled {
                    tracing::error!(
                        "it isn't healed either, as --heal-diverged=false says: remove this member, and add it again \
                         with an empty data directory"
                    );
                }
                let sick = sick.get_or_insert_with(|| Sick { given_up: !self.enabled, unread: 0, fetch: Fetch::new() });
                self.look(sick).await;
                if !*self.restart.borrow() {
                    self.keep_log(&mut sick.fetch).await;
                }
            }
        })
    }

    async fn look(&self, sick: &mut Sick) {
        if self.node.status().is_leader() {
            tracing::warn!("this member's state differs, and it leads: handing the lead over");
            let raised = self.alarms.load().list(Some(AlarmKind::Diverged));
            let others: Vec<MemberId> = raised.into_iter().map(|(member, _)| member).collect();
            if self.node.hand_over_but(HAND_OVER_MAX, &others).await.is_none() {
                tracing::warn!("nobody took the lead over; will try again");
            }
            return;
        }
        let mark = match self.on_disk(|data, disk| data.divergence(disk)).await {
            Ok(Some(mark)) => mark,
            // Not before a start would know it, too.
            Ok(None) => return,
            Err(error) => {
                if sick.unread.is_multiple_of(SAID_EVERY) {
                    tracing::warn!(%error, "how far this member's healing is can't be read: it stays as it is, not served");
                }
                sick.unread = sick.unread.wrapping_add(1);
                return;
            }
        };
        if mark != mark.dealt_with() {
            // It was dealt with at the start, and what comes next is to be counted.
            self.note(mark.dealt_with()).await;
            return;
        }
        // Whoever said it may be wrong, and what has taken the state's place may be right.
        let times_told = self.marks.times_told();
        let right = match self.compare().await {
            Standing::Right(_) if mark.ends_with_likeness() => return self.healed(&mark, times_told).await,
            // What it holds of before that is wrong, and no comparison tells.
            Standing::Right(alike) => alike,
            Standing::Wrong(right) => right,
            // The others don't answer, or are a state and its copies, or there is no common entry yet.
            Standing::Unknown => return,
        };
        // Before anything that could be taken for a cure later.
        let (before, mark) = (mark, mark.seen_wrong());
        if mark != before && !self.note(mark).await {
            return;
        }
        if sick.given_up {
            return;
        }
        if mark.attempts >= ATTEMPTS_MAX {
            sick.given_up = true;
            tracing::error!(
                attempts = mark.attempts,
                "this member differs though its state was replaced, or differs again and again: remove it, look at its \
                 machine, and add it again with an empty data directory"
            );
            return;
        }
        let now = self.env.clock.wall();
        match self.on_disk(move |data, disk| data.healings_since(disk, now)).await {
            Ok(lately) if lately.replaced < HEALINGS_MAX => sick.fetch.was_full(lately.full),
            Ok(Healings { replaced, .. }) => {
                tracing::error!(lately = replaced, within = ?HEALINGS_WITHIN, "its state was replaced too often: no more of it");
                // Seen with the next look, and by each start.
                self.note(Divergence { attempts: u32::MAX, ..mark }).await;
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "how often its state was replaced lately can't be read; not without knowing it");
                return;
            }
        }
        // One that is wrong, too, would send what is of no use.
        let Some(leader) = self.node.status().leader().filter(|leader| right.contains(leader)) else { return };
        self.fetch(&mut sick.fetch, &mark, leader).await;
    }

    /// Asks the disk, which may hang, where no thread that serves waits for it.
    async fn on_disk<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&DataDir, &dyn Disk) -> Result<T, DataDirError> + Send + 'static,
    ) -> io::Result<T> {
        let (data, disk) = (self.data.clone(), self.env.disk.clone());
        unblock(move || ask(&data, disk.as_ref())).await?.map_err(io::Error::other)
    }

    async fn note(&self, mark: Divergence) -> bool {
        let noted = self.on_disk(move |data, disk| data.note_divergence(disk, &mark)).await;
        if let Err(error) = &noted {
            tracing::warn!(%error, "how far this member's healing is could not be noted; it will be");
        }
        noted.is_ok()
    }

    /// How this member stands among all.
    async fn compare(&self) -> Standing {
        let me = self.node.status().member();
        let members = self.node.members();
        let others = members.iter().map(|member| member.id).filter(|id| *id != me);
        let ask = |id| async move { Some((id, self.node.peers().digests(id, None, ANSWER_MAX).await.ok()?)) };
        let answers = futures::future::join_all(others.map(ask)).await;
        let mut known: Vec<_> = answers.into_iter().flatten().collect();
        known.push((me, own_digests(&self.node)));
        let [trusted, _] = witnesses(known, &self.alarms);
        standing(&trusted, members.len())
    }

    async fn healed(&self, mark: &Divergence, times_told: u64) {
        match self.marks.clear(times_told) {
            Ok(true) => {}
            // Compared once more.
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(%error, "that this member is healed could not be noted; it will be");
                return;
            }
        }
        let tidied = self.on_disk(|data, disk| {
            install::remove_later(disk, data);
            Ok(())
        });
        if let Err(error) = tidied.await {
            tracing::warn!(%error, "what healing has left could not be looked for");
        }
        let aside = self.data.diverged_store(Aside::First);
        if mark.healed.is_some() {
            tracing::info!(
                differed_at = %mark.index, aside = %aside.display(),
                "this member holds what the others do again, and serves; its old store is kept aside"
            );
        } else {
            tracing::info!(differed_at = %mark.index, "this member holds what the others do, and serves again");
        }
    }

    /// Whoever doesn't differ has no alarm for it. What is raised meanwhile was preceded by being told.
    async fn clear_alarm(&self) {
        let member = self.node.status().member();
        let alarm = (member, AlarmKind::Diverged);
        if !self.alarms.load().list(Some(AlarmKind::Diverged)).contains(&alarm) {
            return;
        }
        let clear = AlarmOp { activate: false, member, kind: Some(AlarmKind::Diverged) };
        if let Err(error) = self.proposer.propose(Command::Alarm(clear).by_member(&self.auth)).await {
            tracing::debug!(%error, "the alarm of this member's divergence could not be cleared; it will be");
        }
    }
}
