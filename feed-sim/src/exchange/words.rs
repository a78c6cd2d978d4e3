//! What the synthetic exchange says, in the words of each venue, and how the venues differ in what
//! they say at all.
//!
//! Called by the exchange with plain values. Whatever more than one thing needs of a venue's words is
//! in the file of the venue.

use crate::random::Random;
use crate::truth::{TruthBook, TruthLevel, normalise};
use crate::venue::{
    Dialect, Levels, Print, binance, bitfinex, bybit, coinbase, coinbase_advanced, deribit, kraken,
    kraken_v1, okx, quoted,
};

use super::{Exchange, Lie, Status, Symbol};

/// What is bought, by symbol: nothing that a venue spells in two ways.
const BASES: [&str; 6] = ["ADA", "ETH", "SOL", "LTC", "DOT", "UNI"];

/// The name of a symbol, and what is bought with it.
pub(super) fn name(dialect: Dialect, index: usize) -> (String, &'static str) {
    let base = BASES[index % BASES.len()];
    let name = match dialect {
        Dialect::BinanceSpot | Dialect::BinanceUsdm | Dialect::BybitSpot | Dialect::BybitLinear => {
            format!("{base}USDT")
        }
        Dialect::BinanceCoinm => format!("{base}USD_PERP"),
        Dialect::Coinbase | Dialect::CoinbaseAdvanced => format!("{base}-USD"),
        Dialect::Kraken | Dialect::KrakenV1 => format!("{base}/USD"),
        Dialect::Okx => format!("{base}-USDT"),
        Dialect::Deribit => format!("{base}-PERPETUAL"),
        Dialect::Bitfinex => format!("t{base}USD"),
    };
    (name, base)
}

/// To how many levels a side the venue cuts its books, without deletes for what falls out.
pub(super) const fn cut_to(dialect: Dialect) -> Option<usize> {
    match dialect {
        Dialect::Kraken | Dialect::KrakenV1 => Exchange::depth(dialect),
        _ => None,
    }
}

/// Changes of a book say what the book hashes to.
pub(super) const fn has_checksum(dialect: Dialect) -> bool {
    matches!(dialect, Dialect::Kraken | Dialect::KrakenV1 | Dialect::Okx | Dialect::Bitfinex)
}

/// Changes say of each level whether it was there before.
pub(super) const fn tells_actions(dialect: Dialect) -> bool {
    matches!(dialect, Dialect::Deribit)
}

/// How far the number of a book goes with a change of it.
pub(super) fn id_step(dialect: Dialect, random: &mut Random) -> u64 {
    match dialect {
        // Topics count by one.
        Dialect::BybitSpot | Dialect::BybitLinear => 1,
        _ => 1 + random.below(5),
    }
}

/// The second number of a book, where it has two.
pub(super) const fn order(dialect: Dialect, id: u64, order: u64) -> Option<u64> {
    match dialect {
        Dialect::Okx => Some(id),
        Dialect::BybitSpot | Dialect::BybitLinear => Some(order),
        _ => None,
    }
}

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
            cut_to(dialect).unwrap_or(0)
        )],
        Dialect::Bitfinex => ["book", "trades"]
            .into_iter()
            .zip(channel(index)..)
            .map(|(name, channel)| bitfinex::acknowledge(channel, name, symbol, ""))
            .collect(),
        _ => Vec::new(),
    }
}

/// A change of a book, or its best, to be put into words.
pub(super) struct Wording<'a> {
    pub(super) dialect: Dialect,
    pub(super) symbol: &'a Symbol,
    pub(super) channel: u64,
    /// As it is after the change.
    pub(super) book: &'a TruthBook,
    pub(super) bids: &'a [TruthLevel],
    pub(super) asks: &'a [TruthLevel],
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

/// A change of a book, that was `before` where that matters.
pub(super) fn update(wording: &Wording<'_>, before: Option<&TruthBook>) -> Vec<String> {
    let Wording { dialect, symbol, channel, book, bids, asks, at_ns } = *wording;
    let (id, previous_id) = (symbol.id, symbol.previous_id);
    let levels = Levels { symbol: &symbol.name, bids, asks, at_ns };
    let one = match dialect {
        Dialect::BinanceSpot | Dialect::BinanceUsdm | Dialect::BinanceCoinm => {
            binance_update(wording)
        }
        Dialect::Coinbase => coinbase::update(&levels),
        Dialect::CoinbaseAdvanced => coinbase_advanced::update(&levels, 0),
        Dialect::Kraken => kraken::update(&levels, wording.checksum(kraken::checksum(book))),
        Dialect::KrakenV1 => {
            let channel = kraken_book(channel, &symbol.name);
            kraken_v1::update(&channel, &levels, wording.checksum(kraken::checksum(book)))
        }
        Dialect::Okx => {
            let checksum = wording.checksum(okx::checksum(book).cast_unsigned()).cast_signed();
            okx::update(&levels, checksum, Some((previous_id, id)))
        }
        Dialect::BybitSpot | Dialect::BybitLinear => {
            bybit::update(Exchange::depth(dialect).unwrap_or(0), &levels, id, symbol.order)
        }
        Dialect::Deribit => {
            let nothing = TruthBook::default();
            let before = before.unwrap_or(&nothing);
            let channel = format!("book.{}.raw", symbol.name);
            deribit::update(&channel, &levels, before, previous_id, id)
        }
        Dialect::Bitfinex => return bitfinex_update(wording),
    };
    vec![one]
}

fn kraken_book(channel: u64, pair: &str) -> kraken_v1::Channel {
    let depth = cut_to(Dialect::KrakenV1).unwrap_or(0);
    kraken_v1::Channel { id: channel, name: format!("book-{depth}"), pair: pair.to_owned() }
}

/// One message a level, and the checksum behind them.
fn bitfinex_update(wording: &Wording<'_>) -> Vec<String> {
    use tickfan_core::market::Side;
    let word = |side, level| bitfinex::update(wording.channel, side, level, None);
    let bids = wording.bids.iter().map(|level| word(Side::Bid, level));
    let asks = wording.asks.iter().map(|level| word(Side::Ask, level));
    let mut texts: Vec<String> = bids.chain(asks).collect();
    let truth = bitfinex::checksum(wording.book);
    let checksum = wording.checksum(truth.cast_unsigned()).cast_signed();
    texts.push(bitfinex::checksum_message(wording.channel, checksum, None));
    texts
}

fn combined(stream: &str, data: &str) -> String {
    format!(r#"{{"stream":"{stream}","data":{data}}}"#)
}

fn pairs(levels: &[TruthLevel]) -> Vec<(String, String)> {
    levels.iter().map(|level| (level.px.to_string(), level.qty.to_string())).collect()
}

fn binance_update(wording: &Wording<'_>) -> String {
    let Wording { dialect, symbol, bids, asks, at_ns, .. } = *wording;
    let stream = format!("{}@depth@100ms", symbol.name.to_lowercase());
    let update = binance::DepthUpdate {
        symbol: &symbol.name,
        at_ms: at_ns / 1_000_000,
        // Futures count what is not told too.
        first_id: symbol.previous_id + if dialect == Dialect::BinanceSpot { 1 } else { 2 },
        last_id: symbol.id,
        bids: pairs(bids),
        asks: pairs(asks),
    };
    let data = match dialect {
        Dialect::BinanceSpot => update.data(),
        _ => update.futures_data(symbol.previous_id),
    };
    combined(&stream, &data)
}

/// The best of a book, where that is a stream of its own.
pub(super) fn ticker(wording: &Wording<'_>, best: &[Option<TruthLevel>; 2]) -> Vec<String> {
    let Wording { dialect, symbol, at_ns, .. } = *wording;
    let (true, [Some(bid), Some(ask)]) = (dialect.fetches_images(), best) else {
        return Vec::new();
    };
    let pair = |level: &TruthLevel| (level.px.to_string(), level.qty.to_string());
    let (bid, ask) = (pair(bid), pair(ask));
    let ticker = binance::BookTicker { symbol: &symbol.name, id: symbol.id, bid, ask };
    let data = match dialect {
        Dialect::BinanceSpot => ticker.data(),
        _ => ticker.futures_data(at_ns / 1_000_000),
    };
    vec![combined(&format!("{}@bookTicker", symbol.name.to_lowercase()), &data)]
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
pub(super) fn trade(wording: &PrintWording<'_>) -> Vec<String> {
    let PrintWording { dialect, print, channel, order } = *wording;
    let one = match dialect {
        Dialect::BinanceSpot | Dialect::BinanceUsdm | Dialect::BinanceCoinm => {
            let report = binance::TradeReport {
                symbol: print.symbol,
                at_ms: print.at_ns / 1_000_000,
                id: print.id,
                px: print.px.to_owned(),
                qty: print.qty.to_owned(),
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
        Dialect::Bitfinex => {
            let (px, qty) = (normalise(print.px), normalise(print.qty));
            let print = Print { px: &px, qty: &qty, ..print };
            bitfinex::trade(channel + 1, &print, None)
        }
    };
    vec![one]
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

/// One instrument of the list, its steps of price and quantity given.
pub(super) fn listing(
    dialect: Dialect,
    name: &str,
    base: &str,
    (tick, lot): &(String, String),
    symbol: &Symbol,
) -> String {
    let is_open = symbol.status == Status::Open;
    match dialect {
        Dialect::BinanceSpot => binance::listing(name, base, "USDT", tick, lot),
        Dialect::BinanceUsdm | Dialect::BinanceCoinm => {
            let (quote, status) = match dialect {
                Dialect::BinanceUsdm => ("USDT", "status"),
                _ => ("USD", "contractStatus"),
            };
            format!(
                r#"{{"symbol":"{name}","{status}":"TRADING","baseAsset":"{base}","quoteAsset":"{quote}","contractType":"PERPETUAL","filters":[{{"filterType":"PRICE_FILTER","tickSize":"{tick}"}},{{"filterType":"LOT_SIZE","stepSize":"{lot}"}}]}}"#
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
            r#"{{"altname":"{base}USD","wsname":"{name}","pair_decimals":{},"lot_decimals":{},"tick_size":"{tick}","status":"{}"}}"#,
            symbol.px_digits,
            symbol.qty_digits,
            if is_open { "online" } else { "maintenance" }
        ),
        Dialect::Okx => format!(
            r#"{{"instId":"{name}","instType":"SPOT","state":"{}","tickSz":"{tick}","lotSz":"{lot}","baseCcy":"{base}","quoteCcy":"USDT"}}"#,
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
