//! The project's own commands: `cargo xtask NAME [ARGUMENTS]`.
//!
//! ```text
//! main ─► COMMANDS (name, help, what it takes, run) ─► one module a command ─► sh (child processes, repository paths)
//! ```
//!
//! To add a command: one module with `pub fn run(args: &[String]) -> Outcome`, one line in [`COMMANDS`].

mod again;
mod bench;
mod certs;
mod chart;
mod clients;
mod cluster;
mod debian;
mod differential;
mod etcd_suite;
mod etcdctl;
mod faults;
mod golden;
mod image;
mod import;
mod kube;
mod package;
mod patroni;
mod peers;
mod pods;
mod ports;
mod report;
mod secure;
mod sh;
mod simulate;
#[path = "../../tests/support/subnet.rs"]
mod subnet;
mod supply;
mod tally;
mod usage;
mod verify;
#[path = "../../tests/support/yaml.rs"]
mod yaml;

use std::process::ExitCode;

use usage::{Takes, flag, with};

/// What a command returns; the text of the error is shown to the user.
type Outcome = Result<(), Box<dyn std::error::Error>>;

struct Command {
    name: &'static str,
    help: &'static str,
    takes: Takes,
    run: fn(&[String]) -> Outcome,
}

const COMMANDS: &[Command] = &[
    Command {
        name: "verify",
        help: "all that CI runs; fails at the first broken step",
        takes: Takes { word: "", options: &[flag("--allow-skips")] },
        run: verify::run,
    },
    Command {
        name: "peers",
        help: "build etcd and its tools from pinned Go modules",
        takes: Takes::NOTHING,
        run: peers::run,
    },
    Command {
        name: "supply",
        help: "hold the dependencies against deny.toml with cargo-deny",
        takes: Takes::NOTHING,
        run: supply::run,
    },
    Command {
        name: "kube",
        help: "a real control plane on three members of rusd: story, or a day of it beside etcd",
        takes: Takes {
            word: "STORY",
            options: &[
                with("--backend", "E"),
                with("--rusd", "PATH"),
                flag("--build-only"),
                with("--side", "NAME"),
                with("--nodes", "N"),
                with("--pods", "N"),
                with("--maps", "N"),
                with("--seconds", "N"),
                with("--rounds", "N"),
                flag("--record"),
            ],
        },
        run: kube::run,
    },
    Command {
        name: "chart",
        help: "lint the Helm chart, hold what it renders against goldens, try what it must refuse and alert",
        takes: Takes { word: "", options: &[flag("--record"), flag("--allow-skips")] },
        run: chart::run,
    },
    Command {
        name: "image",
        help: "the container images, built by buildah and run by runc: chart, compose file and kubeadm have them",
        takes: Takes { word: "", options: &[with("--arch", "amd64|arm64"), flag("--twice"), flag("--allow-skips")] },
        run: image::run,
    },
    Command {
        name: "package",
        help: "the Debian package, installed and started in a Debian of its own",
        takes: Takes {
            word: "",
            options: &[with("--arch", "amd64|arm64"), flag("--build-only"), flag("--allow-skips")],
        },
        run: package::run,
    },
    Command {
        name: "pods",
        help: "the chart's pods as processes in namespaces, through all that a release goes through",
        takes: Takes { word: "", options: &[flag("--allow-skips"), with("--rusd", "PATH"), with("--old", "PATH")] },
        run: pods::run,
    },
    Command {
        name: "bench",
        help: "rusd and etcd side by side",
        takes: Takes {
            word: "",
            options: &[
                flag("--quick"),
                with("--row", "TEXT"),
                with("--rounds", "N"),
                with("--sides", "A,B"),
                flag("--keep"),
                flag("--list"),
            ],
        },
        run: bench::run,
    },
    Command {
        name: "cluster",
        help: "a local cluster of N members (3), until Ctrl-C",
        takes: Takes { word: "N", options: &[with("--dir", "PATH"), with("--base-port", "P"), with("--rusd", "PATH")] },
        run: cluster::run,
    },
    Command {
        name: "etcdctl",
        help: "one session of etcd's own tools on etcd and rusd",
        takes: Takes { word: "", options: &[with("--rusd", "PATH"), with("--backend", "E"), flag("--perf")] },
        run: etcdctl::run,
    },
    Command {
        name: "clients",
        help: "clients of other languages on etcd and rusd",
        takes: Takes { word: "NAME", options: &[flag("--allow-skips"), with("--rusd", "PATH")] },
        run: clients::run,
    },
    Command {
        name: "patroni",
        help: "Patroni and PostgreSQL through kills, pauses and restarts, on three members",
        takes: Takes {
            word: "",
            options: &[flag("--secure"), flag("--real"), flag("--allow-skips"), with("--rusd", "PATH")],
        },
        run: patroni::run,
    },
    Command {
        name: "import",
        help: "moves of a million keys and of gigabytes from etcd and back",
        takes: Takes { word: "NAME", options: &[with("--gigabytes", "N"), with("--rusd", "PATH")] },
        run: import::run,
    },
    Command {
        name: "etcd-suite",
        help: "etcd's own suite, with rusd in etcd's place",
        takes: Takes {
            word: "",
            options: &[
                with("--run", "REGEX"),
                with("--part", "I/N"),
                flag("--fast"),
                flag("--real"),
                with("--rusd", "PATH"),
            ],
        },
        run: etcd_suite::run,
    },
    Command {
        name: "golden",
        help: "play the golden conversations",
        takes: Takes { word: "NAME", options: &[flag("--record")] },
        run: golden::run,
    },
    Command {
        name: "faults",
        help: "kills, pauses, partitions, power cuts, full disks, clock jumps, replacements, upgrades (--old) of members",
        takes: Takes {
            word: "NAME",
            options: &[with("--rounds", "N"), with("--backend", "E"), with("--seed", "S"), with("--old", "PATH")],
        },
        run: faults::run,
    },
    Command {
        name: "failpoints",
        help: "the process ends at each failpoint",
        takes: Takes { word: "", options: &[with("--rounds", "N"), with("--backend", "E"), with("--seed", "S")] },
        run: faults::failpoints,
    },
    Command {
        name: "power-cut",
        help: "cut the power under rusd, again and again",
        takes: Takes { word: "", options: &[with("--cuts", "N"), with("--backend", "E"), with("--seed", "S")] },
        run: faults::power_cut,
    },
    Command {
        name: "simulate",
        help: "clusters on simulated machines, from seeds",
        takes: Takes {
            word: "",
            options: &[with("--minutes", "N"), with("--seed", "S"), with("--members", "N"), flag("--planted")],
        },
        run: simulate::run,
    },
    Command {
        name: "differential",
        help: "random steps on etcd and rusd side by side",
        takes: Takes { word: "", options: &[with("--steps", "N"), with("--seed", "S"), with("--backend", "E")] },
        run: differential::run,
    },
];

fn usage() -> String {
    let lines =
        COMMANDS.iter().map(|c| format!("  {:<14} {} {}\n", c.name, c.help, c.takes.show()).replace(" \n", "\n"));
    format!("usage: cargo xtask COMMAND\n\n{}", lines.collect::<String>())
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, args)) = args.split_first() else {
        eprint!("{}", usage());
        return ExitCode::from(2);
    };
    let Some(command) = COMMANDS.iter().find(|c| c.name == name) else {
        if usage::is_help(std::slice::from_ref(name)) {
            print!("{}", usage());
            return ExitCode::SUCCESS;
        }
        let fault = usage::unknown("command", name, COMMANDS.iter().map(|c| c.name));
        eprint!("xtask: {fault}\n\n{}", usage());
        return ExitCode::from(2);
    };
    let takes = command.takes.show();
    let usage = format!("usage: cargo xtask {} {takes}\n\n{}", command.name, command.help);
    if usage::is_help(args) {
        println!("{usage}");
        return ExitCode::SUCCESS;
    }
    if let Err(fault) = command.takes.check(args) {
        eprintln!("xtask {}: {fault}\n\n{usage}", command.name);
        return ExitCode::from(2);
    }
    match (command.run)(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {}: {error}", command.name);
            ExitCode::FAILURE
        }
    }
}
