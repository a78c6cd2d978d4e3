//! A report ↔ its JSON file; and the file of an unfinished set as a report.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serializer;

use super::goals::{GOALS, outcomes};
use super::machine::Machine;
use super::{Report, store};

/// Writes figures without those that are no numbers, which JSON has no word for.
pub(super) fn finite<S: Serializer>(
    figures: &BTreeMap<String, f64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(figures.iter().filter(|(_, value)| value.is_finite()))
}

/// Writes a report with everything in it.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn write(report: &Report, path: &Path) -> Result<()> {
    let report = Report { goals: outcomes(&GOALS, &report.runs), ..report.clone() };
    let wrong = || format!("cannot write {}", path.display());
    let mut file = BufWriter::new(File::create(path).with_context(wrong)?);
    serde_json::to_writer(&mut file, &report).with_context(wrong)?;
    file.write_all(b"\n").and_then(|()| file.flush()).with_context(wrong)
}

/// Reads a report, or the runs of a set that is not complete.
///
/// # Errors
/// When it is neither.
pub(super) fn read(path: &Path) -> Result<Report> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).or_else(|error| match store::runs(&text) {
        Ok(found) if !found.runs.is_empty() => Ok(Report {
            machine: Machine::default(),
            command: format!("unfinished: {}", path.display()),
            started: String::new(),
            runs: found.runs,
            goals: Vec::new(),
        }),
        _ => Err(error).with_context(|| format!("{} is no report of the bench", path.display())),
    })
}
