//! What differs between any two servers is taken out of an answer: ids, terms, times, addresses.

/// The same with `ID` for ids, `N` for what is counted or measured.
pub(super) fn normal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        // A log line of the client's own; what it means stands in the last line.
        if line.starts_with(r#"{"level":"#) {
            continue;
        }
        let mut line = ids(line).replace("took = ", "took ");
        for before in ["took ", "remaining(", "\"raft_term\":", "\"RaftTerm\" : "] {
            line = blank(&line, before);
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// `ID` for each run of letters and digits that can only be an id or a hash, and for ports of loopback.
fn ids(line: &str) -> String {
    const ID_MIN: usize = 13;
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while !rest.is_empty() {
        let len = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let (word, after) = rest.split_at(len);
        let is_id = len >= ID_MIN && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_port = out.ends_with("127.0.0.1:") && !word.is_empty();
        out.push_str(if is_id || is_port { "ID" } else { word });
        let mut after = after.chars();
        out.extend(after.next());
        rest = after.as_str();
    }
    out
}

/// `N` for what follows `before`, up to a space, a comma or a bracket.
fn blank(line: &str, before: &str) -> String {
    let mut parts = line.split(before);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find([' ', ',', ')', '}']).unwrap_or(part.len());
        out.push_str(before);
        out.push('N');
        out.push_str(&part[end..]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_times_and_ports_are_taken_out() {
        let cases = [
            ("lease 01b4a213a93bce03 granted with TTL(100s)", "lease ID granted with TTL(100s)"),
            ("granted with TTL(100s), remaining(99s)", "granted with TTL(100s), remaining(N)"),
            (
                r#"{"header":{"cluster_id":14841639068965178418,"revision":7,"raft_term":2}}"#,
                r#"{"header":{"cluster_id":ID,"revision":7,"raft_term":N}}"#,
            ),
            (
                "127.0.0.1:33790 is healthy: successfully committed proposal: took = 1.2ms",
                "127.0.0.1:ID is healthy: successfully committed proposal: took N",
            ),
            ("key deadbeef 12", "key deadbeef 12"),
        ];
        for (text, plain) in cases {
            assert_eq!(normal(text), format!("{plain}\n"));
        }
        assert_eq!(normal("{\"level\":\"warn\"}\nError: x"), "Error: x\n");
    }
}
