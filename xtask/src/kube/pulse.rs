//! One object that is written and read all the while: whether the apiserver serves, and for how long it doesn't.
//!
//! The writer writes a number that grows, and after every doubt the next one; what is acknowledged must be seen by every
//! read that begins later.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinHandle;

use super::api::Api;
use super::plane::Plane;

const PATH: &str = "/api/v1/namespaces/default/configmaps/pulse";
/// Between two requests of one kind.
const PAUSE: Duration = Duration::from_millis(20);

/// A writer and a reader.
pub(super) struct Pulse {
    is_over: Arc<AtomicBool>,
    writer: JoinHandle<Result<Beats, String>>,
    reader: JoinHandle<Result<Beats, String>>,
}

/// How requests of one kind went.
#[derive(Clone, Debug)]
pub(super) struct Beats {
    pub(super) answered: usize,
    pub(super) refused: usize,
    /// The longest time from one answer to the next.
    pub(super) longest: Duration,
    last: Instant,
    /// What the last refusal said.
    pub(super) said: String,
}

impl Beats {
    fn new() -> Self {
        Self { answered: 0, refused: 0, longest: Duration::ZERO, last: Instant::now(), said: String::new() }
    }

    fn take(&mut self, refused: Option<String>) {
        match refused {
            None => {
                self.answered += 1;
                self.longest = self.longest.max(self.last.elapsed());
                self.last = Instant::now();
            }
            Some(said) => {
                self.refused += 1;
                self.said = said;
            }
        }
    }

    /// What came after the last answer counts, too; without any nothing was seen.
    fn ended(mut self, what: &str) -> Result<Self, String> {
        self.longest = self.longest.max(self.last.elapsed());
        if self.answered == 0 { Err(format!("no {what} was answered: {}", self.said)) } else { Ok(self) }
    }
}

impl Pulse {
    pub(super) fn start(plane: &Plane) -> Result<Self, String> {
        let mut api = plane.api();
        let object = json!({"metadata": {"name": "pulse"}, "data": {"beat": "0"}});
        let made = plane.runtime.block_on(async {
            api.delete(PATH).await?;
            api.post("/api/v1/namespaces/default/configmaps", object).await
        })?;
        if !made.is_ok() {
            return Err(format!("the pulse's object: {}", String::from_utf8_lossy(&made.body)));
        }
        let (is_over, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let writer = plane.runtime.spawn(write(plane.api(), is_over.clone(), acknowledged.clone()));
        let reader = plane.runtime.spawn(read(plane.api(), is_over.clone(), acknowledged));
        Ok(Self { is_over, writer, reader })
    }

    /// Ends it: writes, then reads.
    pub(super) fn end(self, plane: &Plane) -> Result<[Beats; 2], String> {
        self.is_over.store(true, Ordering::Relaxed);
        plane.runtime.block_on(async {
            let writes = self.writer.await.map_err(|error| error.to_string())??;
            let reads = self.reader.await.map_err(|error| error.to_string())??;
            Ok([writes, reads])
        })
    }
}

async fn write(mut api: Api, is_over: Arc<AtomicBool>, acknowledged: Arc<AtomicU64>) -> Result<Beats, String> {
    let mut beats = Beats::new();
    let mut number = 0_u64;
    while !is_over.load(Ordering::Relaxed) {
        number += 1;
        let refused = match api.patch(PATH, json!({"data": {"beat": number.to_string()}})).await {
            Ok(answer) if answer.is_ok() => None,
            Ok(answer) => Some(String::from_utf8_lossy(&answer.body).into_owned()),
            Err(said) => Some(said),
        };
        if refused.is_none() {
            acknowledged.store(number, Ordering::SeqCst);
        }
        beats.take(refused);
        tokio::time::sleep(PAUSE).await;
    }
    beats.ended("write")
}

async fn read(mut api: Api, is_over: Arc<AtomicBool>, acknowledged: Arc<AtomicU64>) -> Result<Beats, String> {
    let mut beats = Beats::new();
    while !is_over.load(Ordering::Relaxed) {
        let least = acknowledged.load(Ordering::SeqCst);
        let refused = match api.get(PATH).await {
            Ok(answer) if answer.is_ok() => {
                let beat = answer.json()["data"]["beat"].as_str().and_then(|beat| beat.parse::<u64>().ok());
                if beat.is_none_or(|beat| beat < least) {
                    return Err(format!("beat {least} was acknowledged before a read that found {beat:?}"));
                }
                None
            }
            Ok(answer) => Some(String::from_utf8_lossy(&answer.body).into_owned()),
            Err(said) => Some(said),
        };
        beats.take(refused);
        tokio::time::sleep(PAUSE).await;
    }
    beats.ended("read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_at_the_end_counts_and_no_answer_is_none() {
        let mut beats = Beats::new();
        beats.take(Some("refused".to_owned()));
        assert!(beats.clone().ended("write").is_err_and(|said| said.contains("refused")));
        beats.take(None);
        beats.longest = Duration::ZERO;
        beats.last = Instant::now().checked_sub(Duration::from_secs(7)).expect("a clock that has run");
        assert!(beats.ended("write").is_ok_and(|beats| beats.longest >= Duration::from_secs(7)));
    }
}
