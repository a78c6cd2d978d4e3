//! What a subscriber holds → where in the recording that was true.
//!
//! Called by a view after each update. A follower goes through the true states of one symbol in one
//! direction: what it is shown must be one of them, and none before the one it was shown last.

use std::collections::HashMap;

use feed_sim::truth::{TruthLevel, level_hash};
use tickfan_core::market::Side;

use super::expected::{Expected, Row, Symbol};
use super::frame::TradeText;
use super::mirror::{Mirror, Top, place};
use super::number::{exact, shortest};
use super::report::{Broken, hold};

/// How deep a book is subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// The best level: held against the best prices of a state.
    One,
    /// Twenty levels: held against the checksum of a state.
    Twenty,
    /// All: held against the digest of a state.
    Full,
}

impl Depth {
    /// Levels of a side at most.
    pub(crate) const fn levels(self) -> Option<usize> {
        match self {
            Self::One => Some(1),
            Self::Twenty => Some(20),
            Self::Full => None,
        }
    }
}

/// A symbol and what is true of it.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// Everything.
    pub(crate) expected: &'a Expected,
    /// The symbol, as the venue spells it.
    pub(crate) name: &'a str,
    /// What is true of it.
    pub(crate) symbol: &'a Symbol,
}

/// Follows the book of one symbol.
#[derive(Debug)]
pub(crate) struct BookFollower {
    depth: Depth,
    /// The state that was shown last, or the first that may be.
    row: usize,
    missing: Missing,
}

/// Levels that a book is not known to have because the venue's image of it was cut above them, and
/// that no event has touched since.
#[derive(Debug, Clone, Default)]
struct Missing {
    hashes: HashMap<(bool, i128), u64>,
    /// Sum of them.
    digest: u64,
    /// The state up to which events were taken into account.
    row: usize,
}

impl Missing {
    fn add(&mut self, side: Side, at: i128, hash: u64) {
        self.hashes.insert((side == Side::Bid, at), hash);
        self.digest = self.digest.wrapping_add(hash);
    }

    /// An event tells the quantity of the levels that it touches.
    fn advance(&mut self, subject: Subject<'_>, row: usize) {
        while self.row < row && !self.hashes.is_empty() {
            self.row += 1;
            for (side, at) in subject.expected.changes(subject.symbol.rows[self.row].line) {
                let known = self.hashes.remove(&(side == Side::Bid, at)).unwrap_or(0);
                self.digest = self.digest.wrapping_sub(known);
            }
        }
        self.row = row;
    }
}

impl BookFollower {
    /// Before the first state.
    pub(crate) fn new(depth: Depth) -> Self {
        Self { depth, row: 0, missing: Missing::default() }
    }

    /// The states that may be shown now with this sequence.
    fn candidates(&self, symbol: &Symbol, q: Option<u64>) -> std::ops::Range<usize> {
        let Some(q) = q else { return self.row..symbol.rows.len() };
        let from = symbol.rows.partition_point(|row| row.id < Some(q));
        let to = symbol.rows.partition_point(|row| row.id <= Some(q));
        from.max(self.row)..to
    }

    /// The book that is held must be the next, or a later, true state.
    pub(crate) fn follow(
        &mut self,
        subject: Subject<'_>,
        mirror: &Mirror,
        q: Option<u64>,
    ) -> Result<(), Broken> {
        let shown = Shown::of(self.depth, mirror);
        for index in self.candidates(subject.symbol, q) {
            let row = &subject.symbol.rows[index];
            self.missing.advance(subject, index);
            if shown.is(row, self.missing.digest) {
                self.row = index;
                return Ok(());
            }
        }
        Err(self.difference(subject, mirror, q))
    }

    fn difference(&self, subject: Subject<'_>, mirror: &Mirror, q: Option<u64>) -> Broken {
        let rule = "a book that is delivered was a true state, and states come in order";
        let rows = &subject.symbol.rows;
        let candidates = self.candidates(subject.symbol, q);
        let nearest = match q {
            Some(_) => rows.get(candidates.end.saturating_sub(1)),
            None => rows.get(self.row),
        };
        let Some(row) = nearest else {
            return Broken::new(rule, "no state at all", mirror.top());
        };
        let last = format!("line {}", rows[self.row].line);
        let (expected, got) = if q.is_none() {
            (format!("a state from {last} on"), mirror.text_top20())
        } else if candidates.is_empty() {
            (format!("a sequence of the book, none before that of {last}"), format!("q {q:?}"))
        } else {
            let differing = differing(subject, row.line, mirror, self.depth);
            (format!("at q {q:?}: {}; {differing}", row.top), mirror.text_top20())
        };
        Broken::new(rule, expected, got).at(row.line)
    }

    /// An image that repairs a loss need not be a state to the last level: the venue cuts its images.
    /// Every level that it has must be true, and within what it says to be complete none may be
    /// missing; from here on, the book must be exactly this image and the events since.
    pub(crate) fn accept_cut(
        &mut self,
        subject: Subject<'_>,
        mirror: &Mirror,
        q: Option<u64>,
        trusted: (usize, usize),
    ) -> Result<(), Broken> {
        let index = self.candidates(subject.symbol, q).next_back();
        let row = index.map(|index| (index, subject.symbol.rows[index].line));
        let book = row.and_then(|(_, line)| subject.expected.book_after(subject.name, line));
        let (Some((index, line)), Some(book)) = (row, book) else {
            return Err(self.difference(subject, mirror, q));
        };
        let mut missing = Missing { row: index, ..Missing::default() };
        let mut found = 0;
        for (side, complete) in [(Side::Bid, trusted.0), (Side::Ask, trusted.1)] {
            let last = mirror.nth(side, complete);
            for level in book.levels(side) {
                let Some((at, px, qty)) = read(side, level) else { continue };
                match mirror.qty(side, at) {
                    Some(held) => {
                        let rule = "every level of an image is true";
                        hold(held == qty, rule, format!("{px}:{qty}"), held)
                            .map_err(at_line(line))?;
                        found += 1;
                    }
                    None => {
                        let rule = "an image is complete as far as it says";
                        let is_beyond = last.is_some_and(|last| at > last);
                        hold(is_beyond, rule, format!("{side:?} {px}:{qty}"), "no such level")
                            .map_err(at_line(line))?;
                        missing.add(side, at, level_hash(side, &px, &qty));
                    }
                }
            }
        }
        let rule = "every level of an image is true";
        hold(found == mirror.len(), rule, format!("{found} levels"), mirror.len())
            .map_err(at_line(line))?;
        self.row = index;
        self.missing = missing;
        Ok(())
    }

    /// The book that is held is the last one of the recording.
    pub(crate) fn is_last(&self, subject: Subject<'_>, mirror: &Mirror) -> bool {
        let Some(row) = subject.symbol.rows.last() else { return true };
        let mut missing = self.missing.clone();
        missing.advance(subject, subject.symbol.rows.len() - 1);
        Shown::of(self.depth, mirror).is(row, missing.digest)
    }

    /// The line of the state that was shown last.
    pub(crate) fn line(&self, symbol: &Symbol) -> u64 {
        symbol.rows.get(self.row).map_or(0, |row| row.line)
    }
}

fn at_line(line: u64) -> impl Fn(Broken) -> Broken {
    move |broken| broken.at(line)
}

fn read(side: Side, level: &TruthLevel) -> Option<(i128, String, String)> {
    let (px, qty) = (shortest(&level.px)?, shortest(&level.qty)?);
    Some((place(side, exact(&px)?), px, qty))
}

/// What of a book is compared.
enum Shown {
    Top(Top),
    Crc(u32),
    Digest(u64),
}

impl Shown {
    fn of(depth: Depth, mirror: &Mirror) -> Self {
        match depth {
            Depth::One => Self::Top(mirror.top()),
            Depth::Twenty => Self::Crc(crc32fast::hash(mirror.text_top20().as_bytes())),
            Depth::Full => Self::Digest(mirror.digest()),
        }
    }

    fn is(&self, row: &Row, missing: u64) -> bool {
        match self {
            Self::Top(top) => *top == row.top,
            Self::Crc(crc) => *crc == row.crc_top20,
            Self::Digest(digest) => *digest == row.digest.wrapping_sub(missing),
        }
    }
}

/// The first level in which a book differs from the truth after a line.
fn differing(subject: Subject<'_>, line: u64, mirror: &Mirror, depth: Depth) -> String {
    let Some(book) = subject.expected.book_after(subject.name, line) else { return String::new() };
    let count = depth.levels().unwrap_or(usize::MAX);
    for side in [Side::Bid, Side::Ask] {
        let levels = book.levels(side).take(count).filter_map(|level| read(side, level));
        for (index, (at, px, qty)) in levels.enumerate() {
            let held = mirror.nth(side, index + 1).zip(mirror.qty(side, at));
            if held != Some((at, &qty)) {
                let held = mirror.qty(side, at).unwrap_or("nothing");
                return format!("{side:?} {} is {px}:{qty}, held is {held}", index + 1);
            }
        }
    }
    "there is a level too many".to_owned()
}

/// Follows the best bid and offer of one symbol.
#[derive(Debug, Default)]
pub(crate) struct QuoteFollower {
    row: usize,
    top: Option<Top>,
}

impl QuoteFollower {
    /// The best bid and offer is told.
    pub(crate) fn follow(
        &mut self,
        symbol: &Symbol,
        top: Top,
        q: Option<u64>,
    ) -> Result<(), Broken> {
        match q {
            Some(q) if !symbol.quotes.is_empty() => by_number(symbol, &top, q)?,
            _ => self.in_order(symbol, &top, q)?,
        }
        self.top = Some(top);
        Ok(())
    }

    /// What is held although nobody can say whether it is true.
    pub(crate) fn hold(&mut self, top: Top) {
        self.top = Some(top);
    }

    fn in_order(&mut self, symbol: &Symbol, top: &Top, q: Option<u64>) -> Result<(), Broken> {
        let is_told = |row: &Row| row.top == *top && (q.is_none() || row.id == q);
        let found = symbol.rows[self.row..].iter().position(is_told);
        let Some(found) = found else {
            let line = symbol.rows[self.row].line;
            let rule = "a bbo is the best of a true state at its q, and states come in order";
            return Err(Broken::new(rule, format!("a best from line {line} on"), top).at(line));
        };
        self.row += found;
        Ok(())
    }

    /// The line of the state whose best was told last; where the venue tells its own best, it is none.
    pub(crate) fn line(&self, symbol: &Symbol) -> u64 {
        symbol.rows.get(self.row).map_or(0, |row| row.line)
    }

    /// What is held is the last of the recording.
    pub(crate) fn is_last(&self, symbol: &Symbol) -> bool {
        let Some(top) = &self.top else { return false };
        match (symbol.quotes.last(), symbol.rows.last()) {
            (Some(last), _) => at_number(symbol, last.id).any(|quote| quote.top == *top),
            (None, Some(row)) => row.top == *top,
            (None, None) => true,
        }
    }

    /// What is held.
    pub(crate) fn text(&self) -> String {
        self.top.as_ref().map_or_else(|| "nothing".to_owned(), Top::to_string)
    }
}

fn at_number(symbol: &Symbol, q: u64) -> impl Iterator<Item = &super::expected::QuoteRow> {
    let from = symbol.quotes.partition_point(|quote| quote.id < q);
    symbol.quotes[from..].iter().take_while(move |quote| quote.id == q)
}

fn by_number(symbol: &Symbol, top: &Top, q: u64) -> Result<(), Broken> {
    if at_number(symbol, q).any(|quote| quote.top == *top) {
        return Ok(());
    }
    let rule = "a bbo is what the venue said at its q: its own, or the best of its book";
    Err(match at_number(symbol, q).next() {
        Some(quote) => Broken::new(rule, &quote.top, top).at(quote.line),
        None => Broken::new(rule, "a sequence of the venue", format!("q {q}, {top}")),
    })
}

/// Follows the trades of one symbol.
#[derive(Debug, Default)]
pub(crate) struct TradeFollower {
    next: usize,
}

impl TradeFollower {
    /// These trades are told.
    pub(crate) fn follow(
        &mut self,
        symbol: &Symbol,
        trades: &[TradeText<'_>],
    ) -> Result<(), Broken> {
        let rule = "every trade comes once, in order";
        for trade in trades {
            let Some(expected) = symbol.trades.get(self.next) else {
                return Err(Broken::new(rule, "no further trade", format!("{trade:?}")));
            };
            let (te, px, qty, side, id) = trade;
            let is_same = *te == expected.te
                && *px == expected.px
                && *qty == expected.qty
                && *side == expected.side
                && *id == expected.id;
            if !is_same {
                let broken = Broken::new(rule, format!("{expected:?}"), format!("{trade:?}"));
                return Err(broken.at(expected.line));
            }
            self.next += 1;
        }
        Ok(())
    }

    /// So many were lost.
    pub(crate) fn lose(&mut self, symbol: &Symbol, count: u64) -> Result<(), Broken> {
        let left = symbol.trades.len() - self.next;
        let lost = usize::try_from(count).unwrap_or(usize::MAX);
        hold(lost <= left, "received and lost are what was produced", left, count)?;
        self.next += lost;
        Ok(())
    }

    /// All were told or are known to be lost.
    pub(crate) fn is_last(&self, symbol: &Symbol) -> bool {
        self.next == symbol.trades.len()
    }

    /// How many were told or lost.
    pub(crate) const fn count(&self) -> usize {
        self.next
    }
}
