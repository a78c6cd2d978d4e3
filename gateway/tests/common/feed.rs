//! What a feed of the tests is made of: instruments without listings, and no shard to tell of changes.

use std::sync::Arc;

use tickfan::feed::FeedOptions;
use tickfan::stats::FeedStats;
use tickfan_core::market::Venue;
use tickfan_core::snapshot::Entry;

/// Options that ask for the venue's own depth and trade stream.
pub(crate) fn options(venue: Venue, entries: &[Arc<Entry>], stats: FeedStats) -> FeedOptions {
    FeedOptions {
        venue,
        instruments: entries.iter().map(|entry| (Arc::clone(entry), None)).collect(),
        depth: None,
        trades: None,
        marks: Vec::new(),
        stats,
        seed: 1,
    }
}
