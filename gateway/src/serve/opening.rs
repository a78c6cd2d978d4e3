//! When the door opens: a start and the venues' instrument lists → the moment from which clients are
//! told anything.
//!
//! `serve` makes one with each start; the door waits for it on its own thread, while feeds connect. No
//! venue can make it wait longer than `limits.rs` says, and nothing that bears the epoch of this start
//! may leave the gateway before.

use std::pin::pin;
use std::time::Duration;

use tickfan_core::market::{Nanos, Venue};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::limits::{LISTS_WAIT_NS, MILLI_NS, SECOND_NS};
use crate::stats::FeedStats;

/// Epochs begin at the seconds since 2020-01-01.
const EPOCH_ORIGIN_S: Nanos = 1_577_836_800;

/// The wall clock may be slewed meanwhile, by half of this in a second at most.
const SLEW_NS: Nanos = MILLI_NS;

/// What the door waits for.
#[derive(Debug)]
pub(super) struct Opening {
    began_ns: Nanos,
    lists: Vec<AwaitedList>,
}

/// The instrument list of a feed that serves all that is on it.
#[derive(Debug)]
struct AwaitedList {
    venue: Venue,
    stats: FeedStats,
    has_come: watch::Receiver<bool>,
}

impl Opening {
    /// Of a start at this time.
    pub(super) const fn new(began_ns: Nanos) -> Self {
        Self { began_ns, lists: Vec::new() }
    }

    /// The epoch of the start: it is this start's alone, because the door stays shut until its second
    /// is over, so that of two starts within one second the first has told it to nobody.
    pub(super) fn epoch(&self) -> u32 {
        u32::try_from((self.began_ns / SECOND_NS).saturating_sub(EPOCH_ORIGIN_S))
            .unwrap_or(u32::MAX)
    }

    /// One more list to wait for; who has it says `true`.
    pub(super) fn await_list(&mut self, venue: Venue, stats: FeedStats) -> watch::Sender<bool> {
        let (said, has_come) = watch::channel(false);
        self.lists.push(AwaitedList { venue, stats, has_come });
        said
    }

    /// Waits until the door may open.
    pub(super) async fn wait(self) {
        self.wait_within(LISTS_WAIT_NS).await;
    }

    async fn wait_within(self, lists_ns: Nanos) {
        let mut patience = pin!(sleep(Duration::from_nanos(lists_ns)));
        sleep(Duration::from_nanos(second_left_ns(self.began_ns) + SLEW_NS)).await;
        for AwaitedList { venue, stats, mut has_come } in self.lists {
            let is_there = tokio::select! {
                biased;
                // An error means that the feed failed for good.
                said = has_come.wait_for(|has| *has) => said.is_ok(),
                () = &mut patience => false,
            };
            if !is_there {
                stats.lists_missed.inc();
                tracing::warn!(
                    venue = venue.name(),
                    "its instrument list has not come; clients are let in without its symbols"
                );
            }
        }
    }
}

/// What is left of the second.
const fn second_left_ns(now: Nanos) -> Nanos {
    SECOND_NS - now % SECOND_NS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Stats;

    const SECOND: Nanos = (EPOCH_ORIGIN_S + 7) * SECOND_NS;

    #[test]
    fn an_epoch_is_over_when_the_door_opens() {
        for (began_ns, epoch) in [(SECOND, 7), (SECOND + 1, 7), (SECOND + SECOND_NS - 1, 7)] {
            assert_eq!(Opening::new(began_ns).epoch(), epoch);
            assert_eq!(Opening::new(began_ns + second_left_ns(began_ns)).epoch(), epoch + 1);
        }
        assert_eq!(Opening::new(1).epoch(), 0, "a clock that is not set");
    }

    #[test]
    fn one_list_that_does_not_come_in_time_is_counted_and_waited_for_no_longer() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let stats = Stats::default();
            let missed = |venue| stats.feed(venue).lists_missed.get();
            // The last moment of a second, so that it is the lists that are waited for.
            let mut opening = Opening::new(SECOND + SECOND_NS - 1);
            let venues = [Venue::Sim, Venue::Kraken, Venue::Okx];
            let [here, never, gone] = venues.map(|v| opening.await_list(v, stats.feed(v)));
            here.send_replace(true);
            drop(gone);
            // It would never end: nobody says that the second has come.
            opening.wait_within(20 * MILLI_NS).await;
            assert_eq!(venues.map(missed), [0, 1, 1]);
            drop(never);
        });
    }
}
