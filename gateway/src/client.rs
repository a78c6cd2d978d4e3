//! A client of a gateway: its stream, taken apart, applied to a [`Mirror`] and checked.
//!
//! The commands of the terminal call it, on a runtime of their own. It only speaks the protocol, and
//! knows nothing of how a gateway works: it is the first that would notice an error of it. It writes
//! nothing and waits for nothing but the gateway.

use std::borrow::Cow;
use std::future::Future;
use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use fastwebsockets::{FragmentCollector, Frame, OpCode, Payload, WebSocketError, handshake};
use http_body_util::Empty;
use hyper::header::{CONNECTION, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL};
use hyper::header::{SEC_WEBSOCKET_VERSION, UPGRADE};
use hyper::rt::Executor;
use hyper::upgrade::Upgraded;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;
use tickfan_core::market::Nanos;
use tickfan_core::wire::binary::RawFrame;
use tickfan_core::wire::message::{self, Control, Op, SubscribedView};
use tickfan_core::wire::{Encoding, Received};
use tokio::net::TcpStream;
use tokio::time;

pub mod admin;
pub mod mirror;

use mirror::{Applied, Broken, Mirror, ViewMirror};

/// Connecting and upgrading together; whoever waits at a terminal wants to know by then.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The gateway is asked for a sign of life this often …
const HEARTBEAT_MS: u32 = 1_000;

/// … and a connection over which no whole message has come for this long is given up. An image of a
/// deep book is one message, and is to have the time over a slow line.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Where a gateway serves its stream when the URL names no path.
const STREAM_PATH: &str = "/v1/stream";

const NANOS_PER_MICRO: Nanos = 1_000;

/// Why a client was not served, or cannot believe what it was told.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the message of each names its fields")]
pub enum ClientError {
    #[error("{0:?} is no URL of a gateway; write one like ws://127.0.0.1:8080/v1/stream")]
    Url(String),
    #[error(
        "cannot connect to {url} ({cause}); start a gateway with `tickfan`, or name one with --url"
    )]
    Connect { url: String, cause: String },
    #[error("{url} refuses the connection ({cause}); a gateway serves its stream at {STREAM_PATH}")]
    Handshake { url: String, cause: WebSocketError },
    #[error("{symbol}: {words}")]
    Refused { symbol: String, words: String },
    #[error("the gateway answers: {0}")]
    Gateway(String),
    #[error("the gateway closed the connection: {code} {reason}")]
    Closed { code: u16, reason: String },
    #[error("the connection was lost: {0}")]
    Lost(WebSocketError),
    #[error("the connection is dead: nothing came for {SILENCE_MAX:?}, not even heartbeats")]
    Silent,
    #[error(
        "BROKEN CHAIN in {symbol}: {broken}. This is a fault of the gateway; it was told by: {text}"
    )]
    Broken { symbol: String, broken: Broken, text: String },
    #[error("the gateway sent updates in {came}, though it was asked for {asked}")]
    Encoding { asked: &'static str, came: &'static str },
    #[error("the gateway sent what is not of protocol 1 ({cause}): {text}")]
    NotUnderstood { cause: String, text: String },
}

impl ClientError {
    /// Another connection may be served as this one was before: the gateway is gone for now, or has
    /// just begun and does not know its instruments yet.
    pub const fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. }
                | Self::Handshake { .. }
                | Self::Refused { .. }
                | Self::Closed { .. }
                | Self::Lost(_)
                | Self::Silent
        )
    }
}

/// Something that the gateway told.
#[derive(Debug)]
pub enum Told<'a> {
    /// A text message came, of which nothing has been made yet.
    Text(&'a str),
    /// A binary message came, of which nothing has been made yet.
    Binary(&'a [u8]),
    /// A subscription is in force.
    Subscribed(&'a str, &'a SubscribedView),
    /// The gateway will close the connection.
    Drain {
        /// In how many milliseconds.
        in_ms: u64,
        /// Why.
        reason: &'a str,
    },
    /// An update, which the view holds now.
    Update(Update<'a>),
}

/// An update and what it led to.
#[derive(Debug)]
pub struct Update<'a> {
    /// What came.
    pub received: &'a Received,
    /// The view after it.
    pub view: &'a ViewMirror,
    /// What it did.
    pub applied: Applied,
    /// When its frame was sent, in microseconds.
    pub ts_us: u64,
    /// It is over its budget.
    pub is_late: bool,
    raw: Option<&'a str>,
}

impl Update<'_> {
    /// The update as a JSON object in the words of the protocol, whatever encoding it came in.
    pub fn json(&self) -> Cow<'_, str> {
        json_of(self.received, self.raw)
    }
}

fn json_of<'a>(received: &Received, raw: Option<&'a str>) -> Cow<'a, str> {
    match raw {
        Some(raw) => Cow::Borrowed(raw),
        // What was read is written: there is nothing in it that could not be.
        None => Cow::Owned(serde_json::to_string(received).unwrap_or_default()),
    }
}

type Stream = FragmentCollector<TokioIo<Upgraded>>;

/// A connection to a gateway, and what it was told over it.
pub struct Client {
    stream: Stream,
    mirror: Mirror,
    /// What was asked for.
    encoding: Encoding,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("encoding", &self.encoding).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to the stream of a gateway, and asks it for heartbeats.
    ///
    /// # Errors
    /// [`ClientError`] when the URL is none, nobody answers there, or not with a stream.
    pub async fn connect(url: &str, encoding: Encoding) -> Result<Self, ClientError> {
        let no_url = || ClientError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| no_url())?;
        let (Some("ws"), Some(host)) = (uri.scheme_str(), uri.host()) else {
            return Err(no_url());
        };
        let address = format!("{host}:{}", uri.port_u16().unwrap_or(80));
        let path = match uri.path_and_query() {
            Some(path) if path != "/" => path.as_str(),
            _ => STREAM_PATH,
        };
        let request = Request::get(path)
            .header(HOST, &address)
            .header(UPGRADE, "websocket")
            .header(CONNECTION, "upgrade")
            .header(SEC_WEBSOCKET_KEY, handshake::generate_key())
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_PROTOCOL, encoding.subprotocol())
            .body(Empty::<Bytes>::new())
            .map_err(|_| no_url())?;

        let unreachable = |cause| ClientError::Connect { url: url.to_owned(), cause };
        let upgraded = async {
            let socket = TcpStream::connect(&address).await;
            let socket = socket.map_err(|error| unreachable(error.to_string()))?;
            let upgraded = handshake::client(&Spawn, request, socket).await;
            upgraded.map_err(|cause| ClientError::Handshake { url: url.to_owned(), cause })
        };
        let (socket, _) = time::timeout(CONNECT_TIMEOUT, upgraded)
            .await
            .unwrap_or_else(|_| Err(unreachable("no answer in time".to_owned())))?;
        let stream = FragmentCollector::new(socket);
        let mut client = Self { stream, mirror: Mirror::default(), encoding };
        client.ask(Op::Heartbeat { every_ms: HEARTBEAT_MS }).await?;
        Ok(client)
    }

    /// Asks for something.
    ///
    /// # Errors
    /// [`ClientError::Lost`] when the connection is gone.
    pub async fn ask(&mut self, op: Op) -> Result<(), ClientError> {
        let request = message::Request { id: None, op }.to_json();
        let text = Frame::text(Payload::Owned(request.into_bytes()));
        self.stream.write_frame(text).await.map_err(ClientError::Lost)
    }

    /// Says goodbye, as a courtesy: everything that was asked for has come.
    pub async fn close(&mut self) {
        let _ = self.stream.write_frame(Frame::close(1000, b"")).await;
    }

    /// Waits for a message, and hands over what it tells until it has heard enough. Not to be given
    /// up half-way: what was read of the message would be lost.
    ///
    /// # Errors
    /// [`ClientError`] when the connection ended, nothing comes over it, or what came cannot be true;
    /// and what `hear` returns.
    pub async fn read<E: From<ClientError>>(
        &mut self,
        mut hear: impl FnMut(Told<'_>) -> Result<ControlFlow<()>, E>,
    ) -> Result<ControlFlow<()>, E> {
        let frame = time::timeout(SILENCE_MAX, self.stream.read_frame())
            .await
            .map_err(|_| ClientError::Silent)?
            .map_err(ClientError::Lost)?;
        let mut told =
            Telling { mirror: &mut self.mirror, encoding: self.encoding, hear: &mut hear };
        match frame.opcode {
            OpCode::Text => told.text(&String::from_utf8_lossy(&frame.payload)),
            OpCode::Binary => told.binary(&frame.payload),
            OpCode::Close => Err(closed(&frame.payload).into()),
            _ => Ok(ControlFlow::Continue(())),
        }
    }
}

/// hyper runs its side of the connection as a task.
struct Spawn;

impl<F> Executor<F> for Spawn
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        tokio::spawn(future);
    }
}

fn closed(payload: &[u8]) -> ClientError {
    let (code, reason) = match payload {
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
        // The code that stands for a close frame without one (RFC 6455 §7.1.5).
        _ => (1005, &[][..]),
    };
    ClientError::Closed { code, reason: String::from_utf8_lossy(reason).into_owned() }
}

/// A text message: a data frame if it has an `n`, else a control message.
#[derive(Deserialize)]
struct Text<'a> {
    n: Option<u64>,
    #[serde(default)]
    ts: u64,
    #[serde(default)]
    late: Vec<usize>,
    #[serde(borrow, default)]
    u: Vec<&'a RawValue>,
}

/// Takes one message apart.
struct Telling<'a, H> {
    mirror: &'a mut Mirror,
    encoding: Encoding,
    hear: &'a mut H,
}

impl<E, H> Telling<'_, H>
where
    E: From<ClientError>,
    H: FnMut(Told<'_>) -> Result<ControlFlow<()>, E>,
{
    fn text(&mut self, text: &str) -> Result<ControlFlow<()>, E> {
        if (self.hear)(Told::Text(text))?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        let frame: Text<'_> =
            serde_json::from_str(text).map_err(|error| not_understood(error, text))?;
        let Some(n) = frame.n else {
            // A control message of a kind that we do not know is to be ignored.
            let Ok(control) = Control::parse(text) else { return Ok(ControlFlow::Continue(())) };
            return self.control(control);
        };
        self.frame(Encoding::Json, n, text)?;
        for (index, raw) in frame.u.iter().enumerate() {
            let received: Received = serde_json::from_str(raw.get())
                .map_err(|error| not_understood(error, raw.get()))?;
            let is_late = frame.late.contains(&index);
            if self.update(&received, Some(raw.get()), frame.ts, is_late)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn binary(&mut self, bytes: &[u8]) -> Result<ControlFlow<()>, E> {
        if (self.hear)(Told::Binary(bytes))?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        let text = format!("a binary message of {} bytes", bytes.len());
        let frame = RawFrame::read(bytes).map_err(|error| not_understood(error, &text))?;
        self.frame(Encoding::Binary, frame.n, &text)?;
        for (index, record) in frame.records().enumerate() {
            let received = record.map_err(|error| not_understood(error, &text))?.received();
            let is_late = frame.late >> index & 1 == 1;
            let ts_us = frame.ts_ns / NANOS_PER_MICRO;
            if self.update(&received, None, ts_us, is_late)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// A data frame begins.
    fn frame(&mut self, came: Encoding, n: u64, text: &str) -> Result<(), ClientError> {
        if came != self.encoding {
            let asked = self.encoding.subprotocol();
            return Err(ClientError::Encoding { asked, came: came.subprotocol() });
        }
        self.mirror.frame(n).map_err(|broken| fault("the connection", broken, text))
    }

    fn update(
        &mut self,
        received: &Received,
        raw: Option<&str>,
        ts_us: u64,
        is_late: bool,
    ) -> Result<ControlFlow<()>, E> {
        let applied = self.mirror.update(received).map_err(|broken| {
            let view = view_of(received).and_then(|view| self.mirror.view(view));
            let symbol = view.map_or("an unknown view", |view| &view.symbol);
            fault(symbol, broken, &json_of(received, raw))
        })?;
        let Some(applied) = applied else { return Ok(ControlFlow::Continue(())) };
        let Some(view) = self.mirror.view(applied.view) else {
            return Ok(ControlFlow::Continue(()));
        };
        (self.hear)(Told::Update(Update { received, view, applied, ts_us, is_late, raw }))
    }

    fn control(&mut self, control: Control) -> Result<ControlFlow<()>, E> {
        match control {
            Control::Subscribed { results, .. } => {
                for result in results {
                    let Some(ack) = result.subscribed else {
                        let words = result.message.unwrap_or_else(|| "refused".to_owned());
                        return Err(ClientError::Refused { symbol: result.symbol, words }.into());
                    };
                    self.mirror
                        .subscribed(&result.symbol, &ack)
                        .map_err(|broken| fault(&result.symbol, broken, "its acknowledgement"))?;
                    if (self.hear)(Told::Subscribed(&result.symbol, &ack))?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Ok(ControlFlow::Continue(()))
            }
            Control::Error { message, .. } => Err(ClientError::Gateway(message).into()),
            Control::Drain { in_ms, reason, .. } => {
                (self.hear)(Told::Drain { in_ms, reason: &reason })
            }
            Control::Hello { .. }
            | Control::Unsubscribed { .. }
            | Control::Instruments { .. }
            | Control::Pong { .. } => Ok(ControlFlow::Continue(())),
        }
    }
}

fn fault(symbol: &str, broken: Broken, text: &str) -> ClientError {
    ClientError::Broken { symbol: symbol.to_owned(), broken, text: text.to_owned() }
}

fn not_understood(error: impl std::error::Error, text: &str) -> ClientError {
    ClientError::NotUnderstood { cause: error.to_string(), text: text.to_owned() }
}

/// The view that an update names.
const fn view_of(update: &Received) -> Option<u32> {
    match update {
        Received::Image { v, .. }
        | Received::Delta { v, .. }
        | Received::Bbo { v, .. }
        | Received::Trades { v, .. }
        | Received::State { v, .. } => *v,
        Received::Stats(_) | Received::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn says_how_to_reach_a_gateway() {
        for (url, expected) in [
            ("ws://127.0.0.1:1/v1/stream", "cannot connect to ws://127.0.0.1:1/v1/stream ("),
            ("http://127.0.0.1:1", "\"http://127.0.0.1:1\" is no URL of a gateway"),
            ("127.0.0.1:8080", "\"127.0.0.1:8080\" is no URL of a gateway"),
            ("ws:///v1/stream", "\"ws:///v1/stream\" is no URL of a gateway"),
        ] {
            let error = Client::connect(url, Encoding::Json).await.err().unwrap().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
