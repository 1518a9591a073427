//! `cargo xtask clients [NAME] [--allow-skips] [--rusd PATH]`: other languages' clients on a real etcd and on rusd.
//!
//! ```text
//! PROBES (what it needs, how it is installed, how it runs) ─► a fresh server for each ─► "ok: N checks"
//!        └► a runtime that isn't had, or nothing to install from: SKIPPED, with the reason, which is
//!            a failure, unless --allow-skips
//! ```
//! Patroni, which needs a cluster and a bad day, is `cargo xtask patroni`.
//! The probes lie in `tests/clients/`. Each plays on etcd first: what fails there says nothing about rusd.

mod crates;
mod probes;
mod server;

use std::path::{Path, PathBuf};

use crate::{Outcome, peers, sh};
use probes::{PROBES, Probe};
use server::Server;

pub(crate) fn run(args: &[String]) -> Outcome {
    peers::run(&[])?;
    let rusd = sh::rusd(args)?;
    let wanted = args.iter().find(|arg| PROBES.iter().any(|probe| probe.name == arg.as_str()));
    let (mut played, mut skipped, mut failed) = (0, 0, Vec::new());
    for probe in PROBES.iter().filter(|probe| wanted.is_none_or(|wanted| wanted == probe.name)) {
        let dir = match ready(probe) {
            Ok(dir) => dir,
            Err(reason) => {
                println!("SKIPPED clients {}: {reason}", probe.name);
                skipped += 1;
                continue;
            }
        };
        for (side, program) in [("etcd", peers::directory().join("etcd")), ("rusd", rusd.clone())] {
            match play(probe, &dir, &program) {
                Ok(said) => {
                    println!("  {:<12} on {side}: {said}", probe.name);
                    played += 1;
                }
                Err(error) => {
                    println!("  {:<12} on {side}: FAILED\n{error}", probe.name);
                    failed.push(format!("{} on {side}", probe.name));
                }
            }
        }
    }
    println!("Patroni has a drill of its own, on three members: cargo xtask patroni [--secure]");
    println!("clients: {played} passed, {} failed, {skipped} skipped", failed.len());
    match &failed[..] {
        [] if (played == 0 || skipped > 0) && !sh::allows_skips(args) => {
            Err(format!("{skipped} weren't tried (--allow-skips takes that for an answer)").into())
        }
        [] => Ok(()),
        failed => Err(failed.join(", ").into()),
    }
}

/// Installs what a probe is made of, and gives its directory.
fn ready(probe: &Probe) -> Result<PathBuf, String> {
    for (program, argument) in probe.needs {
        let there = std::process::Command::new(program).arg(argument).output();
        if !there.is_ok_and(|output| output.status.success()) {
            return Err(format!("there is no `{program}`"));
        }
    }
    let dir = sh::target().join("clients").join(probe.name);
    std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
    (probe.install)(&dir)?;
    Ok(dir)
}

/// Runs a probe on a fresh server; the last line that it says.
fn play(probe: &Probe, dir: &Path, program: &Path) -> Result<String, Box<dyn std::error::Error>> {
    let server = Server::start(program, &dir.join("server"), probe.flags)?;
    for (path, body) in probe.before {
        server.post(path, body)?;
    }
    let mut command = (probe.command)(dir, &server.url())?;
    let output = command.output().map_err(|error| format!("{:?} does not start: {error}", command.get_program()))?;
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    if !output.status.success() {
        return Err(format!("{}{}", text[0], text[1]).into());
    }
    (probe.verdict)(&text[0]).ok_or_else(|| format!("it doesn't say how it went:\n{}", text[0]).into())
}
