//! Whether what was taken over is what the source has: etcd's HashKV, there and here.
//!
//! ```text
//! source: HashKV ─► the last revision? ─┬─ its hash, and where it was compacted
//! our records ─► etcd's hash of them ◄──┘ ─► equal, or nothing is taken over
//! ```

use super::take_over::CATCH_UP_MAX;
use super::{FollowError, Follower, RETRY_MIN, State, ended_task};
use crate::env::unblock;
use crate::import::remote::RemoteHash;
use crate::server::import::ImportFailure;
use crate::storage::snapshot::bbolt::etcd_hash_kv;

impl Follower {
    /// Compares the state, which is the source's last, with the source.
    ///
    /// # Errors
    /// It differs, or can't be compared.
    pub(super) async fn compare(&self, state: &State) -> Result<(), FollowError> {
        let refused = |what: String| Err(ImportFailure::Refused(what).into());
        let reader = state.store.reader();
        let revision = state.store.revision();
        let there = self.last_hash(revision, state.store.compact_revision()).await?;
        if there.revision != revision {
            return refused(format!("the source is at revision {}, and {revision} was to be its last", there.revision));
        }
        let marks = state.marks.clone();
        let here = unblock(move || etcd_hash_kv(&reader.snapshot_pinned(), there.compact_revision, &marks)).await;
        let here = here.map_err(|error| ended_task(&error))??;
        if here != there.hash {
            return refused(format!(
                "at revision {revision}, compacted at {}, the source's HashKV is {}, and that of what was followed is \
                 {here}: stop this import and begin it again; if it is the same then, compare the source's members \
                 (etcdctl endpoint hashkv --cluster), or pass over it (--skip-hash-check)",
                there.compact_revision, there.hash
            ));
        }
        tracing::info!(
            revision,
            hash = here,
            compact_revision = there.compact_revision,
            "same HashKV as the source at revision {revision}"
        );
        Ok(())
    }

    /// The source's hash once whoever answers has come to `revision` and to our compaction.
    async fn last_hash(&self, revision: i64, compact_revision: i64) -> Result<RemoteHash, FollowError> {
        let begun = self.env.clock.now();
        loop {
            let there = self.remote.hash_kv().await?;
            let is_behind = there.revision < revision || there.compact_revision < compact_revision;
            if !is_behind {
                return Ok(there);
            }
            if self.env.clock.now().saturating_duration_since(begun) > CATCH_UP_MAX {
                return Err(ImportFailure::Refused(format!(
                    "the source's member stands at revision {}, compacted at {}, and others were at {revision} and {compact_revision}",
                    there.revision, there.compact_revision
                ))
                .into());
            }
            tokio::time::sleep(RETRY_MIN).await;
        }
    }
}
