//! Every counter and histogram of the gateway, and their text for `/metrics`.
//!
//! Counters are atomics that their owners raise without looking anything up: handles are resolved at
//! start. A label is always one of a fixed set, never something that a client or venue wrote.

use std::sync::Arc;

use hdrhistogram::Histogram;
use prometheus_client::encoding::{EncodeLabelSet, text::encode};
pub use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tickfan_core::market::{Nanos, Venue};
use tickfan_core::view::BudgetClass;
use tickfan_core::wire::StatsReport;

use crate::limits::{MILLI_NS, SECOND_NS};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VenueLabel {
    venue: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShardLabel {
    shard: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MissLabel {
    budget_ms: u32,
    cause: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabel {
    cause: &'static str,
}

macro_rules! counters {
    ($(#[$doc:meta])* $name:ident by $label:ident, prefix $prefix:literal {
        $($(#[$help:meta])* $counter:ident = $text:literal),+ $(,)?
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default)]
        pub struct $name { $($(#[$help])* pub $counter: Counter),+ }

        #[derive(Debug, Default)]
        struct Families { $($counter: Family<$label, Counter>),+ }

        impl Families {
            fn register(&self, registry: &mut Registry) {
                $(registry.register(
                    concat!($prefix, "_", stringify!($counter)), $text, self.$counter.clone(),
                );)+
            }

            fn handles(&self, label: &$label) -> $name {
                $name { $($counter: self.$counter.get_or_create(label).clone()),+ }
            }
        }
    };
}

mod feed {
    use super::*;
    counters! {
        /// What one venue's feed has seen.
        FeedStats by VenueLabel, prefix "feed" {
            /// Messages.
            messages = "Messages received from the venue",
            /// Bytes.
            bytes = "Bytes of those messages",
            /// Snapshots.
            publications = "Snapshots published",
            /// Wake-ups.
            wakes = "Times a sleeping shard was woken",
            /// Gaps.
            gaps = "Times books were marked wrong because a venue message was missing",
            /// Checksums.
            checksum_mismatches = "Books marked wrong because the venue's checksum did not match",
            /// Malformed messages.
            malformed = "Messages that could not be read",
            /// Old events.
            old_events = "Book events that were contained in what was held already",
            /// Images.
            images = "Images joined with the stream",
            /// Images that did not join.
            images_refused = "Images that were too old for the stream, or failed",
            /// Buffer overflows.
            buffer_overflows = "Times the events waiting for an image were dropped",
            /// Scale changes.
            scale_changes = "Times an instrument got finer prices or quantities",
            /// Lost trades.
            trades_lost = "Trades whose ids were skipped",
            /// Repeated trades.
            trades_repeated = "Trades whose ids had been seen already",
            /// Connects.
            connects = "Connections made to the venue",
            /// Disconnects.
            disconnects = "Connections to the venue that ended",
            /// Connections handed over.
            hand_overs = "Connections to the venue that another took the place of before they ended",
            /// Bans.
            bans = "Times the venue's REST host asked to be left alone",
            /// Refusals.
            refusals = "Subscriptions refused by the venue",
            /// Silences.
            silences = "Times the venue was silent for too long",
            /// Heartbeats.
            heartbeats_missed = "Times the heartbeat of an instrument was overdue",
            /// Checksums that are not believed.
            checksums_off = "Times the venue's checksum of an instrument was no longer asked",
            /// Restarts.
            restarts = "Times the feed was started again after it failed",
            /// Lists that clients did not wait for.
            lists_missed = "Instrument lists that had not come when clients were let in",
        }
    }

    /// The families behind [`FeedStats`].
    #[derive(Debug, Default)]
    pub(super) struct FeedFamilies(Families);

    impl FeedFamilies {
        pub(super) fn register(&self, registry: &mut Registry) {
            self.0.register(registry);
        }

        pub(super) fn of(&self, venue: Venue) -> FeedStats {
            self.0.handles(&VenueLabel { venue: venue.name() })
        }
    }
}
pub use feed::FeedStats;

mod shard {
    use super::*;
    counters! {
        /// What one shard has done.
        ShardStats by ShardLabel, prefix "shard" {
            /// Frames.
            frames = "Data frames sent",
            /// Updates.
            updates = "Updates sent",
            /// Sends.
            sends = "Send calls",
            /// Bytes.
            bytes = "Bytes taken by sockets",
            /// Bodies.
            bodies = "Bodies encoded for the logs of lanes",
            /// Wholes.
            wholes = "Images and newest values encoded",
            /// Merges.
            merged = "Venue events that subscribers did not see because a newer state replaced them",
            /// Lateness that is ours.
            late_gateway = "Updates over their budget because the gateway was slow",
            /// Lateness that is the client's.
            late_client = "Updates over their budget because the client's connection did not drain",
            /// Blocked.
            blocked = "Sends that a connection did not take whole",
            /// Lost trades.
            trades_lost = "Trades that readers lost because they were too far behind",
            /// Forgotten states.
            states_forgotten = "Changes of state that a lane no longer remembered for a reader",
            /// Requests.
            requests = "Client messages answered",
            /// Refused requests.
            requests_refused = "Client messages refused",
            /// Busy.
            rate_limited = "Client messages over the rate",
        }
    }

    /// The families behind [`ShardStats`].
    #[derive(Debug, Default)]
    pub(super) struct ShardFamilies(Families);

    impl ShardFamilies {
        pub(super) fn register(&self, registry: &mut Registry) {
            self.0.register(registry);
        }

        pub(super) fn of(&self, shard: u32) -> ShardStats {
            self.0.handles(&ShardLabel { shard })
        }
    }
}
pub use shard::ShardStats;

/// All counters.
#[derive(Debug)]
pub struct Stats {
    registry: Registry,
    feeds: feed::FeedFamilies,
    shards: shard::ShardFamilies,
    closes: Family<CauseLabel, Counter>,
    misses: Family<MissLabel, Counter>,
    /// Connections that are open.
    pub connections: Gauge,
    /// Subscriptions that are held.
    pub subscriptions: Gauge,
    /// Lanes that exist.
    pub lanes: Gauge,
    /// Requests that the door refused.
    pub door_refused: Counter,
    /// Connections that the door has not answered yet.
    pub handshakes: Gauge,
    /// Connections that were not let as far as a request.
    pub handshakes_refused: Counter,
    /// Requests from web pages that may not.
    pub origins_refused: Counter,
}

impl Default for Stats {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("tickfan");
        let feeds = feed::FeedFamilies::default();
        feeds.register(&mut registry);
        let shards = shard::ShardFamilies::default();
        shards.register(&mut registry);
        let closes = Family::default();
        registry.register("closes", "Connections ended, by cause", closes.clone());
        let misses = Family::default();
        let help = "Sends over the budget of their class, by whose fault";
        registry.register("deadlines_missed", help, misses.clone());
        let connections = Gauge::default();
        registry.register("connections", "Connections open", connections.clone());
        let subscriptions = Gauge::default();
        registry.register("subscriptions", "Subscriptions held", subscriptions.clone());
        let lanes = Gauge::default();
        registry.register("lanes", "Lanes with subscribers", lanes.clone());
        let door_refused = Counter::default();
        registry.register("door_refused", "Requests refused at the door", door_refused.clone());
        let handshakes = Gauge::default();
        registry.register("handshakes", "Connections not answered yet", handshakes.clone());
        let handshakes_refused = Counter::default();
        registry.register(
            "handshakes_refused",
            "Connections refused because their address had too many handshakes under way",
            handshakes_refused.clone(),
        );
        let origins_refused = Counter::default();
        registry.register(
            "origins_refused",
            "Requests refused because of the web page that they came from",
            origins_refused.clone(),
        );
        Self {
            registry,
            feeds,
            shards,
            closes,
            misses,
            connections,
            subscriptions,
            lanes,
            door_refused,
            handshakes,
            handshakes_refused,
            origins_refused,
        }
    }
}

impl Stats {
    /// The counters of a venue's feed.
    pub fn feed(&self, venue: Venue) -> FeedStats {
        self.feeds.of(venue)
    }

    /// The counters of a shard.
    pub fn shard(&self, shard: u32) -> ShardStats {
        self.shards.of(shard)
    }

    /// The counter of a cause for which connections end.
    pub fn close(&self, cause: &'static str) -> Counter {
        self.closes.get_or_create(&CauseLabel { cause }).clone()
    }

    /// The counters of a class's missed deadlines: the gateway's fault, the client's.
    pub fn misses(&self, class: BudgetClass) -> [Counter; 2] {
        ["gateway", "client"].map(|cause| {
            let label = MissLabel { budget_ms: class.ms(), cause };
            self.misses.get_or_create(&label).clone()
        })
    }

    /// One more handshake is under way, until this is dropped.
    pub fn handshake(&self) -> Raised {
        self.handshakes.inc();
        Raised(self.handshakes.clone())
    }

    /// The text that `/metrics` answers.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Something that a gauge counts for as long as it lives.
#[derive(Debug)]
pub struct Raised(Gauge);

impl Drop for Raised {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Latency of one budget class lately: from the oldest unsent change to the send.
#[derive(Debug)]
pub struct Latency {
    recent: Histogram<u32>,
    since_ns: Nanos,
    p99_us: Option<u64>,
}

/// Latencies from 1 µs to a minute.
const LATENCY_US_MAX: u64 = 60_000_000;

/// "Lately": after so long, or so many sends, the percentile is taken anew.
const LATENCY_WINDOW_NS: Nanos = 10 * SECOND_NS;

/// See [`LATENCY_WINDOW_NS`].
const LATENCY_SENDS: u64 = 4_096;

/// Microseconds with so many digits.
fn micros(digits: u8) -> Histogram<u32> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, digits)
        .unwrap_or_else(|_| unreachable!("the bounds are constants"))
}

impl Default for Latency {
    fn default() -> Self {
        Self { recent: micros(2), since_ns: 0, p99_us: None }
    }
}

impl Latency {
    /// Records one send.
    pub fn record(&mut self, latency_ns: Nanos, now: Nanos) {
        self.roll(now);
        self.recent.saturating_record((latency_ns / 1_000).max(1));
    }

    /// The 99th percentile lately, in microseconds; `None` when nothing was sent lately.
    pub fn p99_us(&mut self, now: Nanos) -> Option<u64> {
        self.roll(now);
        match self.p99_us {
            None if !self.recent.is_empty() => Some(self.recent.value_at_quantile(0.99)),
            known => known,
        }
    }

    fn roll(&mut self, now: Nanos) {
        let is_old = now >= self.since_ns + LATENCY_WINDOW_NS;
        if is_old || self.recent.len() >= LATENCY_SENDS {
            self.p99_us = (!self.recent.is_empty()).then(|| self.recent.value_at_quantile(0.99));
            self.recent.reset();
            self.since_ns = now;
        }
    }
}

/// What one connection is told of itself, as it is gathered.
#[derive(Debug)]
pub struct Report {
    every_ms: u32,
    /// When it is to be told next.
    pub due_ns: Nanos,
    latency_us: Histogram<u32>,
    /// Ages on receipt, those before and those after the venue's own time.
    ages_us: [Histogram<u32>; 2],
    told: StatsReport,
}

impl Report {
    /// A report that is told at each interval from now on.
    pub fn new(every_ms: u32, now: Nanos) -> Self {
        Self {
            every_ms,
            due_ns: now + Nanos::from(every_ms) * MILLI_NS,
            latency_us: micros(1),
            ages_us: [micros(1), micros(1)],
            told: StatsReport::default(),
        }
    }

    /// Updates were sent in which so many venue events were merged.
    pub fn sent(&mut self, updates: u64, merged: u64) {
        self.told.sent += updates;
        self.told.merged += merged;
    }

    /// A change waited this long.
    pub fn waited(&mut self, latency_ns: Nanos) {
        self.latency_us.saturating_record((latency_ns / 1_000).max(1));
    }

    /// An update was over its budget, by whose fault.
    pub const fn late(&mut self, by_client: bool) {
        self.told.late += 1;
        if by_client {
            self.told.late_client += 1;
        } else {
            self.told.late_gateway += 1;
        }
    }

    /// An event was this old on receipt.
    pub fn age(&mut self, age_ns: i64) {
        let micros = age_ns.unsigned_abs() / 1_000;
        self.ages_us[usize::from(age_ns >= 0)].saturating_record(micros.max(1));
    }

    /// The connection cannot be told now: the interval becomes longer.
    pub const fn postpone(&mut self, now: Nanos) {
        self.due_ns = now + self.every_ms as Nanos * MILLI_NS;
    }

    /// The report of the interval that ends now; the next begins.
    pub fn take(&mut self, unsent_bytes: usize, now: Nanos) -> StatsReport {
        let report = StatsReport {
            every_ms: u64::from(self.every_ms),
            p50_us: self.latency_us.value_at_quantile(0.5),
            p99_us: self.latency_us.value_at_quantile(0.99),
            max_us: self.latency_us.max(),
            feed_age_p50_us: self.age_p50_us(),
            unsent_bytes: unsent_bytes as u64,
            ..self.told
        };
        *self = Self::new(self.every_ms, now);
        report
    }

    fn age_p50_us(&self) -> i64 {
        let [before, after] = &self.ages_us;
        let half = (before.len() + after.len()).div_ceil(2);
        if before.len() >= half && half > 0 {
            // The oldest are the least: those furthest before come first.
            let quantile = 1.0 - (half as f64 - 0.5) / before.len() as f64;
            return -(before.value_at_quantile(quantile) as i64);
        }
        if half == 0 {
            return 0;
        }
        let quantile = (half - before.len()) as f64 / after.len() as f64;
        after.value_at_quantile(quantile) as i64
    }
}

/// [`Stats`] as they are shared.
pub type SharedStats = Arc<Stats>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_told_by_venue_shard_and_cause() {
        let stats = Stats::default();
        stats.feed(Venue::Kraken).gaps.inc();
        stats.shard(3).frames.inc_by(2);
        stats.close("stalled").inc();
        let text = stats.text();
        for line in [
            "tickfan_feed_gaps_total{venue=\"kraken\"} 1",
            "tickfan_shard_frames_total{shard=\"3\"} 2",
            "tickfan_closes_total{cause=\"stalled\"} 1",
        ] {
            assert!(text.contains(line), "{line} is missing from\n{text}");
        }
    }

    #[test]
    fn the_percentile_is_known_from_the_first_send() {
        let mut latency = Latency::default();
        assert_eq!(latency.p99_us(1), None);
        latency.record(100_000, 1);
        assert_eq!(latency.p99_us(1), Some(100));
        assert_eq!(latency.p99_us(LATENCY_WINDOW_NS), Some(100), "lately");
        assert_eq!(latency.p99_us(2 * LATENCY_WINDOW_NS), None, "long ago");
    }

    #[test]
    fn a_report_tells_an_interval_and_begins_the_next() {
        let mut report = Report::new(100, 0);
        report.sent(3, 5);
        report.waited(2_000_000);
        report.late(true);
        for age_us in [-9_000, -2_000, -1_000, 1_000, 2_000] {
            report.age(age_us * 1_000);
        }
        let told = report.take(7, 100 * MILLI_NS);
        assert_eq!((told.every_ms, told.sent, told.merged), (100, 3, 5));
        assert_eq!((told.late, told.late_gateway, told.late_client), (1, 0, 1));
        assert_eq!(told.unsent_bytes, 7);
        assert!((1_900..2_200).contains(&told.p50_us), "{told:?}");
        assert!((-1_100..=-900).contains(&told.feed_age_p50_us), "{told:?}");
        assert_eq!(report.due_ns, 200 * MILLI_NS);
        let empty = report.take(0, 200 * MILLI_NS);
        assert_eq!(empty, StatsReport { every_ms: 100, ..StatsReport::default() });
    }
}
