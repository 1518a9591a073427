//! The limits that clients may run into, as `/metrics` shows them: one row for each flag.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::api::{Addresses, Services};
use crate::lease::Lessor;
use crate::ops::config::Config;
use crate::ops::metrics::{Limit, Metrics};
use crate::propose::Proposer;
use crate::types::{Budget, Limits, Places};
use crate::watch::WatchHub;

/// Sockets of clients.
pub(super) struct Port {
    pub(super) connections: Arc<Semaphore>,
    /// Permits that the listeners hold for the connections that they wait for.
    pub(super) waiting: usize,
    pub(super) addresses: Arc<Addresses>,
}

/// Where the limits are kept.
pub(super) struct Kept<'a> {
    pub(super) limits: &'a Limits,
    pub(super) proposer: &'a Proposer,
    pub(super) hub: &'a WatchHub,
    pub(super) lessor: &'a Arc<Lessor>,
    pub(super) services: &'a Services,
}

/// Shows all of them.
///
/// # Errors
/// They are shown already.
pub(super) fn show(metrics: &Metrics, port: &Port, kept: &Kept<'_>) -> prometheus::Result<()> {
    let Kept { limits, proposer, hub, lessor, services } = kept;
    let budgets = &services.budgets;
    let mut all = vec![
        connections(port),
        addresses(&port.addresses),
        places(&budgets.open),
        proposals(proposer),
        bytes("pending-requests-mb", &[budgets.requests.clone(), proposer.pending_bytes().clone()]),
        bytes("pending-answers-mb", std::slice::from_ref(&budgets.answers)),
        places(&budgets.lock_waiters),
        places(services.auth.logins_waiting()),
        places(&budgets.logins_per_connection),
    ];
    let (counted, refused) = (Arc::clone(lessor), budgets.leases.clone());
    all.push(Limit {
        flag: "max-leases",
        max: limits.leases_max as u64,
        used: Box::new(move || counted.len() as u64),
        refused: Box::new(move || refused.refused()),
    });
    all.extend(watch(limits, hub));
    metrics.show_limits(all)
}

/// The most connections of clients: as the flag says, or etcd's bound, the limit of open files less what the process
/// needs for itself.
pub(super) fn connections_max(config: &Config) -> usize {
    const OWN_FILES: u64 = 150;
    const FEWEST: usize = 64;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1 << 20);
    let by_files = usize::try_from(limit.saturating_sub(OWN_FILES)).unwrap_or(usize::MAX);
    // Some are for the listeners.
    let by_files = by_files.clamp(FEWEST, Semaphore::MAX_PERMITS / 2);
    match config.bounds.max_connections {
        0 => by_files,
        wanted => wanted.min(by_files),
    }
}

fn places(places: &Arc<Places>) -> Limit {
    let (used, refused) = (places.clone(), places.clone());
    Limit {
        flag: places.limit(),
        max: places.max() as u64,
        used: Box::new(move || used.taken() as u64),
        refused: Box::new(move || refused.refused()),
    }
}

/// Further ones wait in the kernel, where nobody counts them.
fn connections(port: &Port) -> Limit {
    let (connections, waiting) = (port.connections.clone(), port.waiting);
    let all = connections.available_permits();
    let max = all.saturating_sub(waiting);
    let used = move || all.saturating_sub(connections.available_permits()).saturating_sub(waiting) as u64;
    Limit { flag: "max-connections", max: max as u64, used: Box::new(used), refused: Box::new(|| 0) }
}

fn addresses(addresses: &Arc<Addresses>) -> Limit {
    let (most, refused) = (addresses.clone(), addresses.bound().clone());
    Limit {
        flag: refused.limit(),
        max: refused.max() as u64,
        used: Box::new(move || most.most() as u64),
        refused: Box::new(move || refused.refused()),
    }
}

fn proposals(proposer: &Proposer) -> Limit {
    let (used, refused) = (proposer.clone(), proposer.clone());
    Limit {
        flag: proposer.pending().limit(),
        max: proposer.pending().max() as u64,
        used: Box::new(move || used.pending().taken() as u64),
        refused: Box::new(move || refused.pending().refused()),
    }
}

/// Budgets that one flag bounds, each by itself: that of which most is used counts.
fn bytes(flag: &'static str, budgets: &[Budget]) -> Limit {
    let (used, refused) = (budgets.to_vec(), budgets.to_vec());
    Limit {
        flag,
        max: budgets.iter().map(Budget::max).max().unwrap_or(0) as u64,
        used: Box::new(move || used.iter().map(Budget::used).max().unwrap_or(0) as u64),
        refused: Box::new(move || refused.iter().map(Budget::refused).sum()),
    }
}

fn watch(limits: &Limits, hub: &WatchHub) -> [Limit; 2] {
    let of = |source: fn(&crate::watch::WatchFigures) -> u64| -> crate::ops::metrics::Number {
        let hub = hub.clone();
        Box::new(move || source(&hub.metrics().snapshot()))
    };
    let (watchers, bytes) = (limits.watchers_max as u64, limits.watch_ranges_bytes_max as u64);
    [
        Limit {
            flag: "max-watchers",
            max: watchers,
            used: of(|figures| figures.watchers),
            refused: of(|figures| figures.refused_total),
        },
        // A refusal is counted above, whichever of the two it was.
        Limit { flag: "watch-keys-mb", max: bytes, used: of(|figures| figures.range_bytes), refused: Box::new(|| 0) },
    ]
}
