//! A member whose state differs from the others' takes the leader's in its place.
//!
//! ```text
//! told (or found by itself) ─► noted on disk ─► it leads? hands over ─► the leader sends a snapshot of now
//!   ─► starts again ─► install: old store aside, new one of the snapshot and the log (`install`)
//!   ─► compared with the others: a majority holds the same ─► serves, mark and alarm go
//!                                  └► it still differs ─► once more, a few times
//! ```
//! Until the comparison it isn't served, whatever happened before it. The log is right all the time, so the member
//! keeps its vote. A snapshot that has come is counted before anything is done with it, so that the tries come to an end.

mod install;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::compare::{ANSWER_MAX, Common, common, own_digests};
use crate::apply::{AlarmKind, AlarmOp, AlarmView, Command};
use crate::auth::AuthView;
use crate::consensus::peer::HEALING;
use crate::consensus::{Node, stands};
use crate::env::Disk;
use crate::ops::data_dir::{DataDir, Divergence, LogEnd};
use crate::propose::Proposer;
use crate::types::RequestError;
use crate::watch::StreamEnd;

pub(super) use install::{ATTEMPTS_MAX, install, put_back};

/// Between two looks.
const EVERY: Duration = Duration::from_millis(500);
/// How long a leader that differs waits until another member leads.
const HAND_OVER_MAX: Duration = Duration::from_secs(2);
/// Between two requests for a snapshot, at first and at most: each costs the leader a whole one.
const ASK_AGAIN_MIN: Duration = Duration::from_secs(2);
const ASK_AGAIN_MAX: Duration = Duration::from_secs(120);
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
    pub(super) data: Arc<DataDir>,
    pub(super) disk: Arc<dyn Disk>,
    /// `--heal-diverged`.
    pub(super) enabled: bool,
    /// Becomes true when the process has to start again.
    pub(super) restart: watch::Sender<bool>,
}

/// What the healer remembers between two looks, while this member differs.
struct Sick {
    ask_at: Instant,
    ask_after: Duration,
    given_up: bool,
}

impl Healer {
    /// Runs until the task is aborted, or the process has to start again.
    pub(super) fn spawn(self) -> JoinHandle<()> {
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(EVERY);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut sick = None;
            while !*self.restart.borrow() {
                tick.tick().await;
                if self.node.status().diverged().is_none() {
                    sick = None;
                    self.clear_alarm().await;
                    continue;
                }
                let first = sick.is_none();
                let sick = sick.get_or_insert_with(|| Sick {
                    ask_at: Instant::now(),
                    ask_after: ASK_AGAIN_MIN,
                    given_up: false,
                });
                if first && !self.enabled {
                    tracing::error!(
                        "it isn't healed either, for want of --heal-diverged: remove this member, and add it \
                         again with an empty data directory"
                    );
                }
                self.look(sick).await;
            }
        })
    }

    async fn look(&self, sick: &mut Sick) {
        if self.node.status().is_leader() {
            tracing::warn!("this member's state differs, and it leads: handing the lead over");
            if self.node.hand_over(HAND_OVER_MAX).await.is_none() {
                tracing::warn!("nobody took the lead over; will try again");
            }
            return;
        }
        // Not before a start would know it, too: that is the comparer's.
        let Ok(Some(mark)) = self.data.divergence(self.disk.as_ref()) else { return };
        // Whether or not it may be healed again: what has taken its state's place may be right.
        if mark.healed.is_some() {
            match self.compare().await {
                Some(true) => return self.healed(&mark),
                Some(false) => {}
                // The others don't answer, or there is no common entry yet.
                None => return,
            }
        }
        if !self.enabled || sick.given_up {
            return;
        }
        if mark.attempts >= ATTEMPTS_MAX {
            sick.given_up = true;
            tracing::error!(
                attempts = mark.attempts,
                "this member still differs after its state was replaced: remove it, and add it again with an empty \
                 data directory"
            );
            return;
        }
        if self.disk.exists(&self.data.snapshots().join(HEALING)).unwrap_or(false) {
            self.take_in(&mark);
            return;
        }
        self.ask(sick).await;
    }

    fn take_in(&self, mark: &Divergence) {
        let Some((last, term)) = self.node.status().durable() else { return };
        match self.data.note_divergence(self.disk.as_ref(), &mark.with_arrived(LogEnd { last, term })) {
            Ok(()) => {
                tracing::warn!("the others' state has arrived; starting again with it");
                self.restart.send_replace(true);
            }
            Err(error) => tracing::warn!(%error, "the others' state has arrived, which could not be noted; it will be"),
        }
    }

    async fn ask(&self, sick: &mut Sick) {
        let Some(leader) = self.node.status().leader().filter(|_| sick.ask_at <= Instant::now()) else { return };
        match self.node.peers().ask_healing(leader, ANSWER_MAX).await {
            Ok(true) => {
                tracing::info!(%leader, "the leader sends its state");
                sick.ask_at = Instant::now() + sick.ask_after;
                sick.ask_after = (2 * sick.ask_after).min(ASK_AGAIN_MAX);
            }
            Ok(false) => {}
            Err(error) => tracing::debug!(%leader, %error, "the leader can't send its state now"),
        }
    }

    /// Whether more than half of the members hold what this one does, and whoever doesn't is wrong; `None` if that
    /// can't be said now.
    async fn compare(&self) -> Option<bool> {
        let me = self.node.status().member();
        let members = self.node.members();
        let others = members.iter().map(|member| member.id).filter(|id| *id != me);
        let ask = |id| async move { Some((id, self.node.peers().digests(id, None, ANSWER_MAX).await.ok()?)) };
        let answers = futures::future::join_all(others.map(ask)).await;
        let mut known: Vec<_> = answers.into_iter().flatten().collect();
        known.push((me, own_digests(&self.node)));
        let Common { members: ids, witnesses, .. } = common(&known)?;
        stands(&witnesses, ids.iter().position(|id| *id == me)?, members.len())
    }

    fn healed(&self, mark: &Divergence) {
        if let Err(error) = self.data.clear_divergence(self.disk.as_ref()) {
            tracing::warn!(%error, "that this member is healed could not be noted; it will be");
            return;
        }
        self.node.status().clear_diverged();
        tracing::info!(
            differed_at = %mark.index, aside = %self.data.diverged_store().display(),
            "this member holds what the others do again, and serves; its old store is kept aside"
        );
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
