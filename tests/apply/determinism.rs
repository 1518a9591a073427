//! The same commands give the same answers, events and state, however the log is cut into entries
//! and publishes, and whether or not the member restarts in between.

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use rusd::apply::{Command, Outcome, codec};
use rusd::env::Env;
use rusd::storage::backend::{Engine, MemoryImage};
use rusd::storage::{Disk, RangeQuery, Store, StoreConfig};
use rusd::types::{EventKind, KeyRange, KeyValue};

use crate::commands::command;
use crate::harness::Node;

/// All that a member can be compared by.
#[derive(Debug, PartialEq)]
struct Seen {
    outcomes: Vec<Outcome>,
    events: Vec<(EventKind, KeyValue, i64)>,
    digest: u64,
    keys: Vec<KeyValue>,
    leases: Vec<(i64, Vec<Bytes>)>,
    alarms: usize,
}

/// How one member gets the log.
#[derive(Clone, Debug)]
struct Cut {
    /// Commands in an entry; repeated in a circle.
    entries: Vec<usize>,
    /// Entries before a publish.
    publishes: Vec<usize>,
    /// Publishes before a restart, 0 for none.
    restart: usize,
}

fn open(image: &MemoryImage) -> Node {
    let mut config = StoreConfig::new(Engine::Memory(image.clone()), "memory");
    config.values.inline = true;
    let (store, opened) = Store::open(&Env::real(), config).unwrap();
    Node::over(store, &opened)
}

fn play(commands: &[Command], cut: &Cut) -> Seen {
    let image = MemoryImage::default();
    let mut node = open(&image);
    let (mut outcomes, mut events) = (Vec::new(), Vec::new());
    let mut entries = cut.entries.iter().cycle();
    let mut publishes = cut.publishes.iter().cycle();
    let mut rest = commands;
    let mut published = 0;
    while !rest.is_empty() {
        let mut position = node.machine.applied();
        for _ in 0..*publishes.next().unwrap() {
            let (entry, left) = rest.split_at(rest.len().min(*entries.next().unwrap()));
            rest = left;
            position = node.next();
            // Through the log's bytes, as on every member.
            let mut bytes = BytesMut::new();
            codec::encode_batch(entry, &mut bytes);
            let entry = codec::decode_batch(bytes.freeze()).unwrap();
            outcomes.extend(node.machine.apply(position, &entry).unwrap());
        }
        if let Some(batch) = node.machine.publish(position).unwrap() {
            events.extend(batch.events.iter().map(|e| (e.event.kind, e.event.kv.clone(), e.event.revision.sub)));
        }
        published += 1;
        if cut.restart > 0 && published % cut.restart == 0 {
            drop(node);
            node = open(&image);
            assert_eq!(node.machine.applied(), position);
        }
    }
    let snapshot = node.machine.reader().snapshot();
    let mut leases: Vec<_> = node.machine.lessor().ids();
    leases.sort_unstable();
    Seen {
        outcomes,
        events,
        digest: snapshot.digest(),
        keys: snapshot.range(&RangeQuery::latest(KeyRange::all()), Disk::Allowed).unwrap().value.kvs,
        leases: leases.into_iter().map(|id| (id.get(), node.machine.lessor().keys(id).unwrap())).collect(),
        alarms: node.machine.alarms().load().list(None).len(),
    }
}

fn cut() -> impl Strategy<Value = Cut> {
    (vec(1..6usize, 1..4), vec(1..4usize, 1..4), 0..4usize).prop_map(|(entries, publishes, restart)| Cut {
        entries,
        publishes,
        restart,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]
    #[test]
    fn members_agree_however_the_log_is_cut(commands in vec(command(), 1..60), cut in cut()) {
        let plain = Cut { entries: vec![1], publishes: vec![1], restart: 0 };
        prop_assert_eq!(play(&commands, &cut), play(&commands, &plain));
    }
}
