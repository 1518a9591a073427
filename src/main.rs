//! The process: arguments in, exit code out. Everything else is in the library.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rusd::cli::version::{ETCD_VERSION, RUSD_VERSION};
use rusd::cli::{self, Action, Run, Tool};
use rusd::ops::restart::{self, Reason};
use rusd::ops::{logging, startup};
use rusd::server::tools::{self, Done, Serve};
use rusd::server::{self, ServerError, Start, Stopped, pod};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bad configuration and a start that failed, as etcd has it.
const FAILED: u8 = 1;
/// A process that was started again as its store was stuck does so once more only after so long: what it met is the disk's
/// matter, and whoever started it is to see that.
const STUCK_AGAIN_AFTER: Duration = Duration::from_secs(600);

fn main() -> ExitCode {
    #[expect(clippy::disallowed_methods, reason = "the process's first act; no Env is there yet")]
    let begun = Instant::now();
    // The allocator asks for huge pages, which hold memory that nothing uses: 50 MiB of an empty
    // server, for no CPU saved that could be measured. Where the kernel refuses, it stays so.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let arguments = std::env::args_os().skip(1).map(|text| text.to_string_lossy().into_owned());
    let variables = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
    match cli::parse(arguments, variables) {
        Ok(Action::Print(text)) => {
            // `rusd --help | head` closes the pipe early; that is no failure.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Ok(Action::Run(run)) => start(*run, begun),
        Ok(Action::Tool(tool)) => use_tool(*tool, begun),
        Err(error) => {
            eprintln!("rusd: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn use_tool(tool: Tool, begun: Instant) -> ExitCode {
    match tools::run(tool) {
        Ok(Done::Said(text)) => {
            // As above.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Ok(Done::Found { text, is_fine }) => {
            // As above.
            let _ = std::io::stdout().write_all(text.as_bytes());
            if is_fine { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
        }
        Ok(Done::Signalled(signal)) => signal.raise(),
        Ok(Done::Serve(serving)) => serve(serving, begun),
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn start(run: Run, begun: Instant) -> ExitCode {
    let style = match logging::init(&run.config) {
        Ok(style) => style,
        Err(error) => {
            eprintln!("rusd: {error}");
            return ExitCode::from(FAILED);
        }
    };
    for warning in &run.warnings {
        warning.log();
    }
    serve(Serve { config: Box::new(run.config), style, joined: None, rejoin_after: None }, begun)
}

fn serve(serving: Serve, begun: Instant) -> ExitCode {
    let Serve { config, style, joined, rejoin_after } = serving;
    startup::keep_private();
    startup::allow_files();
    startup::log(&config, ETCD_VERSION, RUSD_VERSION);
    // Only a pod has anything to do afterwards.
    let pod = rejoin_after.map(|after| (config.clone(), after));
    match (server::run(Start { config: *config, style, begun, joined }), pod) {
        (Ok(Stopped::Removed { before }), Some((config, after))) => {
            // A pod that was started since then is wanted.
            match pod::removed(&config, if before { Duration::ZERO } else { after }) {
                Ok(Some(signal)) => signal.raise(),
                Ok(None) => ExitCode::SUCCESS,
                Err(error) => {
                    tracing::error!("{error}");
                    ExitCode::from(FAILED)
                }
            }
        }
        (stopped, _) => ended(stopped, begun),
    }
}

fn ended(stopped: Result<Stopped, ServerError>, begun: Instant) -> ExitCode {
    match stopped {
        Ok(Stopped::Signal(signal)) => signal.raise(),
        Ok(Stopped::Removed { .. }) => ExitCode::SUCCESS,
        Ok(Stopped::SetAside) => {
            if restart::is_again(Reason::SetAside) {
                tracing::error!("the store is damaged again right after it was set aside: check the disk");
            } else {
                tracing::warn!("starting again to rebuild the store");
                let error = restart::start_again(Reason::SetAside);
                tracing::error!(%error, "could not start again by itself: start it once more");
            }
            ExitCode::from(FAILED)
        }
        Ok(Stopped::Stuck) => {
            if restart::is_again(Reason::Stuck) && begun.elapsed() < STUCK_AGAIN_AFTER {
                tracing::error!(
                    "the store failed again soon after a start for the same reason: check the disk, then start again"
                );
            } else {
                tracing::warn!("starting again to open the store");
                let error = restart::start_again(Reason::Stuck);
                tracing::error!(%error, "could not start again by itself: start it once more");
            }
            ExitCode::from(FAILED)
        }
        Ok(Stopped::Healing) => {
            let error = restart::start_again(Reason::Healing);
            tracing::error!(%error, "could not start again by itself: start it once more");
            ExitCode::from(FAILED)
        }
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(FAILED)
        }
    }
}
