//! Histograms of the apiserver's metrics: those of several processes together, and what they say of a quantile.

use std::collections::BTreeMap;

/// Requests by how long they took.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Histogram {
    /// Up to so many microseconds (the last bound has no number), so many requests: each with those below.
    buckets: BTreeMap<u64, f64>,
    count: f64,
    sum_seconds: f64,
}

/// What a request does, by its verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Write,
    Read,
}

impl Kind {
    fn of(verb: &str) -> Option<Self> {
        match verb {
            "POST" | "PUT" | "PATCH" | "APPLY" | "DELETE" | "DELETECOLLECTION" => Some(Self::Write),
            "GET" | "LIST" => Some(Self::Read),
            // What stays open as long as the client likes.
            _ => None,
        }
    }
}

impl Histogram {
    /// Adds what a page of metrics says of requests of a kind.
    pub(super) fn add(&mut self, page: &str, kind: Kind) {
        const NAME: &str = "apiserver_request_duration_seconds_";
        for line in page.lines().filter_map(|line| line.strip_prefix(NAME)) {
            let Some((what, rest)) = line.split_once('{') else { continue };
            let Some((labels, value)) = rest.rsplit_once("} ") else { continue };
            let Ok(value) = value.trim().parse::<f64>() else { continue };
            if label(labels, "verb").and_then(Kind::of) != Some(kind) {
                continue;
            }
            match what {
                "bucket" => {
                    let Some(Ok(bound)) = label(labels, "le").map(str::parse::<f64>) else { continue };
                    let micros = if bound.is_finite() { (bound * 1e6).round() as u64 } else { u64::MAX };
                    *self.buckets.entry(micros).or_default() += value;
                }
                "sum" => self.sum_seconds += value,
                "count" => self.count += value,
                _ => {}
            }
        }
    }

    pub(super) fn count(&self) -> f64 {
        self.count
    }

    pub(super) fn mean_ms(&self) -> f64 {
        if self.count > 0.0 { self.sum_seconds / self.count * 1000.0 } else { 0.0 }
    }

    /// As Prometheus has it: a bucket's requests are spread evenly over it.
    pub(super) fn quantile_ms(&self, quantile: f64) -> f64 {
        let rank = quantile * self.count;
        let (mut below, mut from) = (0.0, 0);
        for (bound, upto) in &self.buckets {
            if *upto >= rank && *upto > below {
                if *bound == u64::MAX {
                    break;
                }
                let part = (rank - below) / (upto - below);
                return (from as f64 + part * (bound - from) as f64) / 1000.0;
            }
            (below, from) = (*upto, *bound);
        }
        from as f64 / 1000.0
    }
}

fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = labels;
    while let Some((before, after)) = rest.split_once("=\"") {
        let (value, next) = after.split_once('"')?;
        if before.trim_start_matches(',') == name {
            return Some(value);
        }
        rest = next;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let line = |verb: &str, le: &str, value: u32| {
            format!("apiserver_request_duration_seconds_bucket{{group=\"\",verb=\"{verb}\",le=\"{le}\"}} {value}\n")
        };
        let mut page = [("0.005", 50), ("0.025", 90), ("0.05", 100), ("+Inf", 100)]
            .map(|(le, value)| line("PATCH", le, value) + &line("WATCH", le, 1000))
            .concat();
        page += "apiserver_request_duration_seconds_sum{verb=\"PATCH\"} 1.5\n";
        page += "apiserver_request_duration_seconds_count{verb=\"PATCH\"} 100\n";
        let mut writes = Histogram::default();
        writes.add(&page, Kind::Write);
        assert_eq!((writes.count(), writes.mean_ms()), (100.0, 15.0));
        assert_eq!((writes.quantile_ms(0.5), writes.quantile_ms(0.7), writes.quantile_ms(0.99)), (5.0, 15.0, 47.5));
        writes.add(&page, Kind::Write);
        assert_eq!((writes.count(), writes.quantile_ms(0.7)), (200.0, 15.0), "a second process");
        let mut reads = Histogram::default();
        reads.add(&page, Kind::Read);
        assert_eq!((reads.quantile_ms(0.5), reads.mean_ms()), (0.0, 0.0));
    }
}
