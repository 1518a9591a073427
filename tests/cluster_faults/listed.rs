//! Who the members are, asked for right after a change.

use rusd_proto::etcdserverpb::MemberUpdateRequest;
use rusd_proto::etcdserverpb::cluster_client::ClusterClient;

use crate::cluster::{Cluster, until_answered};

const UPDATES: u16 = 100;

/// Cause: the list was Raft's own word of the members, which comes some time after their entry is applied. Symptom: a
/// linearizable list that a client asked for after its change was acknowledged was older than the change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_never_older_than_a_change_that_was_acknowledged() {
    let cluster = Cluster::rusd(3, &[]).await;
    let leader = cluster.leader().await;
    let id = cluster.id(leader).await;
    let own = cluster.members(leader).await.into_iter().find(|member| member.id == id).unwrap().peer_ur_ls;
    for update in 1..=UPDATES {
        let second = format!("http://127.0.0.1:{update}");
        let peer_ur_ls = [&own[..], std::slice::from_ref(&second)].concat();
        let asked = usize::from(update) % 3;
        let request = MemberUpdateRequest { id, peer_ur_ls };
        let ask = || {
            let (mut client, request) = (ClusterClient::new(cluster.channel(asked)), request.clone());
            async move { client.member_update(request).await }
        };
        until_answered("an update", ask).await;
        let lists = futures::future::join_all((0..3).map(|member| cluster.members(member))).await;
        for (member, list) in lists.iter().enumerate() {
            let listed = list.iter().find(|member| member.id == id).unwrap();
            assert!(listed.peer_ur_ls.contains(&second), "update {update} at m{asked}, read at m{member}: {list:?}");
        }
    }
}
