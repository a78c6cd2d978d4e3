//! What a verification counted and the first difference that it found → text and JSON.
//!
//! Filled by the sessions, printed once by the command.

use std::fmt;

use serde::Serialize;

use super::session::Encoding;

/// Characters of a message that are shown.
const SHOWN_CHARS: usize = 4_000;

/// A rule that was broken, before it is known by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken {
    /// What must hold.
    pub(crate) rule: String,
    /// What was expected.
    pub(crate) expected: String,
    /// What came.
    pub(crate) got: String,
    /// The line of the recording that it was held against.
    pub(crate) line: Option<u64>,
}

impl Broken {
    /// A rule, what it asks for and what was got instead.
    pub(crate) fn new(
        rule: impl Into<String>,
        expected: impl fmt::Display,
        got: impl fmt::Display,
    ) -> Self {
        Self { rule: rule.into(), expected: expected.to_string(), got: got.to_string(), line: None }
    }

    /// The same, held against a line of the recording.
    pub(crate) fn at(self, line: u64) -> Self {
        Self { line: Some(line), ..self }
    }
}

/// Checks a rule.
///
/// # Errors
/// When it does not hold.
pub(crate) fn hold(
    holds: bool,
    rule: &str,
    expected: impl fmt::Display,
    got: impl fmt::Display,
) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken::new(rule, expected, got)) }
}

/// A difference between what a reader got and what it should have got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    /// The reader.
    pub(crate) reader: String,
    /// The symbol, where it is about one.
    pub(crate) symbol: String,
    /// The rule that was broken.
    pub(crate) rule: String,
    /// What was expected.
    pub(crate) expected: String,
    /// What came.
    pub(crate) got: String,
    /// The line of the recording that it was held against.
    pub(crate) line: Option<u64>,
    /// The update or message, verbatim as far as it can be shown.
    pub(crate) message: String,
}

impl Difference {
    /// Who found a broken rule, and in what.
    pub(crate) fn new(reader: &str, symbol: &str, broken: Broken, message: &str) -> Box<Self> {
        Box::new(Self {
            reader: reader.to_owned(),
            symbol: symbol.to_owned(),
            rule: broken.rule,
            expected: broken.expected,
            got: broken.got,
            line: broken.line,
            message: shortened(message),
        })
    }
}

fn shortened(text: &str) -> String {
    let Some((end, _)) = text.char_indices().nth(SHOWN_CHARS) else { return text.to_owned() };
    format!("{}… ({} bytes)", &text[..end], text.len())
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.rule)?;
        writeln!(f, "  reader    {}", self.reader)?;
        if !self.symbol.is_empty() {
            writeln!(f, "  symbol    {}", self.symbol)?;
        }
        writeln!(f, "  expected  {}", self.expected)?;
        writeln!(f, "  got       {}", self.got)?;
        if let Some(line) = self.line {
            writeln!(f, "  line      {line}")?;
        }
        if !self.message.is_empty() {
            writeln!(f, "  message   {}", self.message)?;
        }
        Ok(())
    }
}

/// What one reader saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    /// Data frames.
    pub(crate) frames: u64,
    /// Updates in them.
    pub(crate) updates: u64,
    /// Books and best prices that were held against the truth.
    pub(crate) states: u64,
    /// Venue events that were merged into later updates.
    pub(crate) merged: u64,
    /// Whole books.
    pub(crate) images: u64,
    /// Updates over their budget.
    pub(crate) late: u64,
    /// Trades.
    pub(crate) trades: u64,
    /// Trades that were reported as lost.
    pub(crate) lost: u64,
    /// Gaps that were told.
    pub(crate) gaps: u64,
    /// Epochs that ended because of a finer number.
    pub(crate) rescaled: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.frames += other.frames;
        self.updates += other.updates;
        self.states += other.states;
        self.merged += other.merged;
        self.images += other.images;
        self.late += other.late;
        self.trades += other.trades;
        self.lost += other.lost;
        self.gaps += other.gaps;
        self.rescaled += other.rescaled;
    }
}

/// What one run of a recording showed.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The recording.
    pub(crate) recording: String,
    /// How fast it was played.
    pub(crate) speed: String,
    /// In which encoding.
    pub(crate) encoding: Encoding,
    /// The line that was left out.
    pub(crate) drop_line: Option<u64>,
    /// How long it took, milliseconds.
    pub(crate) took_ms: u128,
    /// What each reader saw.
    pub(crate) readers: Vec<(String, Counts)>,
    /// The first difference; none when all is well.
    pub(crate) difference: Option<Box<Difference>>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = self.encoding.subprotocol();
        write!(f, "{} at speed {} in {protocol}", self.recording, self.speed)?;
        if let Some(line) = self.drop_line {
            write!(f, ", line {line} left out")?;
        }
        writeln!(f, ", {} ms", self.took_ms)?;
        let mut total = Counts::default();
        writeln!(
            f,
            "  {:<20} {:>9} {:>9} {:>9} {:>9} {:>7} {:>7} {:>9} {:>7} {:>5} {:>8}",
            "reader",
            "frames",
            "updates",
            "states",
            "merged",
            "images",
            "late",
            "trades",
            "lost",
            "gaps",
            "rescaled"
        )?;
        for (name, counts) in &self.readers {
            row(f, name, counts)?;
            total += *counts;
        }
        row(f, "all", &total)?;
        match &self.difference {
            None => writeln!(f, "  right"),
            Some(difference) => write!(f, "  WRONG: {difference}"),
        }
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, c: &Counts) -> fmt::Result {
    writeln!(
        f,
        "  {name:<20} {:>9} {:>9} {:>9} {:>9} {:>7} {:>7} {:>9} {:>7} {:>5} {:>8}",
        c.frames,
        c.updates,
        c.states,
        c.merged,
        c.images,
        c.late,
        c.trades,
        c.lost,
        c.gaps,
        c.rescaled
    )
}
