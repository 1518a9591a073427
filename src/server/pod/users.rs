//! `rusd pod users`: root and its password are made, and authentication is turned on.
//!
//! Every step that was done before is done already: it may be run at each upgrade.

use std::time::Duration;

use super::{AGAIN, PodError};
use crate::auth::Secret;
use crate::env::Env;
use crate::operator::{AskError, Way};

/// Waits for the cluster as long as `patience`; gives the text to print.
pub(in crate::server) async fn users(
    env: &Env,
    way: &Way,
    endpoints: &[String],
    password: &Secret,
    patience: Duration,
) -> Result<String, PodError> {
    if password.reveal().is_empty() {
        return Err(PodError::Flags("root needs a password: ETCDCTL_USER=root and ETCDCTL_PASSWORD".to_owned()));
    }
    let begun = env.clock.now();
    loop {
        let mut last = AskError::Refused("--endpoints: nobody to ask".to_owned());
        for endpoint in endpoints {
            match way.to(endpoint).secure(password).await {
                Ok(true) => return Ok("authentication is on\n".to_owned()),
                Ok(false) => return Ok("authentication was on already\n".to_owned()),
                // Another password is in force: to try on would only be guessing.
                Err(error) if error.says("invalid user ID or password") => {
                    return Err(PodError::Flags(format!(
                        "{error}: authentication is on with another password of root's than this one. Users come along with a \
                         restored backup, with the password that they had; later ones are set by `etcdctl user passwd root`, \
                         and in the secret after that"
                    )));
                }
                Err(error) => last = error,
            }
        }
        if env.clock.now().saturating_duration_since(begun) >= patience {
            return Err(PodError::Late { after: patience, last: last.to_string() });
        }
        tracing::info!(error = %last, "not yet; will try again");
        tokio::time::sleep(AGAIN).await;
    }
}
