//! What the books truly were, and what a client says of them → what is wrong with the client.
//!
//! Fed by the run with states before anybody is told of them, with lines as they come, and with the
//! beginning and the end of the trouble. Pure.

use std::collections::VecDeque;

use super::{LEVELS, Line};
use crate::fault::State;
use crate::truth::normalise;

/// States of a symbol that a client may still be at.
const STATES_MAX: usize = 200_000;

/// The best levels of both sides.
type Top = [Vec<[String; 2]>; 2];

/// One symbol.
#[derive(Debug, Default)]
struct Seen {
    /// From the one that the client was at last.
    states: VecDeque<State>,
    /// What the client holds and calls live.
    held: Option<Top>,
    /// What it called the book last.
    called: String,
    is_marked: bool,
    /// The state as of which it must be right again.
    due: Option<u64>,
    right_ns: Option<u64>,
    /// Counts the states.
    learnt: u64,
}

/// See the top of this file.
#[derive(Debug)]
pub struct Judge {
    names: Vec<String>,
    /// The venue numbers its books.
    has_ids: bool,
    symbols: Vec<Seen>,
    /// So many of them, the last, are listed later.
    later: usize,
    lines: u64,
    has_begun: bool,
    /// The first line that was not what it must be.
    broken: Option<String>,
    /// The first book that was called live and was none that there was.
    wrong: Option<String>,
}

impl Judge {
    /// Of a client that has said nothing; `has_ids` where the venue numbers its books.
    pub fn new(names: Vec<String>, has_ids: bool) -> Self {
        let symbols = names.iter().map(|_| Seen::default()).collect();
        Self {
            names,
            has_ids,
            symbols,
            later: 0,
            lines: 0,
            has_begun: false,
            broken: None,
            wrong: None,
        }
    }

    /// So many symbols, the last, are not there at the beginning.
    pub fn expect_later(&mut self, symbols: usize) {
        self.later = symbols.min(self.names.len());
    }

    /// A book has become this.
    pub fn learn(&mut self, state: State) {
        let seen = &mut self.symbols[state.symbol];
        if seen.states.len() == STATES_MAX {
            seen.states.pop_front();
        }
        seen.learnt += 1;
        seen.states.push_back(state);
    }

    /// The client says something.
    pub fn hear(&mut self, text: &str, now_ns: u64) {
        self.lines += 1;
        match serde_json::from_str::<Line>(text) {
            Ok(line) => match self.names.iter().position(|name| *name == line.symbol) {
                Some(symbol) => self.take(symbol, line, now_ns),
                None => self.is_broken(format!(
                    "{:?} is no symbol of the exchange, which has {}",
                    line.symbol,
                    self.names.join(", ")
                )),
            },
            Err(error) => self.is_broken(format!("{error}, in {}", cut(text))),
        }
    }

    fn is_broken(&mut self, what: String) {
        let number = self.lines;
        self.broken.get_or_insert_with(|| format!("line {number}: {what}"));
    }

    fn take(&mut self, symbol: usize, line: Line, now_ns: u64) {
        let seen = &mut self.symbols[symbol];
        line.state.clone_into(&mut seen.called);
        if line.state != "live" {
            seen.held = None;
            seen.is_marked |= self.has_begun;
            return;
        }
        let top: Top = [line.bids, line.asks].map(|levels| {
            let normal = |level: [String; 2]| level.map(|text| normalise(&text));
            levels.into_iter().take(LEVELS).map(normal).collect()
        });
        let id = line.id.filter(|_| self.has_ids);
        let is_it = |state: &State| state.top == top && id.is_none_or(|id| id == state.id);
        match seen.states.iter().position(is_it) {
            Some(place) => {
                seen.states.drain(..place);
            }
            None => {
                let number = self.lines;
                let newest = seen.states.back();
                self.wrong.get_or_insert_with(|| {
                    format!(
                        "line {number}: {} is called live with {:?} and {top:?}, and was not so \
                         since what was told before; the newest is {newest:?}",
                        line.symbol, line.id
                    )
                });
            }
        }
        seen.held = Some(top);
        seen.look(now_ns);
    }

    /// Every book that is there at the beginning is called live.
    pub fn is_live(&self) -> bool {
        let at_first = self.symbols.len() - self.later;
        self.symbols[..at_first].iter().all(|seen| seen.held.is_some())
    }

    /// The trouble begins: from now on it counts what the client notices.
    pub const fn begin(&mut self) {
        self.has_begun = true;
    }

    /// The trouble has ended.
    pub fn end(&mut self, now_ns: u64) {
        for seen in &mut self.symbols {
            seen.due = Some(seen.learnt.saturating_sub(1));
            seen.look(now_ns);
        }
    }

    /// When the last book became right again after the end; `None` before all are.
    pub fn right_ns(&self) -> Option<u64> {
        let all = self.symbols.iter().map(|seen| seen.right_ns);
        all.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// Every book is live and the newest there is.
    pub fn is_up_to_date(&self) -> bool {
        self.symbols.iter().all(|seen| {
            seen.held.is_some() && seen.states.back().map(|state| &state.top) == seen.held.as_ref()
        })
    }

    /// The client said since the beginning that this book is not live.
    pub fn is_marked(&self, symbol: usize) -> bool {
        self.symbols[symbol].is_marked
    }

    /// What the client called each book last.
    pub fn called(&self) -> String {
        let called = |(name, seen): (&String, &Seen)| match seen.called.as_str() {
            "" => format!("nothing said of {name}"),
            state => format!("{name} {state}"),
        };
        self.names.iter().zip(&self.symbols).map(called).collect::<Vec<_>>().join(", ")
    }

    /// Lines so far.
    pub const fn lines(&self) -> u64 {
        self.lines
    }

    /// The first line that was not what it must be, and why.
    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// The first book that was called live and was none that there was.
    pub fn wrong(&self) -> Option<&str> {
        self.wrong.as_deref()
    }
}

impl Seen {
    /// Notices when the book is right again.
    fn look(&mut self, now_ns: u64) {
        let (Some(due), Some(held), None) = (self.due, &self.held, self.right_ns) else { return };
        let first = self.learnt - self.states.len() as u64;
        let passed_over = due.saturating_sub(first) as usize;
        if self.states.iter().skip(passed_over).any(|state| state.top == *held) {
            self.right_ns = Some(now_ns);
        }
    }
}

/// So much of a text as is read.
fn cut(text: &str) -> String {
    text.chars().take(200).collect()
}
