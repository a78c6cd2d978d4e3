//! What was measured, and what it is held against: runs → figures, ratios, verdicts.
//!
//! Scenarios fill it; it is written as text, JSON, HDR histograms and one HTML page, and read back to
//! be compared and resumed.

mod histogram;
mod machine;
pub(crate) mod store;
pub(crate) mod steps;
mod summary;
pub(crate) mod goals;
mod number;
pub(crate) mod condition;
mod json;
mod hgrm;
mod text;
mod plot;
mod html;
pub(crate) mod compare;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use clap::error::ErrorKind;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use condition::{Condition, Unknown};
use goals::Outcome;
use machine::Machine;

/// The exit code when a condition could not be judged, which is also that of a wrong command line.
const EXIT_UNKNOWN: u8 = 2;

/// The exit code when a condition of `--fail-if` holds.
const EXIT_FAILED: u8 = 3;

/// One scenario against one peer, once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    #[serde(serialize_with = "json::finite")]
    pub(crate) figures: BTreeMap<String, f64>,
    /// Latencies in nanoseconds, by what they are from and to.
    #[serde(default, with = "histogram")]
    pub(crate) histograms: BTreeMap<String, Histogram<u64>>,
    /// What a reader must know: the generator was the limit, a check failed.
    #[serde(default)]
    pub(crate) remarks: Vec<String>,
}

/// Which run: what must be the same for one to stand for another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunKey {
    pub(crate) scenario: String,
    pub(crate) peer: String,
    pub(crate) parameters: BTreeMap<String, String>,
    /// From 1.
    pub(crate) round: u32,
}

impl Run {
    /// Which run it is.
    pub(crate) fn key(&self) -> RunKey {
        RunKey {
            scenario: self.scenario.clone(),
            peer: self.peer.clone(),
            parameters: self.parameters.clone(),
            round: self.round,
        }
    }
}

/// `fixed budget_ms=20 encoding=json`: a scenario and what distinguishes its runs.
fn title(scenario: &str, parameters: &BTreeMap<String, String>) -> String {
    parameters.iter().fold(scenario.to_owned(), |title, (name, value)| {
        let value = if value.is_empty() { "-" } else { value };
        format!("{title} {name}={value}")
    })
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

/// All that one call of the bench measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Where.
    pub(crate) machine: Machine,
    /// How: the command line.
    pub(crate) command: String,
    /// When, in UTC.
    pub(crate) started: String,
    pub(crate) runs: Vec<Run>,
    /// The ratios and verdicts that follow from the runs, for readers of the file; not read back.
    #[serde(default, skip_deserializing)]
    goals: Vec<Outcome>,
}

impl Report {
    /// A report of this machine and command that begins now, without runs.
    pub(crate) fn begin() -> Self {
        let now = feed_sim::clock::rfc3339(feed_sim::clock::wall_ns());
        let seconds = now.split('.').next().unwrap_or_default();
        Self {
            machine: Machine::here(),
            command: std::env::args().collect::<Vec<_>>().join(" "),
            started: format!("{seconds}Z"),
            runs: Vec::new(),
            goals: Vec::new(),
        }
    }

    /// The names of all figures of all runs.
    fn figures(&self) -> Vec<&str> {
        let mut names: Vec<&str> =
            self.runs.iter().flat_map(|run| run.figures.keys()).map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// What becomes of a report.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ReportOptions {
    /// Write the whole report, histograms included
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write each histogram in HdrHistogram's percentile format: into a folder, or with a prefix
    #[arg(long, value_name = "DIR or PREFIX")]
    hgrm: Option<PathBuf>,
    /// Write one self-contained page with tables and plots
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// End with code 3 when a median is so: 'p99_ms>5', 'uws.capacity_per_s<100000' (> >= < <=)
    ///
    /// The figures of tickfan are meant where no peer is named. Units are converted: `p99_us`
    /// answers `p99_ms`. May be given several times.
    #[arg(long = "fail-if", value_name = "CONDITION")]
    fail_if: Vec<Condition>,
}

impl ReportOptions {
    /// Finds out before hours of measurement whether the report could be written and judged.
    /// `figures` are those that the scenario has.
    ///
    /// # Errors
    /// When a condition names none of them, or a folder is missing. `exit` of the error ends the
    /// process as for any wrong command line.
    pub(crate) fn check(&self, figures: &[&str]) -> Result<(), clap::Error> {
        let wrong = |what: String| clap::Error::raw(ErrorKind::InvalidValue, what + "\n");
        for condition in &self.fail_if {
            if !figures.iter().any(|figure| condition.is_answered_by(figure)) {
                let (figure, known) = (condition.figure(), figures.join(" "));
                return Err(wrong(format!("--fail-if: there is no figure {figure}, only {known}")));
            }
        }
        let mut files = [&self.json, &self.html].into_iter().flatten();
        if let Some(path) = files.find(|path| path.is_dir()) {
            return Err(wrong(format!("cannot write {}: it is a folder", path.display())));
        }
        for path in [&self.json, &self.html, &self.hgrm].into_iter().flatten() {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
                let (path, folder) = (path.display(), folder.display());
                return Err(wrong(format!("cannot write {path}: there is no folder {folder}")));
            }
        }
        Ok(())
    }

    /// Shows the report, writes it wherever it was asked for, and judges it.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn finish(&self, report: &Report) -> Result<ExitCode> {
        print!("{}", text::summary(report));
        if let Some(path) = &self.json {
            json::write(report, path)?;
        }
        if let Some(prefix) = &self.hgrm {
            hgrm::write(report, prefix)?;
        }
        if let Some(path) = &self.html {
            html::write(report, path)?;
        }
        let mut code = ExitCode::SUCCESS;
        for condition in &self.fail_if {
            match condition.judge(&report.runs) {
                Ok(held) => {
                    for what in held {
                        eprintln!("--fail-if {condition}: {what}");
                        code = ExitCode::from(EXIT_FAILED);
                    }
                }
                Err(Unknown(what)) => {
                    eprintln!("--fail-if {condition}: {what}");
                    return Ok(ExitCode::from(EXIT_UNKNOWN));
                }
            }
        }
        Ok(code)
    }
}

/// Show a report that was written with `--json` again, as text, histograms or a page.
///
/// A file of `--resume` is read as well, so that a set can be looked at before it is complete.
#[derive(Args)]
pub(crate) struct Render {
    /// What `--json` or `--resume` wrote
    file: PathBuf,
    #[command(flatten)]
    options: ReportOptions,
}

impl Render {
    /// Runs it.
    ///
    /// # Errors
    /// When the file is no report, or another cannot be written.
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let report = json::read(&self.file)?;
        self.options.check(&report.figures()).unwrap_or_else(|error| error.exit());
        self.options.finish(&report)
    }
}

#[cfg(test)]
mod tests;
