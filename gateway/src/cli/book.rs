//! `tickfan book`: the stream of one book → a ladder that is always either right or says that it is
//! not, as a screen, as text, or as JSON.
//!
//! `main` calls it. Here is what is known of the book and since when; `screen` draws it. What the
//! gateway says, it may say late: so each age counts from when it was heard here.

use std::cell::RefCell;
use std::collections::hash_map::RandomState;
use std::convert::Infallible;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use serde_json::{Value, json};
use tickfan_core::market::{Channel, Nanos, State};
use tickfan_core::view::{BudgetClass, Depth};
use tickfan_core::wire::message::{Op, Subscribe};
use tickfan_core::wire::{Encoding, Received};
use tokio::time::{interval, sleep};

use super::screen::{self, Key, Screen, ladder};
use super::tail::parse_depth;
use super::{Ended, Failure, parse_duration, run_until_interrupted, span};
use crate::client::mirror::{Number, ViewMirror};
use crate::client::{Client, ClientError, Told, Update};
use crate::clock::Clock;
use crate::limits::{MILLI_NS, SECOND_NS};

/// The gateway is called silent after this long without any sign of life.
const SILENT_NS: Nanos = 3 * SECOND_NS;

/// A book that has not come after this long is not waited for by who wants it once.
const ONCE_TIMEOUT: Duration = Duration::from_secs(5);

/// A lost connection is made anew after between this and twice as long, drawn at random.
const RECONNECT_NS: Nanos = SECOND_NS;

/// Columns of the ladder as text.
const TEXT_COLUMNS: u16 = 80;

/// Watch the book of a symbol as a ladder
///
/// On a terminal it fills the screen: q ends it. Elsewhere it prints the ladder as text, again and
/// again. What is shown while the book is not live is grey, with the reason and its age.
#[derive(Debug, Clone, clap::Args)]
pub struct BookOptions {
    /// A symbol like sim:BTCUSDT
    pub symbol: String,
    /// Levels of each side, or full; rounded up to a depth on offer
    #[arg(long, default_value = "50", value_parser = parse_depth)]
    pub depth: Depth,
    /// The longest that a change may wait in the gateway; rounded down to a budget on offer
    #[arg(long, default_value_t = 50)]
    pub budget_ms: u64,
    /// Print the book once and end
    #[arg(long)]
    pub once: bool,
    /// Print the book as JSON, one object a line
    #[arg(long)]
    pub json: bool,
    /// How often it is printed, where it does not fill the screen
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub every: Duration,
    /// The stream of the gateway
    #[arg(long, default_value = "ws://127.0.0.1:8080/v1/stream")]
    pub url: String,
}

/// A price and what is offered there.
pub type Rung = (Number, Number);

/// All that is known of the book.
#[derive(Debug, Clone)]
pub struct Ladder {
    /// The symbol.
    pub symbol: String,
    /// Whether the gateway is there.
    pub link: Link,
    /// The state of the book, once it was told.
    pub state: Option<State>,
    /// Its reason, and since when by our clock, once a change of it was told.
    pub why: Option<(String, Nanos)>,
    /// When the gateway received the newest change, by our clock.
    pub changed_ns: Option<Nanos>,
    /// When anything was heard from the gateway last.
    pub heard_ns: Nanos,
    /// The epoch of the book.
    pub epoch: u32,
    /// The version of the book.
    pub version: Option<u64>,
    /// The bids, the highest first.
    pub bids: Vec<Rung>,
    /// The asks, the lowest first.
    pub asks: Vec<Rung>,
    /// Updates so far.
    pub updates: u64,
    /// Venue events that were merged into them.
    pub merged: u64,
    /// Updates that were over their budget.
    pub late: u64,
}

/// Whether the gateway is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// It is.
    Up,
    /// It is not: why, and since when.
    Down(String, Nanos),
}

/// What the ladder is worth at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// One word: a state of the protocol, or `disconnected`, or `silent`.
    pub word: &'static str,
    /// The reason, where there is one to tell.
    pub why: String,
    /// For how long it has been so, where that is known.
    pub for_ns: Option<Nanos>,
    /// The prices are those of this moment, as far as anybody can tell.
    pub is_current: bool,
}

impl Ladder {
    /// Nothing is known yet.
    pub const fn new(symbol: String, now: Nanos) -> Self {
        Self {
            symbol,
            link: Link::Up,
            state: None,
            why: None,
            changed_ns: None,
            heard_ns: now,
            epoch: 0,
            version: None,
            bids: Vec::new(),
            asks: Vec::new(),
            updates: 0,
            merged: 0,
            late: 0,
        }
    }

    /// What it is worth.
    pub fn standing(&self, now: Nanos) -> Standing {
        let silent_ns = now.saturating_sub(self.heard_ns);
        let (word, why, since_ns) = match (&self.link, self.state) {
            (Link::Down(why, since_ns), _) => ("disconnected", why.clone(), Some(*since_ns)),
            _ if silent_ns >= SILENT_NS => {
                ("silent", "nothing comes from the gateway".to_owned(), Some(self.heard_ns))
            }
            (Link::Up, None) => ("connecting", String::new(), None),
            (Link::Up, Some(state)) => {
                let (why, since_ns) = self.why.clone().unzip();
                (state.name(), why.unwrap_or_default(), since_ns)
            }
        };
        Standing {
            word,
            why,
            for_ns: since_ns.map(|since_ns| now.saturating_sub(since_ns)),
            is_current: State::from_name(word).is_some_and(State::flows),
        }
    }

    /// How long ago the gateway received the newest change.
    pub fn age_ns(&self, now: Nanos) -> Option<Nanos> {
        self.changed_ns.map(|changed_ns| now.saturating_sub(changed_ns))
    }

    /// There is a book to show, right or not.
    pub const fn has_book(&self) -> bool {
        self.version.is_some()
    }

    fn hear(&mut self, told: &Told<'_>, now: Nanos) {
        self.heard_ns = now;
        match told {
            Told::Subscribed(symbol, ack) => {
                self.symbol = (*symbol).to_owned();
                self.link = Link::Up;
                self.state = State::from_name(&ack.state);
                self.why = None;
            }
            Told::Update(update) => self.update(update, now),
            Told::Text(_) | Told::Binary(_) | Told::Drain { .. } => {}
        }
    }

    fn update(&mut self, update: &Update<'_>, now: Nanos) {
        // By the gateway's clock it was so long before the frame was sent, and ours is not compared.
        let then = |then_us: u64| now - (update.ts_us.saturating_sub(then_us) * 1_000).min(now);
        let ViewMirror { state, why, epoch, bids, asks, .. } = update.view;
        self.state = Some(*state);
        self.why = why.as_ref().map(|(why, since_us)| (why.clone(), then(*since_us)));
        self.epoch = *epoch;
        self.updates += 1;
        self.merged += update.applied.merged;
        self.late += u64::from(update.is_late);
        if let Received::Image { tr: Some(tr), .. } | Received::Delta { tr: Some(tr), .. } =
            update.received
        {
            self.changed_ns = Some(then(*tr));
        }
        // The last values stand, marked as what they are, until others come.
        if update.view.version().is_some() {
            self.version = update.view.version();
            self.bids = bids.levels().rev().collect();
            self.asks = asks.levels().collect();
        }
    }

    /// The book as a JSON object.
    pub fn json(&self, now: Nanos) -> Value {
        let standing = self.standing(now);
        let ms = |ns: Option<Nanos>| ns.map(|ns| ns / MILLI_NS);
        let side = |rungs: &[Rung]| {
            rungs
                .iter()
                .map(|(price, quantity)| json!([price.to_string(), quantity.to_string()]))
                .collect::<Value>()
        };
        json!({
            "symbol": self.symbol,
            "state": standing.word,
            "why": standing.why,
            "for_ms": ms(standing.for_ns),
            "age_ms": ms(self.age_ns(now)),
            "epoch": self.epoch,
            "s": self.version,
            "updates": self.updates,
            "merged": self.merged,
            "late": self.late,
            "bids": side(&self.bids),
            "asks": side(&self.asks),
        })
    }
}

/// Shows the book until it was shown once, a key, Ctrl-C, or an error.
pub fn run(options: BookOptions) -> ExitCode {
    run_until_interrupted("book", async {
        let clock = Clock::start();
        let ladder = RefCell::new(Ladder::new(options.symbol.clone(), clock.now()));
        // Once and nowhere again: a connection that is lost is the end.
        let following = async {
            if options.once {
                follow(&options, &clock, &ladder).await
            } else {
                keep_following(&options, &clock, &ladder).await
            }
        };
        let is_for_a_person = !options.once && !options.json && screen::is_there();
        let showing = async {
            if options.once {
                print_once(&options, &clock, &ladder).await
            } else if is_for_a_person {
                fill_screen(&clock, &ladder).await
            } else {
                print_on(&options, &clock, &ladder).await
            }
        };
        tokio::select! {
            error = following => Err(error.into()),
            shown = showing => shown,
        }
    })
}

/// Follows the book over one connection, for as long as that holds.
async fn follow(options: &BookOptions, clock: &Clock, ladder: &RefCell<Ladder>) -> ClientError {
    let following: Result<Infallible, ClientError> = async {
        let mut client = Client::connect(&options.url, Encoding::Json).await?;
        let subscribe = Subscribe {
            channel: Channel::Book,
            symbols: vec![options.symbol.clone()],
            depth: options.depth,
            last: 0,
            budget: BudgetClass::at_most(options.budget_ms),
        };
        client.ask(Op::Subscribe(subscribe)).await?;
        loop {
            let _ = client
                .read(|told| {
                    ladder.borrow_mut().hear(&told, clock.now());
                    Ok::<_, ClientError>(ControlFlow::Continue(()))
                })
                .await?;
        }
    }
    .await;
    match following {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

/// Follows the book over one connection after the other. The first must be to be had.
async fn keep_following(
    options: &BookOptions,
    clock: &Clock,
    ladder: &RefCell<Ladder>,
) -> ClientError {
    loop {
        let error = follow(options, clock, ladder).await;
        let was_served = ladder.borrow().state.is_some();
        if !was_served || !error.may_pass() {
            return error;
        }
        {
            let mut ladder = ladder.borrow_mut();
            // It is down since it was lost, however often it was tried since.
            if ladder.link == Link::Up {
                ladder.link = Link::Down(error.to_string(), clock.now());
            }
        }
        let spread = RandomState::new().build_hasher().finish() % RECONNECT_NS;
        sleep(Duration::from_nanos(RECONNECT_NS + spread)).await;
    }
}

async fn fill_screen(clock: &Clock, ladder: &RefCell<Ladder>) -> Result<Ended, Failure> {
    let mut screen = Screen::open()?;
    let mut frames = interval(screen::FRAME);
    loop {
        tokio::select! {
            key = screen.key() => match key {
                Key::Quit => return Ok(Ended::Done),
                Key::Interrupt => return Ok(Ended::Interrupted),
                Key::Char(_) => {}
            },
            _ = frames.tick() => {
                screen.draw(|canvas| ladder::draw(&ladder.borrow(), clock.now(), canvas))?;
            }
        }
    }
}

async fn print_once(
    options: &BookOptions,
    clock: &Clock,
    ladder: &RefCell<Ladder>,
) -> Result<Ended, Failure> {
    let come = async {
        let mut looks = interval(Duration::from_millis(5));
        while !ladder.borrow().has_book() {
            looks.tick().await;
        }
    };
    if tokio::time::timeout(ONCE_TIMEOUT, come).await.is_err() {
        let ladder = ladder.borrow();
        let standing = ladder.standing(clock.now());
        let (symbol, within) = (&ladder.symbol, span(ONCE_TIMEOUT.as_nanos() as Nanos));
        let Standing { word, why, .. } = standing;
        return Err(anyhow!("{symbol} has no book to show within {within}: {word} {why}").into());
    }
    print(options, &ladder.borrow(), clock.now())?;
    Ok(Ended::Done)
}

/// Prints the book again and again, from when it has come.
async fn print_on(
    options: &BookOptions,
    clock: &Clock,
    ladder: &RefCell<Ladder>,
) -> Result<Ended, Failure> {
    let mut turns = interval(options.every);
    loop {
        turns.tick().await;
        if ladder.borrow().state.is_some() {
            print(options, &ladder.borrow(), clock.now())?;
        }
    }
}

fn print(options: &BookOptions, ladder: &Ladder, now: Nanos) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if options.json {
        writeln!(out, "{}", ladder.json(now))?;
    } else {
        let rows = ladder::rows_of_all(ladder);
        write!(
            out,
            "{}",
            screen::text(TEXT_COLUMNS, rows, |canvas| {
                ladder::draw(ladder, now, canvas);
            })
        )?;
    }
    out.flush()
}
