//! Reads: what the apiserver answers from its caches, and what its store must answer, by the store's own count.
//!
//! ```text
//! gets            config maps, without a revision ─► one Range each
//! lists           pods and config maps: whole, in pages, in pages of a past revision ─► the watch cache
//! events          the same of events, which have no watch cache ─► one RangeStream for each page
//! streamed lists  watches with initial events: pods, config maps ─► the watch cache; events ─► one RangeStream each
//! before_restart  pages of a revision that a new apiserver's cache has no snapshot of ─► one RangeStream each
//! ```
//! So it is in 1.37 with the gates as they are by default (EtcdRangeStream, ListFromCacheSnapshot, WatchList). A store
//! that hasn't RangeStream would be asked in pages of Range, in silence: the day fails then.

use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Value, json};

use super::super::api::Api;
use super::load::{Ask, Went, drive};
use super::phases::{Day, NAMESPACE, Result, all_answered, maps};

/// The events of nobody but ours.
const EVENTS_NAMESPACE: &str = "day-events";
const STREAM: &str = "RangeStream";
/// GETs a second.
const GETS: f64 = 200.0;
const PAGE: usize = 500;
const ROUNDS: usize = 10;

/// What is asked how: a revision, as a query has it.
const NOW: &str = "";

fn at_revision(revision: &str) -> String {
    format!("&resourceVersion={revision}&resourceVersionMatch=Exact")
}

fn pods() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/pods")
}

fn events() -> String {
    format!("/api/v1/namespaces/{EVENTS_NAMESPACE}/events")
}

/// A client of its own that asks one thing after the other, and how long each took.
struct Reader {
    api: Api,
    took: Vec<Duration>,
}

impl Reader {
    fn new(day: &Day) -> Self {
        Self { api: day.plane.api(), took: Vec::new() }
    }

    fn get(&mut self, day: &Day, path: &str) -> Result<Value> {
        let begun = Instant::now();
        let answer = day.plane.runtime.block_on(self.api.get(path))?;
        self.took.push(begun.elapsed());
        if answer.is_ok() {
            Ok(answer.json())
        } else {
            Err(format!("{path}: {}: {}", answer.status, String::from_utf8_lossy(&answer.body)).into())
        }
    }

    /// How many there are, by one answer.
    fn whole(&mut self, day: &Day, path: &str) -> Result<usize> {
        Ok(count(&self.get(day, path)?))
    }

    /// How many there are, by pages.
    fn pages(&mut self, day: &Day, path: &str, how: &str) -> Result<usize> {
        let (mut seen, mut go_on) = (0, how.to_owned());
        loop {
            let page = self.get(day, &format!("{path}?limit={PAGE}{go_on}"))?;
            seen += count(&page);
            match page["metadata"]["continue"].as_str() {
                None | Some("") => return Ok(seen),
                Some(token) => go_on = format!("&continue={token}"),
            }
        }
    }

    /// How many there are, by a watch that begins with all of them.
    fn streamed(&mut self, day: &Day, path: &str) -> Result<usize> {
        let how = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
        let begun = Instant::now();
        let seen = day.plane.runtime.block_on(self.api.initial_events(&format!("{path}?{how}")))?;
        self.took.push(begun.elapsed());
        Ok(seen)
    }

    fn tell(self, day: &mut Day, name: &str) {
        let went = Went::of(self.took);
        day.figure(&format!("{name}: p50"), "ms", went.quantile_ms(0.5));
        day.figure(&format!("{name}: p99"), "ms", went.quantile_ms(0.99));
    }
}

fn count(list: &Value) -> usize {
    list["items"].as_array().map_or(0, Vec::len)
}

fn same(what: &str, seen: usize, wanted: usize) -> Result<()> {
    if seen == wanted { Ok(()) } else { Err(format!("{what}: {seen} seen, {wanted} expected").into()) }
}

/// Calls of a method that the store answers meanwhile.
pub(super) struct Count {
    method: &'static str,
    before: u64,
}

impl Count {
    pub(super) fn streams(day: &Day) -> Result<Self> {
        Self::of(day, STREAM)
    }

    fn of(day: &Day, method: &'static str) -> Result<Self> {
        Ok(Self { method, before: day.plane.store.answered(method)? })
    }

    /// At least so many since then.
    pub(super) fn demand(&self, day: &Day, what: &str, wanted: usize) -> Result<()> {
        let Self { method, before } = self;
        let answered = day.plane.store.answered(method)?.saturating_sub(*before);
        println!("  {} {what}: the store answered {answered} {method}, at least {wanted} wanted", day.plane.store.side);
        if answered >= wanted as u64 {
            Ok(())
        } else {
            Err(format!("{what}: {answered} {method} reached the store, not {wanted}").into())
        }
    }
}

/// Each reads one object, as it is now.
pub(super) fn gets(day: &mut Day) -> Result<()> {
    let maps_count = day.sizes.maps;
    let wanted = (GETS * day.sizes.span.as_secs_f64() / 2.0) as usize;
    let ranges = Count::of(day, "Range")?;
    let make = move |at: usize| Ask {
        method: Method::GET,
        path: format!("{}/m{}", maps(), at % maps_count),
        object: Value::Null,
    };
    let went = drive(day.plane, wanted, Some(GETS), make)?;
    all_answered("GETs", &went)?;
    ranges.demand(day, "GETs", wanted)?;
    day.figure("GETs, as clients see them: p50", "ms", went.quantile_ms(0.5));
    day.figure("GETs, as clients see them: p99", "ms", went.quantile_ms(0.99));
    Ok(())
}

/// What the version of a list is now; it is a past one at once.
pub(super) fn past(day: &Day) -> Result<String> {
    let list = day.get(&format!("{}?limit=1", maps()))?;
    let version = list["metadata"]["resourceVersion"].as_str().ok_or("a list without a version")?.to_owned();
    // A value that isn't there yet: what changes nothing isn't written.
    let object = json!({"data": {"past": version}});
    day.demand(Method::PATCH, &format!("{}/m0", maps()), object)?;
    Ok(version)
}

/// Of what has a watch cache.
pub(super) fn lists(day: &mut Day) -> Result<()> {
    let mut reader = Reader::new(day);
    for _ in 0..ROUNDS {
        let past = past(day)?;
        for path in [pods(), maps()] {
            let wanted = reader.whole(day, &path)?;
            for how in [NOW.to_owned(), at_revision(&past)] {
                same(&format!("{path}, pages{how}"), reader.pages(day, &path, &how)?, wanted)?;
            }
        }
    }
    reader.tell(day, "LISTs by the watch cache");
    Ok(())
}

fn event(at: usize) -> Ask {
    let (pod, message) = (format!("p{at}"), "Successfully assigned the pod to a node of this cluster. ".repeat(5));
    let object = json!({"kind": "Pod", "apiVersion": "v1", "namespace": EVENTS_NAMESPACE, "name": pod});
    let (name, reason) = (format!("e{at}"), "Scheduled");
    Ask {
        method: Method::POST,
        path: events(),
        object: json!({"metadata": {"name": name}, "involvedObject": object, "reason": reason, "message": message, "type": "Normal"}),
    }
}

/// Of what has none: all of them reach the store.
pub(super) fn of_events(day: &mut Day) -> Result<()> {
    day.demand(Method::POST, "/api/v1/namespaces", json!({"metadata": {"name": EVENTS_NAMESPACE}}))?;
    // One for each pod.
    let first = day.sizes.pods.max(1);
    all_answered("events", &drive(day.plane, first, None, event)?)?;
    let streams = Count::streams(day)?;
    let (mut whole, mut paged) = (Reader::new(day), Reader::new(day));
    for round in 0..ROUNDS {
        let list = day.get(&format!("{}?limit=1", events()))?;
        let past = list["metadata"]["resourceVersion"].as_str().ok_or("a list without a version")?.to_owned();
        let (before, now) = (first + round, first + round + 1);
        let Ask { method, path, object } = event(before);
        day.demand(method, &path, object)?;
        same("events", whole.whole(day, &events())?, now)?;
        same("events in pages", paged.pages(day, &events(), NOW)?, now)?;
        same("events in pages of a past revision", paged.pages(day, &events(), &at_revision(&past))?, before)?;
    }
    streams.demand(day, "LISTs", ROUNDS + whole.took.len() + paged.took.len())?;
    whole.tell(day, "LISTs by the store, whole");
    paged.tell(day, "LISTs by the store, a page");
    Ok(())
}

/// As clients of today begin: watches that send first what there is.
pub(super) fn streamed(day: &mut Day) -> Result<()> {
    let (mut cached, mut stored) = (Reader::new(day), Reader::new(day));
    let wanted = [pods(), maps(), events()].map(|path| day.get(&path).map(|list| (count(&list), path)));
    let [pods, maps, events] = wanted;
    let (cached_ones, (events_count, events)) = ([pods?, maps?], events?);
    for _ in 0..ROUNDS {
        for (wanted, path) in &cached_ones {
            same(&format!("{path}, streamed"), cached.streamed(day, path)?, *wanted)?;
        }
    }
    let streams = Count::streams(day)?;
    for _ in 0..ROUNDS {
        same("events, streamed", stored.streamed(day, &events)?, events_count)?;
    }
    streams.demand(day, "streamed lists", ROUNDS)?;
    cached.tell(day, "streamed lists by the watch cache");
    stored.tell(day, "streamed lists by the store");
    Ok(())
}

/// In pages, at a revision of the time before the apiserver's caches were filled; how long each page took.
pub(super) fn before_restart(day: &Day, past: &str) -> Result<Vec<Duration>> {
    let wanted = [pods(), maps()].map(|path| day.get(&path).map(|list| (count(&list), path)));
    let (mut reader, streams) = (Reader::new(day), Count::streams(day)?);
    for one in wanted {
        let (wanted, path) = one?;
        same(&format!("{path} before the restart"), reader.pages(day, &path, &at_revision(past))?, wanted)?;
    }
    streams.demand(day, "LISTs of before the restart", reader.took.len())?;
    Ok(reader.took)
}
