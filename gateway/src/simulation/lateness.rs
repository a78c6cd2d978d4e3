//! How late an update may be called: since when its reader waited, by the truth's own receipts.
//!
//! The checker of one connection calls it for each update of a frame. Where only the gateway can know
//! which of several changes a lane had told already, what it says must name one of them: every time
//! here is a whole microsecond, so there is nothing to round.

use tickfan_core::market::Nanos;

use super::checker::{Checked, Counts, hold};
use super::venue::MICRO_NS;

/// Since when a client waits for what it has not been sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Overdue {
    /// What it holds has been wrong for at least this long.
    pub(super) certain_ns: Option<Nanos>,
    /// The first change of the channel that it was not sent, be it out of its view or taken back.
    pub(super) possible_ns: Option<Nanos>,
    /// The update itself names the one that counts.
    pub(super) told_ns: Option<Nanos>,
}

impl Overdue {
    pub(super) fn saw(
        &mut self,
        received_ns: Option<Nanos>,
        after_ns: Nanos,
        differs: impl FnOnce() -> bool,
    ) {
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

    pub(super) fn may_be(&mut self, received_ns: Option<Nanos>) {
        if let Some(received_ns) = received_ns {
            let first = self.possible_ns.map_or(received_ns, |first| first.min(received_ns));
            self.possible_ns = Some(first);
        }
    }

    /// The update says of itself that its oldest change was received at this time.
    pub(super) fn is_told(&mut self, to_ns: Nanos, moments: &[Nanos]) -> Checked {
        let (first, last) = (self.possible_ns.unwrap_or(0), self.certain_ns.unwrap_or(Nanos::MAX));
        let is_known = moments.binary_search(&to_ns).is_ok();
        hold(is_known && (first..=last).contains(&to_ns), "I5", || {
            format!("to is {to_ns}, received: {is_known}, {self:?}")
        })?;
        self.told_ns = Some(to_ns);
        Ok(())
    }
}

/// What the lateness of an update depends on besides its own times.
#[derive(Debug, Clone, Copy)]
pub(super) struct Circumstances<'a> {
    pub(super) budget_ns: Nanos,
    pub(super) ts_ns: Nanos,
    /// Until when the connection was blocked last.
    pub(super) hindered_ns: Nanos,
    /// When the gateway was told anything about the channel.
    pub(super) moments: &'a [Nanos],
}

/// An update in `late`, and since when it may have been waited for.
#[derive(Debug)]
struct Late {
    budget_ns: Nanos,
    latest_ns: Nanos,
    /// `late_us`, should it be of this update.
    is_named: bool,
}

/// How late the updates of one frame were.
#[derive(Debug)]
pub(super) struct Lateness<'a> {
    listed: &'a [usize],
    late_us: u64,
    ts_ns: Nanos,
    late: Vec<Late>,
}

impl<'a> Lateness<'a> {
    pub(super) const fn new(listed: &'a [usize], late_us: u64, ts_ns: Nanos) -> Self {
        Self { listed, late_us, ts_ns, late: Vec::new() }
    }

    /// The gateway calls this update late.
    pub(super) fn lists(&self, index: usize) -> bool {
        self.listed.contains(&index)
    }

    /// Judges one update by the times since which it was waited for.
    pub(super) fn judge(
        &mut self,
        index: usize,
        overdue: Overdue,
        of: Circumstances<'_>,
        counts: &mut Counts,
    ) -> Checked {
        let Circumstances { budget_ns, ts_ns, hindered_ns, moments } = of;
        let over = |since: Option<Nanos>| match since {
            Some(since) if budget_ns > 0 => ts_ns.saturating_sub(since).saturating_sub(budget_ns),
            _ => 0,
        };
        let earliest_ns = overdue.told_ns.or(overdue.possible_ns);
        let latest_ns = overdue.told_ns.or(overdue.certain_ns);
        let (at_least_ns, at_most_ns) = (over(latest_ns), over(earliest_ns));
        let is_listed = self.lists(index);
        hold(is_listed || at_least_ns == 0, "I5", || {
            format!(
                "update {index} is {at_least_ns} ns over its budget of {budget_ns} ns and not in late"
            )
        })?;
        hold(!is_listed || at_most_ns > 0, "I5", || {
            format!(
                "update {index} is in late and within its budget of {budget_ns} ns: {overdue:?}"
            )
        })?;
        if at_least_ns == 0 && at_most_ns > 0 {
            counts.undecided += 1;
        }
        if !is_listed {
            return Ok(());
        }
        let since_ns = ts_ns - budget_ns;
        let latest_ns = latest_ns.unwrap_or(Nanos::MAX).min(since_ns - MICRO_NS);
        let earliest_ns = earliest_ns.unwrap_or(0);
        let is_named = since_ns.checked_sub(self.late_us * MICRO_NS).is_some_and(|named_ns| {
            (earliest_ns..=latest_ns).contains(&named_ns)
                && moments.binary_search(&named_ns).is_ok()
        });
        if hindered_ns >= latest_ns {
            counts.late_client += 1;
        } else if hindered_ns < earliest_ns {
            counts.late_gateway += 1;
        } else {
            counts.late_either += 1;
        }
        self.late.push(Late { budget_ns, latest_ns, is_named });
        Ok(())
    }

    /// The frame is read: its `late_us` is that of the worst of them.
    pub(super) fn finish(&self) -> Checked {
        let (ts_ns, late_us) = (self.ts_ns, self.late_us);
        let over_us = |budget_ns: Nanos, since_ns: Nanos| {
            ts_ns.saturating_sub(since_ns).saturating_sub(budget_ns) / MICRO_NS
        };
        let worst_us = self.late.iter().map(|late| over_us(late.budget_ns, late.latest_ns)).max();
        let is_worst = worst_us.unwrap_or(0) <= late_us;
        let is_named = self.late.is_empty() || self.late.iter().any(|late| late.is_named);
        hold(is_worst && is_named, "I5", || {
            format!("late_us is {late_us} of {:?} and names no receipt of them", self.late)
        })
    }
}
