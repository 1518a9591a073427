//! Arguments as Go's flag package takes them: one dash or two, `--k=v` or `--k v`, bare booleans,
//! repeats (the last wins), `--` ends them.

use std::path::PathBuf;

use super::CliError;
use crate::ops::config::flags::{self, Flag, Kind};

/// What the arguments ask for.
#[derive(Debug)]
pub(super) enum Split {
    Version,
    Help,
    Flags(Given),
}

/// Flags in the order they stood.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) flags: Vec<(&'static Flag, String)>,
    pub(super) config_file: Option<PathBuf>,
}

/// Takes the arguments apart.
pub(super) fn split(arguments: &[String]) -> Result<Split, CliError> {
    let mut given = Given::default();
    let mut show_version = false;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let Some(body) = argument.strip_prefix('-').filter(|body| !body.is_empty()) else {
            return Err(CliError::Stray(argument.clone()));
        };
        if body == "-" {
            match rest.next() {
                Some(stray) => return Err(CliError::Stray(stray.clone())),
                None => break,
            }
        }
        let body = body.strip_prefix('-').unwrap_or(body);
        let (name, inline) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        let mut value = |inline: Option<String>| {
            inline.or_else(|| rest.next().cloned()).ok_or_else(|| CliError::Usage {
                what: format!("flag needs an argument: --{name}"),
                hint: format!("type --{name}=VALUE"),
            })
        };
        match name {
            "h" | "help" => return Ok(Split::Help),
            "version" => show_version = inline.as_deref() != Some("false"),
            "config-file" => given.config_file = Some(value(inline)?).filter(|p| !p.is_empty()).map(PathBuf::from),
            _ => match flags::find(name) {
                Some(flag) if flag.kind == Kind::Bool => {
                    given.flags.push((flag, inline.unwrap_or_else(|| "true".to_owned())));
                }
                Some(flag) => given.flags.push((flag, value(inline)?)),
                None if flags::IGNORED.contains(&name) => {
                    if !matches!(name, "force" | "snapshot" | "v" | "vv") {
                        value(inline)?;
                    }
                }
                None => return Err(unknown(name)),
            },
        }
    }
    Ok(if show_version { Split::Version } else { Split::Flags(given) })
}

fn unknown(name: &str) -> CliError {
    let hint = match flags::nearest(name) {
        Some(nearest) => format!("did you mean --{nearest}?"),
        None => "rusd --help lists the flags".to_owned(),
    };
    CliError::Usage { what: format!("flag provided but not defined: --{name}"), hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(arguments: &[&str]) -> Vec<(&'static str, String)> {
        let arguments: Vec<_> = arguments.iter().map(|text| (*text).to_owned()).collect();
        match split(&arguments) {
            Ok(Split::Flags(given)) => given.flags.into_iter().map(|(flag, value)| (flag.name, value)).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn all_forms_of_go_are_taken() {
        let taken =
            pairs(&["--name=a=b", "-data-dir", "d", "--pre-vote", "--auto-tls=false", "--wal-dir=", "--name", "-x"]);
        let want = [
            ("name", "a=b"),
            ("data-dir", "d"),
            ("pre-vote", "true"),
            ("auto-tls", "false"),
            ("wal-dir", ""),
            ("name", "-x"),
        ];
        assert_eq!(taken, want.map(|(name, value)| (name, value.to_owned())));
    }

    #[test]
    fn flags_of_old_etcds_are_swallowed() {
        assert_eq!(pairs(&["--force", "--v", "--cluster-active-size", "3", "--name=a"]).len(), 1);
    }

    #[test]
    fn version_and_help_end_it() {
        let args = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        assert!(matches!(split(&args(&["--version"])), Ok(Split::Version)));
        assert!(matches!(split(&args(&["-version"])), Ok(Split::Version)));
        assert!(matches!(split(&args(&["--name=a", "-h"])), Ok(Split::Help)));
        assert!(matches!(split(&args(&["--version=false"])), Ok(Split::Flags(_))));
    }

    #[test]
    fn what_is_no_flag_is_refused() {
        for stray in ["", "-", "word"] {
            assert!(matches!(split(&[stray.to_owned()]), Err(CliError::Stray(_))), "{stray:?}");
        }
        assert!(matches!(split(&["--=x".to_owned()]), Err(CliError::Usage { .. })));
        assert!(matches!(split(&["---name=x".to_owned()]), Err(CliError::Usage { .. })));
    }
}
