//! Who the first members of a cluster are, where no flag lists them.
//!
//! ```text
//! --discovery-token, -endpoints ─► way ─► registry: another etcd or rusd, in which each member writes itself down
//! --discovery-srv               ─► srv ─► dns: records that name them all
//!                                          └► --initial-cluster, as if it had been typed
//! ```
//! Asked only before the first start; the flags mean nothing once the data directory is made.

mod dns;
mod registry;
mod srv;
mod way;

use crate::env::Env;
use crate::ops::config::{Config, InitialCluster};
use crate::tls::TlsError;

/// Why the members could not be found; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// What etcd says, too: the registry isn't as it should be.
    #[error("failed to join discovery cluster (discovery: {why}). {instead}")]
    Registry {
        /// What isn't.
        why: String,
        /// A sentence that says what to do.
        instead: &'static str,
    },
    /// Files that TLS to the registry needs are not as they should be.
    #[error("TLS to the discovery service: {0}. Correct --discovery-cert, --discovery-key or --discovery-cacert")]
    Tls(#[from] TlsError),
    /// The records can't be had.
    #[error("error setting up initial cluster: {why}. Correct the records, --discovery-srv or --discovery-srv-name")]
    Records {
        /// What each question was answered.
        why: String,
    },
    /// This member isn't among them.
    #[error(
        "couldn't find local name {name:?} in the initial cluster configuration ({cluster}): no record names an address \
         of --initial-advertise-peer-urls"
    )]
    NotListed {
        /// `--name`.
        name: String,
        /// Who is.
        cluster: String,
    },
}

/// Whether the members are to be found rather than listed.
pub fn is_asked(config: &Config) -> bool {
    !config.discovery.token.is_empty() || !config.discovery.srv.is_empty()
}

/// Finds them, and puts them in the place of `--initial-cluster`. Waits for as long as members are missing, or the
/// registry can't be reached, as etcd does.
///
/// # Errors
/// [`DiscoveryError`].
pub async fn find(config: &mut Config, env: &Env) -> Result<(), DiscoveryError> {
    let cluster: InitialCluster = if config.discovery.token.is_empty() {
        srv::find(config, env).await?
    } else {
        let found = registry::find(config, env).await?;
        // It keeps clusters with equal URLs apart, as etcd has it.
        config.clustering.initial_cluster_token.clone_from(&config.discovery.token);
        found
    };
    tracing::info!(%cluster, "found the members of the initial cluster");
    config.clustering.initial_cluster = cluster;
    Ok(())
}
