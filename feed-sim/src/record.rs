//! A run of an exchange in virtual time → a recording of it: lines, states and expected books.
//!
//! Called by the binary and by tests. A subscriber to everything listens, as a recorder at a real venue
//! would. What a book truly is, the exchange is asked; its words are read only for what they are
//! about. Pure: no socket and no clock; same run, same bytes.

mod subscriber;
mod subject;
mod losses;
mod synthetic;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Result, ensure};
use bytes::Bytes;
use serde_json::Value;
use tickfan_core::market::Side;

use crate::exchange::ExchangeOptions;
use crate::recording::{Kind, Line, LostLine, Recording, StateRow, TruthPoint, Writer};
use crate::replay::stepped::Stepped;
use crate::scenario::Scenario;
use crate::truth::{TruthBook, TruthLevel};
use crate::venue::{Dialect, best_levels};
pub use losses::Losses;
use subject::{Subject, Subjects};
pub use subscriber::Example;
pub(crate) use subscriber::{ImageRequest, Wishes};
use synthetic::Synthetic;
pub use synthetic::ensure_holds;

/// The name of the one connection.
const STREAM: &str = "ws";

/// The host of the exchange, which nobody can mistake for a real one.
const HOST: &str = "feed-sim.invalid";

/// How long after the subscription the first image is fetched, and each further one after it.
const IMAGE_EVERY_NS: u64 = 20_000_000;

/// Levels of a side in an expected book, and as many as a state hashes.
const TRUTH_LEVELS: usize = 20;

/// The first expected books come after this line or soon after it.
const FIRST_POINT: u64 = 64;

/// How long a run is: whatever comes first.
#[derive(Debug, Clone, Copy)]
pub struct Length {
    /// In the exchange's time.
    pub duration_ns: u64,
    /// In messages of the venue. What happens at the moment of the last one is recorded to its end.
    pub messages: u64,
}

/// Records a synthetic exchange from its first moment.
///
/// # Errors
/// When the exchange says what a recording cannot hold, or the writer fails.
pub fn exchange<L: Write, T: Write>(
    options: ExchangeOptions,
    length: Length,
    writer: &mut Writer<L, T>,
) -> Result<()> {
    scenario(options, &Scenario::calm(), length, writer).map(drop)
}

/// The same of an exchange with which something goes wrong. A message that is lost is a line like all
/// others; returns what must happen when it is left out, for each.
///
/// # Errors
/// When a recording cannot hold a fault of the scenario, or not all of them have happened by the end.
pub fn scenario<L: Write, T: Write>(
    options: ExchangeOptions,
    scenario: &Scenario,
    length: Length,
    writer: &mut Writer<L, T>,
) -> Result<Vec<LostLine>> {
    let mut synthetic = Synthetic::new(options, scenario)?;
    let lost = Recorder::new(&mut synthetic, writer, !scenario.faults.is_empty()).run(length)?;
    synthetic.ensure_over(scenario)?;
    Ok(lost)
}

/// Records a recording that is played to its end, of which some lines count as lost; returns what must
/// happen when they are. Who listens asks for what the recorder asked for, but on one connection and at
/// the first moment.
///
/// # Errors
/// When the recording has no line or does not say what was asked for, or the writer fails.
pub fn replay<L: Write, T: Write>(
    recording: &Recording,
    lost: &[LostLine],
    writer: &mut Writer<L, T>,
) -> Result<Vec<LostLine>> {
    ensure!(!recording.lines.is_empty(), "the recording {} is empty", recording.name);
    let length = Length { duration_ns: u64::MAX, messages: u64::MAX };
    let mut stepped = Stepped::new(recording, lost);
    let lost = Recorder::new(&mut stepped, writer, !lost.is_empty()).run(length)?;
    ensure!(
        writer.written().messages > 0,
        "nothing was heard: {} has neither a `send` line nor streams in the URL of its `open` line, so \
         that nobody can ask for the same again",
        recording.name
    );
    Ok(lost)
}

/// What a venue said to who records it.
#[derive(Debug)]
pub(crate) struct Heard {
    /// The message.
    pub(crate) text: Bytes,
    /// The venue says so because a book changed that it held before.
    pub(crate) is_change: bool,
    /// It is to count as lost on its way.
    pub(crate) is_lost: bool,
}

/// An exchange in virtual time, with one connection.
pub(crate) trait Recordable {
    /// Whose words it speaks.
    fn dialect(&self) -> Dialect;

    /// What there is to ask for.
    fn wishes(&self) -> Wishes;

    /// Its first moment.
    fn start_ns(&self) -> u64;

    /// When something happens next; `None` = never again.
    fn next_ns(&self) -> Option<u64>;

    /// Lets that happen.
    fn step(&mut self);

    /// The recorder connects.
    fn connect(&mut self, wishes: &Wishes);

    /// The recorder says something.
    fn hear(&mut self, text: &str);

    /// The body of an image as it is now; `None` = it is not to be had yet.
    ///
    /// # Errors
    /// When there is no such image.
    fn image(&mut self, request: &ImageRequest) -> Result<Option<Bytes>>;

    /// What was said next; `None` = nothing more for now.
    ///
    /// # Errors
    /// When nobody can tell any more what a book was when it was said.
    fn next_heard(&mut self) -> Result<Option<Heard>>;

    /// The true book of a symbol as it was when that was last heard of; at least so many of its best levels
    /// of each side, if it has them.
    fn book(&self, symbol: &str, depth: usize) -> Option<Cow<'_, TruthBook>>;
}

/// What is known of a symbol so far.
#[derive(Debug, Default)]
struct Progress {
    /// The recorder holds its book.
    is_valid: bool,
    id: Option<u64>,
    book_updates: u64,
    trades: u64,
}

struct Recorder<'a, V, L, T> {
    venue: &'a mut V,
    writer: &'a mut Writer<L, T>,
    dialect: Dialect,
    subjects: Subjects,
    at_ns: u64,
    /// The time of the last line.
    line_ns: u64,
    symbols: BTreeMap<String, Progress>,
    /// The next expected books come after this line or soon after it.
    next_point: u64,
    /// The line of the last expected books.
    last_point: u64,
    /// Where lines may be lost.
    losses: Option<Losses>,
}

impl<'a, V: Recordable, L: Write, T: Write> Recorder<'a, V, L, T> {
    fn new(venue: &'a mut V, writer: &'a mut Writer<L, T>, may_lose: bool) -> Self {
        Self {
            dialect: venue.dialect(),
            subjects: Subjects::new(venue.dialect()),
            at_ns: venue.start_ns(),
            line_ns: venue.start_ns(),
            symbols: BTreeMap::new(),
            next_point: FIRST_POINT,
            last_point: 0,
            losses: may_lose.then(|| Losses::new(venue.dialect())),
            venue,
            writer,
        }
    }

    /// What the venue does at a moment comes before what the recorder does at it. A replay, which has
    /// both in its lines, is recorded at the same moments again because of that.
    fn run(mut self, length: Length) -> Result<Vec<LostLine>> {
        let wishes = self.venue.wishes();
        let start_ns = self.at_ns;
        let end_ns = start_ns.saturating_add(length.duration_ns);
        self.let_happen(start_ns)?;
        self.subscribe(&wishes)?;
        let due_ns = (1u64..).map(|place| start_ns.saturating_add(IMAGE_EVERY_NS * place));
        let mut images: Vec<_> = due_ns.zip(wishes.images).collect();
        while let Some(at_ns) = self.venue.next_ns()
            && at_ns <= end_ns
            && self.writer.written().messages < length.messages
        {
            self.at_ns = at_ns;
            self.let_happen(at_ns)?;
            self.fetch(&mut images)?;
            self.expect_books()?;
        }
        if self.last_point < self.writer.written().lines {
            self.next_point = 0;
            self.expect_books()?;
        }
        Ok(self.losses.map(Losses::into_rows).unwrap_or_default())
    }

    fn let_happen(&mut self, at_ns: u64) -> Result<()> {
        while self.venue.next_ns() == Some(at_ns) {
            self.venue.step();
            self.listen()?;
        }
        Ok(())
    }

    fn subscribe(&mut self, wishes: &Wishes) -> Result<()> {
        let url = format!("ws://{HOST}{}", wishes.target);
        self.line(Kind::Open, STREAM, &Bytes::from(url), false)?;
        self.venue.connect(wishes);
        self.listen()?;
        for request in &wishes.requests {
            self.line(Kind::Send, STREAM, &Bytes::from(request.clone()), false)?;
            self.venue.hear(request);
            self.listen()?;
        }
        Ok(())
    }

    fn line(&mut self, kind: Kind, stream: &str, payload: &Bytes, is_lost: bool) -> Result<u64> {
        self.line_ns = self.at_ns;
        let number = self.writer.line(self.at_ns, kind, stream, payload)?;
        if let Some(losses) = &mut self.losses {
            let (stream, payload) = (stream.to_owned(), payload.clone());
            losses.line(&Line { number, recv_ns: self.at_ns, kind, stream, payload }, is_lost);
        }
        Ok(number)
    }

    /// Writes down what was said.
    fn listen(&mut self) -> Result<()> {
        while let Some(heard) = self.venue.next_heard()? {
            let line = self.line(Kind::Recv, STREAM, &heard.text, heard.is_lost)?;
            let text = std::str::from_utf8(&heard.text)?;
            let subject = self.subjects.read(text);
            ensure!(
                !heard.is_change || matches!(subject, Some(Subject::Book { .. })),
                "the exchange changed a book and its own reader does not find that in {text}"
            );
            match subject {
                // An old one: it is in the image that the book was begun with.
                Some(Subject::Book { .. }) if self.dialect.fetches_images() && !heard.is_change => {
                }
                Some(Subject::Book { symbol, is_whole, number }) => {
                    self.book(line, symbol, is_whole, number)?;
                }
                Some(Subject::Trades { symbol, count }) => {
                    self.symbols.entry(symbol).or_default().trades += count;
                }
                None => {}
            }
        }
        Ok(())
    }

    /// A line brought a book or its change.
    fn book(
        &mut self,
        line: u64,
        symbol: String,
        is_whole: bool,
        number: Option<u64>,
    ) -> Result<()> {
        let Some(book) = self.venue.book(&symbol, TRUTH_LEVELS) else { return Ok(()) };
        let progress = self.symbols.entry(symbol.clone()).or_default();
        if self.dialect.fetches_images() && !progress.is_valid {
            // It will be in the image.
            return Ok(());
        }
        if self.dialect == Dialect::BinanceSpot && book.id() <= progress.id {
            // It is in the image. On futures what ends at the image's number is applied again.
            return Ok(());
        }
        progress.is_valid = true;
        progress.book_updates += u64::from(!is_whole);
        progress.id = match self.dialect {
            Dialect::Coinbase | Dialect::Kraken | Dialect::KrakenV1 => None,
            // These number what a connection is sent, and nothing else.
            Dialect::CoinbaseAdvanced | Dialect::Bitfinex => number,
            _ => book.id(),
        };
        self.writer.state(&StateRow::of(line, &symbol, progress.id, &book))
    }

    /// Fetches the images that are due.
    fn fetch(&mut self, images: &mut Vec<(u64, ImageRequest)>) -> Result<()> {
        let mut later = Vec::new();
        for (due_ns, request) in images.drain(..) {
            let body = if due_ns <= self.at_ns { self.venue.image(&request)? } else { None };
            let Some(body) = body else {
                later.push((due_ns, request));
                continue;
            };
            let line = self.line(Kind::Rest, &request.target(), &body, false)?;
            let progress = self.symbols.entry(request.symbol.clone()).or_default();
            if let Some(book) = self.venue.book(&request.symbol, TRUTH_LEVELS) {
                (progress.is_valid, progress.id) = (true, book.id());
                self.writer.state(&StateRow::of(line, &request.symbol, book.id(), &book))?;
            }
        }
        *images = later;
        Ok(())
    }

    /// Writes the books down that a client is to hold by now, if it is time.
    fn expect_books(&mut self) -> Result<()> {
        let line = self.writer.written().lines;
        if line < self.next_point {
            return Ok(());
        }
        while self.next_point <= line {
            self.next_point = following_point(self.next_point);
        }
        self.last_point = line;
        for (symbol, progress) in self.symbols.iter().filter(|(_, progress)| progress.is_valid) {
            // How many levels it has is written down, too.
            let Some(book) = self.venue.book(symbol, usize::MAX) else { continue };
            let best = |side| {
                let texts = |level: TruthLevel| (level.px.into(), level.qty.into());
                best_levels(&book, side, TRUTH_LEVELS).into_iter().map(texts).collect()
            };
            self.writer.truth(&TruthPoint {
                after_message: line,
                recv_ns: self.line_ns.to_string(),
                venue: self.dialect.in_recordings().to_owned(),
                symbol: symbol.clone(),
                bids: best(Side::Bid),
                asks: best(Side::Ask),
                id: progress.id.map_or(Value::Null, Value::from),
                bid_levels: book.depth(Side::Bid),
                ask_levels: book.depth(Side::Ask),
                book_updates: progress.book_updates,
                trades: progress.trades,
                trusted: true,
            })?;
        }
        Ok(())
    }
}

/// Two in each doubling, so that a recording of whatever length has some twenty: 64, 96, 128, 192 …
const fn following_point(point: u64) -> u64 {
    if point < FIRST_POINT {
        FIRST_POINT
    } else if point.is_power_of_two() {
        point / 2 * 3
    } else {
        point / 3 * 4
    }
}
