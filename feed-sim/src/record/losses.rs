//! Lines of which some are lost on their way → the line at which a client can first know of each: the
//! rows of `faults.json`.
//!
//! Fed by the recorder with every line, in order. It reads words as the oracle does and asks no exchange,
//! so that it finds in a real venue's recording what others found there. Each loss is looked at as if it
//! were the only one.

use crate::recording::{Kind, Line, LostLine};
use crate::truth::{Truth, TruthBook};
use crate::venue::{BookMessage, Dialect, Reader, binance, kraken, okx};

/// What proves a loss.
#[derive(Debug)]
enum Proof {
    /// The next message with a number of the connection, whatever it is about.
    Numbered,
    /// The next change of the book: it does not follow what is held.
    Change,
    /// A checksum that is not that of the book which is held without the line.
    Checksum(Box<TruthBook>),
}

/// A loss that nothing has proved yet.
#[derive(Debug)]
struct Open {
    /// Its place among the rows.
    row: usize,
    symbol: String,
    proof: Proof,
}

/// What a line has to do with a loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bearing {
    Nothing,
    /// Who lacks the lost line knows it now.
    Proves,
    /// Who lacks the lost line holds the true book again, and will never know.
    MakesGood,
}

/// See the top of this file.
#[derive(Debug)]
pub struct Losses {
    dialect: Dialect,
    truth: Truth,
    reader: Box<dyn Reader>,
    open: Vec<Open>,
    rows: Vec<LostLine>,
}

impl Losses {
    /// Nothing is lost yet.
    pub fn new(dialect: Dialect) -> Self {
        let (truth, reader) = (Truth::new(dialect), dialect.reader());
        Self { dialect, truth, reader, open: Vec::new(), rows: Vec::new() }
    }

    /// A row for each line that was lost, in order; the name of the recording is the caller's to add.
    pub fn into_rows(self) -> Vec<LostLine> {
        self.rows
    }

    /// The next line, and whether it is lost.
    pub fn line(&mut self, line: &Line, is_lost: bool) {
        let recorded = if line.kind == Kind::Recv { self.reader.read(line.text()) } else { None };
        let message = recorded.as_ref().and_then(|recorded| recorded.book.as_ref());
        let named = recorded.as_ref().and_then(|recorded| recorded.symbol.as_deref());
        let symbol = match binance::DepthEvent::read(line.text()) {
            Some(event) if self.dialect.fetches_images() => Some(event.symbol),
            _ => named,
        };
        let before = symbol.filter(|_| is_lost).and_then(|symbol| self.truth.book(symbol)).cloned();
        let changed = self.truth.apply_line(line).map(|changed| changed.symbol);
        let (dialect, truth, rows) = (self.dialect, &self.truth, &mut self.rows);
        self.open.retain_mut(|open| {
            let is_its = changed.as_deref() == Some(open.symbol.as_str());
            let bearing = match &mut open.proof {
                Proof::Numbered if is_numbered(dialect, line) => Bearing::Proves,
                Proof::Numbered => Bearing::Nothing,
                _ if !is_its => Bearing::Nothing,
                _ if line.kind == Kind::Rest || message.is_some_and(|book| book.is_snapshot) => {
                    Bearing::MakesGood
                }
                Proof::Change => Bearing::Proves,
                Proof::Checksum(held) => match (message, truth.book(&open.symbol)) {
                    (Some(message), Some(truth)) => compare(dialect, held, message, truth),
                    _ => Bearing::Nothing,
                },
            };
            if bearing == Bearing::Proves {
                let how =
                    if matches!(open.proof, Proof::Checksum(_)) { "checksum_bad" } else { "gap" };
                let row = &mut rows[open.row];
                (row.first_detectable_at_line, row.how) = (Some(line.number), Some(how.to_owned()));
            }
            bearing == Bearing::Nothing
        });
        let (true, Some(symbol)) = (is_lost, symbol) else { return };
        // What changes nothing, or was in the image already, is no loss that anybody could notice.
        let was_held = before.as_ref().and_then(TruthBook::id);
        let is_missed = changed.is_some()
            && was_held.is_none_or(|id| truth.book(symbol).and_then(TruthBook::id) != Some(id));
        if let (true, Some(held)) = (is_missed, before)
            && let Some(proof) = proof(dialect, held, line)
        {
            self.open.push(Open { row: rows.len(), symbol: symbol.to_owned(), proof });
        }
        rows.push(LostLine {
            recording: String::new(),
            drop_line: line.number,
            symbol: symbol.to_owned(),
            first_detectable_at_line: None,
            how: None,
        });
    }
}

/// What will prove that a line is missing from what was held before it; `None` = nothing can.
fn proof(dialect: Dialect, held: TruthBook, line: &Line) -> Option<Proof> {
    match dialect {
        Dialect::CoinbaseAdvanced | Dialect::Bitfinex => Some(Proof::Numbered),
        Dialect::Coinbase => None,
        Dialect::Kraken | Dialect::KrakenV1 => Some(Proof::Checksum(Box::new(held))),
        // It did not number its books in 2022.
        Dialect::Okx if !line.text().contains("prevSeqId") => Some(Proof::Checksum(Box::new(held))),
        Dialect::BinanceSpot
        | Dialect::BinanceUsdm
        | Dialect::BinanceCoinm
        | Dialect::Okx
        | Dialect::BybitSpot
        | Dialect::BybitLinear
        | Dialect::Deribit => Some(Proof::Change),
    }
}

/// The line has a number of its connection.
fn is_numbered(dialect: Dialect, line: &Line) -> bool {
    // Bitfinex numbers what a channel says, and not what it says of channels.
    line.kind == Kind::Recv && (dialect != Dialect::Bitfinex || line.text().starts_with('['))
}

/// A change comes to a book that lacks a line, and makes the true one of what was true.
fn compare(
    dialect: Dialect,
    held: &mut TruthBook,
    change: &BookMessage<'_>,
    truth: &TruthBook,
) -> Bearing {
    held.change(change);
    let checksum = |book| match dialect {
        Dialect::Okx => okx::checksum(book).cast_unsigned(),
        _ => kraken::checksum(book),
    };
    if checksum(held) != checksum(truth) {
        Bearing::Proves
    } else if held.digest() == truth.digest() {
        Bearing::MakesGood
    } else {
        Bearing::Nothing
    }
}
