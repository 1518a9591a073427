//! The state as a bbolt file with etcd's buckets, for `etcdctl snapshot save` and `etcdutl`.
//!
//! ```text
//! records in revision order ─► leaf pages ─► branch pages above them ─► root ─► meta pages, last
//! ```
//!
//! The tree is built bottom-up from what comes sorted, so that one page of each level is in memory.
//! Nothing is ever read back or changed: this is no database. The formats are bbolt's and etcd's
//! public ones (pages of 4096 bytes, little endian; keys `main _ sub [t]`, values `mvccpb.KeyValue`).

mod content;
mod file;
mod hash;
mod pages;

use std::io::Read;
use std::path::Path;

pub use content::BboltContent;
pub use file::{BboltError, BboltFile, Checked};
pub use hash::etcd_hash_kv;

use super::write::for_each_record;
use super::{FileStream, SnapshotHeader};
use crate::env::{Access, Env};
use crate::storage::values::{Frozen, ValueReader};
use crate::types::StorageError;
use content::{key_of, value_of};
use pages::BboltWriter;

/// Writes the file below `dir`, gives it back as a stream with its length, and leaves no name behind:
/// its room is given back when the stream is dropped, or by a crash.
///
/// As with [`super::write_snapshot`], the caller keeps compaction off meanwhile. Blocks.
///
/// # Errors
/// Those of the engine and of the disk.
pub fn export_bbolt(
    env: &Env,
    frozen: &Frozen,
    values: &ValueReader,
    content: &BboltContent,
    dir: &Path,
) -> Result<(impl Read + Send + use<>, u64), StorageError> {
    let path = dir.join(format!("export-{:016x}.tmp", env.rng.next_u64()));
    let io = |action| {
        let path = path.clone();
        move |error| StorageError::io(action, path, error)
    };
    let file = env.disk.open(&path, Access::CreateNew).map_err(io("create"))?;
    env.disk.remove(&path).map_err(io("remove the name of"))?;

    let mut out = BboltWriter::new(std::sync::Arc::clone(&file));
    let header = SnapshotHeader::of(frozen);
    let mut buckets = content.buckets(&header);
    // Buckets come in the order of their names; `key` is in the middle of them.
    let after = buckets.split_off("key");
    for (name, rows) in buckets {
        out.bucket(name, rows.iter().map(|(key, value)| (&key[..], &value[..]))).map_err(io("write"))?;
    }
    out.begin("key").map_err(io("write"))?;
    for_each_record(frozen, values, |at, record| {
        out.pair(&key_of(at, record), &value_of(at, record)).map_err(io("write"))
    })?;
    out.end().map_err(io("write"))?;
    for (name, rows) in after {
        out.bucket(name, rows.iter().map(|(key, value)| (&key[..], &value[..]))).map_err(io("write"))?;
    }
    let len = out.finish().map_err(io("write"))?;
    Ok((std::io::BufReader::with_capacity(256 << 10, FileStream::new(file)), len))
}
