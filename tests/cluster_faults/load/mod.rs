//! Clients at every member that write and read all the time and write down what they were answered.
//!
//! ```text
//! Worker ─┬► puts, txns of several keys, deletes, reads of now and of earlier ─► Op ──┐
//!         └► a lease (`lives`)                                       ─► Call, Op ─┤ (`ops`)
//! Compactor (`compactor`): what is old, as the watchers go on        ─► Compaction ─┴► Record
//! ```
//! Values are never written twice, so an event names the request that made it. Few keys are shared by
//! all, so that they get in each other's way.

pub(crate) mod compactor;
mod lives;
pub(crate) mod ops;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rusd_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::request_op::Request;
use rusd_proto::etcdserverpb::response_op::Response;
use rusd_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use tokio::task::JoinSet;
use tonic::Status;
use tonic::transport::Channel;

use self::ops::{Call, Op, Outcome, Taken, Wish};
use crate::client::header;
use crate::cluster::{COMES_MAX, Cluster, Doors};

const KEYS: u32 = 6;
/// How long an answer is waited for that somebody gives who needn't be there.
const AWAY_MAX: Duration = Duration::from_millis(300);
/// How far back earlier revisions are read: past what is compacted, and before.
const BACK: i64 = 400;

/// The clients.
pub(crate) struct Load {
    shared: Arc<Shared>,
    workers: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    ops: Mutex<Vec<Op>>,
    calls: Mutex<Vec<Call>>,
    values: AtomicU64,
    /// The highest revision that somebody was answered.
    highest: AtomicI64,
    acknowledged: AtomicUsize,
    ends: AtomicBool,
}

impl Load {
    /// Starts so many workers at each member.
    pub(crate) fn start(cluster: &Cluster, seed: u64, at_each: usize) -> Self {
        let mut load = Self { shared: Arc::default(), workers: JoinSet::new() };
        for number in 0..at_each * cluster.len() {
            let rng = StdRng::seed_from_u64(seed ^ (number as u64) << 32);
            let home = number % cluster.len();
            let (doors, shared) = (cluster.doors(), load.shared.clone());
            let worker = Worker { home, rng, doors, places: cluster.len(), lease: None, shared };
            load.workers.spawn(worker.run());
        }
        load
    }

    /// Writes that were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> usize {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many more writes were acknowledged: for each of them as long as for anything that has to come.
    pub(crate) async fn goes_on(&self, more: usize) {
        let (mut last, mut seen) = (Instant::now(), self.acknowledged());
        let enough = seen + more;
        while seen < enough {
            let now = self.acknowledged();
            if now > seen {
                (last, seen) = (Instant::now(), now);
            }
            if last.elapsed() > COMES_MAX {
                let ops = self.shared.ops.lock().unwrap();
                let last: Vec<_> = ops.iter().rev().take(8).map(|op| (op.member, &op.error)).collect();
                panic!("writes don't go on; the last requests: {last:?}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends them and gives what they wrote down: requests, and calls of leases.
    pub(crate) async fn finish(mut self) -> (Vec<Op>, Vec<Call>) {
        self.shared.ends.store(true, Ordering::Relaxed);
        while let Some(ended) = self.workers.join_next().await {
            ended.unwrap();
        }
        let ops = std::mem::take(&mut *self.shared.ops.lock().unwrap());
        (ops, std::mem::take(&mut *self.shared.calls.lock().unwrap()))
    }
}

struct Worker {
    home: usize,
    rng: StdRng,
    doors: Doors,
    places: usize,
    lease: Option<lives::Held>,
    shared: Arc<Shared>,
}

impl Worker {
    async fn run(mut self) {
        while !self.shared.ends.load(Ordering::Relaxed) {
            let (home, any) = (self.home, self.rng.random_range(0..self.places));
            let key = self.key();
            let op = match self.rng.random_range(0..14) {
                0..4 => self.put(home, key).await,
                4 => self.pair(home, key).await,
                5 => self.sweep(home, key).await,
                6 => self.remove(home, key).await,
                7 | 8 => self.swap(home, key).await,
                9 => self.glance(any, key, true, None).await,
                10 => self.glance(any, key, false, None).await,
                11 => {
                    let back = self.rng.random_range(0..BACK);
                    let at = (self.shared.highest.load(Ordering::Relaxed) - back).max(1);
                    self.glance(any, key, false, Some(at)).await
                }
                _ => self.lease_step().await,
            };
            let failed = !op.error.is_empty();
            self.note(op);
            // As a client would; and the machine has other things to do.
            let pause = if failed { 20 } else { self.rng.random_range(0..8) };
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Writes down what came of a request.
    fn note(&self, op: Op) {
        if let Outcome::Wrote(revision) | Outcome::Found(revision, _) = op.outcome {
            self.shared.highest.fetch_max(revision, Ordering::Relaxed);
        }
        if matches!(op.outcome, Outcome::Wrote(_)) {
            self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        self.shared.ops.lock().unwrap().push(op);
    }

    /// Who is at a place now.
    fn client(&self, place: usize) -> (usize, KvClient<Channel>) {
        let (member, channel) = self.doors.lock().unwrap()[place].clone();
        (member, KvClient::new(channel))
    }

    fn key(&mut self) -> Bytes {
        format!("k{}", self.rng.random_range(0..KEYS)).into()
    }

    fn value(&self) -> Bytes {
        self.shared.values.fetch_add(1, Ordering::Relaxed).to_string().into()
    }

    async fn put(&mut self, place: usize, key: Bytes) -> Op {
        let value = self.value();
        let wish = Wish { keys: vec![key.clone()], value: value.clone(), ..Wish::default() };
        let request = PutRequest { key: key.clone(), value, ..PutRequest::default() };
        let (member, mut client) = self.client(place);
        let begun = Instant::now();
        let answer = client.put(request).await;
        let outcome = answer.map(|answer| Outcome::Wrote(header(answer.into_inner().header).revision));
        Op::of(member, begun, key, outcome).wishing(wish)
    }

    /// Two keys in one revision.
    async fn pair(&mut self, place: usize, key: Bytes) -> Op {
        let other = format!("p{}", self.rng.random_range(0..KEYS)).into();
        self.txn(place, Wish { keys: vec![key, other], value: self.value(), ..Wish::default() }).await
    }

    /// A put, and in the same revision a delete of others, as far as they are there.
    async fn sweep(&mut self, place: usize, key: Bytes) -> Op {
        let first = self.rng.random_range(0..KEYS);
        let end = self.rng.random_range(first + 1..=KEYS);
        let gone = (format!("p{first}").into(), format!("p{end}").into());
        self.txn(place, Wish { keys: vec![key], value: self.value(), gone: Some(gone), expected: None }).await
    }

    /// A delete by itself.
    async fn remove(&mut self, place: usize, key: Bytes) -> Op {
        let gone = (key.clone(), [&*key, b"\0"].concat().into());
        let request = delete(&gone);
        let (member, mut client) = self.client(place);
        let begun = Instant::now();
        let answer = client.delete_range(request).await;
        let mut took = Vec::new();
        let outcome = answer.map(|answer| {
            let answer = answer.into_inner();
            let revision = header(answer.header).revision;
            took = taken(answer);
            if took.is_empty() { Outcome::Found(revision, None) } else { Outcome::Wrote(revision) }
        });
        let op = Op::of(member, begun, key, outcome).wishing(Wish { gone: Some(gone), ..Wish::default() });
        Op { took, ..op }
    }

    /// Writes a key if it is as it was just read.
    async fn swap(&mut self, place: usize, key: Bytes) -> Op {
        let read = self.read(place, key.clone(), false, None).await;
        let Outcome::Found(_, found) = &read.outcome else { return read };
        let expected = found.as_ref().map_or(0, |(revision, _)| *revision);
        self.note(read);
        self.txn(place, Wish { keys: vec![key], value: self.value(), gone: None, expected: Some(expected) }).await
    }

    async fn txn(&mut self, place: usize, wish: Wish) -> Op {
        let key = wish.keys[0].clone();
        let compare = wish.expected.map(|expected| Compare {
            result: CompareResult::Equal as i32,
            target: CompareTarget::Mod as i32,
            key: key.clone(),
            target_union: Some(TargetUnion::ModRevision(expected)),
            ..Compare::default()
        });
        let put = |key: &Bytes| PutRequest { key: key.clone(), value: wish.value.clone(), ..PutRequest::default() };
        let puts = wish.keys.iter().map(|key| Request::RequestPut(put(key)));
        let deletes = wish.gone.iter().map(|gone| Request::RequestDeleteRange(delete(gone)));
        let request = TxnRequest {
            compare: compare.into_iter().collect(),
            success: puts.chain(deletes).map(|request| RequestOp { request: Some(request) }).collect(),
            failure: vec![RequestOp {
                request: Some(Request::RequestRange(RangeRequest { key: key.clone(), ..RangeRequest::default() })),
            }],
        };
        let (member, mut client) = self.client(place);
        let begun = Instant::now();
        let answer = client.txn(request).await;
        let mut took = Vec::new();
        let outcome = answer.map(|answer| {
            let answer = answer.into_inner();
            let mut outcome = Outcome::Wrote(header(answer.header).revision);
            for response in answer.responses {
                match response.response {
                    Some(Response::ResponseRange(range)) => {
                        let found = range.kvs.first().map(|kv| (kv.mod_revision, kv.value.clone()));
                        let Outcome::Wrote(revision) = outcome else { continue };
                        outcome = Outcome::Found(revision, found);
                    }
                    Some(Response::ResponseDeleteRange(deleted)) => took = taken(deleted),
                    _ => {}
                }
            }
            outcome
        });
        Op { took, ..Op::of(member, begun, key, outcome).wishing(wish) }
    }

    /// A read that doesn't wait long for its answer: not at home nobody has to be there.
    async fn glance(&mut self, place: usize, key: Bytes, serializable: bool, at: Option<i64>) -> Op {
        let (member, begun) = (self.client(place).0, Instant::now());
        match tokio::time::timeout(AWAY_MAX, self.read(place, key.clone(), serializable, at)).await {
            Ok(op) => op,
            Err(_) => Op::of(member, begun, key, Err(Status::deadline_exceeded("not waited for"))),
        }
    }

    async fn read(&mut self, place: usize, key: Bytes, serializable: bool, at: Option<i64>) -> Op {
        let revision = at.unwrap_or_default();
        let request = RangeRequest { key: key.clone(), serializable, revision, ..RangeRequest::default() };
        let (member, mut client) = self.client(place);
        let begun = Instant::now();
        let answer = client.range(request).await;
        let outcome = answer.map(|answer| {
            let answer = answer.into_inner();
            let found = answer.kvs.first().map(|kv| (kv.mod_revision, kv.value.clone()));
            Outcome::Found(header(answer.header).revision, found)
        });
        Op { serializable, at, ..Op::of(member, begun, key, outcome) }
    }
}

fn delete((key, range_end): &(Bytes, Bytes)) -> DeleteRangeRequest {
    DeleteRangeRequest { key: key.clone(), range_end: range_end.clone(), prev_kv: true }
}

fn taken(answer: DeleteRangeResponse) -> Vec<Taken> {
    answer.prev_kvs.into_iter().map(|kv| (kv.key, kv.mod_revision, kv.value)).collect()
}
