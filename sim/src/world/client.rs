//! A client: one call after the other at this or that member, kept with its times and its outcome.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use rusd::types::LeaseId;
use rusd_sim::history::{Answer, Call, Op, Outcome};
use rusd_sim::random::Rand;
use tokio::sync::oneshot;

use super::World;
use super::door::Request;
use super::member::REQUEST_TIMEOUT;

/// Beyond the members' own limit.
const PATIENCE: Duration = Duration::from_secs(1);
/// Prefixes of keys, and keys of each.
const DIRS: [&str; 2] = ["a/", "b/"];
const KEYS: u64 = 8;
/// Keys that hang on leases lie here, `l/LEASE/N`.
const LEASED: &str = "l/";
/// A client's leases at a time.
const LEASES: usize = 2;
/// Of those that ask while a member stands alone: how long it waits for an answer, and between two calls.
const ALONE_PATIENCE: Duration = Duration::from_millis(500);
const ALONE_PAUSE: Duration = Duration::from_millis(50);
/// The same behind a read that nobody answered.
const ALONE_AGAIN: Duration = Duration::from_millis(2);

struct Client {
    world: Arc<World>,
    number: usize,
    rand: Rand,
    /// How long it waits for an answer.
    patience: Duration,
    /// The member that it asks, mostly.
    member: usize,
    /// The one that answered for a lease last.
    keeper: usize,
    writes: u64,
    /// Number, seconds, when to renew; renewals that are left before it is forgotten.
    leases: Vec<(i64, i64, u64, u64)>,
    granted: i64,
    /// The last revision seen of a key, for compares.
    seen: Vec<(Bytes, i64)>,
    revision: i64,
}

/// Runs until the clients are told to stop.
pub(crate) async fn run(world: Arc<World>, number: usize) -> turmoil::Result {
    let mut client = Client::new(world, number);
    while !client.world.is_over.load(Ordering::Relaxed) {
        let pause = client.rand.between(1, 50);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        client.act().await;
    }
    Ok(())
}

/// What a client does while a member stands alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Writes at the others, by turns: it shows how soon they can go on.
    Others,
    /// Writes at that member: one that leads has something new to send.
    Writes,
    /// Reads there: what it says must not be old, whenever it comes.
    Reads,
}

/// While a member stands alone, and only then.
pub(crate) async fn run_alone(world: Arc<World>, number: usize, task: Task) -> turmoil::Result {
    let mut client = Client::new(world, number);
    let at_others = task == Task::Others;
    client.patience = if at_others { ALONE_PATIENCE } else { ALONE_PATIENCE / 2 };
    let mut pause = ALONE_PAUSE;
    while !client.world.is_over.load(Ordering::Relaxed) {
        tokio::time::sleep(pause).await;
        let Some(alone) = *client.world.alone.lock() else { continue };
        client.member = if at_others { (client.member + 1) % client.world.hosts.len() } else { alone };
        if (client.member != alone) == at_others {
            let key = Bytes::from_static(b"z/alone");
            let call = match task {
                Task::Reads => Call::Get { prefix: key, serializable: false, revision: 0 },
                Task::Others | Task::Writes => Call::Put { key, value: client.value(), lease: 0 },
            };
            let outcome = client.ask(client.member, call).await;
            // At a member that stands still a read waits all the time, so that one is there when it goes on.
            let waits = task == Task::Reads && matches!(outcome, Outcome::Unknown(_));
            pause = if waits { ALONE_AGAIN } else { ALONE_PAUSE };
        }
    }
    Ok(())
}

/// After all is healed and still: a write and a read at every member must succeed.
pub(crate) async fn run_last(world: Arc<World>, number: usize) -> turmoil::Result {
    while !world.is_settled.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut client = Client::new(world, number);
    for member in client.world.places() {
        let put = Call::Put { key: Bytes::from_static(b"z/last"), value: client.value(), lease: 0 };
        let get = Call::Get { prefix: Bytes::new(), serializable: false, revision: 0 };
        for call in [put, get] {
            match client.ask(member, call.clone()).await {
                Outcome::Ok(_) => {}
                other => client.world.fault(format!("after the healing, m{member} answers {call:?} with {other:?}")),
            }
        }
        leases(&client.world, member).await;
    }
    Ok(())
}

/// A member that has just read linearizably must have the leases that live, and no others.
async fn leases(world: &World, member: usize) {
    let before = world.known.lock().lives.alive();
    let (reply, answer) = oneshot::channel();
    let asked = world.hosts[member].port.lock().as_ref().is_some_and(|port| port.send(Request::Leases(reply)).is_ok());
    let Ok(found) = answer.await else {
        return world.fault(format!("after the healing, m{member} doesn't tell its leases (asked: {asked})"));
    };
    let after = world.known.lock().lives.alive();
    let found: BTreeSet<i64> = found.into_iter().map(LeaseId::get).collect();
    // One may run out meanwhile.
    if !(found.is_superset(&after) && found.is_subset(&before)) {
        world.fault(format!("m{member} has the leases {found:?}; those that live are {after:?}, and were {before:?}"));
    }
}

impl Client {
    fn new(world: Arc<World>, number: usize) -> Self {
        let rand = Rand::new(world.settings.seed, 100 + number as u64);
        let member = number % world.hosts.len();
        Self {
            world,
            number,
            rand,
            patience: REQUEST_TIMEOUT + PATIENCE,
            member,
            keeper: 0,
            writes: 0,
            leases: Vec::new(),
            granted: 0,
            seen: Vec::new(),
            revision: 1,
        }
    }

    async fn act(&mut self) {
        if self.rand.chance(4) {
            self.member = self.rand.index(self.world.hosts.len());
        }
        let now = self.world.now();
        if let Some(at) = self.leases.iter().position(|lease| lease.2 <= now) {
            return self.renew(at).await;
        }
        let call = self.choose();
        let outcome = self.ask(self.member, call.clone()).await;
        self.learn(&call, &outcome);
    }

    fn key(&mut self) -> Bytes {
        let dir = DIRS[self.rand.index(DIRS.len())];
        Bytes::from(format!("{dir}{}", self.rand.below(KEYS)))
    }

    fn value(&mut self) -> Bytes {
        self.writes += 1;
        let mut value = format!("c{}-{}", self.number, self.writes);
        if self.rand.chance(5) {
            value.push_str(&"x".repeat(3_000));
        }
        Bytes::from(value)
    }

    fn choose(&mut self) -> Call {
        match self.rand.below(100) {
            0..35 => Call::Put { key: self.key(), value: self.value(), lease: 0 },
            35..42 => Call::Delete { prefix: self.key() },
            42..52 => self.txn(),
            52..72 => Call::Get { prefix: self.key(), serializable: false, revision: 0 },
            72..80 => {
                let dir = DIRS[self.rand.index(DIRS.len())];
                let serializable = self.rand.chance(30);
                Call::Get { prefix: Bytes::from_static(dir.as_bytes()), serializable, revision: 0 }
            }
            80..86 => Call::Get { prefix: self.key(), serializable: true, revision: 0 },
            86..88 => {
                let revision = self.revision - self.rand.below(20) as i64;
                Call::Get { prefix: self.key(), serializable: false, revision: revision.max(1) }
            }
            88..92 if self.leases.len() < LEASES => {
                self.granted += 1;
                let id = (self.number as i64 + 1) * 10_000 + self.granted;
                Call::Grant { id, ttl: self.rand.between(2, 5) as i64 }
            }
            88..97 if !self.leases.is_empty() => {
                let at = self.rand.index(self.leases.len());
                let lease = self.leases[at].0;
                let key = Bytes::from(format!("{LEASED}{lease}/{}", self.rand.below(3)));
                Call::Put { key, value: self.value(), lease }
            }
            97 if !self.leases.is_empty() => {
                let at = self.rand.index(self.leases.len());
                Call::Revoke { id: self.leases.remove(at).0 }
            }
            98 => Call::Compact { revision: (self.revision - self.rand.below(60) as i64).max(1) },
            _ => Call::Put { key: self.key(), value: self.value(), lease: 0 },
        }
    }

    /// A transaction over up to six keys.
    fn txn(&mut self) -> Call {
        let mut keys: Vec<Bytes> = Vec::new();
        for _ in 0..6 {
            let key = self.key();
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        let mut keys = keys.into_iter();
        let seen = |key: &Bytes| self.seen.iter().find(|(seen, _)| seen == key).map_or(0, |(_, revision)| *revision);
        let (first, second) = (keys.next(), keys.next());
        let mut compares: Vec<_> = first.iter().map(|key| (key.clone(), seen(key))).collect();
        if self.rand.chance(30) {
            compares.extend(second.iter().map(|key| (key.clone(), seen(key))));
        }
        let reads: Vec<Bytes> = first.iter().chain(&second).cloned().collect();
        // One in five only reads.
        if self.rand.chance(20) {
            return Call::Txn { compares, puts: Vec::new(), deletes: Vec::new(), reads };
        }
        let more = self.rand.index(3);
        let written: Vec<Bytes> = first.into_iter().chain(keys.by_ref().take(more)).collect();
        let puts = written.into_iter().map(|key| (key, self.value())).collect();
        let deletes = if self.rand.chance(40) { keys.take(1).collect() } else { Vec::new() };
        Call::Txn { compares, puts, deletes, reads }
    }

    fn learn(&mut self, call: &Call, outcome: &Outcome) {
        let Outcome::Ok(answer) = outcome else {
            // Somebody else may do better.
            self.member = self.rand.index(self.world.hosts.len());
            return;
        };
        match answer {
            Answer::Done { revision } | Answer::Deleted { revision, .. } => {
                self.revision = self.revision.max(*revision);
            }
            Answer::Txn { revision, found: kvs, .. } | Answer::Found { revision, kvs } => {
                self.revision = self.revision.max(*revision);
                for kv in kvs {
                    self.seen.retain(|(key, _)| *key != kv.key);
                    self.seen.push((kv.key.clone(), kv.modified));
                }
            }
            Answer::Lease { .. } => {}
        }
        if let (Call::Grant { id, ttl }, Answer::Lease { .. }) = (call, answer) {
            let renewals = self.rand.below(6);
            let due = self.due(*ttl);
            self.leases.push((*id, *ttl, due, renewals));
        }
    }

    /// When to renew a lease of so many seconds: mostly early enough.
    fn due(&mut self, ttl: i64) -> u64 {
        self.world.now() + ttl as u64 * self.rand.between(250_000, 900_000)
    }

    async fn renew(&mut self, at: usize) {
        let (id, ttl, _, left) = self.leases[at];
        if left == 0 {
            // It may run out.
            self.leases.remove(at);
            return;
        }
        let mut gone = false;
        for _ in 0..self.world.hosts.len() {
            match self.ask(self.keeper, Call::KeepAlive { id }).await {
                Outcome::Ok(Answer::Lease { ttl }) => {
                    gone = ttl == 0;
                    break;
                }
                _ => self.keeper = (self.keeper + 1) % self.world.hosts.len(),
            }
        }
        if gone {
            self.leases.remove(at);
        } else {
            self.leases[at] = (id, ttl, self.due(ttl), left - 1);
        }
    }

    async fn ask(&mut self, member: usize, call: Call) -> Outcome {
        // The way there and back; an answer may be lost on it.
        let (there, back) = (self.rand.between(100, 2_000), self.rand.between(100, 2_000));
        let invoked = self.world.now();
        tokio::time::sleep(Duration::from_micros(there)).await;
        let host = self.world.hosts[member].clone();
        let boot = host.boot();
        let (reply, answer) = oneshot::channel();
        let request = Request::Call(call.clone(), reply);
        let sent = host.port.lock().as_ref().is_some_and(|port| port.send(request).is_ok());
        let outcome = if !sent {
            Outcome::Failed("nobody listens".to_owned())
        } else {
            match tokio::time::timeout(self.patience, answer).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Outcome::Unknown("the connection broke".to_owned()),
                Err(_) => Outcome::Unknown("no answer".to_owned()),
            }
        };
        tokio::time::sleep(Duration::from_micros(back)).await;
        let returned = self.world.now();
        let client = self.number;
        let op = Op { client, member, boot, call, invoked, returned, outcome: outcome.clone() };
        self.world.record(op);
        outcome
    }
}
