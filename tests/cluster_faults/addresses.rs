//! Where members listen for each other, and where they are told to call.

use rusd_proto::etcdserverpb::PutRequest;
use rusd_proto::rusdpeer::peer_client::PeerClient;
use rusd_proto::rusdpeer::{AppendRequest, VoteRequest};
use rustix::process::Signal;
use tonic::transport::Endpoint;
use tonic::{Code, Request};

use crate::cluster::{CALM, Cluster};
use crate::ports;

/// Members as above, in the place of those that are there, that begin again with other peer URLs: where each listens, and
/// what the others are told. Everyone has to lead once.
async fn with_urls(urls: impl Fn(&Cluster, usize) -> [String; 2]) -> Cluster {
    let mut cluster = Cluster::rusd(3, &[]).await;
    let urls: Vec<_> = (0..3).map(|member| urls(&cluster, member)).collect();
    let each = |(member, [_, told]): (usize, &[String; 2])| {
        told.split(',').map(|url| format!("m{member}={url}")).collect::<Vec<_>>().join(",")
    };
    let all: Vec<_> = urls.iter().enumerate().map(each).collect();
    for (member, [listen, told]) in urls.iter().enumerate() {
        cluster.process(member).signal(Signal::KILL);
        cluster.ended(member).await;
        std::fs::remove_dir_all(cluster.data(member)).unwrap();
        let process = cluster.process(member);
        process.set_flag("listen-peer-urls", listen);
        process.set_flag("initial-advertise-peer-urls", told);
        process.set_flag("initial-cluster", &all.join(","));
    }
    for member in 0..3 {
        cluster.spawn(member);
    }
    for member in 0..3 {
        cluster.serves(member).await;
    }
    for member in 0..3 {
        cluster.let_lead(member).await;
        cluster.put(member, PutRequest { key: format!("k{member}").into(), ..PutRequest::default() }).await;
    }
    cluster.agree().await;
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_reach_each_other_through_unix_sockets() {
    let socket = |cluster: &Cluster, member: usize| {
        let path = cluster.data(member).with_extension("sock");
        let url = format!("unix://{}", path.display());
        [url.clone(), url]
    };
    let cluster = with_urls(socket).await;
    for member in cluster.members(0).await {
        assert!(member.peer_ur_ls[0].starts_with("unix://"), "{member:?}");
    }
}

/// Two ports, of which each member is reached at another one: one that didn't listen at both would be alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_listens_at_several_peer_urls() {
    let two = |_: &Cluster, member: usize| {
        let urls = [ports::free(), ports::free()].map(|port| format!("http://127.0.0.1:{port}"));
        [urls.join(","), urls[member % 2].clone()]
    };
    drop(with_urls(two).await);
}

/// The first of a member's URLs leads nowhere; the second one does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_reached_at_the_second_of_its_urls() {
    let dead_first = |_: &Cluster, _: usize| {
        let [dead, own] = [ports::free(), ports::free()].map(|port| format!("http://127.0.0.1:{port}"));
        [own.clone(), format!("{dead},{own}")]
    };
    let cluster = with_urls(dead_first).await;
    assert!(cluster.members(0).await.iter().all(|member| member.peer_ur_ls.len() == 2));
}

/// Whoever takes this member for another one, or for one of another cluster, is told so and changes nothing: a vote or an
/// entry of a cluster that once had this address would be another history.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_for_another_cluster_or_member_are_refused() {
    let mut cluster = Cluster::rusd(3, &CALM).await;
    let leader = cluster.leader().await;
    let header = cluster.status_of(leader).await.header.unwrap();
    let from = cluster.id((leader + 1) % 3).await;
    let url = cluster.process(leader).flag("listen-peer-urls").to_owned();
    let mut peer = PeerClient::new(Endpoint::from_shared(url).unwrap().connect().await.unwrap());
    let ids = |names: [Option<u64>; 3], request: &mut tonic::metadata::MetadataMap| {
        for (name, id) in ["rusd-cluster", "rusd-to", "rusd-from"].into_iter().zip(names) {
            if let Some(id) = id {
                request.insert(name, format!("{id:x}").parse().unwrap());
            }
        }
    };
    let (own, to) = (Some(header.cluster_id), Some(header.member_id));
    let wrong = [
        ([Some(header.cluster_id ^ 1), to, Some(from)], "cluster ID mismatch"),
        ([None, to, Some(from)], "cluster ID mismatch"),
        ([own, Some(from), Some(from)], "member ID mismatch"),
        ([own, None, Some(from)], "member ID mismatch"),
        ([own, to, None], "no member ID"),
    ];
    for (names, says) in wrong {
        let mut vote = Request::new(VoteRequest::default());
        ids(names, vote.metadata_mut());
        let mut beat = Request::new(AppendRequest::default());
        ids(names, beat.metadata_mut());
        for refused in [peer.vote(vote).await.map(drop), peer.heartbeat(beat).await.map(drop)] {
            let refused = refused.unwrap_err();
            assert!(refused.code() == Code::FailedPrecondition && refused.message().contains(says), "{refused:?}");
        }
    }
    let now = cluster.status_of(leader).await;
    assert_eq!((now.leader, now.raft_term), (header.member_id, header.raft_term), "nothing has come of it");
}
