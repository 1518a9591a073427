//! Observe: what the leader says, and after it what the next one says.
//!
//! ```text
//! follow the prefix ─► who leads now? ─► for each revision in it: the leader's pair as of then ─► client
//!                                         └─ gone: the oldest as of then
//! ```

use bytes::Bytes;
use http_body::Frame;
use http_body_util::StreamBody as FrameStream;
use rusd_proto::v3electionpb as pb;
use tonic::Status;

use super::room::Names;
use super::{oldest, prefix, unknown};
use crate::api::auth::CallContext;
use crate::api::convert;
use crate::api::grpc::body::{BodyError, framed_within, trailers_of};
use crate::api::grpc::service::StreamBody;
use crate::api::kv;
use crate::api::reply::Prost;
use crate::storage::RangeQuery;
use crate::types::{KeyRange, KeyValue, RequestError};
use crate::watch::{Follow, News};

/// `Observe`.
pub(crate) async fn observe(call: CallContext, request: pb::LeaderRequest) -> Result<StreamBody, Status> {
    let names = Names::take(&call.budgets.names, request.name.len()).map_err(|error| unknown(&error))?;
    let range = KeyRange::prefix(prefix(&request.name));
    let follow = Follow::open(call.watch.hub(), range.clone(), call.needs_leader());
    let observer = Observer { call, names, range, follow, leader: None, seen: 0, to_look_at: vec![0], told_end: false };
    let frames = futures::stream::unfold(observer, |mut observer| async move {
        if observer.told_end {
            return None;
        }
        let frame = match observer.next().await {
            Ok(message) => Frame::data(message),
            Err(status) => {
                observer.told_end = true;
                Frame::trailers(trailers_of(&status))
            }
        };
        Some((Ok::<_, BodyError>(frame), observer))
    });
    Ok(Box::pin(FrameStream::new(frames)))
}

struct Observer {
    call: CallContext,
    names: Names,
    range: KeyRange,
    follow: Follow,
    /// The leader's key and when it was created.
    leader: Option<(Bytes, i64)>,
    /// What was looked at up to here.
    seen: i64,
    /// Revisions still to look at, the next one last; 0 is the newest.
    to_look_at: Vec<i64>,
    told_end: bool,
}

impl Observer {
    /// The next message for the client, framed.
    async fn next(&mut self) -> Result<Bytes, Status> {
        loop {
            while let Some(at) = self.to_look_at.pop() {
                if at != 0 && at <= self.seen {
                    continue;
                }
                if let Some((kv, revision)) = self.look(at).await? {
                    let header = self.call.message_header(revision);
                    let news = Prost(pb::LeaderResponse { header, kv: Some(convert::key_value(kv)) });
                    let framed = framed_within(&news, None, &self.call.budgets.answers);
                    return framed.map_err(|error| unknown(&error));
                }
            }
            self.to_look_at = match self.follow.next().await {
                Ok(News::At(mut revisions)) => {
                    revisions.reverse();
                    revisions
                }
                Ok(News::Lost) => vec![0],
                Err(end) => return Err(Status::new(tonic::Code::from_i32(end.code), end.message)),
            };
        }
    }

    /// What the leader says as of `at` if it said it since `seen`, with the revision for the header.
    async fn look(&mut self, at: i64) -> Result<Option<(KeyValue, i64)>, Status> {
        let before = self.seen;
        if let Some((key, created)) = self.leader.clone() {
            let (found, revision) = self.read(RangeQuery::latest(KeyRange::single(key)), at).await?;
            if let Some(kv) = found.filter(|kv| kv.create_revision == created) {
                self.seen = revision;
                return Ok((kv.mod_revision > before).then_some((kv, revision)));
            }
        }
        let (found, revision) = self.read(oldest(self.range.clone()), at).await?;
        self.seen = revision;
        self.names.for_key(found.as_ref().map_or(0, |kv| kv.key.len())).map_err(|error| unknown(&error))?;
        // A part of its record might keep all of it.
        self.leader = found.as_ref().map(|kv| (Bytes::copy_from_slice(&kv.key), kv.create_revision));
        Ok(found.map(|kv| (kv, revision)))
    }

    /// The first pair of a read as of `at`, and as of which revision it is: of the newest if that one is compacted.
    async fn read(&self, query: RangeQuery, at: i64) -> Result<(Option<KeyValue>, i64), Status> {
        let of = |revision| RangeQuery { revision, ..query.clone() };
        // The first look has to be at all that was acknowledged; later ones are at what was told of.
        let reply = match kv::read_range(&self.call, of(at), at != 0).await {
            Err(RequestError::Compacted) => kv::read_range(&self.call, of(0), false).await.map(|reply| (reply, 0)),
            reply => reply.map(|reply| (reply, at)),
        };
        let ((reply, _), at) = reply.map_err(|error| unknown(&error))?;
        let now = reply.header.map_or(0, |header| header.revision);
        Ok((reply.result.kvs.into_iter().next(), if at == 0 { now } else { at }))
    }
}
