//! A seat: the place of one connection in one budget class, with its subscriptions there.
//!
//! Each seat is paced by itself: it is sent to at once, unless its last send was less than a pace
//! ago. So a sparse subscriber sees no delay, and a busy one gets one send per pace.

use std::sync::Arc;

use tickfan_core::market::Nanos;
use tickfan_core::snapshot::Snapshot;
use tickfan_core::view::BudgetClass;

use super::{ConnectionKey, LaneKey};
use crate::limits::{PACE_DIVISOR, PACE_NUMERATOR};

/// The least time between two sends of a class.
pub const fn pace_ns(class: BudgetClass) -> Nanos {
    class.budget_ns() / PACE_DIVISOR * PACE_NUMERATOR
}

/// A position in a lane.
#[derive(Debug)]
pub struct Seated {
    /// The lane.
    pub lane: LaneKey,
    /// The place in the lane's list of subscribers.
    pub slot: u32,
    /// The position in the lane's log.
    pub position: u32,
    /// The version that the client holds; for trades the number of the last trade.
    pub held: u64,
    /// Receipt of the oldest change that the client was not sent; 0 = none.
    pub oldest_ns: Nanos,
    /// What it gets next is not what its position says.
    pub wants: Wants,
}

/// What a subscription gets next.
#[derive(Debug, Clone, Default)]
pub enum Wants {
    /// What its position in the log says.
    #[default]
    Log,
    /// The whole, for the first time: nothing of it can be late. For trades: those since `held`.
    First,
    /// The whole.
    Whole,
    /// The difference from what it held in another lane.
    Bridge(Arc<Snapshot>),
}

/// Where a seat stands in its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has no news, and may be sent to at once.
    Idle,
    /// It has news and waits to be sent to.
    Ready,
    /// It was sent to lately: until then it waits for its pace to pass.
    Paced(Nanos),
    /// Its connection is blocked.
    Blocked,
}

/// The place of one connection in one class.
#[derive(Debug)]
pub struct Seat {
    /// Whose.
    pub connection: ConnectionKey,
    /// In which class.
    pub class: BudgetClass,
    /// Its subscriptions.
    pub subscriptions: Vec<Seated>,
    /// The time of its last send.
    pub sent_ns: Nanos,
    /// Receipt of the oldest change that it was not sent; 0 = it has no news.
    pub oldest_ns: Nanos,
    /// Where it stands.
    pub standing: Standing,
}

impl Seat {
    /// A seat that nothing was sent to yet.
    pub const fn new(connection: ConnectionKey, class: BudgetClass) -> Self {
        Self {
            connection,
            class,
            subscriptions: Vec::new(),
            sent_ns: 0,
            oldest_ns: 0,
            standing: Standing::Idle,
        }
    }

    /// It was not sent everything.
    pub const fn has_news(&self) -> bool {
        self.oldest_ns != 0
    }

    /// More than half of its pace has passed: it may join a send of another seat.
    pub const fn may_join(&self, now: Nanos) -> bool {
        self.has_news() && now >= self.sent_ns + pace_ns(self.class) / 2
    }
}
