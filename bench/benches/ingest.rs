//! How many venue messages one feed thread can take in: decoded, applied to the book, published.
//!
//! Drives the feed with the heaviest recording (Binance USD-M, 94,000 messages) on one thread and
//! without a socket, in stages, so that their differences tell where the time goes:
//!
//! * `decode`: bytes to market events;
//! * `apply`: and to a book, published once at the end;
//! * `publish in full batches`: and published every 256 messages, as in a flood;
//! * `publish as recorded`: and published whenever 200 µs of recorded time have passed, which is
//!   after nearly every message, as on a quiet day.
//!
//! Run by `cargo bench -p bench --bench ingest`. Without the recording it says so and measures nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use feed_sim::recording::{Kind, Recording};
use tickfan::feed::{Feed, FeedOptions};
use tickfan::stats::Stats;
use tickfan::venue::{self, Subscription, TradeStream, VenueDecoder};
use tickfan_core::market::{EventBatch, InstrumentId, Nanos, Venue};
use tickfan_core::snapshot::Registry;

const RECORDING: &str = "binance-usdm-btcusdt-20240808";
const SYMBOL: &str = "BTCUSDT";
const VENUE: Venue = Venue::BinanceUsdm;
const BATCH: usize = 256;

fn recording() -> Option<Recording> {
    let folder = std::env::var_os("TICKFAN_RECORDINGS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
        PathBuf::from,
    );
    let path = folder.join(format!("{RECORDING}.tsv.zst"));
    match Recording::open(&path) {
        Ok(recording) => Some(recording),
        Err(error) => {
            eprintln!("skipped: {error:#}; set TICKFAN_RECORDINGS");
            None
        }
    }
}

/// What the feed is given, in order; decoding overwrites it.
#[derive(Clone)]
enum Input {
    Message(Vec<u8>, Nanos),
    Image(Vec<u8>, Nanos),
}

fn inputs(recording: &Recording) -> Vec<Input> {
    let lines = recording.lines.iter();
    lines
        .filter_map(|line| match line.kind {
            Kind::Recv => Some(Input::Message(line.payload.to_vec(), line.recv_ns)),
            Kind::Rest => Some(Input::Image(line.payload.to_vec(), line.recv_ns)),
            Kind::Open | Kind::Send => None,
        })
        .collect()
}

fn decoder() -> Box<dyn VenueDecoder> {
    let instruments = vec![(InstrumentId(0), Arc::from(SYMBOL))];
    let trades = Some(TradeStream::Trade);
    venue::decoder(VENUE, Subscription { instruments, depth: Some(1_000), trades })
}

fn feed() -> Feed {
    let entries = Registry::new(1).register(VENUE, &[Arc::from(SYMBOL)], 1, 1);
    let instruments = entries.unwrap_or_default().into_iter().map(|entry| (entry, None)).collect();
    let mut feed = Feed::new(FeedOptions {
        venue: VENUE,
        instruments,
        depth: Some(1_000),
        trades: Some(TradeStream::Trade),
        marks: Vec::new(),
        stats: Stats::default().feed(VENUE),
        seed: 1,
    });
    feed.on_connected(1);
    feed
}

fn decode(decoder: &mut dyn VenueDecoder, inputs: &mut [Input]) -> usize {
    let mut batch = EventBatch::default();
    let mut events = 0;
    for input in inputs {
        if let Input::Message(message, _) = input {
            batch.clear();
            if decoder.decode(message, &mut batch).is_ok() {
                events += batch.events.len();
            }
        }
    }
    events
}

/// Takes everything in; publishes when `ends_batch` says so, and at the end.
fn ingest(feed: &mut Feed, inputs: &mut [Input], ends_batch: impl Fn(&Feed, usize, Nanos) -> bool) {
    let mut last_ns = 0;
    for (index, input) in inputs.iter_mut().enumerate() {
        match input {
            Input::Message(message, now) => {
                feed.on_message(message, *now);
                last_ns = *now;
            }
            Input::Image(body, now) => {
                let mut image = EventBatch::default();
                let read = (feed.decoder().image_decoder())(InstrumentId(0), body, &mut image);
                // The feed has asked for it by now.
                feed.on_time(*now);
                let image = read.is_ok().then_some(image);
                feed.on_image(InstrumentId(0), feed.connection(), image, *now);
                last_ns = *now;
            }
        }
        if ends_batch(feed, index, last_ns) {
            feed.publish(last_ns);
        }
    }
    feed.publish(last_ns);
}

fn stages(criterion: &mut Criterion) {
    let Some(recording) = recording() else { return };
    let inputs = inputs(&recording);
    let mut group = criterion.benchmark_group("ingest");
    group.throughput(Throughput::Elements(inputs.len() as u64));
    group.sample_size(20).measurement_time(Duration::from_secs(10));
    group.bench_function("decode", |bencher| {
        bencher.iter_batched_ref(
            || (decoder(), inputs.clone()),
            |(decoder, inputs)| decode(&mut **decoder, inputs),
            BatchSize::PerIteration,
        );
    });
    let mut stage = |name: &str, ends_batch: fn(&Feed, usize, Nanos) -> bool| {
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || (feed(), inputs.clone()),
                |(feed, inputs)| ingest(feed, inputs, ends_batch),
                BatchSize::PerIteration,
            );
        });
    };
    stage("apply", |_, _, _| false);
    stage("publish in full batches", |_, index, _| index % BATCH == BATCH - 1);
    stage("publish as recorded", |feed, _, now| feed.is_batch_full(now));
    group.finish();
}

criterion_group!(benches, stages);
criterion_main!(benches);
