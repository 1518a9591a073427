//! The project's own commands: `cargo xtask NAME [ARGUMENTS]`.
//!
//! ```text
//! main ─► COMMANDS (name, help, run) ─► one module a command ─► sh (child processes, repository paths)
//! ```
//!
//! To add a command: one module with `pub fn run(args: &[String]) -> Outcome`, one line in [`COMMANDS`].

mod bench;
mod differential;
mod etcdctl;
mod faults;
mod golden;
mod kube;
mod peers;
mod sh;
mod supply;
mod tally;
mod verify;

use std::process::ExitCode;

/// What a command returns; the text of the error is shown to the user.
type Outcome = Result<(), Box<dyn std::error::Error>>;

struct Command {
    name: &'static str,
    help: &'static str,
    run: fn(&[String]) -> Outcome,
}

const COMMANDS: &[Command] = &[
    Command {
        name: "verify",
        help: "all that CI runs; fails at the first broken step [--allow-skips]",
        run: verify::run,
    },
    Command { name: "peers", help: "build etcd and its tools from pinned Go modules", run: peers::run },
    Command { name: "supply", help: "check the dependencies' licences, sources and bans", run: supply::run },
    Command {
        name: "kube",
        help: "a real kube-apiserver on rusd [--backend E] [--rusd PATH] [--build-only]",
        run: kube::run,
    },
    Command {
        name: "bench",
        help: "rusd and etcd side by side [--quick] [--row TEXT] [--rounds N] [--sides A,B] [--list]",
        run: bench::run,
    },
    Command {
        name: "etcdctl",
        help: "one session of etcd's own tools on etcd and rusd [--rusd PATH] [--backend E] [--perf]",
        run: etcdctl::run,
    },
    Command { name: "golden", help: "play the golden conversations [--record] [NAME]", run: golden::run },
    Command {
        name: "faults",
        help: "kills, power cuts, full disks, damage [NAME] [--rounds N] [--backend E] [--seed S]",
        run: faults::run,
    },
    Command {
        name: "power-cut",
        help: "cut the power under rusd, again and again [--cuts N] [--backend E] [--seed S]",
        run: faults::power_cut,
    },
    Command {
        name: "differential",
        help: "random steps on etcd and rusd side by side [--steps N] [--seed S] [--backend E]",
        run: differential::run,
    },
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(command) = args.first().and_then(|name| COMMANDS.iter().find(|c| c.name == name)) else {
        eprintln!("usage: cargo xtask COMMAND\n");
        for command in COMMANDS {
            eprintln!("  {:<14} {}", command.name, command.help);
        }
        return ExitCode::from(2);
    };
    match (command.run)(&args[1..]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {}: {error}", command.name);
            ExitCode::FAILURE
        }
    }
}
