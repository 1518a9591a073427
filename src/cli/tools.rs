//! The subcommands: `rusd snapshot …` and `rusd import …`, with the flags of etcd's tools where they have any.
//!
//! ```text
//! snapshot save FILE [--endpoints …]      snapshot status FILE [-w table]      snapshot verify FILE
//! snapshot restore FILE [flags]           import FILE|DIRECTORY [flags]        import --from URL [flags]
//! import take-over --data-dir DIR
//! ```
//! What makes a data directory takes the server's flags, too, so that a member is imported by the flags it is started
//! with. Of variables only etcdctl's for the user and the password are looked at.

use std::path::PathBuf;
use std::time::Duration;

use super::CliError;
use crate::auth::Secret;
use crate::ops::Config;
use crate::ops::config::flags::{self, Flag, Kind};
use crate::ops::config::parse_duration;

/// A subcommand with what it needs.
#[derive(Debug)]
pub enum Tool {
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
    },
    /// `import take-over`.
    TakeOver {
        /// The data directory of the process that follows.
        data_dir: PathBuf,
        /// Without the source, if that is gone: with what is known of it.
        without_source: bool,
    },
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

/// How to reach a server, by etcdctl's flags.
#[derive(Clone, Debug)]
pub struct RemoteFlags {
    /// `--endpoints`, or `--from`.
    pub endpoints: Vec<String>,
    /// `--user`, or `ETCDCTL_USER`: the part before the colon.
    pub user: String,
    /// The part after the colon, or `--password`, or `ETCDCTL_PASSWORD`, which isn't seen in a list of processes.
    pub password: Secret,
    /// `--cacert`.
    pub cacert: Option<PathBuf>,
    /// `--cert`.
    pub cert: Option<PathBuf>,
    /// `--key`.
    pub key: Option<PathBuf>,
    /// `--insecure-skip-tls-verify`.
    pub trust_anyone: bool,
    /// `--dial-timeout`.
    pub dial_timeout: Duration,
}

/// A flag of a subcommand's own.
struct Own {
    name: &'static str,
    takes_value: bool,
}

const fn own(name: &'static str, takes_value: bool) -> Own {
    Own { name, takes_value }
}

const REMOTE: [Own; 8] = [
    own("endpoints", true),
    own("user", true),
    own("password", true),
    own("cacert", true),
    own("cert", true),
    own("key", true),
    own("insecure-skip-tls-verify", false),
    own("dial-timeout", true),
];
const STATUS: [Own; 2] = [own("write-out", true), own("w", true)];
const VERIFY: [Own; 1] = [own("skip-hash-check", false)];
const IMPORT: [Own; 5] = [
    own("bump-revision", true),
    own("mark-compacted", false),
    own("skip-hash-check", false),
    own("source-wal-dir", true),
    own("initial-memory-map-size", true),
];
const FOLLOW: [Own; 3] = [own("from", true), own("serve", false), own("fence", false)];
const TAKE_OVER: [Own; 2] = [own("data-dir", true), own("without-source", false)];

const USAGE: &str = "\
rusd snapshot save FILE [--endpoints URL] [--user NAME] (ETCDCTL_PASSWORD, or --password P) [--cacert F] [--cert F] [--key F]
  rusd snapshot status FILE [-w simple|table|json|fields]
  rusd snapshot verify FILE [--skip-hash-check]
  rusd snapshot restore FILE [--data-dir D] [--name N] [--initial-cluster …] [--initial-cluster-token T]
       [--initial-advertise-peer-urls U] [--wal-dir D] [--bump-revision N --mark-compacted] [--skip-hash-check]
  rusd import FILE|DIRECTORY [the same flags] [--source-wal-dir D]
  rusd import --from URL [--serve] [--fence=false] [--user …] [--cacert …] [the server's flags]
  rusd import take-over --data-dir D [--without-source]";

/// Reads a subcommand; `None` if the arguments begin with none.
///
/// # Errors
/// [`CliError::Usage`] for what can't be read, [`CliError::Invalid`] for settings that contradict each other.
pub(super) fn parse(arguments: &[String], environment: &[(String, String)]) -> Result<Option<Tool>, CliError> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let tool = match &words[..] {
        ["snapshot", "save", rest @ ..] => save(Given::split(rest, &[&REMOTE])?, environment)?,
        ["snapshot", "status", rest @ ..] => {
            let given = Given::split(rest, &[&STATUS])?;
            let format = match given.text("write-out").or(given.text("w")).unwrap_or("simple") {
                "simple" => Format::Simple,
                "table" => Format::Table,
                "json" => Format::Json,
                "fields" => Format::Fields,
                other => return Err(usage(format!("unknown output format {other:?}"))),
            };
            Tool::Status { file: given.one()?.into(), format }
        }
        ["snapshot", "verify", rest @ ..] => {
            let given = Given::split(rest, &[&VERIFY])?;
            Tool::Verify { file: given.one()?.into(), skip_hash_check: given.is_on("skip-hash-check")? }
        }
        ["snapshot", "restore", rest @ ..] => import(Given::split(rest, &[&IMPORT])?)?,
        ["import", "take-over", rest @ ..] => {
            let given = Given::split(rest, &[&TAKE_OVER])?;
            let data_dir = given.text("data-dir").ok_or_else(|| usage("--data-dir is missing".into()))?.into();
            given.none()?;
            Tool::TakeOver { data_dir, without_source: given.is_on("without-source")? }
        }
        ["import", rest @ ..] => {
            let is_live = rest.iter().any(|word| word.trim_start_matches('-').split('=').next() == Some("from"));
            match is_live {
                true => follow(Given::split(rest, &[&REMOTE, &FOLLOW])?, environment)?,
                false => import(Given::split(rest, &[&IMPORT])?)?,
            }
        }
        ["snapshot", ..] => return Err(usage("a snapshot is saved, restored, verified, or told of".into())),
        _ => return Ok(None),
    };
    Ok(Some(tool))
}

fn usage(what: String) -> CliError {
    CliError::Usage { what, hint: USAGE.to_owned() }
}

fn save(given: Given<'_>, environment: &[(String, String)]) -> Result<Tool, CliError> {
    let endpoints = given.text("endpoints").unwrap_or("http://127.0.0.1:2379").to_owned();
    Ok(Tool::Save { file: given.one()?.into(), remote: remote(&given, &endpoints, environment)? })
}

fn import(given: Given<'_>) -> Result<Tool, CliError> {
    let bump = given.text("bump-revision").unwrap_or("0");
    Ok(Tool::Import {
        source: given.one()?.into(),
        wal: given.text("source-wal-dir").map(PathBuf::from),
        bump_revision: bump.parse().map_err(|_| usage(format!("--bump-revision is no number: {bump}")))?,
        mark_compacted: given.is_on("mark-compacted")?,
        skip_hash_check: given.is_on("skip-hash-check")?,
        config: given.config()?,
    })
}

fn follow(given: Given<'_>, environment: &[(String, String)]) -> Result<Tool, CliError> {
    given.none()?;
    let from = given.text("from").unwrap_or_default().to_owned();
    Ok(Tool::Follow {
        remote: remote(&given, &from, environment)?,
        serve: given.is_on("serve")?,
        fence: given.text("fence").is_none() || given.is_on("fence")?,
        config: given.config()?,
    })
}

fn remote(given: &Given<'_>, endpoints: &str, environment: &[(String, String)]) -> Result<RemoteFlags, CliError> {
    let variable = |name| environment.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
    let text = |flag, name| given.text(flag).or_else(|| variable(name)).unwrap_or_default();
    let user = text("user", "ETCDCTL_USER");
    let (user, password) = user.split_once(':').unwrap_or((user, text("password", "ETCDCTL_PASSWORD")));
    let path = |name| given.text(name).map(PathBuf::from);
    let (cert, key) = (path("cert"), path("key"));
    if cert.is_some() != key.is_some() {
        return Err(usage("--cert and --key belong together".into()));
    }
    let endpoints: Vec<String> = endpoints.split(',').map(str::trim).filter(|url| !url.is_empty()).map(url).collect();
    if endpoints.is_empty() {
        return Err(usage("no endpoint is named".into()));
    }
    let dial = given.text("dial-timeout").unwrap_or("2s");
    Ok(RemoteFlags {
        endpoints,
        user: user.to_owned(),
        password: Secret::new(password),
        cacert: path("cacert"),
        cert,
        key,
        trust_anyone: given.is_on("insecure-skip-tls-verify")?,
        dial_timeout: parse_duration(dial).map_err(|_| usage(format!("--dial-timeout is no duration: {dial}")))?,
    })
}

fn url(text: &str) -> String {
    if text.contains("://") { text.to_owned() } else { format!("http://{text}") }
}

/// Arguments taken apart.
#[derive(Default)]
struct Given<'a> {
    words: Vec<&'a str>,
    own: Vec<(&'static str, String)>,
    server: Vec<(&'static Flag, String)>,
}

impl<'a> Given<'a> {
    fn split(arguments: &[&'a str], known: &[&[Own]]) -> Result<Self, CliError> {
        let mut given = Self::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let Some(body) = argument.strip_prefix('-').filter(|body| !body.is_empty()) else {
                given.words.push(argument);
                continue;
            };
            let body = body.strip_prefix('-').unwrap_or(body);
            let (name, inline) = match body.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (body, None),
            };
            let own = known.iter().flat_map(|flags| flags.iter()).find(|own| own.name == name);
            let server = flags::find(name).filter(|_| own.is_none());
            let takes_value = match (own, server) {
                (Some(own), _) => own.takes_value,
                (_, Some(flag)) => flag.kind != Kind::Bool,
                (None, None) => return Err(usage(format!("unknown flag: {argument}"))),
            };
            let value = match inline {
                Some(value) => value,
                None if !takes_value => "true".to_owned(),
                None => {
                    let next = rest.next().ok_or_else(|| usage(format!("flag needs an argument: {argument}")))?;
                    (*next).to_owned()
                }
            };
            match (own, server) {
                (Some(own), _) => given.own.push((own.name, value)),
                (_, Some(flag)) => given.server.push((flag, value)),
                (None, None) => {}
            }
        }
        Ok(given)
    }

    /// The last value of a flag of its own.
    fn text(&self, name: &str) -> Option<&str> {
        self.own.iter().rev().find(|(own, _)| *own == name).map(|(_, value)| value.as_str())
    }

    fn is_on(&self, name: &str) -> Result<bool, CliError> {
        match self.text(name) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(other) => Err(usage(format!("--{name} is true or false, not {other:?}"))),
        }
    }

    /// The one word besides flags.
    fn one(&self) -> Result<&'a str, CliError> {
        match self.words[..] {
            [word] => Ok(word),
            [] => Err(usage("a file is missing".into())),
            [_, stray, ..] => Err(usage(format!("what is {stray:?}?"))),
        }
    }

    fn none(&self) -> Result<(), CliError> {
        match self.words.first() {
            None => Ok(()),
            Some(stray) => Err(usage(format!("what is {stray:?}?"))),
        }
    }

    /// The configuration that the server's flags make.
    fn config(&self) -> Result<Box<Config>, CliError> {
        let mut config = Config::default();
        config.member.data_dir.clear();
        config.clustering.initial_cluster = Default::default();
        for (flag, value) in &self.server {
            config.set(flag, value).map_err(|bad| CliError::Usage {
                what: format!("invalid value {value:?} for flag --{}", flag.name),
                hint: format!("expected {}", bad.expected),
            })?;
        }
        let config = config.finish().map_err(CliError::Invalid)?;
        // What is made here is made for a first start.
        config.check_first().map_err(CliError::Invalid)?;
        Ok(Box::new(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Option<Tool>, CliError> {
        parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>(), &[])
    }

    #[test]
    fn restores_as_etcdutl_does() {
        let text = "snapshot restore s.db --name m1 --data-dir=/d --initial-cluster m1=http://h:1,m2=http://h:2 \
            --initial-advertise-peer-urls http://h:1 --initial-cluster-token t --bump-revision 1000 --mark-compacted \
            --skip-hash-check=true --wal-dir /w --initial-memory-map-size 0";
        let Tool::Import { source, config, bump_revision, mark_compacted, skip_hash_check, wal } =
            parsed(text).expect("valid").expect("a subcommand")
        else {
            panic!("another one");
        };
        assert_eq!((source, wal), (PathBuf::from("s.db"), None));
        assert_eq!((bump_revision, mark_compacted, skip_hash_check), (1000, true, true));
        assert_eq!((config.member.name.as_str(), config.clustering.initial_cluster.len()), ("m1", 2));
        assert_eq!(config.member.wal_dir, Some(PathBuf::from("/w")));
        let Some(Tool::Import { config, .. }) = parsed("import s.db").expect("valid") else { panic!("another one") };
        assert_eq!(config.member.data_dir, PathBuf::from("default.etcd"));
    }

    #[test]
    fn follows_by_default_with_a_fence() {
        let follow = |text: &str| match parsed(text).expect("valid") {
            Some(Tool::Follow { remote, serve, fence, .. }) => (remote, serve, fence),
            other => panic!("{other:?}"),
        };
        let (remote, serve, fence) = follow("import --from=a:1,https://b:2 --user root:p:w --serve --data-dir d");
        assert_eq!(remote.endpoints, ["http://a:1", "https://b:2"]);
        assert_eq!((remote.user.as_str(), remote.password.reveal(), serve, fence), ("root", "p:w", true, true));
        assert!(!follow("import --from a:1 --fence=false").2);
    }

    #[test]
    fn a_password_may_come_by_a_variable() {
        let variables = [("ETCDCTL_USER", "ann"), ("ETCDCTL_PASSWORD", "p")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        let user = |text: &str| {
            let arguments: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
            match parse(&arguments, &variables).expect("valid") {
                Some(Tool::Save { remote, .. }) => {
                    assert!(!format!("{remote:?}").contains("\"p"), "{remote:?}");
                    (remote.user, remote.password.reveal().to_owned())
                }
                other => panic!("{other:?}"),
            }
        };
        let is = |user: &str, password: &str| (user.to_owned(), password.to_owned());
        assert_eq!(user("snapshot save f"), is("ann", "p"));
        assert_eq!(user("snapshot save f --user root"), is("root", "p"));
        assert_eq!(user("snapshot save f --user root --password pw"), is("root", "pw"));
        assert_eq!(user("snapshot save f --user root:pw"), is("root", "pw"));
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for text in [
            "snapshot",
            "snapshot status",
            "snapshot status a b",
            "snapshot status a -w yaml",
            "snapshot save a --cert c",
            "snapshot restore a --sink",
            "snapshot restore a --bump-revision many",
            "import",
            "import --from",
            "import --from=",
            "import take-over",
            "import --from a:1 b",
        ] {
            assert!(matches!(parsed(text), Err(CliError::Usage { .. })), "{text}");
        }
        assert!(parsed("--name a").expect("no subcommand").is_none());
        let unlike = "import f --initial-cluster a=http://h:1 --name b";
        assert!(matches!(parsed(unlike), Err(CliError::Invalid(_))));
    }
}
