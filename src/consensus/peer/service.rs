//! What other members ask of this one: gRPC on the peer port.
//!
//! ```text
//! call ─► for this cluster and member? ─► from a member that was removed? ─► Raft core, or the leader's answer
//! ```

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use prost::Message;
use rusd_proto::rusdpeer as pb;
use rusd_proto::rusdpeer::peer_server::{Peer, PeerServer};
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use super::super::node::Node;
use super::ask::{LeaseLeft, row};
use super::meter::{Transfer, Way};
use super::snapshot::Received;
use super::{Peers, channels, refusal, wire};
use crate::consensus::divergence::{DIGESTS_OF, Finding};
use crate::consensus::index::to_raft;
use crate::consensus::membership::MemberChange;
use crate::consensus::status::DiskState;
use crate::failpoint::{Point, hit};
use crate::types::{LeaseId, MemberId, RaftIndex, RequestError, Term};

/// An answer to come.
pub type Asking<T> = Pin<Box<dyn Future<Output = Result<T, RequestError>> + Send>>;

/// What the server knows and consensus doesn't.
pub trait Questions: Send + Sync + 'static {
    /// Renews a lease, or says what is left of it; answered only by a member that leads at that time.
    fn lease(&self, id: LeaseId, renew: bool) -> Asking<LeaseLeft>;

    /// This member's state was found to differ: nothing of it is served from now on, and when this is answered by true,
    /// nothing is after a start either. False if it holds another state by now, and nothing comes of it.
    fn diverged(&self, finding: Finding) -> Asking<bool>;

    /// Whether `member`, whose state differs, may end now and start again; answered only by a member that leads.
    /// It is only a question unless it `takes` the turn.
    fn turn(&self, member: MemberId, takes: bool) -> Asking<bool>;
}

/// The peer service of this member.
#[derive(Clone)]
pub struct Service {
    node: Node,
    peers: Peers,
    questions: Arc<dyn Questions>,
}

impl Service {
    /// Serves `node`.
    pub fn new(node: Node, peers: Peers, questions: Arc<dyn Questions>) -> Self {
        Self { node, peers, questions }
    }

    /// As routes, to be served on the peer port.
    pub fn routes(self) -> Routes {
        let max = self.peers.options().message_bytes_max;
        Routes::new(PeerServer::new(self).max_decoding_message_size(max).max_encoding_message_size(max))
    }

    /// Who calls; refused unless the call is for this member, and from one that belongs here.
    fn admit<T>(&self, request: &Request<T>) -> Result<MemberId, Status> {
        let options = self.peers.options();
        let caller = channels::caller(request.metadata(), options.cluster, options.member)?;
        if self.node.status().is_removed(caller) {
            return Err(channels::removed());
        }
        Ok(caller)
    }
}

fn fatal(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

#[tonic::async_trait]
impl Peer for Service {
    type AppendStream = BoxStream<'static, Result<pb::AppendReply, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let caller = self.admit(&request)?;
        let status = self.node.status().clone();
        let meter = self.peers.meter(caller);
        let answers = meter.clone();
        // What can't be read ends the stream; the leader begins another one where this one stopped.
        let requests = tokio_stream::StreamExt::map_while(request.into_inner(), move |message| {
            let message = message.ok()?;
            meter.received(message.encoded_len());
            let unsure = message.unsure;
            match wire::append(message) {
                Ok(request) => {
                    if !unsure {
                        status.heard_from(caller, request.vote.leader_id.term);
                    }
                    if let Some(commit) = &request.leader_commit {
                        status.heard_commit(to_raft(commit.index));
                    }
                    Some(request)
                }
                Err(error) => {
                    meter.receive_failed();
                    tracing::error!(%error, "a peer's entries can't be read");
                    None
                }
            }
        });
        let replies = self.node.raft().stream_append(requests.fuse());
        let replies = replies.map(move |reply| {
            hit(Point::RaftBeforeFollowerSend);
            let reply = reply.map(wire::append_reply).map_err(fatal)?;
            answers.sent(reply.encoded_len());
            Ok(reply)
        });
        Ok(Response::new(replies.boxed()))
    }

    async fn heartbeat(&self, request: Request<pb::AppendRequest>) -> Result<Response<pb::AppendReply>, Status> {
        let caller = self.admit(&request)?;
        let request = request.into_inner();
        self.peers.meter(caller).received(request.encoded_len());
        let unsure = request.unsure;
        let request = wire::append(request)?;
        if !unsure {
            self.node.status().heard_from(caller, request.vote.leader_id.term);
        }
        let reply = self.node.raft().stream_append(futures::stream::iter([request])).boxed().next().await;
        match reply {
            Some(Ok(reply)) => Ok(Response::new(wire::append_reply(reply))),
            Some(Err(error)) => Err(fatal(error)),
            None => Err(fatal("raft ended")),
        }
    }

    async fn vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteReply>, Status> {
        self.admit(&request)?;
        let request = wire::ask_vote(request.into_inner())?;
        if !request.leadership_transfer {
            self.node.lease().kept().await;
        }
        let reply = self.node.raft().vote(request).await.map_err(fatal)?;
        Ok(Response::new(wire::vote_reply(&reply)))
    }

    async fn pre_vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteReply>, Status> {
        self.admit(&request)?;
        self.node.lease().kept().await;
        let reply = self.node.raft().pre_vote(wire::ask_vote(request.into_inner())?).await.map_err(fatal)?;
        Ok(Response::new(wire::vote_reply(&reply)))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferRequest>,
    ) -> Result<Response<pb::TransferReply>, Status> {
        self.admit(&request)?;
        let request = wire::transfer(request.into_inner())?;
        let reply = self.node.raft().handle_transfer_leader(request).await.map_err(fatal)?;
        Ok(Response::new(wire::transfer_reply(&reply)))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotChunk>>,
    ) -> Result<Response<pb::SnapshotReply>, Status> {
        let caller = self.admit(&request)?;
        let differs = self.node.status().diverged().is_some();
        let meter = self.peers.meter(caller);
        let transfer = Transfer::begin(meter.clone(), self.peers.inner.env.clock.clone(), Way::Receive);
        let received = self.peers.receive_snapshot(request.into_inner(), differs, &*meter).await?;
        meter.snapshot_saved(transfer.took());
        let Received { vote, snapshot, healing } = received;
        self.node.status().heard_from(caller, vote.leader_id.term);
        let path = snapshot.snapshot.clone();
        if healing {
            // It may be what the others hold by now; the healer looks again.
            if self.node.status().diverged().is_none() {
                self.peers.discard(&path);
                return Err(Status::failed_precondition("this member has nothing to be healed of any more"));
            }
            self.peers.keep_for_healing(&path)?;
            // So that the healer, which looks for it once when this member is healed, needn't do so again and again.
            if self.node.status().diverged().is_none() {
                self.peers.discard_healing();
            }
            transfer.done();
            return Ok(Response::new(pb::SnapshotReply { vote: Some(wire::ballot(&vote)) }));
        }
        let reply = self.node.raft().install_full_snapshot(vote, snapshot).await.map_err(fatal)?;
        self.peers.discard(&path);
        // A later vote is an answer too, and says that nothing was taken in.
        if reply.vote <= vote {
            transfer.done();
        }
        Ok(Response::new(pb::SnapshotReply { vote: Some(wire::ballot(&reply.vote)) }))
    }

    async fn ask(&self, request: Request<pb::Question>) -> Result<Response<pb::Answer>, Status> {
        let caller = self.admit(&request)?;
        use pb::answer::Answer;
        use pb::question::Question;
        let question = request.into_inner();
        self.peers.meter(caller).received(question.encoded_len());
        let pb::Question { question, differing } = question;
        let answer = match question {
            Some(Question::Proposal(pb::Proposal { payload, tag })) => {
                self.node.append_forwarded(payload, caller, tag, None).await.map(Answer::Accepted)
            }
            Some(Question::Bound(pb::BoundProposal { payload, tag, term })) => {
                self.node.append_forwarded(payload, caller, tag, Some(Term(term))).await.map(Answer::Accepted)
            }
            Some(Question::ReadIndex(pb::ReadIndex { vouched })) => {
                let vouched = wire::vote(vouched).ok();
                self.node.read_index_for(caller, vouched).await.map(Answer::ReadIndex)
            }
            Some(Question::Lease(pb::LeaseQuestion { id, renew })) => {
                let left = self.questions.lease(LeaseId(id), renew).await;
                left.map(|LeaseLeft { granted_secs, remaining_secs }| {
                    Answer::Lease(pb::LeaseAnswer { granted_secs, remaining_secs })
                })
            }
            Some(Question::Digests(pb::DigestsQuestion { keep, look })) => {
                let landmarks = self.node.status().landmarks();
                if !look {
                    landmarks.keep_next(keep);
                }
                let (indexes, digests) =
                    landmarks.digests().into_iter().map(|(index, digest)| (index.get(), digest)).unzip();
                let kept = landmarks.kept().map_or(0, RaftIndex::get);
                let lineage = self.node.status().lineage().encode();
                let differs = self.node.status().diverged().is_some();
                Ok(Answer::Digests(pb::Digests { indexes, digests, kept, lineage, differs, of: DIGESTS_OF }))
            }
            Some(Question::Parts(pb::PartsQuestion { index, prefix })) => {
                let parts = self.node.status().landmarks().parts(RaftIndex(index), &prefix);
                parts.map(|digests| Answer::Parts(pb::Parts { digests })).ok_or(RequestError::UnknownMethod)
            }
            Some(Question::Diverged(index)) => match differing {
                Some(pb::Differing { digest, term }) => {
                    let finding = Finding { index: RaftIndex(index), digest, term: Term(term) };
                    self.questions.diverged(finding).await.map(Answer::Noted)
                }
                // Of a leader of an older build, whose digests are of something else.
                None => Err(RequestError::UnknownMethod),
            },
            Some(Question::Turn(takes)) => self.questions.turn(caller, takes).await.map(Answer::Noted),
            Some(Question::Agreed(pb::Agreement { index, digest })) => {
                self.node.agree(RaftIndex(index), digest).await.map(Answer::Noted)
            }
            Some(Question::Disk(_)) => {
                let DiskState { pace, is_full } = self.node.status().disk();
                let pace_us = pace.map_or(0, |pace| u64::try_from(pace.as_micros()).unwrap_or(u64::MAX).max(1));
                Ok(Answer::Disk(pb::Disk { pace_us, is_full }))
            }
            Some(Question::Heal(_)) => self.node.heal(caller).await.map(Answer::Noted),
            Some(Question::Change(change)) => match MemberChange::decode(&change) {
                Ok(change) => {
                    let members = self.node.change_members(change).await;
                    members.map(|all| Answer::Members(pb::Members { members: all.into_iter().map(row).collect() }))
                }
                Err(_) => Err(RequestError::UnknownMethod),
            },
            None => Err(RequestError::UnknownMethod),
        };
        let answer = answer.unwrap_or_else(|error| Answer::Refusal(refusal::encode(&error)));
        Ok(Response::new(pb::Answer { answer: Some(answer) }))
    }
}
