//! Snapshots as files: put in place in one step, and read back as a stream.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{SnapshotHeader, write_snapshot};
use crate::env::{Access, Clock, DiskFile, Env};
use crate::storage::values::{Frozen, ValueReader};
use crate::types::StorageError;

const BUFFER_BYTES: usize = 256 << 10;

/// Bytes after which a file that is written at length is synced, so that what else is synced on the disk meanwhile,
/// the log above all, waits for no more than these.
const SYNC_BYTES: u64 = 2 << 20;

/// A file as a stream, from its beginning.
#[derive(Debug)]
pub struct FileStream {
    file: Arc<dyn DiskFile>,
    at: u64,
    synced: u64,
    clock: Option<Arc<dyn Clock>>,
    took: DiskTimes,
}

/// What a file's disk took of the time, where that is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskTimes {
    /// In writes.
    pub writes: Duration,
    /// In fsyncs.
    pub syncs: Duration,
}

/// Where the time of a snapshot's file went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SaveTimes {
    /// In its making: values were read and encoded.
    pub making: Duration,
    /// In fsyncs of the file.
    pub syncs: Duration,
}

impl FileStream {
    /// Reads or writes `file` from its beginning.
    pub fn new(file: Arc<dyn DiskFile>) -> Self {
        Self { file, at: 0, synced: 0, clock: None, took: DiskTimes::default() }
    }

    /// The same, with the disk's time measured.
    pub fn timed(file: Arc<dyn DiskFile>, clock: Arc<dyn Clock>) -> Self {
        Self { clock: Some(clock), ..Self::new(file) }
    }

    /// What the disk took until now.
    pub fn took(&self) -> DiskTimes {
        self.took
    }

    /// Makes all of the file durable, but for its name.
    ///
    /// # Errors
    /// The disk's.
    pub fn sync_all(&mut self) -> io::Result<()> {
        let begun = self.now();
        self.file.sync_all()?;
        self.took.syncs += self.since(begun);
        Ok(())
    }

    fn now(&self) -> Option<Instant> {
        self.clock.as_ref().map(|clock| clock.now())
    }

    fn since(&self, begun: Option<Instant>) -> Duration {
        self.now().zip(begun).map_or(Duration::ZERO, |(now, begun)| now.saturating_duration_since(begun))
    }
}

impl Read for FileStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Write for FileStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let begun = self.now();
        self.file.write_at(bytes, self.at)?;
        self.took.writes += self.since(begun);
        self.at += bytes.len() as u64;
        if self.at - self.synced >= SYNC_BYTES {
            let begun = self.now();
            self.file.sync_data()?;
            self.took.syncs += self.since(begun);
            self.synced = self.at;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a snapshot so that `path` is the whole of it or isn't there; durable at return. Its header, and what took how long.
///
/// # Errors
/// Those of [`write_snapshot`] and of the disk; a draft may stay as `path` with `.tmp` after it.
pub fn save_snapshot(
    env: &Env,
    frozen: &Frozen,
    values: &ValueReader,
    path: &Path,
) -> Result<(SnapshotHeader, SaveTimes), StorageError> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".tmp");
    let draft = Path::new(&draft);
    let saved = write_draft(env, frozen, values, path, draft);
    if saved.is_err() {
        // On a full disk every try would leave one; an error of the removal adds nothing.
        let _ = env.disk.remove(draft);
    }
    saved
}

fn write_draft(
    env: &Env,
    frozen: &Frozen,
    values: &ValueReader,
    path: &Path,
    draft: &Path,
) -> Result<(SnapshotHeader, SaveTimes), StorageError> {
    let io = |action| move |error| StorageError::io(action, path, error);
    let file = env.disk.open(draft, Access::Create).map_err(io("create"))?;
    file.set_len(0).map_err(io("empty"))?;
    let mut stream = FileStream::timed(file, env.clock.clone());
    let begun = env.clock.now();
    let out = BufWriter::with_capacity(BUFFER_BYTES, &mut stream);
    let (header, _) = write_snapshot(frozen, values, out).map_err(|error| error.at(path))?;
    let DiskTimes { writes, syncs } = stream.took();
    let making = env.clock.now().saturating_duration_since(begun).saturating_sub(writes + syncs);
    stream.sync_all().map_err(io("fsync"))?;
    env.disk.rename(draft, path).map_err(io("rename"))?;
    env.disk.sync_dir(path.parent().unwrap_or(Path::new("."))).map_err(io("fsync"))?;
    Ok((header, SaveTimes { making, syncs: stream.took().syncs }))
}

/// A snapshot's file, to be given to [`super::read_snapshot`] or [`super::read_header`].
///
/// # Errors
/// Those of the disk.
pub fn open_snapshot(env: &Env, path: &Path) -> Result<impl Read + Send + use<>, StorageError> {
    let file = env.disk.open(path, Access::Read).map_err(|error| StorageError::io("open", path, error))?;
    Ok(BufReader::with_capacity(BUFFER_BYTES, FileStream::new(file)))
}
