//! The chart on an apiserver whose store is rusd: every rendering is taken, and helm installs, upgrades, goes back.
//!
//! There are no nodes, so no pod runs and no hook could: what pods do is tried by `tests/pods`.

use super::plane::Plane;
use super::story::expect;
use crate::chart::{self, VALUES};
use crate::sh;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const NAMESPACE: &str = "store";
const RELEASE: &str = "store";

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

/// The step of the story.
pub(super) fn step(plane: &mut Plane) -> Result<String> {
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
    let kubeconfig = plane.file("kubeconfig").display().to_string();
    let run = |args: &[&str]| {
        let args = [args, &["--namespace", NAMESPACE, "--kubeconfig", &kubeconfig]].concat();
        sh::output(chart::helm_with(&helm, &dir, &args))
    };
    let mut replicas = |want: &str| {
        plane.wait("the set's pods", |plane| {
            let pods = kubectl(plane, &["get", "pods", "-o", "name"]).unwrap_or_default();
            pods.lines().count().to_string() == want
        })?;
        let size = kubectl(plane, &["get", "configmap", "store-rusd-size", "-o", "jsonpath={.data.replicas}"])?;
        expect(size == want, format!("the size is {size}, not {want}"))
    };
    run(&["install", RELEASE, "."])?;
    replicas("3")?;
    run(&["upgrade", RELEASE, ".", "--set", "replicas=5", "--no-hooks"])?;
    replicas("5")?;
    run(&["rollback", RELEASE, "1", "--no-hooks"])?;
    replicas("3")?;
    run(&["uninstall", RELEASE, "--no-hooks"])?;
    let claims = kubectl(plane, &["get", "pvc", "-o", "name"])?;
    expect(claims.lines().count() == 5, format!("claims are kept: {claims}"))?;
    Ok(format!("{} renderings taken; installed, 3 to 5 and back, uninstalled, claims kept", VALUES.len()))
}

fn kubectl(plane: &Plane, args: &[&str]) -> Result<String> {
    let answer = plane.kubectl(&[&["-n", NAMESPACE], args].concat())?;
    if answer.ok { Ok(answer.text) } else { Err(format!("kubectl {}: {}", args.join(" "), answer.text).into()) }
}
