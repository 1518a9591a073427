//! Holds the house in order: what a reader relies on without being told again.
//!
//! ```text
//! src, tests, xtask, proto, benches ─► each .rs file ─► module doc, length, words that don't belong
//! src ─► each `crate::ROOM` ─► only along the arrows of ARCHITECTURE.md's table
//!     └► each crate that one room alone may name
//! ```

#![allow(clippy::disallowed_methods, reason = "the test reads the tree as it is")]

use std::fs;
use std::path::{Path, PathBuf};

/// Lines that a file may have, its tests included.
const LINES_MAX: usize = 800;

/// Each room and the rooms below it that it may use.
const ARROWS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("env", &["types"]),
    ("storage", &["env", "types"]),
    ("lease", &["env", "storage", "types"]),
    ("auth", &["storage", "types"]),
    ("apply", &["auth", "lease", "storage", "types"]),
    ("wal", &["env", "types"]),
    ("admit", &["apply", "auth", "storage", "types"]),
    ("watch", &["env", "storage", "types"]),
    ("consensus", &["apply", "auth", "env", "lease", "storage", "types", "wal", "watch"]),
    ("propose", &["apply", "auth", "consensus", "env", "lease", "storage", "types"]),
    ("ops", &["env", "types"]),
    ("cli", &["env", "ops", "types"]),
    ("api", &["admit", "apply", "auth", "consensus", "env", "lease", "ops", "propose", "storage", "types", "watch"]),
];

/// Crates that stay behind one door: name and the paths that may name them.
const DOORS: &[(&str, &[&str])] = &[
    ("sled", &["src/storage/backend/"]),
    ("redb", &["src/storage/backend/"]),
    ("openraft", &["src/consensus/"]),
    ("tonic", &["src/api/", "src/consensus/"]),
    ("axum", &["src/api/"]),
    ("prost", &["src/api/", "src/propose/", "src/consensus/", "src/watch/"]),
    ("rusd_proto", &["src/api/", "src/propose/", "src/watch/"]),
];

struct Source {
    /// Relative to the repository's root, with `/`.
    path: String,
    text: String,
}

#[test]
fn files_have_a_module_doc_and_a_bearable_length() {
    let mut faults = Vec::new();
    for source in sources(&["src", "tests", "benches", "fuzz", "xtask", "proto"]) {
        if !source.text.starts_with("//! ") {
            faults.push(format!("{}: no module doc in the first line", source.path));
        }
        let lines = source.text.lines().count();
        if lines > LINES_MAX {
            faults.push(format!("{}: {lines} lines", source.path));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn arrows_point_one_way() {
    let mut faults = Vec::new();
    for source in sources(&["src"]) {
        let Some(room) = room(&source.path) else { continue };
        let allowed = ARROWS.iter().find(|(name, _)| *name == room).map(|(_, below)| *below);
        for used in used_rooms(&source.text) {
            // The wiring knows every room; a room knows itself.
            let fine = matches!(room, "server" | "main" | "lib")
                || used == room
                || allowed.is_some_and(|below| below.contains(&used));
            if !fine {
                faults.push(format!("{}: {room} may not use {used}", source.path));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn each_engine_stays_behind_its_door() {
    let mut faults = Vec::new();
    for source in sources(&["src"]) {
        for (name, doors) in DOORS {
            let inside = doors.iter().any(|door| source.path.starts_with(door));
            if !inside && names_crate(&source.text, name) {
                faults.push(format!("{}: names {name}, which only {doors:?} may", source.path));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn nothing_is_left_undone_or_silenced_without_a_reason() {
    let mut faults = Vec::new();
    for source in sources(&["src", "proto", "xtask"]) {
        for (at, line) in source.text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            // Split, so that this file doesn't find itself.
            let undone = [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("dbg", "!(")];
            if undone.iter().any(|word| code.contains(word)) {
                faults.push(format!("{}:{}: {}", source.path, at + 1, line.trim()));
            }
        }
        for attribute in ["#[allow(", "#![allow(", "#[expect(", "#![expect("] {
            for (at, _) in source.text.match_indices(attribute) {
                let end = source.text[at..].find(")]").map_or(source.text.len(), |end| at + end);
                if !source.text[at..end].contains("reason") {
                    faults.push(format!("{}: {} without a reason", source.path, &source.text[at..end]));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_rules_find_their_faults() {
    assert_eq!(used_rooms("use crate::api::Services;\nfn f(x: crate::types::Term) {}"), ["api", "types"]);
    assert!(names_crate("use sled::Db;", "sled"));
    assert!(names_crate("fn f() { sled::open() }", "sled"));
    assert!(!names_crate("/// unlike sled::Db\n// use sled::Db\nfn unsled() {}", "sled"));
    assert_eq!(room("src/storage/backend/mod.rs"), Some("storage"));
    assert_eq!(room("src/server.rs"), Some("server"));
}

/// The room a file of `src/` belongs to.
fn room(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    Some(inside.split('/').next()?.trim_end_matches(".rs"))
}

/// The rooms that code names by `crate::ROOM`, comments left out.
fn used_rooms(text: &str) -> Vec<&str> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| rest.split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap_or_default())
        .filter(|name| !name.is_empty())
        .collect()
}

/// Whether code, comments left out, names a crate as the first part of a path.
fn names_crate(text: &str, name: &str) -> bool {
    let path = format!("{name}::");
    text.lines().filter(|line| !line.trim_start().starts_with("//")).any(|line| {
        line.match_indices(&path).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
        })
    })
}

fn sources(below: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for directory in below {
        collect(&root.join(directory), &mut paths);
    }
    paths.sort();
    let sources: Vec<Source> = paths
        .into_iter()
        .map(|path| Source {
            text: fs::read_to_string(&path).expect("a source file is text"),
            path: path.strip_prefix(root).expect("it lies below the root").to_string_lossy().replace('\\', "/"),
        })
        .collect();
    assert!(sources.len() > 5, "only {} files below {below:?}", sources.len());
    sources
}

fn collect(directory: &Path, paths: &mut Vec<PathBuf>) {
    // Not every directory of the list is there yet.
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}
