//! Heads of HTTP/2 requests on standard error, for whoever debugs a client; in the form that Go's library has, which
//! etcd's own tests read.
//!
//! Pseudo-headers only: other headers hold tokens.

use std::fmt::Write as _;
use std::io::Write as _;

/// Tells the pseudo-headers of one request: name (with its colon) and value, a line each.
pub fn tell_head<'a>(fields: impl Iterator<Item = (&'static str, &'a str)>) {
    // In one call, so that lines of several threads don't mix; one that can't be written is lost.
    let _ = std::io::stderr().write_all(lines(fields).as_bytes());
}

fn lines<'a>(fields: impl Iterator<Item = (&'static str, &'a str)>) -> String {
    let mut text = String::new();
    for (name, value) in fields {
        // To a text, which takes all.
        let _ = writeln!(text, "http2: decoded hpack field header field {name:?} = {value:?}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_is_a_line_with_both_in_quotes() {
        let text = lines([(":authority", "localhost:2379"), (":path", "/a\"b")].into_iter());
        let want = "http2: decoded hpack field header field \":authority\" = \"localhost:2379\"\n\
                    http2: decoded hpack field header field \":path\" = \"/a\\\"b\"\n";
        assert_eq!(text, want);
    }
}
