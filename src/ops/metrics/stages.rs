//! `StageTimes`: how long Raft entries of this member's commands, syncs of its log and publishes take, from 12.5 µs up.

use std::fmt;
use std::sync::Arc;

use prometheus::Registry;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::times::{STAGE_BOUNDS, Times, histogram_family};

const NAME: &str = "rusd_stage_duration_seconds";
const HELP: &str = "Time of a stage of a write, in seconds: for each entry of this member's commands (queue, commit, \
                    apply), each group of the log (fsync), each publish.";

/// The stages of a write.
#[derive(Debug, Default)]
struct Inner {
    queue: Times,
    commit: Times,
    fsync: Times,
    apply: Times,
    publish: Times,
}

/// Their times. Cheap to clone.
#[derive(Clone)]
pub struct StageTimes(Arc<Inner>);

impl StageTimes {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let times = Self(Arc::default());
        let description = Desc::new(NAME.to_owned(), HELP.to_owned(), vec!["stage".to_owned()], Default::default())?;
        registry.register(Box::new(Shown { times: times.clone(), description }))?;
        Ok(times)
    }

    /// How long the first command of an entry waited for its place.
    pub fn queue(&self) -> &Times {
        &self.0.queue
    }

    /// From an entry's making to its turn to be applied.
    pub fn commit(&self) -> &Times {
        &self.0.commit
    }

    /// A sync of the log, of a group of entries.
    pub fn fsync(&self) -> &Times {
        &self.0.fsync
    }

    /// All commands of an entry.
    pub fn apply(&self) -> &Times {
        &self.0.apply
    }

    /// A publish, of up to 256 entries.
    pub fn publish(&self) -> &Times {
        &self.0.publish
    }
}

impl fmt::Debug for StageTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StageTimes")
    }
}

/// As the registry sees them.
struct Shown {
    times: StageTimes,
    description: Desc,
}

impl Collector for Shown {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.description]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Inner { queue, commit, fsync, apply, publish } = &*self.times.0;
        let all = [("apply", apply), ("commit", commit), ("fsync", fsync), ("publish", publish), ("queue", queue)];
        let series = all.map(|(stage, times)| (vec![("stage", stage)], Times::histogram(&[times], &STAGE_BOUNDS)));
        vec![histogram_family(NAME, HELP, series.into_iter())]
    }
}
