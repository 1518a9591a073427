//! bbolt's pages.
//!
//! ```text
//! page:           id u64 · flags u16 · count u16 · overflow u32 · elements · their keys and values
//! leaf element:   flags u32 · position u32 (from the element) · key length u32 · value length u32
//! branch element: position u32 · key length u32 · page u64
//! meta (0 and 1): magic, version, page size, flags u32 · root page, sequence · freelist, end, txid u64 · fnv-1a 64
//! ```

use std::io;
use std::sync::Arc;

use crate::env::DiskFile;

const PAGE_BYTES: usize = 4096;
const HEADER_BYTES: usize = 16;
const ELEMENT_BYTES: usize = 16;
const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const META: u16 = 0x04;
const FREELIST: u16 = 0x10;
const BUCKET: u32 = 0x01;
const MAGIC: u32 = 0xed0c_daed;
const VERSION: u32 = 2;
/// Pages are handed to the file in runs of about this size.
const RUN_BYTES: usize = 256 << 10;

/// Writes buckets, in the order of their names, into a new file.
pub(super) struct BboltWriter {
    file: Arc<dyn DiskFile>,
    /// Pages that are made and not yet handed to the file, and where they belong.
    run: Vec<u8>,
    run_page: u64,
    /// Names of finished buckets and their root pages.
    buckets: Vec<(Vec<u8>, u64)>,
    name: Vec<u8>,
    tree: Tree,
}

/// The tree under construction: the open page of each level, leaves first.
#[derive(Default)]
struct Tree {
    leaf: Page,
    branches: Vec<Page>,
}

/// An open page.
#[derive(Default)]
struct Page {
    elements: Vec<Element>,
    data: Vec<u8>,
}

struct Element {
    flags: u32,
    key_len: usize,
    value_len: usize,
    child: u64,
}

impl Page {
    fn push(&mut self, flags: u32, key: &[u8], value: &[u8], child: u64) {
        self.elements.push(Element { flags, key_len: key.len(), value_len: value.len(), child });
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(value);
    }

    fn fits(&self, more: usize) -> bool {
        let used = HEADER_BYTES + self.elements.len() * ELEMENT_BYTES + self.data.len();
        self.elements.is_empty() || used + ELEMENT_BYTES + more <= PAGE_BYTES
    }

    fn first_key(&self) -> &[u8] {
        self.elements.first().map_or(&[], |first| &self.data[..first.key_len])
    }
}

impl BboltWriter {
    pub(super) fn new(file: Arc<dyn DiskFile>) -> Self {
        // Two meta pages come first, and one for the free list, which is empty.
        let mut writer =
            Self { file, run: Vec::new(), run_page: 2, buckets: Vec::new(), name: Vec::new(), tree: Tree::default() };
        writer.push_page(FREELIST, &Page::default());
        writer
    }

    /// A whole small bucket; keys ascending.
    pub(super) fn bucket<'a>(
        &mut self,
        name: &str,
        pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> io::Result<()> {
        self.begin(name)?;
        for (key, value) in pairs {
            self.pair(key, value)?;
        }
        self.end()
    }

    /// Begins a bucket; its name is above those before.
    pub(super) fn begin(&mut self, name: &str) -> io::Result<()> {
        self.name = name.as_bytes().to_vec();
        self.tree = Tree::default();
        Ok(())
    }

    /// Adds a pair to the bucket; its key is above those before.
    pub(super) fn pair(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.insert(0, key, value)
    }

    fn insert(&mut self, flags: u32, key: &[u8], value: &[u8]) -> io::Result<()> {
        // bbolt takes neither an empty key nor longer ones than 32 KiB; etcd's own keys are none.
        if !self.tree.leaf.fits(key.len() + value.len()) {
            let leaf = std::mem::take(&mut self.tree.leaf);
            let page = self.push_page(LEAF, &leaf);
            self.push_child(0, leaf.first_key(), page)?;
        }
        self.tree.leaf.push(flags, key, value, 0);
        self.hand_over(RUN_BYTES)
    }

    /// Adds a finished page to the level of branches above it.
    fn push_child(&mut self, level: usize, first_key: &[u8], page: u64) -> io::Result<()> {
        if level == self.tree.branches.len() {
            self.tree.branches.push(Page::default());
        }
        if !self.tree.branches[level].fits(first_key.len()) {
            let branch = std::mem::take(&mut self.tree.branches[level]);
            let branch_page = self.push_page(BRANCH, &branch);
            self.push_child(level + 1, branch.first_key(), branch_page)?;
        }
        self.tree.branches[level].push(0, first_key, &[], page);
        Ok(())
    }

    /// Ends the bucket.
    pub(super) fn end(&mut self) -> io::Result<()> {
        let root = self.root()?;
        let name = std::mem::take(&mut self.name);
        self.buckets.push((name, root));
        Ok(())
    }

    /// Closes the open pages of all levels; gives the topmost.
    fn root(&mut self) -> io::Result<u64> {
        let leaf = std::mem::take(&mut self.tree.leaf);
        let mut below = (leaf.first_key().to_vec(), self.push_page(LEAF, &leaf));
        let mut level = 0;
        while level < self.tree.branches.len() {
            self.push_child(level, &below.0, below.1)?;
            let branch = std::mem::take(&mut self.tree.branches[level]);
            below = (branch.first_key().to_vec(), self.push_page(BRANCH, &branch));
            level += 1;
        }
        Ok(below.1)
    }

    /// Writes the root bucket and the meta pages; gives the file's length.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        self.tree = Tree::default();
        for (name, root) in std::mem::take(&mut self.buckets) {
            // A bucket's value is its root page and its sequence.
            let value = [root.to_le_bytes(), 0u64.to_le_bytes()].concat();
            self.insert(BUCKET, &name, &value)?;
        }
        let root = self.root()?;
        self.hand_over(0)?;
        let end = self.run_page;
        for number in 0..2u64 {
            self.file.write_at(&meta_page(number, root, end), number * PAGE_BYTES as u64)?;
        }
        Ok(end * PAGE_BYTES as u64)
    }

    /// Gives the made pages to the file if there are more bytes of them.
    fn hand_over(&mut self, bytes: usize) -> io::Result<()> {
        if self.run.len() > bytes {
            self.file.write_at(&self.run, self.run_page * PAGE_BYTES as u64)?;
            self.run_page += (self.run.len() / PAGE_BYTES) as u64;
            self.run.clear();
        }
        Ok(())
    }

    /// Makes a page, and as many after it as its data needs; gives its number.
    fn push_page(&mut self, flags: u16, page: &Page) -> u64 {
        let id = self.run_page + (self.run.len() / PAGE_BYTES) as u64;
        let bytes = HEADER_BYTES + page.elements.len() * ELEMENT_BYTES + page.data.len();
        let pages = bytes.div_ceil(PAGE_BYTES);
        let end = self.run.len() + pages * PAGE_BYTES;
        let out = &mut self.run;
        out.extend_from_slice(&id.to_le_bytes());
        out.extend_from_slice(&flags.to_le_bytes());
        // A page of small elements holds at most 255 of them.
        out.extend_from_slice(&(page.elements.len() as u16).to_le_bytes());
        out.extend_from_slice(&(pages as u32 - 1).to_le_bytes());
        let mut position = page.elements.len() * ELEMENT_BYTES;
        for element in &page.elements {
            let fields = if flags == BRANCH {
                let child = element.child.to_le_bytes();
                let low = u32::from_le_bytes([child[0], child[1], child[2], child[3]]);
                let high = u32::from_le_bytes([child[4], child[5], child[6], child[7]]);
                [position as u32, element.key_len as u32, low, high]
            } else {
                [element.flags, position as u32, element.key_len as u32, element.value_len as u32]
            };
            fields.iter().for_each(|field| out.extend_from_slice(&field.to_le_bytes()));
            position = position - ELEMENT_BYTES + element.key_len + element.value_len;
        }
        out.extend_from_slice(&page.data);
        out.resize(end, 0);
        id
    }
}

fn meta_page(number: u64, root: u64, end: u64) -> Vec<u8> {
    let mut page = Vec::with_capacity(PAGE_BYTES);
    page.extend_from_slice(&number.to_le_bytes());
    page.extend_from_slice(&META.to_le_bytes());
    page.resize(HEADER_BYTES, 0);
    for field in [MAGIC, VERSION, PAGE_BYTES as u32, 0] {
        page.extend_from_slice(&field.to_le_bytes());
    }
    // Root page and its sequence, free list's page, first page that isn't there, transaction.
    for field in [root, 0, 2, end, number] {
        page.extend_from_slice(&field.to_le_bytes());
    }
    let checksum = fnv1a(&page[HEADER_BYTES..]);
    page.extend_from_slice(&checksum.to_le_bytes());
    page.resize(PAGE_BYTES, 0);
    page
}

/// FNV-1a with 64 bits (Fowler, Noll, Vo).
pub(super) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
