//! The limits that clients may run into: what each is, how much of it is used, how often it was reached.
//!
//! ```text
//! rusd_limit{limit="max-leases"} · rusd_limit_used{…} · rusd_limit_refused_total{…}
//! ```
//! The label is the flag's name, so that whoever sees a refusal knows what to type.

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// Where a number comes from; asked at each scrape.
pub type Number = Box<dyn Fn() -> u64 + Send + Sync>;

/// One limit.
pub struct Limit {
    /// The flag, without dashes.
    pub flag: &'static str,
    /// How much there may be.
    pub max: u64,
    /// How much there is.
    pub used: Number,
    /// How often it would have been more.
    pub refused: Number,
}

/// Names and helps of the three families.
const FAMILIES: [(&str, MetricType, &str); 3] = [
    ("rusd_limit", MetricType::GAUGE, "How much there may be at a time, by the flag that says so."),
    ("rusd_limit_used", MetricType::GAUGE, "How much of a limit is used."),
    ("rusd_limit_refused_total", MetricType::COUNTER, "Requests, connections and others that a limit has turned away."),
];

/// Shows them to the registry.
pub(super) struct LimitCollector {
    limits: Vec<Limit>,
    descriptions: Vec<Desc>,
}

impl LimitCollector {
    pub(super) fn new(limits: Vec<Limit>) -> prometheus::Result<Self> {
        let descriptions = FAMILIES
            .iter()
            .map(|(name, _, help)| {
                Desc::new((*name).into(), (*help).into(), vec!["limit".to_owned()], Default::default())
            })
            .collect::<prometheus::Result<_>>()?;
        Ok(Self { limits, descriptions })
    }
}

impl Collector for LimitCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let values: [fn(&Limit) -> u64; 3] = [|limit| limit.max, |limit| (limit.used)(), |limit| (limit.refused)()];
        FAMILIES
            .iter()
            .zip(values)
            .map(|((name, kind, help), value)| {
                let mut family = MetricFamily::default();
                family.set_name((*name).to_owned());
                family.set_help((*help).to_owned());
                family.set_field_type(*kind);
                family
                    .set_metric(self.limits.iter().map(|limit| one(*kind, limit.flag, value(limit) as f64)).collect());
                family
            })
            .collect()
    }
}

fn one(kind: MetricType, flag: &str, value: f64) -> Metric {
    let mut label = LabelPair::default();
    label.set_name("limit".to_owned());
    label.set_value(flag.to_owned());
    let mut metric = Metric::default();
    metric.set_label(vec![label]);
    if kind == MetricType::COUNTER {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}
