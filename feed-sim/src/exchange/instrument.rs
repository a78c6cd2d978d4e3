//! A place in the list → what trades there, and how the venue spells it.
//!
//! Called by the exchange when it begins. The first few are known everywhere; all further ones are made
//! up, so that nobody takes their prices for real ones.

use crate::random::Random;
use crate::venue::Dialect;

/// What trades.
#[derive(Debug, Clone)]
pub(super) struct Instrument {
    /// As the venue spells it.
    pub(super) name: String,
    /// What is bought.
    pub(super) base: String,
    /// Digits of a price behind its point; the tick is one of the last.
    pub(super) px_digits: u32,
    /// Digits of a quantity behind its point; the lot is one of the last.
    pub(super) qty_digits: u32,
    /// Where the price begins, in ticks.
    pub(super) start_ticks: i64,
}

/// Base, digits of price and quantity, and where the price begins.
const KNOWN: [(&str, u32, u32, i64); 4] = [
    ("BTC", 2, 5, 6_180_000),
    ("ETH", 2, 4, 260_000),
    ("SOL", 2, 3, 15_000),
    ("DOGE", 5, 0, 10_500),
];

/// The same at venues that spell two of those in two ways.
const KNOWN_AT_KRAKEN: [(&str, u32, u32, i64); 4] =
    [("ETH", 2, 4, 260_000), ("SOL", 2, 3, 15_000), ("ADA", 5, 1, 45_000), ("LTC", 2, 3, 7_000)];

impl Instrument {
    /// The instrument at a place in the list.
    pub(super) fn at(dialect: Dialect, seed: u64, index: usize) -> Self {
        let known = match dialect {
            Dialect::Kraken | Dialect::KrakenV1 => KNOWN_AT_KRAKEN,
            _ => KNOWN,
        };
        let (base, px_digits, qty_digits, start_ticks) = match known.get(index) {
            Some((base, px_digits, qty_digits, ticks)) => {
                ((*base).to_owned(), *px_digits, *qty_digits, *ticks)
            }
            None => {
                let ticks = 20_000 + Random::of(seed, index as u64).below(1_000_000) as i64;
                (format!("SIM{:04}", index + 1), 4, 1, ticks)
            }
        };
        Self { name: name(dialect, &base), base, px_digits, qty_digits, start_ticks }
    }
}

fn name(dialect: Dialect, base: &str) -> String {
    match dialect {
        Dialect::BinanceSpot | Dialect::BinanceUsdm | Dialect::BybitSpot | Dialect::BybitLinear => {
            format!("{base}USDT")
        }
        Dialect::BinanceCoinm => format!("{base}USD_PERP"),
        Dialect::Coinbase | Dialect::CoinbaseAdvanced => format!("{base}-USD"),
        Dialect::Kraken | Dialect::KrakenV1 => format!("{base}/USD"),
        Dialect::Okx => format!("{base}-USDT"),
        Dialect::Deribit => format!("{base}-PERPETUAL"),
        Dialect::Bitfinex if base.len() > 3 => format!("t{base}:USD"),
        Dialect::Bitfinex => format!("t{base}USD"),
    }
}
