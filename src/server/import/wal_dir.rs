//! What a killed import left in a `--wal-dir`, which no rename makes good.
//!
//! ```text
//! <data-dir>/import.tmp/wal-dir     a number, and the directory's path ─┐ equal: what lies there was made by that
//! <wal-dir>/import.unfinished       a number                            ─┘ import, and goes with it
//! ```
//! Both are written before the log is, and the second one removed once the member is there. The number is drawn for
//! each try: a directory that has been another member's since, or whose data directory isn't mounted, isn't touched.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use super::ImportFailure;
use crate::env::{Disk, Env, make_dir_durably, read_all, write_atomic};
use crate::import::ImportError;
use crate::wal::{UNFINISHED_IMPORT, is_log_file};

/// In the draft: the number and the path.
const NOTE: &str = "wal-dir";
/// The number in hexadecimal digits.
const NUMBER_BYTES: usize = 16;
/// A path of the system's greatest length, and the number.
const NOTE_BYTES_MAX: usize = 8 << 10;

/// Notes here and there whose log is going to be in `dir`, which is empty.
///
/// # Errors
/// The disk's.
pub(super) fn mark(env: &Env, staged: &Path, dir: &Path) -> Result<(), ImportFailure> {
    let disk = env.disk.as_ref();
    let number = format!("{:0NUMBER_BYTES$x}", env.rng.next_u64());
    let note = staged.join(NOTE);
    let text = [number.as_bytes(), b"\n", dir.as_os_str().as_bytes()].concat();
    write_atomic(disk, &note, &text).map_err(ImportError::io("write", &note))?;
    make_dir_durably(disk, dir).map_err(ImportError::io("make", dir))?;
    let mark = dir.join(UNFINISHED_IMPORT);
    Ok(write_atomic(disk, &mark, number.as_bytes()).map_err(ImportError::io("write", &mark))?)
}

/// The log is a member's from now on.
///
/// # Errors
/// The disk's.
pub(super) fn unmark(disk: &dyn Disk, dir: &Path) -> Result<(), ImportFailure> {
    let mark = dir.join(UNFINISHED_IMPORT);
    disk.remove(&mark).map_err(ImportError::io("remove", &mark))?;
    Ok(disk.sync_dir(dir).map_err(ImportError::io("sync", dir))?)
}

/// Whether what lies in `dir` was made by the import that left the draft.
///
/// # Errors
/// The disk's.
pub(super) fn is_left(disk: &dyn Disk, staged: &Path, dir: &Path) -> Result<bool, ImportFailure> {
    let Some((number, _)) = note(disk, staged)? else { return Ok(false) };
    Ok(read(disk, &dir.join(UNFINISHED_IMPORT))?.is_some_and(|mark| mark == number))
}

/// Whether a log's directory has files of this name.
pub(super) fn is_known(name: &OsStr) -> bool {
    name.to_str().is_some_and(is_log_file)
}

/// The draft of a mark: there is no log yet.
pub(super) fn is_nothing(name: &OsStr) -> bool {
    name.to_str().and_then(|name| name.strip_suffix(".tmp")) == Some(UNFINISHED_IMPORT)
}

/// Removes what the import left that left the draft: in the directory that it noted, and in `dir`.
///
/// # Errors
/// The disk's.
pub(super) fn clean(disk: &dyn Disk, staged: &Path, dir: Option<&Path>) -> Result<(), ImportFailure> {
    let Some((_, noted)) = note(disk, staged)? else { return Ok(()) };
    for dir in std::iter::once(noted.as_path()).chain(dir) {
        if !is_left(disk, staged, dir)? {
            continue;
        }
        let names: Vec<OsString> = disk.list(dir).map_err(ImportError::io("list", dir))?;
        // The mark goes last: killed in the middle, the next try goes on.
        let log = names.iter().filter(|name| is_known(name) && *name != UNFINISHED_IMPORT);
        for path in log.map(|name| dir.join(name)) {
            disk.remove(&path).map_err(ImportError::io("remove", &path))?;
        }
        disk.sync_dir(dir).map_err(ImportError::io("sync", dir))?;
        unmark(disk, dir)?;
        tracing::info!(dir = %dir.display(), "removed what an import left that was killed");
    }
    Ok(())
}

/// The draft's number and the directory that it noted, if there is such a note.
fn note(disk: &dyn Disk, staged: &Path) -> Result<Option<(Vec<u8>, PathBuf)>, ImportFailure> {
    let Some(text) = read(disk, &staged.join(NOTE))? else { return Ok(None) };
    let parts = text.split_first_chunk::<NUMBER_BYTES>().and_then(|(number, rest)| {
        let dir = rest.strip_prefix(b"\n")?;
        Some((number.to_vec(), PathBuf::from(OsString::from_vec(dir.to_vec()))))
    });
    Ok(parts)
}

fn read(disk: &dyn Disk, path: &Path) -> Result<Option<Vec<u8>>, ImportFailure> {
    match read_all(disk, path, NOTE_BYTES_MAX) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ImportError::io("read", path)(error).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::env::{Access, MemDisk};

    fn names(disk: &dyn Disk, dir: &Path) -> Vec<OsString> {
        disk.list(dir).unwrap()
    }

    #[test]
    fn what_a_killed_import_left_goes_and_nothing_else() {
        let disk = MemDisk::new();
        let env = Env { disk: Arc::new(disk.clone()), ..Env::real() };
        let [staged, dir, other] = ["/d/import.tmp", "/w", "/x"].map(Path::new);
        for dir in [staged, dir, other] {
            disk.create_dir_all(dir).unwrap();
        }
        assert!(!is_left(&disk, staged, dir).unwrap(), "nothing was begun");
        mark(&env, staged, dir).unwrap();
        disk.open(&other.join("lock"), Access::Create).unwrap();
        for name in ["lock", "owner", "0000000000000001.wal", "0000000000000002.wal.tmp", "thesis.tex"] {
            disk.open(&dir.join(name), Access::Create).unwrap();
        }
        assert!(is_left(&disk, staged, dir).unwrap() && !is_left(&disk, staged, other).unwrap());
        clean(&disk, staged, Some(other)).unwrap();
        assert_eq!(names(&disk, dir), ["thesis.tex"].map(OsString::from));
        assert_eq!(names(&disk, other), ["lock"].map(OsString::from));
        clean(&disk, staged, Some(dir)).unwrap();
    }

    #[test]
    fn another_try_is_another_number() {
        let disk = MemDisk::new();
        let env = Env { disk: Arc::new(disk.clone()), ..Env::real() };
        let [first, second, dir] = ["/d/import.tmp", "/e/import.tmp", "/w"].map(Path::new);
        for dir in [first, second, dir] {
            disk.create_dir_all(dir).unwrap();
        }
        mark(&env, first, dir).unwrap();
        mark(&env, second, dir).unwrap();
        assert!(!is_left(&disk, first, dir).unwrap() && is_left(&disk, second, dir).unwrap());
        clean(&disk, first, Some(dir)).unwrap();
        assert_eq!(names(&disk, dir), [UNFINISHED_IMPORT].map(OsString::from), "it isn't the first one's any more");
        unmark(&disk, dir).unwrap();
        assert!(!is_left(&disk, second, dir).unwrap(), "the member is there");
    }
}
