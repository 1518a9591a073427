//! Tokens that come and go.

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
    let sum = |map: &Map| map.values().map(|issued| issued.ends_ms.load(Ordering::Relaxed)).sum::<u64>();
    let ends = || tokens.shards.iter().map(|shard| sum(&shard.map.load())).sum::<u64>();
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
    for number in 0..1_000 {
        issue(&tokens, &format!("x{number}"), 6, "b");
    }
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

/// Secret parts of tokens that are in the map of `of`.
fn beside(of: &str) -> impl Iterator<Item = String> {
    let shard = shard_of(&token_hash(of));
    (0..).map(|number: u64| number.to_string()).filter(move |letters| shard_of(&token_hash(letters)) == shard)
}

fn owned(tokens: &IssuedTokens) -> usize {
    tokens.owners.lock().values().map(BTreeSet::len).sum()
}

// Cause: where there were too many, the one went that was given out first, in use or not. Symptom: a user with one right
// logged in again and again, and the sessions of all others ended, root's among them.
#[test]
fn their_number_is_bounded_and_those_go_that_nobody_uses() {
    let (tokens, begun) = (IssuedTokens::default(), Instant::now());
    let used = issue(&tokens, "abc", 1, "root");
    assert!(tokens.user(&used, begun, TTL).is_some());
    let mut others = Vec::new();
    for (letters, index) in beside("abc").zip(2..).take(3 * SHARD_MAX) {
        let now = begun + Duration::from_millis(index * 100);
        let token = issue(&tokens, &letters, index, &format!("u{}", index % 50));
        tokens.user(&token, now, TTL);
        assert!(tokens.user(&used, now, TTL).is_some(), "{index}");
        others.push((token, now));
    }
    assert_eq!((tokens.len(), owned(&tokens)), (SHARD_MAX, SHARD_MAX));
    let (oldest, newest) = (&others[0], &others[others.len() - 1]);
    assert!(tokens.user(&oldest.0, newest.1, TTL).is_none() && tokens.user(&newest.0, newest.1, TTL).is_some());
    tokens.sweep(newest.1 + TTL * 2, TTL);
    assert_eq!((tokens.len(), owned(&tokens), tokens.owners.lock().len()), (0, 0, 0));
}

// Cause: those that nobody had shown yet went first, however young. Symptom: in a full map, who had just logged in lost the
// token to the next login before it could be shown.
#[test]
fn who_has_just_logged_in_keeps_the_token_until_many_others_have() {
    let (tokens, now) = (IssuedTokens::default(), Instant::now());
    let mut letters = beside("abc").zip(1..);
    let mut login = |is_shown: bool| {
        let (letters, index) = letters.next().expect("there is no end of them");
        let token = issue(&tokens, &letters, index, &format!("u{}", index % 50));
        assert!(!is_shown || tokens.user(&token, now, TTL).is_some());
        token
    };
    let [first, second] = [(); 2].map(|()| login(true));
    (2..SHARD_MAX).for_each(|_| drop(login(true)));
    let fresh = login(false);
    let others: Vec<_> = (1..UNSEEN_SPARED).map(|_| login(false)).collect();
    let lives = |token: &str| tokens.user(token, now, TTL).is_some();
    assert!(!lives(&first) && !lives(&second), "those whose last use was longest ago make room");
    let one_more = [(); 2].map(|()| login(false));
    assert_eq!(tokens.len(), SHARD_MAX);
    assert!(!lives(&fresh), "and then the oldest of those that nobody showed");
    assert!(others.iter().chain(&one_more).all(|token| lives(token)));
}

#[test]
fn who_has_too_many_loses_his_own() {
    let (tokens, now) = (IssuedTokens::default(), Instant::now());
    let others = issue(&tokens, "abc", 1, "root");
    // As many as there may be, without going through all that a change costs.
    for number in 0..USER_MAX as u64 {
        let token = token_hash(&number.to_string());
        tokens.owners.lock().entry("u".into()).or_default().insert((RaftIndex(number + 2), token));
        let issued = Issued { name: "u".into(), index: RaftIndex(number + 2), ends_ms: AtomicU64::new(1) };
        let shard = &tokens.shards[shard_of(&token)];
        let mut map = Arc::unwrap_or_clone(shard.map.swap(Arc::default()));
        map.insert(token, Arc::new(issued));
        shard.map.store(Arc::new(map));
    }
    assert_eq!(tokens.len(), USER_MAX + 1);
    let newest = issue(&tokens, "xyz", 1 << 40, "u");
    assert_eq!((tokens.len(), owned(&tokens)), (USER_MAX + 1, USER_MAX + 1));
    assert!(tokens.user("0.2", now, TTL).is_none(), "the oldest went");
    for token in ["1.3", &newest, &others] {
        assert!(tokens.user(token, now, TTL).is_some(), "{token}");
    }
    tokens.end_user("u");
    assert_eq!((tokens.len(), owned(&tokens)), (1, 1));
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
