//! The gateway itself as a peer: its library in this process, and a venue that feeds it.
//!
//! The whole way is measured: venue bytes → decoder → book → snapshot → fan-out → socket, and the
//! venue's own cost is counted as the gateway's, as the rivals' publisher is as theirs.

use std::io::{BufRead, Write};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use tickfan::config::Config;
use tickfan::serve;
use tickfan_core::market::State;

use super::venue::Venue;
use super::{Order, PeerOptions, Report};

/// How often it is looked whether everything is live.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Looks until the gateway is taken to have failed.
const LOOKS_MAX: usize = 2_000;

/// Serves until it is told to quit.
///
/// # Errors
/// When the gateway does not start, or its venue is left.
pub(crate) fn run(options: &PeerOptions) -> Result<()> {
    let mut venue = Venue::start(options.seed, options.topics, options.channel)?;
    let text = format!(
        "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nshards = 1\n\
         connections_per_address = 100000\n\n[[feed]]\n\
         venue = \"sim\"\nsymbols = [\"*\"]\nurl = \"ws://{}\"\nrest_url = \"http://{}\"\n",
        venue.stream, venue.rest
    );
    let running = serve::start(Config::parse(&text, "bench.toml")?)?;
    venue.wait_until_subscribed()?;
    let is_live = || {
        let table = running.registry.table();
        let entries = table.entries();
        entries.len() == options.topics
            && entries.iter().all(|entry| {
                let snapshot = entry.load();
                let states = [
                    snapshot.book.status.state,
                    snapshot.bbo.status.state,
                    snapshot.trades.status.state,
                ];
                states == [State::Live; 3]
            })
    };
    let mut looks = 0;
    while !is_live() {
        looks += 1;
        ensure!(looks < LOOKS_MAX, "the gateway did not become live");
        thread::sleep(LOOK_EVERY);
    }
    let mut out = std::io::stdout();
    writeln!(out, "{}", Report::Listening(running.listen.port()))?;
    for line in std::io::stdin().lock().lines() {
        match line?.parse()? {
            Order::Publish { rate_per_s, start_ns, ticks } => {
                let (events, lag_ns_max) = venue.publish(rate_per_s, start_ns, ticks)?;
                writeln!(out, "{}", Report::Published { events, lag_ns_max })?;
            }
            Order::Quit => break,
        }
    }
    Ok(())
}
