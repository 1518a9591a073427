//! A model: whatever a client does and however slowly it reads, each watcher sees exactly the model's events.

use proptest::prelude::*;
use proptest::sample::select;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use super::*;
use crate::watch::Kinds;

const KEYS: [&str; 4] = ["a", "ab", "b", "c"];

#[derive(Clone, Debug)]
enum Action {
    Batch(Vec<Vec<usize>>, bool),
    Delete(usize),
    Compact(i64),
    Create {
        range: usize,
        back: i64,
        prev_kv: bool,
        puts: bool,
        deletes: bool,
    },
    Cancel(usize),
    Progress,
    /// Up to that many chunks and jobs.
    Read(usize),
    /// The hub is only told later.
    Unsaid(usize),
    Install,
    Settle,
}

fn ranges() -> Vec<KeyRange> {
    vec![
        KeyRange::single("a"),
        KeyRange::single("b"),
        KeyRange::prefix("a"),
        KeyRange::all(),
        KeyRange::from_wire("ab".into(), "c".into()),
    ]
}

/// The reference has no state: what must be seen is worked out from the model store itself.
struct Reference;

impl ReferenceStateMachine for Reference {
    type State = ();
    type Transition = Action;

    fn init_state() -> BoxedStrategy<()> {
        Just(()).boxed()
    }

    fn transitions(_: &()) -> BoxedStrategy<Action> {
        let txn = || proptest::sample::subsequence(vec![0_usize, 1, 2, 3], 1..3);
        prop_oneof![
            6 => (proptest::collection::vec(txn(), 1..30), any::<bool>()).prop_map(|(txns, large)| Action::Batch(txns, large)),
            2 => (0..5_usize).prop_map(Action::Delete),
            1 => (0..30_i64).prop_map(Action::Compact),
            3 => (0..5_usize, select(vec![0, 1, 5, 40, -5]), any::<bool>(), prop::bool::weighted(0.8), prop::bool::weighted(0.8))
                .prop_map(|(range, back, prev_kv, puts, deletes)| Action::Create { range, back, prev_kv, puts, deletes }),
            1 => (0..8_usize).prop_map(Action::Cancel),
            2 => Just(Action::Progress),
            5 => (1..4_usize).prop_map(Action::Read),
            1 => (0..4_usize).prop_map(Action::Unsaid),
            1 => Just(Action::Install),
            1 => Just(Action::Settle),
        ]
        .boxed()
    }

    fn apply((): (), _: &Action) {}
}

#[derive(Debug)]
struct Seen {
    create: CreateWatch,
    created_at: i64,
    events: Vec<String>,
    last: i64,
    /// Reported as sent, since this watcher was created.
    reported: i64,
    over: bool,
}

struct Run {
    world: World,
    client: Client,
    watchers: BTreeMap<i64, Seen>,
    creates: std::collections::VecDeque<CreateWatch>,
    unsaid: Option<Arc<EventBatch>>,
    reported: i64,
    /// Events by revision with their previous pair, as they were published.
    published: Vec<(i64, Event, Option<i64>)>,
}

impl Run {
    fn publish(&mut self, txns: &[Vec<Change>]) -> Option<Arc<EventBatch>> {
        self.say();
        let batch = self.world.publish(txns);
        for entry in batch.iter().flat_map(|batch| &batch.events) {
            self.published.push((entry.event.revision.main, entry.event.clone(), entry.prev.map(|prev| prev.main)));
        }
        batch
    }

    fn say(&mut self) {
        if let Some(batch) = self.unsaid.take() {
            self.world.hub.notify(Some(batch), self.world.revision());
        }
    }

    fn apply(&mut self, txns: &[Vec<Change>]) {
        let batch = self.publish(txns);
        self.world.hub.notify(batch, self.world.revision());
    }

    fn take(&mut self) {
        while let Some(response) = self.client.next() {
            let header = response.header.as_ref().map_or(-1, |header| header.revision);
            if response.watch_id == -1 && !response.created {
                assert!(header >= self.reported);
                for seen in self.watchers.values_mut().filter(|seen| !seen.over) {
                    seen.reported = header;
                    assert!(header >= seen.last, "progress {header} below {}", seen.last);
                }
                self.reported = header;
            } else if response.created {
                let create = self.creates.pop_front().expect("a create was asked for");
                let seen = Seen { create, created_at: header, events: Vec::new(), last: 0, reported: 0, over: false };
                self.watchers.insert(response.watch_id, seen);
            } else {
                let seen = self.watchers.get_mut(&response.watch_id).expect("a known watcher");
                assert!(!seen.over, "nothing after the end");
                for event in &response.events {
                    let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
                    assert!(revision > seen.reported, "{revision} after {} was reported", seen.reported);
                    assert!(revision >= seen.last);
                    assert!(response.compact_revision == 0 && revision <= header);
                    seen.last = revision;
                    seen.events.push(brief_event(event));
                }
                seen.over |= response.canceled;
            }
        }
    }

    /// Every watcher has seen a prefix of what it must see, and after `settle` all of it.
    fn check(&self, complete: bool) {
        let compacted = self.world.store.state.lock().compacted;
        for (id, seen) in &self.watchers {
            let start = if seen.create.start_revision == 0 { seen.created_at + 1 } else { seen.create.start_revision };
            let mut expected = self
                .published
                .iter()
                .filter(|(main, event, _)| {
                    let wanted = match event.kind {
                        EventKind::Put => seen.create.kinds.puts,
                        EventKind::Delete => seen.create.kinds.deletes,
                    };
                    *main >= start && wanted && seen.create.range.contains(&event.kv.key)
                })
                .peekable();
            for text in &seen.events {
                let matches = |(main, event, prev): &(i64, Event, Option<i64>)| {
                    let sign = if event.kind == EventKind::Put { '+' } else { '-' };
                    let plain = format!("{sign}{}@{main}", String::from_utf8_lossy(&event.kv.key));
                    let with = prev.map(|prev| format!("{plain}/{prev}"));
                    match with {
                        Some(with) if seen.create.prev_kv => *text == with || (*text == plain && main - 1 < compacted),
                        _ => *text == plain,
                    }
                };
                // Versions that a compaction took away may be missing from history; nothing else may.
                loop {
                    match expected.next() {
                        Some(event) if matches(event) => break,
                        Some((main, ..)) if *main <= compacted => {}
                        other => panic!("watcher {id} saw {text}, expected {other:?}"),
                    }
                }
            }
            if complete && !seen.over {
                let missing: Vec<_> = expected.filter(|(main, ..)| *main > compacted).collect();
                assert!(missing.is_empty(), "watcher {id} misses {missing:?}");
            }
        }
    }
}

impl StateMachineTest for Run {
    type SystemUnderTest = Self;
    type Reference = Reference;

    fn init_test((): &()) -> Self {
        let world = World::with(WatchLimits { stream_bytes_max: 3000, ..WatchLimits::default() });
        world.store.cold.store(true, Ordering::Relaxed);
        let client = world.client();
        Self {
            world,
            client,
            watchers: BTreeMap::new(),
            creates: std::collections::VecDeque::new(),
            unsaid: None,
            reported: 0,
            published: Vec::new(),
        }
    }

    fn apply(mut run: Self, (): &(), action: Action) -> Self {
        match action {
            Action::Batch(txns, large) => {
                let value = if large { vec![1; 200] } else { vec![1] };
                let txn =
                    |keys: Vec<usize>| keys.into_iter().map(|key| Change::Put(KEYS[key], value.clone())).collect();
                let txns: Vec<Vec<Change>> = txns.into_iter().map(txn).collect();
                Self::apply(&mut run, &txns);
            }
            Action::Delete(range) => Self::apply(&mut run, &[vec![Change::Delete(ranges()[range].clone())]]),
            Action::Compact(back) => {
                let at = run.world.revision() - back;
                if at > run.world.store.state.lock().compacted {
                    run.world.compact(at);
                }
            }
            Action::Create { range, back, prev_kv, puts, deletes } => {
                let start_revision = if back == 0 { 0 } else { (run.world.revision() - back).max(1) };
                let kinds = Kinds { puts, deletes };
                let create = CreateWatch { start_revision, prev_kv, kinds, ..watch(ranges()[range].clone()) };
                run.creates.push_back(create.clone());
                run.client.create(create);
            }
            Action::Cancel(at) => {
                run.take();
                if let Some((id, seen)) = run.watchers.iter_mut().nth(at)
                    && !seen.over
                {
                    let id = *id;
                    run.client.send(WatchRequest::Cancel(id));
                    run.take();
                }
            }
            Action::Progress => run.client.send(WatchRequest::Progress),
            Action::Read(steps) => {
                for _ in 0..steps {
                    run.client.step();
                    run.take();
                    run.client.work();
                }
            }
            Action::Unsaid(key) => {
                run.unsaid = Self::publish(&mut run, &[vec![Change::Put(KEYS[key], vec![1])]]);
            }
            Action::Install => {
                Self::publish(&mut run, &[vec![Change::Put("a", vec![1])], vec![Change::Put("b", vec![1])]]);
                run.world.hub.notify(None, run.world.revision());
            }
            Action::Settle => {
                run.say();
                run.client.settle();
                run.take();
                run.check(true);
                assert!(run.client.core.mailbox().charged() == 0);
            }
        }
        run.check(false);
        run
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig::default())]
    #[test]
    fn each_watcher_sees_the_models_events(sequential 1..40 => Run);
}
