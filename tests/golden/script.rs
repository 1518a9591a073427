//! The text of a conversation: comments, directives, requests, answers.
//!
//! ```text
//! %flags --quota-backend-bytes=1        flags for the server, before the first step
//! # why this is here                    a comment, kept when recording
//! @only rusd | etcd                     the next step is played on one server only
//! @pending REASON                       rusd doesn't answer so yet: told, counted, and a fault once it does
//! @mask TTL                             fields of the next answer shown as ~
//! @let lease = ID                       take a variable from the next answer (`member.ID`: from within)
//! @meta hasleader true | @gzip          how the next request is sent
//! @show Allow Location                  headers of the next answer over HTTP that are written down
//! @or TEXT | OTHER                      by the recording server OTHER counts as TEXT: which it says is chance there
//! @distinct                             equal messages in a row are one: for what comes by the clock
//! > KV.Range key: "a"                   a call (all messages of a server stream are awaited)
//! > w = Watch.Watch                     open a stream; `> w = M text` opens one that takes a single request
//! > w create_request { key: "a" }       send on it; `> w half-close`, `> w close`
//! > POST /v3/kv/put {"key":"YQ=="}      a request over HTTP; `@meta` are headers; `> w = POST …` opens a stream
//! > w = WS /v3/watch                    opens a WebSocket; `> w {…}` says something on it
//! > w empty                             send the message without fields
//! > times 9 KV.Put key: "k#"            a call many times, with its number for `#`; the last answer counts
//! > wait 300ms                          see what comes; `> restart`: kill and start again; `> snapshot`
//! < header { ids revision: 1 }          an answer; `< w …` one on a stream; `|` goes on
//! < error OutOfRange: text              a refusal; `*` for any text
//! ```
//!
//! In requests `${name}` is a variable, `${x*500}` is x 500 times, `${repeat 3: k# }` is `k0 k1 k2 `,
//! `${byte ff}` a single byte, over HTTP only.

/// One request with what belongs to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Step {
    /// Number of the request's line, from 1.
    pub(crate) line: usize,
    pub(crate) only: Option<String>,
    pub(crate) pending: Option<String>,
    pub(crate) masked: Vec<String>,
    pub(crate) variable: Option<(String, String)>,
    pub(crate) gzip: bool,
    /// What the server that was recorded says by chance, and what it then counts as.
    pub(crate) chance: Option<(String, String)>,
    /// Equal messages one after the other on a stream count as one.
    pub(crate) distinct: bool,
    pub(crate) metadata: Vec<(String, String)>,
    /// Headers of an answer over HTTP that count.
    pub(crate) shown: Vec<String>,
    pub(crate) request: String,
    /// The recorded answer, one element a line, with its `<` or `|`.
    pub(crate) answer: Vec<String>,
}

/// A whole file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    pub(crate) flags: Vec<String>,
    pub(crate) steps: Vec<Step>,
    /// All lines, answers left out; a step's answer belongs after the line of its request.
    frame: Vec<String>,
    /// For each line of the frame that is a request, the step it starts.
    starts: Vec<(usize, usize)>,
}

impl Script {
    /// # Errors
    /// The line and what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut script = Self::default();
        let mut next = Step::default();
        for (at, line) in text.lines().enumerate() {
            let wrong = |what: &str| format!("line {}: {what}: {line}", at + 1);
            if line.starts_with("< ") || line == "<" || line.starts_with('|') {
                script.steps.last_mut().ok_or_else(|| wrong("an answer to nothing"))?.answer.push(line.to_owned());
                continue;
            }
            if let Some(request) = line.strip_prefix("> ") {
                next.line = at + 1;
                request.clone_into(&mut next.request);
                script.starts.push((script.frame.len(), script.steps.len()));
                script.steps.push(std::mem::take(&mut next));
            } else if let Some(flags) = line.strip_prefix("%flags ") {
                script.flags.extend(flags.split_whitespace().map(str::to_owned));
            } else if let Some(directive) = line.strip_prefix('@') {
                next.directive(directive).ok_or_else(|| wrong("unknown directive"))?;
            } else if !line.is_empty() && !line.starts_with('#') {
                return Err(wrong("neither comment, directive, request nor answer"));
            }
            script.frame.push(line.to_owned());
        }
        Ok(script)
    }

    /// The file's text with these answers, one list a step.
    pub(crate) fn with_answers(&self, answers: &[Vec<String>]) -> String {
        let mut text = String::new();
        for (at, line) in self.frame.iter().enumerate() {
            text.push_str(line);
            text.push('\n');
            if let Some((_, step)) = self.starts.iter().find(|(start, _)| *start == at) {
                for answer in answers.get(*step).into_iter().flatten() {
                    text.push_str(answer);
                    text.push('\n');
                }
            }
        }
        text
    }
}

impl Step {
    fn directive(&mut self, text: &str) -> Option<()> {
        let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
        match name {
            "only" if rest == "etcd" || rest == "rusd" => self.only = Some(rest.to_owned()),
            "pending" if !rest.is_empty() => self.pending = Some(rest.to_owned()),
            "mask" if !rest.is_empty() => self.masked.extend(rest.split_whitespace().map(str::to_owned)),
            "show" if !rest.is_empty() => self.shown.extend(rest.split_whitespace().map(str::to_owned)),
            "let" => {
                let (variable, field) = rest.split_once(" = ")?;
                self.variable = Some((variable.to_owned(), field.to_owned()));
            }
            "or" => {
                let (text, other) = rest.split_once(" | ")?;
                self.chance = Some((other.to_owned(), text.to_owned()));
            }
            "gzip" => self.gzip = true,
            "distinct" => self.distinct = true,
            "meta" => {
                let (key, value) = rest.split_once(' ')?;
                self.metadata.push((key.to_owned(), value.to_owned()));
            }
            _ => return None,
        }
        Some(())
    }

    /// Whether an answer is the recorded one.
    pub(crate) fn accepts(&self, answer: &[String]) -> bool {
        let same = |recorded: &String, given: &String| match recorded.strip_suffix('*') {
            Some(start) if start.starts_with("< error ") => given.starts_with(start),
            _ => recorded == given,
        };
        self.answer.len() == answer.len() && self.answer.iter().zip(answer).all(|(r, g)| same(r, g))
    }

    /// How many messages (or ends) of this stream the recorded answer has.
    pub(crate) fn expected_on(&self, stream: &str) -> usize {
        self.answer
            .iter()
            .filter(|line| line.strip_prefix("< ").and_then(|l| l.split(' ').next()) == Some(stream))
            .count()
    }
}

/// Puts variables and repetitions into a request's text.
///
/// # Errors
/// An unknown variable or an unclosed brace.
pub(crate) fn expand(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        out.push_str(&rest[..at]);
        let inner = &rest[at + 2..];
        let end = closing(inner).ok_or_else(|| format!("no closing brace: {text}"))?;
        let (body, after) = (&inner[..end], &inner[end + 1..]);
        out.push_str(&piece(body, variable).ok_or_else(|| format!("`{body}` is not known"))?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn piece(body: &str, variable: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    if let Some((count, text)) = body.strip_prefix("repeat ").and_then(|rest| rest.split_once(": ")) {
        let count: usize = count.parse().ok()?;
        return Some((0..count).map(|at| text.replace('#', &at.to_string())).collect());
    }
    if let Some(byte) = body.strip_prefix("byte ") {
        return char::from_u32(0xe000 + u32::from(u8::from_str_radix(byte, 16).ok()?)).map(String::from);
    }
    if let Some((text, count)) = body.split_once('*') {
        return Some(text.repeat(count.parse().ok()?));
    }
    variable(body)
}

/// Position of the brace that closes the one before the text.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[test]
fn a_script_comes_back_as_it_was() {
    let text = "%flags --a=1 --b\n# why\n\n@mask TTL\n> KV.Range key: \"a\"\n< count: 1\n|   kvs { }\n\n> wait 5ms\n";
    let script = Script::parse(text).expect("it parses");
    assert_eq!(script.flags, ["--a=1", "--b"]);
    assert_eq!(script.steps.len(), 2);
    assert_eq!(script.steps[0].masked, ["TTL"]);
    let answers: Vec<_> = script.steps.iter().map(|step| step.answer.clone()).collect();
    assert_eq!(script.with_answers(&answers), text);
    assert!(Script::parse("< nothing asked").is_err());
    assert!(Script::parse("@nonsense").is_err());
}

#[test]
fn requests_are_expanded() {
    let known = |name: &str| (name == "lease").then(|| "77".to_owned());
    let expanded = expand("a ${lease} ${x*3} ${repeat 2: k { n: # } }", &known);
    assert_eq!(expanded.as_deref(), Ok("a 77 xxx k { n: 0 } k { n: 1 } "));
    assert!(expand("${other}", &known).is_err());
    assert!(expand("${lease", &known).is_err());
}
