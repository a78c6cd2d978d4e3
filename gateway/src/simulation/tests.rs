//! The seeds under every `cargo test`, and the planted bugs that they must catch.

use tickfan_core::view::BUDGETS_MS;

use super::checker::Violation;
use super::isolation::run_both;
use super::{Failure, Kind, Report, run};
use crate::mutant::{self, Mutant};

/// Seeds under every `cargo test`.
const SEEDS: u64 = 500;

/// Seeds of which two worlds are compared.
const ISOLATED_SEEDS: u64 = 25;

/// Seeds within which every planted bug must be found.
const MUTANT_SEEDS: u64 = 50;

/// A number that the environment gives.
fn given(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// `TICKFAN_SEED=77` runs that seed alone, `TICKFAN_SEEDS=5000` so many.
#[test]
fn every_frame_is_right_at_every_seed() {
    let seeds = match given("TICKFAN_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..given("TICKFAN_SEEDS").unwrap_or(SEEDS),
    };
    let all = &seeds;
    let halves = std::thread::scope(|scope| {
        let halves = [0, 1].map(|half| {
            scope.spawn(move || {
                let own = all.clone().skip(half).step_by(2);
                own.map(|seed| run(seed, Kind::Wild)).collect::<Vec<_>>()
            })
        });
        halves.map(|half| half.join().expect("a world panicked"))
    });
    let mut sum = Report::default();
    let mut failures: Vec<Failure> = Vec::new();
    for result in halves.into_iter().flatten() {
        match result {
            Ok(report) => {
                sum.counts.add(&report.counts);
                sum.messages += report.messages;
                sum.resyncs += report.resyncs;
                sum.connections += report.connections;
                sum.unseen += report.unseen;
            }
            Err(failure) => failures.push(failure),
        }
    }
    failures.sort_by_key(|failure| failure.seed);
    for Failure { seed, violation: Violation { invariant, what }, .. } in &failures {
        println!("seed {seed}: {invariant}: {what:.200}");
    }
    if let Some(first) = failures.first() {
        panic!("{} seeds of {seeds:?} fail; the first:\n{first:?}", failures.len());
    }
    println!("seeds {seeds:?}: {sum:?}");
    if given("TICKFAN_SEED").is_none() && given("TICKFAN_SEEDS").is_none() {
        covers_everything(&sum);
    }
}

/// The seeds are worth nothing where nothing happens.
fn covers_everything(sum: &Report) {
    let counts = &sum.counts;
    for (ms, [updates, late]) in BUDGETS_MS.iter().zip(counts.by_class) {
        assert!(updates > 1_000, "{updates} updates at {ms} ms");
        assert_eq!(late > 0, *ms > 0, "{late} late updates at {ms} ms");
    }
    assert!(counts.late_gateway > 500 && counts.late_client > 500, "{counts:?}");
    assert!(counts.undecided * 16 < counts.updates, "only the gateway can judge: {counts:?}");
    assert!(counts.paced > 10_000 && counts.trades_lost > 0, "{counts:?}");
}

#[test]
fn fast_readers_of_a_whole_market_are_never_late() {
    for seed in 0..20 {
        let report = run(seed, Kind::Ideal).unwrap_or_else(|failure| panic!("\n{failure:?}"));
        assert_eq!(report.counts.late, 0, "seed {seed}");
        assert_eq!(report.counts.trades_lost, 0, "seed {seed}");
        assert!(report.counts.deltas > 0, "seed {seed}");
    }
}

#[test]
fn one_seed_gives_the_same_bytes_twice() {
    for seed in 0..5 {
        let digests = [(); 2].map(|()| run(seed, Kind::Wild).map(|report| report.digest).ok());
        assert_eq!(digests[0], digests[1], "seed {seed}");
    }
}

#[test]
fn a_fault_of_one_symbol_changes_nothing_of_another() {
    let mut compared = 0;
    for seed in 0..ISOLATED_SEEDS {
        compared += run_both(seed).unwrap_or_else(|failure| panic!("\n{failure:?}"));
    }
    assert!(compared > 1_000, "{compared} messages are too few");
}

/// Runs seeds until one finds the planted bug.
fn is_caught(mutant: Mutant) {
    is_caught_by(mutant, |seed| run(seed, Kind::Wild).err());
}

/// Returns the invariant that found it.
fn is_caught_by(mutant: Mutant, find: impl Fn(u64) -> Option<Failure>) -> &'static str {
    mutant::plant(Some(mutant));
    let caught = (0..MUTANT_SEEDS).find_map(find);
    mutant::plant(None);
    let Some(failure) = caught else { panic!("{mutant:?} is not caught by {MUTANT_SEEDS} seeds") };
    let Violation { invariant, what } = failure.violation;
    println!("{mutant:?} is caught at seed {} by {invariant}: {what:.200}", failure.seed);
    invariant
}

#[test]
fn a_missing_gap_check_is_caught() {
    is_caught(Mutant::NoGapCheck);
}

#[test]
fn a_publication_before_the_end_of_an_event_is_caught() {
    is_caught(Mutant::PublishBeforeEventEnd);
}

#[test]
fn a_skipped_body_is_caught() {
    is_caught(Mutant::SkipBody);
}

#[test]
fn an_image_of_an_older_turn_is_caught() {
    is_caught(Mutant::OldImage);
}

#[test]
fn lateness_since_the_newest_change_is_caught() {
    is_caught(Mutant::BudgetFromNewest);
}

#[test]
fn a_seat_that_is_not_paced_is_caught() {
    is_caught(Mutant::UnpacedSeat);
}

#[test]
fn a_lost_trade_that_is_not_counted_is_caught() {
    is_caught(Mutant::UncountedLoss);
}

#[test]
fn one_merged_event_too_many_is_caught() {
    is_caught(Mutant::MergedOffByOne);
}

#[test]
fn a_blocked_connection_that_keeps_too_much_is_caught() {
    is_caught(Mutant::BlockedKeepsAll);
}

#[test]
fn a_fault_that_marks_another_instrument_is_caught() {
    let find = |seed| run_both(seed).err();
    assert_eq!(is_caught_by(Mutant::LeakyFault, find), "I7");
}
