//! Where the image of a book is, and when it is asked for: at once the first time, then with growing,
//! jittered pauses.
//!
//! The instrument says that it wants one, the feed asks for it when it is time. A function of events
//! and times; what is asked of the venue, and how, it does not know.

use tickfan_core::market::Nanos;

use crate::limits::{BACKOFF_FIRST_NS, BACKOFF_MAX_NS, RECOVERED_AFTER_NS};

/// Where the image of a book is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageWant {
    /// It is here.
    Here,
    /// To be asked for at this time.
    At(Nanos),
    /// Asked for; to be asked for again at this time.
    Asked(Nanos),
    /// Not to be had: the venue refuses the instrument, or lists it no longer.
    Never,
}

/// The wish for an image, and what came of those before.
#[derive(Debug)]
pub struct Want {
    /// Where it is.
    pub image: ImageWant,
    /// It has been asked for on this connection before, or came.
    pub has_asked: bool,
    /// The venue confirmed the subscription to the book, or sent an event of it: events will come over
    /// this connection. A fetched image without them would stay as it is.
    pub is_subscribed: bool,
    attempts: u32,
    live_since_ns: Nanos,
}

impl Want {
    /// There is no connection.
    pub(super) const fn new() -> Self {
        Self {
            image: ImageWant::Here,
            has_asked: false,
            is_subscribed: false,
            attempts: 0,
            live_since_ns: 0,
        }
    }

    /// A connection is up: it is to be asked for by `at` at the latest.
    pub(super) const fn begin(&mut self, at: Nanos) {
        self.image = ImageWant::At(at);
        self.has_asked = false;
        self.is_subscribed = false;
        // The pauses between connections are the session's.
        self.attempts = 0;
    }

    /// The connection is down.
    pub(super) fn disconnected(&mut self) {
        if self.image != ImageWant::Never {
            self.image = ImageWant::Here;
        }
    }

    /// The venue has the instrument again, and ended its subscription when it had not.
    pub(super) const fn begin_anew(&mut self, is_connected: bool, now: Nanos) {
        self.image = if is_connected { ImageWant::At(now) } else { ImageWant::Here };
        self.has_asked = true;
        self.attempts = 0;
    }

    /// The events that it is for have begun to come: the first is asked for without waiting longer.
    pub(super) fn hurry(&mut self, now: Nanos) {
        if let ImageWant::At(at) = self.image
            && self.attempts == 0
        {
            self.image = ImageWant::At(at.min(now));
        }
    }

    /// It is to be asked for: at once the first time, then with growing, jittered pauses.
    pub(super) fn retry(&mut self, now: Nanos, jitter: u64) {
        if self.live_since_ns != 0 && now.saturating_sub(self.live_since_ns) >= RECOVERED_AFTER_NS {
            self.attempts = 0;
        }
        self.live_since_ns = 0;
        let pause = if self.attempts == 0 {
            0
        } else {
            let ceiling = BACKOFF_FIRST_NS
                .saturating_mul(1 << (self.attempts - 1).min(16))
                .min(BACKOFF_MAX_NS);
            jitter % ceiling
        };
        self.attempts += 1;
        self.image = ImageWant::At(now + pause);
    }

    /// It was asked for, or is on its way; it is to be asked for again at `again`.
    pub const fn asked(&mut self, again: Nanos) {
        self.image = ImageWant::Asked(again);
        self.has_asked = true;
    }

    /// It could not be had; it is asked for again later.
    pub fn failed(&mut self, now: Nanos, jitter: u64) {
        if matches!(self.image, ImageWant::Asked(_)) {
            self.retry(now, jitter);
        }
    }

    /// The book that is served came right without it.
    pub const fn cleared(&mut self, now: Nanos) {
        self.image = ImageWant::Here;
        self.live_since_ns = now;
    }

    /// It is to come, asked for or not.
    pub(super) const fn is_open(&self) -> bool {
        matches!(self.image, ImageWant::At(_) | ImageWant::Asked(_))
    }

    /// It came, and is the book.
    pub(super) const fn arrived(&mut self, now: Nanos) {
        self.image = ImageWant::Here;
        self.has_asked = true;
        self.live_since_ns = now;
    }
}
