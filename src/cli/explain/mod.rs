//! `rusd explain ERROR`: what an error of etcd's or rusd's means, and what to do.
//!
//! ```text
//! what was typed or pasted ─► lower case, one space ─► the longest known text inside it, or the one that it is inside
//!                                                  └─► none: those that are most like it
//! ```

mod table;

use std::fmt::Write as _;

use self::table::{ENTRIES, Entry};
use super::CliError;

/// Letters that a part of a text must have to stand for all of it.
const PART_CHARS_MIN: usize = 6;
/// Columns of what is printed.
const WIDTH: usize = 100;
/// As many are offered where none fits.
const OFFERED: usize = 3;

/// What there is to say of an error, or the list of those that are known if none is named.
///
/// # Errors
/// A text that isn't known, with those that are most like it.
pub(super) fn text(error: &str) -> Result<String, CliError> {
    let error = plain(error);
    if error.is_empty() {
        let texts = ENTRIES.iter().flat_map(|entry| entry.texts);
        return Ok(texts.fold("rusd explain ERROR knows:\n".to_owned(), |text, known| text + "  " + known + "\n"));
    }
    match find(&error) {
        Some((known, entry)) => Ok(shown(known, entry)),
        None => Err(CliError::Usage {
            what: format!("{error:?} is no error that is known"),
            hint: format!("like it are: {}; rusd explain lists all", nearest(&error).join("; ")),
        }),
    }
}

fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

/// The entry, by its text that fits best.
fn find(error: &str) -> Option<(&'static str, &'static Entry)> {
    let known = || ENTRIES.iter().flat_map(|entry| entry.texts.iter().map(move |text| (*text, entry)));
    let within = known().filter(|(text, _)| error.contains(&plain(text))).max_by_key(|(text, _)| text.len());
    let part = || {
        let texts = known().filter(|(text, _)| error.chars().count() >= PART_CHARS_MIN && plain(text).contains(error));
        texts.min_by_key(|(text, _)| text.len())
    };
    within.or_else(part)
}

fn nearest(error: &str) -> Vec<&'static str> {
    let mut texts: Vec<_> = ENTRIES
        .iter()
        .flat_map(|entry| entry.texts)
        .map(|text| (strsim::sorensen_dice(&plain(text), error), *text))
        .collect();
    texts.sort_by(|a, b| b.0.total_cmp(&a.0));
    texts.into_iter().take(OFFERED).map(|(_, text)| text).collect()
}

fn shown(known: &str, entry: &Entry) -> String {
    let mut text = String::new();
    for (head, body) in [("error", known), ("means", entry.means), ("do", entry.remedy)] {
        for (at, line) in wrapped(body, WIDTH - 8).iter().enumerate() {
            // Writing to a String can't fail.
            let _ = writeln!(text, "{:<8}{line}", if at == 0 { head } else { "" });
        }
    }
    text
}

/// Lines of `width` columns at most, cut between words.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let Some(line) = lines.last_mut() else { continue };
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pasted_is_found() {
        for (pasted, known) in [
            ("rpc error: code = ResourceExhausted desc = etcdserver: mvcc: database space exceeded", "space exceeded"),
            ("Error: etcdserver: request timed out,  possibly due to connection lost", "connection lost"),
            ("{\"level\":\"warn\",\"error\":\"etcdserver: no leader\"}", "no leader"),
            ("UNHEALTHY cluster", "unhealthy cluster"),
            ("dial tcp 10.0.0.1:2379: connect: connection refused", "connection refused"),
            ("invalid peer certificate: certificate expired: verification time 1 (UNIX)", "certificate expired"),
            ("received fatal alert: CertificateExpired", "alert: CertificateExpired"),
            ("invalid peer certificate: UnknownIssuer", "UnknownIssuer"),
            ("data directory d: can't make d: Permission denied (os error 13)", "(os error 13)"),
            ("Error: etcdserver: permission denied", "etcdserver: permission denied"),
            ("permission denied", "etcdserver: permission denied"),
            ("make a segment in d/member/wal at byte 0: no storage space", "no storage space"),
            ("memberID:1 alarm:NOSPACE", "alarm:NOSPACE"),
            ("CORRUPT", "alarm:CORRUPT"),
        ] {
            let text = text(pasted).expect("known");
            assert!(text.lines().next().is_some_and(|line| line.ends_with(known)), "{pasted}: {text}");
            assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
            assert!(text.contains("\ndo      "), "{text}");
        }
        assert!(text("no").is_err(), "two letters stand for nothing");
        let error = text("databse space exceded").expect_err("unknown").to_string();
        assert!(error.contains("etcdserver: mvcc: database space exceeded"), "{error}");
    }

    /// A refusal that is added needs its explanation, too.
    #[test]
    fn every_refusal_is_explained() {
        let source = include_str!("../../types/error.rs");
        let (requests, _) = source.split_once("pub enum StorageError").expect("the refusals come first");
        let texts: Vec<_> = requests.lines().filter_map(|line| line.trim().strip_prefix("#[error(\"")).collect();
        assert!(texts.len() > 50, "{}", texts.len());
        for text in texts {
            let text =
                text.trim_end_matches("\")]").split(['{', '(']).next().expect("a part").trim_end_matches([':', ' ']);
            let found = find(&plain(text)).map(|(known, _)| plain(known));
            // Not by a shorter text that happens to be inside.
            assert!(found.is_some_and(|known| known.contains(&plain(text))), "{text}");
        }
        for entry in ENTRIES {
            assert!(!entry.means.is_empty() && !entry.remedy.is_empty(), "{:?}", entry.texts);
        }
        assert_eq!(text("").expect("a list").lines().count(), 1 + ENTRIES.iter().map(|e| e.texts.len()).sum::<usize>());
    }
}
