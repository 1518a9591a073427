//! `cargo xtask patroni [--secure] [--real] [--allow-skips] [--rusd PATH]`: Patroni and PostgreSQL through a bad day, on three members.
//!
//! ```text
//! install (venv, PostgreSQL, a user that isn't root) ─► dcs (three members) + node (three Patronis) + rows (a writer)
//!   ─► story: steps, each checked ─► every acknowledged row is there ─► logs: nothing that etcd wouldn't say
//! ```
//! `--real` has etcd in rusd's place, to compare with; `--secure` turns on TLS and users. It takes about four minutes,
//! nearly all of it waiting. What can't be installed is said, and is a failure unless `--allow-skips`.

mod dcs;
mod install;
mod logs;
mod node;
mod rows;
mod story;

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::{Outcome, peers, sh};
use dcs::Dcs;
use story::Drill;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How long anything at all may take here.
const WAIT_MAX: Duration = Duration::from_secs(90);

pub(crate) fn run(args: &[String]) -> Outcome {
    let secure = args.iter().any(|arg| arg == "--secure");
    let real = args.iter().any(|arg| arg == "--real");
    peers::run(&[])?;
    let server = if real { peers::directory().join("etcd") } else { sh::rusd(args)? };
    let tools = match install::tools() {
        Ok(tools) => tools,
        Err(reason) => {
            println!("SKIPPED patroni: {reason}");
            let skips = "nothing was tried (--allow-skips takes that for an answer)";
            return if sh::allows_skips(args) { Ok(()) } else { Err(skips.into()) };
        }
    };
    let side = if real { "etcd" } else { "rusd" };
    let run = sh::target().join("patroni").join(side);
    if run.exists() {
        fs::remove_dir_all(&run)?;
    }
    fs::create_dir_all(&run)?;
    let begun = Instant::now();
    let dcs = Dcs::start(&server, &run, secure)?;
    let mut drill = Drill::start(tools, dcs, &run)?;
    let told = drill.tell();
    drill.end();
    let steps = told.map_err(|error| format!("{error}; the logs are in {}", run.display()))?;
    let strange = logs::strange(&run)?;
    for line in &strange {
        println!("STRANGE {line}");
    }
    if !real && !strange.is_empty() {
        return Err(format!("Patroni's logs in {} say what they don't say on etcd", run.display()).into());
    }
    println!("patroni: {steps} steps on {side} in {:.0} s", begun.elapsed().as_secs_f64());
    println!("{steps} passed, 0 failed");
    Ok(())
}

/// Waits until `holds`; an error names what was waited for.
fn wait(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let begun = Instant::now();
    while !holds()? {
        if begun.elapsed() > WAIT_MAX {
            return Err(format!("{what}: not within {WAIT_MAX:?}").into());
        }
        sleep(Duration::from_millis(100));
    }
    Ok(begun.elapsed())
}
