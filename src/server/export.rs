//! The file for `etcdctl snapshot save`: the state in etcd's own format, with what only the rooms
//! above the storage can put in etcd's terms (leases, alarms, members).

use std::io::Read;
use std::path::Path;

use crate::api::MemberInfo;
use crate::apply::{AlarmKind, Alarms};
use crate::env::Env;
use crate::lease::LeaseRecord;
use crate::storage::snapshot::bbolt::{self, BboltContent};
use crate::storage::values::Frozen;
use crate::storage::{StoreReader, Table};
use crate::types::StorageError;

/// The versions that etcd's tools find in the file.
const STORAGE_VERSION: &str = "3.7.0";
const CLUSTER_VERSION: &str = "3.7.0";

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
        };
        content.alarm(member, number);
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
