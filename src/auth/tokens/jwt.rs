//! Signed tokens: `username`, `revision` and `exp` in a JSON Web Token.
//!
//! ```text
//! sign    header.claims ─► key ─► header.claims.signature
//! check   alg as configured? ─► signature ─► time ─► Caller with the token's revision (kept for the next time)
//! ```
//! The algorithm is the server's, never the token's choice. A token's revision is compared where its caller uses keys,
//! so that every change of users or roles ends it there. What only root may do goes by the user's present roles, and
//! what any user may do by the signature alone, until the token's time is over: as in etcd.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::keys::{JwtKeys, Keys};
use crate::auth::{Caller, Secret};
use crate::types::RequestError;

/// How long a token lives without `ttl=`.
const TTL_DEFAULT: Duration = Duration::from_secs(300);
/// Verified tokens that are remembered, so that a signature is looked at once.
const REMEMBERED_MAX: usize = 4_096;
/// A token is no longer.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Why `--auth-token` can't be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// Not `name=value`, unknown, or given twice.
    #[error("{0:?} is no option of jwt; there are sign-method, pub-key, priv-key and ttl")]
    BadOption(String),
    /// No algorithm of this name.
    #[error(
        "sign-method {0:?} is not known; type one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, HS256, HS384, HS512, EdDSA"
    )]
    BadMethod(String),
    /// A time that can't be read, or none.
    #[error("ttl {0:?} is no time; type one like 10m")]
    BadTtl(String),
    /// A file that holds no key for the algorithm.
    #[error("{0} holds no key for this sign-method (PEM is expected, RSA of 2048 bits at least)")]
    BadKey(&'static str),
    /// Neither key is given.
    #[error("a key is missing: give pub-key, priv-key or both (HS… need priv-key)")]
    MissingKey,
    /// The two keys don't belong together.
    #[error("pub-key isn't the public half of priv-key")]
    KeysDiffer,
}

/// The algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    Hs256,
    Hs384,
    Hs512,
    EdDsa,
}

const METHODS: [(&str, Method); 13] = [
    ("RS256", Method::Rs256),
    ("RS384", Method::Rs384),
    ("RS512", Method::Rs512),
    ("PS256", Method::Ps256),
    ("PS384", Method::Ps384),
    ("PS512", Method::Ps512),
    ("ES256", Method::Es256),
    ("ES384", Method::Es384),
    ("ES512", Method::Es512),
    ("HS256", Method::Hs256),
    ("HS384", Method::Hs384),
    ("HS512", Method::Hs512),
    ("EdDSA", Method::EdDsa),
];

/// What follows `jwt,` in `--auth-token`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtOptions {
    method: Method,
    /// The file of the public key.
    pub public_key: Option<String>,
    /// The file of the private key.
    pub private_key: Option<String>,
    ttl: Duration,
}

impl JwtOptions {
    /// Reads `sign-method=…,pub-key=…,priv-key=…,ttl=…` in any order; `duration` reads a time as flags have it.
    ///
    /// # Errors
    /// See [`JwtError`].
    pub fn parse(text: &str, duration: impl Fn(&str) -> Option<Duration>) -> Result<Self, JwtError> {
        let mut given: HashMap<&str, &str> = HashMap::new();
        for option in text.split(',').filter(|option| !option.is_empty()) {
            let bad = || JwtError::BadOption(option.to_owned());
            let (name, value) = option.split_once('=').ok_or_else(bad)?;
            let is_known = ["sign-method", "pub-key", "priv-key", "ttl"].contains(&name);
            if !is_known || given.insert(name, value).is_some() {
                return Err(bad());
            }
        }
        let wished = given.get("sign-method").copied().unwrap_or_default();
        let known = METHODS.iter().find(|(name, _)| *name == wished);
        let (_, method) = known.ok_or_else(|| JwtError::BadMethod(wished.to_owned()))?;
        let ttl = match given.get("ttl").filter(|text| !text.is_empty()) {
            None => TTL_DEFAULT,
            Some(text) => {
                duration(text).filter(|ttl| !ttl.is_zero()).ok_or_else(|| JwtError::BadTtl((*text).to_owned()))?
            }
        };
        let file = |name| given.get(name).filter(|path| !path.is_empty()).map(|path| (*path).to_owned());
        Ok(Self { method: *method, public_key: file("pub-key"), private_key: file("priv-key"), ttl })
    }
}

/// Makes and checks signed tokens.
pub struct Jwt {
    keys: Keys,
    name: &'static str,
    ttl: Duration,
    /// By hash of the token: whom it stands for and when it ends, in seconds since 1970.
    remembered: ArcSwap<HashMap<[u8; 32], (Caller, u64)>>,
}

impl std::fmt::Debug for Jwt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jwt").field("method", &self.name).field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

impl Jwt {
    /// With the contents of the files that the options name.
    ///
    /// # Errors
    /// `BadKey`, `MissingKey`, `KeysDiffer`.
    pub fn new(options: &JwtOptions, keys: &JwtKeys) -> Result<Self, JwtError> {
        let name = METHODS.iter().find(|(_, method)| *method == options.method).map_or("", |(name, _)| name);
        Ok(Self { keys: Keys::new(options.method, keys)?, name, ttl: options.ttl, remembered: ArcSwap::default() })
    }

    /// A token for a user.
    ///
    /// # Errors
    /// `VerifyOnlyKey` without a private key.
    pub fn sign(&self, user: &str, revision: u64, wall: SystemTime) -> Result<Secret, RequestError> {
        if !self.keys.can_sign() {
            return Err(RequestError::VerifyOnlyKey);
        }
        let ends = secs(wall).saturating_add(self.ttl.as_secs().max(1));
        let header = json!({ "alg": self.name, "typ": "JWT" }).to_string();
        let claims = json!({ "exp": ends, "revision": revision, "username": user }).to_string();
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.keys.sign(message.as_bytes()).ok_or(RequestError::AuthTokenInvalid)?;
        Ok(Secret::new(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))))
    }

    /// Whom a token stands for, and when it ends, in seconds since 1970.
    ///
    /// # Errors
    /// `AuthTokenInvalid`.
    pub(super) fn check(&self, token: &str, wall: SystemTime) -> Result<(Caller, u64), RequestError> {
        let invalid = RequestError::AuthTokenInvalid;
        if token.len() > TOKEN_BYTES_MAX {
            return Err(invalid);
        }
        let hash = *blake3::hash(token.as_bytes()).as_bytes();
        if let Some((caller, ends)) = self.remembered.load().get(&hash) {
            return if secs(wall) < *ends { Ok((caller.clone(), *ends)) } else { Err(invalid) };
        }
        let Verified { caller, begins, ends } = self.verified(token).ok_or(invalid.clone())?;
        if secs(wall) < begins || secs(wall) >= ends {
            return Err(invalid);
        }
        self.remembered.rcu(|before| {
            let mut after = if before.len() < REMEMBERED_MAX { HashMap::clone(before) } else { HashMap::new() };
            after.insert(hash, (caller.clone(), ends));
            after
        });
        Ok((caller, ends))
    }

    fn verified(&self, token: &str) -> Option<Verified> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        let part = |text: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(text).ok()?).ok();
        let header = part(header)?;
        // What a header calls critical must be understood, and nothing of that kind is.
        if header.get("alg")?.as_str()? != self.name || header.get("crit").is_some() {
            return None;
        }
        if !self.keys.verify(message.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).ok()?) {
            return None;
        }
        let claims = part(claims)?;
        let name: Arc<str> = claims.get("username")?.as_str()?.into();
        // Others write numbers with a point.
        let number =
            |name: &str| claims.get(name).and_then(|value| value.as_u64().or(value.as_f64().map(|f| f as u64)));
        // One that isn't good yet names its first second; who doesn't say is good from the beginning.
        let begins = if claims.get("nbf").is_some() { number("nbf")? } else { 0 };
        Some(Verified { caller: Caller::User { name, revision: number("revision")? }, begins, ends: number("exp")? })
    }
}

/// What a token says whose signature is right; times in seconds since 1970.
struct Verified {
    caller: Caller,
    begins: u64,
    ends: u64,
}

pub(super) fn secs(wall: SystemTime) -> u64 {
    wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
