//! A command to be run → a client that is certified: its surroundings in, its lines out.
//!
//! Used by the binary. A thread reads what the command prints; the command ends with its client.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use anyhow::{Context, Result};
use tokio::sync::mpsc;

use super::LEVELS;
use super::run::{Client, Place, Started};

/// Lines that wait to be judged; the command waits when there are more.
const LINES_MAX: usize = 4_096;

/// A command and its arguments.
#[derive(Debug, Clone)]
pub struct Command(pub Vec<String>);

/// Ends the command when it is no longer wanted.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Client for Command {
    fn start(&self, place: &Place) -> Result<Started> {
        let Self(words) = self;
        let (program, arguments) = words.split_first().context("no command was given")?;
        let mut child = std::process::Command::new(program)
            .args(arguments)
            .env("FEED_SIM_WS", format!("ws://{}", place.address))
            .env("FEED_SIM_REST", format!("http://{}", place.address))
            .env("FEED_SIM_DIALECT", place.dialect.venue().name())
            .env("FEED_SIM_SYMBOLS", place.symbols.join(","))
            .env("FEED_SIM_TO_LIST", place.to_list.join(","))
            .env("FEED_SIM_DEPTH", place.depth.map_or(String::new(), |depth| depth.to_string()))
            .env("FEED_SIM_LEVELS", LEVELS.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let printed = child.stdout.take().context("the command has no stdout")?;
        let (sender, lines) = mpsc::channel(LINES_MAX);
        std::thread::spawn(move || {
            for line in BufReader::new(printed).lines() {
                let Ok(line) = line else { return };
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Started { lines, guard: Box::new(Running(child)) })
    }
}
