//! One page in memory: its header, its elements, each looked at before it is used.
//!
//! ```text
//! page:           id u64 · flags u16 · count u16 · overflow u32 · elements · their keys and values
//! leaf element:   flags u32 · position u32 (from the element) · key length u32 · value length u32
//! branch element: position u32 · key length u32 · page u64
//! ```

use super::HEADER_BYTES;

const ELEMENT_BYTES: usize = 16;
pub(super) const BRANCH: u16 = 0x01;
pub(super) const LEAF: u16 = 0x02;
pub(super) const META: u16 = 0x04;
pub(super) const FREELIST: u16 = 0x10;
/// A leaf element whose value is a bucket.
const BUCKET: u32 = 0x01;
/// The count that says that the real one, of a free list, stands before its first number.
const COUNT_BEYOND: u16 = u16::MAX;

/// A page with its overflow. Invariant: every element lies inside `bytes`.
pub(super) struct Page {
    id: u64,
    bytes: Vec<u8>,
}

/// What a leaf holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pair<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) is_bucket: bool,
}

pub(super) fn flags(header: &[u8]) -> u16 {
    u16::from_le_bytes([header[8], header[9]])
}

pub(super) fn overflow(header: &[u8]) -> u32 {
    u32::from_le_bytes([header[12], header[13], header[14], header[15]])
}

impl Page {
    /// Takes the bytes of the page `id`, at least a header.
    pub(super) fn new(id: u64, bytes: Vec<u8>) -> Result<Self, &'static str> {
        if bytes.len() < HEADER_BYTES {
            return Err("it is shorter than a page's header");
        }
        let page = Self { id, bytes };
        if page.u64_at(0) != Some(id) {
            return Err("another page lies there");
        }
        match page.kind() {
            LEAF => {
                (0..page.count()).try_for_each(|at| page.pair(at).map(drop).ok_or("an element lies outside of it"))?
            }
            BRANCH => {
                (0..page.count()).try_for_each(|at| page.child(at).map(drop).ok_or("an element lies outside of it"))?;
            }
            FREELIST => page.free().map(drop).ok_or("the free list is longer than it")?,
            _ => return Err("its kind is none of a tree or a free list"),
        }
        Ok(page)
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// One of [`BRANCH`], [`LEAF`], [`FREELIST`].
    pub(super) fn kind(&self) -> u16 {
        flags(&self.bytes)
    }

    /// Pages that it takes beside the first.
    pub(super) fn overflow(&self) -> u64 {
        u64::from(overflow(&self.bytes))
    }

    /// How many elements a leaf or a branch has.
    pub(super) fn count(&self) -> usize {
        usize::from(u16::from_le_bytes([self.bytes[10], self.bytes[11]]))
    }

    /// A leaf's pair.
    pub(super) fn pair(&self, at: usize) -> Option<Pair<'_>> {
        let element = self.element(at)?;
        let [flags, position, key_len, value_len] = [0, 4, 8, 12].map(|field| self.u32_at(element + field));
        let start = element.checked_add(position? as usize)?;
        let middle = start.checked_add(key_len? as usize)?;
        let end = middle.checked_add(value_len? as usize)?;
        self.is_behind_elements(start)?;
        Some(Pair {
            key: self.bytes.get(start..middle)?,
            value: self.bytes.get(middle..end)?,
            is_bucket: flags? & BUCKET != 0,
        })
    }

    /// A branch's key and the page below.
    pub(super) fn child(&self, at: usize) -> Option<(&[u8], u64)> {
        let element = self.element(at)?;
        let start = element.checked_add(self.u32_at(element)? as usize)?;
        let end = start.checked_add(self.u32_at(element + 4)? as usize)?;
        self.is_behind_elements(start)?;
        Some((self.bytes.get(start..end)?, self.u64_at(element + 8)?))
    }

    /// The pages of a free list.
    pub(super) fn free(&self) -> Option<impl Iterator<Item = u64>> {
        let (count, start) = match self.count() {
            count if count == usize::from(COUNT_BEYOND) => (usize::try_from(self.u64_at(HEADER_BYTES)?).ok()?, 8),
            count => (count, 0),
        };
        let start = HEADER_BYTES + start;
        let numbers = self.bytes.get(start..start.checked_add(count.checked_mul(8)?)?)?;
        Some(numbers.chunks_exact(8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap_or_default())))
    }

    fn element(&self, at: usize) -> Option<usize> {
        (at < self.count()).then_some(HEADER_BYTES + at * ELEMENT_BYTES)
    }

    /// Keys and values never overlap the elements that name them.
    fn is_behind_elements(&self, start: usize) -> Option<()> {
        (start >= HEADER_BYTES + self.count() * ELEMENT_BYTES).then_some(())
    }

    fn u32_at(&self, at: usize) -> Option<u32> {
        self.bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
    }

    fn u64_at(&self, at: usize) -> Option<u64> {
        self.bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    }
}
