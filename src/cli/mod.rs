//! The command line: what was typed becomes a [`Config`], a text to print, or a refusal.
//!
//! ```text
//! args ─► tools::parse ─► Action::Tool, or a text
//!      └► args::split ─┬─► --version, --help ─► Action::Print
//!                      ├─► --config-file ─► file ─┐
//!                      └─► flags, then variables ─┴─► Config::finish ─► Action::Run
//! ```
//!
//! The order of sources is etcd's: a config file stands alone; a flag and its variable at once are refused.

mod args;
mod environment;
mod explain;
mod file;
mod help;
mod outcome;
mod shell;
mod tools;
pub mod version;

pub use outcome::{Action, CliError, Run, Warning};
pub use tools::{Format, PodFlags, RemoteFlags, StatusFlags, Tool};

use crate::ops::Config;
use crate::ops::config::flags;

/// Reads the arguments (without the program's name) and the environment.
///
/// # Errors
/// [`CliError::Usage`] for what can't be read, [`CliError::Invalid`] for what can't be used.
pub fn parse(
    arguments: impl IntoIterator<Item = String>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Action, CliError> {
    let arguments: Vec<String> = arguments.into_iter().collect();
    if let Some(command @ ("gateway" | "grpc-proxy")) = arguments.first().map(String::as_str) {
        return Err(CliError::Subcommand(command.to_owned()));
    }
    let environment: Vec<_> = environment.into_iter().collect();
    if let Some(action) = tools::parse(&arguments, &environment)? {
        return Ok(action);
    }
    let given = match args::split(&arguments)? {
        args::Split::Version => return Ok(Action::Print(version::text())),
        args::Split::Help => return Ok(Action::Print(help::text())),
        args::Split::Flags(given) => given,
    };
    let path = given.config_file.clone().or_else(|| environment::config_file(&environment));
    let mut warnings = Vec::new();
    let mut config = Config::default();
    // Both follow from other flags, so the defaults must not stand in their way.
    config.member.data_dir.clear();
    config.clustering.initial_cluster = Default::default();
    if let Some(path) = path {
        if !given.flags.is_empty() {
            warnings.push(Warning::FlagsIgnored { path: path.clone() });
        }
        file::apply(&path, &mut config, &mut warnings)?;
    } else {
        for (flag, value) in &given.flags {
            config.set(flag, value).map_err(|bad| CliError::Usage {
                what: format!("invalid value {value:?} for flag --{}", flag.name),
                hint: format!("expected {}", bad.expected),
            })?;
        }
        environment::apply(&environment, &mut config, &mut warnings)?;
    }
    config.logging.http2_heads = environment::http2_heads(&environment);
    for (name, text) in DEPRECATED {
        if flags::find(name).is_some_and(|flag| config.is_given(flag.name)) {
            warnings.push(Warning::Deprecated { text });
        }
    }
    let config = config.finish().map_err(CliError::Invalid)?;
    warnings.extend(config.without_effect().map(|(flag, why)| Warning::NoEffect { flag, why }));
    warnings.extend(config.gates_without_effect().map(|(gate, open)| Warning::Gate { gate, open }));
    Ok(Action::Run(Box::new(Run { config, warnings })))
}

/// Flags that etcd 3.7 warns of, with the texts that its tests look for.
const DEPRECATED: [(&str, &str); 2] = [
    ("max-snapshots", "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8."),
    (
        "v2-deprecation",
        "--v2-deprecation is deprecated and scheduled for removal in v3.8. \
         The default value is enforced, ignoring user input.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Run, CliError> {
        let arguments = arguments.iter().map(|text| (*text).to_owned());
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        match parse(arguments, environment)? {
            Action::Run(run) => Ok(*run),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_last_of_repeated_flags_wins() {
        let run = run(&["--name=a", "--snapshot-count", "5", "-name", "b"], &[]).expect("valid");
        assert_eq!(run.config.member.name, "b");
        assert_eq!(run.config.member.snapshot_count, 5);
        assert_eq!(run.config.member.data_dir.to_str(), Some("b.etcd"));
    }

    #[test]
    fn a_flag_and_its_variable_at_once_are_refused() {
        for value in ["b", "a", ""] {
            let error = run(&["--name=a"], &[("ETCD_NAME", value)]).expect_err("refused");
            assert!(matches!(&error, CliError::Shadowed { flag: "name", .. }), "{error}");
            assert_eq!(error.exit_code(), 1);
        }
        let run = run(&["--name=a"], &[("ETCD_SNAPSHOT_COUNT", "7"), ("ETCD_WAL_DIR", "")]).expect("valid");
        assert_eq!((run.config.member.name.as_str(), run.config.member.snapshot_count), ("a", 7));
    }

    #[test]
    fn unknown_variables_only_warn_and_keep_their_values_to_themselves() {
        let variables = [("ETCD_ROOT_PASSWORD", "secret"), ("ETCD_VERIFY", "all"), ("PATH", "/bin")];
        let run = run(&[], &variables).expect("valid");
        assert_eq!(run.warnings, [Warning::UnknownVariable { variable: "ETCD_ROOT_PASSWORD".into() }]);
    }

    #[test]
    fn heads_are_told_by_the_word_that_go_takes() {
        for (value, told) in [("http2debug=2", true), ("x=1,http2debug=1", true), ("http2debug=0", false), ("", false)]
        {
            let run = run(&[], &[("GODEBUG", value)]).expect("valid");
            assert_eq!(run.config.logging.http2_heads, told, "{value}");
        }
    }

    #[test]
    fn refusals_have_etcds_exit_codes() {
        for (arguments, code) in [
            (&["--nmae=x"][..], 2),
            (&["--name"], 2),
            (&["--pre-vote=maybe"], 2),
            (&["--election-timeout=1"], 1),
            (&["stray"], 1),
            (&["gateway", "start"], 1),
            (&["--config-file=/nowhere/at/all.yaml"], 1),
        ] {
            let error = run(arguments, &[]).expect_err("refused");
            assert_eq!(error.exit_code(), code, "{arguments:?}: {error}");
        }
        let error = run(&[], &[("ETCD_PRE_VOTE", "maybe")]).expect_err("refused");
        assert_eq!(error.exit_code(), 1, "{error}");
    }

    #[test]
    fn an_unknown_flag_names_the_nearest() {
        let error = run(&["--listen-clients-url=x"], &[]).expect_err("refused");
        assert!(error.to_string().contains("--listen-client-urls"), "{error}");
        for (word, meant) in [("statsu", "mean rusd status?"), ("snaphsot", "mean rusd snapshot?"), ("help", "--help")]
        {
            let error = run(&[word], &[]).expect_err("refused");
            assert!(error.to_string().contains(meant), "{error}");
        }
    }
}
