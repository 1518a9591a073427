//! `cargo xtask peers`: the real etcd and its tools, built from the modules that `peers/go.mod` pins.
//!
//! ```text
//! peers/go.mod, go.sum, descriptors/ ─► go build ─► target/peers/{etcd,etcdctl,etcdutl,benchmark,descriptors}
//!                                              └──► target/peers/stamp   (what they were built from)
//! ```
//!
//! Two to three minutes when nothing is cached; nothing at all while the stamp still holds.

use std::fs;
use std::path::PathBuf;

use crate::{Outcome, sh};

/// Program name and the Go package it is built from.
const PROGRAMS: [(&str, &str); 5] = [
    ("etcd", "go.etcd.io/etcd/server/v3"),
    ("etcdctl", "go.etcd.io/etcd/etcdctl/v3"),
    ("etcdutl", "go.etcd.io/etcd/etcdutl/v3"),
    ("benchmark", "go.etcd.io/etcd/v3/tools/benchmark"),
    ("descriptors", "./descriptors"),
];

/// Where the built programs lie.
pub(crate) fn directory() -> PathBuf {
    sh::target().join("peers")
}

pub(crate) fn run(_args: &[String]) -> Outcome {
    let module = sh::root().join("xtask/peers");
    let out = directory();
    fs::create_dir_all(&out)?;
    let mut stamp = Vec::new();
    for source in ["go.mod", "go.sum", "descriptors/main.go"] {
        stamp.extend(fs::read(module.join(source))?);
    }
    let built = PROGRAMS.iter().all(|(name, _)| out.join(name).is_file());
    if built && fs::read(out.join("stamp")).is_ok_and(|old| old == stamp) {
        eprintln!("peers: up to date");
        return Ok(());
    }
    for (name, package) in PROGRAMS {
        let binary = out.join(name);
        let binary = binary.to_str().ok_or("the target directory's path is not text")?;
        sh::run(sh::program(
            "go",
            &module,
            &["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-o", binary, package],
        ))?;
    }
    fs::write(out.join("stamp"), stamp)?;
    Ok(())
}
