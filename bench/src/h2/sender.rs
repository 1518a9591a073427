//! The way out of a connection: calls, their headers and data, and the windows they must keep.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Instant;

use super::Method;
use super::frames::{self, DATA_MAX, END_HEADERS, END_STREAM, WINDOW};

/// Stream ids are small and each other's neighbours: multiplying spreads them well enough.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, id: u32) {
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// A call under way.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) token: u64,
    pub(super) started: u64,
    /// Whether the row wants to see the messages.
    pub(super) shown: bool,
    pub(super) answered: bool,
    pub(super) received: usize,
    pub(super) partial: Vec<u8>,
    window: i64,
}

/// Something that waits for room.
enum Waiting {
    Data { stream: u32, body: Vec<u8>, end: bool },
    Call { method: Method, body: Vec<u8>, token: u64, shown: bool, end: bool, started: u64 },
}

/// Writes calls into a buffer that the pool sends.
pub(crate) struct Sender {
    pub(super) out: Vec<u8>,
    pub(super) calls: HashMap<u32, Call, BuildHasherDefault<IdHasher>>,
    pub(super) window: i64,
    pub(super) stream_window: i64,
    pub(super) streams_max: usize,
    waiting: VecDeque<Waiting>,
    next_stream: u32,
    authority: String,
    /// What a login gave, for every call.
    pub(super) token: Option<String>,
    /// What the server's table of headers holds, oldest first: names of the common ones, and paths.
    table: Vec<&'static str>,
    epoch: Instant,
}

impl Sender {
    pub(super) fn new(authority: String, epoch: Instant) -> Self {
        let mut out = Vec::with_capacity(1 << 16);
        frames::greet(&mut out);
        Self {
            out,
            calls: HashMap::default(),
            window: WINDOW,
            stream_window: WINDOW,
            streams_max: usize::MAX,
            waiting: VecDeque::new(),
            next_stream: 1,
            authority,
            token: None,
            table: Vec::new(),
            epoch,
        }
    }

    /// Nanoseconds since the pool was made.
    pub(crate) fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// Makes a unary call; its end comes as an event with the token.
    pub(crate) fn call(&mut self, method: Method, body: &[u8], token: u64, shown: bool) {
        self.start(method, body, token, shown, true);
    }

    /// Opens a stream with its first message; its messages come as events with the token.
    pub(crate) fn open(&mut self, method: Method, body: &[u8], token: u64) {
        self.start(method, body, token, true, false);
    }

    fn start(&mut self, method: Method, body: &[u8], token: u64, shown: bool, end: bool) {
        let started = self.now();
        let room = self.waiting.is_empty()
            && self.calls.len() < self.streams_max
            && self.window >= body.len() as i64
            && self.stream_window >= body.len() as i64;
        if room {
            self.launch(method, body, token, shown, end, started);
        } else {
            self.waiting.push_back(Waiting::Call { method, body: body.to_vec(), token, shown, end, started });
        }
    }

    fn launch(&mut self, method: Method, body: &[u8], token: u64, shown: bool, end: bool, started: u64) {
        let stream = self.next_stream;
        self.next_stream += 2;
        self.headers(stream, method);
        let call = Call {
            token,
            started,
            shown,
            answered: false,
            received: 0,
            partial: Vec::new(),
            window: self.stream_window,
        };
        self.calls.insert(stream, call);
        self.data(stream, body, end);
    }

    /// Sends one more message on an open stream.
    pub(crate) fn send(&mut self, stream: u32, body: &[u8]) {
        if self.waiting.is_empty() && self.has_room(stream, body.len()) {
            self.data(stream, body, false);
        } else {
            self.waiting.push_back(Waiting::Data { stream, body: body.to_vec(), end: false });
        }
    }

    fn has_room(&self, stream: u32, length: usize) -> bool {
        let window = self.calls.get(&stream).map_or(i64::MAX, |call| call.window);
        self.window >= length as i64 && window >= length as i64
    }

    fn data(&mut self, stream: u32, body: &[u8], end: bool) {
        debug_assert!(body.len() <= DATA_MAX, "rows send small messages");
        if let Some(call) = self.calls.get_mut(&stream) {
            call.window -= body.len() as i64;
            self.window -= body.len() as i64;
            frames::write(&mut self.out, frames::DATA, if end { END_STREAM } else { 0 }, stream, body);
        }
    }

    pub(super) fn widen(&mut self, stream: u32, by: i64) {
        if stream == 0 {
            self.window += by;
        } else if let Some(call) = self.calls.get_mut(&stream) {
            call.window += by;
        }
    }

    pub(super) fn set_stream_window(&mut self, window: i64) {
        let change = window - self.stream_window;
        self.stream_window = window;
        self.calls.values_mut().for_each(|call| call.window += change);
    }

    /// Sends what waited and has room now, in order.
    pub(super) fn resume(&mut self) {
        while let Some(next) = self.waiting.pop_front() {
            let room = match &next {
                Waiting::Data { stream, body, .. } => self.has_room(*stream, body.len()),
                Waiting::Call { body, .. } => {
                    let length = body.len() as i64;
                    self.calls.len() < self.streams_max && self.window >= length && self.stream_window >= length
                }
            };
            match next {
                next if !room => return self.waiting.push_front(next),
                Waiting::Data { stream, body, end } => self.data(stream, &body, end),
                Waiting::Call { method, body, token, shown, end, started } => {
                    self.launch(method, &body, token, shown, end, started);
                }
            }
        }
    }

    /// Request headers (RFC 7541): written out the first time, by their place in the table after it.
    /// Those that begin with a colon stand first (RFC 9113, 8.3).
    fn headers(&mut self, stream: u32, method: Method) {
        const POST_HTTP: [u8; 2] = [0x83, 0x86];
        const COMMON: [(&str, &[u8]); 3] =
            [("authority", &[0x41]), ("content-type", &[0x5f]), ("te", &[0x40, 2, b't', b'e'])];
        let mut block = Vec::with_capacity(96);
        block.extend(POST_HTTP);
        self.header(&mut block, method, &[0x44], |_| method);
        for (name, start) in COMMON {
            self.header(&mut block, name, start, |sender| match name {
                "authority" => &sender.authority,
                "content-type" => "application/grpc",
                _ => "trailers",
            });
        }
        if self.token.is_some() {
            let name = [0x40, 5, b't', b'o', b'k', b'e', b'n'];
            self.header(&mut block, "token", &name, |sender| sender.token.as_deref().unwrap_or_default());
        }
        frames::write(&mut self.out, frames::HEADERS, END_HEADERS, stream, &block);
    }

    /// One header: its place in the table, or `start` and its value, which then goes into the table.
    fn header(&mut self, block: &mut Vec<u8>, name: &'static str, start: &[u8], value: impl Fn(&Self) -> &str) {
        match self.table.iter().position(|known| *known == name) {
            Some(at) => block.push(self.index(at)),
            None => {
                literal(block, start, value(self));
                self.table.push(name);
            }
        }
    }

    /// The byte that stands for an entry of the table: the newest is 62.
    fn index(&self, at: usize) -> u8 {
        0x80 | (62 + (self.table.len() - 1 - at)) as u8
    }
}

/// A header that goes into the table: its name's bytes, then a value shorter than 127 bytes.
fn literal(block: &mut Vec<u8>, name: &[u8], value: &str) {
    block.extend_from_slice(name);
    block.push(value.len() as u8);
    block.extend_from_slice(value.as_bytes());
}
