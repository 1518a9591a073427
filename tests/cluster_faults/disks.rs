//! One member's disk: no room is left on it, or its power is cut, while the others go on.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rusd_proto::etcdserverpb::DeleteRangeRequest;
use rusd_proto::etcdserverpb::kv_client::KvClient;

use crate::cluster::{COMES_MAX, Setup};
use crate::run::Run;
use crate::settings::{self, rounds_or};
use crate::volume::Volume;

/// The member that has a disk of its own.
const AT: usize = 0;

/// Snapshots and purges all the time.
const EAGER: [&str; 3] = ["--snapshot-count=60", "--snapshot-log-mb=0", "--snapshot-catchup-entries=20"];

/// What a member says of its disk; of its log's, it says it in other words.
const NEARLY_FULL: &str = "the disk is nearly full";
const ROOM_AGAIN: &str = "\"the disk has room again";

/// Records of 1 MiB that fill what the log has laid aside: two segments, and some more.
const RECORDS: usize = 150;

async fn start(name: &'static str, volume: &Volume, flags: &[&str]) -> Run {
    let mut setup = Setup::rusd(3, flags);
    setup.data[AT] = Some(volume.path().join("data"));
    Run::of(name, setup).await
}

/// Has the member with the disk lead, or another one.
async fn let_lead(run: &Run, leads: bool) {
    if leads {
        run.cluster.let_lead(AT).await;
    } else if run.cluster.leader().await == AT {
        run.cluster.let_lead(AT + 1).await;
    }
}

/// Makes the log longer, and nothing else.
async fn lengthen_the_log(run: &Run) {
    let mut kv = KvClient::new(run.cluster.channel(AT + 1));
    for _ in 0..RECORDS {
        let delete = DeleteRangeRequest { key: vec![b'n'; 1 << 20].into(), ..DeleteRangeRequest::default() };
        // It may not be answered in time on a busy machine; it is in the log all the same.
        let _ = kv.delete_range(delete).await;
    }
}

async fn applied(run: &Run, member: usize) -> u64 {
    run.cluster.status(member).await.map_or(0, |status| status.raft_applied_index)
}

/// The last byte of one member's disk is taken under load; first it follows, then it leads. A leader whose disk is full
/// hands over, as its log is on the way of every write. The others go on, for longer than its log has room; it says
/// what is wrong, and catches up when there is room again, by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_members_disk_is_full() {
    let rounds = rounds_or(1, 3);
    // Room in the end for all that the log is lengthened by, and for what a member wants to be free.
    let Some(volume) = Volume::ext4((260 + 340 * rounds).into(), "one_members_disk_is_full") else { return };
    let run = start("one disk full", &volume, &[]).await;
    for round in 0..rounds {
        for leads in [false, true] {
            let_lead(&run, leads).await;
            run.load.goes_on(50).await;
            let says = |what: &str| run.cluster.log(AT).matches(what).count();
            let before = says(NEARLY_FULL);
            volume.fill();
            if leads {
                let next = run.cluster.leader_but(Some(AT)).await;
                println!("  m{next} leads from now on");
            }
            run.load.goes_on(100).await;
            lengthen_the_log(&run).await;
            run.load.goes_on(100).await;
            assert_ne!(run.cluster.leader().await, AT, "it has no room");
            let (own, others) = (applied(&run, AT).await, applied(&run, AT + 1).await);
            println!("  round {round}, led: {leads}: it has applied {own}, the others {others}");
            assert!(own < others, "its log was never full");
            assert!(says(NEARLY_FULL) > before, "no word of it this time");
            volume.make_room();
            catches_up(&run, others).await;
            // Room is taken to be there after two seconds of it; before, there would be nothing new to say.
            let begun = Instant::now();
            while says(ROOM_AGAIN) < says(NEARLY_FULL) {
                assert!(begun.elapsed() < COMES_MAX, "no word of the room\n{}", run.cluster.log(AT));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            run.load.goes_on(50).await;
        }
    }
    run.finish().await;
}

async fn catches_up(run: &Run, index: u64) {
    let begun = Instant::now();
    while applied(run, AT).await < index {
        assert!(begun.elapsed() < COMES_MAX, "it doesn't catch up");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The power of one member is cut under load, of the leader and of a follower in turn, now and then while it starts:
/// what it hadn't synced is gone. It ends with a word of its disk; the others go on; with the power back it has all that
/// it ever said it has, and catches up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_members_power_is_cut() {
    let Some(mut volume) = Volume::ext4(1024, "one_members_power_is_cut") else { return };
    let mut run = start("one power cut", &volume, &EAGER).await;
    let mut rng = StdRng::seed_from_u64(settings::seed());
    let mut cuts = 0;
    for round in 0..rounds_or(3, 30) {
        let_lead(&run, round % 2 == 0).await;
        run.load.goes_on(rng.random_range(10..100)).await;
        volume.power_cut();
        cuts += 1;
        let status = run.cluster.ended(AT).await;
        assert_eq!(status.code(), Some(1), "{status}");
        assert!(run.cluster.log(AT).contains("Input/output error"), "no word of the disk");
        run.cluster.leader_but(Some(AT)).await;
        run.load.goes_on(rng.random_range(20..150)).await;
        volume.power_on();
        while rng.random_range(0..3) == 0 {
            run.cluster.spawn(AT);
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..600))).await;
            volume.power_cut();
            cuts += 1;
            run.cluster.kill(AT);
            volume.power_on();
        }
        run.cluster.restart(AT).await;
        run.load.goes_on(20).await;
    }
    println!("  {cuts} cuts");
    run.finish().await;
}
