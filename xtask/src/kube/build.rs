//! The programs: Kubernetes from the Go modules that `kube/go.mod` pins, rusd from this tree.

use std::fs;
use std::path::PathBuf;

use crate::sh;

/// The release that `kube/go.mod` pins.
const VERSION: &str = "v1.37.1";
const PROGRAMS: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kubectl"];

/// The directory with Kubernetes' programs, built if they are not there yet.
pub(super) fn programs() -> Result<PathBuf, Box<dyn std::error::Error>> {
    let module = sh::root().join("xtask/kube");
    let out = sh::target().join("kube");
    fs::create_dir_all(&out)?;
    let stamp = [fs::read(module.join("go.mod"))?, fs::read(module.join("go.sum"))?].concat();
    let built = PROGRAMS.iter().all(|name| out.join(name).is_file());
    if built && fs::read(out.join("stamp")).is_ok_and(|old| old == stamp) {
        eprintln!("kube: programs are up to date");
        return Ok(out);
    }
    let flags: Vec<_> = ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"]
        .iter()
        .flat_map(|package| {
            [("gitVersion", VERSION), ("gitMajor", "1"), ("gitMinor", "37")]
                .map(|(name, value)| format!("-X {package}.{name}={value}"))
        })
        .collect();
    let flags = format!("-s -w {}", flags.join(" "));
    let target = out.to_str().ok_or("the target directory's path is not text")?.to_owned() + "/";
    let packages = PROGRAMS.map(|name| format!("k8s.io/kubernetes/cmd/{name}"));
    let mut args =
        vec!["build", "-mod=readonly", "-p", "2", "-trimpath", "-buildvcs=false", "-ldflags", &flags, "-o", &target];
    args.extend(packages.iter().map(String::as_str));
    let mut build = sh::program("go", &module, &args);
    build.env("CGO_ENABLED", "0");
    sh::run(build)?;
    fs::write(out.join("stamp"), stamp)?;
    Ok(out)
}

/// The server's release binary.
pub(super) fn rusd() -> Result<PathBuf, Box<dyn std::error::Error>> {
    sh::run(sh::cargo(&["build", "--release", "--package", "rusd"]))?;
    Ok(sh::target().join("release/rusd"))
}
