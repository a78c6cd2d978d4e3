//! Every counter and histogram of the gateway, and their text for `/metrics`.
//!
//! Counters are atomics that their owners raise without looking anything up: handles are resolved at
//! start. A label is always one of a fixed set, never something that a client or venue wrote.

use std::sync::Arc;

use hdrhistogram::Histogram;
use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tickfan_core::market::{Nanos, Venue};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VenueLabel {
    venue: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShardLabel {
    shard: u32,
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
            gaps = "Books marked wrong because a venue message was missing",
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
            /// Refusals.
            refusals = "Subscriptions refused by the venue",
            /// Silences.
            silences = "Times the venue was silent for too long",
            /// Restarts.
            restarts = "Times the feed was started again after it failed",
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
    p99_us: Option<u64>,
}

/// Latencies from 1 µs to a minute, two digits: 14 KiB a class.
const LATENCY_US_MAX: u64 = 60_000_000;

/// After so many sends the percentile is taken anew.
const LATENCY_SENDS: u64 = 4_096;

impl Default for Latency {
    fn default() -> Self {
        let recent = Histogram::new_with_bounds(1, LATENCY_US_MAX, 2)
            .unwrap_or_else(|_| unreachable!("the bounds are constants"));
        Self { recent, p99_us: None }
    }
}

impl Latency {
    /// Records one send.
    pub fn record(&mut self, latency_ns: Nanos) {
        self.recent.saturating_record((latency_ns / 1_000).max(1));
        if self.recent.len() >= LATENCY_SENDS {
            self.p99_us = Some(self.recent.value_at_quantile(0.99));
            self.recent.reset();
        }
    }

    /// The 99th percentile lately, in microseconds; `None` before anything was sent.
    pub fn p99_us(&self) -> Option<u64> {
        match self.p99_us {
            None if !self.recent.is_empty() => Some(self.recent.value_at_quantile(0.99)),
            known => known,
        }
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
        assert_eq!(latency.p99_us(), None);
        latency.record(100_000);
        assert_eq!(latency.p99_us(), Some(100));
    }
}
