//! A running cluster moves from rusd to etcd and back, as the guide's part "Operations" says it: the API server stopped,
//! a snapshot at one member, each member's directory made of it, the other program started with the same flags.
//!
//! ```text
//! rusd ─ snapshot save ─► etcdutl snapshot restore ─► etcd ─ etcdctl snapshot save ─► rusd snapshot restore ─► rusd
//! ```
//! Controllers, nodes and pods run on meanwhile, and nothing in the cluster is made anew.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use super::plane::Plane;
use super::store::{MEMBERS, Program};
use super::story::expect;
use crate::{peers, sh};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What is held against what was there before: nobody but the story changes them.
const LISTS: [&str; 3] =
    ["/api/v1/namespaces/story/configmaps", "/api/v1/nodes", "/apis/rbac.authorization.k8s.io/v1/clusterroles"];

/// Both ways; what is in the API keeps its versions.
pub(super) fn there_and_back(plane: &mut Plane) -> Result<String> {
    let rusd = plane.store.program.clone();
    let etcd = Program { side: "etcd", path: peers::directory().join("etcd"), flags: Vec::new() };
    let etcdctl = peers::directory().join("etcdctl");
    let first = contents(plane)?;

    let there = change(plane, &etcd, &rusd.path, &peers::directory().join("etcdutl"))?;
    let second = contents(plane)?;
    same(&first, &second)?;
    write(plane, "on-etcd")?;

    let back = change(plane, &rusd, &etcdctl, &rusd.path)?;
    let third = contents(plane)?;
    same(&second, &third)?;
    expect(third.0[LISTS[0]].contains_key("on-etcd"), "what was written on etcd is gone")?;
    write(plane, "on-rusd-again")?;
    expect(plane.ended().is_none(), format!("{:?} ended", plane.ended()))?;
    let count: usize = third.0.values().map(BTreeMap::len).sum();
    Ok(format!(
        "{count} objects kept their versions; without an apiserver for {there:.1} s on the way to etcd and {back:.1} s back"
    ))
}

/// Names and versions in each list, and the highest version that a list had.
type Contents = (BTreeMap<&'static str, BTreeMap<String, String>>, u64);

fn contents(plane: &Plane) -> Result<Contents> {
    let mut found = (BTreeMap::new(), 0);
    for path in LISTS {
        let answer = plane.runtime.block_on(plane.api().get(path))?;
        expect(answer.is_ok(), format!("{path}: {}", String::from_utf8_lossy(&answer.body)))?;
        let list = answer.json();
        let version = |of: &Value| of["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        let items = list["items"].as_array().ok_or("a list without items")?;
        let name = |item: &Value| item["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        found.0.insert(path, items.iter().map(|item| (name(item), version(item))).collect());
        found.1 = found.1.max(version(&list).parse()?);
    }
    Ok(found)
}

/// Whether all is there that was, in the same version, but for nodes, whose state kwok renews; and no version went back.
fn same(before: &Contents, after: &Contents) -> Result<()> {
    for (path, items) in &before.0 {
        for (name, version) in items {
            let now = after.0[path].get(name);
            let is_kept = if path.ends_with("/nodes") { now.is_some() } else { now == Some(version) };
            expect(is_kept, format!("{path}: {name} was at {version}, and is at {now:?}"))?;
        }
    }
    expect(after.1 >= before.1, format!("the store was at {}, and is at {}", before.1, after.1))
}

fn write(plane: &Plane, name: &str) -> Result<()> {
    let object = serde_json::json!({"metadata": {"name": name}, "data": {"a": "b"}});
    let answer = plane.runtime.block_on(plane.api().post(LISTS[0], object))?;
    expect(answer.is_ok(), format!("{name}: {}", String::from_utf8_lossy(&answer.body)))
}

/// Puts another store's members in the place of those that there are; gives for how many seconds nothing was served.
/// `saver` takes the snapshot of the running ones, `restorer` makes directories of it: both know the same words.
fn change(plane: &mut Plane, to: &Program, saver: &Path, restorer: &Path) -> Result<f64> {
    let begun = Instant::now();
    plane.stop_apiserver()?;
    let file = plane.file(&format!("to-{}.db", to.side));
    let show = |path: &Path| path.display().to_string();
    let store = &plane.store;
    let mut save = Command::new(saver);
    save.args(["snapshot", "save", &show(&file)])
        .arg(format!("--endpoints={}", store.url(0)))
        .arg(format!("--cacert={}", show(&store.ca)))
        .arg(format!("--cert={}", show(&store.client.cert)))
        .arg(format!("--key={}", show(&store.client.key)));
    sh::output(save)?;
    plane.store.stop();
    for at in 0..MEMBERS {
        let data = plane.store.set_aside(at)?;
        let mut restore = Command::new(restorer);
        restore
            .args(["snapshot", "restore", &show(&file)])
            .arg(format!("--data-dir={}", data.display()))
            .args(plane.store.place(at));
        sh::output(restore)?;
    }
    plane.store.start_as(to)?;
    plane.start_apiserver_again()?;
    plane.wait_until_ready()?;
    Ok(begun.elapsed().as_secs_f64())
}
