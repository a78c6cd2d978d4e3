//! `tickfan tail`: the gateway's stream, as lines on a terminal or for another program to read.
//!
//! `main` calls it. Everything that it prints has also been rebuilt and checked by the client beneath,
//! and it stops with exit code 1 when it was told what cannot be true. Updates go to `out` and
//! nothing else does; words for a person go to `notes`.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;
use tickfan_core::market::{Channel, Nanos};
use tickfan_core::view::{BudgetClass, Depth};
use tickfan_core::wire::message::{Op, Subscribe, SubscribedView};
use tickfan_core::wire::{Encoding, Received};

use super::{Ended, Failure, parse_duration, run_until_interrupted};
use crate::client::mirror::Number;
use crate::client::{Client, Told, Update};
use crate::clock::Clock;

#[cfg(test)]
mod tests;

const NANOS_PER_MICRO: Nanos = 1_000;

/// Print the updates of some symbols, and check that they can be true
///
/// Ages are in milliseconds, since the exchange's time and since the gateway's receipt.
#[derive(Debug, Clone, clap::Args)]
pub struct TailOptions {
    /// Symbols like sim:BTCUSDT, or sim:* for all of a venue
    #[arg(required = true, value_name = "SYMBOL")]
    pub symbols: Vec<String>,
    /// What to watch: book, bbo or trades
    #[arg(long, default_value = "book", value_parser = parse_channel)]
    pub channel: Channel,
    /// Levels of each side, or full; rounded up to a depth on offer
    #[arg(long, default_value = "10", value_parser = parse_depth)]
    pub depth: Depth,
    /// The longest that a change may wait in the gateway; rounded down to a budget on offer
    #[arg(long, default_value_t = 50)]
    pub budget_ms: u64,
    /// Print the updates as they came, one JSON object a line, with the symbol added
    #[arg(long, conflicts_with = "raw")]
    pub json: bool,
    /// Print every message as it came, control messages included: texts a line each, binary messages
    /// a line of hexadecimal digits each
    #[arg(long)]
    pub raw: bool,
    /// Ask for the updates in binary (tickfan.bin.v1); they are printed as ever
    #[arg(long)]
    pub binary: bool,
    /// Stop after this many updates
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Stop after this long, as in 5s
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    pub stop_after: Option<Duration>,
    /// The stream of the gateway
    #[arg(long, default_value = "ws://127.0.0.1:8080/v1/stream")]
    pub url: String,
}

impl TailOptions {
    const fn encoding(&self) -> Encoding {
        if self.binary { Encoding::Binary } else { Encoding::Json }
    }
}

fn parse_channel(name: &str) -> Result<Channel, String> {
    Channel::from_name(name).ok_or_else(|| "channels are book, bbo, trades".to_owned())
}

/// Reads a number of levels, or `full`.
pub(super) fn parse_depth(text: &str) -> Result<Depth, String> {
    match text.parse() {
        Ok(levels) if levels > 0 => Ok(Depth::at_least(levels)),
        _ if text == "full" => Ok(Depth::Full),
        _ => Err("write a number of levels, or full".to_owned()),
    }
}

/// Follows the stream until the count or the time is reached, Ctrl-C, or an error.
pub fn run(options: TailOptions) -> ExitCode {
    run_until_interrupted("tail", async {
        let (mut out, mut notes) = (io::stdout(), io::stderr());
        let followed = follow(&options, &mut out, &mut notes);
        match options.stop_after {
            None => followed.await?,
            // Reading is not to be given up half-way, and may be: nobody reads on.
            Some(time) => tokio::time::timeout(time, followed).await.unwrap_or(Ok(()))?,
        }
        Ok(Ended::Done)
    })
}

async fn follow(
    options: &TailOptions,
    out: &mut impl Write,
    notes: &mut impl Write,
) -> Result<(), Failure> {
    let mut client = Client::connect(&options.url, options.encoding()).await?;
    let subscribe = Subscribe {
        channel: options.channel,
        symbols: options.symbols.clone(),
        depth: options.depth,
        last: 0,
        budget: BudgetClass::at_most(options.budget_ms),
    };
    client.ask(Op::Subscribe(subscribe)).await?;
    let mut tail = Tail { clock: Clock::start(), options, left: options.count };
    while client.read(|told| tail.hear(told, out, notes)).await?.is_continue() {
        out.flush()?;
    }
    out.flush()?;
    client.close().await;
    Ok(())
}

/// What is kept from message to message.
struct Tail<'a> {
    clock: Clock,
    options: &'a TailOptions,
    /// Updates still to come, if they are counted.
    left: Option<u64>,
}

impl Tail<'_> {
    fn hear(
        &mut self,
        told: Told<'_>,
        out: &mut impl Write,
        notes: &mut impl Write,
    ) -> Result<ControlFlow<()>, Failure> {
        match told {
            Told::Text(text) if self.options.raw => writeln!(out, "{text}")?,
            Told::Binary(bytes) if self.options.raw => writeln!(out, "{}", hexadecimal(bytes))?,
            Told::Text(_) | Told::Binary(_) => {}
            Told::Subscribed(symbol, ack) => {
                writeln!(notes, "{}", acknowledged(symbol, ack))?;
            }
            Told::Drain { in_ms, reason } => {
                writeln!(notes, "the gateway will close this connection in {in_ms} ms: {reason}")?;
            }
            Told::Update(update) => return self.update(&update, out),
        }
        Ok(ControlFlow::Continue(()))
    }

    fn update(
        &mut self,
        update: &Update<'_>,
        out: &mut impl Write,
    ) -> Result<ControlFlow<()>, Failure> {
        if self.options.json {
            // The update is an object: the symbol becomes its first member.
            let symbol = Value::from(update.view.symbol.as_str());
            writeln!(out, "{{\"symbol\":{symbol},{}", &update.json()[1..])?;
        } else if !self.options.raw {
            let now_us = (self.clock.now() / NANOS_PER_MICRO) as i64;
            writeln!(out, "{}", Line { now_us, update }.text())?;
        }
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
        let is_enough = self.left == Some(0);
        Ok(if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Nothing can go wrong in writing to a string.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What is in force, for a person.
fn acknowledged(symbol: &str, ack: &SubscribedView) -> String {
    let mut words = format!("{symbol}: {}", ack.channel);
    if !ack.depth.is_null() {
        let _ = write!(words, " to depth {}", ack.depth.to_string().trim_matches('"'));
    }
    let _ = write!(words, " within {} ms, {}", ack.budget_ms, ack.state);
    if ack.budget == "infeasible" {
        let _ = write!(words, "; the gateway cannot hold that budget at present");
        if let Some(p99_us) = ack.p99_us {
            let _ = write!(words, " (p99 {p99_us} us)");
        }
    }
    words
}

/// An update as one line for a person.
struct Line<'a> {
    now_us: i64,
    update: &'a Update<'a>,
}

impl Line<'_> {
    fn text(&self) -> String {
        let mut line = format!("{} {} ", time_of_day(self.update.ts_us), self.update.view.symbol);
        // Nothing can go wrong in writing to a string.
        let _ = self.what(&mut line);
        if self.update.applied.merged > 0 {
            let _ = write!(line, "  merged {}", self.update.applied.merged);
        }
        if self.update.is_late {
            line.push_str("  LATE");
        }
        line
    }

    fn what(&self, line: &mut String) -> std::fmt::Result {
        let best = |best: Option<(&Number, &Number)>| {
            best.map_or_else(|| "-".to_owned(), |(px, qty)| format!("{px} x {qty}"))
        };
        let view = self.update.view;
        let bbo = format!("{} | {}", best(view.best_bid()), best(view.best_ask()));
        let levels = format!("{}+{} levels", view.bids.len(), view.asks.len());
        match self.update.received {
            Received::Image { te, tr, state, .. } => {
                write!(line, "image  {bbo}  {levels}, {state}")?;
                self.age(line, *te, *tr)
            }
            Received::Delta { te, tr, b, a, .. } => {
                write!(line, "delta  {bbo}  {levels}, {} changed", b.len() + a.len())?;
                self.age(line, *te, *tr)
            }
            Received::Bbo { te, tr, .. } => {
                write!(line, "bbo    {bbo}")?;
                self.age(line, *te, *tr)
            }
            Received::Trades { lost, tr, x, .. } => {
                line.push_str("trades ");
                if *lost > 0 {
                    write!(line, "{lost} LOST ")?;
                }
                let Some((te, px, qty, side, _)) = x.last() else { return Ok(()) };
                let side = if side.is_empty() { "?" } else { side };
                write!(line, "{side} {px} x {qty}")?;
                if x.len() > 1 {
                    write!(line, ", the last of {}", x.len())?;
                }
                self.age(line, Some(*te), *tr)
            }
            Received::State { state, why, e, .. } => {
                write!(line, "state  {state}: {why}, epoch {e}")
            }
            Received::Stats(_) | Received::Unknown => Ok(()),
        }
    }

    /// How old the newest news of the update is, by the exchange's clock and by the gateway's.
    fn age(&self, line: &mut String, te_us: Option<u64>, tr_us: Option<u64>) -> std::fmt::Result {
        let age = |then_us: Option<u64>| match then_us {
            Some(then_us) if then_us > 0 => {
                format!("{:.1}", (self.now_us - then_us as i64) as f64 / 1e3)
            }
            _ => "-".to_owned(),
        };
        write!(line, "  age {}/{} ms", age(te_us), age(tr_us))
    }
}

/// `hh:mm:ss.micros` of a time in microseconds since the Unix epoch, in UTC.
fn time_of_day(time_us: u64) -> String {
    let (seconds, micros) = (time_us / 1_000_000, time_us % 1_000_000);
    let (hours, minutes) = (seconds / 3_600 % 24, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{micros:06}", seconds % 60)
}
