//! `IssuedTokens`: the simple tokens that this member knows, by the hash of their secret part.
//!
//! ```text
//! log: Issue ─► issue      UserDelete, UserChangePassword ─► end_user      Disable, snapshot ─► clear
//! request: token ─► find: a look without a lock, in one of many maps; each use makes it live longer ─► Found
//!          Found ─► again: not even that look, as long as no token came to that map or left it
//! ```
//! The log says what there is and knows no clock: a token's time begins when it is first looked at here.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::auth::{Secret, TokenHash};
use crate::types::RaftIndex;

/// Letters of a token's secret part, 5.7 bits each: 136 bits.
const LETTERS: usize = 24;
/// Maps that the tokens are spread over: a change copies one of them, while commands wait to be applied.
const SHARDS: usize = 64;
/// Tokens that a map keeps; beyond it the one ends that would end first.
const SHARD_MAX: usize = 1_024;
/// How many of those that nobody showed here yet are kept before one that was: their users have just logged in.
const UNSEEN_SPARED: usize = SHARD_MAX / 8;
/// Tokens that a user keeps; beyond it that user's oldest ends, and nobody else's.
const USER_MAX: usize = SHARDS * SHARD_MAX / 4;
/// A use makes a token live longer only if that is more than this part of its time, and more than a second at most:
/// all threads of its user share where that is written.
const UNNOTED_PART: u64 = 64;
const UNNOTED_MAX_MS: u64 = 1_000;

type Map = HashMap<TokenHash, Arc<Issued>>;
/// Each user's tokens, the oldest first.
type Owners = HashMap<Arc<str>, BTreeSet<(RaftIndex, TokenHash)>>;

#[derive(Debug)]
struct Issued {
    name: Arc<str>,
    index: RaftIndex,
    /// Milliseconds since the first look at any token; 0 until this one is looked at.
    ends_ms: AtomicU64,
}

/// A token that was found, for who shows it again.
#[derive(Debug)]
pub(super) struct Found {
    issued: Arc<Issued>,
    /// Where it was found.
    shard: usize,
    /// Of the map, before it was looked at.
    version: u64,
}

impl Found {
    /// Whose token it is.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.issued.name
    }
}

#[derive(Debug, Default)]
struct Shard {
    map: ArcSwap<Map>,
    /// Grows after each change of the map, before whoever changed it goes on.
    version: AtomicU64,
}

impl Shard {
    fn change(&self, change: impl FnOnce(&mut Map)) {
        let mut map = Map::clone(&self.map.load());
        change(&mut map);
        self.map.store(Arc::new(map));
        self.version.fetch_add(1, Ordering::Release);
    }
}

/// The tokens that were given out by any member.
#[derive(Debug)]
pub struct IssuedTokens {
    shards: [Shard; SHARDS],
    /// Held by who changes a map.
    owners: Mutex<Owners>,
    /// The last entry that was in the log when this member started.
    replayed: AtomicU64,
    begun: OnceLock<Instant>,
}

impl Default for IssuedTokens {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Shard::default()),
            owners: Mutex::default(),
            replayed: AtomicU64::new(0),
            begun: OnceLock::new(),
        }
    }
}

impl IssuedTokens {
    /// Has tokens forgotten that entries up to `index` gave out: a restart ends tokens, and must not revive them.
    pub fn forget_until(&self, index: RaftIndex) {
        self.replayed.store(index.get(), Ordering::Relaxed);
        self.retain(|issued| issued.index > index);
    }

    /// Notes a token that the entry `index` gave to a user.
    pub fn issue(&self, token: TokenHash, index: RaftIndex, name: Arc<str>) {
        if index.get() <= self.replayed.load(Ordering::Relaxed) {
            return;
        }
        let mut owners = self.owners.lock();
        let own = owners.entry(name.clone()).or_default();
        if own.len() >= USER_MAX
            && let Some((_, oldest)) = own.pop_first()
        {
            self.shards[shard_of(&oldest)].change(|map| drop(map.remove(&oldest)));
        }
        own.insert((index, token));
        let mut ended = None;
        self.shards[shard_of(&token)].change(|map| {
            if map.len() >= SHARD_MAX {
                ended = first_to_end(map).and_then(|first| map.remove_entry(&first));
            }
            map.insert(token, Arc::new(Issued { name, index, ends_ms: AtomicU64::new(0) }));
        });
        if let Some((token, issued)) = ended {
            disown(&mut owners, &issued, token);
        }
    }

    /// Ends the tokens of a user.
    pub fn end_user(&self, name: &str) {
        let mut owners = self.owners.lock();
        let mut ended: [Vec<TokenHash>; SHARDS] = std::array::from_fn(|_| Vec::new());
        for (_, token) in owners.remove(name).unwrap_or_default() {
            ended[shard_of(&token)].push(token);
        }
        for (shard, tokens) in self.shards.iter().zip(ended) {
            if !tokens.is_empty() {
                shard.change(|map| tokens.iter().for_each(|token| drop(map.remove(token))));
            }
        }
    }

    /// Ends all tokens.
    pub fn clear(&self) {
        self.retain(|_| false);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.map.load().len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| shard.map.load().is_empty())
    }

    /// Whose token this is; it lives for another `ttl` then, but for a part of it that isn't worth being noted.
    pub fn user(&self, token: &str, now: Instant, ttl: Duration) -> Option<Arc<str>> {
        self.find(token, now, ttl).map(|found| found.name().clone())
    }

    /// The same, to be kept.
    pub(super) fn find(&self, token: &str, now: Instant, ttl: Duration) -> Option<Found> {
        let (letters, index) = token.split_once('.')?;
        let hash = token_hash(letters);
        let at = shard_of(&hash);
        let shard = &self.shards[at];
        // Before the map: what is found in an older one may not pass for what a newer one holds.
        let version = shard.version.load(Ordering::Acquire);
        let map = shard.map.load();
        let issued = map.get(&hash)?;
        // As it was given out, and no other way of writing it.
        if index.starts_with(['0', '+']) || index.parse() != Ok(issued.index.get()) {
            return None;
        }
        self.uses(issued, now, ttl).then(|| Found { issued: issued.clone(), shard: at, version })
    }

    /// Whether what was found still is a token, without a look for it. It is used then as if it had been found again;
    /// if not, it may still be one.
    pub(super) fn again(&self, found: &Found, now: Instant, ttl: Duration) -> bool {
        found.version == self.shards[found.shard].version.load(Ordering::Acquire) && self.uses(&found.issued, now, ttl)
    }

    /// Whether a token's time isn't over, and if so makes it longer.
    fn uses(&self, issued: &Issued, now: Instant, ttl: Duration) -> bool {
        let (now_ms, ttl_ms) = (self.millis(now), millis(ttl));
        let ends_ms = issued.ends_ms.load(Ordering::Relaxed);
        if ends_ms != 0 && ends_ms <= now_ms {
            return false;
        }
        let longer_ms = now_ms.saturating_add(ttl_ms).max(1);
        let unnoted_ms = (ttl_ms / UNNOTED_PART).min(UNNOTED_MAX_MS);
        if ends_ms == 0 || longer_ms.saturating_sub(ends_ms) > unnoted_ms {
            issued.ends_ms.store(longer_ms, Ordering::Relaxed);
        }
        true
    }

    /// Lets go of those whose time is over, and begins the time of those that nobody showed yet.
    pub fn sweep(&self, now: Instant, ttl: Duration) {
        let now_ms = self.millis(now);
        let ends_ms = now_ms.saturating_add(millis(ttl)).max(1);
        self.retain(|issued| {
            let begun = issued.ends_ms.compare_exchange(0, ends_ms, Ordering::Relaxed, Ordering::Relaxed);
            begun.err().is_none_or(|ends_ms| ends_ms > now_ms)
        });
    }

    /// Ends all tokens that aren't to be kept.
    fn retain(&self, keeps: impl Fn(&Issued) -> bool) {
        let mut owners = self.owners.lock();
        for shard in &self.shards {
            let ended: Vec<TokenHash> =
                shard.map.load().iter().filter(|(_, issued)| !keeps(issued)).map(|(token, _)| *token).collect();
            if ended.is_empty() {
                continue;
            }
            shard.change(|map| {
                for token in ended {
                    if let Some(issued) = map.remove(&token) {
                        disown(&mut owners, &issued, token);
                    }
                }
            });
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(*self.begun.get_or_init(|| now)))
    }
}

/// The map that a token is in.
fn shard_of(token: &TokenHash) -> usize {
    usize::from(token[0]) % SHARDS
}

/// The one that ends where there is no room: the oldest of those that nobody showed here yet, if they are many, else the one
/// whose last use was longest ago.
fn first_to_end(map: &Map) -> Option<TokenHash> {
    let ends_ms = |issued: &Issued| issued.ends_ms.load(Ordering::Relaxed);
    let oldest = |unseen: bool| {
        let some = map.iter().filter(|(_, issued)| (ends_ms(issued) == 0) == unseen);
        some.min_by_key(|(_, issued)| (ends_ms(issued), issued.index)).map(|(token, _)| *token)
    };
    let unseen = map.values().filter(|issued| ends_ms(issued) == 0).count();
    if unseen > UNSEEN_SPARED { oldest(true) } else { oldest(false).or_else(|| oldest(true)) }
}

/// Takes a token that has ended off its user's.
fn disown(owners: &mut Owners, issued: &Issued, token: TokenHash) {
    if let Some(own) = owners.get_mut(&issued.name) {
        own.remove(&(issued.index, token));
        if own.is_empty() {
            owners.remove(&issued.name);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The secret part of a new token, from random bits.
pub fn new_token(mut random: impl FnMut() -> u64) -> Secret {
    const ALPHABET: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let mut letters = String::with_capacity(LETTERS);
    while letters.len() < LETTERS {
        for byte in random().to_le_bytes() {
            // Of 64 numbers 12 are thrown away, so that all letters are as likely.
            if let Some(letter) = ALPHABET.get(usize::from(byte & 63))
                && letters.len() < LETTERS
            {
                letters.push(char::from(*letter));
            }
        }
    }
    Secret::new(letters)
}

/// The hash of a token's secret part, which is all that the log and this memory hold of it.
pub fn token_hash(letters: &str) -> TokenHash {
    *blake3::hash(letters.as_bytes()).as_bytes()
}

#[cfg(test)]
#[path = "issued_tests.rs"]
mod tests;
