//! `Scanner`: where a JSON value ends in a stream of bytes, and what is wrong with it, in Go's words.
//!
//! ```text
//! bytes, cut anywhere ─► step by step ─┬► ends after so many bytes
//!                                      ├► goes on
//!                                      └► Syntax: "invalid character 'x' looking for beginning of value"
//! ```
//! etcd's gateway reads a body with Go's `encoding/json` before its fields are looked at, so these texts come
//! first, and what follows a whole value is nobody's. The only thing that grows is one byte a level of nesting.

/// Levels of nesting, as in Go.
const DEPTH_MAX: usize = 10_000;

/// Bytes that are no JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Syntax(pub(super) String);

/// What the end of the bytes means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// There was no value.
    Nothing,
    /// The value is whole: a number, which nothing else ends.
    Whole,
    /// The value isn't whole.
    Cut,
}

/// Finds one value. A new one is needed for the next.
#[derive(Clone, Debug)]
pub(super) struct Scanner {
    step: Step,
    within: Vec<Within>,
    is_begun: bool,
}

/// What surrounds the next value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    /// An object, at a key.
    Key,
    /// An object, at a value.
    Value,
    /// An array.
    Array,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Begin,
    BeginOrEmptyArray,
    BeginKeyOrEmptyObject,
    BeginKey,
    End,
    Text,
    Escape,
    /// So many hexadecimal digits are to come.
    Hex(u8),
    Minus,
    Zero,
    Digits,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
    /// A word and how much of it was there.
    Word(&'static str, usize),
}

impl Default for Scanner {
    fn default() -> Self {
        Self { step: Step::Begin, within: Vec::new(), is_begun: false }
    }
}

impl Scanner {
    /// Goes on with `data`: how much of it belongs to the value if that ends in it.
    ///
    /// # Errors
    /// The first byte that can't be.
    pub(super) fn feed(&mut self, data: &[u8]) -> Result<Option<usize>, Syntax> {
        for (at, &byte) in data.iter().enumerate() {
            if self.step == Step::Text && byte >= b' ' && byte != b'"' && byte != b'\\' {
                continue;
            }
            if self.ends_before(byte) {
                return Ok(Some(at));
            }
            self.take(byte)?;
            self.is_begun |= !is_space(byte);
            if self.step == Step::End && self.within.is_empty() && matches!(byte, b'}' | b']') {
                return Ok(Some(at + 1));
            }
        }
        Ok(None)
    }

    /// What it means that nothing more comes.
    pub(super) fn end(&self) -> Ending {
        match self.step {
            _ if !self.is_begun => Ending::Nothing,
            Step::End | Step::Zero | Step::Digits | Step::Fraction | Step::ExponentDigits if self.within.is_empty() => {
                Ending::Whole
            }
            _ => Ending::Cut,
        }
    }

    /// Whether a value outside of everything is over with the byte before this one.
    fn ends_before(&self, byte: u8) -> bool {
        let is_digit = byte.is_ascii_digit();
        self.within.is_empty()
            && match self.step {
                Step::End => true,
                Step::Zero => !matches!(byte, b'.' | b'e' | b'E'),
                Step::Digits => !is_digit && !matches!(byte, b'.' | b'e' | b'E'),
                Step::Fraction => !is_digit && !matches!(byte, b'e' | b'E'),
                Step::ExponentDigits => !is_digit,
                _ => false,
            }
    }

    fn take(&mut self, byte: u8) -> Result<(), Syntax> {
        self.step = match (self.step, byte) {
            (
                Step::Begin | Step::BeginOrEmptyArray | Step::BeginKeyOrEmptyObject | Step::BeginKey | Step::End,
                byte,
            ) if is_space(byte) => self.step,
            (Step::BeginOrEmptyArray, b']') => return self.close(),
            (Step::Begin | Step::BeginOrEmptyArray, byte) => self.begin(byte)?,
            (Step::BeginKeyOrEmptyObject, b'}') => return self.close(),
            (Step::BeginKeyOrEmptyObject | Step::BeginKey, b'"') => Step::Text,
            (Step::BeginKeyOrEmptyObject | Step::BeginKey, byte) => {
                return fault(byte, "looking for beginning of object key string");
            }
            (Step::Text, b'"') => Step::End,
            (Step::Text, b'\\') => Step::Escape,
            (Step::Text, 0..b' ') => return fault(byte, "in string literal"),
            (Step::Text, _) => Step::Text,
            (Step::Escape, b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"') => Step::Text,
            (Step::Escape, b'u') => Step::Hex(4),
            (Step::Escape, byte) => return fault(byte, "in string escape code"),
            (Step::Hex(1), byte) if byte.is_ascii_hexdigit() => Step::Text,
            (Step::Hex(left), byte) if byte.is_ascii_hexdigit() => Step::Hex(left - 1),
            (Step::Hex(_), byte) => return fault(byte, "in \\u hexadecimal character escape"),
            (Step::Minus, b'0') => Step::Zero,
            (Step::Minus, b'1'..=b'9') | (Step::Digits, b'0'..=b'9') => Step::Digits,
            (Step::Minus, byte) => return fault(byte, "in numeric literal"),
            (Step::Zero | Step::Digits, b'.') => Step::Point,
            (Step::Zero | Step::Digits | Step::Fraction, b'e' | b'E') => Step::Exponent,
            (Step::Point | Step::Fraction, b'0'..=b'9') => Step::Fraction,
            (Step::Point, byte) => return fault(byte, "after decimal point in numeric literal"),
            (Step::Exponent, b'+' | b'-') => Step::ExponentSign,
            (Step::Exponent | Step::ExponentSign | Step::ExponentDigits, b'0'..=b'9') => Step::ExponentDigits,
            (Step::Exponent | Step::ExponentSign, byte) => return fault(byte, "in exponent of numeric literal"),
            (Step::Word(word, at), byte) => match word.as_bytes().get(at) {
                Some(expected) if *expected == byte && at + 1 == word.len() => Step::End,
                Some(expected) if *expected == byte => Step::Word(word, at + 1),
                expected => {
                    let expected = char::from(expected.copied().unwrap_or_default());
                    return fault(byte, &format!("in literal {word} (expecting '{expected}')"));
                }
            },
            (Step::End | Step::Zero | Step::Digits | Step::Fraction | Step::ExponentDigits, byte) => {
                return self.after_value(byte);
            }
        };
        Ok(())
    }

    fn begin(&mut self, byte: u8) -> Result<Step, Syntax> {
        Ok(match byte {
            b'{' => self.open(byte, Within::Key, Step::BeginKeyOrEmptyObject)?,
            b'[' => self.open(byte, Within::Array, Step::BeginOrEmptyArray)?,
            b'"' => Step::Text,
            b'-' => Step::Minus,
            b'0' => Step::Zero,
            b'1'..=b'9' => Step::Digits,
            b't' => Step::Word("true", 1),
            b'f' => Step::Word("false", 1),
            b'n' => Step::Word("null", 1),
            byte => return fault(byte, "looking for beginning of value"),
        })
    }

    fn open(&mut self, byte: u8, within: Within, step: Step) -> Result<Step, Syntax> {
        if self.within.len() == DEPTH_MAX {
            return fault(byte, "exceeded max depth");
        }
        self.within.push(within);
        Ok(step)
    }

    fn close(&mut self) -> Result<(), Syntax> {
        self.within.pop();
        self.step = Step::End;
        Ok(())
    }

    fn after_value(&mut self, byte: u8) -> Result<(), Syntax> {
        if is_space(byte) {
            self.step = Step::End;
            return Ok(());
        }
        let Some(within) = self.within.last_mut() else { return fault(byte, "after top-level value") };
        self.step = match (*within, byte) {
            (Within::Key, b':') => {
                *within = Within::Value;
                Step::Begin
            }
            (Within::Key, byte) => return fault(byte, "after object key"),
            (Within::Value, b',') => {
                *within = Within::Key;
                Step::BeginKey
            }
            (Within::Array, b',') => Step::Begin,
            (Within::Value, b'}') | (Within::Array, b']') => return self.close(),
            (Within::Value, byte) => return fault(byte, "after object key:value pair"),
            (Within::Array, byte) => return fault(byte, "after array element"),
        };
        Ok(())
    }
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn fault<T>(byte: u8, what: &str) -> Result<T, Syntax> {
    Err(Syntax(format!("invalid character {} {what}", quoted(byte))))
}

/// A byte as Go quotes it: as the character of that number.
fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        b'\\' => r"'\\'".to_owned(),
        0x07 => r"'\a'".to_owned(),
        0x08 => r"'\b'".to_owned(),
        0x0b => r"'\v'".to_owned(),
        0x0c => r"'\f'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        0..0x20 | 0x7f => format!(r"'\x{byte:02x}'"),
        0x80..=0xa0 | 0xad => format!(r"'\u{byte:04x}'"),
        byte => format!("'{}'", char::from(byte)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the first value of `text` ends, fed in pieces of `step` bytes.
    fn scan(text: &[u8], step: usize) -> Result<Result<usize, Ending>, Syntax> {
        let mut scanner = Scanner::default();
        for (at, piece) in text.chunks(step).enumerate() {
            if let Some(len) = scanner.feed(piece)? {
                return Ok(Ok(at * step + len));
            }
        }
        Ok(Err(scanner.end()))
    }

    #[test]
    fn a_value_ends_where_it_ends_however_it_is_cut() {
        let texts: [(&str, Result<usize, Ending>); 18] = [
            ("{}", Ok(2)),
            (" {\"a\" : [1, {\"b\":null}] , \"c\":\"}\\\"\"}garbage", Ok(36)),
            ("[]{}", Ok(2)),
            ("{} {}", Ok(2)),
            ("truex", Ok(4)),
            ("null ", Ok(4)),
            ("12]", Ok(2)),
            ("1.5e-3 ", Ok(6)),
            ("0x", Ok(1)),
            ("\"a\"b", Ok(3)),
            ("17", Err(Ending::Whole)),
            ("false", Err(Ending::Whole)),
            ("", Err(Ending::Nothing)),
            (" \n\t\r", Err(Ending::Nothing)),
            ("{", Err(Ending::Cut)),
            ("[1", Err(Ending::Cut)),
            ("-", Err(Ending::Cut)),
            ("\"a", Err(Ending::Cut)),
        ];
        for (text, expected) in texts {
            for step in 1..=text.len().max(1) {
                assert_eq!(scan(text.as_bytes(), step), Ok(expected), "{text} by {step}");
            }
        }
    }

    #[test]
    fn faults_read_as_gos() {
        for (text, fault) in [
            (&b"garbage"[..], "'g' looking for beginning of value"),
            (b"{\"a\":1,}", "'}' looking for beginning of object key string"),
            (b"{'a'", "'\\'' looking for beginning of object key string"),
            (b"{\"a\" 1", "'1' after object key"),
            (b"{\"a\":1 \"", "'\"' after object key:value pair"),
            (b"[1 2", "'2' after array element"),
            (b"[1,]", "']' looking for beginning of value"),
            (b"\"\t", "'\\t' in string literal"),
            (b"\"\\x", "'x' in string escape code"),
            (b"\"\\u12g", "'g' in \\u hexadecimal character escape"),
            (b"--", "'-' in numeric literal"),
            (b"1.x", "'x' after decimal point in numeric literal"),
            (b"1ex", "'x' in exponent of numeric literal"),
            (b"1e+x", "'x' in exponent of numeric literal"),
            (b"trux", "'x' in literal true (expecting 'e')"),
            (b"\xef\xbb\xbf{}", "'\u{ef}' looking for beginning of value"),
            (b"\x00", "'\\x00' looking for beginning of value"),
            (b"\x85", "'\\u0085' looking for beginning of value"),
        ] {
            assert_eq!(scan(text, 1), Err(Syntax(format!("invalid character {fault}"))));
        }
    }

    #[test]
    fn nesting_is_bounded() {
        assert_eq!(scan("[".repeat(DEPTH_MAX).as_bytes(), 64), Ok(Err(Ending::Cut)));
        let fault = Syntax("invalid character '[' exceeded max depth".into());
        assert_eq!(scan("[".repeat(DEPTH_MAX + 1).as_bytes(), 64), Err(fault));
    }
}
