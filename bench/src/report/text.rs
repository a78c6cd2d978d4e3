//! A report → what people read on a terminal.

use std::fmt::Write as _;

use super::goals::{self, Outcome, ROUNDS_MIN};
use super::summary::{Case, Spread, cases};
use super::{Report, number, title};

/// The tables of figures and goals, and a line for each remark.
pub(super) fn summary(report: &Report) -> String {
    let mut text = format!("{}\n{}\n{}\n", report.command, report.started, report.machine);
    for case in cases(&report.runs) {
        text += "\n";
        figures(&mut text, &case);
    }
    let (own, others) = goals::of_report(&report.runs);
    if !own.is_empty() {
        goal_table(&mut text, &own);
    }
    if others > 0 {
        let _ = writeln!(text, "\n{others} goals belong to scenarios that are not in this report");
    }
    let warnings = warnings(report, &own);
    if !warnings.is_empty() {
        text += "\n";
    }
    for warning in warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    text
}

/// What a reader must know before believing a figure.
pub(super) fn warnings(report: &Report, goals: &[Outcome]) -> Vec<String> {
    let mut warnings: Vec<String> = report
        .runs
        .iter()
        .flat_map(|run| {
            let title = title(&run.scenario, &run.parameters);
            let about =
                move |remark| format!("{title}, {}, round {}: {remark}", run.peer, run.round);
            run.remarks.iter().map(about)
        })
        .collect();
    let few = goals.iter().filter(|goal| goal.ratio.is_some() && goal.rounds < ROUNDS_MIN).count();
    if few > 0 {
        warnings.push(format!(
            "{few} of the ratios are of fewer than {ROUNDS_MIN} rounds: they indicate, and prove nothing"
        ));
    }
    warnings
}

/// The median, and the spread where the rounds differ.
pub(super) fn spread(spread: &Spread) -> String {
    let median = number::text(spread.median);
    if spread.min == spread.max {
        return median;
    }
    format!("{median} ({}–{})", number::text(spread.min), number::text(spread.max))
}

fn figures(text: &mut String, case: &Case<'_>) {
    let peers = case.peers();
    let header = std::iter::once(String::new()).chain(peers.iter().cloned()).collect();
    let mut rows = vec![header];
    for figure in case.figures() {
        let cell = |peer: &String| {
            case.spread(peer, figure).map_or_else(|| "–".to_owned(), |found| spread(&found))
        };
        rows.push(std::iter::once(figure.to_owned()).chain(peers.iter().map(cell)).collect());
    }
    let _ = writeln!(text, "{}", case.title());
    table(text, &rows);
}

fn goal_table(text: &mut String, goals: &[Outcome]) {
    let header = ["", "figure", "anchor", "ratio", "at least", "aim", "verdict"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    let show = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), number::text);
    for goal in goals {
        rows.push(vec![
            goal.what.to_owned(),
            show(goal.figure),
            show(goal.anchor),
            show(goal.ratio),
            goal.bound(goal.at_least),
            goal.bound(goal.aim),
            goal.verdict.name().to_owned(),
        ]);
    }
    text.push_str("\ngoals (medians)\n");
    table(text, &rows);
}

/// Columns as wide as their widest cell; the first to the left, the others to the right.
pub(super) fn table(text: &mut String, rows: &[Vec<String>]) {
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = width(column).unwrap_or(0);
            let _ = if column == 0 {
                write!(line, "  {cell:<width$}")
            } else {
                write!(line, "  {cell:>width$}")
            };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
}
