//! A seed → orders that match, in virtual time: trades and changes of levels, in whole ticks and lots.
//!
//! Called by the synthetic exchange, which puts into words what happens here. It is pure: no socket, no
//! clock, no venue. Each symbol has its own random numbers, so that what one does depends on no other;
//! how many symbols there are and who looks changes nothing of it.

mod agenda;
mod book;
mod history;
mod profile;
mod symbol;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

pub use history::{Levels, set_level};
pub use profile::{Preset, Profile};

use symbol::{Making, Symbol};

/// What market there is.
#[derive(Debug, Clone, Copy)]
pub struct MarketOptions {
    /// Same seed, same market.
    pub seed: u64,
    /// When it begins.
    pub start_ns: u64,
    /// Mean time between two events of the busiest symbol. The second has half as many events, the third
    /// a third, and so on.
    pub pace_ns: u64,
    /// Its habits.
    pub profile: Profile,
    /// How orders arrive.
    pub preset: Preset,
}

/// Whether a symbol trades.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It does.
    Open,
    /// It does not for now.
    Halted,
    /// It is not listed: not any more, or not yet.
    Ended,
}

/// What happens to a symbol at a time that is known before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planned {
    /// It opens, halts, is listed or delisted.
    Status(Status),
    /// Its prices have one digit more, those of before too.
    RefineTick,
    /// Orders come all at once.
    Burst,
}

/// A trade: an incoming order took one that rested, or a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trade {
    /// The price.
    pub ticks: i64,
    /// The quantity.
    pub lots: i64,
    /// A buyer crossed the spread.
    pub buyer_took: bool,
}

/// A level is another than it was. One event may change a level more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// On which side.
    pub is_bid: bool,
    /// The price.
    pub ticks: i64,
    /// What rested there before; 0 = nothing.
    pub was: i64,
}

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Happened {
    /// When.
    pub at_ns: u64,
    /// At which symbol.
    pub symbol: usize,
    /// Its trades, in order.
    pub trades: Vec<Trade>,
    /// Its changes, in order.
    pub changes: Vec<Change>,
    /// How long the orders had rested that are gone now.
    pub lives_ns: Vec<u64>,
    /// It was planned.
    pub planned: Option<Planned>,
}

impl Happened {
    fn begin(&mut self, symbol: usize, at_ns: u64) {
        (self.symbol, self.at_ns, self.planned) = (symbol, at_ns, None);
        self.trades.clear();
        self.changes.clear();
        self.lives_ns.clear();
    }
}

/// See the top of this file.
#[derive(Debug)]
pub struct Market {
    options: MarketOptions,
    symbols: Vec<Symbol>,
    /// The next event of each symbol, and some that are none any more.
    due: BinaryHeap<Reverse<(u64, usize)>>,
    /// By time and by when it was planned.
    plan: BTreeMap<(u64, u64), (usize, Planned)>,
    planned: u64,
    now_ns: u64,
}

impl Market {
    /// A market at its start, of symbols whose prices begin at these ticks.
    pub fn new(options: MarketOptions, starts_ticks: &[i64]) -> Self {
        let MarketOptions { seed, start_ns, pace_ns, profile, preset } = options;
        let symbols = starts_ticks.len();
        let making = |(index, start_ticks): (usize, &i64)| {
            let start_ticks = (*start_ticks).max(1);
            let making =
                Making { seed, index, symbols, start_ns, pace_ns, profile, preset, start_ticks };
            Symbol::new(&making)
        };
        let symbols: Vec<Symbol> = starts_ticks.iter().enumerate().map(making).collect();
        let due = symbols.iter().enumerate().map(|(i, symbol)| Reverse((symbol.next_ns(), i)));
        Self {
            options,
            due: due.collect(),
            symbols,
            plan: BTreeMap::new(),
            planned: 0,
            now_ns: start_ns,
        }
    }

    /// A symbol is listed that there was not, whose price begins at these ticks, and it opens.
    pub fn list(&mut self, start_ticks: i64) {
        let MarketOptions { seed, pace_ns, profile, preset, .. } = self.options;
        let (index, start_ns, start_ticks) = (self.symbols.len(), self.now_ns, start_ticks.max(1));
        let symbols = index + 1;
        let making =
            Making { seed, index, symbols, start_ns, pace_ns, profile, preset, start_ticks };
        let mut symbol = Symbol::new(&making);
        symbol.status = Status::Ended;
        symbol.set_status(Status::Open, start_ns);
        self.due.push(Reverse((symbol.next_ns(), index)));
        self.symbols.push(symbol);
    }

    /// When the next event is.
    pub fn next_ns(&self) -> u64 {
        let due_ns = self.due.peek().map_or(u64::MAX, |Reverse((at_ns, _))| *at_ns);
        let plan_ns = self.plan.first_key_value().map_or(u64::MAX, |((at_ns, _), _)| *at_ns);
        due_ns.min(plan_ns)
    }

    /// Goes on to the next event, which may change nothing.
    pub fn step(&mut self, happened: &mut Happened) {
        self.now_ns = self.next_ns();
        if let Some(entry) = self.plan.first_entry()
            && entry.key().0 == self.now_ns
        {
            let (index, planned) = entry.remove();
            happened.begin(index, self.now_ns);
            happened.planned = self.obey(index, planned).then_some(planned);
            return;
        }
        let Some(mut due) = self.due.peek_mut() else { return };
        let Reverse((due_ns, index)) = &mut *due;
        happened.begin(*index, self.now_ns);
        self.symbols[*index].step(happened);
        *due_ns = self.symbols[*index].next_ns();
    }

    /// Something will happen to a symbol.
    pub fn plan(&mut self, at_ns: u64, symbol: usize, planned: Planned) {
        self.planned += 1;
        self.plan.insert((at_ns.max(self.now_ns), self.planned), (symbol, planned));
    }

    /// Something happens to a symbol now; false where it cannot any more.
    pub fn obey(&mut self, symbol: usize, planned: Planned) -> bool {
        let now_ns = self.now_ns;
        match planned {
            Planned::Status(status) => self.symbols[symbol].set_status(status, now_ns),
            Planned::RefineTick => return self.symbols[symbol].refine(10),
            Planned::Burst => {
                self.symbols[symbol].burst(now_ns);
                self.due.retain(|Reverse((_, index))| *index != symbol);
                self.due.push(Reverse((self.symbols[symbol].next_ns(), symbol)));
            }
        }
        true
    }

    /// Whether a symbol trades.
    pub fn status(&self, symbol: usize) -> Status {
        self.symbols[symbol].status
    }

    /// Price and quantity of the best level of a side.
    pub fn best(&self, symbol: usize, is_bid: bool) -> Option<(i64, i64)> {
        self.symbols[symbol].book.best(is_bid)
    }

    /// What rests at a price.
    pub fn lots(&self, symbol: usize, is_bid: bool, ticks: i64) -> i64 {
        self.symbols[symbol].book.lots(is_bid, ticks)
    }

    /// The price of the level at a place of a side, the best at 0.
    pub fn price_at(&self, symbol: usize, is_bid: bool, place: usize) -> Option<i64> {
        self.symbols[symbol].book.price_at(is_bid, place)
    }

    /// Prices and quantities of a side, best first.
    pub fn side(&self, symbol: usize, is_bid: bool) -> impl ExactSizeIterator<Item = (i64, i64)> {
        self.symbols[symbol].book.levels(is_bid)
    }

    /// The same of the levels that are worse than a price.
    pub fn side_below(
        &self,
        symbol: usize,
        is_bid: bool,
        ticks: i64,
    ) -> impl Iterator<Item = (i64, i64)> {
        self.symbols[symbol].book.levels_below(is_bid, ticks)
    }

    /// The book as it was when it was given a name, or without one as it is, if that is known: the last
    /// changes are, up to a bound.
    pub fn levels(&self, symbol: usize, name: Option<u64>) -> Option<Levels> {
        self.symbols[symbol].levels(name)
    }

    /// The book of a symbol as it is has this name from now on. A name that is less than the one before
    /// it begins a new list.
    pub fn mark(&mut self, symbol: usize, name: u64) {
        self.symbols[symbol].mark(name);
    }

    /// The best bid is better than the best offer, and nobody trades, until [`Market::uncross`].
    pub fn cross(&mut self, symbol: usize, happened: &mut Happened) {
        happened.begin(symbol, self.now_ns);
        self.symbols[symbol].cross(self.now_ns, happened);
    }

    /// Takes the best bid away if it crosses; whether it did. Once it does not, trading goes on.
    pub fn uncross(&mut self, symbol: usize, happened: &mut Happened) -> bool {
        happened.begin(symbol, self.now_ns);
        self.symbols[symbol].uncross(happened)
    }

    /// An order comes at the best bid.
    pub fn nudge(&mut self, symbol: usize, happened: &mut Happened) {
        happened.begin(symbol, self.now_ns);
        self.symbols[symbol].nudge(self.now_ns, happened);
    }
}
