//! `cargo xtask kube`: a real kube-apiserver, controller-manager and kubectl on rusd.
//!
//! ```text
//! build (Go modules, cached) ─► plane (rusd, apiserver, controller-manager on loopback) ─► story (steps, each checked)
//! ```
//!
//! The binaries take about six minutes when nothing is cached; the story about one. `--rusd PATH`
//! takes another server binary than this tree's release build.

mod build;
mod chart;
mod plane;
mod story;

use std::time::Instant;

use crate::Outcome;

/// Builds what is missing, starts the control plane, tells the story, ends what it started.
pub(crate) fn run(args: &[String]) -> Outcome {
    let programs = build::programs()?;
    let rusd = match crate::sh::option(args, "rusd")? {
        Some(path) => path.into(),
        None => build::rusd()?,
    };
    if args.iter().any(|arg| arg == "--build-only") {
        return Ok(());
    }
    let begun = Instant::now();
    let backend = crate::sh::option(args, "backend")?.unwrap_or_else(|| "sled".to_owned());
    let mut plane = plane::Plane::start(&programs, &rusd, &backend)?;
    let told = story::tell(&mut plane);
    if told.is_err() {
        plane.show_logs();
    }
    let steps = told?;
    println!("kube: {steps} steps on rusd --backend={backend} in {:.1} s", begun.elapsed().as_secs_f64());
    println!("{steps} passed, 0 failed");
    Ok(())
}
