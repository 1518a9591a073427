//! `rusd pod shrink`: members that a smaller StatefulSet won't have are removed while all of them still run.
//!
//! ```text
//! each member's own list ─► nobody beyond the replicas, or nobody there ─► done
//!                       └─► members, as a majority knows them ─► the highest one removed ─► again, until there is none
//! ```
//! The cluster itself refuses a removal that would cost it its majority; then it is waited. Where nothing is to be
//! removed no majority is asked for: a broken cluster must not keep an upgrade from mending it.

use std::time::Duration;

use futures::future::join_all;

use super::names::ordinal_in;
use super::{AGAIN, PodError};
use crate::env::Env;
use crate::operator::{AskError, Line, MemberRow, Way};

/// A cluster of which nobody answers for so long isn't there.
const NOBODY_MAX: Duration = Duration::from_secs(20);

/// Removes them; gives the text to print.
pub(in crate::server) async fn shrink(
    env: &Env,
    way: &Way,
    endpoints: &[String],
    base: &str,
    replicas: u32,
    patience: Duration,
) -> Result<String, PodError> {
    let lines: Vec<Line> = endpoints.iter().map(|endpoint| way.to(endpoint)).collect();
    let begun = env.clock.now();
    loop {
        let passed = env.clock.now().saturating_duration_since(begun);
        match look(&lines, base, replicas).await {
            Look::Nothing => return Ok(format!("no member of {base} is beyond {replicas} replicas\n")),
            Look::Nobody if passed >= patience.min(NOBODY_MAX) => {
                return Ok(format!("no member of {base} answers: nothing was removed\n"));
            }
            Look::Nobody => tokio::time::sleep(AGAIN).await,
            Look::Something => break,
        }
    }
    let mut removed = Vec::new();
    let mut at = 0;
    loop {
        let Some(line) = lines.get(at % lines.len().max(1)) else {
            return Err(PodError::Flags("--endpoints: nobody to ask".to_owned()));
        };
        match step(line, base, replicas).await {
            Ok(Some(ordinal)) => {
                tracing::info!(ordinal, "removed");
                removed.push(format!("{base}-{ordinal}"));
                continue;
            }
            Ok(None) if removed.is_empty() => {
                return Ok(format!("no member of {base} is beyond {replicas} replicas\n"));
            }
            Ok(None) => return Ok(format!("removed {}\n", removed.join(", "))),
            Err(error) if env.clock.now().saturating_duration_since(begun) >= patience => {
                return Err(PodError::Late { after: patience, last: error.to_string() });
            }
            Err(error) => tracing::info!(endpoint = line.endpoint(), %error, "not yet; will try again"),
        }
        at += 1;
        tokio::time::sleep(AGAIN).await;
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
