//! How a running server is reached: etcdctl's flags, and its variables where a flag isn't given.

use std::path::PathBuf;
use std::time::Duration;

use super::given::Given;
use super::usage;
use crate::auth::Secret;
use crate::cli::CliError;
use crate::ops::config::parse_duration;

/// Where etcdctl looks unless told otherwise.
const LOCAL: &str = "http://127.0.0.1:2379";

/// The variables of a process.
pub(super) type Variables<'a> = &'a [(String, String)];

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
    /// `--command-timeout`.
    pub command_timeout: Duration,
}

/// Reads them; `endpoints`, where they are given, are asked whatever flags and variables say.
///
/// # Errors
/// What can't be read, or doesn't belong together.
pub(super) fn remote(
    given: &Given<'_>,
    endpoints: Option<&str>,
    variables: Variables<'_>,
) -> Result<RemoteFlags, CliError> {
    let text = |flag: &str| given.text(flag).or_else(|| variable(variables, flag));
    let (cert, key) = (text("cert"), text("key"));
    if cert.is_some() != key.is_some() {
        return Err(usage("--cert and --key belong together".into()));
    }
    let user = text("user").unwrap_or_default();
    let (user, password) = user.split_once(':').unwrap_or((user, text("password").unwrap_or_default()));
    // A scheme that nobody typed follows from the certificates, as in etcdctl.
    let is_tls = text("cacert").is_some() || cert.is_some();
    let endpoints = endpoints.or_else(|| text("endpoints")).unwrap_or(LOCAL);
    let endpoints: Vec<String> =
        endpoints.split(',').map(str::trim).filter(|url| !url.is_empty()).map(|text| url(text, is_tls)).collect();
    if endpoints.is_empty() {
        return Err(usage("no endpoint is named".into()));
    }
    let duration = |flag: &str, default: &str| {
        let text = text(flag).unwrap_or(default);
        parse_duration(text).map_err(|_| usage(format!("--{flag} is no duration: {text}")))
    };
    let trust_anyone = match given.text("insecure-skip-tls-verify") {
        Some(_) => given.is_on("insecure-skip-tls-verify")?,
        None => variable(variables, "insecure-skip-tls-verify") == Some("true"),
    };
    Ok(RemoteFlags {
        endpoints,
        user: user.to_owned(),
        password: Secret::new(password),
        cacert: text("cacert").map(PathBuf::from),
        cert: cert.map(PathBuf::from),
        key: key.map(PathBuf::from),
        trust_anyone,
        dial_timeout: duration("dial-timeout", "2s")?,
        command_timeout: duration("command-timeout", "5s")?,
    })
}

/// What `ETCDCTL_…` says in a flag's place; empty says nothing.
fn variable<'a>(variables: Variables<'a>, flag: &str) -> Option<&'a str> {
    let name = format!("ETCDCTL_{}", flag.to_ascii_uppercase().replace('-', "_"));
    let found = variables.iter().find(|(other, _)| *other == name);
    found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
}

fn url(text: &str, is_tls: bool) -> String {
    match text.contains("://") {
        true => text.to_owned(),
        false if is_tls => format!("https://{text}"),
        false => format!("http://{text}"),
    }
}
