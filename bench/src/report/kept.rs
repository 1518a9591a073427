//! What was measured last of each row, in a file beside the page: a machine is seldom quiet for as long as all of them
//! take, so rows are measured at different times, and each says when it was.
//!
//! ```text
//! a group is through ─► records ─► Kept::take (a row in the place of what was known of it) ─► figures.jsonl ─► page
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::machine::Busy;
use crate::rows::{Bench, Metric};

/// The file's name: a line a row.
const FILE: &str = "figures.jsonl";

/// How figures came about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// rusd's.
    pub(crate) commit: String,
    pub(crate) machine: String,
    /// What etcd says of itself.
    pub(crate) etcd: String,
    pub(crate) rounds: usize,
    pub(crate) busy: Busy,
}

/// A figure: by side, the median of the rounds and their spread (largest less smallest, over the median).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) metric: Metric,
    pub(crate) sides: BTreeMap<String, (f64, f64)>,
}

/// A row, as it was measured last: all sides in the same run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) row: String,
    pub(crate) run: Run,
    pub(crate) figures: Vec<Figure>,
    /// By side, why a round has no figures.
    pub(crate) failed: BTreeMap<String, String>,
}

/// What came of the rows of a group that were wanted.
pub(crate) fn records(bench: &Bench, rows: &[&'static str], sides: &[&'static str], run: &Run) -> Vec<Record> {
    rows.iter()
        .filter(|row| bench.order.contains(row))
        .map(|row| {
            let rounds = |side: &&'static str| bench.results.get(&(*row, *side)).map_or(&[][..], Vec::as_slice);
            let metrics = sides.iter().find_map(|side| rounds(side).first());
            let figures = metrics.into_iter().flatten().map(|(metric, _)| {
                let of_side = |side: &&'static str| {
                    let all = rounds(side).iter().flatten();
                    let values = all.filter(|(known, _)| known == metric).map(|(_, value)| *value).collect();
                    Some(((*side).to_owned(), median(values)?))
                };
                Figure { metric: *metric, sides: sides.iter().filter_map(of_side).collect() }
            });
            let failed = sides.iter().filter_map(|side| {
                let why = bench.failed.get(&(*row, *side))?;
                Some(((*side).to_owned(), why.clone()))
            });
            Record { row: (*row).to_owned(), run: run.clone(), figures: figures.collect(), failed: failed.collect() }
        })
        .collect()
}

fn median(mut values: Vec<f64>) -> Option<(f64, f64)> {
    values.sort_by(f64::total_cmp);
    let middle = *values.get(values.len() / 2)?;
    let spread = values.last()? - values.first()?;
    Some((middle, if middle > 0.0 { spread / middle } else { 0.0 }))
}

/// The rows that were ever measured, in the table's order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Kept {
    pub(crate) rows: Vec<Record>,
}

impl Kept {
    /// What `dir` keeps; nothing if there is no file.
    ///
    /// # Errors
    /// Those of the file, and one that isn't such a file.
    pub(crate) fn load(dir: &Path) -> io::Result<Self> {
        let path = dir.join(FILE);
        match fs::read_to_string(&path) {
            Ok(text) => text
                .lines()
                .map(serde_json::from_str)
                .collect::<Result<_, _>>()
                .map(|rows| Self { rows })
                .map_err(|error| io::Error::other(format!("{}: {error}; remove it to begin anew", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Takes newer ones over. Those that no program measures any more go.
    pub(crate) fn take(&mut self, newer: Vec<Record>, known: &[&'static str]) {
        self.rows.retain(|old| newer.iter().all(|new| new.row != old.row));
        self.rows.extend(newer);
        let place = |record: &Record| known.iter().position(|row| *row == record.row);
        self.rows.retain(|record| place(record).is_some());
        self.rows.sort_by_key(place);
    }

    /// Writes them into `dir`.
    ///
    /// # Errors
    /// Those of the file.
    pub(crate) fn save(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        let mut text = String::new();
        for record in &self.rows {
            text.push_str(&serde_json::to_string(record)?);
            text.push('\n');
        }
        fs::write(dir.join(FILE), text)
    }
}

#[cfg(test)]
pub(super) fn record(row: &str, commit: &str) -> Record {
    let run = Run {
        commit: commit.to_owned(),
        machine: "a machine".to_owned(),
        etcd: "etcd".to_owned(),
        rounds: 3,
        busy: Busy { load: (0.5, 1.25), others: 0.031 },
    };
    let sides = BTreeMap::from([("etcd".to_owned(), (21_000.0, 0.1))]);
    let failed = BTreeMap::from([("rusd".to_owned(), "it ended".to_owned())]);
    Record { row: row.to_owned(), run, figures: vec![Figure { metric: Metric::Rate, sides }], failed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Side;

    #[test]
    fn the_median_of_three_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some((2.0, 1.0)));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn a_newer_row_takes_its_place_and_the_others_stay() {
        let dir = std::env::temp_dir().join(format!("rusd-bench-kept-{}", std::process::id()));
        let mut kept = Kept::default();
        let names =
            |kept: &Kept| kept.rows.iter().map(|row| format!("{} {}", row.row, row.run.commit)).collect::<Vec<_>>();
        kept.take(vec![record("get", "one"), record("gone", "one")], &["put", "get", "gone"]);
        kept.take(vec![record("put", "two")], &["put", "get"]);
        assert_eq!(names(&kept), ["put two", "get one"]);
        kept.take(vec![record("get", "three")], &["put", "get"]);
        assert_eq!(names(&kept), ["put two", "get three"]);
        kept.save(&dir).unwrap();
        assert_eq!(Kept::load(&dir).unwrap(), kept);
        fs::write(dir.join(FILE), "{").unwrap();
        assert!(Kept::load(&dir).unwrap_err().to_string().contains("remove it to begin anew"));
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(Kept::load(&dir).unwrap(), Kept::default());
    }

    #[test]
    fn a_side_without_figures_says_why() {
        let side = |name| Side { name, program: "x".into(), flags: &[] };
        let mut bench = Bench::new(String::new(), true, "x".into());
        bench.row("put", &side("etcd"), |_| Ok(vec![(Metric::Rate, 10.0)]));
        bench.row("put", &side("rusd"), |_| Err(io::Error::other("it ended")));
        let made = records(&bench, &["put", "get"], &["etcd", "rusd"], &record("", "one").run);
        assert_eq!(made.len(), 1, "get wasn't asked for");
        assert_eq!(made[0].figures[0].sides, BTreeMap::from([("etcd".to_owned(), (10.0, 0.0))]));
        assert_eq!(made[0].failed["rusd"], "it ended");
    }
}
