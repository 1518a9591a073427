//! A member whose state differs from the others' takes the leader's in its place.
//!
//! ```text
//! told (or found by itself) ─► noted on disk (`marks`) ─► it leads? hands over
//!   ─► compared by itself with the others ─┬► the same ─► serves, mark and alarm go
//!                                          ├► nobody can say ─► later
//!                                          └► proven wrong, noted ─► the leader, if it is right, sends a snapshot of now
//!   ─► fits the log? not too often lately? its turn (`turns`)? ─► counted ─► Raft ends ─► the log's end is noted
//!   ─► starts again ─► install: old store aside, new one of the snapshot and the log (`install`) ─► compared …
//! ```
//! Until the comparison it isn't served, whatever happened before it. The log is right all the time, so the member
//! keeps its vote. A snapshot is counted before anything is done with it, so that the tries come to an end.

mod install;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::compare::ANSWER_MAX;
use super::marks::Marks;
use super::witnesses::{Standing, own_digests, standing, witnesses};
use crate::apply::{AlarmKind, AlarmOp, AlarmView, Command};
use crate::auth::AuthView;
use crate::consensus::Node;
use crate::consensus::peer::HEALING;
use crate::env::{Env, unblock};
use crate::ops::data_dir::{Aside, DataDir, DataDirError, Divergence, HEALINGS_MAX, HEALINGS_WITHIN};
use crate::propose::Proposer;
use crate::storage::AppliedPosition;
use crate::types::{MemberId, RequestError};
use crate::wal::Wal;
use crate::watch::StreamEnd;

use install::ATTEMPTS_MAX;
pub(super) use install::{ask_back, install, note_arrival, settle};

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
    pub(super) marks: Arc<Marks>,
    pub(super) data: Arc<DataDir>,
    pub(super) env: Env,
    pub(super) wal: Arc<Wal>,
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
    /// Where the snapshot stands that has come, once it was read through.
    came: Option<AppliedPosition>,
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
                    self.remove_ready();
                    self.clear_alarm().await;
                    continue;
                }
                if sick.is_none() && !self.enabled {
                    tracing::error!(
                        "it isn't healed either, as --heal-diverged=false says: remove this member, and add it again \
                         with an empty data directory"
                    );
                }
                let sick = sick.get_or_insert_with(|| Sick {
                    ask_at: Instant::now(),
                    ask_after: ASK_AGAIN_MIN,
                    given_up: !self.enabled,
                    came: None,
                });
                self.look(sick).await;
                self.node.status().set_left_alone(sick.given_up);
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
        // Not before a start would know it, too.
        let Ok(Some(mark)) = self.data.divergence(self.env.disk.as_ref()) else { return };
        if mark.arrived.is_some() {
            // It was dealt with at the start, and what comes next is to be counted.
            self.note(&Divergence { arrived: None, ..mark });
            return;
        }
        // Whoever said it may be wrong, and what has taken the state's place may be right.
        let times_told = self.marks.times_told();
        let right = match self.compare().await {
            Standing::Right(_) if mark.healed.is_some() || !mark.proven => return self.healed(&mark, times_told),
            // What it holds of before that is wrong, and no comparison tells.
            Standing::Right(alike) => alike,
            Standing::Wrong(right) if mark.proven || self.note(&Divergence { proven: true, ..mark }) => right,
            // The others don't answer, or are a state and its copies, or there is no common entry yet.
            Standing::Wrong(_) | Standing::Unknown => return,
        };
        let mark = Divergence { proven: true, ..mark };
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
        match self.data.healings_since(self.env.disk.as_ref(), self.env.clock.wall()) {
            Ok(lately) if lately < HEALINGS_MAX => {}
            Ok(lately) => {
                tracing::error!(lately, within = ?HEALINGS_WITHIN, "its state was replaced too often: no more of it");
                // Seen with the next look, and by each start.
                self.note(&Divergence { attempts: u32::MAX, ..mark });
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "how often its state was replaced lately can't be read; not without knowing it");
                return;
            }
        }
        // One that is wrong, too, would send what is of no use.
        let Some(leader) = self.node.status().leader().filter(|leader| right.contains(leader)) else { return };
        if self.env.disk.exists(&self.ready()).unwrap_or(false) {
            return self.take_in(sick, &mark, leader).await;
        }
        self.ask(sick, leader).await;
    }

    fn ready(&self) -> PathBuf {
        self.data.snapshots().join(HEALING)
    }

    /// What came too late, or is of no use.
    fn remove_ready(&self) {
        let ready = self.ready();
        if self.env.disk.exists(&ready).unwrap_or(false)
            && let Err(error) = self.env.disk.remove(&ready)
        {
            tracing::warn!(%error, path = %ready.display(), "what came for healing could not be removed; it will be");
        }
    }

    fn note(&self, mark: &Divergence) -> bool {
        let noted = self.data.note_divergence(self.env.disk.as_ref(), mark);
        if let Err(error) = &noted {
            tracing::warn!(%error, "how far this member's healing is could not be noted; it will be");
        }
        noted.is_ok()
    }

    /// A state has come: all that can be known of it is known before this member ends for it.
    async fn take_in(&self, sick: &mut Sick, mark: &Divergence, leader: MemberId) {
        if !self.fits(sick).await {
            sick.came = None;
            return self.remove_ready();
        }
        match self.node.peers().ask_turn(leader, ANSWER_MAX).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::debug!(%leader, "it isn't this member's turn to start again");
                return;
            }
            Err(error) => {
                tracing::debug!(%leader, %error, "the leader doesn't say whether this member may start again");
                return;
            }
        }
        match self.count(mark) {
            Ok(()) => {
                tracing::warn!("the others' state has arrived; starting again with it");
                self.restart.send_replace(true);
            }
            Err(error) => tracing::warn!(%error, "the others' state has arrived, which could not be noted; it will be"),
        }
    }

    /// Whether it is whole, and the log goes on from it.
    async fn fits(&self, sick: &mut Sick) -> bool {
        let position = match sick.came {
            Some(position) => position,
            None => {
                let (env, ready) = (self.env.clone(), self.ready());
                match unblock(move || install::read(&env, &ready)).await {
                    Ok(Ok(position)) => *sick.came.insert(position),
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "what came to heal this member is of no use");
                        return false;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "what came to heal this member could not be read");
                        return false;
                    }
                }
            }
        };
        match install::fits(&self.wal, position) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "what came to heal this member is of no use any more");
                false
            }
        }
    }

    fn count(&self, mark: &Divergence) -> Result<(), DataDirError> {
        let disk = self.env.disk.as_ref();
        self.data.note_healing(disk, self.env.clock.wall())?;
        self.data.note_divergence(disk, &mark.counted())
    }

    async fn ask(&self, sick: &mut Sick, leader: MemberId) {
        sick.came = None;
        if sick.ask_at > Instant::now() {
            return;
        }
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

    fn healed(&self, mark: &Divergence, times_told: u64) {
        match self.marks.clear(times_told) {
            Ok(true) => {}
            // Compared once more.
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(%error, "that this member is healed could not be noted; it will be");
                return;
            }
        }
        self.remove_ready();
        install::remove_later(self.env.disk.as_ref(), &self.data);
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
