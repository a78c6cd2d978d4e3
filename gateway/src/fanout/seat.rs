//! A seat: the place of one connection in one budget class, with its subscriptions there.
//!
//! Each seat is paced by itself: it is sent to at once, unless its last send was less than a pace
//! ago. So a sparse subscriber sees no delay, and a busy one gets one send per pace.

use std::sync::Arc;

use tickfan_core::market::Nanos;
use tickfan_core::snapshot::Snapshot;
use tickfan_core::view::BudgetClass;

use super::table::{ConnectionKey, LaneKey, SeatKey};
use crate::limits::{GRID_DIVISOR, PACE_DIVISOR, PACE_NUMERATOR};

/// The least time between two sends of a class.
pub const fn pace_ns(class: BudgetClass) -> Nanos {
    class.budget_ns() / PACE_DIVISOR * PACE_NUMERATOR
}

/// The next time at which seats and lanes of a class are looked at: what falls due between two such
/// times is done together, because to wake a thread costs as much as a send.
pub const fn on_grid(class: BudgetClass, at_ns: Nanos) -> Nanos {
    match class.budget_ns() / GRID_DIVISOR {
        0 => at_ns,
        grid_ns => at_ns.next_multiple_of(grid_ns),
    }
}

/// A subscription: a position in a lane. There are more of these than of anything else, so it is kept
/// small: see `limits::SUBSCRIPTION_BYTES`.
#[derive(Debug)]
pub struct Seated {
    /// Receipt of the oldest change that the client was not sent; 0 = none.
    pub oldest_ns: Nanos,
    /// The lane.
    pub lane: LaneKey,
    /// The position in the lane's log.
    pub position: u32,
    held: u32,
    /// The place in the lane's list of subscribers, above what it gets next.
    slot_and_wants: u32,
}

/// The bits of [`Seated::slot_and_wants`] that say what it gets next.
const WANTS_BITS: u32 = 2;

/// What a subscription gets next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Wants {
    /// What its position in the log says.
    Log,
    /// The whole, for the first time: nothing of it can be late. For trades: those since what it
    /// holds.
    First,
    /// The whole.
    Whole,
    /// The difference from what it held in another lane: its connection has that snapshot.
    Bridge,
}

impl Seated {
    /// A subscription that begins at a position of a lane, holding version `held`.
    pub const fn new(lane: LaneKey, position: u32, held: u64, oldest_ns: Nanos) -> Self {
        Self { oldest_ns, lane, position, held: held as u32, slot_and_wants: 0 }
    }

    /// The place in the lane's list of subscribers.
    pub const fn slot(&self) -> usize {
        (self.slot_and_wants >> WANTS_BITS) as usize
    }

    /// Moves it in the lane's list of subscribers.
    pub const fn set_slot(&mut self, slot: usize) {
        self.slot_and_wants = (slot as u32) << WANTS_BITS | self.wants() as u32;
    }

    /// What it gets next.
    pub const fn wants(&self) -> Wants {
        match self.slot_and_wants & ((1 << WANTS_BITS) - 1) {
            0 => Wants::Log,
            1 => Wants::First,
            2 => Wants::Whole,
            _ => Wants::Bridge,
        }
    }

    /// Changes what it gets next.
    pub const fn set_wants(&mut self, wants: Wants) {
        self.slot_and_wants = (self.slot_and_wants >> WANTS_BITS) << WANTS_BITS | wants as u32;
    }

    /// The version that the client holds, for trades the number of the last trade, given what the
    /// lane told last: the two are never four billion apart.
    pub const fn held(&self, told: u64) -> u64 {
        told.wrapping_add((self.held.wrapping_sub(told as u32) as i32) as u64)
    }

    /// The client holds another version.
    pub const fn set_held(&mut self, held: u64) {
        self.held = held as u32;
    }
}

/// How a subscription begins in a lane.
#[derive(Debug)]
pub enum Begin {
    /// As a new one.
    First,
    /// With the whole; for trades, with those since what it holds.
    Whole,
    /// With the difference from what it held in another lane.
    Bridge(Arc<Snapshot>),
}

/// A snapshot from which a subscription is bridged into the lane that it moved to.
#[derive(Debug)]
pub struct Bridge {
    /// The lane that it moved to.
    pub lane: LaneKey,
    /// What it held in the lane that it left.
    pub from: Arc<Snapshot>,
}

/// What a subscription was when it ended.
#[derive(Debug)]
pub struct Ended {
    /// The version that the client holds.
    pub held: u64,
    /// Receipt of the oldest change that the client was not sent; 0 = none.
    pub oldest_ns: Nanos,
    /// What it would have got next.
    pub wants: Wants,
    /// From what it would have been bridged.
    pub bridge: Option<Arc<Snapshot>>,
}

/// Where a seat stands in its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has no news, and may be sent to at once.
    Idle,
    /// It has news and waits to be sent to.
    Ready,
    /// It was sent to lately: it waits for its pace to pass.
    Paced,
    /// Its connection is blocked.
    Blocked,
}

/// The place of one connection in one class.
#[derive(Debug)]
pub struct Seat {
    /// Receipt of the oldest change that it was not sent; 0 = it has no news.
    pub oldest_ns: Nanos,
    /// The time of its last send.
    pub sent_ns: Nanos,
    /// Its subscriptions.
    pub subscriptions: Vec<Seated>,
    /// Whose.
    pub connection: ConnectionKey,
    /// The next seat of the same connection.
    pub next: Option<SeatKey>,
    /// In which class.
    pub class: BudgetClass,
    /// Where it stands.
    pub standing: Standing,
}

impl Seat {
    /// A seat that nothing was sent to yet.
    pub const fn new(connection: ConnectionKey, class: BudgetClass) -> Self {
        Self {
            oldest_ns: 0,
            sent_ns: 0,
            subscriptions: Vec::new(),
            connection,
            next: None,
            class,
            standing: Standing::Idle,
        }
    }

    /// It was not sent everything.
    pub const fn has_news(&self) -> bool {
        self.oldest_ns != 0
    }

    /// It has nothing to send after all.
    pub fn had_nothing(&mut self) {
        self.oldest_ns = 0;
        if self.standing == Standing::Ready {
            self.standing = Standing::Idle;
        }
    }

    /// When its pace has passed.
    pub const fn paced_until_ns(&self) -> Nanos {
        on_grid(self.class, self.sent_ns + pace_ns(self.class))
    }

    /// More than half of its pace has passed: it may join a send of another seat.
    pub const fn may_join(&self, now: Nanos) -> bool {
        self.has_news() && now >= self.sent_ns + pace_ns(self.class) / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_held_is_known_from_that_of_the_lane() {
        let mut seated = Seated::new(LaneKey::at(1), 0, 7, 0);
        for (held, told) in [
            (7, 7),
            (7, 900),
            (900, 7),
            (u64::from(u32::MAX) + 5, u64::from(u32::MAX) - 5),
            (u64::from(u32::MAX) - 5, u64::from(u32::MAX) + 5),
        ] {
            seated.set_held(held);
            assert_eq!(seated.held(told), held, "told {told}");
        }
    }

    #[test]
    fn the_slot_and_what_is_wanted_do_not_disturb_each_other() {
        let mut seated = Seated::new(LaneKey::at(1), 0, 0, 0);
        for wants in [Wants::First, Wants::Whole, Wants::Bridge, Wants::Log] {
            seated.set_wants(wants);
            seated.set_slot(1 << 29);
            assert_eq!((seated.slot(), seated.wants()), (1 << 29, wants));
        }
    }
}
