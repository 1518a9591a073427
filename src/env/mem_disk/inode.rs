//! A file's bytes: live, durable, and which sectors differ.

use std::collections::BTreeSet;

use super::CrashStyle;

pub(super) const SECTOR: usize = 512;

/// One file: what readers see, and what a power cut leaves.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) live: Vec<u8>,
    durable: Vec<u8>,
    pub(super) dirty: BTreeSet<usize>,
}

impl Inode {
    /// A file of these bytes, all of them durable.
    pub(super) fn durable(bytes: Vec<u8>) -> Self {
        Self { durable: bytes.clone(), live: bytes, dirty: BTreeSet::new() }
    }

    pub(super) fn touch(&mut self, offset: usize, len: usize) {
        if len > 0 {
            self.dirty.extend(offset / SECTOR..=(offset + len - 1) / SECTOR);
        }
    }

    pub(super) fn sync(&mut self) {
        self.durable.resize(self.live.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            copy_sector(&self.live, &mut self.durable, sector);
        }
    }

    pub(super) fn crash(&mut self, style: CrashStyle<'_>) {
        match style {
            CrashStyle::LoseAll => self.dirty.clear(),
            CrashStyle::KeepAll => return,
            CrashStyle::Torn(rng) => {
                if rng.next_u64().is_multiple_of(2) {
                    self.durable.resize(self.live.len(), 0);
                }
                for sector in std::mem::take(&mut self.dirty) {
                    if rng.next_u64().is_multiple_of(2) {
                        copy_sector(&self.live, &mut self.durable, sector);
                    }
                }
            }
        }
        self.live = self.durable.clone();
    }
}

fn copy_sector(from: &[u8], to: &mut [u8], sector: usize) {
    let start = sector * SECTOR;
    let end = (start + SECTOR).min(from.len()).min(to.len());
    if start < end {
        to[start..end].copy_from_slice(&from[start..end]);
    }
}
