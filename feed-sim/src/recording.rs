//! Recorded market data on disk → lines in memory, and the expected states beside it → rows.
//!
//! Called by the replay, by the bench and by tests, once, before anything runs. The files are
//! described by the catalogue that comes with the recordings: four fields a line, separated by tabs.
//! `recording/write.rs` beside this writes them.

mod draft;
mod write;

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tickfan_core::market::Side;

use crate::truth::{TruthBook, TruthLevel, normalise};
use crate::venue::Dialect;
pub use draft::Draft;
pub use write::{Digest, FileWriter, LostWriter, Writer, Written};

/// What a line of a recording is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The recorder opened a socket; the payload is its URL.
    Open,
    /// The recorder sent this text frame.
    Send,
    /// The venue sent this text frame.
    Recv,
    /// This REST response body arrived; the stream is its URL.
    Rest,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Open, Self::Send, Self::Recv, Self::Rest];

    const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Send => "send",
            Self::Recv => "recv",
            Self::Rest => "rest",
        }
    }
}

/// One line of a recording.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its number in the file, from 1.
    pub number: u64,
    /// The recorder's clock, nanoseconds since the Unix epoch.
    pub recv_ns: u64,
    /// What it is.
    pub kind: Kind,
    /// Which connection, or the URL of a REST response.
    pub stream: String,
    /// What the venue sent, byte for byte.
    pub payload: Bytes,
}

impl Line {
    /// The payload as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).unwrap_or_default()
    }

    /// The symbol that a REST line is the depth of.
    pub fn rest_symbol(&self) -> Option<&str> {
        if self.kind != Kind::Rest {
            return None;
        }
        let (_, query) = self.stream.split_once('?')?;
        query.split('&').find_map(|pair| pair.strip_prefix("symbol="))
    }
}

/// A whole recording.
#[derive(Debug, Clone)]
pub struct Recording {
    /// Its file name without the endings.
    pub name: String,
    /// Whose words it is in.
    pub dialect: Dialect,
    /// Its lines, in order.
    pub lines: Vec<Line>,
    /// The venue's description of each instrument at that time, if there is one; verbatim JSON.
    pub instruments: Vec<String>,
}

impl Recording {
    /// Reads `NAME.tsv.zst`, and `instruments.json` beside it when it knows that name.
    ///
    /// # Errors
    /// When a file cannot be read or is not in the format of the catalogue.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(".tsv.zst"))
            .with_context(|| format!("{} does not end in .tsv.zst", path.display()))?;
        let mut recording = Self::from_text(name, decompress(path)?)?;
        recording.instruments = instruments(&path.with_file_name("instruments.json"), name)?;
        Ok(recording)
    }

    /// Reads the decompressed text of the recording called `name`.
    ///
    /// # Errors
    /// When the name begins like no venue's, or a line is not in the format of the catalogue.
    pub fn from_text(name: &str, text: impl Into<Bytes>) -> Result<Self> {
        let dialect = Dialect::of_recording(name)
            .with_context(|| format!("no venue that we can replay is called like {name}"))?;
        let bytes: Bytes = text.into();
        let text = std::str::from_utf8(&bytes).context("the recording is not UTF-8")?;
        let lines = text
            .lines()
            .enumerate()
            .map(|(index, line)| {
                read_line(index as u64 + 1, line, &bytes)
                    .with_context(|| format!("{name}: line {}", index + 1))
            })
            .collect::<Result<_>>()?;
        Ok(Self { name: name.to_owned(), dialect, lines, instruments: Vec::new() })
    }
}

fn read_line(number: u64, line: &str, whole: &Bytes) -> Result<Line> {
    let mut fields = line.splitn(4, '\t');
    let mut field = |name: &'static str| fields.next().with_context(|| format!("no {name}"));
    let recv_ns = field("time")?.parse().context("time")?;
    let name = field("kind")?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
    let kind = kind.with_context(|| format!("unknown kind {name}"))?;
    let stream = field("stream")?.to_owned();
    let payload = whole.slice_ref(field("payload")?.as_bytes());
    Ok(Line { number, recv_ns, kind, stream, payload })
}

/// The book of one symbol after one line that changed it, as `NAME.states.tsv.zst` has it.
/// Decimals are normalised, and empty where the side is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateRow {
    /// The number of the line.
    pub line: u64,
    /// Which symbol.
    pub symbol: String,
    /// The venue's update id, where it has one.
    pub id: Option<u64>,
    /// Best bid, price.
    pub bid_px: String,
    /// Best bid, quantity.
    pub bid_qty: String,
    /// Best ask, price.
    pub ask_px: String,
    /// Best ask, quantity.
    pub ask_qty: String,
    /// CRC-32 of the 20 best levels of both sides.
    pub crc_top20: u32,
}

impl StateRow {
    /// The row of a book after a line; `id` is the venue's number of it, where it tells one.
    pub fn of(line: u64, symbol: &str, id: Option<u64>, book: &TruthBook) -> Self {
        let best = |side| {
            let texts = |level: &TruthLevel| (normalise(&level.px), normalise(&level.qty));
            book.best(side).map(texts).unwrap_or_default()
        };
        let ((bid_px, bid_qty), (ask_px, ask_qty)) = (best(Side::Bid), best(Side::Ask));
        let (symbol, crc_top20) = (symbol.to_owned(), book.crc_top20());
        Self { line, symbol, id, bid_px, bid_qty, ask_px, ask_qty, crc_top20 }
    }
}

/// Reads the states that belong to the recording at `path` (`NAME.tsv.zst`).
///
/// # Errors
/// When the file cannot be read or is not in the format of the catalogue.
pub fn states(path: &Path) -> Result<Vec<StateRow>> {
    let path = beside(path, ".states.tsv.zst")?;
    let text = String::from_utf8(decompress(&path)?)?;
    states_from_text(&text).with_context(|| path.display().to_string())
}

/// Reads the decompressed text of states.
///
/// # Errors
/// When it is not in the format of the catalogue.
pub fn states_from_text(text: &str) -> Result<Vec<StateRow>> {
    let row = |(index, line)| read_state(line).with_context(|| format!("row {}", index + 1));
    text.lines().enumerate().map(row).collect()
}

fn read_state(line: &str) -> Result<StateRow> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [number, symbol, id, bid_px, bid_qty, ask_px, ask_qty, crc] = fields[..] else {
        bail!("{} fields instead of 8", fields.len());
    };
    Ok(StateRow {
        line: number.parse()?,
        symbol: symbol.to_owned(),
        id: if id.is_empty() { None } else { Some(id.parse()?) },
        bid_px: bid_px.to_owned(),
        bid_qty: bid_qty.to_owned(),
        ask_px: ask_px.to_owned(),
        ask_qty: ask_qty.to_owned(),
        crc_top20: crc.parse()?,
    })
}

/// An expected book out of `NAME.truth.jsonl`; texts as the venue sent them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TruthPoint {
    /// The number of the line after which the book looked like this.
    pub after_message: u64,
    /// The time of that line, as text.
    pub recv_ns: String,
    /// The venue, as recordings call it.
    pub venue: String,
    /// Which symbol.
    pub symbol: String,
    /// The best bids, price and quantity.
    pub bids: Vec<(String, String)>,
    /// The best asks, price and quantity.
    pub asks: Vec<(String, String)>,
    /// The venue's update id: a number, a text of digits, or null where it has none.
    pub id: serde_json::Value,
    /// How many bids there are in all.
    pub bid_levels: usize,
    /// How many asks there are in all.
    pub ask_levels: usize,
    /// How many changes of the book were applied so far.
    pub book_updates: u64,
    /// How many trades were seen so far.
    pub trades: u64,
    /// The market had no level that the recorder could not know of.
    pub trusted: bool,
}

/// Reads the expected books that belong to the recording at `path` (`NAME.tsv.zst`).
///
/// # Errors
/// When the file cannot be read or is not in the format of the catalogue.
pub fn truth_points(path: &Path) -> Result<Vec<TruthPoint>> {
    let path = beside(path, ".truth.jsonl")?;
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| path.display().to_string()))
        .collect()
}

/// The file of all recordings of a folder that says what must happen when lines are lost.
pub const LOST_LINES: &str = "faults.json";

/// What must happen when one line of a recording is lost, out of `faults.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostLine {
    /// Which recording.
    pub recording: String,
    /// The line to leave out.
    pub drop_line: u64,
    /// The symbol that it is about.
    pub symbol: String,
    /// The first line at which a client can know; `None` = nothing in the file proves it.
    pub first_detectable_at_line: Option<u64>,
    /// `gap` or `checksum_bad`.
    pub how: Option<String>,
}

/// Reads the rows of `faults.json` that belong to the recording at `path` (`NAME.tsv.zst`).
///
/// # Errors
/// When the file cannot be read or is not in the format of the catalogue.
pub fn lost_lines(path: &Path) -> Result<Vec<LostLine>> {
    let faults = path.with_file_name(LOST_LINES);
    let text = std::fs::read_to_string(&faults).with_context(|| faults.display().to_string())?;
    let mut rows: Vec<LostLine> = serde_json::from_str(&text)?;
    rows.retain(|row| beside(path, "").is_ok_and(|stem| stem.ends_with(&row.recording)));
    Ok(rows)
}

fn beside(path: &Path, ending: &str) -> Result<PathBuf> {
    let stem = path.to_str().and_then(|path| path.strip_suffix(".tsv.zst"));
    let stem = stem.with_context(|| format!("{} does not end in .tsv.zst", path.display()))?;
    Ok(PathBuf::from(format!("{stem}{ending}")))
}

fn decompress(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    zstd::decode_all(file).with_context(|| path.display().to_string())
}

fn instruments(path: &Path, name: &str) -> Result<Vec<String>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    type Listings = std::collections::BTreeMap<String, Box<RawValue>>;
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let recordings: std::collections::BTreeMap<String, Listings> =
        serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    let listings = recordings.get(name).into_iter().flat_map(std::collections::BTreeMap::values);
    Ok(listings.map(|listing| listing.get().to_owned()).collect())
}
