//! `verify`: every page that is in use, once, and nothing of it in the free list.

use super::page::FREELIST;
use super::walk::{NESTED_MAX, Root, Seen};
use super::{BboltError, BboltFile, NO_FREELIST};

/// What a whole file is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Buckets, those inside others too.
    pub buckets: u64,
    /// Keys and values.
    pub pairs: u64,
    /// Bytes of them.
    pub bytes: u64,
}

impl BboltFile {
    /// Walks all of the file; `progress` hears of the bytes of pairs since the last time.
    ///
    /// # Errors
    /// The disk's, and the first damage.
    pub fn check(&self, progress: &mut dyn FnMut(u64)) -> Result<Checked, BboltError> {
        let mut seen = Seen::new(self.meta.end);
        let mut checked = Checked::default();
        let mut roots = vec![(Root::Page(self.meta.root), 0)];
        while let Some((root, depth)) = roots.pop() {
            let mut inner = Vec::new();
            self.walk(root, &mut seen, &mut |key, value, is_bucket| {
                if is_bucket {
                    checked.buckets += 1;
                    inner.push((self.root_of(value)?, depth + 1));
                    return Ok(());
                }
                let bytes = (key.len() + value.len()) as u64;
                checked.pairs += 1;
                checked.bytes += bytes;
                progress(bytes);
                Ok::<_, BboltError>(())
            })?;
            if depth >= NESTED_MAX && !inner.is_empty() {
                return Err(BboltError::Foreign("buckets lie deeper in each other than in any"));
            }
            roots.extend(inner);
        }
        if self.meta.freelist != NO_FREELIST {
            let list = self.page(self.meta.freelist)?;
            let damaged = |what| BboltError::Damaged { page: self.meta.freelist, what };
            if list.kind() != FREELIST {
                return Err(damaged("it is no free list"));
            }
            let own = self.meta.freelist..=self.meta.freelist + list.overflow();
            if !own.into_iter().all(|id| seen.mark(id)) {
                return Err(damaged("the free list lies in the tree"));
            }
            for free in list.free().into_iter().flatten() {
                if free < 2 || free >= self.meta.end || !seen.mark(free) {
                    return Err(BboltError::Damaged { page: free, what: "it is free and in use, or free twice" });
                }
            }
            // Each page is one or the other where there is a list.
            if let Some(page) = (2..self.meta.end).find(|page| seen.mark(*page)) {
                return Err(BboltError::Damaged { page, what: "it is neither in use nor free" });
            }
        }
        Ok(checked)
    }
}
