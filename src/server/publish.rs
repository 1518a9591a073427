//! A member that has started tells the cluster its name and where clients reach it.
//!
//! ```text
//! leader known, first read confirmed ─► Publish ─► membership entry (none if it is so already) ─► ready
//! ```

use std::time::Duration;

use crate::consensus::{MemberChange, Node};
use crate::ops::config::Config;
use crate::types::RequestError;

/// Between two tries.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Waits until this member can serve linearizable requests and the cluster knows it. Goes on with the
/// latter in the background if nobody waits for it any longer.
///
/// # Errors
/// `Stopped` if Raft ended while waiting.
pub(super) async fn ready(node: &Node, config: &Config) -> Result<(), RequestError> {
    let urls = config.clustering.advertise_client_urls.iter().map(ToString::to_string).collect();
    let (id, name) = (node.status().member(), config.member.name.clone());
    let change = MemberChange::Publish { id, name: name.clone(), client_urls: urls };
    let node = node.clone();
    let publishing = tokio::spawn(async move {
        node.ready().await?;
        loop {
            match node.request_change(change.clone()).await {
                Ok(_) => break,
                Err(RequestError::Stopped) => return Err(RequestError::Stopped),
                Err(error) => tracing::debug!(%error, "this member could not be published yet"),
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
        tracing::info!(name, "published local member to cluster through raft");
        Ok(())
    });
    publishing.await.unwrap_or(Err(RequestError::Stopped))
}
