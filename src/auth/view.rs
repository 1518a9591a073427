//! `AuthView`: users, roles and permissions as readers see them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;

use super::AuthState;

/// The state as published; cheap to clone, and no lock is taken to look at it.
#[derive(Clone, Debug, Default)]
pub struct AuthView {
    shown: Arc<Shown>,
}

#[derive(Debug, Default)]
struct Shown {
    current: ArcSwap<AuthState>,
    /// Of the current state, as soon as whoever stored it goes on.
    version: AtomicU64,
    /// States that were shown after the first, empty one; held by who stores one.
    versions: Mutex<u64>,
}

impl AuthView {
    /// The state now, for a short look.
    pub fn look(&self) -> Guard<Arc<AuthState>> {
        self.shown.current.load()
    }

    /// The state now, to be kept.
    pub fn load(&self) -> Arc<AuthState> {
        self.shown.current.load_full()
    }

    /// The version of the state now, for who knows what that version says: without a look at the state. What is done after
    /// [`AuthView::store`] is seen by nobody who finds the version before it afterwards.
    pub fn version(&self) -> u64 {
        self.shown.version.load(Ordering::Acquire)
    }

    /// Shows another state, under a version of its own.
    pub fn store(&self, mut state: AuthState) {
        let mut versions = self.shown.versions.lock();
        *versions += 1;
        state.set_version(*versions);
        self.shown.current.store(Arc::new(state));
        self.shown.version.store(*versions, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::RaftIndex;

    #[test]
    fn what_is_shown_again_has_a_version_of_its_own() {
        let (view, mut state) = (AuthView::default(), AuthState::default());
        let look = || {
            assert_eq!(view.version(), view.look().version());
            view.version()
        };
        let mut seen = vec![look()];
        for _ in 0..3 {
            view.store(state.published(RaftIndex(7)));
            seen.push(look());
            // Not even one that was read here and is shown once more.
            view.store(AuthState::clone(&view.load()));
            seen.push(look());
        }
        assert!(seen.is_sorted_by(|before, after| before < after), "{seen:?}");
    }
}
