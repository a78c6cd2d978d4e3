//! Histograms → text files in HdrHistogram's percentile format, which its plotter reads.
//!
//! Values are microseconds. Every run has a file of its own for each of its histograms.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

use super::{Report, Run, title};

/// Steps for each halving of what is left up to 100 %, as HdrHistogram has it by default.
const TICKS_PER_HALF: u32 = 5;

const NS_PER_US: f64 = 1_000.0;

/// Writes a file for each histogram of each run, into a folder or with a prefix.
///
/// # Errors
/// When a file cannot be written.
pub(super) fn write(report: &Report, prefix: &Path) -> Result<()> {
    if is_folder(prefix) {
        let wrong = || format!("cannot make the folder {}", prefix.display());
        fs::create_dir_all(prefix).with_context(wrong)?;
    }
    for run in &report.runs {
        for (name, histogram) in &run.histograms {
            let path = path(prefix, run, name);
            let text = text(histogram);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}

/// Whether a prefix is a folder, or names one that is to be made.
fn is_folder(prefix: &Path) -> bool {
    prefix.is_dir() || prefix.as_os_str().as_encoded_bytes().ends_with(b"/")
}

/// `fixed-budget_ms=20-tickfan-round1-received.hgrm`, without what a file name may not have.
fn path(prefix: &Path, run: &Run, histogram: &str) -> PathBuf {
    let title = title(&run.scenario, &run.parameters);
    let name = format!("{title} {} round{} {histogram}.hgrm", run.peer, run.round);
    let name = name.replace(|c: char| !(c.is_ascii_alphanumeric() || "_.=-".contains(c)), "-");
    if is_folder(prefix) {
        return prefix.join(name);
    }
    let mut path = prefix.as_os_str().to_owned();
    path.push("-");
    path.push(name);
    path.into()
}

/// The percentile distribution.
fn text(histogram: &Histogram<u64>) -> String {
    let digits = usize::from(histogram.sigfig());
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut count = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF) {
        count += step.count_since_last_iteration();
        let value = step.value_iterated_to() as f64 / NS_PER_US;
        let quantile = step.quantile_iterated_to();
        let _ = write!(text, "{value:>12.digits$} {quantile:>2.12} {count:>10}");
        // The last line has no share above it.
        let _ = if quantile < 1.0 {
            writeln!(text, " {:>14.2}", 1.0 / (1.0 - quantile))
        } else {
            writeln!(text)
        };
    }
    let (mean, deviation) = (histogram.mean() / NS_PER_US, histogram.stdev() / NS_PER_US);
    let max = histogram.max() as f64 / NS_PER_US;
    let (total, buckets) = (histogram.len(), histogram.buckets());
    // A power of two that tells twice as many values apart as the digits ask for.
    let sub_buckets = (2 * 10_u64.pow(u32::from(histogram.sigfig()))).next_power_of_two();
    let _ = write!(
        text,
        "#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]\n\
         #[Max     = {max:>12.3}, Total count    = {total:>12}]\n\
         #[Buckets = {buckets:>12}, SubBuckets     = {sub_buckets:>12}]\n"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_that_of_hdrhistogram() {
        let mut histogram = Histogram::new_with_bounds(1, 1_000_000, 3).unwrap();
        for value in [1_000, 1_000, 2_000, 4_000] {
            histogram.record(value).unwrap();
        }
        let text = text(&histogram);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "       Value     Percentile TotalCount 1/(1-Percentile)");
        assert_eq!(lines[1], "");
        assert_eq!(lines[2], "       1.000 0.000000000000          2           1.00");
        assert!(lines.contains(&"       4.001 1.000000000000          4"), "{text}");
        assert!(
            text.ends_with(
                "#[Mean    =        2.000, StdDeviation   =        1.225]\n\
             #[Max     =        4.001, Total count    =            4]\n\
             #[Buckets =           10, SubBuckets     =         2048]\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn a_name_has_nothing_that_a_file_may_not_have() {
        let run = Run {
            scenario: "../a b".to_owned(),
            peer: "uws".to_owned(),
            round: 2,
            parameters: [("mode".to_owned(), "x/y".to_owned())].into(),
            figures: Default::default(),
            histograms: Default::default(),
            remarks: Vec::new(),
        };
        let path = path(Path::new("out/run"), &run, "received");
        assert_eq!(path, Path::new("out/run-..-a-b-mode=x-y-uws-round2-received.hgrm"));
        let path = super::path(Path::new("new folder/"), &run, "received");
        assert_eq!(path, Path::new("new folder/..-a-b-mode=x-y-uws-round2-received.hgrm"));
    }
}
