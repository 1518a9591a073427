//! The disk has no room left: writes are refused in etcd's words, everything else goes on, and with
//! room again so do writes.

use std::time::{Duration, Instant};

use rusd_proto::etcdserverpb::DeleteRangeRequest;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use tonic::Code;
use tonic::transport::Channel;

use crate::check::check;
use crate::client::prefix_end;
use crate::history::History;
use crate::ledger::Ledger;
use crate::load::Load;
use crate::member::Member;
use crate::settings;
use crate::volume::Volume;

const WORKERS: usize = 6;
const VALUE_BYTES: usize = 400_000;
const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";
const WAIT_MAX: Duration = Duration::from_secs(60);

struct Rig {
    // Ended before its disk is taken away.
    member: Member,
    volume: Volume,
    load: Load,
    history: History,
}

impl Rig {
    fn new(volume: Volume, backend: &str) -> Self {
        let member = Member::new(&volume.path().join("data"), &volume.beside("log"), &settings::plain(backend));
        Self { member, volume, load: Load::new(settings::seed(), WORKERS), history: History::default() }
    }

    /// Lets the workers write until the ledger is as it should become.
    async fn load_until(&mut self, channel: &Channel, what: &str, is_so: impl Fn(&Ledger) -> bool) {
        let begun = Instant::now();
        let running = self.load.start(channel, &self.history);
        while !is_so(&self.load.ledger.lock().unwrap()) {
            assert!(!running.is_over(), "the workers gave up: {what}\n{}", self.member.log_tail());
            assert!(begun.elapsed() < WAIT_MAX, "not within {WAIT_MAX:?}: {what}\n{}", self.member.log_tail());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.load.finish(running).await;
    }

    async fn check(&self, channel: &Channel, follower: &tokio::task::JoinHandle<()>) {
        let ledger = std::mem::take(&mut *self.load.ledger.lock().unwrap());
        check(channel, &ledger, &self.history, follower).await;
        assert!(ledger.refusals.keys().all(|text| text == NO_SPACE), "{:?}", ledger.refusals);
        *self.load.ledger.lock().unwrap() = ledger;
    }
}

async fn full(volume: Volume, backend: &str) {
    let begun = Instant::now();
    let mut rig = Rig::new(volume, backend);
    let follower = rig.history.follow(rig.member.url());
    let mut channel = rig.member.start().await;
    rig.load_until(&channel, "writes on an empty disk", |ledger| ledger.acknowledged() > 100).await;

    rig.volume.fill_up_to(24 << 10);
    rig.load.value_bytes = Some(VALUE_BYTES);
    rig.load_until(&channel, "refusals on a full disk", |ledger| ledger.refusals.values().sum::<usize>() > 50).await;
    let refused_after = rig.load.ledger.lock().unwrap().acknowledged();
    rig.check(&channel, &follower).await;

    // What frees room is taken, full or not.
    let range_end = prefix_end("none/");
    let delete = DeleteRangeRequest { key: "none/".into(), range_end, ..DeleteRangeRequest::default() };
    KvClient::new(channel.clone()).delete_range(delete).await.expect("a delete");

    rig.member.kill();
    channel = rig.member.start().await;
    rig.check(&channel, &follower).await;

    rig.volume.make_room();
    rig.load.value_bytes = None;
    rig.load_until(&channel, "writes with room again", |ledger| ledger.acknowledged() > refused_after + 100).await;
    rig.check(&channel, &follower).await;
    rig.member.kill();
    channel = rig.member.start().await;
    rig.check(&channel, &follower).await;
    follower.abort();
    println!("SUMMARY full disk {backend}: {refused_after} writes before it, {:.1} s", begun.elapsed().as_secs_f64());
}

/// Something else takes the disk's last byte at once, in the middle of the load: neither the engine's
/// nor the log's reserve is left. With room again it goes on by itself.
async fn brimful(volume: Volume, backend: &str) {
    let begun = Instant::now();
    let mut rig = Rig::new(volume, backend);
    let follower = rig.history.follow(rig.member.url());
    let mut channel = rig.member.start().await;
    rig.load_until(&channel, "writes on an empty disk", |ledger| ledger.acknowledged() > 100).await;

    let running = rig.load.start(&channel, &rig.history);
    tokio::time::sleep(Duration::from_millis(200)).await;
    rig.volume.fill();
    tokio::time::sleep(Duration::from_millis(300)).await;
    rig.load.finish(running).await;
    rig.load_until(&channel, "refusals on a full disk", |ledger| ledger.refusals.values().sum::<usize>() > 50).await;
    let refused_after = rig.load.ledger.lock().unwrap().acknowledged();
    rig.check(&channel, &follower).await;

    // What takes nothing from the state goes on until the log's file is full as well: then it is told so.
    let mut client = KvClient::new(channel.clone());
    let mut taken = 0;
    let refusal = loop {
        let key = vec![b'n'; 1 << 20].into();
        match client.delete_range(DeleteRangeRequest { key, ..DeleteRangeRequest::default() }).await {
            Ok(_) => taken += 1,
            Err(refusal) => break refusal,
        }
        assert!(taken < 200, "{taken} MiB of log on a full disk");
    };
    let told = matches!(refusal.code(), Code::ResourceExhausted | Code::Unavailable | Code::DeadlineExceeded);
    assert!(told && !refusal.message().is_empty(), "{refusal:?}");
    println!("brimful {backend}: {taken} deletes of 1 MiB, then {:?}: {}", refusal.code(), refusal.message());
    rig.check(&channel, &follower).await;
    // A restart serves what is there, or, where an engine can't be opened without a byte, says what to do.
    rig.member.kill();
    rig.member.spawn();
    match rig.member.ready_or_ended().await {
        Ok(serves) => {
            channel = serves;
            rig.check(&channel, &follower).await;
            rig.volume.make_room();
        }
        Err(status) => {
            let log = rig.member.log();
            assert!(!status.success() && log.contains("make room on that disk and start again"), "{status}\n{log}");
            rig.volume.make_room();
            channel = rig.member.start().await;
        }
    }
    rig.load_until(&channel, "writes with room again", |ledger| ledger.acknowledged() > refused_after + 100).await;
    rig.check(&channel, &follower).await;
    assert!(!rig.member.log().contains("panicked"), "{}", rig.member.log_tail());
    rig.member.kill();
    channel = rig.member.start().await;
    rig.check(&channel, &follower).await;
    follower.abort();
    println!("SUMMARY brimful {backend}: {refused_after} writes before it, {:.1} s", begun.elapsed().as_secs_f64());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ext4_without_a_byte_left_refuses_writes_until_there_is_room() {
    for backend in settings::backends() {
        let name = "an_ext4_without_a_byte_left_refuses_writes_until_there_is_room";
        let Some(volume) = Volume::ext4(400, name) else { return };
        brimful(volume, &backend).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tmpfs_without_a_byte_left_refuses_writes_until_there_is_room() {
    for backend in settings::backends() {
        let name = "a_tmpfs_without_a_byte_left_refuses_writes_until_there_is_room";
        let Some(volume) = Volume::tmpfs(400, name) else { return };
        brimful(volume, &backend).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_ext4_refuses_writes_until_there_is_room() {
    for backend in settings::backends() {
        let Some(volume) = Volume::ext4(400, "a_full_ext4_refuses_writes_until_there_is_room") else { return };
        full(volume, &backend).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_tmpfs_refuses_writes_until_there_is_room() {
    for backend in settings::backends() {
        let Some(volume) = Volume::tmpfs(400, "a_full_tmpfs_refuses_writes_until_there_is_room") else { return };
        full(volume, &backend).await;
    }
}
