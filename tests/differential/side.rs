//! One of the two servers: carries out steps and keeps what its watchers are told.
//!
//! ```text
//! Step ─► typed client ─► answer as comparable text (canon)
//! watch stream ─► reader task ─┬► log: watcher ─► what it was told, in order
//!                              └► progress: the revision up to which all was told
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::lease_client::LeaseClient;
use rusd_proto::etcdserverpb::watch_client::WatchClient;
use rusd_proto::etcdserverpb::watch_request::RequestUnion;
use rusd_proto::etcdserverpb::{
    LeaseLeasesRequest, RangeResponse, ResponseHeader, WatchCancelRequest, WatchCreateRequest, WatchProgressRequest,
    WatchRequest, WatchResponse,
};
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use crate::canon;
use crate::server::{Kind, Server};
use crate::steps::Step;

/// What each watcher was told since the last look.
pub(crate) type Log = BTreeMap<i64, Vec<String>>;

/// A watcher of nothing: a stream without watchers gives no progress.
const IDLE_WATCHER: i64 = 1 << 40;
/// The id of what concerns no single watcher: refusals, and with [`Told::progress`] progress.
const NO_WATCHER: i64 = -1;

/// Longest wait for a reply on a watch stream: 10 s.
const REPLY_POLLS_MAX: u32 = 10_000;
const REPLY_POLL: Duration = Duration::from_millis(1);

/// What came on a watch stream.
#[derive(Default)]
struct Told {
    log: Mutex<Log>,
    progress: AtomicI64,
    /// Replies to creations and cancellations so far.
    replies: AtomicU64,
    /// Creations that were refused so far.
    refusals: AtomicU64,
    /// Watchers that a compaction ended or that were never made: no server replies to their cancellation.
    ended: Mutex<BTreeSet<i64>>,
}

impl Told {
    fn ended(&self) -> MutexGuard<'_, BTreeSet<i64>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, watcher: i64, lines: Vec<String>) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).entry(watcher).or_default().extend(lines);
    }
}

/// An answer to compare, and the revision its header had (0: none).
pub(crate) struct Answer {
    pub(crate) text: Result<String, String>,
    pub(crate) revision: i64,
}

/// A server and our connection to it.
pub(crate) struct Side {
    server: Server,
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    requests: UnboundedSender<WatchRequest>,
    told: Arc<Told>,
    reader: JoinHandle<()>,
}

impl Side {
    pub(crate) async fn start(kind: Kind) -> Option<Self> {
        let backend = std::env::var("RUSD_DIFFERENTIAL_BACKEND").ok().filter(|_| kind == Kind::Rusd);
        let flags: Vec<String> = backend.map(|backend| format!("--backend={backend}")).into_iter().collect();
        let server = Server::start(kind, &flags, "differential").await?;
        let channel = server.connect().await;
        let told = Arc::default();
        let (requests, reader) = watch(channel.clone(), Arc::clone(&told));
        Some(Self { server, kv: kv_client(&channel), lease: LeaseClient::new(channel), requests, told, reader })
    }

    /// Kill the server, start it again, open a new watch stream.
    pub(crate) async fn restart(&mut self) {
        self.reader.abort();
        self.server.restart().await;
        let channel = self.server.connect().await;
        self.kv = kv_client(&channel);
        self.lease = LeaseClient::new(channel.clone());
        self.told = Arc::default();
        (self.requests, self.reader) = watch(channel, Arc::clone(&self.told));
    }

    /// What the watchers were told and isn't forgotten yet.
    pub(crate) fn log(&self) -> Log {
        self.told.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ask how far the watchers have been told; the answer is [`Side::progress`] some time later.
    pub(crate) fn ask_progress(&self) {
        self.watch_request(RequestUnion::ProgressRequest(WatchProgressRequest {}));
    }

    /// The revision up to which all watchers were told everything, as far as the server has said so.
    pub(crate) fn progress(&self) -> i64 {
        self.told.progress.load(Ordering::Acquire)
    }

    /// Forget what was compared; more may have come since.
    pub(crate) fn forget(&self, compared: &Log) {
        let mut log = self.told.log.lock().unwrap_or_else(PoisonError::into_inner);
        for (watcher, lines) in compared {
            if let Some(all) = log.get_mut(watcher) {
                all.drain(..lines.len());
            }
        }
        log.retain(|_, lines| !lines.is_empty());
    }

    pub(crate) async fn carry_out(&mut self, step: &Step) -> Answer {
        let mut revision = 0;
        let text = self.call(step, &mut revision).await.map_err(|s| format!("{:?}: {}", s.code(), s.message()));
        Answer { text, revision }
    }

    async fn call(&mut self, step: &Step, revision: &mut i64) -> Result<String, Status> {
        let mut seen = |header: &mut Option<ResponseHeader>| *revision = canon::header(header);
        Ok(match step {
            Step::Range(request) => {
                let mut answer = self.kv.range(request.clone()).await?.into_inner();
                seen(&mut answer.header);
                canon::range(request, &mut answer);
                format!("{answer:#?}")
            }
            Step::RangeStream(request) => {
                let mut parts = self.kv.range_stream(request.clone()).await?.into_inner();
                let mut whole = RangeResponse::default();
                while let Some(part) = parts.message().await? {
                    let part = part.range_response.unwrap_or_default();
                    let kvs = whole.kvs.into_iter().chain(part.kvs.clone()).collect();
                    whole = RangeResponse { kvs, ..part };
                }
                seen(&mut whole.header);
                canon::range(request, &mut whole);
                format!("{whole:#?}")
            }
            Step::Put(request) => {
                let mut answer = self.kv.put(request.clone()).await?.into_inner();
                seen(&mut answer.header);
                format!("{answer:#?}")
            }
            Step::Delete(request) => {
                let mut answer = self.kv.delete_range(request.clone()).await?.into_inner();
                seen(&mut answer.header);
                format!("{answer:#?}")
            }
            Step::Txn(request) => {
                let mut answer = self.kv.txn(request.clone()).await?.into_inner();
                seen(&mut answer.header);
                canon::txn(request, &mut answer);
                format!("{answer:#?}")
            }
            Step::Compact(request) => {
                let mut answer = self.kv.compact(*request).await?.into_inner();
                seen(&mut answer.header);
                format!("{answer:#?}")
            }
            Step::Grant(request) => {
                let mut answer = self.lease.lease_grant(*request).await?.into_inner();
                seen(&mut answer.header);
                format!("{answer:#?}")
            }
            Step::Revoke(request) => {
                let mut answer = self.lease.lease_revoke(*request).await?.into_inner();
                seen(&mut answer.header);
                format!("{answer:#?}")
            }
            Step::KeepAlive(request) => {
                let once = futures::stream::iter([*request]);
                let mut answers = self.lease.lease_keep_alive(once).await?.into_inner();
                let mut answer = answers.message().await?.unwrap_or_default();
                seen(&mut answer.header);
                format!("{answer:#?}")
            }
            Step::TimeToLive(request) => {
                let mut answer = self.lease.lease_time_to_live(*request).await?.into_inner();
                seen(&mut answer.header);
                answer.ttl = answer.ttl.signum();
                answer.keys.sort();
                format!("{answer:#?}")
            }
            Step::Leases => {
                let mut answer = self.lease.lease_leases(LeaseLeasesRequest {}).await?.into_inner();
                seen(&mut answer.header);
                answer.leases.sort_by_key(|lease| lease.id);
                format!("{answer:#?}")
            }
            Step::Watch(request) => {
                let before = self.told.refusals.load(Ordering::Acquire);
                self.await_reply(RequestUnion::CreateRequest(request.clone())).await;
                if self.told.refusals.load(Ordering::Acquire) > before {
                    self.told.ended().insert(request.watch_id);
                }
                "replied".to_owned()
            }
            Step::Cancel(id) if self.told.ended().contains(id) => "ended already".to_owned(),
            Step::Cancel(watch_id) => {
                self.await_reply(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: *watch_id })).await;
                "replied".to_owned()
            }
            Step::Restart => {
                self.restart().await;
                String::new()
            }
        })
    }

    fn watch_request(&self, request: RequestUnion) {
        // A broken stream shows in the log.
        self.requests.send(WatchRequest { request_union: Some(request) }).ok();
    }

    /// What comes next must not overtake this: it would be seen by a new watcher or not, by chance.
    ///
    /// # Panics
    /// When no reply comes; were it an answer, both servers' silence would be equal.
    async fn await_reply(&self, request: RequestUnion) {
        let before = self.told.replies.load(Ordering::Acquire);
        let shown = format!("{request:?}");
        self.watch_request(request);
        for _ in 0..REPLY_POLLS_MAX {
            if self.told.replies.load(Ordering::Acquire) > before {
                return;
            }
            tokio::time::sleep(REPLY_POLL).await;
        }
        panic!("no reply on the watch stream to {shown}");
    }
}

fn kv_client(channel: &Channel) -> KvClient<Channel> {
    KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX)
}

/// Opens a watch stream and keeps what comes on it.
fn watch(channel: Channel, told: Arc<Told>) -> (UnboundedSender<WatchRequest>, JoinHandle<()>) {
    let (sender, requests) = mpsc::unbounded_channel();
    let idle = WatchCreateRequest { key: "idle".into(), watch_id: IDLE_WATCHER, ..WatchCreateRequest::default() };
    let replies = sender.clone();
    let ask = move |request| replies.send(WatchRequest { request_union: Some(request) }).ok();
    ask(RequestUnion::CreateRequest(idle));
    let reader = tokio::spawn(async move {
        let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
        let mut stream = match client.watch(UnboundedReceiverStream::new(requests)).await {
            Ok(stream) => stream.into_inner(),
            Err(status) => return told.note(NO_WATCHER, vec![format!("{status}")]),
        };
        loop {
            let message = match stream.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return told.note(NO_WATCHER, vec!["the stream ended".to_owned()]),
                Err(status) => return told.note(NO_WATCHER, vec![format!("{status}")]),
            };
            let watch_id = message.watch_id;
            if is_progress(&message) {
                told.progress.fetch_max(message.header.unwrap_or_default().revision, Ordering::AcqRel);
            } else if message.compact_revision > 0 {
                // Until the client agrees, etcd keeps the watcher and gives no progress.
                told.ended().insert(watch_id);
                ask(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }));
                told.note(watch_id, lines(message));
            } else if message.canceled && told.ended().contains(&watch_id) {
                // The reply to that, some time later.
            } else if watch_id != IDLE_WATCHER {
                let replied = message.created || message.canceled;
                let refused = message.canceled && (message.created || watch_id == NO_WATCHER);
                told.note(watch_id, lines(message));
                told.refusals.fetch_add(u64::from(refused), Ordering::AcqRel);
                told.replies.fetch_add(u64::from(replied), Ordering::AcqRel);
            }
        }
    });
    (sender, reader)
}

fn is_progress(message: &WatchResponse) -> bool {
    message.watch_id == NO_WATCHER && !message.created && !message.canceled && message.events.is_empty()
}

/// A message as lines: how events are spread over messages is the server's own affair.
fn lines(message: WatchResponse) -> Vec<String> {
    let mut lines = Vec::new();
    if message.created || message.canceled {
        let revision = message.header.unwrap_or_default().revision;
        lines.push(format!(
            "created {} canceled {} at {revision}, compacted {}: {}",
            message.created, message.canceled, message.compact_revision, message.cancel_reason
        ));
    }
    lines.extend(message.events.into_iter().map(|event| format!("{event:?}")));
    lines
}
