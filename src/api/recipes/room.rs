//! What the recipes' calls hold while they live, and where it is counted.
//!
//! ```text
//! Room::try_take(name) ─► a place and its names' bytes ─ for_key: a longer key comes in ─► given back with the call
//!                      └► Full: only who needs not wait goes on
//! ```
//! Names have a budget of their own, with the limit of watchers' keys, as they are followed in the same way: calls that wait
//! for hours would keep writes out of the requests' budget, and watchers could keep locks out of theirs.

use crate::api::auth::CallContext;
use crate::api::grpc::body::SMALL_BYTES;
use crate::api::services::Budgets;
use crate::types::{Budget, Held, Place, RequestError};

/// What a key of the recipes has behind its name: `/` and the longest lease.
const KEY_EXTRA_BYTES: usize = 18;
/// Copies of a name that one call has: its own key, the end of the range that it looks through, and the key that it
/// follows.
const COPIES: usize = 3;

/// The bytes of one call's names.
pub(super) struct Names {
    budget: Budget,
    _held: Held,
    /// Bytes that a key may have without more.
    key_bytes: usize,
    /// What the key that is followed has beyond them.
    longer: Option<Held>,
}

impl Names {
    /// Room for the names of a call for `name`; nothing counts as a refusal yet.
    fn try_take(budget: &Budget, name: usize) -> Option<Self> {
        let key_bytes = name + KEY_EXTRA_BYTES;
        let held = budget.try_take(COPIES * key_bytes)?;
        Some(Self { budget: budget.clone(), _held: held, key_bytes, longer: None })
    }

    /// The same for who can't do without.
    ///
    /// # Errors
    /// `TooManyRequests`.
    pub(super) fn take(budget: &Budget, name: usize) -> Result<Self, RequestError> {
        Self::try_take(budget, name).ok_or_else(|| {
            budget.refuse();
            RequestError::TooManyRequests
        })
    }

    /// Makes room for the key that is followed from now on, of `bytes`, in place of the one before: it may be anybody's
    /// beneath the name, and longer than a contender's.
    ///
    /// # Errors
    /// `TooManyRequests`.
    pub(super) fn for_key(&mut self, bytes: usize) -> Result<(), RequestError> {
        self.longer = None;
        if bytes > self.key_bytes {
            let longer = self.budget.take(bytes - self.key_bytes).ok_or(RequestError::TooManyRequests)?;
            self.longer = Some(longer);
        }
        Ok(())
    }
}

/// Room for one more that waits: each holds its names and a place in the watch hub.
pub(super) struct Room {
    pub(super) names: Names,
    _place: Place,
}

/// What there is no room in.
#[derive(Clone, Copy)]
pub(super) enum Full {
    Places,
    Names,
}

impl Room {
    /// Room for a call for a name of so many bytes, for who may do without: nothing counts as a refusal yet.
    ///
    /// # Errors
    /// What is full.
    pub(super) fn try_take(budgets: &Budgets, name: usize) -> Result<Self, Full> {
        let place = budgets.lock_waiters.try_take().ok_or(Full::Places)?;
        let names = Names::try_take(&budgets.names, name).ok_or(Full::Names)?;
        Ok(Self { names, _place: place })
    }
}

impl Full {
    /// The refusal of who can't do without; counted.
    pub(super) fn refuse(self, budgets: &Budgets) -> RequestError {
        match self {
            Self::Places => budgets.lock_waiters.refuse(),
            Self::Names => budgets.names.refuse(),
        }
        RequestError::TooManyRequests
    }
}

/// Whether an answer that repeats names of `bytes` may be made now. It is looked at before anything is done, as who holds
/// a place is told so in any case; those under way aren't counted, which what waits and what is proposed bounds.
///
/// # Errors
/// `TooManyRequests`.
pub(super) fn for_answer(call: &CallContext, bytes: usize) -> Result<(), RequestError> {
    if bytes <= SMALL_BYTES || call.budgets.answers.has_room(bytes) {
        Ok(())
    } else {
        Err(RequestError::TooManyRequests)
    }
}
