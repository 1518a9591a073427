//! `Follow`: for a task of this server that wants to know when something in a range has changed.
//!
//! ```text
//! new ─► joined (from here on nothing is missed) ─► look at the store ─► next ─► which revisions ─► look again
//! ```
//! It is a stream of the hub as any client's is, with the same bounds; what its mailbox has no room for is told as
//! `News::Lost`, and the store has the answer.

use std::sync::Arc;

use super::hub::WatchHub;
use super::index::{GroupKey, Kinds};
use super::mailbox::{Mailbox, StreamEnd};
use crate::types::KeyRange;

/// What has happened in the range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Something changed at these main revisions, in order.
    At(Vec<i64>),
    /// More than could be kept in mind: what the store holds now counts.
    Lost,
}

/// Follows a range from the moment it is made until it is dropped.
pub struct Follow {
    hub: WatchHub,
    mailbox: Arc<Mailbox>,
    key: GroupKey,
    groups: Vec<u32>,
}

impl Follow {
    /// Every change that is published from now on will be told.
    pub fn new(hub: &WatchHub, range: KeyRange) -> Self {
        Self::open(hub, range, false)
    }

    /// As [`Follow::new`]; ends as clients' streams do if it `needs_leader` and there is none for a while.
    pub fn open(hub: &WatchHub, range: KeyRange, needs_leader: bool) -> Self {
        let mailbox = hub.open(needs_leader);
        let key = GroupKey { range, kinds: Kinds::ALL };
        let (groups, _) = hub.join(&[&key], &mailbox);
        Self { hub: hub.clone(), mailbox, key, groups }
    }

    /// Waits for the next changes. May be dropped and called again without losing any.
    ///
    /// # Errors
    /// Why the server ends its streams.
    pub async fn next(&mut self) -> Result<News, StreamEnd> {
        loop {
            std::future::poll_fn(|cx| self.mailbox.poll_news(cx)).await;
            if let Some(end) = self.mailbox.ended() {
                return Err(end);
            }
            let drained = self.mailbox.drain();
            self.mailbox.release(drained.deliveries.iter().map(|delivery| delivery.matched.cost).sum());
            if drained.lost_from.is_some() {
                self.hub.leave(std::mem::take(&mut self.groups), &self.mailbox);
                self.mailbox.take_loss();
                (self.groups, _) = self.hub.join(&[&self.key], &self.mailbox);
                return Ok(News::Lost);
            }
            let mut at: Vec<i64> = Vec::new();
            for event in drained.deliveries.iter().flat_map(|delivery| &delivery.matched.events) {
                if at.last() != Some(&event.main) {
                    at.push(event.main);
                }
            }
            if !at.is_empty() {
                return Ok(News::At(at));
            }
        }
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.hub.close(&self.mailbox, std::mem::take(&mut self.groups));
    }
}

impl std::fmt::Debug for Follow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follow").field("key", &self.key).finish_non_exhaustive()
    }
}
