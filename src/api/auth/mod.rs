//! The Auth service, and who may call what.
//!
//! ```text
//! request ─► Visitor ─► Who ─► rules::of(method) ─► anyone · somebody · root · as its keys say (the handler asks `CallContext`)
//! Authenticate ─► password, on a thread that may block ─► token: through the log, or signed
//! users, roles ─► AuthOp ─► may grow? its turn, its bounds ─► log
//! ```

mod call;
mod etcd;
mod growing;
mod lane;
mod login;
mod refused;
mod roles;
pub(crate) mod rules;
mod users;
mod who;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use super::entrance;
use super::methods::Method;
use super::services::Services;
use crate::apply::{Command, Response};
use crate::auth::{Access, AuthOp, AuthState, AuthView, Caller, PasswordHash, Proof, Secret, Tokens};
use crate::env::Env;
use crate::types::{Limits, Places, RequestError};
use growing::Growing;
use lane::{Lane, Origin};
use refused::RefusedLogins;
use rules::Rule;
use who::Shown;

pub(crate) use call::CallContext;
pub use etcd::{etcd_role, etcd_user};
pub(crate) use login::{authenticate, disable, enable, status};
pub(crate) use roles::{role_add, role_delete, role_get, role_grant_permission, role_list, role_revoke_permission};
pub(crate) use users::{
    user_add, user_change_password, user_delete, user_get, user_grant_role, user_list, user_revoke_role,
};
pub(crate) use who::{Visitor, Whence, Who};

/// Changes of passwords that do; they have a lane of their own, so that logins can't keep root from one.
const HASHES_FOR_ROOT_WAITING_MAX: usize = 64;

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
    /// Whether this member has caught up once since it started.
    confirmed: AtomicBool,
    refused: RefusedLogins,
    /// Rounds of bcrypt that logins have taken.
    rounds: AtomicU64,
    logins: Lane,
    passwords: Lane,
    growing: Growing,
}

impl Authentication {
    /// With what the flags say.
    pub fn new(view: AuthView, tokens: Tokens, cost: u32, common_names: bool, env: Env) -> Self {
        // Each takes a processor for tens of milliseconds; the others go on serving.
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            view,
            tokens,
            cost,
            common_names,
            env,
            confirmed: AtomicBool::new(false),
            refused: RefusedLogins::default(),
            rounds: AtomicU64::new(0),
            logins: Lane::new((processors / 2).max(1), logins_waiting(&Limits::default())),
            passwords: Lane::new(1, Places::new("changes of passwords", HASHES_FOR_ROOT_WAITING_MAX)),
            growing: Growing::default(),
        }
    }

    /// Lets as many logins wait as `limits` say.
    #[must_use]
    pub fn with_limits(mut self, limits: &Limits) -> Self {
        self.logins = self.logins.with_places(logins_waiting(limits));
        self
    }

    /// Logins that wait for the check of their password.
    pub fn logins_waiting(&self) -> &Arc<Places> {
        self.logins.waiting()
    }

    /// Rounds of bcrypt that logins have taken since the start: a login that is refused takes always the same number.
    pub fn login_rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    fn note_rounds(&self, rounds: u64) {
        self.rounds.fetch_add(rounds, Ordering::Relaxed);
    }

    /// Whether this member has caught up with the cluster once since it started.
    fn is_confirmed(&self) -> bool {
        self.confirmed.load(Ordering::Relaxed)
    }

    fn set_confirmed(&self) {
        self.confirmed.store(true, Ordering::Relaxed);
    }

    /// Who calls on a connection of `caller`.
    pub(super) fn visitor(&self, caller: &entrance::Caller) -> Visitor {
        let visitor = match &caller.identity {
            Some(identity) if self.common_names => Visitor::named(&identity.common_name),
            _ => Visitor::default(),
        };
        visitor.coming(caller.address)
    }

    /// Whether `who` is somebody, as far as this member knows; nobody need be while authentication is off.
    ///
    /// # Errors
    /// What makes whoever it is log in, where a call of `method` would be answered so; else `TooManyRequests`, as there may be
    /// room for it later.
    pub(super) fn check_known(&self, who: &Who, method: Option<Method>) -> Result<(), RequestError> {
        let state = self.view.look();
        if !state.is_enabled() {
            return Ok(());
        }
        let rule = method.map_or(Rule::Anyone, rules::of);
        let is_user = |caller: &Caller| caller.name().is_some_and(|name| state.user(name).is_some());
        match (self.look(who, None, &state, |caller, _| Ok(is_user(caller))), who) {
            (Ok(true), _) => Ok(()),
            (Ok(false), Who::Nobody) if !matches!(rule, Rule::Anyone | Rule::AnyoneHonest) => {
                Err(RequestError::UserEmpty)
            }
            (Err(error), _) if rule != Rule::Anyone => Err(error),
            _ => Err(RequestError::TooManyRequests),
        }
    }

    /// What the token of `who` proved first, if that still holds as of the state of this `version`, without a look at that.
    fn known<'a>(&self, who: &'a Who, came: Option<Instant>, version: u64) -> Option<&'a Proof> {
        let Who::Token(shown) = who else { return None };
        shown.first().filter(|proof| self.holds(proof, came, version))
    }

    /// Whether a proof still holds for a request that came at that time; now, if it doesn't say.
    fn holds(&self, proof: &Proof, came: Option<Instant>, version: u64) -> bool {
        let now = || came.unwrap_or_else(|| self.env.clock.now());
        self.tokens.holds(proof, version, now, || self.env.clock.wall())
    }

    /// Has `look` see whom a request is for and what that one may do with keys, as of `state`, for a request that came at
    /// that time; now, if it doesn't say.
    ///
    /// # Errors
    /// `AuthTokenInvalid`, and what `look` says.
    fn look<T>(
        &self,
        who: &Who,
        came: Option<Instant>,
        state: &AuthState,
        look: impl FnOnce(&Caller, Result<Access<'_>, RequestError>) -> Result<T, RequestError>,
    ) -> Result<T, RequestError> {
        let caller = match who {
            _ if !state.is_enabled() => Caller::Nobody,
            Who::Nobody => Caller::Nobody,
            Who::Named(name) => Caller::User { name: name.clone(), revision: state.revision() },
            Who::Token(shown) => {
                return shown.proven(
                    |proof| self.holds(proof, came, state.version()),
                    || self.prove(shown, state),
                    |proof| look(proof.caller(), proof.access()),
                );
            }
        };
        look(&caller, state.access(&caller))
    }

    /// Finds out what a token proves.
    fn prove(&self, shown: &Shown, state: &AuthState) -> Result<Proof, RequestError> {
        let token = shown.text().ok_or(RequestError::AuthTokenInvalid)?;
        self.tokens.prove(token, state, || self.env.clock.now(), || self.env.clock.wall())
    }

    /// Runs the check of a login that comes from `origin`, a few at a time.
    async fn hashing<T: Send + 'static>(
        &self,
        origin: Origin,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, RequestError> {
        self.logins.run(origin, work).await
    }

    /// The hash of a new password.
    async fn hash(&self, password: Secret) -> Result<PasswordHash, RequestError> {
        let mut salt = [0; 16];
        self.env.rng.fill(&mut salt);
        let cost = self.cost;
        let hashed = self.passwords.run(None, move || crate::auth::hash(&password, cost, salt)).await?;
        hashed.map_err(|_| RequestError::PasswordTooLong)
    }
}

fn logins_waiting(limits: &Limits) -> Arc<Places> {
    Places::new("max-pending-logins", limits.logins_pending_max)
}

impl std::fmt::Debug for Authentication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authentication").field("tokens", &self.tokens).field("cost", &self.cost).finish_non_exhaustive()
    }
}

/// Gets a change of users or roles through the log, and gives the revision for the header.
async fn change(call: &CallContext, op: AuthOp) -> Result<i64, RequestError> {
    let (what, may_grow) = (op.title(), op.may_grow());
    let command = Command::Auth(op);
    crate::admit::check_size(&command, &call.limits)?;
    // Who may not change anything doesn't learn how much there is.
    let command = call.on_behalf(command).await?;
    let outcome =
        if may_grow { growing::propose(call, command).await? } else { call.proposer.propose(command).await? };
    outcome.result?;
    tracing::info!(change = what, "users, roles or authentication were changed through this member");
    Ok(outcome.revision)
}

/// Notes a token in the log; the entry that did.
async fn issue(services: &Services, op: AuthOp) -> Result<(crate::types::RaftIndex, i64), RequestError> {
    let outcome = services.proposer.propose(Command::Auth(op).by(Caller::Member)).await?;
    match outcome.result? {
        Response::Token(index) => Ok((index, outcome.revision)),
        other => Err(super::kv::unexpected("a token", &other)),
    }
}
