//! The random steps: a pure function of the seed and of the revision the store has come to.
//!
//! Few keys, so that steps meet; leases that don't run out, so that time has no say; revisions around the
//! current and the compacted one; now and then something that must be refused.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rusd_proto::etcdserverpb::compare::TargetUnion;
use rusd_proto::etcdserverpb::request_op::Request;
use rusd_proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest,
    LeaseTimeToLiveRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest,
};

const KEYS: u32 = 40;
const LEASES: i64 = 8;
/// Watchers open at a time.
const WATCHERS_MAX: usize = 8;

/// One thing to do on both servers.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Range(RangeRequest),
    RangeStream(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
    Grant(LeaseGrantRequest),
    Revoke(LeaseRevokeRequest),
    KeepAlive(LeaseKeepAliveRequest),
    TimeToLive(LeaseTimeToLiveRequest),
    Leases,
    Watch(WatchCreateRequest),
    Cancel(i64),
    /// Kill both servers and start them again.
    Restart,
}

/// Makes steps out of a seed.
pub(crate) struct Steps {
    rng: StdRng,
    revision: i64,
    compacted: i64,
    watchers: Vec<i64>,
    next_watcher: i64,
}

impl Steps {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), revision: 1, compacted: 0, watchers: Vec::new(), next_watcher: 1 }
    }

    /// The store is at this revision now.
    pub(crate) fn saw(&mut self, revision: i64) {
        self.revision = self.revision.max(revision);
    }

    pub(crate) fn compacted(&mut self, revision: i64) {
        self.compacted = self.compacted.max(revision);
    }

    pub(crate) fn next(&mut self) -> Step {
        match self.rng.random_range(0..1000) {
            0..300 => Step::Put(self.put()),
            300..400 => Step::Delete(self.delete()),
            400..640 => Step::Range(self.range()),
            // Sorted by another target, etcd's parts overlap and leave keys out.
            640..660 => Step::RangeStream(RangeRequest { sort_target: 0, ..self.range() }),
            660..860 => {
                let mut txn = self.txn(0);
                if deletes_to_the_end(&txn) {
                    keep_nothing(&mut txn);
                }
                Step::Txn(txn)
            }
            860..890 => Step::Grant(LeaseGrantRequest { ttl: self.rng.random_range(600..9000), id: self.lease() }),
            890..905 => Step::Revoke(LeaseRevokeRequest { id: self.lease() }),
            905..920 => Step::KeepAlive(LeaseKeepAliveRequest { id: self.lease() }),
            920..940 => Step::TimeToLive(LeaseTimeToLiveRequest { id: self.lease(), keys: self.chance(70) }),
            940..945 => Step::Leases,
            945..985 => self.watch(),
            985..991 => self.cancel(),
            991..999 => Step::Compact(CompactionRequest { revision: self.past(), physical: self.chance(30) }),
            _ => {
                if self.chance(30) {
                    self.watchers.clear();
                    Step::Restart
                } else {
                    Step::Leases
                }
            }
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn key(&mut self) -> Bytes {
        if self.chance(1) {
            return Bytes::new();
        }
        let at = self.rng.random_range(0..KEYS);
        match at % 4 {
            0 => format!("a/{at:02}").into(),
            1 => format!("b/{at}").into(),
            2 => format!("b/{at}/x").into(),
            _ => Bytes::from(vec![0xff, u8::try_from(at).unwrap_or_default(), 0x00]),
        }
    }

    /// A key and an end: one key, a prefix, from a key on, everything, any two keys.
    fn span(&mut self) -> (Bytes, Bytes) {
        match self.rng.random_range(0..10) {
            0..4 => (self.key(), Bytes::new()),
            4..6 => (Bytes::from_static(b"b/"), Bytes::from_static(b"b0")),
            6 => (self.key(), Bytes::from_static(&[0])),
            7 => (Bytes::from_static(&[0]), Bytes::from_static(&[0])),
            _ => (self.key(), self.key()),
        }
    }

    fn value(&mut self) -> Bytes {
        match self.rng.random_range(0..20) {
            0 => Bytes::new(),
            1 => Bytes::from(vec![b'v'; self.rng.random_range(1000..20_000)]),
            _ => self.rng.random_range(0..50_u32).to_string().into(),
        }
    }

    fn lease(&mut self) -> i64 {
        self.rng.random_range(1..=LEASES)
    }

    /// A revision near the compacted or the current one, sometimes beyond either.
    fn past(&mut self) -> i64 {
        let around = if self.chance(20) { self.compacted } else { self.revision };
        around - self.rng.random_range(-1..20)
    }

    fn put(&mut self) -> PutRequest {
        let (ignore_value, ignore_lease) = (self.chance(5), self.chance(5));
        PutRequest {
            key: self.key(),
            value: if ignore_value && self.chance(90) { Bytes::new() } else { self.value() },
            lease: if self.chance(20) && !(ignore_lease && self.chance(90)) { self.lease() } else { 0 },
            prev_kv: self.chance(30),
            ignore_value,
            ignore_lease,
        }
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        let (key, range_end) = if self.chance(70) { (self.key(), Bytes::new()) } else { self.span() };
        DeleteRangeRequest { key, range_end, prev_kv: self.chance(50) }
    }

    fn range(&mut self) -> RangeRequest {
        let (key, range_end) = self.span();
        let mut request = RangeRequest { key, range_end, ..RangeRequest::default() };
        if self.chance(40) {
            request.limit = self.rng.random_range(0..8);
        }
        if self.chance(35) {
            request.revision = self.past();
        }
        if self.chance(40) {
            request.sort_order = self.rng.random_range(0..3);
            request.sort_target = self.rng.random_range(0..5);
        }
        if self.chance(1) {
            request.sort_order = 9;
        }
        request.serializable = self.chance(20);
        request.count_only = self.chance(15);
        // Which key comes first among equal values can't be told when the values aren't shown.
        request.keys_only = self.chance(20) && request.sort_target != 4;
        for bound in [
            &mut request.min_mod_revision,
            &mut request.max_mod_revision,
            &mut request.min_create_revision,
            &mut request.max_create_revision,
        ] {
            if self.rng.random_range(0..100) < 7 {
                *bound = self.rng.random_range(0..self.revision + 2);
            }
        }
        request
    }

    fn txn(&mut self, depth: u32) -> TxnRequest {
        let mut compare = Vec::new();
        for _ in 0..self.rng.random_range(0..3) {
            compare.push(self.compare());
        }
        TxnRequest { compare, success: self.operations(depth), failure: self.operations(depth) }
    }

    fn compare(&mut self) -> Compare {
        let (key, range_end) = if self.chance(75) { (self.key(), Bytes::new()) } else { self.span() };
        let near = self.revision - self.rng.random_range(0..30);
        let target = self.rng.random_range(0..5);
        let target_union = Some(match target {
            0 => TargetUnion::Version(self.rng.random_range(0..4)),
            1 => TargetUnion::CreateRevision(if self.chance(30) { 0 } else { near }),
            2 => TargetUnion::ModRevision(near),
            3 => TargetUnion::Value(self.value()),
            _ => TargetUnion::Lease(self.rng.random_range(0..=LEASES)),
        });
        Compare { result: self.rng.random_range(0..4), target, key, range_end, target_union }
    }

    fn operations(&mut self, depth: u32) -> Vec<RequestOp> {
        let mut operations = Vec::new();
        for _ in 0..self.rng.random_range(0..4) {
            let request = match self.rng.random_range(0..10) {
                0..4 => Request::RequestPut(self.put()),
                4..6 => Request::RequestDeleteRange(self.delete()),
                6..9 => Request::RequestRange(self.range()),
                _ if depth < 2 => Request::RequestTxn(self.txn(depth + 1)),
                _ => Request::RequestRange(self.range()),
            };
            operations.push(RequestOp { request: Some(request) });
        }
        operations
    }

    fn watch(&mut self) -> Step {
        if self.watchers.len() >= WATCHERS_MAX {
            return self.cancel();
        }
        let (key, range_end) = self.span();
        let watch_id = self.next_watcher;
        self.next_watcher += 1;
        self.watchers.push(watch_id);
        let filter = self.rng.random_range(0..10);
        Step::Watch(WatchCreateRequest {
            key,
            range_end,
            // A start in the future would hold back the stream's progress.
            start_revision: if self.chance(50) { self.past().min(self.revision) } else { 0 },
            progress_notify: false,
            filters: if filter < 2 { vec![filter] } else { Vec::new() },
            prev_kv: self.chance(50),
            watch_id,
            fragment: false,
        })
    }

    fn cancel(&mut self) -> Step {
        if self.watchers.is_empty() {
            return Step::Leases;
        }
        let at = self.rng.random_range(0..self.watchers.len());
        Step::Cancel(self.watchers.swap_remove(at))
    }
}

/// Whether one of the deletes in a txn has no end.
fn deletes_to_the_end(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).any(|operation| match &operation.request {
        Some(Request::RequestDeleteRange(delete)) => delete.range_end == [0][..],
        Some(Request::RequestTxn(txn)) => deletes_to_the_end(txn),
        _ => false,
    })
}

/// No put keeps what is there: if such a delete has taken it before, etcd ends with a panic, for ever.
fn keep_nothing(txn: &mut TxnRequest) {
    for operation in txn.success.iter_mut().chain(&mut txn.failure) {
        match &mut operation.request {
            Some(Request::RequestPut(put)) => (put.ignore_value, put.ignore_lease) = (false, false),
            Some(Request::RequestTxn(txn)) => keep_nothing(txn),
            _ => {}
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_steps() {
    let run = |seed| {
        let mut steps = Steps::new(seed);
        (0..500).map(|_| format!("{:?}", steps.next())).collect::<Vec<_>>()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}
