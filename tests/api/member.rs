//! A member without Raft and without a disk: commands are applied one by one on a thread.

use std::io::{Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use rusd::api::{Authentication, Maintain, MemberInfo, Propose, Standing, Waiting};
use rusd::apply::{AlarmView, Command, Machine, Outcome};
use rusd::auth::{AuthView, IssuedTokens, Tokens};
use rusd::consensus::MemberChange;
use rusd::env::Env;
use rusd::lease::{Lessor, Renewal};
use rusd::storage::backend::{Engine, MemoryImage};
use rusd::storage::compaction::{ReclaimOptions, Reclaimer};
use rusd::storage::{AppliedPosition, CompactStep, Store, StoreConfig, StoreReader};
use rusd::types::{LeaseId, MemberId, RaftIndex, RequestError, StorageError, Term};
use rusd::watch::{WatchHub, WatchLimits};
use tokio::sync::oneshot;

use crate::gate::Gate;

pub(crate) const MEMBER: MemberId = MemberId(0x8e9e_05c5_2164_694d);

enum Job {
    Apply(Command, oneshot::Sender<Outcome>),
    CompactStep(usize, oneshot::Sender<CompactStep>),
    Stop,
}

/// What the services see of the member.
pub(crate) struct Front {
    jobs: mpsc::Sender<Job>,
    applied: Arc<AtomicU64>,
    term: u64,
    /// Set by a test to take the leader away.
    pub(crate) leaderless: AtomicBool,
    /// Set by a test: reads must wait, as if there were other voters.
    pub(crate) barrier_fails: AtomicBool,
    /// Set by a test: commands are applied and never answered.
    pub(crate) mute: AtomicBool,
    /// Set by a test: what changes users and roles isn't applied, and its caller is told that its time is over.
    pub(crate) loses_changes: AtomicBool,
    /// Where leases to be granted are held before they are in the log, revokes, changes of users and roles, and
    /// confirmations of the lead.
    pub(crate) grants: Gate,
    pub(crate) revokes: Gate,
    pub(crate) changes: Gate,
    pub(crate) confirms: Gate,
    /// How many renewals the leader was asked for.
    pub(crate) renewals_asked: AtomicUsize,
    lessor: Arc<Lessor>,
    env: Env,
    peer_url: String,
    client_url: String,
}

/// The running member.
pub(crate) struct Member {
    pub(crate) front: Arc<Front>,
    pub(crate) reader: StoreReader,
    pub(crate) lessor: Arc<Lessor>,
    pub(crate) alarms: AlarmView,
    pub(crate) hub: WatchHub,
    auth: AuthView,
    tokens: Arc<IssuedTokens>,
    pub(crate) env: Env,
    thread: Option<JoinHandle<()>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Member {
    /// A member on what `image` holds.
    pub(crate) fn start(image: &MemoryImage, term: u64, watch: WatchLimits, client_url: String) -> Self {
        let env = Env::real();
        let (store, opened) = Store::open(&env, StoreConfig::new(Engine::Memory(image.clone()), "memory")).unwrap();
        let (leases, lessor) = Lessor::new(env.clock.now());
        let machine = Machine::open(store, &opened, leases).unwrap();
        let (reader, alarms) = (machine.reader(), machine.alarms());
        let (auth, tokens) = (machine.auth(), machine.tokens());
        lessor.promote(env.clock.now(), Duration::from_secs(1));
        let hub = WatchHub::new(reader.clone(), watch);
        let (jobs, queue) = mpsc::channel();
        // As if Raft had written its own first entries.
        let applied = Arc::new(AtomicU64::new(machine.applied().index.get().max(3)));
        let thread = {
            let (hub, reader, applied, lessor, env) =
                (hub.clone(), reader.clone(), applied.clone(), lessor.clone(), env.clone());
            std::thread::spawn(move || run(machine, &queue, term, &hub, &reader, &applied, &lessor, &env))
        };
        let front = Arc::new(Front {
            jobs,
            applied,
            term,
            leaderless: AtomicBool::new(false),
            barrier_fails: AtomicBool::new(false),
            mute: AtomicBool::new(false),
            loses_changes: AtomicBool::new(false),
            grants: Gate::default(),
            revokes: Gate::default(),
            changes: Gate::default(),
            confirms: Gate::default(),
            renewals_asked: AtomicUsize::new(0),
            lessor: lessor.clone(),
            env: env.clone(),
            peer_url: "http://127.0.0.1:2380".into(),
            client_url,
        });
        let step = {
            let front = front.clone();
            move |count| {
                let (reply, done) = oneshot::channel();
                let sent = front.jobs.send(Job::CompactStep(count, reply)).is_ok();
                async move { if sent { done.await.ok() } else { None } }
            }
        };
        let reclaimer = Reclaimer::new(reader.clone(), ReclaimOptions::default()).run(step);
        let expiry = tokio::spawn(expire(front.clone(), lessor.clone(), env.clone()));
        let tasks = vec![reclaimer, expiry];
        Self { front, reader, lessor, alarms, hub, auth, tokens, env, thread: Some(thread), tasks }
    }

    /// Users and roles of this member, with passwords that are soon hashed.
    pub(crate) fn authentication(&self) -> Authentication {
        let tokens = Tokens::Simple { issued: self.tokens.clone(), ttl: Duration::from_secs(300) };
        Authentication::new(self.auth.clone(), tokens, 4, false, self.env.clone())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.front.jobs.send(Job::Stop).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "all that the applier of a real member holds")]
fn run(
    mut machine: Machine,
    queue: &mpsc::Receiver<Job>,
    term: u64,
    hub: &WatchHub,
    reader: &StoreReader,
    applied: &AtomicU64,
    lessor: &Lessor,
    env: &Env,
) {
    for job in queue {
        match job {
            Job::Stop => return,
            Job::CompactStep(count, reply) => {
                reply.send(machine.store_mut().compact_step(count)).ok();
            }
            Job::Apply(command, reply) => {
                if matches!(command, Command::LeaseGrant { .. }) {
                    // No log is that fast; leases of one millisecond have no order of their own.
                    std::thread::sleep(Duration::from_millis(2));
                }
                let index = applied.load(Ordering::Relaxed) + 1;
                let position = AppliedPosition { index: RaftIndex(index), term: Term(term) };
                let outcome = machine.apply(position, &[command]).unwrap().pop().unwrap();
                let events = machine.publish(position).unwrap();
                applied.store(index, Ordering::Release);
                lessor.arm(env.clock.now());
                hub.notify(events, reader.revision());
                reply.send(outcome).ok();
            }
        }
    }
}

async fn expire(front: Arc<Front>, lessor: Arc<Lessor>, env: Env) {
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let ids = lessor.expired(env.clock.now(), 500);
        if !ids.is_empty() {
            front.propose(Command::LeaseExpire { ids }).await.ok();
        }
    }
}

impl Propose for Front {
    fn propose(&self, command: Command) -> Waiting<Result<Outcome, RequestError>> {
        let (reply, outcome) = oneshot::channel();
        let held = match command.plain() {
            Command::LeaseGrant { .. } => self.grants.holds(),
            Command::LeaseRevoke { .. } => self.revokes.holds(),
            Command::Auth(_) if self.loses_changes.load(Ordering::Relaxed) => {
                return Box::pin(std::future::ready(Err(RequestError::Timeout)));
            }
            Command::Auth(_) => self.changes.holds(),
            _ => None,
        };
        let job = Job::Apply(command, reply);
        if let Some(held) = held {
            let jobs = self.jobs.clone();
            return Box::pin(async move {
                held.await;
                jobs.send(job).map_err(|_| RequestError::Stopped)?;
                outcome.await.map_err(|_| RequestError::Stopped)
            });
        }
        let sent = self.jobs.send(job);
        let mute = self.mute.load(Ordering::Relaxed);
        Box::pin(async move {
            sent.map_err(|_| RequestError::Stopped)?;
            if mute {
                return std::future::pending().await;
            }
            outcome.await.map_err(|_| RequestError::Stopped)
        })
    }

    fn read_barrier(&self) -> Option<Waiting<Result<(), RequestError>>> {
        let fails = self.barrier_fails.load(Ordering::Relaxed);
        let error = if self.standing().leader.is_some() { RequestError::LeaderChanged } else { RequestError::Timeout };
        fails.then(|| -> Waiting<Result<(), RequestError>> {
            Box::pin(async {
                tokio::task::yield_now().await;
                Err(error)
            })
        })
    }

    fn confirm_lead(&self, _: Term) -> Option<Waiting<Result<(), RequestError>>> {
        if let Some(held) = self.confirms.holds() {
            return Some(Box::pin(async move {
                held.await;
                Ok(())
            }));
        }
        self.read_barrier()
    }

    fn renew_lease(&self, id: LeaseId) -> Waiting<Result<i64, RequestError>> {
        self.renewals_asked.fetch_add(1, Ordering::Relaxed);
        let (lessor, env, jobs) = (self.lessor.clone(), self.env.clone(), self.jobs.clone());
        Box::pin(async move {
            let mut ended = lessor.ended();
            loop {
                match lessor.renew(id, env.clock.now()) {
                    Renewal::Renewed { reset_checkpoint: true, .. } => {
                        let (reply, outcome) = oneshot::channel();
                        let command = Command::LeaseCheckpoint { remaining: vec![(id, 0)] };
                        jobs.send(Job::Apply(command, reply)).map_err(|_| RequestError::Stopped)?;
                        outcome.await.map_err(|_| RequestError::Stopped)?;
                    }
                    Renewal::Renewed { ttl_secs, .. } => return Ok(ttl_secs),
                    Renewal::Unknown => return Ok(0),
                    Renewal::NotLeading => return Err(RequestError::NoLeader),
                    Renewal::Ending => ended.changed().await.map_err(|_| RequestError::Stopped)?,
                }
            }
        })
    }

    fn lease_left(&self, id: LeaseId) -> Waiting<Result<Option<(i64, i64)>, RequestError>> {
        let left = self.lessor.remaining(id, self.env.clock.now());
        Box::pin(std::future::ready(Ok(left.map(|left| (left.granted_secs, left.remaining_secs)))))
    }

    fn standing(&self) -> Standing {
        let applied = RaftIndex(self.applied.load(Ordering::Acquire));
        let leader = (!self.leaderless.load(Ordering::Relaxed)).then_some(MEMBER);
        Standing { leader, term: Term(self.term), committed: applied, applied, ..Standing::default() }
    }

    fn move_leader(&self, _: MemberId) -> Waiting<Result<(), RequestError>> {
        Box::pin(async { Ok(()) })
    }

    fn members(&self) -> Vec<MemberInfo> {
        vec![MemberInfo {
            id: MEMBER,
            name: "default".into(),
            peer_urls: vec![self.peer_url.clone()],
            client_urls: vec![self.client_url.clone()],
            is_learner: false,
        }]
    }

    fn change_members(&self, _: MemberChange) -> Waiting<Result<Vec<MemberInfo>, RequestError>> {
        let members = self.members();
        Box::pin(async { Ok(members) })
    }
}

impl Maintain for Front {
    fn defragment(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn snapshot_file(&self) -> Result<(Box<dyn Read + Send>, u64), RequestError> {
        let file = vec![7; 100 * 1024];
        let len = file.len() as u64;
        Ok((Box::new(Cursor::new(file)), len))
    }

    fn hash(&self) -> Result<u32, StorageError> {
        Ok(7)
    }
}
