//! Who gets a place, and who is cut off.

use std::task::Waker;

use super::*;
use crate::types::Limits;

const PUT: &str = "/etcdserverpb.KV/Put";
const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";

fn nobody() -> Result<(), Unknown> {
    Err(RequestError::UserEmpty.into())
}

fn share(limits: Limits) -> Arc<Share> {
    Share::new(&Budgets::new(&limits))
}

fn ask(share: &Arc<Share>, path: &str, count: usize) -> Vec<Asked> {
    (0..count).map(|_| share.ask(path, || Ok(())).expect("room")).collect()
}

#[test]
fn the_reserve_is_for_what_must_go_on_and_probes_have_one_of_their_own() {
    let budgets = Budgets::new(&Limits { requests_open_max: 2, ..Limits::default() });
    let [share, other, third] = [(); 3].map(|()| Share::new(&budgets));
    let held = ask(&share, PUT, 2);
    assert!(share.ask(PUT, || Ok(())).is_err());
    assert_eq!(share.open.refused(), 1);
    // Streams of whoever wants some, on as many connections as it takes.
    let mut kept = ask(&share, KEEP_ALIVE, RESERVE_MIN / 2);
    kept.extend(ask(&other, KEEP_ALIVE, RESERVE_MIN / 2));
    assert!(share.ask(KEEP_ALIVE, || Ok(())).is_err(), "that has an end, too");
    assert!(third.ask("/grpc.health.v1.Health/Watch", || Ok(())).is_err(), "nor is it a probe, which are soon done");
    let mut probes = ask(&third, "/grpc.health.v1.Health/Check", PROBES / 2);
    assert!(third.ask("/grpc.health.v1.Health/Check", || Ok(())).is_err(), "a call may be a while in coming");
    for path in ["/health", "/livez", "/readyz/x", "/metrics"] {
        probes.extend(ask(&third, path, PROBES / 8));
    }
    assert!(third.ask("/health", || Ok(())).is_err());
    let pages = Share::of_pages(&budgets);
    assert!(pages.ask("/livez", || Ok(())).is_ok(), "where there are only pages, others' calls count for nothing");
    drop((probes, kept, held));
    assert!(share.open.taken() == 0 && share.ask(PUT, || Ok(())).is_ok());
}

#[test]
fn one_connection_leaves_places_to_others() {
    let budgets = Budgets::new(&Limits { requests_open_max: 1_000, ..Limits::default() });
    let [share, other] = [(); 2].map(|()| Share::new(&budgets));
    let mut held = Vec::new();
    while let Ok(asked) = share.ask(PUT, || Ok(())) {
        held.push(asked);
    }
    assert!((490..=500).contains(&held.len()), "{}", held.len());
    let renewals = ask(&share, KEEP_ALIVE, 10);
    assert!(ask(&other, PUT, 400).len() == 400 && share.ask("/health", || Ok(())).is_ok());
    drop((held, renewals));
    assert!(share.ask(PUT, || Ok(())).is_ok());
}

// Cause: health's streams were probes, for which no connection's part counts. Symptom: one connection had all places, the
// reserve, and those of the probes.
#[test]
fn probes_too_are_a_connections_own() {
    let budgets = Budgets::new(&Limits { requests_open_max: 1_000, ..Limits::default() });
    let [share, other] = [(); 2].map(|()| Share::new(&budgets));
    for path in ["/grpc.health.v1.Health/Watch", "/grpc.health.v1.Health/Check", "/health"] {
        let held: Vec<_> = std::iter::from_fn(|| share.ask(path, || Ok(())).ok()).take(2_000).collect();
        assert!(held.len() <= 600, "{} of {path}", held.len());
        assert!(other.ask(PUT, || Ok(())).is_ok());
    }
}

// Cause: who had proven nothing could have all places. Symptom: three connections with silent streams, and every call of
// everybody else was refused for as long as they stayed.
#[test]
fn whom_nobody_knows_leaves_most_places_to_others() {
    let budgets = Budgets::new(&Limits { requests_open_max: 1_000, ..Limits::default() });
    let shares = [(); 4].map(|()| Share::new(&budgets));
    let more = [(); 5].map(|()| Share::new(&budgets));
    let of = |share: &Arc<Share>, path| share.ask(path, || panic!("there are few"));
    let mut held: Vec<_> = shares.iter().cycle().take(125).map(|share| of(share, KEEP_ALIVE).expect("room")).collect();
    let [share, ..] = &shares;
    for path in [PUT, KEEP_ALIVE, "/etcdserverpb.Watch/Watch", "/grpc.health.v1.Health/Watch", "/v3/kv/put", "/livezz"]
    {
        assert_eq!(share.ask(path, nobody).err(), Some(RequestError::UserEmpty), "{path}");
    }
    // As answers that nobody takes hold theirs, these are few, too, and no connection has all of them.
    for (path, most) in [
        ("/v3/auth/authenticate", 62),
        ("/etcdserverpb.Auth/Authenticate", 0),
        ("/health", 62),
        ("/readyz/ping", 0),
        ("/grpc.health.v1.Health/Check", PROBES),
    ] {
        let ask = |share: &Arc<Share>| {
            let mut asked = share.ask(path, nobody).ok()?;
            asked.answered();
            Some(asked)
        };
        let of_one: Vec<_> = std::iter::from_fn(|| ask(share)).take(2_000).collect();
        assert_eq!(of_one.len(), most / 4, "{path} on one connection");
        drop(of_one);
        let asked: Vec<_> = more.iter().flat_map(|share| std::iter::from_fn(|| ask(share)).take(2_000)).collect();
        assert_eq!(asked.len(), most, "{path}");
        held.extend(asked);
    }
    held.extend(ask(&shares[1], PUT, 300));
    held.extend(ask(&shares[2], PUT, 300));
    drop(held);
    assert_eq!(budgets.open.taken(), 0);
    let Beyond { logins, pages, probes, ahead } = &budgets.beyond;
    assert_eq!([logins, pages, probes, ahead].map(|places| places.taken()), [0; 4]);
    assert!(
        shares.iter().chain(&more).all(|share| share.beyond_now.iter().all(|now| now.load(Ordering::Relaxed) == 0))
    );
}

// Cause: a member that hadn't come to the entry of a token yet took its user for a stranger. Symptom: while there were many
// requests, who had just logged in at another member was told that the token is invalid.
#[test]
fn a_token_of_another_member_gets_one_of_a_few_places() {
    let budgets = Budgets::new(&Limits { requests_open_max: 1_000, ..Limits::default() });
    let shares = [(); 6].map(|()| Share::new(&budgets));
    let mut held = ask(&shares[0], PUT, 125);
    let ahead = |share: &Arc<Share>| share.ask(PUT, || Err(Unknown::Ahead));
    let of_one: Vec<_> = std::iter::from_fn(|| ahead(&shares[1]).ok()).take(2_000).collect();
    assert_eq!(of_one.len(), 15, "one connection has a part of them");
    drop(of_one);
    held.extend(shares.iter().flat_map(|share| std::iter::from_fn(|| ahead(share).ok()).take(2_000)));
    assert_eq!(held.len(), 125 + 62, "whoever likes can make up such a token");
    assert_eq!(ahead(&shares[5]).err(), Some(RequestError::TooManyRequests));
    assert!(shares[5].ask("/health", nobody).is_ok() && shares[5].ask(PUT, || Ok(())).is_ok());
    drop(held);
    assert_eq!((budgets.open.taken(), budgets.beyond.ahead.taken()), (0, 0));
}

#[test]
fn a_connection_has_few_logins_at_a_time() {
    let share = share(Limits { logins_per_connection_max: 1, ..Limits::default() });
    let mut login = share.ask("/etcdserverpb.Auth/Authenticate", || Ok(())).expect("the first");
    for path in ["/v3/auth/authenticate", "/v3beta/auth/authenticate", "/v3/auth/authenticat%65"] {
        assert!(share.ask(path, || Ok(())).is_err(), "{path}");
    }
    assert!(share.ask(PUT, || Ok(())).is_ok() && share.ask("/v3/auth/enabl%65", || Ok(())).is_ok());
    assert_eq!((share.logins.refused(), share.open.taken()), (3, 1));
    login.answered();
    assert!(
        share.ask("/v3/auth/authenticate", || Ok(())).is_ok(),
        "the check is over, whether the answer is read or not"
    );
    drop(login);
    assert_eq!(share.logins_now.load(Ordering::Relaxed), 0);
}

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_is_cut_off_and_who_takes_a_little_is_not() {
    let share = share(Limits::default());
    let mut patience = Patience::new(share.clone(), LIMIT);
    let context = &mut Context::from_waker(Waker::noop());
    let [mut one, other] = [(); 2].map(|()| share.begin());
    assert!(!patience.is_over(false, 0, context));
    tokio::time::sleep(LIMIT - Duration::from_secs(1)).await;
    share.moved(&mut one);
    share.end(one);
    assert!(!patience.is_over(false, 0, context));
    tokio::time::sleep(LIMIT / 2).await;
    assert!(!patience.is_over(false, 0, context), "some was taken meanwhile");
    // That there is more is no progress.
    let more = share.begin();
    tokio::time::sleep(LIMIT).await;
    assert!(patience.is_over(false, 0, context), "and then nothing");
    share.end(other);
    share.end(more);
    let mut patience = Patience::new(share.clone(), LIMIT);
    for (at, written) in [(0, 5), (1, 5), (2, 6)] {
        assert!(!patience.is_over(true, written, context), "{at}");
        tokio::time::sleep(LIMIT / 2).await;
    }
    assert!(!patience.is_over(true, 6, context), "some was written");
    tokio::time::sleep(LIMIT).await;
    assert!(patience.is_over(true, 6, context));
}

// Cause: a reset is no progress, and the time ran on over it. Symptom: an idle connection on which a call had been given up
// was cut for one that had just begun.
#[tokio::test(start_paused = true)]
async fn what_begins_after_another_was_reset_has_all_its_time() {
    let share = share(Limits::default());
    let mut patience = Patience::new(share.clone(), LIMIT);
    let context = &mut Context::from_waker(Waker::noop());
    let given_up = share.begin();
    assert!(!patience.is_over(false, 0, context));
    tokio::time::sleep(LIMIT / 2).await;
    share.end(given_up);
    assert!(!patience.is_over(false, 0, context));
    tokio::time::sleep(LIMIT / 2).await;
    let fresh = share.begin();
    assert!(!patience.is_over(false, 0, context), "it has just begun");
    tokio::time::sleep(LIMIT).await;
    assert!(patience.is_over(false, 0, context), "and its time ends, too");
    share.end(fresh);
}

/// How long it takes until it is over, with a step each second.
async fn over_after(share: &Arc<Share>, mut step: impl FnMut()) -> Duration {
    let mut patience = Patience::new(share.clone(), LIMIT);
    let begun = tokio::time::Instant::now();
    while !patience.is_over(false, 0, &mut Context::from_waker(Waker::noop())) {
        step();
        tokio::time::sleep(Duration::from_secs(1)).await;
        if begun.elapsed() > 100 * LIMIT {
            break;
        }
    }
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn one_answer_that_stands_still_ends_a_connection_on_which_others_move() {
    let share = share(Limits::default());
    let [mut moving, still] = [(); 2].map(|()| share.begin());
    let after = over_after(&share, || share.moved(&mut moving)).await;
    assert!((5 * LIMIT..=7 * LIMIT).contains(&after), "{after:?}");
    share.end(still);
    share.end(moving);
    // Each moves now and then.
    let mut slow: Vec<_> = (0..270).map(|_| share.begin()).collect();
    let mut at = 0;
    let after = over_after(&share, || {
        share.moved(&mut slow[at % 270]);
        at += 1;
    })
    .await;
    assert!(after > 100 * LIMIT, "{after:?}");
    slow.into_iter().for_each(|round| share.end(round));
    assert_eq!(share.unsent(), 0);
}
