//! What the drill is made of: Patroni in a venv, Debian's PostgreSQL, and a user that PostgreSQL starts for.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::sh;

/// Where Debian has PostgreSQL, a directory for each version.
const POSTGRES: &str = "/usr/lib/postgresql";
/// Whom Debian's package makes, and as whom it runs here if we are root.
const USER: &str = "postgres";

/// Programs, and who runs them.
pub(super) struct Tools {
    /// The venv's directory of programs.
    pub(super) venv: PathBuf,
    pub(super) postgres: PathBuf,
    pub(super) user: User,
}

/// As whom Patroni and PostgreSQL run: another, if we are root.
pub(super) struct User(Option<(u32, u32)>);

impl User {
    /// Makes a command run as this user.
    pub(super) fn run(&self, command: &mut Command) {
        if let Some((user, group)) = self.0 {
            command.uid(user).gid(group);
        }
    }

    /// Gives a file or a directory to this user.
    pub(super) fn own(&self, path: &Path) -> Result<(), String> {
        let Some((user, group)) = self.0 else { return Ok(()) };
        std::os::unix::fs::chown(path, Some(user), Some(group)).map_err(|error| error.to_string())
    }
}

/// Installs what is missing; an error is a reason to skip the drill.
pub(super) fn tools() -> Result<Tools, String> {
    let root = id(&["-u"])? == 0;
    let postgres = match postgres() {
        Some(dir) => dir,
        None if root => {
            let mut apt = Command::new("apt-get");
            apt.args(["install", "--yes", "--no-install-recommends", "postgresql"]);
            sh::run(apt_quiet(apt))?;
            postgres().ok_or_else(|| format!("there is no PostgreSQL in {POSTGRES}"))?
        }
        None => return Err(format!("there is no PostgreSQL in {POSTGRES}, and only root can install it")),
    };
    let user = if root { User(Some((id(&["-u", USER])?, id(&["-g", USER])?))) } else { User(None) };
    let venv = venv()?;
    // A python below somebody's home, or a target directory there, can't be run by another.
    let mut patroni = Command::new(venv.join("patroni"));
    patroni.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    user.run(&mut patroni);
    if !patroni.status().is_ok_and(|status| status.success()) {
        return Err(format!("{} can't be run by the user {USER}: choose another CARGO_TARGET_DIR", venv.display()));
    }
    Ok(Tools { venv, postgres, user })
}

fn apt_quiet(mut apt: Command) -> Command {
    apt.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    apt
}

fn id(args: &[&str]) -> Result<u32, String> {
    let said = sh::output(sh::program("id", &sh::root(), args))?;
    String::from_utf8_lossy(&said).trim().parse().map_err(|_| format!("`id {}` says no number", args.join(" ")))
}

/// The programs of the newest version.
fn postgres() -> Option<PathBuf> {
    let versions = fs::read_dir(POSTGRES).ok()?.filter_map(|entry| {
        let path = entry.ok()?.path();
        let version: u32 = path.file_name()?.to_str()?.parse().ok()?;
        Some((version, path.join("bin"))).filter(|(_, bin)| bin.join("postgres").is_file())
    });
    versions.max().map(|(_, bin)| bin)
}

/// Patroni's programs; made once.
fn venv() -> Result<PathBuf, String> {
    let dir = sh::target().join("clients/patroni");
    let venv = dir.join("venv");
    fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
    let program = |name: &str, args: &[&str]| sh::program(name, &sh::root(), args);
    let text = |path: PathBuf| path.into_os_string().into_string().map_err(|_| "the target directory isn't text");
    if !venv.join("bin/python").is_file() {
        // The system's, if it is there: others may lie where another user can't run them.
        let python = ["/usr/bin/python3", "python3"];
        let works = |name: &&&str| {
            program(name, &["-c", "import venv, ensurepip"]).output().is_ok_and(|output| output.status.success())
        };
        let python = python.iter().find(works).ok_or("there is no python3 with venv")?;
        sh::run(program(python, &["-m", "venv", &text(venv.clone())?]))?;
    }
    let requirements = "tests/clients/patroni/requirements.txt";
    sh::run(program(&text(venv.join("bin/pip"))?, &["install", "--quiet", "--requirement", requirements]))?;
    Ok(venv.join("bin"))
}
