//! `CallContext`: one call: who asks, and what serves it.
//!
//! ```text
//! handler(call) ─► call.access()            may it read these keys? a read
//!               └► call.on_behalf(command)  may it do that? the command with its caller, to be proposed
//! ```
//! A member that is behind may not know yet what a caller may: before it refuses, it catches up and looks again.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use super::{Origin, Who};
use crate::api::services::Services;
use crate::apply::{Command, rights};
use crate::auth::{Access, AuthState, Caller};
use crate::types::{Held, RequestError};

/// A call under way.
#[derive(Clone, Debug)]
pub(crate) struct CallContext {
    services: Arc<Services>,
    who: Who,
    origin: Origin,
    needs_leader: bool,
    /// When it came, with its message; none for one that may take long, at whose token one looks as of now.
    came: Option<Instant>,
    /// The bytes of the message of one that may wait for hours, which lets go of it before that.
    message: Option<Arc<Held>>,
}

impl Deref for CallContext {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.services
    }
}

impl CallContext {
    pub(crate) fn new(services: Arc<Services>, who: Who, origin: Origin, needs_leader: bool) -> Self {
        Self { services, who, origin, needs_leader, came: None, message: None }
    }

    /// Notes that the call came as a whole at `time`, which is what counts for its token: it saves a look at the clock.
    pub(crate) fn came(&mut self, time: Instant) {
        self.came = Some(time);
    }

    /// Leaves it to the call when what its message takes is given back.
    pub(crate) fn hold_message(&mut self, held: Option<Held>) {
        self.message = held.map(Arc::new);
    }

    /// What its message takes, to be given back with it.
    pub(crate) fn take_message_held(&mut self) -> Option<Arc<Held>> {
        self.message.take()
    }

    /// [`super::Authentication::look`] for this call.
    fn look<T>(
        &self,
        state: &AuthState,
        look: impl FnOnce(&Caller, Result<Access<'_>, RequestError>) -> Result<T, RequestError>,
    ) -> Result<T, RequestError> {
        self.services.auth.look(&self.who, self.came, state, look)
    }

    /// Whence it comes.
    pub(super) fn origin(&self) -> Origin {
        self.origin
    }

    /// Whether the client wants an answer only from a member that knows a leader (`hasleader`); a stream ends then when
    /// there is none.
    pub(crate) fn needs_leader(&self) -> bool {
        self.needs_leader
    }

    /// What serves the call, to be kept.
    pub(crate) fn services(&self) -> &Arc<Services> {
        &self.services
    }

    /// Whom the call is for, as of `state`; nobody while authentication is off, whatever it shows.
    ///
    /// # Errors
    /// `AuthTokenInvalid`.
    pub(crate) fn caller(&self, state: &AuthState) -> Result<Caller, RequestError> {
        self.look(state, |caller, _| Ok(caller.clone()))
    }

    /// Whether the call is somebody's.
    ///
    /// # Errors
    /// `UserEmpty`, `AuthTokenInvalid`. None while authentication is off.
    pub(crate) fn check_known(&self) -> Result<(), RequestError> {
        let state = self.auth.view.look();
        self.look(&state, |caller, _| state.check_known(caller))
    }

    /// Whether the call is root's.
    ///
    /// # Errors
    /// `UserEmpty`, `AuthTokenInvalid`, `UserNotFound`, `PermissionDenied`. None while authentication is off.
    pub(crate) async fn check_admin(&self) -> Result<(), RequestError> {
        if self.check_admin_here().is_ok() {
            return Ok(());
        }
        self.catch_up().await?;
        self.check_admin_here()
    }

    /// The same by what the cluster has agreed on: for what is done outside of the log, where nothing looks again. A
    /// member that doesn't know it lets nobody in, though authentication be off as far as it knows.
    ///
    /// # Errors
    /// Those of [`CallContext::check_admin`], and of a barrier; while authentication is off, `leaderless` in the place of
    /// those where no leader is known.
    pub(crate) async fn check_admin_of_cluster(&self, leaderless: RequestError) -> Result<(), RequestError> {
        match self.catch_up().await {
            Ok(()) => self.check_admin_here(),
            Err(RequestError::Timeout | RequestError::NoLeader)
                if !self.auth.view.look().is_enabled() && self.proposer.standing().leader.is_none() =>
            {
                Err(leaderless)
            }
            Err(error) => Err(error),
        }
    }

    /// The same by what this member knows.
    ///
    /// # Errors
    /// Those of [`CallContext::check_admin`].
    pub(crate) fn check_admin_here(&self) -> Result<(), RequestError> {
        let state = self.auth.view.look();
        self.look(&state, |caller, _| state.check_admin(caller))
    }

    /// Returns once this member has known, at some time since it started, whether authentication is on.
    ///
    /// # Errors
    /// Those of a barrier.
    pub(crate) async fn confirm_rights(&self) -> Result<(), RequestError> {
        if self.auth.is_confirmed() { Ok(()) } else { self.catch_up().await }
    }

    /// The same where it can matter: there are users, and authentication may have been turned on without this member.
    ///
    /// # Errors
    /// Those of a barrier.
    pub(crate) async fn confirm_users_rights(&self) -> Result<(), RequestError> {
        let may_matter = {
            let state = self.auth.view.look();
            !state.is_enabled() && state.users().next().is_some()
        };
        if may_matter { self.confirm_rights().await } else { Ok(()) }
    }

    /// Looks with `check` at what the caller may, and remembers as of when.
    ///
    /// # Errors
    /// `UserEmpty`, `AuthTokenInvalid`, `AuthRevisionOld`, and what `check` says.
    pub(crate) fn permit(
        &self,
        check: impl Fn(Access<'_>) -> Result<(), RequestError>,
    ) -> Result<Permit, RequestError> {
        let version = self.auth.view.version();
        if let Some(proof) = self.auth.known(&self.who, self.came, version) {
            check(proof.access()?)?;
            return Ok(Permit { version });
        }
        let state = self.auth.view.look();
        if state.is_enabled() {
            self.look(&state, |_, access| check(access?))?;
        }
        Ok(Permit { version: state.version() })
    }

    /// Runs `read` if `check` allows it, and again looks whether it does afterwards: what was read may have been
    /// written after a permission was taken away.
    ///
    /// # Errors
    /// Those of [`CallContext::permit`], and of `read`.
    pub(crate) async fn permitted<T>(
        &self,
        check: impl Fn(Access<'_>) -> Result<(), RequestError>,
        read: impl Future<Output = Result<T, RequestError>>,
    ) -> Result<T, RequestError> {
        let permit = self.permit(&check)?;
        let result = read.await?;
        self.still(&permit, check)?;
        Ok(result)
    }

    /// Whether what was permitted still is.
    ///
    /// # Errors
    /// Those of [`CallContext::permit`].
    pub(crate) fn still(
        &self,
        permit: &Permit,
        check: impl Fn(Access<'_>) -> Result<(), RequestError>,
    ) -> Result<(), RequestError> {
        if permit.version == self.auth.view.version() { Ok(()) } else { self.permit(check).map(drop) }
    }

    /// Whether the caller may do what `command` says, as far as this member knows.
    pub(crate) fn may(&self, command: &Command) -> bool {
        let state = self.auth.view.look();
        let checked =
            self.look(&state, |caller, access| rights::check_with(command, caller, access, &state, &self.lessor));
        checked.is_ok()
    }

    /// Catches up if authentication is on: for what is seen here before the rights that it goes by.
    ///
    /// # Errors
    /// Those of a barrier.
    pub(crate) async fn catch_up_with_rights(&self) -> Result<(), RequestError> {
        if self.auth.view.look().is_enabled() { self.catch_up().await } else { Ok(()) }
    }

    /// The command with its caller, if it is allowed.
    ///
    /// # Errors
    /// Those of [`rights::check`], and `AuthTokenInvalid`.
    pub(crate) async fn on_behalf(&self, command: Command) -> Result<Command, RequestError> {
        let look = || {
            let state = self.auth.view.look();
            if !state.is_enabled() {
                return Ok(Caller::Nobody);
            }
            self.look(&state, |caller, access| {
                rights::check_with(&command, caller, access, &state, &self.lessor).map(|()| caller.clone())
            })
        };
        let caller = match look() {
            Ok(caller) => caller,
            Err(_) => {
                self.catch_up().await?;
                look()?
            }
        };
        Ok(command.by(caller))
    }

    /// Returns when what the cluster has agreed on before is seen here.
    pub(super) async fn catch_up(&self) -> Result<(), RequestError> {
        if let Some(wait) = self.proposer.read_barrier() {
            wait.await?;
        }
        self.auth.set_confirmed();
        Ok(())
    }

    /// Waits for the entry that gave a token out, which another member may have answered with before it is seen here.
    pub(crate) async fn await_token(&self) {
        if self.who.is_ahead(self.proposer.standing().applied) {
            // Without a leader the token isn't known, which is what is answered.
            let _ = self.catch_up().await;
        }
    }
}

/// That something was permitted, and as of which users and roles.
pub(crate) struct Permit {
    /// Of the state.
    version: u64,
}
