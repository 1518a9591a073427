//! A cluster, the clients at it and a watcher at each member; and the checks when a story is over.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use rusd_proto::etcdserverpb::lease_client::LeaseClient;
use rusd_proto::etcdserverpb::{LeaseLeasesRequest, LeaseTimeToLiveRequest};
use rusd_proto::mvccpb::KeyValue;

use crate::check::{Lease, check, check_compactions, check_leases};
use crate::client;
use crate::cluster::{Cluster, Setup, until_answered};
use crate::follower::{Follower, Seen, whole};
use crate::history::{self, Change};
use crate::load::Load;
use crate::load::compactor::Compactor;
use crate::load::ops::{Ask, Op, Outcome};
use crate::process::Process;
use crate::settings;

/// Workers at each member.
const WORKERS: usize = 3;

/// All of it.
pub(crate) struct Run {
    pub(crate) cluster: Cluster,
    pub(crate) load: Load,
    watchers: Vec<Follower>,
    compactor: Compactor,
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
        let seed = settings::seed();
        let load = Load::start(&cluster, seed, WORKERS);
        let watchers: Vec<_> = (0..members).map(|at| Follower::start(cluster.url(at))).collect();
        let seen = watchers.iter().map(|watcher| watcher.seen.clone()).collect();
        let compactor = Compactor::start(cluster.doors(), seen, seed);
        load.goes_on(100).await;
        Self { cluster, load, watchers, compactor, begun, name }
    }

    /// Puts another member in a place, and has the watcher there go on at it; gives the process that was there.
    pub(crate) fn replaced(&mut self, at: usize, by: Process) -> Process {
        let old = self.cluster.replaced(at, by);
        self.watchers[at].go_on_at(self.cluster.url(at));
        old
    }

    /// Ends the clients, waits until the members agree, and checks everything.
    pub(crate) async fn finish(self) -> Cluster {
        let Self { cluster, load, watchers, compactor, begun, name } = self;
        let (ops, calls) = load.finish().await;
        let compactions = compactor.finish().await;
        cluster.agree().await;
        let revision = client::revision(&cluster.channel(0)).await.unwrap();
        for watcher in &watchers {
            watcher.reach(revision).await;
        }
        let seen: Vec<Seen> = watchers.iter().map(|watcher| watcher.seen.clone()).collect();
        let (changes, came) = told(whole(&seen, revision));
        told(check(&ops, &changes));
        let holes: Vec<_> = seen.iter().flat_map(|seen| seen.until(revision).1).collect();
        let compacted = told(check_compactions(&compactions, &ops, &holes));
        let is_sure = compactions.last().is_some_and(|last| last.revision == compacted);
        let leases = told(check_leases(&calls, &changes, &came));
        for at in 0..cluster.len() {
            holds(&cluster, at, &changes, revision).await;
            if is_sure {
                holds(&cluster, at, &changes, compacted).await;
            }
            if compacted > 0 {
                let earlier = client::everything(&cluster.channel(at), compacted - 1).await;
                earlier.expect_err("a revision that was compacted can be read");
            }
            holds_leases(&cluster, at, &leases).await;
        }
        let granted = calls.iter().filter(|call| call.ask == Ask::Grant).count();
        let gone = leases.values().filter(|lease| lease.gone.is_some()).count();
        println!(
            "SUMMARY {name}: {}, revision {revision}, {granted} leases, {gone} of them gone, {} compactions, {} watches \
             behind them, {:.1} s",
            counted(&ops),
            compactions.len(),
            holes.len(),
            begun.elapsed().as_secs_f64()
        );
        cluster
    }
}

fn told<T>(checked: Result<T, String>) -> T {
    checked.unwrap_or_else(|fault| panic!("{fault}"))
}

/// Checks that a member holds at a revision what all changes up to it add up to.
async fn holds(cluster: &Cluster, at: usize, changes: &[Change], revision: i64) {
    let count = changes.partition_point(|change| change.revision <= revision);
    let state: BTreeMap<Bytes, KeyValue> = history::replay(&changes[..count]);
    let channel = cluster.channel(at);
    let found = until_answered("everything", || client::everything(&channel, revision)).await;
    let found: BTreeMap<_, _> = found.kvs.into_iter().map(|kv| (kv.key.clone(), kv)).collect();
    assert_eq!(state, found, "m{at} holds something else at {revision} than the events add up to");
}

/// Checks that a member knows each lease that must live, with its keys, and none that is gone.
async fn holds_leases(cluster: &Cluster, at: usize, leases: &BTreeMap<i64, Lease>) {
    let list = || async { LeaseClient::new(cluster.channel(at)).lease_leases(LeaseLeasesRequest {}).await };
    let listed = until_answered("its leases", list).await.into_inner().leases;
    let now = Instant::now();
    for (id, lease) in leases {
        let is_listed = listed.iter().any(|listed| listed.id == *id);
        assert!(!is_listed || lease.gone.is_none(), "m{at} lists lease {id} that is gone: {lease:?}");
        assert!(is_listed || !lease.must_live(now), "m{at} lists no lease {id}: {lease:?}");
        if !lease.must_live(now) {
            continue;
        }
        let ask = || async move {
            let asked = LeaseTimeToLiveRequest { id: *id, keys: true };
            LeaseClient::new(cluster.channel(at)).lease_time_to_live(asked).await
        };
        let left = until_answered("a lease", ask).await.into_inner();
        // Whole seconds; -1 for none.
        let has_all = left.ttl >= 0 && lease.keys.iter().all(|key| left.keys.contains(key));
        assert!(has_all || !lease.must_live(Instant::now()), "m{at} says of lease {id} {left:?}, not {lease:?}");
    }
}

/// How many requests ended in which way, and the longest time without a write.
fn counted(ops: &[Op]) -> String {
    let count = |wanted: fn(&Outcome) -> bool| ops.iter().filter(|op| wanted(&op.outcome)).count();
    let mut written: Vec<_> =
        ops.iter().filter(|op| matches!(op.outcome, Outcome::Wrote(_))).map(|op| op.ended).collect();
    written.sort_unstable();
    let gap = written.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
    format!(
        "{} writes acknowledged, {} reads, {} of compacted, {} refused, {} unknown, longest time without a write {:.2} s",
        count(|outcome| matches!(outcome, Outcome::Wrote(_))),
        count(|outcome| matches!(outcome, Outcome::Found(..))),
        count(|outcome| matches!(outcome, Outcome::Compacted)),
        count(|outcome| matches!(outcome, Outcome::Refused)),
        count(|outcome| matches!(outcome, Outcome::Unknown)),
        gap.as_secs_f64(),
    )
}
