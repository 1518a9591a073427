//! `rusd status`: what it asks and how it shows that, in 100 columns.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use super::{Done, ToolError};
use crate::cli::StatusFlags;
use crate::env::Clock;
use crate::operator::{ClusterHealth, MemberHealth, Way};
use crate::server::import::human;

/// Columns of what is printed.
const WIDTH: usize = 100;
/// What an old terminal takes for "from the top, and nothing below".
const HOME_AND_CLEAR: &str = "\x1b[H\x1b[J";

/// Asks, and tells; with `--watch` until nobody reads any more.
pub(super) async fn run(
    way: Way,
    endpoints: Vec<String>,
    flags: StatusFlags,
    clock: &dyn Clock,
) -> Result<Done, ToolError> {
    let is_terminal = std::io::stdout().is_terminal();
    loop {
        let health = ClusterHealth::ask(&way, &endpoints, flags.cluster, flags.members_min).await;
        let text = if flags.json { format!("{}\n", as_json(&health)) } else { as_text(&health) };
        let Some(every) = flags.every else {
            // Without `--exit-code` it is a failure only that nobody answered.
            let is_fine = match flags.exit_code {
                true => health.is_well(),
                false => health.members.iter().any(|member| member.says.is_some() || member.note.is_some()),
            };
            return Ok(Done::Found { text, is_fine });
        };
        let start = match (flags.json, is_terminal) {
            (true, _) => String::new(),
            (false, true) => format!("{HOME_AND_CLEAR}{}", asked_at(clock.wall())),
            (false, false) => asked_at(clock.wall()),
        };
        let mut out = std::io::stdout().lock();
        if write!(out, "{start}{text}").and_then(|()| out.flush()).is_err() {
            return Ok(Done::Said(String::new()));
        }
        drop(out);
        tokio::time::sleep(every).await;
    }
}

/// A line that shows that it still looks, and in a file when it did.
fn asked_at(now: SystemTime) -> String {
    let now = time::OffsetDateTime::from(now).replace_nanosecond(0);
    // Years of five digits have no such form.
    now.ok().and_then(|now| now.format(&Rfc3339).ok()).map_or_else(String::new, |now| now + "\n")
}

fn as_text(health: &ClusterHealth) -> String {
    let mut text = heading(health);
    let row = |text: &mut String, cells: [&str; 7]| {
        let [name, endpoint, role, data, behind, read, state] = cells;
        let (name, endpoint, behind) = (both_ends(name, 20), both_ends(endpoint, 34), short(behind, 7));
        // Writing to a String can't fail.
        let _ = writeln!(text, "{name:<20} {endpoint:<34} {role:<8} {data:>8} {behind:>7} {read:>8}  {state}");
    };
    row(&mut text, ["NAME", "ENDPOINT", "ROLE", "DATA", "BEHIND", "READ", "STATE"]);
    for member in &health.members {
        let says = member.says.as_ref();
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let state = match (member.answers, member.problems.is_empty()) {
            (_, true) => "well",
            (true, false) => "ILL",
            (false, false) => "GONE",
        };
        row(
            &mut text,
            [
                &name(member),
                if member.endpoint.is_empty() { "-" } else { &member.endpoint },
                member.role.name(),
                &or_dash(says.map(|says| human(says.db_bytes))),
                &or_dash(health.behind(member).map(|entries| entries.to_string())),
                &or_dash(member.read_took.map(millis)),
                state,
            ],
        );
    }
    for member in &health.members {
        let said = member.problems.iter().map(String::as_str).chain(member.note);
        said.for_each(|what| text += &line(&format!("{}: {what}", name(member))));
    }
    health.problems.iter().for_each(|what| text += &line(&format!("all: {what}")));
    text
}

/// What is so for all of it.
fn heading(health: &ClusterHealth) -> String {
    let said = || health.members.iter().filter_map(|member| member.says.as_ref());
    let state = if health.is_well() { "well" } else { "NOT WELL" };
    let Some(first) = said().next() else { return format!("{state}\n") };
    let leader = first.leader.map_or_else(
        || "none".to_owned(),
        |id| health.members.iter().find(|member| member.id == Some(id)).map_or_else(|| id.to_string(), name),
    );
    let (term, revision) = (said().map(|says| says.term).max(), said().map(|says| says.revision).max());
    line(&format!(
        "{state}: cluster {}, leader {}, term {}, revision {}, version {}",
        first.cluster,
        both_ends(&leader, 30),
        term.unwrap_or_default(),
        revision.unwrap_or_default(),
        first.version
    ))
}

fn name(member: &MemberHealth) -> String {
    match (&member.name, member.id) {
        (name, _) if !name.is_empty() => name.clone(),
        (_, Some(id)) => id.to_string(),
        (_, None) => member.endpoint.clone(),
    }
}

fn millis(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1_000.0)
}

/// As much of the text as fits, and that it was cut.
fn short(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    text.chars().take(columns - 1).chain(['…']).collect()
}

/// The same of a name, whose end tells more than its middle.
fn both_ends(text: &str, columns: usize) -> String {
    let count = text.chars().count();
    if count <= columns {
        return text.to_owned();
    }
    let (head, tail) = (columns / 2, columns - columns / 2 - 1);
    text.chars().take(head).chain(['…']).chain(text.chars().skip(count - tail)).collect()
}

/// A line that fits, without what a server may have put into it to move the cursor.
fn line(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    short(&plain, WIDTH) + "\n"
}

fn as_json(health: &ClusterHealth) -> Value {
    let member = |member: &MemberHealth| {
        let says = member.says.as_ref();
        json!({
            "name": member.name,
            "id": member.id.map(|id| id.to_string()),
            "endpoint": member.endpoint,
            "role": member.role.name(),
            "cluster": says.map(|says| says.cluster.to_string()),
            "version": says.map(|says| says.version.clone()),
            "leader": says.and_then(|says| says.leader).map(|id| id.to_string()),
            "db_bytes": says.map(|says| says.db_bytes),
            "quota_bytes": says.and_then(|says| says.quota_bytes),
            "term": says.map(|says| says.term),
            "index": says.map(|says| says.index),
            "applied": says.map(|says| says.applied),
            "behind": health.behind(member),
            "revision": says.map(|says| says.revision),
            "read_ms": member.read_took.map(|took| took.as_secs_f64() * 1_000.0),
            "problems": member.problems,
            "note": member.note,
        })
    };
    json!({
        "well": health.is_well(),
        "problems": health.problems,
        "members": health.members.iter().map(member).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::{Role, Says};
    use crate::types::{ClusterId, MemberId};

    fn cluster() -> ClusterHealth {
        let long = "a-release-with-a-long-name-rusd-".to_owned();
        let member = |id: u64, says: Option<Says>, problems: Vec<String>| MemberHealth {
            endpoint: format!("https://{long}{id}.{long}headless.namespace.svc.cluster.local:2379"),
            name: format!("{long}{id}"),
            id: Some(MemberId(id)),
            role: if id == 1 { Role::Leader } else { Role::Unknown },
            read_took: says.as_ref().map(|_| Duration::from_micros(1_234)),
            answers: says.is_some(),
            says,
            problems,
            note: None,
        };
        let says = Says {
            cluster: ClusterId(u64::MAX),
            version: "3.7.1".to_owned(),
            db_bytes: 123_456_789,
            quota_bytes: None,
            leader: Some(MemberId(1)),
            term: u64::MAX,
            index: u64::MAX,
            applied: 0,
            revision: i64::MAX,
        };
        let gone = vec![format!("no answer: {}\n\x1b[2J", "because ".repeat(40))];
        ClusterHealth { members: vec![member(1, Some(says), vec![]), member(2, None, gone)], problems: vec![] }
    }

    #[test]
    fn it_fits_100_columns_whatever_a_server_says() {
        let text = as_text(&cluster());
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(!text.contains('\x1b'), "{text:?}");
        assert!(text.starts_with("NOT WELL: cluster ffffffffffffffff"), "{text}");
        assert!(text.contains("1.2 ms  well") && text.contains("GONE"), "{text}");
    }

    // Cause: whoever said nothing of itself was gone. Symptom: with a wrong password all members were.
    #[test]
    fn who_refuses_is_not_gone() {
        let mut cluster = cluster();
        cluster.members[1].answers = true;
        let text = as_text(&cluster);
        assert!(text.contains("ILL") && !text.contains("GONE"), "{text}");
    }

    #[test]
    fn json_says_the_same() {
        let value = as_json(&cluster());
        assert_eq!(value["well"], json!(false));
        assert_eq!(value["members"][0]["leader"], json!("1"));
        assert_eq!(value["members"][0]["db_bytes"], json!(123_456_789));
        assert_eq!(value["members"][1]["version"], Value::Null);
        assert_eq!(value["members"][1]["problems"].as_array().map(Vec::len), Some(1));
    }
}
