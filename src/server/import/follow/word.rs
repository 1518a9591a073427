//! The word to take over, as files beside the state that follows: no port, no signal.
//!
//! ```text
//! take-over --data-dir D ─► follow.tmp/take-over ─► the follower ─► it has ─► member/format is there
//!                                                        └► it could not ─► take-over.refused, with the reason
//! ```

use std::io;
use std::path::Path;
use std::time::Duration;

use super::{ImportFailure, SCRATCH};
use crate::env::{Access, Disk, Env, read_all, write_atomic};
use crate::import::ImportError;

/// The word: what it says is one of the two below.
const TAKE_OVER: &str = "take-over";
/// The answer, where it was not done.
const REFUSED: &str = "take-over.refused";
const NOW: &[u8] = b"now";
const WITHOUT_SOURCE: &[u8] = b"without-source";
/// Between two looks for the word, or for what came of it.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);
const WORD_BYTES_MAX: usize = 4096;

/// The word to take over, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Now,
    WithoutSource,
}

/// The word, if it was said.
pub(super) fn heard(disk: &dyn Disk, scratch: &Path) -> Result<Option<Word>, ImportError> {
    let path = scratch.join(TAKE_OVER);
    match read_all(disk, &path, WORD_BYTES_MAX) {
        Ok(word) if word == WITHOUT_SOURCE => Ok(Some(Word::WithoutSource)),
        Ok(_) => Ok(Some(Word::Now)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ImportError::io("read", &path)(error)),
    }
}

/// Answers that it was not done, and forgets the word.
pub(super) fn refuse(disk: &dyn Disk, scratch: &Path, why: &str) -> Result<(), ImportError> {
    let refused = scratch.join(REFUSED);
    let end = why.floor_char_boundary(WORD_BYTES_MAX);
    write_atomic(disk, &refused, &why.as_bytes()[..end]).map_err(ImportError::io("write", &refused))?;
    forget(disk, &scratch.join(TAKE_OVER))
}

/// Forgets what was said to another process.
pub(super) fn begin(disk: &dyn Disk, scratch: &Path) -> Result<(), ImportError> {
    [TAKE_OVER, REFUSED].iter().try_for_each(|name| forget(disk, &scratch.join(name)))
}

/// Removes a file, if it is there.
pub(super) fn forget(disk: &dyn Disk, path: &Path) -> Result<(), ImportError> {
    match disk.remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(ImportError::io("remove", path)),
    }
}

/// Whether a process follows into the data directory that this scratch directory is in.
pub(in crate::server::import) fn is_followed(disk: &dyn Disk, scratch: &Path) -> Result<bool, ImportError> {
    let path = scratch.join("lock");
    match disk.open(&path, Access::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        opened => {
            let lock = opened.map_err(ImportError::io("open", &path))?;
            lock.try_lock().map(|free| !free).map_err(ImportError::io("lock", &path))
        }
    }
}

/// Tells the process that follows into a data directory to take over, and waits until it has.
///
/// # Errors
/// There is none, or it says why not.
pub async fn tell_to_take_over(env: &Env, data_dir: &Path, without_source: bool) -> Result<(), ImportFailure> {
    let disk = env.disk.as_ref();
    let scratch = data_dir.join(SCRATCH);
    if !is_followed(disk, &scratch)? {
        return Err(ImportFailure::Refused(format!("no process follows into {}", data_dir.display())));
    }
    let (word, refused) = (scratch.join(TAKE_OVER), scratch.join(REFUSED));
    forget(disk, &refused)?;
    write_atomic(disk, &word, if without_source { WITHOUT_SOURCE } else { NOW })
        .map_err(ImportError::io("write", &word))?;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if let Ok(why) = read_all(disk, &refused, WORD_BYTES_MAX) {
            return Err(ImportFailure::Refused(String::from_utf8_lossy(&why).into_owned()));
        }
        let made = data_dir.join("member").join("format");
        if disk.exists(&made).map_err(ImportError::io("look for", &made))? {
            return Ok(());
        }
        if !is_followed(disk, &scratch)? {
            return Err(ImportFailure::Refused("the process that followed has ended".into()));
        }
    }
}
