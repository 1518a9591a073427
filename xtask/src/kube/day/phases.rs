//! The day: each phase does something that clusters do, and says what the store used for it.

use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Value, json};

use super::super::plane::Plane;
use super::super::story;
use super::super::usage::Usage;
use super::Sizes;
use super::histogram::{Histogram, Kind};
use super::load::{self, Ask, Went, drive};
use super::reads;

pub(super) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
type Phase = fn(&mut Day) -> Result<()>;

pub(super) const NAMESPACE: &str = "day";
const DEPLOYMENTS: usize = 20;
/// Bytes of a config map's value.
const MAP_BYTES: usize = 800;
/// Updates a second of all config maps.
const CHURN: f64 = 100.0;
const RESTARTS: usize = 2;
const LOOK: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(300);

const PHASES: &[(&str, Phase)] = &[
    ("nodes", nodes),
    ("pods up", pods_up),
    ("calm", calm),
    ("churn", churn),
    ("gets", reads::gets),
    ("lists", reads::lists),
    ("events", reads::of_events),
    ("streamed lists", reads::streamed),
    ("leader killed", leader_killed),
    ("apiserver restarted", restarted),
    ("pods down", pods_down),
];

/// What came of it: name, unit, value; less is better in all of them.
pub(super) type Figures = Vec<(String, &'static str, f64)>;

/// A day that is being told.
pub(super) struct Day<'a> {
    pub(super) plane: &'a mut Plane,
    pub(super) sizes: &'a Sizes,
    writes: Histogram,
    reads: Histogram,
    figures: Figures,
}

/// Tells a whole day.
pub(super) fn tell(plane: &mut Plane, sizes: &Sizes, ready: Duration) -> Result<Figures> {
    let (writes, reads) = (Histogram::default(), Histogram::default());
    let figures = vec![("store and apiserver started".to_owned(), "s", ready.as_secs_f64())];
    let mut day = Day { plane, sizes, writes, reads, figures };
    let api = json!({"metadata": {"name": NAMESPACE}});
    day.demand(Method::POST, "/api/v1/namespaces", api)?;
    for (name, phase) in PHASES {
        let (begun, before) = (Instant::now(), day.plane.store.usage());
        phase(&mut day).map_err(|error| format!("{name}: {error}"))?;
        if let Some(ended) = day.plane.ended() {
            return Err(format!("{name}: {ended} ended").into());
        }
        let (took, used) = (begun.elapsed().as_secs_f64(), day.plane.store.usage());
        let cpu = (used.cpu - before.cpu).as_secs_f64();
        println!(
            "  {} {name}: {took:.1} s, store {cpu:.2} s of CPU, {} MiB in memory, {} MiB on disk",
            day.plane.store.side,
            used.resident >> 20,
            used.disk >> 20
        );
        day.figure(&format!("{name}: store CPU"), "s", cpu);
    }
    day.scrape()?;
    day.close();
    Ok(day.figures)
}

impl Day<'_> {
    pub(super) fn figure(&mut self, name: &str, unit: &'static str, value: f64) {
        self.figures.push((name.to_owned(), unit, value));
    }

    /// One request that must succeed; its answer.
    pub(super) fn demand(&self, method: Method, path: &str, object: Value) -> Result<Value> {
        let mut api = self.plane.api();
        let answer = self.plane.runtime.block_on(api.ask(method, path, object))?;
        if answer.is_ok() {
            Ok(answer.json())
        } else {
            Err(format!("{path}: {}: {}", answer.status, String::from_utf8_lossy(&answer.body)).into())
        }
    }

    pub(super) fn get(&self, path: &str) -> Result<Value> {
        self.demand(Method::GET, path, Value::Null)
    }

    fn wait(&self, what: &str, is_so: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let begun = Instant::now();
        while !is_so(self)? {
            if begun.elapsed() > PATIENCE {
                return Err(format!("{what}: not within {PATIENCE:?}").into());
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Takes in what the apiserver has counted up to now: before it ends, and at the end.
    fn scrape(&mut self) -> Result<()> {
        let mut api = self.plane.api();
        let answer = self.plane.runtime.block_on(api.get("/metrics"))?;
        let page = String::from_utf8_lossy(&answer.body);
        self.writes.add(&page, Kind::Write);
        self.reads.add(&page, Kind::Read);
        Ok(())
    }

    /// The figures of the whole day.
    fn close(&mut self) {
        let Usage { cpu, resident, anonymous, peak, written, disk } = self.plane.store.usage();
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        for (name, all) in [("writes", self.writes.clone()), ("reads", self.reads.clone())] {
            self.figure(&format!("apiserver, {name}: mean"), "ms", all.mean_ms());
            self.figure(&format!("apiserver, {name}: p50"), "ms", all.quantile_ms(0.5));
            self.figure(&format!("apiserver, {name}: p99"), "ms", all.quantile_ms(0.99));
            println!("  {} {:.0} {name} in all", self.plane.store.side, all.count());
        }
        self.figure("store CPU, whole day", "s", cpu.as_secs_f64());
        self.figure("store memory, highest", "MiB", mib(peak));
        self.figure("store memory, at the end", "MiB", mib(resident));
        self.figure("of it not a file's", "MiB", mib(anonymous));
        self.figure("store disk, at the end", "MiB", mib(disk));
        self.figure("given to the disk to write", "MiB", mib(written));
        let others = self.plane.usage();
        self.figure("apiserver (since its restart), controllers, kwok: CPU", "s", others.cpu.as_secs_f64());
    }
}

/// None may have been refused.
pub(super) fn all_answered(what: &str, went: &Went) -> Result<()> {
    if went.refused == 0 { Ok(()) } else { Err(format!("{what}: {} refused: {}", went.refused, went.said).into()) }
}

fn nodes(day: &mut Day) -> Result<()> {
    let begun = Instant::now();
    let count = day.sizes.nodes;
    let ask = |at: usize| Ask { method: Method::POST, path: "/api/v1/nodes".to_owned(), object: story::node(at) };
    all_answered("nodes", &drive(day.plane, count, None, ask)?)?;
    let is_ready = |node: &Value| {
        let mut conditions = node["status"]["conditions"].as_array().into_iter().flatten();
        conditions.any(|it| it["type"] == "Ready" && it["status"] == "True") && node["spec"]["taints"].is_null()
    };
    day.wait("nodes that are ready", |day| {
        let nodes = day.get("/api/v1/nodes?resourceVersion=0")?;
        Ok(nodes["items"].as_array().is_some_and(|nodes| nodes.iter().filter(|node| is_ready(node)).count() == count))
    })?;
    day.figure("nodes: until all are ready", "s", begun.elapsed().as_secs_f64());
    Ok(())
}

fn deployments() -> String {
    format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments")
}

fn scale(day: &Day, pods: usize) -> Result<()> {
    let replicas = pods / DEPLOYMENTS;
    let ask = move |at: usize| Ask {
        method: Method::PATCH,
        path: format!("{}/d{at}", deployments()),
        object: json!({"spec": {"replicas": replicas}}),
    };
    all_answered("deployments", &drive(day.plane, DEPLOYMENTS, None, ask)?)
}

fn pods_up(day: &mut Day) -> Result<()> {
    let make = |at: usize| {
        let labels = json!({"app": format!("d{at}")});
        let requests = json!({"cpu": "10m", "memory": "16Mi"});
        let container = json!({"name": "c", "image": "registry.invalid/c:1", "resources": {"requests": requests}});
        let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [container]}});
        let spec = json!({"replicas": 0, "selector": {"matchLabels": labels}, "template": template});
        Ask {
            method: Method::POST,
            path: deployments(),
            object: json!({"metadata": {"name": format!("d{at}")}, "spec": spec}),
        }
    };
    all_answered("deployments", &drive(day.plane, DEPLOYMENTS, None, make)?)?;
    let begun = Instant::now();
    // Half of them first, as deployments grow.
    for pods in [day.sizes.pods / 2, day.sizes.pods] {
        scale(day, pods)?;
        let wanted = (pods / DEPLOYMENTS * DEPLOYMENTS) as u64;
        day.wait("pods that run", |day| {
            let all = day.get(&deployments())?;
            let ready = all["items"].as_array().into_iter().flatten();
            Ok(ready.filter_map(|one| one["status"]["readyReplicas"].as_u64()).sum::<u64>() == wanted)
        })?;
    }
    day.figure("pods up: until all run", "s", begun.elapsed().as_secs_f64());
    Ok(())
}

fn pods_down(day: &mut Day) -> Result<()> {
    let begun = Instant::now();
    let left = day.sizes.pods / 10;
    scale(day, left)?;
    let wanted = left / DEPLOYMENTS * DEPLOYMENTS;
    day.wait("pods that are gone", |day| {
        let page = day.get(&format!("/api/v1/namespaces/{NAMESPACE}/pods?limit=1"))?;
        let here = page["items"].as_array().map_or(0, Vec::len) as u64;
        Ok(here + page["metadata"]["remainingItemCount"].as_u64().unwrap_or_default() == wanted as u64)
    })?;
    day.figure("pods down: until nine of ten are gone", "s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Nothing but the leases of all nodes.
fn calm(day: &mut Day) -> Result<()> {
    std::thread::sleep(day.sizes.span);
    Ok(())
}

pub(super) fn maps() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/configmaps")
}

fn change(at: usize, maps_count: usize) -> Ask {
    let value = format!("{at:08}").repeat(MAP_BYTES / 8);
    Ask {
        method: Method::PATCH,
        path: format!("{}/m{}", maps(), at % maps_count),
        object: json!({"data": {"value": value}}),
    }
}

fn churn(day: &mut Day) -> Result<()> {
    let count = day.sizes.maps;
    let make = |at: usize| Ask {
        method: Method::POST,
        path: maps(),
        object: json!({"metadata": {"name": format!("m{at}")}, "data": {"value": "x".repeat(MAP_BYTES)}}),
    };
    all_answered("config maps", &drive(day.plane, count, None, make)?)?;
    let updates = (CHURN * day.sizes.span.as_secs_f64()) as usize;
    let went = drive(day.plane, updates, Some(CHURN), move |at| change(at, count))?;
    all_answered("updates", &went)?;
    day.figure("churn, as clients see it: p50", "ms", went.quantile_ms(0.5));
    day.figure("churn, as clients see it: p99", "ms", went.quantile_ms(0.99));
    Ok(())
}

/// The leader ends without a word while config maps are changed; a third of the time later it comes back.
fn leader_killed(day: &mut Day) -> Result<()> {
    let count = day.sizes.maps;
    let third = day.sizes.span / 3;
    let leader = day.plane.store.leader()?;
    let updates = (CHURN * day.sizes.span.as_secs_f64()) as usize;
    let plane = &mut *day.plane;
    let running = load::start(plane, updates, Some(CHURN), move |at| change(at, count));
    std::thread::sleep(third);
    plane.store.kill(leader)?;
    std::thread::sleep(third);
    plane.store.start_again(leader)?;
    let went = running.end(plane)?;
    plane.store.wait_until_well()?;
    plane.wait_until_ready()?;
    day.figure("leader killed: no write for", "s", went.silence.as_secs_f64());
    day.figure("leader killed: writes refused", "", went.refused as f64);
    day.figure("leader killed, as clients see it: p99", "ms", went.quantile_ms(0.99));
    Ok(())
}

/// The apiserver ends and begins: all its caches are filled from the store, and a client goes on where it was.
fn restarted(day: &mut Day) -> Result<()> {
    const CACHED: [&str; 3] = ["/api/v1/pods", "/api/v1/nodes", "/api/v1/configmaps"];
    let (mut times, mut pages) = ([Duration::ZERO; 2], Vec::new());
    for _ in 0..RESTARTS {
        day.scrape()?;
        let past = reads::past(day)?;
        let streams = reads::Count::streams(day)?;
        day.plane.restart_apiserver()?;
        let begun = Instant::now();
        day.plane.wait_until_ready()?;
        times[0] += begun.elapsed();
        for path in CACHED {
            day.get(path)?;
        }
        times[1] += begun.elapsed();
        streams.demand(day, "caches filled", CACHED.len())?;
        pages.extend(reads::before_restart(day, &past)?);
        // The controllers and kwok find it again.
        std::thread::sleep(day.sizes.span / 4);
    }
    let each = |time: Duration| time.as_secs_f64() / RESTARTS as f64;
    day.figure("apiserver restarted: until it is ready", "s", each(times[0]));
    day.figure("apiserver restarted: until everything was listed", "s", each(times[1]));
    let pages = Went::of(pages);
    day.figure("LISTs of before the restart, a page: p50", "ms", pages.quantile_ms(0.5));
    day.figure("LISTs of before the restart, a page: p99", "ms", pages.quantile_ms(0.99));
    Ok(())
}
