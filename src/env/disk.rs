//! The file system as the house needs it: positioned reads and writes, allocation, syncs.
//!
//! What a caller may rely on after a power cut:
//! - bytes of a file: those written before a finished `sync_data`/`sync_all` of that file;
//! - a file's length and its allocated room: those before a finished `sync_all`;
//! - names (creation, rename, removal): those before a finished `sync_dir` of the directory.
//!
//! Everything else may be there, be gone or be there in part, sector by sector. A failed sync is
//! final: the bytes may be lost even if a second sync says otherwise.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::sectors::Direct;

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// An existing file, to read.
    Read,
    /// An existing file, to read and write.
    Write,
    /// To read and write; made with mode 0600 if it isn't there.
    Create,
    /// To read and write; an error if it is there.
    CreateNew,
}

/// Names: directories and what is in them.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Makes a directory and its parents, mode 0700.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Opens a file.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens an existing file for writes that go past the page cache; `None` where the file system has no such.
    fn open_direct(&self, _path: &Path) -> io::Result<Option<Direct>> {
        Ok(None)
    }
    /// Gives a file another name; a file of that name is replaced in one step.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file one more name, which is an error if it is there; [`io::ErrorKind::Unsupported`] and others where the
    /// file system has no such.
    fn hard_link(&self, _file: &Path, _name: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and all that is in it; nothing of it need be durable.
    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.list(dir)?.iter().try_for_each(|name| self.remove(&dir.join(name)))
    }
    /// Names in a directory, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Whether there is a file or directory of this name.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Bytes that an unprivileged process may still take on this file system.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
    /// Waits until all that the machine has to write by now is written, where there is such a thing: what is about to wait for
    /// that at a worse moment asks for it before.
    fn settle(&self) {}
}

/// An open file. Every method takes its own offset, so a file can be shared by readers and a writer.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Reads up to `buffer.len()` bytes; 0 means the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all bytes, in one call of the system as long as it takes them.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Takes room on the disk for a range and raises the length to its end.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Cuts or extends (with zeros) the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes the bytes durable, and as much metadata as reading them needs.
    fn sync_data(&self) -> io::Result<()>;
    /// Makes the bytes and all metadata durable.
    fn sync_all(&self) -> io::Result<()>;
    /// Length in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Says that all of it will be read soon. A hint: nothing is read yet, and nothing is told of it.
    fn will_be_read(&self) {}
    /// Takes the exclusive lock of the file; `false` if another process has it. Ends with the file.
    fn try_lock(&self) -> io::Result<bool>;

    /// Fills `buffer` or fails with `UnexpectedEof`.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read_at(&mut buffer[done..], offset + done as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => done += count,
            }
        }
        Ok(())
    }
}

/// A whole file, refused when larger than `bytes_max`.
///
/// # Errors
/// Those of the disk, and `FileTooLarge`.
pub fn read_all(disk: &dyn Disk, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let file = disk.open(path, Access::Read)?;
    let size = usize::try_from(file.size()?).ok().filter(|size| *size <= bytes_max);
    let mut bytes = vec![0; size.ok_or(io::ErrorKind::FileTooLarge)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Puts a whole file in place so that a crash leaves the old one or the new one, and returns when
/// the new one is durable.
///
/// # Errors
/// Those of the disk.
pub fn write_atomic(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut draft = path.as_os_str().to_owned();
    draft.push(".tmp");
    let draft = Path::new(&draft);
    let file = disk.open(draft, Access::Create)?;
    file.set_len(0)?;
    file.write_at(bytes, 0)?;
    file.sync_all()?;
    disk.rename(draft, path)?;
    disk.sync_dir(dir)
}

/// Makes a directory and its parents, and returns when their names are durable: a name lies in the
/// directory above it, so each one that is new needs its own sync.
///
/// # Errors
/// Those of the disk.
pub fn make_dir_durably(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let above = |dir: &Path| match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new(".").to_owned(),
        Some(parent) => parent.to_owned(),
        None => dir.to_owned(),
    };
    // The one above is synced in any case: an earlier try may have come as far as making this one.
    let mut changed = vec![above(dir)];
    for ancestor in dir.ancestors().skip(1).take_while(|ancestor| !ancestor.as_os_str().is_empty()) {
        if disk.exists(ancestor)? {
            break;
        }
        changed.push(above(ancestor));
    }
    disk.create_dir_all(dir)?;
    changed.iter().rev().try_for_each(|dir| disk.sync_dir(dir))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{DiskOp, MemDisk};

    /// Only the directory above the last one was synced: after a power cut the whole path was gone.
    #[test]
    fn the_name_of_every_new_directory_is_synced() {
        let disk = MemDisk::new();
        disk.create_dir_all(Path::new("/var")).unwrap();
        for (dir, syncs) in [("/var/lib/rusd/member", 3), ("/var/lib/rusd/member", 1), ("/var/lib/rusd/other", 1)] {
            let before = disk.count(DiskOp::SyncDir);
            make_dir_durably(&disk, Path::new(dir)).unwrap();
            assert!(disk.exists(Path::new(dir)).unwrap());
            assert_eq!(disk.count(DiskOp::SyncDir) - before, syncs, "{dir}");
        }
        disk.fail(DiskOp::SyncDir, 1, 5);
        assert!(make_dir_durably(&disk, Path::new("/data/a/b")).is_err());
    }
}
