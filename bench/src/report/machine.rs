//! Where a report was measured: processor, kernel, memory, load, compiler, commit.
//!
//! Read once, at the start. All of it is best effort: what cannot be found out is left empty.

use std::fmt;
use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// A machine, and what ran on it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) memory_mib: u64,
    /// Of the minute before the start: what else ran.
    pub(crate) load_before: f64,
    pub(crate) rustc: String,
    pub(crate) commit: String,
}

impl Machine {
    /// This one, now.
    pub(crate) fn here() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self {
            cpu: after(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            memory_mib: after(&read("/proc/meminfo"), "MemTotal")
                .trim_end_matches(" kB")
                .parse::<u64>()
                .map_or(0, |kib| kib / 1_024),
            load_before: first_number(&read("/proc/loadavg")),
            rustc: output("rustc", &["--version"]).unwrap_or_default(),
            commit: commit(),
        }
    }
}

/// The value behind `name :` of the first such line.
fn after(text: &str, name: &str) -> String {
    let values = text.lines().filter_map(|line| line.split_once(':'));
    let mut values = values.filter(|(key, _)| key.trim() == name);
    values.next().map_or_else(String::new, |(_, value)| value.trim().to_owned())
}

fn first_number(text: &str) -> f64 {
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// The commit given when the bench was built, or that of the sources now, with `+` if they have
/// changes.
fn commit() -> String {
    if let Some(commit) = option_env!("TICKFAN_COMMIT") {
        return commit.to_owned();
    }
    let folder = env!("CARGO_MANIFEST_DIR");
    let git = |arguments: &[&str]| output("git", &[&["-C", folder], arguments].concat());
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return String::new() };
    let has_changes = git(&["status", "--porcelain", "--untracked-files=no"])
        .is_some_and(|changes| !changes.is_empty());
    commit + if has_changes { "+" } else { "" }
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = |text: &str| if text.is_empty() { "unknown" } else { text }.to_owned();
        write!(
            f,
            "{}, {} cores, {:.1} GiB, Linux {}; load before {}; {}; commit {}",
            known(&self.cpu),
            self.cores,
            self.memory_mib as f64 / 1_024.0,
            known(&self.kernel),
            self.load_before,
            known(&self.rustc),
            known(&self.commit),
        )
    }
}
