//! `--version`, in the form that etcd's tools read.

/// The version of etcd whose API and behaviour rusd serves.
pub const ETCD_VERSION: &str = "3.7.1";
/// The cluster version that goes with it.
pub const CLUSTER_VERSION: &str = "3.7.0";
/// rusd's own version.
pub const RUSD_VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit it was built from, where the build said so.
pub const COMMIT: &str = match option_env!("RUSD_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// etcd's four lines; its "Go Version" names what this was built from instead.
pub fn text() -> String {
    let (os, arch) = (std::env::consts::OS, go_arch(std::env::consts::ARCH));
    format!(
        "etcd Version: {ETCD_VERSION}\nGit SHA: {COMMIT}\n\
         Go Version: none, rusd {RUSD_VERSION} in Rust\nGo OS/Arch: {os}/{arch}\n"
    )
}

/// Go's name of a processor.
fn go_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_etcds_four_labels() {
        let text = text();
        let labels: Vec<_> = text.lines().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(labels, ["etcd Version", "Git SHA", "Go Version", "Go OS/Arch"]);
        assert!(text.starts_with("etcd Version: 3.7.1\n"));
    }
}
