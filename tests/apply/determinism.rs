//! The same commands give the same answers, events and state, however the log is cut into entries
//! and publishes, and whether or not the member restarts in between.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use rusd::apply::{AlarmKind, AlarmOp, Command, Outcome, codec};
use rusd::env::ManualSpawn;
use rusd::lease::LeaseStatus;
use rusd::storage::backend::MemoryImage;
use rusd::storage::{AppliedPosition, Disk, RangeQuery};
use rusd::types::{EventKind, KeyRange, KeyValue, LeaseId, MemberId};

use crate::commands::command;
use crate::harness::{Node, leased};

/// All that a member can be compared by.
#[derive(Debug, PartialEq)]
struct Seen {
    outcomes: Vec<Outcome>,
    events: Vec<(EventKind, KeyValue, i64)>,
    digest: u64,
    keys: Vec<KeyValue>,
    leases: Vec<(LeaseId, LeaseStatus, Vec<Bytes>)>,
    alarms: Vec<(MemberId, AlarmKind)>,
}

/// How one member gets the log.
#[derive(Clone, Debug)]
struct Cut {
    /// Commands in an entry; repeated in a circle.
    entries: Vec<usize>,
    /// Entries before a publish.
    publishes: Vec<usize>,
    /// Publishes before the store thread runs, 0 for never.
    flush: usize,
    /// Publishes before a power cut, 0 for none.
    crash: usize,
}

impl Cut {
    fn plain() -> Self {
        Self { entries: vec![1], publishes: vec![1], flush: 0, crash: 0 }
    }
}

/// A member, its disk and its log.
struct Member {
    disk: MemoryImage,
    spawn: ManualSpawn,
    node: Node,
    log: Vec<(AppliedPosition, Bytes)>,
    outcomes: Vec<Vec<Outcome>>,
    events: Vec<(EventKind, KeyValue, i64)>,
}

impl Member {
    fn new() -> Self {
        let (disk, spawn) = (MemoryImage::default(), ManualSpawn::default());
        let node = Node::open(&disk, &spawn);
        Self { disk, spawn, node, log: Vec::new(), outcomes: Vec::new(), events: Vec::new() }
    }

    /// Applies an entry, through the log's bytes as on every member.
    fn entry(&mut self, commands: &[Command]) {
        let position = self.node.next();
        let mut bytes = BytesMut::new();
        codec::encode_batch(commands, &mut bytes);
        let bytes = bytes.freeze();
        let outcomes = self.node.machine.apply(position, &codec::decode_batch(bytes.clone()).unwrap()).unwrap();
        self.log.push((position, bytes));
        self.outcomes.push(outcomes);
    }

    fn publish(&mut self) {
        if let Some(batch) = self.node.machine.publish(self.node.machine.applied()).unwrap() {
            self.events.extend(batch.events.iter().map(|e| (e.event.kind, e.event.kv.clone(), e.event.revision.sub)));
        }
    }

    /// Loses what was not flushed, and gets it back from the log with the same outcomes.
    fn crash(&mut self) {
        let last = self.node.machine.applied();
        self.spawn.clear();
        self.node = Node::open(&self.disk, &self.spawn);
        let durable = self.node.machine.applied();
        let lost = self.log.iter().zip(&self.outcomes).filter(|((position, _), _)| *position > durable);
        for ((position, bytes), before) in lost {
            let again = self.node.machine.apply(*position, &codec::decode_batch(bytes.clone()).unwrap()).unwrap();
            assert_eq!(again, *before);
        }
        self.node.resume();
        self.node.machine.publish(last).unwrap();
    }

    fn seen(&self) -> Seen {
        let snapshot = self.node.machine.reader().snapshot();
        let lessor = self.node.machine.lessor();
        let mut leases = lessor.ids();
        leases.sort_unstable();
        lessor.promote(self.node.start, Duration::ZERO);
        Seen {
            outcomes: self.outcomes.concat(),
            events: self.events.clone(),
            digest: snapshot.digest(),
            keys: snapshot.range(&RangeQuery::latest(KeyRange::all()), Disk::Allowed).unwrap().value.kvs,
            leases: leases
                .into_iter()
                .map(|id| (id, lessor.remaining(id, self.node.start).unwrap(), lessor.keys(id).unwrap()))
                .collect(),
            alarms: self.node.machine.alarms().load().list(None),
        }
    }
}

fn play(commands: &[Command], cut: &Cut) -> Seen {
    let mut member = Member::new();
    let mut entries = cut.entries.iter().cycle();
    let mut publishes = cut.publishes.iter().cycle();
    let mut rest = commands;
    let mut published = 0;
    while !rest.is_empty() {
        for _ in 0..*publishes.next().unwrap() {
            let (entry, left) = rest.split_at(rest.len().min(*entries.next().unwrap()));
            rest = left;
            member.entry(entry);
        }
        member.publish();
        published += 1;
        if cut.flush > 0 && published % cut.flush == 0 {
            member.spawn.run("store");
        }
        if cut.crash > 0 && published % cut.crash == 0 {
            member.crash();
        }
    }
    member.seen()
}

fn cut() -> impl Strategy<Value = Cut> {
    (vec(1..6usize, 1..4), vec(1..4usize, 1..4), 0..4usize, 0..6usize)
        .prop_map(|(entries, publishes, flush, crash)| Cut { entries, publishes, flush, crash })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]
    #[test]
    fn members_agree_however_the_log_is_cut(commands in vec(command(), 1..60), cut in cut()) {
        prop_assert_eq!(play(&commands, &cut), play(&commands, &Cut::plain()));
    }
}

#[test]
fn leases_attachments_and_alarms_survive_a_restart() {
    let mut member = Member::new();
    let commands = [
        Command::LeaseGrant { id: LeaseId(7), ttl_secs: 100 },
        Command::LeaseGrant { id: LeaseId(8), ttl_secs: 100 },
        Command::LeaseGrant { id: LeaseId(9), ttl_secs: 100 },
        Command::Put(leased("b", "1", 7)),
        Command::Put(leased("a", "1", 7)),
        Command::Put(leased("c", "1", 9)),
        Command::LeaseCheckpoint { remaining: vec![(LeaseId(8), 33)] },
        Command::LeaseRevoke { id: LeaseId(9) },
        Command::Alarm(AlarmOp { activate: true, member: MemberId(5), kind: Some(AlarmKind::NoSpace) }),
    ];
    member.entry(&commands);
    member.publish();
    let before = member.seen();
    member.spawn.run("store");
    member.crash();
    assert_eq!(member.seen(), before);
    let status = |granted_secs, remaining_secs| LeaseStatus { granted_secs, remaining_secs };
    let keys = |keys: &[&'static str]| keys.iter().copied().map(Bytes::from).collect::<Vec<_>>();
    let leases = [(LeaseId(7), status(100, 99), keys(&["a", "b"])), (LeaseId(8), status(100, 32), keys(&[]))];
    assert_eq!(before.leases, leases);
    assert_eq!(before.alarms, [(MemberId(5), AlarmKind::NoSpace)]);
}
