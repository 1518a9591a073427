//! The only place that wires all of it.
//!
//! ```text
//! run ─► data directory ─► store and log ─► machine ─► raft ─► proposer ─► services ─► listeners ─► ready
//! signal ─► leases written down ─► the lead handed over ─┬► listeners closed ─► raft ─► store
//!         a fatal error of log, raft or store ─────────────┘
//! ```

mod answers;
mod compare;
mod core;
mod differing;
mod disk;
mod door;
mod ends;
mod export;
mod gauges;
mod heal;
pub mod import;
mod limits;
mod maintain;
mod marks;
mod meters;
mod open;
#[cfg(rusd_sim)]
pub mod parts;
mod peer_port;
pub mod pod;
mod publish;
mod rebuild;
mod room;
mod scrub;
mod tls;
mod tokens;
pub mod tools;
mod turns;
mod upkeep;
mod waiting;
mod witnesses;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use tokio::sync::watch;
use tokio::task::coop::unconstrained;

use self::core::Core;
use self::waiting::Waiting;
use crate::api::{
    self, Address, Addresses, ConnOptions, Connections, ListenError, Listener, Serves, SocketOptions, WebPolicy,
};
use crate::apply::MachineError;
use crate::cli::version::RUSD_VERSION;
use crate::consensus::StartError;
use crate::discovery::{self, DiscoveryError};
use crate::env::Env;
use crate::ops::banner::Banner;
use crate::ops::config::{Config, ConfigError, Url};
use crate::ops::data_dir::{DataDir, DataDirError};
use crate::ops::identity::Identity;
use crate::ops::join::{self, JoinError};
use crate::ops::logging::{SERVING_INSECURELY, SERVING_SECURELY, Style};
use crate::ops::metrics::{Metrics, MetricsOptions};
use crate::ops::notify;
use crate::ops::signals::{self, Signal};
use crate::ops::traces::{Traces, TracesError};
use crate::tls::TlsError;
use crate::types::RequestError;
use crate::watch::StreamEnd;

/// gRPC's number for "unavailable".
const UNAVAILABLE: i32 = 14;

/// What a server is started with.
#[derive(Debug)]
pub struct Start {
    /// The settings.
    pub config: Config,
    /// How it speaks to whoever started it.
    pub style: Style,
    /// When the process began, for the time it took to be ready.
    pub begun: Instant,
    /// Who this member is in the cluster that it was added to, if that is known already.
    pub joined: Option<Identity>,
}

/// Why a server ended in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// A signal asked for it.
    Signal(Signal),
    /// This member was removed from its cluster.
    Removed {
        /// It was so already when it started.
        before: bool,
    },
    /// A damaged store was set aside: a process that starts now rebuilds it (see
    /// [`crate::ops::restart`]).
    SetAside,
    /// The store was given up as this process can't open it again: one that starts now can.
    Stuck,
    /// The others' state was fetched in place of this member's, which differs: a process that starts now installs it.
    Healing,
}

/// Why a server could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A setting.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What `--auth-token` names.
    #[error("--auth-token: {0}")]
    AuthToken(String),
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// What `--import-from` names.
    #[error("--import-from: {0}")]
    Import(#[from] import::ImportFailure),
    /// The members that should be found.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// The cluster that it should join.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// Store or log.
    #[error(transparent)]
    Open(#[from] open::OpenError),
    /// What the store holds besides keys.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// Raft.
    #[error(transparent)]
    Raft(#[from] StartError),
    /// A socket.
    #[error("{0}. Stop whoever has it, or type another URL in the --listen-…-urls flag that names it")]
    Listen(#[from] ListenError),
    /// Certificates.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// Where traces go.
    #[error(transparent)]
    Traces(#[from] TracesError),
    /// The metrics' tables.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The runtime or the signal handlers.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Something below ended while serving.
    #[error("{0}")]
    Fatal(String),
    /// The store ended while serving, and only this process can't open it again.
    #[error("{0}")]
    Stuck(String),
}

/// Runs a server until it is asked to end.
///
/// # Errors
/// What keeps it from starting, or made it end: see [`ServerError`].
pub fn run(start: Start) -> Result<Stopped, ServerError> {
    #[cfg(feature = "failpoints")]
    crate::failpoint::serve()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("rusd")
        .worker_threads(api::threads())
        .build()?;
    let stopped = runtime.block_on(serve(start));
    // Blocking work of clients that are gone is not waited for.
    runtime.shutdown_timeout(Duration::from_secs(1));
    stopped
}

async fn serve(start: Start) -> Result<Stopped, ServerError> {
    let Start { mut config, style, begun, joined } = start;
    let mut signal = std::pin::pin!(signals::first()?);
    let env = Env::real();
    let signed = tokens::signed(&env, &config)?;
    let is_made = DataDir::is_made(env.disk.as_ref(), &config)?;
    if !is_made {
        config.check_first()?;
    }
    if !is_made && discovery::is_asked(&config) {
        tokio::select! {
            biased;
            signal = &mut signal => return Ok(Stopped::Signal(signal)),
            found = discovery::find(&mut config, &env) => found?,
        }
    }
    let config = Arc::new(config);
    let connector = tls::connector(&config, &env)?;
    // Before an import, too: what etcd left says nothing about what this member promised since it was taken over.
    let joined = match joined {
        None if !is_made => join::ask(&config, connector.as_ref()).await?,
        joined => joined,
    };
    // An import, or a store that is made anew, may take minutes: whoever asks meanwhile hears that this process lives.
    let mut probes = None;
    if is_made {
        if let Some(path) = &config.member.import_from {
            tracing::info!(path = %path.display(), "--import-from is ignored: this member has its data already");
        }
    } else {
        if config.member.import_from.is_some() {
            probes = Waiting::probes(&config, &env)?;
        }
        tokio::select! {
            biased;
            // Nothing is there yet that the next start would take for its own.
            signal = &mut signal => return Ok(Stopped::Signal(signal)),
            imported = import_first(&env, &config) => imported?,
        }
    }
    let data = Arc::new(open_data(&env, &config, joined).await?);
    // Not before, if nothing was imported: who has the directory is said first, and then who has the port.
    if probes.is_none() {
        probes = Waiting::probes(&config, &env)?;
    }
    let metrics = Arc::new(Metrics::new(&MetricsOptions {
        member: data.identity().member,
        server_version: "3.7.1",
        cluster_version: "3.7",
        rusd_version: RUSD_VERSION,
    })?);
    let traces = Traces::start(&config.tracing, RUSD_VERSION)?;
    let entrances = tls::Entrances::open(&config, &data.made_certificates(), &env)?;
    let addresses = Addresses::new(config.bounds.max_connections_per_address);
    let sockets = Sockets { config: &config, entrances: &entrances, addresses: &addresses, env: &env };
    let (mut listeners, peer_listeners) = (sockets.clients()?, sockets.peers()?);
    let core = tokio::select! {
        biased;
        // What is under way is cut off as by a kill: nothing was acknowledged yet.
        signal = &mut signal => {
            tracing::info!(signal = signal.name(), "received signal while starting; ending");
            return Ok(Stopped::Signal(signal));
        }
        core = Core::start(&config, &data, &env, &metrics, peer_listeners, connector) => core,
    };
    let core = match core {
        // A signal that came meanwhile would be lost.
        Err(ServerError::Open(open::OpenError::SetAside { .. })) => return Ok(unless(signal, Stopped::SetAside)),
        // The tries are counted, so this comes to an end.
        Err(ServerError::Open(open::OpenError::PutBack)) => return Ok(unless(signal, Stopped::Healing)),
        Err(ServerError::Stuck(why)) => {
            tracing::error!(why, "ending: this process can't open the store again");
            return Ok(unless(signal, Stopped::Stuck));
        }
        core => core?,
    };
    if let Some(probes) = probes {
        probes.close().await;
    }
    listeners.extend(sockets.metrics()?);
    // One that joined has its log from the leader, if that has come by; or else the next start notes it.
    if core.node.status().has_log() {
        data.mark_served(env.disk.as_ref())?;
    }
    let shutdown = watch::Sender::new(false);
    let services = core.services(&config, &data, &env, &metrics, signed, traces.clone())?;
    let connections_max = limits::Files::of_process().clients(config.bounds.max_connections);
    let connections = Connections::new("max-connections", connections_max);
    gauges::connect_port(&metrics, services.metrics.clone(), connections.clone());
    core.show_limits(&metrics, &limits::Port { connections: connections.clone(), addresses }, &services)?;
    let serving = tokio::spawn(api::serve(listeners, services, connections, shutdown.subscribe()));
    let members = core.node.members().len();
    for (says, is_tls) in [(SERVING_INSECURELY, false), (SERVING_SECURELY, true)] {
        let urls: Vec<_> = config.member.listen_client_urls.iter().filter(|url| url.is_tls() == is_tls).collect();
        if !urls.is_empty() {
            tracing::info!(address = %join(&urls), traffic = "grpc+http", "{says}");
        }
    }
    Banner::new(RUSD_VERSION, &config, &data, members, env.clock.now().saturating_duration_since(begun))
        .announce(style);
    if let Err(error) = notify::ready() {
        tracing::warn!(%error, "the service manager could not be told that this member is ready");
    }

    let ended = core.wait(&mut signal).await;
    match &ended {
        Ok(Stopped::Removed { .. }) => tracing::warn!("this member was removed from the cluster; ending for good"),
        Ok(Stopped::Healing) => tracing::warn!("starting again to take in the state that heals this member"),
        Ok(stopped) => tracing::info!(reason = ?stopped, "received signal; shutting down"),
        Err(error) => tracing::error!(%error, "ending: the server can't go on"),
    }
    if ended.is_ok() {
        core.leave(&env).await;
    }
    shutdown.send_replace(true);
    core.hub.end_all(&StreamEnd { code: UNAVAILABLE, message: RequestError::Stopped.to_string() });
    if serving.await.is_err() {
        tracing::warn!("the listeners ended with a panic");
    }
    tracing::info!("the clients' connections have ended");
    let heals = matches!(ended, Ok(Stopped::Healing));
    let status = core.node.status().clone();
    // A store that is put aside needn't be brought up to date.
    let raft_ended = core.stop(&env, ended.is_ok() && !heals).await;
    if heals
        && raft_ended
        && let Err(error) = heal::note_arrival(env.disk.as_ref(), &data, status.durable())
    {
        tracing::warn!(%error, "what heals this member could not be noted; the next start fetches it again");
    }
    if let Some(traces) = traces
        && tokio::task::spawn_blocking(move || traces.end()).await.is_err()
    {
        tracing::warn!("the last traces were not sent");
    }
    match ended {
        // The same here: what came is there for the start after that, too.
        Ok(Stopped::Healing) => Ok(unless(signal, Stopped::Healing)),
        Err(ServerError::Stuck(_)) => Ok(unless(signal, Stopped::Stuck)),
        ended => ended,
    }
}

/// How a process ends that would start again: not if it was told to end meanwhile, by a signal that is sent once.
fn unless(signal: impl Future<Output = Signal>, stopped: Stopped) -> Stopped {
    unconstrained(signal).now_or_never().map_or(stopped, Stopped::Signal)
}

/// Does what `--import-from` asks for.
async fn import_first(env: &Env, config: &Arc<Config>) -> Result<(), ServerError> {
    if config.member.import_from.is_none() {
        return Ok(());
    }
    let (env, config) = (env.clone(), config.clone());
    let import = tokio::task::spawn_blocking(move || import::at_first_start(&env, &config)).await;
    import.map_err(|error| ServerError::Fatal(format!("the import: {error}")))??;
    Ok(())
}

/// How long a directory that another process holds is waited for: one that was killed lets go of it only when the
/// system has taken its memory back.
const LOCK_MAX: Duration = Duration::from_secs(2);
/// Between two tries.
const LOCK_AGAIN: Duration = Duration::from_millis(20);

async fn open_data(env: &Env, config: &Config, joined: Option<Identity>) -> Result<DataDir, DataDirError> {
    let begun = env.clock.now();
    let mut is_told = false;
    loop {
        match DataDir::open(env.disk.as_ref(), config, joined) {
            Err(DataDirError::InUse { holder, .. }) if env.clock.now().saturating_duration_since(begun) < LOCK_MAX => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(holder, wait_max = ?LOCK_MAX, "the data directory is in use; waiting for it");
                }
                tokio::time::sleep(LOCK_AGAIN).await;
            }
            opened => return opened,
        }
    }
}

/// The sockets, bound before anything slow is done, so that a port that is taken is noticed at once.
struct Sockets<'a> {
    config: &'a Config,
    entrances: &'a tls::Entrances,
    addresses: &'a Arc<Addresses>,
    env: &'a Env,
}

impl Sockets<'_> {
    fn clients(&self) -> Result<Vec<(Listener, ConnOptions)>, ServerError> {
        let member = &self.config.member;
        let clients = if member.listen_client_http_urls.is_empty() { Serves::All } else { Serves::Grpc };
        let mut bound = self.each(&member.listen_client_urls, clients)?;
        bound.extend(self.each(&member.listen_client_http_urls, Serves::Pages)?);
        Ok(bound)
    }

    /// Last, as they are answered until then by whoever says that nothing is served yet.
    fn metrics(&self) -> Result<Vec<(Listener, ConnOptions)>, ServerError> {
        self.each(&self.config.monitoring.listen_metrics_urls, Serves::Metrics)
    }

    fn peers(&self) -> Result<Vec<Listener>, ServerError> {
        let peer = |url: &Url| -> Result<_, ServerError> { Ok(self.bind(url)?.secured(self.entrances.peer(url)?)) };
        self.config.member.listen_peer_urls.iter().map(peer).collect()
    }

    fn bind(&self, url: &Url) -> Result<Listener, ListenError> {
        let options = SocketOptions {
            reuse_port: self.config.member.socket_reuse_port,
            reuse_address: self.config.member.socket_reuse_address,
        };
        Listener::bind(&address(url), options, self.env.disk.as_ref())
    }

    fn each(&self, urls: &[Url], serves: Serves) -> Result<Vec<(Listener, ConnOptions)>, ServerError> {
        let mut bound = Vec::new();
        for (at, url) in urls.iter().enumerate() {
            let same = |other: &&Url| address(other) == address(url);
            if urls[..at].iter().any(|earlier| same(&earlier)) {
                continue;
            }
            // As in etcd, one port can be asked for with TLS and without.
            let (tls, plain): (Vec<_>, Vec<_>) = urls.iter().filter(same).partition(|url| url.is_tls());
            let security = self.entrances.client(!plain.is_empty(), !tls.is_empty())?;
            let mut listener = self.bind(url)?.secured(security);
            // Whoever asks how this member is may come from where too many clients are.
            if serves != Serves::Metrics {
                listener = listener.counted(self.addresses.clone());
            }
            bound.push((listener, ConnOptions { serves, ..self.options() }));
        }
        Ok(bound)
    }

    fn options(&self) -> ConnOptions {
        let (config, member) = (self.config, &self.config.member);
        let web = WebPolicy::new(config.security.cors.clone(), config.security.host_whitelist.clone());
        ConnOptions {
            // Zero is no bound, as in grpc-go.
            concurrent_streams_max: if member.max_concurrent_streams == 0 {
                u32::MAX
            } else {
                member.max_concurrent_streams
            },
            keepalive_interval: member.keep_alive.interval,
            keepalive_timeout: member.keep_alive.timeout,
            write_timeout: config.bounds.client_write_timeout,
            web: Arc::new(web),
            gateway: member.enable_grpc_gateway,
            tells_heads: config.logging.http2_heads,
            ..ConnOptions::default()
        }
    }
}

fn address(url: &Url) -> Address {
    if url.is_unix() { Address::Unix(url.address().into()) } else { Address::Tcp(url.address().to_owned()) }
}

fn join(urls: &[&Url]) -> String {
    let urls: Vec<_> = urls.iter().map(ToString::to_string).collect();
    urls.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cause: whoever waits for a signal had let go of it when the process ended to be healed. Symptom: one that came while it
    /// ended was lost, and the process that started again served until it was killed.
    #[test]
    fn a_signal_that_comes_while_a_process_ends_to_start_again_ends_it() {
        for stopped in [Stopped::Healing, Stopped::SetAside, Stopped::Stuck] {
            let told = unless(std::future::ready(Signal::Terminate), stopped);
            assert_eq!(told, Stopped::Signal(Signal::Terminate));
            assert_eq!(unless(std::future::pending(), stopped), stopped);
        }
    }
}
