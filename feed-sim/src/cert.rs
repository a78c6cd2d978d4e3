//! Every scenario against a client → pass or fail, point by point.
//!
//! Called by the binary (`feed-sim cert -- CMD`) and by tests. A client is whatever says in lines of
//! JSON what it holds of each symbol; see [`Line`]. The judge knows the exchange's truth and nothing of
//! the client: no gateway, no language.

use serde::{Deserialize, Serialize};

use crate::scenario::Kind;
use crate::venue::Dialect;

mod command;
mod judge;
mod run;
#[cfg(test)]
mod tests;

pub use command::Command;
pub use judge::Judge;
pub use run::{CertOptions, Client, Place, Started, certify};

/// How many of the best levels of a side a client tells.
pub const LEVELS: usize = 10;

/// What a client says whenever its book of a symbol, or the state of that book, has changed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// As the venue spells it.
    pub symbol: String,
    /// `live` says that the book is right as far as the client knows; every other word that it is not.
    pub state: String,
    /// The venue's number of the book, where it has one and the client knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// Price and quantity of the [`LEVELS`] best bids, best first; all when there are fewer. Needed
    /// when it is live.
    #[serde(default)]
    pub bids: Vec<[String; 2]>,
    /// The same of the asks.
    #[serde(default)]
    pub asks: Vec<[String; 2]>,
}

/// What is demanded of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Demand {
    /// Its books become live, and its lines are what they must be.
    Starts,
    /// Not of the client: the fault happened.
    Happened,
    /// What it calls live is what the book truly was, in order.
    NeverWrong,
    /// It says that a book is not live when that must be known to it.
    Noticed,
    /// It is right again soon after the end.
    RightAgain,
    /// Symbols that nothing happened to stay live.
    OthersUntouched,
    /// It asks for nothing while the venue wants to be left alone.
    SilentInBan,
    /// It connects no more often than the venue allows.
    ConnectsRarely,
    /// It holds what the exchange has when the market stands still.
    RightInTheEnd,
}

impl Demand {
    /// In words.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Starts => "its books become live",
            Self::Happened => "the fault happened",
            Self::NeverWrong => "what is live is true, in order",
            Self::Noticed => "the trouble is noticed",
            Self::RightAgain => "right again in time",
            Self::OthersUntouched => "other symbols stay live",
            Self::SilentInBan => "no request during a ban",
            Self::ConnectsRarely => "connects within the venue's limit",
            Self::RightInTheEnd => "right when all is still",
        }
    }
}

/// Whether a demand is met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Point {
    /// Which.
    pub demand: Demand,
    /// It is.
    pub passed: bool,
    /// What was seen.
    pub seen: String,
}

/// What became of one scenario.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Which.
    pub scenario: String,
    /// Why it cannot happen at this venue, if so.
    pub not_applicable: Option<String>,
    /// What was demanded.
    pub points: Vec<Point>,
}

impl Verdict {
    /// Nothing that was demanded is missing.
    pub fn passed(&self) -> bool {
        self.points.iter().all(|point| point.passed)
    }
}

/// A client can tell from what it gets that its book may be wrong.
const fn must_be_noticed(kind: Kind, dialect: Dialect) -> bool {
    let is_kraken = matches!(dialect, Dialect::Kraken | Dialect::KrakenV1);
    match kind {
        // What comes next may make good what was lost there: only a checksum tells.
        Kind::Gap | Kind::Reorder => !is_kraken,
        // Zero is "not told" there.
        Kind::ZeroChecksum => !matches!(dialect, Dialect::Okx),
        Kind::WrongChecksum
        | Kind::Crossed
        | Kind::Cut
        | Kind::CutAll
        | Kind::HalfOpen
        | Kind::BadUtf8
        | Kind::BadJson => true,
        _ => false,
    }
}

/// It concerns its symbol only, and a client can tell.
const fn is_alone(kind: Kind, dialect: Dialect) -> bool {
    // Whatever comes next on a connection shows there that something before it is missing.
    let numbers_all = matches!(dialect, Dialect::CoinbaseAdvanced | Dialect::Bitfinex);
    match kind {
        Kind::Gap | Kind::Reorder | Kind::Duplicate => !numbers_all,
        Kind::WrongChecksum
        | Kind::ZeroChecksum
        | Kind::Crossed
        | Kind::Fragmented
        | Kind::Drip
        | Kind::TickChange
        | Kind::Halt
        | Kind::Delist
        | Kind::NumbersRestart
        | Kind::KeepAlive => true,
        _ => is_harmless(kind),
    }
}

/// What comes is right and only unusual: a client reads it, and no book is any worse.
const fn is_harmless(kind: Kind) -> bool {
    kind.is_of_spelling() || matches!(kind, Kind::AbsentLevel)
}

/// The venue tells a number of each state of a book.
const fn numbers_books(dialect: Dialect) -> bool {
    dialect.fetches_images()
        || matches!(
            dialect,
            Dialect::Okx | Dialect::BybitSpot | Dialect::BybitLinear | Dialect::Deribit
        )
}

/// How many connections a venue allows one address, and in how many seconds.
const fn connects_max(dialect: Dialect) -> (usize, u64) {
    match dialect {
        Dialect::BinanceSpot | Dialect::BinanceUsdm | Dialect::BinanceCoinm => (300, 300),
        Dialect::Kraken | Dialect::KrakenV1 => (150, 600),
        Dialect::BybitSpot | Dialect::BybitLinear => (500, 300),
        Dialect::Okx => (3, 1),
        Dialect::Bitfinex => (20, 60),
        // As few as anywhere, where the venue does not say.
        Dialect::Coinbase | Dialect::CoinbaseAdvanced | Dialect::Deribit => (8, 1),
    }
}
