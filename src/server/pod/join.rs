//! A pod without data in a cluster that is there: a new member, always; what it was before is removed first.
//!
//! ```text
//! members, as a majority knows them ─► own row? ─► removed ─► added as a learner ─► identity
//! ```
//! An empty disk knows nothing of what its member has promised, so it never takes that one's place.

use std::collections::BTreeSet;
use std::time::Instant;

use super::names::Pod;
use super::{AGAIN, PodError, TELL_EVERY};
use crate::env::Env;
use crate::operator::{Added, AskError, Line, Way};
use crate::ops::identity::Identity;

/// Rounds before it is asked anew who the members are.
const ROUNDS_MAX: u32 = 30;

/// Tries for long: a cluster that takes no changes now may take them later. `None` if that didn't help.
pub(super) async fn join(
    env: &Env,
    way: &Way,
    pod: &Pod,
    members: &BTreeSet<u32>,
) -> Result<Option<Identity>, PodError> {
    let lines: Vec<Line> = members.iter().map(|ordinal| way.to(&pod.client_url(*ordinal))).collect();
    let mut told_at: Option<Instant> = None;
    for _ in 0..ROUNDS_MAX {
        for line in &lines {
            match attempt(line, pod).await {
                Ok(Added { cluster, member }) => {
                    let identity = Identity { cluster, member };
                    tracing::info!(member = %identity.member, "added as a learner; it votes once it is in step");
                    return Ok(Some(identity));
                }
                Err(error) => {
                    let now = env.clock.now();
                    if told_at.is_none_or(|at| now.saturating_duration_since(at) >= TELL_EVERY) {
                        told_at = Some(now);
                        tracing::warn!(
                            endpoint = line.endpoint(),
                            %error,
                            "there is a cluster, which doesn't take this pod in yet; if its majority is gone for good, \
                             restore it by hand (the chart's README, \"Disaster\")"
                        );
                    }
                }
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
    Ok(None)
}

async fn attempt(line: &Line, pod: &Pod) -> Result<Added, AskError> {
    let rows = line.members(true).await?;
    if let Some((row, sibling)) = rows.iter().find_map(|row| Some((row, pod.is_taken_by(row)?))) {
        return Err(AskError::Refused(format!(
            "member {} runs as pod {sibling}, but is to be reached at this pod's peer URL: `etcdctl member update {} \
             --peer-urls={}`",
            row.id,
            row.id,
            pod.peer_url(sibling)
        )));
    }
    for row in rows.iter().filter(|row| pod.is(row)) {
        tracing::warn!(member = %row.id, "this pod's volume is empty: what it was in the cluster is removed");
        line.remove_member(row.id).await?;
    }
    line.add_learner(&pod.peer_url(pod.ordinal())).await
}
