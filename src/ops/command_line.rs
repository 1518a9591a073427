//! This process's command line as anybody may see it: without passwords.
//!
//! ```text
//! --user=root:secret · --user root:secret · --password … · http://name:secret@host ─► the same with (secret)
//! ```

/// What stands where a secret stood.
const HIDDEN: &str = "(secret)";

/// Program and arguments; what isn't UTF-8 is shown as well as it can be.
pub fn shown() -> Vec<String> {
    masked(std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()))
}

/// What a flag's value may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Password,
    NameAndPassword,
    Other,
}

/// By the flag's name, which has its dashes still.
fn kind(flag: &str) -> Value {
    let name = flag.trim_start_matches('-').to_ascii_lowercase();
    if name.len() == flag.len() {
        Value::Other
    } else if name.ends_with("password") {
        Value::Password
    } else if name.ends_with("user") {
        Value::NameAndPassword
    } else {
        Value::Other
    }
}

fn masked(arguments: impl Iterator<Item = String>) -> Vec<String> {
    // What the flag before said of this argument.
    let mut next = Value::Other;
    arguments
        .map(|argument| {
            let held = std::mem::replace(&mut next, Value::Other);
            // A value may begin with a dash; whatever follows such a flag is its value.
            if held != Value::Other {
                return hide(held, &argument);
            }
            match argument.split_once('=') {
                Some((flag, value)) => format!("{flag}={}", hide(kind(flag), value)),
                None => {
                    next = kind(&argument);
                    hide(Value::Other, &argument)
                }
            }
        })
        .collect()
}

fn hide(kind: Value, value: &str) -> String {
    match (kind, value.split_once(':')) {
        (Value::Password, _) => HIDDEN.to_owned(),
        (Value::NameAndPassword, Some((name, _))) => format!("{name}:{HIDDEN}"),
        (Value::NameAndPassword, None) => value.to_owned(),
        (Value::Other, _) => without_user_info(value),
    }
}

/// Where in `text`, which is behind a URL's scheme, the next URL's scheme ends: a password may look like one, so only what
/// an item of a list begins with counts, be it behind a member's name.
fn next_url(text: &str) -> Option<usize> {
    let begins = |before: &str| {
        let item = before.rfind(',').map(|comma| &before[comma + 1..]);
        item.is_some_and(|item| !item.contains([':', '/', '@', '?', '#']))
    };
    text.match_indices("://").map(|(at, _)| at).find(|at| begins(&text[..*at]))
}

/// Whether it is a host with or without a port.
fn is_host(text: &str) -> bool {
    let port = text.rsplit_once(']').map_or(text, |(_, port)| port).split_once(':').map_or("", |(_, port)| port);
    port.bytes().all(|byte| byte.is_ascii_digit())
}

/// A text in which every URL has lost the password before its host.
fn without_user_info(text: &str) -> String {
    let Some((scheme, mut rest)) = text.split_once("://") else { return text.to_owned() };
    let mut shown = scheme.to_owned();
    loop {
        let next = next_url(rest);
        let (part, after) = next.map_or((rest, ""), |at| (&rest[..at], &rest[at + "://".len()..]));
        shown.push_str("://");
        let host_end = part.find(['/', ',', '?', '#']).unwrap_or(part.len());
        // A password may have any of these in it, however wrong that is, so all that may be one goes.
        let whole = part.rfind('@').filter(|at| part[..*at].contains(':'));
        match whole.or_else(|| part[..host_end].rfind('@')) {
            Some(at) => shown.push_str(&format!("{HIDDEN}{}", &part[at..])),
            // What follows may be no URL but the rest of a password: then this is its begin.
            None if next.is_some() && !is_host(&part[..host_end]) => shown.push_str(HIDDEN),
            None => shown.push_str(part),
        }
        if next.is_none() {
            return shown;
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> String {
        masked(line.split(' ').map(str::to_owned)).join(" ")
    }

    #[test]
    fn passwords_are_hidden_in_every_form() {
        for (line, shows) in [
            ("rusd import --user root:pw --serve", "rusd import --user root:(secret) --serve"),
            ("rusd import -user=root:pw:x --serve", "rusd import -user=root:(secret) --serve"),
            ("rusd import --user root --password pw -w json", "rusd import --user root --password (secret) -w json"),
            ("rusd --password=pw=x", "rusd --password=(secret)"),
            ("rusd --password -pw --serve", "rusd --password (secret) --serve"),
            (
                "rusd --discovery-user=me:pw --discovery-password pw",
                "rusd --discovery-user=me:(secret) --discovery-password (secret)",
            ),
            ("rusd --from http://me:pw@h:1,http://h:2/p", "rusd --from http://(secret)@h:1,http://h:2/p"),
            (
                "rusd --initial-cluster=a=http://u:pw@h:1,b=http://i",
                "rusd --initial-cluster=a=http://(secret)@h:1,b=http://i",
            ),
            ("rusd --from=https://u:p@w@h/x", "rusd --from=https://(secret)@h/x"),
            ("rusd --from=https://pw@h/x@y", "rusd --from=https://(secret)@h/x@y"),
            ("rusd --from=http://me:pw/pw@h,http://h:2", "rusd --from=http://(secret)@h,http://h:2"),
            ("rusd --from=http://me:p?pw@h#1", "rusd --from=http://(secret)@h#1"),
            ("rusd --from=http://me:pw://pw@h,http://i", "rusd --from=http://(secret)@h,http://i"),
            (
                "rusd --initial-cluster=a=http://u:p=pw://x@h:1,b=http://v:pw://pw@i",
                "rusd --initial-cluster=a=http://(secret)@h:1,b=http://(secret)@i",
            ),
            ("rusd --from=http://me:pw,w://pw@h", "rusd --from=http://(secret)://(secret)@h"),
            (
                "rusd --initial-cluster=a=http://u:pw,y=z://pw@h:1",
                "rusd --initial-cluster=a=http://(secret)://(secret)@h:1",
            ),
            ("rusd --from=http://me:p,pw@h,http://pw@i", "rusd --from=http://(secret)@h,http://(secret)@i"),
        ] {
            assert_eq!(shown(line), shows);
            assert!(!shows.contains("pw"));
        }
    }

    #[test]
    fn the_rest_is_shown_as_it_is() {
        for line in [
            "rusd --name=user --data-dir /d:e -- password user:x --listen-client-urls=http://127.0.0.1:1 --user",
            "rusd --discovery=https://h/path?mail=a@b",
            "rusd --from=http://[::1]:2379,http://h,https://i:1/p",
            "rusd --initial-cluster=a=http://[fe80::1]:2380,b=http://10.0.0.1:2380",
            "rusd --discovery=https://h/path?from=http://h:1,http://i",
        ] {
            assert_eq!(shown(line), line);
        }
    }
}
