//! The page and its table.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{Line, PLOTS, Record, Run};

/// `latest.md`.
pub(super) fn page(records: &[Record], lines: &[Line<'_>], sides: &[&'static str], known: &[&'static str]) -> String {
    let mut page = String::from("# rusd against etcd\n\n");
    let _ = writeln!(page, "Written by `cargo xtask bench`; don't edit.\n");
    for (name, of) in [("commit", (|run| &run.commit) as fn(&Run) -> &String), ("machine", |run| &run.machine)] {
        let _ = writeln!(page, "- {name}: {}", each(records, of));
    }
    let _ = writeln!(
        page,
        "- etcd: {}\n\
         - fsync on, server pinned to one core and generator to another; sides alternate, median of the rounds\n\
         - ratio: how much better than etcd, whatever the figure; ± is the spread over the rounds\n",
        each(records, |run| &run.etcd),
    );
    for (file, title, metric) in PLOTS {
        if lines.iter().any(|line| line.metric == metric) {
            let _ = writeln!(page, "![{title}]({file})\n");
        }
    }
    page.push_str(&table(lines, sides));
    page.push_str(&missing(records, known));
    page.push_str(&runs(records));
    page
}

/// Each thing that the runs say, once.
fn each(records: &[Record], of: fn(&Run) -> &String) -> String {
    let all: BTreeSet<_> = records.iter().map(|record| of(&record.run).as_str()).collect();
    all.into_iter().collect::<Vec<_>>().join(", ")
}

/// What has no figures, and why.
pub(super) fn missing(records: &[Record], known: &[&'static str]) -> String {
    let mut list = String::new();
    for record in records {
        for (side, why) in &record.failed {
            let _ = writeln!(list, "- {}, {side}: {why}", record.row);
        }
    }
    for row in known.iter().filter(|row| records.iter().all(|record| record.row != **row)) {
        let _ = writeln!(list, "- {row}: not measured yet");
    }
    if list.is_empty() { list } else { format!("\nWhat is missing, in some round at least:\n\n{list}") }
}

/// Of which commit rows are, and how far their figures can be trusted: one line for neighbours of one run.
fn runs(records: &[Record]) -> String {
    let mut table = String::from("\nHow rows were measured, and how busy the machine was meanwhile:\n\n");
    table.push_str("| rows from | commit | rounds | load at the start | at the end | CPU that others took |\n");
    table.push_str("|---|---|---:|---:|---:|---:|\n");
    let mut before = None;
    for Record { row, run, .. } in records {
        if before.replace(run) != Some(run) {
            let (Run { commit, rounds, .. }, (begun, ended)) = (run, run.busy.load);
            let others = run.busy.others * 100.0;
            let _ = writeln!(table, "| {row} | {commit} | {rounds} | {begun:.2} | {ended:.2} | {others:.0} % |");
        }
    }
    table
}

/// One line a figure.
pub(super) fn table(lines: &[Line<'_>], sides: &[&'static str]) -> String {
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
    use super::super::kept::record;
    use super::*;
    use crate::rows::Metric;

    #[test]
    fn a_failed_side_is_a_dash() {
        let lines = [Line { row: "put", metric: Metric::Rate, sides: vec![Some((21_000.0, 0.1)), None] }];
        let table = table(&lines, &["etcd", "rusd"]);
        assert!(table.ends_with("| put | a second | 21.0 k ±5% | – | – |\n"), "{table}");
    }

    #[test]
    fn the_page_says_how_each_row_came_about_and_what_is_missing() {
        let records = [record("put", "one"), record("get", "one"), record("list", "two")];
        let runs = runs(&records);
        assert!(runs.contains("| put | one | 3 | 0.50 | 1.25 | 3 % |\n| list | two | 3 |"), "{runs}");
        assert_eq!(each(&records, |run| &run.commit), "one, two");
        let missing = missing(&records[..1], &["put", "get"]);
        assert!(missing.ends_with("\n\n- put, rusd: it ended\n- get: not measured yet\n"), "{missing}");
    }

    #[test]
    fn numbers_have_three_figures() {
        let texts = [0.0, 0.1234, 1.234, 12.34, 1234.0, 21_234.0, 1_234_567.0].map(number);
        assert_eq!(texts, ["0", "0.123", "1.23", "12.3", "1234", "21.2 k", "1.23 M"]);
    }
}
