//! Frames of RFC 6455: a client's bytes to what it says, and the heads of what is said to it.
//!
//! ```text
//! bytes ─► Decoder ─┬► data, unmasked as it comes and never gathered ─► Heard::text, a newline behind each message
//!                   ├► ping, close ─► Heard
//!                   └► Violation: the connection ends with code 1002
//! ```

use smallvec::SmallVec;

/// Longest payload of a ping or a close.
const CONTROL_MAX: u64 = 125;
/// Longest head: two bytes, eight of a length, four of a mask.
const HEAD_MAX: usize = 14;
const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

/// Kinds of frames that are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    /// More of a message.
    Continuation = 0,
    /// A message of text begins.
    Text = 1,
    /// The end.
    Close = 8,
    /// The answer to a ping.
    Pong = 10,
}

/// A payload of a ping or a close.
pub(super) type Control = SmallVec<[u8; 16]>;

/// The head of a frame that is sent: never masked.
pub(super) fn head(opcode: Opcode, is_last: bool, len: usize) -> SmallVec<[u8; 16]> {
    let mut head = SmallVec::new();
    head.push(if is_last { FIN } else { 0 } | opcode as u8);
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(short), _) if u64::from(short) <= CONTROL_MAX => head.push(short),
        (_, Ok(medium)) => {
            head.push(126);
            head.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            head.push(127);
            head.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    head
}

/// How a client broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Violation(pub(super) &'static str);

/// What came of some bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// Data of messages, each with a newline behind it.
    pub(super) text: Vec<u8>,
    /// The last ping: earlier ones need no answer of their own.
    pub(super) ping: Option<Control>,
    /// The payload of the close; what is behind it isn't looked at.
    pub(super) close: Option<Control>,
}

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Data { is_last: bool },
    Ping,
    Pong,
    Close,
}

/// Reads a client's frames.
#[derive(Debug)]
pub(super) struct Decoder {
    head: SmallVec<[u8; HEAD_MAX]>,
    payload: Option<Payload>,
    /// Whether a message has begun and not ended.
    in_message: bool,
}

/// A frame of which the head is there.
#[derive(Debug)]
struct Payload {
    kind: Kind,
    left: u64,
    mask: [u8; 4],
    /// Bytes that were unmasked.
    at: usize,
    control: Control,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { head: SmallVec::new(), payload: None, in_message: false }
    }
}

impl Decoder {
    /// Takes in what comes next.
    ///
    /// # Errors
    /// What no client may say; nothing is to be fed afterwards.
    pub(super) fn feed(&mut self, mut data: &[u8], heard: &mut Heard) -> Result<(), Violation> {
        while heard.close.is_none() {
            if let Some(payload) = &mut self.payload {
                let len = usize::try_from(payload.left).unwrap_or(usize::MAX).min(data.len());
                let (now, later) = data.split_at(len);
                payload.take(now, heard);
                data = later;
                if payload.left > 0 {
                    return Ok(());
                }
                if let Some(Payload { kind, control, .. }) = self.payload.take() {
                    self.end(kind, control, heard)?;
                }
                continue;
            }
            let Some((byte, later)) = data.split_first() else { return Ok(()) };
            self.head.push(*byte);
            data = later;
            self.begin()?;
        }
        Ok(())
    }

    /// Looks at a head to which a byte was added.
    fn begin(&mut self) -> Result<(), Violation> {
        let [first, second, rest @ ..] = &self.head[..] else { return Ok(()) };
        let (first, second, len) = (*first, *second, second & !MASKED);
        if rest.is_empty() {
            return self.check(first, second);
        }
        let len_bytes = match len {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if rest.len() < len_bytes + 4 {
            return Ok(());
        }
        let (long, mask) = rest.split_at(len_bytes);
        let left = match len {
            126 | 127 => long.iter().fold(0, |len, byte| len << 8 | u64::from(*byte)),
            len => u64::from(len),
        };
        if left >> 63 != 0 {
            return Err(Violation("a frame without end"));
        }
        let kind = match first & 0xf {
            8 => Kind::Close,
            9 => Kind::Ping,
            10 => Kind::Pong,
            _ => Kind::Data { is_last: first & FIN != 0 },
        };
        let mask = <[u8; 4]>::try_from(mask).unwrap_or_default();
        self.payload = Some(Payload { kind, left, mask, at: 0, control: Control::new() });
        self.head.clear();
        Ok(())
    }

    /// Whether a frame may begin so, here.
    fn check(&mut self, first: u8, second: u8) -> Result<(), Violation> {
        let (is_last, len) = (first & FIN != 0, u64::from(second & !MASKED));
        if first & RESERVED != 0 {
            return Err(Violation("a reserved bit is set"));
        }
        match first & 0xf {
            0 if !self.in_message => return Err(Violation("a continuation of nothing")),
            1 | 2 if self.in_message => return Err(Violation("a message within a message")),
            0..=2 => self.in_message = true,
            8..=10 if !is_last => return Err(Violation("a control frame in parts")),
            8..=10 if len > CONTROL_MAX => return Err(Violation("a control frame that is too long")),
            8..=10 => {}
            _ => return Err(Violation("an unknown kind of frame")),
        }
        if second & MASKED == 0 { Err(Violation("a frame without a mask")) } else { Ok(()) }
    }

    fn end(&mut self, kind: Kind, control: Control, heard: &mut Heard) -> Result<(), Violation> {
        match kind {
            Kind::Data { is_last: true } => {
                self.in_message = false;
                heard.text.push(b'\n');
            }
            Kind::Data { is_last: false } | Kind::Pong => {}
            Kind::Ping => heard.ping = Some(control),
            Kind::Close => {
                check_close(&control)?;
                heard.close = Some(control);
            }
        }
        Ok(())
    }
}

impl Payload {
    fn take(&mut self, data: &[u8], heard: &mut Heard) {
        let (mask, at) = (self.mask, self.at);
        let plain = data.iter().enumerate().map(|(offset, byte)| byte ^ mask[(at + offset) % 4]);
        match self.kind {
            Kind::Data { .. } => heard.text.extend(plain),
            // Bounded by its head.
            Kind::Ping | Kind::Close => self.control.extend(plain),
            Kind::Pong => {}
        }
        self.left -= data.len() as u64;
        self.at = (at + data.len()) % 4;
    }
}

/// The codes that a client may close with, and that it says why in text.
fn check_close(payload: &[u8]) -> Result<(), Violation> {
    let [high, low, why @ ..] = payload else { return Ok(()) };
    match u16::from_be_bytes([*high, *low]) {
        1000..=1003 | 1007..=1013 | 3000..=4999 if std::str::from_utf8(why).is_ok() => Ok(()),
        1000..=1003 | 1007..=1013 | 3000..=4999 => Err(Violation("a close whose reason is no text")),
        _ => Err(Violation("a close with a bad code")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [7, 99, 200, 1];

    /// A client's frame.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            len @ 0..=125 => frame.push(MASKED | len as u8),
            len @ 126..=65_535 => frame.extend([&[MASKED | 126][..], &(len as u16).to_be_bytes()].concat()),
            len => frame.extend([&[MASKED | 127][..], &(len as u64).to_be_bytes()].concat()),
        }
        frame.extend(MASK);
        frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ MASK[at % 4]));
        frame
    }

    fn decoded(bytes: &[u8], step: usize) -> Result<Heard, Violation> {
        let (mut decoder, mut heard) = (Decoder::default(), Heard::default());
        for part in bytes.chunks(step) {
            decoder.feed(part, &mut heard)?;
        }
        Ok(heard)
    }

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let long = "x".repeat(70_000);
        let all = [
            frame(0x81, b"one"),
            frame(0x01, b"two "),
            frame(0x89, b"are you there?"),
            frame(0x00, b""),
            frame(0x80, b"parts"),
            frame(0x8a, b"unasked"),
            frame(0x82, &[b'y'; 300]),
            frame(0x81, long.as_bytes()),
            frame(0x81, b""),
            frame(0x88, &[3, 0xe8, b'b', b'y', b'e']),
            vec![0xff; 10],
        ]
        .concat();
        let expected = Heard {
            text: format!("one\ntwo parts\n{}\n{long}\n\n", "y".repeat(300)).into_bytes(),
            ping: Some(Control::from_slice(b"are you there?")),
            close: Some(Control::from_slice(b"\x03\xe8bye")),
        };
        for step in [1, 2, 3, 7, 100, 4_096, all.len()] {
            assert!(decoded(&all, step).as_ref() == Ok(&expected), "{step} bytes at a time");
        }
    }

    #[test]
    fn whoever_breaks_the_rules_is_told_which() {
        let unmasked = vec![0x81, 1, b'x'];
        let endless = [&[0x81, MASKED | 127][..], &[0xff; 8], &MASK].concat();
        for (bytes, why) in [
            (frame(0xc1, b""), "a reserved bit is set"),
            (frame(0x83, b""), "an unknown kind of frame"),
            (frame(0x8b, b""), "an unknown kind of frame"),
            (frame(0x80, b""), "a continuation of nothing"),
            ([frame(0x01, b"a"), frame(0x81, b"b")].concat(), "a message within a message"),
            (frame(0x09, b""), "a control frame in parts"),
            (frame(0x89, &[0; 126]), "a control frame that is too long"),
            (unmasked, "a frame without a mask"),
            (endless, "a frame without end"),
            (frame(0x88, &999_u16.to_be_bytes()), "a close with a bad code"),
            (frame(0x88, &[3, 0xe8, 0xff]), "a close whose reason is no text"),
        ] {
            assert_eq!(decoded(&bytes, bytes.len()), Err(Violation(why)));
            assert_eq!(decoded(&bytes, 1), Err(Violation(why)));
        }
        // As etcd takes them.
        for payload in [&b""[..], b"x"] {
            assert!(decoded(&frame(0x88, payload), 1).is_ok_and(|heard| heard.close.is_some()));
        }
    }

    #[test]
    fn heads_have_the_shortest_length_that_there_is() {
        for (len, expected) in [
            (0, &[0x81, 0][..]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (65_535, &[0x81, 126, 0xff, 0xff]),
            (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            assert_eq!(&head(Opcode::Text, true, len)[..], expected);
        }
        assert_eq!(&head(Opcode::Continuation, false, 1)[..], [0, 1]);
        assert_eq!(&head(Opcode::Close, true, 2)[..], [0x88, 2]);
        assert_eq!(&head(Opcode::Pong, true, 0)[..], [0x8a, 0]);
    }
}
