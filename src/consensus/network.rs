//! The seam for the peer transport: who makes connections to other members.
//!
//! ```text
//! Raft core ─► Peers (openraft's factory) ─► Peer ─► the transport's channels
//! ```
//!
//! A cluster of one has no peers, and so `NoPeers` is the transport of this release: it answers
//! every call with "unreachable", grants no vote and no pre-vote on anyone's behalf. A transport
//! for clusters implements the same three traits with a channel each for appends, heartbeats and
//! snapshots.

use std::future::Future;
use std::path::PathBuf;

use openraft::AnyError;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::raft::{TransferLeaderRequest, TransferLeaderResponse};
use openraft::type_config::alias::SnapshotOf;
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};

use super::types::{PeerNode, TypeConfig, Vote};

/// The transport of a cluster of one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NoPeers;

impl RaftNetworkFactory<TypeConfig> for NoPeers {
    type Network = NoPeer;

    async fn new_client(&mut self, target: u64, _node: &PeerNode) -> NoPeer {
        NoPeer { target }
    }
}

/// A member that can't be reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoPeer {
    target: u64,
}

impl NoPeer {
    fn unreachable(&self) -> Unreachable<TypeConfig> {
        Unreachable::new(&AnyError::error(format!("member {:x} is not reachable: no peer transport", self.target)))
    }
}

impl RaftNetworkV2<TypeConfig> for NoPeer {
    type SnapshotData = PathBuf;

    async fn append_entries(
        &mut self,
        _request: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(self.unreachable().into())
    }

    async fn vote(
        &mut self,
        _request: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(self.unreachable().into())
    }

    async fn pre_vote(
        &mut self,
        _request: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(self.unreachable().into())
    }

    async fn full_snapshot(
        &mut self,
        _vote: Vote,
        _snapshot: SnapshotOf<TypeConfig, PathBuf>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        Err(self.unreachable().into())
    }

    async fn transfer_leader(
        &mut self,
        _request: TransferLeaderRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(self.unreachable().into())
    }
}
