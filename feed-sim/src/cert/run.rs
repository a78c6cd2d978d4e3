//! A client and scenarios → exchanges on sockets, one and a fresh client for each scenario, and the
//! verdicts.
//!
//! Called by the binary and by tests, on a runtime of one thread. Several scenarios run side by side:
//! most of the time of each is waiting.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{
    Demand, Judge, LEVELS, Point, Verdict, connects_max, is_alone, is_harmless, must_be_noticed,
    numbers_books,
};
use crate::clock;
use crate::exchange::{Exchange, ExchangeOptions};
use crate::fault::FaultyExchange;
use crate::scenario::{Kind, Scenario, SymbolName};
use crate::serve::ServedExchange;
use crate::venue::Dialect;

const MILLI_NS: u64 = 1_000_000;

/// Mean time between two events of the market, and one that never comes.
const PACE_NS: u64 = 5 * MILLI_NS;
const NEVER_NS: u64 = 1 << 60;

/// A client's books are live after this long.
const START_NS_MAX: u64 = 60_000 * MILLI_NS;

/// A scenario is over after this long.
const SCENARIO_NS_MAX: u64 = 60_000 * MILLI_NS;

/// All is watched for so long once it is right again.
const WATCHED_NS: u64 = 200 * MILLI_NS;

/// A client has what there is so long after the market has stopped.
const STILL_NS_MAX: u64 = 10_000 * MILLI_NS;

/// How often it is looked what has become of everything.
const LOOK: Duration = Duration::from_millis(5);

/// Where a client finds its exchange.
#[derive(Debug, Clone)]
pub struct Place {
    /// WebSocket and REST.
    pub address: SocketAddr,
    /// Whose words it speaks.
    pub dialect: Dialect,
    /// The symbols to be held, as the venue spells them.
    pub symbols: Vec<String>,
    /// Symbols that are not there yet, and to be held as soon as the venue lists them.
    pub to_list: Vec<String>,
    /// How deep a book is to be asked for, where the venue wants to know.
    pub depth: Option<usize>,
}

/// A client at work.
pub struct Started {
    /// What it says; see [`super::Line`].
    pub lines: mpsc::Receiver<String>,
    /// Dropped when it is no longer wanted.
    pub guard: Box<dyn Any + Send>,
}

impl std::fmt::Debug for Started {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Started").finish_non_exhaustive()
    }
}

/// Something to be certified.
pub trait Client: Send + Sync + 'static {
    /// Starts it anew.
    ///
    /// # Errors
    /// When it does not start.
    fn start(&self, place: &Place) -> Result<Started>;
}

/// What is certified.
#[derive(Debug, Clone)]
pub struct CertOptions {
    /// In whose words.
    pub dialect: Dialect,
    /// Which market, and which chances.
    pub seed: u64,
    /// What is to go wrong.
    pub scenarios: Vec<Scenario>,
    /// How many scenarios run at one time.
    pub at_once: usize,
}

/// Runs every scenario against a client; `tell` hears of each verdict when it is there. They are
/// returned in the order of the scenarios.
///
/// # Errors
/// When no exchange can be served, or the client does not start.
pub async fn certify(
    options: CertOptions,
    client: Arc<dyn Client>,
    mut tell: impl FnMut(&Verdict),
) -> Result<Vec<Verdict>> {
    let turns = Arc::new(Semaphore::new(options.at_once.max(1)));
    let mut running = JoinSet::new();
    for (place, scenario) in options.scenarios.into_iter().enumerate() {
        let (turns, client) = (Arc::clone(&turns), Arc::clone(&client));
        let (dialect, seed) = (options.dialect, options.seed.wrapping_add(place as u64));
        running.spawn(async move {
            let _turn = turns.acquire().await;
            let run = Run::begin(dialect, seed, &scenario, &*client).await;
            let verdict = match run {
                Ok(run) => run.judge(&scenario).await,
                Err(error) => Err(error),
            };
            (place, verdict.with_context(|| format!("scenario {}", scenario.name)))
        });
    }
    let mut verdicts = Vec::new();
    while let Some(ended) = running.join_next().await {
        let (place, verdict) = ended.context("a scenario broke off")?;
        let verdict = verdict?;
        tell(&verdict);
        verdicts.push((place, verdict));
    }
    verdicts.sort_by_key(|(place, _)| *place);
    Ok(verdicts.into_iter().map(|(_, verdict)| verdict).collect())
}

/// One scenario under way.
struct Run {
    dialect: Dialect,
    /// Those that are there at the beginning.
    symbols: Vec<String>,
    exchange: Arc<ServedExchange>,
    judge: Judge,
    lines: mpsc::Receiver<String>,
    /// The client has ended by itself.
    is_gone: bool,
    /// The exchange and the client, which end with the run.
    _serving: JoinSet<Result<()>>,
    _guard: Box<dyn Any + Send>,
}

impl Run {
    async fn begin(
        dialect: Dialect,
        seed: u64,
        scenario: &Scenario,
        client: &dyn Client,
    ) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no port is free")?;
        let address = listener.local_addr()?;
        let symbols = 2.max(symbols_of(scenario));
        let start_ns = clock::wall_ns();
        let options = ExchangeOptions::of(dialect, seed, symbols, start_ns).small(PACE_NS);
        let exchange = ServedExchange::new(options);
        let symbols: Vec<String> = exchange.with(|exchange, _| {
            exchange.watch(LEVELS);
            exchange.exchange().symbols().map(str::to_owned).collect()
        });
        let mut serving = JoinSet::new();
        serving.spawn(Arc::clone(&exchange).serve(listener));
        let depth = Exchange::depth(dialect);
        let lists = scenario.faults.iter().filter(|fault| fault.kind == Kind::List).count();
        let names = |exchange: &mut FaultyExchange, _| {
            exchange.exchange().names_to_list().take(lists).collect()
        };
        let to_list: Vec<String> = exchange.with(names);
        let all = [symbols.clone(), to_list.clone()].concat();
        let place = Place { address, dialect, symbols: symbols.clone(), to_list, depth };
        let Started { lines, guard } = client.start(&place)?;
        let mut judge = Judge::new(all, numbers_books(dialect));
        judge.expect_later(lists);
        Ok(Self {
            dialect,
            judge,
            symbols,
            exchange,
            lines,
            is_gone: false,
            _serving: serving,
            _guard: guard,
        })
    }

    /// Waits until something holds, for so long at most; returns whether it does. Meanwhile the judge
    /// is told everything.
    async fn wait(&mut self, for_ns: u64, mut holds: impl FnMut(&mut Self) -> bool) -> bool {
        let until_ns = self.now_ns().saturating_add(for_ns);
        loop {
            self.learn();
            if holds(self) {
                return true;
            }
            if self.is_gone || self.now_ns() >= until_ns {
                return false;
            }
            if let Ok(line) = timeout(LOOK, self.lines.recv()).await {
                self.learn();
                match line {
                    Some(line) => {
                        let now_ns = self.now_ns();
                        self.judge.hear(&line, now_ns);
                    }
                    None => self.is_gone = true,
                }
            }
        }
    }

    fn now_ns(&self) -> u64 {
        self.exchange.with(|_, now_ns| now_ns)
    }

    fn learn(&mut self) {
        for state in self.exchange.with(|exchange, _| exchange.take_states()) {
            self.judge.learn(state);
        }
    }

    async fn judge(mut self, scenario: &Scenario) -> Result<Verdict> {
        let mut points = Vec::new();
        let mut point = |demand, passed, seen: String| points.push(Point { demand, passed, seen });
        let is_live = self.wait(START_NS_MAX, |run| run.judge.is_live()).await;
        if is_live {
            self.run(scenario).await?;
        }
        let outcomes: Vec<_> = self.exchange.with(|exchange, _| exchange.outcomes().collect());
        let lines = self.judge.lines();
        let gone = if self.is_gone { ", and it has ended by itself" } else { "" };
        let broken = self.judge.broken();
        let called = self.judge.called();
        let seen = broken.map_or_else(|| format!("{lines} lines{gone}: {called}"), str::to_owned);
        point(Demand::Starts, is_live && broken.is_none() && !self.is_gone, seen);
        let why_not: Vec<&str> = outcomes.iter().filter_map(|(_, _, why_not)| *why_not).collect();
        let is_applicable = !is_live || why_not.is_empty();
        if is_live && is_applicable {
            self.demand(scenario, &outcomes, &mut point);
        }
        let not_applicable = (!is_applicable).then(|| why_not.join("; "));
        Ok(Verdict { scenario: scenario.name.clone(), not_applicable, points })
    }

    /// Lets everything happen, until all is well again and still.
    async fn run(&mut self, scenario: &Scenario) -> Result<()> {
        // What goes wrong is to hit a market that has gone on for a while.
        self.wait(WATCHED_NS, |_| false).await;
        self.judge.begin();
        self.exchange.with(|exchange, now_ns| exchange.begin(scenario, now_ns))?;
        let is_over = |run: &mut Self| run.exchange.with(|exchange, _| exchange.is_over());
        self.wait(SCENARIO_NS_MAX, is_over).await;
        let now_ns = self.now_ns();
        self.judge.end(now_ns);
        let dialect = self.dialect;
        let marked = noticed(scenario, dialect, self.symbols.len());
        let right_within_ns = scenario.right_within_ms * MILLI_NS;
        self.wait(right_within_ns, |run| {
            run.judge.right_ns().is_some() && marked.iter().all(|at| run.judge.is_marked(*at))
        })
        .await;
        self.wait(WATCHED_NS, |_| false).await;
        self.exchange.set_pace(NEVER_NS);
        self.wait(STILL_NS_MAX, |run| run.judge.is_up_to_date()).await;
        Ok(())
    }

    /// Every point but the first.
    fn demand(
        &self,
        scenario: &Scenario,
        outcomes: &[(Kind, u64, Option<&'static str>)],
        point: &mut impl FnMut(Demand, bool, String),
    ) {
        let judge = &self.judge;
        let name = |at: &usize| self.symbols[*at].as_str();
        let count: u64 = outcomes.iter().map(|(_, happened, _)| happened).sum();
        let missing: Vec<&str> = scenario
            .faults
            .iter()
            .zip(outcomes)
            // What is drawn may not be, as long as anything happened.
            .filter(|(fault, (_, happened, _))| {
                *happened == 0 && (fault.one_in.is_none() || count == 0)
            })
            .map(|(fault, _)| fault.kind.name())
            .collect();
        let seen = match missing.as_slice() {
            [] => format!("{count} times"),
            missing => format!("{} did not", missing.join(", ")),
        };
        point(Demand::Happened, missing.is_empty(), seen);
        let seen = judge.wrong().map_or_else(|| "no wrong book".to_owned(), str::to_owned);
        point(Demand::NeverWrong, judge.wrong().is_none(), seen);

        let noticed = noticed(scenario, self.dialect, self.symbols.len());
        if !noticed.is_empty() {
            let unmarked: Vec<&str> =
                noticed.iter().filter(|at| !judge.is_marked(**at)).map(name).collect();
            let seen = match unmarked.as_slice() {
                [] => "all that had to be marked was".to_owned(),
                unmarked => format!("{} stayed live all the time", unmarked.join(", ")),
            };
            point(Demand::Noticed, unmarked.is_empty(), seen);
        }

        let right_ns = judge.right_ns();
        let ended_ns = self.exchange.with(|exchange, _| exchange.last_ns().unwrap_or(0));
        let seen = match right_ns {
            Some(right_ns) => {
                format!("{} ms after the last strike", right_ns.saturating_sub(ended_ns) / MILLI_NS)
            }
            None => {
                format!("not within {} ms of the end: {}", scenario.right_within_ms, judge.called())
            }
        };
        point(Demand::RightAgain, right_ns.is_some(), seen);

        if let Some(first) = first_untouched(scenario, self.dialect) {
            let touched: Vec<&str> = (first..self.symbols.len())
                .filter(|at| judge.is_marked(*at))
                .map(|at| name(&at))
                .collect();
            let seen = match touched.as_slice() {
                [] => "they did".to_owned(),
                touched => format!("{} did not", touched.join(", ")),
            };
            point(Demand::OthersUntouched, touched.is_empty(), seen);
        }

        let (asked, connects) = self.exchange.with(|exchange, _| {
            (exchange.asked_in_ban(), exchange.connects().collect::<Vec<u64>>())
        });
        if outcomes.iter().any(|(kind, ..)| matches!(kind, Kind::Ban | Kind::RateLimit)) {
            point(Demand::SilentInBan, asked == 0, format!("{asked} requests"));
        }
        let (max, window_s) = connects_max(self.dialect);
        let within = |from: &u64| {
            let until = from.saturating_add(window_s * 1_000 * MILLI_NS);
            connects.iter().filter(|at| (*from..until).contains(at)).count()
        };
        let most = connects.iter().map(within).max().unwrap_or(0);
        point(
            Demand::ConnectsRarely,
            most <= max,
            format!("{most} in {window_s} s, of which {max} are allowed"),
        );
        let seen = format!("{} lines, {}", judge.lines(), judge.called());
        point(Demand::RightInTheEnd, judge.is_up_to_date(), seen);
    }
}

/// From which place on symbols have nothing to do with a scenario, where a client can tell.
fn first_untouched(scenario: &Scenario, dialect: Dialect) -> Option<usize> {
    let mut first = 0;
    for fault in &scenario.faults {
        match fault.symbol {
            // What is new comes behind all of them.
            None if fault.kind == Kind::List => {}
            // All that came was right.
            Some(SymbolName::Place(0)) if is_harmless(fault.kind) => {}
            Some(SymbolName::Place(0)) if is_alone(fault.kind, dialect) => first = 1,
            _ => return None,
        }
    }
    Some(first)
}

/// How many symbols a scenario needs.
fn symbols_of(scenario: &Scenario) -> usize {
    let places = scenario.faults.iter().filter_map(|fault| match fault.symbol {
        Some(SymbolName::Place(place)) => Some(place + 1),
        _ => None,
    });
    places.max().unwrap_or(0)
}

/// The symbols whose book a client must have called something else than live.
fn noticed(scenario: &Scenario, dialect: Dialect, symbols: usize) -> Vec<usize> {
    let mut noticed: Vec<usize> = scenario
        .faults
        .iter()
        .filter(|fault| must_be_noticed(fault.kind, dialect))
        .flat_map(|fault| match &fault.symbol {
            Some(SymbolName::Place(place)) => *place..*place + 1,
            // One connection may carry only one of them.
            _ if fault.kind.is_of_message() => 0..0,
            _ => 0..symbols,
        })
        .collect();
    noticed.sort_unstable();
    noticed.dedup();
    noticed
}
