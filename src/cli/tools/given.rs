//! A subcommand's arguments taken apart: words, flags of its own, flags of the server.

use std::time::Duration;

use super::table::Sub;
use super::usage;
use crate::cli::CliError;
use crate::ops::Config;
use crate::ops::config::flags::{self, Flag, Kind};
use crate::ops::config::parse_duration;

/// Arguments taken apart.
#[derive(Default)]
pub(super) struct Given<'a> {
    words: Vec<&'a str>,
    own: Vec<(&'static str, String)>,
    server: Vec<(&'static Flag, String)>,
}

impl<'a> Given<'a> {
    /// Takes them apart by the flags that `sub` has.
    pub(super) fn split(arguments: &[&'a str], sub: &Sub) -> Result<Self, CliError> {
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
            let own = sub.flags().find(|own| own.name == name);
            let server = flags::find(name).filter(|_| own.is_none() && sub.takes_server);
            let takes_value = match (own, server) {
                (Some(own), _) => !own.value.is_empty(),
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
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.own.iter().rev().find(|(own, _)| *own == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn is_on(&self, name: &str) -> Result<bool, CliError> {
        match self.text(name) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(other) => Err(usage(format!("--{name} is true or false, not {other:?}"))),
        }
    }

    /// A whole number.
    pub(super) fn number<T: std::str::FromStr>(&self, name: &str, default: T) -> Result<T, CliError> {
        let Some(text) = self.text(name) else { return Ok(default) };
        text.parse().map_err(|_| usage(format!("--{name} is no number: {text}")))
    }

    /// A time span.
    pub(super) fn duration(&self, name: &str, default: &str) -> Result<Duration, CliError> {
        let text = self.text(name).unwrap_or(default);
        parse_duration(text).map_err(|_| usage(format!("--{name} is no duration: {text}")))
    }

    /// All words besides flags.
    pub(super) fn words(&self) -> &[&'a str] {
        &self.words
    }

    /// The one word besides flags.
    pub(super) fn one(&self) -> Result<&'a str, CliError> {
        match self.words[..] {
            [word] => Ok(word),
            [] => Err(usage("a file is missing".into())),
            [_, stray, ..] => Err(usage(format!("what is {stray:?}?"))),
        }
    }

    pub(super) fn none(&self) -> Result<(), CliError> {
        match self.words.first() {
            None => Ok(()),
            Some(stray) => Err(usage(format!("what is {stray:?}?"))),
        }
    }

    /// The configuration that the server's flags make.
    pub(super) fn config(&self) -> Result<Box<Config>, CliError> {
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
