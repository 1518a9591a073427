//! Whether a transaction's conditions hold (02 §5), on whatever state: the writer's or a published one.
//!
//! What the index knows is compared first. Values are read once for each range that is compared,
//! however many conditions there are on it, and only until one fails.

use std::cmp::Ordering;

use super::{Compare, CompareResult, CompareTarget};
use crate::storage::{KeyMeta, WriteTxn};
use crate::types::{KeyRange, LeaseId, RequestError, Revision};

/// What a missing key counts as.
const MISSING: KeyMeta =
    KeyMeta { create: 0, modified: Revision { main: 0, sub: 0 }, version: 0, lease: LeaseId::NONE };

/// A state that conditions can be held against.
pub trait Compared {
    /// Why a value can't be had.
    type Error;

    /// What the index knows of one living key.
    fn meta_of(&self, key: &[u8]) -> Option<KeyMeta>;

    /// Calls `each` for every living key of `range` until it says to stop by `false`.
    fn visit(&self, range: &KeyRange, each: &mut dyn FnMut(&KeyMeta) -> bool);

    /// Calls `each` with the value of every living key of `range`, in any order, until it says to stop by `false`.
    ///
    /// # Errors
    /// As the state has it.
    fn each_value(&self, range: &KeyRange, each: &mut dyn FnMut(&[u8]) -> bool) -> Result<(), Self::Error>;
}

impl Compared for WriteTxn<'_> {
    type Error = RequestError;

    fn meta_of(&self, key: &[u8]) -> Option<KeyMeta> {
        WriteTxn::meta_of(self, key)
    }

    fn visit(&self, range: &KeyRange, each: &mut dyn FnMut(&KeyMeta) -> bool) {
        self.visit_while(range, each);
    }

    fn each_value(&self, range: &KeyRange, each: &mut dyn FnMut(&[u8]) -> bool) -> Result<(), RequestError> {
        if range.is_single() {
            // It may stay in memory: one that is compared is mostly asked for again.
            if let Some(pair) = self.value_of(&range.start)? {
                each(&pair.value);
            }
            return Ok(());
        }
        WriteTxn::each_value(self, range, each)
    }
}

/// Whether every condition holds for every key of its range.
///
/// With no key there, numbers are compared with 0 and a value never holds, not even "not equal".
///
/// # Errors
/// Only those under a value.
pub fn all_hold<S: Compared>(state: &S, compares: &[Compare]) -> Result<bool, S::Error> {
    let mut by_value = Vec::new();
    for compare in compares {
        if let CompareTarget::Value(given) = &compare.target {
            by_value.push((&compare.range, compare.result, &given[..]));
        } else if !numbers_hold(state, compare) {
            return Ok(false);
        }
    }
    while let Some(&(range, ..)) = by_value.first() {
        let same = by_value.extract_if(.., |(other, ..)| *other == range);
        let mut conditions: Vec<_> = same.map(|(_, result, given)| (result, given)).collect();
        conditions.dedup();
        let (mut any, mut all) = (false, true);
        state.each_value(range, &mut |value| {
            any = true;
            all = conditions.iter().all(|(result, given)| result_holds(*result, value.cmp(given)));
            all
        })?;
        if !any || !all {
            return Ok(false);
        }
    }
    Ok(true)
}

fn numbers_hold(state: &impl Compared, compare: &Compare) -> bool {
    if compare.range.is_single() {
        return number_holds(compare, &state.meta_of(&compare.range.start).unwrap_or(MISSING));
    }
    let (mut any, mut all) = (false, true);
    state.visit(&compare.range, &mut |meta| {
        any = true;
        all = number_holds(compare, meta);
        all
    });
    if any { all } else { number_holds(compare, &MISSING) }
}

fn number_holds(compare: &Compare, meta: &KeyMeta) -> bool {
    let order = match compare.target {
        CompareTarget::Version(given) => meta.version.cmp(&given),
        CompareTarget::Create(given) => meta.create.cmp(&given),
        CompareTarget::Mod(given) => meta.modified.main.cmp(&given),
        CompareTarget::Lease(given) => meta.lease.get().cmp(&given),
        CompareTarget::Unknown | CompareTarget::Value(_) => Ordering::Equal,
    };
    result_holds(compare.result, order)
}

fn result_holds(result: CompareResult, order: Ordering) -> bool {
    match result {
        CompareResult::Equal => order.is_eq(),
        CompareResult::NotEqual => order.is_ne(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
        CompareResult::Unknown => true,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Values under one key each, all of version 1, and how many were looked at.
    struct Values(Vec<&'static str>, Cell<usize>);

    impl Compared for Values {
        type Error = ();

        fn meta_of(&self, _: &[u8]) -> Option<KeyMeta> {
            Some(KeyMeta { version: 1, ..MISSING })
        }

        fn visit(&self, _: &KeyRange, each: &mut dyn FnMut(&KeyMeta) -> bool) {
            let _ = self.0.iter().all(|_| each(&KeyMeta { version: 1, ..MISSING }));
        }

        fn each_value(&self, _: &KeyRange, each: &mut dyn FnMut(&[u8]) -> bool) -> Result<(), ()> {
            let _ = self.0.iter().all(|value| {
                self.1.set(self.1.get() + 1);
                each(value.as_bytes())
            });
            Ok(())
        }
    }

    fn on(range: &KeyRange, result: CompareResult, value: &'static str) -> Compare {
        Compare { range: range.clone(), result, target: CompareTarget::Value(value.into()) }
    }

    #[test]
    fn a_range_is_read_once_and_only_until_a_condition_fails() {
        use CompareResult::{Equal, Greater, Less, NotEqual};
        let (all, some) = (KeyRange::all(), KeyRange::from_wire("a".into(), "b".into()));
        let values = Values(vec!["b", "c", "d"], Cell::new(0));
        let looked = |compares: &[Compare]| {
            values.1.set(0);
            (all_hold(&values, compares).unwrap(), values.1.get())
        };
        assert_eq!(looked(&vec![on(&all, Greater, "a"); 128]), (true, 3));
        let holds = [on(&all, Greater, "a"), on(&all, Less, "e"), on(&all, NotEqual, "x")];
        assert_eq!(looked(&holds), (true, 3));
        assert_eq!(looked(&[on(&all, Less, "e"), on(&some, Less, "e"), on(&all, Less, "e")]), (true, 6));
        assert_eq!(looked(&[on(&all, Less, "e"), on(&all, NotEqual, "c")]), (false, 2));
        assert_eq!(looked(&[on(&all, Equal, "x"), on(&some, Less, "e")]), (false, 1));
        let version = Compare { range: all.clone(), result: Equal, target: CompareTarget::Version(7) };
        assert_eq!(looked(&[on(&all, Less, "e"), version]), (false, 0), "what the index knows comes first");
        let none = Values(vec![], Cell::new(0));
        assert_eq!(all_hold(&none, &[on(&all, NotEqual, "x")]), Ok(false));
    }
}
