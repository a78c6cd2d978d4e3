//! Lines, states and expected books → the files of a recording, in the format of the catalogue.
//!
//! Called by whoever records, with everything in order. It keeps nothing, so that a recording may be
//! longer than memory, and it does not know what is true: that is its caller's to say.

use std::fmt;
use std::io::Write;
use std::path::Path;

use anyhow::{Result, ensure};

use super::draft::Draft;
use super::{Kind, LOST_LINES, LostLine, StateRow, TruthPoint};
use crate::truth::{FNV_BASIS, fnv1a};

/// How hard a file is pressed. Always the same, so that same texts are same files.
const ZSTD_LEVEL: i32 = 9;

/// What all messages of a venue hash to, in order: FNV-1a, 64 bits, over the bytes of each and a line
/// feed behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(FNV_BASIS)
    }
}

impl Digest {
    /// The venue sent this, too.
    pub fn add(&mut self, payload: &[u8]) {
        self.0 = fnv1a(self.0, payload.iter().copied().chain([b'\n']));
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Lines of all kinds.
    pub lines: u64,
    /// Lines that are messages of the venue.
    pub messages: u64,
    /// Rows of states.
    pub states: u64,
    /// What the messages hash to.
    pub digest: Digest,
}

/// The files of a recording on their way: lines and states into an `L` each, expected books into a `T`.
#[derive(Debug, Default)]
pub struct Writer<L, T> {
    lines: L,
    states: L,
    truth: T,
    written: Written,
}

/// A writer of files.
pub type FileWriter = Writer<zstd::Encoder<'static, Draft>, Draft>;

impl<L: Write, T: Write> Writer<L, T> {
    /// What was written so far.
    pub const fn written(&self) -> Written {
        self.written
    }

    /// Writes a line, and returns its number.
    ///
    /// # Errors
    /// When a field holds what separates fields or lines, or it cannot be written.
    pub fn line(&mut self, recv_ns: u64, kind: Kind, stream: &str, payload: &[u8]) -> Result<u64> {
        let separates = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r');
        ensure!(
            !stream.as_bytes().iter().chain(payload).any(separates),
            "a recording cannot hold a tab or a line break, and this has one: {}",
            String::from_utf8_lossy(payload)
        );
        write!(self.lines, "{recv_ns}\t{}\t{stream}\t", kind.name())?;
        self.lines.write_all(payload)?;
        self.lines.write_all(b"\n")?;
        self.written.lines += 1;
        if kind == Kind::Recv {
            self.written.messages += 1;
            self.written.digest.add(payload);
        }
        Ok(self.written.lines)
    }

    /// Writes what a book was after a line that changed it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn state(&mut self, row: &StateRow) -> Result<()> {
        let StateRow { line, symbol, id, bid_px, bid_qty, ask_px, ask_qty, crc_top20 } = row;
        let id = id.map_or_else(String::new, |id| id.to_string());
        writeln!(
            self.states,
            "{line}\t{symbol}\t{id}\t{bid_px}\t{bid_qty}\t{ask_px}\t{ask_qty}\t{crc_top20}"
        )?;
        self.written.states += 1;
        Ok(())
    }

    /// Writes an expected book.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn truth(&mut self, point: &TruthPoint) -> Result<()> {
        writeln!(self.truth, "{}", serde_json::to_string(point)?)?;
        Ok(())
    }
}

impl Writer<Vec<u8>, Vec<u8>> {
    /// The texts that were written into memory: lines, states, expected books.
    pub fn into_texts(self) -> [Vec<u8>; 3] {
        [self.lines, self.states, self.truth]
    }
}

impl FileWriter {
    /// Begins `NAME.tsv.zst`, `NAME.states.tsv.zst` and `NAME.truth.jsonl` in a folder.
    ///
    /// # Errors
    /// When there is such a file already, or it cannot be created.
    pub fn create(folder: &Path, name: &str) -> Result<Self> {
        let file = |ending: &str| Draft::create(&folder.join(format!("{name}{ending}")));
        let pressed = |ending: &str| anyhow::Ok(zstd::Encoder::new(file(ending)?, ZSTD_LEVEL)?);
        Ok(Self {
            lines: pressed(".tsv.zst")?,
            states: pressed(".states.tsv.zst")?,
            truth: file(".truth.jsonl")?,
            written: Written::default(),
        })
    }

    /// Ends the files.
    ///
    /// # Errors
    /// When the last of them cannot be written.
    pub fn finish(self) -> Result<Written> {
        self.finish_beside(Vec::new())
    }

    /// Ends the files, and the `faults.json` of this recording with them.
    ///
    /// # Errors
    /// When the last of them cannot be written.
    pub fn finish_with(self, losses: LostWriter, name: &str, rows: &[LostLine]) -> Result<Written> {
        self.finish_beside(vec![losses.write(name, rows)?])
    }

    /// Where there are the lines, there is all that belongs to them.
    fn finish_beside(self, mut drafts: Vec<Draft>) -> Result<Written> {
        drafts.extend([self.truth, self.states.finish()?, self.lines.finish()?]);
        Draft::keep(drafts)?;
        Ok(self.written)
    }
}

/// `faults.json` on its way.
#[derive(Debug)]
pub struct LostWriter(Draft);

impl LostWriter {
    /// Begins it in a folder.
    ///
    /// # Errors
    /// When there is one already, or it cannot be created.
    pub fn create(folder: &Path) -> Result<Self> {
        Ok(Self(Draft::create(&folder.join(LOST_LINES))?))
    }

    /// Writes the rows of the recording with this name, and ends the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self, name: &str, rows: &[LostLine]) -> Result<()> {
        Draft::keep(vec![self.write(name, rows)?])
    }

    fn write(mut self, name: &str, rows: &[LostLine]) -> Result<Draft> {
        let named = |row: &LostLine| LostLine { recording: name.to_owned(), ..row.clone() };
        let rows: Vec<LostLine> = rows.iter().map(named).collect();
        writeln!(self.0, "{}", serde_json::to_string_pretty(&rows)?)?;
        Ok(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::{Recording, states_from_text};

    #[test]
    fn what_is_written_is_read_back() {
        let mut writer = Writer::<Vec<u8>, Vec<u8>>::default();
        for (kind, payload) in [(Kind::Open, "ws://a/b"), (Kind::Recv, "{}"), (Kind::Recv, "1")] {
            writer.line(7, kind, "ws", payload.as_bytes()).unwrap();
        }
        let row = StateRow {
            line: 2,
            symbol: "A-B".to_owned(),
            id: None,
            bid_px: "10.5".to_owned(),
            bid_qty: "2".to_owned(),
            ask_px: String::new(),
            ask_qty: String::new(),
            crc_top20: 9,
        };
        writer.state(&row).unwrap();
        let written = writer.written();
        assert_eq!((written.lines, written.messages, written.states), (3, 2, 1));
        let [lines, states, _] = writer.into_texts();
        let recording = Recording::from_text("okx-x", lines).unwrap();
        let read: Vec<_> = recording.lines.iter().map(|line| (line.kind, line.text())).collect();
        assert_eq!(read, [(Kind::Open, "ws://a/b"), (Kind::Recv, "{}"), (Kind::Recv, "1")]);
        assert_eq!(states_from_text(std::str::from_utf8(&states).unwrap()).unwrap(), [row]);
    }

    #[test]
    fn a_line_break_is_refused() {
        let mut writer = Writer::<Vec<u8>, Vec<u8>>::default();
        for payload in ["a\nb", "a\tb", "a\r"] {
            assert!(writer.line(7, Kind::Recv, "ws", payload.as_bytes()).is_err(), "{payload:?}");
        }
        assert_eq!(writer.written(), Written::default());
    }

    #[test]
    fn the_digest_depends_on_the_messages_and_their_order() {
        let digest = |payloads: &[&str]| {
            let mut digest = Digest::default();
            payloads.iter().for_each(|payload| digest.add(payload.as_bytes()));
            digest.to_string()
        };
        assert_eq!(digest(&[]), "cbf29ce484222325");
        // Made with an independent implementation of the published definition.
        assert_eq!(digest(&["a"]), "089bdc07b544e7b2");
        assert_ne!(digest(&["a", "b"]), digest(&["b", "a"]));
        assert_ne!(digest(&["ab"]), digest(&["a", "b"]));
    }
}
