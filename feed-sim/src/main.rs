//! The command line → an exchange on a socket.
//!
//! Reads the arguments, says on stderr what it serves and what to try, and serves on one thread until
//! it is ended.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use feed_sim::clock;
use feed_sim::market::MarketOptions;
use feed_sim::recording::Recording;
use feed_sim::replay::{self, ReplayOptions, Speed};
use feed_sim::serve;
use feed_sim::venue::Dialect;
use tokio::net::TcpListener;

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
    Serve(Serve),
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
}

/// Serve a seeded market in the words of Binance spot, in real time.
///
/// Same seed, same market. The exchange knows its true books: `GET /truth?symbol=BTCUSDT&u=N` is the
/// book as it was at update N, without `u` as it is.
#[derive(Args)]
struct Serve {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:9001")]
    listen: SocketAddr,
    /// Which market.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many symbols trade.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=2_000))]
    symbols: u16,
    /// Messages a second over all symbols, in the mean.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
}

fn main() -> Result<()> {
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
        Command::Serve(arguments) => run_serve(arguments).await,
    }
}

async fn run_replay(arguments: Replay) -> Result<()> {
    let recording = Recording::open(&arguments.recording)?;
    let listener = listen(arguments.listen).await?;
    let address = listener.local_addr()?;
    eprintln!(
        "feed-sim: {} ({} lines, {}) on ws://{address} and http://{address}",
        recording.name,
        recording.lines.len(),
        recording.dialect.venue().name()
    );
    if arguments.hold {
        eprintln!("start:    curl -X POST http://{address}/replay/start");
    }
    eprintln!("where:    curl http://{address}/replay");
    eprintln!("try:      {}", recording.dialect.example(address));
    let options = ReplayOptions {
        speed: arguments.speed,
        hold: arguments.hold,
        repeat: arguments.repeat,
        drop_line: arguments.drop_line,
        ..ReplayOptions::default()
    };
    replay::serve(listener, Arc::new(recording), options).await
}

async fn run_serve(arguments: Serve) -> Result<()> {
    let Serve { listen: address, seed, symbols, rate } = arguments;
    let listener = listen(address).await?;
    let address = listener.local_addr()?;
    eprintln!(
        "feed-sim: seed {seed}, {symbols} symbols, {rate} messages a second, as Binance spot on \
         ws://{address} and http://{address}"
    );
    eprintln!("try:      {}", Dialect::BinanceSpot.example(address));
    eprintln!("truth:    curl 'http://{address}/truth?symbol=BTCUSDT'");
    let symbols = usize::from(symbols);
    let options = MarketOptions { seed, symbols, rate, start_ns: clock::wall_ns() };
    serve::serve(listener, options).await
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}
