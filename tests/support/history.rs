//! What happened, as a watch tells it: every event from revision 1 on, across restarts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rusd_proto::etcdserverpb::watch_client::WatchClient;
use rusd_proto::etcdserverpb::watch_request::RequestUnion;
use rusd_proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use rusd_proto::mvccpb::event::EventType;
use rusd_proto::mvccpb::{Event, KeyValue};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tonic::Status;
use tonic::transport::Channel;

use crate::client;

/// How long a watch may be behind.
const CATCH_UP_MAX: Duration = Duration::from_secs(60);

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) revision: i64,
    pub(crate) key: Bytes,
    /// What was put, or `None` for a delete.
    pub(crate) put: Option<KeyValue>,
}

impl Change {
    pub(crate) fn of(event: Event) -> Self {
        let is_put = event.r#type() == EventType::Put;
        let kv = event.kv.expect("an event has a key");
        Self { revision: kv.mod_revision, key: kv.key.clone(), put: is_put.then_some(kv) }
    }
}

/// A watch from one revision on.
pub(crate) struct Watch(tonic::Streaming<WatchResponse>);

impl Watch {
    pub(crate) async fn open(channel: &Channel, range: &(Bytes, Bytes), start_revision: i64) -> Result<Self, Status> {
        let (key, range_end) = range.clone();
        let create = WatchCreateRequest { key, range_end, start_revision, ..WatchCreateRequest::default() };
        let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let requests = tokio_stream::once(request).chain(tokio_stream::pending());
        let mut client = WatchClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
        Ok(Self(client.watch(requests).await?.into_inner()))
    }

    /// The next answer; an end of the stream is an error.
    pub(crate) async fn next(&mut self) -> Result<WatchResponse, Status> {
        self.0.message().await?.ok_or_else(|| Status::unavailable("the stream ended"))
    }
}

/// All keys: first and end.
pub(crate) fn all() -> (Bytes, Bytes) {
    let all = Bytes::from_static(b"\0");
    (all.clone(), all)
}

/// Everything that was seen, in order.
#[derive(Clone, Default)]
pub(crate) struct History(Arc<Mutex<Vec<Change>>>);

impl History {
    /// Follows the server at `url` for as long as the task lives, through its restarts.
    pub(crate) fn follow(&self, url: String) -> JoinHandle<()> {
        self.follow_range(url, all())
    }

    /// The same of one key.
    pub(crate) fn follow_key(&self, url: String, key: Bytes) -> JoinHandle<()> {
        self.follow_range(url, (key, Bytes::new()))
    }

    fn follow_range(&self, url: String, range: (Bytes, Bytes)) -> JoinHandle<()> {
        let history = self.clone();
        tokio::spawn(async move {
            loop {
                // An error means that the server is away; what was seen stays, and the rest comes later.
                let _ = history.follow_once(&url, &range).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    }

    async fn follow_once(&self, url: &str, range: &(Bytes, Bytes)) -> Result<(), Status> {
        let channel = client::connect(url).await.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut watch = Watch::open(&channel, range, self.last() + 1).await?;
        loop {
            let answer = watch.next().await?;
            assert!(!answer.canceled, "the watch was cancelled: {}", answer.cancel_reason);
            self.0.lock().unwrap().extend(answer.events.into_iter().map(Change::of));
        }
    }

    /// The last revision seen.
    pub(crate) fn last(&self) -> i64 {
        self.0.lock().unwrap().last().map_or(0, |change| change.revision)
    }

    /// Waits until everything up to `revision` was seen; the follower must be running.
    pub(crate) async fn reach(&self, revision: i64, follower: &JoinHandle<()>) {
        let begun = Instant::now();
        while self.last() < revision {
            assert!(!follower.is_finished(), "the watch had to give up");
            assert!(begun.elapsed() < CATCH_UP_MAX, "the watch stands at {}, not {revision}", self.last());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A copy up to and with a revision.
    pub(crate) fn until(&self, revision: i64) -> Vec<Change> {
        let all = self.0.lock().unwrap();
        all.iter().take_while(|change| change.revision <= revision).cloned().collect()
    }
}

/// Plays changes from the beginning and checks that each follows from those before it: revisions
/// without a hole or a step back, versions that count, no delete of what isn't there.
pub(crate) fn replay(changes: &[Change]) -> BTreeMap<Bytes, KeyValue> {
    let mut state: BTreeMap<Bytes, KeyValue> = BTreeMap::new();
    let mut at = 1;
    for change in changes {
        let Change { revision, key, put } = change;
        assert!(*revision == at || *revision == at + 1, "after revision {at} the watch gave {revision}");
        at = *revision;
        match put {
            Some(new) => {
                let (create, version) = state.get(key).map_or((at, 1), |old| (old.create_revision, old.version + 1));
                assert_eq!((new.create_revision, new.version), (create, version), "applied twice or lost: {change:?}");
                state.insert(key.clone(), new.clone());
            }
            None => {
                assert!(state.remove(key).is_some(), "deleted though it wasn't there: {change:?}");
            }
        }
    }
    state
}
