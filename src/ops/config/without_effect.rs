//! Flags that are taken and change nothing: each gets a warning that says so, none is silent.
//!
//! A test reads the source: a flag whose field nobody reads must stand here or be refused, and one
//! that stands here must not be read.

use super::{Config, GATES};

const RAFT: &str = "there is nothing to set: members always ask before they vote, and keep times of their own";
const DISCOVERY: &str = "etcd's old discovery service is not available";
const ENGINE: &str = "there is no bbolt here: --backend chooses the engine, and it times its flushes by itself";

/// Why, and the flags.
const WITHOUT_EFFECT: &[(&str, &[&str])] = &[
    (
        RAFT,
        &[
            "initial-election-tick-advance",
            "pre-vote",
            "raft-read-timeout",
            "raft-write-timeout",
            "downgrade-check-time",
        ],
    ),
    (DISCOVERY, &["discovery-fallback", "discovery-proxy"]),
    (ENGINE, &["backend-batch-interval", "backend-batch-limit", "backend-bbolt-freelist-type"]),
    (
        "nothing is dialled with it: what calls the member's own client port is in the process",
        &["client-cert-file", "client-key-file"],
    ),
    ("clients that ping often are not cut off", &["grpc-keepalive-min-time"]),
    ("files are removed when nobody needs them any more, however many there are", &["max-snapshots", "max-wals"]),
    (
        "log files are not rotated: use logrotate with copytruncate",
        &["enable-log-rotation", "log-rotation-config-json"],
    ),
    (
        "the leader compares the members every second, whatever stands here",
        &["compact-hash-check-time", "corrupt-check-time"],
    ),
    ("profiles are not served: use perf", &["enable-pprof"]),
    ("rusd always waits for the disk", &["unsafe-no-fsync"]),
    ("space is given back while the server runs", &["bootstrap-defrag-threshold-megabytes"]),
    ("there is no mapped file to lock", &["memory-mlock"]),
    ("there is one logger", &["logger"]),
    ("it is ignored, as etcd does", &["v2-deprecation"]),
];

impl Config {
    /// Flags that were given and have no effect, each with why.
    pub fn without_effect(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let flags = WITHOUT_EFFECT.iter().flat_map(|(why, flags)| flags.iter().map(|flag| (*flag, *why)));
        flags.filter(|(name, _)| self.is_given(name))
    }

    /// Feature gates that were asked to be other than they are in rusd: name, and whether it is open.
    pub fn gates_without_effect(&self) -> impl Iterator<Item = (&'static str, bool)> {
        let gates = self.is_given("feature-gates").then_some(self.member.feature_gates);
        GATES.into_iter().filter_map(move |(name, gate, _)| {
            let asked = gates?.asked(gate)?;
            (asked != gate.is_in_force()).then_some((name, gate.is_in_force()))
        })
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the test reads the source")]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::super::flags::{self, Kind};
    use super::*;

    fn with(name: &str, value: &str) -> Config {
        let mut config = Config::default();
        config.set(flags::find(name).expect("known"), value).expect("well-formed");
        config
    }

    #[test]
    fn what_changes_nothing_is_said() {
        let names: Vec<_> = with("enable-pprof", "true").without_effect().map(|(name, _)| name).collect();
        assert_eq!(names, ["enable-pprof"]);
        assert_eq!(Config::default().without_effect().count(), 0);
    }

    #[test]
    fn gates_that_are_other_than_asked_are_said() {
        let said = |text| with("feature-gates", text).gates_without_effect().collect::<Vec<_>>();
        assert_eq!(said("InitialCorruptCheck=true,FastLeaseKeepAlive=true"), [("InitialCorruptCheck", false)]);
        assert_eq!(said("LeaseCheckpoint=false,PriorityRequest=false"), [("LeaseCheckpoint", true)]);
        assert_eq!(Config::default().gates_without_effect().count(), 0);
    }

    fn read(dir: &Path, text: &mut String) {
        for entry in fs::read_dir(dir).expect("a directory").flatten() {
            let path = entry.path();
            // What only fills, checks or prints fields obeys nothing.
            let is_table = dir.ends_with("ops/config") && !path.ends_with("mod.rs");
            if is_table || path.ends_with("ops/startup.rs") {
                continue;
            }
            if path.is_dir() {
                read(&path, text);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = fs::read_to_string(&path).expect("a source file");
                text.push_str(source.split("#[cfg(test)]").next().unwrap_or_default());
            }
        }
    }

    /// The fields that a flag's setter fills: `group.field` or `group.sub.field`.
    fn field_of(source: &str, name: &str) -> Option<String> {
        let (_, row) = source.split_once(&format!("name: {name:?},"))?;
        let row = row.split("name: \"").next()?;
        let (_, field) = row.split_once("config.")?;
        let end = field.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'))?;
        Some(field[..end].to_owned())
    }

    /// Whether somebody reads the field; its last two names say which one it is.
    fn is_read(source: &str, field: &str) -> bool {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let start = field.rmatch_indices('.').nth(1).map_or(0, |(at, _)| at + 1);
        let name = &field[start..];
        source
            .match_indices(name)
            .any(|(at, _)| !source[..at].ends_with(is_word) && !source[at + name.len()..].starts_with(is_word))
    }

    #[test]
    fn every_flag_is_obeyed_or_refused_or_warned_of() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let (mut all, mut table) = (String::new(), String::new());
        read(&root, &mut all);
        read(&root.join("ops/config/flags"), &mut table);
        // Each gate has a warning of its own: see `gates_without_effect`.
        let apart = ["feature-gates"];
        let warned: BTreeSet<_> = WITHOUT_EFFECT.iter().flat_map(|(_, flags)| flags.iter().copied()).collect();
        for flag in flags::all().filter(|flag| !apart.contains(&flag.name)) {
            let sample = match (flag.kind, flag.name) {
                (Kind::Bool, _) => {
                    if flag.default == "true" {
                        "false"
                    } else {
                        "true"
                    }
                }
                (Kind::Number, _) => "4",
                (Kind::Duration, _) => "7s",
                (Kind::Text, name) if name.ends_with("-urls") => "https://localhost:1",
                (Kind::Text, _) => "x",
            };
            let mut config = Config::default();
            let is_refused = (flag.set)(&mut config, sample).is_ok() && {
                config.given.insert(flag.name);
                config.finish().is_err_and(|error| error.why.contains("not available"))
            };
            let is_read = field_of(&table, flag.name).is_some_and(|field| is_read(&all, &field));
            if warned.contains(flag.name) {
                assert!(!is_read, "--{} is read and yet said to be without effect", flag.name);
            } else {
                assert!(is_read || is_refused, "--{} is ignored, and nobody is told", flag.name);
            }
        }
        for name in warned {
            assert!(flags::find(name).is_some(), "{name}");
        }
    }
}
