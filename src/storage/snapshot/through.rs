//! Reading a snapshot's file through at length, beside everything else that runs.

use std::ops::ControlFlow;
use std::path::Path;

use super::{SnapshotHeader, SnapshotItem, SnapshotReader, open_snapshot};
use crate::env::{Env, Spread, gently};
use crate::types::StorageError;

/// Reads all of the snapshot at `path` and gives its items to `take` in order, chunk by chunk, on a thread that gives way
/// to others; waits for it. What `take` builds counts only if this returns without an error.
///
/// # Errors
/// Those of the disk and of `take`, and damage: any byte that is not as it was written.
pub fn read_through(
    env: &Env,
    path: &Path,
    spread: Spread,
    mut take: impl FnMut(SnapshotItem) -> Result<(), StorageError> + Send,
) -> Result<SnapshotHeader, StorageError> {
    let mut reader = SnapshotReader::new(open_snapshot(env, path)?).map_err(|error| error.at(path))?;
    gently(&*env.clock, spread, || match reader.next(&mut take) {
        Ok(true) => ControlFlow::Continue(()),
        Ok(false) => ControlFlow::Break(Ok(())),
        Err(error) => ControlFlow::Break(Err(error.at(path))),
    })?;
    Ok(reader.header().clone())
}
