//! The commands of the terminal, one file each, and what they share: how they end, how they wait, and
//! how they write times and counts.
//!
//! `main` calls them. Data goes to standard output, words for a person to standard error.

use std::future::Future;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use thiserror::Error;
use tickfan_core::market::Nanos;

pub mod gateway;
pub mod tail;
pub mod screen;
pub mod book;
pub mod top;
pub mod check;
pub mod manual;

use crate::client::ClientError;
use crate::client::admin::AdminError;
use crate::limits::{MILLI_NS, SECOND_NS};

/// What a shell says of a program that was ended by Ctrl-C.
const INTERRUPTED: u8 = 130;

/// How a command ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It has done what it was asked for.
    Done,
    /// Somebody pressed Ctrl-C.
    Interrupted,
}

/// Why a command failed.
#[derive(Debug, Error)]
pub enum Failure {
    /// Standard output takes no more. Closed, it is no failure.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
    /// A gateway did not serve us, or told what cannot be true.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A gateway did not tell how it is.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// Anything else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

/// The exit code of a command; what went wrong is told first.
fn exit(command: &str, ended: Result<Ended, Failure>) -> ExitCode {
    match ended {
        Ok(Ended::Done) => ExitCode::SUCCESS,
        Ok(Ended::Interrupted) => ExitCode::from(INTERRUPTED),
        // Whoever read our lines has had enough of them.
        Err(Failure::Output(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody may be there to read it.
            let _ =
                writeln!(io::stderr(), "{}", format!("tickfan {command}: {failure}").trim_end());
            ExitCode::FAILURE
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")
}

/// Runs a command until it ends or somebody presses Ctrl-C.
fn run_until_interrupted(
    command: &str,
    running: impl Future<Output = Result<Ended, Failure>>,
) -> ExitCode {
    let ended = runtime().map_err(Failure::from).and_then(|runtime| {
        runtime.block_on(async {
            tokio::select! {
                ended = running => ended,
                _ = tokio::signal::ctrl_c() => Ok(Ended::Interrupted),
            }
        })
    });
    exit(command, ended)
}

/// Reads a time like `5s`, `500ms` or `2m`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a number and ms, s, m or h, as in 5s".to_owned();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    match number.checked_mul(unit_ms) {
        Some(ms) if ms > 0 => Ok(Duration::from_millis(ms)),
        _ => Err(wrong()),
    }
}

/// A span of time for a person: three digits say enough.
fn span(ns: Nanos) -> String {
    let tenths = |ns: Nanos, unit_ns: Nanos| {
        let tenths = ns / (unit_ns / 10);
        format!("{}.{}", tenths / 10, tenths % 10)
    };
    let s = ns / SECOND_NS;
    match ns {
        0..100_000 => format!("{} us", ns / 1_000),
        100_000..10_000_000 => format!("{} ms", tenths(ns, MILLI_NS)),
        10_000_000..1_000_000_000 => format!("{} ms", ns / MILLI_NS),
        1_000_000_000..60_000_000_000 => format!("{} s", tenths(ns, SECOND_NS)),
        _ if s < 3_600 => format!("{} m {} s", s / 60, s % 60),
        _ if s < 86_400 => format!("{} h {} m", s / 3_600, s / 60 % 60),
        _ => format!("{} d {} h", s / 86_400, s / 3_600 % 24),
    }
}

/// A count for a person, in at most five characters.
fn count(number: u64) -> String {
    for (unit, suffix) in [(1_000_000_000_000, 'T'), (1_000_000_000, 'G'), (1_000_000, 'M')] {
        if number >= unit {
            return short(number, unit, suffix);
        }
    }
    if number >= 10_000 { short(number, 1_000, 'k') } else { number.to_string() }
}

fn short(number: u64, unit: u64, suffix: char) -> String {
    let whole = number / unit;
    if whole >= 100 {
        format!("{whole}{suffix}")
    } else {
        format!("{whole}.{}{suffix}", number % unit / (unit / 10))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_unit() {
        for (text, ms) in [("5s", 5_000), ("500ms", 500), ("2m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "5", "s", "0s", "-1s", "1.5s", "5 s", "5sec", "99999999999999999999s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert!(parse_duration(&format!("{}h", u64::MAX)).is_err());
    }

    #[test]
    fn spans_and_counts_say_enough_in_few_characters() {
        for (ns, expected) in [
            (0, "0 us"),
            (99_999, "99 us"),
            (340_000, "0.3 ms"),
            (84_400_000, "84 ms"),
            (3_250_000_000, "3.2 s"),
            (312_000_000_000, "5 m 12 s"),
            (11_520_000_000_000, "3 h 12 m"),
            (180_000_000_000_000, "2 d 2 h"),
        ] {
            assert_eq!(span(ns), expected);
        }
        for (number, expected) in [
            (0, "0"),
            (9_999, "9999"),
            (10_000, "10.0k"),
            (123_456, "123k"),
            (4_560_000, "4.5M"),
            (7_000_000_000, "7.0G"),
            (u64::MAX, "18446744T"),
        ] {
            assert_eq!(count(number), expected);
        }
    }
}
