//! What a run can be told by the environment, and how its members are set up.

#[path = "../support/settings.rs"]
mod shared;

pub(crate) use shared::{rounds_or, seed};

/// The engines to try; one if `RUSD_FAULT_BACKEND` names it.
pub(crate) fn backends() -> Vec<String> {
    match std::env::var("RUSD_FAULT_BACKEND") {
        Ok(name) => vec![name],
        Err(_) => ["sled", "redb"].map(str::to_owned).to_vec(),
    }
}

/// Flags of a member as anyone runs it.
pub(crate) fn plain(backend: &str) -> Vec<String> {
    vec![format!("--backend={backend}")]
}

/// Flags of a member that takes a snapshot and purges its log all the time.
pub(crate) fn eager(backend: &str) -> Vec<String> {
    let mut flags = plain(backend);
    flags.extend(["--snapshot-count=20", "--snapshot-log-mb=0", "--snapshot-catchup-entries=10"].map(str::to_owned));
    flags
}
