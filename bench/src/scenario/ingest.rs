//! What a venue message costs before anybody subscribes: decoded, applied to the book, published; and
//! what it costs a naive program.
//!
//! A recording is taken in on one thread without sockets. Ours is measured three times over, each time
//! one stage further; the differences are what the stages cost. Then both are measured message by
//! message, from its bytes to what readers see.

mod naive;
mod recorded;

use std::collections::BTreeMap;

use anyhow::Result;

use crate::clock;
use crate::peer::Name;
use crate::report::Run;
use naive::Naive;
pub(super) use recorded::RECORDINGS;
use recorded::{BUCKETS, Input, Recorded, Size};

/// How often everything is measured; the quickest counts, as the others were disturbed.
const REPEATS: usize = 3;

/// From fewer messages of a kind nothing is told of it.
const MESSAGES_MIN: usize = 20;

/// Measures a peer with a recording by its name: our feed or the naive rival.
///
/// # Errors
/// When the recording cannot be read.
pub(super) fn run(peer: Name, name: &str, run: &mut Run) -> Result<()> {
    let Some(recorded) = Recorded::open(name)? else {
        run.remarks.push("skipped: no recording; TICKFAN_RECORDINGS says where they are".into());
        return Ok(());
    };
    let mut put = |figure: &str, value: f64| run.figures.insert(figure.to_owned(), value);
    let all_ns = if peer == Name::Tickfan {
        let decode_ns = quickest(&recorded.inputs, |inputs| {
            recorded.decode(inputs);
        });
        let book_ns = quickest(&recorded.inputs, |inputs| take_in(&recorded, inputs, false));
        let all_ns = quickest(&recorded.inputs, |inputs| take_in(&recorded, inputs, true));
        put("decode_ns", decode_ns);
        put("book_ns", (book_ns - decode_ns).max(0.0));
        put("snapshot_ns", (all_ns - book_ns).max(0.0));
        all_ns
    } else {
        quickest(&recorded.inputs, |inputs| {
            let mut naive = Naive::new(&recorded);
            inputs.iter().for_each(|input| naive.take(input));
        })
    };
    put("messages_per_s", 1e9 / all_ns);
    let sizes = recorded.sizes();
    let mut least: BTreeMap<Size, f64> = BTreeMap::new();
    for _ in 0..REPEATS {
        let times = if peer == Name::Tickfan {
            let mut ours = recorded.ours();
            each(&recorded.inputs, |input| {
                ours.take(input);
                ours.publish();
            })
        } else {
            let mut naive = Naive::new(&recorded);
            each(&recorded.inputs, |input| naive.take(input))
        };
        for (size, ns) in medians(&sizes, &times) {
            least.entry(size).and_modify(|held| *held = held.min(ns)).or_insert(ns);
        }
    }
    for (size, ns) in least {
        match size {
            Size::Bbo => put("bbo_ns", ns),
            Size::Trade => put("trade_ns", ns),
            Size::Trades => put("trades_ns", ns),
            Size::Depth(bucket) => put(BUCKETS[bucket].1, ns),
            Size::Other => None,
        };
    }
    Ok(())
}

/// Takes everything in, publishing when the batch would have ended, and at the end.
fn take_in(recorded: &Recorded, inputs: &mut [Input], publishes: bool) {
    let mut ours = recorded.ours();
    for input in inputs {
        ours.take(input);
        if publishes && ours.is_batch_full() {
            ours.publish();
        }
    }
    ours.publish();
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

/// Nanoseconds of each message, with one reading of the clock among them.
fn each(inputs: &[Input], mut take: impl FnMut(&mut Input)) -> Vec<u64> {
    let mut inputs = inputs.to_vec();
    let time = |input| {
        let began = clock::now();
        take(input);
        began.elapsed().as_nanos() as u64
    };
    inputs.iter_mut().map(time).collect()
}

/// The median of each kind of message that there are enough of.
fn medians(sizes: &[Size], times: &[u64]) -> BTreeMap<Size, f64> {
    let mut by_size: BTreeMap<Size, Vec<u64>> = BTreeMap::new();
    for (size, ns) in sizes.iter().zip(times) {
        by_size.entry(*size).or_default().push(*ns);
    }
    by_size.retain(|_, times| times.len() >= MESSAGES_MIN);
    let median = |(size, mut times): (Size, Vec<u64>)| {
        times.sort_unstable();
        (size, times[times.len() / 2] as f64)
    };
    by_size.into_iter().map(median).collect()
}

#[cfg(test)]
mod tests {
    use tickfan_core::decimal::SCALE_MAX;
    use tickfan_core::market::{Level, Scales};

    use super::*;

    /// A rival that is wrong would be no rival.
    #[test]
    fn the_naive_rival_sees_what_the_feed_sees() {
        for name in RECORDINGS {
            let Some(recorded) = Recorded::open(name).unwrap() else {
                assert!(std::env::var_os("CI").is_none(), "no recording {name}");
                eprintln!("skipped: no recording {name} (set TICKFAN_RECORDINGS)");
                continue;
            };
            let (mut ours, mut naive) = (recorded.ours(), Naive::new(&recorded));
            for input in &recorded.inputs {
                ours.take(&mut input.clone());
                naive.take(input);
            }
            ours.publish();
            let mut levels = 0;
            for (entry, symbol) in ours.entries.iter().zip(&recorded.symbols) {
                let snapshot = entry.load();
                let exact = |level: Level| {
                    let Scales { px, qty } = snapshot.scales;
                    let at = |mantissa, scale| {
                        i128::from(mantissa) * 10i128.pow(u32::from(SCALE_MAX - scale))
                    };
                    (at(level.px.0, px), at(level.qty.0, qty))
                };
                let book = &snapshot.book.book;
                let top = naive.top(symbol);
                levels += top.bids.len() + top.asks.len();
                assert!(book.bids.iter().take(20).map(exact).eq(top.bids), "{name}: {symbol} bids");
                assert!(book.asks.iter().take(20).map(exact).eq(top.asks), "{name}: {symbol} asks");
            }
            assert!(levels > 0, "{name}: nothing was seen");
        }
    }
}
