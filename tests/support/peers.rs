//! Where the real etcd's programs lie, and what a test does when they don't.
//!
//! `cargo xtask peers` builds them; `cargo xtask verify` builds them first and sets `RUSD_REQUIRE_PEERS`,
//! so that nothing is skipped there.

use std::io::Write;
use std::path::{Path, PathBuf};

/// The path of one of etcd's programs, or `None` after a loud line when it isn't built.
///
/// # Panics
/// When it isn't built and `RUSD_REQUIRE_PEERS` is set.
pub(crate) fn peer(name: &str, test: &str) -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("cargo's tmp lies in the target directory");
    let path = target.join("peers").join(name);
    if path.is_file() {
        return Some(path);
    }
    assert!(std::env::var_os("RUSD_REQUIRE_PEERS").is_none(), "{} is missing: run `cargo xtask peers`", path.display());
    // Written past the test runner's capture, which would hide it in a passing test.
    writeln!(std::io::stdout(), "SKIPPED {test}: `{name}` is not built; run `cargo xtask peers`").ok();
    None
}
