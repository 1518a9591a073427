//! Snapshot files on their way between members.
//!
//! ```text
//! <index>.snapshot ─► chunks with a checksum each ─► <index>.received, synced, read through once ─► install
//!                                                     └► <index>.snapshot once it is installed
//! to heal a member ─► <index>.healing, the same ─► HEALING
//! ```
//! A file that is still called `received` was not installed, and means nothing after a crash, unless the store at the
//! next start is found to be made of it. One that is to heal a member has a name of its own, as it may well be of the entry
//! that the store holds: only whole it becomes [`HEALING`], and takes the state's place at the next start.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use openraft::errors::StreamingError;
use openraft::raft::SnapshotResponse;
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf};
use rusd_proto::rusdpeer as pb;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::super::codec::{decode_membership, encode_membership};
use super::super::index::{log_id_of, to_raft};
use super::super::types::{TypeConfig, Vote};
use super::meter::{Transfer, Way};
use super::{PeerMeter, Peers, link, wire};
use crate::env::{Access, DiskFile, Spread, may_block};
use crate::failpoint::{Point, hit};
use crate::storage::backend::BackendConfig;
use crate::storage::snapshot::{self, FileStream};
use crate::types::{MemberId, RaftIndex};

/// Bytes of a chunk.
const CHUNK_BYTES: usize = 256 * 1024;
/// Chunks that wait for the network.
const CHUNKS_AHEAD: usize = 4;
/// A transfer in which nothing moves for so long is given up, on either side.
const STALL_MAX: Duration = Duration::from_secs(30);
/// How long the other side may take to install, after it has everything.
const INSTALL_MAX: Duration = Duration::from_secs(600);
/// How long a state's size is remembered that came to heal this member, or was to.
const HEALING_BYTES_COUNT: Duration = Duration::from_secs(600);
/// Ending of a file that isn't installed yet.
const RECEIVED: &str = ".received.tmp";
/// Ending of a file that isn't whole yet, and never will be one of Raft's.
const INCOMPLETE: &str = ".healing.tmp";

/// The name of a whole snapshot that takes the place of this member's state, which differs, at the next start.
pub const HEALING: &str = "healing.ready";

/// A snapshot that came in whole.
pub(super) struct Received {
    pub(super) vote: Vote,
    pub(super) snapshot: SnapshotOf<TypeConfig, PathBuf>,
    /// It isn't Raft's, but is to heal this member.
    pub(super) healing: bool,
}

type Sent = Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>>;

impl Peers {
    /// Sends a snapshot's file and waits until it is installed there, or, if it is for `healing`, kept for that.
    pub(in crate::consensus) async fn send_snapshot(
        &self,
        target: MemberId,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, PathBuf>,
        healing: bool,
    ) -> Sent {
        let transfer = Transfer::begin(self.meter_of(target), self.inner.env.clock.clone(), Way::Send);
        let path = snapshot.snapshot;
        let file = self.inner.env.disk.open(&path, Access::Read);
        let (file, size) = match file.and_then(|file| Ok((file.clone(), file.size()?))) {
            Ok(opened) => opened,
            // A newer one has taken its place meanwhile: openraft asks again.
            Err(error) => return Err(link::network(&error).into()),
        };
        let head = pb::SnapshotHead {
            vote: Some(wire::ballot(&vote)),
            last: snapshot.meta.last_log_id.as_ref().map(wire::entry_id),
            membership: encode_membership(&snapshot.meta.last_membership),
            size,
            healing,
        };
        let last = snapshot.meta.last_log_id.map_or(RaftIndex(0), |id| to_raft(id.index));
        let under_way = (!healing).then(|| self.inner.outgoing.begin(target, last));
        tracing::info!(to = %target, healing, path = %path.display(), bytes = size, "sending database snapshot");
        let (chunks, outgoing) = mpsc::channel(CHUNKS_AHEAD);
        let mut reading = tokio::spawn(read(file, size, head, chunks));
        let channels = self.channels(target);
        let mut client = channels.snapshot();
        let mut call = std::pin::pin!(client.snapshot(channels.request(ReceiverStream::new(outgoing))));
        // A transfer may take as long as something moves; what comes after it may not.
        let sent = tokio::select! {
            sent = &mut call => Ok(sent),
            _ = &mut reading => tokio::time::timeout(INSTALL_MAX, &mut call).await,
        };
        reading.abort();
        match &sent {
            // What heals a member is asked for by it, and says nothing of what Raft sends.
            _ if healing => {}
            Ok(Ok(_)) => channels.patience().succeeded(),
            Ok(Err(status)) => channels.patience().failed(is_silence(status.code())),
            Err(_) => channels.patience().failed(true),
        }
        match sent {
            Ok(Ok(reply)) => {
                let theirs = wire::vote(reply.into_inner().vote).map_err(|error| link::network(&error))?;
                if theirs <= vote {
                    tracing::info!(to = %target, healing, bytes = size, "sent database snapshot");
                    transfer.done();
                    if let Some(under_way) = under_way {
                        under_way.taken();
                    }
                } else {
                    tracing::info!(to = %target, vote = %theirs, "a snapshot was refused: a later leader is known there");
                }
                Ok(SnapshotResponse::new(theirs))
            }
            Ok(Err(status)) => {
                self.heed(&status);
                tracing::warn!(to = %target, error = %status, "a snapshot was not sent");
                Err(link::unreachable(&status).into())
            }
            Err(_) => Err(link::network(&"the snapshot was not installed in time").into()),
        }
    }

    /// Takes in a snapshot's file, whole and checked; what a broken transfer left is removed. One for healing is
    /// taken only if this member `differs`.
    pub(super) async fn receive_snapshot(
        &self,
        mut chunks: Streaming<pb::SnapshotChunk>,
        differs: bool,
        meter: &dyn PeerMeter,
    ) -> Result<Received, Status> {
        let first = next(&mut chunks).await?.and_then(|chunk| chunk.head);
        let head = first.ok_or_else(|| Status::invalid_argument("a snapshot begins without its head"))?;
        if head.healing && !differs {
            return Err(Status::failed_precondition("this member has nothing to be healed of"));
        }
        let vote = wire::vote(head.vote)?;
        let last = head.last.map(wire::id).ok_or_else(|| Status::invalid_argument("a snapshot of nothing"))?;
        let last_membership = decode_membership(&head.membership)
            .map_err(|error| Status::invalid_argument(format!("a snapshot's membership: {error}")))?;
        // Named after the vote too: two leaders may send at a time, and a transfer may be begun anew.
        let serial = self.inner.env.rng.next_u64();
        let path = self.options().snapshot_dir.join(name_of(to_raft(last.index), serial, head.healing));
        tracing::info!(path = %path.display(), bytes = head.size, "receiving a snapshot");
        if head.healing {
            self.note_healing_bytes(head.size);
        }
        let incoming = Incoming { peers: self, path: Some(&path) };
        let written = self.write(&path, head.size, &mut chunks, meter).await;
        let checked = match written {
            Ok(()) => self.check(&path, last).await,
            Err(status) => Err(status),
        };
        if let Err(status) = checked {
            tracing::warn!(error = %status, "a snapshot was not received");
            return Err(status);
        }
        hit(Point::RaftAfterSaveSnap);
        incoming.keep();
        let meta = SnapshotMetaOf::<TypeConfig> { last_log_id: Some(last), last_membership };
        let snapshot = SnapshotOf::<TypeConfig, PathBuf> { meta, snapshot: path };
        Ok(Received { vote, snapshot, healing: head.healing })
    }

    /// Gives a received file the name under which the next start finds it, durably.
    pub(super) fn keep_for_healing(&self, path: &Path) -> Result<(), Status> {
        let disk = &self.inner.env.disk;
        let kept = may_block(|| {
            disk.rename(path, &path.with_file_name(HEALING))?;
            disk.sync_dir(&self.options().snapshot_dir)
        });
        kept.map_err(|error| failed("keep", &error))
    }

    /// Bytes of the last snapshot that came to heal this member, or was to; 0 if none did, or long ago: states get smaller,
    /// too.
    pub fn healing_bytes(&self) -> u64 {
        lately(*self.inner.healing_bytes.lock(), self.inner.env.clock.now())
    }

    fn note_healing_bytes(&self, bytes: u64) {
        *self.inner.healing_bytes.lock() = Some((bytes, self.inner.env.clock.now()));
    }

    /// Removes what was kept, as this member doesn't differ any more.
    pub(super) fn discard_healing(&self) {
        may_block(|| self.discard(&self.options().snapshot_dir.join(HEALING)));
    }

    /// Removes a received file that Raft had no use for, such as one that came after a newer one; one that was
    /// installed has its lasting name by now.
    pub(super) fn discard(&self, path: &Path) {
        let _ = self.inner.env.disk.remove(path);
    }

    async fn write(
        &self,
        path: &Path,
        size: u64,
        chunks: &mut Streaming<pb::SnapshotChunk>,
        meter: &dyn PeerMeter,
    ) -> Result<(), Status> {
        let dir = &self.options().snapshot_dir;
        let needed = size.saturating_add(BackendConfig::RESERVE_BYTES_DEFAULT);
        // What is sent must not take the room in which this member goes on with what it has.
        if let Ok(free) = self.inner.env.disk.free_bytes(dir)
            && free < needed
        {
            return Err(Status::resource_exhausted(format!(
                "a snapshot of {size} bytes finds {free} bytes free, {needed} are needed"
            )));
        }
        let file = self.inner.env.disk.open(path, Access::CreateNew).map_err(|error| failed("make", &error))?;
        let (mut out, mut offset) = (FileStream::timed(file, self.inner.env.clock.clone()), 0_u64);
        while let Some(chunk) = next(chunks).await? {
            if crc32c::crc32c(&chunk.data) != chunk.crc {
                return Err(Status::data_loss(format!("a chunk at byte {offset} of a snapshot is damaged")));
            }
            let end = offset + chunk.data.len() as u64;
            if end > size {
                return Err(Status::invalid_argument("a snapshot is longer than its head says"));
            }
            may_block(|| out.write_all(&chunk.data)).map_err(|error| failed("write", &error))?;
            meter.received(chunk.data.len());
            offset = end;
        }
        if offset != size {
            return Err(Status::aborted(format!("a snapshot of {size} bytes ended after {offset}")));
        }
        hit(Point::RaftBeforeSaveSnap);
        may_block(|| out.sync_all()).map_err(|error| failed("sync", &error))?;
        meter.snapshot_synced(out.took().syncs);
        may_block(|| self.inner.env.disk.sync_dir(dir)).map_err(|error| failed("sync", &error))
    }

    /// Reads it through once, before anything relies on it.
    async fn check(&self, path: &Path, last: super::super::types::LogId) -> Result<(), Status> {
        let check = || snapshot::read_through(&self.inner.env, path, Spread::Pool, |_| Ok(()));
        let header = may_block(check).map_err(|error| Status::data_loss(error.to_string()))?;
        if log_id_of(header.position) != Some(last) {
            return Err(Status::invalid_argument("a snapshot is of another entry than its head says"));
        }
        Ok(())
    }
}

/// A file that comes in. It goes unless it is kept, also if the sender breaks off and nobody goes on with the call.
struct Incoming<'a> {
    peers: &'a Peers,
    path: Option<&'a Path>,
}

impl Incoming<'_> {
    fn keep(mut self) {
        self.path = None;
    }
}

impl Drop for Incoming<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.path {
            self.peers.discard(path);
        }
    }
}

/// The name of a file while it comes in.
fn name_of(index: RaftIndex, serial: u64, healing: bool) -> String {
    let ending = if healing { INCOMPLETE } else { RECEIVED };
    format!("{:016x}-{serial:x}{ending}", index.get())
}

/// The name that a received file has once it is installed; `None` if it isn't such a file.
pub fn installed_name(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?.strip_suffix(RECEIVED)?;
    let (index, _) = name.split_once('-')?;
    Some(path.with_file_name(format!("{index}.snapshot")))
}

/// Whether a transfer that ended so found nobody who had a reason against it: a connection that broke, or a member
/// that stood still. The others are answers, and stay true for a while.
fn is_silence(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::Unknown | Code::DeadlineExceeded | Code::Cancelled | Code::Internal)
}

fn failed(action: &str, error: &io::Error) -> Status {
    Status::resource_exhausted(format!("can't {action} a snapshot's file: {error}"))
}

async fn next(chunks: &mut Streaming<pb::SnapshotChunk>) -> Result<Option<pb::SnapshotChunk>, Status> {
    match tokio::time::timeout(STALL_MAX, chunks.message()).await {
        Ok(chunk) => chunk,
        Err(_) => Err(Status::deadline_exceeded("a snapshot's transfer stands still")),
    }
}

/// Reads the file in pieces, as fast as they are sent.
async fn read(file: Arc<dyn DiskFile>, size: u64, head: pb::SnapshotHead, chunks: mpsc::Sender<pb::SnapshotChunk>) {
    if chunks.send(pb::SnapshotChunk { head: Some(head), ..Default::default() }).await.is_err() {
        return;
    }
    let mut offset = 0;
    while offset < size {
        let len = usize::try_from(size - offset).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        let mut data = vec![0; len];
        // A file that can't be read ends early, and the other side notices.
        if let Err(error) = may_block(|| file.read_exact_at(&mut data, offset)) {
            tracing::warn!(%error, "a snapshot can't be read on");
            return;
        }
        let crc = crc32c::crc32c(&data);
        let chunk = pb::SnapshotChunk { head: None, data: Bytes::from(data), crc };
        match tokio::time::timeout(STALL_MAX, chunks.send(chunk)).await {
            Ok(Ok(())) => {}
            _ => return,
        }
        offset += len as u64;
    }
}

fn lately(noted: Option<(u64, Instant)>, now: Instant) -> u64 {
    let counts = noted.filter(|(_, at)| now.saturating_duration_since(*at) < HEALING_BYTES_COUNT);
    counts.map_or(0, |(bytes, _)| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cause: the size of a state for which there had been no room was remembered until the process ended. Symptom: the
    /// cluster was compacted, and the member went on waiting for ten times the room that it needed.
    #[test]
    fn how_much_room_a_state_wanted_is_forgotten() {
        let at = crate::env::Env::real().clock.now();
        assert_eq!(lately(None, at), 0);
        assert_eq!(lately(Some((7, at)), at + HEALING_BYTES_COUNT / 2), 7);
        assert_eq!(lately(Some((7, at)), at + HEALING_BYTES_COUNT), 0);
    }

    /// Cause: what was to heal a member came in under the name that Raft's files have. Symptom: in a quiet cluster it was of
    /// the entry that the store held, so the next start took a file that a crash had cut off for one that was installed.
    #[test]
    fn what_heals_a_member_is_never_taken_for_a_snapshot_of_raft() {
        let name = |healing| PathBuf::from("/snap").join(name_of(RaftIndex(0x17), 0xabc, healing));
        assert_eq!(installed_name(&name(false)), Some(PathBuf::from("/snap/0000000000000017.snapshot")));
        assert_eq!(installed_name(&name(true)), None);
        assert_eq!(name(true).extension().and_then(|ending| ending.to_str()), Some("tmp"), "a start removes it");
    }

    /// Cause: a member that had stood still ended the transfer by itself once it went on, as one that takes too long,
    /// and that passed for a reason. Symptom: it was left alone for up to a minute, though it answered again.
    #[test]
    fn a_transfer_that_stood_still_is_silence_and_a_full_disk_is_an_answer() {
        for silent in [Code::Unavailable, Code::Unknown, Code::DeadlineExceeded, Code::Cancelled, Code::Internal] {
            assert!(is_silence(silent), "{silent:?}");
        }
        for answer in [Code::ResourceExhausted, Code::InvalidArgument, Code::DataLoss, Code::Aborted] {
            assert!(!is_silence(answer), "{answer:?}");
        }
    }
}
