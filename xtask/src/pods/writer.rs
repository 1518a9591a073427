//! Writers that never rest: what was acknowledged, and for how long nothing was.
//!
//! Each writes keys of its own, one after the other, through the service, under the names and certificates that a client has.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::{PutRequest, RangeRequest};
use tokio::task::JoinHandle;

use super::Result;
use crate::secure::Dialer;

const WRITERS: usize = 4;
const PREFIX: &str = "w/";
/// The key after all of them.
const END: &str = "w0";
/// A call that takes longer is given up, and its connection with it.
const CALL_MAX: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(10);
const READ_MAX: Duration = Duration::from_secs(30);

/// They write until they are dropped.
pub(super) struct Writers {
    told: Arc<Mutex<Told>>,
    is_over: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Told {
    acknowledged: BTreeSet<String>,
    /// When each writer's last write was acknowledged, and the longest time between two.
    last: Vec<Option<Instant>>,
    longest: Duration,
    refused: u64,
    unanswered: u64,
    said: String,
}

/// How it went since the last time that it was asked for.
#[derive(Clone, Debug)]
pub(super) struct Lull {
    /// The longest time that any one writer was without an acknowledged write.
    pub(super) longest: Duration,
    /// How many were answered with a refusal.
    pub(super) refused: u64,
    /// How many were answered by nobody: cut off, or given up after [`CALL_MAX`].
    pub(super) unanswered: u64,
    /// What the last refusal said.
    pub(super) said: String,
}

impl Writers {
    pub(super) fn start(dialer: &Dialer, service: SocketAddr) -> Self {
        let told = Arc::new(Mutex::new(Told { last: vec![None; WRITERS], ..Told::default() }));
        let is_over = Arc::new(AtomicBool::new(false));
        let tasks = (0..WRITERS)
            .map(|at| tokio::spawn(write(at, dialer.clone(), service, told.clone(), is_over.clone())))
            .collect();
        Self { told, is_over, tasks }
    }

    /// Waits until each has written so many times more, and tells how it went.
    pub(super) async fn lull(&self, more: usize, patience: Duration) -> Result<Lull> {
        let count = || self.told.lock().unwrap_or_else(PoisonError::into_inner).acknowledged.len();
        let (before, begun) = (count(), Instant::now());
        while count() < before + more * WRITERS {
            if begun.elapsed() > patience {
                let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                return Err(format!("nothing is written any more: {}", told.said).into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = told.last.iter().flatten().map(Instant::elapsed).max().unwrap_or_default();
        let longest = told.longest.max(now);
        let lull = Lull { longest, refused: told.refused, unanswered: told.unanswered, said: told.said.clone() };
        (told.longest, told.refused, told.unanswered) = (Duration::ZERO, 0, 0);
        Ok(lull)
    }

    /// Ends them; the keys that were acknowledged.
    pub(super) async fn end(&mut self) -> Result<BTreeSet<String>> {
        self.is_over.store(true, Ordering::Relaxed);
        for task in self.tasks.drain(..) {
            task.await?;
        }
        Ok(self.acknowledged())
    }

    /// The keys that have been acknowledged up to now.
    pub(super) fn acknowledged(&self) -> BTreeSet<String> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).acknowledged.clone()
    }
}

async fn write(at: usize, dialer: Dialer, service: SocketAddr, told: Arc<Mutex<Told>>, is_over: Arc<AtomicBool>) {
    let connect = || KvClient::new(dialer.channel(service, CALL_MAX));
    let mut client = connect();
    let mut number = 0_u64;
    while !is_over.load(Ordering::Relaxed) {
        let key = format!("{PREFIX}{at}/{number:08}");
        number += 1;
        let put = PutRequest { key: key.clone().into(), value: key.clone().into(), ..PutRequest::default() };
        let answer = tokio::time::timeout(CALL_MAX, client.put(put)).await;
        let refused = match answer {
            Ok(Ok(_)) => None,
            // What has a source comes from the connection, and not from a server.
            Ok(Err(status)) => Some((std::error::Error::source(&status).is_none(), status.to_string())),
            Err(_) => Some((false, format!("no answer within {CALL_MAX:?}"))),
        };
        {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((is_answer, said)) = &refused {
                told.refused += u64::from(*is_answer);
                told.unanswered += u64::from(!is_answer);
                told.said.clone_from(said);
            } else {
                let last = told.last[at].replace(Instant::now());
                told.longest = told.longest.max(last.map_or(Duration::ZERO, |last| last.elapsed()));
                told.acknowledged.insert(key);
            }
        }
        if refused.is_some() {
            // Another connection finds another pod.
            client = connect();
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Which of the keys a server doesn't have.
pub(super) async fn missing(dialer: &Dialer, at: SocketAddr, keys: &BTreeSet<String>) -> Result<BTreeSet<String>> {
    let mut client = KvClient::new(dialer.channel(at, READ_MAX)).max_decoding_message_size(usize::MAX);
    let range = RangeRequest { key: PREFIX.into(), range_end: END.into(), keys_only: true, ..RangeRequest::default() };
    let there = client.range(range).await?.into_inner().kvs;
    let there: BTreeSet<String> = there.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect();
    Ok(keys.difference(&there).cloned().collect())
}
