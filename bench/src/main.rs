//! Measures Tickfan: whether what it delivers is right, and how fast it is.
//!
//! Reads the arguments and runs one command. Progress goes to stderr, results to stdout.

mod clock;
mod pin;
#[allow(dead_code, reason = "the load generator uses the rest")]
mod schedule;
#[allow(dead_code, reason = "the load generator uses the rest")]
mod peer;
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

#[derive(Subcommand)]
enum Command {
    Verify(verify::Verify),
    #[command(hide = true)]
    Peer(peer::PeerOptions),
}

fn main() -> Result<ExitCode> {
    let good = match Cli::parse().command {
        Command::Verify(verify) => verify.run()?,
        Command::Peer(options) => {
            peer::run(&options)?;
            true
        }
    };
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
