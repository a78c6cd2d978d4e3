//! Numbers as the venue writes them → levels at the scales of the instrument, which grow where they
//! must.
//!
//! Called by the instrument for every event. It never rounds: what cannot be held exactly is an
//! error, and what needs finer scales begins an epoch.

use tickfan_core::book::Book;
use tickfan_core::decimal::{Decimal, DecimalError};
use tickfan_core::market::{
    BookEvent, Channel, Level, LevelChange, Nanos, Px, Qty, Scales, Side, State, Why,
};

use super::Context;
use super::draft::Draft;
use crate::limits::{FIRST_SCALE_MAX, GUESSED_MANTISSA_MAX};

/// Memory that one event needs, reused from event to event.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(super) bids: Vec<Level>,
    pub(super) asks: Vec<Level>,
}

/// Why a number cannot be taken as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Misfit {
    /// The instrument's scales must grow to these.
    Finer(Scales),
    /// It does not fit 64 bits, or is negative.
    Never,
}

impl Draft {
    /// Reads levels at the instrument's scales into the scratch; grows the scales where needed.
    pub(super) fn read_levels(
        &mut self,
        [bids, asks]: [&[LevelChange]; 2],
        now: Nanos,
        context: &mut Context<'_>,
    ) -> Result<(), Why> {
        loop {
            let read = read(bids, self.next.scales, &mut context.scratch.bids)
                .and_then(|()| read(asks, self.next.scales, &mut context.scratch.asks));
            match read {
                Ok(()) => return Ok(()),
                Err(Misfit::Never) => return Err(Why::ScaleChange),
                Err(Misfit::Finer(scales)) => {
                    if !self.grow_scales(scales, now) {
                        return Err(Why::ScaleChange);
                    }
                    context.stats.scale_changes.inc();
                }
            }
        }
    }

    /// Before the image of an instrument without a listing, the scales are guessed from the first
    /// numbers that come: as fine as a scale may begin, with room for larger numbers.
    pub(super) fn guess_scales(&mut self, sides: [&[LevelChange]; 2]) {
        if self.scales_known || self.next.version > 0 {
            return;
        }
        let roomy = |value: Decimal, scale: u8| {
            value.at_scale(scale).is_ok_and(|m| m.unsigned_abs() <= GUESSED_MANTISSA_MAX)
        };
        let finest = finest(sides);
        let guess = |least: u8, value: fn(&LevelChange) -> Decimal| {
            (least..FIRST_SCALE_MAX)
                .take_while(|s| sides.into_iter().flatten().all(|c| roomy(value(c), s + 1)))
                .last()
                .map_or(least, |s| s + 1)
        };
        self.next.scales = Scales {
            px: guess(finest.px, |change| change.px),
            qty: guess(finest.qty, |change| change.qty),
        };
    }

    /// The image of an instrument without a listing tells its scales.
    pub(super) fn learn_scales(
        &mut self,
        image: &BookEvent,
        sides: [&[LevelChange]; 2],
        now: Nanos,
    ) {
        if std::mem::replace(&mut self.scales_known, true) {
            return;
        }
        let first = first_scales(image, sides);
        let old = self.next.scales;
        if self.next.version == 0 {
            self.next.scales = first;
        } else if first.px > old.px || first.qty > old.qty {
            // Where it cannot be, what follows will show whether it must be.
            self.grow_scales(first, now);
        }
    }

    /// Expresses everything held in finer units: the values stay, and every channel begins an epoch.
    pub(super) fn grow_scales(&mut self, finer: Scales, now: Nanos) -> bool {
        let old = self.next.scales;
        let scales = Scales { px: old.px.max(finer.px), qty: old.qty.max(finer.qty) };
        let (Ok(px_factor), Ok(qty_factor)) = (
            Decimal { mantissa: 1, scale: old.px }.at_scale(scales.px),
            Decimal { mantissa: 1, scale: old.qty }.at_scale(scales.qty),
        ) else {
            return false;
        };
        let rescaled = |best: Option<Level>| match best {
            None => Some(None),
            Some(level) => Some(Some(Level {
                px: Px(level.px.0.checked_mul(px_factor)?),
                qty: Qty(level.qty.0.checked_mul(qty_factor)?),
            })),
        };
        let mut book = self.next.book.book.clone();
        let mut tail = self.next.trades.tail.clone();
        let (Some(bid), Some(ask)) = (rescaled(self.next.bbo.bid), rescaled(self.next.bbo.ask))
        else {
            return false;
        };
        if !book.bids.rescale(px_factor, qty_factor)
            || !book.asks.rescale(px_factor, qty_factor)
            || !tail.rescale(px_factor, qty_factor)
        {
            return false;
        }
        self.next.book.book = book;
        self.next.trades.tail = tail;
        self.next.bbo.bid = bid;
        self.next.bbo.ask = ask;
        self.next.scales = scales;
        if self.next.version > 0 {
            // It is told anew, and has not waited since it changed last.
            self.next.bbo.tr_ns = now;
            for channel in Channel::ALL {
                // No epoch ends unannounced: what was held is told to be void, then comes anew.
                let before = *self.next.status(*channel);
                self.turn(*channel, State::Gap, Why::ScaleChange, now);
                self.next.status_mut(*channel).begin_epoch();
                let why = if before.state == State::Live { Why::ScaleChange } else { before.why };
                self.turn(*channel, before.state, why, now);
                self.touch(*channel, now);
            }
        }
        true
    }
}

fn read(changes: &[LevelChange], scales: Scales, out: &mut Vec<Level>) -> Result<(), Misfit> {
    out.clear();
    for change in changes {
        match (change.px.at_scale(scales.px), change.qty.at_scale(scales.qty)) {
            (Ok(px), Ok(qty)) if qty >= 0 => out.push(Level { px: Px(px), qty: Qty(qty) }),
            (Err(DecimalError::TooFine), _) | (_, Err(DecimalError::TooFine)) => {
                return Err(Misfit::Finer(finest([changes, &[]])));
            }
            _ => return Err(Misfit::Never),
        }
    }
    Ok(())
}

/// The scales that hold every value.
fn finest(sides: [&[LevelChange]; 2]) -> Scales {
    let mut scales = Scales::default();
    for change in sides.into_iter().flatten() {
        scales.px = scales.px.max(change.px.scale);
        scales.qty = scales.qty.max(change.qty.scale);
    }
    scales
}

/// The scales of an instrument without a listing: the digits that the venue writes, so that a finer
/// price later is rare, unless its values do not fit then.
fn first_scales(image: &BookEvent, sides: [&[LevelChange]; 2]) -> Scales {
    let needed = finest(sides);
    let written = Scales {
        px: needed.px.max(image.px_digits.min(FIRST_SCALE_MAX)),
        qty: needed.qty.max(image.qty_digits.min(FIRST_SCALE_MAX)),
    };
    let fits = |scales: Scales| {
        sides.into_iter().flatten().all(|change| {
            change.px.at_scale(scales.px).is_ok() && change.qty.at_scale(scales.qty).is_ok()
        })
    };
    if fits(written) { written } else { needed }
}

/// Sets every level; returns whether that changed anything.
pub(super) fn apply(book: &mut Book, scratch: &Scratch) -> bool {
    let mut changed = false;
    for (side, levels) in [(Side::Bid, &scratch.bids), (Side::Ask, &scratch.asks)] {
        let side = book.side_mut(side);
        for level in levels {
            changed |= side.set(level.px, level.qty);
        }
    }
    changed
}

/// Cuts both sides; returns whether anything was removed.
pub(super) fn truncate(book: &mut Book, depth: usize) -> bool {
    let bids = book.bids.truncate(depth);
    let asks = book.asks.truncate(depth);
    bids || asks
}
