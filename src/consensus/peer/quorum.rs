//! What a leader without a quorum sends, and when.
//!
//! ```text
//! watch_raft ─► set_lead ─► Unsure: messages say so; entries for a member wait in `sure_or_answered`
//!                             until a quorum answers again │ the member answers a question │ the lead is lost
//! ```
//! openraft (0.10.0-alpha.37) has such a leader keep silent for a while (`quorum_loss_probe_interval`), so that the leases
//! that it has with the others run out and another can be elected. Each stream of entries begun anew would renew them. One
//! that hears a member may send it entries, as there may be no other way on: a member behind isn't elected, and openraft
//! sends no heartbeat once it was asked to hand the lead over. A question renews no lease.

use super::Peers;
use crate::types::planted::{Bug, is_planted};
use crate::types::{MemberId, RequestError};

/// For how many election timeouts entries wait for a member that doesn't answer, where there is no quorum, before they
/// are tried again: longer than openraft's silence, and not for ever.
const UNSURE_ELECTIONS_MAX: u32 = 10;
/// Questions to a member that doesn't answer, in an election timeout.
const QUESTIONS: u32 = 10;

/// Whether this member leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::consensus) enum Lead {
    /// It doesn't.
    #[default]
    None,
    /// It does, and has heard of a quorum lately.
    Sure,
    /// It does, and hasn't.
    Unsure,
}

impl Peers {
    /// Notes whether this member leads, and with a quorum that answers; if not, its messages say so.
    pub(in crate::consensus) fn set_lead(&self, lead: Lead) {
        self.inner.lead.send_if_modified(|was| std::mem::replace(was, lead) != lead);
    }

    pub(super) fn is_unsure(&self) -> bool {
        *self.inner.lead.borrow() == Lead::Unsure
    }

    /// Waits while this member leads without a quorum and `target` answers nothing. False if it has lost the lead
    /// meanwhile: what it would have sent is of no use any more, and might be taken for a sign of life.
    pub(super) async fn sure_or_answered(&self, target: MemberId) -> bool {
        if !self.is_unsure() || is_planted(Bug::DeafLeader) {
            return true;
        }
        let mut lead = self.inner.lead.subscribe();
        let waited = async {
            tokio::select! {
                // The sender lives as long as `self`.
                _ = lead.wait_for(|lead| *lead != Lead::Unsure) => {}
                () = self.answered(target) => {}
            }
        };
        // openraft can't end what waits here.
        let limit = self.options().election_timeout * UNSURE_ELECTIONS_MAX;
        let _ = tokio::time::timeout(limit, waited).await;
        *self.inner.lead.borrow() != Lead::None
    }

    /// Returns when a member answers a question; one of an older build, which doesn't know it, says so.
    async fn answered(&self, target: MemberId) {
        let limit = self.options().election_timeout;
        while let Err(RequestError::NoLeader | RequestError::Timeout) = self.disk(target, limit).await {
            tokio::time::sleep(limit / QUESTIONS).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use bytes::Bytes;
    use futures::stream::{self, BoxStream};
    use rusd_proto::rusdpeer as pb;
    use rusd_proto::rusdpeer::peer_server::{Peer, PeerServer};
    use tokio::io::duplex;
    use tokio::time::Instant;
    use tonic::transport::Server;
    use tonic::{Request, Response, Status, Streaming};

    use super::*;
    use crate::consensus::peer::{Dial, Dialing, Forwarded, NoDial, PeerOptions, refusal};
    use crate::env::Env;
    use crate::types::{ClusterId, Term};

    const TARGET: MemberId = MemberId(2);
    const ELECTION: Duration = Duration::from_secs(1);

    fn peers(dial: Arc<dyn Dial>) -> Peers {
        let options = PeerOptions {
            cluster: ClusterId(1),
            member: MemberId(1),
            election_timeout: ELECTION,
            message_bytes_max: 1 << 20,
            snapshot_dir: "/snap".into(),
        };
        let peers = Peers::new(options, Env::real(), dial);
        peers.book().set(TARGET, vec!["http://two".to_owned()]);
        peers
    }

    /// A member that answers each question, and nothing else.
    struct Answers {
        /// Whether it knows of disks.
        knows: bool,
    }

    type Answered<T> = Result<Response<T>, Status>;

    fn none<T>() -> Answered<T> {
        Err(Status::unavailable("it has only answers"))
    }

    #[tonic::async_trait]
    impl Peer for Answers {
        type AppendStream = BoxStream<'static, Result<pb::AppendReply, Status>>;

        async fn append(&self, _: Request<Streaming<pb::AppendRequest>>) -> Answered<Self::AppendStream> {
            none()
        }

        async fn heartbeat(&self, _: Request<pb::AppendRequest>) -> Answered<pb::AppendReply> {
            none()
        }

        async fn vote(&self, _: Request<pb::VoteRequest>) -> Answered<pb::VoteReply> {
            none()
        }

        async fn pre_vote(&self, _: Request<pb::VoteRequest>) -> Answered<pb::VoteReply> {
            none()
        }

        async fn transfer_leader(&self, _: Request<pb::TransferRequest>) -> Answered<pb::TransferReply> {
            none()
        }

        async fn snapshot(&self, _: Request<Streaming<pb::SnapshotChunk>>) -> Answered<pb::SnapshotReply> {
            none()
        }

        async fn ask(&self, _: Request<pb::Question>) -> Answered<pb::Answer> {
            let answer = match self.knows {
                true => pb::answer::Answer::Disk(pb::Disk { pace_us: 0, is_full: false }),
                false => pb::answer::Answer::Refusal(refusal::encode(&RequestError::UnknownMethod)),
            };
            Ok(Response::new(pb::Answer { answer: Some(answer) }))
        }
    }

    /// Refuses some connections, then reaches a member that answers.
    #[derive(Debug)]
    struct Later {
        refusals: AtomicU32,
        knows: bool,
    }

    impl Dial for Later {
        fn dial(&self, _: &str) -> Dialing {
            let left = self.refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            let knows = self.knows;
            Box::pin(async move {
                if left.is_ok() {
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                let (ours, theirs) = duplex(1 << 16);
                let incoming = stream::iter([Ok::<_, io::Error>(theirs)]);
                let server = Server::builder().add_service(PeerServer::new(Answers { knows }));
                tokio::spawn(server.serve_with_incoming(incoming));
                Ok(Box::new(ours) as Box<dyn crate::consensus::peer::Stream>)
            })
        }
    }

    /// Whether entries wait, and what they are told then, if `lead` is the news after two election timeouts.
    async fn told(peers: &Peers, lead: Lead) -> (bool, Duration) {
        let begun = Instant::now();
        let news = async {
            tokio::time::sleep(ELECTION * 2).await;
            peers.set_lead(lead);
        };
        let (go_on, ()) = tokio::join!(peers.sure_or_answered(TARGET), news);
        (go_on, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn entries_wait_only_where_there_is_no_quorum() {
        let peers = peers(Arc::new(NoDial));
        for lead in [Lead::None, Lead::Sure] {
            peers.set_lead(lead);
            let begun = Instant::now();
            assert!(peers.sure_or_answered(TARGET).await, "{lead:?}");
            assert_eq!(begun.elapsed(), Duration::ZERO, "{lead:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn entries_go_on_when_a_quorum_answers_again() {
        let peers = peers(Arc::new(NoDial));
        peers.set_lead(Lead::Unsure);
        assert_eq!(told(&peers, Lead::Sure).await, (true, ELECTION * 2));
    }

    /// Sent under a vote that is over, they would keep another member from voting for the next leader.
    #[tokio::test(start_paused = true)]
    async fn entries_of_a_lead_that_is_lost_are_not_sent() {
        let peers = peers(Arc::new(NoDial));
        peers.set_lead(Lead::Unsure);
        assert_eq!(told(&peers, Lead::None).await, (false, ELECTION * 2));
    }

    #[tokio::test(start_paused = true)]
    async fn entries_are_tried_again_after_a_while() {
        let peers = peers(Arc::new(NoDial));
        peers.set_lead(Lead::Unsure);
        let begun = Instant::now();
        assert!(peers.sure_or_answered(TARGET).await);
        assert_eq!(begun.elapsed(), ELECTION * UNSURE_ELECTIONS_MAX);
    }

    /// Cause: the answer of a member that doesn't know a question has no number, and came back as another error. Symptom: in
    /// a rolling upgrade a member that knew how to bind a batch asked an older leader again until the time was up.
    #[tokio::test]
    async fn a_leader_of_an_older_build_says_that_it_cant_bind() {
        let peers = peers(Arc::new(Later { refusals: AtomicU32::new(0), knows: false }));
        let forward = async |term| peers.forward(TARGET, Bytes::new(), 1, term, Duration::from_secs(20)).await;
        assert_eq!(forward(Some(Term(3))).await, Forwarded::NotBound);
    }

    /// openraft sends no heartbeat once it was asked to hand the lead over, nor in every second stretch of a lead without
    /// a quorum: only a question shows that the member is back.
    #[tokio::test(start_paused = true)]
    async fn entries_go_on_when_the_member_answers() {
        for knows in [true, false] {
            let peers = peers(Arc::new(Later { refusals: AtomicU32::new(5), knows }));
            peers.set_lead(Lead::Unsure);
            let begun = Instant::now();
            assert!(peers.sure_or_answered(TARGET).await);
            let took = begun.elapsed();
            assert!(took > Duration::ZERO && took < ELECTION * 2, "{took:?}, an older build: {}", !knows);
        }
    }
}
