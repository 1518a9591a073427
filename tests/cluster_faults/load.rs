//! Clients at every member that write and read all the time and write down what they were answered.
//!
//! Values are never written twice, so an event names the request that made it. Few keys are shared by
//! all, so that they get in each other's way.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rusd_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::request_op::Request;
use rusd_proto::etcdserverpb::{Compare, PutRequest, RangeRequest, RequestOp, TxnRequest};
use tokio::task::JoinSet;
use tonic::Status;
use tonic::transport::Channel;

use crate::client::header;
use crate::cluster::{COMES_MAX, Cluster, Doors};

const KEYS: u32 = 6;
const GLANCE_MAX: Duration = Duration::from_millis(300);
/// Errors after which it is sure that nothing was written.
const REFUSALS: [&str; 3] =
    ["etcdserver: no leader", "etcdserver: too many requests", "etcdserver: mvcc: database space exceeded"];

/// What a write wants.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) keys: Vec<Bytes>,
    pub(crate) value: Bytes,
    /// The revision at which the first key must have been changed last.
    pub(crate) expected: Option<i64>,
}

/// What came of a request.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// It was done at this revision.
    Wrote(i64),
    /// A read, or a write whose condition didn't hold: the header's revision, and the key's as found.
    Found(i64, Option<(i64, Bytes)>),
    /// It surely wasn't done.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    /// The number of the process that was asked; whoever takes its place has another one.
    pub(crate) member: usize,
    pub(crate) begun: Instant,
    pub(crate) ended: Instant,
    pub(crate) serializable: bool,
    pub(crate) key: Bytes,
    pub(crate) wish: Option<Wish>,
    pub(crate) outcome: Outcome,
    /// What was said, if it failed.
    pub(crate) error: String,
}

/// The clients.
pub(crate) struct Load {
    shared: Arc<Shared>,
    workers: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    ops: Mutex<Vec<Op>>,
    values: AtomicU64,
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
            let worker =
                Worker { home, rng, doors: cluster.doors(), places: cluster.len(), shared: load.shared.clone() };
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

    /// Ends them and gives what they wrote down.
    pub(crate) async fn finish(mut self) -> Vec<Op> {
        self.shared.ends.store(true, Ordering::Relaxed);
        while let Some(ended) = self.workers.join_next().await {
            ended.unwrap();
        }
        std::mem::take(&mut *self.shared.ops.lock().unwrap())
    }
}

struct Worker {
    home: usize,
    rng: StdRng,
    doors: Doors,
    places: usize,
    shared: Arc<Shared>,
}

impl Worker {
    async fn run(mut self) {
        while !self.shared.ends.load(Ordering::Relaxed) {
            let (home, any) = (self.home, self.rng.random_range(0..self.places));
            let key = self.key();
            let op = match self.rng.random_range(0..10) {
                0..4 => self.put(home, key).await,
                4 => self.pair(home, key).await,
                5 | 6 => self.swap(home, key).await,
                kind => self.glance(any, key, kind == 9).await,
            };
            let failed = !op.error.is_empty();
            if matches!(op.outcome, Outcome::Wrote(_)) {
                self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            self.shared.ops.lock().unwrap().push(op);
            // As a client would; and the machine has other things to do.
            let pause = if failed { 20 } else { self.rng.random_range(0..8) };
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
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
        let wish = Wish { keys: vec![key.clone()], value: value.clone(), expected: None };
        let request = PutRequest { key: key.clone(), value, ..PutRequest::default() };
        let (member, mut client) = self.client(place);
        let begun = Instant::now();
        let answer = client.put(request).await;
        let outcome = answer.map(|answer| Outcome::Wrote(header(answer.into_inner().header).revision));
        op(member, begun, false, key, Some(wish), outcome)
    }

    /// Two keys in one revision.
    async fn pair(&mut self, place: usize, key: Bytes) -> Op {
        let other = format!("p{}", self.rng.random_range(0..KEYS)).into();
        let wish = Wish { keys: vec![key.clone(), other], value: self.value(), expected: None };
        self.txn(place, wish, None).await
    }

    /// Writes a key if it is as it was just read.
    async fn swap(&mut self, place: usize, key: Bytes) -> Op {
        let read = self.read(place, key.clone(), false).await;
        let Outcome::Found(_, found) = &read.outcome else { return read };
        let expected = found.as_ref().map_or(0, |(revision, _)| *revision);
        self.shared.ops.lock().unwrap().push(read);
        let wish = Wish { keys: vec![key], value: self.value(), expected: Some(expected) };
        self.txn(place, wish, Some(expected)).await
    }

    async fn txn(&mut self, place: usize, wish: Wish, expected: Option<i64>) -> Op {
        let key = wish.keys[0].clone();
        let compare = expected.map(|expected| Compare {
            result: CompareResult::Equal as i32,
            target: CompareTarget::Mod as i32,
            key: key.clone(),
            target_union: Some(TargetUnion::ModRevision(expected)),
            ..Compare::default()
        });
        let put = |key: &Bytes| PutRequest { key: key.clone(), value: wish.value.clone(), ..PutRequest::default() };
        let request = TxnRequest {
            compare: compare.into_iter().collect(),
            success: wish.keys.iter().map(|key| RequestOp { request: Some(Request::RequestPut(put(key))) }).collect(),
            failure: vec![RequestOp {
                request: Some(Request::RequestRange(RangeRequest { key: key.clone(), ..RangeRequest::default() })),
            }],
        };
        let (member, mut client) = self.client(place);
        let begun = Instant::now();
        let answer = client.txn(request).await;
        let outcome = answer.map(|answer| {
            use rusd_proto::etcdserverpb::response_op::Response;
            let answer = answer.into_inner();
            let revision = header(answer.header).revision;
            match answer.responses.first().and_then(|response| response.response.as_ref()) {
                Some(Response::ResponseRange(range)) => {
                    Outcome::Found(revision, range.kvs.first().map(|kv| (kv.mod_revision, kv.value.clone())))
                }
                _ => Outcome::Wrote(revision),
            }
        });
        op(member, begun, false, key, Some(wish), outcome)
    }

    /// A read that doesn't wait long for its answer: not at home nobody has to be there.
    async fn glance(&mut self, place: usize, key: Bytes, serializable: bool) -> Op {
        let (member, begun) = (self.client(place).0, Instant::now());
        match tokio::time::timeout(GLANCE_MAX, self.read(place, key.clone(), serializable)).await {
            Ok(op) => op,
            Err(_) => op(member, begun, serializable, key, None, Err(Status::deadline_exceeded("not waited for"))),
        }
    }

    async fn read(&mut self, place: usize, key: Bytes, serializable: bool) -> Op {
        let request = RangeRequest { key: key.clone(), serializable, ..RangeRequest::default() };
        let (member, mut client) = self.client(place);
        let begun = Instant::now();
        let answer = client.range(request).await;
        let outcome = answer.map(|answer| {
            let answer = answer.into_inner();
            let found = answer.kvs.first().map(|kv| (kv.mod_revision, kv.value.clone()));
            Outcome::Found(header(answer.header).revision, found)
        });
        op(member, begun, serializable, key, None, outcome)
    }
}

fn op(
    member: usize,
    begun: Instant,
    serializable: bool,
    key: Bytes,
    wish: Option<Wish>,
    outcome: Result<Outcome, Status>,
) -> Op {
    let ended = Instant::now();
    let (outcome, error) = match outcome {
        Ok(outcome) => (outcome, String::new()),
        Err(status) if REFUSALS.contains(&status.message()) => (Outcome::Refused, status.message().to_owned()),
        Err(status) => (Outcome::Unknown, format!("{:?}: {}", status.code(), status.message())),
    };
    Op { member, begun, ended, serializable, key, wish, outcome, error }
}
