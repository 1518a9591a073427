//! Every method of every service, and every path of the JSON gateway, with messages of extremes and with bytes that
//! are no message.
//!
//! ```text
//! workers ─► a method, a message from a seed (`messages`), of a stream many ─► any member ─► any answer, but one
//! with users ─► by nobody, by a user of one key, with a token that is none ─► nothing else is changed, or told
//! other members' methods ─► bytes that are no message at the peer port
//! beside   ─► alarms that were raised are ended, members that were added are removed
//! after    ─► all members run, none has panicked, memory is bounded, they hold the same
//! ```
//! `RUSD_FAULT_SEED` repeats the messages. What they are answered is for the other tests.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use prost_reflect::{DescriptorPool, MethodDescriptor};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::auth_client::AuthClient;
use rusd_proto::etcdserverpb::cluster_client::ClusterClient;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::lease_client::LeaseClient;
use rusd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::client;
use crate::cluster::{COMES_MAX, Cluster};
use crate::messages::{broken, json, message};
use crate::settings;
use crate::users::{add_role, add_user, enable, grant_role, login, with};
use crate::wire::{CallOptions, Wire, path_of};

const WORKERS: usize = 12;
/// What a member may grow by: 16 MiB of the engine, the log's cache of 64, what was written, indexes, slack.
const GROWTH_MAX: u64 = 400 << 20;
/// Messages of a stream: watchers are made, asked after and cancelled, several times.
const MESSAGES: usize = 20;
/// The value of all that nobody may see in the run with users, as it is and in JSON.
const HIDDEN: [&str; 2] = ["secret-outside", "c2VjcmV0LW91dHNpZGU="];
/// How long a stream, or a call that may wait for ever, is listened to.
const GLANCE: Duration = Duration::from_millis(100);
/// Calls that take long by what they do, and how many there are of each.
const FEW: [(&str, usize); 7] = [
    ("Snapshot", 10),
    ("Defragment", 5),
    ("Lock", 60),
    ("Campaign", 60),
    ("Observe", 60),
    ("MoveLeader", 20),
    ("MemberAdd", 40),
];

/// How many messages of each kind a method gets.
fn each() -> usize {
    if std::env::var_os("RUSD_FAULT_LONG").is_some() { 10_000 } else { 250 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_harms_a_member() {
    let seed = settings::seed();
    let flags = ["--backend-cache-mb=16", "--bcrypt-cost=4", "--max-learners=3"];
    let mut cluster = Cluster::rusd(3, &flags).await;
    let before: Vec<_> = (0..3).map(|at| resident_bytes(cluster.process(at).pid())).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let nurse = tokio::spawn(nurse(cluster.channel(0), stop.clone()));
    let asked = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    for number in 0..WORKERS {
        let urls = (0..3).map(|at| cluster.url(at)).collect();
        workers.spawn(work(number, seed, urls, asked.clone(), Vec::new()));
    }
    let peers: Vec<_> = (0..3).map(|at| cluster.process(at).place.peer[0].clone()).collect();
    workers.spawn(work_as_member(seed, peers, asked.clone()));
    while let Some(worker) = workers.join_next().await {
        worker.expect("every call is answered");
    }
    stop.store(true, Ordering::Relaxed);
    nurse.await.expect("the cluster is kept in order");
    let after: Vec<_> = (0..3).map(|at| resident_bytes(cluster.process(at).pid())).collect();
    let asked = asked.load(Ordering::Relaxed);
    println!("SUMMARY fuzz: seed {seed}, {asked} requests, resident before {before:?}, after {after:?}");
    assert!(asked as usize > 50 * each(), "only {asked} requests were made");
    for at in 0..3 {
        assert!(cluster.process(at).has_ended().is_none(), "m{at} has ended");
        let log = cluster.log(at);
        assert!(
            !log.contains("panicked"),
            "m{at} panicked:\n{}",
            log.lines().filter(|line| line.contains("panicked")).collect::<Vec<_>>().join("\n")
        );
        assert!(after[at] < before[at] + GROWTH_MAX, "m{at} grew from {} to {}", before[at], after[at]);
        let put = pb::PutRequest { key: format!("after/{at}").into(), ..Default::default() };
        // It serves; the last of the messages may have moved the lead.
        cluster.put(at, put).await;
    }
    cluster.agree().await;
}

fn resident_bytes(pid: u32) -> u64 {
    let pages = std::fs::read_to_string(format!("/proc/{pid}/statm")).expect("it runs");
    pages.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number of pages") * 4096
}

fn methods() -> Vec<MethodDescriptor> {
    let pool = DescriptorPool::decode(rusd_proto::FILE_DESCRIPTOR_SET).expect("our own descriptors are well formed");
    // What members say to each other has a port of its own.
    let services = pool.services().filter(|service| service.package_name() != "rusdpeer");
    services.flat_map(|service| service.methods().collect::<Vec<_>>()).collect()
}

/// Paths of what members say to each other, which clients have no descriptors of.
fn methods_of_members() -> Vec<String> {
    let schema = include_str!("../../proto/schema/rusdpeer/peer.proto");
    let names = schema.lines().filter_map(|line| line.trim().strip_prefix("rpc ")?.split_once('('));
    names.map(|(name, _)| format!("/rusdpeer.Peer/{name}")).collect()
}

/// What nobody but root may see or change: all keys but one, users, roles, members, alarms, whether it is on.
async fn kept(channel: &Channel, root: &str) -> Vec<String> {
    let all = pb::RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..Default::default() };
    let mut kv = KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
    let keys = kv.range(with(Some(root), all)).await.expect("root reads").into_inner().kvs;
    let mut auth = AuthClient::new(channel.clone());
    let users = auth.user_list(with(Some(root), pb::AuthUserListRequest {})).await.expect("root lists").into_inner();
    let roles = auth.role_list(with(Some(root), pb::AuthRoleListRequest {})).await.expect("root lists").into_inner();
    let role = pb::AuthRoleGetRequest { role: "one".into() };
    let role = auth.role_get(with(Some(root), role)).await.expect("root looks").into_inner();
    let status = auth.auth_status(pb::AuthStatusRequest {}).await.expect("anybody may ask").into_inner();
    let alarms = MaintenanceClient::new(channel.clone()).alarm(with(Some(root), pb::AlarmRequest::default())).await;
    let list = pb::MemberListRequest { linearizable: true };
    let members = ClusterClient::new(channel.clone()).member_list(with(Some(root), list)).await;
    let lease = pb::LeaseTimeToLiveRequest { id: 77, keys: true };
    let lease = LeaseClient::new(channel.clone()).lease_time_to_live(with(Some(root), lease)).await;
    let mut kept: Vec<_> = keys.iter().filter(|kv| kv.key != "k").map(|kv| format!("{kv:?}")).collect();
    kept.push(format!("{:?} {:?} {:?}", users.users, roles.roles, role.perm));
    kept.push(format!("{} at {}", status.enabled, status.auth_revision));
    kept.push(format!("{:?}", alarms.expect("root asks").into_inner().alarms));
    kept.push(format!("{:?}", members.expect("root asks").into_inner().members));
    kept.push(format!("{:?}", lease.expect("root asks").into_inner().keys));
    kept
}

/// The same messages with authentication on, by those who may do little or nothing: it stays at that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_of_a_stranger_is_more_than_its_right() {
    let seed = settings::seed();
    let mut cluster = Cluster::rusd(3, &["--backend-cache-mb=16", "--bcrypt-cost=4", "--max-learners=3"]).await;
    let channel = cluster.channel(0);
    LeaseClient::new(channel.clone()).lease_grant(pb::LeaseGrantRequest { id: 77, ttl: 3_600 }).await.expect("granted");
    for key in ["", "\0", "a", "foo", "o/1", "k0", "k\0", "j", "key", "\u{7f}"] {
        let key = if key.is_empty() { "o/2" } else { key };
        let put = pb::PutRequest { key: key.into(), value: HIDDEN[0].into(), lease: 77, ..Default::default() };
        KvClient::new(channel.clone()).put(put).await.expect("a key");
    }
    add_user(&channel, None, "root", "pw").await.expect("root is added");
    grant_role(&channel, None, "root", "root").await.expect("it gets its role");
    add_user(&channel, None, "u", "pw").await.expect("a user is added");
    add_role(&channel, None, "one", Some((2, "k", ""))).await.expect("a role is added");
    grant_role(&channel, None, "u", "one").await.expect("it is granted");
    enable(&channel).await.expect("it is turned on");
    let root = login(&channel, "root", "pw").await.expect("root logs in");
    let user = login(&channel, "u", "pw").await.expect("the user logs in");
    let before = kept(&channel, &root).await;
    assert!(before.len() > 12 && before.iter().any(|row| row.contains(HIDDEN[0])), "{before:?}");
    let tokens = vec![None, Some(user.clone()), Some(user), Some("wrong.7".to_owned())];
    let asked = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    for number in 0..WORKERS {
        let urls = (0..3).map(|at| cluster.url(at)).collect();
        workers.spawn(work(number, seed.wrapping_add(1_000), urls, asked.clone(), tokens.clone()));
    }
    while let Some(worker) = workers.join_next().await {
        worker.expect("every call is answered, and none tells too much");
    }
    let asked = asked.load(Ordering::Relaxed);
    println!("SUMMARY fuzz with users: seed {seed}, {asked} requests");
    assert!(asked as usize > 50 * each(), "only {asked} requests were made");
    for at in 0..3 {
        assert!(cluster.process(at).has_ended().is_none(), "m{at} has ended");
        let log = cluster.log(at);
        assert!(!log.contains("panicked"), "m{at} panicked");
        let root = login(&cluster.channel(at), "root", "pw").await.expect("root logs in");
        assert_eq!(kept(&cluster.channel(at), &root).await, before, "m{at}");
    }
}

/// What is no message, to methods of members: nothing more than a refusal comes of it.
async fn work_as_member(seed: u64, urls: Vec<String>, asked: Arc<AtomicU64>) {
    let mut rng = StdRng::seed_from_u64(seed.wrapping_add(99));
    let methods = methods_of_members();
    assert!(methods.len() > 3, "{methods:?}");
    let mut wires = Vec::new();
    for url in &urls {
        wires.push(Wire::new(client::connect(url).await.expect("the peer port is open")));
    }
    for round in 0..each() {
        let wire = &wires[round % wires.len()];
        for path in &methods {
            let (bytes, options) = (broken(&Bytes::from(vec![0x0a; 40]), &mut rng), CallOptions::default());
            let answer = async {
                let requests: BoxStream<'static, Bytes> = futures::stream::iter([bytes]).boxed();
                let mut answers = wire.streaming(path, requests, &options).await?;
                answers.next().await.transpose()
            };
            let answer = tokio::time::timeout(COMES_MAX, answer).await;
            let answer = answer.unwrap_or_else(|_| panic!("{path} isn't answered"));
            // Who doesn't say which member it is isn't one.
            assert!(answer.is_err(), "{path}: {answer:?}");
            asked.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// That an answer has nothing of what is hidden.
fn tells_nothing(answer: &[u8], of: &str) {
    for hidden in HIDDEN {
        let found = answer.windows(hidden.len()).any(|part| part == hidden.as_bytes());
        assert!(!found, "{of} tells what is hidden: {:?}", String::from_utf8_lossy(answer));
    }
}

/// One worker's part of all calls, each with one of the tokens, if there are any.
async fn work(number: usize, seed: u64, urls: Vec<String>, asked: Arc<AtomicU64>, tokens: Vec<Option<String>>) {
    let mut rng = StdRng::seed_from_u64(seed.wrapping_add(number as u64));
    let mut wires = Vec::new();
    for url in &urls {
        wires.push(Wire::new(client::connect(url).await.expect("it serves")));
    }
    let methods = methods();
    let most = |method: &MethodDescriptor| {
        let few = FEW.iter().find(|(name, _)| *name == method.name()).map(|(_, count)| *count);
        few.unwrap_or_else(each).div_ceil(WORKERS)
    };
    let rounds = methods.iter().map(most).max().unwrap_or(0);
    for round in 0..rounds {
        for method in methods.iter().filter(|method| round < most(method)) {
            // A stream ends at the first that is broken.
            let (count, broken_part) = if method.is_client_streaming() { (MESSAGES, 0.02) } else { (1, 0.3) };
            let mut one = || {
                let well_formed = message(&method.input(), &mut rng);
                if rng.random_bool(broken_part) { broken(&well_formed, &mut rng) } else { well_formed }
            };
            let bytes: Vec<_> = (0..count).map(|_| one()).collect();
            let at = rng.random_range(0..wires.len());
            let token = token_of(&tokens, &mut rng);
            let len = bytes.iter().map(Bytes::len).sum::<usize>();
            if let Err(status) = call(&wires[at], method, bytes, token).await {
                // A connection that breaks is the sign of a panic.
                let broke = [
                    "transport error",
                    "h2 protocol",
                    "connection error",
                    "connection reset",
                    "stream no longer",
                    "broken pipe",
                ];
                let is_broken =
                    matches!(status.code(), Code::Unknown | Code::Internal | Code::Unavailable | Code::Cancelled)
                        && broke.iter().any(|word| status.message().contains(word));
                assert!(!is_broken, "{} of {len} bytes at m{at}: {status:?}", method.full_name());
            }
            asked.fetch_add(1, Ordering::Relaxed);
        }
        for route in rusd_proto::routes() {
            let method = methods
                .iter()
                .find(|method| method.parent_service().full_name() == route.service && method.name() == route.method);
            let method = method.expect("every path has its method");
            if round < most(method) / 2 {
                let text = json(&method.input(), &mut rng);
                let token = token_of(&tokens, &mut rng);
                post(&urls[rng.random_range(0..urls.len())], route.path, &text, token).await;
                asked.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn token_of<'a>(tokens: &'a [Option<String>], rng: &mut StdRng) -> Option<&'a str> {
    if tokens.is_empty() { None } else { tokens[rng.random_range(0..tokens.len())].as_deref() }
}

/// Makes a call and takes what comes of it in a while.
async fn call(wire: &Wire, method: &MethodDescriptor, bytes: Vec<Bytes>, token: Option<&str>) -> Result<(), Status> {
    let metadata = token.iter().map(|token| ("token".to_owned(), (*token).to_owned())).collect();
    let (path, options) = (path_of(method), CallOptions { metadata, ..CallOptions::default() });
    let name = method.full_name();
    if !method.is_server_streaming() {
        let may_wait = matches!(method.name(), "Lock" | "Campaign");
        let first = bytes.into_iter().next().unwrap_or_default();
        let patience = if may_wait { GLANCE } else { COMES_MAX };
        return match tokio::time::timeout(patience, wire.unary(&path, first, &options)).await {
            Ok(answer) => answer.map(|answer| tells_nothing(&answer, name)),
            Err(_) if may_wait => Ok(()),
            Err(_) => panic!("{name} isn't answered"),
        };
    }
    // The client's half stays open, as that of a watch does.
    let requests: BoxStream<'static, Bytes> = futures::stream::iter(bytes).chain(futures::stream::pending()).boxed();
    let heard = async {
        let mut answers = wire.streaming(&path, requests, &options).await?;
        while let Some(answer) = answers.next().await {
            tells_nothing(&answer?, name);
        }
        Ok(())
    };
    tokio::time::timeout(GLANCE, heard).await.unwrap_or(Ok(()))
}

/// The same by the gateway; any answer will do, as long as there is one or a stream that says nothing.
async fn post(url: &str, path: &str, text: &str, token: Option<&str>) {
    let address = url.trim_start_matches("http://");
    let mut socket = TcpStream::connect(address).await.expect("it serves");
    let authorization = token.map(|token| format!("Authorization: {token}\r\n")).unwrap_or_default();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\n{authorization}Content-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    );
    // It may answer before it has read all.
    let _ = socket.write_all(format!("{head}{text}").as_bytes()).await;
    let mut answer = vec![0; 64 << 10];
    let may_be_silent = ["/watch", "/lease/keepalive", "/observe", "/lock/lock", "/campaign"];
    let patience = if may_be_silent.iter().any(|end| path.ends_with(end)) { GLANCE } else { COMES_MAX };
    match tokio::time::timeout(patience, socket.read(&mut answer)).await {
        Ok(Ok(read)) => {
            assert!(answer[..read].starts_with(b"HTTP/1.1 "), "{path} {text}: {:?}", &answer[..read]);
            tells_nothing(&answer[..read], path);
        }
        // A socket that was closed with something unread in it.
        Ok(Err(error)) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{path} {text}"),
        Err(_) => assert_eq!(patience, GLANCE, "{path} isn't answered: {text}"),
    }
}

/// Ends alarms and takes away members that were made by accident, until there is nothing to do and `stop` is set.
async fn nurse(channel: Channel, stop: Arc<AtomicBool>) {
    let mut maintenance = MaintenanceClient::new(channel.clone());
    let mut members = ClusterClient::new(channel);
    let mut own = BTreeSet::new();
    loop {
        let ending = stop.load(Ordering::Relaxed);
        let mut found = 0;
        if let Ok(list) = members.member_list(pb::MemberListRequest { linearizable: false }).await {
            let ids: BTreeSet<_> = list.into_inner().members.iter().map(|member| member.id).collect();
            if own.is_empty() {
                own = ids.clone();
            }
            for id in ids.difference(&own) {
                found += 1;
                // Refused while another change is under way.
                let _ = members.member_remove(pb::MemberRemoveRequest { id: *id }).await;
            }
        }
        if let Ok(list) = maintenance.alarm(pb::AlarmRequest::default()).await {
            for alarm in list.into_inner().alarms {
                found += 1;
                let clear = pb::AlarmRequest { action: 2, member_id: alarm.member_id, alarm: alarm.alarm };
                let _ = maintenance.alarm(clear).await;
            }
        }
        if ending && found == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
