//! The source's changes, revision for revision.
//!
//! ```text
//! watch of all keys from a revision ─► answers, joined where one was cut in pieces ─► changes in their order
//! ```
//! An answer holds whole revisions: etcd cuts one only into pieces that say so.

use futures::{Stream, StreamExt as _};
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::watch_client::WatchClient;
use rusd_proto::etcdserverpb::watch_request::RequestUnion;
use rusd_proto::mvccpb;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::AsciiMetadataValue;
use tonic::{Status, Streaming};

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
pub struct Feed<S = Streaming<pb::WatchResponse>> {
    answers: S,
    /// The pieces so far of an answer that was cut; here, as whoever waits for the rest may stop waiting.
    pieces: Vec<Change>,
    pieces_bytes: usize,
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
        let mut request = self.request(ReceiverStream::new(outgoing)).await?;
        // A member that has lost its cluster ends the watch then, instead of staying silent.
        request.metadata_mut().insert("hasleader", AsciiMetadataValue::from_static("true"));
        let mut client = WatchClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
        let answers = client.watch(request).await?.into_inner();
        Ok(Feed { answers, pieces: Vec::new(), pieces_bytes: 0, _requests: requests })
    }
}

impl<S: Stream<Item = Result<pb::WatchResponse, Status>> + Unpin> Feed<S> {
    /// The next changes, whole revisions of them, and the source's revision; none at all where it only said hello.
    /// Loses nothing if it is dropped before it is done. After an error the feed is of no use any more.
    ///
    /// # Errors
    /// The source's; `Compacted` if the history from where the watch stood is gone.
    pub async fn next(&mut self) -> Result<(Vec<Change>, i64), RemoteError> {
        loop {
            let answer = self.answers.next().await.ok_or_else(|| RemoteError::unreachable("the watch ended"))??;
            if answer.compact_revision > 0 {
                return Err(RemoteError::Compacted(answer.compact_revision));
            }
            if answer.canceled {
                return Err(RemoteError::canceled(answer.cancel_reason));
            }
            for event in answer.events {
                let change = change(event)?;
                self.pieces_bytes += change.kv.key.len() + change.kv.value.len();
                self.pieces.push(change);
            }
            if self.pieces_bytes > ANSWER_BYTES_MAX {
                return Err(RemoteError::odd("a revision of more than a gibibyte"));
            }
            if !answer.fragment {
                self.pieces_bytes = 0;
                return Ok((std::mem::take(&mut self.pieces), answer.header.map_or(0, |header| header.revision)));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(keys: &[&'static str], fragment: bool) -> Result<pb::WatchResponse, Status> {
        let event = |key: &&'static str| mvccpb::Event {
            kv: Some(mvccpb::KeyValue { key: (*key).into(), mod_revision: 7, ..Default::default() }),
            ..Default::default()
        };
        let header = Some(pb::ResponseHeader { revision: 9, ..Default::default() });
        Ok(pb::WatchResponse { header, fragment, events: keys.iter().map(event).collect(), ..Default::default() })
    }

    #[tokio::test]
    async fn who_stops_waiting_between_two_pieces_loses_none() {
        use futures::FutureExt as _;
        let (send, answers) = mpsc::channel(8);
        let (requests, _) = mpsc::channel(1);
        let answers = ReceiverStream::new(answers);
        let mut feed = Feed { answers, pieces: Vec::new(), pieces_bytes: 0, _requests: requests };
        for piece in [&["a", "b"][..], &["c"]] {
            send.send(answer(piece, true)).await.unwrap();
            assert!(feed.next().now_or_never().is_none(), "the answer isn't whole");
        }
        send.send(answer(&["d"], false)).await.unwrap();
        let (changes, revision) = feed.next().await.unwrap();
        let keys: Vec<_> = changes.iter().map(|change| &change.kv.key[..]).collect();
        assert_eq!((keys, revision), (vec![&b"a"[..], b"b", b"c", b"d"], 9));
        send.send(answer(&["e"], false)).await.unwrap();
        assert_eq!(feed.next().await.unwrap().0.len(), 1, "nothing comes twice");
    }
}
