//! What was measured, and what it is held against: runs → figures, ratios, verdicts.
//!
//! Scenarios fill it; it is written as text, JSON, HDR histograms and one HTML page, and read back to
//! be compared and resumed.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// One scenario against one peer, once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Run {
    /// The scenario, as on the command line.
    pub(crate) scenario: String,
    /// The peer, as on the command line; `loop` for a bare loop, which is no peer.
    pub(crate) peer: String,
    /// Which of the alternating rounds, from 1.
    pub(crate) round: u32,
    /// What distinguishes this run from others of its scenario: `budget_ms`, `channel`, `rate`.
    pub(crate) parameters: BTreeMap<String, String>,
    /// What came out, by a name that ends in its unit: `p99_us`, `server_cpu_s`.
    pub(crate) figures: BTreeMap<String, f64>,
    /// Latencies in nanoseconds, by what they are from and to.
    #[serde(skip)]
    pub(crate) histograms: BTreeMap<String, Histogram<u64>>,
    /// What a reader must know: the generator was the limit, a check failed.
    pub(crate) remarks: Vec<String>,
}

/// The figure of a run that is half of a ratio: the median over the rounds is taken.
#[derive(Debug, Clone)]
pub(crate) struct Term {
    pub(crate) scenario: &'static str,
    pub(crate) peer: &'static str,
    /// The parameters that a run must have.
    pub(crate) parameters: &'static [(&'static str, &'static str)],
    pub(crate) figure: &'static str,
}

/// Whether more or less is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    More,
    Less,
}

/// A line of the table of goals: a term over an anchor, and what it must and should be.
#[derive(Debug, Clone)]
pub(crate) struct Goal {
    pub(crate) what: &'static str,
    pub(crate) term: Term,
    /// `None`: the term is held against the goal as it is.
    pub(crate) anchor: Option<Term>,
    pub(crate) better: Better,
    pub(crate) at_least: f64,
    pub(crate) aim: f64,
}
