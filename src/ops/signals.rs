//! SIGTERM and SIGINT: waited for, and raised again when the server has stopped, as etcd does, so
//! that the waiting parent sees which signal ended it.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// A signal that asks the process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
}

impl Signal {
    /// etcd's name of it in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Terminate => "terminated",
            Self::Interrupt => "interrupt",
        }
    }

    /// Ends the process as the signal does by default; as process 1, which has no default action,
    /// by exit code 0.
    pub fn raise(self) -> ! {
        if std::process::id() != 1 {
            let number = match self {
                Self::Terminate => signal_hook::consts::SIGTERM,
                Self::Interrupt => signal_hook::consts::SIGINT,
            };
            // Comes back only when the system refused; the exit below is then the next best thing.
            let _ = signal_hook::low_level::emulate_default_handler(number);
        }
        std::process::exit(0)
    }
}

/// Both signals, from the moment of the call on; the future ends with the first that comes.
///
/// # Errors
/// When the handlers can't be installed.
pub fn first() -> io::Result<impl Future<Output = Signal>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => Signal::Terminate,
            _ = interrupt.recv() => Signal::Interrupt,
        }
    })
}
