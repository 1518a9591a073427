//! `--help`: the flag table, by group; of a subcommand, its own flags.

use std::fmt::Write as _;

use super::tools::table::{SUBS, Sub};
use crate::ops::config::flags::{self, Flag, Kind};

/// The whole text.
pub(super) fn text() -> String {
    let mut text = String::from(
        "rusd: a coordination server that takes etcd's place\n\n\
         Usage:\n  rusd [flags]            start a member\n  \
         rusd --version          print the version of etcd that it serves\n  \
         rusd --config-file F    take everything from a YAML or JSON file instead\n\n\
         Each flag has a variable, ETCD_ and its name: --data-dir is ETCD_DATA_DIR.\n\nSubcommands:\n",
    );
    for sub in SUBS {
        // Writing to a String can't fail.
        let _ = writeln!(text, "  {}\n        {}", called(sub).trim_start_matches("rusd "), sub.help);
    }
    text.push_str("  rusd SUBCOMMAND --help lists its flags.\n");
    for (heading, group) in flags::GROUPS {
        text.push_str(&format!("\n{heading}:\n"));
        for flag in group {
            line(&mut text, flag);
        }
    }
    text
}

/// A subcommand and its arguments.
fn called(sub: &Sub) -> String {
    let words = [&["rusd"], sub.words].concat().join(" ");
    if sub.arguments.is_empty() { words } else { format!("{words} {}", sub.arguments) }
}

/// How a subcommand is used, in a line.
pub(super) fn usage(sub: &Sub) -> String {
    let words = sub.words.join(" ");
    match sub.flags().next() {
        Some(_) => format!("{} [flags]; rusd {words} --help lists the flags", called(sub)),
        None => called(sub),
    }
}

/// What a subcommand does and takes.
pub(super) fn of(sub: &Sub) -> String {
    let mut text = format!("{}: {}\n", called(sub), sub.help);
    for own in sub.flags() {
        let value = if own.value.is_empty() { String::new() } else { format!(" {}", own.value) };
        // As above.
        let _ = writeln!(text, "  --{}{value}\n        {}", own.name, own.help);
    }
    if sub.takes_server {
        text.push_str("It takes the server's flags, too: rusd --help lists them.\n");
    }
    text
}

/// What a flag's value is called.
pub(super) fn value_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "",
        Kind::Number => "N",
        Kind::Duration => "DURATION",
        Kind::Text => "TEXT",
    }
}

fn line(text: &mut String, flag: &Flag) {
    let kind = match value_of(flag.kind) {
        "" => String::new(),
        value => format!(" {value}"),
    };
    let default = match flag.default {
        "" => String::new(),
        default => format!(" [{default}]"),
    };
    // Writing to a String can't fail.
    let _ = writeln!(text, "  --{}{kind}\n        {}{default}", flag.name, flag.help);
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_every_flag_in_short_lines() {
        let text = super::text();
        for flag in crate::ops::config::flags::all() {
            assert!(text.contains(&format!("  --{}", flag.name)), "{}", flag.name);
        }
        assert!(text.lines().all(|line| line.chars().count() <= 100));
    }

    #[test]
    fn each_subcommand_is_told_of_in_short_lines() {
        for sub in super::SUBS {
            let text = super::of(sub);
            assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
            assert!(super::text().contains(&sub.words.join(" ")), "{:?}", sub.words);
            assert!(super::usage(sub).starts_with("rusd "), "{:?}", sub.words);
        }
    }
}
