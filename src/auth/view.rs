//! `AuthView`: users, roles and permissions as readers see them.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use super::AuthState;

/// The state as published; cheap to clone, and no lock is taken to look at it.
#[derive(Clone, Debug, Default)]
pub struct AuthView {
    current: Arc<ArcSwap<AuthState>>,
}

impl AuthView {
    /// The state now, for a short look.
    pub fn look(&self) -> Guard<Arc<AuthState>> {
        self.current.load()
    }

    /// The state now, to be kept.
    pub fn load(&self) -> Arc<AuthState> {
        self.current.load_full()
    }

    /// Shows another state.
    pub fn store(&self, state: AuthState) {
        self.current.store(Arc::new(state));
    }
}
