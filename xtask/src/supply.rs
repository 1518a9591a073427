//! `cargo xtask supply`: which crates may come in, read from `cargo metadata`.
//!
//! Three rules: every licence expression is satisfied by the list of `deny.toml`, every crate comes from the
//! default registry or from this workspace, and none is on its list of bans. It is a small stand-in for
//! `cargo deny`, which takes longer to build than the product; known vulnerabilities are not looked up.

use serde_json::Value;

use crate::{Outcome, sh};

/// The rules, as `deny.toml` has them.
#[derive(Debug, Default)]
struct Rules {
    /// Licences whose terms an Apache-2.0 binary can meet.
    licences: Vec<String>,
    /// Crates that must not come in, with the reason.
    bans: Vec<(String, String)>,
}

impl Rules {
    /// Reads the two lists; the file is ours, one element a line.
    fn parse(text: &str) -> Result<Self, String> {
        let mut rules = Self::default();
        let (mut section, mut list) = ("", "");
        for line in text.lines().map(str::trim) {
            if line.starts_with('#') {
                continue;
            } else if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                (section, list) = (name, "");
            } else if let Some(name) = line.strip_suffix("= [") {
                list = name.trim();
            } else if line == "]" {
                list = "";
            } else if (section, list) == ("licenses", "allow") {
                rules.licences.extend(line.split('"').nth(1).map(str::to_owned));
            } else if (section, list) == ("bans", "deny") {
                let value =
                    |name: &str| line.split_once(&format!("{name} = \"")).and_then(|(_, rest)| rest.split('"').next());
                let (Some(name), Some(reason)) = (value("crate"), value("reason")) else {
                    return Err(format!("deny.toml: a ban needs a crate and a reason: {line}"));
                };
                rules.bans.push((name.to_owned(), reason.to_owned()));
            }
        }
        if rules.licences.is_empty() || rules.bans.is_empty() {
            return Err("deny.toml: the list of licences or that of bans is not there".to_owned());
        }
        Ok(rules)
    }

    fn allows(&self, licence: &str) -> bool {
        self.licences.iter().any(|allowed| allowed == licence)
    }
}

/// Only what is built for the platform that ships is held to the rules.
const PLATFORM: &str = "--filter-platform=x86_64-unknown-linux-gnu";

pub(crate) fn run(_args: &[String]) -> Outcome {
    let rules = Rules::parse(&std::fs::read_to_string(sh::root().join("deny.toml"))?)?;
    let metadata = sh::cargo(&["metadata", "--format-version=1", "--locked", PLATFORM]);
    let metadata = sh::output(metadata)?;
    let metadata: Value = serde_json::from_slice(&metadata)?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
    let faults: Vec<String> = packages.iter().flat_map(|package| rules.faults_of(package)).collect();
    if faults.is_empty() {
        eprintln!("supply: {} crates are fine", packages.len());
        Ok(())
    } else {
        Err(faults.join("\n").into())
    }
}

impl Rules {
    fn faults_of(&self, package: &Value) -> Vec<String> {
        let name = package["name"].as_str().unwrap_or("?");
        let mut faults = Vec::new();
        match package["license"].as_str() {
            Some(expression) if self.satisfied(expression) => {}
            licence => faults.push(format!("{name}: licence {licence:?} is not on the list")),
        }
        match package["source"].as_str() {
            // No source: a member of this workspace.
            None => {}
            Some(source) if source.starts_with("registry+") => {}
            Some(source) => faults.push(format!("{name}: comes from {source}")),
        }
        if let Some((_, reason)) = self.bans.iter().find(|(banned, _)| banned == name) {
            faults.push(format!("{name}: banned, {reason}"));
        }
        faults
    }

    /// Whether an SPDX expression can be met by the list: one side of each OR, both of each AND.
    fn satisfied(&self, expression: &str) -> bool {
        // The old form "MIT/Apache-2.0" means OR.
        let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut at = 0;
        self.either(&words, &mut at) && at == words.len()
    }

    fn either(&self, words: &[&str], at: &mut usize) -> bool {
        let mut met = self.both(words, at);
        while words.get(*at) == Some(&"OR") {
            *at += 1;
            met |= self.both(words, at);
        }
        met
    }

    fn both(&self, words: &[&str], at: &mut usize) -> bool {
        let mut met = self.single(words, at);
        while words.get(*at) == Some(&"AND") {
            *at += 1;
            met &= self.single(words, at);
        }
        met
    }

    fn single(&self, words: &[&str], at: &mut usize) -> bool {
        let Some(word) = words.get(*at) else { return false };
        *at += 1;
        if *word == "(" {
            let met = self.either(words, at);
            let closed = words.get(*at) == Some(&")");
            *at += 1;
            return met && closed;
        }
        if words.get(*at) == Some(&"WITH") {
            let exception = words.get(*at + 1).copied().unwrap_or_default();
            *at += 2;
            return self.allows(&format!("{word} WITH {exception}"));
        }
        self.allows(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules::parse(include_str!("../../deny.toml")).unwrap()
    }

    #[test]
    fn the_lists_are_those_of_the_file() {
        let rules = rules();
        assert!(rules.allows("MIT") && !rules.allows("GPL-3.0"));
        assert!(rules.bans.iter().any(|(name, reason)| name == "rocksdb" && reason.contains("sled")));
        assert!(Rules::parse("[licenses]\nallow = [\n]\n").is_err());
        assert!(Rules::parse("[bans]\ndeny = [\n    { crate = \"x\" },\n]\n").is_err());
    }

    #[test]
    fn one_side_of_an_or_is_enough_and_both_of_an_and_are_needed() {
        assert!(rules().satisfied("MIT"));
        assert!(rules().satisfied("MIT/Apache-2.0"));
        assert!(rules().satisfied("GPL-3.0 OR MIT"));
        assert!(rules().satisfied("(MIT OR GPL-3.0) AND Unicode-3.0"));
        assert!(rules().satisfied("Apache-2.0 WITH LLVM-exception OR GPL-2.0"));
        assert!(!rules().satisfied("MIT AND GPL-3.0"));
        assert!(!rules().satisfied("GPL-3.0 OR (MIT AND AGPL-3.0)"));
        assert!(!rules().satisfied("(MIT"));
        assert!(!rules().satisfied(""));
    }

    #[test]
    fn each_rule_finds_its_fault() {
        let package = serde_json::json!({"name": "openssl-sys", "license": null, "source": "git+https://host/x"});
        assert_eq!(rules().faults_of(&package).len(), 3);
        let own = serde_json::json!({"name": "rusd", "license": "Apache-2.0", "source": null});
        assert!(rules().faults_of(&own).is_empty());
    }
}
