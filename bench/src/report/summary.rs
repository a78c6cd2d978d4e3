//! Runs → cases: the same scenario with the same parameters, peers side by side, rounds together.
//!
//! What every form of a report shows, and what is compared. The encoding is no parameter of a case but
//! of who stands in it: rivals speak JSON only, and are compared with every encoding of ours.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::Run;

/// A figure over the rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) rounds: usize,
}

impl Spread {
    /// Of these values; none if there are none.
    pub(super) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.retain(|value| value.is_finite());
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let is_odd = values.len() % 2 == 1;
        let median =
            if is_odd { values[half] } else { f64::midpoint(values[half - 1], values[half]) };
        Some(Self { median, min, max, rounds: values.len() })
    }
}

/// The parameter that belongs to who was measured.
pub(super) const ENCODING: &str = "encoding";

/// The encoding that needs not be said.
pub(super) const JSON: &str = "json";

/// The runs of one scenario that have the same parameters, but for the encoding.
#[derive(Debug)]
pub(super) struct Case<'a> {
    pub(super) scenario: &'a str,
    pub(super) parameters: BTreeMap<String, String>,
    /// In the order in which they were run.
    runs: Vec<&'a Run>,
}

/// All cases, in the order in which they were first run.
pub(super) fn cases(runs: &[Run]) -> Vec<Case<'_>> {
    let mut cases: Vec<Case<'_>> = Vec::new();
    for run in runs {
        let mut parameters = run.parameters.clone();
        parameters.remove(ENCODING);
        let same =
            |case: &&mut Case| case.scenario == run.scenario && case.parameters == parameters;
        match cases.iter_mut().find(same) {
            Some(case) => case.runs.push(run),
            None => cases.push(Case { scenario: &run.scenario, parameters, runs: vec![run] }),
        }
    }
    cases
}

/// Who was measured: the peer, and its encoding where that is not JSON.
fn who(run: &Run) -> String {
    match run.parameters.get(ENCODING).map(String::as_str) {
        None | Some(JSON) => run.peer.clone(),
        Some(encoding) => format!("{} {encoding}", run.peer),
    }
}

impl<'a> Case<'a> {
    /// The scenario and its parameters.
    pub(super) fn title(&self) -> String {
        super::title(self.scenario, &self.parameters)
    }

    /// Its peers, in the order in which they were first run; with an encoding that is not JSON.
    pub(super) fn peers(&self) -> Vec<String> {
        let mut peers = Vec::new();
        for peer in self.runs.iter().map(|run| who(run)) {
            if !peers.contains(&peer) {
                peers.push(peer);
            }
        }
        peers
    }

    /// The names of its figures, percentiles by height.
    pub(super) fn figures(&self) -> Vec<&'a str> {
        let mut names: Vec<&str> =
            self.runs.iter().flat_map(|run| run.figures.keys()).map(String::as_str).collect();
        names.sort_by_key(|name| height(name));
        names.dedup();
        names
    }

    /// The names of its histograms.
    pub(super) fn histograms(&self) -> Vec<&'a str> {
        let mut names: Vec<&str> =
            self.runs.iter().flat_map(|run| run.histograms.keys()).map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// A figure of a peer.
    pub(super) fn spread(&self, peer: &str, figure: &str) -> Option<Spread> {
        let runs = self.runs.iter().filter(|run| who(run) == peer);
        Spread::of(runs.filter_map(|run| run.figures.get(figure)).copied().collect())
    }

    /// A histogram of a peer, all rounds together; none if nothing was recorded.
    pub(super) fn merged(&self, peer: &str, histogram: &str) -> Option<Histogram<u64>> {
        let runs = self.runs.iter().filter(|run| who(run) == peer);
        let mut histograms = runs.filter_map(|run| run.histograms.get(histogram));
        let mut merged = histograms.next()?.clone();
        merged.auto(true);
        for histogram in histograms {
            // Cannot fail: it grows.
            let _ = merged.add(histogram);
        }
        (!merged.is_empty()).then_some(merged)
    }
}

/// What a scenario is about comes first.
const FIRST: [&str; 6] = [
    "capacity_per_s",
    "clients",
    "last_image_ms",
    "rss_kib_per_connection",
    "deliveries_per_s",
    "server_cpu_cores",
];

/// Where a figure's name stands among others: percentiles before the rest and by their height
/// (`p90`, `p99`, `p999`, `max`), the rest alphabetically.
fn height(name: &str) -> (usize, String, String) {
    let first = FIRST.iter().position(|first| *first == name).unwrap_or(FIRST.len());
    let is_percentile = |word: &&str| {
        let digits = word.strip_prefix('p').unwrap_or_default();
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    let words: Vec<&str> = name.split('_').collect();
    let place = words.iter().position(|word| *word == "max" || is_percentile(word));
    match place {
        // `q` is behind every percentile, and `_` before every letter.
        Some(place) => {
            let word = if words[place] == "max" { "q" } else { words[place] };
            (first, words[..place].join("_") + "_", word.to_owned())
        }
        None => (first, name.to_owned(), String::new()),
    }
}
