//! What this version can't do yet and must not pretend to: refused by name, never ignored.

use super::{Config, ConfigError};

/// A reason to refuse, and the test for it.
struct Missing {
    /// What it is called where no single flag asks for it.
    what: &'static str,
    /// How the names of the flags start that ask for it.
    flags: &'static [&'static str],
    /// What is not there.
    why: &'static str,
    /// What to do.
    instead: &'static str,
    asked: fn(&Config) -> bool,
}

const MISSING: [Missing; 1] = [Missing {
    what: "--discovery",
    flags: &["discovery"],
    why: "etcd's old discovery service is not available",
    instead: "Use --discovery-token and --discovery-endpoints, or name the members by --initial-cluster",
    asked: |config| !config.discovery.legacy.is_empty(),
}];

/// Refuses the first thing asked for that isn't there.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    match MISSING.iter().find(|missing| (missing.asked)(config)) {
        Some(missing) => Err(ConfigError::new(named(config, missing), missing.why, missing.instead)),
        None => Ok(()),
    }
}

/// The flags that were given of those that the row is about.
fn named(config: &Config, missing: &Missing) -> String {
    let given: Vec<_> = config
        .given
        .iter()
        .filter(|name| missing.flags.iter().any(|start| name.starts_with(start)))
        .map(|name| format!("--{name}"))
        .collect();
    if given.is_empty() { missing.what.to_owned() } else { given.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::super::flags;
    use super::*;

    #[test]
    fn what_matters_for_safety_is_never_ignored() {
        let mut config = Config::default();
        let flag = flags::find("discovery").expect("a known flag");
        config.set(flag, "http://h:1").expect("a well-formed value");
        let error = config.finish().expect_err("the old service");
        assert!(error.why.contains("not available"), "{error}");
        assert!(error.what.contains("--discovery"), "{error}");
    }
}
