//! Who the members are, and changes of that.

use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::cluster_client::ClusterClient;

use super::{AskError, Line};
use crate::types::MemberId;

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
}
