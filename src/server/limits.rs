//! The limits that clients may run into, as `/metrics` shows them: one row for each flag.

use std::sync::Arc;

use crate::api::{Addresses, Connections, PROBES_MAX, Services};
use crate::auth::AuthState;
use crate::lease::Lessor;
use crate::ops::metrics::{Limit, Metrics};
use crate::ops::startup;
use crate::propose::Proposer;
use crate::storage::backend::BackendConfig;
use crate::types::{Budget, Limits, Places};
use crate::watch::WatchHub;

/// Sockets of clients.
pub(super) struct Port {
    pub(super) connections: Arc<Connections>,
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
    all.extend(users_and_roles(services));
    all.extend(watch(limits, hub, &budgets.names));
    metrics.show_limits(all)
}

/// The files that a process may have open, shared out among its sockets, so that those of strangers never leave it
/// without one for its log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Files {
    /// Without what the process needs for itself.
    sockets: usize,
}

impl Files {
    /// As the system limits this process.
    pub(super) fn of_process() -> Self {
        Self::of(startup::open_files_max())
    }

    fn of(limit: u64) -> Self {
        // What etcd leaves for itself, and more than is needed at a time.
        const OWN: u64 = 150;
        let own = OWN + moves(limit) * BackendConfig::MOVE_FILES;
        const FEWEST: usize = 64;
        const MOST: usize = 1 << 28;
        let sockets = usize::try_from(limit.saturating_sub(own)).unwrap_or(usize::MAX);
        Self { sockets: sockets.clamp(FEWEST, MOST) }
    }

    /// The most connections of other members: each has three, and a broken one may linger.
    pub(super) fn peers(self) -> usize {
        (self.sockets / 8).clamp(32, 1_024)
    }

    /// The most connections of clients: as the flag says (0 is all there are), or what there is.
    pub(super) fn clients(self, wanted: usize) -> usize {
        let left = self.sockets.saturating_sub(self.peers() + PROBES_MAX).max(self.sockets / 4);
        if wanted == 0 { left } else { wanted.min(left) }
    }
}

/// How often the store may leave files open that a failed engine had, of all that this process may have open.
pub(super) fn moves_of_process() -> u64 {
    moves(startup::open_files_max())
}

/// An eighth of the files at most.
fn moves(files: u64) -> u64 {
    (files / 8 / BackendConfig::MOVE_FILES).min(BackendConfig::MOVES_DEFAULT)
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

/// Nobody is turned away: who is counted had to wait until another one went.
fn connections(port: &Port) -> Limit {
    let (open, waited) = (port.connections.clone(), port.connections.clone());
    Limit {
        flag: "max-connections",
        max: open.max() as u64,
        used: Box::new(move || open.open() as u64),
        refused: Box::new(move || waited.waited()),
    }
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

fn users_and_roles(services: &Services) -> [Limit; 3] {
    let of = |places: &Arc<Places>, source: fn(&AuthState) -> usize| {
        let (view, refused) = (services.auth.view.clone(), places.clone());
        Limit {
            flag: places.limit(),
            max: places.max() as u64,
            used: Box::new(move || source(&view.look()) as u64),
            refused: Box::new(move || refused.refused()),
        }
    };
    let budgets = &services.budgets;
    [
        of(&budgets.users, AuthState::user_count),
        of(&budgets.roles, AuthState::role_count),
        of(&budgets.users_and_roles, AuthState::held_bytes),
    ]
}

fn watch(limits: &Limits, hub: &WatchHub, names: &Budget) -> [Limit; 2] {
    let of = |source: fn(&crate::watch::WatchFigures) -> u64| -> crate::ops::metrics::Number {
        let hub = hub.clone();
        Box::new(move || source(&hub.metrics().snapshot()))
    };
    let (keys, all_names) = (of(|figures| figures.range_bytes), names.clone());
    let (refused, all_refused) = (of(|figures| figures.refused_ranges_total), names.clone());
    let (watchers, bytes) = (limits.watchers_max as u64, limits.watch_ranges_bytes_max as u64);
    [
        Limit {
            flag: "max-watchers",
            max: watchers,
            used: of(|figures| figures.watchers),
            refused: of(|figures| figures.refused_total),
        },
        Limit {
            flag: "watch-keys-mb",
            max: bytes,
            // Each by itself, as of budgets that share a flag.
            used: Box::new(move || keys().max(all_names.used() as u64)),
            refused: Box::new(move || refused() + all_refused.refused()),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_leave_files_for_the_log() {
        for limit in [1_024, 4_096, 65_536, 1 << 20, u64::MAX] {
            let files = Files::of(limit);
            let all = files.clients(0) + files.peers() + PROBES_MAX;
            assert!(all as u64 + moves(limit) * BackendConfig::MOVE_FILES <= limit - 150, "{limit}: {all}");
            assert!(files.peers() >= 96, "ten members and more: {limit}");
        }
        assert_eq!([0, 639, 1_024, 4_096, 65_536, u64::MAX].map(moves), [0, 0, 1, 6, 8, 8]);
        assert_eq!(Files::of(1_024).clients(8), 8);
        assert_eq!(Files::of(1_024).clients(900), Files::of(1_024).clients(0));
        assert!(Files::of(0).clients(0) > 0 && Files::of(0).peers() > 0);
    }
}
