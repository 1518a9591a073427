//! The tree against a plain map of version lists, under random edits with and without shared nodes.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::{Builder, Index, KeyMeta, Summary, Trim, Version};
use crate::types::{KeyRange, LeaseId, Revision};

type Model = BTreeMap<Vec<u8>, Vec<Version>>;

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<u8>),
    Delete(Vec<u8>),
    Undo,
    Freeze,
    Compact { back: i64, step: usize },
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => (0..400_u16).prop_map(|n| format!("/registry/pods/{n:03}").into_bytes()),
        1 => proptest::collection::vec(0..3_u8, 0..5),
        1 => (0..9_usize).prop_map(|n| vec![b'x'; n * 9_000]),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => key().prop_map(Step::Put),
        6 => key().prop_map(Step::Delete),
        1 => Just(Step::Undo),
        2 => Just(Step::Freeze),
        1 => (0..300_i64, 1..50_usize).prop_map(|(back, step)| Step::Compact { back, step }),
    ]
}

fn hash(key: &[u8], main: i64) -> u64 {
    key.iter().fold(main.cast_unsigned().wrapping_mul(0x9e37_79b9), |sum, byte| sum.rotate_left(5) ^ u64::from(*byte))
}

/// As the index gives it: only the newest version has its digest.
fn at(versions: &[Version], main: i64) -> Option<Version> {
    let place = versions.iter().rposition(|version| version.main() <= main)?;
    let found = if place + 1 < versions.len() { versions[place].with_hash(0) } else { versions[place] };
    found.is_live().then_some(found)
}

fn put_both(index: &mut Index, model: &mut Model, key: &[u8], main: i64) {
    let versions = model.entry(key.to_vec()).or_default();
    let prev = versions.last().and_then(Version::meta);
    let meta = KeyMeta {
        create: prev.map_or(main, |prev| prev.create),
        modified: Revision::new(main, 0),
        version: prev.map_or(1, |prev| prev.version + 1),
        lease: LeaseId::NONE,
    };
    let version = Version::put(meta, hash(key, main));
    versions.push(version);
    let before = versions.iter().rev().nth(1).filter(|before| before.is_live()).copied();
    let got = index.put(key, |found| {
        assert_eq!(found, prev);
        version
    });
    assert_eq!(got, before);
}

fn compact_model(model: &mut Model, main: i64) {
    model.retain(|_, versions| {
        let upto = versions.partition_point(|version| version.main() <= main);
        if let Some(newest) = upto.checked_sub(1) {
            let stays = versions[newest].is_live() || versions[newest].main() == main;
            versions.drain(..newest + usize::from(!stays));
        }
        !versions.is_empty()
    });
}

fn check(index: &Index, model: &Model, mains: &[i64]) {
    assert_eq!(index.len(), model.len());
    for (key, versions) in model {
        assert_eq!(index.count_revisions(key), versions.len());
    }
    let ranges = [
        KeyRange::all(),
        KeyRange::single(&b"/registry/pods/100"[..]),
        KeyRange::prefix("/registry/pods/1"),
        KeyRange::from_wire("/registry/pods/050".into(), "/registry/pods/350".into()),
        KeyRange::from_wire("z".into(), "a".into()),
    ];
    let newest = std::iter::once(None);
    for at_main in newest.chain(mains.iter().map(|main| Some(*main))) {
        for range in &ranges {
            let want: Vec<(&[u8], Version)> = model
                .iter()
                .filter(|(key, _)| range.contains(key))
                .filter_map(|(key, versions)| Some((key.as_slice(), at(versions, at_main.unwrap_or(i64::MAX))?)))
                .collect();
            let got: Vec<(&[u8], Version)> = index.range(range, at_main).collect();
            assert_eq!(got, want, "{range:?} at {at_main:?}");
            assert_eq!(index.count(range, at_main), want.len() as i64);
            if at_main.is_none() {
                let digest = want.iter().fold(0_u64, |sum, (_, version)| sum.wrapping_add(version.hash()));
                assert_eq!(index.summary_of(range).digest, digest);
            }
            for (key, version) in want {
                assert_eq!(index.get(key, at_main), Some(version));
            }
        }
    }
    let total = model.iter().fold(Summary::default(), |sum, (_, versions)| {
        let head = versions.last().unwrap();
        let garbage = u64::from(versions.len() > 1 || !head.is_live());
        sum.plus(Summary { live: u64::from(head.is_live()), digest: head.hash(), garbage })
    });
    assert_eq!(index.summary(), total);
}

/// Keys of a tree of three levels, whose inner nodes are split and joined in the middle: more than both maxima multiplied.
const DEEP: usize = 6_000;

/// All of them in an order of chance, which is the same each time.
fn shuffled(seed: u64) -> Vec<Vec<u8>> {
    let mut keys: Vec<_> = (0..DEEP).map(|n| format!("/registry/pods/{n:04}").into_bytes()).collect();
    keys.shuffle(&mut StdRng::seed_from_u64(seed));
    keys
}

/// Grows to three levels and shrinks to a leaf, key by key, with copies on the way that must stay as they were.
#[test]
fn a_deep_tree_grows_and_shrinks() {
    const KEPT: usize = 100;
    let (mut index, mut model, mut main) = (Index::default(), Model::new(), 1);
    let mut frozen = Vec::new();
    for (at, key) in shuffled(1).iter().enumerate() {
        main += 1;
        put_both(&mut index, &mut model, key, main);
        if at % 1_000 == 0 {
            frozen.push((index.clone(), model.clone()));
        }
    }
    assert_eq!(index.len(), DEEP);
    check(&index, &model, &[main / 2]);
    let full = (index.clone(), model.clone());
    for (at, key) in shuffled(2).iter().skip(KEPT).enumerate() {
        main += 1;
        let living = model[key].last().copied();
        assert_eq!(index.tombstone(key, Revision::new(main, 0)), living);
        model.get_mut(key).unwrap().push(Version::tombstone(Revision::new(main, 0)));
        if at % 1_000 == 999 {
            // What was deleted up to now goes, in steps that end in the middle of leaves.
            compact_model(&mut model, main);
            let (mut trim, mut removed) = (Trim::new(main), Vec::new());
            while !trim.is_done() {
                index.trim_step(&mut trim, 37, &mut removed);
            }
            check(&index, &model, &[]);
            frozen.push((index.clone(), model.clone()));
        }
    }
    // The last tombstone is of the compaction's own revision.
    compact_model(&mut model, main + 1);
    let (mut trim, mut removed) = (Trim::new(main + 1), Vec::new());
    while !trim.is_done() {
        index.trim_step(&mut trim, 1_000, &mut removed);
    }
    assert_eq!(index.len(), KEPT);
    check(&index, &model, &[]);
    check(&full.0, &full.1, &[DEEP as i64 / 3]);
    for (index, model) in &frozen {
        check(index, model, &[]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_tree_is_the_map(steps in proptest::collection::vec(step(), 1..900)) {
        let (mut index, mut model) = (Index::default(), Model::new());
        let mut frozen: Vec<(Index, Model)> = Vec::new();
        let (mut main, mut compacted) = (1, 0);
        let mut last: Option<Vec<u8>> = None;
        for step in steps {
            let mut undoable: Option<Vec<u8>> = None;
            match step {
                Step::Put(key) => {
                    main += 1;
                    put_both(&mut index, &mut model, &key, main);
                    undoable = Some(key);
                }
                Step::Delete(key) => {
                    let living = model.get(&key).and_then(|versions| versions.last().copied());
                    let living = living.filter(Version::is_live);
                    prop_assert_eq!(index.tombstone(&key, Revision::new(main + 1, 0)), living);
                    if living.is_some() {
                        main += 1;
                        model.get_mut(&key).unwrap().push(Version::tombstone(Revision::new(main, 0)));
                        undoable = Some(key);
                    }
                }
                Step::Undo => {
                    if let Some(key) = last.take() {
                        let versions = model.get_mut(&key).unwrap();
                        versions.pop();
                        index.undo(&key, versions.last().map_or(0, Version::hash));
                        if versions.is_empty() {
                            model.remove(&key);
                        }
                    }
                }
                Step::Freeze => frozen.push((index.clone(), model.clone())),
                Step::Compact { back, step } => {
                    compacted = (main - back).max(compacted);
                    compact_model(&mut model, compacted);
                    let (mut trim, mut removed) = (Trim::new(compacted), Vec::new());
                    while !trim.is_done() {
                        index.trim_step(&mut trim, step, &mut removed);
                    }
                }
            }
            last = undoable;
        }
        let mains: Vec<i64> = (compacted.max(1)..=main).step_by(97).collect();
        check(&index, &model, &mains);
        for (index, model) in &frozen {
            check(index, model, &[]);
        }
        let mut builder = Builder::default();
        for (key, versions) in &model {
            builder.push(key, versions);
        }
        index.warm(&model.keys().step_by(3).collect::<Vec<_>>());
        check(&builder.finish(), &model, &mains);
    }
}
