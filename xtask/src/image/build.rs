//! The static programs: Rust's own musl libc and linker, C by zig, the list of what went in by cargo-auditable.
//!
//! ```text
//! rustup target add ─┐
//! ziglang (PyPI) ────┼► cargo auditable build --profile dist --target ARCH-unknown-linux-musl ─► rusd
//! cargo-auditable ───┘                                                                            └► auditable2cdx ─► SBOM
//! ```
//! Paths of this machine are replaced in what the program says, so that the same commit gives the same bytes elsewhere.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::elf;
use crate::sh;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The C compiler's release: one pinned file brings it for both processors, without root.
const ZIG: &str = "ziglang==0.17.1";
/// Cargo's tools and their versions.
const TOOLS: [(&str, &str); 2] = [("cargo-auditable", "0.7.7"), ("auditable2cdx", "0.1.0")];

/// A processor, by the names that each tool has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arch {
    /// `amd64`, as images and Debian have it.
    pub(crate) name: &'static str,
    /// `x86_64`, as Rust, zig and qemu have it.
    pub(crate) rust: &'static str,
    /// As the program's header has it.
    pub(super) machine: u16,
}

pub(crate) const ARCHES: [Arch; 2] =
    [Arch { name: "amd64", rust: "x86_64", machine: 62 }, Arch { name: "arm64", rust: "aarch64", machine: 183 }];

/// All, or the one of `--arch A`.
pub(crate) fn arches(args: &[String]) -> Result<Vec<Arch>> {
    let only = sh::option(args, "arch")?;
    let fits = |arch: &Arch| only.as_deref().is_none_or(|only| only == arch.name);
    let arches: Vec<Arch> = ARCHES.into_iter().filter(fits).collect();
    if arches.is_empty() { Err("--arch is amd64 or arm64".into()) } else { Ok(arches) }
}

impl Arch {
    pub(crate) fn target(self) -> String {
        format!("{}-unknown-linux-musl", self.rust)
    }

    /// Whether this machine's processor runs it.
    pub(crate) fn is_ours(self) -> bool {
        self.rust == std::env::consts::ARCH
    }
}

/// Where the tools lie.
pub(crate) struct Tools {
    zig: PathBuf,
    /// cargo's.
    bin: PathBuf,
}

impl Tools {
    /// Installs what is missing.
    ///
    /// # Errors
    /// A tool that can't be had here.
    pub(crate) fn install() -> Result<Self> {
        let tools = sh::target().join("tools");
        for (name, version) in TOOLS {
            install(&tools, name, version, &[])?;
        }
        let zig = tools.join("zig");
        let stamp = zig.join("stamp");
        if !fs::read_to_string(&stamp).is_ok_and(|old| old == ZIG) {
            let place = zig.to_str().ok_or("the target directory's path is not text")?;
            let args = ["-m", "pip", "install", "--quiet", "--upgrade", "--no-deps", "--target", place, ZIG];
            sh::run(sh::program("python3", &sh::root(), &args))?;
            fs::write(stamp, ZIG)?;
        }
        Ok(Self { zig: zig.join("ziglang/zig"), bin: tools.join("bin") })
    }

    /// Two scripts that stand for a C compiler and an archiver for this processor.
    fn c_compiler(&self, arch: Arch) -> Result<[PathBuf; 2]> {
        let zig = self.zig.to_str().ok_or("the target directory's path is not text")?;
        let dir = sh::target().join("image/cc");
        fs::create_dir_all(&dir)?;
        let compiler = dir.join(format!("cc-{}", arch.name));
        // Cargo's `cc` names the target as clang does; zig has a name of its own.
        write_script(
            &compiler,
            &format!(
                "for a; do shift; case $a in --target=*) ;; *) set -- \"$@\" \"$a\" ;; esac; done\n\
                 exec '{zig}' cc -target {}-linux-musl \"$@\"\n",
                arch.rust
            ),
        )?;
        let archiver = dir.join("ar");
        write_script(&archiver, &format!("exec '{zig}' ar \"$@\"\n"))?;
        Ok([compiler, archiver])
    }
}

/// Builds one of cargo's tools in its pinned version, unless it is there.
pub(crate) fn install(tools: &Path, name: &str, version: &str, more: &[&str]) -> Result<()> {
    let stamp = tools.join("bin").join(format!("{name}.version"));
    if tools.join("bin").join(name).is_file() && fs::read_to_string(&stamp).is_ok_and(|old| old == version) {
        return Ok(());
    }
    let build = tools.join("build");
    let mut install = sh::cargo(&["install", name, "--locked", "--force", "--debug", "--quiet"]);
    install.args(["--version", &format!("={version}")]).args(more);
    install.arg("--root").arg(tools).arg("--target-dir").arg(&build);
    sh::run(install)?;
    fs::write(stamp, version)?;
    // Only after it is all there: whoever was interrupted goes on from there.
    fs::remove_dir_all(build)?;
    Ok(())
}

fn write_script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, format!("#!/bin/sh\n{text}"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// What the build is told of the commit it is of.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Its hash, with `-dirty` if the tree isn't like it.
    pub(crate) commit: String,
    /// Its time: seconds since 1970.
    pub(crate) epoch: String,
}

impl Source {
    /// What git says, or the variables by which a build from an archive says it: `RUSD_COMMIT`, `SOURCE_DATE_EPOCH`.
    pub(crate) fn here() -> Result<Self> {
        let git = |args: &[&str]| -> Result<String> {
            let said = sh::output(sh::program("git", &sh::root(), args))?;
            Ok(String::from_utf8_lossy(&said).trim().to_owned())
        };
        let commit = || -> Result<String> {
            let is_clean = git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
            Ok(git(&["rev-parse", "HEAD"])? + if is_clean { "" } else { "-dirty" })
        };
        let told = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let commit = told("RUSD_COMMIT").map_or_else(commit, Ok)?;
        let epoch = told("SOURCE_DATE_EPOCH").map_or_else(|| git(&["log", "-1", "--format=%ct"]), Ok)?;
        Ok(Self { commit, epoch })
    }
}

/// Builds the program of the tree at `root` into a target directory.
pub(crate) fn program(tools: &Tools, arch: Arch, source: &Source, root: &Path, target: &Path) -> Result<PathBuf> {
    let triple = arch.target();
    if !has_std(&triple)? {
        sh::run(sh::program("rustup", &sh::root(), &["target", "add", &triple]))?;
    }
    let [compiler, archiver] = tools.c_compiler(arch)?;
    let mut build = sh::cargo(&["auditable", "build", "--locked", "--package=rusd", "--bin=rusd", "--profile=dist"]);
    build.args(["--target", &triple]).current_dir(root);
    let (lower, upper) = (triple.replace('-', "_"), triple.replace('-', "_").to_uppercase());
    let sources = cargo_home()?.join("registry/src");
    let cache = sh::target().join("image/zig");
    let rust_flags = remap(&[(&sources, "/cargo"), (root, "/rusd"), (target, "/target")], "--remap-path-prefix=");
    let c_flags = remap(&[(&sources, "/cargo")], "-ffile-prefix-map=");
    build
        .env("CARGO_TARGET_DIR", target)
        .env("PATH", path_with(&tools.bin)?)
        .env(format!("CC_{lower}"), compiler)
        .env(format!("AR_{lower}"), archiver)
        .env(format!("CFLAGS_{lower}"), c_flags)
        .env(format!("CARGO_TARGET_{upper}_LINKER"), "rust-lld")
        .env("RUSTFLAGS", rust_flags)
        .env("ZIG_GLOBAL_CACHE_DIR", &cache)
        .env("ZIG_LOCAL_CACHE_DIR", &cache)
        .env("RUSD_COMMIT", &source.commit)
        .env("SOURCE_DATE_EPOCH", &source.epoch);
    sh::run(build)?;
    Ok(target.join(triple).join("dist/rusd"))
}

fn remap(paths: &[(&Path, &str)], flag: &str) -> String {
    paths.iter().map(|(from, to)| format!("{flag}{}={to}", from.display())).collect::<Vec<_>>().join(" ")
}

fn has_std(triple: &str) -> Result<bool> {
    let said = sh::output(sh::program("rustc", &sh::root(), &["--print", "sysroot"]))?;
    let sysroot = String::from_utf8_lossy(&said).trim().to_owned();
    Ok(Path::new(&sysroot).join("lib/rustlib").join(triple).join("lib").is_dir())
}

fn cargo_home() -> Result<PathBuf> {
    let set = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    set.or_else(home).ok_or_else(|| "neither CARGO_HOME nor HOME is set".into())
}

fn path_with(first: &Path) -> Result<std::ffi::OsString> {
    let old = std::env::var_os("PATH").unwrap_or_default();
    Ok(std::env::join_paths(std::iter::once(first.to_owned()).chain(std::env::split_paths(&old)))?)
}

/// Holds a program against what an image needs: this processor, and nothing else to start.
pub(crate) fn check(program: &Path, arch: Arch) -> Result<u64> {
    let bytes = fs::read(program)?;
    let header = elf::header(&bytes)?;
    if header != (elf::Header { machine: arch.machine, is_static: true }) {
        return Err(format!("{}: {header:?}, not static and for {}", program.display(), arch.name).into());
    }
    Ok(bytes.len() as u64)
}

/// What the program was made of, in CycloneDX, read out of the program.
pub(crate) fn materials(tools: &Tools, program: &Path) -> Result<Vec<u8>> {
    let mut list = Command::new(tools.bin.join("auditable2cdx"));
    list.arg(program);
    Ok(sh::output(list)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_replaced_in_their_order() {
        let flags = remap(&[(Path::new("/of/a"), "/cargo"), (Path::new("/b"), "/rusd")], "--remap-path-prefix=");
        assert_eq!(flags, "--remap-path-prefix=/of/a=/cargo --remap-path-prefix=/b=/rusd");
    }

    #[test]
    fn one_processor_may_be_chosen() {
        let chosen = |args: &[&str]| arches(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>());
        assert_eq!(chosen(&[]).expect("all"), ARCHES);
        assert_eq!(chosen(&["--arch", "arm64"]).expect("one"), [ARCHES[1]]);
        assert!(chosen(&["--arch=arm"]).is_err());
    }

    #[test]
    fn each_processor_has_its_target_and_one_is_ours() {
        assert_eq!(ARCHES.map(Arch::target), ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"]);
        assert!(ARCHES.iter().filter(|arch| arch.is_ours()).count() < 2);
    }
}
