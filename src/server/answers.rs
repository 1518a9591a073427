//! What other members ask of this one and Raft doesn't know: its leases, and that its state differs.
//!
//! ```text
//! leader: you differ ─► not served from now on ─► noted on the disk ─► answered ─► the leader raises the alarm
//! ```

use std::sync::Arc;

use crate::consensus::NodeStatus;
use crate::consensus::peer::{Asking, LeaseLeft, Questions};
use crate::env::may_block;
use crate::ops::data_dir::DataDirError;
use crate::propose::Leases;
use crate::types::{LeaseId, RaftIndex, RequestError};

/// Writes down after which entry this member's state was found to differ, unless that is noted already.
pub(super) type Mark = Arc<dyn Fn(RaftIndex) -> Result<(), DataDirError> + Send + Sync>;

/// Answers them.
pub(super) struct Answers {
    pub(super) leases: Leases,
    pub(super) status: Arc<NodeStatus>,
    pub(super) mark: Mark,
}

impl Questions for Answers {
    fn lease(&self, id: LeaseId, renew: bool) -> Asking<LeaseLeft> {
        self.leases.asked(id, renew)
    }

    fn diverged(&self, index: RaftIndex) -> Asking<()> {
        let (status, mark) = (self.status.clone(), self.mark.clone());
        Box::pin(async move { told(&status, &mark, index) })
    }
}

/// Notes that this member's state differs. An error means that a start wouldn't know of it; it isn't served all the same.
fn told(status: &NodeStatus, mark: &Mark, index: RaftIndex) -> Result<(), RequestError> {
    status.set_diverged(index);
    may_block(|| mark(index)).map_err(|error| {
        tracing::warn!(%error, "that this member differs could not be noted; it will be");
        RequestError::Storage(error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::types::MemberId;

    /// Cause: the leader's word was answered at once and noted within a second. Symptom: a member that was killed in
    /// between served what differs after its start, while the leader took it to be told.
    #[test]
    fn it_is_answered_well_only_once_a_start_would_know() {
        let status = NodeStatus::new(MemberId(1));
        let full: Mark = Arc::new(|_| {
            let (root, source) = (PathBuf::new(), std::io::Error::other("the disk is full"));
            Err(DataDirError::Io { path: root.clone(), root, action: "write", source })
        });
        assert!(told(&status, &full, RaftIndex(7)).is_err());
        assert_eq!(status.diverged(), Some(RaftIndex(7)), "it isn't served for that");
        let noted = Arc::new(AtomicU64::new(0));
        let seen = noted.clone();
        let mark: Mark = Arc::new(move |index| {
            seen.store(index.get(), Ordering::Relaxed);
            Ok(())
        });
        assert_eq!(told(&status, &mark, RaftIndex(9)), Ok(()));
        assert_eq!((noted.load(Ordering::Relaxed), status.diverged()), (9, Some(RaftIndex(7))));
    }

    /// Cause: streams were ended by a task that looks every half a second. Symptom: they were fed until then.
    #[test]
    fn what_is_served_ends_in_the_moment_in_which_it_is_found() {
        let status = NodeStatus::new(MemberId(1));
        let ended = Arc::new(AtomicU64::new(0));
        let seen = ended.clone();
        status.when_diverged(move || {
            seen.fetch_add(1, Ordering::Relaxed);
        });
        let mark: Mark = Arc::new(|_| Ok(()));
        for _ in 0..2 {
            told(&status, &mark, RaftIndex(7)).expect("noted");
            assert_eq!(ended.load(Ordering::Relaxed), 1, "once");
        }
    }
}
