//! The chart on a control plane whose store is rusd: every rendering is taken, and helm installs, upgrades, goes back,
//! while the store's leader is killed.
//!
//! The scheduler places the pods, kwok says that they run: what they do is tried by `cargo xtask pods`.

use std::process::{Child, Stdio};
use std::time::Duration;

use super::plane::Plane;
use super::pulse::Pulse;
use super::story::expect;
use crate::chart::{self, VALUES};
use crate::sh;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const NAMESPACE: &str = "store";
const RELEASE: &str = "store";
/// As README and notes type it.
const KEEP: &str = "--reset-then-reuse-values";
const SET: &str = "statefulset/store-rusd";
/// An election, the apiserver's own retries, and a machine that is busy with a whole control plane besides.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// What other projects bring that the chart has objects of: plural, kind, group.
const FOREIGN: [(&str, &str, &str); 3] = [
    ("certificates", "Certificate", "cert-manager.io"),
    ("servicemonitors", "ServiceMonitor", "monitoring.coreos.com"),
    ("prometheusrules", "PrometheusRule", "monitoring.coreos.com"),
];

/// A definition that takes anything.
fn definition((plural, kind, group): (&str, &str, &str)) -> String {
    format!(
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: {plural}.{group}}}\n\
         spec:\n  group: {group}\n  scope: Namespaced\n  names: {{plural: {plural}, kind: {kind}}}\n  versions:\n  \
         - name: v1\n    served: true\n    storage: true\n    schema:\n      openAPIV3Schema: {{type: object, \
         x-kubernetes-preserve-unknown-fields: true}}\n---\n"
    )
}

/// The step: what the apiserver makes of each rendering.
pub(super) fn renderings(plane: &mut Plane) -> Result<String> {
    let helm = chart::helm()?;
    let dir = sh::root().join("charts/rusd");
    kubectl(plane, &["create", "namespace", NAMESPACE])?;
    let definitions = plane.manifest("crds.yaml", &FOREIGN.map(definition).concat())?;
    kubectl(plane, &["apply", "-f", &definitions])?;
    for (plural, _, group) in FOREIGN {
        let name = format!("{plural}.{group}");
        plane.wait(&name, |plane| kubectl(plane, &["get", &name]).is_ok())?;
    }
    for name in VALUES {
        let rendered = chart::render(&helm, &dir, name, NAMESPACE)?;
        let path = plane.manifest(&format!("chart-{name}.yaml"), &String::from_utf8_lossy(&rendered))?;
        kubectl(plane, &["apply", "--dry-run=server", "-f", &path])?;
    }
    Ok(format!("{} renderings taken", VALUES.len()))
}

/// The step: a release from its beginning to its end, its hooks with it.
pub(super) fn release(plane: &mut Plane) -> Result<String> {
    helm(plane, &["install", RELEASE, ".", "--set=server.cacheMiB=128"])?;
    settled(plane, 3)?;
    let pods = kubectl(plane, &["get", "pods", "-o", "jsonpath={.items[*].spec.nodeName}"])?;
    let mut nodes: Vec<_> = pods.split_whitespace().collect();
    nodes.sort_unstable();
    nodes.dedup();
    expect(nodes.len() == 3, format!("three members, each on a node of its own: {pods}"))?;
    helm(plane, &["test", RELEASE])?;
    // What `lookup` finds in a real cluster; the other cases are `cargo xtask chart`'s.
    for (set, part) in [
        ("--set=replicas=1,scaleDown.enabled=false", "may cost the majority"),
        ("--set=tls.enabled=true,tls.existingSecret=a", "are known by http URLs"),
        ("--set=clusterDomain=example.org", "are known by names below cluster.local"),
    ] {
        let refused = helm(plane, &["upgrade", RELEASE, ".", KEEP, set]).err().map(|error| error.to_string());
        expect(refused.as_ref().is_some_and(|text| text.contains(part)), format!("{set}: {refused:?}"))?;
    }

    // The leader is killed once for each of these, a moment after helm began.
    let mut longest = [Duration::ZERO; 2];
    let mut refused = 0;
    let steps: [(&[&str], usize); 4] = [
        (&["upgrade", RELEASE, ".", KEEP, "--set=replicas=5"], 5),
        (&["upgrade", RELEASE, ".", KEEP, "--set=replicas=3"], 3),
        // Other arguments, so that every pod is another one afterwards.
        (&["upgrade", RELEASE, ".", KEEP, "--set=server.logLevel=debug"], 3),
        (&["rollback", RELEASE, "2"], 5),
    ];
    for (args, members) in steps {
        let pulse = Pulse::start(plane)?;
        let running = helm_started(plane, args)?;
        std::thread::sleep(Duration::from_millis(400));
        let leader = plane.store.leader()?;
        plane.store.kill(leader)?;
        let done = helm_ended(running, args).and_then(|()| settled(plane, members));
        plane.store.start_again(leader)?;
        plane.store.wait_until_well()?;
        done?;
        let typed = kubectl(plane, &["get", SET, "-o", "jsonpath={.spec.template.spec.containers[0].args}"])?;
        expect(typed.contains("--backend-cache-mb=128"), format!("{args:?} forgot what was installed: {typed}"))?;
        for (longest, beats) in longest.iter_mut().zip(pulse.end(plane)?) {
            expect(beats.longest < SILENCE_MAX, format!("no answer for {:?}: {}", beats.longest, beats.said))?;
            *longest = beats.longest.max(*longest);
            refused += beats.refused;
        }
    }
    expect(plane.ended().is_none(), format!("{:?} ended", plane.ended()))?;
    helm(plane, &["rollback", RELEASE, "1"])?;
    settled(plane, 3)?;
    helm(plane, &["uninstall", RELEASE])?;
    let claims = kubectl(plane, &["get", "pvc", "-o", "jsonpath={.items[*].status.phase}"])?;
    expect(claims.split_whitespace().count() == 5, format!("claims are kept: {claims}"))?;
    Ok(format!(
        "installed, 3 to 5 to 3, rolled, gone back twice, uninstalled; the leader killed four times: no write for {:.1} s \
         and no read for {:.1} s at most, {refused} requests refused",
        longest[0].as_secs_f64(),
        longest[1].as_secs_f64()
    ))
}

/// Waits until the set has so many pods, all of them available and of its last form. Ready isn't enough: in a set whose pods
/// start in parallel, Kubernetes 1.37.1 replaces a pod that is unavailable (ready for less than `minReadySeconds`, too) before
/// all others, by one of the old form, and so again and again.
fn settled(plane: &mut Plane, members: usize) -> Result<()> {
    let want = format!("{members} {members} {members} {members}");
    plane.wait(&format!("{members} pods that are ready"), |plane| {
        let of = |path: &str| kubectl(plane, &["get", SET, "-o", &format!("jsonpath={path}")]).unwrap_or_default();
        let seen =
            of("{.status.replicas} {.status.readyReplicas} {.status.updatedReplicas} {.status.availableReplicas}");
        let both = of("{.metadata.generation} {.status.observedGeneration}");
        seen == want && both.split_once(' ').is_some_and(|(is, seen)| is == seen)
    })?;
    let size = kubectl(plane, &["get", "configmap", "store-rusd-size", "-o", "jsonpath={.data.replicas}"])?;
    expect(size == members.to_string(), format!("the size is {size}, not {members}"))
}

fn helm_started(plane: &Plane, args: &[&str]) -> Result<Child> {
    let kubeconfig = plane.file("kubeconfig").display().to_string();
    let args = [args, &["--namespace", NAMESPACE, "--kubeconfig", &kubeconfig]].concat();
    let mut helm = chart::helm_with(&chart::helm()?, &sh::root().join("charts/rusd"), &args);
    helm.env("HOME", plane.file("helm")).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(helm.spawn()?)
}

fn helm_ended(running: Child, args: &[&str]) -> Result<()> {
    let output = running.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("helm {}: {said}", args.join(" ")).into()) }
}

fn helm(plane: &Plane, args: &[&str]) -> Result<()> {
    helm_ended(helm_started(plane, args)?, args)
}

fn kubectl(plane: &Plane, args: &[&str]) -> Result<String> {
    let answer = plane.kubectl(&[&["-n", NAMESPACE], args].concat())?;
    if answer.ok { Ok(answer.text) } else { Err(format!("kubectl {}: {}", args.join(" "), answer.text).into()) }
}
