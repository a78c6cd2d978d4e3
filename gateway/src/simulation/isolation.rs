//! One symbol's trouble touches no other: a world is run twice, with faults on its first symbol and
//! without, and who reads the second must not be able to tell which.
//!
//! Clients of the second symbol alone must get the same bytes at the same times. Where a client holds
//! both, its frames differ, and the updates of the second symbol with their times do not.

use serde_json::Value;

use super::checker::{Checked, Record, hold};
use super::{Failure, Kind, World, failure};

/// View numbers of one instrument.
const VIEWS_PER_INSTRUMENT: u64 = 16;

/// Messages with their times, as they are compared.
type Told = Vec<(u64, String)>;

/// Runs both worlds of a seed and compares what their clients were told. Returns how many messages
/// were compared.
pub(super) fn run_both(seed: u64) -> Result<usize, Failure> {
    let kinds = [true, false].map(|faulty| Kind::Isolated { faulty });
    let mut worlds = Vec::new();
    for kind in kinds {
        let mut world = World::new(seed, kind);
        world.run().map_err(|violation| failure(seed, kind, violation))?;
        worlds.push(world);
    }
    let (faulty, whole) = (&worlds[0], &worlds[1]);
    let ends_ns = [faulty, whole].map(|world| world.venue.ended_ns().unwrap_or(0));
    let until_ns = ends_ns[0].min(ends_ns[1]);
    compare(faulty, whole, until_ns).map_err(|violation| failure(seed, kinds[0], violation))
}

fn compare(faulty: &World, whole: &World, until_ns: u64) -> Checked<usize> {
    let mut compared = 0;
    for (index, (one, other)) in faulty.records.iter().zip(&whole.records).enumerate() {
        let is_mixed = index == 0;
        let [one, other] = [one, other].map(|record| told(record, is_mixed, until_ns));
        let differs = one.iter().zip(&other).position(|(one, other)| one != other);
        let is_same = differs.is_none() && one.len() == other.len();
        hold(is_same, "I7", || {
            let at = differs.unwrap_or(one.len().min(other.len()));
            format!("client {index}: {:?} with faults, {:?} without", one.get(at), other.get(at))
        })?;
        compared += one.len();
    }
    Ok(compared)
}

/// What a client was told, without what is of the whole gateway (the latency of a class) and, where
/// it holds both symbols, without all that is not of the second.
fn told(record: &Record, is_mixed: bool, until_ns: u64) -> Told {
    let mut told = Told::new();
    for (at_ns, opcode, payload) in record.iter().filter(|(at_ns, ..)| *at_ns < until_ns) {
        let text = String::from_utf8_lossy(payload).into_owned();
        if *opcode != 1 {
            if !is_mixed {
                told.push((*at_ns, format!("{opcode} {text}")));
            }
            continue;
        }
        if is_mixed {
            let message: Value = serde_json::from_str(&text).unwrap_or_default();
            let updates = message["u"].as_array().into_iter().flatten();
            let second = updates.filter(|update| update["v"].as_u64().is_some_and(is_of_second));
            told.extend(second.map(|update| (*at_ns, update.to_string())));
            continue;
        }
        told.push((*at_ns, without_latency(&text)));
    }
    told
}

/// The view is one of the second instrument.
fn is_of_second(view: u64) -> bool {
    view / VIEWS_PER_INSTRUMENT == 1
}

fn without_latency(text: &str) -> String {
    let mut parts = text.split("\"p99_us\":");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    out
}
