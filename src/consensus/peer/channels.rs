//! The connections to one member, made when they are needed and again after they broke.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rusd_proto::rusdpeer::peer_client::PeerClient;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};

use super::PeerOptions;
use super::book::Book;
use super::dial::{Dial, Stream};
use super::meter::{Counted, PeerMeter};
use super::patience::Patience;
use crate::types::{ClusterId, MemberId};

/// Metadata: the cluster's id.
const CLUSTER: &str = "rusd-cluster";
/// Metadata: who calls.
const FROM: &str = "rusd-from";
/// Metadata: who is called.
const TO: &str = "rusd-to";
/// What a member that was removed is told.
const REMOVED: &str = "the member has been permanently removed from the cluster";
/// Bytes under way on a connection and in one call: a few of the largest usual messages.
const WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// A client of a member's peer service.
pub(super) type Client = PeerClient<Channel>;

/// The connections to one member, one for each kind of traffic.
#[derive(Debug)]
pub(super) struct Channels {
    /// Replication, and proposals to the leader.
    append: Client,
    /// Heartbeats, votes and small questions.
    control: Client,
    /// Snapshots.
    snapshot: Client,
    patience: Patience,
    meter: Arc<dyn PeerMeter>,
    cluster: MetadataValue<Ascii>,
    from: MetadataValue<Ascii>,
    to: MetadataValue<Ascii>,
}

impl Channels {
    pub(super) fn new(
        options: &PeerOptions,
        target: MemberId,
        (dial, book): (&Arc<dyn Dial>, &Arc<Book>),
        meter: Arc<dyn PeerMeter>,
    ) -> Self {
        let client = || {
            let timeout = options.election_timeout;
            let (dial, book, meter) = (dial.clone(), book.clone(), meter.clone());
            let connect = move |_: Uri| reach(dial.clone(), book.urls(target), timeout, meter.clone());
            let channel = Endpoint::from_static("http://member")
                .initial_stream_window_size(WINDOW_BYTES)
                .initial_connection_window_size(WINDOW_BYTES)
                // A connection whose other side is gone without a word must not hold up anything.
                .http2_keep_alive_interval(timeout)
                .keep_alive_timeout(timeout)
                .keep_alive_while_idle(true)
                .connect_with_connector_lazy(tower::service_fn(connect));
            PeerClient::new(channel)
                .max_decoding_message_size(options.message_bytes_max)
                .max_encoding_message_size(options.message_bytes_max)
        };
        Self {
            append: client(),
            control: client(),
            snapshot: client(),
            patience: Patience::default(),
            meter: meter.clone(),
            cluster: value(options.cluster.get()),
            from: value(options.member.get()),
            to: value(target.get()),
        }
    }

    pub(super) fn append(&self) -> Client {
        self.append.clone()
    }

    pub(super) fn control(&self) -> Client {
        self.control.clone()
    }

    pub(super) fn snapshot(&self) -> Client {
        self.snapshot.clone()
    }

    /// How long it is left alone with snapshots.
    pub(super) fn patience(&self) -> &Patience {
        &self.patience
    }

    /// It answered a heartbeat.
    pub(super) fn answered(&self) {
        self.patience.heard();
    }

    /// Counts what passes.
    pub(super) fn meter(&self) -> &dyn PeerMeter {
        &*self.meter
    }

    /// A call with everyone's names.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        metadata.insert(CLUSTER, self.cluster.clone());
        metadata.insert(FROM, self.from.clone());
        metadata.insert(TO, self.to.clone());
        request
    }
}

/// Tries a member's URLs, one after the other.
async fn reach(
    dial: Arc<dyn Dial>,
    urls: Vec<String>,
    timeout: Duration,
    meter: Arc<dyn PeerMeter>,
) -> Result<TokioIo<Box<dyn Stream>>, NotReached> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no peer URL is known");
    for url in urls {
        match tokio::time::timeout(timeout, dial.dial(&url)).await {
            Ok(Ok(stream)) => return Ok(TokioIo::new(Box::new(Counted::new(stream, meter)))),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(NotReached(last))
}

/// No connection could be made, so nothing was sent.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotReached(io::Error);

/// Whether a call failed before anything was sent.
pub(super) fn was_not_sent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<NotReached>() {
            return true;
        }
        source = error.source();
    }
    // What the other side refused at the door was not looked at.
    matches!(status.code(), Code::FailedPrecondition | Code::PermissionDenied)
}

fn value(id: u64) -> MetadataValue<Ascii> {
    let text = format!("{id:x}");
    MetadataValue::try_from(text).unwrap_or_else(|_| MetadataValue::from_static("0"))
}

/// Who calls, if the call is meant for `member` of `cluster`.
///
/// # Errors
/// `FailedPrecondition` if it is meant for another one.
pub(super) fn caller(metadata: &MetadataMap, cluster: ClusterId, member: MemberId) -> Result<MemberId, Status> {
    let id = |name: &str| {
        let text = metadata.get(name).and_then(|value| value.to_str().ok());
        text.and_then(|text| u64::from_str_radix(text, 16).ok())
    };
    if id(CLUSTER) != Some(cluster.get()) {
        return Err(Status::failed_precondition(format!("cluster ID mismatch: this is cluster {cluster}")));
    }
    if id(TO) != Some(member.get()) {
        return Err(Status::failed_precondition(format!("member ID mismatch: this is member {member}")));
    }
    id(FROM).map(MemberId).ok_or_else(|| Status::failed_precondition("the caller gives no member ID"))
}

/// What a member that was removed is told.
pub(super) fn removed() -> Status {
    Status::permission_denied(REMOVED)
}

/// Whether a call failed because this member was removed.
pub(super) fn says_removed(status: &Status) -> bool {
    status.code() == Code::PermissionDenied && status.message() == REMOVED
}
