//! A recording → everything that a subscriber may rightly be told of it, in order.
//!
//! Made once, before anything runs, from the simulator's truth and from the recorded lines, which
//! are read here with a general JSON parser. The states that come with the recording are held
//! against that truth. Nothing here knows the gateway or its decoders.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use feed_sim::recording::{self, Kind, Line, LostLine, Recording, StateRow};
use feed_sim::truth::{Truth, TruthBook, TruthLevel};
use feed_sim::venue::Dialect;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tickfan_core::market::Side;

use super::mirror::{Quote, Top, place};
use super::number::{exact, shortest};

/// A state in which a book truly was.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// The line that brought it.
    pub(crate) line: u64,
    /// The venue's update id, where it has one.
    pub(crate) id: Option<u64>,
    /// Its best bid and offer.
    pub(crate) top: Top,
    /// The checksum of its 20 best levels.
    pub(crate) crc_top20: u32,
    /// The digest of all its levels.
    pub(crate) digest: u64,
}

/// A trade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trade {
    /// The line that brought it.
    pub(crate) line: u64,
    /// The venue's time, microseconds.
    pub(crate) te: u64,
    /// The price.
    pub(crate) px: String,
    /// The quantity.
    pub(crate) qty: String,
    /// The side of the aggressor.
    pub(crate) side: &'static str,
    /// The venue's id.
    pub(crate) id: String,
}

/// A best bid and offer with the sequence that it belongs to.
#[derive(Debug, Clone)]
pub(crate) struct QuoteRow {
    /// The venue's update id.
    pub(crate) id: u64,
    /// The line that brought it.
    pub(crate) line: u64,
    /// The best bid and offer.
    pub(crate) top: Top,
}

/// What is true of one symbol.
#[derive(Debug, Default)]
pub(crate) struct Symbol {
    /// Its states, in order.
    pub(crate) rows: Vec<Row>,
    /// At a venue with numbers: every best bid and offer, of its own stream and of the book, by
    /// number.
    pub(crate) quotes: Vec<QuoteRow>,
    /// Its trades, in order.
    pub(crate) trades: Vec<Trade>,
    /// Indices of the lines that are about its book.
    book_lines: Vec<usize>,
}

/// Where in a recording something stems from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The venue's sequence.
    Id(u64),
    /// The venue's time, microseconds.
    Time(u64),
    /// Neither is told to a subscriber in a form that could be compared: only the state itself says
    /// from which line it stems.
    Line,
}

/// What must be noticed when a line is left out.
#[derive(Debug, Clone)]
pub(crate) struct Loss {
    /// The symbol, as the venue spells it.
    pub(crate) symbol: String,
    /// The line that is left out.
    pub(crate) line: u64,
    /// What the line that is left out is marked with.
    pub(crate) from: Mark,
    /// The first line at which it can be noticed.
    pub(crate) seen_line: u64,
    /// What that line is marked with.
    pub(crate) seen: Mark,
}

/// What is true of a whole recording.
#[derive(Debug)]
pub(crate) struct Expected {
    /// The recording.
    pub(crate) recording: Arc<Recording>,
    /// By symbol, as the venue spells it: all those whose book is ever valid.
    pub(crate) symbols: BTreeMap<String, Symbol>,
    /// Binance: which of its trade streams was recorded.
    pub(crate) trade_stream: Option<&'static str>,
    /// The venue numbers its books. OKX does now, but did not in 2022.
    pub(crate) has_numbers: bool,
    /// Bitfinex: of which symbol a number of a channel is.
    channels: HashMap<u64, String>,
}

impl Expected {
    /// Reads the recording at `path` and everything that is true of it.
    ///
    /// # Errors
    /// When a file cannot be read, or the truth and the recorded states are not the same.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let expected = Self::new(Arc::new(Recording::open(path)?))?;
        expected.compare(&recording::states(path)?)?;
        Ok(expected)
    }

    /// Walks through a recording line by line beside the truth.
    ///
    /// # Errors
    /// When a line is not what its venue documents.
    pub(crate) fn new(recording: Arc<Recording>) -> Result<Self> {
        let mut expected = Self {
            symbols: BTreeMap::new(),
            trade_stream: None,
            has_numbers: has_numbers(&recording),
            channels: HashMap::new(),
            recording: Arc::clone(&recording),
        };
        if recording.dialect == Dialect::Bitfinex {
            // A channel may speak before it is acknowledged.
            expected.channels = recording.lines.iter().filter_map(channel).collect();
        }
        let mut truth = Truth::new(recording.dialect);
        for (index, line) in recording.lines.iter().enumerate() {
            expected
                .walk(index, line, &mut truth)
                .with_context(|| format!("{}: line {}", recording.name, line.number))?;
        }
        expected.symbols.retain(|_, symbol| !symbol.rows.is_empty());
        let has_quotes = expected.has_quote_stream();
        for symbol in expected.symbols.values_mut().filter(|_| has_quotes) {
            let of_book = symbol.rows.iter().filter_map(|row| {
                Some(QuoteRow { id: row.id?, line: row.line, top: row.top.clone() })
            });
            symbol.quotes.extend(of_book);
            symbol.quotes.sort_by_key(|quote| quote.id);
        }
        Ok(expected)
    }

    fn walk(&mut self, index: usize, line: &Line, truth: &mut Truth) -> Result<()> {
        let dialect = self.recording.dialect;
        let said = Said::read(dialect, line, &self.channels)?;
        if let Said::Image { symbol } = &said {
            let states = self.states_on_the_way(symbol, line);
            self.symbol(symbol).rows.extend(states);
        }
        if let Some(changed) = truth.apply_line(line) {
            let book = truth.book(&changed.symbol).context("a changed book is there")?;
            let row = Row::of(line.number, book);
            self.symbol(&changed.symbol).rows.push(row);
        }
        match said {
            Said::Nothing => {}
            Said::Image { symbol } | Said::Change { symbol } => {
                self.symbol(&symbol).book_lines.push(index);
            }
            Said::Quote { symbol, id, top } => {
                self.symbol(&symbol).quotes.push(QuoteRow { id, line: line.number, top });
            }
            Said::Trades { symbol, trades, stream } => {
                if let Some(stream) = stream {
                    let known = *self.trade_stream.get_or_insert(stream);
                    ensure!(known == stream, "two trade streams, {known} and {stream}");
                }
                self.symbol(&symbol).trades.extend(trades);
            }
        }
        Ok(())
    }

    fn symbol(&mut self, name: &str) -> &mut Symbol {
        self.symbols.entry(name.to_owned()).or_default()
    }

    /// The image of a Binance symbol before it is joined to the stream, and the states between it and
    /// the joined one: a client may see these, and the truth goes through them in one step.
    fn states_on_the_way(&self, name: &str, image: &Line) -> Vec<Row> {
        let mut truth = Truth::new(self.recording.dialect);
        let before = self.symbols.get(name).map_or(&[][..], |symbol| &symbol.book_lines);
        let mut rows = Vec::new();
        for line in std::iter::once(image).chain(before.iter().map(|i| &self.recording.lines[*i])) {
            if truth.apply_line(line).is_some()
                && let Some(book) = truth.book(name)
            {
                rows.push(Row::of(image.number, book));
            }
        }
        // The last one is the joined state itself.
        rows.pop();
        rows
    }

    /// Holds the truth against the states that come with the recording.
    ///
    /// # Errors
    /// When they are not the same.
    pub(crate) fn compare(&self, states: &[StateRow]) -> Result<()> {
        let mut listed: BTreeMap<&str, Vec<&StateRow>> = BTreeMap::new();
        for row in states {
            listed.entry(&row.symbol).or_default().push(row);
        }
        ensure!(
            listed.keys().copied().eq(self.symbols.keys().map(String::as_str)),
            "the states are of other symbols than the truth"
        );
        for (name, listed) in listed {
            let rows = &self.symbols[name].rows;
            // Of the states of one line, the last is the one that is listed.
            let lasts: Vec<&Row> = rows
                .iter()
                .zip(rows.iter().skip(1).map(Some).chain([None]))
                .filter(|(row, next)| next.is_none_or(|next| next.line != row.line))
                .map(|(row, _)| row)
                .collect();
            ensure!(lasts.len() == listed.len(), "{name}: not as many states as in the list");
            for (row, state) in lasts.into_iter().zip(listed) {
                ensure!(row.is_listed_as(state), "{name}: {row:?}, but the list has {state:?}");
            }
        }
        Ok(())
    }

    /// The whole book of a symbol after a line.
    pub(crate) fn book_after(&self, name: &str, line: u64) -> Option<TruthBook> {
        let mut truth = Truth::new(self.recording.dialect);
        let lines = &self.recording.lines;
        if self.recording.dialect.fetches_images() {
            let of_book = self.symbols.get(name)?.book_lines.iter().map(|index| &lines[*index]);
            for applied in of_book.filter(|applied| applied.number <= line) {
                truth.apply_line(applied);
            }
        } else {
            // Acknowledgements count here: they say how deep a book is, or which.
            for applied in lines.iter().take_while(|applied| applied.number <= line) {
                truth.apply_line(applied);
            }
        }
        truth.book(name).cloned()
    }

    /// The sides and places that a line changes in a book; Binance only.
    pub(crate) fn changes(&self, line: u64) -> Vec<(Side, i128)> {
        let index = usize::try_from(line.saturating_sub(1)).unwrap_or(usize::MAX);
        let depth = self.recording.lines.get(index).and_then(|line| {
            let combined: Combined<'_> = serde_json::from_slice(&line.payload).ok()?;
            serde_json::from_str::<Depth<'_>>(combined.data.get()).ok()
        });
        let Some(depth) = depth else { return Vec::new() };
        [(Side::Bid, depth.b), (Side::Ask, depth.a)]
            .into_iter()
            .flat_map(|(side, levels)| levels.into_iter().map(move |(px, _)| (side, px)))
            .filter_map(|(side, px)| Some((side, place(side, exact(&shortest(px)?)?))))
            .collect()
    }

    /// What must be noticed when this line is left out.
    ///
    /// # Errors
    /// When a line is not a change of the symbol's book.
    pub(crate) fn loss(&self, lost: &LostLine, seen_line: u64) -> Result<Loss> {
        ensure!(self.symbols.contains_key(&lost.symbol), "no books of {}", lost.symbol);
        Ok(Loss {
            symbol: lost.symbol.clone(),
            line: lost.drop_line,
            from: self.mark(lost.drop_line)?,
            seen_line,
            seen: self.mark(seen_line)?,
        })
    }

    fn mark(&self, number: u64) -> Result<Mark> {
        let index = usize::try_from(number)?.checked_sub(1);
        let line =
            index.and_then(|index| self.recording.lines.get(index)).context("no such line")?;
        let text = line.text();
        let mark = match self.recording.dialect {
            Dialect::BinanceSpot | Dialect::BinanceUsdm | Dialect::BinanceCoinm => {
                let combined: Combined<'_> = serde_json::from_str(text)?;
                Mark::Id(serde_json::from_str::<Depth<'_>>(combined.data.get())?.u)
            }
            Dialect::Kraken => {
                let message: KrakenMessage<'_> = serde_json::from_str(text)?;
                let [subject]: [Subject<'_>; 1] =
                    serde_json::from_str(message.data.context("no data")?.get())?;
                Mark::Time(micros(subject.timestamp.context("no timestamp")?)?)
            }
            Dialect::KrakenV1 => {
                let message: Value = serde_json::from_str(text)?;
                let objects = message.as_array().into_iter().flatten().filter_map(Value::as_object);
                let levels = objects.flat_map(|sides| sides.values()).filter_map(Value::as_array);
                let times = levels.flatten().filter_map(|level| level[2].as_str());
                let newest = times.map(second_micros).collect::<Result<Vec<_>>>()?;
                Mark::Time(newest.into_iter().max().context("no level")?)
            }
            Dialect::Okx => {
                let message: Value = serde_json::from_str(text)?;
                Mark::Time(millis(&message["data"][0]["ts"])? * 1_000)
            }
            Dialect::BybitSpot | Dialect::BybitLinear => {
                let message: Value = serde_json::from_str(text)?;
                Mark::Id(message["data"]["u"].as_u64().context("no u")?)
            }
            Dialect::Deribit => {
                let message: Value = serde_json::from_str(text)?;
                let id = message["params"]["data"]["change_id"].as_u64();
                Mark::Id(id.context("no change_id")?)
            }
            Dialect::Coinbase | Dialect::CoinbaseAdvanced | Dialect::Bitfinex => Mark::Line,
        };
        Ok(mark)
    }

    /// The venue's best bid and offer has a stream of its own.
    pub(crate) fn has_quote_stream(&self) -> bool {
        self.recording.dialect.fetches_images()
    }

    /// The venue numbers what it sends on a connection: whoever misses one may have missed anything
    /// of any symbol.
    pub(crate) fn loses_together(&self) -> bool {
        matches!(self.recording.dialect, Dialect::CoinbaseAdvanced | Dialect::Bitfinex)
    }

    /// The depth at which its books were recorded, where the venue lets choose.
    pub(crate) fn depth(&self) -> Option<u32> {
        match self.recording.dialect {
            Dialect::BinanceSpot | Dialect::BinanceUsdm | Dialect::BinanceCoinm => Some(1_000),
            Dialect::Okx => Some(400),
            Dialect::Bitfinex => Some(100),
            Dialect::Kraken | Dialect::KrakenV1 | Dialect::BybitSpot | Dialect::BybitLinear => {
                self.recording.lines.iter().find_map(depth)
            }
            Dialect::Coinbase | Dialect::CoinbaseAdvanced | Dialect::Deribit => None,
        }
    }

    /// A symbol as the protocol spells it.
    pub(crate) fn spelt(&self, native: &str) -> String {
        format!("{}:{native}", self.recording.dialect.venue().name())
    }
}

impl Row {
    fn of(line: u64, book: &TruthBook) -> Self {
        let quote = |level: &TruthLevel| -> Option<Quote> {
            Some((shortest(&level.px)?.into(), shortest(&level.qty)?.into()))
        };
        Self {
            line,
            id: book.id(),
            top: Top {
                bid: book.best(Side::Bid).and_then(quote),
                ask: book.best(Side::Ask).and_then(quote),
            },
            crc_top20: book.crc_top20(),
            digest: book.digest(),
        }
    }

    fn is_listed_as(&self, state: &StateRow) -> bool {
        let is = |quote: &Option<Quote>, px: &str, qty: &str| {
            quote.as_ref().map_or(("", ""), |(px, qty)| (px, qty)) == (px, qty)
        };
        self.line == state.line
            && self.id == state.id
            && is(&self.top.bid, &state.bid_px, &state.bid_qty)
            && is(&self.top.ask, &state.ask_px, &state.ask_qty)
            && self.crc_top20 == state.crc_top20
    }
}

/// What a line says of a symbol.
enum Said {
    Nothing,
    /// Its whole book (Binance's REST).
    Image {
        symbol: String,
    },
    /// A change of its book at Binance.
    Change {
        symbol: String,
    },
    /// Its best bid and offer.
    Quote {
        symbol: String,
        id: u64,
        top: Top,
    },
    /// Trades, and of which of Binance's streams.
    Trades {
        symbol: String,
        trades: Vec<Trade>,
        stream: Option<&'static str>,
    },
}

impl Said {
    fn read(dialect: Dialect, line: &Line, channels: &HashMap<u64, String>) -> Result<Self> {
        match line.kind {
            Kind::Open | Kind::Send => return Ok(Self::Nothing),
            Kind::Rest => {
                return Ok(line
                    .rest_symbol()
                    .map_or(Self::Nothing, |symbol| Self::Image { symbol: symbol.to_owned() }));
            }
            Kind::Recv => {}
        }
        match dialect {
            Dialect::BinanceSpot | Dialect::BinanceUsdm | Dialect::BinanceCoinm => {
                Self::of_binance(line)
            }
            Dialect::Kraken => Self::of_kraken(line),
            Dialect::Coinbase => Self::of_coinbase(line),
            Dialect::CoinbaseAdvanced => Self::of_coinbase_advanced(line),
            Dialect::KrakenV1 => Self::of_kraken_v1(line),
            Dialect::Okx => Self::of_okx(line),
            Dialect::BybitSpot | Dialect::BybitLinear => Self::of_bybit(line),
            Dialect::Deribit => Self::of_deribit(line),
            Dialect::Bitfinex => Self::of_bitfinex(line, channels),
        }
    }

    /// The trades of one symbol, in the order in which they happened.
    fn trades(symbol: &Value, trades: impl Iterator<Item = Result<Trade>>) -> Result<Self> {
        let trades: Vec<Trade> = trades.collect::<Result<_>>()?;
        if trades.is_empty() {
            return Ok(Self::Nothing);
        }
        Ok(Self::Trades { symbol: text(symbol)?.to_owned(), trades, stream: None })
    }

    /// The trade that was over before anybody subscribed (`last_match`) is none.
    fn of_coinbase(line: &Line) -> Result<Self> {
        let message: Value = serde_json::from_str(line.text())?;
        if message["type"] != "match" {
            return Ok(Self::Nothing);
        }
        let trade = Trade {
            line: line.number,
            te: micros(text(&message["time"])?)?,
            px: number(text(&message["price"])?)?,
            qty: number(text(&message["size"])?)?,
            // The venue names the side of who waited.
            side: if message["side"] == "buy" { "sell" } else { "buy" },
            id: message["trade_id"].to_string(),
        };
        Self::trades(&message["product_id"], std::iter::once(Ok(trade)))
    }

    /// What is sent on subscribing is history. The newest trade of a message comes first.
    fn of_coinbase_advanced(line: &Line) -> Result<Self> {
        if !line.text().starts_with(r#"{"channel":"market_trades""#) {
            return Ok(Self::Nothing);
        }
        let message: Value = serde_json::from_str(line.text())?;
        let events = message["events"].as_array().context("no events")?;
        let updates = events.iter().filter(|event| event["type"] == "update");
        let prints: Vec<&Value> =
            updates.filter_map(|event| event["trades"].as_array()).flatten().collect();
        let trades = prints.iter().rev().map(|print| {
            Ok(Trade {
                line: line.number,
                te: micros(text(&print["time"])?)?,
                px: number(text(&print["price"])?)?,
                qty: number(text(&print["size"])?)?,
                // The venue names the side of who waited.
                side: if print["side"] == "BUY" { "sell" } else { "buy" },
                id: text(&print["trade_id"])?.to_owned(),
            })
        });
        Self::trades(prints.first().map_or(&Value::Null, |print| &print["product_id"]), trades)
    }

    /// The venue has no ids of trades.
    fn of_kraken_v1(line: &Line) -> Result<Self> {
        let message: Value = serde_json::from_str(line.text())?;
        if message[2] != "trade" {
            return Ok(Self::Nothing);
        }
        let prints = message[1].as_array().context("no trades")?;
        let trades = prints.iter().map(|print| {
            Ok(Trade {
                line: line.number,
                te: second_micros(text(&print[2])?)?,
                px: number(text(&print[0])?)?,
                qty: number(text(&print[1])?)?,
                side: if print[3] == "b" { "buy" } else { "sell" },
                id: String::new(),
            })
        });
        Self::trades(&message[3], trades)
    }

    fn of_okx(line: &Line) -> Result<Self> {
        let message: Value = serde_json::from_str(line.text())?;
        let (true, Some(prints)) =
            (message["arg"]["channel"] == "trades", message["data"].as_array())
        else {
            return Ok(Self::Nothing);
        };
        let trades = prints.iter().map(|print| {
            Ok(Trade {
                line: line.number,
                te: millis(&print["ts"])? * 1_000,
                px: number(text(&print["px"])?)?,
                qty: number(text(&print["sz"])?)?,
                side: if print["side"] == "buy" { "buy" } else { "sell" },
                id: text(&print["tradeId"])?.to_owned(),
            })
        });
        Self::trades(&message["arg"]["instId"], trades)
    }

    fn of_bybit(line: &Line) -> Result<Self> {
        let message: Value = serde_json::from_str(line.text())?;
        let is_trades =
            message["topic"].as_str().is_some_and(|topic| topic.starts_with("publicTrade."));
        let (true, Some(prints)) = (is_trades, message["data"].as_array()) else {
            return Ok(Self::Nothing);
        };
        let trades = prints.iter().map(|print| {
            Ok(Trade {
                line: line.number,
                te: print["T"].as_u64().context("no T")? * 1_000,
                px: number(text(&print["p"])?)?,
                qty: number(text(&print["v"])?)?,
                side: if print["S"] == "Buy" { "buy" } else { "sell" },
                id: text(&print["i"])?.to_owned(),
            })
        });
        Self::trades(&message["data"][0]["s"], trades)
    }

    /// Numbers are kept as they were written by reading them as texts.
    fn of_deribit(line: &Line) -> Result<Self> {
        #[derive(Deserialize)]
        struct Print<'a> {
            instrument_name: &'a str,
            timestamp: u64,
            #[serde(borrow)]
            price: &'a RawValue,
            #[serde(borrow)]
            amount: &'a RawValue,
            direction: &'a str,
            trade_id: &'a str,
        }
        let message: DeribitMessage<'_> = serde_json::from_str(line.text())?;
        let Some(pushed) = message.params.filter(|pushed| pushed.channel.starts_with("trades."))
        else {
            return Ok(Self::Nothing);
        };
        let prints: Vec<Print<'_>> = serde_json::from_str(pushed.data.get())?;
        let symbol = prints.first().map_or(Value::Null, |print| print.instrument_name.into());
        let trades = prints.iter().map(|print| {
            Ok(Trade {
                line: line.number,
                te: print.timestamp * 1_000,
                px: number(print.price.get())?,
                qty: number(print.amount.get())?,
                side: if print.direction == "buy" { "buy" } else { "sell" },
                id: print.trade_id.to_owned(),
            })
        });
        Self::trades(&symbol, trades)
    }

    /// `"tu"` tells the same trade again. Numbers are kept as they were written.
    fn of_bitfinex(line: &Line, channels: &HashMap<u64, String>) -> Result<Self> {
        let Ok(parts) = serde_json::from_str::<Vec<&RawValue>>(line.text()) else {
            return Ok(Self::Nothing);
        };
        let [channel, kind, content, ..] = parts[..] else { return Ok(Self::Nothing) };
        if kind.get() != r#""te""# {
            return Ok(Self::Nothing);
        }
        let symbol = channels.get(&channel.get().parse()?).context("of no known channel")?;
        let (id, at_ms, amount, px): (u64, u64, &RawValue, &RawValue) =
            serde_json::from_str(content.get())?;
        let (side, qty) = match amount.get().strip_prefix('-') {
            Some(qty) => ("sell", qty),
            None => ("buy", amount.get()),
        };
        let trade = Trade {
            line: line.number,
            te: at_ms * 1_000,
            px: number(px.get())?,
            qty: number(qty)?,
            side,
            id: id.to_string(),
        };
        Self::trades(&symbol.as_str().into(), std::iter::once(Ok(trade)))
    }

    fn of_binance(line: &Line) -> Result<Self> {
        // The answer to a request.
        if line.text().starts_with(r#"{"result":"#) {
            return Ok(Self::Nothing);
        }
        let combined: Combined<'_> = serde_json::from_slice(&line.payload)?;
        let data = combined.data.get();
        let Some((_, stream)) = combined.stream.split_once('@') else { return Ok(Self::Nothing) };
        Ok(match stream {
            "bookTicker" => {
                let ticker: BookTicker<'_> = serde_json::from_str(data)?;
                let top = Top {
                    bid: quote(ticker.bid_px, ticker.bid_qty)?,
                    ask: quote(ticker.ask_px, ticker.ask_qty)?,
                };
                Self::Quote { symbol: ticker.symbol.to_owned(), id: ticker.id, top }
            }
            "trade" | "aggTrade" => {
                let trade: BinanceTrade<'_> = serde_json::from_str(data)?;
                let is_single = stream == "trade";
                let id = if is_single { trade.id } else { trade.aggregate_id };
                let trades = vec![Trade {
                    line: line.number,
                    te: trade.at_ms * 1_000,
                    px: number(trade.px)?,
                    qty: number(trade.qty)?,
                    side: if trade.buyer_waited { "sell" } else { "buy" },
                    id: id.context("a trade has an id")?.to_string(),
                }];
                let stream = Some(if is_single { "trade" } else { "aggTrade" });
                Self::Trades { symbol: trade.symbol.to_owned(), trades, stream }
            }
            _ if stream.starts_with("depth") => {
                let depth: Depth<'_> = serde_json::from_str(data)?;
                Self::Change { symbol: depth.symbol.to_owned() }
            }
            _ => Self::Nothing,
        })
    }

    fn of_kraken(line: &Line) -> Result<Self> {
        let message: KrakenMessage<'_> = serde_json::from_slice(&line.payload)?;
        let (Some(channel), Some(data)) = (message.channel, message.data) else {
            return Ok(Self::Nothing);
        };
        match (channel, message.kind) {
            // What is sent on subscribing is history and no new trade.
            ("trade", Some("update")) => {
                let prints: Vec<KrakenTrade<'_>> = serde_json::from_str(data.get())?;
                let symbol = prints.first().map(|print| print.symbol.clone().into_owned());
                let symbol = symbol.context("a message of trades has some")?;
                let trades = prints.iter().map(|print| {
                    ensure!(print.symbol == symbol, "trades of two symbols in one message");
                    Ok(Trade {
                        line: line.number,
                        te: micros(print.timestamp)?,
                        px: number(print.price.get())?,
                        qty: number(print.qty.get())?,
                        side: if print.side == "buy" { "buy" } else { "sell" },
                        id: print.trade_id.to_string(),
                    })
                });
                let trades = trades.collect::<Result<_>>()?;
                Ok(Self::Trades { symbol, trades, stream: None })
            }
            _ => Ok(Self::Nothing),
        }
    }
}

fn has_numbers(recording: &Recording) -> bool {
    match recording.dialect {
        Dialect::BinanceSpot
        | Dialect::BinanceUsdm
        | Dialect::BinanceCoinm
        | Dialect::BybitSpot
        | Dialect::BybitLinear
        | Dialect::Deribit => true,
        Dialect::Okx => {
            let is_numbered = |line: &Line| line.text().contains(r#""seqId":"#);
            recording.lines.iter().any(is_numbered)
        }
        Dialect::Coinbase
        | Dialect::CoinbaseAdvanced
        | Dialect::Kraken
        | Dialect::KrakenV1
        | Dialect::Bitfinex => false,
    }
}

/// The number of a channel of Bitfinex and its symbol, out of its acknowledgement.
fn channel(line: &Line) -> Option<(u64, String)> {
    let message: Value = serde_json::from_str(line.text()).ok()?;
    let is_begun = line.kind == Kind::Recv && message["event"] == "subscribed";
    is_begun.then(|| Some((message["chanId"].as_u64()?, message["symbol"].as_str()?.to_owned())))?
}

/// The depth that the recorder asked Kraken or Bybit for, if it did so in this line.
fn depth(line: &Line) -> Option<u32> {
    if line.kind != Kind::Send {
        return None;
    }
    let request: Value = serde_json::from_str(line.text()).ok()?;
    let of_kraken = [&request["params"]["depth"], &request["subscription"]["depth"]];
    if let Some(depth) = of_kraken.into_iter().find_map(Value::as_u64) {
        return u32::try_from(depth).ok();
    }
    let topics = request["args"].as_array()?.iter().filter_map(Value::as_str);
    let depths = topics.filter_map(|topic| topic.strip_prefix("orderbook.")?.split('.').next());
    depths.filter_map(|depth| depth.parse().ok()).next()
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().with_context(|| format!("{value} is no text"))
}

/// A text of milliseconds.
fn millis(value: &Value) -> Result<u64> {
    text(value)?.parse().with_context(|| format!("{value} is no time"))
}

/// `1618678123.481570` → microseconds.
fn second_micros(text: &str) -> Result<u64> {
    let (seconds, micros) = text.split_once('.').context("no fraction of a second")?;
    ensure!(micros.len() == 6, "{text} has no microseconds");
    Ok(seconds.parse::<u64>()? * 1_000_000 + micros.parse::<u64>()?)
}

fn number(text: &str) -> Result<String> {
    shortest(text).with_context(|| format!("{text} is no decimal"))
}

/// A quantity of zero means that there is none.
fn quote(px: &str, qty: &str) -> Result<Option<Quote>> {
    let (px, qty) = (number(px)?, number(qty)?);
    Ok((qty != "0").then(|| (px.into(), qty.into())))
}

/// `2021-04-17T16:48:53.924027Z` → microseconds since the Unix epoch. A fraction may be shorter, longer
/// or absent.
fn micros(text: &str) -> Result<u64> {
    let local = text.strip_suffix('Z').with_context(|| format!("{text} is no time in UTC"))?;
    let (whole, fraction) = local.split_once('.').unwrap_or((local, ""));
    let parts: Vec<&str> = whole.split(['-', 'T', ':']).collect();
    let [year, month, day, hour, minute, second] = parts[..] else {
        bail!("{text} is no time");
    };
    let digits = format!("{fraction:0<6}");
    let fraction = digits.get(..6).context("a fraction of digits")?;
    let part = |text: &str| text.parse::<u64>().with_context(|| format!("{text} in a time"));
    let (year, month) = (part(year)?, part(month)?);
    ensure!((1970..=2100).contains(&year) && (1..=12).contains(&month), "{text} is out of range");
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let months = [31, if is_leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let years: u64 = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum();
    let days = years
        + months.iter().zip(1..month).map(|(days, _)| days).sum::<u64>()
        + part(day)?.saturating_sub(1);
    let seconds = days * 86_400 + part(hour)? * 3_600 + part(minute)? * 60 + part(second)?;
    Ok(seconds * 1_000_000 + part(fraction)?)
}

#[derive(Deserialize)]
struct Combined<'a> {
    stream: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct Depth<'a> {
    #[serde(rename = "s")]
    symbol: &'a str,
    u: u64,
    #[serde(borrow)]
    b: Vec<(&'a str, &'a str)>,
    #[serde(borrow)]
    a: Vec<(&'a str, &'a str)>,
}

#[derive(Deserialize)]
struct BookTicker<'a> {
    #[serde(rename = "s")]
    symbol: &'a str,
    #[serde(rename = "u")]
    id: u64,
    #[serde(rename = "b")]
    bid_px: &'a str,
    #[serde(rename = "B")]
    bid_qty: &'a str,
    #[serde(rename = "a")]
    ask_px: &'a str,
    #[serde(rename = "A")]
    ask_qty: &'a str,
}

#[derive(Deserialize)]
struct BinanceTrade<'a> {
    #[serde(rename = "s")]
    symbol: &'a str,
    #[serde(rename = "T")]
    at_ms: u64,
    #[serde(rename = "t", default)]
    id: Option<u64>,
    #[serde(rename = "a", default)]
    aggregate_id: Option<u64>,
    #[serde(rename = "p")]
    px: &'a str,
    #[serde(rename = "q")]
    qty: &'a str,
    #[serde(rename = "m")]
    buyer_waited: bool,
}

#[derive(Deserialize)]
struct KrakenMessage<'a> {
    #[serde(default)]
    channel: Option<&'a str>,
    #[serde(rename = "type", default)]
    kind: Option<&'a str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct DeribitMessage<'a> {
    #[serde(borrow, default)]
    params: Option<DeribitPushed<'a>>,
}

#[derive(Deserialize)]
struct DeribitPushed<'a> {
    channel: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct Subject<'a> {
    #[serde(borrow, default)]
    timestamp: Option<&'a str>,
}

#[derive(Deserialize)]
struct KrakenTrade<'a> {
    #[serde(borrow)]
    symbol: Cow<'a, str>,
    side: &'a str,
    #[serde(borrow)]
    price: &'a RawValue,
    #[serde(borrow)]
    qty: &'a RawValue,
    trade_id: u64,
    timestamp: &'a str,
}
