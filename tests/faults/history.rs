//! What happened, as watches tell it: the one that follows all the time (`followed`), and one that asks for the past.

#[allow(dead_code, reason = "some of it is for tests/cluster_faults")]
#[path = "../support/history.rs"]
mod followed;

use std::time::Duration;

use tokio::time::timeout;
use tonic::Status;
use tonic::transport::Channel;

pub(crate) use followed::{Change, History, replay};
use followed::{Watch, all};

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// The compaction revision, as a watch on the distant past is told; 0 if there is none.
pub(crate) async fn compact_revision(channel: &Channel) -> i64 {
    let mut watch = Watch::open(channel, &all(), 1).await.unwrap();
    loop {
        let answer = timeout(ANSWER_MAX, watch.next()).await.expect("an answer in time").unwrap();
        if answer.canceled {
            return answer.compact_revision;
        }
        if !answer.created {
            return 0;
        }
    }
}

/// Whether all changes from the compaction on up to `to` can be told. False if the server ends meanwhile.
pub(crate) async fn can_be_told(channel: &Channel, to: i64) -> bool {
    let told = async {
        let mut from = 2;
        while from <= to {
            let mut watch = Watch::open(channel, &all(), from).await?;
            loop {
                let answer = watch.next().await?;
                if answer.canceled && answer.compact_revision < from {
                    return Err(Status::data_loss(answer.cancel_reason));
                }
                if answer.canceled {
                    from = answer.compact_revision + 1;
                    break;
                }
                if answer.events.last().and_then(|event| event.kv.as_ref()).is_some_and(|kv| kv.mod_revision >= to) {
                    return Ok(());
                }
            }
        }
        Ok::<_, Status>(())
    };
    timeout(ANSWER_MAX, told).await.expect("events in time").is_ok()
}

/// All changes of the revisions `from..=to`, by a watch of its own.
pub(crate) async fn between(channel: &Channel, from: i64, to: i64) -> Vec<Change> {
    let mut found = Vec::new();
    if from > to {
        return found;
    }
    let mut watch = Watch::open(channel, &all(), from).await.unwrap();
    loop {
        let answer = timeout(ANSWER_MAX, watch.next()).await.expect("events in time").unwrap();
        assert!(!answer.canceled, "a watch from {from} was cancelled: {}", answer.cancel_reason);
        found.extend(answer.events.into_iter().map(Change::of));
        if found.last().is_some_and(|last: &Change| last.revision >= to) {
            found.retain(|change| change.revision <= to);
            return found;
        }
    }
}
