//! Opens a directory of segments: checks the chain, replays it, repairs the end.
//!
//! ```text
//! list ─► remove drafts ─► headers and their chain ─► scan + replay each ─► is anything missing?
//!      ─► rewrite the last group, zero what is behind it, fsync file and directory
//! ```
//! The last group may have reached only the page cache before a crash, or be one whose fsync
//! failed and that the cache wrongly holds for written; it counts as ours from now on, so it is
//! written again before the sync. What follows it is zeroed so that no later write can join up with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::env::{Access, DiskFile, Env, Sectors, make_dir_durably};

use super::format::{Chain, Header};
use super::owner::{self, DirLock};
use super::places::Place;
use super::replay::Replay;
use super::scan::{self, Opening, Scanned};
use super::segment::{Active, DRAFT_SUFFIX, Segment, fitting_bytes, open_direct, parse_name};
use super::types::{EntryId, Recovered, TornTail, WalError, WalOptions};

const ZERO_BYTES: usize = 1024 * 1024;
/// Segments that are asked of the disk before they are gone through.
const READ_AHEAD: usize = 2;

/// What a directory held, ready to go on with.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) replay: Replay,
    pub(super) segments: BTreeMap<u64, Segment>,
    pub(super) active: Option<Active>,
    pub(super) recovered: Recovered,
    pub(super) lock: Option<DirLock>,
}

/// Reads the log in `dir`, which is made if it isn't there.
///
/// # Errors
/// Those of the disk; damage; another format.
pub(super) fn recover(env: &Env, dir: &Path, options: &WalOptions) -> Result<Opened, WalError> {
    let disk = &env.disk;
    make_dir_durably(&**disk, dir).map_err(WalError::io("create", dir))?;
    let lock = owner::lock(&**disk, dir)?;
    let files = list(env, dir)?;
    if let Some(owner) = &options.owner {
        owner::claim(&**disk, dir, owner)?;
    }
    let mut openings = Vec::with_capacity(files.len());
    for (sequence, path) in files {
        let file = disk.open(&path, Access::Write).map_err(WalError::io("open", &path))?;
        let opening = scan::open(&path, &*file)?;
        check_order(&path, sequence, &opening, openings.last())?;
        openings.push((path, file, opening));
    }
    let Some((_, _, first)) = openings.first() else {
        return Ok(Opened {
            replay: Replay::default(),
            segments: BTreeMap::new(),
            active: None,
            recovered: Recovered::default(),
            lock: Some(lock),
        });
    };

    let mut replay = Replay::new(first.header.first_index);
    let mut last_scan = None;
    for (at, (path, file, opening)) in openings.iter().enumerate() {
        // What was written past the page cache isn't in it: let it come while others are gone through.
        let coming = if at == 0 { 0..READ_AHEAD } else { at + READ_AHEAD - 1..at + READ_AHEAD };
        openings.iter().take(coming.end).skip(coming.start).for_each(|(_, file, _)| file.will_be_read());
        let successor = openings.get(at + 1).map(|(_, _, next)| &next.header);
        let segment = opening.header.sequence;
        let scanned = scan::scan(path, &**file, opening, successor, |head, record, offset| {
            let len = u32::try_from(record.len()).map_err(|_| "a record too long for a segment")?;
            replay.record(head, record, Place { segment, offset, len })
        })?;
        last_scan = Some(scanned);
    }
    check_complete(&openings, &replay)?;

    let (Some((path, file, opening)), Some(scanned)) = (openings.last(), last_scan) else {
        return Ok(Opened {
            replay,
            segments: BTreeMap::new(),
            active: None,
            recovered: Recovered::default(),
            lock: Some(lock),
        });
    };
    let cut = (scanned.torn_bytes > 0).then(|| TornTail {
        path: path.clone(),
        offset: scanned.end.into(),
        bytes: scanned.torn_bytes,
    });
    if let Some(cut) = &cut {
        tracing::warn!(
            path = %cut.path.display(), offset = cut.offset, bytes = cut.bytes,
            "the raft log ended in an unfinished write, which was cut; nothing acknowledged was in it"
        );
    }
    // A file that is used again keeps its length: what is added to it would be written for the first time.
    let is_new = !opening.header.is_recycled;
    let wanted = if is_new { fitting_bytes(&**disk, dir, opening.header.sequence, options) } else { 0 };
    let capacity = repair(path, &**file, &scanned, wanted).map_err(WalError::io("repair", path))?;
    disk.sync_dir(dir).map_err(WalError::io("sync", dir))?;

    let last = replay.last();
    let is_known = |id: &EntryId| {
        let purged = replay.purged.is_some_and(|purged| id.index <= purged.index);
        purged || replay.places.get(id.index.get()).and_then(|_| replay.terms.id(id.index.get())) == Some(*id)
    };
    let committed = replay.committed.filter(is_known);
    replay.committed = committed;
    let recovered =
        Recovered { vote: replay.vote.clone(), purged: replay.purged, last, committed: replay.committed, cut };
    let direct = open_direct(&**disk, path, options);
    let sectors = direct.map(|direct| Sectors::at(direct, &**file, scanned.end.into())).transpose();
    let active = Active {
        file: file.clone(),
        path: path.clone(),
        draft: None,
        sequence: opening.header.sequence,
        chain: Chain { seed: opening.seed, previous: scanned.chain },
        offset: scanned.end,
        capacity,
        sectors: sectors.map_err(WalError::io("read", path))?,
    };
    let segments = openings
        .iter()
        .map(|(path, file, opening)| {
            (opening.header.sequence, Segment { path: path.clone(), file: file.clone(), seed: opening.seed })
        })
        .collect();
    Ok(Opened { replay, segments, active: Some(active), recovered, lock: Some(lock) })
}

/// Whether a log's directory has files of this name: segments, drafts of them, and who holds it.
pub fn is_log_file(name: &str) -> bool {
    name.ends_with(DRAFT_SUFFIX) || owner::is_own(name) || parse_name(name).is_some()
}

/// The segment files in order; drafts of segments that never got their name are removed.
fn list(env: &Env, dir: &Path) -> Result<Vec<(u64, PathBuf)>, WalError> {
    let names = env.disk.list(dir).map_err(WalError::io("list", dir))?;
    let mut files = Vec::new();
    for name in names {
        let path = dir.join(&name);
        match name.to_str() {
            Some(text) if text.ends_with(DRAFT_SUFFIX) => {
                env.disk.remove(&path).map_err(WalError::io("remove", &path))?;
            }
            Some(text) if owner::is_own(text) => {}
            Some(text) if parse_name(text).is_some() => files.extend(parse_name(text).map(|seq| (seq, path))),
            _ => {
                tracing::warn!(path = %path.display(), "a file in the raft log's directory that is not ours; left alone")
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn check_order(
    path: &Path,
    sequence: u64,
    opening: &Opening,
    before: Option<&(PathBuf, Arc<dyn DiskFile>, Opening)>,
) -> Result<(), WalError> {
    let damaged = |what: String| WalError::Damaged { path: path.to_owned(), offset: 0, what };
    if opening.header.sequence != sequence {
        return Err(damaged(format!("the header says segment {:016x}: the file was renamed", opening.header.sequence)));
    }
    match before {
        Some((_, _, before)) if before.header.sequence + 1 != sequence => {
            Err(damaged(format!("the segment before it, {:016x}, is missing", sequence - 1)))
        }
        _ => Ok(()),
    }
}

/// Whether every entry after the purged one is there.
fn check_complete(openings: &[(PathBuf, Arc<dyn DiskFile>, Opening)], replay: &Replay) -> Result<(), WalError> {
    let Some((path, _, opening)) = openings.first() else { return Ok(()) };
    let Header { sequence, .. } = opening.header;
    let what = match (replay.purged, replay.places.first()) {
        (Some(purged), Some((first, _))) if first > purged.index.get().saturating_add(1) => {
            format!("entries {} to {} are missing: a segment before it is gone", purged.index.get() + 1, first - 1)
        }
        (None, _) if sequence != 1 => format!("segment {:016x} is missing", sequence - 1),
        _ => return Ok(()),
    };
    Err(WalError::Damaged { path: path.clone(), offset: 0, what })
}

/// Makes the end of the last segment durable and clean, and lengthens it to `wanted` if it can;
/// gives the room it has.
fn repair(path: &Path, file: &dyn DiskFile, scanned: &Scanned, wanted: u32) -> std::io::Result<u32> {
    let (end, start) = (u64::from(scanned.end), u64::from(scanned.last_group));
    let mut group = vec![0; usize::try_from(end - start).map_err(std::io::Error::other)?];
    file.read_exact_at(&mut group, start)?;
    file.write_at(&group, start)?;
    let zeros = vec![0; ZERO_BYTES.min(usize::try_from(scanned.torn_bytes).unwrap_or(ZERO_BYTES))];
    let mut done = 0;
    while done < scanned.torn_bytes {
        let len = usize::try_from(scanned.torn_bytes - done).unwrap_or(usize::MAX).min(zeros.len());
        file.write_at(&zeros[..len], end + done)?;
        done += len as u64;
    }
    let size = file.size()?;
    let wanted = u64::from(wanted);
    if size < wanted
        && let Err(error) = file.allocate(0, wanted)
    {
        // The segment stays as short as it is; the next one comes sooner.
        tracing::warn!(path = %path.display(), %error, "no room to lengthen the raft log's last segment");
    }
    file.sync_all()?;
    Ok(u32::try_from(file.size()?).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{Disk, MemDisk};

    /// Arbitrary bytes in place of a segment are refused or cut, and never a panic.
    #[test]
    fn arbitrary_files_never_panic() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let disk = MemDisk::new();
            let env = Env { disk: Arc::new(disk.clone()), ..Env::real() };
            disk.create_dir_all(Path::new("/log")).unwrap();
            let header = Header {
                sequence: 1,
                first_index: 0,
                previous_crc: 0,
                previous_end: 0,
                salt: 0,
                is_recycled: false,
                head_end: super::super::format::HEADER_BYTES_U32,
            };
            let mut whole = header.encode().to_vec();
            whole.extend_from_slice(bytes);
            disk.set_bytes(Path::new("/log/0000000000000001.wal"), whole);
            let options = WalOptions { segment_bytes: 4096, ..WalOptions::default() };
            let opened = recover(&env, Path::new("/log"), &options).unwrap();
            assert_eq!(opened.recovered.last, None);
            disk.set_bytes(Path::new("/log/0000000000000001.wal"), bytes.to_vec());
            assert!(recover(&env, Path::new("/log"), &options).is_err());
        });
    }
}
