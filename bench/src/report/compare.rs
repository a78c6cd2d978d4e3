//! `bench compare a.json b.json`: two reports → by how much each median differs, and whether that is
//! more than the rounds of one report differ among themselves.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::summary::{Spread, cases};
use super::{Report, json, number, text};

/// Compare two reports that were written with `--json`.
///
/// Only what both have is compared. A difference is beyond the spread when the two ranges of rounds
/// have nothing in common.
#[derive(Args)]
pub(crate) struct Compare {
    /// The report that is 1
    a: PathBuf,
    /// The report that is held against it
    b: PathBuf,
}

impl Compare {
    /// Shows the differences.
    ///
    /// # Errors
    /// When a file is no report.
    pub(crate) fn run(&self) -> Result<()> {
        print!("{}", compare(&json::read(&self.a)?, &json::read(&self.b)?));
        Ok(())
    }
}

/// What can be said about two figures.
fn judgement(a: &Spread, b: &Spread) -> &'static str {
    if a.rounds < 2 || b.rounds < 2 {
        "one round, spread unknown"
    } else if a.max < b.min || b.max < a.min {
        "beyond the spread"
    } else {
        "within the spread"
    }
}

/// The two reports, figure by figure.
fn compare(a: &Report, b: &Report) -> String {
    let mut text = String::new();
    for (name, report) in [("a", a), ("b", b)] {
        text +=
            &format!("{name}: {}\n   {}\n   {}\n", report.command, report.started, report.machine);
    }
    if a.machine.cpu != b.machine.cpu || a.machine.cores != b.machine.cores {
        text += "warning: the machines differ; only ratios within one report can be compared\n";
    }
    let (cases_a, cases_b) = (cases(&a.runs), cases(&b.runs));
    let mut missing = Vec::new();
    for case in &cases_a {
        let other =
            cases_b.iter().find(|b| b.scenario == case.scenario && b.parameters == case.parameters);
        for peer in case.peers() {
            let title = format!("{}, {peer}", case.title());
            let Some(other) = other.filter(|other| other.peers().contains(&peer)) else {
                missing.push(format!("only in a: {title}\n"));
                continue;
            };
            let header = ["", "a", "b", "b / a", ""];
            let mut rows = vec![header.map(str::to_owned).to_vec()];
            for figure in case.figures() {
                let both = case.spread(&peer, figure).zip(other.spread(&peer, figure));
                let Some((was, is)) = both else { continue };
                rows.push(vec![
                    figure.to_owned(),
                    text::spread(&was),
                    text::spread(&is),
                    number::text(is.median / was.median),
                    judgement(&was, &is).to_owned(),
                ]);
            }
            text += &format!("\n{title}\n");
            text::table(&mut text, &rows);
        }
    }
    for case in &cases_b {
        let other =
            cases_a.iter().find(|a| a.scenario == case.scenario && a.parameters == case.parameters);
        for peer in case.peers() {
            if !other.is_some_and(|other| other.peers().contains(&peer)) {
                missing.push(format!("only in b: {}, {peer}\n", case.title()));
            }
        }
    }
    if !missing.is_empty() {
        text += "\n";
        text.extend(missing);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::{report, run};
    use super::*;

    #[test]
    fn a_difference_is_told_from_the_spread() {
        let of = |values: &[f64]| {
            let rounds = values.iter().zip(1..);
            report(rounds.map(|(value, round)| run("uws", round, &[("p99_us", *value)])).collect())
        };
        let last_line = |a: &[f64], b: &[f64]| {
            let text = compare(&of(a), &of(b));
            text.lines().last().unwrap().trim().to_owned()
        };
        assert_eq!(
            last_line(&[100.0, 110.0, 120.0], &[200.0, 220.0, 240.0]),
            "p99_us  110 (100–120)  220 (200–240)      2  beyond the spread"
        );
        assert_eq!(
            last_line(&[100.0, 110.0, 120.0], &[115.0, 121.0, 240.0]),
            "p99_us  110 (100–120)  121 (115–240)  1.100  within the spread"
        );
        assert_eq!(
            last_line(&[100.0], &[200.0]),
            "p99_us  100  200      2  one round, spread unknown"
        );
    }

    #[test]
    fn what_only_one_has_is_named() {
        let a = report(vec![run("uws", 1, &[("p99_us", 1.0)])]);
        let b = report(vec![run("tickfan", 1, &[("p99_us", 1.0)])]);
        let text = compare(&a, &b);
        assert!(text.contains("only in a: fixed budget_ms=20, uws\n"), "{text}");
        assert!(text.contains("only in b: fixed budget_ms=20, tickfan\n"), "{text}");
    }
}
