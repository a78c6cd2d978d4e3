//! What speaks against a book that is served: crossed sides, missing heartbeats and trades, checksums
//! that differ.
//!
//! Called by the instrument after its events, and by the feed when time passes. Any doubt makes the
//! book suspect; it takes a known loss to take it away.

use tickfan_core::decimal::{Decimal, SCALE_MAX};
use tickfan_core::market::{BookEvent, Nanos, Side, Trading, Why};

use super::{Context, ImageWant, InstrumentFeed};
use crate::limits::{
    CROSSED_GRACE_NS, HAND_OVER_LAG_NS_MAX, MISMATCHES_MAX, MISMATCHES_NS, TRADES_GRACE_NS,
};
use crate::mutant::{Mutant, planted};

/// A trade that the venue's heartbeat names and that has not come.
#[derive(Debug, Clone, Copy)]
struct AwaitedTrade {
    number: u64,
    until_ns: Nanos,
    /// It was there before the connection was: lost, but no word against what came since.
    is_older: bool,
}

/// The book is ahead of the connection that it was handed over to.
#[derive(Debug, Clone, Copy)]
struct Lead {
    /// The sequence that the connection has to reach.
    sequence: u64,
    until_ns: Nanos,
}

/// What speaks against a book, and what will when time passes.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// The sides cross: the book is to be asked for anew at this time, or was (the end of time).
    crossed: Option<Nanos>,
    /// When the next heartbeat is overdue, once there was one.
    heartbeat_due_ns: Option<Nanos>,
    is_heartbeat_missing: bool,
    awaited: Option<AwaitedTrade>,
    are_trades_missing: bool,
    /// When the first checksum over an image differed, time after time.
    mismatches_ns: Vec<Nanos>,
    is_checksum_off: bool,
    lead: Option<Lead>,
    /// The subscription was ended to have the image anew: that the sides cross no more may be the last
    /// that was under way.
    is_stream_ended: bool,
}

impl Doubts {
    /// The gravest, which is the one that is told.
    pub(super) fn gravest(&self) -> Option<Why> {
        [
            (self.are_trades_missing, Why::TradesMissing),
            (self.crossed.is_some() || self.is_stream_ended, Why::Crossed),
            (self.is_heartbeat_missing, Why::HeartbeatMissing),
            (self.is_checksum_off, Why::ChecksumOff),
        ]
        .into_iter()
        .find_map(|(speaks, why)| speaks.then_some(why))
    }

    /// When time passing says something next.
    pub(super) fn due_ns(&self) -> Nanos {
        let heartbeat_ns = self.heartbeat_due_ns.filter(|_| !self.is_heartbeat_missing);
        let trade_ns = self.awaited.map(|trade| trade.until_ns);
        let lead_ns = self.lead.map(|lead| lead.until_ns);
        [self.crossed, heartbeat_ns, trade_ns, lead_ns]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(Nanos::MAX)
    }

    /// The sides cross, or do not.
    pub(super) fn crosses(&mut self, is_crossed: bool, now: Nanos) {
        self.crossed = is_crossed.then(|| self.crossed.unwrap_or(now + CROSSED_GRACE_NS));
    }

    /// Sides that cross have their time of grace again: trading goes on, or an image came.
    pub(super) const fn forgive_cross(&mut self) {
        self.crossed = None;
    }

    /// An image came: no trade that is missing can be missing in it.
    pub(super) const fn renew(&mut self) {
        self.forgive_cross();
        self.catch_up();
        self.are_trades_missing = false;
        self.is_stream_ended = false;
    }

    /// The book is ahead of the connection that it was handed over to, up to this sequence.
    pub(super) fn lead(&mut self, sequence: Option<u64>, now: Nanos) {
        let until_ns = now + HAND_OVER_LAG_NS_MAX;
        self.lead = sequence.map(|sequence| Lead { sequence, until_ns });
    }

    /// The book stands where its connection does.
    pub(super) const fn catch_up(&mut self) {
        self.lead = None;
    }

    /// Trades up to this number have come.
    pub(super) fn have_come(&mut self, number: u64) {
        self.awaited = self.awaited.filter(|trade| trade.number > number);
    }

    /// The first checksum over an image differs; returns whether it is to be believed no longer.
    fn mismatches(&mut self, now: Nanos) -> bool {
        self.mismatches_ns.retain(|then_ns| now < then_ns + MISMATCHES_NS);
        self.mismatches_ns.push(now);
        self.is_checksum_off = self.mismatches_ns.len() >= MISMATCHES_MAX;
        self.is_checksum_off
    }
}

impl InstrumentFeed {
    /// When time passing says something against the book next.
    pub fn due_ns(&self) -> Nanos {
        self.doubts.due_ns()
    }

    /// The event is in the book, which is ahead of the connection that it was handed over to.
    pub(super) fn is_ahead_of(&mut self, event: &BookEvent) -> bool {
        let (Some(lead), Some(event)) = (self.doubts.lead, event.continuity) else { return false };
        if event.last >= lead.sequence {
            self.doubts.catch_up();
        }
        event.last <= lead.sequence
    }

    /// That time has come.
    pub fn on_time(&mut self, now: Nanos, context: &mut Context<'_>) {
        if self.doubts.lead.is_some_and(|lead| lead.until_ns <= now) {
            self.wrong(Why::SequenceGap, now, context);
        }
        if self.doubts.crossed.is_some_and(|at_ns| at_ns <= now) {
            self.doubts.crossed = Some(Nanos::MAX);
            // An auction may cross; trading that goes on begins a new time of grace.
            if self.phase.trading == Trading::Open {
                self.ask_anew(now, context);
            }
        }
        let is_overdue = self.doubts.heartbeat_due_ns.is_some_and(|due_ns| due_ns <= now);
        if is_overdue && !std::mem::replace(&mut self.doubts.is_heartbeat_missing, true) {
            context.stats.heartbeats_missed.inc();
        }
        if let Some(trade) = self.doubts.awaited.filter(|trade| trade.until_ns <= now) {
            self.doubts.awaited = None;
            self.miss_trades(trade.number, now, context);
            if !trade.is_older {
                self.doubt_for_trades(now, context);
            }
        }
        self.settle_all(now, context.rules);
    }

    /// The venue's sign of life for the instrument.
    pub fn heartbeat(&mut self, newest_trade: Option<u64>, now: Nanos, context: &mut Context<'_>) {
        let Some(every_ns) = context.rules.heartbeat_ns else { return };
        if self.phase.has_ended() {
            return;
        }
        let is_first = self.doubts.heartbeat_due_ns.replace(now + every_ns).is_none();
        self.doubts.is_heartbeat_missing = false;
        if let Some(number) = newest_trade
            && self.counting.is_missing(number)
        {
            let until_ns = now + TRADES_GRACE_NS;
            let trade = AwaitedTrade { number, until_ns, is_older: is_first };
            self.doubts.awaited.get_or_insert(trade);
        }
        self.settle_all(now, context.rules);
    }

    /// Trades were lost on this connection: what else was, nobody can tell.
    pub(super) fn doubt_for_trades(&mut self, now: Nanos, context: &mut Context<'_>) {
        self.doubts.are_trades_missing = true;
        self.ask_anew(now, context);
    }

    /// A book that is served is to be asked for anew, and nothing speaks against it any more.
    pub fn is_cleared(&self) -> bool {
        self.draft.next.book.status.state.flows() && self.doubts.gravest().is_none()
    }

    /// The subscription of the book is ended for a new image: if it is served, it stands still meanwhile.
    pub fn ends_stream(&mut self) {
        self.doubts.is_stream_ended = self.draft.next.book.status.state.flows();
    }

    /// The book is served and in doubt: its image is asked for, and meanwhile it goes on.
    fn ask_anew(&mut self, now: Nanos, context: &mut Context<'_>) {
        if self.want.image == ImageWant::Here && self.draft.next.book.status.state.flows() {
            let jitter = context.jitter();
            self.want.retry(now, jitter);
        }
    }

    /// Holds the book against the venue's checksum, after an image or a change.
    pub(super) fn prove(
        &mut self,
        expected: Option<u32>,
        is_image: bool,
        now: Nanos,
        context: &Context<'_>,
    ) -> Result<(), Why> {
        let (Some(expected), Some(checksum)) = (expected, context.rules.checksum) else {
            return Ok(());
        };
        if self.doubts.is_checksum_off || planted(Mutant::ChecksumIgnored) {
            return Ok(());
        }
        let book = &self.draft.next.book.book;
        let px = Respelling::new(self.draft.next.scales.px, self.digits.px);
        let qty = Respelling::new(self.draft.next.scales.qty, self.digits.qty);
        let top = |side: Side| -> Option<Vec<(i64, i64)>> {
            let (px, qty) = (px?, qty?);
            let side = book.side(side);
            let mut top = Vec::with_capacity(side.len().min(checksum.levels));
            for level in side.iter().take(checksum.levels) {
                top.push((px.of(level.px.0)?, qty.of(level.qty.0)?));
            }
            Some(top)
        };
        if let (Some(bids), Some(asks)) = (top(Side::Bid), top(Side::Ask))
            && (checksum.compute)(&bids, &asks, self.digits) == expected
        {
            if !is_image {
                // It can be right: when it differs next, something was lost.
                self.doubts.mismatches_ns.clear();
            }
            return Ok(());
        }
        if self.doubts.mismatches(now) {
            context.stats.checksums_off.inc();
            tracing::warn!(
                symbol = %self.entry.instrument.symbol,
                "the venue's checksum differs from image after image of its own, and is not asked \
                 until the next connection"
            );
            return Ok(());
        }
        Err(Why::ChecksumMismatch)
    }
}

/// How mantissas become those of another number of digits.
#[derive(Debug, Clone, Copy)]
enum Respelling {
    /// Each is the same number times this.
    Times(i64),
    /// Each is the same number through this.
    Over(i64),
}

impl Respelling {
    /// From a scale to the digits that a venue writes.
    fn new(scale: u8, digits: u8) -> Option<Self> {
        let power = |digits| Decimal { mantissa: 1, scale: 0 }.at_scale(digits).ok();
        match digits.min(SCALE_MAX).checked_sub(scale) {
            Some(more) => power(more).map(Self::Times),
            None => power(scale - digits).map(Self::Over),
        }
    }

    /// The same value; `None` when digits would be lost or it does not fit.
    fn of(self, mantissa: i64) -> Option<i64> {
        match self {
            Self::Times(power) => mantissa.checked_mul(power),
            Self::Over(power) => (mantissa % power == 0).then(|| mantissa / power),
        }
    }
}
