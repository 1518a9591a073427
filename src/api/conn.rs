//! One connection: which protocol it speaks, how its calls run, and that it doesn't crowd out others.
//!
//! ```text
//! bytes ─► Socket ─► hyper (h2 prior knowledge, or HTTP/1.1) ─► Door ─┬► grpc::service
//!                 │                                                   └► http: pages, and the JSON gateway
//!                 └ after HTTP: websocket::Session
//! a turn = at most CALLS_A_TURN calls, or TURN_MAX, then what was written
//!          goes out and the connection to the back of the queue (`turns`)
//!          the next one begins only if the socket takes something
//! ```
//! A call is polled once at the place where it is accepted. Most are ready then (a read of published
//! state waits for nothing), and need no task of their own; the others are spawned.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::header::ORIGIN;
use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Instant;

use super::auth::{Visitor, Whence};
use super::closing::Closing;
use super::entrance::Caller;
use super::grpc::body::{BodyError, ReplyBody};
use super::grpc::head::{self, Head};
use super::grpc::request::CallBody;
use super::grpc::service;
use super::http::{self as pages, Pages, WebPolicy};
use super::methods::Method;
use super::resting::HeadTimer;
use super::riding::ConnBody;
use super::services::Services;
use super::share::{Asked, Patience, Share, Unknown};
use super::socket::{CALLS_A_TURN, Socket, Standing};
use super::turns::{Gate, InTurn, Turns};
use super::websocket::{self, Session, Switch};
use super::{errors, gateway, recipes};
use crate::ops::logging::tell_head;
use crate::types::RequestError;

/// Pieces of answers that may wait for a socket that takes little, for its client to get another turn.
const UNSENT_MAX: usize = 512;
/// How long a turn may take before no further call of it is begun, and how many calls there are between two looks at
/// the time.
const TURN_MAX: Duration = Duration::from_millis(1);
const CALLS_A_LOOK: u32 = 8;

/// What a listener serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Serves {
    /// gRPC and all pages.
    #[default]
    All,
    /// gRPC alone, where pages have a port of their own.
    Grpc,
    /// All pages.
    Pages,
    /// Metrics and health, to whoever asks.
    Metrics,
}

/// How connections are bounded and kept alive, and what they are for.
#[derive(Clone, Debug)]
pub struct ConnOptions {
    /// `--max-concurrent-streams`.
    pub concurrent_streams_max: u32,
    /// `--grpc-keepalive-interval`: how often a silent client is pinged; zero is never.
    pub keepalive_interval: Duration,
    /// `--grpc-keepalive-timeout`: how long it may take to answer; with zero it is never pinged.
    pub keepalive_timeout: Duration,
    /// How long the head of an HTTP/1.1 request may take, from its first byte on (see `resting`).
    pub header_timeout: Duration,
    /// `--client-write-timeout`: how long a client may take nothing of what is there for it.
    pub write_timeout: Duration,
    /// What is served.
    pub serves: Serves,
    /// Whether the head of each HTTP/2 request is told on standard error.
    pub tells_heads: bool,
    /// Who may call the pages.
    pub web: Arc<WebPolicy>,
    /// Whether the JSON gateway is among the pages (`--enable-grpc-gateway`).
    pub gateway: bool,
}

impl Default for ConnOptions {
    fn default() -> Self {
        Self {
            concurrent_streams_max: u32::MAX,
            keepalive_interval: Duration::from_secs(2 * 3600),
            keepalive_timeout: Duration::from_secs(20),
            header_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
            serves: Serves::All,
            tells_heads: false,
            web: Arc::default(),
            gateway: true,
        }
    }
}

/// Bytes that a client may have under way in one call. A call that isn't polled, as one with answers that its client
/// doesn't take, keeps as many of them uncounted.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// Bytes that a client may have under way on one connection, and thus what one can keep uncounted.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Answer bytes that wait in a call for a client that reads slowly.
const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// Calls that a client may reset before they are accepted; above it, it is told to calm down.
const RESETS_PENDING_MAX: usize = 1_024;

/// Serves a connection until it ends, or until `shutdown` and its calls are done.
pub(crate) async fn serve<S>(
    stream: S,
    caller: Caller,
    services: Arc<Services>,
    options: ConnOptions,
    shutdown: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let turn = Arc::new(AtomicU32::new(CALLS_A_TURN));
    let turns = services.budgets.turns.clone();
    let mut gate = Gate::new(turns.clone());
    let mut builder =
        auto::Builder::new(Inline { turn: turn.clone(), begun: Arc::new(Mutex::new(Instant::now())), turns });
    let serves = options.serves;
    if serves == Serves::Grpc {
        builder = builder.http2_only();
    }
    let pings = !options.keepalive_interval.is_zero() && !options.keepalive_timeout.is_zero();
    let socket = Socket::new(stream, turn);
    builder.http1().timer(HeadTimer::new(socket.heard())).header_read_timeout(options.header_timeout);
    builder
        .http2()
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(options.concurrent_streams_max)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(RESETS_PENDING_MAX)
        .keep_alive_interval(pings.then_some(options.keepalive_interval))
        .keep_alive_timeout(options.keepalive_timeout);
    let switch = Switch::default();
    let pages = Pages {
        serves,
        web: options.web,
        gateway: options.gateway,
        is_private: caller.is_private,
        switch: switch.clone(),
    };
    let share = match options.serves {
        Serves::Metrics => Share::of_pages(&services.budgets),
        Serves::All | Serves::Grpc | Serves::Pages => Share::new(&services.budgets),
    };
    let patience = Patience::new(share.clone(), options.write_timeout);
    let mut turned = Turned { patience, share: share.clone(), standing: Standing::default(), written: 0 };
    let visitor = services.auth.visitor(&caller);
    let tells_heads = options.tells_heads;
    let door = Door { services, share, caller, visitor, pages, tells_heads, shutdown: shutdown.clone() };
    let mut end = Closing::new(shutdown);
    let mut closing = false;
    // The two ways to serve it have types of their own.
    macro_rules! served {
        ($connection:expr) => {{
            let mut connection = std::pin::pin!($connection);
            let work = |context: &mut Context<'_>| {
                if !closing && end.is_over(context) {
                    closing = true;
                    connection.as_mut().graceful_shutdown();
                }
                connection.as_mut().poll(context)
            };
            turned.run(&mut gate, &socket, work).await
        }};
    }
    let io = TokioIo::new(socket.clone());
    // What may become something else is served as HTTP/1.1, too, whatever the builder says.
    let mut ended = match serves {
        Serves::Grpc => served!(builder.serve_connection(io, door)),
        Serves::All | Serves::Pages | Serves::Metrics => served!(builder.serve_connection_with_upgrades(io, door)),
    };
    if ended.is_ok()
        && let Some(upgrade) = switch.take()
    {
        ended = match Session::open(upgrade).await {
            Ok(mut session) => {
                let work = |context: &mut Context<'_>| {
                    if end.is_over(context) {
                        session.go_away();
                    }
                    session.poll(context).map_err(BodyError::from)
                };
                turned.run(&mut gate, &socket, work).await
            }
            Err(error) => Err(error.into()),
        };
    }
    if let Err(error) = ended {
        tracing::debug!(%error, "a client's connection ended early");
    }
}

/// What a connection's turns go by.
struct Turned {
    patience: Patience,
    share: Arc<Share>,
    /// After the last turn.
    standing: Standing,
    /// What of it was there when the present turn began.
    written: u64,
}

impl Turned {
    /// Whether a turn begins. Whoever takes nothing, or little of much, asks for nothing more: it would pile up here.
    /// Until the turn is used up, windows and pings are read all the same.
    fn goes_on(&self) -> bool {
        let Standing { is_blocked, written, .. } = self.standing;
        !is_blocked || (written != self.written && self.share.unsent() <= UNSENT_MAX)
    }

    /// Polls `work`, which reads and writes `socket`, until it ends or its client takes nothing for too long.
    async fn run<S: AsyncWrite + Unpin>(
        &mut self,
        gate: &mut Gate,
        socket: &Socket<S>,
        mut work: impl FnMut(&mut Context<'_>) -> Poll<Result<(), BodyError>>,
    ) -> Result<(), BodyError> {
        std::future::poll_fn(|context| gate.poll(context, |context| self.turn(socket, &mut work, context))).await
    }

    fn turn<S: AsyncWrite + Unpin>(
        &mut self,
        socket: &Socket<S>,
        work: &mut impl FnMut(&mut Context<'_>) -> Poll<Result<(), BodyError>>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), BodyError>> {
        if self.goes_on() {
            socket.begin_turn();
            self.written = self.standing.written;
        }
        match (work(context), socket.poll_drain(context)) {
            (Poll::Ready(ended), _) => Poll::Ready(ended),
            (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Err(error.into())),
            (Poll::Pending, _) => {
                self.standing = socket.standing();
                if self.standing.read_waits && self.goes_on() {
                    context.waker().wake_by_ref();
                }
                let is_over = self.patience.is_over(self.standing.is_blocked, self.standing.written, context);
                if is_over { Poll::Ready(Err("it takes nothing".into())) } else { Poll::Pending }
            }
        }
    }
}

/// Requests of one connection to the rooms that answer them.
struct Door {
    services: Arc<Services>,
    share: Arc<Share>,
    caller: Caller,
    visitor: Visitor,
    pages: Pages,
    tells_heads: bool,
    shutdown: watch::Receiver<bool>,
}

impl Door {
    /// Whether a request's caller is somebody, by what its door goes by.
    ///
    /// # Errors
    /// Why not.
    fn know<B>(&self, request: &Request<B>, head: &Head) -> Result<(), Unknown> {
        let path = request.uri().path();
        if matches!(head, Head::Page) && request.method() == http::Method::OPTIONS {
            // Browsers ask so before each call, without a word of who it is; it is answered at once.
            return Ok(());
        }
        let (who, method) = if matches!(head, Head::Page) && self.pages.gateway && gateway::is_served(path) {
            (Visitor::default().who(&gateway::metadata(&websocket::said(request))), gateway::method_of(path))
        } else {
            (self.visitor.who(request.headers()), Method::of_path(path))
        };
        // Read first: an entry that is applied between the two looks has its token known by the second.
        let applied = self.services.proposer.standing().applied;
        self.services.auth.check_known(&who, method).map_err(|error| match error {
            RequestError::AuthTokenInvalid if who.is_ahead(applied) => Unknown::Ahead,
            error => error.into(),
        })
    }
}

impl hyper::service::Service<Request<Incoming>> for Door {
    type Response = Response<ConnBody>;
    type Error = Infallible;
    type Future = DoorFuture;

    fn call(&self, mut request: Request<Incoming>) -> DoorFuture {
        if let Some(asks) = &self.caller.asks {
            asks.asks();
        }
        if self.tells_heads && request.version() == Version::HTTP_2 {
            tell(&request);
        }
        let serves = self.pages.serves;
        let head = match serves {
            Serves::All | Serves::Grpc => head::of(&request),
            _ => Head::Page,
        };
        let asked = match self.share.ask(request.uri().path(), || self.know(&request, &head)) {
            Ok(asked) => asked,
            Err(error) => {
                let mut refused = refusal(&request, &error, matches!(head, Head::Call(_)));
                if matches!(head, Head::Page) {
                    pages::may_be_read(&mut refused, self.pages.web.allowed(request.headers().get(ORIGIN)));
                }
                return DoorFuture { answer: Box::pin(std::future::ready(refused)), asked: None, switch: None };
            }
        };
        let mut switch = None;
        let answer: service::Answer = match head {
            Head::Call(timeout) => {
                let call = request.map(CallBody::Wire);
                service::serve(&self.services, &self.shutdown, &self.visitor, call, timeout)
            }
            Head::Refused(response) => Box::pin(std::future::ready(response)),
            Head::Page if serves == Serves::Grpc => Box::pin(std::future::ready(head::not_grpc(&request))),
            Head::Page => {
                if let Some(origin) = self.caller.address.filter(|_| asked.is_login()) {
                    request.extensions_mut().insert(Whence(origin));
                }
                let (pages, services) = (self.pages.clone(), self.services.clone());
                switch = Some(pages.switch.clone());
                Box::pin(pages::serve(services, request, pages, self.shutdown.clone()))
            }
        };
        DoorFuture { answer, asked: Some(asked), switch }
    }
}

/// The refusal of a request that gets no place, as its door says it.
fn refusal<B>(request: &Request<B>, error: &RequestError, is_call: bool) -> Response<ReplyBody> {
    let path = request.uri().path();
    let method = gateway::method_of(path).or_else(|| Method::of_path(path));
    let status = if method.is_some_and(recipes::is_one) { recipes::unknown(error) } else { errors::status(error) };
    if is_call {
        return status.into_http();
    }
    let page = if gateway::is_served(path) { gateway::refusal(&status) } else { pages::unavailable(status.message()) };
    // A body waits for a window, and nothing bounds how many would that have no place.
    if request.version() == Version::HTTP_2 { pages::bodiless(page) } else { page }
}

fn tell<B>(request: &Request<B>) {
    let uri = request.uri();
    let fields = [
        (":method", Some(request.method().as_str())),
        (":scheme", uri.scheme_str()),
        (":path", Some(uri.path())),
        (":authority", uri.authority().map(http::uri::Authority::as_str)),
    ];
    tell_head(fields.into_iter().filter_map(|(name, value)| Some((name, value?))));
}

/// An answer to come, which can't fail.
struct DoorFuture {
    answer: service::Answer,
    /// The request's places; none if it was refused for want of them.
    asked: Option<Asked>,
    /// Who holds them when the connection becomes a WebSocket.
    switch: Option<Switch>,
}

impl Future for DoorFuture {
    type Output = Result<Response<ConnBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let response = std::task::ready!(self.answer.as_mut().poll(context));
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            && let Some(switch) = self.switch.take()
            && let Some(asked) = self.asked.take()
        {
            switch.hold(asked);
        }
        Poll::Ready(Ok(match self.asked.take() {
            Some(mut asked) => {
                asked.answered();
                response.map(|body| ConnBody::new(body, asked))
            }
            None => response.map(ConnBody::refused),
        }))
    }
}

/// Runs what is ready at once; the rest becomes a task.
#[derive(Clone)]
struct Inline {
    turn: Arc<AtomicU32>,
    /// When the turn's first call was begun.
    begun: Arc<Mutex<Instant>>,
    turns: Turns,
}

impl Inline {
    /// How many calls are left after one of `left`.
    fn after(&self, left: u32) -> u32 {
        if left == CALLS_A_TURN {
            *self.begun.lock() = Instant::now();
        } else if left.is_multiple_of(CALLS_A_LOOK) && self.begun.lock().elapsed() > TURN_MAX {
            return 0;
        }
        left - 1
    }
}

impl<F> hyper::rt::Executor<F> for Inline
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, call: F) {
        let mut call = Box::pin(call);
        let left = self.turn.load(Ordering::Relaxed);
        if left > 0 {
            // Only this connection's task comes here, so nothing is lost between load and store.
            self.turn.store(self.after(left), Ordering::Relaxed);
            // A wake-up between this poll and the task's first one is not lost: that poll finds it done.
            if call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
                return;
            }
        }
        tokio::spawn(InTurn::new(self.turns.clone(), call));
    }
}
