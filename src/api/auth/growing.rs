//! `Growing`: changes that make users and roles more, one at a time and within their bounds.
//!
//! ```text
//! propose ─► turn ─► was the last one's outcome unknown? catch up ─► AuthState::growth ─┬► fits ─► log ─► the next turn
//!            └► not in time: refused                                                    └► too much: refused
//! ```
//! A look at what there is says nothing of what is on its way, and with some hundred proposals on their way at a time a role
//! would pass any bound. So the next one looks when this member has seen what became of the last one. Other members have turns
//! of their own and don't see what these let in meanwhile: together they reach that many times a bound at most, since each
//! change alone fits in what is left. Nothing is looked at where changes are applied: members may have other flags.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::CallContext;
use crate::api::kv;
use crate::api::seams::Waiting;
use crate::apply::{Command, Outcome};
use crate::auth::AuthOp;
use crate::types::{Limits, RequestError};

/// Whose turn it is.
#[derive(Default)]
pub(super) struct Growing {
    turn: Arc<Mutex<Last>>,
}

/// What is known of the last change.
#[derive(Default)]
struct Last {
    /// It may be applied later, so it may be missing in what is seen here.
    is_undecided: bool,
}

impl Last {
    fn note(&mut self, outcome: &Result<Outcome, RequestError>) {
        self.is_undecided = !matches!(outcome, Ok(_) | Err(RequestError::TooManyRequests));
    }
}

/// Gets a change that may grow through the log when it is its turn, if there is room for what it adds.
///
/// # Errors
/// `Timeout` or `DeadlineExceeded` (no leader) if its turn doesn't come in time, `RequestTooLarge` for a row that would be too
/// long, `TooManyRequests` for too much in all: nothing was changed. Those of a barrier, and of a proposal.
pub(super) async fn propose(call: &CallContext, command: Command) -> Result<Outcome, RequestError> {
    let turn = tokio::time::timeout(call.limits.request_timeout, turn(call)).await;
    // To its caller all of it is a proposal.
    let turn = turn.unwrap_or(Err(RequestError::Timeout));
    let mut turn = turn.map_err(|error| kv::if_leaderless(call, error, RequestError::DeadlineExceeded))?;
    if let Command::Auth(op) = command.plain() {
        look(call, op)?;
    }
    turn.is_undecided = true;
    UnderWay(Some((turn, call.proposer.propose(command)))).outcome().await
}

/// Waits for a turn, in which what became of the changes before is seen here.
async fn turn(call: &CallContext) -> Result<OwnedMutexGuard<Last>, RequestError> {
    let mut turn = call.auth.growing.turn.clone().lock_owned().await;
    if turn.is_undecided {
        call.catch_up().await?;
        turn.is_undecided = false;
    }
    Ok(turn)
}

/// Whether there is room for what `op` adds.
fn look(call: &CallContext, op: &AuthOp) -> Result<(), RequestError> {
    let state = call.auth.view.look();
    let Some(growth) = state.growth(op) else { return Ok(()) };
    if growth.row_bytes > Limits::AUTH_ROW_BYTES_MAX {
        return Err(RequestError::RequestTooLarge);
    }
    let budgets = &call.budgets;
    for (there_are, more, bound) in [
        (state.user_count(), growth.users, &budgets.users),
        (state.role_count(), growth.roles, &budgets.roles),
        (state.held_bytes(), growth.bytes, &budgets.users_and_roles),
    ] {
        if more > 0 && there_are.saturating_add(more) > bound.max() {
            bound.refuse();
            return Err(RequestError::TooManyRequests);
        }
    }
    Ok(())
}

/// A change in the log, or on its way there.
type Proposal = Waiting<Result<Outcome, RequestError>>;

/// A change under way, and the turn that it has. Who waits for it may go away: the turn stays with the change until its
/// outcome is there, or a client that resets its calls would have any number of them under way.
struct UnderWay(Option<(OwnedMutexGuard<Last>, Proposal)>);

impl UnderWay {
    async fn outcome(mut self) -> Result<Outcome, RequestError> {
        // It is there until this returns.
        let Some((turn, proposal)) = &mut self.0 else { return Err(RequestError::Stopped) };
        let outcome = proposal.await;
        turn.note(&outcome);
        self.0 = None;
        outcome
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        // Without a runtime the server has ended.
        if let Some((mut turn, proposal)) = self.0.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move { turn.note(&proposal.await) });
        }
    }
}
