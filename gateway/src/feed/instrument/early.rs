//! Book events that came before their image: kept, in their order, until it is here to be joined with.
//!
//! Called by the instrument. What is kept is bounded, in events and in levels.

use tickfan_core::market::{BookEvent, LevelChange, Nanos};

use crate::limits::{IMAGE_BUFFER_EVENTS_MAX, IMAGE_BUFFER_LEVELS_MAX};

/// A book event that waits for its image, with its own levels.
#[derive(Debug)]
pub(super) struct EarlyEvent {
    pub(super) event: BookEvent,
    pub(super) bids: Vec<LevelChange>,
    pub(super) asks: Vec<LevelChange>,
    pub(super) tr_ns: Nanos,
}

impl EarlyEvent {
    const fn levels(&self) -> usize {
        self.bids.len() + self.asks.len()
    }
}

/// The events that wait for an image.
#[derive(Debug, Default)]
pub(super) struct Early {
    events: Vec<EarlyEvent>,
    levels: usize,
    /// Receipt of the first event that came while there was no image, kept or not; 0 = none.
    awaited_ns: Nanos,
}

/// No more events can be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

impl Early {
    /// Something came that the image is needed for.
    pub(super) const fn await_image(&mut self, now: Nanos) {
        if self.awaited_ns == 0 {
            self.awaited_ns = now;
        }
    }

    /// Something that came waits for the image, kept or not.
    pub(super) const fn is_awaiting(&self) -> bool {
        self.awaited_ns != 0
    }

    /// The image is here: since when something waited for it; 0 = nothing did.
    pub(super) const fn end_await(&mut self) -> Nanos {
        std::mem::replace(&mut self.awaited_ns, 0)
    }

    /// The venue's number of the last event.
    pub(super) fn last(&self) -> Option<u64> {
        self.events.last()?.event.continuity.map(|continuity| continuity.last)
    }

    /// Keeps an event.
    pub(super) fn push(
        &mut self,
        event: &BookEvent,
        [bids, asks]: [&[LevelChange]; 2],
        now: Nanos,
    ) -> Result<(), Full> {
        let levels = self.levels + bids.len() + asks.len();
        if self.events.len() >= IMAGE_BUFFER_EVENTS_MAX || levels > IMAGE_BUFFER_LEVELS_MAX {
            return Err(Full);
        }
        self.levels = levels;
        self.events.push(EarlyEvent {
            event: event.clone(),
            bids: bids.to_vec(),
            asks: asks.to_vec(),
            tr_ns: now,
        });
        Ok(())
    }

    /// Takes all events out.
    pub(super) fn take(&mut self) -> Vec<EarlyEvent> {
        self.levels = 0;
        std::mem::take(&mut self.events)
    }

    /// Puts back those that were taken out and wait for another image.
    pub(super) fn put_back(&mut self, events: Vec<EarlyEvent>) {
        self.levels = events.iter().map(EarlyEvent::levels).sum();
        self.events = events;
    }

    /// Another image makes all of them old, or none can.
    pub(super) fn clear(&mut self) {
        self.events.clear();
        self.levels = 0;
    }
}
