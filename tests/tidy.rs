//! Holds the house in order: what a reader relies on without being told again.
//!
//! ```text
//! every text file ─► no path of somebody's machine
//! src, tests, xtask, proto, benches ─► each .rs file ─► module doc, length, words that don't belong
//! src ─► each `crate::ROOM` ─► only along the arrows of ARCHITECTURE.md's table
//!     ├► each crate that one room alone may name
//!     └► no unwrap outside tests
//! ```
//! A fault reads `file:line: rule`. It works on lines, not on syntax: rustfmt has made them regular.

#![allow(clippy::disallowed_methods, reason = "the test reads the tree as it is")]

use std::fs;
use std::path::{Path, PathBuf};

/// Lines that a file may have, its tests included.
const LINES_MAX: usize = 800;

/// Each room and the rooms below it that it may use.
const ARROWS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("failpoint", &[]),
    ("env", &["types"]),
    ("storage", &["env", "failpoint", "types"]),
    ("lease", &["env", "storage", "types"]),
    ("auth", &["storage", "types"]),
    ("apply", &["auth", "lease", "storage", "types"]),
    ("wal", &["env", "failpoint", "types"]),
    ("admit", &["apply", "auth", "storage", "types"]),
    ("watch", &["env", "storage", "types"]),
    ("consensus", &["apply", "auth", "env", "failpoint", "lease", "storage", "tls", "types", "wal", "watch"]),
    ("propose", &["apply", "auth", "consensus", "env", "failpoint", "lease", "storage", "types"]),
    ("tls", &["env", "types"]),
    ("ops", &["env", "tls", "types"]),
    ("discovery", &["env", "ops", "tls", "types"]),
    ("cli", &["auth", "env", "ops", "types"]),
    (
        "api",
        &["admit", "apply", "auth", "consensus", "env", "lease", "ops", "propose", "storage", "tls", "types", "watch"],
    ),
    ("import", &["api", "apply", "auth", "consensus", "env", "lease", "storage", "tls", "types"]),
    ("operator", &["auth", "consensus", "env", "tls", "types"]),
    ("merge", &["env", "storage", "types"]),
    ("federation", &["env", "storage", "types"]),
];

/// Where everything is wired together.
const WIRING: &[&str] = &["server", "main", "lib"];

/// Crates that stay behind one door: name and the paths that may name them.
const DOORS: &[(&str, &[&str])] = &[
    // In `backend/mod.rs` the names are those of the two modules, by which an engine is chosen.
    ("sled", &["src/storage/backend/sled", "src/storage/backend/mod.rs"]),
    ("redb", &["src/storage/backend/redb", "src/storage/backend/mod.rs"]),
    ("openraft", &["src/consensus/"]),
    (
        "tonic",
        &[
            "src/api/",
            "src/consensus/peer/",
            "src/discovery/registry.rs",
            "src/discovery/way.rs",
            "src/import/remote/",
            "src/operator/",
        ],
    ),
    ("axum", &["src/api/"]),
    ("opentelemetry", &["src/ops/traces.rs"]),
    ("opentelemetry_otlp", &["src/ops/traces.rs"]),
    ("opentelemetry_sdk", &["src/ops/traces.rs"]),
    ("bcrypt", &["src/auth/password"]),
    ("shuttle", &["src/env/schedules.rs"]),
    ("triomphe", &["src/storage/values/hot.rs"]),
    ("ring", &["src/auth/tokens/", "src/tls/"]),
    ("prost", &["src/api/", "src/propose/", "src/consensus/peer/", "src/import/", "src/watch/"]),
    ("rustls", &["src/tls/"]),
    ("tokio_rustls", &["src/tls/"]),
    ("rcgen", &["src/tls/"]),
    ("x509_parser", &["src/tls/"]),
    ("clap", &["src/cli/shell.rs"]),
    ("clap_complete", &["src/cli/shell.rs"]),
    ("clap_mangen", &["src/cli/shell.rs"]),
    (
        "rusd_proto",
        &[
            "src/api/",
            "src/consensus/peer/",
            "src/discovery/registry.rs",
            "src/import/",
            "src/operator/",
            "src/propose/",
            "src/watch/",
        ],
    ),
];

/// What a page must name: rusd's own flags and the errors that a request can be refused with.
#[test]
fn the_pages_name_every_flag_of_our_own_and_every_error() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(root.join(path)).expect("it is there");
    let (readme, guide) = (read("README.md"), read("INTEGRATION_GUIDE.md"));
    let flags = read("src/ops/config/flags/features.rs");
    let (_, own) = flags.split_once("pub(super) const OWN").expect("the table");
    let flags: Vec<_> = own.split("name: \"").skip(1).filter_map(|row| row.split('"').next()).collect();
    assert!(flags.contains(&"backend"), "{flags:?}");
    let errors = read("src/types/error.rs");
    let (_, all) = errors.split_once("pub enum RequestError {").expect("the errors");
    let (all, _) = all.split_once("\n}").expect("their end");
    let is_name =
        |line: &&str| line.starts_with("    ") && line.trim_start().starts_with(|c: char| c.is_ascii_uppercase());
    let errors: Vec<_> = all
        .lines()
        .filter(is_name)
        .filter(|line| !line.starts_with("     "))
        .filter_map(|line| line.trim().split(|c: char| !c.is_ascii_alphanumeric()).next())
        .collect();
    assert!(errors.contains(&"EmptyKey") && errors.contains(&"Storage"), "{errors:?}");
    for flag in flags {
        for (page, text) in [("README.md", &readme), ("INTEGRATION_GUIDE.md", &guide)] {
            assert!(text.contains(&format!("`--{flag}`")), "{page} doesn't name --{flag}");
        }
    }
    for error in errors {
        assert!(guide.contains(&format!("`{error}`")), "the guide doesn't name {error}");
    }
}

struct Source {
    /// Relative to the repository's root, with `/`.
    path: String,
    text: String,
}

/// Faults, as `file:line: rule`.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    /// `at` counts lines from 0.
    fn add(&mut self, source: &Source, at: usize, rule: impl std::fmt::Display) {
        self.0.push(format!("{}:{}: {rule}", source.path, at + 1));
    }

    fn check(self) {
        assert!(self.0.is_empty(), "\n{}\n", self.0.join("\n"));
    }
}

#[test]
fn files_have_a_module_doc_and_a_bearable_length() {
    let mut faults = Faults::default();
    for source in sources(&["src", "tests", "benches", "fuzz", "sim", "xtask", "proto"]) {
        if !source.text.starts_with("//! ") {
            faults.add(&source, 0, "a file starts with a `//!` doc that says the way through it");
        }
        let lines = source.text.lines().count();
        if lines > LINES_MAX {
            faults.add(&source, LINES_MAX, format!("{lines} lines: one concept a file, {LINES_MAX} lines at most"));
        }
    }
    faults.check();
}

#[test]
fn arrows_point_one_way() {
    let mut faults = Faults::default();
    for source in sources(&["src"]) {
        let Some(room) = room(&source.path).filter(|room| !WIRING.contains(room)) else { continue };
        let Some((_, below)) = ARROWS.iter().find(|(name, _)| *name == room) else {
            faults.add(&source, 0, format!("the room {room} has no line in the table of arrows"));
            continue;
        };
        for (at, used) in used_rooms(&source.text) {
            if used != room && !below.contains(&used.as_str()) {
                faults.add(&source, at, format!("{room} may use {below:?}, not {used}"));
            }
        }
        let depth = source.path.trim_end_matches("/mod.rs").matches('/').count();
        let tests = test_lines(&source.text);
        for (at, line) in code_lines(&source.text) {
            let climb = "super::".repeat(depth + usize::from(tests[at]));
            if line.contains(&climb) {
                faults.add(&source, at, "another room is named by `crate::`, so that the arrow can be seen");
            }
        }
    }
    faults.check();
}

#[test]
fn each_engine_stays_behind_its_door() {
    let mut faults = Faults::default();
    for source in sources(&["src"]) {
        for (name, doors) in DOORS {
            if doors.iter().any(|door| source.path.starts_with(door)) {
                continue;
            }
            for (at, line) in code_lines(&source.text).filter(|(_, line)| names_crate(line, name)) {
                faults.add(&source, at, format!("only {doors:?} may name {name}: {}", line.trim()));
            }
        }
    }
    faults.check();
}

#[test]
fn nothing_unwraps_outside_tests() {
    let mut faults = Faults::default();
    let sources = sources(&["src"]);
    let test_files: Vec<String> = sources.iter().flat_map(test_modules).collect();
    for source in &sources {
        let is_test = source.path.contains("/tests/")
            || source.path.ends_with("/tests.rs")
            || test_files
                .iter()
                .any(|module| source.path == format!("{module}.rs") || source.path.starts_with(&format!("{module}/")));
        if is_test {
            continue;
        }
        let tests = test_lines(&source.text);
        for (at, line) in code_lines(&source.text) {
            if !tests[at] && line.contains(concat!(".unw", "rap()")) {
                faults.add(source, at, "no unwrap outside tests: `?`, or `expect` with the invariant's reason");
            }
        }
    }
    faults.check();
}

#[test]
fn nothing_is_left_undone_or_silenced_without_a_reason() {
    let mut faults = Faults::default();
    for source in sources(&["src", "proto", "xtask"]) {
        for (at, line) in code_lines(&source.text) {
            // Split, so that this file doesn't find itself.
            let undone = [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("dbg", "!(")];
            if undone.iter().any(|word| line.contains(word)) {
                faults.add(&source, at, "nothing is left undone");
            }
        }
        for attribute in ["#[allow(", "#![allow(", "#[expect(", "#![expect("] {
            for (start, _) in source.text.match_indices(attribute) {
                let end = source.text[start..].find(")]").map_or(source.text.len(), |end| start + end);
                if !source.text[start..end].contains("reason") {
                    let at = source.text[..start].matches('\n').count();
                    faults.add(&source, at, "a lint is silenced only with its reason");
                }
            }
        }
    }
    faults.check();
}

#[test]
fn no_path_of_a_machine_is_in_the_tree() {
    let mut faults = Faults::default();
    let kinds = ["rs", "toml", "md", "txt", "yaml", "yml", "json", "sh", "go", "mod", "html", "js", "css", "tpl"];
    for source in files(&[""], &kinds) {
        for (at, line) in source.text.lines().enumerate() {
            if let Some(path) = machine_path(line) {
                faults.add(&source, at, format!("{path}… is a path of one machine only"));
            }
        }
    }
    faults.check();
}

#[test]
fn the_rules_find_their_faults() {
    let rooms = |text: &str| used_rooms(text).into_iter().map(|(at, room)| (at, room.clone())).collect::<Vec<_>>();
    let found = |at: usize, room: &str| (at, room.to_owned());
    assert_eq!(
        rooms("use crate::api::Services;\n// crate::no\nfn f(x: crate::types::Term) {}"),
        [found(0, "api"), found(2, "types")]
    );
    assert_eq!(
        rooms("\nuse crate::{\n    api::{self, http},\n    types::Term,\n};\nuse crate::env;"),
        [found(1, "api"), found(1, "types"), found(5, "env")]
    );
    assert!(names_crate("use sled::Db;", "sled"));
    assert!(names_crate("fn f() { sled::open() }", "sled"));
    assert!(!names_crate("fn unsled() { x::sled::y() }", "sled"));
    assert_eq!(
        code_lines("/// unlike sled::Db\n// use sled::Db\nlet a = 1; // sled::x").collect::<Vec<_>>(),
        [(2, "let a = 1; ")]
    );
    assert_eq!(room("src/storage/backend/mod.rs"), Some("storage"));
    assert_eq!(room("src/server.rs"), Some("server"));
    let text = "fn a() {}\n#[cfg(test)]\nfn b() {\n    x\n}\nfn c() {}\n#[cfg(test)]\nmod tests {\n    y\n}\n";
    assert_eq!(test_lines(text), [false, true, true, true, true, false, true, true, true, true]);
    let source =
        Source { path: "src/a/mod.rs".to_owned(), text: "#[cfg(test)]\npub(crate) mod rig;\nmod b;\n".to_owned() };
    assert_eq!(test_modules(&source), ["src/a/rig"]);
    assert_eq!(machine_path(concat!("see /ro", "ot/x")), Some(concat!("/ro", "ot/")));
    assert_eq!(machine_path("go.dev/work/x and a.b/home/c"), None);
}

/// The room a file of `src/` belongs to.
fn room(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    Some(inside.split('/').next()?.trim_end_matches(".rs"))
}

/// Lines with their numbers from 0, comments left out.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(at, line)| (at, line.find(" // ").map_or(line, |end| &line[..=end])))
}

/// The rooms that code names by `crate::ROOM` or `crate::{ROOM, …}`, with their lines.
fn used_rooms(text: &str) -> Vec<(usize, String)> {
    let is_word = |c: char| c.is_ascii_lowercase() || c == '_';
    let lines: Vec<(usize, &str)> = code_lines(text).collect();
    let mut rooms = Vec::new();
    for (position, (at, line)) in lines.iter().enumerate() {
        for rest in line.split("crate::").skip(1) {
            if !rest.starts_with('{') {
                let name: String = rest.chars().take_while(|c| is_word(*c)).collect();
                rooms.extend((!name.is_empty()).then_some((*at, name)));
                continue;
            }
            let group = rest.chars().chain(lines[position + 1..].iter().flat_map(|(_, line)| line.chars()));
            rooms.extend(group_heads(group).into_iter().filter(|name| !name.is_empty()).map(|name| (*at, name)));
        }
    }
    rooms
}

/// The first word of each item of a `{…}` group.
fn group_heads(group: impl Iterator<Item = char>) -> Vec<String> {
    let (mut depth, mut heads, mut is_head) = (0, Vec::new(), false);
    for c in group {
        match c {
            '{' | '}' => depth += if c == '{' { 1 } else { -1 },
            _ if depth == 1 && (c.is_ascii_lowercase() || c == '_') && is_head => {
                if let Some(head) = heads.last_mut() {
                    String::push(head, c);
                }
                continue;
            }
            ' ' => continue,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        is_head = depth == 1 && (c == '{' || c == ',');
        if is_head {
            heads.push(String::new());
        }
    }
    heads
}

/// Whether a line names a crate as the first part of a path.
fn names_crate(line: &str, name: &str) -> bool {
    line.match_indices(&format!("{name}::")).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

/// For each line whether it is compiled for tests only.
fn test_lines(text: &str) -> Vec<bool> {
    let lines: Vec<&str> = text.lines().collect();
    let mut tests = vec![false; lines.len()];
    let mut at = 0;
    while at < lines.len() {
        if lines[at].trim() != "#[cfg(test)]" {
            at += 1;
            continue;
        }
        let indent = lines[at].len() - lines[at].trim_start().len();
        let close = format!("{}}}", " ".repeat(indent));
        let is_end = |line: &str| line == close || (line.ends_with(';') && !line[indent..].starts_with(' '));
        let end = (at + 1..lines.len()).find(|end| lines[*end].len() > indent && is_end(lines[*end]));
        let end = end.unwrap_or(lines.len() - 1);
        tests[at..=end].fill(true);
        at = end + 1;
    }
    tests
}

/// Paths, without `.rs`, of the modules that a file declares for tests only.
fn test_modules(source: &Source) -> Vec<String> {
    let base = source.path.trim_end_matches("/mod.rs").trim_end_matches(".rs");
    let lines: Vec<&str> = source.text.lines().collect();
    let declared = lines.windows(2).filter(|pair| pair[0].trim() == "#[cfg(test)]" && pair[1].ends_with(';'));
    declared
        .filter_map(|pair| pair[1].split("mod ").nth(1))
        .map(|name| format!("{base}/{}", name.trim_end_matches(';')))
        .collect()
}

/// The start of a path that exists on one machine only.
fn machine_path(line: &str) -> Option<&'static str> {
    // Split, so that this file doesn't find itself.
    let starts = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/t", "mp/")];
    starts.into_iter().find(|start| {
        line.match_indices(start).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            !before.is_some_and(|c| c.is_alphanumeric() || "._-}~".contains(c))
        })
    })
}

fn sources(below: &[&str]) -> Vec<Source> {
    files(below, &["rs"])
}

/// The files of these kinds below these directories of the repository.
fn files(below: &[&str], kinds: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for directory in below {
        collect(&root.join(directory), kinds, &mut paths);
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

fn collect(directory: &Path, kinds: &[&str], paths: &mut Vec<PathBuf>) {
    // Not every directory of the list is there yet.
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            // Build output and hidden directories aren't the tree.
            if path.file_name().is_some_and(|name| name != "target" && !name.to_string_lossy().starts_with('.')) {
                collect(&path, kinds, paths);
            }
        } else if path.extension().is_some_and(|kind| kinds.iter().any(|wanted| kind == *wanted)) {
            paths.push(path);
        }
    }
}
