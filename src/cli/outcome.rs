//! What a command line can come to: a run, a text, a refusal; and what to warn of on the way.

use std::path::PathBuf;

use super::Tool;
use super::tools::table;
use crate::ops::Config;
use crate::ops::config::ConfigError;

/// What to do.
#[derive(Debug)]
pub enum Action {
    /// Start the server.
    Run(Box<Run>),
    /// Run a subcommand and exit.
    Tool(Box<Tool>),
    /// Print and exit with 0.
    Print(String),
}

/// A server to start.
#[derive(Debug)]
pub struct Run {
    /// Checked.
    pub config: Config,
    /// To log once logging is up.
    pub warnings: Vec<Warning>,
}

/// What may have been meant by a word that is no flag.
fn instead_of(word: &str) -> String {
    match table::nearest(word) {
        Some(known) => format!("did you mean rusd {known}?"),
        None => "flags start with a dash: rusd --help lists them, and the subcommands".to_owned(),
    }
}

/// Why not.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// What was typed can't be read; etcd exits with 2.
    #[error("{what}\n  {hint}")]
    Usage {
        /// What is wrong.
        what: String,
        /// What to type instead.
        hint: String,
    },
    /// What was said can't be used; etcd exits with 1.
    #[error("{0}")]
    Invalid(ConfigError),
    /// A word that is no flag; etcd exits with 1.
    #[error("{0:?} is not a valid flag\n  {hint}", hint = instead_of(.0))]
    Stray(String),
    /// A variable's value can't be read; etcd exits with 1.
    #[error("invalid value {value:?} for {variable}: expected {expected}")]
    Variable {
        /// `ETCD_…`.
        variable: String,
        /// What it held.
        value: String,
        /// What would have been right.
        expected: String,
    },
    /// A variable whose flag was given too; etcd exits with 1.
    #[error(
        "{variable}: conflicting environment variable is shadowed by corresponding command-line flag \
         --{flag}\n  either unset the variable or leave the flag out"
    )]
    Shadowed {
        /// `ETCD_…`.
        variable: String,
        /// Its flag.
        flag: &'static str,
    },
    /// The config file can't be read; etcd exits with 1.
    #[error("config file {}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A subcommand of etcd that rusd doesn't have.
    #[error("the subcommand {0:?} is not offered\n  point clients at the members, or run etcd's own proxy before them")]
    Subcommand(String),
}

impl CliError {
    /// The process's exit code, as etcd has it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage { .. } => 2,
            _ => 1,
        }
    }
}

/// What is odd but no reason to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// `ETCD_…` that stands for no flag.
    UnknownVariable {
        /// Its name; the value may be a secret.
        variable: String,
    },
    /// Flags beside a config file.
    FlagsIgnored {
        /// The file.
        path: PathBuf,
    },
    /// A key of the config file that stands for no flag.
    UnknownKey {
        /// The key.
        key: String,
    },
    /// A flag that changes nothing.
    NoEffect {
        /// Its name.
        flag: &'static str,
        /// Why, and what to do instead.
        why: &'static str,
    },
    /// A feature gate that was asked to be other than it is.
    Gate {
        /// Its name.
        gate: &'static str,
        /// What it is, always.
        open: bool,
    },
    /// A flag that is going away.
    Deprecated {
        /// What to say.
        text: &'static str,
    },
}

impl Warning {
    /// Writes it to the log.
    pub fn log(&self) {
        match self {
            Self::UnknownVariable { variable } => {
                tracing::warn!("environment-variable" = variable, "unrecognized environment variable");
            }
            Self::FlagsIgnored { path } => tracing::warn!(
                path = %path.display(),
                "ignored command line flags because a config file was given"
            ),
            Self::UnknownKey { key } => {
                tracing::warn!(key, "ignored an unknown key of the config file");
            }
            Self::NoEffect { flag, why } => tracing::warn!(flag, "flag without effect: {why}"),
            Self::Gate { gate, open } => {
                tracing::warn!(gate, open, "feature gate without effect: it is always so here")
            }
            Self::Deprecated { text } => tracing::warn!("{text}"),
        }
    }
}
