//! helm, built from the Go module that `helm/go.mod` pins; three minutes when nothing is cached.

use std::fs;
use std::path::PathBuf;

use crate::sh;

/// The program, built if it isn't there yet.
pub(super) fn built() -> Result<PathBuf, Box<dyn std::error::Error>> {
    let module = sh::root().join("xtask/helm");
    let out = sh::target().join("tools/helm");
    fs::create_dir_all(&out)?;
    let program = out.join("helm");
    let stamp = [fs::read(module.join("go.mod"))?, fs::read(module.join("go.sum"))?].concat();
    if program.is_file() && fs::read(out.join("stamp")).is_ok_and(|old| old == stamp) {
        return Ok(program);
    }
    let target = program.to_str().ok_or("the target directory's path is not text")?;
    let args = ["build", "-mod=readonly", "-p", "2", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", target];
    let mut build = sh::program("go", &module, &[&args[..], &["helm.sh/helm/v3/cmd/helm"]].concat());
    build.env("CGO_ENABLED", "0");
    sh::run(build)?;
    fs::write(out.join("stamp"), stamp)?;
    Ok(program)
}
