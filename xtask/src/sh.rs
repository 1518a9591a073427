//! Child processes and the places in the repository, for the commands beside this file.
//!
//! A command is echoed before it runs, inherits the terminal, and fails with its own words.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository's root: the parent of this crate's directory.
pub(crate) fn root() -> PathBuf {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.pop();
    path
}

/// Cargo's target directory.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The cargo that runs us.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    // What cargo tells xtask of itself would be news to build scripts: they'd run again wherever a shell built before.
    let names = std::env::vars_os().map(|(name, _)| name);
    for name in names.filter(|name| is_own(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    command
}

/// Whether cargo sets this for the package that it runs.
fn is_own(name: &str) -> bool {
    name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
}

/// A program run in a directory.
pub(crate) fn program(name: &str, dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(args).current_dir(dir);
    command
}

/// Echo a command, run it with the terminal inherited, demand success.
pub(crate) fn run(mut command: Command) -> Result<(), String> {
    let shown = show(&command);
    eprintln!("$ {shown}");
    let status = command.status().map_err(|error| format!("`{shown}` does not start: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("`{shown}` failed: {status}")) }
}

/// Run a command, demand success, return its standard output.
pub(crate) fn output(mut command: Command) -> Result<Vec<u8>, String> {
    let shown = show(&command);
    let output = command.output().map_err(|error| format!("`{shown}` does not start: {error}"))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(format!("`{shown}` failed: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
    }
}

fn show(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    std::iter::once(program).chain(command.get_args()).map(|s| s.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// A program that ends with us, however we end. To be started by a thread that stays.
pub(crate) fn bound(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.arg("--pdeathsig=KILL").arg(program);
    command
}

/// Holds a directory for one run at a time, for as long as what is given lives.
///
/// # Errors
/// Another run has it.
pub(crate) fn alone(dir: &Path) -> Result<File, String> {
    let path = dir.with_extension("lock");
    let open = || {
        fs::create_dir_all(path.parent().unwrap_or(dir))?;
        File::options().create(true).append(true).open(&path)
    };
    let file = open().map_err(|error| format!("{}: {error}", path.display()))?;
    file.try_lock().map_err(|error| format!("another run is in {}: {error}", dir.display()))?;
    Ok(file)
}

/// The value of `--NAME VALUE` or `--NAME=VALUE` among the arguments.
pub(crate) fn option(args: &[String], name: &str) -> Result<Option<String>, String> {
    for (at, arg) in args.iter().enumerate() {
        let Some(rest) = arg.strip_prefix("--").and_then(|arg| arg.strip_prefix(name)) else { continue };
        if let Some(value) = rest.strip_prefix('=') {
            return Ok(Some(value.to_owned()));
        }
        if rest.is_empty() {
            return args.get(at + 1).cloned().map(Some).ok_or_else(|| format!("--{name} needs a value"));
        }
    }
    Ok(None)
}

/// Whether a run in which nothing could be tried passes.
pub(crate) fn allows_skips(args: &[String]) -> bool {
    args.iter().any(|arg| arg == "--allow-skips")
}

/// The server to try: `--rusd PATH`, or a debug build made now.
pub(crate) fn rusd(args: &[String]) -> Result<PathBuf, Box<dyn std::error::Error>> {
    if let Some(path) = option(args, "rusd")? {
        return Ok(PathBuf::from(path));
    }
    run(cargo(&["build", "--package", "rusd"]))?;
    Ok(target().join("debug/rusd"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_held_by_one_run() {
        let dir = target().join("tmp").join(format!("alone-{}", std::process::id()));
        let held = alone(&dir).expect("nobody has it");
        assert!(alone(&dir).is_err());
        drop(held);
        assert!(alone(&dir).is_ok());
        fs::remove_file(dir.with_extension("lock")).expect("it is there");
    }

    /// Cause: cargo tells a program that it runs of its package, and a build script is run again if it sees that change.
    /// Symptom: minutes of building whenever `cargo build` and `cargo xtask` are run by turns.
    #[test]
    fn what_cargo_says_of_xtask_is_not_handed_on() {
        let command = cargo(&["build"]);
        let taken: Vec<_> = command.get_envs().filter(|(_, value)| value.is_none()).map(|(name, _)| name).collect();
        assert!(
            taken.contains(&"CARGO_PKG_NAME".as_ref()) && taken.contains(&"CARGO_MANIFEST_DIR".as_ref()),
            "{taken:?}"
        );
        assert!(!taken.contains(&"CARGO_TARGET_DIR".as_ref()) && !taken.contains(&"PATH".as_ref()), "{taken:?}");
    }

    #[test]
    fn options_come_in_one_word_or_two() {
        let args = ["--steps", "9", "--seed=4", "--last"].map(str::to_owned);
        assert_eq!(option(&args, "steps"), Ok(Some("9".to_owned())));
        assert_eq!(option(&args, "seed"), Ok(Some("4".to_owned())));
        assert_eq!(option(&args, "other"), Ok(None));
        assert!(option(&args, "last").is_err());
    }
}
