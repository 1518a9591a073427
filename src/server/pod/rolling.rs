//! Whether the pods of a set may be replaced one after the other now, with no majority lost by it.
//!
//! ```text
//! members, as a majority knows them ─► each asked what takes a majority ─► who doesn't answer, who doesn't vote yet
//!      │                                                                        │
//!      └► nobody has a majority, or nobody says ─► go on (Unknown)              ├► nobody, or only the highest ─► go on
//!                                                                               ├► one more may be missed ─────► go on
//!                                                                               └► else ──────► wait, then refuse
//! ```
//! A controller that takes a set's pods in parallel replaces the highest ordinal first and waits for those above it alone:
//! one that is missing further down doesn't stop it (Kubernetes below 1.37). So it is stopped here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures::future::join_all;

use super::names::ordinal_in;
use super::{AGAIN, PodError};
use crate::env::Env;
use crate::operator::{AskError, Line, MemberRow, Way};

/// The set whose pods are to be replaced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rolling<'a> {
    /// The StatefulSet's name.
    pub(super) base: &'a str,
    /// How many pods there will be: those beyond are about to go, and don't count.
    pub(super) replicas: u32,
    /// How many there were, if that is known.
    pub(super) before: Option<u32>,
    /// How long a missing member is waited for.
    pub(super) patience: Duration,
    /// How long a majority is.
    pub(super) majority_max: Duration,
}

/// Waits until pods may be replaced, or nothing can be known of that.
///
/// # Errors
/// Members are missing for longer than the patience, and one more would be too many.
pub(super) async fn wait(
    env: &Env,
    way: &Way,
    lines: &[Line],
    what: Rolling<'_>,
    begun: Instant,
) -> Result<(), PodError> {
    let mut missing_since_asked = None;
    loop {
        let passed = env.clock.now().saturating_duration_since(begun);
        match look(way, lines, what).await {
            Ok(missing) if missing.is_empty() => return Ok(()),
            Ok(missing) if passed >= what.patience => {
                return Err(PodError::Late { after: what.patience, last: refusal(what.base, &missing) });
            }
            Ok(missing) => {
                if missing_since_asked.as_ref() != Some(&missing) {
                    tracing::info!(ordinals = ?missing, "waiting for these pods: one more of them less costs the majority");
                }
                missing_since_asked = Some(missing);
            }
            // Nothing is lost where there is nothing; and what is broken must not keep an upgrade from mending it.
            Err(error) if passed >= what.patience.min(what.majority_max) => {
                tracing::warn!(%error, "no majority says whether a member is missing");
                return Ok(());
            }
            Err(error) => tracing::info!(%error, "not yet; will try again"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn refusal(base: &str, missing: &BTreeSet<u32>) -> String {
    let names: Vec<_> = missing.iter().map(|ordinal| format!("{base}-{ordinal}")).collect();
    format!(
        "{} doesn't answer or doesn't vote yet, and if another pod is replaced meanwhile the majority is lost: nothing was \
         changed. Mend that first; `--no-hooks` goes on in spite of it",
        names.join(", ")
    )
}

/// The ordinals that forbid it.
async fn look(way: &Way, lines: &[Line], what: Rolling<'_>) -> Result<BTreeSet<u32>, AskError> {
    let rows = rows(lines).await?;
    let answers = join_all(rows.iter().map(|row| answers(way, row))).await;
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
    // These come first, and the others wait for them: an upgrade that mends them goes through.
    let are_highest = missing.first().is_none_or(|lowest| highest_up.is_none_or(|up| up < *lowest));
    let may_miss_one = up > voters / 2 + 1;
    if are_highest || may_miss_one { BTreeSet::new() } else { missing }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let what = Rolling { base: "rusd", replicas, before, patience: Duration::ZERO, majority_max: Duration::ZERO };
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
        assert_eq!(missing(&[DOWN, DOWN, DOWN], 3, Some(3)), [0; 0], "nothing to lose");
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
        let text = refusal("rusd", &BTreeSet::from([0, 2]));
        assert!(text.starts_with("rusd-0, rusd-2 ") && text.contains("--no-hooks"), "{text}");
    }
}
