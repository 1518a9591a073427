//! `Batch`: the writes that take effect together, packed into one buffer.

use std::ops::Range;

use super::Table;

/// Writes to any tables, applied in order and all at once.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Keys and values one after the other, so that a batch of thousands costs two allocations.
    data: Vec<u8>,
    writes: Vec<Write>,
}

#[derive(Clone, Debug)]
struct Write {
    table: Table,
    key: Range<usize>,
    value: Option<Range<usize>>,
}

impl Batch {
    /// An empty one with room for so many bytes of keys and values, so that it needn't be moved as it grows.
    pub fn with_room(bytes: usize) -> Self {
        Self { data: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// Sets a key.
    pub fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.put_with(table, key, |data| data.extend_from_slice(value));
    }

    /// Sets a key to what `encode` appends.
    pub fn put_with(&mut self, table: Table, key: &[u8], encode: impl FnOnce(&mut Vec<u8>)) {
        let key = self.push_key(key);
        let start = self.data.len();
        encode(&mut self.data);
        debug_assert!(self.data.len() >= start, "an encoder only appends");
        self.writes.push(Write { table, key, value: Some(start..self.data.len()) });
    }

    /// Unsets a key; for few keys of small tables ([`super::Backend::remove`] gives space back).
    pub fn delete(&mut self, table: Table, key: &[u8]) {
        let key = self.push_key(key);
        self.writes.push(Write { table, key, value: None });
    }

    fn push_key(&mut self, key: &[u8]) -> Range<usize> {
        let start = self.data.len();
        self.data.extend_from_slice(key);
        start..self.data.len()
    }

    /// The writes in order: table, key, and the value or `None` for a delete.
    pub fn iter(&self) -> impl Iterator<Item = (Table, &[u8], Option<&[u8]>)> {
        self.writes.iter().map(|write| {
            (write.table, &self.data[write.key.clone()], write.value.clone().map(|value| &self.data[value]))
        })
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// How many writes.
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Forgets the writes and keeps the buffers.
    pub fn clear(&mut self) {
        self.data.clear();
        self.writes.clear();
    }
}
