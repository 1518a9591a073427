//! The table of subcommands: words, arguments, flags, a line of help for each.
//!
//! What is read, what `--help` tells, what shells complete and what the manual says all come from here.

/// A flag of a subcommand's own.
#[derive(Debug)]
pub(in crate::cli) struct Own {
    /// Without dashes.
    pub(in crate::cli) name: &'static str,
    /// What its value is called; empty if it is on or off.
    pub(in crate::cli) value: &'static str,
    /// One line.
    pub(in crate::cli) help: &'static str,
}

const fn own(name: &'static str, value: &'static str, help: &'static str) -> Own {
    Own { name, value, help }
}

/// A subcommand.
#[derive(Debug)]
pub(in crate::cli) struct Sub {
    /// What it is called by.
    pub(in crate::cli) words: &'static [&'static str],
    /// What stands behind the words.
    pub(in crate::cli) arguments: &'static str,
    /// One line.
    pub(in crate::cli) help: &'static str,
    /// Its own flags, in groups.
    pub(in crate::cli) own: &'static [&'static [Own]],
    /// Whether it takes the server's flags, too.
    pub(in crate::cli) takes_server: bool,
}

impl Sub {
    /// Its own flags.
    pub(in crate::cli) fn flags(&self) -> impl Iterator<Item = &'static Own> {
        self.own.iter().flat_map(|group| group.iter())
    }
}

/// Every subcommand, in the order of `--help`.
pub(in crate::cli) const SUBS: &[Sub] = &[
    sub(&["status"], "", "how a member or a cluster is", &[REMOTE, STATUS]),
    sub(&["doctor"], "", "whether this machine is fit for a member: disk, clock, descriptors, data", &[DOCTOR]),
    sub(&["explain"], "[ERROR]", "what an error means, and what to do", &[]),
    sub(&["snapshot", "save"], "FILE", "save a running server's data", &[REMOTE]),
    sub(&["snapshot", "status"], "FILE", "tell what a snapshot holds", &[WRITE_OUT]),
    sub(&["snapshot", "verify"], "FILE", "read all of a snapshot", &[SKIP_HASH_CHECK]),
    with_server(&["snapshot", "restore"], "FILE", "make a data directory of a snapshot", &[SKIP_HASH_CHECK, IMPORT]),
    with_server(
        &["import"],
        "FILE|DIRECTORY|--from URL",
        "make a data directory of what etcd left, or of a running etcd",
        &[SKIP_HASH_CHECK, IMPORT, REMOTE, FOLLOW],
    ),
    sub(&["import", "take-over"], "", "end an import that follows a running server", &[TAKE_OVER]),
    with_server(&["pod", "start"], "", "run a member as a pod of a StatefulSet", &[REMOTE, POD_START]),
    sub(
        &["pod", "shrink"],
        "",
        "before an upgrade: wait for missing members, remove those that won't have a pod",
        &[REMOTE, POD_SHRINK],
    ),
    sub(&["pod", "users"], "", "make root, and turn authentication on", &[REMOTE, TIMEOUT]),
    sub(&["pod", "backup"], "", "save a snapshot by its time, and remove old ones", &[REMOTE, POD_BACKUP]),
    sub(&["completions"], "SHELL", "what bash, zsh, fish, elvish or powershell complete by", &[]),
    sub(&["man"], "[SUBCOMMAND]", "a page of the manual, as roff", &[]),
];

const fn sub(
    words: &'static [&'static str],
    arguments: &'static str,
    help: &'static str,
    own: &'static [&'static [Own]],
) -> Sub {
    Sub { words, arguments, help, own, takes_server: false }
}

const fn with_server(
    words: &'static [&'static str],
    arguments: &'static str,
    help: &'static str,
    own: &'static [&'static [Own]],
) -> Sub {
    Sub { words, arguments, help, own, takes_server: true }
}

const REMOTE: &[Own] = &[
    own("endpoints", "URLS", "whom to ask, comma-separated [http://127.0.0.1:2379]"),
    own("user", "NAME[:PASSWORD]", "as whom"),
    own("password", "PASSWORD", "better said by ETCDCTL_PASSWORD, which no list of processes shows"),
    own("cacert", "FILE", "the authorities that servers are trusted by"),
    own("cert", "FILE", "the certificate to show"),
    own("key", "FILE", "its key"),
    own("insecure-skip-tls-verify", "", "trust any server"),
    own("dial-timeout", "DURATION", "how long a connection may take [2s]"),
    own("command-timeout", "DURATION", "how long an answer may take [5s]"),
];
const WRITE_OUT: &[Own] =
    &[own("write-out", "FORMAT", "simple, table, json or fields [simple]"), own("w", "FORMAT", "the same")];
const STATUS: &[Own] = &[
    own("cluster", "", "ask all members that the endpoints know of"),
    own("members", "N", "no fewer members than that, or it isn't well"),
    own("watch", "", "again and again"),
    own("interval", "DURATION", "how often [2s]"),
    own("exit-code", "", "end with 1 if anything isn't well"),
    own("write-out", "FORMAT", "simple or json [simple]"),
    own("w", "FORMAT", "the same"),
];
const DOCTOR: &[Own] = &[
    own("data-dir", "DIR", "where the data is, or is to be [default.etcd]"),
    own("wal-dir", "DIR", "where the log is, if elsewhere"),
    own("write-out", "FORMAT", "simple or json [simple]"),
    own("w", "FORMAT", "the same"),
];
const SKIP_HASH_CHECK: &[Own] =
    &[own("skip-hash-check", "", "a file without a checksum is fine; with --from: HashKV isn't compared")];
const IMPORT: &[Own] = &[
    own("bump-revision", "N", "add to all revisions, so that no watcher sees one twice"),
    own("mark-compacted", "", "with it: the revisions before count as compacted"),
    own("source-wal-dir", "DIR", "where etcd's log is, if not in its data directory"),
    own("initial-memory-map-size", "BYTES", "taken and ignored"),
];
const FOLLOW: &[Own] = &[
    own("from", "URLS", "the running server"),
    own("serve", "", "go on as the server afterwards"),
    own("fence", "", "keep the source from writing when taking over [true]"),
];
const TAKE_OVER: &[Own] = &[
    own("data-dir", "DIR", "that of the process that follows"),
    own("without-source", "", "with what is known, if the source is gone"),
];

const POD_START: &[Own] = &[
    own("replicas", "N", "how many pods the StatefulSet has"),
    own("rejoin-after", "DURATION", "how long a removed member waits for its pod's end [5m]"),
    own("replicas-largest", "N", "how many there ever were; if more, one alone begins nothing [RUSD_REPLICAS_LARGEST]"),
];
const TIMEOUT: &[Own] = &[own("timeout", "DURATION", "when to give up [5m]")];
const POD_SHRINK: &[Own] = &[
    own("set", "NAME", "the StatefulSet"),
    own("replicas", "N", "how many pods there will be"),
    own("replicas-before", "N", "how many there were; if more, silence is an error [RUSD_REPLICAS_BEFORE]"),
    own("timeout", "DURATION", "when to give up [5m]"),
];
const POD_BACKUP: &[Own] = &[
    own("dir", "DIR", "where to"),
    own("keep", "N", "how many to keep [7]"),
    own("set", "NAME", "whose they are, in their names; those of others stay"),
];

/// The first word of the subcommand that begins most like this one, if any is like it at all.
pub(in crate::cli) fn nearest(word: &str) -> Option<&'static str> {
    // As for flags.
    const LIKENESS_MIN: f64 = 0.75;
    SUBS.iter()
        .filter_map(|sub| sub.words.first().copied())
        .map(|known| (known, strsim::normalized_damerau_levenshtein(word, known)))
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .filter(|(_, likeness)| *likeness >= LIKENESS_MIN)
        .map(|(known, _)| known)
}

/// The subcommand that arguments begin with, by as many words as fit.
pub(in crate::cli) fn find(words: &[&str]) -> Option<&'static Sub> {
    SUBS.iter().filter(|sub| words.starts_with(sub.words)).max_by_key(|sub| sub.words.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_words_count() {
        let words = |words: &[&str]| find(words).map(|sub| sub.words.len());
        assert_eq!(words(&["import", "take-over", "x"]), Some(2));
        assert_eq!(words(&["import", "x"]), Some(1));
        assert_eq!(words(&["snapshot"]), None);
        assert_eq!(words(&["--name", "status"]), None);
    }
}
