//! The gateway's one clock: monotonic time, anchored to the wall once and steered towards it ever
//! after, so that a time is good both for measuring a latency and for telling a client when.
//!
//! Every thread holds a clone and reads it; one housekeeping task calls [`Clock::discipline`] about
//! once a second. The clock never steps and never goes back, whatever becomes of the wall clock: it
//! runs up to [`SLEW_PPM_MAX`] faster or slower until the two agree. No other file reads time.

use std::hint;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tickfan_core::market::Nanos;

/// How much faster or slower than the monotonic clock ours may run, in millionths: as much as NTP
/// allows itself. An hour of difference is then made up for in 83 days, and no latency of a
/// millisecond is measured wrong by more than half a microsecond.
pub const SLEW_PPM_MAX: i64 = 500;

/// The rate is the one that would make up for a difference within this many seconds: several times
/// the interval of [`Clock::discipline`], so that a late call does not overshoot.
const HORIZON_S: i64 = 4;

/// Nanoseconds in a second that one millionth is.
const NANOS_PER_PPM_SECOND: i64 = 1_000;

const PPM: i64 = 1_000_000;

/// A handle to the clock; clones share it.
#[derive(Debug, Clone)]
pub struct Clock {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    start: Instant,
    /// The wall clock at `start`.
    base_ns: i64,
    /// The correction in force, packed, or [`CHANGING`].
    correction: AtomicI64,
}

impl Clock {
    /// Starts the clock at the present wall time. A process has one, made by `main`.
    pub fn start() -> Self {
        let base_ns = wall_ns();
        let correction = AtomicI64::new(Correction::default().pack());
        Self { shared: Arc::new(Shared { start: monotonic(), base_ns, correction }) }
    }

    /// The time, in nanoseconds since the Unix epoch. Two readings, of whatever threads, are in the
    /// order in which they were taken.
    pub fn now(&self) -> Nanos {
        let shared = &*self.shared;
        loop {
            let packed = shared.correction.load(Ordering::SeqCst);
            let elapsed_ns = shared.elapsed_ns();
            // A reading counts only if its correction was in force when it was taken: the next one
            // joins on at the moment of the change and not before. Changes take nanoseconds.
            if packed != CHANGING && shared.correction.load(Ordering::SeqCst) == packed {
                return shared.at(Correction::unpack(packed), elapsed_ns) as Nanos;
            }
            hint::spin_loop();
        }
    }

    /// Steers towards the wall clock; returns by how many nanoseconds that is ahead of ours, for the
    /// metrics. To be called about once a second, from one task.
    pub fn discipline(&self) -> i64 {
        let shared = &*self.shared;
        let packed = shared.correction.swap(CHANGING, Ordering::SeqCst);
        if packed == CHANGING {
            return 0;
        }
        let old = Correction::unpack(packed);
        let elapsed_ns = shared.elapsed_ns();
        let ahead_ns = wall_ns() - shared.at(old, elapsed_ns);
        let new = old.steered(elapsed_ns, ahead_ns);
        shared.correction.store(new.pack(), Ordering::SeqCst);
        ahead_ns
    }
}

impl Shared {
    #[expect(clippy::disallowed_methods, reason = "the clock is where time is read")]
    fn elapsed_ns(&self) -> i64 {
        Instant::now().duration_since(self.start).as_nanos() as i64
    }

    fn at(&self, correction: Correction, elapsed_ns: i64) -> i64 {
        self.base_ns + elapsed_ns + correction.at(elapsed_ns)
    }
}

#[expect(clippy::disallowed_methods, reason = "the clock is where time is read")]
fn monotonic() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the clock is where time is read")]
fn wall_ns() -> i64 {
    // A wall clock that stands before 1970 is unset.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64)
}

/// What is added to the monotonic time: a straight line over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Correction {
    /// Its value where the line meets the start of the clock.
    offset_ns: i64,
    /// How much it grows, in millionths of the time elapsed.
    rate_ppm: i64,
}

/// In place of a packed correction while it is being changed.
const CHANGING: i64 = i64::MIN;

/// A rate takes the lowest bits of a packed correction; the rest holds offsets of weeks, which at
/// this rate come up in a century.
const RATE_BITS: u32 = 11;

const _: () = assert!(SLEW_PPM_MAX < 1 << (RATE_BITS - 1), "a rate fits its bits");

impl Correction {
    const fn at(self, elapsed_ns: i64) -> i64 {
        // In 128 bits: a rate times the nanoseconds of a year does not fit 64.
        let grown = (elapsed_ns as i128 * self.rate_ppm as i128).div_euclid(PPM as i128);
        self.offset_ns + grown as i64
    }

    /// The correction from `elapsed_ns` on, when the wall clock is `ahead_ns` of ours: its line
    /// begins where this one is then, and rises or falls towards the wall.
    fn steered(self, elapsed_ns: i64, ahead_ns: i64) -> Self {
        let rate_ppm =
            (ahead_ns / (HORIZON_S * NANOS_PER_PPM_SECOND)).clamp(-SLEW_PPM_MAX, SLEW_PPM_MAX);
        let from_zero = Self { offset_ns: 0, rate_ppm };
        Self { offset_ns: self.at(elapsed_ns) - from_zero.at(elapsed_ns), rate_ppm }
    }

    const fn pack(self) -> i64 {
        (self.offset_ns << RATE_BITS) | (self.rate_ppm & ((1 << RATE_BITS) - 1))
    }

    const fn unpack(packed: i64) -> Self {
        let above = i64::BITS - RATE_BITS;
        Self { offset_ns: packed >> RATE_BITS, rate_ppm: (packed << above) >> above }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    const SECOND_NS: i64 = 1_000_000_000;
    const HOUR_NS: i64 = 3_600 * SECOND_NS;

    /// Our clock beside a wall that is ahead of the monotonic clock by what `wall` says at each
    /// second; returns by how much the wall is ahead of ours in the end.
    fn steer(seconds: i64, wall: impl Fn(i64) -> i64) -> i64 {
        let mut correction = Correction::default();
        for second in 0..seconds {
            let elapsed_ns = second * SECOND_NS;
            let before = correction.at(elapsed_ns);
            correction = correction.steered(elapsed_ns, wall(second) - before);
            assert_eq!(correction.at(elapsed_ns), before, "a step at second {second}");
            let moved = correction.at(elapsed_ns + SECOND_NS) - before;
            assert!(moved.abs() <= SLEW_PPM_MAX * NANOS_PER_PPM_SECOND, "{moved} ns in a second");
            assert_eq!(Correction::unpack(correction.pack()), correction);
        }
        wall(seconds) - correction.at(seconds * SECOND_NS)
    }

    #[test]
    fn a_difference_of_ten_milliseconds_is_gone_in_a_minute() {
        for ahead_ns in [10_000_000, -10_000_000] {
            let left = steer(60, |_| ahead_ns);
            assert!(left.abs() < 10_000, "{left} ns are left of {ahead_ns}");
        }
    }

    #[test]
    fn a_step_of_the_wall_by_an_hour_is_never_one_of_ours() {
        for step_ns in [HOUR_NS, -HOUR_NS] {
            let left = steer(1_000, |second| if second < 500 { 0 } else { step_ns });
            let made_up = SLEW_PPM_MAX * NANOS_PER_PPM_SECOND * 500;
            assert_eq!(left.abs(), HOUR_NS - made_up);
            assert_eq!(left.signum(), step_ns.signum());
        }
    }

    #[test]
    fn a_wall_that_drifts_is_followed() {
        let drift_ns_per_s = 100_000;
        let left = steer(600, |second| second * drift_ns_per_s);
        assert!(left.abs() < 1_000_000, "{left} ns behind");
    }

    proptest! {
        #[test]
        fn later_is_never_earlier(
            offset_ns in -HOUR_NS..HOUR_NS,
            elapsed_ns in 0..100 * 365 * 24 * HOUR_NS,
            later_ns in 0..HOUR_NS,
            ahead_ns in any::<i32>(),
        ) {
            let old = Correction { offset_ns, rate_ppm: SLEW_PPM_MAX };
            let new = old.steered(elapsed_ns, i64::from(ahead_ns) * 1_000);
            let then = elapsed_ns + old.at(elapsed_ns);
            let later = elapsed_ns + later_ns + new.at(elapsed_ns + later_ns);
            prop_assert!(then <= later);
            prop_assert_eq!(Correction::unpack(new.pack()), new);
        }
    }

    #[test]
    fn threads_read_it_in_order_while_it_is_steered() {
        let clock = Clock::start();
        let last = AtomicI64::new(0);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let seen = last.load(Ordering::SeqCst);
                        let now = clock.now() as i64;
                        assert!(seen <= now, "{seen} was read before {now}");
                        last.fetch_max(now, Ordering::SeqCst);
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..20_000 {
                    let ahead_ns = clock.discipline();
                    assert!(ahead_ns.abs() < SECOND_NS, "{ahead_ns} ns from the wall");
                }
            });
        });
    }
}
