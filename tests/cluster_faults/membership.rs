//! Changes of who the members are, asked for as often as it takes: the one that is asked may be away, or not
//! in touch with the others yet.

use std::time::{Duration, Instant};

use rusd_proto::etcdserverpb::cluster_client::ClusterClient;
use rusd_proto::etcdserverpb::{
    Member, MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest,
};
use tonic::Status;

use crate::cluster::Cluster;

/// A change waits until everybody is in touch again, and for elections.
const CHANGES_MAX: Duration = Duration::from_secs(120);
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Notes a refusal, and gives up after too many.
async fn again(what: &str, begun: Instant, refused: &Status) {
    assert!(begun.elapsed() < CHANGES_MAX, "{what}: {refused}");
    tokio::time::sleep(AGAIN_AFTER).await;
}

impl Cluster {
    /// The members as one of them has them.
    pub(crate) async fn members(&self, asked: usize) -> Vec<Member> {
        let begun = Instant::now();
        loop {
            let mut client = ClusterClient::new(self.channel(asked));
            match client.member_list(MemberListRequest { linearizable: true }).await {
                Ok(list) => return list.into_inner().members,
                Err(refused) => again("list", begun, &refused).await,
            }
        }
    }

    /// A member's id.
    pub(crate) async fn id(&self, member: usize) -> u64 {
        let begun = Instant::now();
        loop {
            match self.status(member).await {
                Ok(status) => return status.header.unwrap().member_id,
                Err(refused) => again("id", begun, &refused).await,
            }
        }
    }

    /// Has one of them remove a member, which may be itself; another one, that stays, knows whether it was done.
    pub(crate) async fn remove(&self, asked: usize, witness: usize, id: u64) {
        let begun = Instant::now();
        loop {
            let removed = ClusterClient::new(self.channel(asked)).member_remove(MemberRemoveRequest { id }).await;
            let Err(refused) = removed else { return };
            // An answer that was lost, as that of a member that goes itself.
            if self.members(witness).await.iter().all(|member| member.id != id) {
                return;
            }
            again("remove", begun, &refused).await;
        }
    }

    /// Has one of them add a member that others reach at `peer`; gives its id.
    pub(crate) async fn add(&self, asked: usize, peer: &str, is_learner: bool) -> u64 {
        let begun = Instant::now();
        loop {
            let request = MemberAddRequest { peer_ur_ls: vec![peer.to_owned()], is_learner };
            match ClusterClient::new(self.channel(asked)).member_add(request).await {
                Ok(added) => return added.into_inner().member.unwrap().id,
                Err(refused) => {
                    let has_url = |member: &&Member| member.peer_ur_ls.iter().any(|url| url == peer);
                    // An answer that was lost.
                    if let Some(added) = self.members(asked).await.iter().find(has_url) {
                        return added.id;
                    }
                    again("add", begun, &refused).await;
                }
            }
        }
    }

    /// Has one of them give a learner its vote, once it is in step.
    pub(crate) async fn promote(&self, asked: usize, id: u64) {
        let begun = Instant::now();
        while self.members(asked).await.iter().any(|member| member.id == id && member.is_learner) {
            let promoted = ClusterClient::new(self.channel(asked)).member_promote(MemberPromoteRequest { id }).await;
            if let Err(refused) = promoted {
                again("promote", begun, &refused).await;
            }
        }
    }
}
