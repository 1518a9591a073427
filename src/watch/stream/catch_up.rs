//! How watchers that are behind read history and become live again.
//!
//! ```text
//! behind ─► Reading(from..=current) ─► Writing ─► caught up? ─ no ─► behind (at the queue's end)
//!                                                   └ yes ─► join at R ─► gap up to R? ─ none ─► live
//!                                                                          └─► Reading(gap) ─► Writing ─► live
//! ```

use std::collections::{HashMap, HashSet, VecDeque};

use super::super::index::GroupKey;
use super::StreamCore;
use super::replay::{Job, Kind, Reader, Replay, Round};
use super::watchers::{State, Target};
use super::work::{Shape, Work};
use crate::storage::HistoryError;

/// A gap up to about this is read after joining the hub's groups. The mailbox stands still meanwhile, so it must be
/// short.
const GAP_REVISIONS_MAX: i64 = 1000;

/// Groups of watchers that read history together: an event may be for each of them. etcd takes as many watchers a
/// round.
const COHORT_GROUPS_MAX: usize = 512;

/// Where the catching up of a stream stands; one cohort at a time.
#[derive(Debug)]
pub(super) enum CatchUp {
    Idle,
    /// A job reads.
    Reading {
        cohort: Vec<Target>,
        until: i64,
        gap: bool,
    },
    /// What was read is being written.
    Writing {
        cohort: Vec<Target>,
        works: VecDeque<Work>,
        end: i64,
        until: i64,
        gap: bool,
    },
}

impl CatchUp {
    /// Whether a cohort is in the hub's groups and its gap isn't written yet.
    pub(super) fn is_gap(&self) -> bool {
        matches!(self, Self::Reading { gap: true, .. } | Self::Writing { gap: true, .. })
    }
}

impl StreamCore {
    /// Joins the hub's groups of these watchers; the revision above which the mailbox has everything.
    pub(super) fn attach(&mut self, targets: &[Target]) -> i64 {
        let mut places: Vec<u32> =
            targets.iter().filter_map(|target| self.watchers.get(*target)).map(|watcher| watcher.group).collect();
        places.sort_unstable();
        places.dedup();
        let keys: Vec<&GroupKey> =
            places.iter().filter_map(|at| self.watchers.group(*at)).map(|group| &group.key).collect();
        let (ids, revision) = self.hub.join(&keys, &self.mailbox);
        for (at, id) in places.into_iter().zip(ids) {
            self.watchers.set_hub(at, id);
        }
        revision
    }

    /// Leaves the hub's group of a watcher if nothing live is in it.
    pub(super) fn detach_idle(&mut self, target: Target) {
        if self.catch_up.is_gap() {
            return;
        }
        let group = self.watchers.get(target).map(|watcher| watcher.group);
        let idle = group.and_then(|group| self.watchers.take_hub_if_idle(group));
        self.hub.leave(idle, &self.mailbox);
    }

    fn detach_all_idle(&mut self) {
        let idle = self.watchers.take_idle_hub_groups();
        self.hub.leave(idle, &self.mailbox);
    }

    /// The mailbox was full: everything live reads on in history, from where the mailbox ends.
    pub(super) fn fall_behind(&mut self) {
        let live = self.watchers.live_targets();
        for target in &live {
            self.watchers.set_state(*target, State::Behind);
        }
        self.detach_all_idle();
        if let Some(lost_from) = self.mailbox.take_loss() {
            for target in &live {
                if let Some(watcher) = self.watchers.get_mut(*target) {
                    watcher.next = watcher.next.max(lost_from);
                }
            }
        }
        self.behind.extend(live);
        self.lost = false;
    }

    /// Begins a round for the watcher that waited longest and for all that are at or after it; whether there is
    /// anything to go on with at once.
    pub(super) fn start_catch_up(&mut self) -> bool {
        if !matches!(self.catch_up, CatchUp::Idle) {
            return false;
        }
        let from = loop {
            let Some(target) = self.behind.front() else { return false };
            match self.watchers.get(*target).filter(|watcher| watcher.state() == State::Behind) {
                Some(watcher) => break watcher.next,
                None => self.behind.pop_front(),
            };
        };
        let (mut cohort, mut others) = (Vec::new(), VecDeque::new());
        let mut groups = HashSet::new();
        for target in std::mem::take(&mut self.behind) {
            let Some(watcher) = self.watchers.get(target).filter(|watcher| watcher.state() == State::Behind) else {
                continue;
            };
            let is_full = groups.len() == COHORT_GROUPS_MAX && !groups.contains(&watcher.group);
            if watcher.next < from || is_full {
                others.push_back(target);
            } else {
                groups.insert(watcher.group);
                cohort.push(target);
            }
        }
        self.behind = others;
        let until = self.hub.revision();
        if from > until {
            self.join_live(cohort);
            return true;
        }
        self.read(cohort, from, until, false);
        false
    }

    fn read(&mut self, cohort: Vec<Target>, from: i64, until: i64, gap: bool) {
        let mut places: HashMap<u32, usize> = HashMap::new();
        let mut readers: Vec<Reader> = Vec::new();
        for target in &cohort {
            let Some(watcher) = self.watchers.get(*target) else { continue };
            let Some(group) = self.watchers.group(watcher.group) else { continue };
            let at = *places.entry(watcher.group).or_insert(readers.len());
            match readers.get_mut(at) {
                Some(reader) => {
                    reader.targets.push(*target);
                    reader.next = reader.next.min(watcher.next);
                    reader.prev_kv |= watcher.prev_kv;
                }
                None => readers.push(Reader {
                    key: group.key.clone(),
                    targets: vec![*target],
                    next: watcher.next,
                    prev_kv: watcher.prev_kv,
                }),
            }
        }
        let bytes_max = self.hub.limits().stream_bytes_max;
        self.jobs.push(Job(Kind::Replay(Replay { readers, from, until, bytes_max })));
        self.catch_up = CatchUp::Reading { cohort, until, gap };
    }

    /// A round was read.
    pub(super) fn replayed(&mut self, round: Result<Round, HistoryError>) {
        let CatchUp::Reading { cohort, until, gap } = std::mem::replace(&mut self.catch_up, CatchUp::Idle) else {
            return;
        };
        match round {
            Ok(Round { found, end }) => {
                let work =
                    |(targets, items): (Vec<Target>, _)| Work::new(targets.into(), items, Shape::Replay(until), 0);
                let works = found.into_iter().map(work).collect();
                self.catch_up = CatchUp::Writing { cohort, works, end, until, gap };
            }
            Err(HistoryError::Compacted(compact_revision)) => self.history_gone(cohort, compact_revision),
            Err(HistoryError::Storage(error)) => self.fail(error.to_string()),
        }
    }

    /// The cohort's history is gone: those that needed it are told (E87), the others try again.
    fn history_gone(&mut self, cohort: Vec<Target>, compact_revision: i64) {
        for target in cohort {
            let Some(watcher) = self.watchers.get(target) else { continue };
            if watcher.next >= compact_revision {
                self.behind.push_back(target);
                continue;
            }
            self.watchers.set_state(target, State::Compacted);
            self.compacted.push_back((target, compact_revision));
        }
        self.detach_all_idle();
    }

    /// Takes the next piece of what was read as the work to do, or ends the round; whether there is anything to go
    /// on with.
    pub(super) fn next_replayed(&mut self) -> bool {
        let CatchUp::Writing { works, .. } = &mut self.catch_up else { return false };
        if let Some(work) = works.pop_front() {
            self.work = Some(work);
            return true;
        }
        let CatchUp::Writing { cohort, end, until, gap, .. } = std::mem::replace(&mut self.catch_up, CatchUp::Idle)
        else {
            return false;
        };
        for target in &cohort {
            if let Some(watcher) = self.watchers.get_mut(*target) {
                watcher.next = watcher.next.max(end + 1);
            }
        }
        match (gap, end >= until) {
            (true, false) => self.read(cohort, end + 1, until, true),
            (true, true) => self.make_live(&cohort),
            // Near is enough: under steady writes a round never ends at the newest revision.
            (false, _) if self.hub.revision() - end <= GAP_REVISIONS_MAX => self.join_live(cohort),
            (false, _) => self.behind.extend(cohort),
        }
        true
    }

    /// Joins a cohort that has read everything, or nearly.
    fn join_live(&mut self, cohort: Vec<Target>) {
        let revision = self.attach(&cohort);
        let next = cohort.iter().filter_map(|target| self.watchers.get(*target)).map(|watcher| watcher.next).min();
        match next {
            Some(next) if next <= revision && revision - next >= 2 * GAP_REVISIONS_MAX => {
                self.detach_all_idle();
                self.behind.extend(cohort);
            }
            Some(next) if next <= revision => self.read(cohort, next, revision, true),
            _ => self.make_live(&cohort),
        }
    }

    fn make_live(&mut self, cohort: &[Target]) {
        for target in cohort {
            self.watchers.set_state(*target, State::Live);
        }
        // Groups whose watchers were all cancelled while the gap was read.
        self.detach_all_idle();
    }
}
