//! What Tickfan is held against: ratios of medians, each from one alternating set of runs.
//!
//! The names are those of the tables in `scenario.rs`. A goal whose runs a report does not have is
//! not measured; that is no failure.

use serde::Serialize;

use super::summary::{ENCODING, JSON, Spread};
use super::{Better, Goal, Run, Term};

/// From fewer rounds a ratio is an indication.
pub(super) const ROUNDS_MIN: usize = 3;

const TICKFAN: &str = "tickfan";
const UWS: &str = "uws";
const LOOP: &str = "loop";

/// Shortens the table below.
const fn term(
    peer: &'static str,
    scenario: &'static str,
    parameters: &'static [(&'static str, &'static str)],
    figure: &'static str,
) -> Term {
    Term { scenario, peer, parameters, figure }
}

/// All goals.
pub(crate) const GOALS: [Goal; 14] = [
    Goal {
        what: "server CPU at 1,000,000 deliveries/s, budget 20 ms, of uWebSockets'",
        term: term(TICKFAN, "fixed", &[("encoding", "json")], "server_cpu_cores"),
        anchor: Some(term(UWS, "fixed", &[], "server_cpu_cores")),
        better: Better::Less,
        at_least: 0.6,
        aim: 0.45,
    },
    Goal {
        what: "capacity, every update, budget 20 ms, of uWebSockets'",
        term: term(
            TICKFAN,
            "capacity",
            &[("mode", "every"), ("encoding", "json")],
            "capacity_per_s",
        ),
        anchor: Some(term(UWS, "capacity", &[("mode", "every")], "capacity_per_s")),
        better: Better::More,
        at_least: 4.0,
        aim: 6.0,
    },
    Goal {
        what: "capacity, conflated, changes represented, of uWebSockets' capacity",
        term: term(
            TICKFAN,
            "capacity",
            &[("mode", "conflated"), ("encoding", "json")],
            "capacity_per_s",
        ),
        // A rival knows no conflation: its one search stands for both.
        anchor: Some(term(UWS, "capacity", &[("mode", "every")], "capacity_per_s")),
        better: Better::More,
        at_least: 20.0,
        aim: 100.0,
    },
    Goal {
        what: "clients at 100 ms, of the sends of a bare loop in that time",
        term: term(
            TICKFAN,
            "subscribers",
            &[("case", "search"), ("budget_ms", "100"), ("feed_x", "1")],
            "clients",
        ),
        anchor: Some(term(
            LOOP,
            "subscribers",
            &[("case", "loop"), ("budget_ms", "100")],
            "clients",
        )),
        better: Better::More,
        at_least: 0.55,
        aim: 0.7,
    },
    Goal {
        what: "server CPU at 10 times the feed rate, 100 ms, of that at the rate",
        term: term(
            TICKFAN,
            "subscribers",
            &[("case", "cost"), ("feed_x", "10")],
            "server_cpu_cores",
        ),
        anchor: Some(term(
            TICKFAN,
            "subscribers",
            &[("case", "cost"), ("feed_x", "1")],
            "server_cpu_cores",
        )),
        better: Better::Less,
        at_least: 1.5,
        aim: 1.2,
    },
    Goal {
        what: "latency p50, class 0, one subscriber, of a bare loop's",
        term: term(TICKFAN, "latency", &[("case", "one"), ("encoding", "json")], "in_p50_us"),
        anchor: Some(term(LOOP, "latency", &[("case", "loop")], "in_p50_us")),
        better: Better::Less,
        at_least: 2.0,
        aim: 1.3,
    },
    Goal {
        what: "latency p99, class 0, 1,000 x 10 at 2,000/s, of uWebSockets'",
        term: term(TICKFAN, "latency", &[("case", "thousand")], "p99_us"),
        anchor: Some(term(UWS, "latency", &[("case", "thousand")], "p99_us")),
        better: Better::Less,
        at_least: 0.8,
        aim: 0.4,
    },
    Goal {
        what: "p99 of 20 clients at 1 ms beside 980 at 20 ms, of that alone",
        term: term(TICKFAN, "latency", &[("case", "fast-beside")], "p99_us"),
        anchor: Some(term(TICKFAN, "latency", &[("case", "fast-alone")], "p99_us")),
        better: Better::Less,
        at_least: 3.0,
        aim: 1.5,
    },
    Goal {
        what: "stall: old updates before the first fresh one, of uWebSockets'",
        term: term(TICKFAN, "stall", &[("variant", "with")], "old_updates"),
        anchor: Some(term(UWS, "stall", &[("variant", "with")], "old_updates")),
        better: Better::Less,
        at_least: 0.02,
        aim: 0.01,
    },
    Goal {
        what: "stall: the others' p99, of that without stalled clients",
        term: term(TICKFAN, "stall", &[("variant", "with")], "p99_us"),
        anchor: Some(term(TICKFAN, "stall", &[("variant", "without")], "p99_us")),
        better: Better::Less,
        at_least: 1.1,
        aim: 1.05,
    },
    Goal {
        what: "idle: resident KiB a connection with 10 subscriptions",
        term: term(TICKFAN, "idle", &[], "rss_kib_per_connection"),
        anchor: None,
        better: Better::Less,
        at_least: 0.6,
        aim: 0.25,
    },
    Goal {
        what: "storm: 2,000 x 10 to the last image, of uWebSockets' last first update",
        term: term(TICKFAN, "storm", &[("clients", "2000")], "last_image_ms"),
        anchor: Some(term(UWS, "storm", &[("clients", "2000")], "last_image_ms")),
        better: Better::Less,
        at_least: 1.5,
        aim: 1.0,
    },
    Goal {
        what: "storm: ms of silence that half of 2,000 vanishing adds",
        term: term(TICKFAN, "storm", &[("clients", "2000")], "silence_added_ms"),
        anchor: None,
        better: Better::Less,
        at_least: 20.0,
        aim: 10.0,
    },
    Goal {
        what: "bytes of a depth-20 change: binary delta, of a JSON image",
        term: term(
            TICKFAN,
            "bytes",
            &[("form", "delta"), ("encoding", "binary"), ("depth", "20")],
            "bytes_per_change",
        ),
        anchor: Some(term(
            TICKFAN,
            "bytes",
            &[("form", "image"), ("encoding", "json"), ("depth", "20")],
            "bytes_per_change",
        )),
        better: Better::Less,
        at_least: 0.2,
        aim: 0.1,
    },
];

/// How a goal was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// What should be.
    Aim,
    /// What must be.
    AtLeast,
    Missed,
    /// The report has no runs for it.
    NotMeasured,
    /// Runs with different parameters fit, so that their median would mean nothing.
    Ambiguous,
}

impl Verdict {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Aim => "aim",
            Self::AtLeast => "at least",
            Self::Missed => "missed",
            Self::NotMeasured => "not measured",
            Self::Ambiguous => "ambiguous",
        }
    }
}

/// A goal and how it was met.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Outcome {
    pub(super) what: &'static str,
    pub(super) scenario: &'static str,
    pub(super) figure: Option<f64>,
    pub(super) anchor: Option<f64>,
    /// What is held against the goal.
    pub(super) ratio: Option<f64>,
    pub(super) at_least: f64,
    pub(super) aim: f64,
    /// Of the figure and its anchor, the fewer.
    pub(super) rounds: usize,
    pub(super) verdict: Verdict,
    #[serde(skip)]
    pub(super) better: Better,
}

impl Outcome {
    /// `≥ 4`: a bound of the goal.
    pub(super) fn bound(&self, value: f64) -> String {
        let sign = match self.better {
            Better::More => "≥",
            Better::Less => "≤",
        };
        format!("{sign} {value}")
    }
}

/// A report's goals: those of its scenarios, and how many belong to others.
pub(super) fn of_report(runs: &[Run]) -> (Vec<Outcome>, usize) {
    let is_own = |outcome: &Outcome| runs.iter().any(|run| run.scenario == outcome.scenario);
    let (own, others): (Vec<_>, Vec<_>) = outcomes(&GOALS, runs).into_iter().partition(is_own);
    (own, others.len())
}

/// What became of these goals.
pub(crate) fn outcomes(goals: &[Goal], runs: &[Run]) -> Vec<Outcome> {
    goals.iter().map(|goal| outcome(goal, runs)).collect()
}

fn outcome(goal: &Goal, runs: &[Run]) -> Outcome {
    let mut outcome = Outcome {
        what: goal.what,
        scenario: goal.term.scenario,
        figure: None,
        anchor: None,
        ratio: None,
        at_least: goal.at_least,
        aim: goal.aim,
        rounds: 0,
        verdict: Verdict::NotMeasured,
        better: goal.better,
    };
    let figure = measured(&goal.term, runs);
    let anchor = goal.anchor.as_ref().map(|anchor| measured(anchor, runs));
    if matches!(figure, Measured::Ambiguous) || matches!(anchor, Some(Measured::Ambiguous)) {
        outcome.verdict = Verdict::Ambiguous;
        return outcome;
    }
    let Measured::Once(figure) = figure else { return outcome };
    outcome.figure = Some(figure.median);
    outcome.rounds = figure.rounds;
    let ratio = match anchor {
        None => figure.median,
        Some(Measured::Once(anchor)) => {
            outcome.anchor = Some(anchor.median);
            outcome.rounds = figure.rounds.min(anchor.rounds);
            figure.median / anchor.median
        }
        Some(_) => return outcome,
    };
    // An anchor of nothing is a measurement that failed.
    if !ratio.is_finite() {
        return outcome;
    }
    outcome.ratio = Some(ratio);
    let reaches = |goal_value: f64| match goal.better {
        Better::More => ratio >= goal_value,
        Better::Less => ratio <= goal_value,
    };
    outcome.verdict = match (reaches(goal.aim), reaches(goal.at_least)) {
        (true, _) => Verdict::Aim,
        (false, true) => Verdict::AtLeast,
        (false, false) => Verdict::Missed,
    };
    outcome
}

enum Measured {
    Never,
    Once(Spread),
    Ambiguous,
}

fn measured(term: &Term, runs: &[Run]) -> Measured {
    let names_encoding = term.parameters.iter().any(|(name, _)| *name == ENCODING);
    let fits = |run: &&Run| {
        let has = |(name, value): &(&str, &str)| {
            run.parameters.get(*name).is_some_and(|found| found == value)
        };
        // JSON is meant where nothing else is said.
        let is_json = run.parameters.get(ENCODING).is_none_or(|encoding| encoding == JSON);
        run.scenario == term.scenario
            && run.peer == term.peer
            && run.figures.contains_key(term.figure)
            && term.parameters.iter().all(has)
            && (names_encoding || is_json)
    };
    let fitting: Vec<&Run> = runs.iter().filter(fits).collect();
    if fitting.windows(2).any(|pair| pair[0].parameters != pair[1].parameters) {
        return Measured::Ambiguous;
    }
    let values = fitting.iter().filter_map(|run| run.figures.get(term.figure)).copied();
    Spread::of(values.collect()).map_or(Measured::Never, Measured::Once)
}
