//! A worker's lease: granted, given keys, kept alive, and in the end revoked or left to its time.
//!
//! ```text
//! grant ─► (attach | keep)… ─┬► revoke ─► asked for again: it is gone     any member is asked, not waited for long
//!                            └► forgotten: it ends by itself
//! ```
//! One call after the other, so that of what is known of a lease no call is in doubt but those without an answer.

use std::time::Instant;

use bytes::Bytes;
use rand::Rng;
use rusd_proto::etcdserverpb::lease_client::LeaseClient;
use rusd_proto::etcdserverpb::{LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, PutRequest};
use tokio_stream::StreamExt;
use tonic::Status;
use tonic::transport::Channel;

use super::ops::{Ask, Call, LEASED, Op, Outcome, Said, Wish};
use super::{AWAY_MAX, Worker};
use crate::client::header;

/// Longer than most stories: who doesn't lose its client keeps it.
const LONG_SECS: i64 = 60;
/// Keys of one lease.
const LEASE_KEYS: u32 = 3;
/// The first number: stories have leases of their own, with small ones.
const FIRST: i64 = 1_000_000;

/// The lease that a worker has.
pub(super) struct Held {
    id: i64,
    /// Left to its time in the end.
    is_short: bool,
}

impl Worker {
    /// The next thing that is done with a lease.
    pub(super) async fn lease_step(&mut self) -> Op {
        let Some(Held { id, is_short }) = self.lease else { return self.grant().await };
        match self.rng.random_range(0..10) {
            0..5 => self.attach(id).await,
            5..8 => self.keep(id).await,
            _ if is_short => {
                self.lease = None;
                self.glance_at_lease(id).await
            }
            _ => {
                let revoked = self.revoke(id).await;
                self.lease = None;
                self.note(revoked);
                // Of one that may have been revoked.
                let op = if self.rng.random() { self.keep(id).await } else { self.attach(id).await };
                self.note(op);
                self.glance_at_lease(id).await
            }
        }
    }

    async fn grant(&mut self) -> Op {
        let number = self.value();
        let id = FIRST + std::str::from_utf8(&number).unwrap().parse::<i64>().unwrap();
        let is_short = self.rng.random_bool(0.3);
        let ttl = if is_short { self.rng.random_range(1..=2) } else { LONG_SECS };
        let (member, channel) = self.any();
        let granted = async {
            let granted = LeaseClient::new(channel).lease_grant(LeaseGrantRequest { id, ttl }).await?.into_inner();
            Ok(Said::Lives(granted.ttl.unsigned_abs()))
        };
        let (said, op) = self.call(member, id, Ask::Grant, granted).await;
        // Of one whose answer was lost nothing is known.
        self.lease = matches!(said, Said::Lives(_)).then_some(Held { id, is_short });
        op
    }

    /// Puts one of its keys.
    async fn attach(&mut self, lease: i64) -> Op {
        let (key, value) = (self.key_of(lease), self.value());
        let wish = Wish { keys: vec![key.clone()], value: value.clone(), ..Wish::default() };
        let (member, mut client) = self.client(self.home);
        let begun = Instant::now();
        let answer = client.put(PutRequest { key: key.clone(), value, lease, ..PutRequest::default() }).await;
        let done = answer.map(|answer| header(answer.into_inner().header).revision);
        self.called(Call::of(lease, Ask::Attach, begun, done.clone().map(Said::Done)));
        Op::of(member, begun, key, done.map(Outcome::Wrote)).wishing(wish)
    }

    async fn keep(&mut self, id: i64) -> Op {
        let (member, channel) = self.any();
        let (said, op) = self.call(member, id, Ask::Keep, keep(channel, id)).await;
        if said == Said::Gone {
            self.lease = None;
        }
        op
    }

    async fn revoke(&mut self, id: i64) -> Op {
        let (member, channel) = self.any();
        let revoked = async {
            let answer = LeaseClient::new(channel).lease_revoke(LeaseRevokeRequest { id }).await?;
            Ok(Said::Done(header(answer.into_inner().header).revision))
        };
        self.call(member, id, Ask::Revoke, revoked).await.1
    }

    /// Asks somebody who may be away, and writes down what was said.
    async fn call(
        &mut self,
        member: usize,
        lease: i64,
        ask: Ask,
        answer: impl Future<Output = Result<Said, Status>>,
    ) -> (Said, Op) {
        let begun = Instant::now();
        let answer = tokio::time::timeout(AWAY_MAX, answer).await;
        let call =
            Call::of(lease, ask, begun, answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("not waited for"))));
        let outcome = match call.said {
            Said::Done(revision) => Outcome::Wrote(revision),
            _ => Outcome::Unknown,
        };
        // As a request that wishes for nothing, it says what revision was seen.
        let op = Op { error: call.error.clone(), ..Op::of(member, begun, Bytes::new(), Ok(outcome)) };
        let said = call.said;
        self.called(call);
        (said, op)
    }

    /// Reads one of a lease's keys somewhere.
    async fn glance_at_lease(&mut self, id: i64) -> Op {
        let (place, key) = (self.rng.random_range(0..self.places), self.key_of(id));
        self.glance(place, key, false, None).await
    }

    fn key_of(&mut self, lease: i64) -> Bytes {
        format!("{LEASED}{lease}/{}", self.rng.random_range(0..LEASE_KEYS)).into()
    }

    /// Somebody, and the way there.
    fn any(&mut self) -> (usize, Channel) {
        let place = self.rng.random_range(0..self.places);
        self.doors.lock().unwrap()[place].clone()
    }

    fn called(&self, call: Call) {
        self.shared.calls.lock().unwrap().push(call);
    }
}

/// Renews once.
async fn keep(channel: Channel, id: i64) -> Result<Said, Status> {
    let requests = tokio_stream::once(LeaseKeepAliveRequest { id }).chain(tokio_stream::pending());
    let mut answers = LeaseClient::new(channel).lease_keep_alive(requests).await?.into_inner();
    let answer = answers.message().await?.ok_or_else(|| Status::unavailable("the stream ended"))?;
    Ok(u64::try_from(answer.ttl).ok().filter(|ttl| *ttl > 0).map_or(Said::Gone, Said::Lives))
}
