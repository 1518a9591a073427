//! Completions and pages of the manual, made of the tables that arguments are read by (`docs/adr/0003`).
//!
//! ```text
//! flags, table of subcommands ─► clap::Command ─┬► clap_complete ─► rusd completions SHELL
//!                                               └► clap_mangen ─► rusd man [SUBCOMMAND]
//! ```

use clap::{Arg, ArgAction, Command};
use clap_complete::Shell;

use super::CliError;
use super::help::value_of;
use super::tools::table::{Own, SUBS, Sub};
use super::version::RUSD_VERSION;
use crate::ops::config::flags::{self, Flag, Kind};

/// What a shell completes by.
///
/// # Errors
/// A shell that isn't known.
pub(super) fn completions(shell: &str) -> Result<String, CliError> {
    let shell: Shell = shell.parse().map_err(|_| CliError::Usage {
        what: format!("{shell:?} is no shell that is known"),
        hint: "rusd completions bash|zsh|fish|elvish|powershell".into(),
    })?;
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command(), "rusd", &mut text);
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// A page of the manual: of the server, or of the subcommand of these words.
///
/// # Errors
/// Words that are no subcommand.
pub(super) fn page(words: &[&str]) -> Result<String, CliError> {
    let command = match words {
        [] => listed(),
        _ => {
            let sub = SUBS.iter().find(|sub| sub.words == words);
            let sub = sub.ok_or_else(|| CliError::Usage {
                what: format!("{:?} is no subcommand", words.join(" ")),
                hint: "rusd --help lists them".into(),
            })?;
            subcommand(sub, ["rusd"].iter().chain(sub.words).copied().collect::<Vec<_>>().join("-"))
        }
    };
    let mut text = Vec::new();
    // Writing to memory can't fail.
    let _ = clap_mangen::Man::new(command).source(format!("rusd {RUSD_VERSION}")).render(&mut text);
    let text = String::from_utf8_lossy(&text);
    Ok(if words.is_empty() { short_synopsis(&text) } else { text.into_owned() })
}

/// All flags of the server follow one by one: two pages of them in brackets come before what one looks for.
fn short_synopsis(page: &str) -> String {
    const HEAD: &str = ".SH SYNOPSIS\n";
    const USAGE: &str = "\\fBrusd\\fR [\\fIflags\\fR]\n.br\n\\fBrusd\\fR \\fIsubcommand\\fR [\\fIflags\\fR]";
    let parts = page.split_once(HEAD).and_then(|(before, rest)| Some((before, rest.split_once("\n.SH")?.1)));
    parts.map_or_else(|| page.to_owned(), |(before, after)| format!("{before}{HEAD}{USAGE}\n.SH{after}"))
}

fn command() -> Command {
    let mut command = server();
    for sub in SUBS {
        match sub.words {
            [word] => command = at(command, word, |_| subcommand(sub, (*word).to_owned())),
            [group, word] => {
                command = at(command, group, |known| known.subcommand(subcommand(sub, (*word).to_owned())));
            }
            // No subcommand has more words.
            _ => {}
        }
    }
    command
}

/// The same with each subcommand by the name of its page.
fn listed() -> Command {
    SUBS.iter().fold(server(), |command, sub| command.subcommand(subcommand(sub, sub.words.join("-"))))
}

fn server() -> Command {
    Command::new("rusd")
        .version(RUSD_VERSION)
        .about("a coordination server that takes etcd's place")
        .disable_help_subcommand(true)
        .arg(Arg::new("config-file").long("config-file").value_name("FILE").help("take everything from a file instead"))
        .args(flags::all().map(server_flag))
}

/// Changes the subcommand of this name, or makes it; what hangs below it stays.
fn at(command: Command, name: &'static str, change: impl FnOnce(Command) -> Command) -> Command {
    match command.find_subcommand(name) {
        Some(_) => command.mut_subcommand(name, change),
        None => command.subcommand(change(Command::new(name))),
    }
}

fn subcommand(sub: &Sub, name: String) -> Command {
    let mut command = Command::new(name).about(sub.help).disable_help_subcommand(true);
    if !sub.arguments.is_empty() {
        command = command.arg(Arg::new("argument").value_name(sub.arguments));
    }
    let own: Vec<&str> = sub.flags().map(|own| own.name).collect();
    command = command.args(sub.flags().map(own_flag));
    if sub.takes_server {
        command = command.args(flags::all().filter(|flag| !own.contains(&flag.name)).map(server_flag));
    }
    command
}

fn own_flag(own: &Own) -> Arg {
    let arg = Arg::new(own.name).help(own.help);
    let arg = match own.name {
        "w" => arg.short('w'),
        name => arg.long(name),
    };
    valued(arg, own.value)
}

fn server_flag(flag: &Flag) -> Arg {
    let arg = valued(Arg::new(flag.name).long(flag.name).help(flag.help), value_of(flag.kind));
    // Said in brackets in both; clap would take it for its own business otherwise.
    if flag.default.is_empty() || flag.kind == Kind::Bool { arg } else { arg.default_value(flag.default) }
}

fn valued(arg: Arg, value: &'static str) -> Arg {
    if value.is_empty() { arg.action(ArgAction::SetTrue) } else { arg.value_name(value).action(ArgAction::Set) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_gets_every_subcommand_and_flag() {
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let text = completions(shell).expect("a shell");
            for word in ["take-over", "exit-code", "listen-client-urls", "completions", "bump-revision"] {
                assert!(text.contains(word), "{shell}: {word}");
            }
        }
        assert!(matches!(completions("cmd"), Err(CliError::Usage { .. })));
    }

    #[test]
    fn each_page_of_the_manual_is_made() {
        let page = |words: &[&str]| page(words).expect("a page");
        let server = page(&[]);
        assert!(server.contains("quota\\-backend\\-bytes") && server.contains("rusd\\-snapshot\\-save(1)"), "{server}");
        let (_, synopsis) = server.split_once(".SH SYNOPSIS").expect("a synopsis");
        assert!(synopsis.split_once(".SH").is_some_and(|(lines, _)| lines.len() < 200), "{synopsis}");
        for sub in SUBS {
            assert!(page(sub.words).contains(&format!("\"rusd {RUSD_VERSION}\"")), "{:?}", sub.words);
        }
        assert!(page(&["import", "take-over"]).contains("without\\-source"));
        assert!(super::page(&["nothing"]).is_err());
    }

    #[test]
    fn the_tables_are_what_clap_takes() {
        command().debug_assert();
    }
}
