//! Finished runs → a file of JSON lines, so that a set of hours can be cut short and resumed.
//!
//! A run that was being written when the process ended is no run: its line is cut off, and it is
//! done again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::{Run, RunKey};

/// How the line of every run begins.
const RUN_BEGINS: &[u8] = b"{\"scenario\":";

/// The finished runs of a set; with a file behind it, or in memory only.
#[derive(Debug)]
pub(crate) struct Store {
    runs: Vec<Run>,
    file: Option<File>,
}

impl Store {
    /// Reads what was finished, if the file exists, and will append to it.
    ///
    /// # Errors
    /// When it cannot be read or written, or a line before the last is no run.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self { runs: Vec::new(), file: None }) };
        let shown = path.display();
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {shown}")),
        };
        let found = runs(&text).with_context(|| format!("cannot resume from {shown}"))?;
        let wrong = || format!("cannot write {shown}");
        let file = OpenOptions::new().create(true).append(true).open(path).with_context(wrong)?;
        file.set_len(found.whole_bytes as u64).with_context(wrong)?;
        Ok(Self { runs: found.runs, file: Some(file) })
    }

    /// Whether this run is finished.
    pub(crate) fn has(&self, key: &RunKey) -> bool {
        self.runs.iter().any(|run| run.key() == *key)
    }

    /// Keeps a finished run; with a file, past the end of this process and machine.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn append(&mut self, run: Run) -> Result<()> {
        if let Some(file) = &mut self.file {
            let mut line = serde_json::to_vec(&run)?;
            line.push(b'\n');
            file.write_all(&line)
                .and_then(|()| file.sync_data())
                .context("cannot keep a finished run in the file of --resume")?;
        }
        self.runs.push(run);
        Ok(())
    }

    /// All finished runs.
    pub(crate) fn into_runs(self) -> Vec<Run> {
        self.runs
    }
}

/// The runs of a file.
pub(super) struct Found {
    pub(super) runs: Vec<Run>,
    /// Where the last whole line ends.
    whole_bytes: usize,
}

/// Reads lines of runs; a last one that does not end is none.
///
/// # Errors
/// When a line that ends is no run, or what does not end is not the beginning of one: then it is
/// somebody else's file, of which nothing may be cut off.
pub(super) fn runs(text: &[u8]) -> Result<Found> {
    let whole_bytes = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let rest = &text[whole_bytes..];
    ensure!(
        rest.starts_with(RUN_BEGINS) || RUN_BEGINS.starts_with(rest),
        "its last line is no run of the bench"
    );
    let lines = text[..whole_bytes].split(|byte| *byte == b'\n');
    let mut runs = Vec::new();
    for (at, line) in lines.enumerate().filter(|(_, line)| !line.is_empty()) {
        let run = serde_json::from_slice(line)
            .with_context(|| format!("line {} is not a finished run of the bench", at + 1))?;
        runs.push(run);
    }
    Ok(Found { runs, whole_bytes })
}
