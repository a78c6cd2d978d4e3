//! A server and its clients, and one order after the other: rate → figures.
//!
//! What most scenarios do: start, connect, publish for a while, look at the window in the middle.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

use crate::clock;
use crate::load::check::Expected;
use crate::load::client::Plan;
use crate::load::{Encoding, Load, Wire};
use crate::peer::process::{self, Process, Usage};
use crate::peer::{Channel, Name, Order, PeerOptions, Report};
use crate::schedule::{Schedule, TICK_NS, topics_of};

/// The core of the server, and that of the load.
pub(super) const SERVER_CORE: usize = 0;
pub(super) const LOAD_CORE: usize = 1;

/// How long everybody may take to connect and subscribe.
const CONNECT_NS: u64 = 60_000_000_000;

/// From the order to its first tick.
const LEAD_NS: u64 = 50_000_000;

/// What was published in the window may come this long after it.
const DRAIN_NS: u64 = 700_000_000;

/// When nobody has received anything for this long, nothing is under way.
const QUIET_NS: u64 = 150_000_000;

/// How often it is looked whether everything has come.
const STEP_NS: u64 = 20_000_000;

/// A publisher that is not done by then is not going to be.
const PUBLISHED_NS: u64 = 20_000_000_000;

/// Deliveries a second that can all be checked beside receiving them; with more, every k-th client
/// is.
const CHECKED_PER_S: f64 = 100_000.0;

/// Above this share of its core the generator may have been what was measured.
const GENERATOR_CORES_MAX: f64 = 0.95;

/// Bytes per delivery of unchecked clients may differ by this from those of checked ones.
const BYTES_APART_MAX: f64 = 0.03;

const SECOND_NS: f64 = 1e9;

/// Who is measured, with which clients.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) peer: Name,
    pub(crate) channel: Channel,
    pub(crate) topics: usize,
    pub(crate) seed: u64,
    pub(crate) plans: Vec<Plan>,
    /// Of the gateway; rivals have one each.
    pub(crate) encoding: Encoding,
}

impl Setup {
    fn load(&self, port: u16, plans: Vec<Plan>) -> Result<Load> {
        let wire = match self.peer {
            Name::Tickfan => Wire::Tickfan(self.channel, self.encoding),
            Name::Nats => Wire::Nats,
            Name::Naive | Name::Batch | Name::Uws => Wire::Rival,
        };
        Load::new(wire, port, self.topics, plans)
    }

    /// How many deliveries an event makes on average.
    pub(super) fn deliveries_per_event(&self) -> f64 {
        const EVENTS: u64 = 100_000;
        let mut subscribers = vec![0u64; self.topics];
        for topic in self.plans.iter().flat_map(|plan| &plan.topics) {
            subscribers[*topic as usize] += 1;
        }
        let mut schedule = Schedule::new(self.seed, self.topics, EVENTS * 1_000);
        schedule.next_tick(&mut Vec::new());
        let deliveries: u64 = schedule
            .numbers()
            .iter()
            .zip(&subscribers)
            .map(|(n, subscribers)| n * subscribers)
            .sum();
        deliveries as f64 / EVENTS as f64
    }

    /// Every how many clients of each group one is checked, so that all groups together are not too
    /// much: the small ones whole.
    fn check_every(&self, deliveries_per_s: f64) -> Vec<usize> {
        let groups = self.plans.iter().map(|plan| plan.group + 1).max().unwrap_or(1);
        let per_client = deliveries_per_s / self.plans.len().max(1) as f64;
        let of_group = |group| {
            let clients = self.plans.iter().filter(|plan| plan.group == group).count();
            let share = CHECKED_PER_S / groups as f64;
            (per_client * clients as f64 / share).ceil().max(1.0) as usize
        };
        (0..groups).map(of_group).collect()
    }
}

/// Clients that each subscribe to different topics out of all.
pub(super) fn plans(
    seed: u64,
    clients: usize,
    each: usize,
    topics: usize,
    budget_ms: u32,
) -> Vec<Plan> {
    (0..clients as u64)
        .map(|client| Plan {
            topics: topics_of(seed, client, each, topics),
            budget_ms,
            group: 0,
            recv_buffer: None,
        })
        .collect()
}

/// What is published for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trial {
    /// Events a second.
    pub(super) feed_per_s: u64,
    /// Before the window.
    pub(super) warm_ms: u64,
    /// The window.
    pub(super) window_ms: u64,
}

/// What came of it.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    pub(super) figures: BTreeMap<String, f64>,
    pub(super) histograms: BTreeMap<String, Histogram<u64>>,
    pub(super) remarks: Vec<String>,
    /// Of what was due.
    pub(super) delivered_share: f64,
    pub(super) p99_ns: u64,
}

/// A server that is up, and clients that are subscribed.
pub(super) struct Session {
    pub(super) setup: Setup,
    pub(super) process: Process,
    pub(super) load: Load,
    pub(super) connect_s: f64,
    /// Numbers go on from order to order.
    base: Vec<u64>,
    /// Clients that nobody reads for.
    others: Vec<Load>,
    /// Something of an earlier order may still be under way.
    pub(super) is_dirty: bool,
}

impl Session {
    /// Starts a server and connects all clients.
    ///
    /// # Errors
    /// When either fails.
    pub(super) fn open(setup: Setup) -> Result<Self> {
        let mut session = Self::open_unconnected(setup)?;
        let began = clock::now();
        session.load.connect(CONNECT_NS)?;
        session.connect_s = began.elapsed().as_secs_f64();
        Ok(session)
    }

    /// Starts a server; clients are not connected yet.
    ///
    /// # Errors
    /// When it does not start.
    pub(super) fn open_unconnected(setup: Setup) -> Result<Self> {
        let process = Process::start(&PeerOptions {
            name: setup.peer,
            topics: setup.topics,
            channel: setup.channel,
            seed: setup.seed,
            core: Some(SERVER_CORE),
        })?;
        let load = setup.load(process.port, setup.plans.clone())?;
        let base = vec![0; setup.topics];
        Ok(Self { setup, process, load, connect_s: 0.0, base, is_dirty: false, others: Vec::new() })
    }

    /// The same server with other clients, while those of before stay as they are.
    ///
    /// # Errors
    /// When the system has no poller.
    pub(super) fn with_more(mut self, plans: Vec<Plan>) -> Result<Self> {
        let load = self.setup.load(self.process.port, plans)?;
        self.others.push(std::mem::replace(&mut self.load, load));
        Ok(self)
    }

    /// Gives the order for a trial that begins soon, and prepares the clients for it; returns when
    /// its window begins and ends.
    ///
    /// # Errors
    /// When the server is gone.
    pub(super) fn begin(&mut self, trial: Trial, is_quiet: bool) -> Result<(u64, u64)> {
        let Trial { feed_per_s, warm_ms, window_ms } = trial;
        let ticks = (warm_ms + window_ms) * 1_000_000 / TICK_NS;
        let schedule = Schedule::new(self.setup.seed, self.setup.topics, feed_per_s);
        let per_s = self.setup.deliveries_per_event() * feed_per_s as f64;
        let check_every = self.setup.check_every(per_s);
        // Unrolling the schedule takes its time, so the start is known after it only.
        let mut expected =
            Expected::new(schedule, 0, ticks, 0..ticks * TICK_NS, std::mem::take(&mut self.base));
        let start_ns = clock::wall_ns() + LEAD_NS;
        let window_ns = start_ns + warm_ms * 1_000_000..start_ns + ticks * TICK_NS;
        expected.start_at(start_ns, window_ns.clone());
        self.base = expected.ends();
        self.load.begin(expected, &check_every, is_quiet)?;
        self.process.order(Order::Publish { rate_per_s: feed_per_s, start_ns, ticks })?;
        Ok((window_ns.start, window_ns.end))
    }

    /// Publishes, and measures the window.
    ///
    /// # Errors
    /// When a client received something wrong, or the server is gone.
    pub(super) fn run(&mut self, trial: Trial) -> Result<Outcome> {
        let (open_ns, close_ns) = self.begin(trial, true)?;
        self.load.run_until(open_ns)?;
        let (server, own) = (self.process.usage()?, process::own_usage()?);
        self.load.run_until(close_ns)?;
        let (server, own) =
            (since(self.process.usage()?, server), since(process::own_usage()?, own));
        let (events, lag_ns) = self.finish(close_ns)?;
        let mut outcome = self.outcome(trial, 0);
        let window_s = trial.window_ms as f64 / 1e3;
        let cpu_s = server.cpu_ns as f64 / SECOND_NS;
        let generator_cores = own.cpu_ns as f64 / SECOND_NS / window_s;
        let deliveries = outcome.figures["deliveries_per_s"] * window_s;
        let mut figure = |name: &str, value: f64| outcome.figures.insert(name.to_owned(), value);
        figure("server_cpu_s", cpu_s);
        figure("server_cpu_cores", cpu_s / window_s);
        figure("deliveries_per_cpu_s", deliveries / cpu_s);
        figure("server_rss_mib", server.rss_bytes as f64 / f64::from(1 << 20));
        figure("server_switches_per_s", server.switches as f64 / window_s);
        figure("generator_cpu_cores", generator_cores);
        figure("publisher_lag_us", lag_ns as f64 / 1e3);
        figure("feed_per_s", events as f64 * 1e3 / (trial.warm_ms + trial.window_ms) as f64);
        figure("window_s", window_s);
        if generator_cores > GENERATOR_CORES_MAX && !self.load.is_spinning {
            outcome.remarks.push(format!(
                "the generator was the limit: it used {generator_cores:.2} of its core"
            ));
        }
        Ok(outcome)
    }

    /// System calls of the server a second while it is under a load, if perf may count them. Apart
    /// from other measurements, as counting makes them dearer.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(super) fn syscalls_per_s(&mut self, trial: Trial) -> Result<Option<f64>> {
        let (open_ns, close_ns) = self.begin(trial, true)?;
        self.load.run_until(open_ns)?;
        let seconds = trial.window_ms as f64 / 1e3;
        let counting = self.process.count_syscalls(seconds * 0.8);
        self.load.run_until(close_ns)?;
        self.finish(close_ns)?;
        Ok(counting
            .ok()
            .and_then(|counting| counting.finish())
            .map(|calls| calls / (seconds * 0.8)))
    }

    /// Waits for what is still under way after the window; gives what the publisher says.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(super) fn finish(&mut self, close_ns: u64) -> Result<(u64, u64)> {
        let mut published = None;
        loop {
            let now = clock::wall_ns();
            if published.is_none()
                && let Some(Report::Published { events, lag_ns_max }) =
                    self.process.report(Duration::ZERO)?
            {
                published = Some((events, lag_ns_max));
            }
            // Those who are not checked may be behind those who are.
            let is_complete = self.load.is_complete() && self.load.quiet_ns() > QUIET_NS;
            if let Some(published) = published
                && (is_complete || now > close_ns + DRAIN_NS)
            {
                self.is_dirty = !is_complete || self.load.gone() > 0;
                return Ok(published);
            }
            anyhow::ensure!(now < close_ns + PUBLISHED_NS, "the publisher does not finish");
            self.load.run_until(now + STEP_NS)?;
        }
    }

    /// The figures of a group of clients that do not depend on processes.
    pub(super) fn outcome(&self, trial: Trial, group: usize) -> Outcome {
        let tally = &self.load.tallies()[group];
        let (checked, all) = self.load.due(group);
        let window_s = trial.window_ms as f64 / 1e3;
        let scale = if checked == 0 { 0.0 } else { all as f64 / checked as f64 };
        let share = if checked == 0 { 0.0 } else { tally.changes as f64 / checked as f64 };
        let mut figures = BTreeMap::new();
        let mut figure = |name: &str, value: f64| figures.insert(name.to_owned(), value);
        figure("deliveries_per_s", tally.changes as f64 * scale / window_s);
        figure("updates_per_s", tally.updates as f64 * scale / window_s);
        figure("missing_share", (1.0 - share).max(0.0));
        figure("updates_per_read", tally.updates as f64 / tally.reads.max(1) as f64);
        figure("bytes_per_s", (tally.bytes + tally.bytes_unchecked) as f64 / window_s);
        quantiles(&tally.received, "", &mut figures);
        let oldest = match self.setup.channel {
            Channel::Trades => &tally.received,
            Channel::Bbo | Channel::Book if self.setup.peer == Name::Tickfan => &tally.oldest,
            Channel::Bbo | Channel::Book => &tally.received,
        };
        figures.insert("oldest_p99_us".to_owned(), micros(oldest, 0.99));
        let mut remarks = Vec::new();
        if checked < all {
            remarks.push(format!(
                "every {:.0}th client was checked, and stands for the others",
                scale.round()
            ));
            // Conflated, what a client gets hardly depends on how much there was.
            let conflates =
                self.setup.peer == Name::Tickfan && self.setup.channel != Channel::Trades;
            let (checked, all) = if conflates {
                let (checked, all) = self.load.checked(group);
                (checked as u64, all as u64)
            } else {
                (checked, all)
            };
            let of_checked = tally.bytes as f64 / checked as f64;
            let of_others = tally.bytes_unchecked as f64 / (all - checked) as f64;
            let apart = (of_others - of_checked) / of_checked;
            if apart.abs() > BYTES_APART_MAX {
                remarks.push(format!(
                    "clients that were not checked received {:+.1} % of the bytes of those that were",
                    apart * 100.0
                ));
            }
        }
        if self.load.gone() > 0 {
            remarks.push(format!(
                "{} clients were cut off: {}",
                self.load.gone(),
                self.load.parting()
            ));
        }
        let histograms = BTreeMap::from([
            ("received".to_owned(), tally.received.clone()),
            ("oldest".to_owned(), oldest.clone()),
        ]);
        Outcome {
            figures,
            histograms,
            remarks,
            delivered_share: share,
            p99_ns: tally.received.value_at_quantile(0.99),
        }
    }

    /// A session as this was in the beginning, if something may still be under way in this one.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) fn fresh(self) -> Result<Self> {
        if !self.is_dirty {
            return Ok(self);
        }
        let setup = self.setup.clone();
        drop(self);
        Self::open(setup).context("the server does not start again")
    }
}

/// What was used between two looks; memory as of the later.
fn since(later: Usage, earlier: Usage) -> Usage {
    Usage {
        cpu_ns: later.cpu_ns.saturating_sub(earlier.cpu_ns),
        switches: later.switches.saturating_sub(earlier.switches),
        rss_bytes: later.rss_bytes,
    }
}

/// A quantile in microseconds.
pub(super) fn micros(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1e3
}

/// The usual quantiles, in microseconds.
pub(super) fn quantiles(
    histogram: &Histogram<u64>,
    prefix: &str,
    figures: &mut BTreeMap<String, f64>,
) {
    let names = [
        ("p50", 0.5),
        ("p90", 0.9),
        ("p99", 0.99),
        ("p999", 0.999),
        ("p9999", 0.9999),
        ("max", 1.0),
    ];
    for (name, quantile) in names {
        figures.insert(format!("{prefix}{name}_us"), micros(histogram, quantile));
    }
}
