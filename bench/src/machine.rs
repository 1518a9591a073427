//! The machine: which core a process may use, what to write down of it, and how busy others keep it.

use std::fs;
use std::io;
use std::process::Command;

use rustix::thread::{CpuSet, sched_setaffinity};
use serde::{Deserialize, Serialize};

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

/// How busy the machine was while a group of rows ran. Figures from a busy machine are worth less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Busy {
    /// Load average of the last minute at the beginning and at the end.
    pub(crate) load: (f64, f64),
    /// The part of all cores' time that went to processes that are none of ours, 0 to 1.
    pub(crate) others: f64,
}

/// The machine's clocks at one moment, in ticks of the kernel.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Look {
    load: f64,
    total: f64,
    busy: f64,
    own: f64,
}

impl Look {
    /// Now. What can't be read counts as 0.
    pub(crate) fn now() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (total, busy) = all_ticks(&read("/proc/stat"));
        Self { load: load(&read("/proc/loadavg")), total, busy, own: own_ticks(&read("/proc/self/stat")) }
    }

    /// The load average of the last minute.
    pub(crate) fn load(&self) -> f64 {
        self.load
    }

    /// What was between an earlier look and this one. Servers count as ours once they have ended.
    pub(crate) fn since(&self, earlier: &Self) -> Busy {
        let (total, busy) = (self.total - earlier.total, self.busy - earlier.busy);
        let others = (busy - (self.own - earlier.own)).max(0.0);
        Busy { load: (earlier.load, self.load), others: if total > 0.0 { others / total } else { 0.0 } }
    }
}

/// The load average of the last minute.
fn load(text: &str) -> f64 {
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// All ticks of all cores, and those in which they worked.
fn all_ticks(stat: &str) -> (f64, f64) {
    let ticks: Vec<f64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|word| word.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal; guests are in user already.
    let sum = |at: &[usize]| at.iter().filter_map(|at| ticks.get(*at)).sum::<f64>();
    (sum(&[0, 1, 2, 3, 4, 5, 6, 7]), sum(&[0, 1, 2, 5, 6]))
}

/// Ticks of this process and of those that it has waited for.
fn own_ticks(stat: &str) -> f64 {
    // The name may hold spaces and brackets; behind it stand the state and eleven more before utime.
    let after = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    after.split_whitespace().skip(11).take(4).filter_map(|word| word.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_read_as_the_kernel_writes_them() {
        assert_eq!(all_ticks("cpu  10 1 5 80 2 1 1 3 4 0\ncpu0 1 1 1 1\n"), (103.0, 18.0));
        assert_eq!(own_ticks("42 (a b) c) S 1 2 3 4 5 6 7 8 9 10 100 20 3 4 20 0"), 127.0);
        assert_eq!((load("1.25 0.9 0.5 2/100 7\n"), load("")), (1.25, 0.0));
    }

    #[test]
    fn what_others_took_is_what_we_did_not() {
        let before = Look { load: 0.5, total: 1000.0, busy: 100.0, own: 50.0 };
        let after = Look { load: 2.0, total: 2000.0, busy: 700.0, own: 350.0 };
        assert_eq!(after.since(&before), Busy { load: (0.5, 2.0), others: 0.3 });
        assert_eq!(before.since(&before).others, 0.0);
    }
}
