//! The Auth service, and who may call what.
//!
//! ```text
//! request ─► Who ─► rules::of(method) ─► anyone · somebody · root · as its keys say (the handler asks `CallContext`)
//! Authenticate ─► password, on a thread that may block ─► token: through the log, or signed
//! users, roles ─► AuthOp ─► log
//! ```

mod call;
mod etcd;
mod login;
mod roles;
pub(crate) mod rules;
mod users;
mod who;

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::services::Services;
use crate::apply::{Command, Response};
use crate::auth::{AuthOp, AuthState, AuthView, Caller, PasswordHash, Secret, Tokens};
use crate::env::Env;
use crate::types::RequestError;

pub(crate) use call::CallContext;
pub use etcd::{etcd_role, etcd_user};
pub(crate) use login::{authenticate, disable, enable, status};
pub(crate) use roles::{role_add, role_delete, role_get, role_grant_permission, role_list, role_revoke_permission};
pub(crate) use users::{
    user_add, user_change_password, user_delete, user_get, user_grant_role, user_list, user_revoke_role,
};
pub(crate) use who::Who;

/// Calls that wait for their turn with that.
const HASHES_WAITING_MAX: usize = 256;

/// What authentication is done with.
pub struct Authentication {
    /// Users and roles as published.
    pub view: AuthView,
    /// Who shows what.
    pub tokens: Tokens,
    /// `--bcrypt-cost`
    pub cost: u32,
    /// Whether a verified client certificate's common name is a user (`--client-cert-auth`).
    pub common_names: bool,
    env: Env,
    hashing: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Authentication {
    /// With what the flags say.
    pub fn new(view: AuthView, tokens: Tokens, cost: u32, common_names: bool, env: Env) -> Self {
        // Each takes a processor for tens of milliseconds; the others go on serving.
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let hashing = Arc::new(Semaphore::new((processors / 2).max(1)));
        let waiting = Arc::new(Semaphore::new(HASHES_WAITING_MAX));
        Self { view, tokens, cost, common_names, env, hashing, waiting }
    }

    /// Whom a request is for.
    ///
    /// # Errors
    /// `AuthTokenInvalid`.
    fn caller(&self, who: &Who, state: &AuthState) -> Result<Caller, RequestError> {
        match who {
            _ if !state.is_enabled() => Ok(Caller::Nobody),
            Who::Nobody => Ok(Caller::Nobody),
            Who::Named(name) if self.common_names => {
                Ok(Caller::User { name: name.clone(), revision: state.revision() })
            }
            Who::Named(_) => Ok(Caller::Nobody),
            Who::Token(_) => {
                let token = who.token().ok_or(RequestError::AuthTokenInvalid)?;
                self.tokens.caller(token, state, self.env.clock.now(), self.env.clock.wall())
            }
        }
    }

    /// Runs what takes a processor for a while, a few at a time.
    async fn hashing<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, RequestError> {
        let _waiting = self.waiting.try_acquire().map_err(|_| RequestError::TooManyRequests)?;
        // It goes with the work: a caller that gives up makes no room for another while the work goes on.
        let turn = self.hashing.clone().acquire_owned().await.map_err(|_| RequestError::Stopped)?;
        let work = move || {
            let _turn = turn;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| RequestError::Stopped)
    }

    /// The hash of a new password.
    async fn hash(&self, password: Secret) -> Result<PasswordHash, RequestError> {
        let mut salt = [0; 16];
        self.env.rng.fill(&mut salt);
        let cost = self.cost;
        let hashed = self.hashing(move || crate::auth::hash(&password, cost, salt)).await?;
        hashed.map_err(|_| RequestError::PasswordTooLong)
    }
}

impl std::fmt::Debug for Authentication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authentication").field("tokens", &self.tokens).field("cost", &self.cost).finish_non_exhaustive()
    }
}

/// Gets a change of users or roles through the log, and gives the revision for the header.
async fn change(call: &CallContext, op: AuthOp) -> Result<i64, RequestError> {
    let command = Command::Auth(op);
    crate::admit::check_size(&command, &call.limits)?;
    let command = call.on_behalf(command).await?;
    let outcome = call.proposer.propose(command).await?;
    outcome.result.map(|_| outcome.revision)
}

/// Notes a token in the log; the entry that did.
async fn issue(services: &Services, op: AuthOp) -> Result<(crate::types::RaftIndex, i64), RequestError> {
    let outcome = services.proposer.propose(Command::Auth(op).by(Caller::Member)).await?;
    match outcome.result? {
        Response::Token(index) => Ok((index, outcome.revision)),
        other => Err(super::kv::unexpected("a token", &other)),
    }
}
