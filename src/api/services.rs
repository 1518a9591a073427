//! `Services`: everything that an answer is made of, in one value that all connections share.

use std::sync::Arc;

use super::auth::Authentication;
use super::metrics::RpcMetrics;
use super::seams::{Maintain, Propose};
use super::share::Beyond;
use super::turns::Turns;
use super::watch::WatchService;
use super::wire::Header;
use crate::apply::AlarmView;
use crate::env::Env;
use crate::lease::Lessor;
use crate::storage::StoreReader;
use crate::types::{Budget, ClusterId, Limits, MemberId, Places};

/// What the services are made of.
pub struct Services {
    /// The way into the log.
    pub proposer: Arc<dyn Propose>,
    /// The store's upkeep.
    pub maintain: Arc<dyn Maintain>,
    /// The published state.
    pub reader: StoreReader,
    /// The leases.
    pub lessor: Arc<Lessor>,
    /// The alarms as published.
    pub alarms: AlarmView,
    /// Users, roles and tokens.
    pub auth: Authentication,
    /// The Watch service.
    pub watch: WatchService,
    /// Clock and randomness.
    pub env: Env,
    /// Which member of which cluster answers.
    pub info: NodeInfo,
    /// Bounds on requests.
    pub limits: Limits,
    /// Counters of calls.
    pub metrics: Arc<RpcMetrics>,
    /// Makes the text of `/metrics`.
    pub metrics_text: Arc<dyn Fn() -> String + Send + Sync>,
    /// What requests and answers may hold in memory.
    pub budgets: Budgets,
    /// Large reads that may run at a time; each holds its answer in memory.
    pub large_reads: Arc<tokio::sync::Semaphore>,
}

/// Bytes of pages of metrics that clients haven't read yet: some hundred of them. The port for metrics has as many again.
const PAGES_BYTES_MAX: usize = 16 << 20;

/// Bounds on what all clients together may have in memory, and on how many of them may wait.
#[derive(Clone, Debug)]
pub struct Budgets {
    /// Requests that didn't come in one piece, until they are answered.
    pub requests: Budget,
    /// Large answers, until they are read.
    pub answers: Budget,
    /// Pages of metrics, until they are read.
    pub pages: Budget,
    /// Requests, streams among them, until their answers are taken.
    pub open: Arc<Places>,
    /// The same where there are only pages for probes.
    pub pages_open: Arc<Places>,
    /// What those get whom nobody knows, while there are many requests.
    pub(super) beyond: Beyond,
    /// Leases: none is taken here, they are counted where they live.
    pub leases: Arc<Places>,
    /// Users, roles, and bytes of both: none is taken here either.
    pub users: Arc<Places>,
    /// See [`Budgets::users`].
    pub roles: Arc<Places>,
    /// See [`Budgets::users`].
    pub users_and_roles: Arc<Places>,
    /// Calls that wait for a lock or to be elected.
    pub lock_waiters: Arc<Places>,
    /// Names that those hold, and calls that observe an election.
    pub names: Budget,
    /// Logins of any one connection: refusals of all of them are counted here.
    pub logins_per_connection: Arc<Places>,
    /// Who of them is worked on.
    pub turns: Turns,
}

impl Budgets {
    /// As the limits say.
    pub fn new(limits: &Limits) -> Self {
        let open = Places::new("max-open-requests", limits.requests_open_max);
        Self {
            requests: Budget::new(limits.requests_pending_bytes_max),
            answers: Budget::new(limits.answers_pending_bytes_max),
            pages: Budget::new(PAGES_BYTES_MAX),
            beyond: Beyond::new(&open),
            open,
            pages_open: Places::new("max-open-requests", limits.requests_open_max),
            leases: Places::new("max-leases", limits.leases_max),
            users: Places::new("max-users", limits.users_max),
            roles: Places::new("max-roles", limits.roles_max),
            users_and_roles: Places::new("users-and-roles-mb", limits.auth_bytes_max),
            lock_waiters: Places::new("max-lock-waiters", limits.lock_waiters_max),
            names: Budget::new(limits.watch_ranges_bytes_max),
            logins_per_connection: Places::new("max-pending-logins-per-connection", limits.logins_per_connection_max),
            turns: Turns::default(),
        }
    }
}

/// The identity that goes into every header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeInfo {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The member.
    pub member_id: MemberId,
}

impl Services {
    /// The header of an answer that stands at `revision`.
    pub(crate) fn header(&self, revision: i64) -> Header {
        Header {
            cluster_id: self.info.cluster_id.get(),
            member_id: self.info.member_id.get(),
            revision,
            raft_term: self.proposer.standing().term.get(),
        }
    }

    /// The same as a generated message.
    pub(crate) fn message_header(&self, revision: i64) -> Option<rusd_proto::etcdserverpb::ResponseHeader> {
        let header = self.header(revision);
        Some(rusd_proto::etcdserverpb::ResponseHeader {
            cluster_id: header.cluster_id,
            member_id: header.member_id,
            revision,
            raft_term: header.raft_term,
        })
    }

    /// The largest message that is taken in, in bytes.
    pub(crate) fn message_bytes_max(&self) -> usize {
        self.limits.request_bytes_max + Limits::TRANSPORT_OVERHEAD_BYTES
    }
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services").field("info", &self.info).field("limits", &self.limits).finish_non_exhaustive()
    }
}
