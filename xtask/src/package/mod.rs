//! `cargo xtask package [--arch A] [--build-only] [--allow-skips]`: the Debian packages, looked into, installed and run.
//!
//! ```text
//! image::build (static programs) ─► deb (pages, completions, SBOM; cargo-deb) ─► rusd_VERSION_ARCH.deb ─► dpkg-deb, lintian
//!                                                       debootstrap ─► system ─► dpkg, systemd in a container, purge
//! ```
//! A Debian of its own is made once below the target directory, two minutes, and copied for each run.

mod boot;
mod deb;
mod system;

use crate::image::build::{self, Source, Tools};
use crate::report::{Report, skipped};
use crate::{Outcome, debian, sh};

type Error = Box<dyn std::error::Error>;

/// What packages are made and looked into with.
const PROGRAMS: [(&str, &str); 3] = [("dpkg-deb", "dpkg"), ("xz", "xz-utils"), ("python3", "python3")];

pub(crate) fn run(args: &[String]) -> Outcome {
    let arches = build::arches(args)?;
    if !arches.iter().any(|arch| arch.is_ours()) {
        return Err("pages are written by this processor's program: build its package, too (no --arch)".into());
    }
    debian::need(&PROGRAMS)?;
    let tools = Tools::install()?;
    build::install(&sh::target().join("tools"), deb::TOOL.0, deb::TOOL.1, &["--no-default-features"])?;
    let source = Source::here()?;
    let mut report = Report::new("package");
    let program = |arch| build::program(&tools, arch, &source, &sh::root(), &sh::target());
    let programs = arches.into_iter().map(|arch| Ok((arch, program(arch)?))).collect::<Result<Vec<_>, Error>>()?;
    // Pages and completions are the same for all; any that runs here writes them.
    let ours =
        programs.iter().find(|(arch, _)| arch.is_ours()).ok_or("pages are written by this processor's program")?;
    let ours = ours.1.clone();
    for (arch, program) in &programs {
        let materials = build::materials(&tools, program)?;
        let package = deb::build(*arch, program, &ours, &materials, &source)?;
        report.step(&format!("content {}", arch.name), deb::content(&package, *arch));
        report.step(&format!("twice {}", arch.name), deb::again(&package, *arch, &source));
        if !arch.is_ours() {
            continue;
        }
        report.step("lintian", deb::lintian(&package));
        if args.iter().any(|arg| arg == "--build-only") {
            continue;
        }
        match system::System::new() {
            Ok(system) => {
                report.step("install", system.install(&package));
                report.step("unit", system.unit());
                report.step("boot", boot::boots(&system));
                report.step("purge", system.purge());
            }
            Err(why) => report.step("install", skipped(why.to_string())),
        }
    }
    println!("packages: {}", sh::target().join("package").display());
    report.end(sh::allows_skips(args))
}
