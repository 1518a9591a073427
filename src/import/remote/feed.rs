//! The source's changes, revision for revision.
//!
//! ```text
//! watch of all keys from a revision ─► answers, joined where one was cut in pieces ─► changes in their order
//! ```
//! An answer holds whole revisions: etcd cuts one only into pieces that say so.

use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::watch_client::WatchClient;
use rusd_proto::etcdserverpb::watch_request::RequestUnion;
use rusd_proto::mvccpb;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{Remote, RemoteError};
use crate::types::KeyValue;
use crate::types::LeaseId;

/// The most bytes of one answer's pieces: a revision changes as many keys as a transaction has operations, or as
/// a range has that is deleted.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// One change at the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The pair afterwards; of a deletion only key and revision.
    pub kv: KeyValue,
    /// Whether the key was deleted.
    pub is_delete: bool,
}

/// A watch of all keys.
#[derive(Debug)]
pub struct Feed {
    answers: Streaming<pb::WatchResponse>,
    /// Dropped, the watch would end.
    _requests: mpsc::Sender<pb::WatchRequest>,
}

impl Remote {
    /// All changes from `revision` on.
    ///
    /// # Errors
    /// The source's.
    pub async fn feed(&self, revision: i64) -> Result<Feed, RemoteError> {
        let (requests, outgoing) = mpsc::channel(1);
        let create = pb::WatchCreateRequest {
            key: vec![0].into(),
            range_end: vec![0].into(),
            start_revision: revision,
            fragment: true,
            ..Default::default()
        };
        let create = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        requests.send(create).await.map_err(|_| RemoteError::unreachable("the stream ended at once"))?;
        let request = self.request(ReceiverStream::new(outgoing)).await?;
        let mut client = WatchClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
        let answers = client.watch(request).await?.into_inner();
        Ok(Feed { answers, _requests: requests })
    }
}

impl Feed {
    /// The next changes, whole revisions of them, and the source's revision; none at all where it only said hello.
    ///
    /// # Errors
    /// The source's; `Compacted` if the history from where the watch stood is gone.
    pub async fn next(&mut self) -> Result<(Vec<Change>, i64), RemoteError> {
        let mut changes = Vec::new();
        let mut bytes = 0;
        loop {
            let answer = self.answers.message().await?.ok_or_else(|| RemoteError::unreachable("the watch ended"))?;
            if answer.compact_revision > 0 {
                return Err(RemoteError::Compacted(answer.compact_revision));
            }
            if answer.canceled {
                return Err(RemoteError::Refused(answer.cancel_reason));
            }
            for event in answer.events {
                let change = change(event)?;
                bytes += change.kv.key.len() + change.kv.value.len();
                changes.push(change);
            }
            if bytes > ANSWER_BYTES_MAX {
                return Err(RemoteError::odd("a revision of more than a gibibyte"));
            }
            if !answer.fragment {
                return Ok((changes, answer.header.map_or(0, |header| header.revision)));
            }
        }
    }
}

fn change(event: mvccpb::Event) -> Result<Change, RemoteError> {
    let is_delete = match event.r#type {
        0 => false,
        1 => true,
        other => return Err(RemoteError::odd(format!("an event of kind {other}"))),
    };
    let kv = event.kv.ok_or_else(|| RemoteError::odd("an event without a key"))?;
    let kv = KeyValue {
        key: kv.key,
        value: kv.value,
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        lease: LeaseId(kv.lease),
    };
    if kv.key.is_empty() {
        return Err(RemoteError::odd("an event of an empty key"));
    }
    Ok(Change { kv, is_delete })
}
