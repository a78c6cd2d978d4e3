//! One symbol: its own random numbers → orders, what they do to its book, and when the next one comes.
//!
//! Owned by the market. Nothing here depends on another symbol: even the bursts that all have at the
//! same moments are drawn by each for itself, from the same seed.

use super::agenda::Agenda;
use super::book::{Book, OrderId};
use super::history::{History, Levels};
use super::profile::{Preset, Profile, life_ns, lots};
use super::{Change, Happened, Status, Trade};
use crate::random::Random;

/// How long something is put off that cannot happen while there is no market.
const PUT_OFF_NS: u64 = 1_000_000_000;
/// A burst lasts between these.
const BURST_NS: (u64, u64) = (5_000_000, 50_000_000);
/// How long it takes until the rush of an opening is half as large.
const RUSH_HALF_NS: u64 = 2_000_000_000;
/// How much faster than later orders come at an opening: two to this power.
const RUSH_BITS: u64 = 4;
/// What an order causes, it does so after one of these times in the mean.
const ECHOES_NS: [u64; 4] = [150_000, 900_000, 6_000_000, 80_000_000];
/// The same of what a trade causes.
const CHASES_NS: [u64; 4] = [40_000, 200_000, 1_000_000, 4_000_000];
/// The price is drawn back to where it began, by so many percent of the takers at most.
const DRAW_MAX: i64 = 20;
/// So many times as many ticks as at first a price has at most: eight digits more. Any price fits an i64
/// then, with room for what is reckoned with it, and has no more than the 18 digits that are written.
const FINENESS_MAX: i64 = 100_000_000;

/// What comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// An order that nothing caused.
    Order,
    /// One that another caused.
    Echo,
    /// One that a trade caused, or another of these.
    Chase,
    /// One of a burst.
    Rush,
    /// The end of an order.
    Withdrawal(OrderId),
    Burst,
}

/// See the top of this file.
#[derive(Debug)]
pub(super) struct Symbol {
    random: Random,
    /// The same for all symbols.
    bursts: Random,
    profile: Profile,
    /// Mean time between two orders that nothing caused.
    order_pace_ns: u64,
    /// The busiest has 1.
    rank: u64,
    levels: (usize, usize),
    start_ticks: i64,
    /// Sums up the times that the tick became finer.
    fineness: i64,
    pub(super) book: Book,
    history: History,
    due: Agenda<What>,
    /// The newest order of each side that may be moved.
    quotes: [Option<OrderId>; 2],
    pub(super) status: Status,
    is_crossed: bool,
    opened_ns: Option<u64>,
}

/// What a symbol is made of.
pub(super) struct Making {
    pub(super) seed: u64,
    pub(super) index: usize,
    pub(super) symbols: usize,
    pub(super) start_ns: u64,
    pub(super) pace_ns: u64,
    pub(super) profile: Profile,
    pub(super) preset: Preset,
    pub(super) start_ticks: i64,
}

impl Symbol {
    pub(super) fn new(making: &Making) -> Self {
        let Making { seed, index, symbols, start_ns, pace_ns, preset, start_ticks, .. } = *making;
        let profile = making.profile.under(preset);
        let rank = index as u64 + 1;
        // Who trades less has less on offer.
        let thinned = |levels: usize| (levels * 8 / (8 + index)).max(levels.min(30));
        let mut symbol = Self {
            random: Random::of(seed, rank),
            bursts: Random::of(seed, 0),
            profile,
            order_pace_ns: order_pace_ns(&profile, pace_ns.max(1).saturating_mul(rank)),
            rank,
            levels: (thinned(profile.levels.0), thinned(profile.levels.1)),
            start_ticks,
            fineness: 1,
            book: Book::default(),
            history: History::new(symbols),
            due: Agenda::new(start_ns),
            quotes: [None; 2],
            status: Status::Open,
            is_crossed: false,
            opened_ns: (preset == Preset::Open).then_some(start_ns),
        };
        let (mut bid, mut ask) = (start_ticks, start_ticks + 1);
        for _ in 0..symbol.levels.0.midpoint(symbol.levels.1) {
            for (is_bid, ticks) in [(true, bid), (false, ask)] {
                let lots = lots(&mut symbol.random);
                symbol.book.rest(is_bid, ticks, lots, start_ns);
            }
            bid = (bid - 1 - symbol.random.skewed(2) as i64).max(1);
            ask += 1 + symbol.random.skewed(2) as i64;
        }
        let first_ns = start_ns + symbol.random.exponential(symbol.order_pace_ns);
        symbol.due.push(first_ns, What::Order);
        symbol.await_burst(start_ns);
        symbol
    }

    /// When something happens next.
    pub(super) fn next_ns(&self) -> u64 {
        self.due.next_ns().unwrap_or(u64::MAX)
    }

    /// What is next happens.
    pub(super) fn step(&mut self, happened: &mut Happened) {
        let Some((now_ns, what)) = self.due.pop() else { return };
        if what == What::Order {
            let pause_ns = self.random.exponential(self.order_pace_ns);
            let next_ns = now_ns.saturating_add((pause_ns >> self.rush(now_ns)).max(1));
            self.due.push(next_ns, What::Order);
        }
        if self.status != Status::Open || self.is_crossed {
            match what {
                What::Withdrawal(_) => self.due.push(now_ns + PUT_OFF_NS, what),
                What::Burst => self.await_burst(now_ns),
                What::Order | What::Echo | What::Chase | What::Rush => {}
            }
            return;
        }
        match what {
            What::Withdrawal(id) => self.withdraw(id, now_ns, happened),
            What::Burst => {
                self.burst(now_ns);
                self.await_burst(now_ns);
            }
            What::Order | What::Echo | What::Chase | What::Rush => {
                self.act(what, now_ns, happened);
                let Profile { branching_percent, chases_percent, .. } = self.profile;
                match what {
                    // A burst is all that there is to it.
                    What::Rush => {}
                    What::Chase => self.cause(branching_percent, What::Chase, now_ns),
                    _ => {
                        self.cause(branching_percent, What::Echo, now_ns);
                        if !happened.trades.is_empty() {
                            self.cause(chases_percent, What::Chase, now_ns);
                        }
                    }
                }
            }
        }
    }

    /// Both sides at a name that was given to them, or as they are.
    pub(super) fn levels(&self, name: Option<u64>) -> Option<Levels> {
        self.history.levels(&self.book, name)
    }

    /// The state as it is has this name from now on.
    pub(super) fn mark(&mut self, name: u64) {
        self.history.mark(name);
    }

    pub(super) fn set_status(&mut self, status: Status, now_ns: u64) {
        if status == Status::Open && self.status != Status::Open {
            self.opened_ns = Some(now_ns);
        }
        self.status = status;
    }

    /// All prices become this many times as many ticks; false and nothing where they would be too many.
    pub(super) fn refine(&mut self, times: i64) -> bool {
        let fineness = self.fineness.saturating_mul(times);
        let is_possible = fineness <= FINENESS_MAX;
        if is_possible {
            self.fineness = fineness;
            self.start_ticks *= times;
            self.book.refine(times);
            self.history.refine(times);
        }
        is_possible
    }

    /// A bid rests above the best offer, and nobody trades until [`Symbol::uncross`].
    pub(super) fn cross(&mut self, now_ns: u64, happened: &mut Happened) {
        if let Some((ask, _)) = self.book.best(false) {
            self.is_crossed = true;
            self.rest(true, ask + 1, now_ns, happened);
        }
    }

    /// Takes the best bid away while it crosses; whether it did.
    pub(super) fn uncross(&mut self, happened: &mut Happened) -> bool {
        let (Some((bid, lots)), Some((ask, _))) = (self.book.best(true), self.book.best(false))
        else {
            return false;
        };
        if bid < ask {
            self.is_crossed = false;
            return false;
        }
        self.note(true, bid, lots, happened);
        self.book.take(true, bid, lots, |_| {});
        true
    }

    /// An order comes at the best bid.
    pub(super) fn nudge(&mut self, now_ns: u64, happened: &mut Happened) {
        let ticks = self.book.best(true).map_or(1, |(ticks, _)| ticks);
        self.rest(true, ticks, now_ns, happened);
    }

    /// A burst begins now.
    pub(super) fn burst(&mut self, now_ns: u64) {
        let lasts_ns = BURST_NS.0 + self.bursts.below(BURST_NS.1 - BURST_NS.0);
        let orders =
            (1 << self.profile.burst_bits) / 2 + self.bursts.skewed(self.profile.burst_bits);
        for _ in 0..self.random.poisson(100 * orders / self.rank) {
            let at_ns = now_ns + 1 + self.random.below(lasts_ns);
            self.due.push(at_ns, What::Rush);
        }
    }

    /// So many orders in a hundred cases follow.
    fn cause(&mut self, percent: u64, what: What, now_ns: u64) {
        for _ in 0..self.random.poisson(percent) {
            let delays = if what == What::Chase { &CHASES_NS } else { &ECHOES_NS };
            let mean_ns = delays[self.random.below(delays.len() as u64) as usize];
            let at_ns = now_ns + 1 + self.random.exponential(mean_ns);
            self.due.push(at_ns, what);
        }
    }

    fn await_burst(&mut self, now_ns: u64) {
        let at_ns = now_ns.saturating_add(self.bursts.exponential(self.profile.burst_every_ns));
        self.due.push(at_ns, What::Burst);
    }

    /// How much faster than usual orders come, as a power of two.
    fn rush(&self, now_ns: u64) -> u64 {
        let passed = self.opened_ns.map_or(u64::MAX, |since| (now_ns - since) / RUSH_HALF_NS);
        RUSH_BITS.saturating_sub(passed)
    }

    /// An order comes.
    fn act(&mut self, what: What, now_ns: u64, happened: &mut Happened) {
        let is_bid = self.random.coin();
        let takers = match what {
            What::Rush => 0,
            What::Chase => self.profile.chasing_takers_permille,
            _ => self.profile.takers_permille,
        };
        if self.random.below(1_000) < takers {
            return self.take(now_ns, happened);
        }
        let depth = self.book.depth(is_bid);
        if depth < self.levels.0 {
            return self.deepen(is_bid, now_ns, happened);
        }
        if depth > self.levels.1 {
            if let Some(id) = self.book.oldest_of_worst(is_bid) {
                self.withdraw(id, now_ns, happened);
            }
            return;
        }
        if self.random.percent(self.profile.requotes_percent)
            && let Some(id) = self.quotes[usize::from(is_bid)].take()
        {
            self.withdraw(id, now_ns, happened);
        }
        let Some(ticks) = self.place(is_bid, what) else { return };
        let id = self.rest(is_bid, ticks, now_ns, happened);
        self.quotes[usize::from(is_bid)] = Some(id);
        let life_ns = life_ns(&mut self.random);
        self.due.push(now_ns + life_ns, What::Withdrawal(id));
    }

    /// Where an order rests: it never crosses.
    fn place(&mut self, is_bid: bool, what: What) -> Option<i64> {
        let ((bid, _), (ask, _)) = (self.book.best(true)?, self.book.best(false)?);
        let room = ask - bid - 1;
        let is_rush = what == What::Rush;
        let at_best = match what {
            What::Rush => 1,
            What::Chase => self.profile.chasing_at_best_percent,
            _ => self.profile.at_best_percent,
        };
        if room > 0 && self.random.percent(at_best + room.min(40) as u64) {
            // Nearer to its own side.
            let step = 1 + self.random.below((room as u64).min(4 * self.fineness as u64)) as i64;
            return Some(if is_bid { bid + step } else { ask - step });
        }
        let distance = if self.random.percent(at_best) {
            0
        } else {
            let bits = self.profile.distance_bits;
            let drawn =
                if is_rush { self.random.below(1 << bits) } else { self.random.skewed(bits) };
            1 + drawn as i64 * self.fineness
        };
        let ticks = if is_bid { bid - distance } else { ask + distance };
        (ticks > 0).then_some(ticks)
    }

    /// An order takes what others offer: a part of the best, or a sweep. What it does not get, it does
    /// not wait for.
    fn take(&mut self, now_ns: u64, happened: &mut Happened) {
        let drift = self.book.best(true).map_or(0, |(bid, _)| bid - self.start_ticks);
        let draw = (drift.saturating_mul(400) / self.start_ticks.max(1)).clamp(-DRAW_MAX, DRAW_MAX);
        let takes_bids = self.random.below(100) < (50 + draw) as u64;
        let Some((best, offered)) = self.book.best(takes_bids) else { return };
        let is_sweep = self.random.percent(self.profile.sweeps_percent);
        let wanted = if is_sweep {
            let orders = 3 + self.random.skewed(self.profile.sweep_bits);
            self.book.lots_of_first(takes_bids, orders)
        } else {
            1 + self.random.below(offered.unsigned_abs()) as i64
        };
        let reach =
            if self.profile.is_single { 0 } else { 1 << self.profile.distance_bits.min(20) };
        let limit = if takes_bids { best - reach } else { best + reach };
        let mut left = wanted;
        // Level by level, so that each is one change; never the last one of a side.
        while left > 0
            && self.book.depth(takes_bids) > 1
            && let Some((ticks, was)) = self.book.best(takes_bids)
            && if takes_bids { ticks >= limit } else { ticks <= limit }
        {
            self.note(takes_bids, ticks, was, happened);
            left = self.book.take(takes_bids, ticks, left, |fill| {
                let buyer_took = !takes_bids;
                happened.trades.push(Trade { ticks: fill.ticks, lots: fill.lots, buyer_took });
                happened.lives_ns.extend(fill.born_ns.map(|born_ns| now_ns - born_ns));
            });
        }
    }

    /// An order that stays opens a level below all others of its side.
    fn deepen(&mut self, is_bid: bool, now_ns: u64, happened: &mut Happened) {
        let step = (1 + self.random.skewed(2) as i64) * self.fineness;
        let Some(worst) = self.book.worst(is_bid) else { return };
        let ticks = if is_bid { (worst - step).max(1) } else { worst + step };
        self.rest(is_bid, ticks, now_ns, happened);
    }

    fn rest(&mut self, is_bid: bool, ticks: i64, now_ns: u64, happened: &mut Happened) -> OrderId {
        let lots = lots(&mut self.random);
        let (id, was) = self.book.rest(is_bid, ticks, lots, now_ns);
        self.note(is_bid, ticks, was, happened);
        id
    }

    fn withdraw(&mut self, id: OrderId, now_ns: u64, happened: &mut Happened) {
        let Some((is_bid, ticks)) = self.book.place_of(id) else { return };
        if self.book.depth(is_bid) < 2 {
            return;
        }
        if let Some((born_ns, was)) = self.book.withdraw(id) {
            self.note(is_bid, ticks, was, happened);
            happened.lives_ns.push(now_ns - born_ns);
        }
    }

    /// A level is another than it was.
    fn note(&mut self, is_bid: bool, ticks: i64, was: i64, happened: &mut Happened) {
        self.history.push(is_bid, ticks, was);
        happened.changes.push(Change { is_bid, ticks, was });
    }
}

/// Mean time between two orders that nothing caused, out of that between any two things: half of what
/// happens are ends of orders.
const fn order_pace_ns(profile: &Profile, pace_ns: u64) -> u64 {
    let Profile { branching_percent, takers_permille, chases_percent, .. } = *profile;
    // Each of them causes so many others, in hundredths, and so many of those that chase.
    let caused = 10_000 / (100 - branching_percent);
    let chased = takers_permille * chases_percent / (100 - branching_percent);
    (pace_ns as u128 * 2 * caused as u128 * (1_000 + chased) as u128 / 100_000) as u64
}
