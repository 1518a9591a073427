//! The clients that are tried: what each needs, how it is installed, how it runs and says that it is done.

use std::path::Path;
use std::process::Command;

use super::crates;
use crate::sh;

type Installed = Result<(), String>;

/// One client.
pub(super) struct Probe {
    pub(super) name: &'static str,
    /// Programs, each with an argument that it answers with success.
    pub(super) needs: &'static [(&'static str, &'static str)],
    /// More flags for the server.
    pub(super) flags: &'static [&'static str],
    /// Calls through the JSON gateway that come first: paths and bodies.
    pub(super) before: &'static [(&'static str, &'static str)],
    /// Makes it ready in a directory of its own; an error is a reason to skip it.
    pub(super) install: fn(&Path) -> Installed,
    /// Runs it against a URL.
    pub(super) command: fn(&Path, &str) -> Result<Command, String>,
    /// What its output says of a run that went well; `None` if that is nothing.
    pub(super) verdict: fn(&str) -> Option<String>,
}

pub(super) const PROBES: &[Probe] = &[
    Probe {
        name: "curl",
        needs: &[("bash", "--version"), ("curl", "--version")],
        flags: &[],
        before: &[],
        install: |_| Ok(()),
        command: |_, url| Ok(program("bash", &["tests/clients/curl/probe.sh", url])),
        verdict: last_line,
    },
    Probe {
        name: "etcd3gw",
        needs: &[("python3", "--version")],
        flags: &[],
        before: &[],
        install: install_etcd3gw,
        command: |dir, url| Ok(program(text(&dir.join("venv/bin/python"))?, &["tests/clients/etcd3gw/probe.py", url])),
        verdict: last_line,
    },
    Probe {
        name: "npm",
        needs: &[("node", "--version"), ("npm", "--version")],
        flags: &[],
        before: &[],
        install: install_npm,
        command: |dir, url| Ok(sh::program("node", dir, &["probe.js", url])),
        verdict: last_line,
    },
    Probe {
        name: "etcd-client",
        needs: &[("cargo", "--version")],
        // Two of its tests wait for a token's end.
        flags: &["--auth-token-ttl=2"],
        before: &[
            ("/v3/auth/user/add", r#"{"name":"root","password":"rootpwd"}"#),
            ("/v3/auth/user/grant", r#"{"user":"root","role":"root"}"#),
        ],
        install: crates::install,
        command: crates::command,
        verdict: crates::verdict,
    },
    Probe {
        name: "jetcd",
        needs: &[("java", "-version"), ("mvn", "--version")],
        flags: &[],
        before: &[],
        install: install_jetcd,
        command: |dir, url| {
            let classes = std::fs::read_to_string(dir.join("classpath")).map_err(|error| error.to_string())?;
            let classes = format!("{}:{}", text(&dir.join("target/classes"))?, classes.trim());
            Ok(program("java", &["-cp", &classes, "rusd.Probe", url]))
        },
        verdict: last_line,
    },
];

/// A program run at the repository's root.
fn program(name: &str, args: &[&str]) -> Command {
    sh::program(name, &sh::root(), args)
}

fn text(path: &Path) -> Result<&str, String> {
    path.to_str().ok_or_else(|| "the target directory's path is not text".to_owned())
}

fn last_line(output: &str) -> Option<String> {
    output.lines().last().filter(|line| line.starts_with("ok: ")).map(str::to_owned)
}

fn install_etcd3gw(dir: &Path) -> Installed {
    let venv = dir.join("venv");
    if !venv.join("bin/python").is_file() {
        sh::run(program("python3", &["-m", "venv", text(&venv)?]))?;
    }
    let pip = venv.join("bin/pip");
    sh::run(program(text(&pip)?, &["install", "--quiet", "--requirement", "tests/clients/etcd3gw/requirements.txt"]))
}

/// Copies files of a probe's directory in the tree, since its tools write beside them.
fn copied(dir: &Path, from: &str, files: &[&str]) -> Installed {
    for file in files {
        let to = dir.join(file);
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent).map_err(|error| error.to_string())?;
        }
        let from = sh::root().join("tests/clients").join(from).join(file);
        std::fs::copy(&from, to).map_err(|error| format!("{}: {error}", from.display()))?;
    }
    Ok(())
}

fn install_npm(dir: &Path) -> Installed {
    copied(dir, "npm", &["package.json", "package-lock.json", "probe.js"])?;
    sh::run(sh::program("npm", dir, &["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]))
}

fn install_jetcd(dir: &Path) -> Installed {
    copied(dir, "jetcd", &["pom.xml", "src/main/java/rusd/Probe.java"])?;
    let build = ["-q", "-B", "compile", "dependency:build-classpath", "-Dmdep.outputFile=classpath"];
    sh::run(sh::program("mvn", dir, &build))
}
