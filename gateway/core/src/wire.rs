//! What clients see, described once for every encoding: the updates, the frame around them, and
//! the seam that an encoding implements.
//!
//! The shards call it. The bytes of an update depend on nothing of a connection, so that all who get
//! an update share them.

use crate::market::{Level, Nanos, Scales, State, Trade, Why};

pub mod json;
pub mod message;

/// What every update says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The view; `None` outside a subscription (HTTP).
    pub view: Option<u32>,
    /// The state of the channel.
    pub state: State,
    /// The epoch of the channel.
    pub epoch: u32,
    /// The version after this update; for trades the number of the last.
    pub s: u64,
    /// The version that must be held before it; 0 where there is none.
    pub p: u64,
    /// The venue's own sequence.
    pub q: Option<u64>,
    /// The venue's time of the newest merged event.
    pub te_ns: Nanos,
    /// Our receipt of the newest merged event.
    pub tr_ns: Nanos,
    /// Our receipt of the oldest merged event.
    pub to_ns: Nanos,
    /// How the numbers of this update are to be read.
    pub scales: Scales,
}

/// What an update carries.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Payload<'a> {
    /// A whole book, best first.
    Image {
        /// The bids.
        bids: &'a [Level],
        /// The asks.
        asks: &'a [Level],
        /// How many of each may be relied on, where the venue's own image was cut.
        trusted: [Option<usize>; 2],
    },
    /// A change of a book; quantity 0 removes.
    Delta {
        /// Changes of the bids.
        bids: &'a [Level],
        /// Changes of the asks.
        asks: &'a [Level],
    },
    /// The best bid and offer, whole.
    Bbo {
        /// The best bid.
        bid: Option<Level>,
        /// The best offer.
        ask: Option<Level>,
    },
    /// Trades, oldest first.
    Trades {
        /// The trades.
        trades: &'a [Trade],
        /// Trades that were lost before these.
        lost: u64,
    },
    /// A change of state.
    State {
        /// Its reason.
        why: Why,
        /// Since when it holds.
        since_ns: Nanos,
    },
}

/// One update, ready to be encoded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update<'a> {
    /// What it says of itself.
    pub head: Head,
    /// What it carries.
    pub payload: Payload<'a>,
}

/// What a data frame says of itself: the only bytes of it that belong to one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead<'a> {
    /// The running number of the frame, from 1.
    pub n: u64,
    /// The time just before the send call.
    pub ts_ns: Nanos,
    /// The indices of the updates that are over their budget.
    pub late: &'a [u16],
    /// The worst overrun.
    pub late_ns: Nanos,
}

/// Turns updates into the bytes that one kind of client expects.
pub trait Encoder: Send + Sync {
    /// The WebSocket subprotocol that asks for it.
    fn subprotocol(&self) -> &'static str;

    /// Appends one update.
    fn update(&self, update: &Update<'_>, out: &mut Vec<u8>);

    /// Stands between two updates of a frame.
    fn separator(&self) -> &'static [u8];

    /// Appends what stands before the first update of a frame.
    fn frame_head(&self, head: &FrameHead<'_>, out: &mut Vec<u8>);

    /// Stands behind the last update of a frame.
    fn frame_tail(&self) -> &'static [u8];
}
