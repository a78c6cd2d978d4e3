//! A call of the bench: which scenarios, against whom and how often → runs → one report.
//!
//! Called by `main`. It decides what is measured in which order; `scenario` knows how.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::{Args, Subcommand};

use crate::peer::Name;
use crate::report::steps::{self, Step};
use crate::report::store::Store;
use crate::report::{Report, ReportOptions, RunKey};
use crate::scenario::{self, Bench, Case, LoadOptions, Scenario, name_of};

/// What to measure.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Server CPU at a million deliveries a second
    Fixed(Options),
    /// The highest rate with p99 below 50 ms, every update or conflated
    Capacity(Options),
    /// From the venue's bytes to the subscriber, per class and load
    Latency(Options),
    /// How many clients one shard serves at a budget
    Subscribers(Options),
    /// What stalled and slow clients do to others, and what they find when they read again
    Stall(Options),
    /// Memory and CPU of idle connections
    Idle(Options),
    /// Everybody connects at once, then half vanish
    Storm(Options),
    /// Decode, book, snapshot: what a venue message costs
    Ingest(Options),
    /// Where the time goes between the venue and the subscriber
    EndToEnd(Options),
    /// Bytes of a change of a book, as a delta and as an image
    Bytes(Options),
    /// Something of everything, within ten minutes
    Quick(Options),
    /// Everything; best with --resume, so that it can be interrupted
    All(Options),
}

/// How to measure, and what becomes of it.
#[derive(Args)]
pub(crate) struct Options {
    /// Against whom, besides the gateway; may be given several times [default: naive, and uws where
    /// it was built in]
    #[arg(long = "rival", value_enum)]
    rivals: Vec<Name>,
    /// How often each run is done, in alternation [default: 3, quick: 1]
    #[arg(long)]
    rounds: Option<u32>,
    /// Keep each finished run here, and do not do again what is here already
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    #[command(flatten)]
    load: LoadOptions,
    #[command(flatten)]
    report: ReportOptions,
}

/// In the order in which a set is measured: what is compared with rivals first.
const SCENARIOS: [Scenario; 10] = [
    Scenario::Fixed,
    Scenario::Capacity,
    Scenario::Latency,
    Scenario::Stall,
    Scenario::Idle,
    Scenario::Storm,
    Scenario::Subscribers,
    Scenario::Bytes,
    Scenario::EndToEnd,
    Scenario::Ingest,
];

/// Cases and how often each is measured.
type Plan = Vec<(Vec<Case>, u32)>;

impl Command {
    /// Measures, and reports.
    ///
    /// # Errors
    /// When a run fails: those that are finished are kept where `--resume` says.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let (scenario, mut options) = match self {
            Self::Fixed(options) => (Some(Scenario::Fixed), options),
            Self::Capacity(options) => (Some(Scenario::Capacity), options),
            Self::Latency(options) => (Some(Scenario::Latency), options),
            Self::Subscribers(options) => (Some(Scenario::Subscribers), options),
            Self::Stall(options) => (Some(Scenario::Stall), options),
            Self::Idle(options) => (Some(Scenario::Idle), options),
            Self::Storm(options) => (Some(Scenario::Storm), options),
            Self::Ingest(options) => (Some(Scenario::Ingest), options),
            Self::EndToEnd(options) => (Some(Scenario::EndToEnd), options),
            Self::Bytes(options) => (Some(Scenario::Bytes), options),
            Self::Quick(mut options) => {
                options.load.is_quick = true;
                let plan = options.quick();
                return options.measure(plan);
            }
            Self::All(options) => (None, options),
        };
        if options.rivals.is_empty() {
            options.rivals = default_rivals();
        }
        let plan = match scenario {
            Some(scenario) => {
                let cases = scenario::cases(scenario, &options.peers(), &options.load);
                vec![(cases, options.rounds.unwrap_or(3))]
            }
            None => options.all(),
        };
        options.measure(plan)
    }
}

fn default_rivals() -> Vec<Name> {
    let mut rivals = vec![Name::Naive];
    if cfg!(feature = "uws") {
        rivals.push(Name::Uws);
    }
    rivals
}

impl Options {
    /// The gateway, then its rivals.
    fn peers(&self) -> Vec<Name> {
        std::iter::once(Name::Tickfan).chain(self.rivals.iter().copied()).collect()
    }

    /// Everything `rounds` times; rivals that are not in every comparison, and what no goal asks for,
    /// once.
    fn all(&self) -> Plan {
        let rounds = self.rounds.unwrap_or(3);
        let mut plan = Plan::new();
        let mut once = Vec::new();
        for scenario in SCENARIOS {
            let cases = scenario::cases(scenario, &self.peers(), &self.load);
            let (often, rarely): (Vec<Case>, Vec<Case>) = cases.into_iter().partition(is_of_a_goal);
            plan.push((often, rounds));
            once.extend(rarely);
        }
        for scenario in [Scenario::Fixed, Scenario::Capacity, Scenario::Stall, Scenario::Idle] {
            once.extend(scenario::cases(scenario, &[Name::Batch, Name::Nats], &self.load));
        }
        plan.push((once, 1));
        plan
    }

    fn quick(&mut self) -> Plan {
        if self.rivals.is_empty() {
            self.rivals = default_rivals();
        }
        let rounds = self.rounds.unwrap_or(1);
        let cases = SCENARIOS.into_iter().map(|scenario| {
            let mut cases = scenario::cases(scenario, &self.peers(), &self.load);
            cases.retain(|case| is_of_a_goal(case) && !is_long(case));
            (cases, rounds)
        });
        cases.collect()
    }

    fn measure(self, plan: Plan) -> Result<ExitCode> {
        self.report.check(&scenario::FIGURES).unwrap_or_else(|error| error.exit());
        let mut report = Report::begin();
        let mut store = Store::open(self.resume.as_deref())?;
        let mut bench = Bench::new(self.load)?;
        for (cases, rounds) in plan {
            let compared: Vec<Step> = cases.iter().map(step).collect();
            let steps = steps::alternate(&compared, rounds);
            steps::run_all(&steps, &mut store, |step| {
                let is_meant = |case: &&Case| {
                    let meant = self::step(case).key;
                    meant.peer == step.key.peer
                        && meant.parameters == step.key.parameters
                        && meant.scenario == step.key.scenario
                };
                let case = cases.iter().find(is_meant).ok_or_else(|| anyhow!("no such case"))?;
                bench.run(case, step.key.round)
            })?;
        }
        report.runs = store.into_runs();
        self.report.finish(&report)
    }
}

fn step(case: &Case) -> Step {
    let key = RunKey {
        scenario: name_of(&case.scenario),
        peer: case.peer.map_or_else(|| "loop".to_owned(), |peer| name_of(&peer)),
        parameters: case.parameters.clone(),
        round: 1,
    };
    Step { key, about: case.about }
}

/// Whether a goal asks for it, or a goal's anchor.
fn is_of_a_goal(case: &Case) -> bool {
    let is = |name: &str, value: &str| case.parameters.get(name).is_some_and(|has| has == value);
    match case.scenario {
        Scenario::Latency => !is("case", "load") && !is("case", "hundred"),
        Scenario::Subscribers => {
            is("budget_ms", "100") && (is("feed_x", "1") || !is("case", "search"))
        }
        Scenario::Storm => is("clients", "2000"),
        Scenario::Ingest => false,
        _ => true,
    }
}

/// Whether it tells a person in a hurry too little for its time.
fn is_long(case: &Case) -> bool {
    let is = |name: &str, value: &str| case.parameters.get(name).is_some_and(|has| has == value);
    match case.scenario {
        Scenario::Stall | Scenario::Idle | Scenario::Latency => case.peer == Some(Name::Naive),
        Scenario::Capacity => case.peer == Some(Name::Naive) && is("mode", "conflated"),
        Scenario::Subscribers => is("feed_x", "100"),
        _ => false,
    }
}
