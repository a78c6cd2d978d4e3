//! A recording → everything that a subscriber may rightly be told of it, in order.
//!
//! Made once, before anything runs, from the simulator's truth and from the recorded lines, which
//! are read here with a general JSON parser. The states that come with the recording are held
//! against that truth. Nothing here knows the gateway or its decoders.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use feed_sim::recording::{self, Kind, Line, LostLine, Recording, StateRow};
use feed_sim::truth::{Truth, TruthBook, TruthLevel};
use feed_sim::venue::Dialect;
use serde::Deserialize;
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
            recording: Arc::clone(&recording),
        };
        let mut truth = Truth::new(recording.dialect);
        for (index, line) in recording.lines.iter().enumerate() {
            expected
                .walk(index, line, &mut truth)
                .with_context(|| format!("{}: line {}", recording.name, line.number))?;
        }
        expected.symbols.retain(|_, symbol| !symbol.rows.is_empty());
        for symbol in expected.symbols.values_mut().filter(|_| recording.dialect != Dialect::Kraken)
        {
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
        let said = Said::read(dialect, line)?;
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
    fn compare(&self, states: &[StateRow]) -> Result<()> {
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
        for index in &self.symbols.get(name)?.book_lines {
            let applied = &self.recording.lines[*index];
            if applied.number <= line {
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
        let mark = match self.recording.dialect {
            Dialect::Kraken => {
                let message: KrakenMessage<'_> = serde_json::from_slice(&line.payload)?;
                let [subject]: [Subject<'_>; 1] =
                    serde_json::from_str(message.data.context("no data")?.get())?;
                Mark::Time(micros(subject.timestamp.context("no timestamp")?)?)
            }
            _ => {
                let combined: Combined<'_> = serde_json::from_slice(&line.payload)?;
                Mark::Id(serde_json::from_str::<Depth<'_>>(combined.data.get())?.u)
            }
        };
        Ok(mark)
    }

    /// The venue's best bid and offer has a stream of its own.
    pub(crate) fn has_quote_stream(&self) -> bool {
        self.recording.dialect != Dialect::Kraken
    }

    /// The venue numbers its books.
    pub(crate) fn has_numbers(&self) -> bool {
        self.recording.dialect != Dialect::Kraken
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
    /// A change of its book; for Kraken the whole book too.
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
    fn read(dialect: Dialect, line: &Line) -> Result<Self> {
        match (dialect, line.kind) {
            (_, Kind::Open | Kind::Send) => Ok(Self::Nothing),
            (_, Kind::Rest) => Ok(line
                .rest_symbol()
                .map_or(Self::Nothing, |symbol| Self::Image { symbol: symbol.to_owned() })),
            (Dialect::Kraken, Kind::Recv) => Self::of_kraken(line),
            (_, Kind::Recv) => Self::of_binance(line),
        }
    }

    fn of_binance(line: &Line) -> Result<Self> {
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
            ("book", _) => {
                let [subject]: [Subject<'_>; 1] = serde_json::from_str(data.get())?;
                Ok(Self::Change { symbol: subject.symbol.into_owned() })
            }
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

fn number(text: &str) -> Result<String> {
    shortest(text).with_context(|| format!("{text} is no decimal"))
}

/// A quantity of zero means that there is none.
fn quote(px: &str, qty: &str) -> Result<Option<Quote>> {
    let (px, qty) = (number(px)?, number(qty)?);
    Ok((qty != "0").then(|| (px.into(), qty.into())))
}

/// `2021-04-17T16:48:53.924027Z` → microseconds since the Unix epoch.
fn micros(text: &str) -> Result<u64> {
    let parts: Vec<&str> = text.split(['-', 'T', ':', '.', 'Z']).collect();
    let [year, month, day, hour, minute, second, fraction, ""] = parts[..] else {
        bail!("{text} is no time with a fraction");
    };
    ensure!(fraction.len() == 6, "{text} has no microseconds");
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
struct Subject<'a> {
    #[serde(borrow)]
    symbol: Cow<'a, str>,
    #[serde(default)]
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
