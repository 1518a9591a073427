//! What is written down: medians over the rounds, ratios to the first side, tables and plots.
//!
//! ```text
//! rows' figures ─► kept (a record a row, in figures.jsonl) ─► Line (a figure by side) ─► markdown, svg
//! ```

mod kept;
mod markdown;
mod svg;

use std::fs;
use std::io;
use std::path::Path;

pub(crate) use kept::{Kept, Record, Run, records};

use crate::rows::Metric;

/// A row's figure: by side, the median of the rounds and their spread.
#[derive(Clone, Debug)]
pub(crate) struct Line<'a> {
    pub(crate) row: &'a str,
    pub(crate) metric: Metric,
    /// Median and spread (largest less smallest, over the median), by side; none where it failed.
    pub(crate) sides: Vec<Option<(f64, f64)>>,
}

impl Line<'_> {
    /// How much better than the first side another one is: 2 means twice as good.
    pub(crate) fn ratio(&self, side: usize) -> Option<f64> {
        let ((first, _), (other, _)) = ((*self.sides.first()?)?, (*self.sides.get(side)?)?);
        if first <= 0.0 || other <= 0.0 {
            return None;
        }
        Some(if self.metric.more_is_better() { other / first } else { first / other })
    }
}

/// The figures of records, line by line.
fn lines<'a>(records: &'a [Record], sides: &[&'static str]) -> Vec<Line<'a>> {
    let of_record = |record: &'a Record| {
        let line = |figure: &kept::Figure| {
            let values = sides.iter().map(|side| figure.sides.get(*side).copied());
            Line { row: &record.row, metric: figure.metric, sides: values.collect() }
        };
        record.figures.iter().map(line).collect::<Vec<_>>()
    };
    records.iter().flat_map(of_record).collect()
}

/// Writes the figures, `latest.md` and the plots into `dir`. `known` are all rows that there are.
///
/// # Errors
/// Those of the files.
pub(crate) fn write(dir: &Path, kept: &Kept, sides: &[&'static str], known: &[&'static str]) -> io::Result<()> {
    kept.save(dir)?;
    let lines = lines(&kept.rows, sides);
    for (file, title, metric) in PLOTS {
        fs::write(dir.join(file), svg::bars(title, metric, &lines, sides))?;
    }
    fs::write(dir.join("latest.md"), markdown::page(&kept.rows, &lines, sides, known))
}

/// File, title, figure.
const PLOTS: [(&str, &str, Metric); 4] = [
    ("throughput.svg", "Throughput against etcd (longer is better)", Metric::Rate),
    ("cpu.svg", "Server CPU for one, etcd against rusd (longer is better)", Metric::CpuUs),
    ("p99.svg", "p99 latency, etcd against rusd (longer is better)", Metric::P99Ms),
    ("memory.svg", "Memory, etcd against rusd (longer is better)", Metric::MemoryMib),
];

/// The table for the terminal, and what is missing in it.
pub(crate) fn terminal(records: &[Record], sides: &[&'static str]) -> String {
    markdown::table(&lines(records, sides), sides) + &markdown::missing(records, &[])
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
}
