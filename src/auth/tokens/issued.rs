//! `IssuedTokens`: the simple tokens that this member knows, by the hash of their secret part.
//!
//! ```text
//! log: Issue ─► issue      UserDelete, UserChangePassword ─► end_user      Disable, snapshot ─► clear
//! request: token ─► find: a look without a lock; each use makes it live longer ─► Found
//!          Found ─► again: not even that look, as long as no token came or went
//! ```
//! The log says what there is and knows no clock: a token's time begins when it is first looked at here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::auth::{Secret, TokenHash};
use crate::types::RaftIndex;

/// Letters of a token's secret part, 5.7 bits each: 136 bits.
const LETTERS: usize = 24;
/// Tokens that are kept; beyond it the oldest ends.
const TOKENS_MAX: usize = 65_536;
/// A use makes a token live longer only if that is more than this part of its time, and more than a second at most:
/// all threads of its user share where that is written.
const UNNOTED_PART: u64 = 64;
const UNNOTED_MAX_MS: u64 = 1_000;

type Map = HashMap<TokenHash, Arc<Issued>>;

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
    /// Of the map, before it was looked at.
    version: u64,
}

impl Found {
    /// Whose token it is.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.issued.name
    }
}

/// The tokens that were given out by any member.
#[derive(Debug, Default)]
pub struct IssuedTokens {
    map: ArcSwap<Map>,
    /// Grows after each change of the map, before whoever changed it goes on.
    version: AtomicU64,
    /// Held by who changes the map.
    changing: Mutex<()>,
    /// The last entry that was in the log when this member started.
    replayed: AtomicU64,
    begun: OnceLock<Instant>,
}

impl IssuedTokens {
    /// Has tokens forgotten that entries up to `index` gave out: a restart ends tokens, and must not revive them.
    pub fn forget_until(&self, index: RaftIndex) {
        self.replayed.store(index.get(), Ordering::Relaxed);
        if !self.is_empty() {
            self.change(|map| map.retain(|_, issued| issued.index > index));
        }
    }

    /// Notes a token that the entry `index` gave to a user.
    pub fn issue(&self, token: TokenHash, index: RaftIndex, name: Arc<str>) {
        if index.get() <= self.replayed.load(Ordering::Relaxed) {
            return;
        }
        self.change(|map| {
            if map.len() >= TOKENS_MAX
                && let Some(oldest) = map.iter().min_by_key(|(_, issued)| issued.index).map(|(token, _)| *token)
            {
                map.remove(&oldest);
            }
            map.insert(token, Arc::new(Issued { name, index, ends_ms: AtomicU64::new(0) }));
        });
    }

    /// Ends the tokens of a user.
    pub fn end_user(&self, name: &str) {
        self.change(|map| map.retain(|_, issued| &*issued.name != name));
    }

    /// Ends all tokens.
    pub fn clear(&self) {
        self.change(HashMap::clear);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.map.load().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whose token this is; it lives for another `ttl` then, but for a part of it that isn't worth being noted.
    pub fn user(&self, token: &str, now: Instant, ttl: Duration) -> Option<Arc<str>> {
        self.find(token, now, ttl).map(|found| found.name().clone())
    }

    /// The same, to be kept.
    pub(super) fn find(&self, token: &str, now: Instant, ttl: Duration) -> Option<Found> {
        let (letters, index) = token.split_once('.')?;
        // Before the map: what is found in an older one may not pass for what a newer one holds.
        let version = self.version.load(Ordering::Acquire);
        let map = self.map.load();
        let issued = map.get(&token_hash(letters))?;
        // As it was given out, and no other way of writing it.
        if index.starts_with(['0', '+']) || index.parse() != Ok(issued.index.get()) {
            return None;
        }
        self.uses(issued, now, ttl).then(|| Found { issued: issued.clone(), version })
    }

    /// Whether what was found still is a token, without a look for it. It is used then as if it had been found again;
    /// if not, it may still be one.
    pub(super) fn again(&self, found: &Found, now: Instant, ttl: Duration) -> bool {
        found.version == self.version.load(Ordering::Acquire) && self.uses(&found.issued, now, ttl)
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
        let mut over = false;
        for issued in self.map.load().values() {
            let begun = issued.ends_ms.compare_exchange(0, ends_ms, Ordering::Relaxed, Ordering::Relaxed);
            over |= begun.is_err_and(|ends_ms| ends_ms <= now_ms);
        }
        if over {
            let lives = |ends_ms: u64| ends_ms == 0 || ends_ms > now_ms;
            self.change(|map| map.retain(|_, issued| lives(issued.ends_ms.load(Ordering::Relaxed))));
        }
    }

    fn change(&self, change: impl FnOnce(&mut Map)) {
        let _changing = self.changing.lock();
        let mut map = Map::clone(&self.map.load());
        change(&mut map);
        self.map.store(Arc::new(map));
        self.version.fetch_add(1, Ordering::Release);
    }

    fn millis(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(*self.begun.get_or_init(|| now)))
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
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(300);

    fn issue(tokens: &IssuedTokens, letters: &str, index: u64, name: &str) -> String {
        tokens.issue(token_hash(letters), RaftIndex(index), name.into());
        format!("{letters}.{index}")
    }

    #[test]
    fn a_token_lives_while_it_is_used() {
        let (tokens, begun) = (IssuedTokens::default(), Instant::now());
        let token = issue(&tokens, "abc", 5, "u");
        let mut now = begun + Duration::from_secs(10_000);
        for _ in 0..5 {
            assert_eq!(tokens.user(&token, now, TTL).as_deref(), Some("u"));
            now += TTL - Duration::from_millis(1);
        }
        now += Duration::from_millis(2);
        assert_eq!(tokens.user(&token, now, TTL), None, "its time is over");
        assert_eq!(tokens.len(), 1);
        tokens.sweep(now, TTL);
        assert!(tokens.is_empty());
    }

    #[test]
    fn one_that_nobody_shows_ends_too() {
        let (tokens, now) = (IssuedTokens::default(), Instant::now());
        issue(&tokens, "abc", 5, "u");
        tokens.sweep(now, TTL);
        assert_eq!(tokens.len(), 1);
        tokens.sweep(now + TTL, TTL);
        assert!(tokens.is_empty());
    }

    #[test]
    fn only_the_token_as_given_is_one() {
        let (tokens, now) = (IssuedTokens::default(), Instant::now());
        issue(&tokens, "abc", 5, "u");
        for junk in ["abc", "abc.", "abc.05", "abc.+5", "abc.6", "abd.5", ".5", "", "abc.5.", "abc.5 ", "ABC.5"] {
            assert_eq!(tokens.user(junk, now, TTL), None, "{junk}");
        }
        assert!(tokens.user("abc.5", now, TTL).is_some());
    }

    #[test]
    fn users_tokens_end_with_them_and_old_entries_give_none() {
        let (tokens, now) = (IssuedTokens::default(), Instant::now());
        tokens.forget_until(RaftIndex(4));
        let old = issue(&tokens, "old", 4, "a");
        let (a, b) = (issue(&tokens, "abc", 5, "a"), issue(&tokens, "xyz", 6, "b"));
        assert_eq!(tokens.user(&old, now, TTL), None, "from before the restart");
        tokens.forget_until(RaftIndex(5));
        assert_eq!(tokens.user(&a, now, TTL), None, "from before it had caught up");
        let a = issue(&tokens, "abc", 7, "a");
        tokens.end_user("a");
        assert_eq!(tokens.user(&a, now, TTL), None);
        assert!(tokens.user(&b, now, TTL).is_some());
        tokens.clear();
        assert_eq!(tokens.user(&b, now, TTL), None);
    }

    #[test]
    fn uses_that_follow_each_other_closely_write_nothing_and_cost_next_to_none_of_its_time() {
        let (tokens, begun) = (IssuedTokens::default(), Instant::now());
        let token = issue(&tokens, "abc", 5, "u");
        let ends = || tokens.map.load().values().map(|issued| issued.ends_ms.load(Ordering::Relaxed)).sum::<u64>();
        let second = Duration::from_millis(UNNOTED_MAX_MS);
        assert!(tokens.user(&token, begun, TTL).is_some());
        let first = ends();
        assert!(tokens.user(&token, begun + second, TTL).is_some() && ends() == first);
        assert!(tokens.user(&token, begun + second + Duration::from_millis(1), TTL).is_some());
        assert_eq!(ends(), first + UNNOTED_MAX_MS + 1);
        // A short life loses less.
        let short = Duration::from_millis(640);
        let token = issue(&tokens, "xyz", 6, "u");
        let mut now = begun + TTL;
        assert!(tokens.user(&token, now, short).is_some());
        for step_ms in [10, 629, 639] {
            now += Duration::from_millis(step_ms);
            assert!(tokens.user(&token, now, short).is_some(), "{step_ms}");
        }
    }

    #[test]
    fn what_was_found_is_looked_for_again_once_any_token_came_or_went_or_its_time_is_over() {
        let (tokens, now) = (IssuedTokens::default(), Instant::now());
        let token = issue(&tokens, "abc", 5, "a");
        let find = |now| tokens.find(&token, now, TTL).expect("it is one");
        let found = find(now);
        assert!(tokens.again(&found, now + TTL / 2, TTL));
        assert!(tokens.again(&found, now + TTL, TTL), "each use makes it live longer");
        assert!(!tokens.again(&found, now + TTL * 2, TTL), "its time is over");
        assert!(tokens.find(&token, now + TTL * 2, TTL).is_none());
        issue(&tokens, "xyz", 6, "b");
        assert!(!tokens.again(&found, now + TTL, TTL), "it may have made room for another");
        let ends: [fn(&IssuedTokens); 3] =
            [|tokens| tokens.end_user("a"), IssuedTokens::clear, |tokens| tokens.forget_until(RaftIndex(9))];
        for end in ends {
            tokens.issue(token_hash("abc"), RaftIndex(5), "a".into());
            let found = find(now);
            assert!(tokens.again(&found, now, TTL));
            end(&tokens);
            assert!(!tokens.again(&found, now, TTL) && tokens.find(&token, now, TTL).is_none());
        }
    }

    #[test]
    fn their_number_is_bounded() {
        let (tokens, now) = (IssuedTokens::default(), Instant::now());
        let map = (0..TOKENS_MAX as u64).map(|index| {
            let issued = Issued { name: "u".into(), index: RaftIndex(index + 1), ends_ms: AtomicU64::new(0) };
            (token_hash(&index.to_string()), Arc::new(issued))
        });
        tokens.map.store(Arc::new(map.collect()));
        let newest = issue(&tokens, "abc", 1 << 40, "u");
        assert_eq!(tokens.len(), TOKENS_MAX);
        assert!(tokens.user(&newest, now, TTL).is_some());
        assert_eq!(tokens.user("0.1", now, TTL), None, "the oldest went");
    }

    #[test]
    fn tokens_are_letters_and_differ() {
        let mut state = 1_u64;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state ^ (state >> 31)
        };
        let (a, b) = (new_token(&mut random), new_token(&mut random));
        assert!(a != b && a.reveal().len() == LETTERS);
        assert!(a.reveal().bytes().all(|byte| byte.is_ascii_alphabetic()));
        assert!((52_f64).log2() * LETTERS as f64 >= 128.0);
    }
}
