//! Bad wires between members in namespaces: packets that are lost by chance, that come late and out of order, or twice.
//!
//! ```text
//! sender ─► by chance ─┬► again, a copy (TEE)
//!                      └► a narrow queue beside the others' (htb, tbf): late, overtaken, lost where it is full ─► wire
//! wire ─► receiver ─► by chance lost, of which the sender hears nothing
//! ```
//! As `tc netem` would do it, which not every kernel has. It is TCP that has to deal with it, and members with what TCP makes
//! of it: answers that are late by its repeats, longer with each one; bytes are never wrong.

use std::io::Write as _;
use std::process::Command;

use crate::namespaces::Namespaces;

/// What becomes of packets in one direction, in so many of a hundred cases.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) lost: u8,
    pub(crate) late: u8,
    pub(crate) twice: u8,
}

/// The narrow queue: a packet of usual size takes 30 ms, and waits for those before it, no longer than that.
const NARROW: [&str; 6] = ["rate", "400kbit", "burst", "1600", "latency", "200ms"];

impl Namespaces {
    /// Whether there can be bad weather; said loudly for `test` if not.
    pub(crate) fn can_worsen(&self, test: &str) -> bool {
        let tried = self.worsen(0, 1, Weather { lost: 1, late: 1, twice: 1 });
        self.clear_up();
        if let Err(reason) = &tried {
            // Written past the test runner's capture, which would hide it in a passing test.
            writeln!(std::io::stdout(), "SKIPPED {test}: no packets can be lost by chance here: {reason}").ok();
        }
        tried.is_ok()
    }

    /// Makes one direction bad, until it clears up.
    pub(crate) fn worsen(&self, from: usize, to: usize, weather: Weather) -> Result<(), String> {
        let [sender, receiver] = [from, to].map(|at| self.address(at));
        let chance = |percent: u8| format!("{:.2}", f32::from(percent) / 100.0);
        let by_chance = ["-m", "statistic", "--mode", "random", "--probability"];
        let rule = |table_and_chain: &[&str], way: [&str; 2], percent: u8, target: &[&str]| {
            let chance = chance(percent);
            [&["iptables", "-w", "-t"], table_and_chain, &way[..], &by_chance[..], &[&*chance, "-j"], target]
                .concat()
                .join(" ")
        };
        if weather.lost > 0 {
            self.run(to, &rule(&["filter", "-A", "INPUT"], ["-s", &sender], weather.lost, &["DROP"]))?;
        }
        if weather.late > 0 {
            // It is there already if another direction of this member's is bad.
            if self.run(from, "tc qdisc add dev eth0 root handle 1: htb default 10").is_ok() {
                for class in ["1:10", "1:20"] {
                    self.run(
                        from,
                        &format!("tc class add dev eth0 parent 1: classid {class} htb rate 10gbit quantum 60000"),
                    )?;
                }
                self.run(from, &format!("tc qdisc add dev eth0 parent 1:20 tbf {}", NARROW.join(" ")))?;
            }
            let narrow = ["CLASSIFY", "--set-class", "1:20"];
            self.run(from, &rule(&["mangle", "-A", "POSTROUTING"], ["-d", &receiver], weather.late, &narrow))?;
        }
        if weather.twice > 0 {
            let again = ["TEE", "--gateway", &*receiver];
            self.run(from, &rule(&["mangle", "-A", "POSTROUTING"], ["-d", &receiver], weather.twice, &again))?;
        }
        Ok(())
    }

    /// All wires are good again.
    pub(crate) fn clear_up(&self) {
        for at in 0..self.len() {
            for command in
                ["iptables -w -F INPUT", "iptables -w -t mangle -F POSTROUTING", "tc qdisc del dev eth0 root"]
            {
                // There may be nothing to take away.
                let _ = self.run(at, command);
            }
        }
    }

    /// Packets that were lost by chance, that were to be late, and that came twice, since it was clear.
    pub(crate) fn suffered(&self) -> [u64; 3] {
        let mut sums = [0; 3];
        for at in 0..self.len() {
            for chain in ["filter -nvxL INPUT", "mangle -nvxL POSTROUTING"] {
                let listed = self.run(at, &format!("iptables -w -t {chain}")).unwrap();
                for (sum, target) in sums.iter_mut().zip(["DROP", "CLASSIFY", "TEE"]) {
                    let counts = listed.lines().filter_map(|line| {
                        let mut words = line.split_whitespace();
                        let packets = words.next()?.parse::<u64>().ok()?;
                        (words.nth(1)? == target).then_some(packets)
                    });
                    *sum += counts.sum::<u64>();
                }
            }
        }
        sums
    }

    /// Runs a command in a member's namespace; gives what it says.
    fn run(&self, at: usize, command: &str) -> Result<String, String> {
        let within = self.within(at);
        let output = Command::new(&within[0]).args(&within[1..]).args(command.split(' ')).output();
        let output = output.map_err(|error| format!("`ip`: {error}"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(format!("`{command}`: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}
