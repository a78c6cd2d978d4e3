//! What was measured at real venues, and how near to it a synthetic one must come.
//!
//! Each range names the recording that it is from, or the books of several. Where there is one number and
//! not a range, two thirds of it to one and a half times it counts as met: a recording of half a minute is
//! known no better than that. `feed-sim facts --recording` counts the same numbers again.

use crate::venue::Dialect;

/// One property of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// Messages in 10 ms at the 99th percentile, over their mean.
    Clustering,
    /// Messages about books and best prices for one about a trade.
    BookToTrade,
    /// Changes in a message about a book, at the 50th percentile.
    ChangesP50,
    /// The same at the 99th.
    ChangesP99,
    /// Changes at the best price, before or after, of a hundred.
    AtBest,
    /// How long an order lives, in milliseconds, at the 50th percentile.
    LifeMs,
}

impl Fact {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Clustering,
        Self::BookToTrade,
        Self::ChangesP50,
        Self::ChangesP99,
        Self::AtBest,
        Self::LifeMs,
    ];

    /// What it says.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clustering => "messages in 10 ms: p99 over mean",
            Self::BookToTrade => "book and best messages a trade",
            Self::ChangesP50 => "changes a book message, p50",
            Self::ChangesP99 => "changes a book message, p99",
            Self::AtBest => "changes at the best, %",
            Self::LifeMs => "life of an order, p50, ms",
        }
    }
}

/// What was measured of a fact, in hundredths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// From.
    pub low: u64,
    /// To.
    pub high: u64,
    /// Where.
    pub row: &'static str,
}

/// One number that was measured.
const fn about(hundredths: u64, row: &'static str) -> Measured {
    Measured { low: hundredths * 2 / 3, high: hundredths * 3 / 2, row }
}

const fn range(low: u64, high: u64, row: &'static str) -> Measured {
    Measured { low, high, row }
}

/// What was measured of a fact where it is nearest to this dialect.
pub const fn measured(dialect: Dialect, fact: Fact) -> Measured {
    use Fact::{AtBest, BookToTrade, ChangesP50, ChangesP99, Clustering, LifeMs};
    const SPOT: &str = "binance-spot-btcusdt-20240808";
    const USDM: &str = "binance-usdm-btcusdt-20240808";
    const COINM: &str = "binance-coinm-btcusdperp-20240808";
    const BYBIT: &str = "bybit-linear-4sym-20260809";
    const OKX: &str = "okx-3sym-20220513";
    const ADVANCED: &str = "coinbase-advanced-2sym-20260809";
    const COINBASE: &str = "coinbase-exchange-10sym-20210417";
    const KRAKEN: &str = "kraken-v1-10sym-20210417";
    const BITFINEX: &str = "bitfinex-7sym-20210417";
    const DERIBIT: &str = "deribit-10opt-20210722";
    const NASDAQ: &str = "one busy Nasdaq symbol, order by order";
    if let LifeMs = fact {
        return about(37_400, NASDAQ);
    }
    match dialect {
        Dialect::BinanceSpot => match fact {
            Clustering => about(1_929, SPOT),
            BookToTrade => range(300, 430, "Binance with best, trade and depth streams"),
            ChangesP50 => range(1_600, 2_200, SPOT),
            ChangesP99 => about(39_000, SPOT),
            AtBest | LifeMs => range(400, 700, "Binance BTC, Bybit, Coinbase Advanced"),
        },
        Dialect::BinanceUsdm => match fact {
            Clustering => about(1_504, USDM),
            BookToTrade => range(300, 430, "Binance with best, trade and depth streams"),
            ChangesP50 => about(3_400, USDM),
            ChangesP99 => about(61_000, USDM),
            AtBest | LifeMs => range(236, 700, "from that recording to Binance BTC"),
        },
        Dialect::BinanceCoinm => match fact {
            Clustering => about(854, COINM),
            BookToTrade => about(2_011, COINM),
            ChangesP50 => about(600, COINM),
            ChangesP99 => about(9_600, COINM),
            AtBest | LifeMs => range(297, 700, "from that recording to Binance BTC"),
        },
        Dialect::BybitSpot | Dialect::BybitLinear => match fact {
            Clustering => about(500, BYBIT),
            BookToTrade => about(1_562, BYBIT),
            ChangesP50 => about(600, BYBIT),
            ChangesP99 => about(6_500, BYBIT),
            AtBest | LifeMs => range(400, 700, "Binance BTC, Bybit, Coinbase Advanced"),
        },
        Dialect::Okx => match fact {
            Clustering => about(880, OKX),
            BookToTrade => about(387, OKX),
            ChangesP50 => about(1_900, OKX),
            ChangesP99 => about(10_400, OKX),
            AtBest | LifeMs => about(709, OKX),
        },
        Dialect::CoinbaseAdvanced => match fact {
            Clustering => about(466, ADVANCED),
            BookToTrade => about(1_144, ADVANCED),
            ChangesP50 => about(500, ADVANCED),
            ChangesP99 => about(2_300, ADVANCED),
            AtBest | LifeMs => range(400, 700, "Binance BTC, Bybit, Coinbase Advanced"),
        },
        Dialect::Coinbase => match fact {
            Clustering => about(443, COINBASE),
            BookToTrade => about(13_821, COINBASE),
            ChangesP50 | ChangesP99 => range(100, 100, COINBASE),
            AtBest | LifeMs => range(1_100, 1_900, "mid-size books"),
        },
        Dialect::Kraken | Dialect::KrakenV1 => match fact {
            Clustering => about(484, KRAKEN),
            BookToTrade => about(53_362, KRAKEN),
            ChangesP50 => range(100, 100, KRAKEN),
            // Of a book of ten levels one that moves up is told with the one that went.
            ChangesP99 => range(100, 200, KRAKEN),
            AtBest | LifeMs => range(1_100, 1_900, "mid-size books"),
        },
        Dialect::Deribit => match fact {
            Clustering => about(4_499, DERIBIT),
            // None of its trades was recorded.
            BookToTrade => range(1_200, 50_000, "liquid to thin books without a best stream"),
            ChangesP50 => range(100, 100, DERIBIT),
            ChangesP99 => about(200, DERIBIT),
            AtBest | LifeMs => range(1_100, 8_048, "from mid-size books to that recording"),
        },
        Dialect::Bitfinex => match fact {
            Clustering => about(2_016, BITFINEX),
            BookToTrade => about(7_585, BITFINEX),
            ChangesP50 | ChangesP99 => range(100, 100, BITFINEX),
            AtBest | LifeMs => about(2_912, BITFINEX),
        },
    }
}
