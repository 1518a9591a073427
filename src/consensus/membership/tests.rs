//! Changes on a node of one, over a disk in memory: what costs no quorum, what is remembered.

use super::{MemberChange, MemberRecord};
use crate::consensus::Node;
use crate::consensus::tests::{put, start};
use crate::env::{CrashStyle, MemDisk};
use crate::types::{MemberId, RequestError};

fn add(id: u64, learner: bool) -> MemberChange {
    MemberChange::Add { id: MemberId(id), peer_urls: vec![format!("http://127.0.0.1:{id}")], learner }
}

fn remove(id: u64) -> MemberChange {
    MemberChange::Remove { id: MemberId(id) }
}

fn ids(members: &[MemberRecord]) -> Vec<u64> {
    members.iter().map(|member| member.id.get()).collect()
}

/// The member list as the node shows it, once it shows `expected`.
async fn shows(node: &Node, expected: &[u64]) -> Vec<MemberRecord> {
    loop {
        let members = node.members();
        if ids(&members) == expected {
            return members;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_member_that_never_starts_costs_no_quorum() {
    let node = start(&MemDisk::new()).await;
    let members = node.change_members(add(2, false)).await.expect("added");
    assert_eq!(ids(&members), [1, 2]);
    assert!(!members[1].is_learner, "it was added to vote");
    put(&node, "a").await.expect("one voter is a quorum");
    assert_eq!(node.change_members(add(3, false)).await, Err(RequestError::NotEnoughStartedMembers));
    assert_eq!(ids(&node.change_members(remove(2)).await.expect("removed")), [1]);
    put(&node, "b").await.expect("still a quorum");
}

#[tokio::test]
async fn removed_ids_are_remembered_over_a_power_cut() {
    let disk = MemDisk::new();
    let node = start(&disk).await;
    node.change_members(add(2, true)).await.expect("added");
    node.change_members(remove(2)).await.expect("removed");
    assert!(node.status().is_removed(MemberId(2)));
    assert_eq!(node.change_members(add(2, true)).await, Err(RequestError::MemberNotFound));
    let after = disk.fork();
    after.crash(CrashStyle::LoseAll);
    node.shutdown().await.expect("an orderly end");
    let node = start(&after).await;
    assert!(node.status().is_removed(MemberId(2)));
    assert_eq!(node.change_members(remove(2)).await, Err(RequestError::MemberNotFound));
}

#[tokio::test]
async fn what_a_member_says_of_itself_is_shown() {
    let node = start(&MemDisk::new()).await;
    let publish = |name: &str| MemberChange::Publish {
        id: MemberId(1),
        name: name.to_owned(),
        client_urls: vec!["http://127.0.0.1:9".to_owned()],
    };
    let members = node.change_members(publish("new")).await.expect("published");
    assert_eq!((members[0].name.as_str(), members[0].client_urls.len()), ("new", 1));
    assert_eq!(shows(&node, &[1]).await, members);
    let update = MemberChange::Update { id: MemberId(1), peer_urls: vec!["http://127.0.0.1:8".to_owned()] };
    let members = node.change_members(update).await.expect("updated");
    assert_eq!((members[0].name.as_str(), members[0].peer_urls[0].as_str()), ("new", "http://127.0.0.1:8"));
}

#[tokio::test]
async fn many_changes_at_once_are_made_one_after_the_other() {
    let node = start(&MemDisk::new()).await;
    let name = |at: u64| MemberChange::Publish { id: MemberId(1), name: format!("n{at}"), client_urls: vec![] };
    let all = futures::future::join_all((0..20).map(|at| node.change_members(name(at)))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
}

#[tokio::test]
async fn leadership_goes_to_voters_only() {
    let node = start(&MemDisk::new()).await;
    node.change_members(add(2, false)).await.expect("added");
    let transfer = |id: u64| node.transfer_leader(MemberId(id));
    assert_eq!(transfer(1).await, Ok(()));
    assert_eq!(transfer(2).await, Err(RequestError::BadLeaderTransferee), "it has no vote yet");
    assert_eq!(transfer(9).await, Err(RequestError::BadLeaderTransferee));
}
