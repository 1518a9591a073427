//! Whether members are well: what each says of itself, what it takes to read from it, and what that makes together.
//!
//! ```text
//! endpoints ─► members (if all are asked for) ─► each at once: Status, a linearizable read ─► MemberHealth ─┐
//!                                                                      do they agree? ◄─── ClusterHealth ◄──┘
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::maintenance_client::MaintenanceClient;

use super::{AskError, Line, MemberRow, Way};
use crate::types::{ClusterId, MemberId};

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It leads.
    Leader,
    /// It votes.
    Follower,
    /// It doesn't vote yet.
    Learner,
    /// It doesn't say, or wasn't reached.
    Unknown,
}

impl Role {
    /// In a word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Learner => "learner",
            Self::Unknown => "?",
        }
    }
}

/// One member, at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberHealth {
    /// Where it was asked; empty for one that never started.
    pub endpoint: String,
    /// Its name, as far as it is known.
    pub name: String,
    /// Its id, as far as it is known.
    pub id: Option<MemberId>,
    /// What it is.
    pub role: Role,
    /// Whether it answered, be it to refuse.
    pub answers: bool,
    /// What it said; `None` if it wasn't reached, or tells nobody without a user.
    pub says: Option<Says>,
    /// How long a read took that asks the majority; `None` if it failed or wasn't tried.
    pub read_took: Option<Duration>,
    /// What isn't well.
    pub problems: Vec<String>,
    /// What isn't known.
    pub note: Option<&'static str>,
}

/// What a member says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Says {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its version.
    pub version: String,
    /// Bytes of its data.
    pub db_bytes: u64,
    /// Bytes that it may have; `None` if it doesn't say.
    pub quota_bytes: Option<u64>,
    /// Who leads, as it knows.
    pub leader: Option<MemberId>,
    /// Raft's term.
    pub term: u64,
    /// Raft's last entry that is known as committed.
    pub index: u64,
    /// The last entry that it has applied.
    pub applied: u64,
    /// The keys' revision.
    pub revision: i64,
}

/// All that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterHealth {
    /// Each member.
    pub members: Vec<MemberHealth>,
    /// What isn't well with all of it.
    pub problems: Vec<String>,
}

impl ClusterHealth {
    /// Asks the endpoints, or all members that they know of; fewer than `members_min` of them aren't well.
    pub async fn ask(way: &Way, endpoints: &[String], cluster: bool, members_min: usize) -> Self {
        let lines: Vec<Line> = endpoints.iter().map(|endpoint| way.to(endpoint)).collect();
        // Also where it isn't asked for: it knows the names.
        let known = known(&lines).await;
        let members = match &known {
            Some(known) if cluster => join_all(known.iter().map(|row| member(way, row))).await,
            _ => join_all(lines.iter().map(one)).await,
        };
        let mut health = Self { members, problems: Vec::new() };
        health.name(&known.unwrap_or_default());
        health.compare(members_min);
        health
    }

    /// Whether all is well.
    pub fn is_well(&self) -> bool {
        self.problems.is_empty() && self.members.iter().all(|member| member.problems.is_empty())
    }

    /// Entries of the log that a member hasn't applied and another knows as committed.
    pub fn behind(&self, member: &MemberHealth) -> Option<u64> {
        let newest = self.members.iter().filter_map(|member| member.says.as_ref()).map(|says| says.index).max()?;
        Some(newest.saturating_sub(member.says.as_ref()?.applied))
    }

    fn name(&mut self, known: &[MemberRow]) {
        for member in &mut self.members {
            if let Some(row) = known.iter().find(|row| Some(row.id) == member.id) {
                member.name.clone_from(&row.name);
            }
        }
    }

    fn compare(&mut self, members_min: usize) {
        let said = || self.members.iter().filter_map(|member| member.says.as_ref());
        let clusters: BTreeSet<_> = said().map(|says| says.cluster).collect();
        let leaders: BTreeSet<_> = said().filter_map(|says| says.leader).collect();
        let mut problems = Vec::new();
        if clusters.len() > 1 {
            problems.push(format!("these are members of {} clusters", clusters.len()));
        } else if leaders.len() > 1 {
            problems.push("they don't agree on who leads: an election is under way, or the network is cut".to_owned());
        }
        let well = self.members.iter().filter(|member| member.problems.is_empty()).count();
        if well < members_min {
            problems.push(format!("members that are well: {well}, and there should be {members_min}"));
        }
        self.problems = problems;
    }
}

/// The members, as the first tells that answers.
async fn known(lines: &[Line]) -> Option<Vec<MemberRow>> {
    let mut asked: futures::stream::FuturesUnordered<_> = lines.iter().map(|line| line.members(false)).collect();
    while let Some(answer) = futures::StreamExt::next(&mut asked).await {
        if let Ok(members) = answer {
            return Some(members);
        }
    }
    None
}

/// A member of the list.
async fn member(way: &Way, row: &MemberRow) -> MemberHealth {
    let Some(endpoint) = row.client_urls.first() else {
        let mut silent = MemberHealth::silent("");
        silent.id = Some(row.id);
        silent.name = row.peer_urls.first().cloned().unwrap_or_default();
        silent.problems.push("it was added and has never started".to_owned());
        return silent;
    };
    let mut health = one(&way.to(endpoint)).await;
    // An address may be another member's by now.
    match health.id {
        Some(id) if id != row.id => health.problems.push(format!("member {} was to be there", row.id)),
        _ => health.id = Some(row.id),
    }
    health.name.clone_from(&row.name);
    health
}

async fn one(line: &Line) -> MemberHealth {
    let mut health = MemberHealth::silent(line.endpoint());
    match status(line).await {
        Ok(answer) => health.take(answer),
        Err(error) if error.says("user name is empty") => {
            health.answers = true;
            health.note = Some("it answers; who isn't logged in learns no more");
            return health;
        }
        Err(error) => {
            // A server's own words: a wrong password, for one.
            health.answers = error.says("etcdserver: ");
            health.problems.push(unanswered(&error));
            return health;
        }
    }
    if health.role != Role::Learner {
        match read(line).await {
            Ok(took) => health.read_took = Some(took),
            Err(error) => health.problems.push(format!("a read: {error}")),
        }
    }
    health
}

/// Why there was no answer. Of TLS that doesn't fit, what the connection ends with says nothing.
fn unanswered(error: &AskError) -> String {
    let said = error.to_string();
    let ends = ["connection closed", "broken pipe", "connection reset", "frame with invalid size"];
    if ends.iter().any(|end| said.to_lowercase().contains(end)) {
        return format!("it hung up: http or https? a --cert that it asks for? ({said})");
    }
    said
}

async fn status(line: &Line) -> Result<pb::StatusResponse, AskError> {
    let request = line.request(pb::StatusRequest {}).await?;
    line.within(MaintenanceClient::new(line.channel()).status(request)).await
}

/// A read that the majority has to confirm.
async fn read(line: &Line) -> Result<Duration, AskError> {
    let range = pb::RangeRequest { key: b"health".to_vec().into(), limit: 1, keys_only: true, ..Default::default() };
    let request = line.request(range).await?;
    let clock = line.way().clock();
    let begun = clock.now();
    match line.within(KvClient::new(line.channel()).range(request)).await {
        Ok(_) => {}
        // It was read, and may not be told.
        Err(error) if error.says("permission denied") => {}
        Err(error) => return Err(error),
    }
    Ok(clock.now().saturating_duration_since(begun))
}

impl MemberHealth {
    fn silent(endpoint: &str) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            name: String::new(),
            id: None,
            role: Role::Unknown,
            answers: false,
            says: None,
            read_took: None,
            problems: Vec::new(),
            note: None,
        }
    }

    fn take(&mut self, answer: pb::StatusResponse) {
        self.answers = true;
        let header = answer.header.unwrap_or_default();
        let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
        self.id = Some(MemberId(header.member_id));
        self.role = match (answer.is_learner, answer.leader == header.member_id) {
            (true, _) => Role::Learner,
            (false, true) => Role::Leader,
            (false, false) => Role::Follower,
        };
        self.problems.extend(answer.errors);
        self.says = Some(Says {
            cluster: ClusterId(header.cluster_id),
            version: answer.version,
            db_bytes: unsigned(answer.db_size),
            quota_bytes: u64::try_from(answer.db_size_quota).ok().filter(|bytes| *bytes > 0),
            leader: (answer.leader != 0).then_some(MemberId(answer.leader)),
            term: answer.raft_term,
            index: answer.raft_index,
            applied: answer.raft_applied_index,
            revision: header.revision,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cause: a server that wants a certificate ends the connection, and the error says no more. Symptom: `rusd status`
    /// without `--cert` spoke of a broken pipe.
    #[test]
    fn who_hangs_up_may_want_tls_or_a_certificate() {
        let pipe = AskError::Refused("stream closed because of a broken pipe".to_owned());
        assert!(unanswered(&pipe).contains("--cert"), "{}", unanswered(&pipe));
        let nobody = AskError::Unreachable("Connection refused (os error 111)".to_owned());
        assert_eq!(unanswered(&nobody), nobody.to_string());
    }

    fn said(id: u64, leader: u64, index: u64, applied: u64) -> MemberHealth {
        let mut health = MemberHealth::silent("http://h:1");
        let header = pb::ResponseHeader { cluster_id: 9, member_id: id, revision: 4, ..Default::default() };
        health.take(pb::StatusResponse {
            header: Some(header),
            leader,
            raft_index: index,
            raft_applied_index: applied,
            db_size_quota: -1,
            ..Default::default()
        });
        health
    }

    fn of(members: Vec<MemberHealth>, members_min: usize) -> ClusterHealth {
        let mut health = ClusterHealth { members, problems: Vec::new() };
        health.compare(members_min);
        health
    }

    #[test]
    fn members_that_agree_are_well() {
        let health = of(vec![said(1, 1, 20, 20), said(2, 1, 18, 15)], 2);
        assert!(health.is_well(), "{health:?}");
        assert_eq!([Role::Leader, Role::Follower], [health.members[0].role, health.members[1].role]);
        assert_eq!(health.behind(&health.members[1]), Some(5));
        assert_eq!(health.members[0].says.as_ref().and_then(|says| says.quota_bytes), None);
    }

    #[test]
    fn what_is_not_well_is_said() {
        let problem = |members, min| of(members, min).problems.join("; ");
        assert!(problem(vec![said(1, 1, 1, 1), said(2, 2, 1, 1)], 0).contains("who leads"));
        let mut other = said(2, 2, 1, 1);
        other.says.as_mut().expect("said").cluster = ClusterId(8);
        assert!(problem(vec![said(1, 1, 1, 1), other], 0).contains("2 clusters"));
        assert!(problem(vec![said(1, 1, 1, 1)], 3).contains("there should be 3"));
        let mut ill = said(1, 1, 1, 1);
        ill.problems.push("alarm".to_owned());
        assert!(!of(vec![ill.clone()], 0).is_well());
        assert!(problem(vec![ill, said(2, 1, 1, 1)], 2).contains("members that are well: 1"));
    }

    #[test]
    fn one_that_was_not_reached_is_behind_by_nobody_knows_what() {
        let health = of(vec![said(1, 1, 9, 9), MemberHealth::silent("http://h:2")], 0);
        assert_eq!(health.behind(&health.members[1]), None);
    }
}
