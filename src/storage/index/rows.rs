//! `Rows`: the rows of the small tables as of one moment, so that a snapshot holds those that belong to it.

use std::convert::Infallible;

use bytes::Bytes;

use super::entry::Summary;
use super::node::Item;
use super::packed::Buffer;
use super::spilled::Spill;
use super::tree::Tree;
use crate::storage::Table;

/// Rows of [`Table::Meta`], [`Table::Lease`] and [`Table::Auth`] in a persistent map by table and key.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    tree: Tree<Bytes>,
}

impl Item for Bytes {
    type Spill = Infallible;

    fn pack(self, out: &mut Buffer) -> Option<Infallible> {
        out.extend_from_slice(&self);
        None
    }

    fn unpack(bytes: &[u8], _: Spill<'_, Infallible>) -> Self {
        Self::copy_from_slice(bytes)
    }

    fn summary(_: &[u8]) -> Summary {
        Summary::default()
    }

    fn is_same(left: &Infallible, _: &Infallible) -> bool {
        match *left {}
    }
}

impl Rows {
    /// Sets a row, or removes it with `None`.
    pub fn set(&mut self, table: Table, key: &[u8], value: Option<Bytes>) {
        self.tree.edit(&place(table, key), |slot| *slot = value);
    }

    /// The value of a row.
    pub fn get(&self, table: Table, key: &[u8]) -> Option<&[u8]> {
        self.tree.get(&place(table, key)).map(|(value, _)| value)
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.tree.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows of one table in key order.
    pub fn of(&self, table: Table) -> Vec<(Bytes, Bytes)> {
        let mut rows = Vec::new();
        self.tree.root().each(&mut |place, value| {
            if let Some((&id, key)) = place.split_first()
                && id == table.id()
            {
                rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            }
        });
        rows
    }
}

fn place(table: Table, key: &[u8]) -> Vec<u8> {
    [&[table.id()], key].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_apart_by_table_and_stay_in_a_copy() {
        let mut rows = Rows::default();
        for number in 0..1000_u16 {
            rows.set(Table::Lease, &number.to_be_bytes(), Some(Bytes::from(number.to_string())));
        }
        rows.set(Table::Meta, &7_u16.to_be_bytes(), Some(Bytes::from("meta")));
        let copy = rows.clone();
        for number in 0..999_u16 {
            rows.set(Table::Lease, &number.to_be_bytes(), None);
        }
        rows.set(Table::Meta, b"absent", None);
        assert_eq!((copy.len(), rows.len()), (1001, 2));
        assert_eq!(copy.of(Table::Lease).len(), 1000);
        assert_eq!(copy.get(Table::Lease, &[0, 7]), Some(&b"7"[..]));
        assert_eq!(rows.get(Table::Lease, &[0, 7]), None);
        assert_eq!(rows.of(Table::Meta), [(Bytes::from(&[0, 7][..]), Bytes::from("meta"))]);
        assert!(rows.of(Table::Auth).is_empty() && !rows.is_empty());
    }
}
