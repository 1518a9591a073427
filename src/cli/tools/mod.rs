//! The subcommands: `rusd status`, `rusd snapshot …`, `rusd import …`, with the flags of etcd's tools where they have any.
//!
//! ```text
//! arguments ─► table::find ─► Given::split ─► one function a subcommand ─► Tool, or a text to print
//! ```
//! What makes a data directory takes the server's flags, too, so that a member is imported by the flags it is started
//! with. Of variables only etcdctl's are looked at, and only for what a server is reached by.

mod given;
mod remote;
pub(super) mod table;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use self::given::Given;
pub use self::remote::RemoteFlags;
use self::remote::{Variables, remote};
use self::table::Sub;
use super::{Action, CliError, explain, help, shell};
use crate::ops::Config;
use crate::ops::config::parse_duration;

/// A subcommand with what it needs.
#[derive(Debug)]
pub enum Tool {
    /// `status`.
    Health {
        /// Whom to ask.
        remote: RemoteFlags,
        /// What to show.
        flags: StatusFlags,
    },
    /// `doctor`.
    Doctor {
        /// `--data-dir`.
        data_dir: PathBuf,
        /// `--wal-dir`.
        wal_dir: Option<PathBuf>,
        /// As JSON.
        json: bool,
    },
    /// `pod start`: a member of a StatefulSet.
    PodStart {
        /// How the others are reached, and as whom.
        remote: RemoteFlags,
        /// What the member is.
        config: Box<Config>,
        /// What the StatefulSet is.
        flags: PodFlags,
    },
    /// `pod shrink`.
    PodShrink {
        /// Whom to ask.
        remote: RemoteFlags,
        /// `--set`: the StatefulSet's name.
        set: String,
        /// `--replicas`: how many there will be.
        replicas: u32,
        /// `--replicas-before`, or `RUSD_REPLICAS_BEFORE`: how many there were.
        before: Option<u32>,
        /// `--timeout`.
        patience: Duration,
    },
    /// `pod users`.
    PodUsers {
        /// Whom to ask; its password is to be root's.
        remote: RemoteFlags,
        /// `--timeout`.
        patience: Duration,
    },
    /// `pod backup`.
    PodBackup {
        /// Of whom.
        remote: RemoteFlags,
        /// `--dir`.
        dir: PathBuf,
        /// `--keep`.
        keep: usize,
        /// `--set`: whose they are, in their names; others' are left alone.
        set: Option<String>,
    },
    /// `snapshot save`.
    Save {
        /// Where to.
        file: PathBuf,
        /// Of whom.
        remote: RemoteFlags,
    },
    /// `snapshot status`.
    Status {
        /// Of which file.
        file: PathBuf,
        /// How to tell it.
        format: Format,
    },
    /// `snapshot verify`.
    Verify {
        /// Which file.
        file: PathBuf,
        /// A file without a checksum is fine.
        skip_hash_check: bool,
    },
    /// `snapshot restore`, or `import` of something on this disk.
    Import {
        /// A snapshot file, or a directory of etcd's.
        source: PathBuf,
        /// Where a directory's log is, if not inside.
        wal: Option<PathBuf>,
        /// What to make, by the flags that a member is started with.
        config: Box<Config>,
        /// `--bump-revision`.
        bump_revision: u64,
        /// `--mark-compacted`.
        mark_compacted: bool,
        /// `--skip-hash-check`.
        skip_hash_check: bool,
    },
    /// `import --from`: follow a server until told to take over.
    Follow {
        /// Whom.
        remote: RemoteFlags,
        /// What to make, and to start with `serve`.
        config: Box<Config>,
        /// `--serve`: go on as the server afterwards.
        serve: bool,
        /// `--fence`: the source refuses writes from the take-over on.
        fence: bool,
        /// `--skip-hash-check`: its HashKV isn't compared.
        skip_hash_check: bool,
    },
    /// `import take-over`.
    TakeOver {
        /// The data directory of the process that follows.
        data_dir: PathBuf,
        /// Without the source, if that is gone: with what is known of it.
        without_source: bool,
    },
}

/// How `pod start` makes a member of a pod.
#[derive(Clone, Debug)]
pub struct PodFlags {
    /// `--replicas`: how many pods the StatefulSet has.
    pub replicas: u32,
    /// `--rejoin-after`: how long one that was removed waits for its end.
    pub rejoin_after: Duration,
    /// `--replicas-largest`, or `RUSD_REPLICAS_LARGEST`: the most pods that the set ever had, 0 if that isn't known.
    pub largest: u32,
}

/// What `status` shows, and how.
#[derive(Clone, Debug)]
pub struct StatusFlags {
    /// `--cluster`.
    pub cluster: bool,
    /// `--members`.
    pub members_min: usize,
    /// `--watch` with `--interval`.
    pub every: Option<Duration>,
    /// `--exit-code`.
    pub exit_code: bool,
    /// As JSON.
    pub json: bool,
}

/// How `snapshot status` tells what it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One line, as etcd's tools do it unless asked.
    Simple,
    /// A table.
    Table,
    /// JSON.
    Json,
    /// A line for each field.
    Fields,
}

/// Reads a subcommand; `None` if the arguments begin with none.
///
/// # Errors
/// [`CliError::Usage`] for what can't be read, [`CliError::Invalid`] for settings that contradict each other.
pub(super) fn parse(arguments: &[String], variables: Variables<'_>) -> Result<Option<Action>, CliError> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let Some(sub) = table::find(&words) else {
        return match words.first() {
            Some(&"snapshot") => Err(CliError::Usage {
                what: "a snapshot is saved, restored, verified, or told of".into(),
                hint: "rusd snapshot save|restore|verify|status FILE".into(),
            }),
            _ => Ok(None),
        };
    };
    let rest = &words[sub.words.len()..];
    if rest.iter().any(|word| matches!(*word, "--help" | "-help" | "-h")) {
        return Ok(Some(Action::Print(help::of(sub))));
    }
    let read = Given::split(rest, sub).and_then(|given| action(sub, &given, variables));
    let read = read.map_err(|error| match error {
        CliError::Usage { what, hint } if hint.is_empty() => CliError::Usage { what, hint: help::usage(sub) },
        other => other,
    });
    read.map(Some)
}

/// A refusal whose hint is how the subcommand is used.
fn usage(what: String) -> CliError {
    CliError::Usage { what, hint: String::new() }
}

fn action(sub: &Sub, given: &Given<'_>, variables: Variables<'_>) -> Result<Action, CliError> {
    let tool = match sub.words {
        ["status"] => status(given, variables)?,
        ["doctor"] => {
            given.none()?;
            Tool::Doctor {
                data_dir: given.text("data-dir").unwrap_or("default.etcd").into(),
                wal_dir: given.text("wal-dir").map(PathBuf::from),
                json: is_json(given)?,
            }
        }
        ["pod", command] => pod(command, given, variables)?,
        ["explain"] => return explain::text(&given.words().join(" ")).map(Action::Print),
        ["completions"] => return shell::completions(given.one()?).map(Action::Print),
        ["man"] => return shell::page(given.words()).map(Action::Print),
        ["snapshot", "save"] => Tool::Save { file: given.one()?.into(), remote: remote(given, None, variables)? },
        ["snapshot", "status"] => {
            let format = match written(given) {
                "simple" => Format::Simple,
                "table" => Format::Table,
                "json" => Format::Json,
                "fields" => Format::Fields,
                other => return Err(unknown_format(other)),
            };
            Tool::Status { file: given.one()?.into(), format }
        }
        ["snapshot", "verify"] => {
            Tool::Verify { file: given.one()?.into(), skip_hash_check: given.is_on("skip-hash-check")? }
        }
        ["import", "take-over"] => {
            let data_dir = given.text("data-dir").ok_or_else(|| usage("--data-dir is missing".into()))?.into();
            given.none()?;
            Tool::TakeOver { data_dir, without_source: given.is_on("without-source")? }
        }
        ["import"] if given.text("from").is_some() => follow(given, variables)?,
        _ => import(given)?,
    };
    Ok(Action::Tool(Box::new(tool)))
}

fn written<'a>(given: &'a Given<'_>) -> &'a str {
    given.text("write-out").or(given.text("w")).unwrap_or("simple")
}

fn unknown_format(format: &str) -> CliError {
    usage(format!("unknown output format {format:?}"))
}

fn is_json(given: &Given<'_>) -> Result<bool, CliError> {
    match written(given) {
        "simple" => Ok(false),
        "json" => Ok(true),
        other => Err(unknown_format(other)),
    }
}

fn status(given: &Given<'_>, variables: Variables<'_>) -> Result<Tool, CliError> {
    given.none()?;
    let interval = given.text("interval").unwrap_or("2s");
    let interval = parse_duration(interval).ok().filter(|interval| *interval >= Duration::from_millis(100));
    let interval = interval.ok_or_else(|| usage("--interval is a duration of 100ms or more".into()))?;
    let exit_code = given.is_on("exit-code")?;
    let every = given.is_on("watch")?.then_some(interval);
    if exit_code && every.is_some() {
        return Err(usage("--watch doesn't end, so it has no --exit-code".into()));
    }
    let flags = StatusFlags {
        cluster: given.is_on("cluster")?,
        members_min: given.number("members", 0)?,
        every,
        exit_code,
        json: is_json(given)?,
    };
    Ok(Tool::Health { remote: remote(given, None, variables)?, flags })
}

/// More pods than this don't make a better cluster.
const REPLICAS_MAX: u32 = 9;

fn pod(command: &str, given: &Given<'_>, variables: Variables<'_>) -> Result<Tool, CliError> {
    given.none()?;
    let remote = remote(given, None, variables)?;
    let replicas = || match given.number("replicas", 0)? {
        replicas @ 1..=REPLICAS_MAX => Ok(replicas),
        _ => Err(usage(format!("--replicas is a number from 1 to {REPLICAS_MAX}"))),
    };
    let needed = |name: &str| given.text(name).ok_or_else(|| usage(format!("--{name} is missing")));
    Ok(match command {
        "start" => Tool::PodStart {
            remote,
            flags: PodFlags {
                replicas: replicas()?,
                rejoin_after: given.duration("rejoin-after", "5m")?,
                largest: number_or(given, variables, "replicas-largest", "RUSD_REPLICAS_LARGEST")?.unwrap_or(0),
            },
            config: given.config()?,
        },
        "shrink" => Tool::PodShrink {
            remote,
            set: needed("set")?.to_owned(),
            replicas: replicas()?,
            before: number_or(given, variables, "replicas-before", "RUSD_REPLICAS_BEFORE")?,
            patience: given.duration("timeout", "5m")?,
        },
        "users" => Tool::PodUsers { remote, patience: given.duration("timeout", "5m")? },
        _ => Tool::PodBackup {
            remote,
            dir: needed("dir")?.into(),
            keep: given.number("keep", 7)?,
            set: set_name(given)?,
        },
    })
}

/// A name that is a part of files' names.
fn set_name(given: &Given<'_>) -> Result<Option<String>, CliError> {
    let is_name =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
    match given.text("set") {
        Some(text) if !is_name(text) => Err(usage(format!("--set is the name of a StatefulSet, and not {text:?}"))),
        text => Ok(text.map(str::to_owned)),
    }
}

/// A number that a flag gives, or the environment.
fn number_or(given: &Given<'_>, variables: Variables<'_>, flag: &str, name: &str) -> Result<Option<u32>, CliError> {
    let variable = || variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let Some(text) = given.text(flag).or_else(variable).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| usage(format!("--{flag} ({name}) is no number: {text}")))
}

fn import(given: &Given<'_>) -> Result<Tool, CliError> {
    Ok(Tool::Import {
        source: given.one()?.into(),
        wal: given.text("source-wal-dir").map(PathBuf::from),
        bump_revision: given.number("bump-revision", 0)?,
        mark_compacted: given.is_on("mark-compacted")?,
        skip_hash_check: given.is_on("skip-hash-check")?,
        config: given.config()?,
    })
}

fn follow(given: &Given<'_>, variables: Variables<'_>) -> Result<Tool, CliError> {
    given.none()?;
    let from = given.text("from").unwrap_or_default();
    Ok(Tool::Follow {
        remote: remote(given, Some(from), variables)?,
        serve: given.is_on("serve")?,
        fence: given.text("fence").is_none() || given.is_on("fence")?,
        skip_hash_check: given.is_on("skip-hash-check")?,
        config: given.config()?,
    })
}
