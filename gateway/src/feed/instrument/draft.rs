//! What an instrument publishes next: the snapshot in the making, since when what of it waits, and
//! whose history is lost.
//!
//! Everything that changes an instrument changes its draft. A change that is not touched here is told
//! to nobody; one that is goes out with the next batch, and its oldest receipt with it.

use std::sync::Arc;

use tickfan_core::market::{Channel, Nanos, State, Why};
use tickfan_core::snapshot::marks::Marks;
use tickfan_core::snapshot::{Entry, Snapshot};

/// The next snapshot of an instrument.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) next: Snapshot,
    /// The scales are those of the listing, of an image, or of an earlier run.
    pub(super) scales_known: bool,
    /// Receipt of the oldest change that is not published yet, by channel; 0 = none.
    unpublished_ns: [Nanos; Channel::ALL.len()],
    /// History was lost: the next good value begins an epoch. By channel.
    broken: [bool; Channel::ALL.len()],
}

impl Draft {
    /// Goes on from a snapshot, of which nothing is known to be right any more.
    pub(super) fn new(next: Snapshot, scales_known: bool) -> Self {
        Self {
            broken: [next.version > 0; Channel::ALL.len()],
            next,
            scales_known,
            unpublished_ns: [0; Channel::ALL.len()],
        }
    }

    /// Receipt of the oldest change of a channel that is not published yet; 0 = none.
    pub(super) const fn unpublished_ns(&mut self, channel: Channel) -> &mut Nanos {
        &mut self.unpublished_ns[channel.index()]
    }

    /// A channel has changed, by something that came at `now`.
    pub(super) fn touch(&mut self, channel: Channel, now: Nanos) {
        let oldest = self.unpublished_ns(channel);
        if *oldest == 0 || now < *oldest {
            *oldest = now;
        }
    }

    /// Turns a channel to a state.
    pub(super) fn turn(&mut self, channel: Channel, state: State, why: Why, now: Nanos) {
        if self.next.status_mut(channel).turn(state, why, now) {
            self.touch(channel, now);
        }
    }

    /// The history of a channel is lost.
    pub(super) const fn break_off(&mut self, channel: Channel) {
        self.broken[channel.index()] = true;
    }

    /// The history of every channel is lost, as far as there was any.
    pub(super) fn break_all(&mut self) {
        self.broken = [self.next.version > 0; Channel::ALL.len()];
    }

    /// The history of a channel is lost, and no good value has come since.
    pub(super) const fn is_broken(&self, channel: Channel) -> bool {
        self.broken[channel.index()]
    }

    /// A good value of a channel is here, be it after a loss: then a new epoch.
    pub(super) fn mend(&mut self, channel: Channel, now: Nanos) {
        if !std::mem::take(&mut self.broken[channel.index()]) {
            return;
        }
        self.next.status_mut(channel).begin_epoch();
        self.touch(channel, now);
        if channel == Channel::Bbo {
            // It is told anew, and has not waited since it changed last.
            self.next.bbo.tr_ns = now;
        }
    }

    /// Publishes what has changed and marks it for the shards; returns whether anything had.
    pub(super) fn publish(&mut self, entry: &Entry, marks: &[Arc<Marks>]) -> bool {
        if self.unpublished_ns == [0; Channel::ALL.len()] {
            return false;
        }
        debug_assert!(self.next.book.book.bids.is_sound() && self.next.book.book.asks.is_sound());
        entry.publish(Arc::new(self.next.clone()));
        for channel in Channel::ALL {
            let oldest = std::mem::take(self.unpublished_ns(*channel));
            if oldest != 0 {
                for shard in marks {
                    shard.mark(entry.instrument.id, *channel, oldest);
                }
            }
        }
        true
    }
}
