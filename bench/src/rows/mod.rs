//! The rows of the table. A group of rows shares one server, started anew for each side and round.
//!
//! To add a row: a function in one of the groups that calls [`Bench::row`] with its name.

mod cluster;
mod failover;
mod kv;
mod lease;
mod list;
mod loads;
mod paced;
mod size;
mod start;
mod users;
mod watch;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::load::{Measured, Plan};
use crate::server::{Side, Target};

/// What a figure is: how it is written, and which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Metric {
    /// A second; more is better.
    Rate,
    /// CPU of the server for one, in microseconds.
    CpuUs,
    /// Milliseconds that half stay below.
    P50Ms,
    /// Milliseconds that 99 of 100 stay below.
    P99Ms,
    /// Milliseconds that 999 of 1000 stay below.
    P999Ms,
    /// The longest, in milliseconds.
    MaxMs,
    /// Seconds for all of it.
    Secs,
    /// Seconds that half of several tries took at most.
    MedianSecs,
    /// Seconds that the slowest of them took.
    WorstSecs,
    /// Resident memory, in MiB.
    MemoryMib,
    /// The most that it was.
    PeakMib,
    /// Resident memory that is no file's, in MiB.
    AnonymousMib,
    /// On the disk, in MiB.
    DiskMib,
    /// Given to the disk to write, in MiB.
    WrittenMib,
}

impl Metric {
    /// Its heading.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Rate => "a second",
            Self::CpuUs => "server CPU, µs each",
            Self::P50Ms => "p50, ms",
            Self::P99Ms => "p99, ms",
            Self::P999Ms => "p99.9, ms",
            Self::MaxMs => "max, ms",
            Self::Secs => "seconds",
            Self::MedianSecs => "median, seconds",
            Self::WorstSecs => "worst, seconds",
            Self::MemoryMib => "memory, MiB",
            Self::PeakMib => "peak memory, MiB",
            Self::AnonymousMib => "of it not a file's, MiB",
            Self::DiskMib => "disk, MiB",
            Self::WrittenMib => "given to the disk, MiB",
        }
    }

    /// Whether more is better.
    pub(crate) const fn more_is_better(self) -> bool {
        matches!(self, Self::Rate)
    }
}

/// Figures of one row on one side in one round.
pub(crate) type Figures = Vec<(Metric, f64)>;

/// What was asked for, and what was measured so far.
#[derive(Debug)]
pub(crate) struct Bench {
    /// Only rows whose name contains one of these, which `|` divides.
    pub(crate) filter: String,
    /// Small sizes, short times.
    pub(crate) quick: bool,
    /// Where servers keep their data and logs.
    pub(crate) scratch: PathBuf,
    /// Row names in the order of their first figure.
    pub(crate) order: Vec<&'static str>,
    /// Figures by row and side, one entry a round.
    pub(crate) results: BTreeMap<(&'static str, &'static str), Vec<Figures>>,
    /// Why a row has no figures of a side in some round.
    pub(crate) failed: BTreeMap<(&'static str, &'static str), String>,
}

impl Bench {
    /// Nothing measured yet.
    pub(crate) fn new(filter: String, quick: bool, scratch: PathBuf) -> Self {
        Self { filter, quick, scratch, order: Vec::new(), results: BTreeMap::new(), failed: BTreeMap::new() }
    }

    /// Whether any of these rows is wanted.
    pub(crate) fn wants(&self, names: &[&'static str]) -> bool {
        names.iter().any(|name| self.filter.split('|').any(|text| name.contains(text)))
    }

    /// Measures a row if it is wanted; a failure is told, and kept to be shown in the figures' place.
    pub(crate) fn row(&mut self, name: &'static str, side: &Side, measure: impl FnOnce(&Self) -> io::Result<Figures>) {
        if !self.wants(&[name]) {
            return;
        }
        if !self.order.contains(&name) {
            self.order.push(name);
        }
        match measure(self) {
            Ok(figures) => {
                let shown: Vec<_> = figures.iter().map(|(m, value)| format!("{} {value:.2}", m.title())).collect();
                eprintln!("  {name}: {}", shown.join(", "));
                self.results.entry((name, side.name)).or_default().push(figures);
            }
            Err(error) => {
                eprintln!("  {name}: FAILED: {error}");
                self.failed.insert((name, side.name), error.to_string());
            }
        }
    }

    /// Notes that a group came to an end before some of its rows were measured in this round, from 0.
    pub(crate) fn ended(&mut self, rows: &[&'static str], side: &Side, round: usize, error: &io::Error) {
        for row in rows {
            let at = (*row, side.name);
            if self.results.get(&at).map_or(0, Vec::len) <= round && !self.failed.contains_key(&at) {
                self.row(row, side, |_| Err(io::Error::other(error.to_string())));
            }
        }
    }

    /// Waits until the server has done what earlier rows left it to do, so that a row pays for itself
    /// only; gives up after a while, since some servers never rest.
    pub(crate) fn settle(&self, server: &impl Target) {
        const STEP: Duration = Duration::from_millis(200);
        const IDLE_SHARE: f64 = 0.06;
        let steps = if self.quick { 25 } else { 75 };
        for _ in 0..steps {
            let before = server.cpu_secs();
            std::thread::sleep(STEP);
            if server.cpu_secs() - before <= IDLE_SHARE * STEP.as_secs_f64() {
                return;
            }
        }
    }

    /// A closed loop of the usual length.
    pub(crate) fn plan(&self, in_flight: u64) -> Plan {
        let (warm_up, measure) = if self.quick { (500, 2_000) } else { (500, 3_000) };
        Plan { in_flight, warm_up: Duration::from_millis(warm_up), measure: Duration::from_millis(measure) }
    }

    /// A size, a tenth of it when quick.
    pub(crate) fn size(&self, full: u64) -> u64 {
        if self.quick { full / 10 } else { full }
    }
}

/// The figures that every closed loop has.
pub(crate) fn figures(measured: &Measured) -> Figures {
    vec![
        (Metric::Rate, measured.rate()),
        (Metric::CpuUs, measured.cpu_us()),
        (Metric::P50Ms, measured.latency.percentile_ms(0.5)),
        (Metric::P99Ms, measured.latency.percentile_ms(0.99)),
        (Metric::MaxMs, measured.latency.max_ms()),
    ]
}

/// A group: the names of its rows, and what measures them on one side.
pub(crate) struct Group {
    pub(crate) rows: &'static [&'static str],
    pub(crate) run: fn(&mut Bench, &Side) -> io::Result<()>,
    /// Rounds at most: what takes minutes is measured once.
    pub(crate) rounds_max: usize,
}

/// All of them.
pub(crate) const GROUPS: &[Group] = &[
    Group { rows: kv::ROWS, run: kv::run, rounds_max: usize::MAX },
    Group { rows: users::ROWS, run: users::run, rounds_max: usize::MAX },
    Group { rows: list::ROWS, run: list::run, rounds_max: usize::MAX },
    Group { rows: watch::ROWS, run: watch::run, rounds_max: usize::MAX },
    Group { rows: lease::ROWS, run: lease::run, rounds_max: usize::MAX },
    Group { rows: start::ROWS, run: start::run, rounds_max: usize::MAX },
    Group { rows: cluster::ROWS, run: cluster::run, rounds_max: usize::MAX },
    Group { rows: paced::ROWS, run: paced::run, rounds_max: 1 },
    Group { rows: failover::ROWS, run: failover::run, rounds_max: 1 },
    Group { rows: cluster::BEHIND_ROWS, run: cluster::run_behind, rounds_max: 1 },
    Group { rows: cluster::BEHIND_BUSY_ROWS, run: cluster::run_behind_busy, rounds_max: 1 },
    Group { rows: lease::EXPIRY_ROWS, run: lease::run_expiry, rounds_max: 1 },
    Group { rows: size::ROWS, run: size::run, rounds_max: 1 },
    Group { rows: size::KEPT_ROWS, run: size::run_kept, rounds_max: 1 },
    Group { rows: size::CHURN_ROWS, run: size::run_churn, rounds_max: 1 },
];
