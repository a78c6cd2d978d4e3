//! What a venue says of trading, of one instrument or of all: opened, halted, ended, listed otherwise.
//!
//! Called by the feed, for words of the stream and for lists that were read again. Values that are held
//! stay what they are; only what they are worth changes, until an instrument ends.

use tickfan_core::market::{Channel, Listing, Nanos, State, Trading, Why};

use super::doubt::Doubts;
use super::early::Early;
use super::{Context, ImageWant, InstrumentFeed};

/// Whether an instrument trades, as far as is known, and by whose word.
#[derive(Debug, Clone, Copy)]
pub(super) struct Phase {
    pub(super) trading: Trading,
    /// It is halted because everything is.
    is_halted_with_all: bool,
    /// Whether it traded when the venue's list was read last.
    listed: Trading,
}

impl Phase {
    /// As the venue lists it.
    pub(super) const fn new(listed: Trading) -> Self {
        Self { trading: listed, is_halted_with_all: false, listed }
    }

    /// Another connection goes on from here, until it says otherwise.
    pub(super) const fn successor(self) -> Self {
        Self { listed: self.trading, ..self }
    }

    /// Another connection took over, with what it has said; what the list said stays.
    pub(super) const fn take_over(&mut self, other: Self) {
        *self = Self { listed: self.listed, ..other };
    }

    /// A connection begins: what the last one said of a halt may be over; the list is read again and
    /// again.
    pub(super) const fn begin(&mut self) {
        self.trading = match self.listed {
            Trading::Ended => Trading::Open,
            listed => listed,
        };
    }

    /// The venue has nothing more of it to tell.
    pub(super) fn has_ended(self) -> bool {
        self.trading == Trading::Ended
    }
}

impl InstrumentFeed {
    /// The venue began, halted or ended trading.
    pub fn trades_as(
        &mut self,
        trading: Trading,
        is_connected: bool,
        now: Nanos,
        context: &Context<'_>,
    ) {
        let before = std::mem::replace(&mut self.phase.trading, trading);
        self.phase.is_halted_with_all = false;
        match (before, trading) {
            _ if before == trading => {}
            (_, Trading::Ended) => self.end(now),
            (Trading::Ended, _) => self.begin_anew(is_connected, now),
            _ => {
                self.doubts.forgive_cross();
                if self.draft.next.book.status.state.flows() {
                    self.doubts.crosses(self.draft.next.book.book.is_crossed(), now);
                }
                self.settle_all(now, context.rules);
            }
        }
    }

    /// The venue began, halted or ended trading of everything: what it said of this one alone stays.
    pub fn trades_with_all(&mut self, trading: Trading, now: Nanos, context: &Context<'_>) {
        match (self.phase.trading, trading) {
            (Trading::Ended, _) => {}
            (Trading::Open, Trading::Halted) => {
                self.trades_as(trading, true, now, context);
                self.phase.is_halted_with_all = true;
            }
            // A halt is told again, as another kind of one; whose it is stays.
            (Trading::Halted, Trading::Halted) => {}
            (Trading::Halted, Trading::Open) if !self.phase.is_halted_with_all => {}
            _ => self.trades_as(trading, true, now, context),
        }
    }

    /// Nothing comes of it any more, and nothing is asked for.
    pub(super) fn end(&mut self, now: Nanos) {
        self.sequencer.lose();
        self.early = Early::default();
        self.drop_aside();
        self.doubts = Doubts::default();
        self.want.image = ImageWant::Never;
        for channel in Channel::ALL {
            self.draft.turn(*channel, State::Closed, Why::Delisted, now);
        }
    }

    /// It trades again: nothing of before counts.
    fn begin_anew(&mut self, is_connected: bool, now: Nanos) {
        self.draft.break_all();
        self.counting.join();
        // Its numbers may begin anew with it.
        self.draft.next.book.sequence = None;
        self.want.begin_anew(is_connected, now);
        for channel in Channel::ALL {
            self.draft.turn(*channel, State::Syncing, Why::Starting, now);
        }
    }

    /// The venue's instrument list was read again; `None` = it is not in it.
    pub fn listed_as(
        &mut self,
        listing: Option<&Listing>,
        is_connected: bool,
        now: Nanos,
        context: &mut Context<'_>,
    ) {
        let trading = listing.map_or(Trading::Ended, |listing| listing.trading);
        // Only what the list says anew: the stream may have said more since.
        if std::mem::replace(&mut self.phase.listed, trading) != trading {
            self.trades_as(trading, is_connected, now, context);
        }
        let Some(listing) = listing else { return };
        let before = self.entry.listing();
        if before.as_deref() == Some(listing) {
            return;
        }
        self.entry.set_listing(listing.clone());
        let has_other_steps =
            before.is_some_and(|old| (old.tick, old.lot) != (listing.tick, listing.lot));
        let (held, scales) = (self.draft.next.scales, listing.scales());
        if scales.px > held.px || scales.qty > held.qty {
            // Where it cannot be, what follows will show whether it must be.
            if self.draft.grow_scales(scales, now) {
                context.stats.scale_changes.inc();
            }
        } else if has_other_steps && self.draft.next.book.status.state.flows() {
            self.lose(Channel::Book, Why::ScaleChange, now, context);
        }
        self.draft.scales_known = true;
    }
}
