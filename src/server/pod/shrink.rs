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
use super::rolling::{self, Rolling};
use super::{AGAIN, PodError};
use crate::env::Env;
use crate::operator::{AskError, Line, MemberRow, Way};

/// A cluster of which nobody answers for so long isn't there; one that doesn't shrink isn't waited for longer.
const NOBODY_MAX: Duration = Duration::from_secs(20);
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
    let Shrinking { base, replicas, patience, .. } = what;
    let lines: Vec<Line> = endpoints.iter().map(|endpoint| way.to(endpoint)).collect();
    if lines.is_empty() {
        return Err(PodError::Flags("--endpoints: nobody to ask".to_owned()));
    }
    let begun = env.clock.now();
    let rolling = Rolling { base, replicas, before: what.before, patience, majority_max: NOBODY_MAX };
    rolling::wait(env, way, &lines, rolling, begun).await?;
    let passed = || env.clock.now().saturating_duration_since(begun);
    loop {
        match look(&lines, base, replicas).await {
            Look::Nothing if !what.is_sure() => {
                return Ok(format!("no member of {base} is beyond {replicas} replicas\n"));
            }
            Look::Nobody if passed() >= patience.min(NOBODY_MAX) && what.is_sure() => {
                let last =
                    format!("no member of {base} answers, and the set is about to lose pods: nothing was removed");
                return Err(PodError::Late { after: passed(), last });
            }
            Look::Nobody if passed() >= patience.min(NOBODY_MAX) => {
                return Ok(format!("no member of {base} answers: nothing was removed\n"));
            }
            Look::Nobody => tokio::time::sleep(AGAIN).await,
            Look::Nothing | Look::Something => break,
        }
    }
    let (mut removed, mut quiet_since) = (Vec::new(), None);
    for line in lines.iter().cycle() {
        match step(line, base, replicas).await {
            Ok(Some(ordinal)) => {
                tracing::info!(ordinal, "removed");
                removed.push(format!("{base}-{ordinal}"));
                quiet_since = None;
                continue;
            }
            Ok(None) => {
                let since = *quiet_since.get_or_insert_with(|| env.clock.now());
                if env.clock.now().saturating_duration_since(since) >= QUIET {
                    break;
                }
            }
            Err(error) if what.is_needless() && passed() >= patience.min(NOBODY_MAX) => {
                return Ok(format!("not known whether a member of {base} is beyond {replicas} replicas: {error}\n"));
            }
            Err(error) if passed() >= patience => {
                return Err(PodError::Late { after: patience, last: error.to_string() });
            }
            Err(error) => tracing::info!(endpoint = line.endpoint(), %error, "not yet; will try again"),
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
}
