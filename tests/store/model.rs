//! The plain model: every version of every key in a list, and the rules written down as directly as can be.

use std::collections::BTreeMap;

use bytes::Bytes;
use rusd::storage::{RangeQuery, RangeResult, SortOrder, SortTarget};
use rusd::types::{Event, EventKind, KeyRange, KeyValue, LeaseId, RequestError, Revision};

/// A change that a command makes.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Put { key: Bytes, value: Bytes, lease: LeaseId },
    Delete(KeyRange),
}

/// What happened to a key at a revision; `None` is a deletion.
pub(crate) type Versions = Vec<(Revision, Option<KeyValue>)>;

/// All history, with the point below which it mustn't be read.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) keys: BTreeMap<Bytes, Versions>,
    pub(crate) revision: i64,
    pub(crate) compact: i64,
}

impl Default for Model {
    fn default() -> Self {
        Self { keys: BTreeMap::new(), revision: 1, compact: -1 }
    }
}

impl Model {
    pub(crate) fn living(&self, key: &[u8], main: i64) -> Option<&KeyValue> {
        let versions = self.keys.get(key)?;
        versions.iter().rfind(|(at, _)| at.main <= main)?.1.as_ref()
    }

    /// Runs a command; what each operation found.
    pub(crate) fn run(&mut self, ops: &[Op]) -> Vec<Vec<KeyValue>> {
        let main = self.revision + 1;
        let mut sub = 0;
        let mut found = Vec::new();
        for op in ops {
            let touched: Vec<(Bytes, Option<KeyValue>)> = match op {
                Op::Put { key, .. } => vec![(key.clone(), self.living(key, main).cloned())],
                Op::Delete(range) => self
                    .keys
                    .keys()
                    .filter(|key| range.contains(key))
                    .filter_map(|key| Some((key.clone(), Some(self.living(key, main)?.clone()))))
                    .collect(),
            };
            for (key, before) in &touched {
                let next = match op {
                    Op::Delete(_) => None,
                    Op::Put { value, lease, .. } => Some(KeyValue {
                        key: key.clone(),
                        value: value.clone(),
                        create_revision: before.as_ref().map_or(main, |kv| kv.create_revision),
                        mod_revision: main,
                        version: before.as_ref().map_or(1, |kv| kv.version + 1),
                        lease: *lease,
                    }),
                };
                self.keys.entry(key.clone()).or_default().push((Revision::new(main, sub), next));
                sub += 1;
            }
            found.push(touched.into_iter().filter_map(|(_, before)| before).collect());
        }
        self.revision += i64::from(sub > 0);
        found
    }

    pub(crate) fn compact(&mut self, revision: i64) -> Result<(), RequestError> {
        match revision {
            _ if revision <= self.compact => Err(RequestError::Compacted),
            _ if revision > self.revision => Err(RequestError::FutureRevision),
            _ => {
                self.compact = revision;
                Ok(())
            }
        }
    }

    pub(crate) fn range(&self, query: &RangeQuery) -> Result<RangeResult, RequestError> {
        let main = if query.revision <= 0 { self.revision } else { query.revision };
        if main > self.revision {
            return Err(RequestError::FutureRevision);
        }
        if query.revision > 0 && main < self.compact {
            return Err(RequestError::Compacted);
        }
        let mut kvs: Vec<KeyValue> = self
            .keys
            .keys()
            .filter(|key| query.range.contains(key))
            .filter_map(|key| self.living(key, main).cloned())
            .collect();
        let count = kvs.len() as i64;
        if query.count_only {
            return Ok(RangeResult { kvs: vec![], more: false, count });
        }
        let bounds =
            [query.min_mod_revision, query.max_mod_revision, query.min_create_revision, query.max_create_revision];
        let limit = usize::try_from(query.limit).ok().filter(|limit| *limit > 0);
        if query.order == SortOrder::None && bounds == [0; 4] {
            kvs.truncate(limit.map_or(usize::MAX, |limit| limit.saturating_add(1)));
        }
        let low = |min: i64, revision: i64| min == 0 || min <= revision;
        let high = |max: i64, revision: i64| max == 0 || max >= revision;
        kvs.retain(|kv| low(bounds[0], kv.mod_revision) && high(bounds[1], kv.mod_revision));
        kvs.retain(|kv| low(bounds[2], kv.create_revision) && high(bounds[3], kv.create_revision));
        kvs.sort_by(|a, b| {
            let order = match query.target {
                SortTarget::Key => a.key.cmp(&b.key),
                SortTarget::Version => a.version.cmp(&b.version),
                SortTarget::Create => a.create_revision.cmp(&b.create_revision),
                SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
                SortTarget::Value => a.value.cmp(&b.value),
            };
            if query.order == SortOrder::Descend { order.reverse() } else { order }
        });
        let more = limit.is_some_and(|limit| kvs.len() > limit);
        kvs.truncate(limit.unwrap_or(usize::MAX));
        if query.keys_only {
            for kv in &mut kvs {
                kv.value = Bytes::new();
                if query.target != SortTarget::Value {
                    kv.lease = LeaseId::NONE;
                }
            }
        }
        Ok(RangeResult { kvs, more, count })
    }

    /// Everything that happened from a main revision on.
    pub(crate) fn events(&self, from: i64) -> Vec<Event> {
        let mut events: Vec<Event> = self
            .keys
            .iter()
            .flat_map(|(key, versions)| versions.iter().map(move |(at, kv)| (key, *at, kv)))
            .filter(|(_, at, _)| at.main >= from)
            .map(|(key, revision, kv)| match kv {
                Some(kv) => Event { kind: EventKind::Put, kv: kv.clone(), revision },
                None => Event {
                    kind: EventKind::Delete,
                    kv: KeyValue { key: key.clone(), mod_revision: revision.main, ..KeyValue::default() },
                    revision,
                },
            })
            .collect();
        events.sort_by_key(|event| event.revision);
        events
    }
}
