//! One open connection to a venue: what was read, what is to be sent, and the images that were asked
//! for over it.
//!
//! Owned by the session that holds it, on the feed thread. Whatever was asked for over a connection
//! that is gone comes back to nobody.

use std::collections::VecDeque;
use std::time::Duration;

use fastwebsockets::{Frame, OpCode, Payload, Role, WebSocketWrite};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tickfan_core::market::Nanos;
use tokio::io::{AsyncWrite, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::SessionError;
use super::frames::{Frames, Incoming};
use crate::feed::rest::ImageResult;
use crate::limits::{CLOSE_LINGER_NS, REST_RESULTS_MAX, VENUE_SEND_NS_MAX, VENUE_TEXTS_MAX};
use crate::venue::Endpoints;

type Stream = TokioIo<Upgraded>;

/// An open connection.
pub struct Line {
    frames: Frames,
    read: ReadHalf<Stream>,
    writer: WebSocketWrite<WriteHalf<Stream>>,
    texts: VecDeque<String>,
    turns: Turns,
    said_ns: Nanos,
    images: mpsc::Receiver<ImageResult>,
    /// Where images that are asked for over this connection are to be sent.
    pub image_reply: mpsc::Sender<ImageResult>,
    /// When it was opened.
    pub opened_ns: Nanos,
    /// The venue said that it will end it.
    pub ends_soon: bool,
    pulse: Pulse,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("opened_ns", &self.opened_ns).finish_non_exhaustive()
    }
}

/// When texts may go over one connection: some at once after a rest, then one per spacing.
#[derive(Debug, Clone, Copy)]
pub struct Turns {
    spacing_ns: Nanos,
    at_once: u32,
    /// When all that went would have gone, one per spacing.
    paid_ns: Nanos,
}

impl Turns {
    /// Those that a venue gives.
    pub fn of(endpoints: &Endpoints) -> Self {
        Self::new(endpoints.text_spacing_ns, endpoints.texts_at_once)
    }

    /// One text in `spacing_ns`, and `at_once` after a rest.
    pub const fn new(spacing_ns: Nanos, at_once: u32) -> Self {
        Self { spacing_ns, at_once, paid_ns: 0 }
    }

    /// When the next text may go.
    pub const fn next_ns(&self) -> Nanos {
        let credit = self.at_once.saturating_sub(1) as Nanos;
        self.paid_ns.saturating_sub(credit * self.spacing_ns)
    }

    /// A text goes.
    pub fn take(&mut self, now: Nanos) {
        self.paid_ns = self.paid_ns.max(now) + self.spacing_ns;
    }
}

/// What happened on a connection that was waited for.
#[derive(Debug)]
pub enum Stirred {
    /// Bytes came.
    Bytes,
    /// An image came.
    Image(ImageResult),
}

impl Line {
    /// A connection over which the upgrade is done and nothing was said.
    pub fn new(stream: Stream, turns: Turns, now: Nanos) -> Self {
        let (read, write) = tokio::io::split(stream);
        let (_, writer) =
            fastwebsockets::after_handshake_split(tokio::io::empty(), write, Role::Client);
        let (image_reply, images) = mpsc::channel(REST_RESULTS_MAX);
        Self {
            frames: Frames::default(),
            read,
            writer,
            texts: VecDeque::new(),
            turns,
            said_ns: now,
            images,
            image_reply,
            opened_ns: now,
            ends_soon: false,
            pulse: Pulse { heard_ns: now, pinged_ns: 0 },
        }
    }

    /// Reads what the socket has. Given up, it loses nothing.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn fill(&mut self) -> Result<(), SessionError> {
        match self.frames.fill(&mut self.read).await? {
            0 => Err(SessionError::Closed),
            _ => Ok(()),
        }
    }

    /// The next thing that the venue said, if it is there whole.
    ///
    /// # Errors
    /// When the venue broke the WebSocket protocol.
    pub fn take(&mut self, now: Nanos) -> Result<Option<Incoming<'_>>, SessionError> {
        let incoming = self.frames.take()?;
        if incoming.is_some() {
            self.pulse.heard_ns = now;
        }
        Ok(incoming)
    }

    /// An image that is there.
    pub fn take_image(&mut self) -> Option<ImageResult> {
        self.images.try_recv().ok()
    }

    /// Waits until something comes. Given up, it loses nothing.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn stir(&mut self) -> Result<Stirred, SessionError> {
        let Self { frames, read, images, .. } = self;
        tokio::select! {
            biased;
            filled = frames.fill(read) => match filled? {
                0 => Err(SessionError::Closed),
                _ => Ok(Stirred::Bytes),
            },
            Some(image) = images.recv() => Ok(Stirred::Image(image)),
        }
    }

    /// Answers a ping.
    ///
    /// # Errors
    /// When the connection broke.
    pub async fn pong(&mut self, echo: Vec<u8>) -> Result<(), SessionError> {
        self.send(Frame::pong(Payload::Owned(echo))).await
    }

    /// Lets a text wait for its time.
    ///
    /// # Errors
    /// When more wait than the venue will ever let us send in time: a new connection is quicker.
    pub fn post(&mut self, text: String) -> Result<(), SessionError> {
        self.has_room()?;
        self.texts.push_back(text);
        Ok(())
    }

    /// The same of a text that the venue waits for, and hangs up without: it is the next to go.
    ///
    /// # Errors
    /// As of [`Self::post`].
    pub fn post_first(&mut self, text: String) -> Result<(), SessionError> {
        self.has_room()?;
        self.texts.push_front(text);
        Ok(())
    }

    fn has_room(&self) -> Result<(), SessionError> {
        if self.texts.len() < VENUE_TEXTS_MAX { Ok(()) } else { Err(SessionError::Reconnect) }
    }

    /// Texts wait for their time.
    pub fn has_texts(&self) -> bool {
        !self.texts.is_empty()
    }

    /// Sends the next text if it is time; returns when the one after it may go.
    ///
    /// # Errors
    /// When the connection broke.
    pub async fn send_due(&mut self, now: Nanos) -> Result<Nanos, SessionError> {
        if now >= self.turns.next_ns()
            && let Some(text) = self.texts.pop_front()
        {
            self.send(Frame::text(Payload::Owned(text.into_bytes()))).await?;
            self.said_ns = now;
            self.turns.take(now);
        }
        Ok(if self.texts.is_empty() { Nanos::MAX } else { self.turns.next_ns() })
    }

    /// When the venue has had `settle_ns` for all that was to be said to it; never while texts wait.
    pub fn settled_ns(&self, settle_ns: Nanos) -> Nanos {
        if self.texts.is_empty() { self.said_ns + settle_ns } else { Nanos::MAX }
    }

    /// Asks a connection that says nothing whether it is still there: with a ping after `quiet_ns`,
    /// which must be answered within as long again. Returns when to look again.
    ///
    /// # Errors
    /// When it was not answered, or the connection broke.
    pub async fn probe(&mut self, quiet_ns: Nanos, now: Nanos) -> Result<Nanos, SessionError> {
        match self.pulse.feel(quiet_ns, now) {
            Beat::Felt { again_ns } => Ok(again_ns),
            Beat::Due => {
                self.pulse.pinged_ns = now;
                self.send(Frame::new(true, OpCode::Ping, None, Payload::Borrowed(&[]))).await?;
                Ok(now + quiet_ns)
            }
            Beat::None => Err(SessionError::Unanswered),
        }
    }

    async fn send(&mut self, frame: Frame<'static>) -> Result<(), SessionError> {
        send(&mut self.writer, frame, Duration::from_nanos(VENUE_SEND_NS_MAX)).await
    }

    /// Ends the connection with a word, if the venue takes it.
    pub async fn close(mut self, code: u16) {
        let limit = Duration::from_nanos(CLOSE_LINGER_NS);
        // It ends in any case.
        let _ = tokio::time::timeout(limit, self.send(Frame::close(code, &[]))).await;
    }
}

/// Says something, unless the venue takes nothing: meanwhile it is not listened to.
async fn send<W: AsyncWrite + Unpin>(
    writer: &mut WebSocketWrite<W>,
    frame: Frame<'static>,
    limit: Duration,
) -> Result<(), SessionError> {
    let send = async {
        writer.write_frame(frame).await?;
        writer.flush().await
    };
    Ok(tokio::time::timeout(limit, send).await.map_err(|_| SessionError::Unread)??)
}

/// When a connection last showed that its other end is there, pongs included.
#[derive(Debug)]
pub(crate) struct Pulse {
    /// Whatever came last.
    pub(crate) heard_ns: Nanos,
    /// The last ping was sent.
    pub(crate) pinged_ns: Nanos,
}

/// What is to be thought of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Beat {
    /// All is well; to be felt again at this time.
    Felt { again_ns: Nanos },
    /// It is to be asked with a ping.
    Due,
    /// It does not answer.
    None,
}

impl Pulse {
    /// How it is at this time, when it is to be asked after `quiet_ns`.
    pub(crate) const fn feel(&self, quiet_ns: Nanos, now: Nanos) -> Beat {
        let is_asked = self.pinged_ns > self.heard_ns;
        let since_ns = if is_asked { self.pinged_ns } else { self.heard_ns };
        match (now >= since_ns + quiet_ns, is_asked) {
            (false, _) => Beat::Felt { again_ns: since_ns + quiet_ns },
            (true, false) => Beat::Due,
            (true, true) => Beat::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_venue_that_reads_nothing_is_given_up() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let error = runtime.block_on(async {
            // Room for one pong, which nobody takes out.
            let (ours, _theirs) = tokio::io::duplex(16);
            let (_, mut writer) =
                fastwebsockets::after_handshake_split(tokio::io::empty(), ours, Role::Client);
            let mut pong = async || {
                let frame = Frame::pong(Payload::Owned(vec![0; 4]));
                send(&mut writer, frame, Duration::from_millis(10)).await
            };
            pong().await.unwrap();
            let given_up = tokio::time::timeout(Duration::from_secs(30), pong()).await;
            given_up.unwrap().unwrap_err()
        });
        assert!(matches!(error, SessionError::Unread), "{error}");
    }

    #[test]
    fn after_a_rest_some_texts_go_at_once_and_not_one_more() {
        let mut turns = Turns::new(10, 3);
        for at_ns in [100, 1_000] {
            for _ in 0..3 {
                assert!(turns.next_ns() <= at_ns);
                turns.take(at_ns);
            }
            assert_eq!(turns.next_ns(), at_ns + 10);
            turns.take(at_ns + 10);
            assert_eq!(turns.next_ns(), at_ns + 20);
        }
    }

    #[test]
    fn a_quiet_connection_is_asked_once_and_given_up_when_it_does_not_answer() {
        let mut pulse = Pulse { heard_ns: 100, pinged_ns: 0 };
        assert_eq!(pulse.feel(30, 129), Beat::Felt { again_ns: 130 });
        assert_eq!(pulse.feel(30, 130), Beat::Due);
        pulse.pinged_ns = 131;
        assert_eq!(pulse.feel(30, 160), Beat::Felt { again_ns: 161 });
        assert_eq!(pulse.feel(30, 161), Beat::None);
        // Whatever comes is an answer.
        pulse.heard_ns = 131;
        assert_eq!(pulse.feel(30, 160), Beat::Felt { again_ns: 161 });
        assert_eq!(pulse.feel(30, 161), Beat::Due);
    }
}
