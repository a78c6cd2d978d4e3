//! What clients see, described once for every encoding: the updates, the frame around them, the
//! seam that an encoding implements, and what a client reads out of any of them.
//!
//! The shards call it. The bytes of an update depend on nothing of a connection, so that all who get
//! an update share them.

use serde::{Deserialize, Serialize};

use crate::market::{Level, Nanos, Scales, State, Trade, Why};

pub mod json;
pub mod binary;
pub mod message;

/// The times of JSON are microseconds.
pub(crate) const NANOS_PER_MICRO: Nanos = 1_000;

/// The encodings that a client may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Text: what a client gets that asks for nothing.
    Json,
    /// Fixed fields in little-endian order.
    Binary,
}

impl Encoding {
    /// How many encodings there are.
    pub const COUNT: usize = 2;

    /// Every encoding.
    pub const ALL: [Self; Self::COUNT] = [Self::Json, Self::Binary];

    /// The encoding as an index into [`Encoding::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// What encodes it.
    pub fn encoder(self) -> &'static dyn Encoder {
        match self {
            Self::Json => &json::Json,
            Self::Binary => &binary::Binary,
        }
    }

    /// The WebSocket subprotocol that asks for it.
    pub fn subprotocol(self) -> &'static str {
        self.encoder().subprotocol()
    }

    /// The encoding that this subprotocol asks for.
    pub fn from_subprotocol(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|encoding| encoding.subprotocol() == name)
    }
}

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

impl Head {
    /// What an update says that is of no view and of no channel.
    pub const NONE: Self = Self {
        view: None,
        state: State::Syncing,
        epoch: 0,
        s: 0,
        p: 0,
        q: None,
        te_ns: 0,
        tr_ns: 0,
        to_ns: 0,
        scales: Scales { px: 0, qty: 0 },
    };
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
    /// How the connection itself is served.
    Stats(StatsReport),
}

/// What a connection is told of itself. The fields stand in the order of the protocol, and their
/// names are the protocol's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StatsReport {
    /// The interval that it is about.
    pub every_ms: u64,
    /// The median of what `late` measures: the wait of the oldest unsent change.
    pub p50_us: u64,
    /// 99 of 100 waited no longer.
    pub p99_us: u64,
    /// The longest wait.
    pub max_us: u64,
    /// Updates sent.
    pub sent: u64,
    /// Venue events that were merged into later ones.
    pub merged: u64,
    /// Updates over their budget.
    pub late: u64,
    /// Of these, because the gateway was slow.
    pub late_gateway: u64,
    /// Of these, because the client's socket did not drain.
    pub late_client: u64,
    /// The median age on receipt, by the clocks of the venue and of the gateway: may be negative.
    pub feed_age_p50_us: i64,
    /// Bytes that the socket has not taken.
    pub unsent_bytes: u64,
}

/// One update, ready to be encoded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update<'a> {
    /// What it says of itself.
    pub head: Head,
    /// What it carries.
    pub payload: Payload<'a>,
}

impl Update<'static> {
    /// A report.
    pub const fn stats(report: StatsReport) -> Self {
        Self { head: Head::NONE, payload: Payload::Stats(report) }
    }
}

/// What a data frame says of itself: the only bytes of it that belong to one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead<'a> {
    /// The running number of the frame, from 1.
    pub n: u64,
    /// The time just before the send call.
    pub ts_ns: Nanos,
    /// How many updates follow.
    pub count: usize,
    /// The indices of the updates that are over their budget.
    pub late: &'a [u16],
    /// The worst overrun.
    pub late_ns: Nanos,
}

/// Turns updates into the bytes that one kind of client expects.
pub trait Encoder: Send + Sync {
    /// The WebSocket subprotocol that asks for it.
    fn subprotocol(&self) -> &'static str;

    /// Its frames are text; otherwise they are binary messages.
    fn is_text(&self) -> bool;

    /// Appends one update.
    fn update(&self, update: &Update<'_>, out: &mut Vec<u8>);

    /// Stands between two updates of a frame.
    fn separator(&self) -> &'static [u8];

    /// Appends what stands before the first update of a frame.
    fn frame_head(&self, head: &FrameHead<'_>, out: &mut Vec<u8>);

    /// Stands behind the last update of a frame.
    fn frame_tail(&self) -> &'static [u8];
}

/// A data frame as a client reads it, in whatever encoding it came.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Frame {
    /// The running number.
    pub n: u64,
    /// The send time in microseconds.
    pub ts: u64,
    /// Indices of the updates over their budget.
    #[serde(default)]
    pub late: Vec<u16>,
    /// The worst overrun in microseconds.
    #[serde(default)]
    pub late_us: u64,
    /// The updates.
    pub u: Vec<Received>,
}

/// A level as text: price and quantity.
pub type TextLevel = (String, String);

/// A trade as text: time, price, quantity, aggressor, id.
pub type TextTrade = (u64, String, String, String, String);

/// An update as a client reads it; prices and quantities stay text, times are microseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "lowercase")]
#[expect(missing_docs, reason = "the fields are those of the protocol, under their own names")]
pub enum Received {
    /// A whole book.
    Image {
        #[serde(skip_serializing_if = "Option::is_none")]
        v: Option<u32>,
        e: u32,
        s: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        q: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        te: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        tr: Option<u64>,
        state: String,
        b: Vec<TextLevel>,
        a: Vec<TextLevel>,
        #[serde(skip_serializing_if = "Option::is_none")]
        trusted: Option<(usize, usize)>,
    },
    /// A change of a book.
    Delta {
        #[serde(skip_serializing_if = "Option::is_none")]
        v: Option<u32>,
        s: u64,
        p: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        q: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        te: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        tr: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        to: Option<u64>,
        b: Vec<TextLevel>,
        a: Vec<TextLevel>,
    },
    /// The best bid and offer.
    Bbo {
        #[serde(skip_serializing_if = "Option::is_none")]
        v: Option<u32>,
        s: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        q: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        te: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        tr: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        to: Option<u64>,
        b: Option<TextLevel>,
        a: Option<TextLevel>,
    },
    /// Trades.
    Trades {
        #[serde(skip_serializing_if = "Option::is_none")]
        v: Option<u32>,
        s: u64,
        p: u64,
        #[serde(default, skip_serializing_if = "is_zero")]
        lost: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        tr: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        to: Option<u64>,
        x: Vec<TextTrade>,
    },
    /// A change of state.
    State {
        #[serde(skip_serializing_if = "Option::is_none")]
        v: Option<u32>,
        e: u32,
        state: String,
        why: String,
        since: u64,
    },
    /// How the connection is served.
    Stats(StatsReport),
    /// A kind that this version does not know.
    #[serde(other)]
    Unknown,
}

/// As the protocol leaves out what is not there.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}
