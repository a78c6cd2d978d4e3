//! `--fail-if 'p99_ms>5'`: a text → a condition → whether medians of a report fulfil it.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use super::Run;
use super::number;
use super::summary::cases;

/// Whose figures are meant where no peer is named.
const DEFAULT_PEER: &str = "tickfan";

/// What may stand before the dot of a condition.
const PEERS: [&str; 6] = ["tickfan", "naive", "batch", "uws", "nats", "loop"];

/// Units that convert into each other, and how many of the smallest they are.
const UNITS: [&[(&str, f64)]; 2] = [
    &[("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9)],
    &[("bytes", 1.0), ("kib", 1024.0), ("mib", 1_048_576.0)],
];

/// A condition that must not hold.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Condition {
    peer: &'static str,
    figure: String,
    operator: Operator,
    value: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// The longer first, because the shorter begin them.
const OPERATORS: [(&str, Operator); 4] = [
    (">=", Operator::GreaterOrEqual),
    ("<=", Operator::LessOrEqual),
    (">", Operator::Greater),
    ("<", Operator::Less),
];

/// No run has the figure, and which there are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unknown(pub(super) String);

impl Condition {
    /// The figure as it was named.
    pub(super) fn figure(&self) -> &str {
        &self.figure
    }

    /// Whether a figure of this name answers the condition, with or without a conversion.
    pub(super) fn is_answered_by(&self, figure: &str) -> bool {
        self.factor(figure).is_some()
    }

    /// The medians for which it holds, in words.
    ///
    /// # Errors
    /// When no run has the figure.
    pub(super) fn judge(&self, runs: &[Run]) -> Result<Vec<String>, Unknown> {
        let mut is_known = false;
        let mut held = Vec::new();
        for case in cases(runs) {
            let names = case.figures();
            // As it is named before a conversion.
            let exact = names.iter().find(|name| **name == self.figure);
            let Some(name) = exact.or_else(|| names.iter().find(|name| self.is_answered_by(name)))
            else {
                continue;
            };
            let Some(factor) = self.factor(name) else { continue };
            let Some(spread) = case.spread(self.peer, name) else { continue };
            is_known = true;
            let median = spread.median * factor;
            if self.holds(median) {
                let (title, median) = (case.title(), number::text(median));
                held.push(format!("{title}: {} of {} is {median}", self.figure, self.peer));
            }
        }
        if is_known {
            return Ok(held);
        }
        let runs = runs.iter().filter(|run| run.peer == self.peer);
        let mut known: Vec<&str> =
            runs.flat_map(|run| run.figures.keys()).map(String::as_str).collect();
        known.sort_unstable();
        known.dedup();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(" ") };
        Err(Unknown(format!("{} has no figure {}, only {known}", self.peer, self.figure)))
    }

    fn holds(&self, value: f64) -> bool {
        match value.partial_cmp(&self.value) {
            Some(Ordering::Greater) => {
                matches!(self.operator, Operator::Greater | Operator::GreaterOrEqual)
            }
            Some(Ordering::Less) => matches!(self.operator, Operator::Less | Operator::LessOrEqual),
            Some(Ordering::Equal) => {
                matches!(self.operator, Operator::GreaterOrEqual | Operator::LessOrEqual)
            }
            None => false,
        }
    }

    /// What a figure of this name is multiplied with to answer the condition.
    fn factor(&self, figure: &str) -> Option<f64> {
        if figure == self.figure {
            return Some(1.0);
        }
        let (stem, unit) = figure.rsplit_once('_')?;
        let (asked_stem, asked_unit) = self.figure.rsplit_once('_')?;
        // The second of `sends_per_s` is no unit of time to convert.
        if stem != asked_stem || stem.split('_').any(|word| word == "per") {
            return None;
        }
        UNITS.iter().find_map(|units| {
            let size =
                |unit: &str| units.iter().find(|(name, _)| *name == unit).map(|(_, size)| *size);
            Some(size(unit)? / size(asked_unit)?)
        })
    }
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected [PEER.]FIGURE, one of > >= < <=, and a number: {text:?}");
        let at = text.find(['<', '>']).ok_or_else(wrong)?;
        let (name, rest) = text.split_at(at);
        let (operator, value) = OPERATORS
            .iter()
            .find_map(|(sign, operator)| Some((*operator, rest.strip_prefix(sign)?)))
            .ok_or_else(wrong)?;
        let value: f64 = value.trim().parse().map_err(|_| wrong())?;
        let name = name.trim();
        let named = PEERS
            .iter()
            .find_map(|peer| Some((*peer, name.strip_prefix(peer)?.strip_prefix('.')?)));
        let (peer, figure) = named.unwrap_or((DEFAULT_PEER, name));
        if figure.is_empty() || !value.is_finite() {
            return Err(wrong());
        }
        Ok(Self { peer, figure: figure.to_owned(), operator, value })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.peer != DEFAULT_PEER {
            write!(f, "{}.", self.peer)?;
        }
        let sign = OPERATORS.iter().find(|(_, operator)| *operator == self.operator);
        write!(f, "{}{}{}", self.figure, sign.map_or("", |(sign, _)| sign), self.value)
    }
}
