//! What a snapshot file holds, in the terms of `etcdutl snapshot status`.

use std::collections::HashSet;

use super::error::Stop;
use super::{Database, ImportError};

/// What `etcdutl snapshot status` tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// CRC-32C of the names of the buckets, and all keys and values.
    pub hash: u32,
    /// The main revision of the last record.
    pub revision: i64,
    /// Keys that live at that revision.
    pub total_key: u64,
    /// Bytes of all pages.
    pub total_size: u64,
    /// The version of etcd's format; empty where it isn't noted.
    pub version: String,
}

impl Database {
    /// Reads all of it; `progress` hears of bytes.
    ///
    /// # Errors
    /// Damage.
    pub fn status(&self, progress: &mut dyn FnMut(u64)) -> Result<Status, ImportError> {
        let mut status = Status { total_size: self.size(), ..Status::default() };
        // By their hashes, so that long keys take no more memory than short ones.
        let mut living = HashSet::new();
        let file = |error| Stop::File(error).at(self.path());
        for bucket in self.file.buckets().map_err(file)? {
            status.hash = crc32c::crc32c_append(status.hash, &bucket);
            let walked = self.file.each(&bucket, |key, value| {
                status.hash = crc32c::crc32c_append(crc32c::crc32c_append(status.hash, key), value);
                progress((key.len() + value.len()) as u64);
                if bucket == b"key"
                    && let Some((at, record)) = self.record(key, value)?
                {
                    status.revision = at.main;
                    match record.version {
                        Some(_) => living.insert(short_hash(&record.key)),
                        None => living.remove(&short_hash(&record.key)),
                    };
                }
                Ok::<_, Stop>(())
            });
            walked.map_err(self.at())?;
        }
        status.total_key = living.len() as u64;
        let version = self.get("meta", b"storageVersion")?.unwrap_or_default();
        status.version = String::from_utf8_lossy(&version).into_owned();
        Ok(status)
    }
}

fn short_hash(key: &[u8]) -> u128 {
    let mut first = [0; 16];
    first.copy_from_slice(&blake3::hash(key).as_bytes()[..16]);
    u128::from_be_bytes(first)
}
