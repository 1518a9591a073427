//! `Listed`: a family of gauges that stand at 1, of which there is one for each item of a list: members, alarms.

use std::fmt;
use std::sync::{Arc, OnceLock};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// What there is at a scrape, by the values of both labels.
type Source = Box<dyn Fn() -> Vec<[String; 2]> + Send + Sync>;

/// Shows them to the registry.
pub(super) struct Listed {
    name: &'static str,
    help: &'static str,
    labels: [&'static str; 2],
    items: Items,
    description: Desc,
}

/// Where the items come from, once that is known.
#[derive(Clone, Default)]
pub(super) struct Items(Arc<OnceLock<Source>>);

impl fmt::Debug for Items {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Items").field("known", &self.0.get().is_some()).finish()
    }
}

impl Items {
    /// Says where; the first source stays.
    pub(super) fn sample(&self, source: impl Fn() -> Vec<[String; 2]> + Send + Sync + 'static) {
        // A second source is a mistake of the wiring and harmless.
        let _ = self.0.set(Box::new(source));
    }
}

impl Listed {
    pub(super) fn new(
        name: &'static str,
        help: &'static str,
        labels: [&'static str; 2],
        items: Items,
    ) -> prometheus::Result<Self> {
        let names = labels.map(str::to_owned).to_vec();
        let description = Desc::new(name.to_owned(), help.to_owned(), names, Default::default())?;
        Ok(Self { name, help, labels, items, description })
    }

    fn one(&self, values: [String; 2]) -> Metric {
        let labels = self.labels.into_iter().zip(values).map(|(name, value)| {
            let mut label = LabelPair::default();
            label.set_name(name.to_owned());
            label.set_value(value);
            label
        });
        let (mut metric, mut gauge) = (Metric::default(), Gauge::default());
        gauge.set_value(1.0);
        metric.set_label(labels.collect());
        metric.set_gauge(gauge);
        metric
    }
}

impl Collector for Listed {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.description]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let items = self.items.0.get().map(|items| items()).unwrap_or_default();
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(MetricType::GAUGE);
        family.set_metric(items.into_iter().map(|values| self.one(values)).collect());
        vec![family]
    }
}
