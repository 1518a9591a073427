//! Renewals while another member, or another client, ends a lease.

use std::sync::atomic::Ordering;

use futures::channel::mpsc;
use rusd::api::Propose;
use rusd::apply::Command;
use rusd::types::{LeaseId, Limits};
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::lease_client::LeaseClient;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use crate::gate::comes;
use crate::server::Server;

/// Leases that don't run out while a test is held up.
const TTL_SECS: i64 = 1_000;

/// A stream of renewals that is known to run, as one was answered, over leases of the other ids.
struct Renewals {
    lease: LeaseClient<Channel>,
    requests: mpsc::UnboundedSender<pb::LeaseKeepAliveRequest>,
    answers: Streaming<pb::LeaseKeepAliveResponse>,
}

impl Renewals {
    async fn start(server: &Server, ids: &[i64]) -> Self {
        let mut lease = LeaseClient::new(server.connect().await);
        for id in ids {
            lease.lease_grant(pb::LeaseGrantRequest { ttl: TTL_SECS, id: *id }).await.unwrap();
        }
        let (requests, queue) = mpsc::unbounded();
        requests.unbounded_send(pb::LeaseKeepAliveRequest { id: ids[0] }).unwrap();
        let answers = lease.lease_keep_alive(queue).await.unwrap().into_inner();
        let mut renewals = Self { lease, requests, answers };
        assert_eq!(renewals.answer().await, (ids[0], TTL_SECS));
        renewals
    }

    fn ask(&self, ids: &[i64]) {
        for id in ids {
            self.requests.unbounded_send(pb::LeaseKeepAliveRequest { id: *id }).unwrap();
        }
    }

    /// Leases of which 5 is revoked, as by another member, between their renewals and the confirmation of the lead, which
    /// waits until it is let go on.
    async fn overtaken(server: &Server, ids: &[i64]) -> Self {
        let front = &server.member.front;
        let renewals = Self::start(server, ids).await;
        front.confirms.close();
        renewals.ask(ids);
        front.confirms.is_reached().await;
        front.propose(Command::LeaseRevoke { id: LeaseId(5) }).await.unwrap();
        renewals
    }

    async fn answer(&mut self) -> (i64, i64) {
        let answer = self.answers.message().await.unwrap().expect("the stream goes on");
        (answer.id, answer.ttl)
    }
}

/// Etcd issue 20615. Cause: a lease could be renewed while its revoke was on its way into the log. Symptom: a keep-alive
/// answers with a time and the lease is gone. Now the call that revokes closes the lease before it proposes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issue_20615_a_renewal_waits_for_the_revoke_that_was_proposed_before_it() {
    let server = Server::with_limits(Limits::default());
    let front = &server.member.front;
    let mut renewals = Renewals::start(&server, &[5]).await;
    front.revokes.close();
    let mut lease = renewals.lease.clone();
    let revoke = tokio::spawn(async move { lease.lease_revoke(pb::LeaseRevokeRequest { id: 5 }).await });
    front.revokes.is_reached().await;
    renewals.ask(&[5]);
    let answer = tokio::spawn(async move { renewals.answer().await });
    comes("the renewal", || front.renewals_asked.load(Ordering::Relaxed) > 0 || answer.is_finished()).await;
    front.revokes.open();
    assert_eq!(answer.await.unwrap(), (5, 0));
    revoke.await.unwrap().unwrap();
}

/// Etcd issue 20615, over two members. Cause: the revoke came by another member, and this one learned of it between the
/// renewal and the confirmation that it leads. Symptom: the renewal's answer has a time for a lease that is gone; or, as
/// was so here, the whole stream ends with "no leader". Now that lease has 0, as etcd says, and the others' answers stand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issue_20615_a_lease_that_another_member_revoked_meanwhile_has_no_time_and_the_others_have_theirs() {
    let server = Server::with_limits(Limits::default());
    let mut renewals = Renewals::overtaken(&server, &[5, 6, 7]).await;
    server.member.front.confirms.open();
    for wanted in [(5, 0), (6, TTL_SECS), (7, TTL_SECS)] {
        assert_eq!(renewals.answer().await, wanted);
    }
    renewals.ask(&[7, 5]);
    assert_eq!((renewals.answer().await, renewals.answer().await), ((7, TTL_SECS), (5, 0)), "it goes on");
}

/// Cause: the lease is gone, and whoever could say so is so as well. Symptom: 0 for a lease that a next leader may hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_lost_when_a_lease_is_asked_about_again_ends_the_stream() {
    let server = Server::with_limits(Limits::default());
    let mut renewals = Renewals::overtaken(&server, &[5]).await;
    server.member.lessor.demote();
    server.member.front.confirms.open();
    let status = renewals.answers.message().await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcdserver: no leader"));
}
