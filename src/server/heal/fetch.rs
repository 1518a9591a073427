//! How a member that is proven wrong comes to the leader's state, and to the start that takes it in.
//!
//! ```text
//! healing.ready there? ─┬► no  ─► room for it? ─► might it have a turn? ─► the leader sends ─► the log is kept
//!                       └► yes ─► whole, fits the log? ─► its turn? ─► counted, the process starts again
//! the log was kept for long, or has no room ─► what came goes, and for a while nothing is asked for, so that the log may be purged
//! ```
//! The snapshot that comes is of its time: as long as it is on its way, or waits, this member must not purge its log beyond
//! it. Nothing else has to be kept, however long nobody can say who is right.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::{ANSWER_MAX, Healer, install};
use crate::consensus::peer::HEALING;
use crate::env::{Access, Env, unblock};
use crate::ops::data_dir::Divergence;
use crate::storage::AppliedPosition;
use crate::storage::backend::BackendConfig;
use crate::types::MemberId;

/// Between two requests for a snapshot, at first and at most: each costs the leader a whole one.
const ASK_AGAIN_MIN: Duration = Duration::from_secs(2);
const ASK_AGAIN_MAX: Duration = Duration::from_secs(120);
/// How long the log is kept for a snapshot that was sent.
const KEEP_MAX: Duration = Duration::from_secs(600);
/// How long nothing is asked for after that: until a snapshot of this member's own has begun, by which the log is purged.
const REST: Duration = Duration::from_secs(30);
/// Between two looks for room.
const ROOM_EVERY: Duration = Duration::from_secs(30);

/// What is remembered between two looks.
pub(super) struct Fetch {
    ask_at: Instant,
    ask_after: Duration,
    /// Until when the log is kept for what was sent.
    keep_until: Option<Instant>,
    /// Where the snapshot stands that has come, once it was read through.
    came: Option<AppliedPosition>,
    /// The time of the try is noted.
    is_timed: bool,
    /// How often there was no room for it lately.
    full: usize,
}

impl Fetch {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { ask_at: now, ask_after: ASK_AGAIN_MIN, keep_until: None, came: None, is_timed: false, full: 0 }
    }

    /// So often there was no room lately.
    pub(super) fn was_full(&mut self, times: usize) {
        self.full = times;
    }

    /// The leader sends.
    fn sent(&mut self, now: Instant) {
        self.ask_at = now + self.ask_after;
        self.ask_after = (2 * self.ask_after).min(ASK_AGAIN_MAX);
        // Not longer for one that was asked for in the place of another: what never comes must not keep the log for ever.
        self.keep_until.get_or_insert(now + KEEP_MAX);
    }

    /// Whether the log is kept. After a long time it isn't any more, and nothing is asked for until it may have been
    /// purged.
    fn keeps(&mut self, now: Instant) -> bool {
        match self.keep_until {
            Some(until) if now < until => true,
            Some(_) => {
                self.keep_until = None;
                self.ask_at = self.ask_at.max(now + REST);
                false
            }
            None => false,
        }
    }

    /// What came is of no use.
    fn removed(&mut self) {
        (self.came, self.keep_until) = (None, None);
    }
}

impl Healer {
    /// One look: asks for the leader's state, or starts again with it.
    pub(super) async fn fetch(&self, fetch: &mut Fetch, mark: &Divergence, leader: MemberId) {
        match self.is_ready().await {
            Ok(true) => self.take_in(fetch, mark, leader).await,
            Ok(false) => self.ask(fetch, mark, leader).await,
            Err(error) => tracing::warn!(%error, "whether a state has come in place of this one can't be looked for"),
        }
    }

    /// Has the log kept, or not any more: neither for long, nor without room for the snapshot by which it is purged. What
    /// came goes then, too.
    pub(super) async fn keep_log(&self, fetch: &mut Fetch) {
        let keeps = fetch.keeps(Instant::now()) && self.has_room(self.reader.logical_size()).await;
        self.node.status().set_awaits_state(keeps);
        if !keeps && remove_come(&self.env, self.ready()).await {
            tracing::info!(
                "the others' state has come, but this member could not start again with it in time: it goes"
            );
            fetch.removed();
        }
    }

    fn ready(&self) -> PathBuf {
        self.data.snapshots().join(HEALING)
    }

    /// Whether there is room for so many bytes that are still to come, and for a store of the snapshot of `snapshot` bytes
    /// that they make, beside what this member has.
    async fn has_room_to_install(&self, coming: u64, snapshot: u64, full: usize, mark: &Divergence) -> bool {
        let (disk, data, mark) = (self.env.disk.clone(), self.data.clone(), *mark);
        let needed = install::needed(snapshot, full).saturating_add(coming);
        let needed = needed.saturating_add(BackendConfig::RESERVE_BYTES_DEFAULT);
        let room = unblock(move || {
            let freed = install::freed(disk.as_ref(), &data, &mark).map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(disk.free_bytes(&data.snapshots())?.saturating_add(freed))
        });
        match room.await {
            Ok(Ok(room)) => room >= needed,
            _ => true,
        }
    }

    /// Bytes of what has come; 0 if that can't be told.
    async fn ready_bytes(&self) -> u64 {
        let (disk, ready) = (self.env.disk.clone(), self.ready());
        let size = unblock(move || disk.open(&ready, Access::Read).and_then(|file| file.size()));
        size.await.and_then(|size| size).unwrap_or_default()
    }

    async fn is_ready(&self) -> std::io::Result<bool> {
        let (disk, ready) = (self.env.disk.clone(), self.ready());
        unblock(move || disk.exists(&ready)).await?
    }

    /// Removes what came too late, or is of no use. Whether it is gone for sure.
    pub(super) async fn remove_ready(&self) -> bool {
        let (disk, ready) = (self.env.disk.clone(), self.ready());
        let removed = unblock(move || if disk.exists(&ready)? { disk.remove(&ready) } else { Ok(()) }).await;
        if let Err(error) = removed.and_then(|removed| removed) {
            tracing::warn!(%error, "what came for healing could not be removed; it will be");
            return false;
        }
        true
    }

    /// Whether so many bytes find room, and the log what it needs to go on. A disk that can't be asked says so when it is
    /// written to.
    async fn has_room(&self, bytes: u64) -> bool {
        let (disk, dir) = (self.env.disk.clone(), self.data.snapshots());
        let needed = bytes.saturating_add(BackendConfig::RESERVE_BYTES_DEFAULT);
        match unblock(move || disk.free_bytes(&dir)).await {
            Ok(Ok(free)) => free >= needed,
            _ => true,
        }
    }

    /// A state has come: all that can be known of it is known before this member ends for it.
    async fn take_in(&self, fetch: &mut Fetch, mark: &Divergence, leader: MemberId) {
        if !self.fits(fetch).await {
            fetch.removed();
            self.remove_ready().await;
            return;
        }
        if self.care.is_log_damaged(&self.wal) {
            tracing::debug!("the log is purged beyond its damaged part first, as no start takes it");
            return;
        }
        let bytes = self.ready_bytes().await;
        if !self.has_room_to_install(0, bytes, fetch.full, mark).await {
            tracing::error!(
                bytes,
                store = install::needed(bytes, fetch.full),
                "there is no room for a store of the others' state, which has come: it goes, make some"
            );
            fetch.removed();
            fetch.ask_at = Instant::now() + ROOM_EVERY;
            self.remove_ready().await;
            return;
        }
        let is_turn = match self.node.peers().ask_turn(leader, true, ANSWER_MAX).await {
            Ok(is_turn) => is_turn,
            Err(error) => {
                tracing::debug!(%leader, %error, "the leader doesn't say whether this member may start again");
                false
            }
        };
        if !is_turn {
            return;
        }
        // From here until the end: the log is as it was found to fit.
        self.node.status().set_awaits_state(true);
        let (mark, now, mut is_timed) = (*mark, self.env.clock.wall(), fetch.is_timed);
        let counted = self.on_disk(move |data, disk| {
            let counted = install::count(disk, data, now, &mark, &mut is_timed);
            Ok((counted, is_timed))
        });
        let counted = counted.await.and_then(|(counted, is_timed)| {
            fetch.is_timed = is_timed;
            counted.map_err(std::io::Error::other)
        });
        match counted {
            Ok(()) => {
                tracing::warn!("the others' state has arrived; starting again with it");
                self.restart.send_replace(true);
            }
            Err(error) => tracing::warn!(%error, "the others' state has arrived, which could not be noted; it will be"),
        }
    }

    /// Whether it is whole, and the log goes on from it.
    async fn fits(&self, fetch: &mut Fetch) -> bool {
        let position = match fetch.came {
            Some(position) => position,
            None => {
                // Also if the leader's word that it sends was lost.
                fetch.keep_until.get_or_insert(Instant::now() + KEEP_MAX);
                self.node.status().set_awaits_state(true);
                let (env, ready) = (self.env.clone(), self.ready());
                match unblock(move || install::read(&env, &ready)).await {
                    Ok(Ok(position)) => *fetch.came.insert(position),
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "what came to heal this member is of no use");
                        return false;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "what came to heal this member could not be read");
                        return false;
                    }
                }
            }
        };
        match install::fits(&self.wal, position) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "what came to heal this member is of no use any more");
                false
            }
        }
    }

    async fn ask(&self, fetch: &mut Fetch, mark: &Divergence, leader: MemberId) {
        fetch.came = None;
        let now = Instant::now();
        if fetch.ask_at > now {
            return;
        }
        // The leader writes all of its state for this: it isn't asked for what this member would refuse.
        let bytes = self.reader.logical_size().max(self.node.peers().healing_bytes());
        if !self.has_room_to_install(bytes, bytes, fetch.full, mark).await {
            tracing::error!(
                bytes,
                store = install::needed(bytes, fetch.full),
                "there is no room for the others' state, which would heal this member: make some"
            );
            fetch.ask_at = now + ROOM_EVERY;
            return;
        }
        // Nor for what would wait until it is of no use.
        match self.node.peers().ask_turn(leader, false, ANSWER_MAX).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::debug!(%leader, %error, "the leader doesn't say whether this member might start again");
                return;
            }
        }
        match self.node.peers().ask_healing(leader, ANSWER_MAX).await {
            Ok(true) => {
                tracing::info!(%leader, "the leader sends its state");
                fetch.sent(now);
                // Before the first bytes are there.
                self.node.status().set_awaits_state(true);
            }
            Ok(false) => {}
            Err(error) => tracing::debug!(%leader, %error, "the leader can't send its state now"),
        }
    }
}

/// Removes a state that has come, if one has: it may be there without having been read, as when nobody could say who is
/// right since. Whether one was.
async fn remove_come(env: &Env, ready: PathBuf) -> bool {
    let disk = env.disk.clone();
    let removed = unblock(move || {
        let is_there = disk.exists(&ready)?;
        if is_there {
            disk.remove(&ready)?;
        }
        Ok::<_, std::io::Error>(is_there)
    });
    match removed.await.and_then(|removed| removed) {
        Ok(was_there) => was_there,
        Err(error) => {
            tracing::debug!(%error, "what came for healing could not be removed; it will be");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::MemDisk;

    /// Cause: only what had been read was removed. Symptom: the leader died when it had sent its state, nobody could say who
    /// was right, and a file as large as the state lay on a full disk for ever.
    #[tokio::test]
    async fn what_came_and_was_never_read_goes_too() {
        let env = Env { disk: std::sync::Arc::new(MemDisk::new()), ..Env::real() };
        let dir = PathBuf::from("/snap");
        env.disk.create_dir_all(&dir).expect("a directory");
        let ready = dir.join(HEALING);
        assert!(!remove_come(&env, ready.clone()).await, "nothing has come");
        env.disk.open(&ready, Access::Create).expect("it comes");
        assert!(remove_come(&env, ready.clone()).await);
        assert!(!env.disk.exists(&ready).expect("looked for") && !remove_come(&env, ready).await);
    }

    /// Cause: the log was kept from when a member was found to differ until it was healed, whatever came of it. Symptom:
    /// a disk and a memory that filled up with it.
    #[test]
    fn the_log_is_kept_for_what_is_on_its_way_and_not_for_ever() {
        let (mut fetch, begun) = (Fetch::new(), Instant::now());
        assert!(!fetch.keeps(begun), "nothing was sent");
        let mut now = begun;
        while now < begun + KEEP_MAX {
            fetch.sent(now);
            assert!(fetch.keeps(now));
            now = fetch.ask_at;
        }
        assert!(!fetch.keeps(now), "what is asked for again and again never comes");
        assert!(fetch.ask_at >= now + REST, "the log may be purged meanwhile");
        now = fetch.ask_at;
        fetch.sent(now);
        assert!(fetch.keeps(now));
        fetch.removed();
        assert!(!fetch.keeps(now), "it was of no use");
    }
}
