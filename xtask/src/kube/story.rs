//! The story: what a cluster has to do, and what its store has to live through. Each step is checked.

use std::fs::File;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::plane::Plane;
use super::store::MEMBERS;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
type Step = fn(&mut Plane) -> Result<String>;

const NAMESPACE: &str = "story";
const CONFIGMAPS: usize = 120;
const NODES: usize = 5;
/// Config maps that are being created while the members are killed.
const UNDER_LOAD: usize = 400;

const STEPS: &[(&str, Step)] = &[
    ("namespace", namespace),
    ("config maps", config_maps),
    ("paged list", paged_list),
    ("update conflict", conflict),
    ("server-side apply", server_side_apply),
    ("watch", watch),
    ("nodes", nodes),
    ("deployment", deployment),
    ("the chart's renderings", super::chart::renderings),
    ("a release of the chart", super::chart::release),
    ("kill -9 of all members under load", kill_under_load),
    ("goes on", goes_on),
    ("moved to etcd and back", super::moved::there_and_back),
    ("goes on after the move", goes_on_after_the_move),
    ("delete a namespace", delete_namespace),
];

/// Runs all steps in order; how many there were.
pub(super) fn tell(plane: &mut Plane) -> Result<usize> {
    for (name, step) in STEPS {
        let begun = Instant::now();
        let detail = step(plane).map_err(|error| format!("{name}: {error}"))?;
        let mib = plane.store.usage().resident >> 20;
        println!("ok  {name}: {detail} ({:.1} s, {} {mib} MiB)", begun.elapsed().as_secs_f64(), plane.store.side);
    }
    Ok(STEPS.len())
}

/// kubectl in the story's namespace, which must succeed.
fn kubectl(plane: &Plane, args: &[&str]) -> Result<String> {
    let answer = plane.kubectl(&[&["-n", NAMESPACE], args].concat())?;
    if answer.ok { Ok(answer.text) } else { Err(format!("kubectl {}: {}", args.join(" "), answer.text).into()) }
}

pub(super) fn expect(holds: bool, what: impl Into<String>) -> Result<()> {
    if holds { Ok(()) } else { Err(what.into().into()) }
}

fn namespace(plane: &mut Plane) -> Result<String> {
    kubectl(plane, &["create", "namespace", NAMESPACE])?;
    let phase = kubectl(plane, &["get", "namespace", NAMESPACE, "-o", "jsonpath={.status.phase}"])?;
    expect(phase == "Active", format!("its phase is {phase}"))?;
    // The controller manager puts this one into every namespace.
    plane.wait("kube-root-ca.crt", |plane| kubectl(plane, &["get", "serviceaccount", "default"]).is_ok())?;
    Ok("created, active, with its default service account".to_owned())
}

fn config_map(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{key: '{value}'}}\n---\n")
}

fn config_maps(plane: &mut Plane) -> Result<String> {
    let all: String = (0..CONFIGMAPS).map(|n| config_map(&format!("cm-{n:03}"), "one")).collect();
    let file = plane.manifest("maps.yaml", &all)?;
    let created = kubectl(plane, &["create", "-f", &file])?.matches(" created").count();
    expect(created == CONFIGMAPS, format!("{created} created"))?;
    kubectl(plane, &["patch", "configmap", "cm-000", "--type=merge", "-p", r#"{"data":{"key":"two"}}"#])?;
    let value = kubectl(plane, &["get", "configmap", "cm-000", "-o", "jsonpath={.data.key}"])?;
    expect(value == "two", format!("the patched value is {value}"))?;
    Ok(format!("{CONFIGMAPS} created, one patched and read back"))
}

fn paged_list(plane: &mut Plane) -> Result<String> {
    let names = kubectl(plane, &["get", "configmaps", "--chunk-size=25", "-o", "name"])?;
    let count = names.lines().filter(|line| line.contains("cm-")).count();
    expect(count == CONFIGMAPS, format!("{count} in pages of 25"))?;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps?limit=50");
    let page = kubectl(plane, &["get", "--raw", &path])?;
    let page: serde_json::Value = serde_json::from_str(&page)?;
    let token = page["metadata"]["continue"].as_str().unwrap_or_default();
    let left = page["metadata"]["remainingItemCount"].as_u64().unwrap_or_default();
    let items = page["items"].as_array().map_or(0, Vec::len);
    expect(items == 50 && left > 0, format!("a page of {items}, {left} left"))?;
    let rest = kubectl(plane, &["get", "--raw", &format!("{path}&continue={token}")])?;
    let rest: serde_json::Value = serde_json::from_str(&rest)?;
    let same = rest["metadata"]["resourceVersion"] == page["metadata"]["resourceVersion"];
    expect(same, "the second page is of another revision")?;
    Ok(format!("{count} in pages of 25; a page of 50 with {left} left, the next one at the same revision"))
}

fn conflict(plane: &mut Plane) -> Result<String> {
    let old = kubectl(plane, &["get", "configmap", "cm-001", "-o", "json"])?;
    kubectl(plane, &["patch", "configmap", "cm-001", "--type=merge", "-p", r#"{"data":{"key":"newer"}}"#])?;
    let file = plane.manifest("old.json", &old)?;
    let answer = plane.kubectl(&["-n", NAMESPACE, "replace", "-f", &file])?;
    expect(!answer.ok && answer.text.contains("Conflict"), format!("an old version was taken: {}", answer.text))?;
    Ok("an update of an old version is refused".to_owned())
}

fn server_side_apply(plane: &mut Plane) -> Result<String> {
    let first = plane.manifest("apply-1.yaml", &config_map("applied", "one"))?;
    let second = plane.manifest("apply-2.yaml", &config_map("applied", "two"))?;
    kubectl(plane, &["apply", "--server-side", "--field-manager=first", "-f", &first])?;
    let answer =
        plane.kubectl(&["-n", NAMESPACE, "apply", "--server-side", "--field-manager=second", "-f", &second])?;
    expect(!answer.ok && answer.text.contains("conflict"), "a second manager took the field")?;
    kubectl(plane, &["apply", "--server-side", "--field-manager=second", "--force-conflicts", "-f", &second])?;
    let value = kubectl(plane, &["get", "configmap", "applied", "-o", "jsonpath={.data.key}"])?;
    expect(value == "two", format!("after forcing, the value is {value}"))?;
    Ok("applied, a second manager refused, then forced".to_owned())
}

fn watch(plane: &mut Plane) -> Result<String> {
    let log = plane.file("watch.log");
    let args = ["-n", NAMESPACE, "get", "configmaps", "--watch-only", "--output-watch-events", "--no-headers"];
    let mut watching =
        plane.kubectl_command(&args).stdin(Stdio::null()).stdout(File::create(&log)?).stderr(Stdio::null()).spawn()?;
    // kubectl says nothing when its watch stands: something is changed until an event is seen.
    let mut tries = 0;
    let stands = plane.wait("the watch", |plane| {
        tries += 1;
        let patch = format!(r#"{{"data":{{"key":"try {tries}"}}}}"#);
        let patched = kubectl(plane, &["patch", "configmap", "cm-002", "--type=merge", "-p", &patch]).is_ok();
        patched && std::fs::read_to_string(&log).unwrap_or_default().contains("MODIFIED")
    });
    let told = stands.and_then(|()| {
        kubectl(plane, &["create", "configmap", "seen", "--from-literal=a=b"])?;
        kubectl(plane, &["delete", "configmap", "seen"])?;
        plane.wait("the events", |_| {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            let has = |kind: &str| log.lines().any(|line| line.contains(kind) && line.contains("seen"));
            has("ADDED") && has("DELETED")
        })
    });
    watching.kill()?;
    watching.wait()?;
    told.map(|()| "modified, added and deleted were seen".to_owned())
}

const DEPLOYMENT: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: 'registry.invalid/web'}]}
";

/// Waits until there are as many pods, all of them running.
fn wait_for_pods(plane: &mut Plane, count: usize) -> Result<()> {
    plane.wait(&format!("{count} pods"), |plane| {
        let path = "jsonpath={range .items[*]}{.status.phase} {.spec.nodeName}{'\\n'}{end}";
        kubectl(plane, &["get", "pods", "-l", "app=web", "-o", path]).is_ok_and(|text| {
            let runs = text.lines().filter(|line| line.starts_with("Running node-")).count();
            runs == count && text.lines().count() == count
        })
    })
}

/// A node that kwok keeps.
pub(super) fn node(at: usize) -> serde_json::Value {
    let name = format!("node-{at}");
    let labels = serde_json::json!({
        "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "topology.kubernetes.io/zone": format!("zone-{}", at % 3),
    });
    serde_json::json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})
}

fn nodes(plane: &mut Plane) -> Result<String> {
    for at in 0..NODES {
        let file = plane.manifest("node.json", &node(at).to_string())?;
        kubectl(plane, &["create", "-f", &file])?;
    }
    let class = plane.storage_class();
    kubectl(plane, &["apply", "-f", &class])?;
    plane.wait("nodes that are ready", |plane| {
        let path = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status} {.items[*].spec.taints}";
        kubectl(plane, &["get", "nodes", "-o", path]).is_ok_and(|text| text.trim() == ["True"; NODES].join(" "))
    })?;
    plane.wait("their leases", |plane| {
        let leases = plane.kubectl(&["-n", "kube-node-lease", "get", "leases", "-o", "name"]);
        leases.is_ok_and(|leases| leases.text.lines().count() == NODES)
    })?;
    Ok(format!("{NODES} ready, each with its lease"))
}

fn deployment(plane: &mut Plane) -> Result<String> {
    let file = plane.manifest("deployment.yaml", DEPLOYMENT)?;
    kubectl(plane, &["create", "-f", &file])?;
    wait_for_pods(plane, 3)?;
    kubectl(plane, &["scale", "deployment", "web", "--replicas=7"])?;
    wait_for_pods(plane, 7)?;
    kubectl(plane, &["scale", "deployment", "web", "--replicas=2"])?;
    wait_for_pods(plane, 2)?;
    Ok("3 pods, scaled up to 7 and down to 2".to_owned())
}

fn kill_under_load(plane: &mut Plane) -> Result<String> {
    let all: String = (0..UNDER_LOAD).map(|n| config_map(&format!("load-{n:03}"), "x")).collect();
    let file = plane.manifest("load.yaml", &all)?;
    let log = plane.file("load.log");
    let mut creating = plane
        .kubectl_command(&["-n", NAMESPACE, "create", "-f", &file])
        .stdin(Stdio::null())
        .stdout(File::create(&log)?)
        .stderr(Stdio::null())
        .spawn()?;
    let acknowledged = |log: &std::path::Path| -> Vec<String> {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        text.lines().filter_map(|line| Some(line.strip_suffix(" created")?.to_owned())).collect()
    };
    plane.wait("some load", |_| acknowledged(&log).len() > UNDER_LOAD / 8)?;
    for at in 0..MEMBERS {
        plane.store.kill(at)?;
    }
    std::thread::sleep(Duration::from_millis(500));
    let begun = Instant::now();
    for at in 0..MEMBERS {
        plane.store.start_again(at)?;
    }
    plane.store.wait_until_well()?;
    let restart_ms = begun.elapsed().as_millis();
    creating.wait()?;
    plane.wait_until_ready()?;
    let there = kubectl(plane, &["get", "configmaps", "-o", "name"])?;
    let there: std::collections::HashSet<_> = there.lines().collect();
    let promised = acknowledged(&log);
    let lost: Vec<_> = promised.iter().filter(|name| !there.contains(name.as_str())).collect();
    expect(lost.is_empty(), format!("acknowledged and gone: {lost:?}"))?;
    expect(plane.ended().is_none(), format!("{:?} ended", plane.ended()))?;
    Ok(format!("{} acknowledged, all there; the members agreed again after {restart_ms} ms", promised.len()))
}

fn goes_on(plane: &mut Plane) -> Result<String> {
    kubectl(plane, &["scale", "deployment", "web", "--replicas=4"])?;
    wait_for_pods(plane, 4)?;
    kubectl(plane, &["delete", "configmap", "cm-003"])?;
    let answer = plane.kubectl(&["-n", NAMESPACE, "get", "configmap", "cm-003"])?;
    expect(!answer.ok && answer.text.contains("NotFound"), "a deleted object is still there")?;
    Ok("the same apiserver scales and deletes after the restart".to_owned())
}

fn goes_on_after_the_move(plane: &mut Plane) -> Result<String> {
    kubectl(plane, &["scale", "deployment", "web", "--replicas=6"])?;
    wait_for_pods(plane, 6)?;
    Ok("controllers, scheduler and nodes that were there all the while scale up".to_owned())
}

fn delete_namespace(plane: &mut Plane) -> Result<String> {
    kubectl(plane, &["delete", "namespace", NAMESPACE, "--wait=false"])?;
    plane.wait("its end", |plane| {
        plane.kubectl(&["get", "namespace", NAMESPACE]).is_ok_and(|answer| answer.text.contains("NotFound"))
    })?;
    Ok("gone with all that was in it".to_owned())
}
