//! A server under test, in a process of its own: the gateway or one of its rivals, with a publisher.
//!
//! The load generator starts it as `bench peer NAME …`, pinned to the server's core, and talks to it
//! in lines over its standard input and output ([`Order`], [`Report`]). So its CPU, memory and
//! switches can be read from outside, and nothing of the load is counted as the server's.

pub(crate) mod process;
mod tickfan;
pub(crate) mod venue;

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

/// Who can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Name {
    /// This gateway, fed over a socket with a venue's bytes.
    Tickfan,
    /// A tokio broadcast channel per topic, one fastwebsockets write per update.
    Naive,
    /// tokio-tungstenite with a bounded queue per client: feed all, then flush.
    Batch,
    /// uWebSockets' native publish/subscribe.
    Uws,
    /// nats-server's WebSocket listener.
    Nats,
}

/// What the updates are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Channel {
    /// Best bid and offer: state, which the gateway may conflate.
    Bbo,
    /// Trades: events, of which the gateway delivers every one.
    Trades,
    /// Changes of a book (the gateway alone).
    Book,
}

/// How a peer is started.
#[derive(Debug, Clone, Args)]
pub(crate) struct PeerOptions {
    /// Which
    #[arg(value_enum)]
    pub(crate) name: Name,
    /// Topics (instruments)
    #[arg(long, default_value_t = 200)]
    pub(crate) topics: usize,
    /// What is published
    #[arg(long, value_enum, default_value = "trades")]
    pub(crate) channel: Channel,
    /// The seed of the schedule
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// The core that all its threads run on
    #[arg(long)]
    pub(crate) core: Option<usize>,
}

/// Is a peer until it is told to quit.
///
/// # Errors
/// When it cannot be started, or fails.
pub(crate) fn run(options: &PeerOptions) -> Result<()> {
    if let Some(core) = options.core {
        crate::pin::pin(core)?;
    }
    match options.name {
        Name::Tickfan => tickfan::run(options),
        name => bail!("{name:?} cannot be measured yet"),
    }
}

/// What the load generator tells a peer, one line each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Publish this many ticks of the schedule, the first at a wall-clock time.
    Publish {
        /// Events a second.
        rate_per_s: u64,
        /// The intended time of the first tick.
        start_ns: u64,
        /// Ticks of a millisecond.
        ticks: u64,
    },
    /// End.
    Quit,
}

/// What a peer tells the load generator, one line each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report {
    /// It serves clients at this port of loopback.
    Listening(u16),
    /// The order was carried out; events published, and how late its latest tick was.
    Published {
        /// Events.
        events: u64,
        /// By how much the latest tick was late.
        lag_ns_max: u64,
    },
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Publish { rate_per_s, start_ns, ticks } => {
                write!(f, "publish {rate_per_s} {start_ns} {ticks}")
            }
            Self::Quit => f.write_str("quit"),
        }
    }
}

impl FromStr for Order {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        Ok(match words[..] {
            ["publish", rate_per_s, start_ns, ticks] => Self::Publish {
                rate_per_s: rate_per_s.parse().context("the rate")?,
                start_ns: start_ns.parse().context("the start")?,
                ticks: ticks.parse().context("the ticks")?,
            },
            ["quit"] => Self::Quit,
            _ => bail!("expected \"publish RATE START_NS TICKS\" or \"quit\", got {line:?}"),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listening(port) => write!(f, "listening {port}"),
            Self::Published { events, lag_ns_max } => write!(f, "published {events} {lag_ns_max}"),
        }
    }
}

impl FromStr for Report {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        Ok(match words[..] {
            ["listening", port] => Self::Listening(port.parse().context("the port")?),
            ["published", events, lag_ns_max] => Self::Published {
                events: events.parse().context("the events")?,
                lag_ns_max: lag_ns_max.parse().context("the lag")?,
            },
            _ => bail!("expected \"listening PORT\" or \"published N LAG_NS\", got {line:?}"),
        })
    }
}

/// Bytes of a rival's update: those of a best bid and offer in JSON.
pub(crate) const RIVAL_UPDATE_BYTES: usize = 160;

/// Writes a rival's update: JSON with its fields at fixed offsets, so that reading it costs a load
/// generator next to nothing. `[5..10)` the topic, `[15..35)` the number, `[40..60)` the intended
/// wall-clock time in nanoseconds, each padded with spaces on the left.
pub(crate) fn rival_update(topic: u32, number: u64, intended_ns: u64) -> [u8; RIVAL_UPDATE_BYTES] {
    let text = format!("{{\"v\":{topic:>5},\"s\":{number:>20},\"i\":{intended_ns:>20},\"b\":[");
    let mut bytes = [b' '; RIVAL_UPDATE_BYTES];
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    let rest = br#""45283.10","0.10000000"],"a":["45286.20","0.00100000"],"te":1790000000000001"#;
    bytes[text.len()..text.len() + rest.len()].copy_from_slice(rest);
    bytes[RIVAL_UPDATE_BYTES - 1] = b'}';
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_reports_read_back() {
        for order in [Order::Publish { rate_per_s: 1, start_ns: 2, ticks: 3 }, Order::Quit] {
            assert_eq!(order.to_string().parse::<Order>().unwrap(), order);
        }
        for report in [Report::Listening(80), Report::Published { events: 1, lag_ns_max: 2 }] {
            assert_eq!(report.to_string().parse::<Report>().unwrap(), report);
        }
        assert!("publish 1".parse::<Order>().is_err());
    }

    #[test]
    fn an_update_is_json_with_its_fields_where_they_are_said_to_be() {
        let update = rival_update(7, 12, 345);
        let text = std::str::from_utf8(&update).unwrap();
        assert_eq!(text[5..10].trim(), "7");
        assert_eq!(text[15..35].trim(), "12");
        assert_eq!(text[40..60].trim(), "345");
        let json: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(json["a"][0], "45286.20");
        assert_eq!(rival_update(99_999, u64::MAX, u64::MAX)[60..66], *b",\"b\":[");
    }
}
