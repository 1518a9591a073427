//! `rusd-sim --seed S [--members N] [--changes 0|1] [--leader deaf|mute|still] [--seconds T]
//! [--plant BUG] [--verbose]`: one seed in one process.
//!
//! It prints one line with the seed and a checksum of all that happened, and fails if a promise was broken.
//! Several seeds in one process would influence each other; `cargo xtask simulate` starts the processes, and
//! sets the flags without which neither tokio nor openraft can be repeated.

#[cfg(all(rusd_sim, not(tokio_unstable)))]
compile_error!("the simulation needs `--cfg tokio_unstable` beside `--cfg rusd_sim`: use `cargo xtask simulate`");

#[cfg(rusd_sim)]
mod arguments;
#[cfg(rusd_sim)]
mod world;

#[cfg(rusd_sim)]
fn main() -> std::process::ExitCode {
    arguments::main()
}

#[cfg(not(rusd_sim))]
fn main() -> std::process::ExitCode {
    eprintln!("built without the simulator: use `cargo xtask simulate`");
    std::process::ExitCode::FAILURE
}
