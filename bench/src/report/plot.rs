//! Histograms and spreads → SVG, drawn so that it can be read without colour, pointer or script.
//!
//! A picture is as wide as a phone; the page sets several beside each other. Colours and dashes are
//! classes of the page's style sheet.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

use super::number;
use super::summary::Spread;

/// The peers that have a colour; the others share one.
const COLOURED: [&str; 6] = ["tickfan", "uws", "naive", "batch", "nats", "loop"];

const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 264.0;

/// The frame of a percentile plot: beside it is room for the labels.
const LEFT: f64 = 58.0;
const RIGHT: f64 = WIDTH - 60.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = HEIGHT - 42.0;

/// Labels closer than this would overlap.
const LINE_HEIGHT: f64 = 14.0;

/// Times below this quantile are drawn at the lower edge: the luckiest sample would else make the axis.
const LOWEST: f64 = 0.1;

/// Points of a curve between one nine and the next.
const POINTS_PER_NINE: usize = 16;

/// The most nines that the axis has.
const NINES_MAX: f64 = 5.0;

const BAR_HEIGHT: f64 = 16.0;
const BAR_PITCH: f64 = 30.0;
const BAR_LEFT: f64 = 60.0;
const BAR_RIGHT: f64 = WIDTH - 84.0;

/// Text that may stand in HTML and SVG, between tags or in a quoted attribute.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// The class that gives a peer its colour, whatever its encoding.
pub(super) fn class(peer: &str) -> &'static str {
    let name = peer.split(' ').next().unwrap_or_default();
    match COLOURED.iter().position(|coloured| *coloured == name) {
        Some(0) => "peer tickfan",
        Some(1) => "peer uws",
        Some(2) => "peer naive",
        Some(3) => "peer batch",
        Some(4) => "peer nats",
        Some(_) => "peer loop",
        None => "peer other",
    }
}

/// What fits beside a line or bar: the encoding where there is one, in the peer's colour.
fn label(peer: &str) -> String {
    escape(peer.split(' ').next_back().unwrap_or_default())
}

/// A logarithmic axis of times that begins and ends at a round one.
struct TimeAxis {
    low: f64,
    high: f64,
}

impl TimeAxis {
    /// Over these times, nanoseconds.
    fn over(low: f64, high: f64) -> Self {
        let low = low.max(1.0);
        let (low, high) = (round_below(low), round_above(high.max(low)));
        Self { low, high: if high > low { high } else { low * 10.0 } }
    }

    fn y(&self, ns: f64) -> f64 {
        let share =
            (ns.clamp(self.low, self.high) / self.low).log10() / (self.high / self.low).log10();
        BOTTOM - share * (BOTTOM - TOP)
    }

    /// The times that have a line: 1, 2 and 5 of each decade, or 1 only where that were too many.
    fn ticks(&self) -> Vec<f64> {
        let steps: &[f64] = if self.high / self.low <= 200.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let times =
            decades.flat_map(|decade| steps.iter().map(move |step| step * 10_f64.powi(decade)));
        // The ends are such times up to rounding.
        times.filter(|ns| *ns > self.low * 0.99 && *ns < self.high * 1.01).collect()
    }
}

/// 1, 2 or 5 of a decade.
fn round_below(value: f64) -> f64 {
    let decade = 10_f64.powf(value.log10().floor());
    let steps = [5.0, 2.0, 1.0].map(|step| step * decade);
    steps.into_iter().find(|step| *step <= value * 1.000_001).unwrap_or(decade)
}

fn round_above(value: f64) -> f64 {
    let decade = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0].map(|step| step * decade);
    steps.into_iter().find(|step| *step >= value * 0.999_999).unwrap_or(decade * 10.0)
}

/// The latency at each percentile, a line a peer; the axis runs in nines, so that the rare is seen.
pub(super) fn percentiles(title: &str, lines: &[(&str, Histogram<u64>)]) -> String {
    let nines = |histogram: &Histogram<u64>| (histogram.len() as f64).log10().clamp(1.0, NINES_MAX);
    let right = lines.iter().map(|(_, histogram)| nines(histogram)).fold(1.0, f64::max);
    let x = |at: f64| LEFT + at / right * (RIGHT - LEFT);
    let low = lines.iter().map(|(_, h)| h.value_at_quantile(LOWEST)).min().unwrap_or(1);
    let value =
        |h: &Histogram<u64>, nines: f64| h.value_at_quantile(1.0 - 10_f64.powf(-nines)) as f64;
    let high = lines.iter().map(|(_, h)| value(h, nines(h))).fold(1.0, f64::max);
    let axis = TimeAxis::over(low as f64, high);

    let mut description = String::new();
    for (peer, histogram) in lines {
        let _ = write!(
            description,
            "{peer}: median {}, 99th percentile {}. ",
            number::time(histogram.value_at_quantile(0.5) as f64),
            number::time(histogram.value_at_quantile(0.99) as f64)
        );
    }
    let mut svg = open(title, &description, HEIGHT);
    for ns in axis.ticks() {
        let (y, text) = (axis.y(ns), number::time(ns));
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
            LEFT - 6.0,
            y + 4.0
        );
    }
    let ticks = [(0.5, "50"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"), (0.9999, "99.99")];
    for (quantile, text) in ticks.into_iter().chain([(0.99999, "99.999")]) {
        let at = -(1.0_f64 - quantile).log10();
        if at > right + 0.01 {
            break;
        }
        let x = x(at);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{BOTTOM}\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
            BOTTOM + 16.0
        );
    }
    let _ = write!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">percentile</text>",
        f64::midpoint(LEFT, RIGHT),
        HEIGHT - 8.0
    );
    let mut labels = Vec::new();
    for (peer, histogram) in lines {
        let end = nines(histogram);
        let points = (end * POINTS_PER_NINE as f64).ceil() as usize;
        let mut path = String::new();
        for point in 0..=points {
            let at = end * point as f64 / points as f64;
            let command = if point == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{command}{:.1} {:.1}", x(at), axis.y(value(histogram, at)));
        }
        let _ = write!(svg, "<path class=\"{}\" d=\"{path}\"/>", class(peer));
        labels.push((*peer, x(end), axis.y(value(histogram, end))));
    }
    // Beside the end of its line, and below the label above it.
    labels.sort_by(|a, b| a.2.total_cmp(&b.2));
    let room = BOTTOM - LINE_HEIGHT * (labels.len().saturating_sub(1)) as f64;
    let mut free = TOP;
    for (place, (peer, x, y)) in labels.iter().enumerate() {
        let y = y.min(room + LINE_HEIGHT * place as f64).max(free);
        free = y + LINE_HEIGHT;
        let _ = write!(
            svg,
            "<text class=\"{}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            class(peer),
            x + 5.0,
            y + 4.0,
            label(peer)
        );
    }
    svg + "</svg>"
}

/// A figure of each peer as a bar, with a line from its least to its most.
pub(super) fn bars(title: &str, peers: &[(&str, Spread)]) -> String {
    let most = peers.iter().map(|(_, spread)| spread.max).fold(0.0, f64::max);
    let most = if most > 0.0 { most } else { 1.0 };
    let length = |value: f64| value.max(0.0) / most * (BAR_RIGHT - BAR_LEFT);
    let mut description = String::new();
    for (peer, spread) in peers {
        let texts = [spread.median, spread.min, spread.max].map(number::text);
        let _ = write!(description, "{peer}: {}, from {} to {}. ", texts[0], texts[1], texts[2]);
    }
    let mut svg = open(title, &description, BAR_PITCH * peers.len() as f64 + 4.0);
    for (place, (peer, spread)) in peers.iter().enumerate() {
        let y = BAR_PITCH * place as f64 + (BAR_PITCH - BAR_HEIGHT) / 2.0;
        let middle = y + BAR_HEIGHT / 2.0;
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect class=\"{}\" x=\"{BAR_LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR_HEIGHT}\"/>",
            BAR_LEFT - 6.0,
            middle + 4.0,
            label(peer),
            class(peer),
            length(spread.median).max(1.0)
        );
        if spread.min < spread.max {
            let (from, to) = (BAR_LEFT + length(spread.min), BAR_LEFT + length(spread.max));
            let (above, below) = (middle - 5.0, middle + 5.0);
            let _ = write!(
                svg,
                "<path class=\"whisker\" d=\"M{from:.1} {above:.1}V{below:.1}M{from:.1} {middle:.1}\
                 H{to:.1}M{to:.1} {above:.1}V{below:.1}\"/>"
            );
        }
        let _ = write!(
            svg,
            "<text class=\"value\" x=\"{WIDTH}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            middle + 4.0,
            number::text(spread.median)
        );
    }
    svg + "</svg>"
}

/// The beginning of a picture. What it shows is said in words, for those who do not see it.
fn open(title: &str, description: &str, height: f64) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\"><title>{}</title>",
        escape(&format!("{title}. {}", description.trim_end())),
        escape(title)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_begins_and_ends_at_round_times() {
        let axis = TimeAxis::over(1_300.0, 47_000.0);
        assert_eq!(axis.ticks(), [1e3, 2e3, 5e3, 1e4, 2e4, 5e4]);
        assert_eq!(axis.y(1_000.0), BOTTOM);
        assert_eq!(axis.y(50_000.0), TOP);
        // One value only, and zero: still an axis.
        assert_eq!(TimeAxis::over(0.0, 0.0).ticks(), [1.0, 2.0, 5.0, 10.0]);
    }

    #[test]
    fn labels_that_end_at_the_same_height_do_not_overlap() {
        let mut histogram = Histogram::new(3).unwrap();
        histogram.record_n(5_000, 1_000).unwrap();
        let lines: Vec<_> =
            ["tickfan", "uws", "naive"].map(|peer| (peer, histogram.clone())).to_vec();
        let svg = percentiles("latency", &lines);
        let heights: Vec<f64> = svg
            .split("<text class=\"peer")
            .skip(1)
            .map(|label| label.split("y=\"").nth(1).unwrap().split('"').next().unwrap())
            .map(|y| y.parse().unwrap())
            .collect();
        assert_eq!(heights.len(), 3);
        for pair in heights.windows(2) {
            assert!(pair[1] - pair[0] >= LINE_HEIGHT - 0.1, "{heights:?}");
        }
        assert!(heights.iter().all(|y| *y < BOTTOM + 5.0), "{heights:?}");
    }
}
