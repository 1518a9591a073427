//! What Patroni's logs say about its state store: warnings and errors, held against those that it has on etcd.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::Result;

/// What it says on a real etcd, too, on such a day: the beginnings of its warnings and errors.
const ON_ETCD: &[&str] = &[
    // A member, a node or a PostgreSQL that isn't there.
    "Failed to get list of machines from",
    "Request to server http",
    "Request failed to n",
    "Retry got exception: connection problems",
    "Postgresql is not running.",
    "Primary (n",
    // A simple token ends with the member that gave it.
    "Invalid auth token: ",
    // A watch that broke: etcd breaks the connection, rusd says why it ends.
    "watchprefix failed: ProtocolError(",
    "watchprefix failed: <Unavailable error: 'etcdserver: server stopped'",
    // Two members were asked a moment apart, and the second hadn't heard of a new leader yet. It asks another one.
    "Connected to Etcd node with term #. Old known term #.",
    // On a machine that has much else to do.
    "Loop time exceeded, rescheduling immediately.",
    // What was under way at a member that was killed; it is asked for again in the next round.
    "etcd.EtcdException: POST /v#/kv/put request failed",
];

/// The warnings and errors that it wouldn't have on etcd, and how often; prints those that it would.
pub(super) fn strange(run: &Path) -> Result<Vec<String>> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for at in 0..3 {
        let text = fs::read_to_string(run.join(format!("n{at}.log")))?;
        for message in complaints(&text) {
            *counts.entry(normal(message)).or_default() += 1;
        }
    }
    let (known, strange): (Vec<_>, Vec<_>) =
        counts.into_iter().partition(|(message, _)| ON_ETCD.iter().any(|known| message.starts_with(known)));
    let line = |(message, count): (String, usize)| format!("{count} × {message}");
    for known in known.into_iter().map(line) {
        println!("    Patroni's log: {known}");
    }
    Ok(strange.into_iter().map(line).collect())
}

/// The messages of warnings and errors. One without words has an exception's trace behind it, whose last line says what it was.
fn complaints(text: &str) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().collect();
    let last_of_trace = |at: usize| {
        let is_dated = |line: &&str| line.starts_with("20") && line.as_bytes().get(4) == Some(&b'-');
        lines[at + 1..].iter().take_while(|line| !is_dated(line)).last().copied()
    };
    let told = lines.iter().enumerate().filter_map(|(at, line)| Some((at, complaint(line)?)));
    told.map(|(at, message)| if message.is_empty() { last_of_trace(at).unwrap_or(message) } else { message }).collect()
}

/// The message of a warning or an error: `2026-11-26 05:52:33,123 WARNING: MESSAGE`. PostgreSQL's own lines stand in the
/// same file, with a dot in the time.
fn complaint(line: &str) -> Option<&str> {
    let mut words = line.splitn(4, ' ');
    let is_patroni = words.nth(1)?.contains(',');
    let level = words.next()?.strip_suffix(':')?;
    (is_patroni && ["WARNING", "ERROR", "CRITICAL", "FATAL"].contains(&level)).then(|| words.next())?
}

/// Without what differs each time: digits.
fn normal(message: &str) -> String {
    let mut normal = String::new();
    for letter in message.chars() {
        let letter = if letter.is_ascii_digit() { '#' } else { letter };
        if letter != '#' || !normal.ends_with('#') {
            normal.push(letter);
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cause: Patroni tells of some exceptions by their trace alone. Symptom: a day on which a member was killed under a put
    /// was told as `STRANGE 1 × `, and nobody knew what it was.
    #[test]
    fn a_complaint_without_words_is_what_its_trace_ends_with() {
        let text = "2026-11-26 22:08:33,894 ERROR: \nTraceback (most recent call last):\n  File \"a.py\", line 1\n\
                    etcd.EtcdException: POST /v3/kv/put request failed\n2026-11-26 22:08:33,905 INFO: no action\n\
                    2026-11-26 22:08:34,000 ERROR: \n2026-11-26 22:08:34,100 WARNING: words";
        assert_eq!(complaints(text), ["etcd.EtcdException: POST /v3/kv/put request failed", "", "words"]);
    }

    #[test]
    fn complaints_are_found_and_told_apart_by_their_words() {
        let line = "2026-11-26 05:52:33,123 WARNING: Request to 127.0.0.1:13005 failed 2 times";
        let message = complaint(line).map(normal);
        assert_eq!(message.as_deref(), Some("Request to #.#.#.#:# failed # times"));
        assert_eq!(complaint("2026-11-26 05:52:33,123 INFO: no action"), None);
        assert_eq!(complaint("2026-11-26 06:00:13.670 UTC [30058] FATAL:  the database system is starting up"), None);
    }
}
