//! The log against a plain list, under crashes, torn writes, failed syncs and reopens.
//!
//! After a crash the log must hold the state of some moment between the last acknowledged record
//! and the last one asked for: nothing acknowledged lost, nothing made up.

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use rusd::env::{CrashStyle, DiskOp, SeededRng};
use rusd::types::RaftIndex;

use super::rig::{Results, Rig, View, entry, id, note, small};

#[derive(Clone, Debug)]
enum Op {
    Append { term_step: bool, lens: Vec<usize> },
    Vote(u8),
    TruncateBack(u64),
    TruncateAll,
    Purge(u64),
    PurgeBeyond(u64),
    Committed(u64),
    Steps(usize),
    Run,
    Keeper,
    Read(u64, u64),
    Close,
    Crash(u8, u64),
    Fault(u8, u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (any::<bool>(), prop::collection::vec(0usize..200, 0..5))
            .prop_map(|(term_step, lens)| Op::Append { term_step, lens }),
        1 => (0usize..3000).prop_map(|len| Op::Append { term_step: false, lens: vec![len] }),
        2 => any::<u8>().prop_map(Op::Vote),
        2 => (0u64..8).prop_map(Op::TruncateBack),
        1 => Just(Op::TruncateAll),
        2 => (0u64..20).prop_map(Op::Purge),
        1 => (1u64..5).prop_map(Op::PurgeBeyond),
        1 => (0u64..5).prop_map(Op::Committed),
        4 => (1usize..4).prop_map(Op::Steps),
        4 => Just(Op::Run),
        2 => Just(Op::Keeper),
        2 => (0u64..40, 0u64..20).prop_map(|(from, len)| Op::Read(from, len)),
        1 => Just(Op::Close),
        3 => (0u8..3, any::<u64>()).prop_map(|(style, seed)| Op::Crash(style, seed)),
        1 => (0u8..6, 0u64..3).prop_map(|(kind, after)| Op::Fault(kind, after)),
    ]
}

/// The states after each record asked for; the first is durable.
struct Model {
    states: Vec<View>,
    /// For each operation: how many of `states` it brought us to.
    reached: Vec<usize>,
    term: u64,
}

impl Model {
    fn new(view: View) -> Self {
        let term = view.last().map_or(1, |last| last.term.get()).max(1);
        Self { states: vec![view], reached: Vec::new(), term }
    }

    fn now(&self) -> &View {
        self.states.last().unwrap()
    }

    fn change(&mut self, change: impl FnOnce(&mut View)) {
        let mut next = self.now().clone();
        change(&mut next);
        self.states.push(next);
    }

    /// Ends an operation; gives its number for the callback.
    fn finish(&mut self) -> usize {
        self.reached.push(self.states.len() - 1);
        self.reached.len() - 1
    }

    fn acknowledged(&self, results: &Results) -> usize {
        let results = results.lock();
        for (at, (op, _)) in results.iter().enumerate() {
            assert_eq!(*op, at, "callbacks come once and in order");
        }
        let failed = results.iter().position(|(_, ok)| !ok).unwrap_or(results.len());
        assert!(results[failed..].iter().all(|(_, ok)| !ok), "after a failure everything fails");
        failed.checked_sub(1).map_or(0, |last| self.reached[last])
    }
}

fn run(ops: Vec<Op>) {
    let mut rig = Rig::new(small());
    let (mut wal, recovered) = rig.open().unwrap();
    assert_eq!(recovered, rusd::wal::Recovered::default());
    let mut model = Model::new(View::default());
    let mut results = Results::default();
    for op in ops {
        match op {
            Op::Append { term_step, lens } => {
                model.term += u64::from(term_step);
                let mut entries = Vec::new();
                for len in lens {
                    let new = entry(model.term, model.now().next_index(), len);
                    entries.push(new.clone());
                    model.change(|view| view.entries.push(new));
                }
                wal.append(entries, note(&results, model.finish()));
            }
            Op::Vote(byte) => {
                let vote = Bytes::from(vec![byte; usize::from(byte) % 40]);
                model.change(|view| view.vote = Some(vote.clone()));
                wal.save_vote(vote, note(&results, model.finish()));
            }
            Op::TruncateBack(count) => {
                let Some(last) = model.now().last() else { continue };
                let floor = model.now().purged.map_or(0, |purged| purged.index.get());
                let keep = last.index.get().saturating_sub(count).max(floor);
                model.term += 1;
                model.change(|view| view.truncate_after(Some(keep)));
                wal.truncate_after(Some(RaftIndex(keep)), note(&results, model.finish()));
            }
            Op::TruncateAll => {
                model.term += 1;
                model.change(|view| view.truncate_after(None));
                wal.truncate_after(None, note(&results, model.finish()));
            }
            Op::Purge(at) => {
                let Some(to) = model.now().entries.get(usize::try_from(at).unwrap()).map(|entry| entry.id) else {
                    continue;
                };
                model.change(|view| view.purge_to(to));
                wal.purge_to(to, note(&results, model.finish()));
            }
            Op::PurgeBeyond(by) => {
                let to = id(model.term, model.now().next_index() + by);
                model.change(|view| view.purge_to(to));
                wal.purge_to(to, note(&results, model.finish()));
            }
            Op::Committed(back) => {
                let Some(last) = wal.last() else { continue };
                if let Some(committed) = wal.id_at(RaftIndex(last.index.get().saturating_sub(back))) {
                    wal.note_committed(committed);
                }
            }
            Op::Steps(count) => {
                for _ in 0..count {
                    rig.step();
                }
            }
            Op::Run => rig.spawn.run(rusd::wal::Wal::WRITER),
            Op::Keeper => rig.spawn.run(rusd::wal::Wal::KEEPER),
            Op::Read(from, len) => {
                let read = wal.read(RaftIndex(from)..RaftIndex(from + len), usize::MAX).unwrap();
                let wanted =
                    model.now().entries.iter().filter(|entry| (from..from + len).contains(&entry.id.index.get()));
                if wal.fatal().borrow().is_none() {
                    assert!(read.iter().eq(wanted), "{read:?}");
                }
            }
            Op::Close => {
                wal.close();
                rig.run();
                let acknowledged = model.acknowledged(&results);
                if wal.fatal().borrow().is_none() {
                    assert_eq!(acknowledged, model.states.len() - 1, "a clean stop finishes everything");
                }
                drop(wal);
                rig.spawn.clear();
                (wal, model, results) = reopen(&mut rig, &model, acknowledged);
            }
            Op::Crash(style, seed) => {
                let rng = SeededRng::new(seed);
                let style = match style {
                    0 => CrashStyle::LoseAll,
                    1 => CrashStyle::KeepAll,
                    _ => CrashStyle::Torn(&rng),
                };
                let acknowledged = model.acknowledged(&results);
                rig.crash(wal, style);
                (wal, model, results) = reopen(&mut rig, &model, acknowledged);
            }
            Op::Fault(kind, after) => {
                let op = [DiskOp::Write, DiskOp::Sync, DiskOp::Rename, DiskOp::SyncDir, DiskOp::Allocate, DiskOp::Open]
                    [usize::from(kind)];
                rig.disk.fail(op, after, 5);
            }
        }
        if wal.fatal().borrow().is_none() {
            assert_eq!(&View::of(&wal), model.now(), "readers see what was asked for at once");
        }
    }
    let acknowledged = model.acknowledged(&results);
    rig.crash(wal, CrashStyle::LoseAll);
    reopen(&mut rig, &model, acknowledged);
}

/// Opens after a crash, checks what is there, loses power once more and finds the same.
fn reopen(rig: &mut Rig, model: &Model, acknowledged: usize) -> (rusd::wal::Wal, Model, Results) {
    // A planted fault may hit the opening itself: an error then, and the next try succeeds.
    let mut opened = rig.open();
    for _ in 0..20 {
        if opened.is_err() {
            opened = rig.open();
        }
    }
    let (wal, recovered) = opened.expect("opens once the faults are used up");
    let view = View::of(&wal);
    assert!(model.states[acknowledged..].contains(&view), "{view:?} is none of {:?}", &model.states[acknowledged..]);
    assert_eq!((&recovered.vote, recovered.purged, recovered.last), (&view.vote, view.purged, view.last()));
    assert!(recovered.committed.is_none_or(|committed| committed.index <= view.last().unwrap().index));
    rig.crash(wal, CrashStyle::LoseAll);
    let (wal, _) = rig.open().unwrap();
    assert_eq!(View::of(&wal), view, "what an open gave is durable");
    (wal, Model::new(view), Results::default())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        max_shrink_iters: 20_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/wal/regressions.txt"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_log_is_a_list_that_survives(ops in prop::collection::vec(op(), 1..80)) {
        run(ops);
    }
}
