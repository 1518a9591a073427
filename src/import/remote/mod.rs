//! A running etcd, asked as any client asks it.
//!
//! ```text
//! endpoints, tried in turn ─► channel ─┬► snapshot: the database, in pieces          (save)
//!                                      ├► watch from a revision ─► Change*           (follow)
//!                                      └► fence, leases, users' revision             (take over)
//! ```
//! Whoever needs a user's token gets a new one for each of these: tokens run out, and calls are few.

mod error;
mod feed;
mod save;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::auth_client::AuthClient;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::lease_client::LeaseClient;
use rusd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use tonic::Request;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint, Uri};

pub use error::RemoteError;
pub use feed::{Change, Feed};
pub use save::SaveError;

use crate::auth::Secret;
use crate::consensus::peer::{Dial, SocketDial, Stream};
use crate::lease::LeaseRecord;
use crate::tls::Connector;
use crate::types::{LeaseId, MemberId};

/// Whose alarm it is by which the source is kept from writing: no member has this id.
pub const FENCE: MemberId = MemberId(0x7275_7364_6d6f_7665);
/// Whether a connection still lives is asked this often.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// A call that isn't a stream ends after this.
const CALL_MAX: Duration = Duration::from_secs(10);
/// A call for which the source reads all that it has.
const LONG_CALL_MAX: Duration = Duration::from_secs(600);
/// Leases that are asked for at a time.
const LEASES_AT_ONCE: usize = 64;
/// The wire's numbers of what an alarm is asked for.
const ACTIVATE: i32 = 1;
const DEACTIVATE: i32 = 2;
const CORRUPT: i32 = 2;

/// Whom to ask, and as whom.
#[derive(Debug)]
pub struct RemoteOptions {
    /// Client URLs of a cluster's members, tried in turn.
    pub endpoints: Vec<String>,
    /// The user and the password; nobody without.
    pub user: Option<(String, Secret)>,
    /// For URLs with TLS.
    pub connector: Option<Connector>,
    /// How long one endpoint may take to be connected.
    pub dial_timeout: Duration,
}

/// What a source says of its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteHash {
    /// etcd's HashKV.
    pub hash: u32,
    /// The revision that was hashed: the member's last.
    pub revision: i64,
    /// Where that member was compacted; −1 if never.
    pub compact_revision: i64,
}

/// A running etcd.
#[derive(Clone, Debug)]
pub struct Remote {
    channel: Channel,
    user: Option<Arc<(String, Secret)>>,
    ways: Arc<Ways>,
}

/// The ways to the source.
#[derive(Debug)]
struct Ways {
    dial: Arc<dyn Dial>,
    endpoints: Vec<String>,
    limit: Duration,
    /// The endpoint that is tried first next time: the one after that which was taken last.
    first: AtomicUsize,
}

impl Remote {
    /// Nothing is asked yet: a connection is made when it is needed, and again after it broke.
    pub fn new(options: RemoteOptions) -> Self {
        let dial: Arc<dyn Dial> = Arc::new(SocketDial::new(options.connector));
        let ways = Ways { dial, endpoints: options.endpoints, limit: options.dial_timeout, first: AtomicUsize::new(0) };
        let ways = Arc::new(ways);
        Self { channel: Self::channel(&ways), user: options.user.map(Arc::new), ways }
    }

    /// The same source, by the next endpoint: the one so far may answer, and be of no use.
    #[must_use]
    pub fn elsewhere(&self) -> Self {
        Self { channel: Self::channel(&self.ways), ..self.clone() }
    }

    fn channel(ways: &Arc<Ways>) -> Channel {
        let ways = ways.clone();
        let connect = move |_: Uri| reach(ways.clone());
        Endpoint::from_static("http://etcd")
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(8 << 20)
            .initial_connection_window_size(8 << 20)
            .connect_with_connector_lazy(tower::service_fn(connect))
    }

    /// A call in this user's name.
    async fn request<T>(&self, message: T) -> Result<Request<T>, RemoteError> {
        let mut request = Request::new(message);
        if let Some(token) = self.token().await? {
            request.metadata_mut().insert("token", token);
        }
        Ok(request)
    }

    async fn token(&self) -> Result<Option<AsciiMetadataValue>, RemoteError> {
        let Some(user) = &self.user else { return Ok(None) };
        let request = pb::AuthenticateRequest { name: user.0.clone(), password: user.1.reveal().to_owned() };
        match within(AuthClient::new(self.channel.clone()).authenticate(request)).await {
            Ok(answer) => Ok(Some(answer.token.parse().map_err(|_| RemoteError::odd("a token that is none"))?)),
            // The user isn't needed then.
            Err(error) if error.says("authentication is not enabled") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps the source from writing: whatever its log takes after this changes neither keys nor leases, and is
    /// answered with an error. Gives a revision that nothing comes after.
    ///
    /// # Errors
    /// The source's.
    pub async fn fence(&self) -> Result<i64, RemoteError> {
        let alarmed = self.alarm(ACTIVATE).await?;
        // Which asks a quorum: the member that answered the alarm may have been slower than others.
        let range = pb::RangeRequest { key: vec![0].into(), limit: 1, count_only: true, ..Default::default() };
        let range = self.request(range).await?;
        let read = match within(KvClient::new(self.channel.clone()).range(range)).await {
            Ok(answer) => answer.header.map_or(0, |header| header.revision),
            // The alarm's own answer was given after all that was in the log before it.
            Err(error) if error.says("corrupt") => 0,
            Err(error) => return Err(error),
        };
        Ok(alarmed.max(read))
    }

    /// Lets the source write again.
    ///
    /// # Errors
    /// The source's.
    pub async fn unfence(&self) -> Result<(), RemoteError> {
        self.alarm(DEACTIVATE).await.map(drop)
    }

    async fn alarm(&self, action: i32) -> Result<i64, RemoteError> {
        let alarm = pb::AlarmRequest { action, member_id: FENCE.get(), alarm: CORRUPT };
        let alarm = self.request(alarm).await?;
        let answer = within(MaintenanceClient::new(self.channel.clone()).alarm(alarm)).await?;
        Ok(answer.header.map_or(0, |header| header.revision))
    }

    /// The revision of the source's keys, as a quorum knows it.
    ///
    /// # Errors
    /// The source's.
    pub async fn revision(&self) -> Result<i64, RemoteError> {
        let range = pb::RangeRequest { key: vec![0].into(), limit: 1, count_only: true, ..Default::default() };
        let range = self.request(range).await?;
        let answer = within(KvClient::new(self.channel.clone()).range(range)).await?;
        Ok(answer.header.map_or(0, |header| header.revision))
    }

    /// What the member that answers says of its records, up to its last revision.
    ///
    /// # Errors
    /// The source's.
    pub async fn hash_kv(&self) -> Result<RemoteHash, RemoteError> {
        // At a revision that is named, it may be the hash that was taken at a compaction.
        let request = self.request(pb::HashKvRequest { revision: 0 }).await?;
        let mut client = MaintenanceClient::new(self.channel.clone());
        let answer = within_time(LONG_CALL_MAX, client.hash_kv(request)).await?;
        let header = answer.header.map_or(0, |header| header.revision);
        // Before 3.6 it isn't said what was hashed.
        let revision = if answer.hash_revision > 0 { answer.hash_revision } else { header };
        Ok(RemoteHash { hash: answer.hash, revision, compact_revision: answer.compact_revision })
    }

    /// Counts changes of users and roles.
    ///
    /// # Errors
    /// The source's.
    pub async fn auth_revision(&self) -> Result<u64, RemoteError> {
        let request = self.request(pb::AuthStatusRequest {}).await?;
        Ok(within(AuthClient::new(self.channel.clone()).auth_status(request)).await?.auth_revision)
    }

    /// All leases with what they have left.
    ///
    /// # Errors
    /// The source's.
    pub async fn leases(&self) -> Result<Vec<(LeaseId, LeaseRecord)>, RemoteError> {
        use futures::{StreamExt as _, TryStreamExt as _};
        let client = LeaseClient::new(self.channel.clone());
        let listed = within(client.clone().lease_leases(self.request(pb::LeaseLeasesRequest {}).await?)).await?;
        let token = self.token().await?;
        let ask = |id: i64| {
            let (mut client, token) = (client.clone(), token.clone());
            async move {
                let mut request = Request::new(pb::LeaseTimeToLiveRequest { id, keys: false });
                if let Some(token) = token {
                    request.metadata_mut().insert("token", token);
                }
                let answer = within(client.lease_time_to_live(request)).await?;
                // One that has ended meanwhile has no time at all.
                let record = (answer.granted_ttl > 0).then(|| {
                    let remaining_secs = answer.ttl.max(1);
                    let remaining_secs = if remaining_secs < answer.granted_ttl { remaining_secs } else { 0 };
                    LeaseRecord { ttl_secs: answer.granted_ttl, remaining_secs }
                });
                Ok::<_, RemoteError>(record.map(|record| (LeaseId(id), record)))
            }
        };
        let asked = futures::stream::iter(listed.leases.into_iter().map(|lease| lease.id)).map(ask);
        let found: Vec<_> = asked.buffer_unordered(LEASES_AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }
}

async fn within<T>(call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>) -> Result<T, RemoteError> {
    within_time(CALL_MAX, call).await
}

async fn within_time<T>(
    limit: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, RemoteError> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(RemoteError::unreachable("no answer in time")),
    }
}

/// Tries all endpoints, one after the other, and notes that the next one comes first next time.
async fn reach(ways: Arc<Ways>) -> io::Result<TokioIo<Box<dyn Stream>>> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no endpoint is named");
    for _ in &ways.endpoints {
        let at = ways.first.fetch_add(1, Ordering::Relaxed) % ways.endpoints.len();
        let endpoint = &ways.endpoints[at];
        match tokio::time::timeout(ways.limit, ways.dial.dial(endpoint)).await {
            Ok(Ok(stream)) => return Ok(TokioIo::new(stream)),
            Ok(Err(error)) => last = io::Error::new(error.kind(), format!("{endpoint}: {error}")),
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{endpoint}: no connection in time")),
        }
    }
    Err(last)
}
