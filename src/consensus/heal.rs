//! What the leader does for a member whose state differs: it sends its own, as a snapshot of now.
//!
//! ```text
//! member: heal me ─► not while its keys are named ─► a new snapshot ─► sent ─► kept there for the next start
//! ```
//! What that member does with it is the server's (`server/heal`).

use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::OwnedSemaphorePermit;

use super::divergence::DIGEST_EVERY;
use super::node::Node;
use super::types::Proposals;
use crate::apply::codec;
use crate::types::{MemberId, RaftIndex, RequestError};

impl Node {
    /// Begins to send `member` the state in place of its own. False if that is under way, for it or for another
    /// one, or if the keys in which it differs aren't named yet.
    ///
    /// # Errors
    /// `NoLeader` if this member doesn't lead or differs itself; `Stopped` if Raft has ended.
    pub(super) async fn heal(&self, member: MemberId) -> Result<bool, RequestError> {
        if !self.status().leads_rightly() {
            return Err(RequestError::NoLeader);
        }
        if self.status().is_naming(member) {
            return Ok(false);
        }
        let Ok(permit) = self.healing.clone().try_acquire_owned() else { return Ok(false) };
        let node = self.clone();
        tokio::spawn(async move {
            if let Err(error) = node.send_state(member, permit).await {
                tracing::warn!(%member, error, "a member could not be healed; it will ask again");
            }
        });
        Ok(true)
    }

    async fn send_state(&self, member: MemberId, _alone: OwnedSemaphorePermit) -> Result<(), String> {
        let snapshots = self.with_machine(|machine| machine.snapshots()).await.map_err(|error| error.to_string())?;
        snapshots.save_now().await.map_err(|error| error.to_string())?;
        let snapshot = snapshots.current().ok_or("there is no snapshot")?;
        let vote = self.raft().server_metrics().borrow_watched().vote;
        let sent = self.peers().send_snapshot(member, vote, snapshot, true).await;
        sent.map(drop).map_err(|error| error.to_string())
    }

    /// Notes that all members had this digest after the entry, so that they are witnesses for each other from there on.
    /// False if this one didn't, or doesn't know any more.
    ///
    /// # Errors
    /// `Stopped` if Raft has ended; those of the store.
    pub async fn agree(&self, index: RaftIndex, digest: u64) -> Result<bool, RequestError> {
        let agreed = self.with_machine(move |machine| machine.agree(index, digest)).await?;
        agreed.map_err(|error| RequestError::Storage(error.to_string()))
    }

    /// Has all members come to a landmark soon, by entries without commands, where there are no writes.
    ///
    /// # Errors
    /// `Stopped` if Raft has ended.
    pub async fn go_to_landmark(&self) -> Result<(), RequestError> {
        let mut payload = bytes::BytesMut::new();
        codec::encode_batch([], &mut payload);
        let payload = payload.freeze();
        for _ in 0..DIGEST_EVERY - self.status().committed().get() % DIGEST_EVERY {
            self.append(payload.clone(), Proposals::default(), None).await?;
        }
        Ok(())
    }
}
