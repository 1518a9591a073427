//! The file for `etcdctl snapshot save`: the state in etcd's own format, with what only the rooms
//! above the storage can put in etcd's terms (leases, alarms, users, members).

use std::io::Read;
use std::path::Path;

use crate::api::{self, MemberInfo};
use crate::apply::{AlarmKind, Alarms};
use crate::auth::AuthState;
use crate::env::Env;
use crate::lease::LeaseRecord;
use crate::storage::backend::BackendConfig;
use crate::storage::snapshot::bbolt::{self, BboltContent};
use crate::storage::values::Frozen;
use crate::storage::{StoreReader, Table};
use crate::types::{RequestError, StorageError};

/// What a file has beside a quarter more than the data.
const FILE_OVERHEAD_BYTES: u64 = 1 << 20;

/// The versions that etcd's tools find in the file.
const STORAGE_VERSION: &str = "3.7.0";
const CLUSTER_VERSION: &str = "3.7.0";

/// Whether the disk has room for a file of a store of `logical_bytes`, beside what the store wants kept free.
///
/// # Errors
/// `Storage`, with how much is needed and how much there is.
pub(super) fn check_room(env: &Env, dir: &Path, logical_bytes: u64) -> Result<(), RequestError> {
    let needed_bytes = BackendConfig::RESERVE_BYTES_DEFAULT
        .saturating_add(FILE_OVERHEAD_BYTES)
        .saturating_add(logical_bytes.saturating_add(logical_bytes / 4));
    match env.disk.free_bytes(dir) {
        Ok(free_bytes) if free_bytes < needed_bytes => Err(RequestError::Storage(format!(
            "a snapshot's file is built on the disk first: {needed_bytes} bytes are needed below {}, {free_bytes} are free",
            dir.display()
        ))),
        // A disk that can't be asked says so when it is written to.
        _ => Ok(()),
    }
}

/// The file and its length, built below `dir` and gone from there once it is read.
///
/// # Errors
/// The engine's and the disk's, and rows that can't be read.
pub(super) fn export(
    env: &Env,
    reader: &StoreReader,
    members: &[MemberInfo],
    dir: &Path,
) -> Result<(Box<dyn Read + Send>, u64), StorageError> {
    // Held until the file is whole: what it reads must not be compacted away meanwhile.
    let pinned = reader.snapshot_pinned();
    let frozen = futures::executor::block_on(reader.values().freeze())?;
    let content = content(&frozen, members, dir)?;
    let (file, len) = bbolt::export_bbolt(env, &frozen, reader.values(), &content, dir)?;
    drop(pinned);
    Ok((Box::new(file), len))
}

fn content(frozen: &Frozen, members: &[MemberInfo], dir: &Path) -> Result<BboltContent, StorageError> {
    let damaged = |what: &str| StorageError::Damaged { path: dir.into(), offset: 0, what: what.into() };
    let mut content = BboltContent::new(STORAGE_VERSION, CLUSTER_VERSION);
    for (_, key, value) in frozen.rows.iter().filter(|(table, ..)| *table == Table::Lease) {
        let lease = LeaseRecord::id(key).zip(LeaseRecord::decode(value));
        let (id, record) = lease.ok_or_else(|| damaged("a lease's row can't be read"))?;
        content.lease(id, record.ttl_secs, record.remaining_secs);
    }
    let rows = frozen.rows.iter().filter(|(table, ..)| *table == Table::Meta).map(|(_, key, _)| key);
    let alarms = Alarms::load(rows).map_err(|_| damaged("an alarm's row can't be read"))?;
    for (member, kind) in alarms.list(None) {
        let number = match kind {
            AlarmKind::NoSpace => 1,
            AlarmKind::Corrupt => 2,
            // A cluster made of the file has none that differs; etcd would stop at it.
            AlarmKind::Diverged => continue,
        };
        content.alarm(member, number);
    }
    let users = frozen.rows.iter().filter(|(table, ..)| *table == Table::Auth);
    let users: Vec<_> = users.map(|(_, key, row)| (key.clone(), row.clone())).collect();
    let users = AuthState::load(&users).map_err(|_| damaged("a user's or role's row can't be read"))?;
    content.auth(users.is_enabled(), users.revision());
    for (name, user) in users.users() {
        content.auth_user(name.as_bytes(), &api::etcd_user(name, user));
    }
    for (name, role) in users.roles() {
        content.auth_role(name.as_bytes(), &api::etcd_role(name, role));
    }
    for member in members {
        let json = serde_json::json!({
            "id": member.id.get(), "peerURLs": member.peer_urls,
            "name": member.name, "clientURLs": member.client_urls,
        });
        content.member(member.id, json.to_string().as_bytes());
    }
    let voters: Vec<_> = members.iter().filter(|member| !member.is_learner).map(|member| member.id.get()).collect();
    content.conf_state(serde_json::json!({ "voters": voters, "auto_leave": false }).to_string().as_bytes());
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::env::{Disk, MemDisk};

    #[test]
    fn a_file_that_would_fill_the_disk_is_not_begun() {
        let disk = MemDisk::new();
        disk.create_dir_all(Path::new("/d")).unwrap();
        let env = Env { disk: Arc::new(disk.clone()), ..Env::real() };
        let reserve = BackendConfig::RESERVE_BYTES_DEFAULT;
        disk.set_capacity(Some(reserve + (6 << 20)));
        assert_eq!(check_room(&env, Path::new("/d"), 4 << 20), Ok(()));
        let refused = check_room(&env, Path::new("/d"), 5 << 20).unwrap_err().to_string();
        assert!(refused.contains(&format!("{} are free", reserve + (6 << 20))), "{refused}");
        disk.set_capacity(None);
        assert_eq!(check_room(&env, Path::new("/d"), 1 << 40), Ok(()));
    }
}
