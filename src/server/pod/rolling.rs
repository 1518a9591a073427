//! Whether the pods of a set may be replaced one after the other now, with no majority lost by it.
//!
//! ```text
//! members, as a majority knows them ─► each asked what takes a majority ─► who doesn't answer, who doesn't vote yet
//!      │                                                                        │
//!      │                                                                        ├► nobody, or only the highest ─► go on
//!      ├► nobody has a majority, from the start on ─► go on                     ├► one more may be missed ─────► go on
//!      └► nobody has one any more ─► wait, then refuse                          └► else ──────► wait, then refuse
//! ```
//! A controller that takes a set's pods in parallel replaces the highest ordinal first and waits for those above it alone:
//! one that is missing further down doesn't stop it (Kubernetes below 1.37). So it is stopped here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;

use super::names::ordinal_in;
use super::patience::Waiting;
use super::{AGAIN, PodError};
use crate::operator::{AskError, Line, MemberRow, Way};

/// Between two looks while one is missing: each logs in at each member, which is work for those that are left.
const MISSING_AGAIN: Duration = Duration::from_secs(5);

/// The set whose pods are to be replaced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rolling<'a> {
    /// The StatefulSet's name.
    pub(super) base: &'a str,
    /// How many pods there will be: those beyond are about to go, and don't count.
    pub(super) replicas: u32,
    /// How many there were, if that is known.
    pub(super) before: Option<u32>,
}

/// Waits until pods may be replaced, or nothing can be known of that. `look` gives the ordinals that forbid it.
///
/// # Errors
/// Members are missing for longer than the patience, and one more would be too many; or were, when a majority last answered.
pub(super) async fn wait(
    waiting: &mut Waiting<'_>,
    base: &str,
    mut look: impl AsyncFnMut() -> Result<BTreeSet<u32>, AskError>,
) -> Result<(), PodError> {
    let mut missing_last = BTreeSet::new();
    loop {
        let answer = look().await;
        let mut silence = None;
        match answer {
            Ok(missing) => {
                waiting.heard();
                if missing.is_empty() {
                    return Ok(());
                }
                if missing_last != missing {
                    tracing::info!(ordinals = ?missing, "waiting for these pods: one more of them less costs the majority");
                }
                missing_last = missing;
            }
            // Nothing is lost where there is nothing; and what is broken must not keep an upgrade from mending it. But one
            // that was held isn't let through by a moment in which another one is missing, too.
            Err(error) if missing_last.is_empty() && waiting.is_nobody() => {
                tracing::warn!(%error, "no majority says whether a member is missing");
                return Ok(());
            }
            Err(error) => {
                tracing::info!(%error, "not yet; will try again");
                silence = Some(error);
            }
        }
        if waiting.is_over() {
            let last = refusal(base, &missing_last, silence.as_ref());
            return Err(PodError::Late { after: waiting.patience(), last });
        }
        tokio::time::sleep(if silence.is_some() { AGAIN } else { MISSING_AGAIN }).await;
    }
}

fn refusal(base: &str, missing: &BTreeSet<u32>, silence: Option<&AskError>) -> String {
    let names: Vec<_> = missing.iter().map(|ordinal| format!("{base}-{ordinal}")).collect();
    let names = names.join(", ");
    match silence {
        None => format!(
            "{names} doesn't answer or doesn't vote yet, and if another pod is replaced meanwhile the majority is lost: \
             nothing was changed. Mend that first; `--no-hooks` goes on in spite of it"
        ),
        Some(error) => format!(
            "{names} didn't answer or didn't vote yet, and since then the majority doesn't answer either ({error}): nothing \
             was changed. If that stays so, the next try goes on, as there is no majority to lose; `--no-hooks` goes on at once"
        ),
    }
}

/// The ordinals that forbid it.
///
/// # Errors
/// No majority says so.
pub(super) async fn look(way: &Way, lines: &[Line], what: Rolling<'_>) -> Result<BTreeSet<u32>, AskError> {
    let rows = rows(lines).await?;
    let answers = join_all(rows.iter().map(|row| answers(way, row))).await;
    if !answers.contains(&true) {
        return Err(AskError::Unreachable("the members' majority is gone since they were listed".to_owned()));
    }
    let members: Vec<_> = rows.iter().zip(answers).collect();
    Ok(judged(&members, what))
}

/// The members as a majority knows them, by the first that tells.
async fn rows(lines: &[Line]) -> Result<Vec<MemberRow>, AskError> {
    let mut asked: futures::stream::FuturesUnordered<_> = lines.iter().map(|line| line.members(true)).collect();
    let mut last = AskError::Unreachable("nobody to ask".to_owned());
    while let Some(answer) = futures::StreamExt::next(&mut asked).await {
        match answer {
            Ok(rows) => return Ok(rows),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Whether a member itself has a majority behind it.
async fn answers(way: &Way, row: &MemberRow) -> bool {
    let asked = row.client_urls.iter().map(|url| async { way.to(url).members(true).await.is_ok() });
    join_all(asked).await.contains(&true)
}

/// The missing ordinals, if they forbid it.
fn judged(members: &[(&MemberRow, bool)], what: Rolling<'_>) -> BTreeSet<u32> {
    let mut is_up = BTreeMap::new();
    let (mut voters, mut up) = (0_usize, 0_usize);
    for (row, answers) in members {
        let ordinal = ordinal_in(what.base, row);
        if ordinal.is_some_and(|ordinal| ordinal >= what.replicas) {
            continue;
        }
        let counts = *answers && !row.is_learner;
        voters += usize::from(!row.is_learner);
        up += usize::from(counts);
        if let Some(ordinal) = ordinal {
            is_up.insert(ordinal, counts);
        }
    }
    let known = is_up.keys().next_back().map_or(0, |highest| highest.saturating_add(1));
    let expected = what.before.unwrap_or(known).min(what.replicas);
    let is_missing = |ordinal: &u32| !is_up.get(ordinal).copied().unwrap_or(false);
    let missing: BTreeSet<u32> = (0..expected).filter(is_missing).collect();
    let highest_up = (0..expected).rev().find(|ordinal| !is_missing(ordinal));
    // These come first, and the others wait for them: an upgrade that mends them goes through. Fewer than a majority can't
    // have answered for it: then somebody went while they were asked, and what is seen isn't how it stays.
    let are_highest = missing.first().is_none_or(|lowest| highest_up.is_none_or(|up| up < *lowest));
    let is_majority = up > voters / 2;
    let may_miss_one = up > voters / 2 + 1;
    if (are_highest && is_majority) || may_miss_one { BTreeSet::new() } else { missing }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::ManualClock;
    use crate::types::MemberId;

    const UP: Option<bool> = Some(true);
    const DOWN: Option<bool> = Some(false);

    fn row(name: &str, is_learner: bool) -> MemberRow {
        let peer_urls = vec![format!("http://{name}.h.ns.svc:2380")];
        MemberRow { id: MemberId(1), name: name.to_owned(), peer_urls, client_urls: Vec::new(), is_learner }
    }

    /// What forbids it if the ordinals are up, down, or no members; `replicas` as there will be, `before` as there were.
    fn missing(states: &[Option<bool>], replicas: u32, before: Option<u32>) -> Vec<u32> {
        let rows: Vec<_> = states
            .iter()
            .enumerate()
            .filter_map(|(at, state)| Some((row(&format!("rusd-{at}"), false), (*state)?)))
            .collect();
        of(&rows, replicas, before)
    }

    fn of(rows: &[(MemberRow, bool)], replicas: u32, before: Option<u32>) -> Vec<u32> {
        let what = Rolling { base: "rusd", replicas, before };
        let rows: Vec<_> = rows.iter().map(|(row, up)| (row, *up)).collect();
        judged(&rows, what).into_iter().collect()
    }

    /// Cause: a set's controller waits only for pods above the one that it replaces. Symptom: an upgrade while pod 0's node
    /// was lost took pod 2, and two of three were gone.
    #[test]
    fn one_that_is_missing_below_another_forbids_it() {
        assert_eq!(missing(&[DOWN, UP, UP], 3, Some(3)), [0]);
        assert_eq!(missing(&[UP, DOWN, UP], 3, None), [1]);
        // A set that grows meanwhile is no safer: its new pods may not vote yet when the next is replaced.
        assert_eq!(missing(&[DOWN, UP, UP], 5, Some(3)), [0]);
        assert_eq!(missing(&[UP, UP, UP], 3, Some(3)), [0; 0]);
        assert_eq!(missing(&[UP], 1, Some(1)), [0; 0]);
        assert_eq!(missing(&[DOWN, DOWN, UP, UP, UP], 5, Some(5)), [0, 1]);
    }

    #[test]
    fn the_highest_are_replaced_first_and_so_forbid_nothing() {
        assert_eq!(missing(&[UP, UP, DOWN], 3, Some(3)), [0; 0]);
        assert_eq!(missing(&[UP, UP, UP, DOWN, DOWN], 5, Some(5)), [0; 0]);
        // A growth that got stuck: they never became members.
        assert_eq!(missing(&[UP], 3, Some(3)), [0; 0]);
        assert_eq!(missing(&[UP, UP, UP, None, None], 5, Some(5)), [0; 0]);
    }

    /// Cause: they are asked one after the list, and a majority may go in between. Symptom: pod 1's node was lost, pod 2
    /// started anew just then, both were "the highest", and an upgrade that had been held went on.
    #[test]
    fn the_highest_forbid_it_if_no_majority_is_seen() {
        assert_eq!(missing(&[UP, DOWN, DOWN], 3, Some(3)), [1, 2]);
        assert_eq!(missing(&[UP, UP, DOWN, DOWN, DOWN], 5, Some(5)), [2, 3, 4]);
        assert_eq!(missing(&[UP, DOWN, DOWN, UP, UP], 3, Some(5)), [1, 2], "those that are about to go don't help");
    }

    #[test]
    fn five_may_miss_one() {
        assert_eq!(missing(&[DOWN, UP, UP, UP, UP], 5, Some(5)), [0; 0]);
        // Those that are about to go don't help.
        assert_eq!(missing(&[DOWN, UP, UP, UP, UP], 3, Some(5)), [0]);
        assert_eq!(missing(&[UP, UP, UP, DOWN, UP], 3, Some(5)), [0; 0]);
    }

    #[test]
    fn one_that_does_not_vote_yet_is_missing() {
        let mut rows = vec![(row("rusd-0", true), true), (row("rusd-1", false), true), (row("rusd-2", false), true)];
        assert_eq!(of(&rows, 3, None), [0], "two voters are two that are needed");
        rows.remove(0);
        assert_eq!(of(&rows, 3, Some(3)), [0], "before it is a learner it is nobody");
        // Voters that aren't of the set count, too.
        rows.extend([(row("other-0", false), true), (row("other-1", false), true)]);
        assert_eq!(of(&rows, 3, Some(3)), [0; 0]);
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let text = refusal("rusd", &BTreeSet::from([0, 2]), None);
        assert!(text.starts_with("rusd-0, rusd-2 ") && text.contains("--no-hooks"), "{text}");
    }

    /// One look: how many seconds it takes with the pause before it, and what it sees; `None` is silence.
    type Seen<'a> = (u64, Option<&'a [u32]>);

    /// Plays the looks to `wait`, the last one again and again; gives the answer, and after how many seconds it came.
    async fn waited(patience_secs: u64, looks: &[Seen<'_>]) -> (Result<(), PodError>, u64) {
        let clock = ManualClock::new();
        let mut waiting = Waiting::new(&clock, Duration::from_secs(patience_secs));
        let (mut rest, mut tries) = (looks, 0);
        let answer = wait(&mut waiting, "rusd", async || {
            tries += 1;
            assert!(tries < 1_000, "without an end");
            let ((took_secs, seen), after) = rest.split_first().expect("a look");
            rest = if after.is_empty() { rest } else { after };
            clock.advance(Duration::from_secs(*took_secs));
            seen.map(|missing| missing.iter().copied().collect())
                .ok_or_else(|| AskError::Unreachable("silence".to_owned()))
        })
        .await;
        (answer, waiting.passed().as_secs())
    }

    fn refused(answer: Result<(), PodError>) -> String {
        match answer {
            Err(PodError::Late { last, .. }) => last,
            other => panic!("let through: {other:?}"),
        }
    }

    /// Cause: 20 s were counted from the start and not from when silence began. Symptom: an upgrade that was held for pod 0
    /// went on when pod 1 started anew for 7 s, and the controller took pod 2.
    #[tokio::test(start_paused = true)]
    async fn a_moment_without_a_majority_lets_nothing_through_that_was_held() {
        let (answer, secs) = waited(240, &[(1, Some(&[0])), (120, Some(&[0])), (7, None), (1, Some(&[0]))]).await;
        let text = refused(answer);
        assert!(text.starts_with("rusd-0 doesn't answer") && secs == 240, "{text}, after {secs} s");
        // It may last, too: what was held is tried again by whoever knows.
        let (answer, secs) = waited(240, &[(1, Some(&[0])), (7, None)]).await;
        let text = refused(answer);
        assert!(text.starts_with("rusd-0 didn't answer") && text.contains("(no answer: silence)"), "{text}");
        assert!((240..247).contains(&secs), "{secs} s");
        // At the very end of its patience.
        let (answer, _) = waited(240, &[(239, Some(&[1])), (7, None), (1, Some(&[]))]).await;
        assert!(refused(answer).starts_with("rusd-1 "));
    }

    #[tokio::test(start_paused = true)]
    async fn where_nobody_ever_answers_it_goes_on_after_a_while() {
        let (answer, secs) = waited(240, &[(7, None)]).await;
        assert!(answer.is_ok() && secs == 21, "{answer:?} after {secs} s");
        let (answer, secs) = waited(3, &[(1, None)]).await;
        assert!(answer.is_ok() && secs == 3, "{answer:?} after {secs} s");
        // Nobody, at first: then it is known who is missing.
        let (answer, _) = waited(240, &[(7, None), (7, None), (1, Some(&[0])), (7, None)]).await;
        assert!(refused(answer).starts_with("rusd-0 "));
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_once_all_are_back() {
        let (answer, secs) =
            waited(240, &[(1, Some(&[0])), (60, Some(&[0])), (7, None), (7, None), (5, Some(&[]))]).await;
        assert!(answer.is_ok() && secs == 80, "{answer:?} after {secs} s");
        let (answer, secs) = waited(240, &[(7, None), (1, Some(&[]))]).await;
        assert!(answer.is_ok() && secs == 8, "{answer:?} after {secs} s");
    }
}
