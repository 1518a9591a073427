//! `rusd pod shrink`: members that a smaller StatefulSet won't have are removed while all of them still run.
//!
//! ```text
//! no member is missing (`rolling`) ─► each member's own list ─► nobody beyond the replicas, or nobody there ─► done
//!                                                          └─► members, as a majority knows them ─► the highest one removed ─► again
//! ```
//! The cluster itself refuses a removal that would cost it its majority; then it is waited. Where nothing is to be
//! removed no majority is asked for, and where no pod is to go nothing is waited for: a broken cluster must not keep an
//! upgrade from mending it. But if pods are to go, silence is an error.

use std::path::Path;
use std::time::Duration;

use futures::future::join_all;

use super::names::ordinal_in;
use super::patience::Waiting;
use super::rolling::{self, Rolling};
use super::{AGAIN, PodError};
use crate::env::Env;
use crate::operator::{AskError, Line, MemberRow, Way};

/// So long nobody beyond must have been seen: a pod that is still joining adds itself once more.
const QUIET: Duration = Duration::from_secs(5);

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub(in crate::server) struct Shrinking<'a> {
    /// The StatefulSet's name.
    pub(in crate::server) base: &'a str,
    /// How many pods there will be.
    pub(in crate::server) replicas: u32,
    /// How many there were, if that is known.
    pub(in crate::server) before: Option<u32>,
    /// When to give up.
    pub(in crate::server) patience: Duration,
}

impl Shrinking<'_> {
    /// Pods are about to go, so that nothing but a removal will do.
    fn is_sure(self) -> bool {
        self.before.is_some_and(|before| before > self.replicas)
    }

    /// None is, so that nothing that is in the way matters much.
    fn is_needless(self) -> bool {
        self.before.is_some_and(|before| before <= self.replicas)
    }
}

/// Removes them; gives the text to print.
pub(in crate::server) async fn shrink(
    env: &Env,
    way: &Way,
    endpoints: &[String],
    what: Shrinking<'_>,
) -> Result<String, PodError> {
    let Shrinking { base, replicas, before, patience } = what;
    let lines: Vec<Line> = endpoints.iter().map(|endpoint| way.to(endpoint)).collect();
    let Some(first) = lines.first() else {
        return Err(PodError::Flags("--endpoints: nobody to ask".to_owned()));
    };
    let mut waiting = Waiting::new(env.clock.as_ref(), patience);
    let rolling = Rolling { base, replicas, before };
    rolling::wait(&mut waiting, base, async || rolling::look(way, &lines, rolling).await).await?;
    if let Some(said) = known(&mut waiting, what, async || look(&lines, base, replicas).await).await? {
        return Ok(said);
    }
    let mut turns = lines.iter().cycle();
    let in_turn = async || step(turns.next().unwrap_or(first), base, replicas).await;
    remove(&mut waiting, what, in_turn).await
}

/// Waits until it is known whether there is anything to remove; gives the text to print if nothing is.
async fn known(
    waiting: &mut Waiting<'_>,
    what: Shrinking<'_>,
    mut look: impl AsyncFnMut() -> Look,
) -> Result<Option<String>, PodError> {
    let Shrinking { base, replicas, .. } = what;
    loop {
        match look().await {
            Look::Nothing if !what.is_sure() => {
                return Ok(Some(format!("no member of {base} is beyond {replicas} replicas\n")));
            }
            Look::Nobody if waiting.is_nobody() && what.is_sure() => {
                let last =
                    format!("no member of {base} answers, and the set is about to lose pods: nothing was removed");
                return Err(PodError::Late { after: waiting.passed(), last });
            }
            Look::Nobody if waiting.is_nobody() => {
                return Ok(Some(format!("no member of {base} answers: nothing was removed\n")));
            }
            Look::Nobody => tokio::time::sleep(AGAIN).await,
            Look::Nothing | Look::Something => return Ok(None),
        }
    }
}

/// Removes the last one until for some seconds there is none. `step` asks the members in turn, as [`step`] does.
async fn remove(
    waiting: &mut Waiting<'_>,
    what: Shrinking<'_>,
    mut step: impl AsyncFnMut() -> Result<Option<u32>, AskError>,
) -> Result<String, PodError> {
    let Shrinking { base, replicas, .. } = what;
    let (mut removed, mut quiet_since) = (Vec::new(), None);
    loop {
        match step().await {
            Ok(Some(ordinal)) => {
                tracing::info!(ordinal, "removed");
                waiting.heard();
                removed.push(format!("{base}-{ordinal}"));
                quiet_since = None;
                continue;
            }
            Ok(None) => {
                waiting.heard();
                let now = waiting.now();
                if now.saturating_duration_since(*quiet_since.get_or_insert(now)) >= QUIET {
                    break;
                }
            }
            Err(error) if what.is_needless() && waiting.is_nobody() => {
                return Ok(format!("not known whether a member of {base} is beyond {replicas} replicas: {error}\n"));
            }
            Err(error) if waiting.is_over() => {
                return Err(PodError::Late { after: waiting.patience(), last: error.to_string() });
            }
            Err(_) => {}
        }
        tokio::time::sleep(AGAIN).await;
    }
    match removed.is_empty() {
        true => Ok(format!("no member of {base} is beyond {replicas} replicas\n")),
        false => Ok(format!("removed {}\n", removed.join(", "))),
    }
}

/// The same where a certificate isn't there that members would be asked with: nobody can be. It may be this upgrade that
/// asks for the certificate, so that is an error only if pods are to go.
pub(in crate::server) fn shrink_without(file: &Path, what: Shrinking<'_>) -> Result<String, PodError> {
    let said = format!("{} isn't there, so no member of {} can be asked", file.display(), what.base);
    match what.is_sure() {
        true => Err(PodError::Flags(format!("{said}, and the set is about to lose pods: nothing was removed"))),
        false => Ok(format!("{said}: nothing was removed\n")),
    }
}

/// What is seen without a majority.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// Whoever answers knows of no member beyond.
    Nothing,
    /// Somebody does, or won't say.
    Something,
    /// Nobody answers.
    Nobody,
}

async fn look(lines: &[Line], base: &str, replicas: u32) -> Look {
    judged(join_all(lines.iter().map(Line::members_seen)).await, base, replicas)
}

fn judged(answers: Vec<Result<Vec<MemberRow>, AskError>>, base: &str, replicas: u32) -> Look {
    let (mut look, is_beyond) =
        (Look::Nobody, |row: &MemberRow| ordinal_in(base, row).is_some_and(|at| at >= replicas));
    for answer in answers {
        match answer {
            Ok(rows) if rows.iter().any(is_beyond) => return Look::Something,
            Ok(_) => look = Look::Nothing,
            Err(AskError::Refused(_)) => return Look::Something,
            Err(AskError::Unreachable(_)) => {}
        }
    }
    look
}

/// Removes the last one; `None` if there is none.
async fn step(line: &Line, base: &str, replicas: u32) -> Result<Option<u32>, AskError> {
    let answer = try_step(line, base, replicas).await;
    if let Err(error) = &answer {
        tracing::info!(endpoint = line.endpoint(), %error, "not yet; will try again");
    }
    answer
}

async fn try_step(line: &Line, base: &str, replicas: u32) -> Result<Option<u32>, AskError> {
    let rows = line.members(true).await?;
    let beyond = rows.iter().filter_map(|row| Some((ordinal_in(base, row)?, row.id)));
    let Some((ordinal, id)) = beyond.filter(|(ordinal, _)| *ordinal >= replicas).max() else { return Ok(None) };
    match line.remove_member(id).await {
        // Said by somebody else meanwhile, or by the call before, whose answer was lost.
        Err(error) if error.says("member not found") => Ok(Some(ordinal)),
        other => other.map(|()| Some(ordinal)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::ManualClock;
    use crate::types::MemberId;

    fn rows(ordinals: &[u32]) -> Vec<MemberRow> {
        let row = |at: &u32| MemberRow {
            id: MemberId(u64::from(*at) + 1),
            name: String::new(),
            peer_urls: vec![format!("http://rusd-{at}.h.ns.svc:2380")],
            client_urls: Vec::new(),
            is_learner: false,
        };
        ordinals.iter().map(row).collect()
    }

    #[test]
    fn a_majority_is_asked_only_if_there_is_something_to_remove() {
        let gone = || Err(AskError::Unreachable("no".to_owned()));
        assert_eq!(judged(vec![gone(), gone()], "rusd", 3), Look::Nobody);
        assert_eq!(judged(vec![gone(), Ok(rows(&[0, 1, 2]))], "rusd", 3), Look::Nothing);
        // One that lags doesn't outvote one that knows.
        assert_eq!(judged(vec![Ok(rows(&[0, 1, 2])), Ok(rows(&[0, 1, 2, 3]))], "rusd", 3), Look::Something);
        assert_eq!(judged(vec![Ok(rows(&[0])), Err(AskError::Refused("no".to_owned()))], "rusd", 3), Look::Something);
        // Members that aren't of this set are nobody's business.
        assert_eq!(judged(vec![Ok(rows(&[9]))], "other", 3), Look::Nothing);
    }

    fn shrinking(replicas: u32, before: u32) -> Shrinking<'static> {
        Shrinking { base: "rusd", replicas, before: Some(before), patience: Duration::from_secs(240) }
    }

    /// A clock, and a wait on it in which members answered for two minutes, as while one of them is missing.
    fn after_long(clock: &ManualClock) -> Waiting<'_> {
        let mut waiting = Waiting::new(clock, Duration::from_secs(240));
        clock.advance(Duration::from_secs(120));
        waiting.heard();
        waiting
    }

    /// Cause: 20 s were counted from the start, in which another wait may have taken minutes. Symptom: one look without an
    /// answer after it failed an upgrade from 5 to 3, and otherwise passed for a cluster that isn't there.
    #[tokio::test(start_paused = true)]
    async fn after_a_long_wait_a_moment_of_silence_is_waited_for() {
        for (before, found) in [(5, None), (3, Some("no member of rusd is beyond 3 replicas\n"))] {
            let clock = ManualClock::new();
            let mut looks = vec![Look::Nothing, Look::Nobody, Look::Nobody];
            let look = async || {
                clock.advance(Duration::from_secs(7));
                looks.pop().expect("it goes on looking")
            };
            let said = known(&mut after_long(&clock), shrinking(3, before), look).await.expect("no error");
            assert_eq!(said.as_deref(), found);
        }
        let clock = ManualClock::new();
        let mut waiting = after_long(&clock);
        let nobody = async || {
            clock.advance(Duration::from_secs(7));
            Look::Nobody
        };
        let said = known(&mut waiting, shrinking(3, 3), nobody).await.expect("no error");
        assert_eq!(said.as_deref(), Some("no member of rusd answers: nothing was removed\n"));
        assert_eq!(waiting.passed(), Duration::from_secs(141), "from the last answer");
        let late = known(&mut after_long(&clock), shrinking(3, 5), nobody).await.expect_err("pods are to go");
        assert!(late.to_string().contains("about to lose pods: nothing was removed"), "{late}");
    }

    /// Plays the steps, each of 7 s, the last one again and again; gives the answer, and after how many seconds it came.
    async fn removed(what: Shrinking<'_>, steps: &[Result<Option<u32>, AskError>]) -> (Result<String, PodError>, u64) {
        let clock = ManualClock::new();
        let mut waiting = after_long(&clock);
        let mut tries = 0_usize;
        let step = async || {
            assert!(tries < 1_000, "without an end");
            clock.advance(Duration::from_secs(7));
            tries += 1;
            steps.get(tries - 1).or(steps.last()).expect("a step").clone()
        };
        let said = remove(&mut waiting, what, step).await;
        (said, waiting.passed().as_secs())
    }

    /// Cause and symptom as above: the first try without an answer ended it.
    #[tokio::test(start_paused = true)]
    async fn a_removal_is_tried_again_after_a_long_wait() {
        let silence = || Err(AskError::Unreachable("silence".to_owned()));
        for before in [3, 5] {
            let steps = [silence(), silence(), Ok(Some(4)), silence(), silence(), Ok(Some(3)), silence(), Ok(None)];
            let (said, _) = removed(shrinking(3, before), &steps).await;
            assert_eq!(said.expect("removed"), "removed rusd-4, rusd-3\n");
        }
        // Where no pod is to go, what is in the way isn't waited for; else it is, as long as may be.
        let (said, secs) = removed(shrinking(3, 3), &[silence()]).await;
        assert!(said.expect("no error").starts_with("not known whether") && secs == 141, "after {secs} s");
        let (late, secs) = removed(shrinking(3, 5), &[silence()]).await;
        assert!(matches!(late, Err(PodError::Late { .. })) && (240..247).contains(&secs), "{late:?} after {secs} s");
    }
}
