//! What a gateway tells its operators of itself at one moment, in the words of `/overview`.
//!
//! The admin listener writes it and `tickfan top` reads it: the names here are the names in the JSON.
//! Shards fill in their part. It counts since the start of the gateway, so that who reads it twice
//! has rates. Pure: no socket, no clock.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};
use tickfan_core::view::BUDGETS_MS;

/// Everything at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overview {
    /// The program and its version.
    pub gateway: String,
    /// When, in microseconds since the Unix epoch.
    pub time_us: u64,
    /// It sends its clients away.
    pub draining: bool,
    /// Connections that are open.
    pub connections: u64,
    /// Subscriptions that are held.
    pub subscriptions: u64,
    /// Lanes with subscribers.
    pub lanes: u64,
    /// The venues, the worst first.
    pub feeds: Vec<FeedOverview>,
    /// The shards, by their numbers.
    pub shards: Vec<ShardOverview>,
    /// The budget classes that anybody is in or was sent to lately, the strictest first.
    pub classes: Vec<ClassOverview>,
    /// The worst connections of all shards that answered, the worst first; not all of them.
    pub worst: Vec<ConnectionOverview>,
}

/// One venue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedOverview {
    /// Its name.
    pub venue: String,
    /// Its instruments.
    pub books: u64,
    /// Of these, those whose book is not `live`.
    pub not_live: u64,
    /// How long ago the newest event of any of them was received, in microseconds.
    pub age_us: Option<u64>,
    /// Messages received.
    pub messages: u64,
    /// Bytes of those messages.
    pub bytes: u64,
    /// Times books were marked wrong because a message was missing.
    pub gaps: u64,
    /// Times books were marked wrong because the venue's checksum did not match.
    pub checksum_mismatches: u64,
    /// The book that is in the worst state or, with all alike, has been quiet for the longest.
    pub worst: Option<BookOverview>,
}

/// One book.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BookOverview {
    /// Its symbol.
    pub symbol: String,
    /// Its state.
    pub state: String,
    /// The reason.
    pub why: String,
    /// For how long it has been in that state, in microseconds.
    pub for_us: u64,
    /// How long ago its newest event was received, in microseconds.
    pub age_us: Option<u64>,
}

/// One shard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardOverview {
    /// Its number.
    pub shard: u32,
    /// It answered in time. Otherwise what only it knows is 0: `blocked_now`, `lag_us`, and its part
    /// of classes and worst connections.
    pub answered: bool,
    /// Its connections.
    pub connections: u64,
    /// Of these, those that did not take what they were sent.
    pub blocked_now: u64,
    /// The longest that a change waits to be sent to any of them, in microseconds.
    pub lag_us: u64,
    /// Data frames sent.
    pub frames: u64,
    /// Updates sent.
    pub updates: u64,
    /// Bytes taken by sockets.
    pub bytes: u64,
    /// Venue events that subscribers did not see because a newer state replaced them.
    pub merged: u64,
    /// Sends that a connection did not take whole.
    pub blocked: u64,
    /// Updates over their budget because the gateway was slow.
    pub late_gateway: u64,
    /// Updates over their budget because the client's connection did not drain.
    pub late_client: u64,
}

/// One budget class, over all shards that answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassOverview {
    /// The budget.
    pub budget_ms: u32,
    /// Connections that have subscriptions in it.
    pub seats: u64,
    /// The 99th percentile lately of the worst shard, from the oldest unsent change to the send.
    pub p99_us: Option<u64>,
    /// Sends over the budget because the gateway was slow.
    pub missed_gateway: u64,
    /// Sends over the budget because the client's connection did not drain.
    pub missed_client: u64,
}

/// One connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionOverview {
    /// The shard that has it.
    pub shard: u32,
    /// Its address; empty when the socket has none any more.
    pub peer: String,
    /// The subprotocol.
    pub encoding: String,
    /// Its subscriptions.
    pub subscriptions: u64,
    /// The strictest of their budgets.
    pub budget_ms: Option<u32>,
    /// How long the oldest change that it was not sent has waited, in microseconds; 0 = it has all.
    pub lag_us: u64,
    /// Data frames sent.
    pub frames: u64,
    /// Venue events that it did not see because a newer state replaced them.
    pub merged: u64,
    /// For how long it has taken nothing of what it was sent, in microseconds; 0 = it is not blocked.
    pub blocked_us: u64,
    /// Bytes that its socket has not taken.
    pub unsent_bytes: u64,
}

/// What makes a connection worse than another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WorstBy {
    /// What it was not sent has waited for longer.
    #[default]
    Lag,
    /// More events were merged for it.
    Merged,
    /// It has been blocked for longer.
    Blocked,
}

impl WorstBy {
    /// Every way.
    pub const ALL: [Self; 3] = [Self::Lag, Self::Merged, Self::Blocked];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lag => "lag",
            Self::Merged => "merged",
            Self::Blocked => "blocked",
        }
    }

    /// What is meant by a word.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|by| by.name() == name)
    }

    /// How bad it is: what is compared.
    pub const fn rank(self, lag_us: u64, merged: u64, blocked_us: u64) -> [u64; 3] {
        match self {
            Self::Lag => [lag_us, blocked_us, merged],
            Self::Merged => [merged, lag_us, blocked_us],
            Self::Blocked => [blocked_us, lag_us, merged],
        }
    }

    /// How bad this one is.
    pub const fn rank_of(self, connection: &ConnectionOverview) -> [u64; 3] {
        self.rank(connection.lag_us, connection.merged, connection.blocked_us)
    }

    /// Keeps so many of the worst, the worst first.
    pub fn keep(self, worst: &mut Vec<ConnectionOverview>, count: usize) {
        worst.sort_by_key(|connection| Reverse(self.rank_of(connection)));
        worst.truncate(count);
    }
}

/// What only a shard knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardReport {
    /// Connections that are blocked.
    pub blocked_now: u64,
    /// The longest that a change waits to be sent.
    pub lag_us: u64,
    /// Seats in each class.
    pub seats: [u64; BUDGETS_MS.len()],
    /// The 99th percentile of each class lately.
    pub p99_us: [Option<u64>; BUDGETS_MS.len()],
    /// Its worst connections.
    pub worst: Vec<ConnectionOverview>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_are_those_of_the_way_that_was_asked_for() {
        let connection = |peer: &str, [lag_us, merged, blocked_us]: [u64; 3]| ConnectionOverview {
            shard: 0,
            peer: peer.to_owned(),
            encoding: "tickfan.json.v1".to_owned(),
            subscriptions: 1,
            budget_ms: Some(50),
            lag_us,
            frames: 1,
            merged,
            blocked_us,
            unsent_bytes: 0,
        };
        let all = [
            connection("late", [900, 1, 0]),
            connection("busy", [10, 99, 0]),
            connection("stuck", [500, 5, 500]),
            connection("well", [0, 0, 0]),
        ];
        let worst = |by: WorstBy| {
            let mut worst = all.to_vec();
            by.keep(&mut worst, 2);
            worst.into_iter().map(|connection| connection.peer).collect::<Vec<_>>()
        };
        assert_eq!(worst(WorstBy::Lag), ["late", "stuck"]);
        assert_eq!(worst(WorstBy::Merged), ["busy", "stuck"]);
        assert_eq!(worst(WorstBy::Blocked), ["stuck", "late"]);
        for by in WorstBy::ALL {
            assert_eq!(WorstBy::from_name(by.name()), Some(by));
        }
    }
}
