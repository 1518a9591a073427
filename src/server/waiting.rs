//! Ports that are answered while nothing is served yet: probes find a process that lives and isn't ready.
//!
//! ```text
//! import, store, log, Raft (may take minutes) ─► the metrics' ports: /livez 200, /readyz 503 ─► closed ─► bound for good
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::tls::Entrances;
use super::{ServerError, address};
use crate::api::{self, Connections, Listener, SocketOptions, WaitingDoor};
use crate::env::Env;
use crate::ops::config::{Config, Url};

/// Others that ask at a time.
const CONNECTIONS_MAX: usize = 64;
/// How long connections that are open are waited for.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// The ports of one kind or another, until they are closed.
#[derive(Debug)]
pub(super) struct Waiting {
    down: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

/// What a pod says of itself; JSON.
pub(super) type Notice = Arc<dyn Fn() -> String + Send + Sync>;

impl Waiting {
    /// The metrics' ports without TLS alone, for probes; `None` if there are none. (A certificate may be one that is yet
    /// to be made, in a data directory that an import wants to find empty.)
    pub(super) fn probes(config: &Config, env: &Env) -> Result<Option<Self>, ServerError> {
        let plain = config.monitoring.listen_metrics_urls.iter().filter(|url| !url.is_tls());
        let listeners: Vec<_> = plain.map(|url| bound(url, env)).collect::<Result<_, _>>()?;
        Ok((!listeners.is_empty()).then(|| Self::serve(listeners, Arc::new(|| "{}".to_owned()))))
    }

    /// The metrics' and the peers' ports.
    pub(super) fn room(config: &Config, env: &Env, notice: Notice) -> Result<Self, ServerError> {
        let made = ["client", "peer"].map(|whom| config.member.data_dir.join("fixtures").join(whom));
        let entrances = Entrances::open(config, &made, env)?;
        let mut listeners = Vec::new();
        for url in &config.monitoring.listen_metrics_urls {
            listeners.push(bound(url, env)?.secured(entrances.client(!url.is_tls(), url.is_tls())?));
        }
        for url in &config.member.listen_peer_urls {
            listeners.push(bound(url, env)?.secured(entrances.peer(url)?));
        }
        Ok(Self::serve(listeners, notice))
    }

    fn serve(listeners: Vec<Listener>, notice: Notice) -> Self {
        let down = watch::Sender::new(false);
        let connections = Connections::of_probes("connections of a waiting process", CONNECTIONS_MAX);
        let door = WaitingDoor::new(notice);
        let serving = tokio::spawn(api::serve_waiting(listeners, door, connections, down.subscribe()));
        Self { down, serving }
    }

    /// Closes the ports.
    pub(super) async fn close(self) {
        self.down.send_replace(true);
        // The sockets are gone by then; whoever is slow to hear it may take longer.
        if let Ok(Err(error)) = tokio::time::timeout(CLOSE_MAX, self.serving).await {
            tracing::warn!(%error, "the ports of a process that waits didn't end in order");
        }
    }
}

fn bound(url: &Url, env: &Env) -> Result<Listener, ServerError> {
    Ok(Listener::bind(&address(url), SocketOptions::default(), env.disk.as_ref())?)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::ops::config::flags;

    #[tokio::test]
    async fn probes_are_answered_and_the_port_is_free_again() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
        let mut config = Config::default();
        assert!(Waiting::probes(&config, &Env::real()).expect("none").is_none());
        config.set(flags::find("listen-metrics-urls").expect("known"), &format!("http://{free}")).expect("well-formed");
        for _ in 0..2 {
            let probes = Waiting::probes(&config, &Env::real()).expect("bound").expect("a URL");
            for (path, status) in [("/livez", "200"), ("/readyz", "503"), ("/metrics", "404")] {
                let mut stream = tokio::net::TcpStream::connect(free).await.expect("open");
                stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.expect("sent");
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.expect("answered");
                assert_eq!(answer.split(' ').nth(1), Some(status), "{path}: {answer}");
            }
            probes.close().await;
        }
    }
}
