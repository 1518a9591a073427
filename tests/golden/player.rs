//! Plays a conversation on one server and writes down its answers.
//!
//! ```text
//! for each step: expand ─► send ─► await what the recording has on each stream ─► lines
//!                                  (when recording: await silence)
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::BodyExt;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use rusd_proto::etcdserverpb::{StatusRequest, StatusResponse};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::timeout;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Status;

use crate::http;
use crate::render::{Known, value_of};
use crate::script::{Script, Step, expand};
use crate::server::{Kind, Server};
use crate::websocket;
use crate::wire::{CallOptions, Schema, Wire, parse, path_of};

/// Longest wait for an answer that should come.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// How long nothing must come where nothing is expected.
const SILENCE: Duration = Duration::from_millis(250);
/// How long nothing must come before a recording goes on.
const SILENCE_RECORDING: Duration = Duration::from_millis(700);

/// An item of a stream: a message, a refusal, or the end.
type Item = Result<Option<Bytes>, Status>;

/// An open stream, by the name that the conversation gave it.
struct Open {
    name: String,
    kind: OpenKind,
    send: Option<UnboundedSender<Bytes>>,
    items: UnboundedReceiver<Item>,
}

/// What goes over a stream.
enum OpenKind {
    /// Messages of these types.
    Messages { input: MessageDescriptor, output: MessageDescriptor },
    /// Lines of JSON, after the status.
    Lines,
}

/// A server with the streams that a conversation has open on it.
pub(crate) struct Player {
    kind: Kind,
    recording: bool,
    server: Server,
    schema: Schema,
    wire: Wire,
    known: Known,
    streams: Vec<Open>,
}

impl Player {
    /// Start a fresh server for a conversation; `None` if there is none to start.
    pub(crate) async fn start(kind: Kind, script: &Script, name: &str, recording: bool) -> Option<Self> {
        let server = Server::start(kind, &script.flags, &format!("golden {name}")).await?;
        let wire = Wire::new(server.connect().await);
        let mut player = Self {
            kind,
            recording,
            server,
            schema: Schema::load(),
            wire,
            known: Known::default(),
            streams: Vec::new(),
        };
        player.learn_ids().await;
        Some(player)
    }

    /// The answer lines of each step; a step for another server keeps its recorded answer.
    ///
    /// # Errors
    /// A step that isn't well formed, with its line.
    pub(crate) async fn play(&mut self, script: &Script) -> Result<Vec<Vec<String>>, String> {
        let mut answers = Vec::new();
        for step in &script.steps {
            let here = match self.kind {
                Kind::Etcd => "etcd",
                Kind::Rusd => "rusd",
            };
            if step.only.as_deref().is_some_and(|only| only != here) {
                answers.push(step.answer.clone());
                continue;
            }
            self.known.masked.clone_from(&step.masked);
            let lines = self.step(step).await.map_err(|error| format!("line {}: {error}", step.line))?;
            answers.push(lines);
        }
        Ok(answers)
    }

    async fn learn_ids(&mut self) {
        let status: StatusResponse = {
            let message = Bytes::from(prost::Message::encode_to_vec(&StatusRequest {}));
            let path = "/etcdserverpb.Maintenance/Status";
            let answer = self.wire.unary(path, message, &CallOptions::default()).await.expect("a server has a status");
            prost::Message::decode(answer).expect("a status can be decoded")
        };
        let header = status.header.unwrap_or_default();
        self.known.variables.insert("self".to_owned(), header.member_id.to_string());
        self.known.variables.insert("cluster".to_owned(), header.cluster_id.to_string());
        let [client, peer] = self.server.urls();
        self.known.variables.insert("client".to_owned(), client);
        self.known.variables.insert("peer".to_owned(), peer);
    }

    async fn step(&mut self, step: &Step) -> Result<Vec<String>, String> {
        let variables = self.known.variables.clone();
        let text = expand(&step.request, &|name| variables.get(name).cloned())?;
        let options = CallOptions {
            gzip: step.gzip,
            metadata: step
                .metadata
                .iter()
                .map(|(key, value)| Ok((key.clone(), expand(value, &|name| variables.get(name).cloned())?)))
                .collect::<Result<_, String>>()?,
        };
        let (word, rest) = text.split_once(' ').unwrap_or((&text, ""));
        let mut lines = Vec::new();
        let mut waited = Duration::ZERO;
        match word {
            "wait" => {
                waited = rest
                    .strip_suffix("ms")
                    .and_then(|ms| ms.parse().ok())
                    .map(Duration::from_millis)
                    .ok_or_else(|| format!("`{rest}` is not a time in ms"))?;
                tokio::time::sleep(waited).await;
            }
            "restart" => {
                self.streams.clear();
                self.server.restart().await;
                self.wire = Wire::new(self.server.connect().await);
            }
            "times" => {
                let (count, call) = rest.split_once(' ').ok_or("how many times?")?;
                let (method, text) = call.split_once(' ').unwrap_or((call, ""));
                for at in 0..count.parse().map_err(|_| format!("`{count}` is not a number"))? {
                    lines = self.call(method, &text.replace('#', &u32::to_string(&at)), &options, None).await?;
                }
            }
            "snapshot" => lines = self.snapshot(&options).await,
            name if self.streams.iter().any(|stream| stream.name == name) => self.send(name, rest)?,
            name if rest.starts_with("= WS ") => self.open_socket(name, &rest[5..], &options),
            name if rest.strip_prefix("= ").is_some_and(|rest| http::parse(rest).is_some()) => {
                self.open_http(name, &rest[2..], &options);
            }
            name if rest.starts_with("= ") => self.open(name, &rest[2..], &options).await?,
            _ if http::parse(&text).is_some() => lines = self.ask(&text, &options, step).await,
            path if path.starts_with('/') => {
                let answer = timeout(ANSWER_MAX, self.wire.unary(path, Bytes::new(), &options)).await;
                lines = vec![match answer {
                    Ok(Ok(bytes)) => format!("< {} bytes", bytes.len()),
                    Ok(Err(status)) => refusal("", &status),
                    Err(_) => "< nothing".to_owned(),
                }];
            }
            method => lines = self.call(method, rest, &options, step.variable.as_ref()).await?,
        }
        let zero_on_own = self.streams.iter().any(|stream| stream.name == word && step.expected_on(word) == 0);
        let silence = if self.recording { SILENCE_RECORDING } else { SILENCE };
        if !self.streams.is_empty() && waited.is_zero() && (self.recording || zero_on_own) {
            tokio::time::sleep(silence).await;
        }
        lines.extend(self.gather(step).await);
        Ok(lines)
    }

    /// One call, awaited to its end.
    async fn call(
        &mut self,
        name: &str,
        text: &str,
        options: &CallOptions,
        variable: Option<&(String, String)>,
    ) -> Result<Vec<String>, String> {
        let method = self.schema.method(name)?;
        let message = parse(method.input(), text)?;
        let path = path_of(&method);
        let mut lines = Vec::new();
        if method.is_server_streaming() {
            let once = futures::stream::iter([message]);
            let mut items = match timeout(ANSWER_MAX, self.wire.streaming(&path, once, options)).await {
                Ok(Ok(items)) => items,
                Ok(Err(status)) => return Ok(vec![refusal("", &status)]),
                Err(_) => return Ok(vec!["< nothing".to_owned()]),
            };
            loop {
                match timeout(ANSWER_MAX, items.next()).await {
                    Ok(Some(Ok(bytes))) => lines.extend(self.answer("", &method.output(), bytes)?),
                    Ok(Some(Err(status))) => lines.push(refusal("", &status)),
                    Ok(None) => break,
                    Err(_) => lines.push("< nothing more".to_owned()),
                }
            }
            return Ok(lines);
        }
        match timeout(ANSWER_MAX, self.wire.unary(&path, message, options)).await {
            Ok(Ok(bytes)) => {
                if let Some((variable, field)) = variable {
                    let message = decode(&method.output(), bytes.clone())?;
                    let value = value_of(&message, field).ok_or_else(|| format!("no `{field}` in the answer"))?;
                    self.known.variables.insert(variable.clone(), value);
                }
                self.answer("", &method.output(), bytes)
            }
            Ok(Err(status)) => Ok(vec![refusal("", &status)]),
            Err(_) => Ok(vec!["< nothing".to_owned()]),
        }
    }

    /// A request over HTTP, awaited to its end.
    async fn ask(&mut self, text: &str, options: &CallOptions, step: &Step) -> Vec<String> {
        let Some(asked) = http::parse(text) else { return Vec::new() };
        let [url, _] = self.server.urls();
        let answer = async {
            let answer = http::send(&url, &asked, &options.metadata).await?;
            Ok::<_, String>(http::lines(&self.known, answer, &step.shown).await)
        };
        match timeout(ANSWER_MAX, answer).await {
            Ok(Ok((lines, text))) => {
                if let Some((variable, field)) = &step.variable
                    && let Some(value) = http::value_of(&text, field)
                {
                    self.known.variables.insert(variable.clone(), value);
                }
                lines
            }
            Ok(Err(error)) => vec![format!("< {error}")],
            Err(_) => vec!["< nothing".to_owned()],
        }
    }

    /// `> name = POST /v3/… [body]`: what is answered comes line by line.
    fn open_http(&mut self, name: &str, text: &str, options: &CallOptions) {
        let Some(asked) = http::parse(text) else { return };
        let [url, _] = self.server.urls();
        let headers = options.metadata.clone();
        let (sink, items) = mpsc::unbounded_channel::<Item>();
        tokio::spawn(async move {
            let answer = http::send(&url, &asked, &headers).await.map_err(Status::unavailable);
            let mut answer = match answer {
                Ok(answer) => answer,
                Err(status) => return drop(sink.send(Err(status))),
            };
            let head = http::head(&answer, &[]).join(" ");
            if sink.send(Ok(Some(head.trim_start_matches("< ").to_owned().into()))).is_err() {
                return;
            }
            let mut waiting = Vec::new();
            // Dropping the answer ends the connection, which happens when nobody takes the lines any more.
            while let Some(Ok(frame)) = answer.body_mut().frame().await {
                waiting.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
                while let Some(end) = waiting.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = waiting.drain(..=end).collect();
                    if sink.send(Ok(Some(line.into()))).is_err() {
                        return;
                    }
                }
            }
            sink.send(Ok(None)).ok();
        });
        self.streams.retain(|stream| stream.name != name);
        self.streams.push(Open { name: name.to_owned(), kind: OpenKind::Lines, send: None, items });
    }

    /// `> name = WS /v3/…`: each message is a line.
    fn open_socket(&mut self, name: &str, path: &str, options: &CallOptions) {
        let [url, _] = self.server.urls();
        let (send, requests) = mpsc::unbounded_channel();
        let (sink, items) = mpsc::unbounded_channel::<Item>();
        tokio::spawn(websocket::run(url, path.to_owned(), options.metadata.clone(), requests, sink));
        self.streams.retain(|stream| stream.name != name);
        self.streams.push(Open { name: name.to_owned(), kind: OpenKind::Lines, send: Some(send), items });
    }

    /// `> name = Service.Method [text]`
    async fn open(&mut self, name: &str, rest: &str, options: &CallOptions) -> Result<(), String> {
        let (method, text) = rest.split_once(' ').unwrap_or((rest, ""));
        let method = self.schema.method(method)?;
        let (send, requests) = mpsc::unbounded_channel();
        let (sink, items) = mpsc::unbounded_channel::<Item>();
        let mut send = Some(send);
        if !method.is_client_streaming() {
            let message = parse(method.input(), text)?;
            // Both ends are here; the drop of the sender closes the request side.
            send.take().map(|send| send.send(message));
        }
        let (wire, path, options) = (self.wire.clone(), path_of(&method), options.clone());
        // The head of the answer may come only with the first message, so nothing is awaited here.
        tokio::spawn(async move {
            match wire.streaming(&path, UnboundedReceiverStream::new(requests), &options).await {
                Ok(mut stream) => {
                    while let Some(item) = stream.next().await {
                        let last = item.is_err();
                        if sink.send(item.map(Some)).is_err() || last {
                            return;
                        }
                    }
                    sink.send(Ok(None)).ok();
                }
                Err(status) => {
                    sink.send(Err(status)).ok();
                }
            }
        });
        self.streams.retain(|stream| stream.name != name);
        let kind = OpenKind::Messages { input: method.input(), output: method.output() };
        self.streams.push(Open { name: name.to_owned(), kind, send, items });
        Ok(())
    }

    fn send(&mut self, name: &str, text: &str) -> Result<(), String> {
        if text == "close" {
            self.streams.retain(|stream| stream.name != name);
            return Ok(());
        }
        let Some(stream) = self.streams.iter_mut().find(|stream| stream.name == name) else { return Ok(()) };
        if text == "half-close" {
            stream.send = None;
            return Ok(());
        }
        let text = if text == "empty" { "" } else { text };
        let message = match &stream.kind {
            OpenKind::Messages { input, .. } => parse(input.clone(), text)?,
            OpenKind::Lines => Bytes::copy_from_slice(text.as_bytes()),
        };
        let open = stream.send.as_ref().ok_or("it takes no more")?;
        // A stream that has ended says so in its items.
        open.send(message).ok();
        Ok(())
    }

    /// What came on the open streams: all that the recording has, and whatever else is there already.
    async fn gather(&mut self, step: &Step) -> Vec<String> {
        let mut lines = Vec::new();
        let mut streams = std::mem::take(&mut self.streams);
        for stream in &mut streams {
            // By watcher: etcd leaves the order among the watchers of a stream to chance.
            let mut messages: Vec<(i64, Vec<String>)> = Vec::new();
            let expected = if self.recording { 0 } else { step.expected_on(&stream.name) };
            let prefix = format!("{} ", stream.name);
            let mut came = 0;
            loop {
                let item = if came < expected {
                    timeout(ANSWER_MAX, stream.items.recv()).await.ok().flatten()
                } else {
                    stream.items.try_recv().ok()
                };
                let Some(item) = item else { break };
                came += 1;
                match item {
                    Ok(Some(bytes)) => messages.push(match &stream.kind {
                        OpenKind::Lines => {
                            let line = http::masked(&self.known, String::from_utf8_lossy(&bytes).trim_end());
                            (0, vec![format!("< {prefix}{line}")])
                        }
                        OpenKind::Messages { output, .. } => match self.answer(&prefix, output, bytes.clone()) {
                            Ok(answer) => (watcher_of(output, bytes), answer),
                            Err(error) => (i64::MAX, vec![format!("< {prefix}{error}")]),
                        },
                    }),
                    Ok(None) => messages.push((i64::MAX, vec![format!("< {prefix}end")])),
                    Err(status) => messages.push((i64::MAX, vec![refusal(&prefix, &status)])),
                }
            }
            messages.sort_by_key(|(watcher, _)| *watcher);
            if step.distinct {
                messages.dedup();
            }
            lines.extend(messages.into_iter().flat_map(|(_, lines)| lines));
        }
        self.streams = streams;
        lines
    }

    fn answer(&self, prefix: &str, kind: &MessageDescriptor, bytes: Bytes) -> Result<Vec<String>, String> {
        let message = decode(kind, bytes)?;
        let mut lines = self.known.lines(&message).into_iter();
        let head = lines.next().unwrap_or_default();
        let mut out = vec![format!("< {prefix}{head}").trim_end().to_owned()];
        out.extend(lines.map(|line| format!("|   {line}")));
        Ok(out)
    }

    /// A snapshot's shape: its bytes differ between servers, the rules for them don't.
    async fn snapshot(&self, options: &CallOptions) -> Vec<String> {
        let once = futures::stream::iter([Bytes::new()]);
        let path = "/etcdserverpb.Maintenance/Snapshot";
        let mut stream = match self.wire.streaming(path, once, options).await {
            Ok(stream) => stream,
            Err(status) => return vec![refusal("", &status)],
        };
        let mut parts: Vec<rusd_proto::etcdserverpb::SnapshotResponse> = Vec::new();
        while let Some(item) = stream.next().await {
            match item.map(prost::Message::decode) {
                Ok(Ok(part)) => parts.push(part),
                Ok(Err(error)) => return vec![format!("< {error}")],
                Err(status) => return vec![refusal("", &status)],
            }
        }
        let Some(last) = parts.pop() else { return vec!["< empty".to_owned()] };
        let mut seen: BTreeMap<&str, bool> = BTreeMap::new();
        let mut digest = Sha256::new();
        let total: u64 = parts.iter().map(|part| part.blob.len() as u64).sum();
        let mut left = total;
        let mut counted_down = true;
        for part in &parts {
            digest.update(&part.blob);
            left -= part.blob.len() as u64;
            counted_down &= part.remaining_bytes == left;
        }
        seen.insert("blobs of at most 32 KiB", parts.iter().all(|part| part.blob.len() <= 32 << 10));
        seen.insert("last blob is the sha256 of the others", last.blob[..] == digest.finalize()[..]);
        seen.insert("no header", parts.iter().chain([&last]).all(|part| part.header.is_none()));
        seen.insert("remaining_bytes counts down", counted_down && last.remaining_bytes == 0);
        seen.insert("size is a multiple of 512", total > 0 && total.is_multiple_of(512));
        let mut lines = vec![format!("< version: {:?}", last.version)];
        lines.extend(seen.iter().map(|(rule, holds)| format!("|   {rule}: {holds}")));
        lines
    }
}

fn decode(kind: &MessageDescriptor, bytes: Bytes) -> Result<DynamicMessage, String> {
    DynamicMessage::decode(kind.clone(), bytes).map_err(|error| format!("not a {}: {error}", kind.name()))
}

/// The watcher that a message is for; 0 on streams without watchers.
fn watcher_of(kind: &MessageDescriptor, bytes: Bytes) -> i64 {
    let field = |message: DynamicMessage| message.get_field_by_name("watch_id")?.as_i64();
    decode(kind, bytes).ok().and_then(field).unwrap_or_default()
}

fn refusal(prefix: &str, status: &Status) -> String {
    format!("< {prefix}error {:?}: {}", status.code(), status.message())
}
