//! The binary `tickfan`: the table of its commands, each of which has a file of its own in `cli`.
//!
//! Reads the command line, sets up the log, and hands on. Data goes to standard output, and nothing
//! else does: words for a person and the log go to standard error.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use tickfan::cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A market data fan-out gateway
///
/// Without a command it is the gateway itself. The other commands look at one: book and tail as its
/// clients do, top as its operator. They end with 0 when done, 1 after an error, 2 when the command
/// line cannot be used and 130 after Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "tickfan", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// The configuration file; without one, the built-in simulator is served on 127.0.0.1:8080
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Top(cli::top::TopOptions),
    Book(cli::book::BookOptions),
    Tail(cli::tail::TailOptions),
    Check(cli::check::CheckOptions),
    Config(cli::check::ConfigOptions),
    Completions(cli::manual::CompletionsOptions),
    Man(cli::manual::ManOptions),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("TICKFAN_LOG")
                .unwrap_or_else(|_| "info".into()),
        )
        .init();
    match arguments.command {
        None => cli::gateway::run(arguments.config.as_deref()),
        Some(Command::Top(options)) => cli::top::run(options),
        Some(Command::Book(options)) => cli::book::run(options),
        Some(Command::Tail(options)) => cli::tail::run(options),
        Some(Command::Check(options)) => cli::check::run(&options),
        Some(Command::Config(options)) => cli::check::config(&options),
        Some(Command::Completions(options)) => {
            cli::manual::completions(&options, Arguments::command())
        }
        Some(Command::Man(options)) => cli::manual::man(&options, Arguments::command()),
    }
}
