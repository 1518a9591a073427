//! RangeStream: a range in chunks, all of one revision, each read when the client has room for it.
//!
//! ```text
//! 10 keys ─► 20 ─► 40 … doubled while a chunk is small; cut behind the pair that makes it as large as a request may be;
//! header, count and more come in the last one
//! ```
//! What a chunk gathers is held against what clients may leave unread while it is gathered, as of any other read.
//!
//! An answer in an order other than the keys' must be known as a whole before it can be sorted: it is one chunk, the
//! same that Range gives. (etcd sorts each chunk by itself, and goes on behind the last key of that, so that it loses
//! keys.)
//!
//! The snapshot of the start is held for a short time only, so that a client that doesn't read
//! can't keep old state alive; after that the chunks are read at the pinned revision, and a
//! compaction past it ends the stream.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;
use http_body_util::StreamBody as FrameStream;
use rusd_proto::etcdserverpb as pb;
use tokio::time::Instant;
use tonic::Status;

use super::meter::Meter;
use super::read;
use crate::api::auth::CallContext;
use crate::api::grpc::body::{BodyError, framed_within, ok_trailers};
use crate::api::grpc::service::StreamBody;
use crate::api::reply::{RangeReply, Reply};
use crate::api::services::Services;
use crate::api::wire::{Header, nested_len, put_nested};
use crate::api::{convert, errors};
use crate::auth::Access;
use crate::storage::{Disk, RangeQuery, RangeResult, ReadError, Snapshot, SortOrder, SortTarget};
use crate::types::{Held, KeyRange, RequestError};

/// Keys of the first chunk.
const FIRST_KEYS: i64 = 10;

/// The most keys of a chunk.
const KEYS_MAX: i64 = 64 * 1024;

/// Keys from which a chunk is read on a thread of its own.
const INLINE_KEYS_MAX: i64 = 1_000;

/// How often a stream begins anew before its first chunk, when compactions pass it.
const FRESH_TRIES: usize = 3;

/// How long the snapshot of the start is held.
const SNAPSHOT_HELD_MAX: Duration = Duration::from_secs(5);

/// `RangeStream`.
pub(crate) async fn range_stream(call: CallContext, request: pb::RangeRequest) -> Result<StreamBody, Status> {
    let serializable = request.serializable;
    let query = convert::range(request).map_err(|error| errors::status(&error))?;
    let natural =
        query.order == SortOrder::None || (query.order == SortOrder::Ascend && query.target == SortTarget::Key);
    if !natural {
        return Err(Status::unimplemented("RangeStream does not support custom sort orders"));
    }
    if [query.min_mod_revision, query.max_mod_revision, query.min_create_revision, query.max_create_revision] != [0; 4]
    {
        return Err(Status::unimplemented("RangeStream does not support revision filters"));
    }
    let query = RangeQuery { order: SortOrder::None, ..query };
    read::barrier(&call, serializable).await.map_err(|error| errors::status(&error))?;
    let may_read = |access: Access<'_>| access.read(&query.range);
    let permit = call.permit(may_read).map_err(|error| errors::status(&error))?;

    if query.target != SortTarget::Key {
        let (reply, held) = read::read_published(&call, query.clone()).await.map_err(|error| errors::status(&error))?;
        call.still(&permit, may_read).map_err(|error| errors::status(&error))?;
        let only = framed_within(&StreamReply(reply), held, &call.budgets.answers);
        let only = only.map_err(|error| errors::status(&error))?;
        let frames = [Frame::data(only), Frame::trailers(ok_trailers())].map(Ok::<_, BodyError>);
        return Ok(Box::pin(FrameStream::new(futures::stream::iter(frames))));
    }

    // The first chunk is read before the headers go out, so that a refusal is a plain one. The latest state is
    // never compacted: if a compaction passes it meanwhile, a newer one is read.
    let mut chunks = Chunks::new(call.services().clone(), query.clone());
    let mut first = chunks.next_chunk().await;
    for _ in 0..FRESH_TRIES {
        if query.revision <= 0 && first == Err(RequestError::Compacted) {
            chunks = Chunks::new(call.services().clone(), query.clone());
            first = chunks.next_chunk().await;
        }
    }
    let first = first.map_err(|error| errors::status(&error))?;
    // What comes after it is of the same revision.
    call.still(&permit, may_read).map_err(|error| errors::status(&error))?;
    let frames = futures::stream::unfold((chunks, Some(first)), |(mut chunks, first)| async move {
        let frame = match first {
            Some(first) => Frame::data(first),
            None => chunks.next_frame().await?,
        };
        Some((Ok::<_, BodyError>(frame), (chunks, None)))
    });
    Ok(Box::pin(FrameStream::new(frames)))
}

#[derive(PartialEq, Eq)]
enum Stage {
    Chunks,
    Trailers,
    Done,
}

struct Chunks {
    services: Arc<Services>,
    query: RangeQuery,
    header: Header,
    pinned: i64,
    held: Option<(Arc<Snapshot>, Instant)>,
    remaining: i64,
    chunk_keys: i64,
    count: Option<i64>,
    stage: Stage,
}

impl Chunks {
    /// On what is published now.
    fn new(services: Arc<Services>, query: RangeQuery) -> Self {
        let snapshot = Arc::new(services.reader.snapshot());
        Self {
            header: services.header(snapshot.revision()),
            pinned: if query.revision > 0 { query.revision } else { snapshot.revision() },
            held: Some((snapshot, Instant::now())),
            remaining: if query.limit > 0 { query.limit } else { i64::MAX },
            chunk_keys: FIRST_KEYS,
            count: None,
            stage: Stage::Chunks,
            query,
            services,
        }
    }

    async fn next_frame(&mut self) -> Option<Frame<Bytes>> {
        match self.stage {
            Stage::Chunks => match self.next_chunk().await {
                Ok(chunk) => Some(Frame::data(chunk)),
                Err(error) => {
                    self.stage = Stage::Done;
                    let mut trailers = HeaderMap::new();
                    // It fails only for metadata, of which there is none.
                    let _ = errors::status(&error).add_header(&mut trailers);
                    Some(Frame::trailers(trailers))
                }
            },
            Stage::Trailers => {
                self.stage = Stage::Done;
                Some(Frame::trailers(ok_trailers()))
            }
            Stage::Done => None,
        }
    }

    async fn next_chunk(&mut self) -> Result<Bytes, RequestError> {
        self.query.limit = self.chunk_keys.min(self.remaining);
        let (mut result, held) = self.read_chunk().await?;
        self.resize(&result);
        let count = *self.count.get_or_insert(result.count);
        self.remaining -= result.kvs.len() as i64;
        let last = !result.more || self.remaining <= 0;
        if last {
            self.stage = Stage::Trailers;
            self.held = None;
            result.count = count;
        } else {
            result.count = 0;
            result.more = false;
            if let Some(kv) = result.kvs.last() {
                self.query.range = after(&self.query.range, &kv.key);
            }
        }
        let reply = StreamReply(RangeReply { header: last.then_some(self.header), result });
        framed_within(&reply, held, &self.services.budgets.answers)
    }

    /// How many keys the next chunk has at most.
    fn resize(&mut self, last: &RangeResult) {
        let max = self.services.limits.request_bytes_max;
        let bytes: usize = last.kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum();
        if bytes >= max {
            self.chunk_keys = last.kvs.len() as i64;
        } else if bytes < max / 2 {
            self.chunk_keys = (self.chunk_keys * 2).min(KEYS_MAX);
        }
    }

    async fn read_chunk(&mut self) -> Result<(RangeResult, Option<Held>), RequestError> {
        if self.held.as_ref().is_some_and(|(_, since)| since.elapsed() > SNAPSHOT_HELD_MAX) {
            self.held = None;
            self.query.revision = self.pinned;
        }
        let snapshot = match &self.held {
            Some((snapshot, _)) => snapshot.clone(),
            None => Arc::new(self.services.reader.snapshot()),
        };
        let result = self.read_from(snapshot).await;
        // The held snapshot doesn't know of later compactions, which may have taken its values away.
        if self.services.reader.compact_revision() > self.pinned {
            return Err(RequestError::Compacted);
        }
        result
    }

    /// The first chunk brings the count, which is the same for all.
    async fn read_from(&self, snapshot: Arc<Snapshot>) -> Result<(RangeResult, Option<Held>), RequestError> {
        let counts = self.count.is_none();
        let max = self.services.limits.request_bytes_max;
        let budget = self.services.budgets.answers.clone();
        let read = move |snapshot: &Snapshot, query: &RangeQuery, disk| {
            let mut meter = Meter::new(&budget, disk);
            let result = snapshot.range_chunk(query, counts, disk, |bytes| {
                meter.add(bytes)?;
                Ok(meter.total() < max)
            })?;
            Ok::<_, ReadError>((result, meter.finish()))
        };
        if self.query.limit <= INLINE_KEYS_MAX && !(counts && read::is_large(&snapshot, &self.query)) {
            match read(&snapshot, &self.query, Disk::Never) {
                Err(ReadError::NeedsDisk) => {}
                Err(ReadError::Request(error)) => return Err(error),
                Ok(result) => return Ok(result),
            }
        }
        let query = self.query.clone();
        read::blocking(move || read(&snapshot, &query, Disk::Allowed)).await
    }
}

/// What is left of `range` behind `key`.
fn after(range: &KeyRange, key: &[u8]) -> KeyRange {
    let mut start = BytesMut::with_capacity(key.len() + 1);
    start.extend_from_slice(key);
    start.extend_from_slice(&[0]);
    KeyRange { start: start.freeze(), end: range.end.clone() }
}

/// `RangeStreamResponse`: a range response in a message around it.
struct StreamReply(RangeReply);

impl Reply for StreamReply {
    fn encoded_len(&self) -> usize {
        nested_len(self.0.encoded_len())
    }

    fn write(&self, out: &mut BytesMut) {
        put_nested(out, 1, self.0.encoded_len());
        self.0.write(out);
    }
}
