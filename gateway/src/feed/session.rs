//! One connection to one venue: the shell around a [`Feed`].
//!
//! Runs on the feed thread. Connects, sends what the feed asks for, hands it every message with its
//! receipt time, ends a batch when the socket has no more, and connects again with growing, jittered
//! pauses when the connection is lost.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fastwebsockets::{Frame, OpCode, Payload, WebSocketError, WebSocketWrite};
use http_body_util::Empty;
use hyper::Request as HttpRequest;
use hyper::header::{CONNECTION, HOST, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tickfan_core::market::{EventBatch, Nanos, Why};
use tokio::io::WriteHalf;
use tokio::sync::mpsc;

use super::rest::{ImageRequest, ImageResult};
use super::tls::{Address, Connector};
use super::{Feed, Request};
use crate::clock::Clock;
use crate::limits::{
    BACKOFF_FIRST_NS, BACKOFF_MAX_NS, CONNECT_TIMEOUT_NS, MILLI_NS, RECOVERED_AFTER_NS,
    SLEEP_NS_MAX, SUBSCRIBE_SPACING_NS, VENUE_MESSAGE_BYTES_MAX, VENUE_TEXTS_MAX,
};

/// Why a connection to a venue ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// It could not be made in time.
    #[error("no connection in time")]
    ConnectTimeout,
    /// It could not be made.
    #[error("connection: {0}")]
    Io(#[from] std::io::Error),
    /// Our request could not be formed.
    #[error("request: {0}")]
    Request(#[from] hyper::http::Error),
    /// The venue broke the WebSocket protocol, or the connection broke.
    #[error("websocket: {0}")]
    WebSocket(#[from] WebSocketError),
    /// The venue closed it.
    #[error("closed by the venue")]
    Closed,
    /// A message over the limit.
    #[error("a message of more than {VENUE_MESSAGE_BYTES_MAX} bytes")]
    TooLarge,
    /// The feed wants a new connection: the venue announced its end, or is silent.
    #[error("to be made anew")]
    Reconnect,
}

/// Everything that a session needs besides its feed.
#[derive(Debug)]
pub struct Session {
    /// Makes connections.
    pub connector: Connector,
    /// Where the venue's stream is.
    pub address: Address,
    /// Images to be fetched.
    pub image_requests: mpsc::Sender<ImageRequest>,
    /// Where fetched images are to be sent.
    pub image_reply: mpsc::Sender<ImageResult>,
    /// Images that were fetched.
    pub image_results: mpsc::Receiver<ImageResult>,
    /// The clock.
    pub clock: Clock,
    /// Ticked at least every half second while all is well.
    pub watchdog: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

type Writer = WebSocketWrite<WriteHalf<TokioIo<Upgraded>>>;

impl Session {
    /// Keeps the feed connected for ever.
    pub async fn run(mut self, mut feed: Feed) {
        let mut failures = 0u32;
        loop {
            let began_ns = self.clock.now();
            let error = match self.converse(&mut feed).await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            let now = self.clock.now();
            feed.on_disconnected(Why::Disconnected, now);
            if now.saturating_sub(began_ns) >= RECOVERED_AFTER_NS {
                failures = 0;
            }
            let ceiling =
                BACKOFF_FIRST_NS.saturating_mul(1 << failures.min(16)).min(BACKOFF_MAX_NS);
            failures += 1;
            let pause_ns = if matches!(error, SessionError::Reconnect) && failures == 1 {
                0
            } else {
                feed.jitter() % ceiling
            };
            tracing::warn!(
                venue = %self.address.authority(),
                %error,
                again_in_ms = pause_ns / MILLI_NS,
                "the connection to the venue ended"
            );
            self.sleep(pause_ns).await;
        }
    }

    /// Sleeps, and lets the watchdog know.
    async fn sleep(&self, mut pause_ns: Nanos) {
        loop {
            self.tick();
            let nap_ns = pause_ns.min(SLEEP_NS_MAX);
            tokio::time::sleep(Duration::from_nanos(nap_ns)).await;
            pause_ns -= nap_ns;
            if pause_ns == 0 {
                return;
            }
        }
    }

    fn tick(&self) {
        self.watchdog.store(self.clock.now(), std::sync::atomic::Ordering::Relaxed);
    }

    async fn open(
        &self,
        path: &str,
    ) -> Result<fastwebsockets::WebSocket<TokioIo<Upgraded>>, SessionError> {
        let stream = self.connector.connect(&self.address).await?;
        let request = HttpRequest::get(path)
            .header(HOST, self.address.authority())
            .header(UPGRADE, "websocket")
            .header(CONNECTION, "Upgrade")
            .header("Sec-WebSocket-Key", fastwebsockets::handshake::generate_key())
            .header("Sec-WebSocket-Version", "13")
            .body(Empty::<Bytes>::new())?;
        let (socket, _) = fastwebsockets::handshake::client(&SpawnHere, request, stream).await?;
        Ok(socket)
    }

    /// One connection, from its making to its end.
    async fn converse(
        &mut self,
        feed: &mut Feed,
    ) -> Result<std::convert::Infallible, SessionError> {
        self.tick();
        let limit = Duration::from_nanos(CONNECT_TIMEOUT_NS);
        let path = feed.decoder().stream_path().to_owned();
        let mut socket = tokio::time::timeout(limit, self.open(&path))
            .await
            .map_err(|_| SessionError::ConnectTimeout)??;
        // Pings and closes are answered below, where they count as signs of life.
        socket.set_auto_pong(false);
        socket.set_auto_close(false);
        socket.set_max_message_size(VENUE_MESSAGE_BYTES_MAX);
        let (mut reader, writer) = socket.split(tokio::io::split);
        let mut outbox = Outbox { writer, next_send_ns: 0, texts: Vec::new() };
        let mut whole = Reassembly::default();
        feed.on_connected(self.clock.now());

        // Nothing is obligated while automatic answers are off.
        let mut never_sent =
            |_: Frame<'_>| std::future::ready(Ok::<_, std::convert::Infallible>(()));
        loop {
            // `read_frame` is not cancel-safe: the one future is polled until it is done.
            let mut reading = pin!(reader.read_frame(&mut never_sent));
            let frame = match poll_once(reading.as_mut()).await {
                Some(frame) => frame,
                // The socket has no more: the batch ends.
                None => loop {
                    let now = self.clock.now();
                    feed.publish(now);
                    let wake_ns = self.attend(feed, &mut outbox, now).await?;
                    let nap = Duration::from_nanos(wake_ns.saturating_sub(now).min(SLEEP_NS_MAX));
                    tokio::select! {
                        biased;
                        frame = &mut reading => break frame,
                        Some(result) = self.image_results.recv() => {
                            feed.on_image(
                                result.instrument, result.connection, result.image, self.clock.now(),
                            );
                        }
                        () = tokio::time::sleep(nap) => {}
                    }
                },
            }?;
            let now = self.clock.now();
            match frame.opcode {
                OpCode::Close => return Err(SessionError::Closed),
                OpCode::Ping => {
                    feed.on_heard(now);
                    let echo = Payload::Owned(frame.payload.to_vec());
                    outbox.writer.write_frame(Frame::pong(echo)).await?;
                    outbox.writer.flush().await?;
                }
                OpCode::Pong => feed.on_heard(now),
                OpCode::Text | OpCode::Binary | OpCode::Continuation => {
                    whole.add(frame, |message| feed.on_message(message, now))?;
                }
            }
            if feed.is_batch_full(now) {
                feed.publish(now);
                while let Ok(result) = self.image_results.try_recv() {
                    feed.on_image(result.instrument, result.connection, result.image, now);
                }
                self.attend(feed, &mut outbox, now).await?;
                // Other sessions share this thread.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Lets time pass for the feed and carries out what it wants; returns when to do so again.
    async fn attend(
        &self,
        feed: &mut Feed,
        outbox: &mut Outbox,
        now: Nanos,
    ) -> Result<Nanos, SessionError> {
        self.tick();
        let mut wake_ns = feed.on_time(now);
        for request in feed.take_requests() {
            match request {
                Request::Send(text) => outbox.texts.push(text),
                Request::Reconnect => return Err(SessionError::Reconnect),
                Request::Image { instrument, path, connection } => {
                    // One per instrument can wait, and the queue has room for all of them.
                    let reply = self.image_reply.clone();
                    let request = ImageRequest { instrument, path, connection, reply };
                    if self.image_requests.try_send(request).is_err() {
                        feed.on_image(instrument, connection, None, now);
                    }
                }
                Request::Decode { instrument, mut message, connection } => {
                    let mut image = EventBatch::default();
                    let decode = feed.decoder().image_decoder();
                    let read = decode(instrument, &mut message, &mut image);
                    feed.on_image(instrument, connection, read.ok().map(|()| image), now);
                }
            }
        }
        if outbox.texts.len() > VENUE_TEXTS_MAX {
            // More resyncs than the venue lets us ask for: a new connection is quicker.
            return Err(SessionError::Reconnect);
        }
        wake_ns = wake_ns.min(outbox.send(now).await?);
        Ok(wake_ns)
    }
}

/// Texts on their way to the venue, within its limit of messages.
struct Outbox {
    writer: Writer,
    next_send_ns: Nanos,
    texts: Vec<String>,
}

impl Outbox {
    /// Sends the next text if it is time; returns when the one after it may go.
    async fn send(&mut self, now: Nanos) -> Result<Nanos, SessionError> {
        if self.texts.is_empty() {
            return Ok(Nanos::MAX);
        }
        if now < self.next_send_ns {
            return Ok(self.next_send_ns);
        }
        let text = self.texts.remove(0);
        self.writer.write_frame(Frame::text(Payload::Owned(text.into_bytes()))).await?;
        self.writer.flush().await?;
        self.next_send_ns = now + SUBSCRIBE_SPACING_NS;
        Ok(if self.texts.is_empty() { Nanos::MAX } else { self.next_send_ns })
    }
}

/// Joins the fragments of a message, up to the limit of a message.
#[derive(Debug, Default)]
struct Reassembly {
    fragments: BytesMut,
}

impl Reassembly {
    fn add(
        &mut self,
        frame: Frame<'_>,
        on_message: impl FnOnce(&mut [u8]),
    ) -> Result<(), SessionError> {
        let begins = frame.opcode != OpCode::Continuation;
        if begins && frame.fin {
            match frame.payload {
                Payload::BorrowedMut(message) => on_message(message),
                Payload::Owned(mut message) => on_message(&mut message),
                Payload::Bytes(mut message) => on_message(&mut message),
                Payload::Borrowed(message) => on_message(&mut message.to_vec()),
            }
            return Ok(());
        }
        if begins {
            self.fragments.clear();
        }
        if self.fragments.len() + frame.payload.len() > VENUE_MESSAGE_BYTES_MAX {
            return Err(SessionError::TooLarge);
        }
        self.fragments.extend_from_slice(&frame.payload);
        if frame.fin {
            on_message(&mut std::mem::take(&mut self.fragments));
        }
        Ok(())
    }
}

/// Polls a future once and gives what it has.
async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|context| {
        Poll::Ready(match future.as_mut().poll(context) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}

/// Runs the HTTP half of a handshake on the session's own thread.
struct SpawnHere;

impl<F> hyper::rt::Executor<F> for SpawnHere
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        tokio::spawn(future);
    }
}
