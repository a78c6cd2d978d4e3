//! Measures Tickfan: whether what it delivers is right, and how fast it is.
//!
//! Reads the arguments and runs one command. Progress goes to stderr, results to stdout.

mod clock;
mod load;
mod peer;
mod pin;
mod report;
mod scenario;
mod schedule;
mod target;
mod verify;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use scenario::{Bench, LoadOptions, Scenario};

/// Load, latency and correctness measurement of Tickfan.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// As in the gateway's own binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Subcommand)]
enum Command {
    Verify(verify::Verify),
    Report(report::Render),
    Compare(report::compare::Compare),
    /// Runs one scenario
    Measure(Measure),
    #[command(hide = true)]
    Peer(peer::PeerOptions),
}

/// Runs one scenario against peers in turn.
#[derive(Args)]
struct Measure {
    /// Which
    #[arg(value_enum)]
    scenario: Scenario,
    /// Against whom; may be given several times
    #[arg(long = "peer", value_enum, default_value = "tickfan")]
    peers: Vec<peer::Name>,
    /// How often
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    #[command(flatten)]
    options: LoadOptions,
}

impl Measure {
    fn run(self) -> Result<()> {
        let cases = scenario::cases(self.scenario, &self.peers, &self.options);
        let mut bench = Bench::new(self.options)?;
        for round in 1..=self.rounds {
            for case in &cases {
                let run = bench.run(case, round)?;
                println!("{} {} {:?} round {round}", run.scenario, run.peer, run.parameters);
                for (name, value) in &run.figures {
                    println!("  {name:<28} {value:>16.3}");
                }
                for remark in &run.remarks {
                    println!("  {remark}");
                }
            }
        }
        Ok(())
    }
}

fn main() -> Result<ExitCode> {
    match Cli::parse().command {
        Command::Verify(verify) => {
            Ok(if verify.run()? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Report(render) => render.run(),
        Command::Compare(compare) => compare.run().map(|()| ExitCode::SUCCESS),
        Command::Measure(measure) => {
            measure.run()?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Peer(options) => {
            peer::run(&options)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
