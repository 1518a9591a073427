//! `Text`: the tokens of one whole JSON value, with protojson's words for what it alone finds wrong.
//!
//! ```text
//! scan (grammar is right) ─► Text ─► key · string · word · number · '{' '[' ─► parse
//!                               └► not UTF-8, half a surrogate pair: "proto: syntax error (line 1:8): …"
//! ```
//! Positions are counted from the value's first byte, in lines and characters.

use std::borrow::Cow;

/// What is wrong with a value, as protojson says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault(pub(super) String);

/// How much of a value is repeated in a fault's text, in bytes.
const SHOWN_MAX: usize = 4096;

/// A token that isn't an object or an array as a whole.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'a> {
    /// `{`
    Object,
    /// `[`
    Array,
    Null,
    Bool(bool),
    /// As it is written.
    Number(&'a str),
    /// Without its escapes.
    String(Cow<'a, str>),
}

/// A value and how far it was read.
#[derive(Clone, Debug)]
pub(super) struct Text<'a> {
    json: &'a [u8],
    at: usize,
}

impl<'a> Text<'a> {
    /// `json` is one value by the scanner's word.
    pub(super) fn new(json: &'a [u8]) -> Self {
        let mut text = Self { json, at: 0 };
        text.skip_space();
        // What comes before the value isn't counted.
        text.json = &json[text.at..];
        text.at = 0;
        text
    }

    /// The next token of a value, where it begins, and its text for a fault.
    ///
    /// # Errors
    /// A string that is none.
    pub(super) fn token(&mut self) -> Result<(Token<'a>, At), Fault> {
        self.skip_space();
        let start = self.at;
        let token = match self.peek() {
            Some(b'{') => {
                self.at += 1;
                Token::Object
            }
            Some(b'[') => {
                self.at += 1;
                Token::Array
            }
            Some(b'"') => Token::String(self.string()?),
            _ => {
                let rest = &self.json[start..];
                let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
                let len = rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
                self.at += len;
                match std::str::from_utf8(&rest[..len]).unwrap_or_default() {
                    "null" => Token::Null,
                    "true" => Token::Bool(true),
                    "false" => Token::Bool(false),
                    "" => return Err(self.syntax(start, "unexpected token")),
                    number => Token::Number(number),
                }
            }
        };
        Ok((token, At { start, end: self.at }))
    }

    /// The next key of the object that is being read; `None` at its end.
    ///
    /// # Errors
    /// A string that is none.
    pub(super) fn key(&mut self) -> Result<Option<(Cow<'a, str>, At)>, Fault> {
        if !self.goes_on(b'}') {
            return Ok(None);
        }
        let start = self.at;
        if self.peek() != Some(b'"') {
            return Err(self.syntax(start, "unexpected token"));
        }
        let key = self.string()?;
        let at = At { start, end: self.at };
        self.skip_space();
        // A colon, by the grammar.
        self.at += 1;
        Ok(Some((key, at)))
    }

    /// Whether the list that is being read has another element; its end is taken.
    pub(super) fn element(&mut self) -> bool {
        self.goes_on(b']')
    }

    /// Whether the next value is null; then it is taken.
    pub(super) fn null(&mut self) -> bool {
        self.skip_space();
        let is_null = self.json[self.at..].starts_with(b"null");
        if is_null {
            self.at += 4;
        }
        is_null
    }

    /// Passes a value by, whatever it is.
    ///
    /// # Errors
    /// A string that is none.
    pub(super) fn skip(&mut self) -> Result<(), Fault> {
        let mut depth = 0_usize;
        loop {
            self.skip_space();
            match self.peek() {
                Some(b'{' | b'[') => {
                    depth += 1;
                    self.at += 1;
                }
                Some(b'}' | b']') => {
                    depth = depth.saturating_sub(1);
                    self.at += 1;
                }
                Some(b',' | b':') => {
                    self.at += 1;
                    continue;
                }
                None => return Err(Fault("proto: unexpected EOF".into())),
                Some(_) => drop(self.token()?),
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// A fault at a token: `what` with the token's text.
    pub(super) fn fault(&self, at: At, what: &str) -> Fault {
        Fault(format!("proto: ({}): {what}", self.position(at.start)))
    }

    /// A token where there can't be one of its kind.
    pub(super) fn unexpected(&self, at: At) -> Fault {
        self.syntax(at.start, &format!("unexpected token {}", self.raw(at)))
    }

    /// A token as it is written, as far as it is shown.
    pub(super) fn raw(&self, at: At) -> Cow<'a, str> {
        let raw = &self.json[at.start..at.end];
        if raw.len() <= SHOWN_MAX {
            return String::from_utf8_lossy(raw);
        }
        format!("{}…", String::from_utf8_lossy(&raw[..SHOWN_MAX])).into()
    }

    fn syntax(&self, at: usize, what: &str) -> Fault {
        Fault(format!("proto: syntax error ({}): {what}", self.position(at)))
    }

    fn position(&self, at: usize) -> String {
        let before = &self.json[..at.min(self.json.len())];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let begun = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        format!("line {line}:{}", String::from_utf8_lossy(&before[begun..]).chars().count() + 1)
    }

    fn peek(&self) -> Option<u8> {
        self.json.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// Past a comma, or past the end: then it is false.
    fn goes_on(&mut self, end: u8) -> bool {
        self.skip_space();
        if self.peek() == Some(b',') {
            self.at += 1;
            self.skip_space();
        }
        let goes_on = self.peek().is_some_and(|byte| byte != end);
        if !goes_on {
            self.at += 1;
        }
        goes_on
    }

    /// The string that begins here.
    fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        let start = self.at;
        let content = &self.json[start + 1..];
        let plain = content.iter().position(|byte| matches!(byte, b'"' | b'\\')).unwrap_or(content.len());
        let utf8 = |bytes: &'a [u8], text: &Self| {
            std::str::from_utf8(bytes).map_err(|_| text.syntax(start, "invalid UTF-8 in string"))
        };
        let mut out = Cow::Borrowed(utf8(&content[..plain], self)?);
        let mut rest = &content[plain..];
        loop {
            match rest {
                [] => return Err(Fault("proto: unexpected EOF".into())),
                [b'"', ..] => {
                    self.at = self.json.len() - rest.len() + 1;
                    return Ok(out);
                }
                [b'\\', b'u', ..] => {
                    let (character, len) = self.unicode(start, rest)?;
                    out.to_mut().push(character);
                    rest = &rest[len..];
                }
                [b'\\', letter, after @ ..] => {
                    out.to_mut().push(match letter {
                        b'b' => '\u{8}',
                        b'f' => '\u{c}',
                        b'n' => '\n',
                        b'r' => '\r',
                        b't' => '\t',
                        other => char::from(*other),
                    });
                    rest = after;
                }
                _ => {
                    let len = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')).unwrap_or(rest.len()).max(1);
                    out.to_mut().push_str(utf8(&rest[..len], self)?);
                    rest = &rest[len..];
                }
            }
        }
    }

    /// The character of `\uXXXX`, or of two of them that are a pair, and how many bytes they are.
    fn unicode(&self, start: usize, text: &[u8]) -> Result<(char, usize), Fault> {
        let cut = || Fault("proto: unexpected EOF".into());
        let first = hex(text.get(2..6).ok_or_else(cut)?).ok_or_else(cut)?;
        if let Some(character) = char::from_u32(first) {
            return Ok((character, 6));
        }
        let second = text.get(6..12).ok_or_else(cut)?;
        let low = second.strip_prefix(b"\\u").and_then(hex).filter(|low| (0xdc00..0xe000).contains(low));
        match low {
            Some(low) if first < 0xdc00 => {
                let code = 0x1_0000 + ((first - 0xd800) << 10) + (low - 0xdc00);
                Ok((char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 12))
            }
            _ => {
                let shown = String::from_utf8_lossy(second).into_owned();
                Err(self.syntax(start, &format!("invalid escape code {shown:?} in string")))
            }
        }
    }
}

/// Where a token stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    start: usize,
    end: usize,
}

fn hex(digits: &[u8]) -> Option<u32> {
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_lose_their_escapes() {
        for (json, expected) in [
            (r#""plain é""#, "plain é"),
            (r#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{c}\n\r\t"),
            (r#""a\u0041é\u00e9b""#, "aAééb"),
            (r#""\ud83d\ude00!""#, "😀!"),
        ] {
            let mut text = Text::new(json.as_bytes());
            assert_eq!(text.token().map(|(token, _)| token), Ok(Token::String(expected.into())));
        }
    }

    #[test]
    fn what_is_no_text_is_told_with_its_place() {
        let fault = |json: &[u8]| Text::new(json).skip().unwrap_err().0;
        assert_eq!(fault(b"{\n \"a\":\"\xff\"}"), "proto: syntax error (line 2:6): invalid UTF-8 in string");
        assert_eq!(fault(b"{\"a\\n\xff\":1}"), "proto: syntax error (line 1:2): invalid UTF-8 in string");
        assert_eq!(fault(br#"{"a":"\ud800"}"#), "proto: unexpected EOF");
        let pair = "proto: syntax error (line 1:1): invalid escape code \"abcdef\" in string";
        assert_eq!(fault(br#""\ud800abcdef""#), pair);
        assert!(fault(br#""\udc00\udc00""#).contains("invalid escape code"));
    }

    #[test]
    fn a_value_is_passed_by_as_a_whole() {
        let mut text = Text::new(br#"{"a":{"b":[1,{"c":null},"]"]},"d":7}"#);
        assert_eq!(text.token().unwrap().0, Token::Object);
        assert_eq!(text.key().unwrap().unwrap().0, "a");
        text.skip().unwrap();
        assert_eq!(text.key().unwrap().unwrap().0, "d");
        assert_eq!(text.token().unwrap().0, Token::Number("7"));
        assert_eq!(text.key(), Ok(None));
    }
}
