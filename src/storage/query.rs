//! What a range read asks for and what it gets, free of the wire's types.

use crate::types::{KeyRange, KeyValue};

/// A range read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeQuery {
    /// Which keys.
    pub range: KeyRange,
    /// The most pairs to return; 0 or less is no limit.
    pub limit: i64,
    /// Read as of this revision; 0 or less is the latest.
    pub revision: i64,
    /// The order asked for.
    pub order: SortOrder,
    /// What to order by.
    pub target: SortTarget,
    /// Leave the values out.
    pub keys_only: bool,
    /// Only count.
    pub count_only: bool,
    /// Bounds on the modification revision; 0 is off.
    pub min_mod_revision: i64,
    /// See `min_mod_revision`.
    pub max_mod_revision: i64,
    /// Bounds on the creation revision; 0 is off.
    pub min_create_revision: i64,
    /// See `min_create_revision`.
    pub max_create_revision: i64,
}

impl RangeQuery {
    /// Everything in `range` at the latest revision, in key order.
    pub fn latest(range: KeyRange) -> Self {
        Self {
            range,
            limit: 0,
            revision: 0,
            order: SortOrder::None,
            target: SortTarget::Key,
            keys_only: false,
            count_only: false,
            min_mod_revision: 0,
            max_mod_revision: 0,
            min_create_revision: 0,
            max_create_revision: 0,
        }
    }
}

/// The order of a range's pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortOrder {
    /// As the target's natural order, applied after the limit (see 02 §3 of the rules).
    None,
    /// Ascending.
    Ascend,
    /// Descending.
    Descend,
}

/// What a range is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortTarget {
    /// The key's bytes.
    Key,
    /// The version number.
    Version,
    /// The creation revision.
    Create,
    /// The modification revision.
    Mod,
    /// The value's bytes.
    Value,
}

/// A range read's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResult {
    /// The pairs, cut at the limit.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit cut something off.
    pub more: bool,
    /// Keys in the range at that revision, whatever the limit and the filters are.
    pub count: i64,
}

/// A read's result together with the revision of the snapshot that it came from.
///
/// A response's header is filled from here and from nowhere else, so that it can't be of another
/// moment than its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scoped<T> {
    /// What was read.
    pub value: T,
    /// The store's current revision in the snapshot that was read.
    pub revision: i64,
    /// The term of the entry that the snapshot was published after.
    pub term: crate::types::Term,
}

impl<T> Scoped<T> {
    /// The same moment with another value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Scoped<U> {
        Scoped { value: f(self.value), revision: self.revision, term: self.term }
    }
}
