//! What a member does for a client: the same calls of proposer, barrier, reader, lessor and hub that the API makes.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use prost::Message as _;
use rusd::apply::{Command, Compare, CompareResult, CompareTarget, DeleteOp, Op, OpResult, PutOp, Response, TxnOp};
use rusd::consensus::{MemberChange, MemberRecord};
use rusd::env::Env;
use rusd::lease::{Lessor, Renewal};
use rusd::propose::{Leases, Proposer};
use rusd::storage::{Disk, RangeQuery, ReadError, StoreReader};
use rusd::types::{KeyRange, LeaseId, MemberId, RequestError};
use rusd::watch::{CreateWatch, HeaderIds, StreamEnd, WatchHub, WatchRequest, WatchSession};
use rusd_proto::etcdserverpb::WatchResponse;
use rusd_sim::history::{Answer, Call, Outcome};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::World;
use super::member::kv_of;

/// What comes to a member.
pub(crate) enum Request {
    Call(Call, oneshot::Sender<Outcome>),
    /// Who is in the cluster, as of now.
    Members(oneshot::Sender<Result<Vec<MemberRecord>, RequestError>>),
    Change(MemberChange, oneshot::Sender<Result<Vec<MemberRecord>, RequestError>>),
    /// The leases that live there.
    Leases(oneshot::Sender<Vec<LeaseId>>),
    /// Hand the lead over.
    Move(MemberId, oneshot::Sender<Result<(), RequestError>>),
    Watch {
        prefix: Bytes,
        start: i64,
        /// Whatever is sent asks for a progress answer.
        asks: mpsc::UnboundedReceiver<()>,
        answers: mpsc::UnboundedSender<WatchResponse>,
    },
}

/// A member's side towards its clients.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) world: Arc<World>,
    pub(crate) member: usize,
    pub(crate) env: Env,
    pub(crate) proposer: Proposer,
    pub(crate) reader: StoreReader,
    pub(crate) lessor: Arc<Lessor>,
    pub(crate) renewals: Leases,
    pub(crate) hub: WatchHub,
}

impl Door {
    pub(crate) async fn serve(self, mut requests: mpsc::UnboundedReceiver<Request>) {
        while let Some(request) = requests.recv().await {
            let door = self.clone();
            match request {
                Request::Call(call, reply) => drop(tokio::spawn(async move {
                    // Who has gone away needs no answer.
                    let _ = reply.send(outcome(door.call(call).await));
                })),
                Request::Members(reply) => drop(tokio::spawn(async move {
                    let node = door.proposer.node();
                    let _ = reply.send(door.proposer.read_barrier().await.map(|()| node.members()));
                })),
                Request::Leases(reply) => drop(reply.send(door.lessor.ids())),
                Request::Change(change, reply) => drop(tokio::spawn(async move {
                    let _ = reply.send(door.proposer.node().request_change(change).await);
                })),
                Request::Move(to, reply) => drop(tokio::spawn(async move {
                    let _ = reply.send(door.proposer.node().transfer_leader(to).await);
                })),
                Request::Watch { prefix, start, asks, answers } => {
                    drop(tokio::spawn(async move { door.watch(prefix, start, asks, answers).await }));
                }
            }
        }
    }

    async fn call(&self, call: Call) -> Result<Answer, RequestError> {
        match call {
            Call::Put { key, value, lease } => {
                let put = PutOp { key, value, lease: LeaseId(lease), ..PutOp::default() };
                self.write(Command::Put(put)).await
            }
            Call::Delete { prefix } => {
                self.write(Command::DeleteRange(DeleteOp { range: KeyRange::prefix(prefix), prev_kv: false })).await
            }
            Call::Txn { compares, puts, deletes, reads } => {
                let puts = puts.into_iter().map(|(key, value)| Op::Put(PutOp { key, value, ..PutOp::default() }));
                let deletes = deletes.into_iter().map(|key| DeleteOp { range: KeyRange::single(key), prev_kv: false });
                let reads = reads.into_iter().map(|key| Op::Range(RangeQuery::latest(KeyRange::single(key))));
                let reads: Vec<Op> = reads.collect();
                let compare = |(key, expected)| Compare {
                    range: KeyRange::single(key),
                    result: CompareResult::Equal,
                    target: CompareTarget::Mod(expected),
                };
                let txn = TxnOp {
                    compares: compares.into_iter().map(compare).collect(),
                    success: puts.chain(deletes.map(Op::Delete)).chain(reads.iter().cloned()).collect(),
                    failure: reads,
                };
                self.write(Command::Txn(txn)).await
            }
            Call::Get { prefix, serializable, revision } => {
                if !serializable {
                    self.proposer.read_barrier().await?;
                }
                let query = RangeQuery { revision, ..RangeQuery::latest(KeyRange::prefix(prefix)) };
                let found = self.reader.range(&query, Disk::Allowed).map_err(|error| match error {
                    ReadError::Request(error) => error,
                    ReadError::NeedsDisk => RequestError::Storage("needs the disk though it may".to_owned()),
                })?;
                Ok(Answer::Found { revision: found.revision, kvs: found.value.kvs.iter().map(kv_of).collect() })
            }
            Call::Grant { id, ttl } => self.write(Command::LeaseGrant { id: LeaseId(id), ttl_secs: ttl }).await,
            Call::Revoke { id } => {
                self.lessor.begin_revoke(LeaseId(id), self.env.clock.now());
                self.write(Command::LeaseRevoke { id: LeaseId(id) }).await
            }
            Call::Compact { revision } => self.write(Command::Compact { revision }).await,
            Call::KeepAlive { id } => Ok(Answer::Lease { ttl: self.renew(LeaseId(id)).await? }),
        }
    }

    async fn write(&self, command: Command) -> Result<Answer, RequestError> {
        let outcome = self.proposer.propose(command).await?.outcome;
        let revision = outcome.revision;
        Ok(match outcome.result? {
            Response::Put(_) | Response::Compact | Response::Lease | Response::Alarm(_) => Answer::Done { revision },
            // No client here asks for these.
            Response::Auth | Response::Token(_) => Answer::Done { revision },
            Response::DeleteRange(deleted) => Answer::Deleted { revision, count: deleted.deleted },
            Response::LeaseGrant { ttl_secs, .. } => Answer::Lease { ttl: ttl_secs },
            Response::Txn(txn) => {
                let mut found = Vec::new();
                for response in &txn.responses {
                    if let OpResult::Range { result, .. } = response {
                        found.extend(result.kvs.iter().map(kv_of));
                    }
                }
                Answer::Txn { revision, held: txn.succeeded, found }
            }
        })
    }

    /// A renewal as the API makes it.
    async fn renew(&self, id: LeaseId) -> Result<i64, RequestError> {
        let term = self.proposer.node().status().term();
        let ttl = match self.lessor.renew(id, self.env.clock.now()) {
            Renewal::Renewed { ttl_secs, reset_checkpoint: false } => ttl_secs,
            Renewal::Unknown => 0,
            _ => return self.renewals.renew(id).await,
        };
        self.proposer.confirm_lead(term).await?;
        Ok(ttl)
    }

    async fn watch(
        self,
        prefix: Bytes,
        start: i64,
        asks: mpsc::UnboundedReceiver<()>,
        answers: mpsc::UnboundedSender<WatchResponse>,
    ) {
        use futures::StreamExt as _;
        let create =
            CreateWatch { start_revision: start, progress_notify: true, ..CreateWatch::of(KeyRange::prefix(prefix)) };
        let create = futures::stream::iter([Ok::<_, StreamEnd>(WatchRequest::Create(create))]);
        let asks = UnboundedReceiverStream::new(asks).map(|()| Ok(WatchRequest::Progress));
        let header = Arc::new(|| HeaderIds { cluster_id: 1, member_id: 1, raft_term: 1 });
        let mut session = WatchSession::new(&self.hub, header, create.chain(asks), false);
        let mut bytes = BytesMut::new();
        loop {
            match std::future::poll_fn(|context| session.poll_chunk(context)).await {
                Ok(chunk) => bytes.extend_from_slice(&chunk),
                Err(end) => {
                    self.world.note(format_args!("m{} ends a watch: {end:?}", self.member));
                    return;
                }
            }
            while let Some(message) = next_message(&mut bytes) {
                match WatchResponse::decode(message) {
                    Ok(response) => {
                        if answers.send(response).is_err() {
                            return;
                        }
                    }
                    Err(error) => self.world.fault(format!("a watch answer can't be decoded: {error}")),
                }
            }
        }
    }
}

/// A gRPC message, once all of it is there.
fn next_message(bytes: &mut BytesMut) -> Option<Bytes> {
    let len = u32::from_be_bytes(bytes.get(1..5)?.try_into().ok()?) as usize;
    if bytes.len() < 5 + len {
        return None;
    }
    bytes.advance(5);
    Some(bytes.split_to(len).freeze())
}

/// What a refusal means: only these leave it open whether the call has been or will be done.
fn outcome(result: Result<Answer, RequestError>) -> Outcome {
    match result {
        Ok(answer) => Outcome::Ok(answer),
        Err(
            error @ (RequestError::Timeout
            | RequestError::TimeoutLeaderFailure
            | RequestError::TimeoutConnectionLost
            | RequestError::DeadlineExceeded
            | RequestError::Stopped
            | RequestError::LeaderChanged
            | RequestError::Storage(_)),
        ) => Outcome::Unknown(error.to_string()),
        Err(error) => Outcome::Failed(error.to_string()),
    }
}
