//! What is measured: a scenario × a peer → [`Run`]s with named parameters and figures.
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
//! | `latency` | `case=fast-beside` (the same beside 980 of the 20 ms class, at 90 % of the rate that both together hold; `fast-alone` at the same rate) | `slow_p99_us`; the others are the fast clients' | `tickfan` |
//! | `stall` | `variant=with\|without` stalled and slow clients; `budget_ms=20` | latency figures are the others'; `old_updates` (per stalled client, median: updates older than 1 s before the first fresh one), `first_age_ms` (age of the first that a stalled client reads), `caught_up_ms` (resume → first fresh one), `rss_growth_kib` | all |
//! | `idle` | `connections=10000` `topics=10` | `rss_kib_per_connection`, `cpu_us_per_connection_s`, `connect_s`, `turned_away` (with 4102; they come again when they are told to) | all |
//! | `storm` | `clients=2000\|10000` `topics=10` | `last_image_ms` (to the last client's last image; a rival has no images: to its first update), `first_p50_ms`, `upgraded_p50_ms`, `upgraded_last_ms`, `server_cpu_s`; half vanish: `silence_before_ms` and `silence_after_ms` (the longest silence of a survivor), `silence_added_ms` their difference; `turned_away` as in `idle` | all |
//! | `subscribers` | `case=search` `budget_ms=10\|50\|100\|1000` `feed_x=1\|10\|100` `topics=20` | `clients`: the most with < 0.1 % late; `sends_per_s`, `late_share` | `tickfan` |
//! | `subscribers` | `case=loop` `budget_ms` | `sends_per_s` of a bare loop over as many sockets; `clients` = those × the budget | `loop` |
//! | `subscribers` | `case=cost` `budget_ms=100` `feed_x=1\|10\|100` | `server_cpu_cores` of the same clients at each rate of the feed | `tickfan` |
//! | `end-to-end` | `budget_ms=20` | `venue_p50_us` `venue_p99_us` (intended → venue bytes in), `gateway_p50_us` `gateway_p99_us` (→ send begun), `wire_p50_us` `wire_p99_us` (→ received); histograms `venue` `gateway` `wire` | `tickfan` |
//! | `ingest` | `recording` | `decode_ns`, `book_ns`, `snapshot_ns` a message (`tickfan` only); `messages_per_s` of all stages; from bytes to what readers see, the median of `bbo_ns` `trade_ns` `trades_ns` (a message of several) and `depth_1_ns` `depth_2_ns` `depth_6_ns` `depth_16_ns` `depth_26_ns` `depth_101_ns` (so many changes, or more up to the next) | `tickfan`; `naive`: here `serde_json::Value` into `BTreeMap`s, the best 20 levels cloned after each message of a book |
//! | `bytes` | `form=delta\|image` `encoding=json\|binary` `depth=20` | `bytes_per_change` | `tickfan` |
//!
//! A row with one value of each of its parameters and one peer is a [`Case`]; [`Bench::run`] gives one
//! run for a case and a round. That is the unit in which peers alternate, and at which an interrupted
//! set is resumed.

mod bare;
mod capacity;
mod crowd;
mod ingest;
mod session;
mod stall;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::load::Encoding;
use crate::load::client::Plan;
use crate::peer::{Channel, Name};
use crate::pin::pin;
use crate::report::Run;
use session::{LOAD_CORE, Outcome, Session, Setup, Trial, micros, plans};

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Scenario {
    /// Server CPU at a million deliveries a second
    Fixed,
    /// The highest rate with p99 below 50 ms, every update or conflated
    Capacity,
    /// From the venue's bytes to the subscriber, per class and load
    Latency,
    /// What stalled and slow clients do to others, and what they find when they read again
    Stall,
    /// Memory and CPU of idle connections
    Idle,
    /// Everybody connects at once, then half vanish
    Storm,
    /// How many clients one shard serves at a budget
    Subscribers,
    /// Where the time goes between the venue and the subscriber
    EndToEnd,
    /// Decode, book, snapshot: what a venue message costs
    Ingest,
    /// Bytes of a change of a book, as a delta and as an image
    Bytes,
}

/// The names of all figures, as in the tables above.
pub(crate) const FIGURES: [&str; 64] = [
    "bbo_ns",
    "book_ns",
    "bytes_per_change",
    "bytes_per_s",
    "capacity_per_s",
    "caught_up_ms",
    "clients",
    "connect_s",
    "cpu_us_per_connection_s",
    "decode_ns",
    "deliveries_per_cpu_s",
    "deliveries_per_s",
    "depth_101_ns",
    "depth_16_ns",
    "depth_1_ns",
    "depth_26_ns",
    "depth_2_ns",
    "depth_6_ns",
    "feed_per_s",
    "first_age_ms",
    "first_p50_ms",
    "gateway_p50_us",
    "gateway_p99_us",
    "generator_cpu_cores",
    "in_p50_us",
    "in_p99_us",
    "last_image_ms",
    "late_share",
    "max_us",
    "messages_per_s",
    "missing_share",
    "old_updates",
    "oldest_p99_us",
    "p50_us",
    "p90_us",
    "p9999_us",
    "p999_us",
    "p99_us",
    "publisher_lag_us",
    "rss_growth_kib",
    "rss_kib_per_connection",
    "sends_per_s",
    "server_cpu_cores",
    "server_cpu_s",
    "server_rss_mib",
    "server_switches_per_s",
    "server_syscalls_per_s",
    "silence_added_ms",
    "silence_after_ms",
    "silence_before_ms",
    "slow_p99_us",
    "snapshot_ns",
    "trade_ns",
    "trades_ns",
    "trials",
    "updates_per_read",
    "updates_per_s",
    "upgraded_last_ms",
    "upgraded_p50_ms",
    "venue_p50_us",
    "venue_p99_us",
    "window_s",
    "wire_p50_us",
    "wire_p99_us",
];

/// What holds for all runs of a call.
#[derive(Debug, Clone, Args)]
pub(crate) struct LoadOptions {
    /// The seed of the schedule and of who subscribes to what
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Only cases with this parameter, `mode=every`; may be given several times
    #[arg(long = "only", value_name = "NAME=VALUE")]
    pub(crate) only: Vec<String>,
    /// Shorter windows and fewer cases
    #[arg(long = "short")]
    pub(crate) is_quick: bool,
    /// The encodings that the gateway is measured with; may be given several times
    #[arg(long = "encoding", value_enum, default_value = "json")]
    pub(crate) encodings: Vec<Encoding>,
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

/// Topics of all scenarios where nothing else is said.
const TOPICS: usize = 200;

/// Deliveries a second of `fixed`.
const FIXED_PER_S: f64 = 1_000_000.0;

/// Clients of the strict class in `latency`, and all clients there.
const FAST_CLIENTS: usize = 20;
const FAST_BUDGET_MS: u32 = 1;

/// Events a second of `subscribers` at feed x1.
const FEED_X1_PER_S: u64 = 2_000;

/// Clients of `subscribers` in the case `cost`.
const COST_CLIENTS: usize = 2_000;

/// Descriptors that a process leaves to others: the rest may be connections.
const CONNECTIONS_MAX: usize = 19_000;

/// A class is served when fewer updates than this are late.
const LATE_SHARE_MAX: f64 = 0.001;

/// The search for the most clients ends when what held and what did not are this close.
const CLIENTS_CLOSE: f64 = 1.08;

/// All cases of a scenario for these peers, in an order in which peers alternate.
pub(crate) fn cases(scenario: Scenario, peers: &[Name], options: &LoadOptions) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |peer: Option<Name>, parameters: &[(&str, &str)], seconds: u64| {
        let mut parameters: BTreeMap<String, String> = parameters
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let is_wanted = options.only.iter().all(|only| {
            only.split_once('=')
                .is_some_and(|(name, value)| parameters.get(name).is_none_or(|has| has == value))
        });
        if !is_wanted {
            return;
        }
        let about = Duration::from_secs(seconds);
        if peer != Some(Name::Tickfan) || scenario == Scenario::Ingest {
            cases.push(Case { scenario, peer, parameters, about });
            return;
        }
        for encoding in &options.encodings {
            parameters.insert("encoding".to_owned(), name_of(encoding));
            cases.push(Case { scenario, peer, parameters: parameters.clone(), about });
        }
    };
    let usual = [("budget_ms", "20"), ("clients", "1000"), ("topics", "20")];
    let with = |parameters: &[(&'static str, &'static str)]| [&usual[..], parameters].concat();
    let gateway = peers.iter().copied().filter(|peer| *peer == Name::Tickfan);
    let gateway: Vec<Option<Name>> = gateway.map(Some).collect();
    let peers: Vec<Option<Name>> = peers.iter().copied().map(Some).collect();
    match scenario {
        Scenario::Bytes => {
            for form in ["delta", "image"] {
                gateway.iter().for_each(|peer| add(*peer, &[("form", form), ("depth", "20")], 5));
            }
        }
        Scenario::Fixed => peers.iter().for_each(|peer| add(*peer, &usual, 12)),
        Scenario::Capacity => {
            for mode in ["every", "conflated"] {
                for peer in &peers {
                    add(*peer, &with(&[("mode", mode)]), 60);
                }
            }
        }
        Scenario::Latency => {
            if !gateway.is_empty() {
                add(None, &[("case", "loop")], 6);
            }
            for case in ["one", "hundred", "thousand"] {
                peers.iter().for_each(|peer| add(*peer, &[("case", case)], 8));
            }
            for load_percent in ["1", "50", "90"] {
                for peer in &peers {
                    add(*peer, &with(&[("case", "load"), ("load_percent", load_percent)]), 10);
                }
            }
            for case in ["fast-alone", "fast-beside"] {
                gateway.iter().for_each(|peer| add(*peer, &[("case", case)], 10));
            }
        }
        Scenario::Stall => {
            for variant in ["without", "with"] {
                for peer in &peers {
                    add(*peer, &[("variant", variant), ("budget_ms", "20")], 24);
                }
            }
        }
        Scenario::Idle => {
            for peer in &peers {
                add(*peer, &[("connections", "10000"), ("topics", "10")], 16);
            }
        }
        Scenario::Storm => {
            for clients in ["2000", "10000"] {
                for peer in &peers {
                    add(*peer, &[("clients", clients), ("topics", "10")], 10);
                }
            }
        }
        Scenario::Subscribers => {
            let short = [("100", "1")];
            let all = ["10", "50", "100", "1000"]
                .map(|budget_ms| ["1", "10", "100"].map(|feed_x| (budget_ms, feed_x)));
            let searched = if options.is_quick { &short[..] } else { all.as_flattened() };
            for budget_ms in ["10", "50", "100", "1000"] {
                if !gateway.is_empty() && searched.iter().any(|(of, _)| *of == budget_ms) {
                    add(None, &[("case", "loop"), ("budget_ms", budget_ms)], 6);
                }
            }
            for (budget_ms, feed_x) in searched {
                let parameters = [
                    ("case", "search"),
                    ("budget_ms", *budget_ms),
                    ("feed_x", *feed_x),
                    ("topics", "20"),
                ];
                gateway.iter().for_each(|peer| add(*peer, &parameters, 90));
            }
            for feed_x in ["1", "10", "100"] {
                let parameters =
                    [("case", "cost"), ("budget_ms", "100"), ("feed_x", feed_x), ("topics", "20")];
                gateway.iter().for_each(|peer| add(*peer, &parameters, 8));
            }
        }
        Scenario::EndToEnd => {
            gateway.iter().for_each(|peer| add(*peer, &usual, 10));
        }
        Scenario::Ingest => {
            let takes_in = |peer: &&Option<Name>| matches!(peer, Some(Name::Tickfan | Name::Naive));
            for recording in ingest::RECORDINGS {
                for peer in peers.iter().filter(takes_in) {
                    add(*peer, &[("recording", recording)], 2);
                }
            }
        }
    }
    cases
}

/// Measures cases, one after the other, on this thread.
#[derive(Debug)]
pub(crate) struct Bench {
    options: LoadOptions,
    /// Events a second that each peer was found to hold, every update delivered.
    held_per_s: BTreeMap<String, f64>,
}

impl Bench {
    /// Takes the load's core.
    ///
    /// # Errors
    /// When the machine has no two cores.
    pub(crate) fn new(options: LoadOptions) -> Result<Self> {
        pin(LOAD_CORE).context("server and load need a core each")?;
        Ok(Self { options, held_per_s: BTreeMap::new() })
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
            (Scenario::Latency, None) => relay(&mut run)?,
            (Scenario::Latency, Some(peer)) => self.latency(peer, case, &mut run)?,
            (Scenario::Stall, Some(peer)) => self.stall(peer, case, &mut run)?,
            (Scenario::Idle, Some(peer)) => {
                let connections = number(case, "connections")?.min(CONNECTIONS_MAX);
                let plans =
                    plans(self.options.seed, connections, number(case, "topics")?, TOPICS, 100);
                run.figures = crowd::idle(self.setup(case, peer, Channel::Bbo, TOPICS, plans))?;
                run.remarks.push("more connections do not fit the limit of descriptors".to_owned());
            }
            (Scenario::Storm, Some(peer)) => {
                let (clients, topics) = (number(case, "clients")?, number(case, "topics")?);
                let plans = plans(self.options.seed, clients, topics, topics, 100);
                // As many deliveries a second as every peer can make.
                let feed_per_s = (100_000 / clients as u64).min(50);
                let setup = self.setup(case, peer, Channel::Bbo, topics, plans);
                run.figures = crowd::storm(setup, feed_per_s)?;
            }
            (Scenario::Subscribers, _) => self.subscribers(case, &mut run)?,
            (Scenario::EndToEnd, Some(peer)) => self.end_to_end(peer, case, &mut run)?,
            (Scenario::Bytes, Some(peer)) => self.bytes(peer, case, &mut run)?,
            (Scenario::Ingest, Some(peer)) => {
                ingest::run(peer, text(case, "recording")?, &mut run)?;
            }
            (scenario, None) => bail!("{} has no bare loop", name_of(&scenario)),
        }
        Ok(run)
    }

    fn setup(
        &self,
        case: &Case,
        peer: Name,
        channel: Channel,
        topics: usize,
        plans: Vec<Plan>,
    ) -> Setup {
        let encoding = case.parameters.get("encoding").map(String::as_str);
        let encoding = if encoding == Some("binary") { Encoding::Binary } else { Encoding::Json };
        Setup { peer, channel, topics, seed: self.options.seed, plans, encoding }
    }

    /// The clients that a case's parameters name.
    fn usual(&self, peer: Name, case: &Case, channel: Channel) -> Result<Setup> {
        let plans = plans(
            self.options.seed,
            number(case, "clients")?,
            number(case, "topics")?,
            TOPICS,
            number(case, "budget_ms")? as u32,
        );
        Ok(self.setup(case, peer, channel, TOPICS, plans))
    }

    /// The window of a run at one rate.
    fn window_ms(&self) -> u64 {
        if self.options.is_quick { 3_000 } else { 8_000 }
    }

    fn trial(&self, feed_per_s: u64) -> Trial {
        Trial { feed_per_s, warm_ms: 1_500, window_ms: self.window_ms() }
    }

    fn fixed(&self, peer: Name, case: &Case, run: &mut Run) -> Result<()> {
        let setup = self.usual(peer, case, Channel::Trades)?;
        let feed_per_s = (FIXED_PER_S / setup.deliveries_per_event()) as u64;
        let mut session = Session::open(setup)?;
        put(session.run(self.trial(feed_per_s))?, run);
        let counted = Trial { feed_per_s, warm_ms: 500, window_ms: 1_500 };
        match session.fresh()?.syscalls_per_s(counted)? {
            Some(calls) => {
                run.figures.insert("server_syscalls_per_s".to_owned(), calls);
            }
            None => run.remarks.push("system calls are missing: perf may not count them".into()),
        }
        Ok(())
    }

    fn bytes(&self, peer: Name, case: &Case, run: &mut Run) -> Result<()> {
        let plans = plans(self.options.seed, 1, 1, 1, 0);
        let mut session = Session::open(self.setup(case, peer, Channel::Book, 1, plans))?;
        session.run(Trial { feed_per_s: 500, warm_ms: 500, window_ms: 1_500 })?;
        let (images, deltas) = session.load.book_updates();
        let sizes = if text(case, "form")? == "image" { images } else { deltas };
        let bytes = sizes.bytes as f64 / sizes.updates.max(1) as f64;
        run.figures.insert("bytes_per_change".to_owned(), bytes);
        Ok(())
    }

    fn capacity(&mut self, peer: Name, case: &Case, run: &mut Run) -> Result<()> {
        let is_conflated = text(case, "mode")? == "conflated";
        let channel = if is_conflated { Channel::Bbo } else { Channel::Trades };
        let setup = self.usual(peer, case, channel)?;
        let key = held_key(case, peer, "usual");
        let found = self.search(setup, (!is_conflated).then_some(key))?;
        let capacity = found.outcome.figures["deliveries_per_s"];
        put(found.outcome, run);
        run.figures.insert("capacity_per_s".to_owned(), capacity);
        run.figures.insert("trials".to_owned(), found.trials as f64);
        Ok(())
    }

    /// Searches, and remembers the rate that holds by a key.
    fn search(&mut self, setup: Setup, key: Option<String>) -> Result<capacity::Found> {
        let (peer, channel) = (setup.peer, setup.channel);
        let first_per_s = match (peer, channel) {
            (Name::Tickfan, Channel::Trades) => 20_000,
            (Name::Tickfan, _) => 60_000,
            (Name::Uws | Name::Batch, _) => 8_000,
            (Name::Naive | Name::Nats, _) => 500,
        };
        let window_ms = if self.options.is_quick { 1_500 } else { 2_500 };
        let found = capacity::search(setup, first_per_s, 1_000, window_ms)?;
        if let Some(key) = key {
            self.held_per_s.insert(key, found.outcome.figures["feed_per_s"]);
        }
        Ok(found)
    }

    /// Events a second that a peer holds with some clients: found before, or now.
    fn held_per_s(&mut self, case: &Case, peer: Name, name: &str, plans: &[Plan]) -> Result<f64> {
        let key = held_key(case, peer, name);
        if let Some(held) = self.held_per_s.get(&key) {
            return Ok(*held);
        }
        let setup = self.setup(case, peer, Channel::Trades, TOPICS, plans.to_vec());
        let found = self.search(setup, Some(key))?;
        Ok(found.outcome.figures["feed_per_s"])
    }

    fn latency(&mut self, peer: Name, case: &Case, run: &mut Run) -> Result<()> {
        let seed = self.options.seed;
        let crowd = |clients| plans(seed, clients, 10, TOPICS, 0);
        let (topics, plans, feed_per_s) = match text(case, "case")? {
            "one" => (1, plans(seed, 1, 1, 1, 0), 200),
            "hundred" => (TOPICS, crowd(100), 2_000),
            "thousand" => (TOPICS, crowd(1_000), 2_000),
            "load" => {
                let percent = number(case, "load_percent")? as f64;
                let plans = plans(seed, 1_000, 20, TOPICS, 20);
                let held = self.held_per_s(case, peer, "usual", &plans)?;
                (TOPICS, plans, (held * percent / 100.0) as u64)
            }
            other => {
                let mut plans = plans(seed, 1_000, 20, TOPICS, 20);
                for (index, plan) in plans.iter_mut().enumerate() {
                    // Spread among the others, as they would be.
                    if index % (1_000 / FAST_CLIENTS) == 0 {
                        plan.budget_ms = FAST_BUDGET_MS;
                    } else {
                        plan.group = 1;
                    }
                }
                // That both hold together: alone they would hold more.
                let feed_per_s = self.held_per_s(case, peer, "mixed", &plans)? * 0.9;
                if other == "fast-alone" {
                    plans.retain(|plan| plan.group == 0);
                }
                (TOPICS, plans, feed_per_s as u64)
            }
        };
        let is_one = plans.len() == 1;
        let setup = self.setup(case, peer, Channel::Trades, topics, plans);
        let mut session = Session::open(setup)?;
        session.load.is_spinning = is_one;
        if peer == Name::Tickfan {
            session.load.measure_stages();
        }
        let trial = self.trial(feed_per_s);
        put(session.run(trial)?, run);
        if is_one && peer == Name::Tickfan {
            stages(&session, run);
        }
        if session.load.tallies().len() > 1 {
            let slow = session.outcome(trial, 1);
            run.figures.insert("slow_p99_us".to_owned(), slow.p99_ns as f64 / 1e3);
        }
        Ok(())
    }

    fn stall(&self, peer: Name, case: &Case, run: &mut Run) -> Result<()> {
        let channel = if peer == Name::Tickfan { Channel::Bbo } else { Channel::Trades };
        let plans = stall::plans(self.options.seed, TOPICS, number(case, "budget_ms")? as u32);
        let stall_ms = (text(case, "variant")? == "with").then_some(15_000);
        let setup = self.setup(case, peer, channel, TOPICS, plans);
        put(stall::run(setup, stall_ms, self.window_ms())?, run);
        Ok(())
    }

    fn subscribers(&self, case: &Case, run: &mut Run) -> Result<()> {
        let budget_ms = number(case, "budget_ms")?;
        if case.peer.is_none() {
            let per_s = bare::sends_per_s(1_000, Duration::from_millis(self.window_ms()))?;
            run.figures.insert("sends_per_s".to_owned(), per_s);
            run.figures.insert("clients".to_owned(), per_s * budget_ms as f64 / 1e3);
            return Ok(());
        }
        let feed_per_s = FEED_X1_PER_S * number(case, "feed_x")? as u64;
        let serve = |clients: usize| -> Result<Outcome> {
            let plans = plans(self.options.seed, clients, 20, TOPICS, budget_ms as u32);
            let setup = self.setup(case, Name::Tickfan, Channel::Bbo, TOPICS, plans);
            let mut session = Session::open(setup)?;
            let window_ms = 2_500.max(3 * budget_ms as u64);
            let mut outcome = session.run(Trial { feed_per_s, warm_ms: 1_500, window_ms })?;
            let tally = &session.load.tallies()[0];
            let late_share = tally.late as f64 / tally.updates.max(1) as f64;
            outcome.figures.insert("late_share".to_owned(), late_share);
            outcome.figures.insert("clients".to_owned(), clients as f64);
            let (checked, all) = session.load.due(0);
            let scale = all as f64 / checked.max(1) as f64;
            let sends_per_s = tally.reads as f64 * scale * 1e3 / window_ms as f64;
            outcome.figures.insert("sends_per_s".to_owned(), sends_per_s);
            eprintln!(
                "      {clients:>6} clients: {:.3} % late, {sends_per_s:.0} sends/s, server {:.2}, \
                 generator {:.2}",
                late_share * 100.0,
                outcome.figures["server_cpu_cores"],
                outcome.figures["generator_cpu_cores"],
            );
            Ok(outcome)
        };
        if text(case, "case")? == "cost" {
            put(serve(COST_CLIENTS)?, run);
            return Ok(());
        }
        let mut best = None;
        let first = (40 * budget_ms).clamp(100, CONNECTIONS_MAX / 2) as f64;
        capacity::bracket(first, CLIENTS_CLOSE, |clients| {
            if clients as usize > CONNECTIONS_MAX {
                return Ok(false);
            }
            let outcome = serve(clients as usize)?;
            let holds = outcome.figures["late_share"] < LATE_SHARE_MAX;
            if holds {
                best = Some(outcome);
            }
            Ok(holds)
        })?;
        put(best.context("it does not serve even a few clients")?, run);
        if run.figures["clients"] * CLIENTS_CLOSE > CONNECTIONS_MAX as f64 {
            run.remarks.push("the limit of descriptors was the limit".to_owned());
        }
        Ok(())
    }

    fn end_to_end(&self, peer: Name, case: &Case, run: &mut Run) -> Result<()> {
        let mut session = Session::open(self.usual(peer, case, Channel::Trades)?)?;
        session.load.measure_stages();
        put(session.run(self.trial(2_000))?, run);
        stages(&session, run);
        Ok(())
    }
}

/// Whose rate that was.
fn held_key(case: &Case, peer: Name, clients: &str) -> String {
    let encoding = case.parameters.get("encoding").map_or("", String::as_str);
    format!("{} {encoding} {clients}", name_of(&peer))
}

/// The stages between the venue and the reader.
fn stages(session: &Session, run: &mut Run) {
    let tally = &session.load.tallies()[0];
    let stages = [
        ("venue", &tally.venue),
        ("gateway", &tally.gateway),
        ("wire", &tally.wire),
        ("in", &tally.inside),
    ];
    for (name, histogram) in stages {
        run.figures.insert(format!("{name}_p50_us"), micros(histogram, 0.5));
        run.figures.insert(format!("{name}_p99_us"), micros(histogram, 0.99));
        run.histograms.insert(name.to_owned(), histogram.clone());
    }
}

/// Messages of the bare loop.
const RELAYED: u32 = 1_000;

fn relay(run: &mut Run) -> Result<()> {
    let histogram = bare::relay(RELAYED)?;
    run.figures.insert("in_p50_us".to_owned(), micros(&histogram, 0.5));
    run.figures.insert("in_p99_us".to_owned(), micros(&histogram, 0.99));
    run.histograms.insert("in".to_owned(), histogram);
    Ok(())
}

fn put(outcome: Outcome, run: &mut Run) {
    run.figures.extend(outcome.figures);
    run.histograms.extend(outcome.histograms);
    run.remarks.extend(outcome.remarks);
}

fn text<'a>(case: &'a Case, name: &str) -> Result<&'a str> {
    case.parameters.get(name).map(String::as_str).with_context(|| format!("no parameter {name}"))
}

/// A parameter that is a number.
fn number(case: &Case, name: &str) -> Result<usize> {
    let text = text(case, name)?;
    text.parse().with_context(|| format!("{name} is {text:?}"))
}

pub(crate) fn name_of(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}
