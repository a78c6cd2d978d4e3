//! The arguments of `feed-sim record` → files.
//!
//! Called by main. The run itself is the library's.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use feed_sim::exchange::{ExchangeOptions, Preset};
use feed_sim::record::{self, Length};
use feed_sim::recording::{self, FileWriter, LOST_LINES, LostLine, LostWriter, Recording, Written};
use feed_sim::scenario::{Kind, Scenario};
use feed_sim::venue::Dialect;
use serde_json::json;

use crate::cli::serve::{dialect, preset};
use crate::say;

/// When a run begins if nobody says otherwise, nanoseconds since the Unix epoch: 2026-09-21 14:13:20
/// UTC. Never the wall clock, which would be other bytes each time.
const START_NS: u64 = 1_790_000_000_000_000_000;

/// Write a run of an exchange down: NAME.tsv.zst, NAME.states.tsv.zst, NAME.truth.jsonl.
///
/// The run is in virtual time and takes no longer than its making. Same arguments, same bytes; the
/// digest of the messages is shown. `feed-sim replay` plays it. Of a scenario that loses messages they are
/// lines all the same, and faults.json beside it says which, and where a client can know of each.
#[derive(Args)]
pub(crate) struct Record {
    /// Whose words are spoken: binance-spot, binance-usdm, binance-coinm, coinbase, coinbase-advanced,
    /// kraken, kraken-v1, okx, bybit-spot, bybit-linear, deribit, bitfinex.
    #[arg(long, required_unless_present = "replay", value_parser = dialect)]
    dialect: Option<Dialect>,
    /// Record this recording again, out of its replay.
    #[arg(long, value_name = "RECORDING", conflicts_with = "dialect")]
    replay: Option<PathBuf>,
    /// Which market.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many symbols trade.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=2_000))]
    symbols: u16,
    /// Messages a second over all symbols, in the mean; as many as the venue was measured to send if
    /// not given. The words and their order stay the same, the times in them do not.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// How orders arrive: poisson, hawkes, burst, open, calm.
    #[arg(long, default_value = "hawkes", value_parser = preset)]
    preset: Preset,
    /// What goes wrong, as of `serve`: a name of `feed-sim scenarios` or a FILE.toml.
    #[arg(long, value_name = "NAME", conflicts_with = "replay")]
    scenario: Option<String>,
    /// How long, in the exchange's time.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// End earlier, after so many messages.
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    messages: u64,
    /// The folder for the files.
    #[arg(long, default_value = ".")]
    out: PathBuf,
    /// What was written, as one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

impl Record {
    /// Runs it.
    ///
    /// # Errors
    /// When the recording cannot be read or written.
    pub(crate) fn run(self) -> Result<()> {
        let (name, written) = match &self.replay {
            Some(path) => self.record_again(path)?,
            None => self.record()?,
        };
        let path = self.out.join(format!("{name}.tsv.zst"));
        let digest = written.digest.to_string();
        say(format!(
            "feed-sim: {} lines, {} messages, {} states in {}",
            written.lines,
            written.messages,
            written.states,
            path.display()
        ));
        say(format!("digest:   {digest}"));
        if self.json {
            let report = json!({
                "recording": path, "lines": written.lines, "messages": written.messages,
                "states": written.states, "digest": digest,
            });
            writeln!(std::io::stdout(), "{report}")?;
        }
        Ok(())
    }
    fn record(&self) -> Result<(String, Written)> {
        let dialect = self.dialect.unwrap_or(Dialect::BinanceSpot);
        let (scenario, wrong) = match &self.scenario {
            Some(name) => {
                let scenario = Scenario::load(name)?;
                let wrong = format!("{}-", scenario.name);
                (scenario, wrong)
            }
            None => (Scenario::calm(), String::new()),
        };
        let name = format!("{}-{wrong}seed{}", dialect.in_recordings(), self.seed);
        // Before any file is made.
        record::ensure_holds(&scenario, dialect)?;
        let loses = scenario.faults.iter().any(|fault| fault.kind == Kind::Gap);
        let options = ExchangeOptions {
            preset: self.preset,
            ..ExchangeOptions::of(dialect, self.seed, usize::from(self.symbols), START_NS)
        };
        let options = self.rate.map_or(options, |rate| options.at_rate(rate));
        let duration_ns = self.seconds.saturating_mul(1_000_000_000);
        let length = Length { duration_ns, messages: self.messages };
        let written = self
            .write(&name, loses, |writer| record::scenario(options, &scenario, length, writer))?;
        Ok((name, written))
    }

    fn record_again(&self, path: &Path) -> Result<(String, Written)> {
        let recording = Recording::open(path)?;
        let lost = if path.with_file_name(LOST_LINES).exists() {
            recording::lost_lines(path)?
        } else {
            Vec::new()
        };
        let written = self.write(&recording.name, !lost.is_empty(), |writer| {
            record::replay(&recording, &lost, writer)
        })?;
        Ok((recording.name, written))
    }

    fn write(
        &self,
        name: &str,
        loses: bool,
        run: impl FnOnce(&mut FileWriter) -> Result<Vec<LostLine>>,
    ) -> Result<Written> {
        let mut writer = FileWriter::create(&self.out, name)?;
        let losses = if loses { Some(LostWriter::create(&self.out)?) } else { None };
        let lost = run(&mut writer)?;
        match losses {
            Some(losses) => writer.finish_with(losses, name, &lost),
            None => writer.finish(),
        }
    }
}
