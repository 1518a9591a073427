//! What is written down: medians over the rounds, ratios to the first side, tables and plots.

mod markdown;
mod svg;

use std::fs;
use std::io;
use std::path::Path;

use crate::machine::Busy;
use crate::rows::{Bench, Metric};

/// A row's figure: by side, the median of the rounds and their spread.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) row: &'static str,
    pub(crate) metric: Metric,
    /// Median and spread (largest less smallest, over the median), by side; none where it failed.
    pub(crate) sides: Vec<Option<(f64, f64)>>,
}

impl Line {
    /// How much better than the first side another one is: 2 means twice as good.
    pub(crate) fn ratio(&self, side: usize) -> Option<f64> {
        let ((first, _), (other, _)) = ((*self.sides.first()?)?, (*self.sides.get(side)?)?);
        if first <= 0.0 || other <= 0.0 {
            return None;
        }
        Some(if self.metric.more_is_better() { other / first } else { first / other })
    }
}

/// Sums up the rounds.
pub(crate) fn lines(bench: &Bench, sides: &[&'static str]) -> Vec<Line> {
    let mut lines = Vec::new();
    for row in &bench.order {
        let rounds = |side| bench.results.get(&(*row, side)).map_or(&[][..], Vec::as_slice);
        let metrics = sides.iter().find_map(|side| rounds(side).first());
        for (metric, _) in metrics.into_iter().flatten() {
            let of_side = |side: &&'static str| {
                let values: Vec<f64> =
                    rounds(side).iter().flatten().filter(|(m, _)| m == metric).map(|(_, value)| *value).collect();
                median(values)
            };
            lines.push(Line { row, metric: *metric, sides: sides.iter().map(of_side).collect() });
        }
    }
    lines
}

fn median(mut values: Vec<f64>) -> Option<(f64, f64)> {
    values.sort_by(f64::total_cmp);
    let middle = *values.get(values.len() / 2)?;
    let spread = values.last()? - values.first()?;
    Some((middle, if middle > 0.0 { spread / middle } else { 0.0 }))
}

/// What stands above the table.
#[derive(Debug)]
pub(crate) struct Heading {
    pub(crate) commit: String,
    pub(crate) machine: String,
    pub(crate) versions: Vec<(&'static str, String)>,
    pub(crate) rounds: usize,
    pub(crate) quick: bool,
    /// How busy the machine was, by the first row of each group.
    pub(crate) busy: Vec<(&'static str, Busy)>,
}

/// Writes `latest.md` and the plots into `dir`.
///
/// # Errors
/// Those of the files.
pub(crate) fn write(dir: &Path, heading: &Heading, lines: &[Line], sides: &[&'static str]) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for (file, title, metric) in PLOTS {
        fs::write(dir.join(file), svg::bars(title, metric, lines, sides))?;
    }
    fs::write(dir.join("latest.md"), markdown::page(heading, lines, sides))
}

/// File, title, figure.
const PLOTS: [(&str, &str, Metric); 4] = [
    ("throughput.svg", "Throughput against etcd (longer is better)", Metric::Rate),
    ("cpu.svg", "Server CPU for one, etcd against rusd (longer is better)", Metric::CpuUs),
    ("p99.svg", "p99 latency, etcd against rusd (longer is better)", Metric::P99Ms),
    ("memory.svg", "Memory, etcd against rusd (longer is better)", Metric::MemoryMib),
];

/// The table for the terminal.
pub(crate) fn terminal(lines: &[Line], sides: &[&'static str]) -> String {
    markdown::table(lines, sides)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_above_one_is_better_whatever_the_figure() {
        let line = |metric| Line { row: "r", metric, sides: vec![Some((10.0, 0.0)), Some((20.0, 0.0)), None] };
        assert_eq!(line(Metric::Rate).ratio(1), Some(2.0));
        assert_eq!(line(Metric::P99Ms).ratio(1), Some(0.5));
        assert_eq!(line(Metric::P99Ms).ratio(2), None);
    }

    #[test]
    fn the_median_of_three_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some((2.0, 1.0)));
        assert_eq!(median(Vec::new()), None);
    }
}
