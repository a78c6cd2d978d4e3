//! Any bytes → what a decoder, or the reader of decimals, makes of them, and what must hold whatever
//! they are.
//!
//! Called by libFuzzer (`fuzz_targets`) and, with the seeds that are kept beside this, by
//! `gateway/tests/fuzz.rs` under plain `cargo test`. It must not share code with what it judges: its
//! idea of a decimal is made of texts and `i128`.

use std::ops::Range;
use std::sync::Arc;

use tickfan::venue::{self, Subscription};
use tickfan_core::decimal::{Decimal, DecimalError, SCALE_MAX, fraction_digits, write_decimal};
use tickfan_core::market::{
    EventBatch, InstrumentId, LevelChange, MarketEvent, TradeId, TradePrint, Venue,
};

/// A name, and for a decoder the venue with the symbols of its seeds.
pub type Target = (&'static str, Option<(Venue, &'static [&'static str])>);

/// All that can be fuzzed.
pub const TARGETS: &[Target] = &[
    ("binance_spot", Some((Venue::BinanceSpot, &["BTCUSDT", "ETHBTC"]))),
    ("binance_usdm", Some((Venue::BinanceUsdm, &["BTCUSDT", "ETHUSDT"]))),
    ("binance_coinm", Some((Venue::BinanceCoinm, &["BTCUSD_PERP", "ETHUSD_PERP"]))),
    ("coinbase", Some((Venue::Coinbase, &["BTC-USD", "ETH-EUR"]))),
    ("coinbase_advanced", Some((Venue::CoinbaseAdvanced, &["BTC-USD", "ETH-EUR"]))),
    ("kraken", Some((Venue::Kraken, &["BTC/USD", "ETH/EUR"]))),
    ("kraken_v1", Some((Venue::KrakenV1, &["XBT/USD", "ETH/EUR"]))),
    ("okx", Some((Venue::Okx, &["BTC-USDT", "ETH-USD-SWAP"]))),
    ("bybit", Some((Venue::BybitLinear, &["BTCUSDT", "ETHUSDT"]))),
    ("deribit", Some((Venue::Deribit, &["BTC-PERPETUAL", "ETH-30JUL21-2800-C"]))),
    ("bitfinex", Some((Venue::Bitfinex, &["tBTCUSD", "tETHBTC"]))),
    ("decimal", None),
];

/// What came of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Events that were read.
    pub events: usize,
    /// Messages, images and lists that were refused.
    pub refused: usize,
}

/// Gives an input to a target.
///
/// # Panics
/// When something does not hold, or there is no such target.
pub fn run(target: &str, input: &[u8]) -> Outcome {
    let found = TARGETS.iter().find(|(name, _)| *name == target);
    match found.unwrap_or_else(|| panic!("no target {target}")).1 {
        Some((venue, symbols)) => decode(venue, symbols, input),
        None => read_decimal(input),
    }
}

/// A line that begins so is the body of an image of the first instrument.
const IMAGE: &[u8] = b"image ";

/// A line that begins so is the body of an instrument list.
const LIST: &[u8] = b"list ";

/// Gives the lines of an input to the decoder of a venue: messages of one connection, images, lists.
fn decode(venue: Venue, symbols: &[&str], input: &[u8]) -> Outcome {
    let instruments: Vec<(InstrumentId, Arc<str>)> =
        (0..).map(InstrumentId).zip(symbols.iter().map(|symbol| Arc::from(*symbol))).collect();
    let subscription = Subscription { instruments: instruments.clone(), depth: None, trades: None };
    let mut decoder = venue::decoder(venue, subscription);
    let read_image = decoder.image_decoder();
    let mut outcome = Outcome::default();
    let mut batch = EventBatch::default();
    let input = input.strip_suffix(b"\n").unwrap_or(input);
    for line in input.split(|byte| *byte == b'\n') {
        if let Some(list) = line.strip_prefix(LIST) {
            outcome.refused += usize::from(venue::listings(venue, list).is_err());
            continue;
        }
        let (image, mut text) = match line.strip_prefix(IMAGE) {
            Some(image) => (Some(InstrumentId(0)), image.to_vec()),
            None => (decoder.large_image(line).map(|large| large.instrument), line.to_vec()),
        };
        begin(&mut batch);
        let read = match image {
            Some(instrument) => {
                assert!(instrument.index() < symbols.len(), "an image of what is not there");
                read_image(instrument, &mut text, &mut batch).is_ok()
            }
            None => match decoder.decode(&mut text, &mut batch) {
                Ok(()) => true,
                Err(error) => {
                    let about = error.about.map_or(0, |(instrument, _)| instrument.index());
                    assert!(about < symbols.len(), "an error about what is not there");
                    false
                }
            },
        };
        outcome.events += check(&batch, read, symbols.len());
        outcome.refused += usize::from(!read);
    }
    for (instrument, _) in instruments {
        decoder.resync(instrument, false);
    }
    outcome
}

/// A batch with something in it that is not the decoder's to touch.
fn begin(batch: &mut EventBatch) {
    let nothing = Decimal::default();
    batch.clear();
    batch.events.push(MarketEvent::Shutdown);
    batch.levels.push(LevelChange { px: nothing, qty: nothing });
    batch.trades.push(TradePrint {
        te_ns: 0,
        px: nothing,
        qty: nothing,
        aggressor: Default::default(),
        id: TradeId::Number(0),
        number: None,
    });
}

/// What a decoder left in a batch: whole events, or nothing; returns how many.
fn check(batch: &EventBatch, is_read: bool, instruments: usize) -> usize {
    let EventBatch { events, levels, trades } = batch;
    assert_eq!(events.first(), Some(&MarketEvent::Shutdown), "it touched an event of another");
    assert!(!levels.is_empty() && !trades.is_empty(), "it took levels or trades of another");
    let own = &events[1..];
    if !is_read {
        assert!(own.is_empty(), "a refused message left events");
        assert_eq!((levels.len(), trades.len()), (1, 1), "a refused message left levels or trades");
        return 0;
    }
    let within = |range: &Range<usize>, len: usize| {
        let is_own = range.is_empty() || range.start >= 1;
        assert!(is_own && range.start <= range.end && range.end <= len, "{range:?} of {len}");
    };
    let known = |id: InstrumentId| assert!(id.index() < instruments, "nobody asked for {id:?}");
    for (index, event) in own.iter().enumerate() {
        match event {
            MarketEvent::Book(book) => {
                known(book.instrument);
                within(&book.bids, levels.len());
                within(&book.asks, levels.len());
                for level in levels[book.bids.clone()].iter().chain(&levels[book.asks.clone()]) {
                    assert!(level.px.scale <= book.px_digits, "{level:?} is finer than {book:?}");
                    assert!(level.qty.scale <= book.qty_digits, "{level:?} is finer than {book:?}");
                }
            }
            MarketEvent::Bbo(bbo) => known(bbo.instrument),
            MarketEvent::Trades(event) => {
                known(event.instrument);
                within(&event.trades, trades.len());
            }
            MarketEvent::Subscribed { instrument, .. }
            | MarketEvent::Heartbeat { instrument, .. } => known(*instrument),
            MarketEvent::Refused { instrument, .. } | MarketEvent::Trading { instrument, .. } => {
                instrument.iter().for_each(|id| known(*id));
            }
            MarketEvent::Numbered(_) => assert_eq!(index, 0, "the number comes first"),
            MarketEvent::Reply(_) | MarketEvent::Shutdown => {}
        }
    }
    own.len()
}

/// Reads an input as one decimal, and holds it against the text.
fn read_decimal(text: &[u8]) -> Outcome {
    let _ = fraction_digits(text);
    let read = Decimal::parse(text);
    match (told(text), read) {
        (Told::Value { mantissa, scale }, Ok(decimal)) => {
            assert_eq!((i128::from(decimal.mantissa), decimal.scale), (mantissa, scale));
            check_decimal(decimal);
            Outcome { events: 1, refused: 0 }
        }
        (Told::TooLarge, Err(DecimalError::Overflow)) | (Told::NoNumber, Err(_)) => {
            Outcome { events: 0, refused: 1 }
        }
        (told, read) => panic!("{told:?}, but it was read as {read:?}"),
    }
}

/// What can be done with a decimal is exact.
fn check_decimal(decimal: Decimal) {
    let mut written = Vec::new();
    write_decimal(decimal.mantissa, decimal.scale, &mut written);
    assert_eq!(Decimal::parse(&written), Ok(decimal), "written and read again");
    assert!(!written.contains(&b'e') && !written.ends_with(b"."), "not the shortest text");
    for scale in 0..=SCALE_MAX + 1 {
        let expected = match scale.checked_sub(decimal.scale) {
            None => Err(DecimalError::TooFine),
            Some(finer) => {
                let exact = i128::from(decimal.mantissa) * 10i128.pow(u32::from(finer));
                i64::try_from(exact).map_err(|_| DecimalError::Overflow)
            }
        };
        let read = decimal.at_scale(scale);
        // Zero fits everywhere, but a scale beyond the finest is refused for every value.
        let is_beyond = scale - decimal.scale.min(scale) > SCALE_MAX;
        assert!(read == expected || (is_beyond && read == Err(DecimalError::Overflow)));
    }
}

/// What a text says, told from the text alone.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    /// A value with the fewest digits that hold it.
    Value { mantissa: i128, scale: u8 },
    /// A number that is too large, too fine, or written with too many digits.
    TooLarge,
    /// No number.
    NoNumber,
}

fn told(text: &[u8]) -> Told {
    let Ok(text) = std::str::from_utf8(text) else { return Told::NoNumber };
    let (is_negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (number, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = [whole, fraction].concat();
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if digits.is_empty() || !are_digits(&digits) {
        return Told::NoNumber;
    }
    let (sinks, power) = match exponent {
        None => (false, "0"),
        Some(exponent) => match exponent.strip_prefix('-') {
            Some(power) => (true, power),
            None => (false, exponent.strip_prefix('+').unwrap_or(exponent)),
        },
    };
    if power.is_empty() || !are_digits(power) {
        return Told::NoNumber;
    }
    let significant = digits.trim_start_matches('0');
    if significant.is_empty() {
        return Told::Value { mantissa: 0, scale: 0 };
    }
    // The zeros that a fraction ends with say nothing; all other digits are held in 64 bits, even
    // where an exponent takes them away again.
    let ended = fraction.len() - fraction.trim_end_matches('0').len();
    let held = &significant[..significant.len() - ended.min(significant.len())];
    if held.len() > 20 || held.parse::<u128>().is_ok_and(|held| held > u128::from(u64::MAX)) {
        return Told::TooLarge;
    }
    let power = power.trim_start_matches('0');
    if power.len() > 3 {
        return Told::TooLarge;
    }
    let power: i64 = if power.is_empty() { 0 } else { power.parse().unwrap_or(0) };
    // The value is `shortest` times ten to the power of `tens`.
    let shortest = significant.trim_end_matches('0');
    let zeros = (significant.len() - shortest.len()) as i64;
    let tens = (if sinks { -power } else { power }) - fraction.len() as i64 + zeros;
    let (mantissa, scale) = match tens {
        0..=19 => ([shortest, &"0".repeat(tens as usize)].concat(), 0),
        -18..0 => (shortest.to_owned(), tens.unsigned_abs() as u8),
        _ => return Told::TooLarge,
    };
    match mantissa.parse::<i128>() {
        Ok(mantissa) if mantissa <= i128::from(i64::MAX) => {
            Told::Value { mantissa: if is_negative { -mantissa } else { mantissa }, scale }
        }
        _ => Told::TooLarge,
    }
}
