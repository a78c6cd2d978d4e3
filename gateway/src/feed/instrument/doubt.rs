//! What speaks against a book that is served: crossed sides, missing heartbeats and trades, checksums
//! that differ.
//!
//! Called by the instrument after its events, and by the feed when time passes. Any doubt makes the
//! book suspect; it takes a known loss to take it away.

use tickfan_core::decimal::{Decimal, SCALE_MAX};
use tickfan_core::market::{Nanos, Side, Trading, Why};

use super::{Context, ImageWant, InstrumentFeed};
use crate::limits::{CROSSED_GRACE_NS, MISMATCHES_MAX, MISMATCHES_NS, TRADES_GRACE_NS};
use crate::mutant::{Mutant, planted};

/// A trade that the venue's heartbeat names and that has not come.
#[derive(Debug, Clone, Copy)]
struct AwaitedTrade {
    number: u64,
    until_ns: Nanos,
    /// It was there before the connection was: lost, but no word against what came since.
    is_older: bool,
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
}

impl Doubts {
    /// The gravest, which is the one that is told.
    pub(super) fn gravest(&self) -> Option<Why> {
        [
            (self.are_trades_missing, Why::TradesMissing),
            (self.crossed.is_some(), Why::Crossed),
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
        [self.crossed, heartbeat_ns, trade_ns].into_iter().flatten().min().unwrap_or(Nanos::MAX)
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
        self.are_trades_missing = false;
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

    /// That time has come.
    pub fn on_time(&mut self, now: Nanos, context: &mut Context<'_>) {
        if self.doubts.crossed.is_some_and(|at_ns| at_ns <= now) {
            self.doubts.crossed = Some(Nanos::MAX);
            // An auction may cross; trading that goes on begins a new time of grace.
            if self.trading == Trading::Open {
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
                self.doubts.are_trades_missing = true;
                self.ask_anew(now, context);
            }
        }
        self.settle_all(now, context.rules);
    }

    /// The venue's sign of life for the instrument.
    pub fn heartbeat(&mut self, newest_trade: Option<u64>, now: Nanos, context: &mut Context<'_>) {
        let Some(every_ns) = context.rules.heartbeat_ns else { return };
        if self.trading == Trading::Ended {
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

    /// The book is served and in doubt: its image is asked for, and meanwhile it goes on.
    fn ask_anew(&mut self, now: Nanos, context: &mut Context<'_>) {
        if self.want == ImageWant::Here && self.next.book.status.state.flows() {
            let jitter = context.jitter();
            self.want_image_later(now, jitter);
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
        let book = &self.next.book.book;
        let top = |side: Side| -> Option<Vec<(i64, i64)>> {
            book.side(side)
                .iter()
                .take(checksum.levels)
                .map(|level| {
                    Some((
                        at_digits(level.px.0, self.next.scales.px, self.digits.px)?,
                        at_digits(level.qty.0, self.next.scales.qty, self.digits.qty)?,
                    ))
                })
                .collect()
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

/// A mantissa at another number of digits; `None` when digits would be lost.
fn at_digits(mantissa: i64, scale: u8, digits: u8) -> Option<i64> {
    if digits >= scale {
        return Decimal { mantissa, scale }.at_scale(digits.min(SCALE_MAX)).ok();
    }
    let power = Decimal { mantissa: 1, scale: digits }.at_scale(scale).ok()?;
    (mantissa % power == 0).then(|| mantissa / power)
}
