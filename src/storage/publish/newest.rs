//! Reads of one key as it is now, without a search in the index if memory knows where its newest record is.

use super::Published;
use crate::storage::values::ValueReader;
use crate::storage::{RangeQuery, RangeResult};
use crate::types::KeyValue;

/// The pair of `key` at the published revision, if it can be told so; the index knows the rest.
pub(super) fn pair(state: &Published, values: &ValueReader, key: &[u8]) -> Option<KeyValue> {
    let (at, record) = values.newest(key, state.revision)?;
    record.into_key_value(at)
}

/// The answer to a query for nothing but one key as it is now, if it can be told so.
pub(super) fn answer(state: &Published, values: &ValueReader, query: &RangeQuery) -> Option<RangeResult> {
    let is_plain = query.range.is_single()
        && query.revision <= 0
        && !query.keys_only
        && !query.count_only
        && [query.min_mod_revision, query.max_mod_revision, query.min_create_revision, query.max_create_revision]
            .iter()
            .all(|bound| *bound == 0);
    let found = is_plain.then(|| pair(state, values, &query.range.start)).flatten()?;
    Some(RangeResult { kvs: vec![found], more: false, count: 1 })
}
