//! Members in network namespaces, and a wire that breaks: wholly, in one direction, between a majority and the rest.
//!
//! What `cut_off.rs` tries with proxies, which hold bytes, here with packets that are lost: what was under way is not
//! delivered late but repeated or given up, and connections hang until someone notices.

use std::time::Duration;

use crate::cluster::{CALM, Cluster, Setup};
use crate::namespaces::Namespaces;
use crate::run::Run;
use crate::settings::rounds_or;

async fn start(name: &'static str, members: usize) -> Option<Run> {
    let space = Namespaces::new(members, name)?;
    Some(Run::of(name, Setup { space: Some(space), ..Setup::rusd(members, &CALM) }).await)
}

fn space(run: &Run) -> &Namespaces {
    run.cluster.space.as_ref().expect("they have one")
}

fn others(run: &Run, member: usize) -> impl Iterator<Item = usize> {
    (0..run.cluster.len()).filter(move |other| *other != member)
}

async fn term(cluster: &Cluster, member: usize) -> u64 {
    cluster.status_of(member).await.raft_term
}

/// The leader, then a follower: its wire breaks in both directions, in one, in the other; then its cable is pulled, for
/// clients as well. The rest goes on each time; after the mending all serve, and nobody is deposed by the one that comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_is_cut_off_in_namespaces() {
    let Some(mut run) = start("one of three cut off", 3).await else { return };
    for _ in 0..rounds_or(1, 5) {
        for leads in [true, false] {
            for way in ["both", "deaf", "mute", "cable"] {
                let leader = run.cluster.leader().await;
                let cut = if leads { leader } else { (leader + 1) % 3 };
                println!("  m{cut} (leads: {leads}): {way}");
                match way {
                    "both" => space(&run).split(&[cut]),
                    "deaf" => others(&run, cut).for_each(|other| space(&run).cut(other, cut)),
                    "mute" => others(&run, cut).for_each(|other| space(&run).cut(cut, other)),
                    _ => space(&run).plug(cut, false),
                }
                let leader = if leads { run.cluster.leader_but(Some(cut)).await } else { leader };
                run.load.goes_on(50).await;
                // One that doesn't lead has time to ask for votes; one that did had it while another one was elected.
                tokio::time::sleep(Duration::from_secs(if leads { 1 } else { 6 })).await;
                let before = term(&run.cluster, leader).await;
                space(&run).heal();
                space(&run).plug(cut, true);
                run.cluster.serves(cut).await;
                run.load.goes_on(100).await;
                assert_eq!(term(&run.cluster, leader).await, before, "the one that comes back deposes nobody");
            }
        }
    }
    run.finish().await;
}

/// Five members, split into three and two, the leader once with the three, once with the two; then into two, two and one,
/// where nobody has a majority: nothing is written until the wire is mended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_are_split_in_namespaces() {
    let Some(mut run) = start("five split", 5).await else { return };
    for _ in 0..rounds_or(1, 5) {
        for with_majority in [true, false] {
            let leader = run.cluster.leader().await;
            let place = |steps: usize| (leader + steps) % 5;
            let few = if with_majority { [place(1), place(2)] } else { [leader, place(1)] };
            println!("  {few:?} alone, the leader was m{leader}");
            space(&run).split(&few);
            let led = if with_majority { leader } else { run.cluster.leader_but(Some(leader)).await };
            assert!(!few.contains(&led), "a leader of two of five");
            run.load.goes_on(100).await;
            space(&run).heal();
            for member in few {
                run.cluster.serves(member).await;
            }
            run.load.goes_on(100).await;
        }
        println!("  two, two and one");
        let leader = run.cluster.leader().await;
        let place = |steps: usize| (leader + steps) % 5;
        space(&run).split(&[leader, place(1)]);
        space(&run).split(&[place(2), place(3)]);
        // What was agreed upon before the cut may still be told.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let before = run.load.acknowledged();
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(run.load.acknowledged(), before, "nobody has a majority");
        space(&run).heal();
        for member in 0..5 {
            run.cluster.serves(member).await;
        }
        run.load.goes_on(100).await;
    }
    run.finish().await;
}
