//! The adapter between openraft's state machine and our `Machine`.
//!
//! ```text
//! committed entries ─► Machine::apply … ─► Machine::publish ─► on_publish (watchers) ─► replies
//! ```
//!
//! The order is the law of the house: publish, then notify, then answer. What openraft calls the
//! applied state is the store's position, which is in the same batch as the data.

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::entry::RaftEntry;
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::{EntryPayload, OptionalSend};
use tokio::sync::watch;

use super::answers::{Answers, Large};
use super::codec::{decode_membership, encode_membership};
use super::divergence::DIGEST_EVERY;
use super::index::{from_raft, log_id_of, position_of};
use super::lineage::{COPIED_KEY, LINEAGE_KEY, Lineage};
use super::log_cache::LogCache;
use super::membership::{removed_between, removed_key};
use super::snapshots::{SnapshotBuilder, Snapshots};
use super::status::NodeStatus;
use super::types::{Entry, EntryTimes, LogData, LogId, Proposals, StoredMembership, TypeConfig};
use super::waiters::Waiters;
use crate::apply::{Command, Machine, MachineError, Outcome, codec};
use crate::env::{Clock, Spread, gently, may_block};
use crate::failpoint::{Point, hit};
use crate::storage::values::Health;
use crate::storage::{AppliedPosition, EventBatch, Store, StoreReader, Table};
use crate::types::{Budget, RaftIndex};

/// Called after each publish and before anyone is answered: the batch (if keys changed) and the revision.
pub type OnPublish = Box<dyn FnMut(Option<Arc<EventBatch>>, i64) + Send + Sync>;

/// Called after each entry's commands were applied, with their outcomes and the time of all of them.
pub type OnApply = Box<dyn FnMut(&[Command], &[Outcome], Duration) + Send + Sync>;

/// Called after each publish with the times of this member's own entries in it, and with how long the publish took.
pub type OnPublished = Box<dyn FnMut(&[EntryTimes], Duration) + Send + Sync>;

/// Where the membership lies in the meta table.
pub const MEMBERSHIP_KEY: &[u8] = b"membership";

/// Entries that share one publish at most; bounds how long a waiter waits while a log is replayed.
const ENTRIES_PER_PUBLISH_MAX: usize = 256;
/// Bytes of entries from which they are published, too: what isn't published yet counts for no budget.
const BYTES_PER_PUBLISH_MAX: usize = 4 << 20;
/// And at a time where they give way to others.
const ENTRIES_PER_STEP: usize = 8;

/// Bytes of applied entries kept in memory where there are other members, who may be a little behind. What is older they
/// are sent from the log's files, which may have to be read from the disk.
const CACHE_KEEP_BYTES: usize = 2 << 20;

/// Our `Machine` as openraft drives it. It is owned by openraft's worker task and by nobody else.
pub struct StateMachine {
    machine: Machine,
    reader: StoreReader,
    durable: watch::Receiver<AppliedPosition>,
    on_publish: OnPublish,
    timed: Option<(Arc<dyn Clock>, OnApply)>,
    on_published: Option<OnPublished>,
    cache: Arc<LogCache>,
    status: Arc<NodeStatus>,
    snapshots: Arc<Snapshots>,
    waiters: Option<Arc<Waiters>>,
    /// What holds large answers.
    answers: Budget,
    applied: Option<LogId>,
    membership: StoredMembership,
    /// Whether that isn't published yet.
    members_changed: bool,
    /// What a state that this member begins with is called.
    lineage_id: Option<u64>,
}

impl StateMachine {
    /// Wraps a machine that was opened at `position`; `membership` is what its meta table holds.
    pub fn new(
        machine: Machine,
        position: AppliedPosition,
        membership: Option<&[u8]>,
        on_publish: OnPublish,
        cache: Arc<LogCache>,
        status: Arc<NodeStatus>,
        snapshots: Arc<Snapshots>,
    ) -> Result<Self, io::Error> {
        let membership = match membership {
            Some(bytes) => decode_membership(bytes).map_err(io::Error::other)?,
            None => StoredMembership::default(),
        };
        status.set_applied(position.index);
        let reader = machine.reader();
        let durable = reader.values().durable();
        status.landmarks().watch(reader.clone(), machine.auth());
        let applied = log_id_of(position);
        let state = Self {
            machine,
            reader,
            durable,
            on_publish,
            timed: None,
            on_published: None,
            cache,
            status,
            snapshots,
            waiters: None,
            answers: Budget::new(usize::MAX),
            applied,
            membership,
            members_changed: false,
            lineage_id: None,
        };
        state.status.set_membership(state.membership.membership());
        state.note_removed();
        Ok(state)
    }

    /// Notes where the state comes from, at the start and whenever another one is installed. `id` is this process's, by
    /// chance; without it this member bears no witness.
    ///
    /// # Errors
    /// Those of the store.
    pub fn tracing(mut self, id: u64) -> Result<Self, io::Error> {
        self.lineage_id = Some(id);
        self.adopt()?;
        Ok(self)
    }

    /// The state is this member's from here on, wherever it was made.
    fn adopt(&mut self) -> io::Result<()> {
        let Some(id) = self.lineage_id else { return Ok(()) };
        let (found, is_copy) = {
            let snapshot = self.reader.snapshot();
            let row = |key| snapshot.rows().get(Table::Meta, key);
            (row(LINEAGE_KEY).and_then(Lineage::decode), row(COPIED_KEY).is_some())
        };
        let (member, position) = (self.status.member(), self.machine.applied());
        let lineage = match found.clone() {
            // Also of an own one: see there.
            Some(found) if is_copy => found.copied(member, id, position.index),
            found => Lineage::at(found, member, id, position.index),
        };
        if is_copy {
            self.machine.store_mut().put_meta(Table::Meta, Bytes::from_static(COPIED_KEY), None);
        }
        if is_copy || found.as_ref() != Some(&lineage) {
            // The first entry's batch is in time for an empty one.
            self.note_lineage(&lineage, position.index > RaftIndex(0))?;
        }
        self.status.set_lineage(lineage);
        Ok(())
    }

    /// In the batch after the state's, so that a state is never found with another one's lineage.
    fn note_lineage(&mut self, lineage: &Lineage, now: bool) -> io::Result<()> {
        let row = lineage.encode();
        self.machine.store_mut().put_meta(Table::Meta, Bytes::from_static(LINEAGE_KEY), Some(row));
        if now {
            let position = self.machine.applied();
            self.machine.publish(position).map_err(failed)?;
        }
        Ok(())
    }

    /// Notes that all members had this digest after the entry; false if this one didn't, or doesn't know any more.
    pub(super) fn agree(&mut self, index: RaftIndex, digest: u64) -> io::Result<bool> {
        let mut lineage = self.status.lineage();
        if !self.status.landmarks().digests().contains(&(index, digest)) || lineage.since() > index {
            return Ok(false);
        }
        lineage.agree(index, digest);
        self.note_lineage(&lineage, true)?;
        self.status.set_lineage(lineage);
        Ok(true)
    }

    /// Answers those whose batches this member forwarded to the leader.
    pub fn forwarding(mut self, waiters: Arc<Waiters>) -> Self {
        self.waiters = Some(waiters);
        self
    }

    /// Holds large answers in `answers` until they are taken; those for which there is no room aren't told.
    pub fn holding(mut self, answers: Budget) -> Self {
        self.answers = answers;
        self
    }

    /// Has `on_apply` told how long the commands of each entry took.
    pub fn timed(mut self, clock: Arc<dyn Clock>, on_apply: OnApply) -> Self {
        self.timed = Some((clock, on_apply));
        self
    }

    /// Has `on_published` told how long entries took, where they are timed.
    pub fn published(mut self, on_published: OnPublished) -> Self {
        self.on_published = Some(on_published);
        self
    }

    fn now(&self) -> Option<Instant> {
        self.timed.as_ref().map(|(clock, _)| clock.now())
    }

    /// The machine, for work that has to be done by its one owner (compaction steps).
    pub fn machine_mut(&mut self) -> &mut Machine {
        &mut self.machine
    }

    /// The snapshots of this member.
    pub(super) fn snapshots(&self) -> Arc<Snapshots> {
        Arc::clone(&self.snapshots)
    }

    /// Applies entries and publishes once; those of a member that is far behind give way to everything else.
    async fn apply_some(&mut self, mut some: Vec<EntryResponder<TypeConfig>>) -> io::Result<()> {
        let Some((last, responder)) = some.last_mut() else { return Ok(()) };
        // Whoever changed the members may ask for them next, and finds them changed: told after the publish.
        let (position, last) = (position_of(last.log_id()), responder.take());
        let mut answers = Answers::default();
        let mut some = some.into_iter();
        match self.timed.as_ref().map(|(clock, _)| Arc::clone(clock)) {
            Some(clock) if self.status.is_far_behind(position.index) => {
                let mut step = || {
                    for (entry, responder) in some.by_ref().take(ENTRIES_PER_STEP) {
                        self.apply_entry(&entry, responder, &mut answers)?;
                    }
                    Ok::<_, io::Error>(some.len() == 0)
                };
                let step = || match step() {
                    Ok(false) => ControlFlow::Continue(()),
                    Ok(true) => ControlFlow::Break(Ok(())),
                    Err(error) => ControlFlow::Break(Err(error)),
                };
                may_block(|| gently(&*clock, Spread::Pool, step))?;
            }
            _ => some.try_for_each(|(entry, responder)| self.apply_entry(&entry, responder, &mut answers))?,
        }
        self.publish(position, &mut answers).await?;
        if let Some(responder) = last {
            responder.send(());
        }
        if is_landmark_at(position.index) {
            let users = self.machine.auth_digest();
            self.status.landmarks().note(position.index, self.reader.snapshot(), users);
        }
        Ok(())
    }

    fn apply_entry(
        &mut self,
        entry: &Entry,
        responder: Option<ApplyResponder<TypeConfig>>,
        answers: &mut Answers,
    ) -> io::Result<()> {
        let log_id = entry.log_id();
        if let Some(waiters) = &self.waiters
            && self.applied.is_none_or(|last| last.leader_id != log_id.leader_id)
        {
            waiters.pass(position_of(log_id).term);
        }
        match &entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Normal(data) => self.apply_normal(position_of(log_id), data, answers)?,
            EntryPayload::Membership(membership) => {
                hit(Point::BeforeApplyOneConfChange);
                self.apply_membership(StoredMembership::new(Some(log_id), membership.clone()));
            }
        }
        self.applied = Some(log_id);
        if let Some(responder) = responder {
            responder.send(());
        }
        Ok(())
    }

    fn apply_normal(&mut self, position: AppliedPosition, data: &LogData, answers: &mut Answers) -> io::Result<()> {
        if let Some(proposals) = data.local.as_ref().and_then(|local| local.take()) {
            let (outcomes, large, ran) = self.run(position, &proposals.commands, true)?;
            let times = times(&proposals, ran, self.status.logged_at(position.index));
            answers.add(position.term, proposals.replies, outcomes, large, times);
            return Ok(());
        }
        let damaged = |what: &dyn std::fmt::Display| {
            io::Error::new(io::ErrorKind::InvalidData, format!("log entry {}: {what}", position.index))
        };
        let (origin, payload) = data.parts().ok_or_else(|| damaged(&"no origin"))?;
        let own = origin.filter(|origin| origin.member == self.status.member());
        if let Some(proposals) = own.zip(self.waiters.as_ref()).and_then(|(origin, waiters)| waiters.take(origin.tag)) {
            let (outcomes, large, ran) = self.run(position, &proposals.commands, true)?;
            // The leader's log counts, not this one's.
            let times = times(&proposals, ran, None);
            answers.add(position.term, proposals.replies, outcomes, large, times);
        } else {
            let commands: Vec<Command> = codec::decode_batch(payload).map_err(|error| damaged(&error))?;
            self.run(position, &commands, false)?;
        }
        Ok(())
    }

    fn apply_membership(&mut self, new: StoredMembership) {
        let removed = removed_between(self.membership.membership(), new.membership());
        let store = self.machine.store_mut();
        store.put_meta(Table::Meta, Bytes::from_static(MEMBERSHIP_KEY), Some(encode_membership(&new)));
        for id in &removed {
            store.put_meta(Table::Meta, removed_key(*id), Some(Bytes::new()));
        }
        self.status.removed().note(removed);
        self.membership = new;
        self.members_changed = true;
    }

    /// Who was removed, as the published meta table has it.
    fn note_removed(&self) {
        let rows = self.reader.snapshot().rows().of(Table::Meta);
        self.status.removed().note_rows(rows.iter().map(|(key, _)| key));
    }

    /// The outcomes, what large ones hold, and when that began and ended. What nobody here waits for has no pairs.
    fn run(
        &mut self,
        position: AppliedPosition,
        commands: &[Command],
        is_awaited: bool,
    ) -> io::Result<(Vec<Outcome>, Large, Ran)> {
        let begun = self.now();
        hit(Point::BeforeApplyOneEntryNormal);
        let (mut outcomes, mut large) = (Vec::with_capacity(commands.len()), Large::default());
        let Self { machine, answers, .. } = self;
        let answers = is_awaited.then_some(&*answers);
        let applied = machine.apply_each(position, commands, |mut outcome| {
            large.look(outcomes.len(), &mut outcome, answers);
            outcomes.push(outcome);
        });
        applied.map_err(failed)?;
        let ran = begun.zip(self.now());
        if let (Some((_, on_apply)), Some((begun, ended))) = (&mut self.timed, ran) {
            on_apply(commands, &outcomes, ended.saturating_duration_since(begun));
        }
        Ok((outcomes, large, ran))
    }

    /// Waits until the store takes more, without holding up the thread that this task runs on.
    ///
    /// A store that was given up takes nothing and isn't waited for: the publish then says so.
    async fn wait_for_room(&mut self) {
        let mut health = self.reader.values().health();
        while self.reader.values().is_full() {
            tokio::select! {
                durable = self.durable.changed() => {
                    if durable.is_err() {
                        return;
                    }
                }
                _ = health.wait_for(|health| matches!(health, Health::Failed(_))) => return,
            }
        }
    }

    async fn publish(&mut self, position: AppliedPosition, answers: &mut Answers) -> io::Result<()> {
        // A majority may be faster than this member's own disk. Its store must not come to be ahead of its
        // log, or a start couldn't tell that from a log that was lost.
        self.status.wait_logged(position.index).await?;
        let logged = self.now();
        self.wait_for_room().await;
        let batch = self.machine.publish(position).map_err(failed)?;
        (self.on_publish)(batch, self.machine.store_mut().revision());
        // First: whoever waited for the entry reads the members as of it.
        if std::mem::take(&mut self.members_changed) {
            self.status.set_membership(self.membership.membership());
        }
        self.status.set_applied(position.index);
        let keep_bytes = if self.membership.membership().nodes().nth(1).is_some() { CACHE_KEEP_BYTES } else { 0 };
        self.cache.trim(from_raft(position.index), keep_bytes);
        if let Some((logged, now)) = logged.zip(self.now()) {
            answers.published(logged, now);
            if let Some(on_published) = &mut self.on_published {
                on_published(answers.times(), now.saturating_duration_since(logged));
            }
        }
        answers.send();
        Ok(())
    }
}

/// Whether all members take their digests after this entry.
fn is_landmark_at(index: RaftIndex) -> bool {
    index.get().is_multiple_of(DIGEST_EVERY)
}

/// Why a snapshot could not be installed.
struct Install(io::Error);

impl From<MachineError> for Install {
    fn from(error: MachineError) -> Self {
        Self(io::Error::other(error))
    }
}

fn failed(error: MachineError) -> io::Error {
    io::Error::other(error)
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = PathBuf;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let (mut some, mut bytes) = (Vec::new(), 0);
        loop {
            let next = entries.next().await.transpose()?;
            let is_last = next.is_none();
            let mut is_bound = false;
            if let Some((entry, responder)) = next {
                let changes_members = matches!(entry.payload, EntryPayload::Membership(_));
                is_bound = changes_members || is_landmark_at(position_of(entry.log_id()).index);
                if let EntryPayload::Normal(data) = &entry.payload {
                    bytes += data.payload.len();
                }
                some.push((entry, responder));
            }
            if is_last || is_bound || some.len() == ENTRIES_PER_PUBLISH_MAX || bytes >= BYTES_PER_PUBLISH_MAX {
                self.apply_some(std::mem::take(&mut some)).await?;
                bytes = 0;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        self.snapshots.builder()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<TypeConfig>,
        snapshot: PathBuf,
    ) -> Result<(), io::Error> {
        hit(Point::RaftBeforeApplySnap);
        let snapshots = Arc::clone(&self.snapshots);
        let load = |store: &mut Store| {
            hit(Point::ApplyBeforeOpenSnapshot);
            let loaded = snapshots.load(store, &snapshot).map_err(|error| Install(io::Error::other(error)))?;
            hit(Point::ApplyAfterOpenSnapshot);
            Ok(loaded)
        };
        // Before the new state can be seen: what is known is the old one's.
        self.status.set_lineage(Lineage::default());
        self.status.set_installing(true);
        let installed = may_block(|| self.machine.install(load));
        self.status.set_installing(false);
        installed.map_err(|Install(error)| error)?;
        self.adopt()?;
        self.snapshots.installed(meta.clone(), snapshot);
        self.status.landmarks().clear();
        if let Some(waiters) = &self.waiters {
            waiters.clear(self.machine.applied().term);
        }
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.status.set_membership(self.membership.membership());
        self.note_removed();
        (self.on_publish)(None, self.machine.store_mut().revision());
        self.status.set_applied(self.machine.applied().index);
        hit(Point::RaftAfterApplySnap);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<TypeConfig, PathBuf>>, io::Error> {
        Ok(self.snapshots.current())
    }
}

/// When the commands of an entry began to be applied, and when they were.
type Ran = Option<(Instant, Instant)>;

/// The times of a batch of this member's own, as far as they are known before its publish.
fn times(proposals: &Proposals, ran: Ran, logged: Option<Instant>) -> Option<EntryTimes> {
    let ((came, made), (begun, applied)) = proposals.since.zip(ran)?;
    Some(EntryTimes { came, made, logged, begun, applied, published: applied })
}
