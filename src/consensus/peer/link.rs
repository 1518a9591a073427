//! Raft's messages to one member.
//!
//! ```text
//! heartbeat ─► one call on the control connection, in time or not at all
//! entries   ─► a stream on the append connection: many requests under way, answers in their order
//! snapshot  ─► a stream on the snapshot connection (`snapshot`)
//! ```

use std::fmt::Display;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use openraft::AnyError;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use openraft::{OptionalSend, RaftNetworkV2};
use tonic::{Code, Status, Streaming};

use super::super::types::{TypeConfig, Vote};
use super::Peers;
use super::ledger::{Ledger, Requests};
use super::wire::{self, WireError};
use crate::failpoint::{Point, hit};
use crate::types::MemberId;
use rusd_proto::rusdpeer as pb;

type Error = RPCError<TypeConfig>;

/// Replies that may be outstanding for this long before the stream is given up and begun anew: far
/// above what a slow disk takes, as a connection that is dead is noticed by its pings.
const REPLY_MAX: Duration = Duration::from_secs(20);

/// The way to one member, for one of openraft's tasks.
pub struct Link {
    peers: Peers,
    target: MemberId,
}

impl Link {
    pub(super) fn new(peers: Peers, target: MemberId) -> Self {
        Self { peers, target }
    }

    fn error(&self, status: &Status) -> Error {
        self.peers.heed(status);
        self.peers.channels(self.target).meter().send_failed();
        match status.code() {
            // Nobody is there: to be tried less and less often.
            Code::Unavailable | Code::PermissionDenied | Code::FailedPrecondition => unreachable(status).into(),
            _ => network(status).into(),
        }
    }

    /// One call in its time.
    async fn call<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.error(&status)),
            Err(_) => {
                self.peers.channels(self.target).meter().send_failed();
                Err(network(&"no answer in time").into())
            }
        }
    }

    async fn heartbeat(
        &self,
        request: &AppendEntriesRequest<TypeConfig>,
        limit: Duration,
    ) -> Result<StreamAppendResult<TypeConfig>, Error> {
        let channels = self.peers.channels(self.target);
        let mut client = channels.control();
        let clock = &self.peers.inner.env.clock;
        let begun = clock.now();
        let call = client.heartbeat(channels.request(wire::append_request(request, self.peers.is_unsure())));
        let reply = self.call(limit, call).await;
        match &reply {
            Ok(_) => channels.meter().heartbeat_answered(clock.now().saturating_duration_since(begun)),
            // One that nobody is there to hear isn't late.
            Err(RPCError::Unreachable(_)) => {}
            Err(_) => channels.meter().heartbeat_missed(),
        }
        let reply = reply?;
        channels.answered();
        wire::append_result(reply).map_err(refused)
    }

    async fn replicate<'s, S>(
        &'s self,
        input: S,
    ) -> Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, Error>>, Error>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let ledger = Arc::new(Ledger::default());
        let mut input = Requests::new(input, &ledger);
        // openraft waits between two tries in this stream and nowhere else: if it weren't asked before, a
        // member that refuses connections would be dialled again and again without a pause.
        let Some(first) = input.next().await else { return Ok(stream::empty().boxed()) };
        let channels = self.peers.channels(self.target);
        if !self.peers.sure_or_answered(self.target).await || self.peers.is_superseded(&first) {
            return Ok(stream::empty().boxed());
        }
        let peers = self.peers.clone();
        let input = stream::iter([first]).chain(input);
        let input = input.take_while(move |request| std::future::ready(!peers.is_superseded(request)));
        let sent = Arc::new(AtomicU64::new(0));
        let counted = sent.clone();
        let peers = self.peers.clone();
        let outgoing = input.map(move |request| {
            hit(Point::RaftBeforeLeaderSend);
            counted.fetch_add(1, Ordering::Relaxed);
            wire::append_request(&request, peers.is_unsure())
        });
        let mut client = channels.append();
        let opened = client.append(channels.request(outgoing));
        let replies = self.call(self.peers.options().election_timeout * 2, opened).await?;
        let replies = Replies { link: self, replies, ledger, sent, received: 0, ended: false };
        Ok(Box::pin(stream::unfold(replies, Replies::next)))
    }
}

/// The answers of a stream of appends.
struct Replies<'a> {
    link: &'a Link,
    replies: Streaming<pb::AppendReply>,
    ledger: Arc<Ledger>,
    sent: Arc<AtomicU64>,
    received: u64,
    ended: bool,
}

impl Replies<'_> {
    async fn next(mut self) -> Option<(Result<StreamAppendResult<TypeConfig>, Error>, Self)> {
        if self.ended {
            return None;
        }
        self.ledger.go_on();
        let result = loop {
            match tokio::time::timeout(REPLY_MAX, self.replies.message()).await {
                Ok(Ok(Some(reply))) => {
                    self.received += 1;
                    let result = wire::append_result(reply).map_err(refused);
                    match &result {
                        Ok(Ok(matched)) if !self.ledger.answered(matched.map(|id| id.index)) => {}
                        _ => break result,
                    }
                }
                Ok(Ok(None)) => return None,
                Ok(Err(status)) => break Err(self.link.error(&status)),
                Err(_) if self.sent.load(Ordering::Relaxed) <= self.received => {}
                Err(_) => break Err(network(&"no answer to entries in time").into()),
            }
        };
        self.ended = result.is_err();
        Some((result, self))
    }
}

impl Drop for Replies<'_> {
    fn drop(&mut self) {
        self.ledger.go_on();
    }
}

pub(super) fn unreachable(error: &impl Display) -> Unreachable<TypeConfig> {
    Unreachable::new(&AnyError::error(error.to_string()))
}

pub(super) fn network(error: &impl Display) -> NetworkError<TypeConfig> {
    NetworkError::new(&AnyError::error(error.to_string()))
}

fn refused(error: WireError) -> Error {
    network(&error).into()
}

impl RaftNetworkV2<TypeConfig> for Link {
    type SnapshotData = PathBuf;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        Ok(self.heartbeat(&request, option.hard_ttl()).await?.into())
    }

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, Error>>, Error>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            // openraft's heartbeats are streams that say that they have one item; replication's don't know.
            if input.size_hint().1 != Some(1) {
                return self.replicate(input).await;
            }
            let Some(request) = input.next().await else { return Ok(stream::empty().boxed()) };
            let result = self.heartbeat(&request, option.hard_ttl()).await;
            Ok(stream::once(std::future::ready(result)).boxed())
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let channels = self.peers.channels(self.target);
        let mut client = channels.control();
        let call = client.vote(channels.request(wire::vote_request(&request)));
        wire::vote_response(self.call(option.hard_ttl(), call).await?).map_err(refused)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let channels = self.peers.channels(self.target);
        let mut client = channels.control();
        let call = client.pre_vote(channels.request(wire::vote_request(&request)));
        wire::vote_response(self.call(option.hard_ttl(), call).await?).map_err(refused)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, PathBuf>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let send = async {
            self.peers.channels(self.target).patience().wait().await;
            self.peers.send_snapshot(self.target, vote, snapshot, false).await
        };
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            sent = send => sent,
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let channels = self.peers.channels(self.target);
        let mut client = channels.control();
        let call = client.transfer_leader(channels.request(wire::transfer_request(&request)));
        let reply = self.call(option.hard_ttl(), call).await?;
        wire::transfer_response(&request, reply).map_err(refused)
    }
}
