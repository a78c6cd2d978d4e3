//! The highest rate that holds: trials that double until one fails, then halve the distance.

use anyhow::Result;

use super::session::{Outcome, Session, Setup, Trial};

/// A trial holds when its p99 is below this …
const P99_NS_MAX: u64 = 50_000_000;

/// … and this share of what was due came.
const DELIVERED_MIN: f64 = 0.99;

/// The search ends when what held and what did not are this close.
const CLOSE_ENOUGH: f64 = 1.05;

/// Nothing holds below this many events a second.
const FEED_PER_S_MIN: f64 = 10.0;

/// Trials of one search; one that needs more found no end.
const TRIALS_MAX: usize = 24;

/// What a search found.
pub(super) struct Found {
    /// The trial at the highest rate that held.
    pub(super) outcome: Outcome,
    pub(super) trials: usize,
}

/// Searches from a rate of the feed on.
///
/// # Errors
/// When the server fails, or holds no rate.
pub(super) fn search(
    setup: Setup,
    first_per_s: u64,
    warm_ms: u64,
    window_ms: u64,
) -> Result<Found> {
    let mut session = Some(Session::open(setup)?);
    let mut best: Option<Outcome> = None;
    let trials = bracket(first_per_s as f64, CLOSE_ENOUGH, |feed_per_s| {
        let mut open = match session.take() {
            Some(open) => open.fresh()?,
            None => anyhow::bail!("no session"),
        };
        let trial = Trial { feed_per_s: feed_per_s as u64, warm_ms, window_ms };
        let outcome = open.run(trial)?;
        let holds = (0..open.load.tallies().len()).all(|group| {
            let outcome = open.outcome(trial, group);
            outcome.p99_ns < P99_NS_MAX && outcome.delivered_share >= DELIVERED_MIN
        }) && open.load.gone() == 0;
        eprintln!(
            "      {:>9.0} events/s: {:>12.0} deliveries/s, p99 {:>8.1} ms, {:.1} % delivered, server {:.2}, \
             generator {:.2}{}",
            feed_per_s,
            outcome.figures["deliveries_per_s"],
            outcome.p99_ns as f64 / 1e6,
            outcome.delivered_share * 100.0,
            outcome.figures["server_cpu_cores"],
            outcome.figures["generator_cpu_cores"],
            if holds { "" } else { " - too much" },
        );
        session = Some(open);
        if holds {
            best = Some(outcome);
        }
        Ok(holds)
    })?;
    match best {
        Some(outcome) => Ok(Found { outcome, trials }),
        None => anyhow::bail!("it does not hold even {FEED_PER_S_MIN} events a second"),
    }
}

/// Finds the highest value for which `holds`, to within a factor; gives the number of trials.
pub(super) fn bracket(
    first: f64,
    close_enough: f64,
    mut holds: impl FnMut(f64) -> Result<bool>,
) -> Result<usize> {
    let (mut held, mut failed): (Option<f64>, Option<f64>) = (None, None);
    let mut rate = first;
    for trial in 1..=TRIALS_MAX {
        if holds(rate)? {
            held = Some(rate);
        } else {
            failed = Some(rate);
        }
        rate = match (held, failed) {
            (Some(held), Some(failed)) if failed / held <= close_enough => return Ok(trial),
            (Some(held), Some(failed)) => (held * failed).sqrt(),
            (Some(held), None) => held * 2.0,
            (None, _) if rate < FEED_PER_S_MIN => return Ok(trial),
            (None, _) => rate / 2.0,
        };
    }
    Ok(TRIALS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_ends_close_below_the_limit_from_either_side() {
        for first in [10.0, 1_000.0, 77_000.0, 9e6] {
            let mut best = 0.0f64;
            let trials = bracket(first, CLOSE_ENOUGH, |rate| {
                if rate <= 50_000.0 {
                    best = best.max(rate);
                }
                Ok(rate <= 50_000.0)
            })
            .unwrap();
            assert!((47_600.0..=50_000.0).contains(&best), "{best} after {trials}");
            assert!(trials < 20);
        }
        assert!(bracket(1_000.0, CLOSE_ENOUGH, |_| Ok(false)).unwrap() < 10);
    }
}
