//! Requests in a row, or at a given pace, by several clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::super::api::Api;
use super::super::plane::Plane;

const CLIENTS: usize = 16;

/// One request.
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) object: Value,
}

/// How requests went.
#[derive(Clone, Debug, Default)]
pub(super) struct Went {
    /// From the time when each was due until its answer, in order of size.
    took: Vec<Duration>,
    pub(super) refused: usize,
    /// The longest time from one answer to the next.
    pub(super) silence: Duration,
    pub(super) said: String,
}

impl Went {
    /// All of them answered.
    pub(super) fn of(mut took: Vec<Duration>) -> Self {
        took.sort_unstable();
        Self { took, ..Self::default() }
    }

    pub(super) fn quantile_ms(&self, quantile: f64) -> f64 {
        let at = (self.took.len() as f64 * quantile) as usize;
        self.took.get(at.min(self.took.len().saturating_sub(1))).map_or(0.0, |took| took.as_secs_f64() * 1000.0)
    }
}

/// Requests that are being made.
pub(super) struct Running {
    begun: Instant,
    clients: Vec<JoinHandle<One>>,
}

/// So many requests, as fast as the clients can or so many a second.
pub(super) fn drive(
    plane: &Plane,
    count: usize,
    rate: Option<f64>,
    make: impl Fn(usize) -> Ask + Send + Sync + 'static,
) -> Result<Went, String> {
    start(plane, count, rate, make).end(plane)
}

/// Begins with them.
pub(super) fn start(
    plane: &Plane,
    count: usize,
    rate: Option<f64>,
    make: impl Fn(usize) -> Ask + Send + Sync + 'static,
) -> Running {
    let (make, next, begun) = (Arc::new(make), Arc::new(AtomicUsize::new(0)), Instant::now());
    let clients = (0..CLIENTS)
        .map(|_| plane.runtime.spawn(client(plane.api(), count, rate, begun, next.clone(), make.clone())))
        .collect();
    Running { begun, clients }
}

impl Running {
    /// Waits for the last one.
    pub(super) fn end(self, plane: &Plane) -> Result<Went, String> {
        let mut answers = Vec::new();
        let mut went = Went::default();
        for client in self.clients {
            let one = plane.runtime.block_on(client).map_err(|error| error.to_string())?;
            answers.extend(one.answers);
            went.refused += one.refused;
            if !one.said.is_empty() {
                went.said = one.said;
            }
        }
        answers.sort_unstable_by_key(|(at, _)| *at);
        let mut last = self.begun;
        for (at, _) in &answers {
            went.silence = went.silence.max(at.saturating_duration_since(last));
            last = *at;
        }
        went.took = answers.into_iter().map(|(_, took)| took).collect();
        went.took.sort_unstable();
        Ok(went)
    }
}

#[derive(Default)]
struct One {
    answers: Vec<(Instant, Duration)>,
    refused: usize,
    said: String,
}

async fn client(
    mut api: Api,
    count: usize,
    rate: Option<f64>,
    begun: Instant,
    next: Arc<AtomicUsize>,
    make: Arc<impl Fn(usize) -> Ask>,
) -> One {
    let mut one = One::default();
    loop {
        let at = next.fetch_add(1, Ordering::Relaxed);
        if at >= count {
            return one;
        }
        let due = rate.map_or_else(Instant::now, |rate| begun + Duration::from_secs_f64(at as f64 / rate));
        tokio::time::sleep_until(due.into()).await;
        let Ask { method, path, object } = make(at);
        match api.ask(method, &path, object).await {
            Ok(answer) if answer.is_ok() => one.answers.push((Instant::now(), due.elapsed())),
            Ok(answer) => {
                one.refused += 1;
                one.said = format!("{}: {}", answer.status, String::from_utf8_lossy(&answer.body));
            }
            Err(said) => {
                one.refused += 1;
                one.said = said;
            }
        }
    }
}
