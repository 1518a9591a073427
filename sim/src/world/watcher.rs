//! A client that watches: over stream after stream, at one member or another, from where it was.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use rusd_proto::etcdserverpb::WatchResponse;
use rusd_proto::mvccpb::event::EventType;
use rusd_sim::check::watches::Watcher;
use rusd_sim::ledger::{Change, Kv};
use rusd_sim::random::Rand;
use tokio::sync::mpsc;

use super::World;
use super::door::Request;

/// How long it stays with one member at most, and without any answer.
const STAY_MS: (u64, u64) = (500, 8_000);
const SILENCE: Duration = Duration::from_secs(3);

/// Runs until it is over and all is delivered.
pub(crate) async fn run(world: Arc<World>, number: usize) -> turmoil::Result {
    let mut rand = Rand::new(world.settings.seed, 200 + number as u64);
    let prefix = Bytes::from_static([&b""[..], b"a/", b"b/", b"l/"][number % 4]);
    let start = number.is_multiple_of(2).then_some(2);
    let mut watcher = Watcher::new(prefix, start);
    let mut member = rand.index(world.hosts.len());
    loop {
        let is_last = world.is_settled.load(Ordering::Relaxed);
        if is_last {
            let places = world.places();
            member = places[rand.index(places.len())];
        }
        let stay = if is_last { SILENCE } else { Duration::from_millis(rand.between(STAY_MS.0, STAY_MS.1)) };
        let ended = stream(&world, member, &mut watcher, &mut rand, stay).await;
        let is_cancelled = match ended {
            Ok(is_cancelled) => is_cancelled,
            Err(fault) => {
                world.fault(format!("watcher {number} of {:?} at m{member}: {fault}", watcher.prefix()));
                return Ok(());
            }
        };
        // Whoever was sent on past a compaction has still to hear what comes after it.
        if is_last && !is_cancelled {
            break;
        }
        member = rand.index(world.hosts.len());
        tokio::time::sleep(Duration::from_millis(rand.between(1, 200))).await;
    }
    let ended = watcher.end(&world.known.lock().ledger);
    if let Err(fault) = ended {
        world.fault(format!("watcher {number} of {:?} at the end: {fault}", watcher.prefix()));
    }
    Ok(())
}

/// One stream at one member, for as long as it is given; whether it was cancelled. An error is a broken promise.
async fn stream(
    world: &World,
    member: usize,
    watcher: &mut Watcher,
    rand: &mut Rand,
    stay: Duration,
) -> Result<bool, String> {
    let (ask, asks) = mpsc::unbounded_channel();
    let (answers, mut heard) = mpsc::unbounded_channel();
    let request = Request::Watch { prefix: watcher.prefix().clone(), start: watcher.resume(), asks, answers };
    let sent = world.hosts[member].port.lock().as_ref().is_some_and(|port| port.send(request).is_ok());
    if !sent {
        tokio::time::sleep(Duration::from_millis(50)).await;
        return Ok(false);
    }
    let until = tokio::time::Instant::now() + stay;
    loop {
        let patience = Duration::from_millis(rand.between(50, 400));
        tokio::select! {
            biased;
            answer = heard.recv() => match answer {
                Some(answer) => {
                    if take(world, watcher, &answer)? {
                        return Ok(true);
                    }
                    // A client that reads slowly: its mailbox gets full, and history has to help.
                    if rand.chance(3) {
                        tokio::time::sleep(Duration::from_millis(rand.between(100, 1_500))).await;
                    }
                }
                None => return Ok(false),
            },
            () = tokio::time::sleep_until(until) => return Ok(false),
            () = tokio::time::sleep(patience) => drop(ask.send(())),
        }
    }
}

/// Holds an answer against the ledger; whether the watcher was ended by it.
fn take(world: &World, watcher: &mut Watcher, answer: &WatchResponse) -> Result<bool, String> {
    let header = answer.header.as_ref().map_or(0, |header| header.revision);
    let changes: Vec<_> = answer.events.iter().filter_map(change).collect();
    world.note(format_args!("watch {:?} at {header}: {} events", watcher.prefix(), changes.len()));
    if answer.canceled {
        if answer.compact_revision == 0 {
            return Err(format!("cancelled: {}", answer.cancel_reason));
        }
        if !world.known.lock().lives.is_compacted(answer.compact_revision) {
            return Err(format!("cancelled by a compaction at {} that nobody asked for", answer.compact_revision));
        }
        watcher.compacted(answer.compact_revision)?;
        return Ok(true);
    }
    if answer.created {
        watcher.created(header);
        return Ok(false);
    }
    let known = world.known.lock();
    if changes.is_empty() {
        watcher.progress(header, &known.ledger)?;
    } else {
        watcher.events(&changes, &known.ledger)?;
    }
    Ok(false)
}

fn change(event: &rusd_proto::mvccpb::Event) -> Option<(i64, Change)> {
    let kv = event.kv.as_ref()?;
    let key = kv.key.clone();
    let change = match event.r#type() {
        EventType::Delete => Change::Delete(key),
        EventType::Put => Change::Put(Kv {
            key,
            value: kv.value.clone(),
            create: kv.create_revision,
            modified: kv.mod_revision,
            version: kv.version,
            lease: kv.lease,
        }),
    };
    Some((kv.mod_revision, change))
}
