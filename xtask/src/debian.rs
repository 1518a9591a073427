//! Programs of Debian's that a command needs: there, or installed if we are root, or named.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::sh;

/// Whether a program is found where programs are looked for.
pub(crate) fn has(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|dir| dir.join(program).is_file())
}

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Installs the packages of the programs that are missing.
///
/// # Errors
/// What is missing, and what would bring it.
pub(crate) fn need(programs: &[(&str, &str)]) -> Result<(), String> {
    let missing: Vec<&(&str, &str)> = programs.iter().filter(|(program, _)| !has(program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    if !is_root() || !Path::new("/etc/debian_version").is_file() {
        return Err(format!("missing here, by Debian's names: {}", packages.join(" ")));
    }
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(args).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).stdout(Stdio::null());
        sh::run(command)
    };
    apt(&["update", "--quiet"])?;
    apt(&[&["install", "--yes", "--quiet", "--no-install-recommends"], &packages[..]].concat())?;
    match missing.iter().find(|(program, _)| !has(program)) {
        None => Ok(()),
        Some((program, package)) => Err(format!("the package {package} brings no {program}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_needs_nothing() {
        assert!(has("sh") && !has("no-such-program-at-all"));
        assert_eq!(need(&[("sh", "dash"), ("env", "coreutils")]), Ok(()));
    }
}
