//! The ports of a pod that waits: probes are answered, and other pods learn that it has no data.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::api::{self, Address, Connections, Listener, SocketOptions, WaitingDoor};
use crate::env::Env;
use crate::ops::config::{Config, Url};
use crate::server::ServerError;
use crate::server::tls::Entrances;

/// Others that ask at a time.
const CONNECTIONS_MAX: usize = 64;

/// What a pod says while it waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notice {
    /// Only pods of the same token make a cluster together.
    pub(super) token: String,
    /// Only if they think it to have the same size.
    pub(super) replicas: u32,
    /// Whether it has seen all of them without data.
    pub(super) agreed: bool,
}

impl Notice {
    fn text(&self) -> String {
        json!({ "token": self.token, "replicas": self.replicas, "agreed": self.agreed }).to_string()
    }

    /// What another one said; `None` if it says nothing of the kind.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        Some(Self {
            token: value.get("token")?.as_str()?.to_owned(),
            replicas: u32::try_from(value.get("replicas")?.as_u64()?).ok()?,
            agreed: value.get("agreed")?.as_bool()?,
        })
    }
}

/// The open ports, and their end.
pub(super) struct WaitingRoom {
    agreed: Arc<AtomicBool>,
    down: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl WaitingRoom {
    /// Opens the peer port and that of the metrics; without a notice it only answers probes.
    pub(super) fn open(config: &Config, env: &Env, notice: Option<Notice>) -> Result<Self, ServerError> {
        let made = ["client", "peer"].map(|whom| config.member.data_dir.join("fixtures").join(whom));
        let entrances = Entrances::open(config, &made, env)?;
        let agreed = Arc::new(AtomicBool::new(notice.as_ref().is_some_and(|notice| notice.agreed)));
        let said = agreed.clone();
        let text = move || match &notice {
            Some(notice) => Notice { agreed: said.load(Ordering::Acquire), ..notice.clone() }.text(),
            None => "{}".to_owned(),
        };
        let bind = |url: &Url| Listener::bind(&address(url), SocketOptions::default(), env.disk.as_ref());
        let mut listeners = Vec::new();
        for url in &config.member.listen_peer_urls {
            listeners.push(bind(url)?.secured(entrances.peer(url)?));
        }
        for url in &config.monitoring.listen_metrics_urls {
            listeners.push(bind(url)?.secured(entrances.client(!url.is_tls(), url.is_tls())?));
        }
        let down = watch::Sender::new(false);
        let connections = Connections::of_probes("connections of a waiting pod", CONNECTIONS_MAX);
        let door = WaitingDoor::new(Arc::new(text));
        let serving = tokio::spawn(api::serve_waiting(listeners, door, connections, down.subscribe()));
        Ok(Self { agreed, down, serving })
    }

    /// From now on it says that it has seen all of them.
    pub(super) fn agree(&self) {
        self.agreed.store(true, Ordering::Release);
    }

    /// Closes the ports.
    pub(super) async fn close(self) {
        self.down.send_replace(true);
        if self.serving.await.is_err() {
            tracing::warn!("the waiting pod's ports ended with a panic");
        }
    }
}

fn address(url: &Url) -> Address {
    if url.is_unix() { Address::Unix(url.address().into()) } else { Address::Tcp(url.address().to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_read_as_it_is_said() {
        let notice = Notice { token: "a \"b\"".to_owned(), replicas: 3, agreed: true };
        assert_eq!(Notice::parse(notice.text().as_bytes()), Some(notice));
        for text in
            ["", "{}", r#"{"token":"a","replicas":-1,"agreed":true}"#, r#"{"token":1,"replicas":1,"agreed":true}"#]
        {
            assert_eq!(Notice::parse(text.as_bytes()), None, "{text}");
        }
    }
}
