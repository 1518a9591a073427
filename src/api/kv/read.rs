//! Range, and where a read runs: on the task that asks if all of it is in memory and it is small,
//! else on a thread that may wait for the disk, a few large ones at a time.

use rusd_proto::etcdserverpb as pb;
use tokio::sync::Semaphore;
use tonic::Status;

use super::meter::Meter;
use crate::api::auth::CallContext;
use crate::api::grpc::body::ReplyBody;
use crate::api::reply::RangeReply;
use crate::api::services::Services;
use crate::api::{convert, errors};
use crate::storage::{Disk, RangeQuery, ReadError, Snapshot, SortOrder, SortTarget, StoreReader};
use crate::types::stages::{self, Stage};
use crate::types::{Held, RequestError};

/// Pairs from which a read is large: it would keep other calls of its thread waiting.
const LARGE_KEYS: i64 = 1_000;

/// Reads of what is published that a compaction may spoil, before one that holds compaction off.
const TRIES_UNPINNED: usize = 2;

/// Reads that are on the threads that may wait at a time, of which the runtime has 512: a disk may keep each for a minute,
/// and logins and new certificates need some of them, too.
const BLOCKING_MAX: usize = 256;
static BLOCKING: Semaphore = Semaphore::const_new(BLOCKING_MAX);

/// `Range`.
pub(crate) async fn range(call: CallContext, request: pb::RangeRequest) -> Result<ReplyBody, Status> {
    let serializable = request.serializable;
    if !serializable && call.proposer.standing().is_learner {
        return Err(errors::learner());
    }
    let query = convert::range(request).map_err(|error| errors::status(&error))?;
    let (reply, held) = read_range(&call, query, serializable).await.map_err(|error| errors::status(&error))?;
    ReplyBody::range(reply, held, &call.budgets.answers)
}

/// One range read that its caller may do, with its header, and what it holds in memory if that is much.
pub(crate) async fn read_range(
    call: &CallContext,
    query: RangeQuery,
    serializable: bool,
) -> Result<(RangeReply, Option<Held>), RequestError> {
    barrier(call, serializable).await?;
    let range = query.range.clone();
    call.permitted(|access| access.read(&range), read_published(call, query)).await
}

/// The same for this server itself, which asks for nobody and gives the answer to nobody.
pub(crate) async fn read_own(services: &Services, query: RangeQuery, serializable: bool) -> Result<(), RequestError> {
    barrier(services, serializable).await?;
    read_published(services, query).await.map(drop)
}

/// One range read of what is published, with its header, and what it holds in memory if that is much.
pub(super) async fn read_published(
    services: &Services,
    query: RangeQuery,
) -> Result<(RangeReply, Option<Held>), RequestError> {
    let (scoped, held) = if query.range.is_single() {
        // Most reads end here, and need no snapshot that outlives the look.
        match services.reader.range(&query, Disk::Never) {
            Ok(scoped) => (scoped, None),
            Err(ReadError::Request(error)) => return Err(error),
            Err(ReadError::NeedsDisk) => {
                let reader = services.reader.clone();
                let read = move || settled(&reader, |snapshot| snapshot.range(&query, Disk::Allowed));
                (timed(services, Stage::Read, blocking(read)).await?, None)
            }
        }
    } else {
        let snapshot = services.reader.snapshot();
        let large = is_large(&snapshot, &query);
        let read = move |snapshot: &Snapshot, disk, meter: &mut Meter| {
            snapshot.range_gathered(&query, disk, |bytes| meter.add(bytes))
        };
        run(services, snapshot, large, read).await?
    };
    Ok((RangeReply { header: Some(services.header(scoped.revision)), result: scoped.value }, held))
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

/// The same for a read that etcd gets through the log: where no leader is there to take it, its time is over as a
/// write's is.
pub(crate) async fn barrier_as_logged(services: &Services) -> Result<(), RequestError> {
    let had_leader = services.proposer.standing().leader.is_some();
    match barrier(services, false).await {
        Err(error) if !had_leader => Err(if_leaderless(services, error, RequestError::DeadlineExceeded)),
        waited => waited,
    }
}

/// `error`, or `leaderless` in the place of a time that is over without a leader.
pub(crate) fn if_leaderless(services: &Services, error: RequestError, leaderless: RequestError) -> RequestError {
    match error {
        RequestError::Timeout if services.proposer.standing().leader.is_none() => leaderless,
        error => error,
    }
}

/// Runs `read` on `snapshot` here, or where it may block, then on what is published by then; with what the
/// result holds in memory if that is much.
pub(crate) async fn run<T, F>(
    services: &Services,
    snapshot: Snapshot,
    mut large: bool,
    read: F,
) -> Result<(T, Option<Held>), RequestError>
where
    T: Send + 'static,
    F: Fn(&Snapshot, Disk, &mut Meter) -> Result<T, ReadError> + Send + 'static,
{
    if !large {
        let mut meter = Meter::new(&services.budgets.answers, Disk::Never);
        match read(&snapshot, Disk::Never, &mut meter) {
            Err(ReadError::NeedsDisk) => large = meter.is_large(),
            Err(ReadError::Request(error)) => return Err(error),
            Ok(value) => return Ok((value, None)),
        }
    }
    drop(snapshot);
    let permit = match large {
        true => {
            let turn = services.large_reads.clone().acquire_owned();
            Some(timed(services, Stage::Turn, turn).await.map_err(|_| RequestError::Stopped)?)
        }
        false => None,
    };
    let (reader, budget) = (services.reader.clone(), services.budgets.answers.clone());
    let read = blocking(move || {
        let _permit = permit;
        settled(&reader, |snapshot| {
            let mut meter = Meter::new(&budget, Disk::Allowed);
            let value = read(snapshot, Disk::Allowed, &mut meter)?;
            Ok((value, meter.finish()))
        })
    });
    timed(services, Stage::Read, read).await
}

/// `wait`, with the call told how long it was.
async fn timed<T>(services: &Services, stage: Stage, wait: impl Future<Output = T>) -> T {
    let since = services.env.clock.now();
    let done = wait.await;
    stages::note(stage, since, services.env.clock.now());
    done
}

/// Reads what is published; again if a compaction passed it meanwhile, since the latest state is
/// never compacted, and at last where none can.
fn settled<T>(reader: &StoreReader, read: impl Fn(&Snapshot) -> Result<T, ReadError>) -> Result<T, ReadError> {
    for _ in 0..TRIES_UNPINNED {
        match read(&reader.snapshot()) {
            Err(ReadError::Request(RequestError::Compacted)) => {}
            other => return other,
        }
    }
    read(&reader.snapshot_pinned())
}

/// Runs a read on a thread that may wait for the disk.
pub(crate) async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, RequestError> {
    blocking_in(&BLOCKING, read).await
}

/// The same for what has turns of its own, since it waits for as long as the disk is full.
pub(crate) async fn blocking_in<T: Send + 'static>(
    turns: &'static Semaphore,
    read: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, RequestError> {
    let turn = turns.acquire().await.map_err(|_| RequestError::Stopped)?;
    // It goes with the read: a caller that gives up makes no room for another while the read goes on.
    let read = move || {
        let _turn = turn;
        read()
    };
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
    if query.revision > 0 && query.revision != snapshot.revision() {
        // An older state has no counts: its keys are walked to their end, whatever the limit.
        return snapshot.count_kept(&query.range) > LARGE_KEYS;
    }
    let limited = query.limit > 0 && query.limit <= LARGE_KEYS && !touches_all;
    !limited && snapshot.count(&query.range) > LARGE_KEYS
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::RwLock;

    use super::*;
    use crate::storage::{AppliedPosition, Store};
    use crate::types::{KeyRange, LeaseId};

    #[test]
    fn the_latest_state_is_read_again_when_a_compaction_passes_it() {
        let store = Store::in_memory();
        for compactions in 0..=TRIES_UNPINNED {
            let tries = std::cell::Cell::new(0);
            let read = |_: &Snapshot| {
                tries.set(tries.get() + 1);
                if tries.get() <= compactions { Err(RequestError::Compacted.into()) } else { Ok(7) }
            };
            assert_eq!(settled(&store.reader(), read), Ok(7));
        }
        let old = |_: &Snapshot| Err::<(), _>(RequestError::Compacted.into());
        assert_eq!(settled(&store.reader(), old), Err(RequestError::Compacted.into()), "an old revision stays one");
        let failed = ReadError::Request(RequestError::Storage("disk".into()));
        assert_eq!(settled(&store.reader(), |_| Err::<(), _>(failed.clone())), Err(failed));
    }

    // Cause: while an engine is opened again each read that memory misses waits on a thread. Symptom: no thread was left, and
    // a login hung as long.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[expect(clippy::await_holding_lock, reason = "the reads are to wait for it while others go on")]
    async fn reads_that_wait_leave_threads_for_others() {
        let gate = Arc::new(RwLock::new(()));
        let shut = gate.write();
        let reads: Vec<_> = (0..600)
            .map(|_| {
                let gate = gate.clone();
                tokio::spawn(blocking(move || {
                    drop(gate.read());
                    Ok(())
                }))
            })
            .collect();
        while BLOCKING.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        drop(shut);
        for read in reads {
            assert_eq!(read.await.unwrap(), Ok(()));
        }
    }

    #[test]
    fn a_read_that_walks_many_keys_is_large_whatever_its_limit() {
        let mut store = Store::in_memory();
        let mut each = |delete: bool| {
            for key in 0..2_000 {
                let mut txn = store.begin();
                let key = KeyRange::single(format!("{key:04}"));
                match delete {
                    true => drop(txn.delete(&key)),
                    false => drop(txn.put(key.start, "v".into(), LeaseId::NONE)),
                }
                txn.commit();
            }
            store.publish(AppliedPosition::default()).unwrap();
            store.reader().snapshot()
        };
        let all = |limit, revision| RangeQuery { limit, revision, ..RangeQuery::latest(KeyRange::all()) };
        let snapshot = each(false);
        assert!(is_large(&snapshot, &all(0, 0)));
        assert!(!is_large(&snapshot, &all(10, 0)));
        assert!(!is_large(&snapshot, &all(10, snapshot.revision())));
        assert!(is_large(&snapshot, &all(10, 1_500)), "the rest is counted");
        let few = RangeQuery { range: KeyRange::from_wire("0".into(), "01".into()), ..all(0, 1_500) };
        assert!(!is_large(&snapshot, &few));
        let snapshot = each(true);
        assert!(!is_large(&snapshot, &all(0, 0)));
        assert!(is_large(&snapshot, &all(10, 1_500)), "what is deleted now was there then");
    }
}
