//! `feed-sim facts`: its arguments → the statistics of a synthetic market or a recording, as a table.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use feed_sim::clock;
use feed_sim::exchange::{Exchange, ExchangeOptions, Preset, Said};
use feed_sim::facts::{Fact, Facts, measured};
use feed_sim::recording::Recording;
use feed_sim::venue::Dialect;

/// Print the statistics of what the market makes, beside what was measured at real venues.
///
/// The market runs in virtual time, as fast as it can. With a recording, the same of that.
#[derive(Args)]
pub(crate) struct FactsOf {
    /// Whose words, as of `serve`.
    #[arg(long, default_value = "binance-spot", value_parser = super::serve::dialect)]
    dialect: Dialect,
    /// Which market.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many symbols trade.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=2_000))]
    symbols: u16,
    /// How orders arrive, as of `serve`.
    #[arg(long, default_value = "hawkes", value_parser = super::serve::preset)]
    preset: Preset,
    /// For how long, in seconds of the market's own time.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    seconds: u64,
    /// Print how many messages a second this machine makes on one core instead.
    #[arg(long, conflicts_with = "recording")]
    speed: bool,
    /// Not of a market but of this recording: NAME.tsv.zst.
    #[arg(long)]
    recording: Option<PathBuf>,
}

/// When the virtual time of a market begins.
const START_NS: u64 = 1_790_000_000_000_000_000;

impl FactsOf {
    fn options(&self) -> ExchangeOptions {
        let symbols = usize::from(self.symbols);
        let options = ExchangeOptions::of(self.dialect, self.seed, symbols, START_NS);
        ExchangeOptions { preset: self.preset, ..options }
    }

    /// Says everything to somebody who only counts it.
    fn run_speed(&self, out: &mut impl Write) -> io::Result<()> {
        let mut exchange = Exchange::new(self.options());
        exchange.connect_observer();
        let end_ns = START_NS + self.seconds * 1_000_000_000;
        let (began_ns, mut told) = (clock::wall_ns(), 0);
        while exchange.next_ns() < end_ns {
            exchange.step();
            told += exchange.take_told().len() as u64;
        }
        let took_ns = clock::wall_ns().saturating_sub(began_ns).max(1);
        let Said { messages, bytes, digest } = exchange.said();
        let took_ms = took_ns / 1_000_000;
        writeln!(out, "digest: {digest:016x}")?;
        writeln!(out, "messages: {messages}, told {told}, {bytes} bytes, {took_ms} ms")?;
        let rate = u128::from(messages) * 1_000_000_000 / u128::from(took_ns);
        writeln!(out, "messages a second: {rate}")
    }

    pub(crate) fn run(&self) -> Result<()> {
        let mut out = io::stdout().lock();
        if self.speed {
            return Ok(self.run_speed(&mut out)?);
        }
        let (dialect, facts) = match &self.recording {
            Some(path) => {
                let recording = Recording::open(path)?;
                (recording.dialect, Facts::of_recording(&recording))
            }
            None => {
                let lasts_ns = self.seconds * 1_000_000_000;
                let (facts, exchange) = Facts::of_exchange(self.options(), lasts_ns);
                writeln!(out, "digest: {:016x}", exchange.said().digest)?;
                (self.dialect, facts)
            }
        };
        writeln!(out, "messages a second: {}", facts.rate())?;
        writeln!(out, "{:34}{:>10}  {:>17}  measured at", "", "here", "measured")?;
        for fact in Fact::ALL {
            let known = measured(dialect, fact);
            let here = facts.hundredths(fact);
            let is_met = here.is_some_and(|here| (known.low..=known.high).contains(&here));
            writeln!(
                out,
                "{:34}{:>10}  {:>8}–{:<8}  {}{}",
                fact.name(),
                here.map_or("-".to_owned(), number),
                number(known.low),
                number(known.high),
                known.row,
                if is_met { "" } else { "  (not met)" }
            )?;
        }
        Ok(())
    }
}

fn number(hundredths: u64) -> String {
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}
