//! The live move: writers and a watcher go on until rusd takes over; nothing acknowledged is lost, nothing told twice.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::lease_client::LeaseClient;
use rusd_proto::etcdserverpb::watch_client::WatchClient;
use rusd_proto::etcdserverpb::watch_request::RequestUnion;
use rusd_proto::mvccpb;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::Tools;
use crate::fill::{content, fill, token};
use crate::member::{Member, Place, must, run, rusd, words};

/// All events from a revision on, until one is of `last`, or later.
async fn events(channel: Channel, from: i64, last: i64) -> Vec<mvccpb::Event> {
    let (send, requests) = mpsc::channel(1);
    let create = pb::WatchCreateRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        start_revision: from,
        ..Default::default()
    };
    let create = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    send.send(create).await.unwrap();
    let mut client = WatchClient::new(channel).max_decoding_message_size(256 << 20);
    let mut answers = client.watch(ReceiverStream::new(requests)).await.unwrap().into_inner();
    let mut events = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        assert!(!answer.canceled, "{answer:?}");
        events.extend(answer.events);
        let revision = |event: &mvccpb::Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
        if events.last().map_or(0, revision) >= last {
            break;
        }
    }
    events
}

/// Writes until the server refuses; every acknowledged write with its revision.
async fn writer(channel: Channel, name: usize, over: Arc<AtomicBool>) -> BTreeMap<String, (String, i64)> {
    let mut kv = KvClient::new(channel);
    let mut written = BTreeMap::new();
    for at in 0u64.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let (key, value) = (format!("w{name}/{}", at % 500), format!("{at}"));
        if at % 17 == 16 {
            let delete = pb::DeleteRangeRequest { key: key.clone().into(), ..Default::default() };
            if kv.delete_range(delete).await.is_ok() {
                written.remove(&key);
                continue;
            }
            break;
        }
        let put = pb::PutRequest {
            key: key.clone().into(),
            value: value.clone().into(),
            lease: if at % 5 == 0 { 11 } else { 0 },
            ..Default::default()
        };
        match kv.put(put).await {
            Ok(answer) => written.insert(key, (value, answer.into_inner().header.unwrap().revision)),
            Err(refused) => {
                assert!(refused.message().contains("corrupt"), "{refused}");
                break;
            }
        };
    }
    written
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_etcd_is_taken_over_under_load() {
    let Some(tools) = Tools::find("a_running_etcd_is_taken_over_under_load") else { return };
    let dir = TempDir::new().unwrap();
    let (place, data) = (Place::free(), dir.path().join("etcd"));
    let etcd = Member::start(&tools.etcd, place, &place.flags(&data), &dir.path().join("etcd.log")).await;
    fill(&etcd, false).await;
    let begun = content(&etcd, None).await.revision;
    let over = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4).map(|name| tokio::spawn(writer(etcd.channel(), name, over.clone()))).collect();

    let (to, moved) = (Place::free(), dir.path().join("rusd"));
    // The source has no users yet, so that nobody asks for the password.
    let mut follow = words(&format!("import --from {} --user root:hidden-from-all --serve", place.client()));
    follow.extend(to.flags(&moved));
    let log = dir.path().join("rusd.log");
    let mut member = Member::spawn(&rusd(), to, &follow, &log);
    wait_for(&log, "following its changes").await;
    // Writes go on, and a compaction there does no harm to what is followed.
    let now = reaches(&etcd, begun + 250).await;
    let mut kv = KvClient::new(etcd.channel());
    kv.compact(pb::CompactionRequest { revision: now - 10, physical: false }).await.unwrap();
    LeaseClient::new(etcd.channel()).lease_grant(pb::LeaseGrantRequest { id: 77, ttl: 900 }).await.unwrap();
    reaches(&etcd, now + 30).await;
    must(&rusd(), &words(&format!("import take-over --data-dir {}", moved.display())));
    let mut written = Vec::new();
    for task in writers {
        written.push(task.await.unwrap());
    }
    over.store(true, Ordering::Relaxed);
    member.ready().await;

    assert!(std::fs::read_to_string(&log).unwrap().contains("same HashKV as the source"), "{}", member.log());

    // Key by key: both say the same, and it is what was acknowledged.
    let (source, taken) = (content(&etcd, None).await, content(&member, None).await);
    assert!(source.revision > begun + 200, "there was hardly any load: {}", source.revision - begun);
    assert_eq!(taken, source);
    let keys: BTreeMap<_, _> =
        taken.keys.iter().map(|kv| (String::from_utf8_lossy(&kv.key).into_owned(), kv)).collect();
    let acknowledged: BTreeMap<_, _> = written.into_iter().flatten().collect();
    for (key, (value, revision)) in &acknowledged {
        let kv = keys.get(key).unwrap_or_else(|| panic!("{key} is lost"));
        assert_eq!((&kv.value[..], kv.mod_revision), (value.as_bytes(), *revision), "{key}");
    }
    assert!(taken.leases.contains(&(77, 900)));

    // Event by event: a watch that stood somewhere in the history goes on here as it would have gone on there.
    let from = now - 5;
    let there = events(etcd.channel(), from, source.revision).await;
    let here = events(member.channel(), from, source.revision).await;
    assert!(there.len() > 20);
    assert_eq!(here, there);
    let put = pb::PutRequest { key: "after".into(), value: "1".into(), ..Default::default() };
    let answer = KvClient::new(member.channel()).put(put).await.unwrap().into_inner();
    assert_eq!(answer.header.unwrap().revision, source.revision + 1);
    let next = events(member.channel(), source.revision + 1, source.revision + 1).await;
    assert_eq!(next.len(), 1);
    // The source stays fenced: whoever was forgotten there is refused, and doesn't write into the void.
    let late = pb::PutRequest { key: "late".into(), ..Default::default() };
    assert!(KvClient::new(etcd.channel()).put(late).await.is_err());

    // Whoever asks what was typed isn't told the password.
    let shown = vars(to.port).await;
    assert!(shown.contains("root:(secret)") && shown.contains("--serve"), "{shown}");
    assert!(!shown.contains("hidden-from-all"), "{shown}");

    // Cause: the line that took over was refused by the directory that it had made. Symptom: a member that was killed,
    // or started itself again, stayed down until somebody typed another line.
    let before = content(&member, None).await;
    for _ in 0..2 {
        member.kill();
        std::fs::create_dir_all(moved.join("follow.tmp")).unwrap();
        member = Member::start(&rusd(), to, &follow, &log).await;
        assert_eq!(content(&member, None).await, before);
        assert!(!moved.join("follow.tmp").exists(), "what was left over is gone");
    }
    let told = std::fs::read_to_string(&log).unwrap();
    assert!(told.contains("--from is ignored") && !told.contains("hidden-from-all"));
    member.kill();
    // Without --serve it is no start, and says whose directory it is.
    let follow: Vec<_> = follow.into_iter().filter(|word| word != "--serve").collect();
    let refused = run(&rusd(), &follow);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("it holds member"), "{said}");
}

/// `/debug/vars`, head and body.
async fn vars(port: u16) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    socket.write_all(b"GET /debug/vars HTTP/1.0\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Its connection breaks, its history is compacted meanwhile, its users change: it begins again, and takes over all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_on_the_way_is_made_good() {
    let Some(tools) = Tools::find("what_breaks_on_the_way_is_made_good") else { return };
    let dir = TempDir::new().unwrap();
    let (place, data) = (Place::free(), dir.path().join("etcd"));
    let (flags, etcd_log) = (place.flags(&data), dir.path().join("etcd.log"));
    let mut etcd = Member::start(&tools.etcd, place, &flags, &etcd_log).await;
    fill(&etcd, false).await;
    let (to, moved) = (Place::free(), dir.path().join("rusd"));
    let mut follow = words(&format!("import --from {} --user root:secret", place.client()));
    follow.extend(to.flags(&moved));
    let log = dir.path().join("rusd.log");
    let mut follower = Member::spawn(&rusd(), to, &follow, &log);
    wait_for(&log, "following its changes").await;

    // It is stopped while the source goes on, and loses the history that it needs.
    let id = follower.child.id().to_string();
    must("kill".as_ref(), &["-STOP".into(), id.clone()]);
    etcd.kill();
    etcd = Member::start(&tools.etcd, place, &flags, &etcd_log).await;
    let mut kv = KvClient::new(etcd.channel());
    let mut last = 0;
    for at in 0..50 {
        let put = pb::PutRequest { key: "meanwhile".into(), value: format!("{at}").into(), ..Default::default() };
        last = kv.put(put).await.unwrap().into_inner().header.unwrap().revision;
    }
    kv.compact(pb::CompactionRequest { revision: last, physical: true }).await.unwrap();
    must("kill".as_ref(), &["-CONT".into(), id]);
    wait_for(&log, "beginning again").await;
    users(&etcd).await;

    must(&rusd(), &words(&format!("import take-over --data-dir {}", moved.display())));
    assert!(follower.child.wait().unwrap().success(), "{}", follower.log());
    let root = token(&etcd).await;
    let source = content(&etcd, Some(&root)).await;
    etcd.kill();
    let member = Member::start(&rusd(), to, &to.flags(&moved), &log).await;
    let root = token(&member).await;
    assert_eq!(content(&member, Some(&root)).await, source);
    let again = Command::new(rusd())
        .args(words(&format!("import take-over --data-dir {}", moved.display())))
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(!again.success(), "nobody follows any more");
}

/// A source that is gone is not taken over by mistake, but on demand with all that is known of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_source_is_taken_over_only_on_demand() {
    let Some(tools) = Tools::find("a_lost_source_is_taken_over_only_on_demand") else { return };
    let dir = TempDir::new().unwrap();
    let (place, data) = (Place::free(), dir.path().join("etcd"));
    let mut etcd = Member::start(&tools.etcd, place, &place.flags(&data), &dir.path().join("etcd.log")).await;
    fill(&etcd, false).await;
    let source = content(&etcd, None).await;
    let (to, moved) = (Place::free(), dir.path().join("rusd"));
    let mut follow = words(&format!("import --from {}", place.client()));
    follow.extend(to.flags(&moved));
    let log = dir.path().join("rusd.log");
    let mut follower = Member::spawn(&rusd(), to, &follow, &log);
    wait_for(&log, "following its changes").await;
    etcd.kill();
    let take_over = words(&format!("import take-over --data-dir {}", moved.display()));
    let refused = run(&rusd(), &take_over);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("the source doesn't answer"), "{said}");
    assert!(follower.child.try_wait().unwrap().is_none(), "it follows on");
    must(&rusd(), &[take_over, words("--without-source")].concat());
    assert!(follower.child.wait().unwrap().success(), "{}", follower.log());
    let member = Member::start(&rusd(), to, &to.flags(&moved), &log).await;
    assert_eq!(content(&member, None).await, source);
}

async fn users(etcd: &Member) {
    use rusd_proto::etcdserverpb::auth_client::AuthClient;
    let mut auth = AuthClient::new(etcd.channel());
    let add = pb::AuthUserAddRequest { name: "root".into(), password: "secret".into(), ..Default::default() };
    auth.user_add(add).await.unwrap();
    auth.role_add(pb::AuthRoleAddRequest { name: "root".into() }).await.unwrap();
    auth.user_grant_role(pb::AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() }).await.unwrap();
    auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
}

/// Waits until so much has been written; the revision by then.
async fn reaches(etcd: &Member, wanted: i64) -> i64 {
    for _ in 0..600 {
        let revision = content(etcd, None).await.revision;
        if revision >= wanted {
            return revision;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("there is hardly any load: {wanted} isn't reached");
}

pub(crate) async fn wait_for(log: &std::path::Path, says: &str) {
    for _ in 0..600 {
        if std::fs::read_to_string(log).is_ok_and(|log| log.contains(says)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it never says {says:?}: {}", std::fs::read_to_string(log).unwrap_or_default());
}
