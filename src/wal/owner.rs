//! Who holds a log's directory, and whose log it is.
//!
//! ```text
//! lock     held for as long as the log is open; names who holds it
//! owner    the cluster and the member, in the caller's words; written once, before the first segment
//! import.unfinished    an import that makes this log isn't done, or was killed; it is the import's (`server/import`)
//! ```
//! The log may lie outside the data directory, where the data directory's own lock doesn't reach: two
//! processes in one log would each write over what the other has acknowledged, and a member that
//! takes up another's log would take that one's votes and entries for its own.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::env::{Access, Disk, DiskFile, read_all, write_atomic};

use super::types::WalError;

const LOCK: &str = "lock";
const OWNER: &str = "owner";
/// The mark of an import that hasn't made its member yet.
pub const UNFINISHED_IMPORT: &str = "import.unfinished";
/// No file that is read whole here is longer.
const TEXT_BYTES_MAX: usize = 4096;

/// Whether a name in the directory is one of these.
pub(super) fn is_own(name: &str) -> bool {
    matches!(name, LOCK | OWNER | UNFINISHED_IMPORT)
}

/// The directory's lock; given back when it is dropped.
#[derive(Debug)]
pub(super) struct DirLock {
    _file: Arc<dyn DiskFile>,
}

/// Takes the lock of a directory that is there.
///
/// # Errors
/// `InUse` if someone has it, and those of the disk.
pub(super) fn lock(disk: &dyn Disk, dir: &Path) -> Result<DirLock, WalError> {
    let path = dir.join(LOCK);
    let file = disk.open(&path, Access::Create).map_err(WalError::io("open", &path))?;
    if !file.try_lock().map_err(WalError::io("lock", &path))? {
        let holder = text(disk, &path).ok().filter(|text| !text.is_empty());
        let holder = holder.unwrap_or_else(|| "another process".to_owned());
        return Err(WalError::InUse { dir: dir.to_owned(), holder });
    }
    let holder = format!("rusd, process {}\n", std::process::id());
    let written = file.set_len(0).and_then(|()| file.write_at(holder.as_bytes(), 0));
    match written {
        // The text is a courtesy; a log on a full disk must still be readable.
        Err(error) if error.kind() != io::ErrorKind::StorageFull => Err(WalError::io("write", path)(error)),
        _ => Ok(DirLock { _file: file }),
    }
}

/// Checks that the log is `owner`'s. A log that says nothing yet becomes it.
///
/// # Errors
/// `Foreign` if it is someone else's, and those of the disk.
pub(super) fn claim(disk: &dyn Disk, dir: &Path, owner: &str) -> Result<(), WalError> {
    let path = dir.join(OWNER);
    if !disk.exists(&path).map_err(WalError::io("look for", &path))? {
        return match write_atomic(disk, &path, format!("{owner}\n").as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                tracing::warn!(path = %path.display(), "no room to note whose log this is; the next start tries again");
                Ok(())
            }
            written => written.map_err(WalError::io("write", path)),
        };
    }
    let found = text(disk, &path).map_err(WalError::io("read", &path))?;
    if found == owner {
        return Ok(());
    }
    Err(WalError::Foreign { dir: dir.to_owned(), owner: owner.to_owned(), found })
}

fn text(disk: &dyn Disk, path: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&read_all(disk, path, TEXT_BYTES_MAX)?).trim().to_owned())
}
