//! The instruments of one connection to one venue: the shell around a [`Feed`].
//!
//! Runs on the feed thread. Connects, sends what the feed asks for, hands it every message with its
//! receipt time, ends a batch when the socket has no more, and connects again with growing, jittered
//! pauses when the connection is lost. A connection that is to end is handed over: a second one is
//! opened first, a feed of its own that nobody sees catches up over it, and takes the place of the
//! first.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use fastwebsockets::WebSocketError;
use hyper::StatusCode;
use tickfan_core::market::{InstrumentId, Listing, Nanos, Why};
use tokio::sync::watch;

use super::rest::{DecodeRequest, ImageRequest, ImageResult, RestQueue};
use super::{Feed, Request};
use crate::clock::Clock;
use crate::limits::{
    BACKOFF_FIRST_NS, BACKOFF_MAX_NS, HAND_OVER_NS_MAX, HAND_OVER_SETTLE_NS,
    HAND_OVER_SPARE_DIVISOR, HAND_OVER_SPREAD_DIVISOR, MILLI_NS, RECOVERED_AFTER_NS, SLEEP_NS_MAX,
    VENUE_READS_PER_TURN,
};
use crate::stats::FeedStats;

pub mod dial;
pub mod frames;
pub mod line;

use dial::Dialer;
use frames::{Incoming, Violation};
use line::{Line, Stirred};

/// Why a connection to a venue ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// It could not be made in time.
    #[error("no connection in time")]
    ConnectTimeout,
    /// It could not be made, or broke.
    #[error("connection: {0}")]
    Io(#[from] std::io::Error),
    /// Our request could not be formed.
    #[error("request: {0}")]
    Request(#[from] hyper::http::Error),
    /// The venue does not speak HTTP as expected.
    #[error("http: {0}")]
    Http(#[from] hyper::Error),
    /// The venue refused the upgrade.
    #[error("the venue answered {status} instead of the upgrade")]
    Refused {
        /// With this status.
        status: StatusCode,
        /// And asked to be left alone for this long.
        retry_after_ns: Option<Nanos>,
    },
    /// The connection broke under a message of ours.
    #[error("websocket: {0}")]
    WebSocket(#[from] WebSocketError),
    /// The venue broke the WebSocket protocol.
    #[error("the venue broke the WebSocket protocol: {0}")]
    Violation(#[from] Violation),
    /// The venue closed it.
    #[error("closed by the venue")]
    Closed,
    /// The venue did not answer a ping.
    #[error("no answer to a ping")]
    Unanswered,
    /// The venue does not read what we say.
    #[error("the venue reads nothing of what is sent to it")]
    Unread,
    /// The feed wants a new connection: the venue is silent, or more is to be said than it allows.
    #[error("to be made anew")]
    Reconnect,
    /// Another connection has taken its place.
    #[error("handed over to a new connection")]
    HandedOver,
}

impl SessionError {
    /// The code with which the connection is closed.
    const fn close_code(&self) -> u16 {
        match self {
            Self::Violation(violation) => violation.close_code(),
            _ => 1000,
        }
    }
}

/// What the venue lists, by its own spelling; `None` before that is known.
pub type Listings = Option<Arc<HashMap<Arc<str>, Listing>>>;

/// Everything that a session needs besides its feed.
#[derive(Debug)]
pub struct Session {
    /// Opens connections.
    pub dialer: Dialer,
    /// Images to be fetched and decoded.
    pub rest: RestQueue,
    /// What the venue listed when the feed's options were made.
    pub listed: Listings,
    /// What it lists now.
    pub listings: watch::Receiver<Listings>,
    /// How long the venue lets a connection live.
    pub connection_life_ns: Option<Nanos>,
    /// Counters.
    pub stats: FeedStats,
}

impl Session {
    /// Keeps the feed connected for ever.
    pub async fn run(self, mut feed: Feed) {
        let clock = self.dialer.clock.clone();
        let mut holder = Holder {
            session: self,
            successor: None,
            hand_over_ns: Nanos::MAX,
            hand_over_failures: 0,
            clock,
        };
        let mut failures = 0u32;
        loop {
            let began_ns = holder.clock.now();
            let error = holder.converse(&mut feed).await;
            let now = holder.clock.now();
            feed.on_disconnected(Why::Disconnected, now);
            if now.saturating_sub(began_ns) >= RECOVERED_AFTER_NS {
                failures = 0;
            }
            let is_awaited = matches!(error, SessionError::Reconnect) && failures == 0;
            let pause_ns = if is_awaited || holder.successor.is_some() {
                0
            } else {
                pause_ns(failures, feed.jitter())
            };
            failures += 1;
            tracing::warn!(
                venue = %holder.session.dialer.address.authority(),
                %error,
                again_in_ms = pause_ns / MILLI_NS,
                "the connection to the venue ended"
            );
            tokio::time::sleep(Duration::from_nanos(pause_ns)).await;
        }
    }
}

impl Session {
    /// Gives the feed what the socket has, one batch at most, and publishes it; returns whether
    /// there may be more.
    async fn deliver(&self, feed: &mut Feed, line: &mut Line) -> Result<bool, SessionError> {
        let mut reads = 0;
        let is_full = loop {
            let now = self.dialer.clock.now();
            let ping = match line.take(now)? {
                Some(Incoming::Message(message)) => {
                    feed.on_message(message, now);
                    None
                }
                Some(Incoming::Ping(echo)) => Some(echo.to_vec()),
                // It tells that the line holds, and nothing of the venue's health.
                Some(Incoming::Pong) => None,
                Some(Incoming::Close) => return Err(SessionError::Closed),
                None => match poll_once(pin!(line.fill())).await {
                    Some(filled) => {
                        filled?;
                        reads += 1;
                        if reads == VENUE_READS_PER_TURN {
                            break true;
                        }
                        continue;
                    }
                    None => break false,
                },
            };
            if let Some(echo) = ping {
                feed.on_heard(now);
                line.pong(echo).await?;
            }
            if feed.is_batch_full(now) {
                break true;
            }
        };
        let now = self.dialer.clock.now();
        feed.publish(now);
        while let Some(image) = line.take_image() {
            on_image(feed, image, now);
        }
        feed.publish(now);
        Ok(is_full)
    }

    /// Lets time pass for the feed and carries out what it wants; returns when to do so again.
    async fn attend(
        &self,
        feed: &mut Feed,
        line: &mut Line,
        is_published: bool,
    ) -> Result<Nanos, SessionError> {
        let now = self.dialer.clock.now();
        feed.set_texts_wait(line.has_texts());
        let mut wake_ns = feed.on_time(now);
        feed.publish(now);
        for request in feed.take_requests() {
            match request {
                Request::Send(text) => line.post(text)?,
                Request::Answer(text) => line.post_first(text)?,
                Request::Reconnect => return Err(SessionError::Reconnect),
                Request::HandOver => line.ends_soon = true,
                Request::Image { instrument, path, connection } => {
                    let reply = line.image_reply.clone();
                    let request = ImageRequest { instrument, connection, path, reply };
                    if self.rest.ask(request, is_published).is_err() {
                        feed.on_image(instrument, connection, None, now);
                    }
                }
                Request::Decode { instrument, message, connection } => {
                    let reply = line.image_reply.clone();
                    let request = DecodeRequest { instrument, connection, message, reply };
                    if self.rest.decode(request).is_err() {
                        feed.on_image(instrument, connection, None, now);
                    }
                }
            }
        }
        wake_ns = wake_ns.min(line.send_due(now).await?);
        if feed.decoder().keepalive().is_none() {
            wake_ns = wake_ns.min(line.probe(feed.decoder().silence_ns() / 2, now).await?);
        }
        Ok(wake_ns)
    }
}

/// The pause after so many failures in a row: full jitter under a doubling ceiling.
pub(crate) fn pause_ns(failures: u32, random: u64) -> Nanos {
    random % BACKOFF_FIRST_NS.saturating_mul(1 << failures.min(16)).min(BACKOFF_MAX_NS)
}

/// The connection that is to take the place of one that ends.
enum Successor {
    /// It is being made.
    Dialling(Pin<Box<dyn Future<Output = Result<Line, SessionError>> + Send>>),
    /// It is open, and its feed catches up.
    Following {
        /// Publishes nothing.
        feed: Box<Feed>,
        line: Box<Line>,
        /// It takes over at the latest then.
        until_ns: Nanos,
    },
}

/// A session at work.
struct Holder {
    session: Session,
    successor: Option<Successor>,
    /// When the connection held is to be handed over.
    hand_over_ns: Nanos,
    hand_over_failures: u32,
    clock: Clock,
}

impl Holder {
    /// One connection and those that it is handed over to, from its making to the end of the last;
    /// why that ended.
    async fn converse(&mut self, feed: &mut Feed) -> SessionError {
        // A successor may be on its way when the connection before it ends.
        let dialled = match self.successor.take() {
            Some(Successor::Dialling(dialling)) => dialling.await,
            _ => self.session.dialer.clone().dial(feed.decoder().stream_path().to_owned()).await,
        };
        let mut line = match dialled {
            Ok(line) => line,
            Err(error) => return error,
        };
        // Those of the connection before it: this one's notice of its end is followed at once.
        self.hand_over_failures = 0;
        feed.on_connected(self.clock.now());
        loop {
            self.hand_over_ns = self.planned_end_ns(&line, feed.jitter());
            let Err(error) = self.hold(feed, &mut line).await;
            tokio::spawn(line.close(error.close_code()));
            let is_open =
                |successor: &mut Successor| matches!(successor, Successor::Following { .. });
            let Some(Successor::Following { feed: caught_up, line: next, .. }) =
                self.successor.take_if(is_open)
            else {
                return error;
            };
            tracing::info!(
                venue = %self.session.dialer.address.authority(),
                %error,
                "the connection to the venue is succeeded by another"
            );
            self.session.stats.hand_overs.inc();
            self.hand_over_failures = 0;
            feed.take_over(*caught_up, self.clock.now());
            line = *next;
        }
    }

    /// When a connection is to be handed over if the venue says nothing: before the venue ends it,
    /// and not together with all others that were made at the same time.
    fn planned_end_ns(&self, line: &Line, random: u64) -> Nanos {
        let Some(life_ns) = self.session.connection_life_ns else { return Nanos::MAX };
        let latest_ns = life_ns - life_ns / HAND_OVER_SPARE_DIVISOR;
        line.opened_ns + latest_ns - random % (life_ns / HAND_OVER_SPREAD_DIVISOR).max(1)
    }

    /// Holds a connection until it ends, or its successor has caught up.
    async fn hold(&mut self, feed: &mut Feed, line: &mut Line) -> Result<Infallible, SessionError> {
        loop {
            // An error says that nobody reads the list any more: then nothing changes.
            if self.session.listings.has_changed().unwrap_or(false) {
                self.follow_listings(feed);
            }
            let is_busy = self.session.deliver(feed, line).await?;
            let mut wake_ns = self.session.attend(feed, line, true).await?;
            wake_ns = wake_ns.min(self.begin_hand_over(feed, line.ends_soon));
            let mut is_followed_closely = false;
            match self.follow().await {
                Ok(Following::Sleeps(at_ns)) => wake_ns = wake_ns.min(at_ns),
                Ok(Following::Busy) => is_followed_closely = true,
                Ok(Following::CaughtUp) => return Err(SessionError::HandedOver),
                Err(error) => self.give_up_successor(&error, feed.jitter()),
            }
            if is_busy || is_followed_closely {
                // Other sessions share this thread.
                tokio::task::yield_now().await;
                // However much comes, the next connection is made.
                let stirred = poll_once(pin!(stir(&mut self.successor, &self.clock))).await;
                if let Some(stirred) = stirred {
                    self.on_stirred(stirred, feed);
                }
                continue;
            }
            let nap_ns = wake_ns.saturating_sub(self.clock.now()).min(SLEEP_NS_MAX);
            tokio::select! {
                biased;
                stirred = line.stir() => if let Stirred::Image(image) = stirred? {
                    on_image(feed, image, self.clock.now());
                },
                stirred = stir(&mut self.successor, &self.clock) => self.on_stirred(stirred, feed),
                Ok(()) = self.session.listings.changed() => self.follow_listings(feed),
                () = tokio::time::sleep(Duration::from_nanos(nap_ns)) => {}
            }
        }
    }

    /// Tells the feed what has changed in the venue's list.
    fn follow_listings(&mut self, feed: &mut Feed) {
        let now = self.clock.now();
        let listings = self.session.listings.borrow_and_update().clone();
        let Some(new) = &listings else { return };
        let news: Vec<(InstrumentId, Option<&Listing>)> = feed
            .instruments()
            .iter()
            .map(|instrument| &instrument.entry().instrument)
            .filter(|instrument| match &self.session.listed {
                Some(old) => old.get(&instrument.native) != new.get(&instrument.native),
                None => true,
            })
            .map(|instrument| (instrument.id, new.get(&instrument.native)))
            .collect();
        for (instrument, listing) in news {
            feed.on_listing(instrument, listing, now);
            // What is said once is not said again to who takes over.
            if let Some(Successor::Following { feed: next, .. }) = &mut self.successor {
                next.on_listing(instrument, listing, now);
            }
        }
        self.session.listed = listings;
    }

    /// Begins to open the next connection when it is time; returns when it is.
    fn begin_hand_over(&mut self, feed: &Feed, ends_soon: bool) -> Nanos {
        let now = self.clock.now();
        if self.successor.is_some() {
            return Nanos::MAX;
        }
        // After a failure the pause counts.
        let is_due = now >= self.hand_over_ns || (ends_soon && self.hand_over_failures == 0);
        if !is_due {
            return self.hand_over_ns;
        }
        self.hand_over_ns = Nanos::MAX;
        let path = feed.decoder().stream_path().to_owned();
        self.successor =
            Some(Successor::Dialling(Box::pin(self.session.dialer.clone().dial(path))));
        Nanos::MAX
    }

    /// Lets the successor act, and tells how far it is.
    async fn follow(&mut self) -> Result<Following, SessionError> {
        let now = self.clock.now();
        let Some(mut successor) = self.successor.take() else {
            return Ok(Following::Sleeps(Nanos::MAX));
        };
        let mut following = Following::Sleeps(Nanos::MAX);
        if let Successor::Following { feed: next, line, until_ns } = &mut successor {
            let is_busy = self.session.deliver(next, line).await?;
            let wake_ns = self.session.attend(next, line, false).await?;
            if line.ends_soon {
                return Err(SessionError::Closed);
            }
            let settled_ns = line.settled_ns(HAND_OVER_SETTLE_NS);
            let is_ready = now >= settled_ns && next.is_synced();
            let wake_ns = if now < settled_ns { wake_ns.min(settled_ns) } else { wake_ns };
            following = if is_ready || now >= *until_ns {
                Following::CaughtUp
            } else if is_busy {
                Following::Busy
            } else {
                Following::Sleeps(wake_ns.min(*until_ns))
            };
        }
        self.successor = Some(successor);
        Ok(following)
    }

    /// What came of the successor.
    fn on_stirred(&mut self, stirred: Result<Option<Line>, SessionError>, feed: &mut Feed) {
        match stirred {
            Ok(dialled) => self.begin_following(dialled, feed),
            Err(error) => self.give_up_successor(&error, feed.jitter()),
        }
    }

    /// The connection that was made, if one was, is followed by a feed of its own.
    fn begin_following(&mut self, dialled: Option<Line>, feed: &Feed) {
        let Some(line) = dialled else { return };
        let now = self.clock.now();
        let mut next = feed.successor();
        next.on_connected(now);
        self.successor = Some(Successor::Following {
            feed: Box::new(next),
            line: Box::new(line),
            until_ns: now + HAND_OVER_NS_MAX,
        });
    }

    fn give_up_successor(&mut self, error: &SessionError, random: u64) {
        let pause_ns = pause_ns(self.hand_over_failures, random);
        self.hand_over_failures += 1;
        self.hand_over_ns = self.clock.now() + pause_ns;
        self.successor = None;
        tracing::warn!(
            venue = %self.session.dialer.address.authority(),
            %error,
            again_in_ms = pause_ns / MILLI_NS,
            "the connection to hand over to ended"
        );
    }
}

/// How far a successor is.
enum Following {
    /// It has nothing to do before this time.
    Sleeps(Nanos),
    /// More has come for it.
    Busy,
    /// It holds what the first holds.
    CaughtUp,
}

fn on_image(feed: &mut Feed, image: ImageResult, now: Nanos) {
    feed.on_image(image.instrument, image.connection, image.image, now);
}

/// Waits until something comes for the successor: the line, where one was made.
async fn stir(
    successor: &mut Option<Successor>,
    clock: &Clock,
) -> Result<Option<Line>, SessionError> {
    match successor {
        None => pending().await,
        Some(Successor::Dialling(dialling)) => dialling.await.map(Some),
        Some(Successor::Following { feed, line, .. }) => {
            if let Stirred::Image(image) = line.stir().await? {
                on_image(feed, image, clock.now());
            }
            Ok(None)
        }
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
