//! Logs: JSON lines with etcd's keys for programs, plain lines for a person at a terminal.
//!
//! ```text
//! tracing event ─► level by target ─► Style: json::line | plain::line ─► outputs
//! ```
//!
//! Tools wait for [`READY`] and read every line as JSON, so nothing else writes to standard error
//! once this is up, but for the heads of requests that `GODEBUG` asks for (see [`tell_head`]).

mod fields;
mod heads;
mod json;
mod outputs;
mod plain;
mod sparingly;

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use super::config::{Config, LogFormat, LogLevel, LogOutput};
use outputs::Outputs;

pub use heads::tell_head;
pub use sparingly::Sparingly;

/// What tools wait for.
pub const READY: &str = "ready to serve client requests";
/// Beside [`READY`], with `address` and `traffic`, where there is no TLS.
pub const SERVING_INSECURELY: &str = "serving client traffic insecurely; this is strongly discouraged!";
/// And where there is.
pub const SERVING_SECURELY: &str = "serving client traffic securely";
/// Where other members are served from now on, with `address`: once for each listener.
pub const SERVING_PEERS: &str = "serving peer traffic";
/// When a signal ends the process.
pub const SIGNAL: &str = "received signal; shutting down";
/// When the member has told the cluster its name and URLs.
pub const PUBLISHED: &str = "published local member to cluster through raft";
/// After a compaction has removed what it could.
pub const COMPACTED: &str = "finished scheduled compaction";
/// When a call took longer than `--warning-unary-request-duration`.
pub const SLOW_REQUEST: &str = "request stats";
/// When an apply took longer than `--warning-apply-duration`.
pub const SLOW_APPLY: &str = "apply request took too long";

/// Who reads the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A program: every line a JSON object.
    Json,
    /// A person: a banner, warnings, errors.
    Plain,
}

/// Why logging can't start.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// A file of `--log-outputs`.
    #[error("--log-outputs: can't open {path}: {source}. Type a path that can be written, or stderr")]
    Open {
        /// The file.
        path: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A second start in one process.
    #[error("logging is up already")]
    Twice,
}

/// Starts logging for the whole process.
///
/// # Errors
/// When an output can't be opened.
pub fn init(config: &Config) -> Result<Style, LoggingError> {
    let style = style(config, std::io::stderr().is_terminal(), std::env::var("TERM").ok().as_deref());
    let outputs = Outputs::open(&config.logging.outputs)?;
    let layer = Lines { style, outputs }.with_filter(levels(config, style));
    tracing_subscriber::registry().with(layer).try_init().map_err(|_| LoggingError::Twice)?;
    Ok(style)
}

/// JSON unless a person looks: standard error is a terminal with a `TERM`, and no format was given.
/// (etcd's own tests start the server on a terminal without `TERM` and read JSON from it.)
fn style(config: &Config, terminal: bool, term: Option<&str>) -> Style {
    let person = terminal
        && term.is_some_and(|term| !term.is_empty() && term != "dumb")
        && config.logging.outputs == [LogOutput::Stderr];
    match config.logging.format {
        LogFormat::Console => Style::Plain,
        LogFormat::Json if person && !config.is_given("log-format") => Style::Plain,
        LogFormat::Json => Style::Json,
    }
}

/// A person gets warnings unless more was asked for; libraries speak of their failures only.
fn levels(config: &Config, style: Style) -> Targets {
    let own = match config.logging.level {
        LogLevel::Info if style == Style::Plain && !config.is_given("log-level") => LevelFilter::WARN,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    // openraft warns of what is ordinary in an election; who led when, `consensus::leader_lines` says.
    let raft = if own >= LevelFilter::DEBUG { LevelFilter::WARN } else { LevelFilter::ERROR };
    Targets::new()
        .with_default(own.min(LevelFilter::WARN))
        .with_target("openraft", own.min(raft))
        .with_target("rusd", own)
}

/// Writes each event as one line.
struct Lines {
    style: Style,
    outputs: Outputs,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let line = match self.style {
            Style::Json => json::line(event),
            Style::Plain => plain::line(event),
        };
        self.outputs.write(line.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::config::flags;

    fn with(pairs: &[(&str, &str)]) -> Config {
        let mut config = Config::default();
        for (name, value) in pairs {
            config.set(flags::find(name).expect("known"), value).expect("well-formed");
        }
        config
    }

    #[test]
    fn only_a_person_at_a_terminal_gets_plain_lines() {
        let of = |pairs: &[(&str, &str)], terminal, term| style(&with(pairs), terminal, term);
        assert_eq!(of(&[], true, Some("xterm")), Style::Plain);
        assert_eq!(of(&[], false, Some("xterm")), Style::Json);
        assert_eq!(of(&[], true, None), Style::Json);
        assert_eq!(of(&[], true, Some("dumb")), Style::Json);
        assert_eq!(of(&[("log-format", "json")], true, Some("xterm")), Style::Json);
        assert_eq!(of(&[("log-format", "console")], false, None), Style::Plain);
        assert_eq!(of(&[("log-outputs", "stdout")], true, Some("xterm")), Style::Json);
    }

    #[test]
    fn libraries_do_not_chatter() {
        use tracing::Level;
        let levels = levels(&with(&[("log-level", "debug")]), Style::Json);
        assert!(levels.would_enable("rusd::server", &Level::DEBUG));
        assert!(!levels.would_enable("h2::codec", &Level::INFO));
        assert!(levels.would_enable("h2::codec", &Level::WARN));
        let quiet = super::levels(&with(&[("log-level", "error")]), Style::Json);
        assert!(!quiet.would_enable("h2", &Level::WARN));
        let usual = super::levels(&with(&[]), Style::Json);
        assert!(!usual.would_enable("openraft", &Level::WARN));
        assert!(usual.would_enable("openraft", &Level::ERROR));
        let person = super::levels(&with(&[]), Style::Plain);
        assert!(!person.would_enable("rusd", &Level::INFO) && person.would_enable("rusd", &Level::WARN));
    }
}
