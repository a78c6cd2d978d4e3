//! How often a seat may be sent to: no two sends closer than three quarters of its budget, unless
//! something that must not wait says so.
//!
//! A checker of one connection tells it every frame; a seat is the connection's place in a class. What
//! one send carries has one time.

use std::collections::BTreeMap;

use tickfan_core::market::Nanos;

use super::checker::{Checked, hold};
use crate::limits::SEND_BYTES;

/// One seat as its client sees it.
#[derive(Debug, Default)]
struct Seat {
    /// When it was sent to last.
    sent_ns: Nanos,
    /// Something since then lets it be sent to at once.
    is_excused: bool,
    /// Wholes that were asked for and may not have come yet.
    wholes: u32,
}

/// What one seat gets in the send that is being read.
#[derive(Debug, Default, Clone, Copy)]
struct Part {
    /// A state, a new epoch or a first whole.
    is_urgent: bool,
}

/// The seats of one connection, by budget.
#[derive(Debug, Default)]
pub(super) struct Pace {
    seats: BTreeMap<Nanos, Seat>,
    ts_ns: Nanos,
    bytes: usize,
    is_carried: bool,
    /// A view is so large that it travels alone: a send may end before it, and go on at once.
    pub(super) has_large: bool,
    parts: BTreeMap<Nanos, Part>,
    /// Sends that came as early as a pace allows.
    pub(super) judged: u64,
}

/// Three quarters of a budget.
const fn pace_ns(budget_ns: Nanos) -> Nanos {
    budget_ns / 4 * 3
}

/// Waits end on a grid of a twenty-fifth of the budget.
pub(super) const fn on_grid(at_ns: Nanos, budget_ns: Nanos) -> Nanos {
    match budget_ns / 25 {
        0 => at_ns,
        grid_ns => at_ns.next_multiple_of(grid_ns),
    }
}

impl Pace {
    /// A frame begins.
    pub(super) fn frame(&mut self, ts_ns: Nanos, bytes: usize) -> Checked {
        if ts_ns != self.ts_ns {
            self.end_send()?;
            self.ts_ns = ts_ns;
            self.bytes = 0;
        }
        self.bytes += bytes;
        Ok(())
    }

    /// The frame has an update of this class.
    pub(super) fn update(&mut self, budget_ns: Nanos, is_urgent: bool) {
        self.parts.entry(budget_ns).or_default().is_urgent |= is_urgent;
    }

    /// An answer came, or the connection takes bytes again: whatever waits may go.
    pub(super) fn excuse_all(&mut self) -> Checked {
        self.end_send()?;
        for seat in self.seats.values_mut() {
            seat.is_excused = true;
        }
        Ok(())
    }

    /// Something that belongs to no seat is sent: those that have rested for half of their pace may
    /// join it.
    pub(super) fn carries(&mut self) -> Checked {
        self.end_send()?;
        self.is_carried = true;
        Ok(())
    }

    /// A view of this class is to be sent whole.
    pub(super) fn asked_whole(&mut self, budget_ns: Nanos) {
        self.seats.entry(budget_ns).or_default().wholes += 1;
    }

    /// Until when a seat that is sent to as rarely as it may be is not sent to again.
    pub(super) fn rests_until_ns(&self, budget_ns: Nanos) -> Nanos {
        let is_in_send = self.parts.contains_key(&budget_ns);
        let sent_ns = self.seats.get(&budget_ns).map_or(0, |seat| seat.sent_ns);
        let sent_ns = if is_in_send { self.ts_ns } else { sent_ns };
        on_grid(sent_ns + pace_ns(budget_ns), budget_ns)
    }

    /// All of a send was read.
    pub(super) fn end_send(&mut self) -> Checked {
        let parts = std::mem::take(&mut self.parts);
        // A send as long as it may become goes on at once in the next.
        let is_long = self.bytes >= SEND_BYTES || self.has_large;
        let mut is_any_due = !parts.is_empty() && std::mem::take(&mut self.is_carried);
        let mut joining = Vec::new();
        for (budget_ns, part) in &parts {
            let seat = self.seats.entry(*budget_ns).or_default();
            let since_ns = self.ts_ns.saturating_sub(seat.sent_ns);
            let is_due = since_ns >= pace_ns(*budget_ns);
            if is_due || part.is_urgent || seat.is_excused || is_long {
                is_any_due = true;
                self.judged += u64::from(is_due && *budget_ns > 0);
            } else {
                joining.push((*budget_ns, since_ns));
            }
            seat.sent_ns = self.ts_ns;
            seat.is_excused = is_long;
        }
        for (budget_ns, _) in &joining {
            let seat = self.seats.entry(*budget_ns).or_default();
            is_any_due |= seat.wholes > 0;
        }
        for (budget_ns, since_ns) in joining {
            let may_join = is_any_due && since_ns >= pace_ns(budget_ns) / 2;
            let seat = self.seats.entry(budget_ns).or_default();
            let is_asked = !may_join && seat.wholes > 0;
            seat.wholes -= u32::from(is_asked);
            hold(may_join || is_asked, "I5", || {
                format!(
                    "at {} a seat of {budget_ns} ns is sent to again after {since_ns} ns; {parts:?}",
                    self.ts_ns
                )
            })?;
        }
        Ok(())
    }
}
