//! `--help`: the flag table, by group.

use std::fmt::Write as _;

use crate::ops::config::flags::{self, Flag, Kind};

/// The whole text.
pub(super) fn text() -> String {
    let mut text = String::from(
        "rusd: a coordination server that takes etcd's place\n\n\
         Usage:\n  rusd [flags]            start a member\n  \
         rusd --version          print the version of etcd that it serves\n  \
         rusd --config-file F    take everything from a YAML or JSON file instead\n\n\
         Each flag has a variable, ETCD_ and its name: --data-dir is ETCD_DATA_DIR.\n",
    );
    for (heading, group) in flags::GROUPS {
        text.push_str(&format!("\n{heading}:\n"));
        for flag in group {
            line(&mut text, flag);
        }
    }
    text
}

fn line(text: &mut String, flag: &Flag) {
    let kind = match flag.kind {
        Kind::Bool => "",
        Kind::Number => " N",
        Kind::Duration => " DURATION",
        Kind::Text => " TEXT",
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
}
