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

/// Set in a process that was started again, so that none does so for ever.
const MARK: &str = "RUSD_STARTED_AGAIN";

/// Whether this process was started again already.
pub fn is_again() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Starts again; `once` if the next process is to know that it was, and not to do so, too. Comes back only with the
/// reason why that could not be done.
pub fn start_again(once: bool) -> io::Error {
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
    if once {
        command.env(MARK, OsStr::new("1"));
    } else {
        // From an earlier one, of which the next process mustn't be told.
        command.env_remove(MARK);
    }
    command.args(arguments).exec()
}
