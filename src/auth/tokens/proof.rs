//! `Proof`: whom a token stands for and what that user may do: found out once, good until any of it may have changed.
//!
//! ```text
//! token ─► Tokens::prove ─► Proof ─► kept with the token by who may show it again
//!                 holds? ◄───┘ ─ a token came or went, its time is over, users or roles changed ─► prove again
//! ```

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::issued::Found;
use super::{Tokens, jwt};
use crate::auth::access::KeptAccess;
use crate::auth::{Access, AuthState, Caller};
use crate::types::RequestError;

/// What a token proves, as of one state of users and roles.
#[derive(Debug)]
pub struct Proof {
    caller: Caller,
    access: Result<KeptAccess, RequestError>,
    /// Of the state.
    version: u64,
    lasts: Lasts,
}

/// How long a token lasts.
#[derive(Debug)]
enum Lasts {
    /// As long as it is found.
    Found(Found),
    /// Until so many seconds after 1970.
    Until(u64),
}

impl Proof {
    /// Whom the token stands for. The name is this proof's own copy: the counts of who uses a shared one would be
    /// written by all threads on which its user has calls.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// What that one may do with keys.
    ///
    /// # Errors
    /// Those of [`AuthState::access`].
    pub fn access(&self) -> Result<Access<'_>, RequestError> {
        self.access.as_ref().map(KeptAccess::access).map_err(Clone::clone)
    }
}

impl Tokens {
    /// Finds out what `token` proves as of `state`.
    ///
    /// # Errors
    /// `AuthTokenInvalid` if it isn't one, or is no longer.
    pub fn prove(
        &self,
        token: &str,
        state: &AuthState,
        now: impl FnOnce() -> Instant,
        wall: impl FnOnce() -> SystemTime,
    ) -> Result<Proof, RequestError> {
        let (caller, lasts) = match self {
            Self::Simple { issued, ttl } => {
                let found = issued.find(token, now(), *ttl).ok_or(RequestError::AuthTokenInvalid)?;
                let caller = Caller::User { name: found.name().clone(), revision: state.revision() };
                (caller, Lasts::Found(found))
            }
            Self::Jwt(jwt) => {
                let (caller, ends) = jwt.check(token, wall())?;
                (caller, Lasts::Until(ends))
            }
        };
        let caller = match caller {
            Caller::User { name, revision } => Caller::User { name: Arc::from(&*name), revision },
            other => other,
        };
        Ok(Proof { access: state.kept_access(&caller), caller, version: state.version(), lasts })
    }

    /// Whether what was proven is what would be found out again, as of the state of this `version`. A simple token is used
    /// by that. If not, it may be worth another look.
    pub fn holds(
        &self,
        proof: &Proof,
        version: u64,
        now: impl FnOnce() -> Instant,
        wall: impl FnOnce() -> SystemTime,
    ) -> bool {
        proof.version == version
            && match (self, &proof.lasts) {
                (Self::Simple { issued, ttl }, Lasts::Found(found)) => issued.again(found, now(), *ttl),
                (Self::Jwt(_), Lasts::Until(ends)) => jwt::secs(wall()) < *ends,
                _ => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::auth::tokens::token_hash;
    use crate::auth::{AuthOp, AuthView, IssuedTokens, Jwt, JwtKeys, JwtOptions, PermissionKind};
    use crate::types::RaftIndex;

    const TTL: Duration = Duration::from_secs(300);

    /// A user `u` that may read `k`, and root, as readers see them.
    struct House {
        state: AuthState,
        view: AuthView,
    }

    impl House {
        fn new() -> Self {
            let mut house = Self { state: AuthState::default(), view: AuthView::default() };
            let name = |name: &str| name.to_owned();
            for op in [
                AuthOp::UserAdd { name: name("root"), password: None },
                AuthOp::UserGrantRole { name: name("root"), role: name("root") },
                AuthOp::UserAdd { name: name("u"), password: None },
                AuthOp::RoleAdd { name: name("r") },
                AuthOp::UserGrantRole { name: name("u"), role: name("r") },
                grant("k"),
                AuthOp::Enable,
            ] {
                house.change(&op);
            }
            house
        }

        fn change(&mut self, op: &AuthOp) {
            self.state.apply(op).expect("it may be done");
            self.view.store(self.state.published(RaftIndex(1)));
        }
    }

    fn grant(key: &'static str) -> AuthOp {
        let (key, range_end) = (key.as_bytes().into(), Default::default());
        AuthOp::RoleGrant { role: "r".to_owned(), kind: PermissionKind::Read, key, range_end }
    }

    fn may_read(proof: &Proof, key: &str) -> Result<(), RequestError> {
        proof.access()?.read_key(key.as_bytes())
    }

    #[test]
    fn a_simple_token_proves_what_it_did_until_the_token_or_any_right_may_have_changed() {
        let (mut house, issued, now) = (House::new(), Arc::new(IssuedTokens::default()), Instant::now());
        let tokens = Tokens::Simple { issued: issued.clone(), ttl: TTL };
        let wall = || -> SystemTime { unreachable!("nobody needs the time of day") };
        issued.issue(token_hash("abc"), RaftIndex(5), "u".into());
        let look = |house: &House| tokens.prove("abc.5", &house.view.look(), || now, wall);
        let holds = |proof: &Proof, house: &House, now| tokens.holds(proof, house.view.version(), || now, wall);

        let proof = look(&house).expect("it is one");
        assert_eq!(proof.caller().name(), Some("u"));
        assert_eq!((may_read(&proof, "k"), may_read(&proof, "l")), (Ok(()), Err(RequestError::PermissionDenied)));
        assert!(holds(&proof, &house, now) && holds(&proof, &house, now + TTL - Duration::from_secs(1)));
        assert!(!holds(&proof, &house, now + TTL * 3), "its time is over");

        house.change(&grant("l"));
        assert!(!holds(&proof, &house, now), "roles changed");
        let proof = look(&house).expect("it still is one");
        assert_eq!(may_read(&proof, "l"), Ok(()));

        house.change(&AuthOp::UserDelete { name: "u".to_owned() });
        let proof = look(&house).expect("the log has not ended it yet");
        assert_eq!(may_read(&proof, "k"), Err(RequestError::PermissionDenied), "there is no such user");
        issued.end_user("u");
        assert!(!holds(&proof, &house, now));
        assert_eq!(look(&house).err(), Some(RequestError::AuthTokenInvalid));
    }

    #[test]
    fn a_signed_token_proves_what_it_did_until_its_time_is_over_or_any_right_changed() {
        let mut house = House::new();
        let options = JwtOptions::parse("sign-method=HS256,priv-key=k", |_| None).expect("good");
        let keys = JwtKeys { private: Some(b"0123456789abcdef0123456789abcdef".to_vec()), public: None };
        let tokens = Tokens::Jwt(Arc::new(Jwt::new(&options, &keys).expect("good")));
        let at = |secs| SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
        let now = || -> Instant { unreachable!("only the time of day counts") };
        let token = tokens.sign("u", house.state.revision(), at(1_000)).expect("a key").expect("signed");
        let look = |house: &House| tokens.prove(token.reveal(), &house.view.look(), now, || at(1_000));
        let holds = |proof: &Proof, house: &House, secs| tokens.holds(proof, house.view.version(), now, || at(secs));

        let proof = look(&house).expect("it is one");
        assert_eq!(may_read(&proof, "k"), Ok(()));
        assert!(holds(&proof, &house, 1_299) && !holds(&proof, &house, 1_300));
        house.change(&grant("l"));
        assert!(!holds(&proof, &house, 1_000), "roles changed");
        let proof = look(&house).expect("its signature is as it was");
        assert_eq!(may_read(&proof, "k"), Err(RequestError::AuthRevisionOld));
        assert!(holds(&proof, &house, 1_000), "which is remembered as well");
    }
}
