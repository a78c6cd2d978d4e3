//! What a group of clients received, added up.

use anyhow::Result;
use hdrhistogram::Histogram;

/// Latencies up to this are told apart; longer ones count as this.
const LATENCY_NS_MAX: u64 = 120_000_000_000;

/// Counts and latencies of one group over the window of one order.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    /// Updates.
    pub(crate) updates: u64,
    /// Events that those stand for.
    pub(crate) changes: u64,
    /// Events that were skipped although every one was due.
    pub(crate) missing: u64,
    /// Updates that the gateway marked as over their budget.
    pub(crate) late: u64,
    /// Reads of clients that are checked.
    pub(crate) reads: u64,
    /// Bytes of clients that are checked.
    pub(crate) bytes: u64,
    /// Bytes of the others.
    pub(crate) bytes_unchecked: u64,
    /// Read − intended, of the newest event in an update.
    pub(crate) received: Histogram<u64>,
    /// Read − intended, of the oldest event in an update.
    pub(crate) oldest: Histogram<u64>,
    /// Venue bytes in − intended.
    pub(crate) venue: Histogram<u64>,
    /// Send begun − venue bytes in.
    pub(crate) gateway: Histogram<u64>,
    /// Read − send begun.
    pub(crate) wire: Histogram<u64>,
    /// Read − venue bytes in.
    pub(crate) inside: Histogram<u64>,
}

impl Tally {
    /// Nothing received.
    ///
    /// # Errors
    /// Never, as the bounds are right.
    pub(crate) fn new() -> Result<Self> {
        let histogram = || Histogram::new_with_bounds(1_000, LATENCY_NS_MAX, 3);
        Ok(Self {
            updates: 0,
            changes: 0,
            missing: 0,
            late: 0,
            reads: 0,
            bytes: 0,
            bytes_unchecked: 0,
            received: histogram()?,
            oldest: histogram()?,
            venue: histogram()?,
            gateway: histogram()?,
            wire: histogram()?,
            inside: histogram()?,
        })
    }
}

/// A time that may have come out negative, because two readings of a clock need not be ordered.
pub(crate) fn record(histogram: &mut Histogram<u64>, from_ns: u64, to_ns: u64) {
    histogram.saturating_record(to_ns.saturating_sub(from_ns));
}
