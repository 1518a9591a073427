//! Random commands, reads, compactions and restarts on the store and on the model at once.

use bytes::Bytes;
use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use rusd::env::Env;
use rusd::storage::backend::{Engine, MemoryImage};
use rusd::storage::{
    AppliedPosition, Disk, HistoryError, RangeQuery, ReadError, SortOrder, SortTarget, Store, StoreConfig, WriteTxn,
};
use rusd::types::{KeyRange, LeaseId, RaftIndex, RequestError, Term};

use crate::model::{Model, Op};

/// The model, with what of it is published.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reference {
    /// After the last committed command.
    now: Model,
    /// As readers see it.
    published: Model,
}

#[derive(Clone, Debug)]
pub(crate) enum Transition {
    Command { ops: Vec<Op>, keep: bool, inside: RangeQuery },
    Publish,
    Compact { above: i64 },
    Reclaim { records: usize },
    Reopen,
    Read(RangeQuery),
    Events { from: i64, revisions: usize },
}

fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        6 => "[a-d][a-c]?".prop_map(Bytes::from),
        1 => proptest::collection::vec(any::<u8>(), 1..3).prop_map(Bytes::from),
    ]
}

fn range() -> impl Strategy<Value = KeyRange> {
    let end = prop_oneof![
        3 => Just(Bytes::new()),
        1 => Just(Bytes::from_static(&[0])),
        2 => key(),
    ];
    prop_oneof![
        3 => (key(), end).prop_map(|(key, end)| KeyRange::from_wire(key, end)),
        1 => key().prop_map(KeyRange::prefix),
        1 => Just(KeyRange::all()),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (key(), "[a-c]{0,2}", 0..3_i64)
            .prop_map(|(key, value, lease)| Op::Put { key, value: value.into(), lease: LeaseId(lease) }),
        1 => range().prop_map(Op::Delete),
    ]
}

fn query(revision: i64) -> impl Strategy<Value = RangeQuery> {
    let bound = prop_oneof![4 => Just(0), 1 => 1..revision + 2];
    let order = prop_oneof![Just(SortOrder::None), Just(SortOrder::Ascend), Just(SortOrder::Descend)];
    let target = prop_oneof![
        3 => Just(SortTarget::Key),
        1 => Just(SortTarget::Version),
        1 => Just(SortTarget::Create),
        1 => Just(SortTarget::Mod),
        1 => Just(SortTarget::Value),
    ];
    let at = prop_oneof![2 => Just(0), 3 => -1..revision + 3];
    let limit = prop_oneof![2 => Just(0), 3 => -1..6_i64, 1 => Just(i64::MAX)];
    let bounds = [bound.clone().boxed(), bound.clone().boxed(), bound.clone().boxed(), bound.boxed()];
    (range(), limit, at, order, target, any::<bool>(), proptest::bool::weighted(0.1), bounds).prop_map(
        |(range, limit, revision, order, target, keys_only, count_only, bounds)| RangeQuery {
            range,
            limit,
            revision,
            order,
            target,
            keys_only,
            count_only,
            min_mod_revision: bounds[0],
            max_mod_revision: bounds[1],
            min_create_revision: bounds[2],
            max_create_revision: bounds[3],
        },
    )
}

impl ReferenceStateMachine for Reference {
    type State = Self;
    type Transition = Transition;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(state: &Self) -> BoxedStrategy<Transition> {
        let revision = state.now.revision;
        prop_oneof![
            10 => (proptest::collection::vec(op(), 0..4), proptest::bool::weighted(0.9), query(revision))
                .prop_map(|(ops, keep, inside)| Transition::Command { ops, keep, inside }),
            5 => Just(Transition::Publish),
            2 => (-2..6_i64).prop_map(|above| Transition::Compact { above }),
            2 => (1..8_usize).prop_map(|records| Transition::Reclaim { records }),
            1 => Just(Transition::Reopen),
            8 => query(revision).prop_map(Transition::Read),
            2 => (0..revision + 2, 1..5_usize).prop_map(|(from, revisions)| Transition::Events { from, revisions }),
        ]
        .boxed()
    }

    fn apply(mut state: Self, transition: &Transition) -> Self {
        match transition {
            Transition::Command { ops, keep: true, .. } => drop(state.now.run(ops)),
            Transition::Compact { above } => drop(state.now.compact(state.now.compact + above)),
            Transition::Publish | Transition::Reopen => state.published = state.now.clone(),
            _ => {}
        }
        state
    }
}

/// The store, and one that is never compacted and never closed.
pub(crate) struct Subject {
    image: MemoryImage,
    store: Option<Store>,
    twin: Store,
    /// The state before the transition: operations are compared with what they find there.
    before: Reference,
}

fn open(image: &MemoryImage) -> Store {
    let mut config = StoreConfig::new(Engine::Memory(image.clone()), "memory");
    config.values.cache_bytes = 4 << 20;
    Store::open(&Env::real(), config).expect("open").0
}

fn show(store: &mut Store) {
    let revision = store.revision();
    store.publish(AppliedPosition { index: RaftIndex(revision.cast_unsigned()), term: Term(1) }).unwrap();
}

fn perform(txn: &mut WriteTxn<'_>, ops: &[Op], want: &[Vec<rusd::types::KeyValue>]) {
    for (op, want) in ops.iter().zip(want) {
        match op {
            Op::Put { key, value, lease } => {
                assert_eq!(txn.value_of(key).expect("read").as_ref(), want.first());
                let prev = txn.put(key.clone(), value.clone(), *lease).prev;
                assert_eq!(prev.map(|meta| meta.modified.main), want.first().map(|kv| kv.mod_revision));
            }
            Op::Delete(range) => {
                let deleted = txn.delete(range);
                let want: Vec<_> = want.iter().map(|kv| (kv.key.clone(), kv.version)).collect();
                assert_eq!(deleted.iter().map(|(key, meta)| (key.clone(), meta.version)).collect::<Vec<_>>(), want);
            }
        }
    }
}

fn refused(error: ReadError) -> RequestError {
    match error {
        ReadError::Request(error) => error,
        ReadError::NeedsDisk => panic!("the disk was allowed"),
    }
}

impl Subject {
    fn store(&mut self) -> &mut Store {
        self.store.as_mut().expect("open between transitions")
    }

    fn command(&mut self, ops: &[Op], keep: bool, inside: &RangeQuery) {
        let mut model = self.before.now.clone();
        let found = model.run(ops);
        let mut txn = self.store().begin();
        perform(&mut txn, ops, &found);
        assert_eq!(txn.revision(), model.revision);
        assert_eq!(txn.range(inside), model.range(inside));
        if keep {
            txn.commit();
            let mut txn = self.twin.begin();
            perform(&mut txn, ops, &found);
            txn.commit();
        }
    }

    fn read(&self, query: &RangeQuery) {
        let reader = self.store.as_ref().expect("open between transitions").reader();
        let want = self.before.published.range(query);
        let got = reader.snapshot().range(query, Disk::Allowed).map_err(refused);
        assert_eq!(got.map(|scoped| scoped.value), want);
        match reader.range(query, Disk::Never) {
            Ok(scoped) => assert_eq!((Ok(scoped.value), scoped.revision), (want, self.before.published.revision)),
            Err(ReadError::NeedsDisk) => {}
            Err(ReadError::Request(error)) => assert_eq!(Err(error), want),
        }
    }

    fn events(&self, from: i64, revisions: usize) {
        let model = &self.before.published;
        let history = self.store.as_ref().expect("open").reader().events(from, revisions, usize::MAX);
        if from < model.compact {
            assert!(matches!(history, Err(HistoryError::Compacted(at)) if at == model.compact));
            return;
        }
        let history = history.expect("not compacted");
        let mut want = model.events(from);
        want.retain(|event| event.revision.main < history.next_main);
        let mut mains: Vec<i64> = want.iter().map(|event| event.revision.main).collect();
        mains.dedup();
        assert!(mains.len() <= revisions && history.next_main <= model.revision.max(from) + 1);
        assert!(mains.len() == revisions || history.next_main > model.revision);
        if from == model.compact {
            // A version that its own transaction ended may be gone already.
            want.retain(|event| event.revision.main > from || history.events.contains(event));
        }
        assert_eq!(history.events, want);
    }
}

impl StateMachineTest for Subject {
    type SystemUnderTest = Self;
    type Reference = Reference;

    fn init_test(state: &Reference) -> Self {
        let image = MemoryImage::default();
        let store = Some(open(&image));
        Self { image, store, twin: open(&MemoryImage::default()), before: state.clone() }
    }

    fn apply(mut this: Self, state: &Reference, transition: Transition) -> Self {
        match transition {
            Transition::Command { ops, keep, inside } => this.command(&ops, keep, &inside),
            Transition::Publish => {
                show(this.store());
                show(&mut this.twin);
            }
            Transition::Compact { above } => {
                let revision = this.before.now.compact + above;
                let want = this.before.now.clone().compact(revision);
                assert_eq!(this.store().compact(revision), want);
            }
            Transition::Reclaim { records } => {
                this.store().compact_step(records);
            }
            Transition::Reopen => {
                show(this.store());
                show(&mut this.twin);
                this.store = None;
                this.store = Some(open(&this.image));
            }
            Transition::Read(query) => this.read(&query),
            Transition::Events { from, revisions } => this.events(from, revisions),
        }
        this.before = state.clone();
        this
    }

    fn check_invariants(this: &Self, state: &Reference) {
        let store = this.store.as_ref().expect("open between transitions");
        assert_eq!((store.revision(), store.compact_revision()), (state.now.revision, state.now.compact));
        let (snapshot, twin) = (store.reader().snapshot(), this.twin.reader().snapshot());
        assert_eq!(
            (snapshot.revision(), snapshot.compact_revision()),
            (state.published.revision, state.published.compact)
        );
        assert_eq!(snapshot.digest(), twin.digest());
        for range in [KeyRange::all(), KeyRange::prefix("a"), KeyRange::from_wire("aa".into(), "c".into())] {
            let count = state.published.range(&RangeQuery::latest(range.clone())).expect("now").count;
            assert_eq!(snapshot.count(&range), count);
        }
        // One key as it is now takes a way of its own.
        for key in
            (b'a'..=b'd').flat_map(|first| [vec![first], vec![first, b'a'], vec![first, b'b'], vec![first, b'c']])
        {
            match store.reader().get(&key, Disk::Never) {
                Ok(found) => {
                    assert_eq!(found.value.as_ref(), state.published.living(&key, state.published.revision));
                }
                Err(error) => assert_eq!(error, ReadError::NeedsDisk),
            }
        }
        for revision in state.published.compact.max(1)..=state.published.revision {
            let hash = |snapshot: &rusd::storage::Snapshot| snapshot.hash_kv(revision).map(|found| found.value.hash);
            assert_eq!(hash(&snapshot), hash(&twin), "at {revision}");
        }
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_its_model(sequential 1..120 => Subject);
}
