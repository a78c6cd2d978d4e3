//! One connection as its client sees it: bytes in, and the first broken invariant out.
//!
//! The world hands it every byte at the moment at which the socket took it. It reads the protocol
//! with code of its own, keeps a mirror of every view, and holds each update against the truth. The
//! invariants have the names of the reference: I1 exact, I2 in order, I4 sums, I5 budget.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use tickfan_core::market::Nanos;

use super::truth::{Best, Book, Level, SymbolTruth, shortest_units};
use super::venue::MICRO_NS;

/// An invariant that does not hold.
#[derive(Debug, Clone)]
pub(super) struct Violation {
    pub(super) invariant: &'static str,
    pub(super) what: String,
}

pub(super) type Checked<T = ()> = Result<T, Violation>;

/// The invariant is broken, unless `holds`.
pub(super) fn hold(holds: bool, invariant: &'static str, what: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(Violation { invariant, what: what() }) }
}

#[derive(Deserialize)]
struct Frame<'a> {
    n: u64,
    ts: u64,
    #[serde(default)]
    late: Vec<usize>,
    late_us: Option<u64>,
    #[serde(borrow)]
    u: Vec<Update<'a>>,
}

#[derive(Deserialize)]
struct Update<'a> {
    t: &'a str,
    v: u32,
    e: Option<u32>,
    s: Option<u64>,
    p: Option<u64>,
    q: Option<u64>,
    tr: Option<u64>,
    to: Option<u64>,
    state: Option<&'a str>,
    since: Option<u64>,
    lost: Option<u64>,
    #[serde(borrow)]
    b: Option<&'a RawValue>,
    #[serde(borrow)]
    a: Option<&'a RawValue>,
    #[serde(borrow)]
    x: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "type")]
    kind: String,
    id: Option<u64>,
    #[serde(default)]
    results: Vec<Subscribed>,
    #[serde(default)]
    views: Vec<u32>,
    code: Option<String>,
}

#[derive(Deserialize)]
struct Subscribed {
    symbol: String,
    ok: bool,
    view: Option<u32>,
    channel: Option<String>,
    depth: Option<serde_json::Value>,
    budget_ms: Option<u64>,
    epoch: Option<u32>,
    s: Option<u64>,
    state: Option<String>,
    code: Option<String>,
}

/// What a client asked, to hold the answer against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    Subscribe,
    Unsubscribe,
    Modify,
    Image,
    Ping,
}

/// What a view shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shows {
    Book(usize),
    Bbo,
    Trades,
}

/// The times `tr` and `to` of a body, which tell it from those around it.
type BodyTimes = (Option<u64>, Option<u64>);

/// One view as the client holds it.
#[derive(Debug)]
pub(super) struct View {
    pub(super) symbol: usize,
    pub(super) shows: Shows,
    pub(super) budget_ns: Nanos,
    /// The budget before the last `modify`, until something was sent under the new one.
    former_budget_ns: Nanos,
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
    /// The last trades update: of which body it was, and the oldest possible of its changes.
    part: Option<(BodyTimes, Nanos)>,
    /// When the state turned, until a price was sent after it.
    turned_ns: Option<Nanos>,
    /// The number of the last trade before the subscription was answered: up to there nothing has
    /// to be late.
    begun_at: u64,
    /// Trades told as lost since the last one.
    lost: u64,
}

impl View {
    fn flows(&self) -> bool {
        matches!(self.state.as_str(), "live" | "suspect" | "halted")
    }

    fn has_whole(&self) -> bool {
        self.flows() || self.state == "stale"
    }

    fn name(&self, truth: &[SymbolTruth]) -> String {
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
                for ((_, received_ns, best), is_ticker) in told {
                    // A book may have waited for its image; the stream of its own is told at once.
                    if is_ticker || best == self.best {
                        overdue.saw(received_ns, self.begun_ns, || self.best != best);
                    } else {
                        overdue.may_be(received_ns);
                    }
                }
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

/// Since when a client waits for what it has not been sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Overdue {
    /// What it holds has been wrong for at least this long.
    pub(super) certain_ns: Option<Nanos>,
    /// The first change of the channel that it was not sent, be it out of its view or taken back.
    pub(super) possible_ns: Option<Nanos>,
}

impl Overdue {
    fn saw(&mut self, received_ns: Option<Nanos>, after_ns: Nanos, differs: impl FnOnce() -> bool) {
        let Some(received_ns) = received_ns.filter(|received_ns| *received_ns > after_ns) else {
            return;
        };
        self.may_be(Some(received_ns));
        if !differs() {
            self.certain_ns = None;
        } else if self.certain_ns.is_none() {
            self.certain_ns = Some(received_ns);
        }
    }

    fn may_be(&mut self, received_ns: Option<Nanos>) {
        if let Some(received_ns) = received_ns {
            let first = self.possible_ns.map_or(received_ns, |first| first.min(received_ns));
            self.possible_ns = Some(first);
        }
    }
}

/// How late the updates of one frame were, at least and at most.
#[derive(Default)]
struct Lateness {
    listed: Vec<usize>,
    at_least_ns: Nanos,
    at_most_ns: Nanos,
}

impl Lateness {
    /// Judges one update by the times since which it was waited for.
    fn judge(&mut self, index: usize, view: &mut View, overdue: Overdue, ts_ns: Nanos) -> Checked {
        let over = |since: Option<Nanos>, budget_ns: Nanos| match since {
            Some(since) if budget_ns > 0 => ts_ns.saturating_sub(since).saturating_sub(budget_ns),
            _ => 0,
        };
        let (now, before) = (view.budget_ns, view.former_budget_ns);
        let is_nothing_late = now == 0 || before == 0;
        let strict_ns = if is_nothing_late { now.max(before) } else { now.min(before) };
        let lax_ns = if is_nothing_late { 0 } else { now.max(before) };
        let (at_least, at_most) =
            (over(overdue.certain_ns, lax_ns), over(overdue.possible_ns, strict_ns));
        view.former_budget_ns = view.budget_ns;
        let is_listed = self.listed.contains(&index);
        hold(is_listed || at_least == 0, "I5", || {
            format!("update {index} is {at_least} ns over its budget of {now} ns and not in late")
        })?;
        hold(!is_listed || at_most > 0, "I5", || {
            format!("update {index} is in late and within its budget of {now} ns: {overdue:?}")
        })?;
        self.at_least_ns = self.at_least_ns.max(at_least);
        if is_listed {
            self.at_most_ns = self.at_most_ns.max(at_most);
        }
        Ok(())
    }
}

/// What the checker counted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) frames: u64,
    pub(super) updates: u64,
    pub(super) images: u64,
    pub(super) deltas: u64,
    pub(super) trades: u64,
    pub(super) trades_lost: u64,
    pub(super) merged: u64,
    pub(super) late: u64,
}

impl Counts {
    pub(super) const fn add(&mut self, other: &Self) {
        self.frames += other.frames;
        self.updates += other.updates;
        self.images += other.images;
        self.deltas += other.deltas;
        self.trades += other.trades;
        self.trades_lost += other.trades_lost;
        self.merged += other.merged;
        self.late += other.late;
    }
}

/// What is to be done about bytes of the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// It pinged: answer with the same payload.
    Pong(Vec<u8>),
}

/// One connection.
#[derive(Debug, Default)]
pub(super) struct Session {
    bytes: Vec<u8>,
    pub(super) views: BTreeMap<u32, View>,
    /// What was asked and not answered, and the number of the last frame before it.
    pub(super) asked: BTreeMap<u64, (Asked, u64)>,
    /// Payloads of our own pings that wait for their pong.
    pub(super) pings: Vec<Vec<u8>>,
    /// The code of the close frame that came.
    pub(super) closed: Option<u16>,
    /// A frame is wanted after this long without any; 0 = not wanted.
    pub(super) heartbeat_ns: Nanos,
    /// When the last data frame came, or the heartbeat was asked for.
    pub(super) frame_ns: Nanos,
    pub(super) counts: Counts,
    pub(super) n: u64,
    /// Frames after which even the slowest reader must have its answer.
    answered_within: u64,
    /// The number of the last frame before the last answer.
    answered_at: u64,
    greeted: bool,
}

impl Session {
    pub(super) fn new(answered_within: u64) -> Self {
        Self { answered_within, ..Self::default() }
    }

    /// Looks at bytes that the socket took just now.
    pub(super) fn absorb(
        &mut self,
        bytes: &[u8],
        now: Nanos,
        truth: &[SymbolTruth],
        replies: &mut Vec<Reply>,
    ) -> Checked {
        self.bytes.extend_from_slice(bytes);
        let all = std::mem::take(&mut self.bytes);
        let mut rest = all.as_slice();
        while let Some((opcode, payload, after)) = split_frame(rest)? {
            rest = after;
            hold(self.closed.is_none(), "I2", || "bytes follow a close frame".to_owned())?;
            match opcode {
                1 => self.text(payload, now, truth)?,
                8 => {
                    let code = payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]));
                    self.closed = Some(code.unwrap_or(1005));
                }
                9 => replies.push(Reply::Pong(payload.to_vec())),
                10 => {
                    let known = self.pings.iter().position(|sent| sent == payload);
                    let known = known.ok_or_else(|| Violation {
                        invariant: "protocol",
                        what: format!("a pong that nobody asked for: {payload:?}"),
                    })?;
                    self.pings.remove(known);
                }
                _ => hold(false, "protocol", || format!("a frame of opcode {opcode}"))?,
            }
        }
        self.bytes = rest.to_vec();
        Ok(())
    }

    fn text(&mut self, payload: &[u8], now: Nanos, truth: &[SymbolTruth]) -> Checked {
        let broken = |error: serde_json::Error| Violation {
            invariant: "protocol",
            what: format!("{error} in {}", String::from_utf8_lossy(payload)),
        };
        if payload.starts_with(b"{\"n\":") {
            let frame: Frame<'_> = serde_json::from_slice(payload).map_err(broken)?;
            return self.frame(&frame, now, truth).map_err(|violation| Violation {
                what: format!("{}; {}", violation.what, shortened(payload)),
                ..violation
            });
        }
        let answer: Answer = serde_json::from_slice(payload).map_err(broken)?;
        self.answer(answer, truth).map_err(|violation| Violation {
            what: format!("{}; {}", violation.what, shortened(payload)),
            ..violation
        })
    }

    fn answer(&mut self, answer: Answer, truth: &[SymbolTruth]) -> Checked {
        self.answered_at = self.n;
        let asked = answer.id.and_then(|id| self.asked.remove(&id)).map(|(asked, _)| asked);
        if let (Some(Asked::Image), Some(id)) = (&asked, answer.id) {
            // Each view that cannot be sent whole has an error of its own.
            self.asked.insert(id, (Asked::Image, self.n));
        }
        let fits = match answer.kind.as_str() {
            "hello" => !std::mem::replace(&mut self.greeted, true),
            "subscribed" => matches!(asked, Some(Asked::Subscribe | Asked::Modify)),
            "unsubscribed" => asked == Some(Asked::Unsubscribe),
            "pong" => asked == Some(Asked::Ping),
            "error" => match answer.code.as_deref() {
                Some("rate_limited") => true,
                // Between the asking and the answer the view may have ended.
                Some("not_subscribed") => asked == Some(Asked::Image),
                _ => false,
            },
            _ => false,
        };
        hold(fits, "protocol", || format!("an answer of {} to {asked:?}", answer.kind))?;
        for view in answer.views {
            let ended = self.views.remove(&view);
            hold(ended.is_some(), "protocol", || format!("view {view} ended and was none"))?;
        }
        for result in answer.results {
            if result.ok {
                self.subscribed(&result, truth)?;
            } else {
                hold(result.code.as_deref() == Some("not_subscribed"), "protocol", || {
                    format!("{} is refused: {:?}", result.symbol, result.code)
                })?;
            }
        }
        Ok(())
    }

    fn subscribed(&mut self, result: &Subscribed, truth: &[SymbolTruth]) -> Checked {
        let missing = || Violation {
            invariant: "protocol",
            what: format!("a result for {} lacks fields", result.symbol),
        };
        let number = result.view.ok_or_else(missing)?;
        let s = result.s.ok_or_else(missing)?;
        let budget_ns = result.budget_ms.ok_or_else(missing)? * 1_000_000;
        let state = result.state.clone().ok_or_else(missing)?;
        if let Some(view) = self.views.get_mut(&number) {
            if view.budget_ns != budget_ns {
                view.former_budget_ns = view.budget_ns;
            }
            view.budget_ns = budget_ns;
            let stands = view.shows == Shows::Trades || view.is_whole;
            return hold(!stands || s == view.held, "I2", || {
                format!("view {number} stands at {} and is said to stand at {s}", view.held)
            });
        }
        let name = result.symbol.split_once(':').map_or("", |(_, name)| name);
        let symbol = truth.iter().position(|truth| truth.name == name).ok_or_else(missing)?;
        let depth = match &result.depth {
            Some(serde_json::Value::Number(depth)) => depth.as_u64().map(|depth| depth as usize),
            Some(serde_json::Value::String(depth)) if depth == "full" => Some(usize::MAX),
            _ => None,
        };
        let shows = match result.channel.as_deref() {
            Some("book") => Shows::Book(depth.ok_or_else(missing)?),
            Some("bbo") => Shows::Bbo,
            Some("trades") => Shows::Trades,
            _ => return Err(missing()),
        };
        let epoch = result.epoch.ok_or_else(missing)?;
        let view = View {
            symbol,
            shows,
            budget_ns,
            former_budget_ns: budget_ns,
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
            part: None,
            turned_ns: None,
            begun_at: truth[symbol].newest_number(),
            lost: 0,
        };
        self.views.insert(number, view);
        Ok(())
    }

    fn frame(&mut self, frame: &Frame<'_>, now: Nanos, truth: &[SymbolTruth]) -> Checked {
        self.n += 1;
        hold(frame.n == self.n, "I2", || format!("frame {} follows {}", frame.n, self.n - 1))?;
        let forgotten = self
            .asked
            .values()
            .filter(|(asked, _)| *asked != Asked::Image)
            .find(|(_, n)| self.n - (*n).max(self.answered_at) > self.answered_within);
        hold(forgotten.is_none(), "I8", || format!("no answer to {forgotten:?}"))?;
        hold(frame.ts * MICRO_NS <= now, "I5", || format!("ts is after now, {now}"))?;
        self.frame_ns = self.frame_ns.max(frame.ts * MICRO_NS);
        let mut lateness = Lateness { listed: frame.late.clone(), ..Lateness::default() };
        let in_range = frame.late.iter().all(|index| *index < frame.u.len());
        let is_paired = frame.late.is_empty() == frame.late_us.is_none();
        hold(in_range && is_paired && frame.u.len() <= 64, "protocol", || {
            "late does not fit the updates".to_owned()
        })?;
        for (index, update) in frame.u.iter().enumerate() {
            self.update(index, update, frame.ts * MICRO_NS, truth, &mut lateness)?;
        }
        let late_us = frame.late_us.unwrap_or(0);
        let at_least_us = lateness.at_least_ns.div_ceil(MICRO_NS);
        let at_most_us = lateness.at_most_ns.div_ceil(MICRO_NS);
        hold((at_least_us..=at_most_us).contains(&late_us), "I5", || {
            format!("late_us is {late_us} and must be from {at_least_us} to {at_most_us}")
        })?;
        self.counts.frames += 1;
        self.counts.updates += frame.u.len() as u64;
        self.counts.late += frame.late.len() as u64;
        Ok(())
    }

    fn update(
        &mut self,
        index: usize,
        update: &Update<'_>,
        ts_ns: Nanos,
        truth: &[SymbolTruth],
        lateness: &mut Lateness,
    ) -> Checked {
        let Some(view) = self.views.get_mut(&update.v) else {
            return hold(false, "protocol", || format!("view {} is not held", update.v));
        };
        let symbol = &truth[view.symbol];
        let in_order = update.to.unwrap_or(0) <= update.tr.unwrap_or(u64::MAX)
            && update.tr.unwrap_or(0) * MICRO_NS <= ts_ns;
        hold(in_order, "I5", || "to, tr and ts are not in order".to_owned())?;
        let overdue = match update.t {
            "state" => view.turn(update)?,
            "image" => view.image(update, symbol, &mut self.counts)?,
            "delta" => view.delta(update, symbol, &mut self.counts)?,
            "bbo" => view.bbo(update, symbol, &mut self.counts)?,
            "trades" => view.trades(update, symbol, &mut self.counts)?,
            _ => return hold(false, "protocol", || format!("an update of kind {}", update.t)),
        };
        let name = view.name(truth);
        lateness.judge(index, view, overdue, ts_ns).map_err(|violation| Violation {
            what: format!("{name}: {}", violation.what),
            ..violation
        })
    }
}

fn field<T>(value: Option<T>, name: &'static str) -> Checked<T> {
    value.ok_or_else(|| Violation { invariant: "protocol", what: format!("{name} is missing") })
}

impl View {
    fn turn(&mut self, update: &Update<'_>) -> Checked<Overdue> {
        let epoch = field(update.e, "e")?;
        let state = field(update.state, "state")?;
        let since_ns = field(update.since, "since")? * MICRO_NS;
        hold(epoch >= self.epoch, "I2", || format!("epoch {epoch} follows {}", self.epoch))?;
        self.epoch = epoch;
        // An epoch may begin in a state that was told long ago.
        let certain_ns = (self.state != state).then_some(since_ns);
        state.clone_into(&mut self.state);
        self.turned_ns = Some(self.turned_ns.map_or(since_ns, |first| first.min(since_ns)));
        // What was merged into the turn may be older than the turn itself.
        Ok(Overdue { certain_ns, possible_ns: Some(0) })
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
        Ok(begins)
    }

    fn image(
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
        Ok(self.overdue(was_whole, begins, before, truth))
    }

    fn delta(
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
        Ok(self.overdue(true, false, before, truth))
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

    fn bbo(
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
        Ok(self.overdue(was_whole, begins, before, truth))
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
            let possible_ns = before.possible_ns.or(turned_ns);
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
        Overdue { certain_ns, possible_ns: ticker.or(book).map(|_| 0) }
    }

    fn trades(
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
        let overdue = self.behind_trades(truth, s);
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
                let is_next = id == last + self.lost + 1;
                // What came before the subscription may be of several epochs.
                let begins = self.priced_epoch != self.epoch || number <= self.begun_at + 1;
                hold(is_next || begins && id > last + self.lost, "I4", || {
                    format!("trade {id} follows {last}, {} were lost", self.lost)
                })?;
            }
            self.last_trade = Some(id);
            self.priced_epoch = self.epoch;
            self.lost = 0;
        }
        self.held = s;
        counts.trades += prints.len() as u64;
        counts.trades_lost += lost;
        // A body that was split at a loss or at its length has one time for all its parts, and a
        // loss has none of its own.
        let times = (update.tr, update.to);
        let shared_ns = self.part.filter(|(of, _)| *of == times).map(|(_, shared_ns)| shared_ns);
        let own_ns = if lost > 0 { Some(0) } else { overdue.possible_ns };
        let possible_ns = [shared_ns, own_ns].into_iter().flatten().min();
        self.part = possible_ns.map(|possible_ns| (times, possible_ns));
        Ok(Overdue { possible_ns, ..overdue })
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

fn shortened(payload: &[u8]) -> String {
    let text = String::from_utf8_lossy(payload);
    text.chars().take(600).collect()
}

/// Opcode and payload of a frame, and the bytes that follow it.
type SplitFrame<'a> = (u8, &'a [u8], &'a [u8]);

/// The first frame of the bytes, once it is whole.
fn split_frame(bytes: &[u8]) -> Checked<Option<SplitFrame<'_>>> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    hold(first & 0xf0 == 0x80 && second & 0x80 == 0, "protocol", || {
        format!("a frame begins with {first:02x} {second:02x}")
    })?;
    let (length, rest) = match second {
        126 => match rest {
            [a, b, rest @ ..] => (u64::from(u16::from_be_bytes([*a, *b])), rest),
            _ => return Ok(None),
        },
        127 => match rest.split_at_checked(8) {
            Some((length, rest)) => {
                (length.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)), rest)
            }
            None => return Ok(None),
        },
        length => (u64::from(*length), rest),
    };
    Ok(rest.split_at_checked(length as usize).map(|(payload, rest)| (first & 0x0f, payload, rest)))
}
