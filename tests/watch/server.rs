//! A store, a hub and the Watch service on a local socket, and one stream of a client.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use rusd::api::watch::{LeaderCheck, WatchService, end_streams_without_leader};
use rusd::storage::{AppliedPosition, Store};
use rusd::types::{KeyRange, LeaseId};
use rusd::watch::{Confirm, HeaderIds, WatchHub, WatchLimits};
use rusd_proto::etcdserverpb::watch_client::WatchClient;
use rusd_proto::etcdserverpb::watch_request::RequestUnion;
use rusd_proto::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Status, Streaming};

const WAIT: Duration = Duration::from_secs(10);

pub(crate) struct Server {
    store: Mutex<Store>,
    pub(crate) hub: WatchHub,
    address: String,
    leader: Arc<AtomicBool>,
}

impl Server {
    pub(crate) async fn start(limits: WatchLimits) -> Self {
        Self::start_with(limits, None).await
    }

    /// One whose requests for progress wait for a permit each.
    pub(crate) async fn start_held(held: &Arc<Semaphore>) -> Self {
        let held = held.clone();
        let confirm = move || -> BoxFuture<'static, ()> {
            let held = held.clone();
            Box::pin(async move { held.acquire().await.expect("never closed").forget() })
        };
        Self::start_with(WatchLimits::default(), Some(Arc::new(confirm))).await
    }

    async fn start_with(limits: WatchLimits, confirm: Option<Confirm>) -> Self {
        let store = Store::in_memory();
        let hub = WatchHub::new(store.reader(), limits);
        let leader = Arc::new(AtomicBool::new(true));
        let header = || HeaderIds { cluster_id: 1, member_id: 2, raft_term: 3 };
        let known = Arc::clone(&leader);
        let has_leader: LeaderCheck = Arc::new(move || known.load(Ordering::Relaxed));
        tokio::spawn(end_streams_without_leader(hub.clone(), Arc::clone(&has_leader), Duration::from_millis(20)));
        let service = WatchService::new(hub.clone(), Arc::new(header), 1_572_864)
            .with_leader_check(has_leader)
            .with_create_check(Arc::new(|range| {
                if range.start == "secret" {
                    Err(Status::permission_denied("etcdserver: permission denied"))
                } else {
                    Ok(())
                }
            }));
        let service = match confirm {
            Some(confirm) => service.with_confirm(confirm),
            None => service,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let serve = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
        tokio::spawn(serve);
        Self { store: Mutex::new(store), hub, address, leader }
    }

    fn change(&self, change: impl FnOnce(&mut Store)) {
        let mut store = self.store.lock().expect("the store");
        change(&mut store);
        let batch = store.publish(AppliedPosition::default()).expect("the store");
        self.hub.notify(batch, store.revision());
    }

    pub(crate) fn put(&self, key: &str, value: &str) {
        self.change(|store| {
            let mut txn = store.begin();
            let (key, value) = (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
            txn.put(key, value, LeaseId::NONE);
            txn.commit();
        });
    }

    pub(crate) fn delete(&self, key: &str) {
        self.change(|store| {
            let mut txn = store.begin();
            txn.delete(&KeyRange::single(Bytes::copy_from_slice(key.as_bytes())));
            txn.commit();
        });
    }

    /// Compacts, and waits until what nobody can read any more is gone.
    pub(crate) fn compact(&self, revision: i64) {
        self.change(|store| store.compact(revision).expect("a revision that can be compacted"));
        let mut reclaimed = self.store.lock().expect("the store").reader().reclaimed();
        self.change(|store| while !store.compact_step(64).done {});
        futures::executor::block_on(reclaimed.wait_for(|at| *at >= revision)).expect("the store is there");
    }

    pub(crate) fn set_leader(&self, known: bool) {
        self.leader.store(known, Ordering::Relaxed);
    }

    async fn open(&self, needs_leader: bool) -> Result<Client, Status> {
        let endpoint = Endpoint::from_shared(self.address.clone()).expect("an address");
        let mut client = WatchClient::new(endpoint.connect().await.expect("a connection"));
        let (requests, receiver) = mpsc::channel(16);
        let mut request = Request::new(ReceiverStream::new(receiver));
        if needs_leader {
            request.metadata_mut().insert("hasleader", "true".parse().expect("ascii"));
        }
        let responses = client.watch(request).await?.into_inner();
        Ok(Client { requests: Some(requests), responses })
    }

    pub(crate) async fn client(&self) -> Client {
        self.open(false).await.expect("a stream")
    }

    pub(crate) async fn client_with_leader(&self) -> Result<Client, Status> {
        self.open(true).await
    }
}

pub(crate) struct Client {
    requests: Option<mpsc::Sender<WatchRequest>>,
    responses: Streaming<WatchResponse>,
}

impl Client {
    pub(crate) async fn send(&mut self, request: WatchRequest) {
        let requests = self.requests.as_ref().expect("still open");
        requests.send(request).await.expect("the server takes requests");
    }

    pub(crate) fn close(&mut self) {
        self.requests = None;
    }

    pub(crate) async fn next(&mut self) -> WatchResponse {
        let next = timeout(WAIT, self.responses.message()).await.expect("a response in time");
        next.expect("no error").expect("not the end")
    }

    pub(crate) async fn end(&mut self) -> Status {
        timeout(WAIT, self.responses.message()).await.expect("the end in time").expect_err("an error")
    }

    /// The last revision of the next response, whose events must go on after `seen` without a gap.
    pub(crate) async fn last_revision(&mut self, seen: i64) -> i64 {
        let mut last = seen;
        for event in self.next().await.events {
            let revision = event.kv.expect("a pair").mod_revision;
            assert_eq!(revision, last + 1);
            last = revision;
        }
        last
    }

    /// The next response in short: id, header revision, what it says, events.
    pub(crate) async fn brief(&mut self) -> String {
        let response = self.next().await;
        let header = response.header.expect("a header");
        assert_eq!((header.cluster_id, header.member_id, header.raft_term), (1, 2, 3));
        let mut text = format!("{}@{}", response.watch_id, header.revision);
        for (flag, word) in [(response.created, " created"), (response.canceled, " canceled")] {
            if flag {
                text.push_str(word);
            }
        }
        if response.compact_revision != 0 {
            text.push_str(&format!(" compacted {}", response.compact_revision));
        }
        if !response.cancel_reason.is_empty() {
            text.push_str(&format!(" ({})", response.cancel_reason));
        }
        for event in response.events {
            let kv = event.kv.expect("a pair");
            let sign = if event.r#type == 0 { '+' } else { '-' };
            let prev = event.prev_kv.map_or(String::new(), |prev| format!("/{}", prev.mod_revision));
            text.push_str(&format!(" {sign}{}@{}{prev}", String::from_utf8_lossy(&kv.key), kv.mod_revision));
        }
        text
    }
}

pub(crate) fn create(key: &str, range_end: &str, start_revision: i64) -> WatchRequest {
    let create = WatchCreateRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        range_end: Bytes::copy_from_slice(range_end.as_bytes()),
        start_revision,
        ..WatchCreateRequest::default()
    };
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}

pub(crate) fn cancel(watch_id: i64) -> WatchRequest {
    WatchRequest { request_union: Some(RequestUnion::CancelRequest(WatchCancelRequest { watch_id })) }
}

pub(crate) fn progress() -> WatchRequest {
    WatchRequest { request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})) }
}
