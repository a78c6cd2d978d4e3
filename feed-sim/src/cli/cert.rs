//! `feed-sim cert`: a dialect and a command → every scenario against it, and what it failed.

use std::io::{self, Write};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use feed_sim::cert::{CertOptions, Command, Verdict, certify};
use feed_sim::scenario::{Scenario, library};
use feed_sim::venue::Dialect;

/// Run every scenario against a client, and say what it passes and what it fails.
///
/// For each scenario an exchange is served on a free port and CMD is started with FEED_SIM_WS,
/// FEED_SIM_REST, FEED_SIM_DIALECT, FEED_SIM_SYMBOLS (with commas), FEED_SIM_TO_LIST (symbols that are
/// not there yet; mostly empty), FEED_SIM_DEPTH (what to ask for; empty where the venue has one depth only)
/// and FEED_SIM_LEVELS in its environment. It holds the books of those symbols, and prints one line of
/// JSON whenever one of them or its state changes:
/// {"symbol":"BTCUSDT","state":"live","id":7,"bids":[["10.5","2"]],"asks":[["10.6","1"]]}
/// with the FEED_SIM_LEVELS best levels of each side, best first, and `id` where the venue has one. Any
/// state but "live" says that the book is not to be relied on, and needs no levels.
///
/// Exits with 1 when anything failed.
#[derive(Args)]
pub(crate) struct Cert {
    /// Whose words, as of `serve`.
    #[arg(long, default_value = "binance-spot", value_parser = super::serve::dialect)]
    dialect: Dialect,
    /// Which market, and which chances.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this scenario: a name of `feed-sim scenarios` or a FILE.toml. May be given several times.
    #[arg(long = "scenario", value_name = "NAME")]
    scenarios: Vec<String>,
    /// How many scenarios run at one time, each with a CMD of its own.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    at_once: u16,
    /// Print the verdicts as JSON, when all are there.
    #[arg(long)]
    json: bool,
    /// The client to be certified.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

impl Cert {
    pub(crate) async fn run(self) -> Result<()> {
        let scenarios = if self.scenarios.is_empty() {
            library().map(|(name, text)| Scenario::parse(name, text)).collect::<Result<_>>()?
        } else {
            self.scenarios.iter().map(|name| Scenario::load(name)).collect::<Result<_>>()?
        };
        let Self { dialect, seed, at_once, .. } = self;
        let options = CertOptions { dialect, seed, scenarios, at_once: usize::from(at_once) };
        let tell = |verdict: &Verdict| {
            if !self.json {
                // Whoever reads may be waiting for it, or have had enough: the end tells all the same.
                let mut out = io::stdout().lock();
                let _ = write!(out, "{}", worded(verdict)).and_then(|()| out.flush());
            }
        };
        let verdicts = certify(options, Arc::new(Command(self.command)), tell).await?;
        if self.json {
            let json = serde_json::to_string_pretty(&verdicts).context("a verdict in JSON")?;
            writeln!(io::stdout(), "{json}")?;
        }
        let applied = verdicts.iter().filter(|verdict| verdict.not_applicable.is_none()).count();
        let failed = verdicts.iter().filter(|verdict| !verdict.passed()).count();
        if failed > 0 {
            bail!("{failed} of {applied} scenarios failed");
        }
        if !self.json {
            writeln!(io::stdout(), "all {applied} scenarios passed")?;
        }
        Ok(())
    }
}

/// A verdict for a person: one line, and one more for each point that failed.
fn worded(verdict: &Verdict) -> String {
    if let Some(why_not) = &verdict.not_applicable {
        return format!("n/a   {:18} {why_not}\n", verdict.scenario);
    }
    let word = if verdict.passed() { "pass" } else { "FAIL" };
    let count = verdict.points.iter().filter(|point| point.passed).count();
    let mut text =
        format!("{word}  {:18} {count} of {} points\n", verdict.scenario, verdict.points.len());
    for point in verdict.points.iter().filter(|point| !point.passed) {
        text.push_str(&format!("      {}: {}\n", point.demand.text(), point.seen));
    }
    text
}
