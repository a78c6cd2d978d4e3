//! The command line → an exchange on a socket.
//!
//! Reads the arguments, says on stderr what it serves and what to try, and serves on one thread until
//! it is ended.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use feed_sim::record::Example;
use feed_sim::recording::Recording;
use feed_sim::replay::{self, ReplayOptions, Speed};
use tokio::net::TcpListener;

mod cli;

/// An exchange to test clients against: WebSocket and REST on one port, in a real venue's words.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Replay(Replay),
    Serve(cli::serve::Serve),
    Facts(cli::facts::FactsOf),
    Record(cli::record::Record),
    Scenarios(cli::scenarios::Scenarios),
    Cert(cli::cert::Cert),
}

/// Play a recording as its venue would send it.
///
/// The stream starts half a second after the first subscription. Who subscribes to a book before its
/// recorded image, or fetches it, gets that when the stream gets to it, and later the true book at
/// that moment. `GET /replay` tells where the stream is.
#[derive(Args)]
struct Replay {
    /// The recording: NAME.tsv.zst. Its venue is told by its name: binance-spot-…, binance-usdm-…,
    /// binance-coinm-…, coinbase-exchange-…, coinbase-advanced-…, kraken-v1-…, kraken-v2-…, okx-…,
    /// bybit-spot-…, bybit-linear-…, deribit-…, bitfinex-….
    recording: PathBuf,
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:9001")]
    listen: SocketAddr,
    /// How many times faster than recorded, or `max` for as fast as the subscribers read.
    #[arg(long, default_value = "1")]
    speed: Speed,
    /// Do not start at the first subscription but at `POST /replay/start`.
    #[arg(long)]
    hold: bool,
    /// At the end close every connection and begin again.
    #[arg(long = "loop")]
    repeat: bool,
    /// Leave the line with this number out of the stream, to see who notices.
    #[arg(long, value_name = "N")]
    drop_line: Option<u64>,
    /// Wait for another `POST /replay/start` before the line with this number.
    #[arg(long, value_name = "N")]
    pause_before: Option<u64>,
}

fn main() -> Result<()> {
    match start() {
        // Whoever read our lines has had enough of them.
        Err(error) if is_closed_pipe(&error) => Ok(()),
        ended => ended,
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn start() -> Result<()> {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            served = run(cli.command) => served,
            interrupted = tokio::signal::ctrl_c() => interrupted.context("waiting for ctrl-c"),
        }
    })
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Replay(arguments) => run_replay(arguments).await,
        Command::Serve(arguments) => arguments.run().await,
        Command::Facts(arguments) => arguments.run(),
        Command::Record(arguments) => arguments.run(),
        Command::Scenarios(arguments) => arguments.run(),
        Command::Cert(arguments) => arguments.run().await,
    }
}

async fn run_replay(arguments: Replay) -> Result<()> {
    let recording = Recording::open(&arguments.recording)?;
    let listener = listen(arguments.listen).await?;
    let address = listener.local_addr()?;
    say(format!(
        "feed-sim: {} ({} lines, {}) on ws://{address} and http://{address}",
        recording.name,
        recording.lines.len(),
        recording.dialect.venue().name()
    ));
    if arguments.hold || arguments.pause_before.is_some() {
        say(format!("start:    curl -X POST http://{address}/replay/start"));
    }
    say(format!("where:    curl http://{address}/replay"));
    say(format!("try:      {}", Example::of_recording(&recording).at(address)));
    let options = ReplayOptions {
        speed: arguments.speed,
        hold: arguments.hold,
        repeat: arguments.repeat,
        drop_line: arguments.drop_line,
        pause_before: arguments.pause_before,
        ..ReplayOptions::default()
    };
    replay::serve(listener, Arc::new(recording), options).await
}

/// Says a line to people, in one write: a program that waits for an address in it never reads half of one,
/// as it could of what `eprintln!` writes piece by piece.
fn say(mut line: String) {
    line.push('\n');
    // Whoever does not listen is not told.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}
