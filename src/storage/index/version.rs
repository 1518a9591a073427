//! `Version`: one step of a key's history as the index holds it, and `KeyMeta`: the same for others.

use crate::types::{LeaseId, Revision};

/// What the index knows about the living version of a key, without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyMeta {
    /// Main revision of the put that began this generation.
    pub create: i64,
    /// Where the version was written.
    pub modified: Revision,
    /// Puts since creation, 1 for the first.
    pub version: i64,
    /// The lease, or none.
    pub lease: LeaseId,
}

/// A put or a tombstone in a key's history; how it lies in a leaf is `Packed`'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    main: i64,
    create: i64,
    /// 0 for a tombstone, which therefore ends a generation.
    version: i64,
    lease: i64,
    hash: u64,
    sub: u32,
}

impl Version {
    /// A put; `hash` is the record's digest.
    pub fn put(meta: KeyMeta, hash: u64) -> Self {
        Self {
            main: meta.modified.main,
            create: meta.create,
            version: meta.version,
            lease: meta.lease.get(),
            hash,
            sub: sub_of(meta.modified),
        }
    }

    /// What a stored record, or the head of one, is: `written` is creation revision, version and
    /// lease of a put, with the record's digest.
    pub fn stored(at: Revision, written: Option<(i64, i64, LeaseId, u64)>) -> Self {
        match written {
            None => Self::tombstone(at),
            Some((create, version, lease, digest)) => {
                Self::put(KeyMeta { create, modified: at, version, lease }, digest)
            }
        }
    }

    /// The end of a generation.
    pub fn tombstone(at: Revision) -> Self {
        Self { main: at.main, create: 0, version: 0, lease: 0, hash: 0, sub: sub_of(at) }
    }

    /// Where it was written.
    pub fn modified(&self) -> Revision {
        Revision::new(self.main, i64::from(self.sub))
    }

    /// The main part of where it was written.
    pub fn main(&self) -> i64 {
        self.main
    }

    /// Main revision of the put that began the generation; 0 for a tombstone.
    pub fn create(&self) -> i64 {
        self.create
    }

    /// Puts since creation; 0 for a tombstone.
    pub fn version(&self) -> i64 {
        self.version
    }

    /// The lease's number; 0 for none and for a tombstone.
    pub(super) fn lease(&self) -> i64 {
        self.lease
    }

    /// Whether it is a put.
    pub fn is_live(&self) -> bool {
        self.version != 0
    }

    /// The record's digest, if it is a key's newest version; 0 for a tombstone, so that it can be summed
    /// without asking, and for a superseded version, whose digest only its stored head has.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The same with another digest.
    pub(super) fn with_hash(self, hash: u64) -> Self {
        Self { hash: if self.is_live() { hash } else { 0 }, ..self }
    }

    /// The public side; `None` for a tombstone.
    pub fn meta(&self) -> Option<KeyMeta> {
        self.is_live().then(|| KeyMeta {
            create: self.create,
            modified: self.modified(),
            version: self.version,
            lease: LeaseId(self.lease),
        })
    }
}

/// A command's size bounds its changes far below `u32`; the order inside a revision is kept in any case.
fn sub_of(at: Revision) -> u32 {
    u32::try_from(at.sub).unwrap_or(u32::MAX)
}
