//! What a venue message costs before anybody subscribes: decoded, applied to the book, published.
//!
//! A recording is taken in on one thread without sockets, three times over, each time one stage
//! further; the differences are what the stages cost.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use feed_sim::recording::{Kind, Recording};
use tickfan::feed::{Feed, FeedOptions};
use tickfan::stats::Stats;
use tickfan::venue::{self, Subscription, TradeStream};
use tickfan_core::market::{EventBatch, InstrumentId, Nanos, Venue};
use tickfan_core::snapshot::Registry;

use crate::clock;
use crate::report::Run;

/// A recording of one venue.
pub(super) struct Recorded {
    pub(super) name: &'static str,
    venue: Venue,
    symbols: &'static [&'static str],
    trades: Option<TradeStream>,
}

/// Those that there are.
pub(super) const RECORDINGS: &[Recorded] = &[
    Recorded {
        name: "binance-usdm-btcusdt-20240808",
        venue: Venue::BinanceUsdm,
        symbols: &["BTCUSDT"],
        trades: Some(TradeStream::Trade),
    },
    Recorded {
        name: "binance-spot-btcusdt-20240808",
        venue: Venue::BinanceSpot,
        symbols: &["BTCUSDT"],
        trades: Some(TradeStream::Trade),
    },
];

const DEPTH: u32 = 1_000;

/// How often each stage is measured; the quickest counts, as the others were disturbed.
const REPEATS: usize = 3;

#[derive(Clone)]
enum Input {
    Message(Vec<u8>, Nanos),
    Image(Vec<u8>, Nanos),
}

/// Measures a recording by its name.
///
/// # Errors
/// When there is no such recording.
pub(super) fn run(name: &str, run: &mut Run) -> Result<()> {
    let recorded = RECORDINGS.iter().find(|recorded| recorded.name == name);
    let recorded = recorded.with_context(|| format!("no recording {name}"))?;
    let folder = std::env::var_os("TICKFAN_RECORDINGS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
        PathBuf::from,
    );
    let path = folder.join(format!("{name}.tsv.zst"));
    let Ok(recording) = Recording::open(&path) else {
        run.remarks.push("skipped: no recording; TICKFAN_RECORDINGS says where they are".into());
        return Ok(());
    };
    let inputs: Vec<Input> = recording
        .lines
        .iter()
        .filter_map(|line| match line.kind {
            Kind::Recv => Some(Input::Message(line.payload.to_vec(), line.recv_ns)),
            Kind::Rest => Some(Input::Image(line.payload.to_vec(), line.recv_ns)),
            Kind::Open | Kind::Send => None,
        })
        .collect();
    let decode_ns = quickest(&inputs, |inputs| decode(recorded, inputs));
    let book_ns = quickest(&inputs, |inputs| take_in(recorded, inputs, false));
    let all_ns = quickest(&inputs, |inputs| take_in(recorded, inputs, true));
    run.figures.insert("decode_ns".to_owned(), decode_ns);
    run.figures.insert("book_ns".to_owned(), (book_ns - decode_ns).max(0.0));
    run.figures.insert("snapshot_ns".to_owned(), (all_ns - book_ns).max(0.0));
    run.figures.insert("messages_per_s".to_owned(), 1e9 / all_ns);
    Ok(())
}

/// Nanoseconds a message.
fn quickest(inputs: &[Input], mut stage: impl FnMut(&mut [Input])) -> f64 {
    let times = (0..REPEATS).map(|_| {
        let mut inputs = inputs.to_vec();
        let began = clock::now();
        stage(&mut inputs);
        began.elapsed().as_nanos() as f64 / inputs.len() as f64
    });
    times.fold(f64::INFINITY, f64::min)
}

fn instruments(recorded: &Recorded) -> Vec<(InstrumentId, Arc<str>)> {
    let ids = (0..).map(InstrumentId);
    ids.zip(recorded.symbols.iter().map(|symbol| Arc::from(*symbol))).collect()
}

fn decode(recorded: &Recorded, inputs: &mut [Input]) {
    let subscription = Subscription {
        instruments: instruments(recorded),
        depth: Some(DEPTH),
        trades: recorded.trades,
    };
    let mut decoder = venue::decoder(recorded.venue, subscription);
    let mut batch = EventBatch::default();
    for input in inputs {
        if let Input::Message(message, _) = input {
            batch.clear();
            // What is no market message costs its reading all the same.
            let _ = decoder.decode(message, &mut batch);
        }
    }
}

fn take_in(recorded: &Recorded, inputs: &mut [Input], publishes: bool) {
    let natives: Vec<Arc<str>> = recorded.symbols.iter().map(|symbol| Arc::from(*symbol)).collect();
    let registry = Registry::new(natives.len());
    let entries = registry.register(recorded.venue, &natives, 1, 1).unwrap_or_default();
    let mut feed = Feed::new(FeedOptions {
        venue: recorded.venue,
        instruments: entries.into_iter().map(|entry| (entry, None)).collect(),
        depth: Some(DEPTH),
        trades: recorded.trades,
        marks: Vec::new(),
        stats: Stats::default().feed(recorded.venue),
        seed: 1,
    });
    feed.on_connected(1);
    let mut last_ns = 0;
    for input in inputs {
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
        if publishes && feed.is_batch_full(last_ns) {
            feed.publish(last_ns);
        }
    }
    feed.publish(last_ns);
}
