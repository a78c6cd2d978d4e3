//! Everything that the replay's player and its clients share: position, truth, subscriptions, waiting
//! requests. Lines and client messages → texts in outboxes.
//!
//! Owned by the replay behind one lock that is never held across a wait, so that a client's request
//! falls between two lines and never into one. That is what makes a fresh snapshot fit the stream.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::script::{Cue, Script};
use crate::door::{Outbox, Target};
use crate::recording::{Line, Recording};
use crate::truth::{Changed, Truth, TruthBook};
use crate::venue::{Dialect, Message, Moment, Session, binance};

/// Requests that may wait for one symbol's image.
const WAITING_MAX: usize = 64;

/// Where the stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Not begun.
    Waiting,
    /// On its way.
    Running,
    /// Before a line at which it was to stop.
    Paused,
    /// At the end of the recording.
    Ended,
}

impl State {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Ended => "ended",
        }
    }
}

/// Why a line cannot be played yet.
pub(super) enum Obstacle {
    /// A subscriber has to read first.
    Full(Arc<Outbox>),
    /// A client has to do something first: subscribe, or ask for an image.
    Client,
}

/// Why a request gets no image.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoImage {
    /// The recording has none of that symbol.
    UnknownSymbol,
    /// Too many wait for it already.
    TooMany,
}

/// An image now, or later.
pub(super) enum Image {
    /// Out of the truth, at the position of the stream.
    Now(String),
    /// When the stream gets to it.
    Later(oneshot::Receiver<Bytes>),
}

struct Client {
    outbox: Arc<Outbox>,
    session: Box<dyn Session>,
}

/// The image of a symbol, and who waits for it.
#[derive(Default)]
struct ImageDesk {
    is_played: bool,
    waiting: Vec<oneshot::Sender<Bytes>>,
}

/// See the top of this file.
pub(super) struct Stage {
    pub(super) state: State,
    /// `POST /replay/start` came, and nothing paused it since.
    pub(super) is_asked_to_start: bool,
    /// How many lines were played.
    pub(super) position: usize,
    dialect: Dialect,
    truth: Truth,
    images: HashMap<Arc<str>, ImageDesk>,
    clients: BTreeMap<u64, Client>,
    opened: u64,
}

impl Stage {
    pub(super) fn new(recording: &Recording, script: &Script) -> Self {
        let images = script.cues.iter().filter_map(|cue| match cue {
            Cue::Image(symbol) => Some((Arc::clone(symbol), ImageDesk::default())),
            Cue::Nothing | Cue::Message(_) => None,
        });
        Self {
            state: State::Waiting,
            is_asked_to_start: false,
            position: 0,
            dialect: recording.dialect,
            truth: Truth::new(recording.dialect),
            images: images.collect(),
            clients: BTreeMap::new(),
            opened: 0,
        }
    }

    /// Closes every connection and goes back to before the first line.
    pub(super) fn begin_again(&mut self, recording: &Recording, script: &Script) {
        for client in self.clients.values() {
            client.outbox.push_close(1012, "the recording begins again");
        }
        let opened = self.opened;
        *self = Self { opened, ..Self::new(recording, script) };
    }

    /// Stops where it is, until it is asked to start anew.
    pub(super) fn pause(&mut self) {
        self.state = State::Paused;
        self.is_asked_to_start = false;
    }

    /// The book of a symbol as it is, once it is valid.
    pub(super) fn book(&self, symbol: &str) -> Option<&TruthBook> {
        self.truth.book(symbol)
    }

    pub(super) fn subscriptions(&self) -> usize {
        self.clients.values().map(|client| client.session.subscriptions()).sum()
    }

    /// Why the line of this cue cannot be played yet, if so. `is_paced_by_clients`: the recorded times
    /// do not pace it, so the clients do.
    pub(super) fn obstacle(&self, cue: &Cue, is_paced_by_clients: bool) -> Option<Obstacle> {
        if is_paced_by_clients && self.subscriptions() == 0 {
            return Some(Obstacle::Client);
        }
        match cue {
            Cue::Nothing => None,
            Cue::Message(message) => self
                .clients
                .values()
                .find(|client| client.session.has(&message.key) && client.outbox.is_full())
                .map(|client| Obstacle::Full(Arc::clone(&client.outbox))),
            Cue::Image(symbol) => {
                let key = binance::depth_key(symbol);
                let is_asked_for = self
                    .images
                    .get(symbol)
                    .is_some_and(|desk| desk.waiting.iter().any(|waiter| !waiter.is_closed()));
                let must_be =
                    is_paced_by_clients && self.clients.values().any(|c| c.session.has(&key));
                (must_be && !is_asked_for).then_some(Obstacle::Client)
            }
        }
    }

    /// Plays the next line; `is_dropped`: the truth learns of it, the clients do not. Says whose book it
    /// changed, if anybody's.
    pub(super) fn play(
        &mut self,
        line: &Line,
        script: &Script,
        cue: &Cue,
        is_dropped: bool,
    ) -> Option<Changed> {
        let changed = self.truth.apply_line(line);
        match cue {
            Cue::Nothing => {}
            Cue::Message(message) => self.play_message(line, script, message, is_dropped),
            Cue::Image(symbol) => {
                if let Some(desk) = self.images.get_mut(symbol) {
                    desk.is_played = true;
                    for waiter in desk.waiting.drain(..) {
                        // Who asked may have left.
                        let _ = waiter.send(line.payload.clone());
                    }
                }
            }
        }
        self.position += 1;
        changed
    }

    fn play_message(&mut self, line: &Line, script: &Script, message: &Message, is_dropped: bool) {
        let listed = &script.listed;
        let moment = Moment { books: &self.truth, listed, at_ns: line.recv_ns };
        for client in self.clients.values_mut() {
            if !client.session.has(&message.key) {
                continue;
            }
            if is_dropped {
                client.session.lose(message, &moment);
            } else if let Some(text) = client.session.tell(message, &moment) {
                client.outbox.push_text(text);
            }
        }
    }

    pub(super) fn open(&mut self, target: &Target, outbox: Arc<Outbox>) -> u64 {
        self.opened += 1;
        let session = self.dialect.session(&target.path, &target.query, self.opened);
        if let Some(greeting) = session.greeting() {
            outbox.push_text(greeting);
        }
        self.clients.insert(self.opened, Client { outbox, session });
        self.opened
    }

    pub(super) fn closed(&mut self, connection: u64) {
        self.clients.remove(&connection);
    }

    /// Obeys one message of a client and puts the replies into its outbox.
    pub(super) fn message(&mut self, connection: u64, text: &str, script: &Script, at_ns: u64) {
        let Some(client) = self.clients.get_mut(&connection) else { return };
        let moment = Moment { books: &self.truth, listed: &script.listed, at_ns };
        for reply in client.session.hear(text, &moment) {
            client.outbox.push_text(reply);
        }
    }

    /// The image of a symbol's book, `limit` levels a side.
    pub(super) fn image(
        &mut self,
        symbol: &str,
        limit: Option<usize>,
        at_ns: u64,
    ) -> Result<Image, NoImage> {
        let desk = self.images.get_mut(symbol).ok_or(NoImage::UnknownSymbol)?;
        if desk.is_played {
            let book = self.truth.book(symbol).ok_or(NoImage::UnknownSymbol)?;
            let limit = binance::depth_limit(self.dialect, limit);
            return Ok(Image::Now(binance::depth_body(self.dialect, symbol, book, limit, at_ns)));
        }
        desk.waiting.retain(|waiter| !waiter.is_closed());
        if desk.waiting.len() >= WAITING_MAX {
            return Err(NoImage::TooMany);
        }
        let (waiter, later) = oneshot::channel();
        desk.waiting.push(waiter);
        Ok(Image::Later(later))
    }
}
