//! What a StatefulSet goes through: nothing that was acknowledged is lost by any of it.

use std::fs;
use std::time::{Duration, Instant};

use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::{PutRequest, RangeRequest};
use serde_json::Value;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::set::{PATIENCE, Set};

const WAITING: &str = "waiting for these pods";
const SET_ASIDE: &str = "this member was removed and its data set aside";

async fn connect(set: &Set, at: u8) -> Channel {
    let endpoint = Endpoint::from_shared(set.client(at)).expect("a URL");
    endpoint.timeout(Duration::from_secs(20)).connect().await.expect("it serves")
}

/// What a call is answered with in the end: the pod that ended last may have led, and whoever asks meanwhile isn't told what
/// became of it.
async fn answered<T>(what: &str, mut ask: impl AsyncFnMut() -> Result<T, Status>) -> T {
    let begun = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(status) => assert!(begun.elapsed() < PATIENCE, "{what}: {status}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn put(set: &Set, at: u8, key: &str) {
    let client = KvClient::new(connect(set, at).await);
    let put = PutRequest { key: key.as_bytes().to_vec().into(), value: b"v".to_vec().into(), ..Default::default() };
    answered(key, async || client.clone().put(put.clone()).await).await;
}

/// Whether all of them are there.
async fn has(set: &Set, at: u8, keys: &[&str]) {
    let client = KvClient::new(connect(set, at).await);
    for key in keys {
        let range = RangeRequest { key: key.as_bytes().to_vec().into(), ..Default::default() };
        let answer = answered(key, async || client.clone().range(range.clone()).await).await.into_inner();
        assert_eq!(answer.count, 1, "{key} at pod {at}");
    }
}

/// Has the set shrunk to three. Which of them it says that it has removed is left open: the answer to a removal may be lost.
fn shrink(set: &Set) {
    let output = set.run("pod shrink --set=rusd --replicas=3");
    assert!(output.status.success(), "{output:?}");
    let names = names(&set.well(3));
    assert_eq!(names, ["rusd-0", "rusd-1", "rusd-2"], "{output:?}");
}

fn names(status: &Value) -> Vec<String> {
    let rows = status["members"].as_array().expect("members");
    let mut names: Vec<_> = rows.iter().map(|row| row["name"].as_str().expect("a name").to_owned()).collect();
    names.sort();
    names
}

fn id(status: &Value, name: &str) -> String {
    let rows = status["members"].as_array().expect("members");
    let row = rows.iter().find(|row| row["name"] == name).expect("this one");
    row["id"].as_str().expect("an id").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_begins_loses_a_volume_grows_shrinks_and_rolls() {
    let Some(mut set) = Set::new("pods") else { return };
    // Two of three begin nothing, live, and aren't ready.
    set.start(0, 3, &[]);
    set.start(1, 3, &[]);
    set.says(0, WAITING, 0);
    set.says(1, WAITING, 0);
    std::thread::sleep(Duration::from_secs(3));
    assert!(!set.volume(0).join("data").exists() && !set.volume(0).join("data.agreed").exists());
    assert_eq!((set.page(0, "/livez"), set.page(0, "/readyz")), (Some(200), Some(503)));
    set.start(2, 3, &[]);
    let first = set.well(3);
    put(&set, 0, "a").await;

    // A node is lost with its volume: the pod comes back as another member.
    set.kill(1);
    put(&set, 0, "b").await;
    fs::remove_dir_all(set.volume(1)).expect("removed");
    set.start(1, 3, &[]);
    set.says(1, "this pod's volume is empty", 0);
    let second = set.well(3);
    assert_ne!(id(&first, "rusd-1"), id(&second, "rusd-1"));
    assert_eq!(id(&first, "rusd-2"), id(&second, "rusd-2"));
    has(&set, 1, &["a", "b"]).await;

    // Two more at once: one after the other learns, then votes.
    set.start(3, 5, &["--rejoin-after=1h"]);
    set.start(4, 5, &["--rejoin-after=1h"]);
    set.well(5);
    put(&set, 4, "c").await;

    // Both are removed before they go; then only is the set smaller.
    shrink(&set);
    for at in [3, 4] {
        set.says(at, SET_ASIDE, 0);
        assert!(set.volume(at).join("data.removed").exists() && !set.volume(at).join("data").exists());
        set.stop(at);
    }
    set.well(3);
    // A pod that is started once more before it goes doesn't come back.
    set.start(4, 3, &[]);
    set.says(4, "one too many", 0);
    set.stop(4);
    let output = set.run("pod shrink --set=rusd --replicas=3");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "no member of rusd is beyond 3 replicas\n", "{output:?}");

    // One after the other is started again; what they have stays what it is.
    for at in [2, 1, 0] {
        set.stop(at);
        put(&set, (at + 1) % 3, &format!("roll-{at}")).await;
        set.start(at, 3, &[]);
        set.well(3);
    }
    let last = set.status("");
    for at in 0..3 {
        assert_eq!(id(&second, &format!("rusd-{at}")), id(&last, &format!("rusd-{at}")));
        has(&set, at, &["a", "b", "c", "roll-0", "roll-1", "roll-2"]).await;
    }

    // The set grows again onto a volume that was kept.
    set.start(3, 5, &["--rejoin-after=1h"]);
    set.well(4);
    has(&set, 3, &["a", "roll-0"]).await;

    // One that ended before it heard that it was removed learns of it by its next start: it is wanted, and doesn't wait.
    set.kill(3);
    shrink(&set);
    assert!(set.volume(3).join("data").exists());
    set.start(3, 5, &["--rejoin-after=1h"]);
    set.ended(3);
    set.start(3, 5, &["--rejoin-after=1h"]);
    set.well(4);

    // A member that is removed while its pod stays comes back by itself, as a new one.
    set.stop(3);
    set.start(3, 5, &["--rejoin-after=100ms"]);
    set.well(4);
    let output = set.run("pod shrink --set=rusd --replicas=3");
    assert!(output.status.success(), "{output:?}");
    set.says(3, SET_ASIDE, 2);
    set.ended(3);
    set.start(3, 5, &["--rejoin-after=1h"]);
    set.well(4);
}

/// The chart's README, "Disaster", with a survivor that isn't ordinal 0.
#[tokio::test(flavor = "multi_thread")]
async fn a_survivor_of_another_ordinal_begins_anew_and_grows() {
    let Some(mut set) = Set::new("pods") else { return };
    for at in 0..3 {
        set.start(at, 3, &[]);
    }
    let before = set.well(3);
    put(&set, 2, "kept").await;
    for at in 0..3 {
        set.kill(at);
    }
    for at in [0, 1] {
        fs::remove_dir_all(set.volume(at)).expect("removed");
    }
    fs::rename(set.volume(2), set.volume(0)).expect("bound to the first claim");
    set.start(0, 1, &["--force-new-cluster"]);
    let alone = set.well(1);
    assert_eq!(id(&alone, "rusd-0"), id(&before, "rusd-2"), "the survivor, under the name of its pod");
    set.stop(0);
    set.start(0, 1, &[]);
    set.well(1);
    has(&set, 0, &["kept"]).await;
    // The set that is one pod large keeps the member that ran as the third.
    let output = set.run("pod shrink --set=rusd --replicas=1");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "no member of rusd is beyond 1 replicas\n", "{output:?}");
    for at in [1, 2] {
        set.start(at, 3, &[]);
    }
    let grown = set.well(3);
    assert_eq!(id(&grown, "rusd-0"), id(&before, "rusd-2"), "pod 2 left it in peace");
    for at in 0..3 {
        has(&set, at, &["kept"]).await;
    }
}

/// A member whose peer URL is another pod's still: that pod removes nobody, and says what to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_removes_nobody_who_runs_as_its_sibling() {
    let Some(mut set) = Set::new("pods") else { return };
    set.start(2, 3, &[]);
    set.start(1, 3, &[]);
    set.start(0, 3, &[]);
    let survivor = id(&set.well(3), "rusd-2");
    // Without being forced: the volume of the third goes to a pod of another name, which has lost its own.
    for at in [0, 2] {
        set.kill(at);
    }
    fs::remove_dir_all(set.volume(0)).expect("removed");
    fs::rename(set.volume(2), set.volume(0)).expect("bound to the first claim");
    set.start(0, 3, &[]);
    // It tells its name by a write, so first it leads: nobody reaches it where its row says.
    let is_told = |status: &Value| {
        status["members"]
            .as_array()
            .is_some_and(|rows| rows.iter().any(|row| row["id"] == survivor && row["name"] == "rusd-0"))
    };
    let begun = Instant::now();
    while !is_told(&set.status("")) {
        assert!(begun.elapsed() < PATIENCE, "it doesn't tell its name: {:#}\n{}", set.status(""), set.logged(0));
        std::thread::sleep(Duration::from_millis(300));
    }
    set.start(2, 3, &[]);
    set.says(2, "runs as pod 0, but is to be reached at this pod's peer URL", 0);
    set.says(2, "etcdctl member update", 0);
    assert!(is_told(&set.status("")), "it is still there: {:#}", set.status(""));
}

/// Cause: a controller that replaces a set's highest pod waits for nobody below it. Symptom: an upgrade while pod 0's node was lost
/// took pod 2 as well, and two of three were gone.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_is_held_while_a_lower_member_is_missing() {
    let Some(mut set) = Set::new("pods") else { return };
    for at in 0..3 {
        set.start(at, 3, &[]);
    }
    set.well(3);
    let hook = "pod shrink --set=rusd --replicas=3 --replicas-before=3 --timeout=15s --dial-timeout=1s";
    set.kill(0);
    // Once the other two have a leader, if that was it.
    put(&set, 1, "a").await;
    let output = set.run(hook);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said.contains("rusd-0 doesn't answer") && said.contains("--no-hooks"), "{said}");
    set.start(0, 3, &[]);
    set.well(3);
    // The highest is replaced first anyhow: what mends it goes through. And without a majority there is none to lose.
    for at in [2, 1] {
        set.kill(at);
        let output = set.run(hook);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "no member of rusd is beyond 3 replicas\n");
    }
}

#[test]
fn silence_is_an_error_only_if_pods_are_to_go() {
    let Some(set) = Set::new("pods") else { return };
    let shrink = "pod shrink --set=rusd --replicas=3 --timeout=1s --dial-timeout=200ms --command-timeout=200ms";
    let output = set.run(&format!("{shrink} --replicas-before=5"));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("about to lose pods: nothing was removed"), "{output:?}");
    for before in ["", " --replicas-before=3", " --replicas-before=1"] {
        let output = set.run(&format!("{shrink}{before}"));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "no member of rusd answers: nothing was removed\n");
        assert!(output.status.success(), "{output:?}");
    }
    // The certificate never came: the upgrade that asks for it must not be kept from doing so.
    for (before, code, said) in [("3", 0, "can be asked: nothing was removed"), ("5", 1, "about to lose pods")] {
        let output = set.run(&format!("{shrink} --replicas-before={before} --cacert=/nothing/ca.crt"));
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let text = [output.stdout, output.stderr].concat();
        assert!(String::from_utf8_lossy(&text).contains(said), "{}", String::from_utf8_lossy(&text));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_keeps_its_engine_and_isnt_restored_over() {
    let Some(mut set) = Set::new("pods") else { return };
    set.start(0, 1, &["--backend=redb"]);
    set.well(1);
    put(&set, 0, "kept").await;
    set.stop(0);
    set.start(0, 1, &["--backend=sled", "--import-from=/nothing.db"]);
    set.well(1);
    set.says(0, "the engine of data that is there stays", 0);
    set.says(0, "--import-from is ignored", 0);
    has(&set, 0, &["kept"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_restored_by_a_new_set_and_root_is_asked_for() {
    let Some(mut set) = Set::new("pods") else { return };
    set.start(0, 1, &[]);
    set.well(1);
    put(&set, 0, "kept").await;
    let dir = tempfile::tempdir().expect("a directory");
    for _ in 0..2 {
        let output = set.run(&format!("pod backup --dir={} --keep=1", dir.path().display()));
        assert!(output.status.success(), "{output:?}");
        // Names tell seconds apart.
        std::thread::sleep(Duration::from_millis(1_100));
    }
    let names: Vec<_> =
        fs::read_dir(dir.path()).expect("a directory").map(|entry| entry.expect("a file").path()).collect();
    assert_eq!(names.len(), 1, "{names:?}");

    let restore = format!("--import-from={}", names[0].display());
    let mut other = Set::new("pods").expect("there were namespaces");
    // All had agreed, and one has been killed in the middle of it.
    fs::create_dir_all(other.volume(1).join("data/import.tmp/member/snap")).expect("made");
    for at in 0..3 {
        fs::create_dir_all(other.volume(at)).expect("a volume");
        fs::write(other.volume(at).join("data.agreed"), "replicas 3\n").expect("written");
    }
    for at in 0..3 {
        other.start(at, 3, &[&restore]);
    }
    other.well(3);
    for at in 0..3 {
        has(&other, at, &["kept"]).await;
    }
    // A volume that is lost is filled by the others, not by the backup.
    put(&other, 0, "later").await;
    let login = ["--user=root", "--password=secret"];
    let output = other.run("pod users --password=secret");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "authentication is on\n", "{output:?}");
    let output = other.run("pod users --password=secret");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "authentication was on already\n", "{output:?}");
    let output = other.run("pod users --password=guess");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("Users come along with a restored backup"), "{said}");
    other.kill(2);
    fs::remove_dir_all(other.volume(2)).expect("removed");
    other.start(2, 3, &[&restore, login[0], login[1]]);
    other.says(2, "added as a learner", 0);
    let begun = Instant::now();
    loop {
        let status = other.status(" --members=3 --user=root --password=secret");
        let voters =
            status["members"].as_array().map_or(0, |rows| rows.iter().filter(|row| row["role"] != "learner").count());
        if status["well"] == true && voters == 3 {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "three that are well, and vote: {status:#}\n{}", other.logged(2));
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(fs::read_dir(other.volume(2)).expect("a volume").count(), 1, "no mark is left by a pod that joined");
}
