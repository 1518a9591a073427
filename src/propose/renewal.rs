//! Renewals of leases that take time, on whichever member they come in.
//!
//! ```text
//! renew ─┬► this member leads: its clock ─► a checkpoint is taken back, or a lease that is ending is waited for
//!        └► another one does: it is asked
//! another member asks ─► the same here ─► and that this member still leads is confirmed before the answer
//! ```

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::Proposer;
use crate::apply::Command;
use crate::consensus::peer::{Asking, LeaseLeft};
use crate::env::Env;
use crate::failpoint::{Point, hit};
use crate::lease::{Lessor, Renewal};
use crate::types::{LeaseId, RequestError, Term};

/// How often one renewal takes a checkpoint back: the first may be overtaken by one that was under way.
const RESETS_MAX: usize = 3;
/// Between two tries, while no leader answers.
const RETRY: Duration = Duration::from_millis(50);

/// Leases wherever their clock is. Cheap to clone.
#[derive(Clone)]
pub struct Leases {
    lessor: Arc<Lessor>,
    proposer: Proposer,
    env: Env,
}

impl Leases {
    /// Over this member's clock and its way to the leader's.
    pub fn new(lessor: Arc<Lessor>, proposer: Proposer, env: Env) -> Self {
        Self { lessor, proposer, env }
    }

    /// Gives a lease its full time again: seconds, or 0 if there is no such lease. Whoever's clock it was, that it
    /// is the leader's was confirmed afterwards.
    ///
    /// # Errors
    /// `NoLeader` if there was none at the end of the time, `Timeout` if it didn't answer in time, `Stopped`.
    pub async fn renew(&self, id: LeaseId) -> Result<i64, RequestError> {
        self.at_the_leader(id, true).await.map(|left| if left.granted_secs < 0 { 0 } else { left.remaining_secs })
    }

    /// What is left of a lease.
    ///
    /// # Errors
    /// As above.
    pub async fn left(&self, id: LeaseId) -> Result<LeaseLeft, RequestError> {
        hit(Point::BeforeLookupWhenLeaseTimeToLive);
        self.at_the_leader(id, false).await
    }

    async fn at_the_leader(&self, id: LeaseId, renew: bool) -> Result<LeaseLeft, RequestError> {
        let limit = self.proposer.limit();
        let status = self.proposer.node().status();
        let asking = async {
            loop {
                let asked = match status.leader() {
                    Some(leader) if leader != status.member() => tokio::select! {
                        biased;
                        left = self.proposer.node().peers().lease(leader, id, renew, limit) => left,
                        () = status.leader_is_not(leader) => Err(RequestError::NoLeader),
                    },
                    _ => self.here(id, renew).await,
                };
                match asked {
                    Err(RequestError::NoLeader | RequestError::NotLeader) => tokio::time::sleep(RETRY).await,
                    asked => return asked,
                }
            }
        };
        match within(limit, asking).await {
            Err(RequestError::Timeout) if status.leader().is_none() => Err(RequestError::NoLeader),
            result => result,
        }
    }

    /// By this member's clock, if it is the leader's, which is confirmed afterwards: a leader that was paused and
    /// replaced must not answer for leases that its successor has ended. Nor one whose state differs: what it doesn't hold
    /// may be there all the same.
    async fn here(&self, id: LeaseId, renew: bool) -> Result<LeaseLeft, RequestError> {
        self.here_if(id, renew, |term| self.proposer.confirm_lead(term)).await
    }

    async fn here_if<F>(
        &self,
        id: LeaseId,
        renew: bool,
        confirm_lead: impl Fn(Term) -> F,
    ) -> Result<LeaseLeft, RequestError>
    where
        F: Future<Output = Result<(), RequestError>>,
    {
        let status = self.proposer.node().status();
        let is_right = || if status.diverged().is_none() { Ok(()) } else { Err(RequestError::NoLeader) };
        loop {
            is_right()?;
            let term = status.term();
            let answer = if renew { self.renew_here(id).await? } else { self.left_here(id)? };
            confirm_lead(term).await?;
            is_right()?;
            // What anybody was told of the lease before is applied by now; if it says otherwise, it is asked again.
            if self.lessor.contains(id) == (answer.granted_secs >= 0) {
                return Ok(answer);
            }
        }
    }

    fn left_here(&self, id: LeaseId) -> Result<LeaseLeft, RequestError> {
        if !self.lessor.is_leading() {
            return Err(RequestError::NoLeader);
        }
        let left = self.lessor.remaining(id, self.env.clock.now());
        Ok(left.map_or(LeaseLeft { granted_secs: -1, remaining_secs: -1 }, |left| LeaseLeft {
            granted_secs: left.granted_secs,
            remaining_secs: left.remaining_secs,
        }))
    }

    /// Until a checkpoint is taken back in the log, or until a lease that is ending is gone or renewed after all
    /// because its end did not come through.
    async fn renew_here(&self, id: LeaseId) -> Result<LeaseLeft, RequestError> {
        let mut ended = self.lessor.ended();
        let mut resets_left = RESETS_MAX;
        loop {
            match self.lessor.renew(id, self.env.clock.now()) {
                Renewal::Renewed { reset_checkpoint: true, .. } if resets_left > 0 => {
                    resets_left -= 1;
                    hit(Point::BeforeCheckpointInLeaseRenew);
                    let command = Command::LeaseCheckpoint { remaining: vec![(id, 0)] };
                    let term = self.proposer.node().status().term();
                    self.proposer.propose_as_leader(command, term).await?.outcome.result?;
                }
                Renewal::Renewed { ttl_secs, .. } => {
                    return Ok(LeaseLeft { granted_secs: ttl_secs, remaining_secs: ttl_secs });
                }
                Renewal::Unknown => return Ok(LeaseLeft { granted_secs: -1, remaining_secs: 0 }),
                Renewal::NotLeading => return Err(RequestError::NoLeader),
                Renewal::Ending => ended.changed().await.map_err(|_| RequestError::Stopped)?,
            }
        }
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, RequestError>>) -> Result<T, RequestError> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(RequestError::Timeout))
}

impl Leases {
    /// Answers another member: renews a lease, or says what is left of it; only if this member leads.
    pub fn asked(&self, id: LeaseId, renew: bool) -> Asking<LeaseLeft> {
        let leases = self.clone();
        Box::pin(async move { within(leases.proposer.limit(), leases.here(id, renew)).await })
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::consensus::Waiters;
    use crate::consensus::tests::start;
    use crate::env::MemDisk;
    use crate::propose::ProposeLimits;

    /// Etcd issue 20615, over two members. Cause: a revoke that another member proposed was applied between the renewal and
    /// the confirmation that this member leads. Symptom: the answer has a time and the lease is gone.
    #[tokio::test]
    async fn issue_20615_a_lease_that_is_gone_when_the_lead_is_confirmed_has_no_time() {
        let node = start(&MemDisk::new()).await;
        let env = Env::real();
        let (mut writer, lessor) = Lessor::new(env.clock.now());
        lessor.promote(env.clock.now(), Duration::ZERO);
        writer.grant(LeaseId(1), 100);
        let writer = Mutex::new(writer);
        let (limits, waiters) = (ProposeLimits::default(), Arc::new(Waiters::new(Duration::from_secs(5))));
        let proposer = Proposer::start(node.clone(), limits, env.clone(), waiters);
        let leases = Leases::new(lessor, proposer, env);
        let revoked = |_| {
            writer.lock().remove(LeaseId(1));
            std::future::ready(Ok(()))
        };
        let gone = |remaining_secs| Ok(LeaseLeft { granted_secs: -1, remaining_secs });
        assert_eq!(leases.here_if(LeaseId(1), true, revoked).await, gone(0));
        // The other way round: told of while it was unknown here.
        let granted = |_| {
            writer.lock().grant(LeaseId(2), 100);
            std::future::ready(Ok(()))
        };
        let renewed = LeaseLeft { granted_secs: 100, remaining_secs: 100 };
        assert_eq!(leases.here_if(LeaseId(2), true, granted).await, Ok(renewed));
        let revoked = |_| {
            writer.lock().remove(LeaseId(2));
            std::future::ready(Ok(()))
        };
        assert_eq!(leases.here_if(LeaseId(2), false, revoked).await, gone(-1));
        node.shutdown().await.expect("an orderly end");
    }
}
