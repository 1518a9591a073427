//! What a call for a lock or an election leaves behind when it ends without what it came for: nothing.
//!
//! ```text
//! Session: its caller's lease, or one that is granted here ─► Waiting: and a place
//!    ├► keep: it holds the lock, or leads ─► all of it stays
//!    └► dropped ─┬► the caller's lease: the place is given up
//!                └► granted here: the lease is revoked, with the place; nobody else knows of it
//! ```
//! With etcd a lease that was granted for a call stays for its minute whatever becomes of the call.

use std::time::Duration;

use bytes::Bytes;
use rusd_proto::etcdserverpb as pb;
use tokio::sync::Semaphore;

use super::room::Room;
use super::{Place, giving_up};
use crate::api::auth::CallContext;
use crate::api::{kv, lease};
use crate::apply::Command;
use crate::types::{LeaseId, RequestError};

/// The time to live of the lease that a caller without one gets, in seconds. Nobody keeps it alive.
const SESSION_TTL_SECS: i64 = 60;

/// Calls of which a try to give up what they left is under way: a connection that breaks may bring thousands.
static GIVING_UP: Semaphore = Semaphore::const_new(32);
/// Between two tries to give something up, and how many there are: by then the lease is nobody's any more, or there has
/// been no leader for minutes.
const GIVE_UP_PAUSE: Duration = Duration::from_secs(1);
const GIVE_UPS_MAX: usize = 120;

/// The lease that a call contends with.
pub(super) struct Session {
    pub(super) lease: LeaseId,
    /// Who revokes it unless it is kept; `None` if it is the caller's.
    own: Option<CallContext>,
}

impl Session {
    /// The caller's lease, or for 0 a new one.
    ///
    /// # Errors
    /// Those of a grant.
    pub(super) async fn open(call: &CallContext, id: i64) -> Result<Self, RequestError> {
        if id != 0 {
            return Ok(Self { lease: LeaseId(id), own: None });
        }
        let request = pb::LeaseGrantRequest { ttl: SESSION_TTL_SECS, id: 0 };
        let (lease, ..) = lease::run_grant(call, &request).await?;
        Ok(Self { lease, own: Some(call.clone()) })
    }

    /// The lease stays, whoever granted it.
    pub(super) fn keep(mut self) {
        self.own = None;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(call) = self.own.take() {
            give_up(call, Left::Lease(self.lease), None);
        }
    }
}

/// Gives a place up when whoever waits for it doesn't any more: its client went away, or its time is over.
pub(super) struct Waiting {
    call: CallContext,
    /// `None` once it is kept.
    left: Option<(Session, Left)>,
    /// What it waits in: until what it has taken is given up.
    pub(super) room: Option<Room>,
}

impl Waiting {
    pub(super) fn begin(call: &CallContext, place: &mut Place, session: Session) -> Self {
        let left = match session.own {
            Some(_) => Left::Lease(session.lease),
            None => Left::Place { key: place.key.clone(), revision: place.revision, lease: session.lease },
        };
        Self { call: call.clone(), left: Some((session, left)), room: place.room.take() }
    }

    /// The wait is over, and what it has stays.
    pub(super) fn keep(mut self) {
        if let Some((session, _)) = self.left.take() {
            session.keep();
        }
    }

    /// The wait has failed, and whoever comes again with the same lease finds his place. What was granted here is given up,
    /// as nobody can come with that.
    pub(super) fn keep_for_caller(self) {
        if self.left.as_ref().is_some_and(|(session, _)| session.own.is_none()) {
            self.keep();
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some((session, left)) = self.left.take() {
            session.keep();
            give_up(self.call.clone(), left, self.room.take());
        }
    }
}

/// What is to be given up.
enum Left {
    /// A key, if it is still the one that was created then, with the caller's lease.
    Place { key: Bytes, revision: i64, lease: LeaseId },
    /// A lease, with all its keys.
    Lease(LeaseId),
}

impl Left {
    fn lease(&self) -> LeaseId {
        match self {
            Self::Place { lease, .. } | Self::Lease(lease) => *lease,
        }
    }

    /// One try. By then the caller's token may be over, and what it left is what it took by its own right.
    async fn try_give_up(&self, call: &CallContext) -> Result<(), RequestError> {
        let Ok(_permit) = GIVING_UP.acquire().await else { return Err(RequestError::Stopped) };
        match self {
            Self::Place { key, revision, .. } => {
                let command = Command::Txn(giving_up(key.clone(), *revision));
                kv::admit(call, &command).await?;
                kv::propose_permitted(call, command.by_member(&call.auth.view)).await.map(drop)
            }
            Self::Lease(id) => lease::revoke_own(call, *id).await,
        }
    }
}

/// Gives `left` up, in a while if that can't be now; it waits in `room` so long.
fn give_up(call: CallContext, left: Left, room: Option<Room>) {
    // Outside of a runtime everything has ended, and the key goes with its lease.
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(async move {
        let _room = room;
        for _ in 0..GIVE_UPS_MAX {
            match left.try_give_up(&call).await {
                Ok(()) | Err(RequestError::Stopped) => return,
                // All is gone with it.
                Err(_) if !call.lessor.contains(left.lease()) => return,
                // A place that nobody waits for would be in the way of all behind it.
                Err(error) => tracing::debug!(%error, "a place in a lock or an election isn't given up yet"),
            }
            tokio::time::sleep(GIVE_UP_PAUSE).await;
        }
        tracing::warn!("a place in a lock or an election stays until its lease ends");
    });
}
