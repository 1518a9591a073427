//! Range, and where a read runs: on the task that asks if all of it is in memory and it is small,
//! else on a thread that may wait for the disk, a few large ones at a time.

use std::sync::Arc;

use rusd_proto::etcdserverpb as pb;
use tonic::Status;

use crate::api::grpc::body::ReplyBody;
use crate::api::reply::RangeReply;
use crate::api::services::Services;
use crate::api::{convert, errors};
use crate::storage::{Disk, RangeQuery, ReadError, Snapshot, SortOrder, SortTarget};
use crate::types::RequestError;

/// Pairs from which a read is large: it would keep other calls of its thread waiting.
const LARGE_KEYS: i64 = 1_000;

/// `Range`.
pub(crate) async fn range(services: Arc<Services>, request: pb::RangeRequest) -> Result<ReplyBody, Status> {
    let serializable = request.serializable;
    if !serializable && services.proposer.standing().is_learner {
        return Err(errors::learner());
    }
    let query = convert::range(request).map_err(|error| errors::status(&error))?;
    let reply = read_range(&services, query, serializable).await.map_err(|error| errors::status(&error))?;
    ReplyBody::range(reply, &services.budgets.answers)
}

/// One range read, with its header.
pub(crate) async fn read_range(
    services: &Services,
    query: RangeQuery,
    serializable: bool,
) -> Result<RangeReply, RequestError> {
    barrier(services, serializable).await?;
    let scoped = if query.range.is_single() {
        // Most reads end here, and need no snapshot that outlives the look.
        match services.reader.range(&query, Disk::Never) {
            Ok(scoped) => scoped,
            Err(ReadError::Request(error)) => return Err(error),
            Err(ReadError::NeedsDisk) => {
                let reader = services.reader.clone();
                blocking(move || reader.range(&query, Disk::Allowed)).await?
            }
        }
    } else {
        let snapshot = services.reader.snapshot();
        let large = is_large(&snapshot, &query);
        run(services, snapshot, large, move |snapshot, disk| snapshot.range(&query, disk)).await?
    };
    Ok(RangeReply { header: Some(services.header(scoped.revision)), result: scoped.value })
}

/// Waits until a read of the published state is linearizable, unless nobody asked for that.
pub(crate) async fn barrier(services: &Services, serializable: bool) -> Result<(), RequestError> {
    if serializable {
        return Ok(());
    }
    match services.proposer.read_barrier() {
        None => Ok(()),
        Some(wait) => wait.await,
    }
}

/// Runs `read` on `snapshot` here, or where it may block, then on what is published by then.
pub(crate) async fn run<T, F>(services: &Services, snapshot: Snapshot, large: bool, read: F) -> Result<T, RequestError>
where
    T: Send + 'static,
    F: Fn(&Snapshot, Disk) -> Result<T, ReadError> + Send + 'static,
{
    let permit = if large {
        drop(snapshot);
        Some(services.large_reads.clone().acquire_owned().await.map_err(|_| RequestError::Stopped)?)
    } else {
        match read(&snapshot, Disk::Never) {
            Err(ReadError::NeedsDisk) => None,
            Err(ReadError::Request(error)) => return Err(error),
            Ok(value) => return Ok(value),
        }
    };
    let reader = services.reader.clone();
    blocking(move || {
        let _permit = permit;
        read(&reader.snapshot(), Disk::Allowed)
    })
    .await
}

/// Runs a read on a thread that may wait for the disk.
pub(crate) async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, RequestError> {
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(ReadError::Request(error))) => Err(error),
        Ok(Err(ReadError::NeedsDisk)) => {
            Err(RequestError::Storage("a read that may use the disk was told that it may not".into()))
        }
        Err(error) => Err(RequestError::Storage(format!("a read ended early: {error}"))),
    }
}

/// Whether `query` may touch so many pairs that it shouldn't run on an async thread.
pub(crate) fn is_large(snapshot: &Snapshot, query: &RangeQuery) -> bool {
    if query.range.is_single() || (query.count_only && query.revision <= 0) {
        return false;
    }
    let touches_all = query.order != SortOrder::None
        || query.target != SortTarget::Key
        || query.min_mod_revision != 0
        || query.max_mod_revision != 0
        || query.min_create_revision != 0
        || query.max_create_revision != 0;
    let limited = query.limit > 0 && query.limit <= LARGE_KEYS && !touches_all;
    !limited && snapshot.count(&query.range) > LARGE_KEYS
}
