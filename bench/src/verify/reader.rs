//! One reader: a WebSocket client that nobody here wrote, around a session.
//!
//! Each runs on a thread of its own with a blocking socket. It reads to the end of the recording and
//! leaves the judging to the session.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use socket2::{Domain, Socket, Type};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use super::progress::Progress;
use super::report::{Broken, Counts, Difference};
use super::session::Session;

/// How long a read waits before the reader looks where the run is.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Receive buffer of a reader that stalls: so little that the gateway notices soon.
const STALLED_BUFFER_BYTES: usize = 4 << 10;

/// A reader stalls after so many frames …
const STALL_AFTER_FRAMES: u64 = 10;

/// … for at most this long: the protocol lets the gateway end a connection that stalls for longer.
const STALL_MAX: Duration = Duration::from_secs(20);

/// How a reader behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manners {
    /// It reads what comes.
    Reads,
    /// After a few frames it reads nothing for a third of the recording.
    Stalls,
}

/// How far a reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Everything is subscribed to.
    Subscribed,
    /// A line may be lost now: what it would have changed is held.
    ReadyForLoss,
}

/// One reader.
pub(crate) struct Reader<'a> {
    /// What it does with what it is sent.
    pub(crate) session: Session,
    /// How it behaves.
    pub(crate) manners: Manners,
    /// Where the run is.
    pub(crate) progress: &'a Progress,
    /// How many lines the recording has.
    pub(crate) lines: u64,
}

impl Reader<'_> {
    /// Subscribes, tells by `reached` how far it is, and reads until everything has come.
    pub(crate) fn run(
        mut self,
        gateway: SocketAddr,
        reached: impl FnMut(Stage),
    ) -> (Counts, Result<(), Box<Difference>>) {
        let result = match self.connect(gateway) {
            Ok(socket) => self.read(socket, reached),
            Err(error) => Err(self.closed(&format!("{error:#}"))),
        };
        (self.session.counts(), result)
    }

    fn connect(&self, gateway: SocketAddr) -> Result<WebSocket<TcpStream>> {
        let socket = Socket::new(Domain::for_address(gateway), Type::STREAM, None)?;
        if self.manners == Manners::Stalls {
            socket.set_recv_buffer_size(STALLED_BUFFER_BYTES)?;
        }
        socket.connect(&gateway.into())?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        let mut request = format!("ws://{gateway}/v1/stream").into_client_request()?;
        let protocol = HeaderValue::from_static(self.session.encoding().subprotocol());
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
        let (mut socket, _) = tungstenite::client(request, stream).context("the upgrade")?;
        for message in self.session.subscriptions() {
            socket.send(Message::text(message))?;
        }
        socket.get_ref().set_read_timeout(Some(LOOK_EVERY))?;
        Ok(socket)
    }

    fn closed(&self, got: &str) -> Box<Difference> {
        self.session.broken(Broken::new("the connection stays open", "open", got), "")
    }

    fn read(
        &mut self,
        mut socket: WebSocket<TcpStream>,
        mut reached: impl FnMut(Stage),
    ) -> Result<(), Box<Difference>> {
        let (mut is_subscribed, mut is_ready) = (false, false);
        let mut stalls = self.manners == Manners::Stalls;
        let mut pings = 0;
        while !self.progress.is_stopped() {
            if self.progress.is_late() {
                return Err(self.session.lacking());
            }
            match socket.read() {
                Ok(Message::Text(text)) => self.session.hear(&text)?,
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Ok(Message::Binary(frame)) => self.session.hear_binary(&frame)?,
                Ok(Message::Close(frame)) => return Err(self.closed(&format!("{frame:?}"))),
                Err(tungstenite::Error::Io(error)) if is_silence(&error) => {}
                Err(error) => return Err(self.closed(&error.to_string())),
            }
            if !is_subscribed && self.session.is_subscribed() {
                is_subscribed = true;
                reached(Stage::Subscribed);
            }
            if !is_ready && self.session.is_ready_for_loss() {
                is_ready = true;
                reached(Stage::ReadyForLoss);
            }
            // Nobody stalls before it is ready: a replay that waits for it would wait for that long.
            if stalls && is_ready && self.session.counts().frames >= STALL_AFTER_FRAMES {
                stalls = false;
                self.progress.wait_for_lines(self.lines / 3, STALL_MAX);
            }
            // Complete, and still so after everything that was on its way has come.
            if self.progress.has_ended() && self.session.is_complete() {
                match pings == self.session.pongs() {
                    true if pings > 0 => return Ok(()),
                    true => {
                        pings += 1;
                        let ping = json!({"op": "ping", "id": pings}).to_string();
                        socket
                            .send(Message::text(ping))
                            .map_err(|e| self.closed(&e.to_string()))?;
                    }
                    false => {}
                }
            }
        }
        Ok(())
    }
}

/// Nothing came within the time of a look.
fn is_silence(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}
