//! What the synthetic exchange says, in the words of each venue, and how the venues differ in what
//! they say at all.
//!
//! Called by the exchange with plain values. Whatever more than one thing needs of a venue's words is
//! in the file of the venue.

use std::ops::Range;

use super::manner::window;
use super::{Exchange, Lie, Status, Symbol};
use crate::truth::{Text, TruthBook, TruthLevel};
use crate::venue::{
    Dialect, Levels, Print, binance, bitfinex, bybit, coinbase, coinbase_advanced, deribit, kraken,
    kraken_v1, okx, quoted,
};

/// The number of a symbol's book channel, before a connection gives its own; that of its trades is the
/// next.
pub(super) const fn channel(index: usize) -> u64 {
    1 + 2 * index as u64
}

/// What a reader has to have read before it knows the messages of a symbol.
pub(super) fn introduction(dialect: Dialect, symbol: &str, index: usize) -> Vec<String> {
    match dialect {
        Dialect::Kraken => vec![format!(
            r#"{{"method":"subscribe","result":{{"channel":"book","symbol":{},"depth":{}}},"success":true}}"#,
            quoted(symbol),
            window(dialect).unwrap_or(0)
        )],
        Dialect::Bitfinex => ["book", "trades"]
            .into_iter()
            .zip(channel(index)..)
            .map(|(name, channel)| bitfinex::acknowledge(channel, name, symbol, ""))
            .collect(),
        _ => Vec::new(),
    }
}

/// A number in `10^-digits`, as the venue writes it.
pub(super) fn decimal(dialect: Dialect, number: i64, digits: u32) -> Text {
    let digits = digits.min(18) as usize;
    let padding = if dialect.fetches_images() { 8usize.saturating_sub(digits) } else { 0 };
    // Written from the last digit to the first: at most 20 before the point and 18 behind it.
    let mut bytes = [b'0'; 40];
    let (mut begin, mut end) = (bytes.len(), bytes.len());
    let mut whole = number.unsigned_abs();
    if digits + padding > 0 {
        begin -= padding;
        let one = POWERS[digits];
        let fraction = whole % one;
        whole /= one;
        let point = begin - digits - 1;
        write_before(&mut bytes, begin, fraction);
        bytes[point] = b'.';
        begin = point;
    }
    begin = write_before(&mut bytes, begin, whole).min(begin - 1);
    // The others write as many digits as the step has.
    if matches!(dialect, Dialect::Bitfinex | Dialect::Okx) && digits > 0 {
        while bytes[end - 1] == b'0' {
            end -= 1;
        }
        end -= usize::from(bytes[end - 1] == b'.');
    }
    Text::from_utf8(&bytes[begin..end]).unwrap_or_default()
}

/// Powers of ten.
const POWERS: [u64; 19] = {
    let (mut powers, mut digits) = ([1; 19], 1);
    while digits < powers.len() {
        powers[digits] = 10 * powers[digits - 1];
        digits += 1;
    }
    powers
};

/// Writes a number so that its last digit stands before a place; returns where it begins. Of zero nothing is
/// written.
fn write_before(bytes: &mut [u8; 40], mut place: usize, mut number: u64) -> usize {
    const PAIRS: [[u8; 2]; 100] = {
        let (mut pairs, mut pair) = ([[b'0'; 2]; 100], 0);
        while pair < 100 {
            pairs[pair] = [b'0' + pair as u8 / 10, b'0' + pair as u8 % 10];
            pair += 1;
        }
        pairs
    };
    while number >= 10 {
        place -= 2;
        bytes[place..place + 2].copy_from_slice(&PAIRS[(number % 100) as usize]);
        number /= 100;
    }
    if number > 0 {
        place -= 1;
        bytes[place] = b'0' + number as u8;
    }
    place
}

/// The part of a message that is the same on every connection, where that is not the whole.
pub(super) fn inner(dialect: Dialect, text: &str) -> Option<Range<usize>> {
    const DATA: &str = r#""data":"#;
    let data = || Some(text.find(DATA)? + DATA.len());
    match dialect {
        Dialect::BinanceSpot | Dialect::BinanceUsdm | Dialect::BinanceCoinm => {
            Some(data()?..text.len() - 1)
        }
        Dialect::Deribit => Some(data()?..text.len() - 2),
        Dialect::KrakenV1 => Some(text.find(',')? + 1..text.len()),
        Dialect::Bitfinex => Some(text.find(',')? + 1..text.len() - 1),
        _ => None,
    }
}

/// A change of a book, or its best, to be put into words.
pub(super) struct Wording<'a> {
    pub(super) dialect: Dialect,
    pub(super) symbol: &'a Symbol,
    pub(super) channel: u64,
    /// The best levels of both sides after the change, where they are hashed.
    pub(super) top: [&'a [TruthLevel]; 2],
    pub(super) bids: &'a [TruthLevel],
    pub(super) asks: &'a [TruthLevel],
    /// Those of the changed levels that there were before, where that matters.
    pub(super) before: &'a TruthBook,
    pub(super) at_ns: u64,
}

impl Wording<'_> {
    /// What is told for this checksum.
    fn checksum(&self, truth: u32) -> u32 {
        match self.symbol.lie {
            None => truth,
            Some(Lie::Wrong) => truth ^ 0x5555,
            Some(Lie::Zero) => 0,
        }
    }
}

/// A change of a book.
pub(super) fn update(wording: &Wording<'_>) -> Vec<String> {
    let Wording { dialect, symbol, channel, top: [best_bids, best_asks], .. } = *wording;
    let Wording { bids, asks, before, at_ns, .. } = *wording;
    let (id, told_id) = (symbol.id, symbol.told_id);
    let levels = Levels { symbol: &symbol.name, bids, asks, at_ns };
    let one = match dialect {
        Dialect::BinanceSpot | Dialect::BinanceUsdm | Dialect::BinanceCoinm => {
            binance_update(wording)
        }
        Dialect::Coinbase => coinbase::update(&levels),
        Dialect::CoinbaseAdvanced => coinbase_advanced::update(&levels, 0),
        Dialect::Kraken => {
            kraken::update(&levels, wording.checksum(kraken::checksum_of(best_bids, best_asks)))
        }
        Dialect::KrakenV1 => {
            let checksum = wording.checksum(kraken::checksum_of(best_bids, best_asks));
            kraken_v1::update(&kraken_book(channel, &symbol.name), &levels, checksum)
        }
        Dialect::Okx => {
            let truth = okx::checksum_of(best_bids, best_asks).cast_unsigned();
            okx::update(&levels, wording.checksum(truth).cast_signed(), Some((told_id, id)))
        }
        Dialect::BybitSpot | Dialect::BybitLinear => {
            bybit::update(Exchange::depth(dialect).unwrap_or(0), &levels, id, symbol.order)
        }
        Dialect::Deribit => {
            let channel = format!("book.{}.raw", symbol.name);
            deribit::update(&channel, &levels, before, told_id, id)
        }
        Dialect::Bitfinex => return bitfinex_update(wording),
    };
    vec![one]
}

fn kraken_book(channel: u64, pair: &str) -> kraken_v1::Channel {
    let depth = window(Dialect::KrakenV1).unwrap_or(0);
    kraken_v1::Channel { id: channel, name: format!("book-{depth}"), pair: pair.to_owned() }
}

/// One message a level, and the checksum behind them.
fn bitfinex_update(wording: &Wording<'_>) -> Vec<String> {
    use tickfan_core::market::Side;
    let word = |side, level| bitfinex::update(wording.channel, side, level, None);
    let bids = wording.bids.iter().map(|level| word(Side::Bid, level));
    let asks = wording.asks.iter().map(|level| word(Side::Ask, level));
    let mut texts: Vec<String> = bids.chain(asks).collect();
    let [best_bids, best_asks] = wording.top;
    let truth = bitfinex::checksum(best_bids, best_asks);
    let checksum = wording.checksum(truth.cast_unsigned()).cast_signed();
    texts.push(bitfinex::checksum_message(wording.channel, checksum, None));
    texts
}

fn combined(stream: &str, data: &str) -> String {
    format!(r#"{{"stream":"{stream}","data":{data}}}"#)
}

fn binance_update(wording: &Wording<'_>) -> String {
    let Wording { dialect, symbol, bids, asks, at_ns, .. } = *wording;
    let stream = format!("{}@depth@100ms", symbol.name.to_lowercase());
    let update = binance::DepthUpdate {
        symbol: &symbol.name,
        at_ms: at_ns / 1_000_000,
        first_id: symbol.first_id,
        last_id: symbol.id,
        bids,
        asks,
    };
    let data = match dialect {
        Dialect::BinanceSpot => update.data(),
        _ => update.futures_data(symbol.told_id),
    };
    combined(&stream, &data)
}

/// The best of a book.
pub(super) fn ticker(
    dialect: Dialect,
    symbol: &Symbol,
    [bid, ask]: &[TruthLevel; 2],
    at_ns: u64,
) -> String {
    let ticker = binance::BookTicker { symbol: &symbol.name, id: symbol.id, bid, ask };
    let data = match dialect {
        Dialect::BinanceSpot => ticker.data(),
        _ => ticker.futures_data(at_ns / 1_000_000),
    };
    combined(&format!("{}@bookTicker", symbol.name.to_lowercase()), &data)
}

/// A trade to be put into words.
pub(super) struct PrintWording<'a> {
    pub(super) dialect: Dialect,
    pub(super) print: Print<'a>,
    pub(super) channel: u64,
    /// The venue's number of whatever happens at a symbol.
    pub(super) order: u64,
}

/// A trade.
pub(super) fn trade(wording: &PrintWording<'_>) -> String {
    let PrintWording { dialect, print, channel, order } = *wording;
    match dialect {
        Dialect::BinanceSpot | Dialect::BinanceUsdm | Dialect::BinanceCoinm => {
            let report = binance::TradeReport {
                symbol: print.symbol,
                at_ms: print.at_ns / 1_000_000,
                id: print.id,
                px: print.px,
                qty: print.qty,
                buyer_is_maker: !print.buyer_took,
            };
            combined(&format!("{}@trade", print.symbol.to_lowercase()), &report.data())
        }
        Dialect::Coinbase => coinbase::trade(&print, order),
        Dialect::CoinbaseAdvanced => coinbase_advanced::trade(&print, 0),
        Dialect::Kraken => kraken::trade(&print),
        Dialect::KrakenV1 => {
            let (name, pair) = ("trade".to_owned(), print.symbol.to_owned());
            kraken_v1::trade(&kraken_v1::Channel { id: channel + 1, name, pair }, &print)
        }
        Dialect::Okx => okx::trade(&print),
        Dialect::BybitSpot | Dialect::BybitLinear => bybit::trade(&print, order),
        Dialect::Deribit => {
            deribit::trade(&format!("trades.{}.raw", print.symbol), &print, print.id)
        }
        Dialect::Bitfinex => bitfinex::trade(channel + 1, &print, None),
    }
}

/// What one order traded at one price, as one; where the venue joins trades so. The numbers are its own
/// and those of its first and last trade.
pub(super) fn aggregate(wording: &PrintWording<'_>, ids: [u64; 3]) -> Option<String> {
    let PrintWording { dialect, print, .. } = wording;
    let data = match dialect {
        Dialect::BinanceSpot | Dialect::BinanceUsdm | Dialect::BinanceCoinm => {
            binance::aggregate(*dialect, print, ids)
        }
        _ => return None,
    };
    Some(combined(&format!("{}{}", print.symbol.to_lowercase(), binance::AGGREGATES), &data))
}

/// The sign of life of a symbol, where the venue gives one.
pub(super) fn symbol_heartbeat(
    dialect: Dialect,
    symbol: &Symbol,
    index: usize,
    counter: u64,
    at_ns: u64,
) -> Option<String> {
    match dialect {
        Dialect::Coinbase => {
            Some(coinbase::heartbeat(&symbol.name, symbol.order, symbol.trade_id, at_ns))
        }
        Dialect::Bitfinex if counter.is_multiple_of(15) => {
            Some(bitfinex::heartbeat(channel(index), None))
        }
        _ => None,
    }
}

/// The sign of life of a whole connection, where the venue gives one every second.
pub(super) fn heartbeat(dialect: Dialect, counter: u64, at_ns: u64) -> Option<String> {
    match dialect {
        Dialect::CoinbaseAdvanced => Some(coinbase_advanced::heartbeat(counter, 0, at_ns)),
        Dialect::Kraken => Some(kraken::heartbeat()),
        Dialect::KrakenV1 => Some(kraken_v1::heartbeat()),
        _ => None,
    }
}

/// What the venue says before it closes a connection to serve it no longer.
pub(super) fn close_notice(dialect: Dialect, at_ns: u64) -> Option<String> {
    match dialect {
        Dialect::BinanceSpot | Dialect::BinanceUsdm | Dialect::BinanceCoinm => {
            let at_ms = at_ns / 1_000_000;
            let data = format!(r#"{{"e":"serverShutdown","E":{at_ms}}}"#);
            Some(combined("!serverShutdown", &data))
        }
        Dialect::Okx => Some(
            r#"{"event":"notice","code":"64008","msg":"The connection will soon be closed for a service upgrade. Please reconnect.","connId":"00000000"}"#
                .to_owned(),
        ),
        Dialect::Bitfinex => Some(
            r#"{"event":"info","code":20051,"msg":"Stopping. Please try to reconnect"}"#.to_owned(),
        ),
        _ => None,
    }
}

/// What the venue says when maintenance begins or ends and connections stay.
pub(super) fn maintenance_notice(dialect: Dialect, begins: bool) -> Option<String> {
    let status = if begins { "maintenance" } else { "online" };
    match dialect {
        Dialect::Kraken => Some(format!(
            r#"{{"channel":"status","type":"update","data":[{{"version":"2.0.0","system":"{status}","api_version":"v2","connection_id":1}}]}}"#
        )),
        Dialect::KrakenV1 => Some(format!(
            r#"{{"connectionID":1,"event":"systemStatus","status":"{status}","version":"1.9.6"}}"#
        )),
        Dialect::Deribit => Some(format!(
            r#"{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"platform_state","data":{{"maintenance":{begins}}}}}}}"#
        )),
        Dialect::Bitfinex => {
            let code = if begins { 20_060 } else { 20_061 };
            Some(format!(r#"{{"event":"info","code":{code},"msg":"Maintenance"}}"#))
        }
        _ => None,
    }
}

/// One instrument of the list.
pub(super) fn listing(dialect: Dialect, symbol: &Symbol, status: Status) -> String {
    let Symbol { name, base, .. } = symbol;
    let [tick, lot] =
        [symbol.px_digits, symbol.qty_digits].map(|digits| decimal(dialect, 1, digits));
    let is_open = status == Status::Open;
    match dialect {
        Dialect::BinanceSpot => {
            binance::listing(name, binance::status(is_open), [base, "USDT"], &tick, &lot)
        }
        Dialect::BinanceUsdm | Dialect::BinanceCoinm => {
            let (quote, margin, key) = match dialect {
                Dialect::BinanceUsdm => ("USDT", "USDT", "status"),
                _ => ("USD", base.as_str(), "contractStatus"),
            };
            let status = binance::status(is_open);
            format!(
                r#"{{"symbol":"{name}","{key}":"{status}","pair":"{base}{quote}","baseAsset":"{base}","quoteAsset":"{quote}","marginAsset":"{margin}","contractType":"PERPETUAL","contractSize":1,"deliveryDate":4133404800000,"filters":[{{"filterType":"PRICE_FILTER","tickSize":"{tick}"}},{{"filterType":"LOT_SIZE","stepSize":"{lot}"}}]}}"#
            )
        }
        Dialect::Coinbase => format!(
            r#"{{"id":"{name}","base_currency":"{base}","quote_currency":"USD","quote_increment":"{tick}","base_increment":"{lot}","status":"online","trading_disabled":{}}}"#,
            !is_open
        ),
        Dialect::CoinbaseAdvanced => format!(
            r#"{{"product_id":"{name}","product_type":"SPOT","base_currency_id":"{base}","quote_currency_id":"USD","price_increment":"{tick}","base_increment":"{lot}","status":"online","trading_disabled":{},"alias":""}}"#,
            !is_open
        ),
        Dialect::Kraken | Dialect::KrakenV1 => format!(
            r#"{{"altname":"{base}USD","wsname":"{name}","base":"{base}","quote":"ZUSD","pair_decimals":{},"lot_decimals":{},"tick_size":"{tick}","status":"{}"}}"#,
            symbol.px_digits,
            symbol.qty_digits,
            if is_open { "online" } else { "maintenance" }
        ),
        Dialect::Okx => format!(
            r#"{{"instId":"{name}","instType":"SPOT","minSz":"{lot}","state":"{}","tickSz":"{tick}","lotSz":"{lot}","baseCcy":"{base}","quoteCcy":"USDT"}}"#,
            if is_open { "live" } else { "suspend" }
        ),
        Dialect::BybitSpot | Dialect::BybitLinear => {
            let (contract, step) = match dialect {
                Dialect::BybitSpot => ("", "basePrecision"),
                _ => (r#""contractType":"LinearPerpetual","#, "qtyStep"),
            };
            format!(
                r#"{{"symbol":"{name}",{contract}"status":"{}","baseCoin":"{base}","quoteCoin":"USDT","priceFilter":{{"tickSize":"{tick}"}},"lotSizeFilter":{{"{step}":"{lot}"}}}}"#,
                if is_open { "Trading" } else { "PreLaunch" }
            )
        }
        Dialect::Deribit => format!(
            r#"{{"instrument_name":"{name}","base_currency":"{base}","quote_currency":"USD","kind":"future","settlement_period":"perpetual","is_active":{is_open},"tick_size":{tick},"min_trade_amount":{lot}}}"#
        ),
        Dialect::Bitfinex => format!(r#""{}""#, name.trim_start_matches('t')),
    }
}
