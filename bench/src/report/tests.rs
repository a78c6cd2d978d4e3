//! Reports of a few made-up runs, as every form shows them.

use super::goals::{Verdict, outcomes};
use super::store::Store;
use super::*;

pub(super) fn run(peer: &str, round: u32, figures: &[(&str, f64)]) -> Run {
    let figures = figures.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    Run {
        scenario: "fixed".to_owned(),
        peer: peer.to_owned(),
        round,
        parameters: [("budget_ms".to_owned(), "20".to_owned())].into(),
        figures,
        histograms: BTreeMap::new(),
        remarks: Vec::new(),
    }
}

pub(super) fn report(runs: Vec<Run>) -> Report {
    Report {
        machine: Machine { cpu: "a processor".to_owned(), cores: 2, ..Machine::default() },
        command: "bench fixed".to_owned(),
        started: "2026-01-01T00:00:00Z".to_owned(),
        runs,
        goals: Vec::new(),
    }
}

fn with_histogram(mut run: Run) -> Run {
    let mut histogram = Histogram::new(3).unwrap();
    for value in [0, 1, 999, 1_000_000, 123_456_789_012] {
        histogram.record_n(value, 3).unwrap();
    }
    run.histograms.insert("received".to_owned(), histogram);
    run
}

#[test]
fn a_summary_reads_like_this() {
    let mut uws = run("uws", 1, &[("server_cpu_cores", 0.5), ("p99_us", 9_000.0)]);
    uws.remarks.push("the load generator was the limit".to_owned());
    let runs = vec![
        run("tickfan", 1, &[("server_cpu_cores", 0.2), ("max_us", 9.5), ("p99_us", 1_234.5)]),
        uws,
        run("tickfan", 2, &[("server_cpu_cores", 0.3), ("max_us", 8.5), ("p99_us", 1_300.0)]),
    ];
    let mut report = report(runs);
    for run in report.runs.iter_mut().filter(|run| run.peer == "tickfan") {
        run.parameters.insert("encoding".to_owned(), "json".to_owned());
    }
    let mut binary = run("tickfan", 1, &[("p99_us", 1_000.0), ("server_cpu_cores", 0.1)]);
    binary.parameters.insert("encoding".to_owned(), "binary".to_owned());
    report.runs.push(binary);
    let expected = "\
bench fixed
2026-01-01T00:00:00Z
a processor, 2 cores, 0.0 GiB, Linux unknown; load before 0; unknown; commit unknown

fixed budget_ms=20
                                tickfan    uws  tickfan binary
  server_cpu_cores  0.250 (0.200–0.300)  0.500           0.100
  p99_us            1,267 (1,234–1,300)  9,000           1,000
  max_us                9 (8.500–9.500)      –               –

goals (medians)
                                                                       figure  anchor  ratio  at least     aim   verdict
  server CPU at 1,000,000 deliveries/s, budget 20 ms, of uWebSockets'   0.250   0.500  0.500     ≤ 0.6  ≤ 0.45  at least

13 goals belong to scenarios that are not in this report

warning: fixed budget_ms=20, uws, round 1: the load generator was the limit
warning: 1 of the ratios are of fewer than 3 rounds: they indicate, and prove nothing
";
    assert_eq!(text::summary(&report), expected);
}

#[test]
fn a_verdict_is_of_the_medians() {
    let goal = |better, at_least, aim| Goal {
        what: "",
        term: Term { scenario: "fixed", peer: "tickfan", parameters: &[], figure: "x" },
        anchor: Some(Term { scenario: "fixed", peer: "uws", parameters: &[], figure: "x" }),
        better,
        at_least,
        aim,
    };
    let runs = |tickfan: f64, uws: f64| {
        let mut runs = Vec::new();
        for (round, off) in [(1, 0.0), (2, 100.0), (3, -100.0)] {
            runs.push(run("tickfan", round, &[("x", tickfan + off)]));
            runs.push(run("uws", round, &[("x", uws - off)]));
        }
        runs
    };
    let verdict = |goal: &Goal, runs: &[Run]| outcomes(std::slice::from_ref(goal), runs)[0].verdict;
    let less = goal(Better::Less, 0.6, 0.45);
    assert_eq!(verdict(&less, &runs(450.0, 1_000.0)), Verdict::Aim);
    assert_eq!(verdict(&less, &runs(600.0, 1_000.0)), Verdict::AtLeast);
    assert_eq!(verdict(&less, &runs(601.0, 1_000.0)), Verdict::Missed);
    let more = goal(Better::More, 4.0, 6.0);
    assert_eq!(verdict(&more, &runs(6_000.0, 1_000.0)), Verdict::Aim);
    assert_eq!(verdict(&more, &runs(4_000.0, 1_000.0)), Verdict::AtLeast);
    assert_eq!(verdict(&more, &runs(3_999.0, 1_000.0)), Verdict::Missed);
    // An anchor of nothing proves nothing, nor does the absence of one.
    assert_eq!(verdict(&more, &runs(4_000.0, 0.0)), Verdict::NotMeasured);
    assert_eq!(verdict(&more, &runs(4_000.0, 1.0)[..1]), Verdict::NotMeasured);
    let mut ambiguous = runs(4_000.0, 1_000.0);
    ambiguous[0].parameters.insert("budget_ms".to_owned(), "50".to_owned());
    assert_eq!(verdict(&more, &ambiguous), Verdict::Ambiguous);
}

#[test]
fn a_report_survives_its_file_and_names_its_goals() {
    let folder = Folder::new("json");
    let path = folder.file("run.json");
    let mut written =
        report(vec![with_histogram(run("tickfan", 1, &[("x_us", 1.5), ("nothing_us", f64::NAN)]))]);
    json::write(&written, &path).unwrap();
    let text: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(text["goals"].as_array().unwrap().len(), goals::GOALS.len());
    assert_eq!(text["goals"][0]["verdict"], "not-measured");
    // What is no number is not written, as there is no word for it.
    written.runs[0].figures.remove("nothing_us");
    assert_eq!(json::read(&path).unwrap(), written);
    std::fs::write(&path, "{}").unwrap();
    let error = format!("{:#}", json::read(&path).unwrap_err());
    assert!(error.contains("is no report of the bench"), "{error}");
}

#[test]
fn conditions_are_read_and_judged() {
    let runs = [
        run("tickfan", 1, &[("p99_us", 4_900.0), ("sends_per_s", 5.0), ("rss_mib", 2.0)]),
        run("tickfan", 2, &[("p99_us", 5_100.0)]),
        run("tickfan", 3, &[("p99_us", 5_001.0)]),
        run("uws", 1, &[("p99_us", 9_000.0)]),
    ];
    let holds = |text: &str| {
        let condition: Condition = text.parse().unwrap();
        assert_eq!(condition.to_string(), text.replace(' ', ""));
        condition.judge(&runs).map(|held| !held.is_empty())
    };
    for text in ["p99_ms>5", "p99_us >= 5001", "p99_s<0.006", "uws.p99_ms>=9", "rss_kib<=2048"] {
        assert_eq!(holds(text), Ok(true), "{text}");
    }
    for text in ["p99_ms>5.001", "p99_us<5001", "uws.p99_ms>9", "sends_per_s>5"] {
        assert_eq!(holds(text), Ok(false), "{text}");
    }
    let condition: Condition = "p99_ms>5".parse().unwrap();
    assert_eq!(condition.judge(&runs).unwrap(), ["fixed budget_ms=20: p99_ms of tickfan is 5.001"]);
    // A rate is not converted, and who was not measured has no figure.
    for text in ["sends_per_ms>1", "p98_us>1", "naive.p99_us>1"] {
        assert!(holds(text).is_err(), "{text}");
    }
    for text in ["p99_ms", "p99_ms>", ">5", "p99_ms=5", "p99_ms>5ms", "p99_ms>>5", "x>NaN"] {
        assert!(text.parse::<Condition>().is_err(), "{text}");
    }
}

#[test]
fn a_condition_or_folder_that_is_wrong_is_known_before_the_run() {
    let options =
        ReportOptions { fail_if: vec!["p99_ms>5".parse().unwrap()], ..ReportOptions::default() };
    assert!(options.check(&["p50_us", "p99_us"]).is_ok());
    let error = options.check(&["p50_us"]).unwrap_err();
    assert_eq!(error.exit_code(), i32::from(EXIT_UNKNOWN));
    let options = ReportOptions {
        html: Some(PathBuf::from("no such folder/report.html")),
        ..ReportOptions::default()
    };
    assert!(options.check(&[]).is_err());
    let options = ReportOptions { json: Some(std::env::temp_dir()), ..ReportOptions::default() };
    assert!(options.check(&[]).is_err());
}

#[test]
fn a_set_goes_on_where_it_was_cut_short() {
    let folder = Folder::new("resume");
    let path = folder.file("set.jsonl");
    let compared = ["tickfan", "uws"].map(|peer| steps::Step {
        key: run(peer, 0, &[]).key(),
        about: std::time::Duration::from_secs(1),
    });
    let all = steps::alternate(&compared, 2);
    let order: Vec<_> = all.iter().map(|step| (step.key.peer.as_str(), step.key.round)).collect();
    assert_eq!(order, [("tickfan", 1), ("uws", 1), ("tickfan", 2), ("uws", 2)]);

    // The third fails; in the middle of writing it, so to speak.
    let mut store = Store::open(Some(&path)).unwrap();
    let mut done = 0;
    let failed = steps::run_all(&all, &mut store, |step| {
        done += 1;
        anyhow::ensure!(done < 3, "the peer died");
        Ok(with_histogram(run(&step.key.peer, step.key.round, &[("x_us", 1.0)])))
    });
    assert_eq!(
        format!("{:#}", failed.unwrap_err()),
        "run fixed budget_ms=20, tickfan, round 2: the peer died"
    );
    drop(store);
    let mut text = std::fs::read(&path).unwrap();
    text.extend_from_slice(br#"{"scenario":"fixed","peer":"tickfan","rou"#);
    std::fs::write(&path, &text).unwrap();
    // An unfinished set can be looked at.
    assert_eq!(json::read(&path).unwrap().runs.len(), 2);

    let mut store = Store::open(Some(&path)).unwrap();
    let mut done = Vec::new();
    steps::run_all(&all, &mut store, |step| {
        done.push((step.key.peer.clone(), step.key.round));
        Ok(with_histogram(run(&step.key.peer, step.key.round, &[("x_us", 1.0)])))
    })
    .unwrap();
    assert_eq!(done, [("tickfan".to_owned(), 2), ("uws".to_owned(), 2)]);
    let expected: Vec<Run> = order
        .iter()
        .map(|(peer, round)| with_histogram(run(peer, *round, &[("x_us", 1.0)])))
        .collect();
    assert_eq!(store.into_runs(), expected);
    let again = Store::open(Some(&path)).unwrap();
    assert!(all.iter().all(|step| again.has(&step.key)));
    assert_eq!(again.into_runs(), expected);
}

#[test]
fn a_file_that_is_no_set_is_left_alone() {
    let folder = Folder::new("alien");
    let path = folder.file("notes.txt");
    for (text, why) in
        [("buy milk\n", "line 1 is not a finished run"), ("buy milk", "its last line is no run")]
    {
        std::fs::write(&path, text).unwrap();
        let error = format!("{:#}", Store::open(Some(&path)).unwrap_err());
        assert!(error.contains(why), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), text.as_bytes());
    }
}

#[test]
fn a_run_that_is_another_than_asked_for_is_refused() {
    let step = steps::Step { key: run("uws", 1, &[]).key(), about: Default::default() };
    let mut store = Store::open(None).unwrap();
    let error = steps::run_all(&[step], &mut store, |_| Ok(run("uws", 2, &[]))).unwrap_err();
    assert!(error.to_string().contains("says that it is"), "{error}");
    assert!(store.into_runs().is_empty());
}

#[test]
fn a_report_begins_with_the_machine() {
    let report = Report::begin();
    assert!(report.machine.cores > 0);
    assert_eq!(report.started.len(), "2026-01-01T00:00:00Z".len(), "{}", report.started);
}

/// A folder of this test and process, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("tickfan-bench-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
