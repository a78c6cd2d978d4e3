//! Bytes of a socket ↔ requests and messages: HTTP and WebSocket on one port, for every exchange here.
//!
//! The replay and the synthetic exchange implement [`Exchange`] and call [`serve`]; each connection is
//! one task of the caller's runtime. Nothing here knows a venue or a market. What is to be sent waits
//! in an [`Outbox`], which has a bound; what happens when it is full is the exchange's affair.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use fastwebsockets::upgrade::{UpgradeFut, is_upgrade_request, upgrade};
use fastwebsockets::{Frame, OpCode, Payload, WebSocketError, WebSocketRead, WebSocketWrite};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, BufWriter};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Connections at one time; more are closed at once.
const CONNECTIONS_MAX: usize = 4_096;
/// Messages that wait for one connection.
const OUTBOX_MAX: usize = 1_024;
/// The longest message of a client.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// What is collected for one write.
const WRITE_BYTES: usize = 64 * 1024;
/// A connection that takes nothing for this long is closed.
const STALLED_MAX: Duration = Duration::from_secs(10);

/// Locks what no panic can leave half-changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a request goes.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// It changes something.
    pub(crate) is_post: bool,
    /// The path.
    pub(crate) path: String,
    /// The query, without its question mark.
    pub(crate) query: String,
}

impl Target {
    /// The value of a key of the query.
    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        self.query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
    }
}

/// The answer to an HTTP request: a status and a JSON body.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The body.
    pub(crate) body: Bytes,
}

impl Answer {
    /// All is well.
    pub(crate) fn ok(body: impl Into<Bytes>) -> Self {
        Self { status: 200, body: body.into() }
    }

    /// The client is wrong.
    pub(crate) fn error(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, body: body.into() }
    }
}

/// An exchange behind a door.
pub(crate) trait Exchange: Send + Sync + 'static {
    /// Answers an HTTP request; may take its time.
    fn answer(&self, target: Target) -> impl Future<Output = Answer> + Send;

    /// A WebSocket was opened; returns the exchange's number for it.
    fn open(&self, target: &Target, outbox: Arc<Outbox>) -> u64;

    /// The client sent a text.
    fn message(&self, connection: u64, text: &str);

    /// The WebSocket is gone.
    fn closed(&self, connection: u64);
}

/// Something to send.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// A text message.
    Text(Bytes),
    /// A WebSocket ping.
    Ping,
    /// A WebSocket pong with this payload.
    Pong(Bytes),
    /// A close frame with this payload; nothing follows it.
    Close(Bytes),
}

/// What waits to be sent on one connection. The bound is kept by the callers: who can wait, waits for
/// [`Outbox::room`]; who cannot, closes the connection.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    filled: Notify,
    drained: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Outgoing>,
    /// A close waits or the connection is gone: nothing more is taken.
    is_shut: bool,
}

impl Outbox {
    /// Appends something to send.
    pub(crate) fn push(&self, outgoing: Outgoing) {
        let mut queue = lock(&self.queue);
        if queue.is_shut {
            return;
        }
        queue.is_shut = matches!(outgoing, Outgoing::Close(_));
        queue.waiting.push_back(outgoing);
        drop(queue);
        self.filled.notify_one();
    }

    /// Appends a text.
    pub(crate) fn push_text(&self, text: impl Into<Bytes>) {
        self.push(Outgoing::Text(text.into()));
    }

    /// Appends a close frame.
    pub(crate) fn push_close(&self, code: u16, reason: &str) {
        let payload = [&code.to_be_bytes(), reason.as_bytes()].concat();
        self.push(Outgoing::Close(payload.into()));
    }

    /// Nothing may be appended until some has been sent.
    pub(crate) fn is_full(&self) -> bool {
        let queue = lock(&self.queue);
        !queue.is_shut && queue.waiting.len() >= OUTBOX_MAX
    }

    /// Waits until it is no longer full. Cancel-safe.
    pub(crate) async fn room(&self) {
        loop {
            let drained = self.drained.notified();
            if !self.is_full() {
                return;
            }
            drained.await;
        }
    }

    /// Waits for something to send, and takes all of it.
    async fn take(&self) -> VecDeque<Outgoing> {
        loop {
            let filled = self.filled.notified();
            let taken = std::mem::take(&mut lock(&self.queue).waiting);
            if !taken.is_empty() {
                self.drained.notify_waiters();
                return taken;
            }
            filled.await;
        }
    }

    fn shut(&self) {
        lock(&self.queue).is_shut = true;
        self.drained.notify_waiters();
    }
}

/// Serves an exchange on a listener until the future is dropped, which closes every connection.
///
/// # Errors
/// When the listener fails for good.
pub(crate) async fn serve<E: Exchange>(listener: TcpListener, exchange: Arc<E>) -> Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() < CONNECTIONS_MAX => {
                    connections.spawn(connection(stream, Arc::clone(&exchange)));
                }
                Ok(_) => {}
                // One client's failure, or no file descriptor left: others may leave.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection<E: Exchange>(stream: TcpStream, exchange: Arc<E>) {
    // Without it a small message would wait for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let upgraded: Mutex<Option<(UpgradeFut, Target)>> = Mutex::new(None);
    let service = service_fn(|request| request_answer(request, &exchange, &upgraded));
    let http = hyper::server::conn::http1::Builder::new();
    let served = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
    let upgraded = lock(&upgraded).take();
    if let (Ok(()), Some((upgrade, target))) = (served, upgraded)
        && let Ok(mut socket) = upgrade.await
    {
        socket.set_auto_close(false);
        socket.set_auto_pong(false);
        socket.set_writev(false);
        socket.set_max_message_size(MESSAGE_BYTES_MAX);
        let (reading, writing) = socket.split(|io| {
            let (reading, writing) = tokio::io::split(io);
            (reading, BufWriter::with_capacity(WRITE_BYTES, writing))
        });
        session(reading, writing, &target, &*exchange).await;
    }
}

async fn request_answer<E: Exchange>(
    mut request: Request<Incoming>,
    exchange: &Arc<E>,
    upgraded: &Mutex<Option<(UpgradeFut, Target)>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let target = Target {
        is_post: request.method() == Method::POST,
        path: request.uri().path().to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
    };
    if is_upgrade_request(&request) {
        return Ok(match upgrade(&mut request) {
            Ok((response, socket)) => {
                *lock(upgraded) = Some((socket, target));
                response.map(|_| Full::default())
            }
            Err(_) => {
                let mut response = Response::new(Full::default());
                *response.status_mut() = StatusCode::BAD_REQUEST;
                response
            }
        });
    }
    // No request here has a body that matters, but a connection that is kept must get past it.
    let _ = http_body_util::Limited::new(request.into_body(), MESSAGE_BYTES_MAX).collect().await;
    let answer = exchange.answer(target).await;
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(JSON));
    Ok(response)
}

const JSON: &str = "application/json";

/// Reads and writes one WebSocket until either half ends. The halves are two loops of one task, of
/// which neither is ever dropped half-way through a frame while the other goes on.
async fn session<E: Exchange>(
    reading: WebSocketRead<impl AsyncRead + Unpin>,
    writing: WebSocketWrite<impl AsyncWrite + Unpin>,
    target: &Target,
    exchange: &E,
) {
    let outbox = Arc::new(Outbox::default());
    let connection = exchange.open(target, Arc::clone(&outbox));
    tokio::select! {
        () = read(reading, &outbox, |text| exchange.message(connection, text)) => {}
        // A client that went away is no error of ours.
        _ = write(writing, &outbox) => {}
    }
    outbox.shut();
    exchange.closed(connection);
}

/// Hands the client's texts to `message` until the client is gone. A broken rule of the protocol asks
/// for a close, which the writing half sends and then ends.
async fn read(
    mut reading: WebSocketRead<impl AsyncRead + Unpin>,
    outbox: &Outbox,
    mut message: impl FnMut(&str),
) {
    let mut partial: Option<Vec<u8>> = None;
    loop {
        // What a client asks for is answered at once, so it may not ask faster than it reads.
        outbox.room().await;
        let nothing = &mut |_| async { Ok::<(), io::Error>(()) };
        let frame = match reading.read_frame(nothing).await {
            Ok(frame) => frame,
            Err(WebSocketError::UnexpectedEOF | WebSocketError::IoError(_)) => return,
            Err(WebSocketError::FrameTooLarge) => break outbox.push_close(1009, "too large"),
            Err(_) => break outbox.push_close(1002, "protocol error"),
        };
        match (frame.opcode, &mut partial) {
            (OpCode::Ping, _) => {
                outbox.push(Outgoing::Pong(Bytes::copy_from_slice(&frame.payload)));
            }
            (OpCode::Pong, _) => {}
            (OpCode::Close, _) => {
                break outbox.push(Outgoing::Close(Bytes::copy_from_slice(&frame.payload)));
            }
            (OpCode::Text | OpCode::Binary, None) => partial = Some(frame.payload.to_vec()),
            (OpCode::Continuation, Some(begun)) => begun.extend_from_slice(&frame.payload),
            _ => break outbox.push_close(1002, "protocol error"),
        }
        if partial.as_ref().is_some_and(|begun| begun.len() > MESSAGE_BYTES_MAX) {
            break outbox.push_close(1009, "too large");
        }
        let is_data = !matches!(frame.opcode, OpCode::Ping | OpCode::Pong);
        if let Some(whole) = if frame.fin && is_data { partial.take() } else { None } {
            match std::str::from_utf8(&whole) {
                Ok(text) => message(text),
                Err(_) => break outbox.push_close(1007, "not UTF-8"),
            }
        }
    }
    std::future::pending().await
}

/// Sends what the outbox holds until a close was sent or the client takes nothing for too long.
async fn write(
    mut writing: WebSocketWrite<impl AsyncWrite + Unpin>,
    outbox: &Outbox,
) -> Result<(), WebSocketError> {
    loop {
        for outgoing in outbox.take().await {
            let is_last = matches!(outgoing, Outgoing::Close(_));
            let frame = match &outgoing {
                Outgoing::Text(text) => Frame::text(Payload::Borrowed(text)),
                Outgoing::Ping => Frame::new(true, OpCode::Ping, None, Payload::Borrowed(b"")),
                Outgoing::Pong(payload) => Frame::pong(Payload::Borrowed(payload)),
                Outgoing::Close(payload) => Frame::close_raw(Payload::Borrowed(payload)),
            };
            unstalled(writing.write_frame(frame)).await?;
            if is_last {
                return unstalled(writing.flush()).await;
            }
        }
        unstalled(writing.flush()).await?;
    }
}

async fn unstalled(
    sending: impl Future<Output = Result<(), WebSocketError>>,
) -> Result<(), WebSocketError> {
    timeout(STALLED_MAX, sending)
        .await
        .unwrap_or_else(|_| Err(WebSocketError::IoError(io::ErrorKind::TimedOut.into())))
}
