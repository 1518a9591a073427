//! A cluster, the clients at it and a watcher at each member; and the checks when a story is over.

use std::time::Instant;

use tokio::task::JoinHandle;

use crate::check::check;
use crate::client;
use crate::cluster::{Cluster, Setup};
use crate::history::{self, History};
use crate::load::{Load, Outcome};
use crate::process::Process;
use crate::settings;

/// Workers at each member.
const WORKERS: usize = 3;

/// All of it.
pub(crate) struct Run {
    pub(crate) cluster: Cluster,
    pub(crate) load: Load,
    watchers: Vec<(History, JoinHandle<()>)>,
    begun: Instant,
    name: &'static str,
}

impl Run {
    /// Starts so many members with these flags besides, and the clients.
    pub(crate) async fn start(name: &'static str, members: usize, flags: &[&str]) -> Self {
        Self::of(name, Setup::rusd(members, flags)).await
    }

    /// The same of what was set up.
    pub(crate) async fn of(name: &'static str, setup: Setup<'_>) -> Self {
        let members = setup.data.len();
        let backend = std::env::var("RUSD_FAULT_BACKEND").unwrap_or_else(|_| "sled".to_owned());
        let backend = format!("--backend={backend}");
        let begun = Instant::now();
        let cluster = Cluster::start(Setup { flags: &[setup.flags, &[&*backend]].concat(), ..setup }).await;
        let load = Load::start(&cluster, settings::seed(), WORKERS);
        let watch = |at| {
            let history = History::default();
            let follower = history.follow(cluster.url(at));
            (history, follower)
        };
        let watchers = (0..members).map(watch).collect();
        load.goes_on(100).await;
        Self { cluster, load, watchers, begun, name }
    }

    /// Puts another member in a place, and has the watcher there go on at it; gives the process that was there.
    pub(crate) fn replaced(&mut self, at: usize, by: Process) -> Process {
        let old = self.cluster.replaced(at, by);
        let (history, follower) = &mut self.watchers[at];
        follower.abort();
        *follower = history.follow(self.cluster.url(at));
        old
    }

    /// Ends the clients, waits until the members agree, and checks everything.
    pub(crate) async fn finish(self) -> Cluster {
        let Self { cluster, load, watchers, begun, name } = self;
        let ops = load.finish().await;
        cluster.agree().await;
        let revision = client::revision(&cluster.channel(0)).await.unwrap();
        let mut all = Vec::new();
        for (at, (history, follower)) in watchers.iter().enumerate() {
            history.reach(revision, follower).await;
            let changes = history.until(revision);
            let state = history::replay(&changes);
            let found = client::everything(&cluster.channel(at), revision).await.unwrap();
            let found = found.kvs.into_iter().map(|kv| (kv.key.clone(), kv)).collect();
            assert_eq!(state, found, "m{at} holds something else than its events add up to");
            assert!(all.is_empty() || all == changes, "the watch at m{at} saw something else than that at m0");
            all = changes;
            follower.abort();
        }
        if let Err(fault) = check(&ops, &all) {
            panic!("{fault}");
        }
        let count = |wanted: fn(&Outcome) -> bool| ops.iter().filter(|op| wanted(&op.outcome)).count();
        let mut written: Vec<_> =
            ops.iter().filter(|op| matches!(op.outcome, Outcome::Wrote(_))).map(|op| op.ended).collect();
        written.sort_unstable();
        let gap = written.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
        println!(
            "SUMMARY {name}: {} writes acknowledged, {} reads, {} refused, {} unknown, revision {revision}, longest time without \
             a write {:.2} s, {:.1} s",
            count(|outcome| matches!(outcome, Outcome::Wrote(_))),
            count(|outcome| matches!(outcome, Outcome::Found(..))),
            count(|outcome| matches!(outcome, Outcome::Refused)),
            count(|outcome| matches!(outcome, Outcome::Unknown)),
            gap.as_secs_f64(),
            begun.elapsed().as_secs_f64()
        );
        cluster
    }
}
