//! The member with its client port, under the name and the methods that the conversations' player knows.

use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use rusd::api::watch::WatchService;
use rusd::api::{
    self, Address, Budgets, ConnOptions, Connections, Listener, NodeInfo, RpcMetrics, Services, SlowLog, SocketOptions,
};
use rusd::storage::backend::MemoryImage;
use rusd::types::{ClusterId, Limits};
use rusd::watch::{HeaderIds, WatchLimits};
use tokio::sync::{Semaphore, watch};
use tonic::transport::{Channel, Endpoint};

use crate::member::{MEMBER, Member};

const CLUSTER: ClusterId = ClusterId(0xcdf8_18d6_3a1b_1c4f);

/// From when a call is in the slow log.
const SLOW: Duration = Duration::from_millis(100);

/// Connections that there may be.
const CONNECTIONS: usize = 1_000;

/// Which server to run; there is one only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    #[expect(dead_code, reason = "the player names it")]
    Etcd,
    Rusd,
}

/// A serving member.
pub(crate) struct Server {
    pub(crate) member: Member,
    pub(crate) services: Arc<Services>,
    image: MemoryImage,
    limits: Limits,
    progress: Duration,
    port: u16,
    term: u64,
    connections: Arc<Connections>,
    down: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(_: Kind, flags: &[String], _: &str) -> Option<Self> {
        let mut progress = WatchLimits::PROGRESS_INTERVAL_DEFAULT;
        for flag in flags {
            let ms = flag.strip_prefix("--watch-progress-notify-interval=").and_then(|ms| ms.strip_suffix("ms"));
            progress = Duration::from_millis(ms.and_then(|ms| ms.parse().ok()).expect("a flag that this server knows"));
        }
        Some(Self::serve(MemoryImage::default(), Limits::default(), progress, 0, 2))
    }

    /// A fresh one within `limits`.
    pub(crate) fn with_limits(limits: Limits) -> Self {
        Self::with_options(limits, ConnOptions::default())
    }

    /// The same with connections of that kind.
    pub(crate) fn with_options(limits: Limits, conn: ConnOptions) -> Self {
        Self::serve_with(MemoryImage::default(), limits, WatchLimits::PROGRESS_INTERVAL_DEFAULT, 0, 2, conn)
    }

    fn serve(image: MemoryImage, limits: Limits, progress: Duration, port: u16, term: u64) -> Self {
        Self::serve_with(image, limits, progress, port, term, ConnOptions::default())
    }

    fn serve_with(
        image: MemoryImage,
        limits: Limits,
        progress: Duration,
        port: u16,
        term: u64,
        conn: ConnOptions,
    ) -> Self {
        let options = SocketOptions::default();
        let disk = rusd::env::RealDisk;
        let listener = Listener::bind(&Address::Tcp(format!("127.0.0.1:{port}")), options, &disk).unwrap();
        let port = listener.local_addr().unwrap().port();
        let member =
            Member::start(&image, term, WatchLimits::new(&limits, progress), format!("http://127.0.0.1:{port}"));
        let registry = prometheus::Registry::new();
        let slow = IntCounter::new("slow_reads", "none").unwrap();
        let slow = SlowLog::new(SLOW, Duration::MAX, slow);
        let metrics = RpcMetrics::register(&registry, member.env.clock.clone(), true).unwrap();
        let metrics = Arc::new(metrics.watched(slow, None));
        let ids = HeaderIds { cluster_id: CLUSTER.get(), member_id: MEMBER.get(), raft_term: term };
        let services = Arc::new(Services {
            proposer: member.front.clone(),
            maintain: member.front.clone(),
            reader: member.reader.clone(),
            lessor: member.lessor.clone(),
            alarms: member.alarms.clone(),
            auth: member.authentication(),
            watch: WatchService::new(member.hub.clone(), Arc::new(move || ids), limits.request_bytes_max)
                .with_metrics(metrics.clone()),
            env: member.env.clone(),
            info: NodeInfo { cluster_id: CLUSTER, member_id: MEMBER },
            limits: limits.clone(),
            metrics,
            metrics_text: Arc::new(move || {
                prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap_or_default()
            }),
            budgets: Budgets::new(&limits),
            large_reads: Arc::new(Semaphore::new(4)),
        });
        let (down, shutdown) = watch::channel(false);
        let listeners = vec![(listener, conn)];
        let connections = Connections::new("max-connections", CONNECTIONS);
        let serving = tokio::spawn(api::serve(listeners, services.clone(), connections.clone(), shutdown));
        Self { member, services, image, limits, progress, port, term, connections, down, serving }
    }

    pub(crate) fn client_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Where clients and where other members reach it.
    pub(crate) fn urls(&self) -> [String; 2] {
        [self.client_url(), "http://127.0.0.1:2380".to_owned()]
    }

    /// Connections that are open.
    pub(crate) fn connections(&self) -> usize {
        self.connections.open()
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> (&'static str, u16) {
        ("127.0.0.1", self.port)
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) async fn connect(&self) -> Channel {
        let endpoint = Endpoint::from_shared(self.client_url()).unwrap();
        endpoint.connect().await.expect("a serving server accepts connections")
    }

    /// Goes down in order and waits until all connections are gone.
    pub(crate) async fn stop(&mut self) {
        self.down.send_replace(true);
        (&mut self.serving).await.unwrap();
    }

    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        let (image, limits) = (self.image.clone(), self.limits.clone());
        // The old member lets go of the image before the new one takes it up.
        let empty = Self::serve(MemoryImage::default(), limits.clone(), self.progress, 0, 1);
        let (port, progress, term) = (self.port, self.progress, self.term + 1);
        drop(std::mem::replace(self, empty));
        *self = Self::serve(image, limits, progress, port, term);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
