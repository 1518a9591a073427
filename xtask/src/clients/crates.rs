//! The tests of the crate `etcd-client`, from the registry's copy of it.
//!
//! ```text
//! a package that depends on it ─► cargo metadata: where is its source? ─► a copy, its endpoint replaced ─► cargo test
//!                  └► and on a crate that holds protoc, which its build asks for
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::sh;

const VERSION: &str = "0.21.1";
/// The address that its tests are written for.
const ITS_ENDPOINT: &str = "localhost:2379";
/// Tests that one member can't pass, and why.
const LEFT_OUT: &[(&str, &str)] = &[("test_cluster", "it waits for a fourth member")];

/// Fetches the crate and copies its source.
pub(super) fn install(dir: &Path) -> Result<(), String> {
    let asking = dir.join("asking");
    let io = |error: std::io::Error| error.to_string();
    fs::create_dir_all(asking.join("src")).map_err(io)?;
    let manifest = format!(
        "[package]\nname = \"asking\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[dependencies]\netcd-client = \"={VERSION}\"\nprotoc-bin-vendored = \"=3.2.0\"\n\n[workspace]\n"
    );
    fs::write(asking.join("Cargo.toml"), manifest).map_err(io)?;
    fs::write(asking.join("src/lib.rs"), "").map_err(io)?;
    let metadata = sh::output(sh::program("cargo", &asking, &["metadata", "--format-version=1"]))?;
    let metadata: serde_json::Value = serde_json::from_slice(&metadata).map_err(|error| error.to_string())?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata has no packages")?;
    let source = |name: &str| -> Option<PathBuf> {
        let found = packages.iter().find(|package| package["name"] == name)?;
        Path::new(found["manifest_path"].as_str()?).parent().map(Path::to_path_buf)
    };
    let arch = std::env::consts::ARCH.replace("aarch64", "aarch_64");
    let protoc = source(&format!("protoc-bin-vendored-{}-{}", std::env::consts::OS, arch));
    let protoc = protoc.map(|protoc| protoc.join("bin/protoc")).ok_or("there is no protoc for this machine")?;
    fs::write(dir.join("protoc"), protoc.as_os_str().as_encoded_bytes()).map_err(io)?;
    let copied = dir.join("crate");
    copy(&source("etcd-client").ok_or("it isn't among the packages")?, &copied).map_err(io)?;
    // A workspace of its own: this one may be around it.
    let manifest = copied.join("Cargo.toml");
    let text = fs::read_to_string(&manifest).map_err(io)?;
    if text.lines().any(|line| line.trim() == "[workspace]") {
        return Ok(());
    }
    fs::write(manifest, text + "\n[workspace]\n").map_err(io)
}

/// Its tests against `url`, one at a time: they share keys.
pub(super) fn command(dir: &Path, url: &str) -> Result<Command, String> {
    let path = dir.join("crate/tests/testing.rs");
    let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
    let line = text.lines().find(|line| line.contains("DEFAULT_TEST_ENDPOINT: &str"));
    let line = line.ok_or_else(|| format!("its tests no longer name {ITS_ENDPOINT}"))?;
    let endpoint = format!("pub const DEFAULT_TEST_ENDPOINT: &str = \"{}\";", url.trim_start_matches("http://"));
    fs::write(&path, text.replace(line, &endpoint)).map_err(|error| error.to_string())?;
    let mut args =
        vec!["test", "--quiet", "--no-fail-fast", "--test", "client", "--test", "namespace", "--", "--test-threads=1"];
    // It leaves out what needs etcd 3.7.
    args.push("--include-ignored");
    args.extend(LEFT_OUT.iter().flat_map(|(test, _)| ["--skip", test]));
    let mut command = sh::program("cargo", &dir.join("crate"), &args);
    let protoc = fs::read_to_string(dir.join("protoc")).map_err(|error| error.to_string())?;
    command.env("CARGO_TARGET_DIR", dir.join("target")).env("PROTOC", protoc);
    Ok(command)
}

/// How many passed.
pub(super) fn verdict(output: &str) -> Option<String> {
    let results = output.lines().filter_map(|line| line.strip_prefix("test result: ok. "));
    let passed: usize = results.filter_map(|line| line.split(' ').next()?.parse::<usize>().ok()).sum();
    let left_out: Vec<String> = LEFT_OUT.iter().map(|(test, why)| format!(", without {test}: {why}")).collect();
    (passed > 0).then(|| format!("ok: {passed} tests{}", left_out.concat()))
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
