//! `AuthView`: users, roles and permissions as readers see them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};

use super::AuthState;

/// The state as published; cheap to clone, and no lock is taken to look at it.
#[derive(Clone, Debug, Default)]
pub struct AuthView {
    shown: Arc<Shown>,
}

#[derive(Debug, Default)]
struct Shown {
    current: ArcSwap<AuthState>,
    /// States that were shown after the first, empty one.
    versions: AtomicU64,
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

    /// Shows another state, under a version of its own.
    pub fn store(&self, mut state: AuthState) {
        state.set_version(self.shown.versions.fetch_add(1, Ordering::Relaxed) + 1);
        self.shown.current.store(Arc::new(state));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::RaftIndex;

    #[test]
    fn what_is_shown_again_has_a_version_of_its_own() {
        let (view, mut state) = (AuthView::default(), AuthState::default());
        let mut seen = vec![view.look().version()];
        for _ in 0..3 {
            view.store(state.published(RaftIndex(7)));
            seen.push(view.look().version());
            // Not even one that was read here and is shown once more.
            view.store(AuthState::clone(&view.load()));
            seen.push(view.look().version());
        }
        assert!(seen.is_sorted_by(|before, after| before < after), "{seen:?}");
    }
}
