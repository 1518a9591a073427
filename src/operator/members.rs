//! Who the members are, and changes of that.

use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::cluster_client::ClusterClient;

use super::{AskError, Line};
use crate::types::{ClusterId, MemberId};

/// A member as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRow {
    /// Its id.
    pub id: MemberId,
    /// Its name; empty until it has started.
    pub name: String,
    /// Where members reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; none until it has started.
    pub client_urls: Vec<String>,
    /// Whether it doesn't vote yet.
    pub is_learner: bool,
}

/// What a member is that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Added {
    /// The cluster that it was added to.
    pub cluster: ClusterId,
    /// Its id there.
    pub member: MemberId,
}

impl From<pb::Member> for MemberRow {
    fn from(member: pb::Member) -> Self {
        Self {
            id: MemberId(member.id),
            name: member.name,
            peer_urls: member.peer_ur_ls,
            client_urls: member.client_ur_ls,
            is_learner: member.is_learner,
        }
    }
}

impl Line {
    /// The members as a majority knows them now, or, without `linearizable`, as this one does.
    ///
    /// # Errors
    /// No answer in time, or a refusal.
    pub async fn members(&self, linearizable: bool) -> Result<Vec<MemberRow>, AskError> {
        let request = self.request(pb::MemberListRequest { linearizable }).await?;
        let answer = self.within(ClusterClient::new(self.channel()).member_list(request)).await?;
        Ok(answer.members.into_iter().map(MemberRow::from).collect())
    }

    /// The members as this one knows them, asked for as nobody: that takes no majority, not even for a login.
    ///
    /// # Errors
    /// No answer in time, or a refusal.
    pub async fn members_seen(&self) -> Result<Vec<MemberRow>, AskError> {
        let request = pb::MemberListRequest { linearizable: false };
        let answer = self.within(ClusterClient::new(self.channel()).member_list(request)).await?;
        Ok(answer.members.into_iter().map(MemberRow::from).collect())
    }

    /// Adds a member that doesn't vote yet.
    ///
    /// # Errors
    /// No answer in time, or a refusal: there is a learner already, say.
    pub async fn add_learner(&self, peer_url: &str) -> Result<Added, AskError> {
        let add = pb::MemberAddRequest { peer_ur_ls: vec![peer_url.to_owned()], is_learner: true };
        let request = self.request(add).await?;
        let answer = self.within(ClusterClient::new(self.channel()).member_add(request)).await?;
        match (answer.header, answer.member) {
            (Some(header), Some(member)) => {
                Ok(Added { cluster: ClusterId(header.cluster_id), member: MemberId(member.id) })
            }
            _ => Err(AskError::Refused("it doesn't say what it added".to_owned())),
        }
    }

    /// Removes a member.
    ///
    /// # Errors
    /// No answer in time, or a refusal: the majority would be lost, say.
    pub async fn remove_member(&self, id: MemberId) -> Result<(), AskError> {
        let request = self.request(pb::MemberRemoveRequest { id: id.get() }).await?;
        self.within(ClusterClient::new(self.channel()).member_remove(request)).await.map(drop)
    }
}
