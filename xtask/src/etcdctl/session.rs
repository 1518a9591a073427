//! What is typed, in order; each step is played on both sides.

use std::fs;

use super::normal::normal;
use super::side::Side;
use crate::peers;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How a step is played, and what of its answer is compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// All that it prints, and whether it succeeds.
    Answer,
    /// It never ends: what it prints until it falls silent.
    Watch,
    /// Figures that differ by nature: only whether it succeeds, and the names of the fields.
    Shape,
}

/// A line for `etcdctl` (`LEASE` is the id that was granted last) and what it reads.
pub(super) struct Step {
    pub(super) line: &'static str,
    input: &'static str,
    kind: Kind,
}

const fn answer(line: &'static str) -> Step {
    Step { line, input: "", kind: Kind::Answer }
}

const fn reading(line: &'static str, input: &'static str) -> Step {
    Step { line, input, kind: Kind::Answer }
}

const fn watch(line: &'static str) -> Step {
    Step { line, input: "", kind: Kind::Watch }
}

const fn shape(line: &'static str) -> Step {
    Step { line, input: "", kind: Kind::Shape }
}

/// The session.
pub(super) const STEPS: &[Step] = &[
    answer("put a/1 one"),
    answer("put a/2 two"),
    answer("put a/1 uno --prev-kv"),
    reading("put a/3", "from stdin"),
    answer("put b/1 other -w json"),
    answer("get a/1"),
    answer("get a/1 -w json"),
    answer("get a/1 -w fields"),
    answer("get a/1 --rev=2"),
    answer("get a/1 --rev=99"),
    answer("get none"),
    answer("get a/ --prefix"),
    answer("get a/ --prefix --keys-only"),
    answer("get a/ --prefix --print-value-only"),
    answer("get a/ --prefix --count-only -w json"),
    answer("get a/ --prefix --limit=2 -w json"),
    answer("get a/ --prefix --order=DESCEND"),
    answer("get a/ --prefix --sort-by=MODIFY --order=ASCEND --keys-only"),
    answer("get a/ --prefix --sort-by=VALUE --order=DESCEND"),
    answer("get a/2 --from-key --keys-only"),
    answer("get a/1 a/3 --consistency=s"),
    answer("get a/ --prefix --stream"),
    answer("get a/ --prefix --min-mod-rev=4 --keys-only"),
    reading("txn", "mod(\"a/1\") > \"0\"\n\nput t yes\nget a/1\n\nput t no\n\n"),
    reading("txn", "value(\"a/1\") = \"nothing\"\n\nput t yes\n\ndel t\nget t\n\n"),
    reading("txn -w json", "version(\"a/2\") = \"1\"\n\nget a/2\n\n\n\n"),
    answer("del a/3 --prev-kv"),
    answer("del none"),
    watch("watch a/ --prefix --rev=2"),
    watch("watch a/1 --rev=2 --prev-kv -w json"),
    answer("lease grant 100"),
    answer("put l/1 v --lease=LEASE"),
    answer("put l/2 v --lease=1234"),
    answer("lease timetolive LEASE --keys"),
    answer("lease list"),
    answer("lease keep-alive LEASE --once"),
    answer("lease revoke LEASE"),
    answer("lease revoke LEASE"),
    answer("lease timetolive LEASE"),
    answer("get l/ --prefix --count-only -w json"),
    answer("lock name echo held"),
    answer("compaction 4"),
    answer("compaction 4"),
    answer("compaction 999"),
    answer("get a/1 --rev=3"),
    answer("compaction 6 --physical"),
    watch("watch a/1 --rev=2"),
    answer("defrag"),
    answer("alarm list"),
    answer("alarm disarm"),
    answer("endpoint health"),
    shape("endpoint status -w json"),
    shape("endpoint hashkv -w json"),
    answer("member list"),
    shape("move-leader 1"),
    answer("del a --from-key"),
    answer("get a --from-key --count-only -w json"),
    answer("put kept one"),
    answer("put kept two"),
    answer("put also three"),
];

/// Plays a step and gives what is to be compared.
pub(super) fn play(side: &Side, step: &Step) -> Result<String> {
    let lease = fs::read_to_string(side.dir.join("lease")).unwrap_or_default();
    let line = step.line.replace("LEASE", &lease);
    if step.kind == Kind::Watch {
        return Ok(normal(&side.watch(&line)?));
    }
    let answer = side.ctl(&line, step.input)?;
    if line.starts_with("lease grant") {
        let id = answer.out.split_whitespace().nth(1).ok_or("no lease was granted")?;
        fs::write(side.dir.join("lease"), id)?;
    }
    let text = match step.kind {
        Kind::Shape => fields(&answer.out),
        Kind::Answer | Kind::Watch => normal(&answer.text()),
    };
    Ok(format!("{}{text}", if answer.ok { "" } else { "failed\n" }))
}

/// The names in a JSON text, in their order.
pub(super) fn fields(json: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    let mut before = "";
    for part in json.split('"') {
        if part.starts_with(':') {
            names.push(before);
        }
        before = part;
    }
    names.join(" ")
}

/// Saves a snapshot, has etcd's own tool look at it and restore it, and reads it through a real etcd.
pub(super) fn snapshot(side: &Side) -> Result<()> {
    let demand = |answer: super::side::Answer, what: &str| {
        if answer.ok { Ok(answer.out) } else { Err(format!("{what}: {}", answer.text())) }
    };
    let all = "get a --from-key";
    let before = demand(side.ctl(all, "")?, all)?;
    let revision = demand(side.ctl("get kept -w fields", "")?, "get")?;
    let revision = revision.lines().find_map(|line| line.strip_prefix("\"Revision\" : ")).ok_or("no revision")?;
    demand(side.ctl("snapshot save saved.db", "")?, "snapshot save")?;
    let status = demand(side.utl("snapshot status saved.db -w json")?, "snapshot status")?;
    if !status.contains(&format!("\"revision\":{revision},")) {
        return Err(format!("the snapshot's status is {status}, the revision was {revision}").into());
    }
    let restored = side.dir.join("restored");
    fs::create_dir_all(&restored)?;
    demand(side.utl("snapshot restore saved.db --data-dir restored/data")?, "snapshot restore")?;
    // Its own directory names the member; what the flags say of the cluster no longer counts.
    let etcd = Side::on("restored", &peers::directory().join("etcd"), restored, &[])?;
    let after = demand(etcd.ctl(all, "")?, all)?;
    if before == after { Ok(()) } else { Err(format!("before:\n{before}\nafter:\n{after}").into()) }
}
