//! `ETCD_*` variables: one for each flag; what stands for none only gets a warning.
//!
//! Values of variables that aren't ours are never shown: `ETCD_ROOT_PASSWORD` is one of them.

use std::path::PathBuf;

use super::{CliError, Warning};
use crate::ops::Config;
use crate::ops::config::flags;

/// Variables that etcd or its tools read elsewhere, and that no one needs a warning for.
const ELSEWHERE: [&str; 3] = ["ETCD_CONFIG_FILE", "ETCD_UNSUPPORTED_ARCH", "ETCD_VERIFY"];

/// `ETCD_CONFIG_FILE`, if it is set to anything.
pub(super) fn config_file(environment: &[(String, String)]) -> Option<PathBuf> {
    environment
        .iter()
        .find(|(name, value)| name == "ETCD_CONFIG_FILE" && !value.is_empty())
        .map(|(_, value)| PathBuf::from(value))
}

/// Whether the heads of HTTP/2 requests are to be told, by the word that programs in Go take for it.
pub(super) fn http2_heads(environment: &[(String, String)]) -> bool {
    let words = environment.iter().filter(|(name, _)| name == "GODEBUG").flat_map(|(_, value)| value.split(','));
    words.into_iter().any(|word| matches!(word, "http2debug=1" | "http2debug=2"))
}

/// Sets each flag whose variable is set and not empty. One whose flag was given as an argument is refused,
/// even if it is empty: nobody can know which of the two was meant.
pub(super) fn apply(
    environment: &[(String, String)],
    config: &mut Config,
    warnings: &mut Vec<Warning>,
) -> Result<(), CliError> {
    let given = config.given.clone();
    for (variable, value) in environment {
        if !variable.starts_with("ETCD_") || ELSEWHERE.contains(&variable.as_str()) {
            continue;
        }
        let Some(flag) = flags::all().find(|flag| flag.variable() == *variable) else {
            warnings.push(Warning::UnknownVariable { variable: variable.clone() });
            continue;
        };
        if given.contains(flag.name) {
            return Err(CliError::Shadowed { variable: variable.clone(), flag: flag.name });
        }
        if value.is_empty() {
            continue;
        }
        config.set(flag, value).map_err(|bad| CliError::Variable {
            variable: variable.clone(),
            value: value.clone(),
            expected: bad.expected,
        })?;
    }
    Ok(())
}
