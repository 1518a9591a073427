//! SIGTERM and SIGINT: waited for, and raised again when the server has stopped, as etcd does, so
//! that the waiting parent sees which signal ended it.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::register_usize;
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
                Self::Terminate => SIGTERM,
                Self::Interrupt => SIGINT,
            };
            // Comes back only when the system refused; the exit below is then the next best thing.
            let _ = signal_hook::low_level::emulate_default_handler(number);
        }
        std::process::exit(0)
    }
}

const TERMINATED: usize = 1;
const INTERRUPTED: usize = 2;

/// Which signal came last since the first call of [`first`], 0 for none.
fn came() -> io::Result<&'static AtomicUsize> {
    static CAME: OnceLock<Arc<AtomicUsize>> = OnceLock::new();
    if let Some(came) = CAME.get() {
        return Ok(came);
    }
    let came = Arc::new(AtomicUsize::new(0));
    for (signal, number) in [(SIGTERM, TERMINATED), (SIGINT, INTERRUPTED)] {
        register_usize(signal, came.clone(), number)?;
    }
    Ok(CAME.get_or_init(|| came))
}

/// Both signals, from the first call in this process on; the future ends with the first that comes, at once if one has
/// come while nobody waited.
///
/// # Errors
/// When the handlers can't be installed.
pub fn first() -> io::Result<impl Future<Output = Signal>> {
    let came = came()?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        // Asked after the streams were made: what comes from here on is in them.
        match came.load(Ordering::SeqCst) {
            TERMINATED => return Signal::Terminate,
            INTERRUPTED => return Signal::Interrupt,
            _ => {}
        }
        tokio::select! {
            _ = terminate.recv() => Signal::Terminate,
            _ = interrupt.recv() => Signal::Interrupt,
        }
    })
}
