//! The programs: Kubernetes and kwok from the Go modules that `kube/go.mod` and `kwok/go.mod` pin, rusd from this tree.

use std::fs;
use std::path::{Path, PathBuf};

use crate::sh;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The release that `kube/go.mod` pins.
const VERSION: &str = "v1.37.1";
const PROGRAMS: [&str; 4] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"];
/// What kwok does to nodes, pods and claims: its own documents, below its module's `kustomize/stage`.
const STAGES: [&str; 9] = [
    "node/fast/node-initialize",
    "node/heartbeat-with-lease/node-heartbeat-with-lease",
    "pod/fast/pod-ready",
    "pod/fast/pod-complete",
    "pod/fast/pod-delete",
    "volume/fast/pvc-provision",
    "volume/fast/pvc-delete",
    "volume/fast/pv-bind",
    "volume/fast/pv-delete",
];
/// The class that those of volumes are for, which is the default one.
const CLASS: &str = "volume/fast/storage-class";

/// The directory with all programs, built if they are not there yet, `stages.yaml` and `class.yaml`.
pub(super) fn programs() -> Result<PathBuf> {
    let out = sh::target().join("kube");
    fs::create_dir_all(&out)?;
    kubernetes(&out)?;
    kwok(&out)?;
    Ok(out)
}

fn kubernetes(out: &Path) -> Result<()> {
    let module = sh::root().join("xtask/kube");
    let flags: Vec<_> = ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"]
        .iter()
        .flat_map(|package| {
            [("gitVersion", VERSION), ("gitMajor", "1"), ("gitMinor", "37")]
                .map(|(name, value)| format!("-X {package}.{name}={value}"))
        })
        .collect();
    let packages = PROGRAMS.map(|name| format!("k8s.io/kubernetes/cmd/{name}"));
    build(&module, out, "stamp", &PROGRAMS, &packages, &flags.join(" "))
}

fn kwok(out: &Path) -> Result<()> {
    let module = sh::root().join("xtask/kwok");
    build(&module, out, "stamp-kwok", &["kwok"], &["sigs.k8s.io/kwok/cmd/kwok".to_owned()], "")?;
    let place = sh::output(sh::program("go", &module, &["list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok"]))?;
    let place = PathBuf::from(String::from_utf8(place)?.trim()).join("kustomize/stage");
    let read = |name: &str| fs::read_to_string(place.join(format!("{name}.yaml")));
    let stages = STAGES.iter().map(|name| read(name)).collect::<std::io::Result<Vec<_>>>()?;
    fs::write(out.join("stages.yaml"), stages.join("\n---\n"))?;
    fs::write(out.join("class.yaml"), read(CLASS)?)?;
    Ok(())
}

/// Builds a module's programs, unless all of them are there and the module is what they were built from.
fn build(module: &Path, out: &Path, stamp: &str, names: &[&str], packages: &[String], flags: &str) -> Result<()> {
    let sources = [fs::read(module.join("go.mod"))?, fs::read(module.join("go.sum"))?].concat();
    let stamp = out.join(stamp);
    if names.iter().all(|name| out.join(name).is_file()) && fs::read(&stamp).is_ok_and(|old| old == sources) {
        eprintln!("kube: {} are up to date", names.join(", "));
        return Ok(());
    }
    let target = out.to_str().ok_or("the target directory's path is not text")?.to_owned() + "/";
    let flags = format!("-s -w {flags}");
    let mut args = vec!["build", "-mod=readonly", "-p", "2", "-trimpath", "-buildvcs=false"];
    args.extend(["-ldflags", flags.trim_end(), "-o", &target]);
    args.extend(packages.iter().map(String::as_str));
    let mut build = sh::program("go", module, &args);
    build.env("CGO_ENABLED", "0");
    sh::run(build)?;
    fs::write(stamp, sources)?;
    Ok(())
}

/// The server's release binary.
pub(super) fn rusd() -> Result<PathBuf> {
    sh::run(sh::cargo(&["build", "--release", "--package", "rusd"]))?;
    Ok(sh::target().join("release/rusd"))
}
