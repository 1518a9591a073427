//! What a run can be told by the environment.

use std::time::{SystemTime, UNIX_EPOCH};

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

/// Rounds of a test, unless `RUSD_FAULT_ROUNDS` says otherwise.
pub(crate) fn rounds(usually: u32) -> u32 {
    match std::env::var("RUSD_FAULT_ROUNDS") {
        Ok(text) => text.parse().expect("RUSD_FAULT_ROUNDS is a number"),
        Err(_) => usually,
    }
}

/// The seed of what is random here; another one at each run, and printed. The timing is real, so it
/// narrows a failure down and does not repeat it exactly.
pub(crate) fn seed() -> u64 {
    let seed = match std::env::var("RUSD_FAULT_SEED") {
        Ok(text) => text.parse().expect("RUSD_FAULT_SEED is a number"),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
    };
    println!("RUSD_FAULT_SEED={seed}");
    seed
}
