//! The way in of a connection: frames taken apart, messages put together, events handed out.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use super::frames::{self, ACK, END_STREAM, HEAD, Head};
use super::sender::{Call, Sender};

/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;
/// Received bytes after which the window is given back.
const GIVE_BACK: usize = 256 << 20;

/// What came.
pub(crate) enum Event<'a> {
    /// A message on a call that shows them.
    Message { token: u64, stream: u32, body: &'a [u8] },
    /// The end of a call: `ok` when it was answered.
    End { token: u64, ok: bool, nanos: u64 },
}

/// One connection.
pub(crate) struct Connection {
    pub(super) socket: TcpStream,
    inbox: Vec<u8>,
    filled: usize,
    received: usize,
    sent: usize,
    pub(super) sender: Sender,
}

impl Connection {
    pub(super) fn open(address: SocketAddr, epoch: Instant) -> io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let sender = Sender::new(address.to_string(), epoch);
        Ok(Self { socket, inbox: vec![0; READ_BYTES], filled: 0, received: 0, sent: 0, sender })
    }

    /// Whether bytes wait to be written.
    pub(super) fn is_behind(&self) -> bool {
        self.sent < self.sender.out.len()
    }

    /// Writes as much as the socket takes.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while self.is_behind() {
            match (&self.socket).write(&self.sender.out[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.sender.out.clear();
        self.sent = 0;
        Ok(())
    }

    /// Reads what is there and hands out the events.
    pub(super) fn fill(&mut self, on: &mut impl FnMut(&mut Sender, Event<'_>)) -> io::Result<()> {
        loop {
            if self.filled == self.inbox.len() {
                self.inbox.resize(self.inbox.len() * 2, 0);
            }
            let room = self.inbox.len() - self.filled;
            match (&self.socket).read(&mut self.inbox[self.filled..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.filled += count;
                    self.parse(on)?;
                    if count < room {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn parse(&mut self, on: &mut impl FnMut(&mut Sender, Event<'_>)) -> io::Result<()> {
        let mut at = 0;
        while let Some(head) = Head::read(&self.inbox[at..self.filled]) {
            let start = at + HEAD;
            let Some(payload) = self.inbox[..self.filled].get(start..start + head.length) else { break };
            at = start + head.length;
            self.received += if head.kind == frames::DATA { head.length } else { 0 };
            frame(&mut self.sender, head, payload, on)?;
        }
        self.inbox.copy_within(at..self.filled, 0);
        self.filled -= at;
        if self.received >= GIVE_BACK {
            let more = (self.received as u32).to_be_bytes();
            frames::write(&mut self.sender.out, frames::WINDOW_UPDATE, 0, 0, &more);
            self.received = 0;
        }
        self.sender.resume();
        Ok(())
    }
}

fn frame(
    sender: &mut Sender,
    head: Head,
    payload: &[u8],
    on: &mut impl FnMut(&mut Sender, Event<'_>),
) -> io::Result<()> {
    match head.kind {
        frames::DATA => {
            data(sender, head.stream, payload, on);
            if head.is(END_STREAM) {
                end(sender, head.stream, on);
            }
        }
        frames::HEADERS if head.is(END_STREAM) => end(sender, head.stream, on),
        frames::RST_STREAM => {
            if let Some(call) = sender.calls.get_mut(&head.stream) {
                call.answered = false;
            }
            end(sender, head.stream, on);
        }
        frames::SETTINGS if !head.is(ACK) => {
            settings(sender, payload);
            frames::write(&mut sender.out, frames::SETTINGS, ACK, 0, &[]);
        }
        frames::PING if !head.is(ACK) => frames::write(&mut sender.out, frames::PING, ACK, 0, payload),
        frames::GOAWAY => return Err(io::Error::other("the server said goodbye")),
        frames::WINDOW_UPDATE => {
            if let Ok(by) = <[u8; 4]>::try_from(payload) {
                sender.widen(head.stream, i64::from(u32::from_be_bytes(by) & 0x7fff_ffff));
            }
        }
        _ => {}
    }
    Ok(())
}

fn settings(sender: &mut Sender, payload: &[u8]) {
    for entry in payload.chunks_exact(6) {
        let &[a, b, c, d, e, f] = entry else { continue };
        let value = u32::from_be_bytes([c, d, e, f]);
        match u16::from_be_bytes([a, b]) {
            frames::SETTING_STREAMS_MAX => sender.streams_max = value as usize,
            frames::SETTING_WINDOW => sender.set_stream_window(i64::from(value)),
            _ => {}
        }
    }
}

fn end(sender: &mut Sender, stream: u32, on: &mut impl FnMut(&mut Sender, Event<'_>)) {
    if let Some(Call { token, answered, started, .. }) = sender.calls.remove(&stream) {
        let nanos = sender.now().saturating_sub(started);
        on(sender, Event::End { token, ok: answered, nanos });
    }
}

fn data(sender: &mut Sender, stream: u32, payload: &[u8], on: &mut impl FnMut(&mut Sender, Event<'_>)) {
    let Some(call) = sender.calls.get_mut(&stream) else { return };
    call.answered = true;
    call.received += payload.len();
    if call.received >= GIVE_BACK {
        let more = (call.received as u32).to_be_bytes();
        call.received = 0;
        frames::write(&mut sender.out, frames::WINDOW_UPDATE, 0, stream, &more);
    }
    if !call.shown {
        return;
    }
    let (token, mut partial) = (call.token, std::mem::take(&mut call.partial));
    let rest = if partial.is_empty() {
        messages(sender, token, stream, payload, on)
    } else {
        partial.extend_from_slice(payload);
        let rest = messages(sender, token, stream, &partial, on).len();
        partial.drain(..partial.len() - rest);
        if let Some(call) = sender.calls.get_mut(&stream) {
            call.partial = partial;
        }
        return;
    };
    if let Some(call) = sender.calls.get_mut(&stream).filter(|_| !rest.is_empty()) {
        call.partial = rest.to_vec();
    }
}

/// Hands out the whole messages; returns what is left.
fn messages<'a>(
    sender: &mut Sender,
    token: u64,
    stream: u32,
    mut bytes: &'a [u8],
    on: &mut impl FnMut(&mut Sender, Event<'_>),
) -> &'a [u8] {
    while let Some((&[_, a, b, c, d], rest)) = bytes.split_first_chunk::<5>() {
        let Some((body, rest)) = rest.split_at_checked(u32::from_be_bytes([a, b, c, d]) as usize) else { break };
        on(sender, Event::Message { token, stream, body });
        bytes = rest;
    }
    bytes
}
