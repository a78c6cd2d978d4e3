//! A large image of the stream, which the REST thread decodes while the events after it wait.
//!
//! Called by the feed. At most one image of an instrument is under way; one that came after it waits.

use tickfan_core::market::{Channel, Nanos, Why};

use super::{Context, InstrumentFeed};
use crate::limits::IMAGE_TIMEOUT_NS;

/// What is being decoded.
#[derive(Debug)]
pub(super) struct Aside {
    /// The events that wait follow it; it is of use.
    is_wanted: bool,
    /// A later image, which they follow instead.
    next: Option<Vec<u8>>,
}

/// What came of an image that was decoded aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is the image that the events wait for.
    Wanted,
    /// It is of no use, and no other is known.
    Useless,
    /// It is of no use, and this message is to be decoded instead.
    Replaced(Vec<u8>),
}

impl InstrumentFeed {
    /// Events of the book wait for a large image that they follow.
    pub(super) fn is_aside(&self) -> bool {
        self.aside.as_ref().is_some_and(|aside| aside.is_wanted || aside.next.is_some())
    }

    /// A large image is under way, be it of use or not.
    pub const fn has_aside(&self) -> bool {
        self.aside.is_some()
    }

    /// What is under way is of no use any more.
    pub(super) fn drop_aside(&mut self) {
        if let Some(aside) = &mut self.aside {
            *aside = Aside { is_wanted: false, next: None };
        }
    }

    /// A large image came over the stream; returns it when it is to be decoded at once.
    pub fn set_aside(&mut self, message: &[u8], now: Nanos) -> Option<Vec<u8>> {
        if self.phase.has_ended() {
            return None;
        }
        // All that came before is in it.
        self.early.clear();
        self.early.await_image(now);
        self.want.asked(now + IMAGE_TIMEOUT_NS);
        let message = message.to_vec();
        if self.aside.is_some() {
            self.aside = Some(Aside { is_wanted: false, next: Some(message) });
            return None;
        }
        self.aside = Some(Aside { is_wanted: true, next: None });
        Some(message)
    }

    /// What was under way has been decoded, or cannot be.
    pub fn end_aside(&mut self) -> Outcome {
        match self.aside.take() {
            Some(Aside { next: Some(message), .. }) => {
                self.aside = Some(Aside { is_wanted: true, next: None });
                Outcome::Replaced(message)
            }
            Some(Aside { is_wanted: true, .. }) => Outcome::Wanted,
            _ => Outcome::Useless,
        }
    }

    /// The image that the events waited for cannot be read.
    pub fn fail_aside(&mut self, now: Nanos, context: &mut Context<'_>) {
        context.stats.malformed.inc();
        self.lose(Channel::Book, Why::MalformedMessage, now, context);
    }
}
