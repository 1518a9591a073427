//! `Frozen`: the part of the content that changes in place, copied as of one position.
//!
//! Records don't change: those up to [`Frozen::last_main`] are read whenever there is time, as
//! long as nothing removes them (the caller holds compaction off).

use std::ops::ControlFlow;

use bytes::Bytes;

use super::state::{State, is_own_row};
use crate::storage::AppliedPosition;
use crate::storage::backend::{Backend, Table};
use crate::types::StorageError;

/// The small tables as of a position that is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frozen {
    /// The position.
    pub position: AppliedPosition,
    /// The last main revision that was written at or before it; 0 if none was.
    pub last_main: i64,
    /// The rows of `Meta`, `Lease` and `Auth`, in order.
    pub rows: Vec<(Table, Bytes, Bytes)>,
}

impl Frozen {
    /// Copies the rows. The store thread does it between two steps.
    pub(super) fn read(engine: &dyn Backend, state: &State) -> Result<Self, StorageError> {
        let mut rows = Vec::new();
        for table in [Table::Meta, Table::Lease, Table::Auth] {
            engine.visit(table, &[], None, &mut |key, value| {
                if !is_own_row(table, key) {
                    rows.push((table, Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok(Self { position: state.position, last_main: state.last_main, rows })
    }

    /// One row's value.
    pub fn row(&self, table: Table, key: &[u8]) -> Option<&Bytes> {
        let found = self.rows.iter().find(|(of, at, _)| *of == table && at == key)?;
        Some(&found.2)
    }
}
