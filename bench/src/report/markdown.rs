//! The page and its table.

use std::fmt::Write as _;

use super::{Heading, Line, PLOTS};
use crate::machine::Busy;

/// `latest.md`.
pub(super) fn page(heading: &Heading, lines: &[Line], sides: &[&'static str]) -> String {
    let mut page = String::from("# rusd against etcd\n\n");
    let _ = writeln!(page, "Written by `cargo xtask bench`; don't edit.\n");
    let _ = writeln!(page, "- commit: {}\n- machine: {}", heading.commit, heading.machine);
    for (side, version) in &heading.versions {
        let _ = writeln!(page, "- {side}: {version}");
    }
    let _ = writeln!(
        page,
        "- one member, fsync on, server pinned to one core and generator to another; sides alternate, \
         median of {} round{}{}\n- ratio: how much better than etcd, whatever the figure; ± is the spread \
         over the rounds\n",
        heading.rounds,
        if heading.rounds == 1 { "" } else { "s" },
        if heading.quick { ", short (`--quick`)" } else { "" },
    );
    for (file, title, metric) in PLOTS {
        if lines.iter().any(|line| line.metric == metric) {
            let _ = writeln!(page, "![{title}]({file})\n");
        }
    }
    page.push_str(&table(lines, sides));
    page.push_str(&busy(&heading.busy));
    page
}

/// How far the figures can be trusted.
fn busy(groups: &[(&'static str, Busy)]) -> String {
    let mut table = String::from("\nHow busy the machine was, which figures have to be read with:\n\n");
    table.push_str("| rows from | load at the start | at the end | CPU that others took |\n|---|---:|---:|---:|\n");
    for (row, Busy { load: (before, after), others }) in groups {
        let _ = writeln!(table, "| {row} | {before:.2} | {after:.2} | {:.0} % |", others * 100.0);
    }
    table
}

/// One line a figure.
pub(super) fn table(lines: &[Line], sides: &[&'static str]) -> String {
    let mut table = String::from("| row | figure |");
    for side in sides {
        let _ = write!(table, " {side} |");
    }
    for side in sides.iter().skip(1) {
        let _ = write!(table, " {side} ratio |");
    }
    table.push_str("\n|---|---|");
    table.push_str(&"---:|".repeat(2 * sides.len() - 1));
    table.push('\n');
    let mut before = "";
    for line in lines {
        let _ = write!(table, "| {} | {} |", if line.row == before { "" } else { line.row }, line.metric.title());
        before = line.row;
        for value in &line.sides {
            let _ = match value {
                Some((value, spread)) if *spread >= 0.005 => {
                    write!(table, " {} ±{:.0}% |", number(*value), spread * 50.0)
                }
                Some((value, _)) => write!(table, " {} |", number(*value)),
                None => write!(table, " – |"),
            };
        }
        for side in 1..sides.len() {
            let _ = match line.ratio(side) {
                Some(ratio) => write!(table, " **{ratio:.2}×** |"),
                None => write!(table, " – |"),
            };
        }
        table.push('\n');
    }
    table
}

/// Three figures that count.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        v if v < 1.0 => format!("{value:.3}"),
        v if v < 10.0 => format!("{value:.2}"),
        v if v < 100.0 => format!("{value:.1}"),
        v if v < 10_000.0 => format!("{value:.0}"),
        v if v < 1_000_000.0 => format!("{:.1} k", value / 1e3),
        _ => format!("{:.2} M", value / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Metric;

    #[test]
    fn a_failed_side_is_a_dash() {
        let lines = [Line { row: "put", metric: Metric::Rate, sides: vec![Some((21_000.0, 0.1)), None] }];
        let table = table(&lines, &["etcd", "rusd"]);
        assert!(table.ends_with("| put | a second | 21.0 k ±5% | – | – |\n"), "{table}");
    }

    #[test]
    fn the_page_says_how_busy_the_machine_was() {
        let table = busy(&[("put", Busy { load: (0.5, 1.25), others: 0.031 })]);
        assert!(table.ends_with("| put | 0.50 | 1.25 | 3 % |\n"), "{table}");
    }

    #[test]
    fn numbers_have_three_figures() {
        let texts = [0.0, 0.1234, 1.234, 12.34, 1234.0, 21_234.0, 1_234_567.0].map(number);
        assert_eq!(texts, ["0", "0.123", "1.23", "12.3", "1234", "21.2 k", "1.23 M"]);
    }
}
