//! What makes a server end, besides a signal.

use tokio::sync::watch;

use super::ServerError;
use crate::consensus::Node;
use crate::storage::StoreReader;
use crate::storage::values::Health;
use crate::wal::Wal;

/// Waits until this member has been removed from its cluster: as applied here, or as the others say.
pub(super) async fn removed(node: &Node) {
    tokio::select! {
        () = node.status().removed().until(node.status().member()) => {}
        () = asked(node.peers().removed()) => {}
        never = node.ask_around() => match never {},
    }
}

/// Waits until it is true.
pub(super) async fn asked(mut what: watch::Receiver<bool>) {
    if what.wait_for(|asked| *asked).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits until raft has ended by itself, and says why.
pub(super) async fn raft_ended(node: &Node) -> ServerError {
    let reason = node.fatal().wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
    ServerError::Fatal(reason.unwrap_or_else(|| "raft ended".to_owned()))
}

/// Waits until the log or the store has ended, and says why.
pub(super) async fn below_ended(wal: &Wal, reader: &StoreReader) -> ServerError {
    let (mut log, mut store) = (wal.fatal(), reader.values().health());
    let log_ended = async {
        match log.wait_for(Option::is_some).await.ok().and_then(|fatal| fatal.clone()) {
            Some(fatal) => fatal.to_string(),
            None => std::future::pending().await,
        }
    };
    let store_failed = async {
        match store.wait_for(|health| matches!(health, Health::Failed(_))).await {
            Ok(health) => match &*health {
                Health::Failed(why) => {
                    format!("the store is given up: {why}; nothing acknowledged is lost. Start again")
                }
                other => format!("{other:?}"),
            },
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        reason = log_ended => ServerError::Fatal(reason),
        reason = store_failed => match reader.values().is_stuck() {
            true => ServerError::Stuck(reason),
            false => ServerError::Fatal(reason),
        },
    }
}
