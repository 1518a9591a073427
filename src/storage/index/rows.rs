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
    /// Sum of the hashes of the rows that are the same on every member: those of the tables of leases and users.
    digest: u64,
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
        let place = place(table, key);
        let is_shared = matches!(table, Table::Lease | Table::Auth);
        let hash = |row: &Option<Bytes>| row.as_ref().filter(|_| is_shared).map_or(0, |value| hash(&place, value));
        let digest = &mut self.digest;
        self.tree.edit(&place, |slot| {
            *digest = digest.wrapping_sub(hash(slot)).wrapping_add(hash(&value));
            *slot = value;
        });
    }

    /// The value of a row.
    pub fn get(&self, table: Table, key: &[u8]) -> Option<&[u8]> {
        self.tree.get(&place(table, key)).map(|(value, _)| value)
    }

    /// The digest of all leases, users and roles: the same on every member after the same entry.
    pub fn digest(&self) -> u64 {
        self.digest
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

fn hash(place: &[u8], value: &[u8]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(place.len() as u64).to_be_bytes()).update(place).update(value);
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_of_what_is_there_and_not_of_how_it_came() {
        let row = |text: &'static str| Some(Bytes::from(text));
        let mut rows = Rows::default();
        rows.set(Table::Lease, b"1", row("a"));
        let one = rows.digest();
        assert_ne!(one, 0);
        rows.set(Table::Meta, b"own", row("each member's"));
        assert_eq!(rows.digest(), one);
        rows.set(Table::Auth, b"1", row("a"));
        assert_ne!(rows.digest(), one.wrapping_mul(2), "another table");
        rows.set(Table::Lease, b"1", row("b"));
        let other = rows.digest();
        rows.set(Table::Lease, b"1", None);
        rows.set(Table::Lease, b"1", row("a"));
        assert_ne!(rows.digest(), other);
        rows.set(Table::Auth, b"1", None);
        rows.set(Table::Auth, b"absent", None);
        assert_eq!(rows.digest(), one);
        rows.set(Table::Lease, b"1", None);
        assert_eq!(rows.digest(), 0);
    }

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
