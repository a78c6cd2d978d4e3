//! Bytes of a socket ↔ requests and messages: HTTP and WebSocket on one port, for every exchange here.
//!
//! The replay and the synthetic exchange implement `Exchange` and call `serve`; each connection is
//! one task of the caller's runtime. `serve_tls` is the same under TLS. Nothing here knows a venue or
//! a market. What is to be sent waits in an `Outbox`, which has a bound; what happens when it is full
//! is the exchange's affair.

pub mod tls;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use fastwebsockets::upgrade::{UpgradeFut, is_upgrade_request, upgrade};
use fastwebsockets::{OpCode, Role, WebSocketError, WebSocketRead, after_handshake_split};
use http_body_util::{BodyExt, Collected, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::frame::{Opcode, head};
use tls::Identity;

/// Connections at one time; more are closed at once.
const CONNECTIONS_MAX: usize = 4_096;
/// Messages that wait for one connection.
const OUTBOX_MAX: usize = 1_024;
/// The longest message of a client.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// What is collected for one write; a message that is longer is written alone.
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
    /// The body, where there is one.
    pub(crate) body: Bytes,
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
    /// After how many seconds the client may ask again.
    pub(crate) retry_after_s: Option<u64>,
}

impl Answer {
    /// All is well.
    pub(crate) fn ok(body: impl Into<Bytes>) -> Self {
        Self { status: 200, body: body.into(), retry_after_s: None }
    }

    /// The client is wrong.
    pub(crate) fn error(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, body: body.into(), retry_after_s: None }
    }
}

/// An exchange behind a door.
pub(crate) trait Exchange: Send + Sync + 'static {
    /// Answers an HTTP request; may take its time.
    fn answer(&self, target: Target) -> impl Future<Output = Answer> + Send;

    /// A client wants a WebSocket; `Some` refuses it with this answer.
    fn refuse(&self, _target: &Target) -> Option<Answer> {
        None
    }

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
    /// Bytes as they are: whole frames or not.
    Raw(Bytes),
    /// A close frame with this payload; nothing follows it.
    Close(Bytes),
    /// The end, without a word.
    Cut,
    /// Nothing is read or written any more until [`Outgoing::Cut`].
    Deafen,
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
    /// An end waits or the connection is gone: nothing more is taken.
    is_shut: bool,
    /// See [`Outgoing::Deafen`].
    is_deaf: bool,
}

impl Outbox {
    /// Appends something to send.
    pub(crate) fn push(&self, outgoing: Outgoing) {
        let mut queue = lock(&self.queue);
        if queue.is_shut {
            return;
        }
        queue.is_shut = matches!(outgoing, Outgoing::Close(_) | Outgoing::Cut);
        queue.is_deaf |= matches!(outgoing, Outgoing::Deafen);
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

    fn is_deaf(&self) -> bool {
        let queue = lock(&self.queue);
        !queue.is_shut && queue.is_deaf
    }

    /// Waits until it is no longer full, nor deaf. Cancel-safe.
    pub(crate) async fn room(&self) {
        loop {
            let drained = self.drained.notified();
            if !self.is_full() && !self.is_deaf() {
                return;
            }
            drained.await;
        }
    }

    /// Takes all that waits to be sent.
    pub(crate) fn take_now(&self) -> VecDeque<Outgoing> {
        std::mem::take(&mut lock(&self.queue).waiting)
    }

    /// Waits for something to send, and takes all of it.
    async fn take(&self) -> VecDeque<Outgoing> {
        loop {
            let filled = self.filled.notified();
            let taken = self.take_now();
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
    accept(listener, |stream| connection(stream, Arc::clone(&exchange))).await
}

/// As [`serve`], under TLS.
///
/// # Errors
/// When the listener fails for good.
pub(crate) async fn serve_tls<E: Exchange>(
    listener: TcpListener,
    identity: Identity,
    exchange: Arc<E>,
) -> Result<()> {
    accept(listener, |stream| {
        let (identity, exchange) = (identity.clone(), Arc::clone(&exchange));
        async move {
            if let Some(stream) = identity.accept(stream).await {
                connection(stream, exchange).await;
            }
        }
    })
    .await
}

/// Makes a task of every connection.
async fn accept<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    connection: impl Fn(TcpStream) -> F,
) -> Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() < CONNECTIONS_MAX => {
                    // Without it a small message would wait for the acknowledgement of the one before.
                    let _ = stream.set_nodelay(true);
                    connections.spawn(connection(stream));
                }
                Ok(_) => {}
                // One client's failure, or no file descriptor left: others may leave.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection<E: Exchange>(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    exchange: Arc<E>,
) {
    let upgraded: Mutex<Option<(UpgradeFut, Target)>> = Mutex::new(None);
    let service = service_fn(|request| request_answer(request, &exchange, &upgraded));
    let http = hyper::server::conn::http1::Builder::new();
    let served = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
    let upgraded = lock(&upgraded).take();
    if let (Ok(()), Some((upgrade, target))) = (served, upgraded)
        && let Ok(socket) = upgrade.await
    {
        let (reading, writing) = tokio::io::split(socket.into_inner());
        // Faults go below the WebSocket, so the library only reads.
        let (mut reading, _) = after_handshake_split(reading, tokio::io::sink(), Role::Server);
        reading.set_auto_close(false);
        reading.set_auto_pong(false);
        reading.set_max_message_size(MESSAGE_BYTES_MAX);
        session(reading, writing, &target, &*exchange).await;
    }
}

async fn request_answer<E: Exchange>(
    mut request: Request<Incoming>,
    exchange: &Arc<E>,
    upgraded: &Mutex<Option<(UpgradeFut, Target)>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut target = Target {
        is_post: request.method() == Method::POST,
        path: request.uri().path().to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
        body: Bytes::new(),
    };
    if is_upgrade_request(&request) {
        if let Some(answer) = exchange.refuse(&target) {
            return Ok(response(answer));
        }
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
    // Few requests here have a body that matters, but a connection that is kept must get past it. One
    // that is too long or breaks off is none.
    let body = http_body_util::Limited::new(request.into_body(), MESSAGE_BYTES_MAX);
    target.body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
    Ok(response(exchange.answer(target).await))
}

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    if let Some(seconds) = answer.retry_after_s {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

const JSON: &str = "application/json";

/// Reads and writes one WebSocket until either half ends. The halves are two loops of one task, of
/// which neither is ever dropped half-way through a frame while the other goes on.
async fn session<E: Exchange>(
    reading: WebSocketRead<impl AsyncRead + Unpin>,
    writing: impl AsyncWrite + Unpin,
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

/// Sends what the outbox holds until an end was sent or the client takes nothing for too long.
async fn write(mut writing: impl AsyncWrite + Unpin, outbox: &Outbox) -> io::Result<()> {
    let mut is_deaf = false;
    // Filled by hand: a writer that fills itself would have to be waited for at each message.
    let mut bytes = Vec::with_capacity(WRITE_BYTES);
    loop {
        for outgoing in outbox.take().await {
            let (opcode, payload) = match &outgoing {
                Outgoing::Cut => return send(&mut writing, &mut bytes).await,
                Outgoing::Deafen => {
                    is_deaf = true;
                    continue;
                }
                _ if is_deaf => continue,
                Outgoing::Text(text) => (Some(Opcode::Text), text),
                Outgoing::Ping => (Some(Opcode::Ping), &Bytes::new()),
                Outgoing::Pong(payload) => (Some(Opcode::Pong), payload),
                Outgoing::Raw(bytes) => (None, bytes),
                Outgoing::Close(payload) => (Some(Opcode::Close), payload),
            };
            let head = opcode.map(|opcode| head(opcode, true, payload.len())).unwrap_or_default();
            if bytes.len() + head.len() + payload.len() > WRITE_BYTES {
                send(&mut writing, &mut bytes).await?;
            }
            bytes.extend(head);
            bytes.extend_from_slice(payload);
            if opcode == Some(Opcode::Close) {
                return send(&mut writing, &mut bytes).await;
            }
        }
        send(&mut writing, &mut bytes).await?;
    }
}

/// Sends what was collected.
async fn send(writing: &mut (impl AsyncWrite + Unpin), bytes: &mut Vec<u8>) -> io::Result<()> {
    let sending = async {
        writing.write_all(bytes).await?;
        writing.flush().await
    };
    let stalled = |_| Err(io::ErrorKind::TimedOut.into());
    timeout(STALLED_MAX, sending).await.unwrap_or_else(stalled)?;
    bytes.clear();
    bytes.shrink_to(WRITE_BYTES);
    Ok(())
}
