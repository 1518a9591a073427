//! What a run under faults can be told by the environment.

use std::time::{SystemTime, UNIX_EPOCH};

/// Rounds of a test, unless `RUSD_FAULT_ROUNDS` says otherwise.
pub(crate) fn rounds(usually: u32) -> u32 {
    match std::env::var("RUSD_FAULT_ROUNDS") {
        Ok(text) => text.parse().expect("RUSD_FAULT_ROUNDS is a number"),
        Err(_) => usually,
    }
}

/// The same, or `long` where `cargo xtask faults` runs for longer, which it says by `RUSD_FAULT_LONG`.
pub(crate) fn rounds_or(usually: u32, long: u32) -> u32 {
    rounds(if std::env::var_os("RUSD_FAULT_LONG").is_some() { long } else { usually })
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
