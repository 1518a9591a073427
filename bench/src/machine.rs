//! The machine: which core a process may use, and what to write down of it.

use std::fs;
use std::io;
use std::process::Command;

use rustix::thread::{CpuSet, sched_setaffinity};

/// Where servers run.
pub(crate) const SERVER_CORE: usize = 0;
/// Where this program runs.
pub(crate) const GENERATOR_CORE: usize = 1;

/// Binds this thread, and the processes that it starts from now on, to a core.
///
/// # Errors
/// When the machine has no such core.
pub(crate) fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// Processor, cores, kernel.
pub(crate) fn describe() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("?", |(_, m)| m);
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, {cores} cores, Linux {}", kernel.trim())
}

/// The first line that a command prints, or "unknown".
pub(crate) fn first_line(program: &str, arguments: &[&str]) -> String {
    Command::new(program)
        .args(arguments)
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok()?.lines().next().map(str::to_owned))
        .unwrap_or_else(|| "unknown".to_owned())
}
