//! `bench verify`: a recording in, the whole gateway in between, readers at the end; every state that
//! a reader is told must be one in which the market was.
//!
//! It plays the recording as its venue, starts the gateway on it in the same process, and lets
//! readers subscribe before the first line. The oracle shares no code with what it judges: frames are
//! read with a general JSON parser or by the protocol's page, books are kept in plain maps, and the truth is the simulator's,
//! held against the states that come with the recording.

mod number;
mod frame;
mod report;
mod binary;
mod mirror;
mod expected;
mod chain;
mod follow;
mod view;
mod session;
mod progress;
mod reader;
mod venue;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use feed_sim::recording::{self, LostLine};
use feed_sim::replay::{ReplayOptions, Speed};

use crate::clock;
use crate::target::{Feed, Target};
use expected::{Expected, Loss};
use follow::Depth;
use progress::Progress;
use reader::{Manners, Reader, Stage};
use report::{Counts, Difference, Report};
use session::{Encoding, Request, Session};
use venue::Venue;
use view::{Channel, Terms};

/// The budgets that are subscribed to, milliseconds.
const BUDGETS_MS: [u64; 3] = [0, 10, 100];

/// How often the replay is asked where it is.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// What begins must have begun after this long.
const START_MAX: Duration = Duration::from_secs(30);

/// Beyond its own length, a recording may take this long until the last reader has everything.
const SLACK: Duration = Duration::from_secs(90);

/// At most this fast, no reader that reads may lose a trade.
const LOSSLESS_SPEED_MAX: u32 = 10;

/// Prove that a recording arrives at subscribers as it was.
///
/// Plays it as its venue, starts a gateway on it and reads at many budgets and depths at once. Every
/// book must equal a true one, in order, every trade come once, every best price be the venue's. Shows
/// what was counted, and the first difference in full; then the exit code is 1.
#[derive(Args)]
pub(crate) struct Verify {
    /// NAME.tsv.zst, or NAME of a recording in the folder of recordings.
    recording: PathBuf,
    /// How many times faster than recorded, or `max`.
    #[arg(long, default_value = "max")]
    speed: Speed,
    /// The folder of recordings [default: $TICKFAN_RECORDINGS, or ../shared/data beside the workspace]
    #[arg(long)]
    data: Option<PathBuf>,
    /// Leave this line out and expect what the row of `faults.json` says.
    #[arg(long, value_name = "N", conflicts_with = "faults")]
    drop_line: Option<u64>,
    /// Leave out the line of every row of `faults.json`, one after the other.
    #[arg(long)]
    faults: bool,
    /// Read binary frames (`tickfan.bin.v1`).
    #[arg(long)]
    binary: bool,
    /// One JSON object a run.
    #[arg(long)]
    json: bool,
}

impl Verify {
    /// Runs it; returns whether everything was right.
    ///
    /// # Errors
    /// When it could not be run.
    pub(crate) fn run(&self) -> Result<bool> {
        let path = self.path()?;
        eprintln!("reading {}", path.display());
        let expected = Arc::new(Expected::open(&path)?);
        let lost = self.lost_lines(&path)?;
        if lost.is_empty() {
            return self.run_once(&expected, None);
        }
        let mut is_right = true;
        for row in &lost {
            let Some(seen_line) = row.first_detectable_at_line else {
                eprintln!(
                    "skipped: line {} of {}: nothing later in the recording proves its loss",
                    row.drop_line, row.symbol
                );
                continue;
            };
            is_right &= self.run_once(&expected, Some(expected.loss(row, seen_line)?))?;
        }
        Ok(is_right)
    }

    fn path(&self) -> Result<PathBuf> {
        if self.recording.exists() {
            return Ok(self.recording.clone());
        }
        let folder = match &self.data {
            Some(folder) => folder.clone(),
            None => std::env::var_os("TICKFAN_RECORDINGS").map_or_else(
                || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
                PathBuf::from,
            ),
        };
        let name = self.recording.to_str().context("the name of the recording is not UTF-8")?;
        // A path may leave out what every recording's name ends with, just as a bare name does.
        let file = format!("{name}.tsv.zst");
        [PathBuf::from(&file), folder.join(&file)]
            .into_iter()
            .find(|path| path.exists())
            .with_context(|| format!("there is neither {file} nor {0}/{file}", folder.display()))
    }

    const fn encoding(&self) -> Encoding {
        if self.binary { Encoding::Binary } else { Encoding::Json }
    }

    fn lost_lines(&self, path: &Path) -> Result<Vec<LostLine>> {
        if !self.faults && self.drop_line.is_none() {
            return Ok(Vec::new());
        }
        let mut rows = recording::lost_lines(path)?;
        rows.retain(|row| self.drop_line.is_none_or(|line| line == row.drop_line));
        let is_named = self.drop_line.is_some();
        ensure!(!rows.is_empty() || !is_named, "faults.json has no such row for this recording");
        Ok(rows)
    }

    fn run_once(&self, expected: &Arc<Expected>, loss: Option<Loss>) -> Result<bool> {
        let began = clock::now();
        let drop_line = loss.as_ref().map(|loss| loss.line);
        let (readers, difference) = play(expected, self.encoding(), self.speed, loss)?;
        let report = Report {
            recording: expected.recording.name.clone(),
            speed: match self.speed {
                Speed::X(times) => times.to_string(),
                Speed::Max => "max".to_owned(),
            },
            encoding: self.encoding(),
            drop_line,
            took_ms: began.elapsed().as_millis(),
            readers,
            difference,
        };
        if self.json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            println!("{report}");
        }
        Ok(report.difference.is_none())
    }
}

/// Who reads: a name, how, and what.
fn cast() -> Vec<(String, Manners, Vec<Request>)> {
    let depths = [("1", Depth::One), ("20", Depth::Twenty), ("full", Depth::Full)];
    let channels = depths
        .map(|(name, depth)| (format!("book {name}"), Channel::Book(depth)))
        .into_iter()
        .chain([("bbo".to_owned(), Channel::Bbo), ("trades".to_owned(), Channel::Trades)]);
    let mut cast = Vec::new();
    for (name, channel) in channels {
        for budget_ms in BUDGETS_MS {
            let request = Request { channel, budget_ms };
            cast.push((format!("{name}, {budget_ms} ms"), Manners::Reads, vec![request]));
        }
    }
    let at_once = |channel| Request { channel, budget_ms: 0 };
    let everything = [Channel::Book(Depth::Twenty), Channel::Bbo, Channel::Trades].map(at_once);
    cast.push(("stalled, 0 ms".to_owned(), Manners::Stalls, everything.to_vec()));
    cast
}

/// What a reader's thread has to say.
enum News {
    /// How far it is.
    Reached(Stage),
    /// How it ended, with its place among the readers.
    Ended(usize, Counts, Result<(), Box<Difference>>),
}

type Outcome = (Vec<(String, Counts)>, Option<Box<Difference>>);

/// Plays the recording once through a gateway to all readers.
fn play(
    expected: &Arc<Expected>,
    encoding: Encoding,
    speed: Speed,
    loss: Option<Loss>,
) -> Result<Outcome> {
    let drop_line = loss.as_ref().map(|loss| loss.line);
    // A book that nobody holds yet can miss nothing: the line is lost when everybody does.
    let pause_before = drop_line;
    let options =
        ReplayOptions { speed, hold: true, drop_line, pause_before, ..ReplayOptions::default() };
    let venue = Venue::start(Arc::clone(&expected.recording), options)?;
    let target = Target::start(&Feed {
        venue: expected.recording.dialect.venue().name(),
        symbols: expected.symbols.keys().map(String::as_str).collect(),
        address: venue.address,
        depth: expected.depth(),
        trades: expected.trade_stream,
    })?;
    let gateway = target.listen();
    let progress = Progress::new(START_MAX);
    let cast = cast();
    let (news, hear) = mpsc::channel();
    std::thread::scope(|scope| {
        for (place, (name, manners, requests)) in cast.iter().enumerate() {
            let is_lossless = matches!(speed, Speed::X(times) if times <= LOSSLESS_SPEED_MAX);
            let may_lose = !is_lossless || *manners == Manners::Stalls;
            let terms = Terms { loss: loss.clone(), may_lose, encoding };
            let reader = Reader {
                session: Session::new(name, expected, requests, terms),
                manners: *manners,
                progress: &progress,
                lines: expected.recording.lines.len() as u64,
            };
            let news: Sender<News> = news.clone();
            let run = move || {
                // The receiver is there until all readers have ended.
                let reached = |stage| drop(news.send(News::Reached(stage)));
                let (counts, result) = reader.run(gateway, reached);
                let _ = news.send(News::Ended(place, counts, result));
            };
            std::thread::Builder::new().name(format!("reader {name}")).spawn_scoped(scope, run)?;
        }
        drop(news);
        let run = Run { expected, venue: &venue, progress: &progress, hear: &hear };
        let outcome = run.conduct(&cast, speed);
        progress.stop();
        outcome
    })
}

/// The thread that conducts a run.
struct Run<'a> {
    expected: &'a Expected,
    venue: &'a Venue,
    progress: &'a Progress,
    hear: &'a Receiver<News>,
}

impl Run<'_> {
    fn conduct(&self, cast: &[(String, Manners, Vec<Request>)], speed: Speed) -> Result<Outcome> {
        let mut counts = vec![Counts::default(); cast.len()];
        let mut difference = None;
        let (mut subscribed, mut ready, mut ended, mut is_played) = (0, 0, 0, false);
        while ended < cast.len() {
            match self.hear.recv_timeout(ASK_EVERY) {
                Ok(News::Reached(Stage::Subscribed)) => subscribed += 1,
                Ok(News::Reached(Stage::ReadyForLoss)) => ready += 1,
                Ok(News::Ended(place, counted, result)) => {
                    ended += 1;
                    counts[place] = counted;
                    if let Err(found) = result {
                        self.progress.stop();
                        difference.get_or_insert(found);
                    }
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("a reader ended without a word"),
            }
            let status = self.venue.status()?;
            self.progress.tell(status.line, status.state == "ended");
            let (has, needs) = (status.subscriptions, self.streams());
            ensure!(
                has >= needs || !self.progress.is_late(),
                "the gateway subscribed to {has} streams of the venue instead of {needs}"
            );
            if !is_played && subscribed == cast.len() && has >= needs {
                is_played = true;
                eprintln!("{} readers are subscribed; playing", cast.len());
                self.progress.allow(self.length(speed) + SLACK);
                self.venue.play()?;
            }
            if status.state == "paused" && ready == cast.len() {
                self.venue.play()?;
            }
        }
        let names = cast.iter().map(|(name, ..)| name.clone());
        Ok((names.zip(counts).collect(), difference))
    }

    /// What the gateway subscribes to: books, trades, and best prices where they have a stream of
    /// their own.
    fn streams(&self) -> usize {
        let channels = if self.expected.has_quote_stream() { 3 } else { 2 };
        channels * self.expected.symbols.len()
    }

    fn length(&self, speed: Speed) -> Duration {
        let lines = &self.expected.recording.lines;
        let (first, last) = (lines.first(), lines.last());
        let length_ns = first.zip(last).map_or(0, |(first, last)| last.recv_ns - first.recv_ns);
        match speed {
            Speed::X(times) => Duration::from_nanos(length_ns) / times,
            Speed::Max => Duration::ZERO,
        }
    }
}
