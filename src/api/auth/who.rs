//! `Who`: what a request shows of its caller: a token in its metadata, or a certificate's common name.
//!
//! ```text
//! connection: Visitor ─► request's metadata ─► Who ─┬► Named
//!                └─ the token that was shown last ──┴► Token(Shown) ─ with what it proved, if it was looked at already
//! ```
//! A client shows the same token with each of its calls, so a connection remembers one, and with it what it proved first.
//! That is asked for again as soon as it may be another (`auth::Proof`), and calls after that have a new one to fill.

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::auth::Proof;
use crate::types::RaftIndex;

static TOKEN: HeaderName = HeaderName::from_static("token");
static THROUGH_A_GATEWAY: HeaderName = HeaderName::from_static("grpcgateway-accept");

/// What a connection knows of who calls on it.
#[derive(Default)]
pub(crate) struct Visitor {
    /// The common name of a client certificate that was verified, where that counts.
    name: Option<Arc<str>>,
    /// Whence it comes.
    origin: Option<IpAddr>,
    /// One request of a connection is looked at at a time.
    last: Cell<Option<Arc<Shown>>>,
}

/// Whence a request comes, where nothing else that goes with it says so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whence(pub(crate) IpAddr);

impl Visitor {
    /// One with a certificate of this common name. An empty one is as good as any that no user has: no user can be
    /// called so.
    pub(crate) fn named(name: &str) -> Self {
        Self { name: Some(name.into()), ..Self::default() }
    }

    /// The same, coming from `origin`.
    #[must_use]
    pub(crate) fn coming(self, origin: Option<IpAddr>) -> Self {
        Self { origin, ..self }
    }

    /// Whence it comes.
    pub(crate) fn origin(&self) -> Option<IpAddr> {
        self.origin
    }

    /// Who shows `headers`: `token`, else `authorization`, as in etcd; else the certificate.
    pub(crate) fn who(&self, headers: &HeaderMap) -> Who {
        match (headers.get(&TOKEN).or_else(|| headers.get(AUTHORIZATION)), &self.name) {
            (Some(token), _) => Who::Token(self.shown(token)),
            // What came through a gateway was asked for by somebody behind it: the certificate is the gateway's.
            (None, Some(name)) if !headers.contains_key(&THROUGH_A_GATEWAY) => Who::Named(name.clone()),
            (None, _) => Who::Nobody,
        }
    }

    fn shown(&self, token: &HeaderValue) -> Arc<Shown> {
        let last = self.last.take().filter(|last| !last.is_old() && is_same(&last.token, token.as_bytes()));
        // A copy, which keeps nothing else of what was read with it.
        let shown = last.unwrap_or_else(|| Arc::new(Shown::new(token.as_bytes())));
        self.last.set(Some(shown.clone()));
        shown
    }
}

/// Compares in a time that doesn't tell how much of it is the same.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    let ((a_words, a_rest), (b_words, b_rest)) = (a.as_chunks(), b.as_chunks());
    let differ = |a: &[u8; 8], b: &[u8; 8]| u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b);
    let words = a_words.iter().zip(b_words).fold(0, |differs, (a, b)| differs | differ(a, b));
    let rest = a_rest.iter().zip(b_rest).fold(0, |differs, (a, b)| differs | (a ^ b));
    a.len() == b.len() && words | u64::from(rest) == 0
}

/// A token, as it was shown.
pub(crate) struct Shown {
    token: Box<[u8]>,
    /// What it proved when it was looked at first: nearly always what it still proves, and read as any other memory.
    first: OnceLock<Proof>,
    /// What it proved when it was looked at last, for calls that go on after the first doesn't hold any more.
    later: ArcSwapOption<Proof>,
    /// There is a later one.
    old: AtomicBool,
}

impl Shown {
    fn new(token: &[u8]) -> Self {
        Self { token: token.into(), first: OnceLock::new(), later: ArcSwapOption::empty(), old: AtomicBool::new(false) }
    }

    /// What it proved when it was looked at first.
    pub(super) fn first(&self) -> Option<&Proof> {
        self.first.get()
    }

    /// Has `look` see the first or the last proof of which `holds` says that it still holds, else what `prove` finds out.
    ///
    /// # Errors
    /// Those of `prove` and `look`.
    pub(super) fn proven<T, E>(
        &self,
        holds: impl Fn(&Proof) -> bool,
        prove: impl FnOnce() -> Result<Proof, E>,
        look: impl FnOnce(&Proof) -> Result<T, E>,
    ) -> Result<T, E> {
        if let Some(first) = self.first.get()
            && holds(first)
        {
            return look(first);
        }
        if self.is_old()
            && let Some(later) = &*self.later.load()
            && holds(later)
        {
            return look(later);
        }
        let proof = prove()?;
        let looked = look(&proof);
        if let Err(later) = self.first.set(proof) {
            self.later.store(Some(Arc::new(later)));
            self.old.store(true, Ordering::Relaxed);
        }
        looked
    }

    /// Whether the first proof has failed to hold.
    fn is_old(&self) -> bool {
        self.old.load(Ordering::Relaxed)
    }

    /// Its text; `None` if it is none.
    pub(super) fn text(&self) -> Option<&str> {
        let text = std::str::from_utf8(&self.token).ok()?;
        Some(text.strip_prefix("Bearer ").unwrap_or(text))
    }

    /// The entry that gave it out, as far as it says so.
    fn index(&self) -> Option<u64> {
        self.text()?.rsplit_once('.')?.1.parse().ok()
    }
}

/// What a request shows of its caller.
#[derive(Clone, Default)]
pub(crate) enum Who {
    /// Nothing.
    #[default]
    Nobody,
    /// A token.
    Token(Arc<Shown>),
    /// The common name of a client certificate that was verified, where that counts.
    Named(Arc<str>),
}

impl Who {
    /// Whether a token isn't known here since the entry that gave it out, as far as it says so, comes after `applied`.
    pub(crate) fn is_ahead(&self, applied: RaftIndex) -> bool {
        self.unknown_token_index().is_some_and(|index| index > applied.get())
    }

    /// The entry that gave a simple token out, as far as it says so, unless it was known here already.
    fn unknown_token_index(&self) -> Option<u64> {
        match self {
            Self::Token(shown) if shown.first.get().is_none() => shown.index(),
            _ => None,
        }
    }
}

impl std::fmt::Debug for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nobody => f.write_str("Nobody"),
            Self::Token(_) => f.write_str("Token"),
            Self::Named(name) => f.debug_tuple("Named").field(name).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{AuthState, IssuedTokens, Tokens, token_hash};
    use crate::types::RequestError;

    fn token(who: &Who) -> Option<(Option<&str>, Option<u64>)> {
        let Who::Token(shown) = who else { return None };
        Some((shown.text(), who.unknown_token_index()))
    }

    #[test]
    fn a_token_comes_before_a_name_and_a_name_is_not_a_gateways() {
        let (nobody, named) = (Visitor::default(), Visitor::named("cn"));
        let mut headers = HeaderMap::new();
        assert!(matches!(nobody.who(&headers), Who::Nobody));
        assert!(matches!(Visitor::named("").who(&headers), Who::Named(name) if name.is_empty()));
        assert!(matches!(named.who(&headers), Who::Named(name) if &*name == "cn"));
        headers.insert("grpcgateway-accept", HeaderValue::from_static("*/*"));
        assert!(matches!(named.who(&headers), Who::Nobody));
        headers.insert("authorization", HeaderValue::from_static("Bearer abc.7"));
        assert_eq!(token(&named.who(&headers)), Some((Some("abc.7"), Some(7))));
        headers.insert("token", HeaderValue::from_static("bearer x"));
        let who = nobody.who(&headers);
        assert_eq!(token(&who), Some((Some("bearer x"), None)));
        assert_eq!(format!("{who:?}"), "Token", "it isn't shown");
        headers.insert("token", HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(token(&nobody.who(&headers)), Some((None, None)));
    }

    #[test]
    fn a_connection_remembers_the_token_that_was_shown_last_and_takes_no_other_for_it() {
        let visitor = Visitor::default();
        let show = |token: &str| {
            let headers = HeaderMap::from_iter([(TOKEN.clone(), HeaderValue::from_str(token).unwrap())]);
            match visitor.who(&headers) {
                Who::Token(shown) => shown,
                other => panic!("{other:?}"),
            }
        };
        let first = show("abc.7");
        assert!(Arc::ptr_eq(&first, &show("abc.7")));
        for other in ["abc.8", "abd.7", "abc.77", "abc.", "", "Bearer abc.7"] {
            let shown = show(other);
            assert!(!Arc::ptr_eq(&first, &shown) && *shown.token == *other.as_bytes(), "{other}");
        }
        assert!(!Arc::ptr_eq(&first, &show("abc.7")), "one is remembered");
    }

    #[test]
    fn what_a_token_proves_later_is_kept_for_its_calls_and_the_next_request_begins_anew() {
        let issued = Arc::new(IssuedTokens::default());
        issued.issue(token_hash("abc"), RaftIndex(5), "u".into());
        let tokens = Tokens::Simple { issued, ttl: std::time::Duration::from_secs(300) };
        let visitor = Visitor::default();
        let show = || visitor.shown(&HeaderValue::from_static("abc.5"));
        let proven = Cell::new(0);
        let look = |shown: &Shown, holds: &dyn Fn(&Proof) -> bool| {
            let prove = || {
                proven.set(proven.get() + 1);
                let (now, wall) = (std::time::Instant::now, std::time::SystemTime::now);
                tokens.prove("abc.5", &AuthState::default(), now, wall)
            };
            shown.proven(holds, prove, |proof| Ok::<_, RequestError>(proof.caller().name().map(str::to_owned)))
        };
        let shown = show();
        for _ in 0..2 {
            assert_eq!((look(&shown, &|_| true), proven.get()), (Ok(Some("u".to_owned())), 1));
        }
        assert!(Arc::ptr_eq(&shown, &show()));
        let first: *const Proof = shown.first().expect("it is kept");
        for _ in 0..2 {
            let holds = |proof: &Proof| !std::ptr::eq(proof, first);
            assert_eq!((look(&shown, &holds), proven.get()), (Ok(Some("u".to_owned())), 2));
        }
        assert!(!Arc::ptr_eq(&shown, &show()) && show().first().is_none());
        assert!(look(&shown, &|_| false).is_ok() && proven.get() == 3, "nothing is taken on trust");
    }
}
