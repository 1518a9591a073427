//! A seeded random run on the real etcd and on rusd side by side: every answer, every revision and every event
//! must be equal, until the first that isn't, which is shown with its step and the seed.
//!
//! ```text
//! seed ─► steps ─┬► side etcd ─► canon ─┐
//!                └► side rusd ─► canon ─┴► equal?   watchers' logs: equal after each drain?
//! ```
//!
//! `cargo xtask differential --steps N --seed S` for more. `RUSD_DIFFERENTIAL_AGAINST=etcd` runs two etcds, which
//! shows that the comparison itself is free of chance.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the test starts real processes, which live in the real world"
)]

mod canon;
mod side;
mod steps;

#[path = "../support/peers.rs"]
mod peers;
#[path = "../support/server.rs"]
mod server;

use std::time::Duration;

use bytes::Bytes;
use rusd_proto::etcdserverpb::{PutRequest, RangeRequest, WatchCreateRequest};
use server::Kind;
use side::{Log, Side};
use steps::{Step, Steps};
use tokio::time::sleep;

/// Enough for each kind of step to have met each other, in about half a minute.
const STEPS_DEFAULT: u64 = 3000;
const SEED_DEFAULT: u64 = 20_261_125;
/// The watchers' logs are compared at least this often.
const STEPS_BETWEEN_DRAINS: u64 = 100;
/// Longest wait for the slower server's events: 20 s.
const DRAIN_POLLS_MAX: u32 = 1000;
const DRAIN_POLL: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_answer_alike() {
    let (steps, seed) =
        (number("RUSD_DIFFERENTIAL_STEPS", STEPS_DEFAULT), number("RUSD_DIFFERENTIAL_SEED", SEED_DEFAULT));
    let against_etcd = std::env::var("RUSD_DIFFERENTIAL_AGAINST").is_ok_and(|kind| kind == "etcd");
    let other = if against_etcd { Kind::Etcd } else { Kind::Rusd };
    let Some(mut left) = Side::start(Kind::Etcd).await else { return };
    let Some(mut right) = Side::start(other).await else { return };
    let refused = run(&mut left, &mut right, steps, seed).await.unwrap_or_else(|difference| {
        panic!("seed {seed}: {difference}\nagain: cargo xtask differential --steps {steps} --seed {seed}")
    });
    println!("differential: {steps} steps with seed {seed} are equal, {refused} of them refusals");
}

/// Carries out the steps; the number of refused ones, or the first difference.
async fn run(left: &mut Side, right: &mut Side, steps: u64, seed: u64) -> Result<u64, String> {
    let mut plan = Steps::new(seed);
    let mut refused = 0;
    let (mut revision, mut compacted) = (1, 1);
    for at in 0..steps {
        let step = plan.next();
        // Events under way would see the compaction, the cancellation or the kill or not, by chance.
        let drains = matches!(step, Step::Compact(_) | Step::Cancel(_) | Step::Restart);
        if drains || at % STEPS_BETWEEN_DRAINS == 0 {
            revision = drain(left, right, at).await.map_err(|error| format!("before step {at}: {error}"))?;
        }
        revision = revision.max(equal(left, right, &step, &mut refused).await.map_err(|e| format!("step {at}: {e}"))?);
        plan.saw(revision);
        if let Step::Compact(request) = step
            && request.revision <= revision
        {
            compacted = compacted.max(request.revision);
            plan.compacted(compacted);
        }
    }
    revision = drain(left, right, steps).await?;
    // All that is left of the history, once as states and once as events.
    let everything = Bytes::from_static(&[0]);
    for revision in compacted..=revision {
        let (key, range_end) = (everything.clone(), everything.clone());
        let step = Step::Range(RangeRequest { key, range_end, revision, ..RangeRequest::default() });
        equal(left, right, &step, &mut refused).await?;
    }
    let step = Step::Watch(WatchCreateRequest {
        key: everything.clone(),
        range_end: everything,
        start_revision: compacted,
        watch_id: i64::MAX,
        ..WatchCreateRequest::default()
    });
    equal(left, right, &step, &mut refused).await?;
    drain(left, right, steps).await?;
    Ok(refused)
}

/// One step on both; the revision that both have come to.
async fn equal(left: &mut Side, right: &mut Side, step: &Step, refused: &mut u64) -> Result<i64, String> {
    let (one, two) = tokio::join!(left.carry_out(step), right.carry_out(step));
    if one.text != two.text {
        return Err(format!("{step:#?}\netcd: {}\nrusd: {}", show(&one.text), show(&two.text)));
    }
    *refused += u64::from(one.text.is_err());
    Ok(one.revision)
}

/// Takes a revision, waits until both servers' watchers were told everything up to it, and compares.
async fn drain(left: &mut Side, right: &mut Side, at: u64) -> Result<i64, String> {
    let mark = Step::Put(PutRequest { key: "drain".into(), value: at.to_string().into(), ..PutRequest::default() });
    let revision = equal(left, right, &mark, &mut 0).await?;
    for poll in 0..=DRAIN_POLLS_MAX {
        for (side, name) in [(&*left, "etcd"), (&*right, "rusd")] {
            if side.progress() < revision {
                if poll == DRAIN_POLLS_MAX {
                    return Err(format!("{name}: no progress to {revision}, only to {}", side.progress()));
                }
                side.ask_progress();
            }
        }
        if left.progress() >= revision && right.progress() >= revision {
            break;
        }
        sleep(DRAIN_POLL).await;
    }
    let (one, two) = (left.log(), right.log());
    if one == two {
        left.forget(&one);
        right.forget(&one);
        return Ok(revision);
    }
    let difference = one.keys().chain(two.keys()).find(|id| one.get(id) != two.get(id));
    let lines = |log: &Log| difference.and_then(|id| log.get(id)).cloned().unwrap_or_default();
    let (one, two) = (lines(&one), lines(&two));
    let same = one.iter().zip(&two).take_while(|(a, b)| a == b).count();
    let next = |lines: &[String]| lines.get(same).cloned().unwrap_or_else(|| "nothing".to_owned());
    Err(format!("watcher {difference:?}, after {same} equal\netcd: {}\nrusd: {}", next(&one), next(&two)))
}

fn show(text: &Result<String, String>) -> String {
    match text {
        Ok(answer) => answer.clone(),
        Err(error) => format!("error {error}"),
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}
