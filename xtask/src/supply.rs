//! `cargo xtask supply`: which crates may come in, read from `cargo metadata`.
//!
//! Three rules: every licence expression is satisfied by the list below, every crate comes from the
//! default registry or from this workspace, and none is on the list of bans. It is a small stand-in for
//! `cargo deny`, which takes longer to build than the product; known vulnerabilities are not looked up.

use serde_json::Value;

use crate::{Outcome, sh};

/// Licences whose terms an Apache-2.0 binary can meet.
const LICENCES: [&str; 12] = [
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "MIT",
    "MIT-0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Only what is built for the platform that ships is held to the rules.
const PLATFORM: &str = "--filter-platform=x86_64-unknown-linux-gnu";

/// Crates that must not come in, with the reason.
const BANS: [(&str, &str); 4] = [
    ("openssl-sys", "TLS is rustls"),
    ("native-tls", "TLS is rustls"),
    ("protobuf-src", "schemas are compiled by protox, without protoc"),
    ("rocksdb", "the storage engines are sled and redb"),
];

pub(crate) fn run(_args: &[String]) -> Outcome {
    let metadata = sh::cargo(&["metadata", "--format-version=1", "--locked", PLATFORM]);
    let metadata = sh::output(metadata)?;
    let metadata: Value = serde_json::from_slice(&metadata)?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
    let faults: Vec<String> = packages.iter().flat_map(faults_of).collect();
    if faults.is_empty() {
        eprintln!("supply: {} crates are fine", packages.len());
        Ok(())
    } else {
        Err(faults.join("\n").into())
    }
}

fn faults_of(package: &Value) -> Vec<String> {
    let name = package["name"].as_str().unwrap_or("?");
    let mut faults = Vec::new();
    match package["license"].as_str() {
        Some(expression) if satisfied(expression) => {}
        licence => faults.push(format!("{name}: licence {licence:?} is not on the list")),
    }
    match package["source"].as_str() {
        // No source: a member of this workspace.
        None => {}
        Some(source) if source.starts_with("registry+") => {}
        Some(source) => faults.push(format!("{name}: comes from {source}")),
    }
    if let Some((_, reason)) = BANS.iter().find(|(banned, _)| *banned == name) {
        faults.push(format!("{name}: banned, {reason}"));
    }
    faults
}

/// Whether an SPDX expression can be met by the list: one side of each OR, both of each AND.
fn satisfied(expression: &str) -> bool {
    // The old form "MIT/Apache-2.0" means OR.
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    either(&words, &mut at) && at == words.len()
}

fn either(words: &[&str], at: &mut usize) -> bool {
    let mut met = both(words, at);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        met |= both(words, at);
    }
    met
}

fn both(words: &[&str], at: &mut usize) -> bool {
    let mut met = single(words, at);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        met &= single(words, at);
    }
    met
}

fn single(words: &[&str], at: &mut usize) -> bool {
    let Some(word) = words.get(*at) else { return false };
    *at += 1;
    if *word == "(" {
        let met = either(words, at);
        let closed = words.get(*at) == Some(&")");
        *at += 1;
        return met && closed;
    }
    if words.get(*at) == Some(&"WITH") {
        let exception = words.get(*at + 1).copied().unwrap_or_default();
        *at += 2;
        return LICENCES.contains(&format!("{word} WITH {exception}").as_str());
    }
    LICENCES.contains(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_side_of_an_or_is_enough_and_both_of_an_and_are_needed() {
        assert!(satisfied("MIT"));
        assert!(satisfied("MIT/Apache-2.0"));
        assert!(satisfied("GPL-3.0 OR MIT"));
        assert!(satisfied("(MIT OR GPL-3.0) AND Unicode-3.0"));
        assert!(satisfied("Apache-2.0 WITH LLVM-exception OR GPL-2.0"));
        assert!(!satisfied("MIT AND GPL-3.0"));
        assert!(!satisfied("GPL-3.0 OR (MIT AND AGPL-3.0)"));
        assert!(!satisfied("(MIT"));
        assert!(!satisfied(""));
    }

    #[test]
    fn each_rule_finds_its_fault() {
        let package = serde_json::json!({"name": "openssl-sys", "license": null, "source": "git+https://host/x"});
        assert_eq!(faults_of(&package).len(), 3);
        let own = serde_json::json!({"name": "rusd", "license": "Apache-2.0", "source": null});
        assert!(faults_of(&own).is_empty());
    }
}
