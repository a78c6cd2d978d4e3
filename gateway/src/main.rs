//! The binary `tickfan`: reads the command line, starts the gateway or the client, and turns signals
//! and errors into exit codes.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use tickfan::config::Config;
use tickfan::serve;
use tickfan::tail::{self, TailOptions};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The market of the embedded default: believable, and light on a laptop.
const SIMULATOR_SEED: u64 = 1;
const SIMULATOR_SYMBOLS: usize = 8;
const SIMULATOR_RATE: u32 = 400;

#[derive(Debug, Parser)]
#[command(version, about = "A market data fan-out gateway")]
struct Arguments {
    /// The configuration file; without one, the built-in simulator is served on 127.0.0.1:8080
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Follow symbols of a gateway on the terminal
    Tail(TailOptions),
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
    let result = match arguments.command {
        Some(Command::Tail(options)) => run_tail(options),
        None => run_gateway(arguments.config),
    };
    result.unwrap_or_else(|error| {
        eprintln!("tickfan: {error:#}");
        ExitCode::FAILURE
    })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")
}

fn run_tail(options: TailOptions) -> Result<ExitCode> {
    Ok(runtime()?.block_on(tail::run(options)))
}

fn run_gateway(path: Option<PathBuf>) -> Result<ExitCode> {
    let config = match &path {
        Some(path) => match Config::load(path) {
            Ok(config) => config,
            Err(error) => {
                eprintln!("tickfan: {error}");
                return Ok(ExitCode::from(2));
            }
        },
        None => embedded()?,
    };
    if cfg!(feature = "conformance") {
        // What it sends back is as large as a client likes.
        let is_private = config.listen.ip().is_loopback();
        anyhow::ensure!(is_private, "a conformance build listens on loopback only");
        eprintln!("*** CONFORMANCE BUILD: it echoes every message and serves nobody ***");
    }
    let runtime = runtime()?;
    // The handlers first: a signal during the start must not kill without a word.
    let entered = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    drop(entered);
    // Not from within a task: what cannot be started takes its runtimes with it.
    let mut running = serve::start(config)?;
    tracing::info!(clients = %running.listen, operators = %running.admin, "serving");
    if path.is_none() {
        say_what_to_try(&running);
    }
    runtime.block_on(async {
        tokio::select! {
            reason = running.failed() => {
                eprintln!("tickfan: {reason}");
                return Ok(ExitCode::FAILURE);
            }
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("going away; once more to go at once");
        tokio::select! {
            () = running.drain() => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// The default: the built-in simulator as the only feed.
fn embedded() -> Result<Config> {
    let address = serve::start_simulator(SIMULATOR_SEED, SIMULATOR_SYMBOLS, SIMULATOR_RATE)?;
    let text = format!(
        "[[feed]]\nvenue = \"sim\"\nsymbols = [\"*\"]\n\
         url = \"ws://{address}\"\nrest_url = \"http://{address}\"\n"
    );
    Ok(Config::parse(&text, "the embedded default")?)
}

fn say_what_to_try(running: &serve::Running) {
    let (listen, admin) = (running.listen, running.admin);
    eprintln!(
        "\nTickfan serves a simulated exchange. Try, in another terminal:\n\n  \
         cargo run --release -- tail sim:BTCUSDT --depth 5\n  \
         curl 'http://{listen}/v1/book?symbol=sim:BTCUSDT&depth=5'\n  \
         curl 'http://{listen}/v1/instruments'\n  \
         curl 'http://{admin}/metrics'\n  \
         websocat ws://{listen}/v1/stream\n    \
         {{\"op\":\"subscribe\",\"channel\":\"bbo\",\"symbols\":[\"sim:*\"],\"budget_ms\":100}}\n"
    );
}
