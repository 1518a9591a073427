//! The cases of 05 §C, the hole that is closed, and the whole rule against a plain version of it.

use proptest::prelude::*;

use super::*;
use crate::apply::{DeleteOp, PutOp, TxnOp};

fn put(key: &str) -> Op {
    Op::Put(PutOp { key: Bytes::copy_from_slice(key.as_bytes()), ..PutOp::default() })
}

fn delete(key: &str, end: &str) -> Op {
    let wire = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    Op::Delete(DeleteOp { range: KeyRange::from_wire(wire(key), wire(end)), prev_kv: false })
}

fn then(ops: Vec<Op>) -> Op {
    Op::Txn(TxnOp { success: ops, ..TxnOp::default() })
}

const DUPLICATE: Result<(), RequestError> = Err(RequestError::DuplicateKey);

#[test]
fn e46_one_list_changes_a_key_once() {
    assert_eq!(check(&[put("x"), put("x")]), DUPLICATE);
    assert_eq!(check(&[put("x"), delete("x", "")]), DUPLICATE);
    assert_eq!(check(&[delete("x", ""), put("x")]), DUPLICATE);
    assert_eq!(check(&[delete("a", "z"), put("x")]), DUPLICATE);
}

#[test]
fn e47_e48_what_does_not_meet_is_fine() {
    assert_eq!(check(&[delete("a", "x"), put("x")]), Ok(()));
    assert_eq!(check(&[delete("x", ""), delete("x", ""), delete("a", "z")]), Ok(()));
    assert_eq!(check(&[delete("z", "a"), put("m")]), Ok(()), "an empty range");
}

#[test]
fn e61_children_count() {
    assert_eq!(check(&[put("k"), then(vec![put("k")])]), DUPLICATE);
    assert_eq!(check(&[then(vec![put("k")]), then(vec![put("k")])]), DUPLICATE);
    assert_eq!(check(&[delete("k", ""), then(vec![put("k")])]), DUPLICATE);
    assert_eq!(check(&[then(vec![delete("k", "")]), put("k")]), DUPLICATE);
    assert_eq!(check(&[then(vec![delete("k", "")]), then(vec![put("k")])]), DUPLICATE);
}

#[test]
fn e62_e63_what_etcd_lets_through() {
    assert_eq!(check(&[then(vec![put("k")]), then(vec![delete("k", "")])]), Ok(()));
    let branches = TxnOp { success: vec![delete("k", "")], failure: vec![put("k")], ..TxnOp::default() };
    assert_eq!(check(&[Op::Txn(branches)]), Ok(()));
    let both = TxnOp { success: vec![put("k")], failure: vec![put("k")], ..TxnOp::default() };
    assert_eq!(check(&[Op::Txn(both)]), Ok(()));
}

/// Cause: a delete without an end was held against puts, which etcd doesn't do. Symptom: txns that
/// clear everything and write anew were refused. Now they are let through, and `apply` refuses what
/// makes etcd panic: a put with ignore_value of a key that the txn has deleted.
#[test]
fn a_delete_without_an_end_meets_no_put() {
    assert_eq!(check(&[delete("\0", "\0"), put("k")]), Ok(()));
    assert_eq!(check(&[put("k"), delete("a", "\0"), then(vec![put("zz")])]), Ok(()));
    assert_eq!(check(&[delete("a", "\0"), delete("k", ""), put("k")]), DUPLICATE);
}

#[test]
fn many_nested_operations_take_no_quadratic_time() {
    // A chain of nested txns under one another, each with many puts: 64 levels over 60 000 keys.
    let list = |level: usize| (0..1000).map(move |n| put(&format!("{level:02}/{n}")));
    let chain = (0..60).fold(vec![], |inner: Vec<Op>, level| list(level).chain([then(inner)]).collect());
    assert_eq!(check(&chain), Ok(()));
}

/// The rule as etcd's documents say it, pair by pair.
fn plain(ops: &[Op]) -> Result<(Vec<Bytes>, Vec<KeyRange>), ()> {
    let mut puts: Vec<Bytes> = Vec::new();
    let mut deletes: Vec<KeyRange> = Vec::new();
    for op in ops {
        if let Op::Delete(op) = op
            && op.range.end != RangeEnd::Unbounded
        {
            deletes.push(op.range.clone());
        }
    }
    for op in ops {
        let Op::Txn(op) = op else { continue };
        let (mut child_puts, mut child_deletes) = plain(&op.success)?;
        let (other_puts, other_deletes) = plain(&op.failure)?;
        child_puts.extend(other_puts.into_iter().filter(|key| !child_puts.contains(key)).collect::<Vec<_>>());
        child_deletes.extend(other_deletes);
        for key in child_puts {
            if puts.contains(&key) || deletes.iter().any(|range| range.contains(&key)) {
                return Err(());
            }
            puts.push(key);
        }
        deletes.extend(child_deletes);
    }
    for op in ops {
        let Op::Put(op) = op else { continue };
        if puts.contains(&op.key) || deletes.iter().any(|range| range.contains(&op.key)) {
            return Err(());
        }
        puts.push(op.key.clone());
    }
    Ok((puts, deletes))
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let key = "[a-h]{1,2}";
    let leaf = prop_oneof![
        3 => key.prop_map(|key| put(&key)),
        1 => (key, prop_oneof![Just(String::new()), Just("\0".to_owned()), key.prop_map(|key| key)])
            .prop_map(|(key, end)| delete(&key, &end)),
    ];
    let op = leaf.prop_recursive(4, 30, 4, |inner| {
        (proptest::collection::vec(inner.clone(), 0..3), proptest::collection::vec(inner, 0..3))
            .prop_map(|(success, failure)| Op::Txn(TxnOp { compares: vec![], success, failure }))
    });
    proptest::collection::vec(op, 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn the_rule_is_the_plain_one(ops in ops()) {
        prop_assert_eq!(check(&ops).is_ok(), plain(&ops).is_ok());
    }
}
