//! `Session`: one WebSocket, polled by its connection in turns.
//!
//! ```text
//! socket ─► Decoder ─┬► text ─► Feeder                    ┌ pong, close
//!                    └► ping, close ───────────────────► out ◄─ a frame ◄─ piece of a line ◄─ the answer's body
//! answer ends, a rule is broken, the server ends ─► close ─► the client's close, or LINGER_MAX ─► over
//! ```
//! One frame at a time waits to be written, and the answer is asked for more only then; a long line goes out in parts of
//! a message, so that none is ever gathered.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::Body;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::Sleep;

use super::frames::{Control, Decoder, Heard, Opcode, Violation, head};
use super::pipe::Feeder;
use super::{Call, Upgrade};
use crate::api::grpc::body::ReplyBody;
use crate::api::share::Asked;

/// Bytes read at a time.
const READ_BYTES: usize = 4_096;
/// Steps of a turn, before others get theirs.
const STEPS: usize = 64;
/// How long a client may take to say its own close after ours: what it still sends must not break what it is to read.
const LINGER_MAX: Duration = Duration::from_secs(2);

/// Why a socket is closed, as a number.
const NORMAL: u16 = 1000;
const GOING_AWAY: u16 = 1001;
const PROTOCOL_ERROR: u16 = 1002;

/// What the gateway answers.
enum Answer {
    ToCome(Call),
    Coming(ReplyBody),
    /// There is no more.
    Over,
}

/// How far the end is.
enum End {
    /// There is none in sight.
    Open,
    /// A close is to be sent, and then the client's is waited for if it is ours.
    Closing { close: Option<Control>, linger: Option<Pin<Box<Sleep>>> },
}

/// One WebSocket.
pub(in crate::api) struct Session {
    io: TokioIo<Upgraded>,
    decoder: Decoder,
    feeder: Option<Feeder>,
    answer: Answer,
    /// Of the answer, still to be framed.
    piece: Bytes,
    /// Whether the message that goes out has begun.
    in_message: bool,
    /// A frame on its way: its head, its payload.
    out: [Bytes; 2],
    pong: Option<Control>,
    end: End,
    /// Set when the server ends.
    shutdown: watch::Receiver<bool>,
    /// Whether only the connection itself is to be shut.
    is_over: bool,
    /// Its request's places.
    _asked: Option<Asked>,
}

impl Session {
    /// Takes over the connection that HTTP has let go of.
    ///
    /// # Errors
    /// It wasn't.
    pub(in crate::api) async fn open(upgrade: Upgrade) -> Result<Self, hyper::Error> {
        let Upgrade { on, feeder, call, asked, shutdown } = upgrade;
        let io = TokioIo::new(on.await?);
        Ok(Self {
            io,
            decoder: Decoder::default(),
            feeder: Some(feeder),
            answer: Answer::ToCome(call),
            piece: Bytes::new(),
            in_message: false,
            out: [Bytes::new(), Bytes::new()],
            pong: None,
            end: End::Open,
            shutdown,
            is_over: false,
            _asked: asked,
        })
    }

    /// The server ends: so does the answer, in its own words, if there is one.
    pub(in crate::api) fn go_away(&mut self) {
        if matches!(self.answer, Answer::ToCome(_)) {
            self.close(GOING_AWAY, "", true);
        }
    }

    /// Goes on; ready when it is over.
    ///
    /// # Errors
    /// The socket's, and an answer that broke off.
    pub(in crate::api) fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        for _ in 0..STEPS {
            if self.is_over {
                return Pin::new(&mut self.io).poll_shutdown(context);
            }
            let (heard, said) = (self.poll_in(context)?, self.poll_out(context)?);
            self.is_over = heard == Poll::Ready(false) || said == Poll::Ready(false);
            if heard.is_pending() && said.is_pending() {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Hears some; `false` if the client is gone.
    fn poll_in(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if let Some(feeder) = &self.feeder {
            ready!(feeder.poll_room(context));
        }
        let mut space = [0; READ_BYTES];
        let mut buf = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut self.io).poll_read(context, &mut buf))?;
        if buf.filled().is_empty() {
            return Poll::Ready(Ok(false));
        }
        let mut heard = Heard::default();
        let fed = self.decoder.feed(buf.filled(), &mut heard);
        if let Some(feeder) = &self.feeder {
            feeder.push(heard.text);
        }
        self.pong = heard.ping.or(self.pong.take());
        match (fed, heard.close) {
            // It has nothing more to say, and what it could say isn't understood.
            (Err(Violation(_)), _) if !matches!(self.end, End::Open) => Poll::Ready(Ok(false)),
            (Err(Violation(why)), _) => {
                self.close(PROTOCOL_ERROR, why, false);
                Poll::Ready(Ok(true))
            }
            // The answer to ours.
            (Ok(()), Some(_)) if !matches!(self.end, End::Open) => Poll::Ready(Ok(false)),
            (Ok(()), Some(close)) => {
                let code = close.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]));
                self.close(code.unwrap_or_default(), "", false);
                Poll::Ready(Ok(true))
            }
            (Ok(()), None) => Poll::Ready(Ok(true)),
        }
    }

    /// Ends what is asked, and says so with a code if there is one; `lingers` if the client is to answer.
    fn close(&mut self, code: u16, why: &str, lingers: bool) {
        if !matches!(self.end, End::Open) {
            return;
        }
        let mut close = Control::new();
        if code != 0 {
            close.extend_from_slice(&code.to_be_bytes());
            close.extend_from_slice(why.as_bytes());
        }
        self.answer = Answer::Over;
        self.piece = Bytes::new();
        self.feeder = None;
        let linger = lingers.then(|| Box::pin(tokio::time::sleep(LINGER_MAX)));
        self.end = End::Closing { close: Some(close), linger };
    }

    /// Says some; `false` if all is said.
    fn poll_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while let Some(bytes) = self.out.iter_mut().find(|bytes| !bytes.is_empty()) {
            let written = ready!(Pin::new(&mut self.io).poll_write(context, bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            bytes.advance(written);
        }
        if let End::Closing { close, linger } = &mut self.end {
            if let Some(close) = close.take() {
                self.frame(Opcode::Close, true, Bytes::copy_from_slice(&close));
                return Poll::Ready(Ok(true));
            }
            return match linger {
                Some(linger) => linger.as_mut().poll(context).map(|()| Ok(false)),
                None => Poll::Ready(Ok(false)),
            };
        }
        if let Some(pong) = self.pong.take() {
            self.frame(Opcode::Pong, true, Bytes::copy_from_slice(&pong));
        } else if self.piece.is_empty() {
            ready!(self.poll_answer(context))?;
        } else {
            self.frame_piece();
        }
        Poll::Ready(Ok(true))
    }

    /// Asks for more of the answer.
    fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.answer {
            Answer::ToCome(call) => {
                let response = ready!(call.as_mut().poll(context));
                self.answer = Answer::Coming(response.into_body());
            }
            Answer::Coming(body) => match ready!(Pin::new(body).poll_frame(context)) {
                Some(Ok(frame)) => self.piece = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => {
                    self.answer = Answer::Over;
                    // A refusal has no newline.
                    if std::mem::take(&mut self.in_message) {
                        self.frame(Opcode::Continuation, true, Bytes::new());
                    }
                }
            },
            // The answer may have heard of the server's end before this did.
            Answer::Over => {
                let ends = *self.shutdown.borrow() || self.shutdown.has_changed().is_err();
                self.close(if ends { GOING_AWAY } else { NORMAL }, "", true);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Frames a piece up to the line's end, or as much of the line as there is.
    fn frame_piece(&mut self) {
        let opcode = if self.in_message { Opcode::Continuation } else { Opcode::Text };
        let end = self.piece.iter().position(|byte| *byte == b'\n');
        let payload = self.piece.split_to(end.unwrap_or(self.piece.len()));
        if end.is_some() {
            self.piece.advance(1);
        }
        self.in_message = end.is_none();
        self.frame(opcode, end.is_some(), payload);
    }

    fn frame(&mut self, opcode: Opcode, is_last: bool, payload: Bytes) {
        self.out = [Bytes::copy_from_slice(&head(opcode, is_last, payload.len())), payload];
    }
}
