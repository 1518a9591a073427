//! Reading a bbolt file that somebody else wrote: every byte of it may be wrong.
//!
//! ```text
//! open ─► the newer whole meta page ─► root page ─► walk: one page of each level in memory ─► pairs, ascending
//!                                                   └► check: each page once, none in and out of the free list
//! ```
//! What is believed: nothing. A page's number, kind, elements and run of pages are looked at before they are used; a
//! page is visited once at most, so that no circle is walked twice; keys have to ascend over the whole of a bucket. So
//! whatever a file holds, the walk ends, with all pairs or with the page that is wrong.

mod check;
mod page;
mod walk;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub use check::Checked;
use page::{BRANCH, META, Page};

use crate::env::{Access, Disk, DiskFile};

const MAGIC: u32 = 0xed0c_daed;
const VERSION: u32 = 2;
/// A page's header, and a meta's fields up to and with its checksum.
const HEADER_BYTES: usize = 16;
const META_BYTES: usize = 64;
/// bbolt's pages are as large as the system's; it looks for the second meta page at each of these sizes.
const PAGE_BYTES_MIN: u64 = 512;
const PAGE_BYTES_MAX: u64 = 1 << 24;
/// A page with its overflow is read as a whole: the largest value there can be, or the largest free list, with room.
const RUN_BYTES_MAX: u64 = 256 << 20;
/// A page of branches is split before it is much larger than a page: only long keys make it longer. A walk holds one of
/// each level.
const BRANCH_RUN_BYTES_MAX: u64 = 1 << 20;
/// The free list's page where there is none.
const NO_FREELIST: u64 = u64::MAX;

/// Why a file can't be read, or not on.
#[derive(Debug, thiserror::Error)]
pub enum BboltError {
    /// The disk.
    #[error("reading the database file: {0}")]
    Io(#[from] io::Error),
    /// Neither of its meta pages is one.
    #[error("this is no bbolt database: {0}")]
    Foreign(&'static str),
    /// A page isn't what it should be.
    #[error("the database file is damaged at page {page}: {what}")]
    Damaged {
        /// Which.
        page: u64,
        /// What was found.
        what: &'static str,
    },
}

/// A bbolt file, open to read.
#[derive(Clone)]
pub struct BboltFile {
    file: Arc<dyn DiskFile>,
    meta: Meta,
}

/// What a meta page says.
#[derive(Clone, Copy, Debug)]
struct Meta {
    page_bytes: u64,
    root: u64,
    freelist: u64,
    /// The first page that isn't there.
    end: u64,
    transaction: u64,
}

impl fmt::Debug for BboltFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BboltFile").field(&self.meta).finish()
    }
}

impl BboltFile {
    /// Opens a file; what follows its last page, such as a checksum, is passed over.
    ///
    /// # Errors
    /// The disk's, `Foreign` for what is no such file, `Damaged` for one that is cut short.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Self, BboltError> {
        Self::new(disk.open(path, Access::Read)?)
    }

    /// The same of a file that is open.
    ///
    /// # Errors
    /// As [`BboltFile::open`].
    pub fn new(file: Arc<dyn DiskFile>) -> Result<Self, BboltError> {
        let first = meta_at(file.as_ref(), 0, None)?;
        let second = match &first {
            Some(first) => meta_at(file.as_ref(), first.page_bytes, Some(first.page_bytes))?,
            None => {
                let sizes = (PAGE_BYTES_MIN.ilog2()..=PAGE_BYTES_MAX.ilog2()).map(|bits| 1u64 << bits);
                sizes.map(|size| meta_at(file.as_ref(), size, Some(size))).find_map(Result::transpose).transpose()?
            }
        };
        let newest = [first, second].into_iter().flatten().max_by_key(|meta| meta.transaction);
        let meta = newest.ok_or(BboltError::Foreign("neither of its two meta pages is whole"))?;
        if meta.end.checked_mul(meta.page_bytes).is_none_or(|bytes| bytes > file.size().unwrap_or(0)) {
            return Err(BboltError::Damaged { page: meta.end.saturating_sub(1), what: "the file ends before it" });
        }
        Ok(Self { file, meta })
    }

    /// Bytes of all its pages, as etcd's tools tell a database's size.
    pub fn size(&self) -> u64 {
        self.meta.end * self.meta.page_bytes
    }

    /// The page `id` with its overflow.
    fn page(&self, id: u64) -> Result<Page, BboltError> {
        let damaged = |what| BboltError::Damaged { page: id, what };
        if id < 2 || id >= self.meta.end {
            return Err(damaged("its number is out of bounds"));
        }
        let at = id * self.meta.page_bytes;
        let mut bytes = vec![0; self.meta.page_bytes as usize];
        self.file.read_exact_at(&mut bytes, at)?;
        let overflow = u64::from(page::overflow(&bytes));
        let run_max = match page::flags(&bytes) & BRANCH {
            0 => RUN_BYTES_MAX,
            _ => BRANCH_RUN_BYTES_MAX.max(self.meta.page_bytes),
        };
        let run = (overflow + 1).checked_mul(self.meta.page_bytes).filter(|run| *run <= run_max);
        let run = run.ok_or_else(|| damaged("it takes more pages than any value can"))?;
        if overflow >= self.meta.end - id {
            return Err(damaged("its overflow is out of bounds"));
        }
        let first = bytes.len();
        bytes.resize(run as usize, 0);
        self.file.read_exact_at(&mut bytes[first..], at + first as u64)?;
        Page::new(id, bytes).map_err(damaged)
    }
}

/// The meta page at a place, if there is a whole one that says (if it must) that pages are of `page_bytes`.
fn meta_at(file: &dyn DiskFile, at: u64, page_bytes: Option<u64>) -> Result<Option<Meta>, BboltError> {
    let mut bytes = [0; HEADER_BYTES + META_BYTES];
    match file.read_exact_at(&mut bytes, at) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let (header, fields) = bytes.split_at(HEADER_BYTES);
    let u32_at = |at: usize| u32::from_le_bytes([fields[at], fields[at + 1], fields[at + 2], fields[at + 3]]);
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    let meta = Meta {
        page_bytes: u64::from(u32_at(8)),
        root: u64_at(16),
        freelist: u64_at(32),
        end: u64_at(40),
        transaction: u64_at(48),
    };
    let is_whole = page::flags(header) & META != 0
        && (u32_at(0), u32_at(4)) == (MAGIC, VERSION)
        && u64_at(56) == super::pages::fnv1a(&fields[..56])
        && meta.page_bytes.is_power_of_two()
        && (PAGE_BYTES_MIN..=PAGE_BYTES_MAX).contains(&meta.page_bytes)
        && page_bytes.is_none_or(|given| given == meta.page_bytes);
    Ok(is_whole.then_some(meta))
}
