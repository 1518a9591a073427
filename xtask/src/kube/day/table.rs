//! Figures of both sides beside each other.

use std::fmt::Write as _;
use std::fs;

use super::Sizes;
use super::phases::Figures;

/// The table; of several rounds, the middle one of each figure.
pub(super) fn table(sides: &[(&str, Vec<Figures>)]) -> String {
    let names: Vec<_> = sides.iter().map(|(name, _)| *name).collect();
    let rounds = sides.iter().map(|(_, days)| days.len()).min().unwrap_or_default();
    let compare = match (sides.len(), rounds) {
        (2, 2..) => " ratio | rounds ahead |",
        (2, _) => " ratio |",
        _ => "",
    };
    let mut table = format!("| figure | {} |{compare}\n|---|", names.join(" | "));
    table += &"---:|".repeat(sides.len() + compare.matches('|').count());
    table.push('\n');
    let rows = sides.first().and_then(|(_, days)| days.first()).map_or(&[][..], Vec::as_slice);
    for (at, (name, unit, _)) in rows.iter().enumerate() {
        let values: Vec<f64> =
            sides.iter().map(|(_, days)| middle(days.iter().map(|day| day[at].2).collect())).collect();
        let unit = if unit.is_empty() { String::new() } else { format!(", {unit}") };
        // Written into a text, which takes everything.
        let _ = write!(table, "| {name}{unit} |");
        for value in &values {
            let _ = write!(table, " {} |", show(*value));
        }
        if let [first, second] = values[..] {
            let ratio = if second > 0.0 { format!("{:.2}×", first / second) } else { String::new() };
            let _ = write!(table, " {ratio} |");
            if let [(_, first), (_, second)] = sides
                && rounds > 1
            {
                let ahead = first.iter().zip(second).filter(|(first, second)| second[at].2 < first[at].2).count();
                let _ = write!(table, " {ahead} of {rounds} |");
            }
        }
        table.push('\n');
    }
    table
}

/// The page that is kept.
pub(super) fn page(
    table: &str,
    sizes: &Sizes,
    versions: &[String],
    commit: &str,
    rounds: usize,
    members: usize,
) -> std::io::Result<String> {
    let cpu = fs::read_to_string("/proc/cpuinfo")?;
    let names: Vec<_> = cpu.lines().filter_map(|line| line.strip_prefix("model name")).collect();
    let cpu = names.first().map_or("", |name| name.trim_start_matches([' ', '\t', ':']));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let Sizes { nodes, pods, maps, span } = sizes;
    Ok(format!(
        "# A day in a control plane: rusd against etcd\n\nWritten by `cargo xtask kube day`; don't edit.\n\n- commit: {commit}\n\
         - machine: {cpu}, {} cores, Linux {}\n- {}\n\
         - {members} members under TLS with client certificates, kube-apiserver 1.37.1, controller manager, scheduler and kwok, \
         all on this machine; one side after the other, in turns; the median of {rounds} of each\n\
         - {nodes} nodes with a lease each, renewed every 10 s; deployments to {pods} pods and down to a tenth; {maps} config maps \
         of 800 bytes, 100 updates a second for {} s; 200 GETs a second; whole, paged (500) and streamed lists, now and at a past \
         revision; the leader killed under load; the apiserver started again, twice; compaction every minute\n\
         - by the watch cache: LISTs of pods and config maps, where the store only says how fresh the cache is; by the store: GETs, \
         LISTs and watches of {pods} events, which have no watch cache, and pages of pods and config maps at a revision of before \
         the apiserver's restart. The run demands of the store's own counters that each of these reached it, as RangeStream \
         where it is a list\n\
         - the store's CPU, memory and disk are those of all members together; p50 and p99 of churn, GETs and lists are timed by the \
         clients; the apiserver's come from its histograms, whose first bounds are 5, 25 and 50 ms: within a bucket they are guessed\n\
         - ratio: how much better than etcd, whatever the figure; rounds ahead: in how many rusd's was the lower figure\n\n{table}",
        names.len(),
        kernel.trim(),
        versions.join("\n- "),
        span.as_secs(),
    ))
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2).copied().unwrap_or_default();
    // Of an even number it lies between two.
    let lower = values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or_default();
    f64::midpoint(lower, upper)
}

fn show(value: f64) -> String {
    match value {
        value if value >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_middle_of_both_and_their_ratio() {
        let day = |value: f64| vec![("store CPU".to_owned(), "s", value), ("refused".to_owned(), "", 0.0)];
        let sides = [("etcd", vec![day(9.0), day(12.5), day(13.0)]), ("rusd", vec![day(5.0)])];
        let table = table(&sides);
        let rows: Vec<_> = table.lines().collect();
        assert_eq!(rows[0], "| figure | etcd | rusd | ratio |");
        assert_eq!(rows[2], "| store CPU, s | 12.5 | 5 | 2.50× |");
        assert_eq!(rows[3], "| refused | 0 | 0 |  |");
    }

    #[test]
    fn of_several_rounds_it_is_said_how_many_were_won() {
        let day = |value: f64| vec![("store CPU".to_owned(), "s", value)];
        let sides = [("etcd", vec![day(9.0), day(4.0)]), ("rusd", vec![day(5.0), day(4.0)])];
        let table = table(&sides);
        let rows: Vec<_> = table.lines().collect();
        assert_eq!(rows[0], "| figure | etcd | rusd | ratio | rounds ahead |");
        assert_eq!(rows[1], "|---|---:|---:|---:|---:|");
        assert_eq!(rows[2], "| store CPU, s | 6.50 | 4.50 | 1.44× | 1 of 2 |");
    }
}
