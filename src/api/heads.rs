//! `Heads`: where in what a client sends the next request begins, so that a read brings no more of them than a turn has
//! calls.
//!
//! ```text
//! bytes ─► Preface ─┬► Frames: the length and the kind of each ─► HEADERS? ─► counted; one too many ─► cut before it
//!                   └► Other: HTTP/1.1, which has one request at a time ─► all of it
//! ```
//! The protocol library reads whatever there is before it begins the first of the calls in it, and a call needs 14 bytes:
//! what the kernel has of one socket may be tens of thousands. What a read brought behind the cut waits in `Intake`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// What a client says first on HTTP/2.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes before each frame's payload: three of its length, then its kind.
const HEAD_LEN: usize = 9;
const KIND_AT: usize = 3;
/// The kind of frame that begins a request (or ends one with trailers, which is rare).
const HEADERS: u8 = 1;

/// What comes in on a connection, in turns.
#[derive(Debug)]
pub(super) struct Intake {
    heads: Heads,
    /// Requests that may come before the next turn.
    left: u32,
    /// What was read and is for later turns: no more than one read brings.
    held_back: Vec<u8>,
    /// Bytes of it that were handed on already.
    handed: usize,
}

impl Intake {
    /// One whose first turn has so many requests.
    pub(super) fn new(requests: u32) -> Self {
        Self { heads: Heads::default(), left: requests, held_back: Vec::new(), handed: 0 }
    }

    /// Lets so many more requests come in: a turn begins.
    pub(super) fn allow(&mut self, requests: u32) {
        self.left = requests;
    }

    /// Reads of `stream`, or of what was held back, no further than the turn goes; `false` if that is over.
    ///
    /// # Errors
    /// The stream's.
    pub(super) fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<bool>> {
        let before = buf.filled().len();
        if self.held_back.is_empty() {
            ready!(Pin::new(stream).poll_read(context, buf))?;
            let read = &buf.filled()[before..];
            let passed = self.heads.pass(read, &mut self.left);
            self.held_back.extend_from_slice(&read[passed..]);
            buf.set_filled(before + passed);
            return Poll::Ready(Ok(passed > 0 || self.held_back.is_empty()));
        }
        let waiting = &self.held_back[self.handed..];
        let room = waiting.len().min(buf.remaining());
        let passed = self.heads.pass(&waiting[..room], &mut self.left);
        buf.put_slice(&waiting[..passed]);
        self.handed += passed;
        if self.handed == self.held_back.len() {
            // It is seldom needed.
            self.held_back = Vec::new();
            self.handed = 0;
        }
        Poll::Ready(Ok(passed > 0))
    }
}

/// Where in the stream of bytes a connection is.
#[derive(Debug)]
enum Heads {
    /// So much of the preface was there.
    Preface(usize),
    /// In a frame's head, of which there is so much, or in the rest of its payload.
    Frames { head: [u8; HEAD_LEN], have: usize, payload: usize },
    /// Not HTTP/2.
    Other,
}

impl Default for Heads {
    fn default() -> Self {
        Self::Preface(0)
    }
}

impl Heads {
    /// How many of the bytes that come next go by with at most `left` requests begun, which is counted down.
    ///
    /// Once there are none left the others end before the next request, or before a frame of which it isn't known yet
    /// whether it is one.
    fn pass(&mut self, data: &[u8], left: &mut u32) -> usize {
        let mut at = 0;
        while at < data.len() {
            match self {
                Self::Other => return data.len(),
                Self::Preface(seen) => {
                    let rest = &PREFACE[*seen..];
                    let len = rest.len().min(data.len() - at);
                    if data[at..at + len] != rest[..len] {
                        *self = Self::Other;
                        continue;
                    }
                    at += len;
                    *seen += len;
                    if *seen == PREFACE.len() {
                        *self = Self::Frames { head: [0; HEAD_LEN], have: 0, payload: 0 };
                    }
                }
                Self::Frames { payload, .. } if *payload > 0 => {
                    let len = (*payload).min(data.len() - at);
                    *payload -= len;
                    at += len;
                }
                Self::Frames { head, have, payload } => {
                    if *have == 0 && *left == 0 && data.get(at + KIND_AT).is_none_or(|kind| *kind == HEADERS) {
                        return at;
                    }
                    let len = (HEAD_LEN - *have).min(data.len() - at);
                    head[*have..*have + len].copy_from_slice(&data[at..at + len]);
                    *have += len;
                    at += len;
                    if *have == HEAD_LEN {
                        *have = 0;
                        *payload = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
                        *left = left.saturating_sub(u32::from(head[KIND_AT] == HEADERS));
                    }
                }
            }
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, len: usize) -> Vec<u8> {
        let mut frame = vec![(len >> 16) as u8, (len >> 8) as u8, len as u8, kind, 0, 0, 0, 0, 1];
        frame.resize(HEAD_LEN + len, HEADERS);
        frame
    }

    /// The preface, settings, and calls with a message each, as bytes.
    fn calls(count: usize) -> Vec<u8> {
        let mut bytes = [PREFACE, &frame(4, 6)].concat();
        (0..count).for_each(|at| bytes.extend([frame(HEADERS, at % 7), frame(0, at % 20)].concat()));
        bytes
    }

    #[test]
    fn each_turn_gets_its_requests_however_the_bytes_come() {
        let all = calls(100);
        for step in [1, 2, 3, 5, 9, 10, 64, all.len()] {
            for turn in [1, 7, 64] {
                let (mut heads, mut got, mut turns, mut left) = (Heads::default(), 0, 1, turn);
                while got < all.len() {
                    // What was not let by is shown again, with what came behind it.
                    let upto = (got + step).next_multiple_of(step).min(all.len());
                    let passed = heads.pass(&all[got..upto], &mut left);
                    got += passed;
                    if passed == 0 && left == 0 {
                        turns += 1;
                        left = turn;
                    }
                }
                assert!(turns >= 100_u32.div_ceil(turn), "{turns} turns of {turn}, {step} bytes at a time");
            }
        }
    }

    #[test]
    fn a_turn_ends_before_the_request_that_is_one_too_many_and_not_before_the_messages() {
        let all = calls(3);
        let (mut heads, mut left) = (Heads::default(), 2);
        let upto = heads.pass(&all, &mut left);
        assert_eq!((left, upto), (0, calls(2).len()));
        assert_eq!(heads.pass(&all[upto..], &mut left), 0);
        assert_eq!(heads.pass(&all[upto..upto + KIND_AT], &mut left), 0, "it isn't known what that is");
        // Windows, pings and messages are no requests.
        for kind in [0, 2, 3, 4, 6, 8, 9, 200] {
            let other = frame(kind, 40);
            assert_eq!(heads.pass(&other, &mut left), other.len());
        }
        left = 1;
        assert_eq!((heads.pass(&all[upto..], &mut left), left), (all.len() - upto, 0));
    }

    #[test]
    fn what_one_read_brings_comes_in_by_turns_and_whole() {
        let all = calls(1_000);
        let mut intake = Intake::new(64);
        let mut context = Context::from_waker(std::task::Waker::noop());
        let (mut stream, mut space, mut got, mut turns) = (&all[..], vec![0; all.len()], Vec::new(), 1);
        loop {
            let mut buf = ReadBuf::new(&mut space);
            match intake.poll_read(&mut stream, &mut context, &mut buf) {
                Poll::Ready(Ok(true)) if buf.filled().is_empty() => break,
                Poll::Ready(Ok(true)) => got.extend_from_slice(buf.filled()),
                Poll::Ready(Ok(false)) => {
                    assert!(buf.filled().is_empty() && got.len() < all.len());
                    let mut counted = u32::MAX;
                    Heads::default().pass(&got, &mut counted);
                    assert_eq!(u32::MAX - counted, 64 * turns, "as many as turns have calls");
                    turns += 1;
                    intake.allow(64);
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(got == all && turns == 16 && intake.held_back.capacity() == 0);
    }

    #[test]
    fn another_protocol_goes_by() {
        for other in ["GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/1.0\r\n\r\n\0\0\0\u{1}"] {
            let (mut heads, mut left) = (Heads::default(), 0);
            let (first, rest) = other.as_bytes().split_at(5);
            assert_eq!((heads.pass(first, &mut left), heads.pass(rest, &mut left)), (5, rest.len()));
        }
    }
}
