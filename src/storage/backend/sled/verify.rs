//! A look at sled's metadata log before sled looks at it.
//!
//! Sled reads a log up to the first frame that doesn't check out and takes that for its end, so
//! that one flipped bit silently brings back old places of leaves, whose slots hold other leaves by
//! now; a read then spins for ever. Here a bad frame is only taken for an end where a crash can
//! have left one: at the end of the newest log. (Sled checks its snapshot, slots and settings.)
//!
//! ```text
//! metadata/log_<16 hex digits>: frames of
//!   length u48 LE · low 16 bits of the length's crc32 · payload · crc32 of all before, xor 0xaf
//! ```

use std::path::Path;
use std::sync::Arc;

use crate::env::{Access, DiskFile, Env};
use crate::storage::backend::BackendConfig;
use crate::types::StorageError;

/// A log is compacted long before it is this large.
const FRAME_BYTES_MAX: u64 = 1 << 30;

/// Checks that the logs follow the snapshot without a gap and are whole, and makes the one after the snapshot if there is none.
pub(super) fn metadata_logs(env: &Env, config: &BackendConfig) -> Result<(), StorageError> {
    let dir = config.dir.join("metadata");
    if !env.disk.exists(&dir).map_err(|error| StorageError::io("look for", &dir, error))? {
        return Ok(());
    }
    let names = env.disk.list(&dir).map_err(|error| StorageError::io("list", &dir, error))?;
    let (mut logs, mut newest) = (Vec::new(), None);
    for name in &names {
        let name = name.to_string_lossy();
        let number = |prefix: &str| name.strip_prefix(prefix).map(|hex| u64::from_str_radix(hex, 16));
        if name.ends_with(".tmp") {
            continue;
        }
        match (number("log_"), number("snapshot_")) {
            (Some(Ok(log)), _) => logs.push(log),
            (_, Some(Ok(found))) => newest = newest.max(Some(found)),
            (None, None) => {}
            _ => {
                let what = format!("a file named {name}");
                return Err(StorageError::Damaged { path: dir, offset: 0, what });
            }
        }
    }
    // Before the first opening is through there is none.
    let snapshot = newest.unwrap_or(0);
    logs.retain(|log| *log > snapshot);
    logs.sort_unstable();
    for (expected, log) in (snapshot + 1..).zip(&logs) {
        if *log != expected {
            let what = format!("metadata log {expected} is missing");
            return Err(StorageError::Damaged { path: dir, offset: 0, what });
        }
    }
    if logs.is_empty() && newest.is_some() {
        begin_log(env, &dir, snapshot + 1)?;
    }
    for log in &logs {
        let path = dir.join(format!("log_{log:016x}"));
        let file = env.disk.open(&path, Access::Read).map_err(|error| StorageError::io("open", &path, error))?;
        let size = file.size().map_err(|error| StorageError::io("measure", &path, error))?;
        let good = frames(&file, size).map_err(|error| StorageError::io("read", &path, error))?;
        if good < size && Some(log) != logs.last() {
            let what = "a bad frame in a metadata log that was complete".to_owned();
            return Err(StorageError::Damaged { path, offset: good, what });
        }
        if good < size && anything_follows(&file, good, size).map_err(|error| StorageError::io("read", &path, error))? {
            let what = "a bad frame in the metadata log with good ones after it".to_owned();
            return Err(StorageError::Damaged { path, offset: good, what });
        }
    }
    Ok(())
}

/// An opening that ended between its snapshot and its new log leaves the snapshot alone. The next one would give its own
/// snapshot the same number, and then remove what has the old one's: all there is. With an empty log it takes a number more.
fn begin_log(env: &Env, metadata: &Path, number: u64) -> Result<(), StorageError> {
    let path = metadata.join(format!("log_{number:016x}"));
    env.disk.open(&path, Access::CreateNew).map_err(|error| StorageError::io("make", &path, error))?;
    env.disk.sync_dir(metadata).map_err(|error| StorageError::io("fsync", metadata, error))
}

/// Where the good frames end.
fn frames(file: &Arc<dyn DiskFile>, size: u64) -> std::io::Result<u64> {
    let mut at = 0;
    while let Some(next) = frame(file, at, size)? {
        at = next;
    }
    Ok(at)
}

/// The end of the frame at `at`, if there is a good one.
fn frame(file: &Arc<dyn DiskFile>, at: u64, size: u64) -> std::io::Result<Option<u64>> {
    if size.saturating_sub(at) < 12 {
        return Ok(None);
    }
    let mut head = [0; 8];
    file.read_exact_at(&mut head, at)?;
    let Some(len) = frame_len(&head).filter(|len| at + 12 + len <= size) else {
        return Ok(None);
    };
    let mut frame = vec![0; usize::try_from(len + 12).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut frame, at)?;
    let (body, crc) = frame.split_at(frame.len() - 4);
    let good = (crc32fast::hash(body) ^ 0xaf).to_le_bytes() == crc;
    Ok(good.then_some(at + len + 12))
}

fn frame_len(head: &[u8; 8]) -> Option<u64> {
    let crc = u16::from_le_bytes([head[6], head[7]]);
    let mut len = *head;
    (len[6], len[7]) = (0, 0);
    let len = u64::from_le_bytes(len);
    (crc32fast::hash(&head[..6]) as u16 == crc && len <= FRAME_BYTES_MAX).then_some(len)
}

/// Whether a good frame begins anywhere after a bad one: then a crash didn't make it.
fn anything_follows(file: &Arc<dyn DiskFile>, from: u64, size: u64) -> std::io::Result<bool> {
    let mut rest = vec![0; usize::try_from(size - from).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut rest, from)?;
    for (offset, window) in rest.windows(8).enumerate().skip(1) {
        let head = <&[u8; 8]>::try_from(window).map_or([0; 8], |head| *head);
        // 16 bits of checksum pass by chance; the whole frame's 32 don't.
        if frame_len(&head).is_some() && frame(file, from + offset as u64, size)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
