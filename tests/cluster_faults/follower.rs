//! A watch of everything at one member, through its absences and through compactions.
//!
//! ```text
//! Follower::start ─► watch from 1 ─► events ─► Seen: each with the moment of its coming ─► whole: all followers' together
//!                        ▲             │ ended, away ─► again from the next one
//!                        └─────────────┤ cancelled, compacted at c ─► again from c; Hole: what nobody can give any more
//! ```
//! The others have seen what is in a hole: `compactor` sees to that.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tonic::Status;

use crate::client;
use crate::history::{self, Change, Watch};

/// How long a watch may be behind.
const CATCH_UP_MAX: Duration = Duration::from_secs(60);

/// What was compacted before it was seen: all between these revisions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hole {
    /// The last one that was seen.
    pub(crate) after: i64,
    /// Where the watch goes on.
    pub(crate) from: i64,
}

#[derive(Default)]
struct Events {
    /// With the moment at which they came.
    changes: Vec<(Change, Instant)>,
    holes: Vec<Hole>,
}

impl Events {
    fn last(&self) -> i64 {
        self.changes.last().map_or(0, |(change, _)| change.revision)
    }

    /// What is asked for next.
    fn next(&self) -> i64 {
        let last = self.last();
        self.holes.last().filter(|hole| hole.after == last).map_or(last + 1, |hole| hole.from)
    }
}

/// What one watcher has seen.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Events>>);

impl Seen {
    /// The last revision.
    pub(crate) fn last(&self) -> i64 {
        self.0.lock().unwrap().last()
    }

    /// Changes up to and with a revision, and the holes in them.
    pub(crate) fn until(&self, revision: i64) -> (Vec<Change>, Vec<Hole>) {
        let events = self.0.lock().unwrap();
        let changes = events.changes.iter().map(|(change, _)| change).take_while(|change| change.revision <= revision);
        (changes.cloned().collect(), events.holes.clone())
    }

    async fn follow_once(&self, url: &str) -> Result<(), Status> {
        let channel = client::connect(url).await.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut asked = self.0.lock().unwrap().next();
        let mut watch = Watch::open(&channel, &history::all(), asked).await?;
        loop {
            let answer = watch.next().await?;
            let mut events = self.0.lock().unwrap();
            if answer.canceled {
                let from = answer.compact_revision;
                assert!(
                    from > asked,
                    "cancelled, not for a compaction ({from}): {}, {asked} asked",
                    answer.cancel_reason
                );
                let after = events.last();
                events.holes.push(Hole { after, from });
                return Ok(());
            }
            let now = Instant::now();
            for change in answer.events.into_iter().map(Change::of) {
                assert!(change.revision >= asked, "after all up to {asked} came {change:?}");
                asked = change.revision;
                events.changes.push((change, now));
            }
            // The next answer is of later revisions.
            asked = asked.max(events.next());
        }
    }
}

/// The watcher of one place.
pub(crate) struct Follower {
    pub(crate) seen: Seen,
    task: JoinHandle<()>,
}

impl Follower {
    /// Follows the server at `url`.
    pub(crate) fn start(url: String) -> Self {
        let seen = Seen::default();
        Self { task: follow(seen.clone(), url), seen }
    }

    /// Goes on at another one.
    pub(crate) fn go_on_at(&mut self, url: String) {
        self.task.abort();
        self.task = follow(self.seen.clone(), url);
    }

    /// Waits until everything up to `revision` was seen.
    pub(crate) async fn reach(&self, revision: i64) {
        let begun = Instant::now();
        while self.seen.last() < revision {
            assert!(!self.task.is_finished(), "the watch had to give up");
            assert!(begun.elapsed() < CATCH_UP_MAX, "the watch stands at {}, not {revision}", self.seen.last());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn follow(seen: Seen, url: String) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            // An error means that the server is away; what was seen stays, and the rest comes later.
            let _ = seen.follow_once(&url).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
}

/// All changes up to a revision, put together of what each has seen, and when each revision was seen first.
///
/// # Errors
/// Two have seen something else, or one has seen something twice, late, or not at all.
pub(crate) fn whole(all: &[Seen], revision: i64) -> Result<(Vec<Change>, BTreeMap<i64, Instant>), String> {
    let mut union: BTreeMap<i64, Vec<Change>> = BTreeMap::new();
    let mut came: BTreeMap<i64, Instant> = BTreeMap::new();
    for (at, seen) in all.iter().enumerate() {
        let mut own: BTreeMap<i64, Vec<Change>> = BTreeMap::new();
        for (change, moment) in &seen.0.lock().unwrap().changes {
            own.entry(change.revision).or_default().push(change.clone());
            let first = came.entry(change.revision).or_insert(*moment);
            *first = (*first).min(*moment);
        }
        for (revision, changes) in own.range(..=revision) {
            let known = union.entry(*revision).or_insert_with(|| changes.clone());
            if known != changes {
                return Err(format!("m{at} was told {changes:?}, another one {known:?}"));
            }
        }
    }
    for (at, seen) in all.iter().enumerate() {
        let (changes, holes) = seen.until(revision);
        let is_missed = |revision: i64| holes.iter().any(|hole| hole.after < revision && revision < hole.from);
        let expected = union.iter().filter(|(revision, _)| !is_missed(**revision)).flat_map(|(_, changes)| changes);
        let mut expected = expected.map(|change| (change.revision, &change.key));
        let mut got = changes.iter().map(|change| (change.revision, &change.key));
        loop {
            match (expected.next(), got.next()) {
                (None, None) => break,
                (expected, got) if expected == got => {}
                (expected, got) => {
                    return Err(format!(
                        "the watch at m{at} gave {got:?} in the place of {expected:?}; holes {holes:?}"
                    ));
                }
            }
        }
    }
    Ok((union.into_values().flatten().collect(), came))
}
