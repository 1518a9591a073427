//! What was taken over is compared with the source by etcd's own hash.

use std::time::Duration;

use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use tempfile::TempDir;

use crate::Tools;
use crate::fill::fill;
use crate::live::wait_for;
use crate::member::{Member, Place, must, run, rusd, words};

async fn put(member: &Member, key: &str, value: &str) -> bool {
    let put = pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() };
    KvClient::new(member.channel()).put(put).await.is_ok()
}

/// Two that answer for each other and aren't the same, as members of a cluster that has diverged: the follower's
/// watch goes on at the second one, which has as many revisions, and another value in one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_differs_is_not_taken_over() {
    let Some(tools) = Tools::find("a_source_that_differs_is_not_taken_over") else { return };
    let dir = TempDir::new().unwrap();
    let mut sources = Vec::new();
    for name in ["one", "two"] {
        let (place, data) = (Place::free(), dir.path().join(name));
        let etcd =
            Member::start(&tools.etcd, place, &place.flags(&data), &dir.path().join(format!("{name}.log"))).await;
        assert!(put(&etcd, "a", "same").await && put(&etcd, "b", name).await && put(&etcd, "c", "same").await);
        sources.push((etcd, place));
    }
    let (to, moved) = (Place::free(), dir.path().join("rusd"));
    let from = format!("{},{}", sources[0].1.client(), sources[1].1.client());
    let mut follow = words(&format!("import --from {from}"));
    follow.extend(to.flags(&moved));
    let log = dir.path().join("rusd.log");
    let mut follower = Member::spawn(&rusd(), to, &follow, &log);
    wait_for(&log, "following its changes").await;
    let (two, _) = sources.pop().unwrap();
    let (one, _) = sources.pop().unwrap();
    drop(one);
    wait_for(&log, "will go on where it stood").await;
    // Its watch stands at the other one when this comes.
    assert!(put(&two, "d", "1").await);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let take_over = words(&format!("import take-over --data-dir {}", moved.display()));
    let refused = run(&rusd(), &take_over);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("the source's HashKV is"), "{said}");
    assert!(!moved.join("member").exists(), "nothing was made");
    assert!(put(&two, "e", "1").await, "it may be written to again");
    assert!(follower.child.try_wait().unwrap().is_none(), "it follows on");
}

/// A restore that skips revisions leaves a mark in etcd's database, which is no record and is counted by its HashKV.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_with_skipped_revisions_compares_equal() {
    let Some(tools) = Tools::find("a_source_with_skipped_revisions_compares_equal") else { return };
    let dir = TempDir::new().unwrap();
    let (place, data) = (Place::free(), dir.path().join("etcd"));
    let log = dir.path().join("etcd.log");
    let mut etcd = Member::start(&tools.etcd, place, &place.flags(&data), &log).await;
    fill(&etcd, false).await;
    for round in ["first", "second"] {
        let file = dir.path().join(format!("{round}.db"));
        must(&rusd(), &words(&format!("snapshot save {} --endpoints 127.0.0.1:{}", file.display(), etcd.port)));
        etcd.end();
        let data = dir.path().join(round);
        let mut restore = words(&format!("snapshot restore {} --bump-revision 1000 --mark-compacted", file.display()));
        restore.extend(place.identity(&data));
        must(&tools.etcdutl, &restore);
        etcd = Member::start(&tools.etcd, place, &place.flags(&data), &log).await;
        assert!(put(&etcd, "k5", round).await);
    }
    for compacted in [false, true] {
        if compacted {
            let last = etcd.hash_kv(None).await.1;
            let compact = pb::CompactionRequest { revision: last, physical: true };
            KvClient::new(etcd.channel()).compact(compact).await.unwrap();
        }
        let (to, moved) = (Place::free(), dir.path().join(format!("rusd-{compacted}")));
        let mut follow = words(&format!("import --from {}", place.client()));
        follow.extend(to.flags(&moved));
        let log = dir.path().join(format!("rusd-{compacted}.log"));
        let mut follower = Member::spawn(&rusd(), to, &follow, &log);
        wait_for(&log, "following its changes").await;
        must(&rusd(), &words(&format!("import take-over --data-dir {}", moved.display())));
        assert!(follower.child.wait().unwrap().success(), "{}", follower.log());
        assert!(std::fs::read_to_string(&log).unwrap().contains("same HashKV as the source"), "{}", follower.log());
        must(&tools.etcdctl, &words(&format!("--endpoints=127.0.0.1:{} alarm disarm", etcd.port)));
    }
}
