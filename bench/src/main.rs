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
mod set;
mod target;
mod verify;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

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
    #[command(flatten)]
    Measure(set::Command),
    #[command(hide = true)]
    Peer(peer::PeerOptions),
}

fn main() -> Result<ExitCode> {
    match Cli::parse().command {
        Command::Verify(verify) => {
            Ok(if verify.run()? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Report(render) => render.run(),
        Command::Compare(compare) => compare.run().map(|()| ExitCode::SUCCESS),
        Command::Measure(command) => command.run(),
        Command::Peer(options) => {
            peer::run(&options)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
