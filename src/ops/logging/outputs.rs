//! Where lines go. A line that can't be written is lost: the server goes on.
#![expect(
    clippy::disallowed_types,
    reason = "log lines are not data: nothing depends on them, and the file must append for log rotation"
)]

use std::fs::{File, OpenOptions};
use std::io::Write as _;

use super::LoggingError;
use crate::ops::config::LogOutput;

/// One of them.
enum Output {
    Stderr,
    Stdout,
    File(File),
}

/// All of them.
pub(super) struct Outputs(Vec<Output>);

impl Outputs {
    /// Opens the files, to append: `copytruncate` of logrotate works.
    pub(super) fn open(outputs: &[LogOutput]) -> Result<Self, LoggingError> {
        let open = |output: &LogOutput| match output {
            LogOutput::Stderr => Ok(Output::Stderr),
            LogOutput::Stdout => Ok(Output::Stdout),
            LogOutput::File(path) => OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .map(Output::File)
                .map_err(|source| LoggingError::Open { path: path.display().to_string(), source }),
        };
        Ok(Self(outputs.iter().map(open).collect::<Result<_, _>>()?))
    }

    /// Writes one line to each, in one call, so that lines of several threads don't mix.
    pub(super) fn write(&self, line: &[u8]) {
        for output in &self.0 {
            let _ = match output {
                Output::Stderr => std::io::stderr().write_all(line),
                Output::Stdout => std::io::stdout().write_all(line),
                Output::File(file) => (&*file).write_all(line),
            };
        }
    }
}
