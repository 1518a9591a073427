//! Whoever runs the cluster: adds members, promotes, removes and replaces them, moves the lead, one thing after the other.
//!
//! ```text
//! list (as of now) ─► a member that was added and never started? ─► its machine is put up
//!                  └► else: add a learner or a voter · promote · remove · hand the lead over · clear an old machine away
//! ```
//! What came of a change is never assumed: the next list says it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rusd::consensus::{MemberChange, MemberRecord};
use rusd::types::{MemberId, RequestError};
use rusd_sim::random::Rand;
use tokio::sync::oneshot;

use super::door::Request;
use super::{Order, World, net};

/// Between two looks, in milliseconds.
const PAUSE_MS: (u64, u64) = (300, 3_000);
/// Beyond what a change may take.
const PATIENCE: Duration = Duration::from_secs(8);
/// Members that joined have numbers from here on.
const FIRST_ID: u64 = 100;

struct Operator {
    world: Arc<World>,
    rand: Rand,
    next: u64,
    /// Members that have been put up once: what they promised is on their disks, so never again.
    started: BTreeSet<MemberId>,
}

/// Runs until the cluster is still and every member of it runs.
pub(crate) async fn run(world: Arc<World>) -> turmoil::Result {
    let rand = Rand::new(world.settings.seed, 300);
    let started = world.cluster.lock().ids.clone();
    let mut operator = Operator { world, rand, next: FIRST_ID, started };
    loop {
        let is_over = operator.world.is_over.load(Ordering::Relaxed);
        let pause = if is_over { 100 } else { operator.rand.between(PAUSE_MS.0, PAUSE_MS.1) };
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let Some(members) = operator.list().await else { continue };
        let is_whole = operator.put_up(&members);
        if is_whole && operator.world.is_settled.load(Ordering::Relaxed) {
            return Ok(());
        }
        if is_whole && !is_over {
            operator.change(&members).await;
        }
    }
}

impl Operator {
    async fn ask<T>(&mut self, at: usize, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let sent = self.world.hosts[at].port.lock().as_ref().is_some_and(|port| port.send(request(reply)).is_ok());
        if !sent {
            return None;
        }
        tokio::time::timeout(PATIENCE, answer).await.ok()?.ok()
    }

    /// Who is in the cluster, from any member.
    async fn list(&mut self) -> Option<Vec<MemberRecord>> {
        let at = self.rand.index(self.world.hosts.len());
        let members = self.ask(at, Request::Members).await?.ok()?;
        self.world.cluster.lock().ids = members.iter().map(|member| member.id).collect();
        Some(members)
    }

    fn place_of(&self, member: &MemberRecord) -> Option<usize> {
        self.world.hosts.iter().position(|host| member.peer_urls == [net::url_of(&host.name)])
    }

    /// Starts members that never were; whether there was none.
    fn put_up(&mut self, members: &[MemberRecord]) -> bool {
        let mut is_whole = true;
        for member in members {
            let Some(at) = self.place_of(member) else { continue };
            if self.started.insert(member.id) {
                self.world.orders.lock().push((at, Order::Start(member.id)));
                is_whole = false;
            }
        }
        is_whole
    }

    async fn change(&mut self, members: &[MemberRecord]) {
        let taken: Vec<usize> = members.iter().filter_map(|member| self.place_of(member)).collect();
        let mut free = (0..self.world.hosts.len()).filter(|at| !taken.contains(at));
        let (first, second) = (free.next(), free.next());
        let free = if self.rand.chance(50) { second.or(first) } else { first };
        let at = taken[self.rand.index(taken.len())];
        let some = members[self.rand.index(members.len())].id;
        let learner = members.iter().find(|member| member.is_learner).map(|member| member.id);
        let most = self.world.settings.members + 1;
        let change = match (self.rand.below(10), free) {
            (0..4, Some(free)) if members.len() < most => {
                let id = MemberId(self.next);
                self.next += 1;
                // Whoever stood there was removed, and may not have noticed.
                if self.world.hosts[free].machine().id.is_some() {
                    self.world.orders.lock().push((free, Order::Clear));
                }
                let peer_urls = vec![net::url_of(&self.world.hosts[free].name)];
                MemberChange::Add { id, peer_urls, learner: self.rand.chance(50) }
            }
            (4..6, _) if learner.is_some() => MemberChange::Promote { id: learner.unwrap_or(some) },
            (0..8, _) if members.len() >= self.world.settings.members => {
                self.world.cluster.lock().removed.insert(some);
                MemberChange::Remove { id: some }
            }
            _ => {
                let moved = self.ask(at, |reply| Request::Move(some, reply)).await;
                return self.note(format!("move the lead to {some}"), moved);
            }
        };
        let done = self.ask(at, |reply| Request::Change(change.clone(), reply)).await;
        self.note(format!("{change:?}"), done);
    }

    fn note<T: std::fmt::Debug>(&self, what: String, outcome: Option<Result<T, RequestError>>) {
        if matches!(outcome, Some(Ok(_))) {
            self.world.cluster.lock().changes += 1;
        }
        self.world.note(format_args!("operator: {what} -> {outcome:?}"));
    }
}
