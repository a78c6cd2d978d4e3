//! What an exchange can be told to do: what venues do at their worst, and what is planned.
//!
//! Called by whoever tests a client. Nothing of it happens of itself, so an exchange that is told
//! nothing says what its options alone make it say.

use tickfan_core::market::Side;

use super::instrument::Instrument;
use super::symbol::Symbol;
use super::time::Scale;
use super::{About, Exchange, ExchangeOptions, Planned, Status, words};
use crate::market::Happened;
use crate::venue::{Dialect, Levels, best_levels, bybit};

/// What the next change of a book says that it hashes to, when not the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Something else.
    Wrong,
    /// Zero.
    Zero,
}

impl Exchange {
    /// From now on the market has this mean time between two events of the busiest symbol. Timers go on
    /// as before.
    pub fn set_pace(&mut self, pace_ns: u64) {
        let now_ns = self.timers_now_ns();
        // What is due by now and did not happen yet is about to.
        let soon_ns = self.market.next_ns().saturating_sub(1);
        self.to_timers = Scale {
            from_ns: self.to_timers.unmap(now_ns).min(soon_ns),
            to_ns: now_ns,
            times: pace_ns.max(1),
            of: self.options.pace_ns.max(1),
        };
    }

    /// From now on orders come so many times as fast as the options say.
    pub fn hurry(&mut self, times: u64) {
        self.set_pace(self.options.pace_ns / times.max(1));
    }

    /// The next change of a book takes a level away, too, that there was not.
    pub fn tell_absent(&mut self, symbol: usize) {
        self.streams[symbol].tells_absent = true;
    }

    /// The exchange stands still until then, and has missed nothing.
    pub fn sleep_until(&mut self, at_ns: u64) {
        if at_ns > self.now_ns {
            self.to_here = Scale { from_ns: self.timers_now_ns(), to_ns: at_ns, ..self.to_here };
            self.now_ns = at_ns;
        }
    }

    fn timers_now_ns(&self) -> u64 {
        self.timers_ns.max(self.to_here.unmap(self.now_ns))
    }

    /// Something will happen to a symbol at a time.
    pub fn plan(&mut self, at_ns: u64, symbol: usize, planned: Planned) {
        let market_ns = self.to_timers.unmap(self.to_here.unmap(at_ns));
        self.market.plan(market_ns, symbol, planned);
    }

    /// The stamps of the venue jump by so many milliseconds, and go on from there.
    pub const fn step_clock(&mut self, step_ms: i64) {
        let step_ns = step_ms.saturating_mul(1_000_000);
        self.clock_step_ns = self.clock_step_ns.saturating_add(step_ns);
    }

    /// The next change of a book is told with a checksum that is a lie. False where changes have none.
    pub fn lie(&mut self, symbol: usize, lie: Lie) -> bool {
        let has_checksum = super::manner::checksum_levels(self.options.dialect) > 0;
        if has_checksum {
            self.symbols[symbol].lie = Some(lie);
        }
        has_checksum
    }

    /// The best bid is better than the best offer, until [`Exchange::uncross`].
    pub fn cross(&mut self, symbol: usize) {
        let mut happened = Happened::default();
        self.market.cross(symbol, &mut happened);
        self.follow(&happened);
    }

    /// Takes the bids away that cross.
    pub fn uncross(&mut self, symbol: usize) {
        let mut happened = Happened::default();
        while self.market.uncross(symbol, &mut happened) {
            self.follow(&happened);
        }
    }

    /// The venue's numbers of a book begin anew, as after a restart. False where the venue has no such
    /// thing.
    pub fn restart_numbers(&mut self, symbol: usize) -> bool {
        match self.options.dialect {
            // The next change has a smaller number than the one that it follows.
            Dialect::Okx => {
                self.symbols[symbol].id /= 2;
                let mut happened = Happened::default();
                self.market.nudge(symbol, &mut happened);
                self.follow(&happened);
                true
            }
            // A whole book, whose number is 1.
            Dialect::BybitSpot | Dialect::BybitLinear => {
                self.tell_anew(symbol);
                true
            }
            _ => false,
        }
    }

    fn tell_anew(&mut self, index: usize) {
        let at_ns = self.stamp_ns();
        let symbol = &mut self.symbols[index];
        symbol.id = 0;
        if symbol.take_changes(&mut self.market, index).is_empty() {
            symbol.id = 1;
            symbol.order += 1;
            self.market.mark(index, 1);
        }
        symbol.told();
        let (book, version) = (symbol.book(&self.market, index), symbol.version);
        let depth = Self::depth(self.options.dialect).unwrap_or(0);
        let [bids, asks] = [Side::Bid, Side::Ask].map(|side| best_levels(&book, side, depth));
        let levels = Levels { symbol: &symbol.name, bids: &bids, asks: &asks, at_ns };
        let text = bybit::snapshot(depth, &levels, symbol.id, symbol.order);
        let about = About::Book { symbol: index, version };
        self.say(index, |streams| Some(&mut streams.book), text, about);
    }

    /// The venue says that nothing changed. False where it does not.
    pub fn keep_alive(&mut self, symbol: usize) -> bool {
        if self.options.dialect != Dialect::Okx {
            return false;
        }
        let at_ns = self.stamp_ns();
        let texts = self.symbols[symbol].update(symbol, &self.market, &[], at_ns);
        let version = self.symbols[symbol].version;
        for text in texts {
            let about = About::Book { symbol, version };
            self.say(symbol, |streams| Some(&mut streams.book), text, about);
        }
        true
    }

    /// Tells every connection that it will be closed. False where the venue has no words for that.
    pub fn announce_close(&mut self) -> bool {
        let text = words::close_notice(self.options.dialect, self.now_ns);
        self.announce(text.as_deref())
    }

    /// Tells every connection that maintenance begins or ends. False where the venue has no words for
    /// that.
    pub fn announce_maintenance(&mut self, begins: bool) -> bool {
        let text = words::maintenance_notice(self.options.dialect, begins);
        self.announce(text.as_deref())
    }

    pub(super) fn announce(&mut self, text: Option<&str>) -> bool {
        let Some(text) = text else { return false };
        for connection in self.connections.keys().copied().collect::<Vec<_>>() {
            self.tell(connection, About::Nothing, text.to_owned());
        }
        true
    }

    /// From now on prices have one digit more, those of before too. False where they have too many.
    pub fn refine_tick(&mut self, symbol: usize) -> bool {
        let is_finer = self.market.obey(symbol, Planned::RefineTick);
        if is_finer {
            self.symbols[symbol].refine(10);
        }
        is_finer
    }

    /// A symbol is listed that there was not, and trades; returns its place.
    pub fn list_new(&mut self) -> usize {
        let ExchangeOptions { dialect, seed, .. } = self.options;
        let place = self.symbols.len();
        let instrument = Instrument::at(dialect, seed, place);
        self.market.list(instrument.start_ticks);
        let symbol = Symbol::new(place, instrument, &self.options, &mut self.market);
        self.by_name.insert(symbol.name.clone(), place);
        self.symbols.push(symbol);
        let streams = self.list(place);
        self.streams.push(streams);
        place
    }

    /// The names that [`Exchange::list_new`] will give, in order.
    pub fn names_to_list(&self) -> impl Iterator<Item = String> {
        let ExchangeOptions { dialect, seed, .. } = self.options;
        (self.symbols.len()..).map(move |place| Instrument::at(dialect, seed, place).name)
    }

    /// Whether a symbol trades, from now on.
    pub fn set_status(&mut self, symbol: usize, status: Status) {
        self.market.obey(symbol, Planned::Status(status));
    }

    /// Orders come all at once.
    pub fn burst(&mut self, symbol: usize) {
        self.market.obey(symbol, Planned::Burst);
    }
}
