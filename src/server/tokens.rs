//! What `--auth-token` asks for: simple tokens, or signed ones with the keys that its files hold.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::ServerError;
use crate::auth::{IssuedTokens, Jwt, JwtKeys, JwtOptions, Tokens};
use crate::env::{Env, read_all};
use crate::ops::config::{Config, parse_duration};

/// A key's file is far smaller.
const KEY_BYTES_MAX: usize = 1 << 20;
/// Between two looks for tokens whose time is over.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Reads the keys of signed tokens; `None` for simple ones.
///
/// # Errors
/// An option or a key that can't be used.
pub(super) fn signed(env: &Env, config: &Config) -> Result<Option<Arc<Jwt>>, ServerError> {
    let bad = |why: String| ServerError::AuthToken(why);
    let options = match config.auth.token.split_once(',').unwrap_or((&config.auth.token, "")) {
        ("simple" | "", _) => return Ok(None),
        ("jwt", options) => JwtOptions::parse(options, |text| parse_duration(text).ok()),
        (kind, _) => return Err(bad(format!("{kind:?} is neither simple nor jwt,…"))),
    };
    let options = options.map_err(|error| bad(error.to_string()))?;
    let read = |path: &Option<String>| {
        let path = path.as_deref().map(Path::new);
        let read = path.map(|path| {
            read_all(env.disk.as_ref(), path, KEY_BYTES_MAX)
                .map_err(|error| bad(format!("{} can't be read: {error}", path.display())))
        });
        read.transpose()
    };
    let keys = JwtKeys { public: read(&options.public_key)?, private: read(&options.private_key)? };
    let jwt = Jwt::new(&options, &keys).map_err(|error| bad(error.to_string()))?;
    Ok(Some(Arc::new(jwt)))
}

/// How callers prove who they are: by signed tokens if there are any, else by those that are given out.
pub(super) fn tokens(signed: Option<Arc<Jwt>>, issued: Arc<IssuedTokens>, ttl: Duration) -> Tokens {
    match signed {
        Some(jwt) => Tokens::Jwt(jwt),
        None => Tokens::Simple { issued, ttl: ttl_of(ttl) },
    }
}

/// Zero is etcd's own, as there.
pub(super) fn ttl_of(ttl: Duration) -> Duration {
    if ttl.is_zero() { Duration::from_secs(300) } else { ttl }
}

/// Lets go of tokens whose time is over, until it is aborted.
pub(super) fn sweep(env: Env, issued: Arc<IssuedTokens>, ttl: Duration) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(SWEEP_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            issued.sweep(env.clock.now(), ttl);
        }
    })
}
