//! The operating system's file system.
#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the one door to files")]

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, FallocateFlags, OFlags, StatxFlags};

use super::disk::{Access, Disk, DiskFile};
use super::sectors::{Direct, SECTOR_BYTES_MAX};

/// What is asked ahead of a disk at a time.
const READ_AHEAD_BYTES: u64 = 128 << 10;

/// Files as the kernel gives them; files 0600, directories 0700.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).mode(0o600);
        match access {
            Access::Read => &mut options,
            Access::Write => options.write(true),
            Access::Create => options.write(true).create(true),
            Access::CreateNew => options.write(true).create_new(true),
        };
        Ok(Arc::new(options.open(path)?))
    }

    fn open_direct(&self, path: &Path) -> io::Result<Option<Direct>> {
        let mut options = OpenOptions::new();
        let flags = i32::try_from(OFlags::DIRECT.bits()).map_err(io::Error::other)?;
        let file = match options.read(true).write(true).custom_flags(flags).open(path) {
            Ok(file) => file,
            // Not every file system can.
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        Ok(direct_align(&file).map(|align| Direct { file: Arc::new(file), align }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn hard_link(&self, file: &Path, name: &Path) -> io::Result<()> {
        fs::hard_link(file, name)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let mut names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
        names.sort_unstable();
        Ok(names)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        fs::exists(path)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn settle(&self) {
        rustix::fs::sync();
    }
}

/// What writes past the page cache have to be multiples of.
fn direct_align(file: &File) -> Option<usize> {
    /// `STATX_DIOALIGN`, known to Linux since 6.1.
    const ALIGNS: StatxFlags = StatxFlags::from_bits_retain(0x2000);
    const LEAST: usize = 512;
    let align = match rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, ALIGNS) {
        Ok(stat) if stat.stx_mask & ALIGNS.bits() != 0 && stat.stx_dio_offset_align == 0 => return None,
        Ok(stat) if stat.stx_mask & ALIGNS.bits() != 0 => stat.stx_dio_offset_align.max(stat.stx_dio_mem_align),
        // Nothing is said of it: a page will do.
        _ => SECTOR_BYTES_MAX as u32,
    };
    let align = (align as usize).next_power_of_two().max(LEAST);
    (align <= SECTOR_BYTES_MAX).then_some(align)
}

impl DiskFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match FileExt::read_at(self, buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let before = self.metadata()?.len();
        match rustix::fs::fallocate(self, FallocateFlags::empty(), offset, len) {
            Ok(()) => Ok(()),
            // Not every file system can; a longer file is then the best there is.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                if before < offset + len {
                    File::set_len(self, offset + len)
                } else {
                    Ok(())
                }
            }
            Err(errno) => {
                // ext4 keeps what it could get: all that is left of a full disk.
                let _ = File::set_len(self, before);
                Err(errno.into())
            }
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn will_be_read(&self) {
        // Of one call Linux takes no more than the device's largest request.
        let (size, advice) = (self.size().unwrap_or(0), rustix::fs::Advice::WillNeed);
        for at in 0..size.div_ceil(READ_AHEAD_BYTES) {
            let _ = rustix::fs::fadvise(self, at * READ_AHEAD_BYTES, NonZeroU64::new(READ_AHEAD_BYTES), advice);
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(self)?)
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(self)?)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn try_lock(&self) -> io::Result<bool> {
        match File::try_lock(self) {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::disk::{read_all, write_atomic};
    use super::*;

    #[test]
    fn files_and_directories_are_private_and_hold_what_was_written() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("a/b");
        RealDisk.create_dir_all(&dir).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        let file = RealDisk.open(&dir.join("f"), Access::CreateNew).unwrap();
        assert_eq!(fs::metadata(dir.join("f")).unwrap().permissions().mode() & 0o777, 0o600);
        file.allocate(0, 8192).unwrap();
        assert_eq!(file.size().unwrap(), 8192);
        file.write_at(b"hello", 4090).unwrap();
        file.sync_data().unwrap();
        let mut bytes = [1; 7];
        file.read_exact_at(&mut bytes, 4089).unwrap();
        assert_eq!(&bytes, b"\0hello\0");
        assert_eq!(file.read_exact_at(&mut bytes, 8190).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(RealDisk.open(&dir.join("f"), Access::CreateNew).is_err());
        assert!(RealDisk.free_bytes(&dir).unwrap() > 0);
    }

    #[test]
    fn write_atomic_replaces_and_leaves_no_draft() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("f");
        write_atomic(&RealDisk, &path, b"a longer first text").unwrap();
        write_atomic(&RealDisk, &path, b"second").unwrap();
        assert_eq!(read_all(&RealDisk, &path, 100).unwrap(), b"second");
        assert_eq!(read_all(&RealDisk, &path, 3).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(RealDisk.list(temp.path()).unwrap(), ["f"]);
    }

    #[test]
    fn a_lock_is_taken_once() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("lock");
        let first = RealDisk.open(&path, Access::Create).unwrap();
        let second = RealDisk.open(&path, Access::Create).unwrap();
        assert!(first.try_lock().unwrap());
        assert!(!second.try_lock().unwrap());
        drop(first);
        assert!(second.try_lock().unwrap());
    }
}
