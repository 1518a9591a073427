//! The ports of a pod that waits: probes are answered, and other pods learn that it has no data.

use std::sync::Arc;

use parking_lot::Mutex;
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
    /// By what the cluster is told from an earlier one of the same names: the lowest ordinal's own, or what this pod has
    /// agreed to.
    pub(super) nonce: Option<u64>,
}

impl Notice {
    fn text(&self) -> String {
        let nonce = self.nonce.map(nonce_text);
        json!({ "token": self.token, "replicas": self.replicas, "agreed": self.agreed, "nonce": nonce }).to_string()
    }

    /// What another one said; `None` if it says nothing of the kind.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        Some(Self {
            token: value.get("token")?.as_str()?.to_owned(),
            replicas: u32::try_from(value.get("replicas")?.as_u64()?).ok()?,
            agreed: value.get("agreed")?.as_bool()?,
            nonce: match value.get("nonce")? {
                Value::Null => None,
                text => Some(nonce_of(text.as_str()?)?),
            },
        })
    }
}

/// A nonce as it is written and said.
pub(super) fn nonce_text(nonce: u64) -> String {
    format!("{nonce:016x}")
}

/// The nonce of a text.
pub(super) fn nonce_of(text: &str) -> Option<u64> {
    (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok())?
}

/// The open ports, and their end.
pub(super) struct WaitingRoom {
    notice: Option<Arc<Mutex<Notice>>>,
    ports: Waiting,
}

impl WaitingRoom {
    /// Opens the peer port and that of the metrics; without a notice it only answers probes.
    pub(super) fn open(config: &Config, env: &Env, notice: Option<Notice>) -> Result<Self, ServerError> {
        let notice = notice.map(|notice| Arc::new(Mutex::new(notice)));
        let said = notice.clone();
        let text = move || said.as_ref().map_or_else(|| "{}".to_owned(), |notice| notice.lock().text());
        Ok(Self { notice, ports: Waiting::room(config, env, Arc::new(text))? })
    }

    /// From now on it says that it has seen all of them, and by which nonce they begin.
    pub(super) fn agree(&self, nonce: Option<u64>) {
        if let Some(notice) = &self.notice {
            let mut notice = notice.lock();
            (notice.agreed, notice.nonce) = (true, nonce);
        }
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
        for nonce in [None, Some(0), Some(u64::MAX)] {
            let notice = Notice { token: "a \"b\"".to_owned(), replicas: 3, agreed: true, nonce };
            assert_eq!(Notice::parse(notice.text().as_bytes()), Some(notice));
        }
        for text in [
            "",
            "{}",
            r#"{"token":"a","replicas":-1,"agreed":true,"nonce":null}"#,
            r#"{"token":1,"replicas":1,"agreed":true,"nonce":null}"#,
            r#"{"token":"a","replicas":1,"agreed":true}"#,
            r#"{"token":"a","replicas":1,"agreed":true,"nonce":"7"}"#,
        ] {
            assert_eq!(Notice::parse(text.as_bytes()), None, "{text}");
        }
    }
}
