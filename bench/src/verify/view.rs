//! One view of one reader: its updates → held against the protocol and against the truth.
//!
//! Called by a session with each update of the view. The order of things is the chain's business,
//! what is held is the mirror's, and what is true is the follower's; here they meet, with what a
//! line that was left out must lead to.

use std::sync::Arc;

use super::chain::{Chain, State};
use super::expected::{Expected, Loss, Mark, Symbol};
use super::follow::{BookFollower, Depth, QuoteFollower, Subject, TradeFollower};
use super::frame::{self, LevelText, Update};
use super::mirror::{Mirror, Quote, Top};
use super::number::exact;
use super::report::{Broken, Counts, hold};
use super::session::Encoding;

/// Trades in one update at most.
const TRADES_MAX: usize = 1_000;

/// What is subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    /// The book.
    Book(Depth),
    /// The best bid and offer.
    Bbo,
    /// The trades.
    Trades,
}

enum Held {
    Book { mirror: Mirror, follower: BookFollower },
    Bbo(QuoteFollower),
    Trades(TradeFollower),
}

/// Where a view stands with the line that was left out.
enum Trouble {
    /// Nothing of this view was left out: a gap would be wrong.
    None,
    /// Something of another view was left out, and the venue does not let anyone tell of which.
    Possible,
    /// A gap must be told before anything that stems from the line where it can be noticed.
    Ahead(Loss),
    /// It was told.
    Told,
    /// What was told after it is right again.
    Mended,
}

/// What a reader is promised beyond what everybody is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Terms {
    /// The line that was left out.
    pub(crate) loss: Option<Loss>,
    /// Trades may be lost, as long as that is told.
    pub(crate) may_lose: bool,
    /// How it is told.
    pub(crate) encoding: Encoding,
}

/// See the top of this file.
pub(crate) struct View {
    expected: Arc<Expected>,
    name: String,
    chain: Chain,
    held: Held,
    trouble: Trouble,
    may_lose: bool,
}

impl View {
    /// A view as its acknowledgement tells it: `s` is where it stands.
    pub(crate) fn new(
        expected: &Arc<Expected>,
        name: &str,
        channel: Channel,
        (epoch, state, s): (u64, State, u64),
        terms: &Terms,
    ) -> Self {
        let (held, s) = match channel {
            Channel::Book(depth) => {
                let mirror = Mirror::new(depth.levels());
                (Held::Book { mirror, follower: BookFollower::new(depth) }, None)
            }
            Channel::Bbo => (Held::Bbo(QuoteFollower::default()), None),
            Channel::Trades => (Held::Trades(TradeFollower::default()), Some(s)),
        };
        // A best bid and offer with a stream of its own does not hang on the book.
        let hangs_on_book = match channel {
            Channel::Book(_) => true,
            Channel::Bbo => !expected.has_quote_stream(),
            Channel::Trades => false,
        };
        let trouble = match &terms.loss {
            Some(loss) if hangs_on_book && loss.symbol == name => Trouble::Ahead(loss.clone()),
            Some(_) if expected.loses_together() => Trouble::Possible,
            _ => Trouble::None,
        };
        Self {
            expected: Arc::clone(expected),
            name: name.to_owned(),
            chain: Chain::new(epoch, state, s),
            held,
            trouble,
            may_lose: terms.may_lose,
        }
    }

    /// The symbol, as the venue spells it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn symbol(&self) -> &Symbol {
        &self.expected.symbols[&self.name]
    }

    /// Judges an update that was sent at `ts`.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub(crate) fn update(
        &mut self,
        update: &Update<'_>,
        ts: u64,
        counts: &mut Counts,
    ) -> Result<(), Broken> {
        counts.updates += 1;
        match (update.t, &self.held) {
            ("state", _) => self.state(update, ts, counts),
            ("image", Held::Book { .. }) => self.image(update, ts, counts),
            ("delta", Held::Book { .. }) => self.delta(update, ts, counts),
            ("bbo", Held::Bbo(_)) => self.bbo(update, ts, counts),
            ("trades", Held::Trades(_)) => self.trades(update, ts, counts),
            (kind, _) => Err(Broken::new("a view gets what it is subscribed to", "that", kind)),
        }
    }

    fn state(&mut self, update: &Update<'_>, ts: u64, counts: &mut Counts) -> Result<(), Broken> {
        // A number finer than the scales of an instrument ends its epochs, and nothing is lost.
        let is_rescaled = update.why == Some("scale_change");
        let is_gap = self.chain.turn(update, ts)? == State::Gap;
        if is_gap && is_rescaled {
            counts.rescaled += 1;
        } else if is_gap {
            counts.gaps += 1;
            self.trouble = match self.trouble {
                Trouble::Possible => Trouble::Possible,
                Trouble::Ahead(_) | Trouble::Told => Trouble::Told,
                Trouble::None | Trouble::Mended => {
                    return Err(Broken::new("nothing of this is lost", "no gap", "a gap"));
                }
            };
        }
        Ok(())
    }

    fn image(&mut self, update: &Update<'_>, ts: u64, counts: &mut Counts) -> Result<(), Broken> {
        counts.images += 1;
        self.chain.image(update, ts)?;
        let (bids, asks) = (side(update.b)?, side(update.a)?);
        self.price(update, counts, |mirror| mirror.replace(&bids, &asks))
    }

    fn delta(&mut self, update: &Update<'_>, ts: u64, counts: &mut Counts) -> Result<(), Broken> {
        counts.merged += self.chain.delta(update, ts)? - 1;
        let (bids, asks) = (side(update.b)?, side(update.a)?);
        self.price(update, counts, |mirror| mirror.change(&bids, &asks))
    }

    /// Changes the book that is held, and holds it against the truth.
    fn price(
        &mut self,
        update: &Update<'_>,
        counts: &mut Counts,
        change: impl FnOnce(&mut Mirror) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        let repairs = matches!(self.trouble, Trouble::Told);
        let is_judged = self.meet_trouble(update)?;
        let expected = Arc::clone(&self.expected);
        let Held::Book { mirror, follower } = &mut self.held else { return Ok(()) };
        change(mirror)?;
        if !is_judged {
            return Ok(());
        }
        counts.states += 1;
        let symbol = &expected.symbols[&self.name];
        let subject = Subject { expected: &expected, name: &self.name, symbol };
        follower.follow(subject, mirror, update.q).or_else(|broken| match update.trusted {
            Some(trusted) if repairs => follower.accept_cut(subject, mirror, update.q, trusted),
            _ => Err(broken),
        })?;
        let line = follower.line(symbol);
        self.meet_line(line)
    }

    /// Where nothing else tells how far the venue has come, the state itself does.
    fn meet_line(&self, line: u64) -> Result<(), Broken> {
        let Trouble::Ahead(loss) = &self.trouble else { return Ok(()) };
        let rule = "a gap is told before anything that stems from where it can be noticed";
        let (expected, got) = (format!("a gap before line {}", loss.seen_line), line);
        hold(loss.seen != Mark::Line || line < loss.seen_line, rule, expected, got)
            .map_err(|broken| broken.at(loss.seen_line))
    }

    fn bbo(&mut self, update: &Update<'_>, ts: u64, counts: &mut Counts) -> Result<(), Broken> {
        counts.merged += self.chain.bbo(update, ts)?.saturating_sub(1);
        let is_judged = self.meet_trouble(update)?;
        let top = Top { bid: quote(frame::level(update.b))?, ask: quote(frame::level(update.a))? };
        let symbol = &self.expected.symbols[&self.name];
        let Held::Bbo(follower) = &mut self.held else { return Ok(()) };
        if is_judged {
            counts.states += 1;
            follower.follow(symbol, top, update.q)?;
            let line = follower.line(symbol);
            self.meet_line(line)
        } else {
            follower.hold(top);
            Ok(())
        }
    }

    fn trades(&mut self, update: &Update<'_>, ts: u64, counts: &mut Counts) -> Result<(), Broken> {
        let steps = self.chain.trades(update, ts)?;
        let trades = update.x.as_deref().unwrap_or_default();
        let symbol = &self.expected.symbols[&self.name];
        let Held::Trades(follower) = &mut self.held else { return Ok(()) };
        if let Some(lost) = update.lost {
            hold(trades.is_empty(), "what was lost is told alone", "no trades", trades.len())?;
            hold(lost == steps, "s - p is the number of trades", steps, lost)?;
            hold(self.may_lose, "no trade is lost", "none", lost)?;
            counts.lost += lost;
            return follower.lose(symbol, lost);
        }
        let count = trades.len();
        hold(count <= TRADES_MAX, "an update has at most 1000 trades", TRADES_MAX, count)?;
        hold(count as u64 == steps, "s - p is the number of trades", steps, count)?;
        counts.trades += steps;
        follower.follow(symbol, trades)
    }

    /// What the line that was left out means for a price: returns whether it can be judged.
    fn meet_trouble(&mut self, update: &Update<'_>) -> Result<bool, Broken> {
        let has_number = update.q.is_some();
        let should = self.expected.has_numbers;
        hold(has_number == should, "q is there where the venue has numbers", should, has_number)?;
        let stems_from = |mark: Mark| match mark {
            Mark::Id(id) => update.q >= Some(id),
            Mark::Time(te) => update.te >= Some(te),
            Mark::Line => false,
        };
        match &self.trouble {
            Trouble::None | Trouble::Possible | Trouble::Mended => Ok(true),
            Trouble::Told => {
                self.trouble = Trouble::Mended;
                Ok(true)
            }
            Trouble::Ahead(loss) => {
                let rule = "a gap is told before anything that stems from where it can be noticed";
                let got = format!("a price with q {:?}, te {:?}", update.q, update.te);
                hold(!stems_from(loss.seen), rule, format!("a gap before {:?}", loss.seen), got)
                    .map_err(|broken| broken.at(loss.seen_line))?;
                // A venue without numbers does not let anyone see the loss before its checksum does.
                Ok(should || !stems_from(loss.from))
            }
        }
    }

    /// A line of it is left out, and that was not told yet.
    pub(crate) const fn is_to_miss_a_line(&self) -> bool {
        matches!(self.trouble, Trouble::Ahead(_))
    }

    /// Everything that the recording has was told, and what is held now is its end.
    pub(crate) fn is_complete(&self) -> bool {
        let symbol = self.symbol();
        let subject = Subject { expected: &self.expected, name: &self.name, symbol };
        matches!(self.trouble, Trouble::None | Trouble::Possible | Trouble::Mended)
            && match &self.held {
                Held::Book { mirror, follower } => follower.is_last(subject, mirror),
                Held::Bbo(follower) => follower.is_last(symbol),
                Held::Trades(follower) => follower.is_last(symbol),
            }
    }

    /// What a view that is not complete lacks.
    pub(crate) fn lacks(&self) -> (String, String) {
        let symbol = self.symbol();
        let state = format!("state {:?}", self.chain.state());
        if let Trouble::Ahead(loss) = &self.trouble {
            return (format!("a gap, because line {} was left out", loss.line), state);
        }
        let last = symbol.rows.last();
        match &self.held {
            Held::Book { mirror, follower } => (
                last.map_or(String::new(), |row| {
                    format!("the book of line {}: {}", row.line, row.top)
                }),
                format!("the book of line {}: {}; {state}", follower.line(symbol), mirror.top()),
            ),
            Held::Bbo(follower) => {
                let quote = symbol.quotes.last().map(|quote| &quote.top);
                let top = quote.or(last.map(|row| &row.top));
                (top.map_or(String::new(), Top::to_string), format!("{}; {state}", follower.text()))
            }
            Held::Trades(follower) => (
                format!("{} trades", symbol.trades.len()),
                format!("{} received or lost; {state}", follower.count()),
            ),
        }
    }
}

fn side<'a>(raw: Option<&'a serde_json::value::RawValue>) -> Result<Vec<LevelText<'a>>, Broken> {
    frame::levels(raw).map_err(|error| unreadable(&error))
}

fn quote(level: serde_json::Result<Option<LevelText<'_>>>) -> Result<Option<Quote>, Broken> {
    let Some((px, qty)) = level.map_err(|error| unreadable(&error))? else { return Ok(None) };
    for text in [px, qty] {
        hold(exact(text).is_some(), "numbers are shortest exact decimals", "one", text)?;
    }
    Ok(Some((px.into(), qty.into())))
}

/// What cannot be read by the protocol's page.
pub(crate) fn unreadable(error: &serde_json::Error) -> Broken {
    Broken::new("what is sent can be read by the protocol's page", "its shape", error)
}
