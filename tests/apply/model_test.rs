//! The machine against the model, command by command, after each of which all is compared.

use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use rusd::apply::Command;
use rusd::storage::{Disk, RangeQuery};
use rusd::types::{KeyRange, LeaseId};

use crate::commands::command;
use crate::harness::Node;
use crate::model::Model;

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Command;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::new()).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Command> {
        command().boxed()
    }

    fn apply(mut state: Self, transition: &Command) -> Self {
        // The test below applies it too and compares; the outcome is the state's own business here.
        Model::apply(&mut state, transition);
        state
    }
}

struct Pair {
    node: Node,
    model: Model,
}

impl StateMachineTest for Pair {
    type SystemUnderTest = Self;
    type Reference = Model;

    fn init_test(_: &Model) -> Self {
        Self { node: Node::new(), model: Model::new() }
    }

    fn apply(mut state: Self, _: &Model, transition: Command) -> Self {
        let expected = state.model.apply(&transition);
        let found = state.node.run(transition);
        assert_eq!(found, expected);
        state
    }

    fn check_invariants(state: &Self, _: &Model) {
        let Self { node, model } = state;
        let all = node.machine.reader().snapshot().range(&RangeQuery::latest(KeyRange::all()), Disk::Allowed).unwrap();
        assert_eq!((all.revision, all.value.kvs), (model.revision(), model.keys.values().cloned().collect()));
        for id in (1..4).map(LeaseId) {
            let keys = model.leases.contains_key(&id).then(|| model.keys_of(id));
            assert_eq!(node.machine.lessor().keys(id), keys);
        }
        assert_eq!(node.machine.lessor().len(), model.leases.len());
        assert!(node.machine.alarms().load().list(None).iter().eq(&model.alarms));
        let events = node.events.iter().flat_map(|batch| &batch.events);
        let events: Vec<_> = events
            .map(|entry| &entry.event)
            .map(|event| (event.kind, event.kv.key.clone(), event.kv.value.clone(), event.kv.mod_revision))
            .collect();
        assert_eq!(events, model.events);
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn the_machine_does_what_the_model_does(sequential 1..40 => Pair);
}
