//! Walking a bucket's tree: pairs in the order of their keys, with one page of each level in memory.

use super::page::{BRANCH, LEAF, Page};
use super::{BboltError, BboltFile};

/// Levels of a tree: with two children a branch, more pages than a disk has.
const LEVELS_MAX: usize = 64;
/// Buckets inside each other; etcd has one level of them.
pub(super) const NESTED_MAX: usize = 16;
/// A bucket's value: its root page (0 if it follows here) and its sequence.
const BUCKET_BYTES: usize = 16;

/// What is called with each pair: its key, its value, and whether that is a bucket.
type Each<'a, E> = dyn FnMut(&[u8], &[u8], bool) -> Result<(), E> + 'a;

/// Which pages were seen.
pub(super) struct Seen(Vec<u64>);

impl Seen {
    pub(super) fn new(pages: u64) -> Self {
        Self(vec![0; usize::try_from(pages / 64 + 1).unwrap_or(0)])
    }

    /// Marks a page; false if it was marked before.
    pub(super) fn mark(&mut self, page: u64) -> bool {
        let Some(word) = usize::try_from(page / 64).ok().and_then(|at| self.0.get_mut(at)) else { return false };
        let bit = 1 << (page % 64);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }
}

/// Where a bucket begins.
pub(super) enum Root {
    Page(u64),
    Inline(Page),
}

/// A page on the way down, the element that is next, and the keys between which the page above has it.
struct Frame {
    page: Page,
    next: usize,
    low: Option<Vec<u8>>,
    end: Option<Vec<u8>>,
}

impl Frame {
    fn holds(&self, key: &[u8]) -> bool {
        self.low.as_ref().is_none_or(|low| key >= &low[..]) && self.end.as_ref().is_none_or(|end| key < &end[..])
    }
}

impl BboltFile {
    /// Calls `each` with every pair of a bucket, in the order of keys. False if there is no such bucket.
    ///
    /// # Errors
    /// The disk's, damage, and what `each` says; the pairs so far were given then.
    pub fn each<E: From<BboltError>>(
        &self,
        bucket: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<bool, E> {
        let Some(root) = self.find(bucket)? else { return Ok(false) };
        let mut seen = Seen::new(self.meta.end);
        self.walk(root, &mut seen, &mut |key, value, is_bucket| match is_bucket {
            true => Err(BboltError::Foreign("a bucket of etcd's has another one inside").into()),
            false => each(key, value),
        })?;
        Ok(true)
    }

    /// The names of all buckets, in order.
    ///
    /// # Errors
    /// The disk's, and damage.
    pub fn buckets(&self) -> Result<Vec<Vec<u8>>, BboltError> {
        let mut names = Vec::new();
        self.walk(Root::Page(self.meta.root), &mut Seen::new(self.meta.end), &mut |key, _, is_bucket| {
            if is_bucket {
                names.push(key.to_vec());
            }
            Ok::<_, BboltError>(())
        })?;
        Ok(names)
    }

    /// The whole value of one key; `None` without the key or the bucket.
    ///
    /// # Errors
    /// The disk's, and damage.
    pub fn get(&self, bucket: &[u8], key: &[u8]) -> Result<Option<Vec<u8>>, BboltError> {
        let mut found = None;
        self.each(bucket, |name, value| {
            if name == key {
                found = Some(value.to_vec());
            }
            Ok::<_, BboltError>(())
        })?;
        Ok(found)
    }

    /// The last key of a bucket, by one page of each level; `None` without the bucket, or without a key in it.
    ///
    /// # Errors
    /// The disk's, and damage on the way.
    pub fn last_key(&self, bucket: &[u8]) -> Result<Option<Vec<u8>>, BboltError> {
        let mut seen = Seen::new(self.meta.end);
        let mut page = match self.find(bucket)? {
            None => return Ok(None),
            Some(Root::Inline(page)) => page,
            Some(Root::Page(id)) => self.new_page(id, &mut seen)?,
        };
        while page.kind() == BRANCH {
            let last = page.count().checked_sub(1).and_then(|last| page.child(last));
            let (_, child) = last.ok_or(BboltError::Damaged { page: page.id(), what: "it is empty" })?;
            page = self.new_page(child, &mut seen)?;
        }
        let last = page.count().checked_sub(1).and_then(|last| page.pair(last));
        Ok(last.map(|pair| pair.key.to_vec()))
    }

    fn find(&self, bucket: &[u8]) -> Result<Option<Root>, BboltError> {
        let mut found = None;
        self.walk(Root::Page(self.meta.root), &mut Seen::new(self.meta.end), &mut |key, value, is_bucket| {
            if is_bucket && key == bucket {
                found = Some(self.root_of(value)?);
            }
            Ok::<_, BboltError>(())
        })?;
        Ok(found)
    }

    /// Where the bucket begins whose value this is.
    pub(super) fn root_of(&self, value: &[u8]) -> Result<Root, BboltError> {
        let damaged = |what| BboltError::Damaged { page: self.meta.root, what };
        let (header, inline) =
            value.split_at_checked(BUCKET_BYTES).ok_or_else(|| damaged("a bucket's value is cut short"))?;
        let root = header.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        if root != 0 {
            return Ok(Root::Page(root));
        }
        let page = Page::new(0, inline.to_vec()).map_err(damaged)?;
        if page.kind() != LEAF {
            return Err(damaged("a bucket inside a page is no leaf"));
        }
        Ok(Root::Inline(page))
    }

    /// Calls `each` with key, value and whether that is a bucket.
    pub(super) fn walk<E: From<BboltError>>(
        &self,
        root: Root,
        seen: &mut Seen,
        each: &mut Each<'_, E>,
    ) -> Result<(), E> {
        let root = match root {
            Root::Page(id) => self.new_page(id, seen)?,
            Root::Inline(page) => page,
        };
        let mut stack = vec![Frame { page: root, next: 0, low: None, end: None }];
        let mut last: Option<Vec<u8>> = None;
        while let Some(frame) = stack.last_mut() {
            let damaged = |what| BboltError::Damaged { page: frame.page.id(), what };
            let out_of_order = || damaged("its keys are out of order");
            if frame.page.kind() == LEAF {
                for at in 0..frame.page.count() {
                    let pair = frame.page.pair(at).ok_or_else(out_of_order)?;
                    if last.as_ref().is_some_and(|last| pair.key <= &last[..]) || !frame.holds(pair.key) {
                        return Err(out_of_order().into());
                    }
                    let last = last.get_or_insert_default();
                    last.clear();
                    last.extend_from_slice(pair.key);
                    each(pair.key, pair.value, pair.is_bucket)?;
                }
                stack.pop();
                continue;
            }
            let (key, child) = frame.page.child(frame.next).ok_or_else(|| damaged("it is empty"))?;
            let end = match frame.page.child(frame.next + 1) {
                Some((next, _)) if next <= key => return Err(out_of_order().into()),
                Some((next, _)) => Some(next.to_vec()),
                None => frame.end.clone(),
            };
            if !frame.holds(key) {
                return Err(out_of_order().into());
            }
            let low = Some(key.to_vec());
            frame.next += 1;
            if frame.next == frame.page.count() {
                stack.pop();
            }
            if stack.len() >= LEVELS_MAX {
                return Err(BboltError::Damaged { page: child, what: "the tree is deeper than any" }.into());
            }
            let page = self.new_page(child, seen)?;
            if page.count() == 0 {
                return Err(BboltError::Damaged { page: child, what: "it is empty" }.into());
            }
            stack.push(Frame { page, next: 0, low, end });
        }
        Ok(())
    }

    /// A page of a tree that wasn't seen yet; it is marked, with its overflow.
    fn new_page(&self, id: u64, seen: &mut Seen) -> Result<Page, BboltError> {
        let damaged = |what| BboltError::Damaged { page: id, what };
        let page = self.page(id)?;
        if !(id..=id + page.overflow()).all(|id| seen.mark(id)) {
            return Err(damaged("it is in the tree twice"));
        }
        match page.kind() {
            LEAF | BRANCH => Ok(page),
            _ => Err(damaged("a tree has no such page")),
        }
    }
}
