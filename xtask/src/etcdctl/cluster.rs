//! A session at three members: what is asked of a cluster as a whole.
//!
//! Ids, ports and the order of the members differ by nature: lines are compared sorted, ids as `ID`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::normal::normal;
use super::session::fields;
use super::side::Side;
use crate::sh;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Members must have been in touch for so long before the membership may be changed.
const IN_TOUCH: Duration = Duration::from_secs(6);

/// What is typed; `FOLLOWER`, `LEADER` and `ADDED` are ids in hexadecimal digits.
const STEPS: &[&str] = &[
    "put key value",
    "get key",
    "member list",
    "member list -w fields",
    "member list -w json",
    "endpoint health",
    "endpoint health --cluster",
    "endpoint health --cluster -w json",
    "endpoint status --cluster -w json",
    "endpoint hashkv --cluster -w json",
    "endpoint hashkv --rev=2 -w json",
    "move-leader FOLLOWER",
    "move-leader LEADER",
    "move-leader 1234567890abcdef",
    "member update 1234567890abcdef --peer-urls=http://127.0.0.1:1",
    "member remove 1234567890abcdef",
    "member promote FOLLOWER",
    "member add late --learner --peer-urls=http://127.0.0.1:1",
    "member add later --learner --peer-urls=http://127.0.0.1:2",
    "member promote ADDED",
    "member list",
    "member remove ADDED",
    "member list",
    "put key other",
];

/// Plays it on both; gives the number of answers that differ.
pub(super) fn compare(etcd: &Path, rusd: &Path, backend: &str) -> Result<u32> {
    let flags = [format!("--backend={backend}")];
    let sides = [start("etcd-cluster", etcd, &[])?, start("rusd-cluster", rusd, &flags)?];
    std::thread::sleep(IN_TOUCH);
    let mut faults = 0;
    for line in STEPS {
        let [etcd, rusd] = [play(&sides[0], line)?, play(&sides[1], line)?];
        if etcd == rusd {
            println!("  same      {line}");
        } else {
            faults += 1;
            println!("  DIFFERENT {line}\n--- etcd\n{etcd}\n--- rusd\n{rusd}\n---");
        }
    }
    Ok(faults)
}

fn start(name: &'static str, program: &Path, flags: &[String]) -> Result<Side> {
    let dir = sh::target().join("etcdctl").join(name);
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    Side::members(name, program, dir, &["m1", "m2", "m3"], flags)
}

fn play(side: &Side, line: &str) -> Result<String> {
    let mut typed = (*line).to_owned();
    if line.contains("FOLLOWER") || line.contains("LEADER") {
        let (leader, follower) = leader_and_follower(side)?;
        typed = typed.replace("FOLLOWER", &follower).replace("LEADER", &leader);
    }
    let kept = side.dir.join("added");
    if line.contains("ADDED") {
        typed = typed.replace("ADDED", &fs::read_to_string(&kept)?);
    }
    let answer = side.ctl(&typed, "")?;
    if line.starts_with("member add late ") {
        let id = answer.out.split_whitespace().nth(1).unwrap_or_default();
        fs::write(&kept, id)?;
    }
    let text = if line.ends_with("json") && answer.ok {
        hashes_agree(&answer.out)?;
        fields(&answer.out)
    } else {
        let normal = normal(&answer.text());
        // An id that begins with a zero is written shorter, behind a space.
        let words = |part: &str| part.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut lines: Vec<String> = normal.lines().flat_map(|line| line.split(['"', ','])).map(words).collect();
        lines.sort_unstable();
        lines.join("\n")
    };
    Ok(format!("{}{text}", if answer.ok { "" } else { "failed\n" }))
}

/// Whether all members hold the same, as they say.
fn hashes_agree(json: &str) -> Result<()> {
    let answers: serde_json::Value = serde_json::from_str(json)?;
    let hashes = answers.as_array().into_iter().flatten();
    let mut hashes = hashes.filter_map(|answer| answer.get("HashKV").map(|hash| hash.get("hash")));
    let first = hashes.next();
    if hashes.all(|hash| Some(hash) == first) { Ok(()) } else { Err(format!("members differ: {json}").into()) }
}

/// Their ids, in hexadecimal digits.
fn leader_and_follower(side: &Side) -> Result<(String, String)> {
    let status = side.ctl("endpoint status -w json", "")?;
    let status: serde_json::Value = serde_json::from_str(&status.out)?;
    let ids = status.as_array().into_iter().flatten().filter_map(|one| {
        let status = one.get("Status")?;
        Some((status.get("header")?.get("member_id")?.as_u64()?, status.get("leader")?.as_u64()?))
    });
    let ids: Vec<_> = ids.collect();
    let (_, leader) = ids.first().ok_or("nobody says who leads")?;
    let (follower, _) = ids.iter().find(|(id, _)| id != leader).ok_or("there is no follower")?;
    Ok((format!("{leader:x}"), format!("{follower:x}")))
}
