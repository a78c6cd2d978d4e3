//! What is measured: a scenario × a peer → [`report::Run`]s with named parameters and figures.
//!
//! Called by the command line, on the load generator's thread. Every name that a goal, a condition
//! (`--fail-if`) or a comparison may use stands in the tables here, and is what a scenario writes.
//!
//! `peer` is `tickfan`, `naive`, `batch`, `uws`, `nats`, or `loop`: a bare loop without any server,
//! that is the anchor of some scenarios. All parameters are texts.
//!
//! # Figures that every run against a server has
//!
//! Over the measured window; those of latency are received − intended, over all that was sampled.
//!
//! | figure | is |
//! |---|---|
//! | `deliveries_per_s` | updates delivered to subscribers; a conflated one counts the changes that it represents |
//! | `updates_per_s` | updates received, conflated or not |
//! | `feed_per_s` | events published |
//! | `p50_us` `p90_us` `p99_us` `p999_us` `p9999_us` `max_us` | latency; of a conflated update its newest change |
//! | `oldest_p99_us` | latency of the oldest change in an update (the same where nothing is conflated) |
//! | `missing_share` | deliveries that were due and never came, of all due |
//! | `updates_per_read` | updates in one read of a client |
//! | `bytes_per_s` | bytes received |
//! | `server_cpu_s` `server_cpu_cores` | CPU seconds of the server's process, and those per second |
//! | `deliveries_per_cpu_s` | deliveries per CPU second of the server |
//! | `server_rss_mib` | resident memory |
//! | `server_switches_per_s` | context switches, voluntary and not |
//! | `server_syscalls_per_s` | system calls, where perf may count them |
//! | `generator_cpu_cores` | CPU seconds per second of the load generator; above 0.95 there is a remark that it was the limit |
//! | `publisher_lag_us` | by how much the latest tick was published late |
//! | `window_s` | the length of the window |
//!
//! Histograms (nanoseconds): `received` (as `p50_us`), `oldest` (as `oldest_p99_us`), and in
//! `end-to-end` and `latency` those of the stages.
//!
//! # Scenarios
//!
//! | scenario | parameters | figures besides | peers |
//! |---|---|---|---|
//! | `fixed` | `budget_ms=20` `clients=1000` `topics=20` `encoding=json\|binary` | – (the headline is `server_cpu_cores` at the same `deliveries_per_s`) | all |
//! | `capacity` | `mode=every\|conflated` `budget_ms=20` `clients=1000` `topics=20` `encoding` | `capacity_per_s`: `deliveries_per_s` of the highest rate that holds p99 < 50 ms and all but 1 % delivered; the other figures are that trial's; `trials` | all (a rival knows no conflation: its one search stands in both modes) |
//! | `latency` | `case=loop` | `in_p50_us` `in_p99_us` (receive → another thread → send done, to the reader) | `loop` |
//! | `latency` | `case=one` (class 0, 1 client × 1 topic) `encoding` | `in_p50_us` `in_p99_us`: venue bytes in → received; `gateway_p50_us` `gateway_p99_us`: venue bytes in → send begun | all; the latter two figures `tickfan` only |
//! | `latency` | `case=hundred` (class 0, 100 × 10, 2,000/s) | – | all |
//! | `latency` | `case=thousand` (class 0, 1,000 × 10, 2,000/s) | – | all |
//! | `latency` | `case=load` `load_percent=1\|50\|90` of the capacity found, budget 20 ms, 1,000 × 20 | – | all |
//! | `latency` | `case=fast-alone` (20 clients of the 1 ms class) | – | `tickfan` |
//! | `latency` | `case=fast-beside` (the same beside 980 of the 20 ms class at 90 % load) | `slow_p99_us`; the others are the fast clients' | `tickfan` |
//! | `stall` | `variant=with\|without` stalled and slow clients; `budget_ms=20` | latency figures are the others'; `old_updates` (per stalled client, median: updates older than 1 s before the first fresh one), `first_age_ms` (age of the first that a stalled client reads), `caught_up_ms` (resume → first fresh one), `rss_growth_kib` | all |
//! | `idle` | `connections=10000` `topics=10` | `rss_kib_per_connection`, `cpu_us_per_connection_s`, `connect_s` | all |
//! | `storm` | `clients=2000\|10000` `topics=10` | `last_image_ms` (to the last client's last image; a rival has no images: to its first update), `first_p50_ms`, `upgraded_p50_ms`, `upgraded_last_ms`, `server_cpu_s`; half vanish: `silence_before_ms` and `silence_after_ms` (the longest silence of a survivor), `silence_added_ms` their difference | all |
//! | `subscribers` | `case=search` `budget_ms=10\|50\|100\|1000` `feed_x=1\|10\|100` `topics=20` | `clients`: the most with < 0.1 % late; `sends_per_s`, `late_share` | `tickfan` |
//! | `subscribers` | `case=loop` `budget_ms` | `sends_per_s` of a bare loop over as many sockets; `clients` = those × the budget | `loop` |
//! | `subscribers` | `case=cost` `budget_ms=100` `feed_x=1\|10\|100` | `server_cpu_cores` of the same clients at each rate of the feed | `tickfan` |
//! | `end-to-end` | `budget_ms=20` | `venue_p50_us` `venue_p99_us` (intended → venue bytes in), `gateway_p50_us` `gateway_p99_us` (→ send begun), `wire_p50_us` `wire_p99_us` (→ received); histograms `venue` `gateway` `wire` | `tickfan` |
//! | `ingest` | `recording` | `decode_ns`, `book_ns`, `snapshot_ns` a message; `messages_per_s` of all stages | `tickfan` |
//! | `bytes` | `form=delta\|image` `encoding=json\|binary` `depth=20` | `bytes_per_change` | `tickfan` |
//!
//! A row with one value of each of its parameters and one peer is a [`Case`]; [`Bench::run`] gives one
//! run for a case and a round. That is the unit in which peers alternate, and at which an interrupted
//! set is resumed.

mod capacity;
mod session;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::peer::process::pin;
use crate::peer::{Channel, Name};
use crate::report::Run;
use session::{LOAD_CORE, Outcome, Session, Setup, Trial, plans};

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Scenario {
    /// Server CPU at a million deliveries a second
    Fixed,
    /// The highest rate with p99 below 50 ms, every update or conflated
    Capacity,
}

/// What holds for all runs of a call.
#[derive(Debug, Clone, Args)]
pub(crate) struct LoadOptions {
    /// The seed of the schedule and of who subscribes to what
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Only cases with this parameter, `mode=every`; may be given several times
    #[arg(long = "only", value_name = "NAME=VALUE")]
    pub(crate) only: Vec<String>,
    /// Shorter windows, for a look
    #[arg(skip)]
    pub(crate) is_quick: bool,
}

/// One thing to be measured, which a round of it gives one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) scenario: Scenario,
    /// `None` is the bare loop.
    pub(crate) peer: Option<Name>,
    pub(crate) parameters: BTreeMap<String, String>,
    /// About how long it takes.
    pub(crate) about: Duration,
}

/// Topics of all scenarios.
const TOPICS: usize = 200;

/// Deliveries a second of `fixed`.
const FIXED_PER_S: f64 = 1_000_000.0;

/// All cases of a scenario for these peers, in an order in which peers alternate.
pub(crate) fn cases(scenario: Scenario, peers: &[Name], options: &LoadOptions) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |peer: Name, parameters: &[(&str, &str)], seconds: u64| {
        let parameters: BTreeMap<String, String> = parameters
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let wanted = options.only.iter().all(|only| {
            only.split_once('=')
                .is_some_and(|(name, value)| parameters.get(name).is_none_or(|has| has == value))
        });
        if wanted {
            cases.push(Case {
                scenario,
                peer: Some(peer),
                parameters,
                about: Duration::from_secs(seconds),
            });
        }
    };
    let usual = [("budget_ms", "20"), ("clients", "1000"), ("topics", "20")];
    match scenario {
        Scenario::Fixed => {
            for peer in peers {
                add(*peer, &usual, 12);
            }
        }
        Scenario::Capacity => {
            for mode in ["every", "conflated"] {
                for peer in peers {
                    add(*peer, &[&usual[..], &[("mode", mode)]].concat(), 60);
                }
            }
        }
    }
    for case in &mut cases {
        if case.peer == Some(Name::Tickfan) {
            case.parameters.insert("encoding".to_owned(), "json".to_owned());
        }
    }
    cases
}

/// Measures cases, one after the other, on this thread.
#[derive(Debug)]
pub(crate) struct Bench {
    options: LoadOptions,
}

impl Bench {
    /// Takes the load's core.
    ///
    /// # Errors
    /// When the machine has no two cores.
    pub(crate) fn new(options: LoadOptions) -> Result<Self> {
        pin(LOAD_CORE).context("server and load need a core each")?;
        Ok(Self { options })
    }

    /// Measures one case once.
    ///
    /// # Errors
    /// When the server fails, or a client received something wrong.
    pub(crate) fn run(&mut self, case: &Case, round: u32) -> Result<Run> {
        let mut run = Run {
            scenario: name_of(&case.scenario),
            peer: case.peer.map_or_else(|| "loop".to_owned(), |peer| name_of(&peer)),
            round,
            parameters: case.parameters.clone(),
            figures: BTreeMap::new(),
            histograms: BTreeMap::new(),
            remarks: Vec::new(),
        };
        match (case.scenario, case.peer) {
            (Scenario::Fixed, Some(peer)) => self.fixed(peer, case, &mut run)?,
            (Scenario::Capacity, Some(peer)) => self.capacity(peer, case, &mut run)?,
            (scenario, None) => bail!("{} has no bare loop", name_of(&scenario)),
        }
        Ok(run)
    }

    fn setup(&self, peer: Name, case: &Case, channel: Channel) -> Result<Setup> {
        let plans = plans(
            self.options.seed,
            number(case, "clients")?,
            number(case, "topics")?,
            TOPICS,
            number(case, "budget_ms")? as u32,
        );
        Ok(Setup { peer, channel, topics: TOPICS, seed: self.options.seed, plans })
    }

    fn fixed(&self, peer: Name, case: &Case, run: &mut Run) -> Result<()> {
        let setup = self.setup(peer, case, Channel::Trades)?;
        let feed_per_s = (FIXED_PER_S / setup.deliveries_per_event()) as u64;
        let window_ms = if self.options.is_quick { 4_000 } else { 8_000 };
        let mut session = Session::open(setup)?;
        let outcome = session.run(Trial { feed_per_s, warm_ms: 1_500, window_ms })?;
        put(outcome, run);
        Ok(())
    }

    fn capacity(&self, peer: Name, case: &Case, run: &mut Run) -> Result<()> {
        let is_conflated = case.parameters.get("mode").is_some_and(|mode| mode == "conflated");
        let channel = if is_conflated { Channel::Bbo } else { Channel::Trades };
        let first_per_s = match (peer, channel) {
            (Name::Tickfan, Channel::Trades) => 20_000,
            (Name::Tickfan, _) => 60_000,
            (Name::Uws | Name::Batch, _) => 8_000,
            (Name::Naive | Name::Nats, _) => 500,
        };
        let window_ms = if self.options.is_quick { 1_500 } else { 2_500 };
        let found =
            capacity::search(self.setup(peer, case, channel)?, first_per_s, 1_000, window_ms)?;
        let capacity = found.outcome.figures["deliveries_per_s"];
        put(found.outcome, run);
        run.figures.insert("capacity_per_s".to_owned(), capacity);
        run.figures.insert("trials".to_owned(), found.trials as f64);
        Ok(())
    }
}

fn put(outcome: Outcome, run: &mut Run) {
    run.figures.extend(outcome.figures);
    run.histograms.extend(outcome.histograms);
    run.remarks.extend(outcome.remarks);
}

/// A parameter that is a number.
fn number(case: &Case, name: &str) -> Result<usize> {
    let text = case.parameters.get(name).with_context(|| format!("no parameter {name}"))?;
    text.parse().with_context(|| format!("{name} is {text:?}"))
}

fn name_of(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}
