//! `tickfan top`: the overview of a gateway, again and again → a board of feeds, shards, classes and
//! the worst connections, as a screen, as text, or as JSON.
//!
//! `main` calls it. Here is what was told last and before, and what that makes a second; `screen`
//! draws it. What is shown while the gateway does not answer is grey, with the reason and its age.

use std::cell::RefCell;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use tickfan_core::market::Nanos;
use tokio::time::{interval, sleep};

use super::screen::{self, Key, Screen, board};
use super::{Ended, Failure, parse_duration, run_until_interrupted};
use crate::client::admin;
use crate::clock::Clock;
use crate::overview::{Overview, WorstBy};

/// Columns of the board as text.
const TEXT_COLUMNS: u16 = 120;

/// Watch how a gateway serves its feeds, shards, budget classes and connections
///
/// On a terminal it fills the screen: q ends it, l, m and b rank the connections by lag, merged events
/// and blocked time. Elsewhere it prints the board as text, again and again.
#[derive(Debug, Clone, clap::Args)]
pub struct TopOptions {
    /// What the worst connections are ranked by: lag, merged or blocked
    #[arg(long, value_name = "WHAT", default_value = "lag", value_parser = parse_worst_by)]
    pub by: WorstBy,
    /// Print once and end; as text after one interval, which the rates are taken over
    #[arg(long)]
    pub once: bool,
    /// Print what the gateway answers as JSON, one object a line
    #[arg(long)]
    pub json: bool,
    /// How often the gateway is asked
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub every: Duration,
    /// The admin listener of the gateway
    #[arg(long, default_value = "http://127.0.0.1:9180")]
    pub url: String,
}

fn parse_worst_by(name: &str) -> Result<WorstBy, String> {
    WorstBy::from_name(name).ok_or_else(|| "write lag, merged or blocked".to_owned())
}

/// All that is known of the gateway.
#[derive(Debug, Clone)]
pub struct Board {
    /// Where it is.
    pub url: String,
    /// What the connections are ranked by.
    pub by: WorstBy,
    /// What it told last, and when by our clock.
    pub now: Option<(Overview, Nanos)>,
    /// What it told before that.
    pub before: Option<Overview>,
    /// Why it does not answer, if it does not.
    pub trouble: Option<String>,
}

impl Board {
    /// Nothing is known yet.
    pub const fn new(url: String, by: WorstBy) -> Self {
        Self { url, by, now: None, before: None, trouble: None }
    }

    /// It has answered.
    pub fn hear(&mut self, overview: Overview, now: Nanos) {
        self.before = self.now.replace((overview, now)).map(|(before, _)| before);
        self.trouble = None;
    }

    /// What a counter grows by in a second; `None` before it was told twice. It begins anew with the
    /// gateway.
    pub fn per_s(&self, counter: impl Fn(&Overview) -> Option<u64>) -> Option<u64> {
        let ((now, _), before) = (self.now.as_ref()?, self.before.as_ref()?);
        let grown = counter(now)?.checked_sub(counter(before)?)?;
        let us = now.time_us.checked_sub(before.time_us).filter(|us| *us > 0)?;
        u64::try_from(u128::from(grown) * 1_000_000 / u128::from(us)).ok()
    }
}

/// Shows the board until it was shown once, a key, Ctrl-C, or an error.
pub fn run(options: TopOptions) -> ExitCode {
    run_until_interrupted("top", async {
        let clock = Clock::start();
        if options.json {
            return print_json(&options).await;
        }
        let board = RefCell::new(Board::new(options.url.clone(), options.by));
        // Whoever is not there to begin with is told of at once, and not on a screen.
        ask(&board, &clock).await?;
        if options.once {
            sleep(options.every).await;
            ask(&board, &clock).await?;
            print(&board.borrow(), clock.now())?;
            Ok(Ended::Done)
        } else if screen::is_there() {
            fill_screen(&options, &clock, &board).await
        } else {
            print_on(&options, &clock, &board).await
        }
    })
}

async fn ask(board: &RefCell<Board>, clock: &Clock) -> Result<(), admin::AdminError> {
    let (url, by) = (board.borrow().url.clone(), board.borrow().by);
    let (overview, _) = admin::overview(&url, by).await?;
    board.borrow_mut().hear(overview, clock.now());
    Ok(())
}

/// Asks again and again. A gateway that does not answer may come back.
async fn keep_asking(options: &TopOptions, clock: &Clock, board: &RefCell<Board>) {
    loop {
        sleep(options.every).await;
        if let Err(error) = ask(board, clock).await {
            board.borrow_mut().trouble = Some(error.cause());
        }
    }
}

async fn fill_screen(
    options: &TopOptions,
    clock: &Clock,
    board: &RefCell<Board>,
) -> Result<Ended, Failure> {
    let asking = keep_asking(options, clock, board);
    let showing = async {
        let mut screen = Screen::open()?;
        let mut frames = interval(screen::FRAME);
        loop {
            tokio::select! {
                key = screen.key() => match key {
                    Key::Quit => return Ok(Ended::Done),
                    Key::Interrupt => return Ok(Ended::Interrupted),
                    Key::Char(key) => {
                        let by = WorstBy::ALL.into_iter().find(|by| by.name().starts_with(key));
                        let mut board = board.borrow_mut();
                        board.by = by.unwrap_or(board.by);
                    }
                },
                _ = frames.tick() => {
                    screen.draw(|canvas| board::draw(&board.borrow(), clock.now(), canvas))?;
                }
            }
        }
    };
    tokio::select! {
        () = asking => Ok(Ended::Done),
        shown = showing => shown,
    }
}

/// Prints the board again and again; the first has no rates yet.
async fn print_on(
    options: &TopOptions,
    clock: &Clock,
    board: &RefCell<Board>,
) -> Result<Ended, Failure> {
    loop {
        print(&board.borrow(), clock.now())?;
        sleep(options.every).await;
        ask(board, clock).await?;
    }
}

fn print(board: &Board, now: Nanos) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let rows = board::rows_of_all(board);
    let text = screen::text(TEXT_COLUMNS, rows, |canvas| board::draw(board, now, canvas));
    out.write_all(text.as_bytes())?;
    out.flush()
}

async fn print_json(options: &TopOptions) -> Result<Ended, Failure> {
    loop {
        let (_, text) = admin::overview(&options.url, options.by).await?;
        let mut out = io::stdout().lock();
        writeln!(out, "{text}")?;
        out.flush()?;
        if options.once {
            return Ok(Ended::Done);
        }
        sleep(options.every).await;
    }
}
