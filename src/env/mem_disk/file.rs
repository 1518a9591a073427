//! A handle of a file in memory.

use std::io;

use parking_lot::Mutex;

use super::super::disk::DiskFile;
use super::{DiskOp, FileId, MemDisk, State};

const EIO: i32 = 5;

/// An open file; dead once the disk has crashed.
#[derive(Debug)]
pub(super) struct MemFile {
    disk: MemDisk,
    id: FileId,
    boot: u64,
    writable: bool,
    /// What writes are multiples of, in the file and in memory.
    align: usize,
    locks: Mutex<bool>,
}

impl MemFile {
    pub(super) fn new(disk: MemDisk, id: FileId, boot: u64, writable: bool, align: usize) -> Self {
        Self { disk, id, boot, writable, align, locks: Mutex::new(false) }
    }

    fn with<T>(&self, op: Option<DiskOp>, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.0.lock();
        if state.boot != self.boot || !state.inodes.contains_key(&self.id) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        if let Some(op) = op {
            state.enter(op)?;
        }
        work(&mut state)
    }

    fn sync(&self) -> io::Result<()> {
        let id = self.id;
        let result = self.with(Some(DiskOp::Sync), |state| {
            if let Some(inode) = state.inodes.get_mut(&id) {
                inode.sync();
            }
            Ok(())
        });
        if result.is_err() {
            // The page cache forgets that these were never written.
            if let Some(inode) = self.disk.0.lock().inodes.get_mut(&id) {
                inode.dirty.clear();
            }
        }
        result
    }

    fn grow(&self, op: Option<DiskOp>, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.with(op, |state| {
            let old = state.inodes[&self.id].live.len();
            state.make_room(len.saturating_sub(old))?;
            if let Some(inode) = state.inodes.get_mut(&self.id)
                && len > old
            {
                inode.live.resize(len, 0);
            }
            Ok(())
        })
    }
}

impl DiskFile for MemFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(Some(DiskOp::Read), |state| {
            let live = &state.inodes[&self.id].live;
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(live.len());
            let count = buffer.len().min(live.len() - start);
            buffer[..count].copy_from_slice(&live[start..start + count]);
            Ok(count)
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        if [offset, bytes.len(), bytes.as_ptr().addr()].iter().any(|at| !at.is_multiple_of(self.align)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.with(None, |state| {
            let fault = state.enter(DiskOp::Write);
            let bytes = if fault.is_err() { &bytes[..bytes.len() / 2] } else { bytes };
            let old = state.inodes[&self.id].live.len();
            state.make_room((offset + bytes.len()).saturating_sub(old))?;
            if let Some(inode) = state.inodes.get_mut(&self.id) {
                if inode.live.len() < offset + bytes.len() {
                    inode.live.resize(offset + bytes.len(), 0);
                }
                inode.live[offset..offset + bytes.len()].copy_from_slice(bytes);
                inode.touch(offset, bytes.len());
            }
            fault
        })
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.grow(Some(DiskOp::Allocate), offset + len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.grow(None, len)?;
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.with(None, |state| {
            if let Some(inode) = state.inodes.get_mut(&self.id) {
                let old = inode.live.len();
                inode.live.truncate(len);
                // What was cut must come back as zeros if the file grows again.
                inode.touch(len, old.saturating_sub(len));
            }
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }

    fn size(&self) -> io::Result<u64> {
        self.with(None, |state| Ok(state.inodes[&self.id].live.len() as u64))
    }

    fn try_lock(&self) -> io::Result<bool> {
        let taken = self.with(None, |state| Ok(state.locked.insert(self.id)))?;
        *self.locks.lock() |= taken;
        Ok(taken)
    }
}

impl Drop for MemFile {
    fn drop(&mut self) {
        if *self.locks.lock() {
            let mut state = self.disk.0.lock();
            if state.boot == self.boot {
                state.locked.remove(&self.id);
            }
        }
    }
}
