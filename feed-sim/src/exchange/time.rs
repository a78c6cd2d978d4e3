//! A time of one clock → that of another that runs at another speed.
//!
//! Used by the exchange, whose market, timers and clients each have a time of their own.

/// Goes through one pair of times at one speed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
    /// For `of` nanoseconds there pass `times` here.
    pub(super) times: u64,
    pub(super) of: u64,
}

impl Scale {
    /// The time here.
    pub(super) fn map(&self, at_ns: u64) -> u64 {
        scaled(at_ns, self.from_ns, self.to_ns, self.times, self.of)
    }

    /// The time there.
    pub(super) fn unmap(&self, at_ns: u64) -> u64 {
        scaled(at_ns, self.to_ns, self.from_ns, self.of, self.times)
    }
}

fn scaled(at_ns: u64, from_ns: u64, to_ns: u64, times: u64, of: u64) -> u64 {
    if at_ns == u64::MAX {
        return u64::MAX;
    }
    let (passed_ns, of) = (at_ns.saturating_sub(from_ns), of.max(1));
    // Every event comes by here, and divisions are dear, the wide one most.
    if times == of {
        return to_ns.saturating_add(passed_ns);
    }
    let scaled_ns = passed_ns.checked_mul(times).map_or_else(
        || {
            let wide = u128::from(passed_ns) * u128::from(times) / u128::from(of);
            u64::try_from(wide).unwrap_or(u64::MAX)
        },
        |product| product / of,
    );
    to_ns.saturating_add(scaled_ns)
}
