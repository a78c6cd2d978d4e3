//! How many venue messages one feed thread can take in: decoded, applied to the book, published.
//!
//! Drives the feed with a recording of every venue on one thread and without a socket, in stages, so
//! that their differences tell where the time goes, and a naive program beside it:
//!
//! * `decode`: bytes to market events;
//! * `apply`: and to a book, published once at the end;
//! * `publish in full batches`: and published every 256 messages, as in a flood;
//! * `publish as recorded`: and published whenever 200 µs of recorded time have passed, which is
//!   after nearly every message, as on a quiet day;
//! * `naive`: the same by `serde_json::Value` and `BTreeMap`, for readers after every message.
//!
//! Run by `cargo bench -p bench --bench ingest`; `-- kraken` measures the recordings whose names have
//! that in them. Without recordings it says so and measures nothing.

#[path = "../src/scenario/ingest/naive.rs"]
#[allow(dead_code, reason = "a test of the scenario looks into its books")]
mod naive;
#[path = "../src/scenario/ingest/recorded.rs"]
#[allow(dead_code, reason = "the scenario measures more of it")]
mod recorded;

use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use naive::Naive;
use recorded::{Input, Ours, RECORDINGS, Recorded};

const BATCH: usize = 256;

/// Takes everything in; publishes when `ends_batch` says so, and at the end.
fn ingest(ours: &mut Ours, inputs: &mut [Input], ends_batch: fn(&Ours, usize) -> bool) {
    for (index, input) in inputs.iter_mut().enumerate() {
        ours.take(input);
        if ends_batch(ours, index) {
            ours.publish();
        }
    }
    ours.publish();
}

/// A stage, and when it ends a batch.
type Stage = (&'static str, fn(&Ours, usize) -> bool);

const STAGES: [Stage; 3] = [
    ("apply", |_, _| false),
    ("publish in full batches", |_, index| index % BATCH == BATCH - 1),
    ("publish as recorded", |ours, _| ours.is_batch_full()),
];

fn venues(criterion: &mut Criterion) {
    for name in RECORDINGS {
        match Recorded::open(name) {
            Ok(Some(recorded)) => measure(criterion, name, &recorded),
            Ok(None) => eprintln!("skipped: no recording {name}; set TICKFAN_RECORDINGS"),
            Err(error) => eprintln!("skipped: {error:#}"),
        }
    }
}

fn measure(criterion: &mut Criterion, name: &str, recorded: &Recorded) {
    let inputs = &recorded.inputs;
    let mut group = criterion.benchmark_group(format!("ingest/{name}"));
    group.throughput(Throughput::Elements(inputs.len() as u64));
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    group.bench_function("decode", |bencher| {
        bencher.iter_batched_ref(
            || inputs.clone(),
            |inputs| recorded.decode(inputs),
            BatchSize::PerIteration,
        );
    });
    for (stage, ends_batch) in STAGES {
        group.bench_function(stage, |bencher| {
            bencher.iter_batched_ref(
                || (recorded.ours(), inputs.clone()),
                |(ours, inputs)| ingest(ours, inputs, ends_batch),
                BatchSize::PerIteration,
            );
        });
    }
    group.bench_function("naive", |bencher| {
        bencher.iter_batched_ref(
            || Naive::new(recorded),
            |naive| inputs.iter().for_each(|input| naive.take(input)),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, venues);
criterion_main!(benches);
