//! Workers that write all the time, know what they asked for, and check at once what they can.
//!
//! Each has keys of its own, so that it knows what a read must give; one counter is shared and
//! changed by compare-and-swap. Values are never written twice, so a change names who made it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rusd_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::lease_client::LeaseClient;
use rusd_proto::etcdserverpb::request_op::Request;
use rusd_proto::etcdserverpb::response_op::Response;
use rusd_proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest,
    RequestOp, ResponseHeader, TxnRequest, TxnResponse,
};
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::client::{self, header, prefix_end};
use crate::history::History;
use crate::ledger::{Attempt, LEASE_PREFIX, Lease, Ledger, Outcome, Revoke, Wish};

const KEYS: u32 = 8;
const SHARED: &str = "shared/counter";

/// Why a worker stopped.
enum Stop {
    /// The server is away.
    Away,
    /// The server refused the request and said so: nothing happened.
    Refused,
}

/// The workers and what they know; it outlives the server's restarts.
pub(crate) struct Load {
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    workers: Vec<Worker>,
    /// Whether compactions are asked for too.
    pub(crate) compacts: bool,
    /// How long values are; mostly short if it isn't said.
    pub(crate) value_bytes: Option<usize>,
}

struct Worker {
    id: usize,
    rng: StdRng,
    value_bytes: Option<usize>,
    ledger: Arc<Mutex<Ledger>>,
    writes: u64,
    /// What its own keys hold; `None` after a fault, until it has looked.
    keys: Option<BTreeMap<Bytes, Bytes>>,
    /// Its leases that have not been revoked.
    leases: Vec<i64>,
}

/// Workers at work.
pub(crate) struct Running {
    tasks: JoinSet<Worker>,
    stop: Arc<AtomicBool>,
    alive: Arc<AtomicUsize>,
    compactor: Option<tokio::task::JoinHandle<()>>,
}

impl Load {
    pub(crate) fn new(seed: u64, workers: usize) -> Self {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let worker = |id| Worker {
            id,
            rng: StdRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(id as u64)),
            value_bytes: None,
            ledger: ledger.clone(),
            writes: 0,
            keys: None,
            leases: Vec::new(),
        };
        Self { workers: (0..workers).map(worker).collect(), ledger, compacts: true, value_bytes: None }
    }

    /// Sets the workers on a server.
    pub(crate) fn start(&mut self, channel: &Channel, history: &History) -> Running {
        let stop = Arc::new(AtomicBool::new(false));
        let alive = Arc::new(AtomicUsize::new(self.workers.len()));
        let mut tasks = JoinSet::new();
        for mut worker in self.workers.drain(..) {
            let (channel, stop, alive) = (channel.clone(), stop.clone(), alive.clone());
            worker.value_bytes = self.value_bytes;
            tasks.spawn(async move {
                worker.run(&channel, &stop).await;
                alive.fetch_sub(1, Ordering::Relaxed);
                worker
            });
        }
        let compactor = self
            .compacts
            .then(|| tokio::spawn(compact(channel.clone(), self.ledger.clone(), history.clone(), stop.clone())));
        Running { tasks, stop, alive, compactor }
    }

    /// Waits until all workers have stopped: because the server is away, or because they are asked to.
    pub(crate) async fn finish(&mut self, running: Running) {
        let Running { mut tasks, stop, compactor, .. } = running;
        stop.store(true, Ordering::Relaxed);
        while let Some(worker) = tasks.join_next().await {
            self.workers.push(worker.expect("a worker doesn't panic"));
        }
        if let Some(compactor) = compactor {
            compactor.await.expect("the compactor doesn't panic");
        }
    }
}

/// Compacts now and then, never beyond what the watch has seen.
async fn compact(channel: Channel, ledger: Arc<Mutex<Ledger>>, history: History, stop: Arc<AtomicBool>) {
    let mut client = KvClient::new(channel);
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(60)).await;
        let revision = history.last() - 20;
        // Nobody sees a compaction to the first revision, at which nothing was changed.
        if revision <= ledger.lock().unwrap().compact_asked.max(1) {
            continue;
        }
        ledger.lock().unwrap().compact_asked = revision;
        match client.compact(CompactionRequest { revision, physical: false }).await {
            Ok(_) => ledger.lock().unwrap().compacted = revision,
            Err(error) if is_refusal(&error) => {}
            Err(_) => return,
        }
    }
}

fn is_refusal(error: &Status) -> bool {
    matches!(error.code(), Code::ResourceExhausted | Code::InvalidArgument | Code::OutOfRange | Code::NotFound)
}

impl Running {
    /// Whether all workers have stopped by themselves.
    pub(crate) fn is_over(&self) -> bool {
        self.alive.load(Ordering::Relaxed) == 0
    }
}

impl Worker {
    async fn run(&mut self, channel: &Channel, stop: &AtomicBool) {
        let channel = channel.clone();
        let (mut kv, mut lease) = (KvClient::new(channel.clone()), LeaseClient::new(channel));
        while !stop.load(Ordering::Relaxed) {
            match self.act(&mut kv, &mut lease).await {
                Ok(()) => {}
                Err(Stop::Refused) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(Stop::Away) => {
                    self.keys = None;
                    return;
                }
            }
        }
    }

    async fn act(&mut self, kv: &mut KvClient<Channel>, lease: &mut LeaseClient<Channel>) -> Result<(), Stop> {
        if self.keys.is_none() {
            return self.look(kv).await;
        }
        match self.rng.random_range(0..100) {
            0..55 => self.put(kv).await,
            55..65 => self.delete(kv).await,
            65..80 => self.txn(kv).await,
            80..90 => self.count(kv).await,
            90..95 => self.look(kv).await,
            95..98 => self.grant(kv, lease).await,
            _ => self.revoke(lease).await,
        }
    }

    fn prefix(&self) -> String {
        format!("w{:02}/", self.id)
    }

    fn key(&mut self) -> Bytes {
        format!("{}{}", self.prefix(), self.rng.random_range(0..KEYS)).into()
    }

    /// A value that nobody wrote before; mostly short.
    fn value(&mut self) -> Bytes {
        self.writes += 1;
        let mut value = format!("{}-{}-", self.id, self.writes).into_bytes();
        let len = match self.rng.random_range(0..100) {
            _ if self.value_bytes.is_some() => self.value_bytes.unwrap_or(0),
            0..85 => self.rng.random_range(0..200),
            85..97 => 4_000,
            _ => 60_000,
        };
        let fill: u8 = self.rng.random_range(b'a'..=b'z');
        value.resize(value.len() + len, fill);
        value.into()
    }

    /// What to think of an error: nothing happened, or who knows.
    fn stopped(&self, error: &Status) -> Stop {
        if !is_refusal(error) {
            return Stop::Away;
        }
        if error.code() == Code::ResourceExhausted {
            *self.ledger.lock().unwrap().refusals.entry(error.message().to_owned()).or_default() += 1;
        }
        Stop::Refused
    }

    /// Notes a request before it goes out.
    fn ask(&mut self, wishes: Vec<Wish>) -> usize {
        let mut ledger = self.ledger.lock().unwrap();
        ledger.attempts.push(Attempt { worker: self.id, wishes, outcome: Outcome::Unknown });
        ledger.attempts.len() - 1
    }

    /// Notes its answer.
    fn answered(&mut self, at: usize, wishes: Vec<Wish>, header: Option<ResponseHeader>) {
        let revision = client::header(header).revision;
        let mut ledger = self.ledger.lock().unwrap();
        ledger.revision_max = ledger.revision_max.max(revision);
        let outcome = if wishes.is_empty() { Outcome::Nothing } else { Outcome::At(revision) };
        ledger.attempts[at] = Attempt { worker: self.id, wishes: wishes.clone(), outcome };
        drop(ledger);
        let own = self.prefix();
        let Some(keys) = &mut self.keys else { return };
        for wish in wishes {
            match wish {
                Wish::Put { key, value, .. } if key.starts_with(own.as_bytes()) => drop(keys.insert(key, value)),
                Wish::Put { .. } => {}
                Wish::Delete { key } => drop(keys.remove(&key)),
            }
        }
    }

    /// Notes that there was none, and what that means.
    fn failed(&mut self, at: usize, error: &Status) -> Stop {
        let stop = self.stopped(error);
        if matches!(stop, Stop::Refused) {
            self.ledger.lock().unwrap().attempts[at].outcome = Outcome::Nothing;
        }
        stop
    }

    fn fault(&self, text: String) {
        self.ledger.lock().unwrap().faults.push(format!("worker {}: {text}", self.id));
    }

    async fn put(&mut self, kv: &mut KvClient<Channel>) -> Result<(), Stop> {
        let (key, value) = (self.key(), self.value());
        self.put_one(kv, key, value, 0).await
    }

    async fn put_one(&mut self, kv: &mut KvClient<Channel>, key: Bytes, value: Bytes, lease: i64) -> Result<(), Stop> {
        let wishes = vec![Wish::Put { key: key.clone(), value: value.clone(), lease }];
        let at = self.ask(wishes.clone());
        match kv.put(PutRequest { key, value, lease, ..PutRequest::default() }).await {
            Ok(answer) => {
                self.answered(at, wishes, answer.into_inner().header);
                Ok(())
            }
            Err(error) => Err(self.failed(at, &error)),
        }
    }

    async fn delete(&mut self, kv: &mut KvClient<Channel>) -> Result<(), Stop> {
        let key = self.key();
        let wishes = vec![Wish::Delete { key: key.clone() }];
        let at = self.ask(wishes.clone());
        let known = self.keys.as_ref().is_some_and(|keys| keys.contains_key(&key));
        match kv.delete_range(DeleteRangeRequest { key: key.clone(), ..DeleteRangeRequest::default() }).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                if answer.deleted != i64::from(known) {
                    self.fault(format!("{key:?} was there: {known}; deleted {}", answer.deleted));
                }
                self.answered(at, if answer.deleted == 1 { wishes } else { Vec::new() }, answer.header);
                Ok(())
            }
            Err(error) => Err(self.failed(at, &error)),
        }
    }

    /// Puts one key and deletes another, if a third holds what it must hold.
    async fn txn(&mut self, kv: &mut KvClient<Channel>) -> Result<(), Stop> {
        let (first, second) = (self.key(), self.key());
        if first == second {
            return Ok(());
        }
        let guard = self.key();
        let held = self.keys.as_ref().and_then(|keys| keys.get(&guard)).cloned();
        let compare = match held {
            Some(value) => compare(guard, CompareTarget::Value, TargetUnion::Value(value)),
            None => compare(guard, CompareTarget::Version, TargetUnion::Version(0)),
        };
        let value = self.value();
        let wishes = vec![
            Wish::Put { key: first.clone(), value: value.clone(), lease: 0 },
            Wish::Delete { key: second.clone() },
        ];
        let success = vec![
            op(Request::RequestPut(PutRequest { key: first, value, ..PutRequest::default() })),
            op(Request::RequestDeleteRange(DeleteRangeRequest { key: second, ..DeleteRangeRequest::default() })),
        ];
        let answer = self.swap(kv, TxnRequest { compare: vec![compare], success, failure: Vec::new() }, wishes).await?;
        if !answer {
            self.fault("a guard of its own keys didn't hold".to_owned());
        }
        Ok(())
    }

    /// Counts the shared counter up, if nobody was faster.
    async fn count(&mut self, kv: &mut KvClient<Channel>) -> Result<(), Stop> {
        let get = RangeRequest { key: SHARED.into(), ..RangeRequest::default() };
        let seen = kv.range(get).await.map_err(|error| self.stopped(&error))?.into_inner();
        let modified = seen.kvs.first().map_or(0, |kv| kv.mod_revision);
        let value = self.value();
        let wishes = vec![Wish::Put { key: SHARED.into(), value: value.clone(), lease: 0 }];
        let put = op(Request::RequestPut(PutRequest { key: SHARED.into(), value, ..PutRequest::default() }));
        let guard = compare(SHARED.into(), CompareTarget::Mod, TargetUnion::ModRevision(modified));
        self.swap(kv, TxnRequest { compare: vec![guard], success: vec![put], failure: Vec::new() }, wishes).await?;
        Ok(())
    }

    /// Sends a txn whose success branch has these wishes; says whether it was taken.
    async fn swap(&mut self, kv: &mut KvClient<Channel>, txn: TxnRequest, wishes: Vec<Wish>) -> Result<bool, Stop> {
        let at = self.ask(wishes.clone());
        match kv.txn(txn).await {
            Ok(answer) => {
                let TxnResponse { header, succeeded, responses } = answer.into_inner();
                let took = |response: &Option<Response>| match response {
                    Some(Response::ResponseDeleteRange(deleted)) => deleted.deleted > 0,
                    _ => true,
                };
                let effects = wishes.into_iter().zip(&responses).filter(|(_, answer)| took(&answer.response));
                let effects = effects.map(|(wish, _)| wish).collect();
                self.answered(at, effects, header);
                Ok(succeeded)
            }
            Err(error) => Err(self.failed(at, &error)),
        }
    }

    /// Reads its own keys; they must be what it left there.
    async fn look(&mut self, kv: &mut KvClient<Channel>) -> Result<(), Stop> {
        let prefix = self.prefix();
        let range_end = prefix_end(&prefix);
        let get = RangeRequest { key: prefix.into(), range_end, ..RangeRequest::default() };
        let answer = kv.range(get).await.map_err(|error| self.stopped(&error))?.into_inner();
        let revision = header(answer.header).revision;
        let found: BTreeMap<_, _> = answer.kvs.into_iter().map(|kv| (kv.key, kv.value)).collect();
        let known = self.keys.replace(found);
        if known.as_ref().is_some_and(|known| Some(known) != self.keys.as_ref()) {
            self.fault(format!("at revision {revision} its keys are not what it was told: {known:?}, {:?}", self.keys));
        }
        let mut ledger = self.ledger.lock().unwrap();
        ledger.revision_max = ledger.revision_max.max(revision);
        Ok(())
    }

    /// A lease with two keys; one of three runs out soon.
    async fn grant(&mut self, kv: &mut KvClient<Channel>, leases: &mut LeaseClient<Channel>) -> Result<(), Stop> {
        self.writes += 1;
        let id = (self.id as i64 + 1) * 1_000_000 + self.writes as i64;
        let ttl = if self.rng.random_range(0..3) == 0 { 2 } else { Lease::LONG_SECS };
        let keys: Vec<Bytes> = (0..2).map(|n| format!("{LEASE_PREFIX}{id}/{n}").into()).collect();
        let lease = Lease { ttl, granted: false, keys: keys.clone(), revoke: Revoke::No };
        self.ledger.lock().unwrap().leases.insert(id, lease);
        let answer = leases.lease_grant(LeaseGrantRequest { id, ttl }).await.map_err(|error| self.stopped(&error))?;
        if answer.get_ref().id != id || answer.get_ref().ttl != ttl {
            self.fault(format!("asked for lease {id} of {ttl} s, got {:?}", answer.get_ref()));
        }
        self.lease(id, |lease| lease.granted = true);
        if ttl == Lease::LONG_SECS {
            self.leases.push(id);
        }
        for key in keys {
            let value = self.value();
            self.put_one(kv, key, value, id).await?;
        }
        Ok(())
    }

    async fn revoke(&mut self, leases: &mut LeaseClient<Channel>) -> Result<(), Stop> {
        let Some(id) = self.leases.pop() else { return Ok(()) };
        self.lease(id, |lease| lease.revoke = Revoke::Asked);
        leases.lease_revoke(LeaseRevokeRequest { id }).await.map_err(|error| self.stopped(&error))?;
        self.lease(id, |lease| lease.revoke = Revoke::Done);
        Ok(())
    }

    fn lease(&self, id: i64, change: impl FnOnce(&mut Lease)) {
        if let Some(lease) = self.ledger.lock().unwrap().leases.get_mut(&id) {
            change(lease);
        }
    }
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn compare(key: Bytes, target: CompareTarget, union: TargetUnion) -> Compare {
    Compare {
        result: CompareResult::Equal as i32,
        target: target as i32,
        key,
        target_union: Some(union),
        ..Compare::default()
    }
}
