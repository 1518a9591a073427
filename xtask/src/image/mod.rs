//! `cargo xtask image [--arch A] [--twice] [--allow-skips]`: the container images, built without an engine, and run.
//!
//! ```text
//! build (static programs, SBOM) ─► assemble (buildah) ─► layout (health check, both processors, digest) ─► NAME.oci.tar
//!    └► elf                                                └► unpack ─► container (runc) ─► story, kubeadm, compose
//!                                                                  └► emulated (qemu)
//! ```
//! Each step is counted. A release build for each processor comes first: ten minutes when nothing is cached. `--twice`
//! builds once more from a copy of the tree in another place, and holds the digests against each other.

mod assemble;
pub(crate) mod build;
mod compose;
mod container;
mod elf;
mod emulated;
mod kubeadm;
mod layout;
mod network;
mod seccomp;
mod story;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use assemble::{Buildah, Content, Kind};
use build::{Arch, Source, Tools};
use layout::Layout;
use story::Unpacked;

use crate::report::{Report, Tried, expect, passed, skipped};
use crate::{Outcome, debian, peers, sh};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What puts images together and runs them.
const PROGRAMS: [(&str, &str); 6] = [
    ("buildah", "buildah"),
    ("runc", "runc"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("curl", "curl"),
    ("python3", "python3"),
];
const KINDS: [Kind; 2] = [Kind::Rusd, Kind::Etcd];

pub(crate) fn run(args: &[String]) -> Outcome {
    let arches = build::arches(args)?;
    debian::need(&PROGRAMS)?;
    peers::run(&[])?;
    let tools = Tools::install()?;
    let source = Source::here()?;
    let mut report = Report::new("image");
    let built = Built::new(&tools, &arches, &source, &sh::root(), &sh::target(), &mut report)?;
    let dir = sh::target().join("image");
    let first = built.images(&source, &dir.join("layouts"))?;
    report.step("the same image from the same program", same(&first, &built.images(&source, &dir.join("layouts-2"))?));
    if args.iter().any(|arg| arg == "--twice") {
        let tried = again(&tools, &arches, &source, &first);
        report.step("the same image from another place", tried);
    }
    for (kind, layout) in KINDS.iter().zip(&first) {
        let archive = dir.join(format!("{}-{}.oci.tar", kind.name(), assemble::VERSION));
        layout.archive(&source.epoch, &archive)?;
        println!("{}: {}@{}", archive.display(), kind.reference(), layout.digest()?);
    }
    for arch in &arches {
        report.step(&format!("size {}", arch.name), story::size(&first[0], *arch));
        if arch.is_ours() {
            run_ours(&first, *arch, &dir, &mut report)?;
        } else {
            let tried = Unpacked::new(&first[0], *arch, "rusd").and_then(|image| emulated(&image, *arch));
            report.step(&format!("serves {}", arch.name), tried);
        }
    }
    report.end(sh::allows_skips(args))
}

fn emulated(image: &Unpacked, arch: Arch) -> Tried {
    match debian::need(&[(&format!("qemu-{}-static", arch.rust), "qemu-user-static")]) {
        Ok(()) => emulated::serves(image, arch),
        Err(why) => skipped(why),
    }
}

/// What can be tried by running it: with the kernel's help, so as root.
fn run_ours(images: &[Layout], arch: Arch, dir: &Path, report: &mut Report) -> Result<()> {
    let archive = dir.join(format!("{}-{}.oci.tar", Kind::Rusd.name(), assemble::VERSION));
    report.step("buildah reads the archive", reads(&archive));
    if !debian::is_root() {
        report.step("containers", skipped("runc as root alone gives a container its own user and network"));
        return Ok(());
    }
    let image = Unpacked::new(&images[0], arch, "rusd")?;
    report.step("serves", story::serves(&image));
    report.step("starts", story::starts(&image));
    report.step("compose", compose::runs(&image));
    let (node, written) = kubeadm::written()?;
    report.step("kubeadm's manifest", written);
    report.step("kubeadm's pod", kubeadm::runs(&node, &Unpacked::new(&images[1], arch, "etcd")?));
    Ok(())
}

fn reads(archive: &Path) -> Tried {
    let said = Buildah::new().run_archive(archive, &["/usr/local/bin/etcd", "--version"])?;
    expect(said.starts_with("etcd Version: "), format!("its etcd says {said}"))?;
    passed("in a chroot its `etcd` says ".to_owned() + said.lines().next().unwrap_or_default())
}

fn same(first: &[Layout], second: &[Layout]) -> Tried {
    for (first, second) in first.iter().zip(second) {
        let (first, second) = (first.digest()?, second.digest()?);
        expect(first == second, format!("{first} and then {second}"))?;
    }
    passed(format!("{} twice", first[0].digest()?))
}

/// Programs, and what they are made of.
struct Built(Vec<(Arch, PathBuf, Vec<u8>)>);

impl Built {
    fn new(
        tools: &Tools,
        arches: &[Arch],
        source: &Source,
        root: &Path,
        target: &Path,
        report: &mut Report,
    ) -> Result<Self> {
        let mut built = Vec::new();
        for arch in arches {
            let program = build::program(tools, *arch, source, root, target)?;
            let materials = build::materials(tools, &program)?;
            let count = components(&materials)?;
            let tried = build::check(&program, *arch)
                .and_then(|bytes| passed(format!("static, {bytes} bytes, {count} components in its SBOM")));
            report.step(&format!("program {}", arch.name), tried);
            built.push((*arch, program, materials));
        }
        Ok(Self(built))
    }

    /// Both images, for all processors.
    fn images(&self, source: &Source, into: &Path) -> Result<Vec<Layout>> {
        let buildah = Buildah::new();
        let mut images = Vec::new();
        for kind in KINDS {
            let mut parts = Vec::new();
            for (arch, program, materials) in &self.0 {
                let part = into.join(format!("{}-{}", kind.name(), arch.name));
                fs::create_dir_all(into)?;
                buildah.commit(&Content { arch: *arch, program, materials }, kind, source, &part)?;
                parts.push((*arch, part));
            }
            let labels = assemble::labels(source);
            images.push(layout::join(&parts, &kind.reference(), &labels, &into.join(kind.name()))?);
        }
        buildah.clear()?;
        Ok(images)
    }
}

/// How many crates the SBOM names.
fn components(materials: &[u8]) -> Result<usize> {
    let list: serde_json::Value = serde_json::from_slice(materials)?;
    let count = list["components"].as_array().map_or(0, Vec::len);
    expect(count > 0, "the SBOM is empty: the program was built without cargo-auditable")?;
    Ok(count)
}

/// Builds all of it once more, from a copy of the tracked files elsewhere.
fn again(tools: &Tools, arches: &[Arch], source: &Source, first: &[Layout]) -> Tried {
    let dir = sh::target().join("image/elsewhere");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    let tree = dir.join("tree");
    fs::create_dir_all(&tree)?;
    let mut copy = Command::new("sh");
    copy.args(["-c", "git ls-files -z | tar --create --null --files-from=- | tar --extract --directory \"$0\""]);
    copy.arg(&tree).current_dir(sh::root());
    sh::output(copy)?;
    let mut inner = Report::new("image, again");
    let built = Built::new(tools, arches, source, &tree, &dir.join("target"), &mut inner)?;
    let images = built.images(source, &dir.join("layouts"));
    let tried = inner.end(false).and_then(|()| same(first, &images?));
    fs::remove_dir_all(dir)?;
    tried
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_sbom_is_an_error() {
        assert_eq!(components(br#"{"components": [{"name": "a"}, {"name": "b"}]}"#).expect("a list"), 2);
        assert!(components(br#"{"components": []}"#).is_err());
        assert!(components(b"{}").is_err());
    }
}
