//! Every method of the descriptors × every kind of caller.
//!
//! A caller without what a call needs is refused with etcd's words, one that has it isn't refused for that; and a
//! real etcd answers each of them alike.

use bytes::Bytes;
use futures::StreamExt;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};
use rusd_proto::etcdserverpb::{
    LeaseGrantRequest, PutRequest, StatusRequest, WatchResponse, kv_client::KvClient, lease_client::LeaseClient,
    maintenance_client::MaintenanceClient,
};
use tokio::time::{Duration, Instant, sleep, timeout};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::callers::{self, Caller, Kind};
use crate::json;
use crate::key;
use crate::needs::{self, Need};
use crate::server;
use crate::sites::{Shape, Site};
use crate::users::with;
use crate::wire::{CallOptions, Wire, parse, path_of};

/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simple_tokens() {
    play(Shape::One, &["--bcrypt-cost=4".to_owned()], false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_port_for_pages() {
    play(Shape::Split, &["--bcrypt-cost=4".to_owned()], false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_a_follower() {
    play(Shape::Follower, &["--bcrypt-cost=4".to_owned()], false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_certificates() {
    play(Shape::Certificates, &["--bcrypt-cost=4".to_owned()], false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signed_tokens() {
    let (public, private) = (key("rsa.pub.pem"), key("rsa.key.pem"));
    let token = format!("--auth-token=jwt,pub-key={public},priv-key={private},sign-method=RS256,ttl=10m");
    play(Shape::One, &["--bcrypt-cost=4".to_owned(), token], true).await;
}

/// One cell: method, request, caller, and the answer in one line.
type Cell = (String, &'static str, Kind, String);

async fn play(shape: Shape, flags: &[String], signed: bool) {
    let mut etcd: Option<Vec<Cell>> = None;
    let mut faults = Vec::new();
    for kind in [server::Kind::Etcd, server::Kind::Rusd] {
        let Some(cells) = cells_of(kind, shape, flags, signed, &mut faults).await else { continue };
        match (kind, &etcd) {
            (server::Kind::Etcd, _) => etcd = Some(cells),
            (server::Kind::Rusd, Some(etcd)) => {
                for (ours, theirs) in cells.iter().zip(etcd) {
                    assert_eq!((&ours.0, ours.1, ours.2), (&theirs.0, theirs.1, theirs.2));
                    // etcd ends this stream without a word to who may not see it.
                    let is_silent = ours.0 == "Election.Observe" && theirs.3 == "ok";
                    // It isn't served (ADR 27 and the guide say so): who may ask is told that, the others are refused.
                    let is_unserved = ours.1.contains("ENABLE") && ours.2 == Kind::Root;
                    if ours.3 != theirs.3 && !is_silent && !is_unserved {
                        let (method, text, caller, _) = ours;
                        faults.push(format!("{method} {text} as {caller:?}: etcd {} rusd {}", theirs.3, ours.3));
                    }
                }
            }
            _ => {}
        }
    }
    assert!(faults.is_empty(), "{} faults\n{}", faults.len(), faults.join("\n"));
}

/// The cells of a site of that kind; `None` if the real etcd isn't built.
async fn cells_of(
    kind: server::Kind,
    shape: Shape,
    flags: &[String],
    signed: bool,
    faults: &mut Vec<String>,
) -> Option<Vec<Cell>> {
    let mut tries = 1..=3;
    loop {
        let site = Site::start(kind, shape, flags).await?;
        let mut found = Vec::new();
        let (cells, leads) = matrix(&site, signed, &mut found, kind).await;
        // Whoever was to follow may have been elected meanwhile, for want of a processor.
        if leads && shape == Shape::Follower && tries.next().is_some() {
            continue;
        }
        faults.append(&mut found);
        return Some(cells);
    }
}

/// The cells, and whether the member that was asked leads at their end.
async fn matrix(site: &Site, signed: bool, faults: &mut Vec<String>, kind: server::Kind) -> (Vec<Cell>, bool) {
    let channel = site.channel.clone();
    prime(&channel, None).await;
    let callers = callers::make(&channel, signed).await;
    let root = callers.iter().find(|caller| caller.kind == Kind::Root).and_then(|caller| caller.token.clone());
    let callers: Vec<_> = match &site.json {
        Some(_) => callers,
        None => callers.into_iter().filter_map(|caller| caller.certified(site)).collect(),
    };
    assert!(callers.len() >= 7);
    let wire = |caller: &Caller| Wire::new(caller.channel.clone().unwrap_or_else(|| channel.clone()));
    let pool = DescriptorPool::decode(rusd_proto::FILE_DESCRIPTOR_SET).expect("our own descriptors are well formed");
    let mut cells = Vec::new();
    let mut methods: Vec<MethodDescriptor> = pool
        .services()
        .filter(|service| !service.full_name().starts_with("rusd"))
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .collect();
    // What ends leases comes last.
    methods.sort_by_key(|method| method.name() == "LeaseRevoke");
    assert!(methods.len() > 50, "only {} methods", methods.len());
    let mut is_primed = false;
    for method in methods {
        let name = format!("{}.{}", method.parent_service().name(), method.name());
        let calls = needs::of(&name);
        assert!(!calls.is_empty(), "{name}: nobody said what it needs");
        for (text, need) in calls {
            for caller in &callers {
                if name == "Auth.AuthDisable" && caller.kind == Kind::Root {
                    continue;
                }
                if !is_primed {
                    prime(&channel, root.as_deref()).await;
                }
                let answer = ask_well(&wire(caller), &method, text, caller).await;
                if let Some(wrong) = wrong(kind, &name, caller.kind, *need, &answer, signed) {
                    faults.push(format!("{name} {text} as {:?} on {kind:?}: {wrong}, got {answer:?}", caller.kind));
                }
                // What was refused has changed nothing.
                is_primed = is_refusal(&answer);
                if let Some(url) = &site.json
                    && let Some(by_json) = ask_json(url, &method, text, caller, &answer, kind).await
                {
                    is_primed &= is_refusal(&by_json);
                    // The call has been made before: only refusals are the same for certain.
                    let (by_json, by_grpc) = (refusal(&by_json), refusal(&answer));
                    if by_json != by_grpc {
                        let as_whom = caller.kind;
                        faults.push(format!(
                            "{name} {text} as {as_whom:?} on {kind:?}: {by_grpc:?}, by JSON {by_json:?}"
                        ));
                    }
                }
                cells.push((name.clone(), *text, caller.kind, shown(&answer)));
            }
        }
    }
    let status = MaintenanceClient::new(channel).status(with(root.as_deref(), StatusRequest {})).await;
    let leads = status.is_ok_and(|status| {
        let status = status.get_ref();
        status.header.as_ref().is_some_and(|header| header.member_id == status.leader)
    });
    (cells, leads)
}

/// The same call through the JSON gateway, if it has a path there and is answered at once.
async fn ask_json(
    url: &str,
    method: &MethodDescriptor,
    text: &str,
    caller: &Caller,
    by_grpc: &Result<(), Status>,
    server: server::Kind,
) -> Option<Result<(), Status>> {
    let path = json::path_of(method)?;
    if method.name() == "Observe" && (server == server::Kind::Etcd || !is_refusal(by_grpc)) {
        return None;
    }
    let message = parse(method.input(), &text.replace('\'', "\"")).unwrap_or_else(|error| panic!("{error}"));
    let answer = timeout(ANSWER_MAX, json::ask(url, path, method, message, caller.token.as_deref())).await;
    let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")));
    Some(match answer {
        Ok(response) => match response["cancel_reason"].as_str() {
            Some(reason) => refused_in(reason),
            None => Ok(()),
        },
        Err(status) => Err(status),
    })
}

/// The refusal in an answer that is about who asks.
fn refusal(answer: &Result<(), Status>) -> Option<(Code, &str)> {
    let status = answer.as_ref().err()?;
    is_refusal(answer).then(|| (status.code(), status.message()))
}

fn is_refusal(answer: &Result<(), Status>) -> bool {
    let words = [
        "etcdserver: user name is empty",
        "etcdserver: invalid auth token",
        "etcdserver: permission denied",
        "etcdserver: revision of auth store is old",
    ];
    answer.as_ref().is_err_and(|status| words.contains(&status.message()))
}

/// Leases and keys as each call is to find them, whatever those before have done.
async fn prime(channel: &Channel, root: Option<&str>) {
    let leases = [(101, Some("k")), (102, Some("x")), (103, None), (104, None)].map(async |(id, key)| {
        // It may be there.
        let _ = LeaseClient::new(channel.clone()).lease_grant(with(root, LeaseGrantRequest { id, ttl: 600 })).await;
        if let Some(key) = key {
            let put = PutRequest { key: key.into(), value: "1".into(), lease: id, ..Default::default() };
            KvClient::new(channel.clone()).put(with(root, put)).await.expect("root puts a key");
        }
    });
    // Somebody leads where an election is observed: who may see that nobody does is told nothing.
    let leads = PutRequest { key: "y/1".into(), value: "1".into(), ..Default::default() };
    let mut kv = KvClient::new(channel.clone());
    let (_, led) = tokio::join!(futures::future::join_all(leases), kv.put(with(root, leads)));
    led.expect("root puts a key");
}

/// What is wrong with an answer, going by what the call needs.
fn wrong(
    server: server::Kind,
    method: &str,
    kind: Kind,
    need: Need,
    answer: &Result<(), Status>,
    signed: bool,
) -> Option<&'static str> {
    // Locks and elections give the inner text and their own code.
    let code = |status: &Status| match (status.code(), status.message()) {
        (Code::Unknown, "etcdserver: user name is empty" | "etcdserver: revision of auth store is old") => {
            Code::InvalidArgument
        }
        (Code::Unknown, "etcdserver: invalid auth token") => Code::Unauthenticated,
        (Code::Unknown, "etcdserver: permission denied") => Code::PermissionDenied,
        (code, _) => code,
    };
    let refused = answer.as_ref().err().map(|status| (code(status), status.message()));
    let empty = refused == Some((Code::InvalidArgument, "etcdserver: user name is empty"));
    let invalid = refused == Some((Code::Unauthenticated, "etcdserver: invalid auth token"));
    let denied = refused == Some((Code::PermissionDenied, "etcdserver: permission denied"));
    let old = refused == Some((Code::InvalidArgument, "etcdserver: revision of auth store is old"));
    let is_refused = empty || invalid || denied || old;
    if server == server::Kind::Etcd && method == "Election.Observe" {
        return None;
    }
    match kind {
        Kind::Anonymous if !matches!(need, Need::Nothing | Need::GoodTokenIfAny) => {
            (!empty).then_some("nobody must be refused")
        }
        Kind::WrongToken if need != Need::Nothing => (!invalid).then_some("a token that is none must be refused"),
        Kind::StaleToken if need != Need::Nothing && !signed => {
            (!invalid).then_some("a token that was ended must be refused")
        }
        Kind::StaleToken if matches!(need, Need::Keys(_)) => (!old).then_some("a token of before must be refused"),
        Kind::StaleToken => None,
        // It is somebody, and no user that there can be.
        Kind::Nameless if matches!(need, Need::Root | Need::RootOr(_)) => (!empty).then_some("it has no name"),
        kind if needs::has(kind, need) => is_refused.then_some("it has what it needs"),
        _ => (!denied).then_some("it hasn't what it needs"),
    }
}

/// Asks again while members haven't been connected long enough for a change among them: five seconds, by etcd's rule.
async fn ask_well(wire: &Wire, method: &MethodDescriptor, text: &str, caller: &Caller) -> Result<(), Status> {
    let begun = Instant::now();
    loop {
        match ask(wire, method, text, caller).await {
            Err(status) if status.message() == "etcdserver: unhealthy cluster" && begun.elapsed() < ANSWER_MAX => {
                sleep(Duration::from_millis(500)).await;
            }
            answer => return answer,
        }
    }
}

async fn ask(wire: &Wire, method: &MethodDescriptor, text: &str, caller: &Caller) -> Result<(), Status> {
    let message = parse(method.input(), &text.replace('\'', "\"")).unwrap_or_else(|error| panic!("{error}"));
    let metadata = caller.token.iter().map(|token| ("token".to_owned(), token.clone())).collect();
    let options = CallOptions { metadata, ..CallOptions::default() };
    let path = path_of(method);
    let late = || Status::deadline_exceeded("no answer");
    if !method.is_server_streaming() {
        return timeout(ANSWER_MAX, wire.unary(&path, message, &options)).await.map_err(|_| late())?.map(drop);
    }
    // The client's half stays open, as that of a watch does.
    let requests: futures::stream::BoxStream<'static, Bytes> = if method.is_client_streaming() {
        futures::stream::iter([message]).chain(futures::stream::pending()).boxed()
    } else {
        futures::stream::iter([message]).boxed()
    };
    let first = async {
        let mut answers = wire.streaming(&path, requests, &options).await?;
        answers.next().await.transpose()
    };
    let first = timeout(ANSWER_MAX, first).await.map_err(|_| late())??;
    if method.full_name() != "etcdserverpb.Watch.Watch" {
        return Ok(());
    }
    // A watch that isn't let in is told so in its stream, as text.
    let response = WatchResponse::decode(first.unwrap_or_default()).expect("an answer of a watch");
    refused_in(&response.cancel_reason)
}

/// The refusal that a watch's end has as text, if it is one.
fn refused_in(reason: &str) -> Result<(), Status> {
    let Some(reason) = reason.strip_prefix("rpc error: code = ") else { return Ok(()) };
    let (code, text) = reason.split_once(" desc = ").expect("code and text");
    let code = [Code::InvalidArgument, Code::PermissionDenied, Code::Unauthenticated]
        .into_iter()
        .find(|known| format!("{known:?}") == code)
        .expect("a known code");
    Err(Status::new(code, text))
}

fn shown(answer: &Result<(), Status>) -> String {
    match answer {
        Ok(()) => "ok".to_owned(),
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    }
}

/// That a message can be made of each text, so that no cell is about a typing error.
#[test]
fn every_text_is_a_message() {
    let pool = DescriptorPool::decode(rusd_proto::FILE_DESCRIPTOR_SET).expect("our own descriptors are well formed");
    for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let name = format!("{}.{}", method.parent_service().name(), method.name());
        for (text, _) in needs::of(&name) {
            DynamicMessage::parse_text_format(method.input(), &text.replace('\'', "\""))
                .unwrap_or_else(|error| panic!("{name} {text}: {error}"));
        }
    }
}
