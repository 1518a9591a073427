//! Starting this process again in its place: the same program, arguments and process id.
//!
//! An engine that hangs can't be stopped from outside: its threads stay, and with them what they
//! hold. Nothing of that outlives an `exec`, and whoever started the process doesn't notice. All
//! files and sockets are opened to be closed by it, the data directory's lock among them.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

/// Says in a process that was started again why it was, so that none does so for ever.
const MARK: &str = "RUSD_STARTED_AGAIN";

/// Why a process starts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A damaged store was set aside.
    SetAside,
    /// The engine can't be opened again in this process.
    Stuck,
    /// The state that heals this member has come. The tries are counted elsewhere: the next process isn't told.
    Healing,
}

impl Reason {
    const fn mark(self) -> Option<&'static str> {
        match self {
            Self::SetAside => Some("1"),
            Self::Stuck => Some("stuck"),
            Self::Healing => None,
        }
    }
}

/// Whether this process was started again for that reason already. A store isn't set aside right after any start of that
/// kind: a disk by which an engine is damaged and stuck by turns would fill with such stores.
pub fn is_again(reason: Reason) -> bool {
    let mark = std::env::var_os(MARK);
    match reason {
        Reason::SetAside => mark.is_some(),
        Reason::Stuck | Reason::Healing => mark.is_some() && mark.as_deref() == reason.mark().map(OsStr::new),
    }
}

/// Starts again. Comes back only with the reason why that could not be done.
pub fn start_again(reason: Reason) -> io::Error {
    let mut arguments = std::env::args_os();
    let name = arguments.next();
    // The link works even if the file was replaced meanwhile, but the process is then named `exe`.
    let program = match std::env::current_exe() {
        Ok(path) if path.exists() => path,
        _ => PathBuf::from("/proc/self/exe"),
    };
    let mut command = Command::new(program);
    if let Some(name) = &name {
        command.arg0(name);
    }
    match reason.mark() {
        Some(mark) => command.env(MARK, mark),
        // From an earlier one, of which the next process mustn't be told.
        None => command.env_remove(MARK),
    };
    command.args(arguments).exec()
}
