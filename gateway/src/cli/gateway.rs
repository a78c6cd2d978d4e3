//! `tickfan` without a command: the gateway itself, from its configuration to the end of its drain.
//!
//! `main` calls it, and the main thread waits here for signals while the gateway's own threads work.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;
use crate::serve;

/// The market of the embedded default: believable, and light on a laptop.
const SIMULATOR_SEED: u64 = 1;
const SIMULATOR_SYMBOLS: usize = 8;
const SIMULATOR_RATE: u32 = 400;

/// The exit code for a configuration that cannot be used.
const UNUSABLE: u8 = 2;

/// Serves until a signal.
pub fn run(path: Option<&Path>) -> ExitCode {
    serve(path).unwrap_or_else(|error| {
        say(&format!("tickfan: {error:#}\n"));
        ExitCode::FAILURE
    })
}

fn serve(path: Option<&Path>) -> Result<ExitCode> {
    let config = match path {
        Some(path) => match Config::load(path) {
            Ok(config) => config,
            Err(error) => {
                say(&format!("tickfan: {error}\n"));
                return Ok(ExitCode::from(UNUSABLE));
            }
        },
        None => embedded()?,
    };
    if cfg!(feature = "conformance") {
        // What it sends back is as large as a client likes.
        let is_private = config.listen.ip().is_loopback();
        ensure!(is_private, "a conformance build listens on loopback only");
        say("*** CONFORMANCE BUILD: it echoes every message and serves nobody ***\n");
    }
    let runtime = super::runtime()?;
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
                say(&format!("tickfan: {reason}\n"));
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
    say(&format!(
        "\nTickfan serves a simulated exchange. Try, in another terminal:\n\n  \
         cargo run --release -- book sim:BTCUSDT\n  \
         cargo run --release -- tail sim:BTCUSDT --depth 5\n  \
         cargo run --release -- top\n  \
         curl 'http://{listen}/v1/book?symbol=sim:BTCUSDT&depth=5'\n  \
         curl 'http://{listen}/v1/instruments'\n  \
         curl 'http://{admin}/metrics'\n  \
         websocat ws://{listen}/v1/stream\n    \
         {{\"op\":\"subscribe\",\"channel\":\"bbo\",\"symbols\":[\"sim:*\"],\"budget_ms\":100}}\n\n"
    ));
}

/// Words for a person; a gateway goes on without anybody to read them.
fn say(words: &str) {
    let _ = io::stderr().write_all(words.as_bytes());
}
