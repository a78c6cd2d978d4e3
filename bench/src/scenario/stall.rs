//! A fifth of the clients stops reading for a while, another fifth reads at a tenth of the speed:
//! what becomes of the others, of memory, and what those find who read again.

use anyhow::Result;

use super::session::{Outcome, Session, Setup, Trial};
use crate::clock;
use crate::load::client::{Found, Pace, Plan};
use crate::schedule::topics_of;

/// The groups of clients.
const PROMPT: usize = 0;
const STALLED: usize = 1;
const SLOW: usize = 2;

const CLIENTS: u64 = 20;
const FEED_PER_S: u64 = 2_500;

/// A small receive buffer, so that what a stalled client finds is what the server kept.
const RECV_BUFFER: usize = 16 * 1024;

const WARM_MS: u64 = 1_500;
const AFTER_MS: u64 = 4_000;
const MILLI_NS: u64 = 1_000_000;

/// All topics for everybody.
pub(super) fn plans(seed: u64, topics: usize, budget_ms: u32) -> Vec<Plan> {
    (0..CLIENTS)
        .map(|client| {
            let group = match client % 5 {
                0 => STALLED,
                1 => SLOW,
                _ => PROMPT,
            };
            Plan {
                topics: topics_of(seed, client, topics, topics),
                budget_ms,
                group,
                recv_buffer: (group != PROMPT).then_some(RECV_BUFFER),
            }
        })
        .collect()
}

/// Measures; with `stall_ms`, clients stall for as long.
///
/// # Errors
/// When the server fails.
pub(super) fn run(setup: Setup, stall_ms: Option<u64>, window_ms: u64) -> Result<Outcome> {
    let mut session = Session::open(setup)?;
    let window_ms = stall_ms.unwrap_or(window_ms) + AFTER_MS;
    let trial = Trial { feed_per_s: FEED_PER_S, warm_ms: WARM_MS, window_ms };
    let (open_ns, close_ns) = session.begin(trial, true)?;
    session.load.run_until(open_ns)?;
    let before = session.process.usage()?;
    let mut growth_bytes = 0;
    if let Some(stall_ms) = stall_ms {
        session.load.set_pace(STALLED, Pace::Stalled)?;
        session.load.set_pace(SLOW, Pace::Slow)?;
        session.load.run_until(open_ns + stall_ms * MILLI_NS)?;
        growth_bytes = session.process.usage()?.rss_bytes.saturating_sub(before.rss_bytes);
        session.load.set_pace(STALLED, Pace::Prompt)?;
    }
    session.load.run_until(close_ns)?;
    let after = session.process.usage()?;
    let (_, lag_ns) = session.finish(close_ns)?;
    let mut outcome = session.outcome(trial, PROMPT);
    let mut figure = |name: &str, value: f64| outcome.figures.insert(name.to_owned(), value);
    let cpu_s = (after.cpu_ns - before.cpu_ns) as f64 / 1e9;
    figure("server_cpu_s", cpu_s);
    figure("server_cpu_cores", cpu_s * 1e3 / window_ms as f64);
    figure("publisher_lag_us", lag_ns as f64 / 1e3);
    if stall_ms.is_some() {
        let found = session.load.found(STALLED);
        let now = clock::wall_ns();
        figure("old_updates", median(&found, |found| found.old as f64));
        figure("first_age_ms", median(&found, |found| found.first_age_ns as f64 / 1e6));
        figure(
            "caught_up_ms",
            median(&found, |found| {
                // Never counts as until now.
                let fresh_ns = if found.fresh_ns == 0 { now } else { found.fresh_ns };
                fresh_ns.saturating_sub(found.resumed_ns) as f64 / 1e6
            }),
        );
        figure("rss_growth_kib", growth_bytes as f64 / 1024.0);
    }
    Ok(outcome)
}

fn median(found: &[Found], of: impl Fn(&Found) -> f64) -> f64 {
    let mut values: Vec<f64> = found.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
