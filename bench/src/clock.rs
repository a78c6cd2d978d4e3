//! The one place of this package that reads a clock.
//!
//! Used for deadlines and to say how long something took. Whether a gateway is right never depends
//! on it.

use std::time::Instant;

/// Now, on the machine's monotonic clock.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Now, in nanoseconds since the Unix epoch: what the processes of a measurement have in common.
pub(crate) fn wall_ns() -> u64 {
    feed_sim::clock::wall_ns()
}
