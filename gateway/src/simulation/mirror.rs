//! One view as its client holds it: updates in, a mirror kept, and each held against the truth.
//!
//! The checker of a connection owns it. It applies updates with code of its own and says since when
//! what it held was not the market, as far as the gateway had been told.

use serde_json::value::RawValue;
use tickfan_core::market::{Channel, Nanos};

use super::checker::{Checked, Counts, Update, Violation, hold};
use super::lateness::Overdue;
use super::truth::{Best, Book, Level, SymbolTruth, shortest_units};
use super::venue::MICRO_NS;

/// What a view shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shows {
    Book(usize),
    Bbo,
    Trades,
}

impl Shows {
    pub(super) const fn channel(self) -> Channel {
        match self {
            Self::Book(_) => Channel::Book,
            Self::Bbo => Channel::Bbo,
            Self::Trades => Channel::Trades,
        }
    }
}

/// The times `tr` and `to` of a body, which tell it from those around it.
type BodyTimes = (Option<u64>, Option<u64>);

/// One view as the client holds it.
#[derive(Debug)]
pub(super) struct View {
    pub(super) symbol: usize,
    pub(super) shows: Shows,
    pub(super) budget_ns: Nanos,
    /// It came from another lane: what bridges the two tells no oldest change of its own.
    pub(super) is_moved: bool,
    pub(super) state: String,
    pub(super) epoch: u32,
    /// The `s` held; of an image or best that has come, for trades of the last trade.
    pub(super) held: u64,
    pub(super) q: u64,
    /// The first whole has come.
    pub(super) is_whole: bool,
    book: Book,
    best: Best,
    /// The epoch in which the last price was sent.
    priced_epoch: u32,
    /// When the newest part of that epoch's first price was received: whatever came before it was
    /// told in an earlier epoch, or lost.
    begun_ns: Nanos,
    last_trade: Option<u64>,
    /// The times of the last trades update: a body that was split has them several times.
    part: BodyTimes,
    /// Receipt of the newest event in the last update.
    tr_ns: Nanos,
    /// The last update was a state, a whole where none was held, or the first price of an epoch.
    pub(super) is_urgent: bool,
    /// When the state turned, until a price was sent after it.
    turned_ns: Option<Nanos>,
    /// The number of the last trade before the subscription was answered: up to there nothing has
    /// to be late.
    begun_at: u64,
    /// Trades told as lost since the last one.
    lost: u64,
}

/// What an answer says of a view.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) symbol: usize,
    pub(super) shows: Shows,
    pub(super) budget_ns: Nanos,
    pub(super) state: String,
    pub(super) epoch: u32,
    pub(super) s: u64,
}

impl View {
    pub(super) fn new(begun: Begun, truth: &SymbolTruth) -> Self {
        let Begun { symbol, shows, budget_ns, state, epoch, s } = begun;
        Self {
            symbol,
            shows,
            budget_ns,
            is_moved: false,
            state,
            epoch,
            held: s,
            q: 0,
            is_whole: false,
            book: Book::default(),
            best: [None; 2],
            priced_epoch: epoch,
            begun_ns: 0,
            last_trade: None,
            part: (None, None),
            tr_ns: 0,
            is_urgent: false,
            turned_ns: None,
            begun_at: truth.newest_number(),
            lost: 0,
        }
    }

    fn flows(&self) -> bool {
        matches!(self.state.as_str(), "live" | "suspect" | "halted")
    }

    fn has_whole(&self) -> bool {
        self.flows() || self.state == "stale"
    }

    pub(super) fn name(&self, truth: &[SymbolTruth]) -> String {
        format!("{} {:?}", truth[self.symbol].name, self.shows)
    }

    fn differs(&self, book: &Book, depth: usize) -> bool {
        self.book.cut(depth) != book.cut(depth)
    }

    /// Since when what the client holds was not what the market is, of all that the gateway was
    /// told with numbers up to `q`; and when it was first told anything after what the client holds.
    pub(super) fn behind(&self, truth: &SymbolTruth, q: u64) -> Overdue {
        let mut overdue = Overdue::default();
        if q <= self.q || !self.is_whole {
            return overdue;
        }
        let range = self.q + 1..=q;
        match self.shows {
            Shows::Book(depth) => {
                for known in truth.books.range(range).map(|(_, known)| known) {
                    overdue.saw(known.received_ns, self.begun_ns, || {
                        self.differs(&known.value, depth)
                    });
                }
            }
            Shows::Bbo => {
                let tickers = truth.tickers.range(range.clone());
                let tickers = tickers.map(|(id, known)| (*id, known.received_ns, known.value));
                let books = truth.books.range(range);
                let books = books.map(|(id, known)| (*id, known.received_ns, known.value.best()));
                let mut told: Vec<_> = tickers
                    .map(|ticker| (ticker, true))
                    .chain(books.map(|book| (book, false)))
                    .collect();
                told.sort_by_key(|((id, ..), _)| *id);
                // As long as everything told is what is held, nothing has changed.
                let changes = told.iter().filter(|((.., best), _)| *best != self.best);
                let first_ns = changes.filter_map(|((_, received_ns, _), _)| *received_ns).min();
                for ((_, received_ns, best), is_ticker) in told {
                    // A book may have waited for its image; the stream of its own is told at once.
                    if is_ticker || best == self.best {
                        overdue.saw(received_ns, self.begun_ns, || self.best != best);
                    } else {
                        overdue.may_be(received_ns);
                    }
                }
                overdue.possible_ns = overdue.possible_ns.max(first_ns);
            }
            Shows::Trades => {}
        }
        overdue
    }

    /// The same for trades, with numbers up to `newest`.
    pub(super) fn behind_trades(&self, truth: &SymbolTruth, newest: u64) -> Overdue {
        let mut overdue = Overdue::default();
        if newest > self.held {
            for (number, id) in truth.trade_ids.range(self.held + 1..=newest) {
                let received_ns = truth.trades.get(id).and_then(|trade| trade.received_ns);
                if *number > self.begun_at {
                    overdue.saw(received_ns, 0, || true);
                } else {
                    overdue.may_be(received_ns);
                }
            }
        }
        overdue
    }
}

impl View {
    /// The first time after what it was sent last at which the gateway was told anything.
    fn next_moment_ns(&self, truth: &SymbolTruth) -> Option<Nanos> {
        let moments = truth.moments(self.shows.channel());
        let after = moments.partition_point(|moment| *moment <= self.tr_ns);
        // More may have come at that very time, after it was published.
        let is_split = after > 1 && moments[after - 2] == self.tr_ns;
        moments.get(after - usize::from(is_split)).copied()
    }

    pub(super) fn turn(&mut self, update: &Update<'_>, truth: &SymbolTruth) -> Checked<Overdue> {
        let epoch = field(update.e, "e")?;
        let state = field(update.state, "state")?;
        let since_ns = field(update.since, "since")? * MICRO_NS;
        hold(epoch >= self.epoch, "I2", || format!("epoch {epoch} follows {}", self.epoch))?;
        self.epoch = epoch;
        // An epoch may begin in a state that was told long ago.
        let certain_ns = (self.state != state).then_some(since_ns);
        state.clone_into(&mut self.state);
        self.turned_ns = Some(self.turned_ns.map_or(since_ns, |first| first.min(since_ns)));
        self.is_urgent = true;
        // What was merged into the turn may be older than the turn itself.
        let possible_ns = self.next_moment_ns(truth);
        Ok(Overdue { certain_ns, possible_ns, told_ns: None })
    }

    /// What a new state of the book or the best bid and offer must keep to in the order of versions;
    /// returns whether it begins an epoch of prices.
    fn order(&mut self, update: &Update<'_>, counts: &mut Counts) -> Checked<bool> {
        let (s, q, tr) = (field(update.s, "s")?, field(update.q, "q")?, field(update.tr, "tr")?);
        let begins = self.priced_epoch != self.epoch || !self.is_whole;
        hold(s >= self.held, "I2", || format!("s {s} follows {}", self.held))?;
        hold(begins || q >= self.q, "I2", || format!("q {q} follows {}", self.q))?;
        if self.is_whole && s > self.held {
            counts.merged += s - self.held - 1;
        }
        if begins {
            self.begun_ns = tr * MICRO_NS;
        }
        self.held = s;
        self.priced_epoch = self.epoch;
        self.is_urgent = begins;
        Ok(begins)
    }

    pub(super) fn image(
        &mut self,
        update: &Update<'_>,
        truth: &SymbolTruth,
        counts: &mut Counts,
    ) -> Checked<Overdue> {
        let Shows::Book(depth) = self.shows else {
            return hold(false, "protocol", || "an image of no book".to_owned())
                .map(|()| Overdue::default());
        };
        let (epoch, q) = (field(update.e, "e")?, field(update.q, "q")?);
        hold(epoch >= self.epoch, "I2", || format!("epoch {epoch} follows {}", self.epoch))?;
        hold(self.state != "gap" || epoch > self.epoch, "I2", || {
            "an image follows a gap in the same epoch".to_owned()
        })?;
        self.epoch = epoch;
        field(update.state, "state")?.clone_into(&mut self.state);
        hold(self.has_whole(), "I6", || format!("an image in {}", self.state))?;
        let (was_whole, before) = (self.is_whole, self.behind(truth, q));
        let begins = self.order(update, counts)?;
        self.book = Book { bids: read_side(update.b)?, asks: read_side(update.a)? };
        (self.q, self.is_whole) = (q, true);
        self.is_true(truth, depth)?;
        counts.images += 1;
        let overdue = self.overdue(was_whole, begins, before, truth);
        self.tr_ns = field(update.tr, "tr")? * MICRO_NS;
        Ok(overdue)
    }

    pub(super) fn delta(
        &mut self,
        update: &Update<'_>,
        truth: &SymbolTruth,
        counts: &mut Counts,
    ) -> Checked<Overdue> {
        let Shows::Book(depth) = self.shows else {
            return hold(false, "protocol", || "a delta of no book".to_owned())
                .map(|()| Overdue::default());
        };
        let (s, p, q) = (field(update.s, "s")?, field(update.p, "p")?, field(update.q, "q")?);
        hold(self.is_whole && p == self.held && s > p, "I2", || {
            format!("delta from {p} to {s} on a view that holds {}", self.held)
        })?;
        hold(self.flows(), "I6", || format!("a delta in {}", self.state))?;
        hold(self.priced_epoch == self.epoch, "I2", || "an epoch begins with a delta".to_owned())?;
        let before = self.behind(truth, q);
        self.order(update, counts)?;
        let changes = [read_side(update.b)?, read_side(update.a)?];
        hold(changes.iter().any(|side| !side.is_empty()), "protocol", || {
            "an empty delta".to_owned()
        })?;
        for (is_bid, side) in [(true, &changes[0]), (false, &changes[1])] {
            for change in side {
                let held = self.book.set(is_bid, *change);
                hold(held != change.1, "I1", || {
                    format!("{change:?} changes nothing, {held} is held")
                })?;
            }
        }
        self.q = q;
        self.is_true(truth, depth)?;
        counts.deltas += 1;
        let has_turned = self.turned_ns.is_some();
        let mut overdue = self.overdue(true, false, before, truth);
        if !has_turned && !self.is_moved {
            let to_ns = field(update.to, "to")? * MICRO_NS;
            overdue.is_told(to_ns, truth.moments(Channel::Book))?;
        }
        self.tr_ns = field(update.tr, "tr")? * MICRO_NS;
        Ok(overdue)
    }

    /// The mirror is the market at the number held, as deep as the view; and no deeper.
    fn is_true(&self, truth: &SymbolTruth, depth: usize) -> Checked {
        let known = truth.books.get(&self.q);
        let received = known.filter(|known| known.received_ns.is_some());
        let Some(known) = received else {
            return hold(false, "I1", || {
                format!("{}: no book of {} was ever told", truth.name, self.q)
            });
        };
        let held = [self.book.bids.as_slice(), self.book.asks.as_slice()];
        let true_book = known.value.cut(depth);
        hold(held == true_book, "I1", || {
            let first = held.iter().zip(true_book).find_map(|(held, true_side)| {
                let at = (0..held.len().max(true_side.len()))
                    .find(|at| held.get(*at) != true_side.get(*at))?;
                Some(format!("level {at} is {:?}, not {:?}", held.get(at), true_side.get(at)))
            });
            format!("{} depth {depth} at {}: {}", truth.name, self.q, first.unwrap_or_default())
        })
    }

    pub(super) fn bbo(
        &mut self,
        update: &Update<'_>,
        truth: &SymbolTruth,
        counts: &mut Counts,
    ) -> Checked<Overdue> {
        hold(self.shows == Shows::Bbo, "protocol", || "a bbo on another view".to_owned())?;
        hold(self.has_whole(), "I6", || format!("a bbo in {}", self.state))?;
        let q = field(update.q, "q")?;
        let (was_whole, before) = (self.is_whole, self.behind(truth, q));
        let begins = self.order(update, counts)?;
        self.best = [read_level(update.b)?, read_level(update.a)?];
        (self.q, self.is_whole) = (q, true);
        let true_best = truth.best_at(q);
        hold(true_best == Some(self.best), "I1", || {
            format!("{} at {q}: {:?}, not {true_best:?}", truth.name, self.best)
        })?;
        let overdue = self.overdue(was_whole, begins, before, truth);
        self.tr_ns = field(update.tr, "tr")? * MICRO_NS;
        Ok(overdue)
    }

    fn overdue(
        &mut self,
        was_whole: bool,
        begins: bool,
        before: Overdue,
        truth: &SymbolTruth,
    ) -> Overdue {
        let turned_ns = self.turned_ns.take();
        if !was_whole {
            return Overdue::default();
        }
        if !begins {
            let possible_ns = [before.possible_ns, turned_ns].into_iter().flatten().min();
            return Overdue { possible_ns, ..before };
        }
        // What an epoch begins with was joined from an image and what waited for it: at the least
        // it was waited for since its newest part came.
        let book = truth.books.get(&self.q).and_then(|known| known.received_ns);
        let ticker = truth.tickers.get(&self.q).and_then(|known| known.received_ns);
        // What came over an earlier connection was dropped with it.
        let certain_ns = before
            .certain_ns
            .and(book)
            .filter(|book| self.shows != Shows::Bbo && *book > truth.connected_ns);
        let possible_ns = ticker.or(book).and_then(|_| self.next_moment_ns(truth));
        Overdue { certain_ns, possible_ns, told_ns: None }
    }

    pub(super) fn trades(
        &mut self,
        update: &Update<'_>,
        truth: &SymbolTruth,
        counts: &mut Counts,
    ) -> Checked<Overdue> {
        hold(self.shows == Shows::Trades, "protocol", || "trades on another view".to_owned())?;
        hold(self.has_whole(), "I6", || format!("trades in {}", self.state))?;
        let (s, p) = (field(update.s, "s")?, field(update.p, "p")?);
        let lost = update.lost.unwrap_or(0);
        let prints = read_trades(update.x)?;
        hold(p == self.held, "I2", || format!("trades from {p}, and {} is held", self.held))?;
        hold(s - p == lost + prints.len() as u64 && prints.len() <= 1_000, "I4", || {
            format!("{} trades and {lost} lost lead from {p} to {s}", prints.len())
        })?;
        hold((lost > 0) == prints.is_empty(), "protocol", || {
            "trades and losses are told apart".to_owned()
        })?;
        let mut overdue = self.behind_trades(truth, s);
        if lost > 0 {
            let seen = truth.trade_ids.range(p + 1..=s).next();
            hold(seen.is_none(), "I4", || format!("{seen:?} is told as lost and was not"))?;
        }
        self.lost += lost;
        for (number, (te_us, px, qty, side, id)) in (p + 1..).zip(&prints) {
            let id = id.parse().ok().filter(|id| truth.trade_ids.get(&number) == Some(id));
            let id = field(id, "the trade of this number")?;
            let known = &truth.trades[&id].value;
            let level = (read_units(px)?, read_units(qty)?);
            let is_true = known.level == level && known.te_us == *te_us && known.side == *side;
            hold(is_true, "I1", || format!("trade {id} is not {known:?}"))?;
            if let Some(last) = self.last_trade {
                // What happened while the venue was not connected is told as lost, too.
                hold(id == last + self.lost + 1, "I4", || {
                    format!("trade {id} follows {last}, {} were lost", self.lost)
                })?;
            }
            self.last_trade = Some(id);
            self.lost = 0;
        }
        if !prints.is_empty() {
            self.priced_epoch = self.epoch;
        }
        self.held = s;
        counts.trades += prints.len() as u64;
        counts.trades_lost += lost;
        let times = (update.tr, update.to);
        let to_ns = update.to.map(|to| to * MICRO_NS);
        // A body that was split at a loss or at its length has one time for all its parts.
        let is_part = self.part == times;
        let possible_ns = if is_part { to_ns } else { self.next_moment_ns(truth) };
        overdue.possible_ns = overdue.possible_ns.and(possible_ns);
        if lost > 0 {
            // It is told by itself, for the first time that was waited for.
            overdue.possible_ns = possible_ns;
        }
        if let (Some(to_ns), false, true) = (to_ns, self.is_moved, p >= self.begun_at) {
            overdue.is_told(to_ns, truth.moments(Channel::Trades))?;
        }
        // What brings it from one lane to another comes first, and at once.
        self.is_moved = false;
        self.part = times;
        // What is made for one reader has the time of the newest trade, be it not in it.
        let newest = truth.trade_ids.get(&s).and_then(|id| truth.trades[id].received_ns);
        self.tr_ns = newest.unwrap_or(self.tr_ns);
        self.is_urgent = false;
        Ok(overdue)
    }

    /// The mirror is the market as it is.
    pub(super) fn is_final(&self, truth: &SymbolTruth) -> Checked {
        hold(self.state == "live", "I8", || format!("{} ends {}", truth.name, self.state))?;
        match self.shows {
            Shows::Book(depth) => {
                // An image may be ahead of the last depth message.
                let last = truth.books.iter().rfind(|(_, known)| known.received_ns.is_some());
                let is_final = last.is_some_and(|(_, last)| !self.differs(&last.value, depth));
                hold(is_final && self.is_whole, "I8", || {
                    format!("{} ends at {} of {:?}", truth.name, self.q, last.map(|(id, _)| id))
                })
            }
            Shows::Bbo => {
                let last = truth.tickers.last_key_value().map(|(_, known)| known.value);
                hold(last == Some(self.best), "I8", || {
                    format!("{} ends with {:?}, not {last:?}", truth.name, self.best)
                })
            }
            Shows::Trades => hold(self.held == truth.newest_number(), "I8", || {
                format!("{} ends at {} of {}", truth.name, self.held, truth.newest_number())
            }),
        }
    }
}

pub(super) fn field<T>(value: Option<T>, name: &'static str) -> Checked<T> {
    value.ok_or_else(|| Violation { invariant: "protocol", what: format!("{name} is missing") })
}

fn unreadable(error: serde_json::Error) -> Violation {
    Violation { invariant: "protocol", what: error.to_string() }
}

fn read_units(text: &str) -> Checked<i64> {
    let broken = || Violation {
        invariant: "protocol",
        what: format!("{text:?} is not the shortest decimal of its value"),
    };
    shortest_units(text).ok_or_else(broken)
}

fn read_pair((px, qty): (&str, &str)) -> Checked<Level> {
    Ok((read_units(px)?, read_units(qty)?))
}

fn read_side(raw: Option<&RawValue>) -> Checked<Vec<Level>> {
    let texts: Vec<(&str, &str)> =
        serde_json::from_str(field(raw, "a side")?.get()).map_err(unreadable)?;
    texts.into_iter().map(read_pair).collect()
}

fn read_level(raw: Option<&RawValue>) -> Checked<Option<Level>> {
    let Some(raw) = raw else { return Ok(None) };
    read_pair(serde_json::from_str(raw.get()).map_err(unreadable)?).map(Some)
}

type Print<'a> = (u64, &'a str, &'a str, &'a str, &'a str);

fn read_trades(raw: Option<&RawValue>) -> Checked<Vec<Print<'_>>> {
    serde_json::from_str(field(raw, "x")?.get()).map_err(unreadable)
}
