//! A histogram ↔ pairs of value and count, without loss.
//!
//! Used by serde for the histograms of a run. A value is the highest that its bucket stands for, as
//! HdrHistogram's own formats have it.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A histogram as it is written.
#[derive(Serialize, Deserialize)]
struct Written {
    /// The lowest value that it tells from zero, and its significant digits: they make the buckets.
    lowest: u64,
    digits: u8,
    counts: Vec<(u64, u64)>,
}

pub(super) fn serialize<S: Serializer>(
    histograms: &BTreeMap<String, Histogram<u64>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(histograms.iter().map(|(name, histogram)| {
        let counts = histogram
            .iter_recorded()
            .map(|bucket| (bucket.value_iterated_to(), bucket.count_at_value()))
            .collect();
        (name, Written { lowest: histogram.low(), digits: histogram.sigfig(), counts })
    }))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Histogram<u64>>, D::Error> {
    let written = BTreeMap::<String, Written>::deserialize(deserializer)?;
    let read = |written: &Written| -> Result<Histogram<u64>, String> {
        let high = written.lowest.saturating_mul(2);
        let mut histogram = Histogram::new_with_bounds(written.lowest, high, written.digits)
            .map_err(|error| format!("{error:?}"))?;
        histogram.auto(true);
        for (value, count) in &written.counts {
            histogram.record_n(*value, *count).map_err(|error| format!("{error:?}"))?;
        }
        Ok(histogram)
    };
    written
        .iter()
        .map(|(name, written)| {
            let histogram = read(written)
                .map_err(|what| de::Error::custom(format!("histogram {name:?}: {what}")))?;
            Ok((name.clone(), histogram))
        })
        .collect()
}
