//! `snapshot save`: the source's database as a file, whole or not at all.
//!
//! ```text
//! Snapshot ─► pieces ─► FILE.part ─► its SHA-256 fits ─► synced ─► FILE
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::maintenance_client::MaintenanceClient;

use super::{Remote, RemoteError};
use crate::env::{Access, Disk, unblock};
use crate::import::{ImportError, Trailer, trailer_of};

/// Pieces are 32 KiB; a server may choose others.
const PIECE_BYTES_MAX: usize = 64 << 20;

/// A server that keeps the connection and sends nothing for so long is given up: one that reads a large state for its first
/// piece takes a part of that.
const PIECE_WAIT_MAX: Duration = Duration::from_secs(600);

/// Why a snapshot wasn't saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The source.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The disk.
    #[error(transparent)]
    Disk(#[from] ImportError),
}

impl SaveError {
    /// Whether there was no room for it.
    pub fn is_full(&self) -> bool {
        let is_full = |error: &std::io::Error| {
            matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
        };
        matches!(self, Self::Disk(ImportError::Io { source, .. }) if is_full(source))
    }
}

impl Remote {
    /// Saves the source's database as `path`, with its checksum, in one step; gives its bytes and the version of
    /// the source's format. `progress` hears of bytes, and of how many there will be.
    ///
    /// # Errors
    /// The source's and the disk's; `path` is then as it was.
    pub async fn save(
        &self,
        disk: std::sync::Arc<dyn Disk>,
        path: &Path,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<(u64, String), SaveError> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let saved = self.fetch(disk.as_ref(), &part, progress).await;
        let saved = match saved {
            Ok(saved) => saved,
            Err(error) => {
                // Half a file is of no use to anybody; that it can't be removed adds nothing.
                let _ = disk.remove(&part);
                return Err(error);
            }
        };
        disk.rename(&part, path).map_err(ImportError::io("rename", &part))?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        disk.sync_dir(dir).map_err(ImportError::io("sync", dir))?;
        Ok(saved)
    }

    async fn fetch(
        &self,
        disk: &dyn Disk,
        part: &Path,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<(u64, String), SaveError> {
        let file = disk.open(part, Access::Create).map_err(ImportError::io("make", part))?;
        if !file.try_lock().map_err(ImportError::io("lock", part))? {
            return Err(ImportError::Refused(format!("another process is writing {}", part.display())).into());
        }
        file.set_len(0).map_err(ImportError::io("empty", part))?;
        let request = self.request(pb::SnapshotRequest {}).await?;
        let mut client = MaintenanceClient::new(self.channel.clone()).max_decoding_message_size(PIECE_BYTES_MAX);
        let mut pieces = client.snapshot(request).await.map_err(RemoteError::from)?.into_inner();
        let (mut at, mut version) = (0u64, String::new());
        loop {
            let next = tokio::time::timeout(PIECE_WAIT_MAX, pieces.message()).await;
            let next = next.map_err(|_| RemoteError::odd("no piece of the snapshot has come for ten minutes"))?;
            let Some(piece) = next.map_err(RemoteError::from)? else { break };
            file.write_at(&piece.blob, at).map_err(ImportError::io("write", part))?;
            at += piece.blob.len() as u64;
            if !piece.version.is_empty() {
                version = piece.version;
            }
            progress(at, at.saturating_add(piece.remaining_bytes));
        }
        let checked = unblock(move || {
            trailer_of(file.as_ref(), &mut |_| ()).and_then(|trailer| {
                file.sync_all()?;
                Ok(trailer)
            })
        });
        let checked = checked.await.map_err(ImportError::io("check", part))?;
        match checked.map_err(ImportError::io("check", part))? {
            Trailer::Right => Ok((at, version)),
            _ => Err(RemoteError::odd("what came has no SHA-256 that fits: it is cut short or damaged").into()),
        }
    }
}
