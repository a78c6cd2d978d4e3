//! The languages that this exchange speaks: one file a venue, text in and text out.
//!
//! Called by the replay and by the synthetic exchange. Nothing here knows a socket or a market, and
//! nothing here is shared with the gateway's decoders, which are tested against it.

use tickfan_core::market::Venue;

pub(crate) mod binance;
pub(crate) mod kraken;

/// Which venue's language is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Binance spot.
    BinanceSpot,
    /// Binance USD-M futures.
    BinanceUsdm,
    /// Binance COIN-M futures.
    BinanceCoinm,
    /// Kraken, WebSocket version 2.
    Kraken,
}

impl Dialect {
    /// The dialect of a recording, told by the beginning of its file name.
    pub fn of_recording(name: &str) -> Option<Self> {
        [
            ("binance-spot-", Self::BinanceSpot),
            ("binance-usdm-", Self::BinanceUsdm),
            ("binance-coinm-", Self::BinanceCoinm),
            ("kraken-v2-", Self::Kraken),
        ]
        .into_iter()
        .find_map(|(prefix, dialect)| name.starts_with(prefix).then_some(dialect))
    }

    /// The venue as the protocol calls it.
    pub const fn venue(self) -> Venue {
        match self {
            Self::BinanceSpot => Venue::BinanceSpot,
            Self::BinanceUsdm => Venue::BinanceUsdm,
            Self::BinanceCoinm => Venue::BinanceCoinm,
            Self::Kraken => Venue::Kraken,
        }
    }
}
