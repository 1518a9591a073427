//! The ports of a pod that waits: probes are answered, and other pods learn that it has no data.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::env::Env;
use crate::ops::config::Config;
use crate::server::ServerError;
use crate::server::waiting::Waiting;

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
    ports: Waiting,
}

impl WaitingRoom {
    /// Opens the peer port and that of the metrics; without a notice it only answers probes.
    pub(super) fn open(config: &Config, env: &Env, notice: Option<Notice>) -> Result<Self, ServerError> {
        let agreed = Arc::new(AtomicBool::new(notice.as_ref().is_some_and(|notice| notice.agreed)));
        let said = agreed.clone();
        let text = move || match &notice {
            Some(notice) => Notice { agreed: said.load(Ordering::Acquire), ..notice.clone() }.text(),
            None => "{}".to_owned(),
        };
        Ok(Self { agreed, ports: Waiting::room(config, env, Arc::new(text))? })
    }

    /// From now on it says that it has seen all of them.
    pub(super) fn agree(&self) {
        self.agreed.store(true, Ordering::Release);
    }

    /// Closes the ports.
    pub(super) async fn close(self) {
        self.ports.close().await;
    }
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
