//! The package: what cargo-deb makes of `[package.metadata.deb]`, and what is generated for it first.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::image::build::{Arch, Source};
use crate::report::{Tried, expect, passed, skipped};
use crate::{debian, sh};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// cargo-deb and its version; without its own xz it takes the machine's.
pub(super) const TOOL: (&str, &str) = ("cargo-deb", "3.8.0");
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What must be in the package, as `dpkg-deb --contents` has it: mode and path; all of it is root's.
const CONTENT: [(&str, &str); 11] = [
    ("-rwxr-xr-x", "./usr/bin/rusd"),
    ("lrwxrwxrwx", "./usr/lib/rusd/bin/etcd -> ../../../bin/rusd"),
    ("-rw-r--r--", "./usr/share/man/man1/rusd.1.gz"),
    ("-rw-r--r--", "./usr/share/man/man1/rusd-snapshot-save.1.gz"),
    ("-rw-r--r--", "./usr/share/bash-completion/completions/rusd"),
    ("-rw-r--r--", "./usr/share/zsh/vendor-completions/_rusd"),
    ("-rw-r--r--", "./usr/share/fish/vendor_completions.d/rusd.fish"),
    ("-rw-r--r--", "./usr/share/doc/rusd/rusd.cdx.json"),
    ("-rw-r--r--", "./usr/share/doc/rusd/copyright"),
    ("-rw-r--r--", "./usr/lib/systemd/system/rusd.service"),
    ("-rw-r--r--", "./etc/default/rusd"),
];

/// Makes the package of a program; `ours` is the same for this processor, and writes the pages.
pub(super) fn build(arch: Arch, program: &Path, ours: &Path, materials: &[u8], source: &Source) -> Result<PathBuf> {
    let dir = program.parent().ok_or("a program without a directory")?.join("package");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(dir.join("man"))?;
    let say = |words: &[&str]| {
        let mut command = Command::new(ours);
        command.args(words);
        sh::output(command)
    };
    let page = |name: &str, text: Vec<u8>| -> Result<()> {
        fs::write(dir.join("man").join(name), text)?;
        sh::output(sh::program("gzip", &dir.join("man"), &["--best", "--no-name", name]))?;
        Ok(())
    };
    page("rusd.1", say(&["man"])?)?;
    for words in subcommands(&String::from_utf8_lossy(&say(&["--help"])?)) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        page(&format!("rusd-{}.1", words.join("-")), say(&[&["man"], &words[..]].concat())?)?;
    }
    for shell in ["bash", "zsh", "fish"] {
        fs::write(dir.join(format!("rusd.{shell}")), say(&["completions", shell])?)?;
    }
    fs::write(dir.join("rusd.cdx.json"), materials)?;
    fs::write(dir.join("changelog.Debian"), changelog(&source.epoch)?)?;
    sh::output(sh::program("gzip", &dir, &["--best", "--no-name", "changelog.Debian"]))?;
    pack(arch, source, &sh::target().join("package"))
}

/// Debian's form of it: the changes themselves are in our own.
fn changelog(epoch: &str) -> Result<String> {
    let mut date = Command::new("date");
    date.args(["--utc", "--rfc-email", "--date", &format!("@{epoch}")]);
    let date = String::from_utf8_lossy(&sh::output(date)?).trim().to_owned();
    Ok(format!(
        "rusd ({VERSION}-1) unstable; urgency=medium\n\n  * See CHANGELOG.md of this version.\n\n \
         -- The rusd authors <authors@rusd.invalid>  {date}\n"
    ))
}

/// The words of each subcommand: a line of two spaces, over its help, which has eight.
fn subcommands(help: &str) -> Vec<Vec<String>> {
    let lines: Vec<&str> = help.lines().skip_while(|line| *line != "Subcommands:").collect();
    let named = lines.windows(2).take_while(|pair| pair[0].starts_with("Subcommands:") || pair[0].starts_with(' '));
    let named = named.filter(|pair| !pair[0].starts_with("   ") && pair[1].starts_with("        "));
    let is_word =
        |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') && !word.starts_with('-');
    named
        .map(|pair| pair[0].split_whitespace().take_while(is_word).map(str::to_owned).collect::<Vec<_>>())
        .filter(|words| !words.is_empty())
        .collect()
}

fn pack(arch: Arch, source: &Source, into: &Path) -> Result<PathBuf> {
    fs::create_dir_all(into)?;
    let mut command = Command::new(sh::target().join("tools/bin/cargo-deb"));
    command.args(["--no-build", "--no-strip", "--locked", "--quiet", "--profile=dist", "--package=rusd"]);
    command.args(["--target", &arch.target()]).arg("--output").arg(into);
    command.env("SOURCE_DATE_EPOCH", &source.epoch).env("CARGO_TARGET_DIR", sh::target()).current_dir(sh::root());
    sh::output(command)?;
    let package = into.join(format!("rusd_{VERSION}-1_{}.deb", arch.name));
    expect(package.is_file(), format!("cargo-deb made no {}", package.display()))?;
    Ok(package)
}

/// What is in it, and what it says of itself.
pub(super) fn content(package: &Path, arch: Arch) -> Tried {
    let ask = |what: &[&str]| -> Result<String> {
        let mut command = Command::new("dpkg-deb");
        command.args(what).arg(package);
        Ok(String::from_utf8_lossy(&sh::output(command)?).into_owned())
    };
    let listed = ask(&["--contents"])?;
    let missing = missing(&listed);
    expect(missing.is_empty(), format!("not there as it should be: {missing:?}\n{listed}"))?;
    // Debian's etcd-server owns these.
    expect(!listed.contains("./usr/bin/etcd"), "it takes a name of etcd's")?;
    let mut field = Command::new("dpkg-deb");
    field.arg("--field").arg(package).arg("Architecture");
    let own = String::from_utf8_lossy(&sh::output(field)?).trim().to_owned();
    expect(own == arch.name, format!("it is for {own}"))?;
    let pages = listed.matches("/man1/rusd").count();
    let bytes = fs::metadata(package)?.len();
    passed(format!(
        "{bytes} bytes, {} files, {pages} pages of the manual",
        listed.lines().filter(|l| !l.ends_with('/')).count()
    ))
}

fn missing(listed: &str) -> Vec<&'static str> {
    let is_there = |(mode, path): &&(&str, &str)| {
        listed.lines().any(|line| {
            let owner = line.split_whitespace().nth(1);
            line.starts_with(mode)
                && matches!(owner, Some("root/root" | "0/0"))
                && line.split_once(" ./").is_some_and(|(_, rest)| Some(rest) == path.strip_prefix("./"))
        })
    };
    CONTENT.iter().filter(|wanted| !is_there(wanted)).map(|(_, path)| *path).collect()
}

/// Whether the same files make the same package.
pub(super) fn again(package: &Path, arch: Arch, source: &Source) -> Tried {
    let dir = sh::target().join("package/again");
    let second = pack(arch, source, &dir)?;
    let is_same = fs::read(package)? == fs::read(second)?;
    fs::remove_dir_all(dir)?;
    expect(is_same, "the same files make another package")?;
    passed("the same bytes")
}

/// Debian's own check of packages; what it calls an error fails.
pub(super) fn lintian(package: &Path) -> Tried {
    if !debian::has("lintian") {
        return skipped("lintian isn't here");
    }
    let mut command = Command::new("lintian");
    command.args(["--allow-root", "--fail-on", "error", "--tag-display-limit", "0"]).arg(package);
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = said.lines().filter(|line| line.starts_with("E:")).count();
    expect(output.status.success(), format!("{errors} errors:\n{said}"))?;
    passed(format!("no error, {} warnings", said.lines().filter(|line| line.starts_with("W:")).count()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subcommands_are_read_from_the_help() {
        let help = "rusd: a server\n\nUsage:\n  rusd [flags]      start\n\nSubcommands:\n  status\n        how it is\n  \
                    snapshot save FILE\n        save it\n  import FILE|--from URL\n        bring it\n  \
                    rusd SUBCOMMAND --help lists its flags.\n\nMember:\n  --name TEXT\n        its name\n";
        let found: Vec<String> = subcommands(help).iter().map(|words| words.join(" ")).collect();
        assert_eq!(found, ["status", "snapshot save", "import"]);
    }

    #[test]
    fn what_is_missing_or_otherwise_is_named() {
        let line = |(mode, path): &(&str, &str)| format!("{mode} 0/0  123 2026-11-26 09:00 {path}\n");
        let all: String = CONTENT.iter().map(line).collect();
        assert!(missing(&all).is_empty());
        let other = all.replace("-rwxr-xr-x", "-rw-r--r--");
        assert_eq!(missing(&other), ["./usr/bin/rusd"]);
        assert_eq!(missing(&all.replace("0/0", "1000/0")).len(), CONTENT.len());
        assert_eq!(missing("").len(), CONTENT.len());
    }
}
