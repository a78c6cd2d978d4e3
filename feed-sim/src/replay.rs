//! A recording → its venue on a socket: the recorded messages for who subscribed to them, images when
//! they are asked for, and the control of the replay itself.
//!
//! Used by the binary, the bench and tests. One player task goes through the lines; each connection is
//! a task of its own. A line is never lost to a slow client: the stream waits for it, and a client that
//! takes nothing for ten seconds is closed.

mod script;
mod stage;
pub(crate) mod stepped;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use crate::door::{self, Answer, Exchange, Outbox, Target, lock};
use crate::recording::{Line, Recording};
use crate::venue::{Rest, binance};
use script::{Cue, Script};
use stage::{Image, NoImage, Obstacle, Stage, State};

/// Lines after which the player lets others run although nothing holds it up.
const YIELD_LINES: usize = 256;

/// How fast a recording is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speed {
    /// This many times faster than it was recorded; at least 1.
    X(u32),
    /// As fast as the subscribers take it.
    Max,
}

impl std::str::FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "max" => Ok(Self::Max),
            _ => match text.parse() {
                Ok(0) | Err(_) => Err("a whole number from 1, or max".to_owned()),
                Ok(times) => Ok(Self::X(times)),
            },
        }
    }
}

/// How a recording is played.
#[derive(Debug, Clone, Copy)]
pub struct ReplayOptions {
    /// How fast.
    pub speed: Speed,
    /// Wait for `POST /replay/start` instead of the first subscription.
    pub hold: bool,
    /// At the end close every connection and begin again.
    pub repeat: bool,
    /// The number of a line that is left out of the stream, though not out of the truth.
    pub drop_line: Option<u64>,
    /// The number of a line before which it waits for another `POST /replay/start`, so that who drives
    /// it can see to it that everything so far has arrived.
    pub pause_before: Option<u64>,
    /// How long after the first subscription it starts.
    pub start_delay: Duration,
}

impl Default for ReplayOptions {
    fn default() -> Self {
        Self {
            speed: Speed::X(1),
            hold: false,
            repeat: false,
            drop_line: None,
            pause_before: None,
            start_delay: Duration::from_millis(500),
        }
    }
}

/// Serves a recording on a listener until the future is dropped, which closes every connection.
///
/// # Errors
/// When the recording is empty or the listener fails for good.
pub async fn serve(
    listener: TcpListener,
    recording: Arc<Recording>,
    options: ReplayOptions,
) -> Result<()> {
    ensure!(!recording.lines.is_empty(), "the recording {} is empty", recording.name);
    let script = Script::new(&recording);
    let stage = Mutex::new(Stage::new(&recording, &script));
    let replay = Arc::new(Replay { recording, options, script, stage, changed: Notify::new() });
    tokio::select! {
        served = door::serve(listener, Arc::clone(&replay)) => served,
        () = replay.play() => Ok(()),
    }
}

struct Replay {
    recording: Arc<Recording>,
    options: ReplayOptions,
    script: Script,
    stage: Mutex<Stage>,
    /// A client did something that the player may wait for.
    changed: Notify,
}

impl Replay {
    /// Plays the recording, again and again if so asked, and then does nothing for ever.
    async fn play(&self) {
        let mut hold = self.options.hold;
        loop {
            self.wait_for_start(hold).await;
            lock(&self.stage).state = State::Running;
            self.play_lines().await;
            if !self.options.repeat {
                lock(&self.stage).state = State::Ended;
                std::future::pending::<()>().await;
            }
            lock(&self.stage).begin_again(&self.recording, &self.script);
            hold = false;
        }
    }

    async fn wait_for_start(&self, hold: bool) {
        self.until(|stage| stage.is_asked_to_start || (!hold && stage.subscriptions() > 0)).await;
        tokio::select! {
            () = self.until(|stage| stage.is_asked_to_start) => {}
            () = sleep(self.options.start_delay) => {}
        }
    }

    async fn until(&self, condition: impl Fn(&Stage) -> bool) {
        loop {
            let changed = self.changed.notified();
            if condition(&lock(&self.stage)) {
                return;
            }
            changed.await;
        }
    }

    async fn play_lines(&self) {
        let mut began = Instant::now();
        let first_ns = self.recording.lines[0].recv_ns;
        for (index, (line, cue)) in self.recording.lines.iter().zip(&self.script.cues).enumerate() {
            if self.options.pause_before == Some(line.number) {
                began += self.pause().await;
            }
            if let Speed::X(times) = self.options.speed {
                let since_ns = line.recv_ns.saturating_sub(first_ns) / u64::from(times.max(1));
                let due = began + Duration::from_nanos(since_ns);
                if due > Instant::now() {
                    sleep_until(due).await;
                }
            }
            loop {
                let changed = self.changed.notified();
                match self.try_line(line, cue) {
                    None => break,
                    Some(Obstacle::Client) => changed.await,
                    Some(Obstacle::Full(outbox)) => outbox.room().await,
                }
            }
            if index % YIELD_LINES == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Waits until it is told to go on; says for how long.
    async fn pause(&self) -> Duration {
        let paused = Instant::now();
        lock(&self.stage).pause();
        self.until(|stage| stage.is_asked_to_start).await;
        lock(&self.stage).state = State::Running;
        paused.elapsed()
    }

    /// Plays a line, or says why not yet.
    fn try_line(&self, line: &Line, cue: &Cue) -> Option<Obstacle> {
        let mut stage = lock(&self.stage);
        let obstacle = stage.obstacle(cue, self.options.speed == Speed::Max);
        if obstacle.is_none() {
            let is_dropped = self.options.drop_line == Some(line.number);
            stage.play(line, &self.script, cue, is_dropped);
        }
        obstacle
    }

    /// The time of the recording at which the stream is.
    fn at_ns(&self, stage: &Stage) -> u64 {
        self.recording.lines[stage.position.saturating_sub(1)].recv_ns
    }

    fn status(&self) -> Answer {
        let stage = lock(&self.stage);
        Answer::ok(format!(
            r#"{{"state":"{}","line":{},"subscriptions":{}}}"#,
            stage.state.name(),
            stage.position,
            stage.subscriptions()
        ))
    }

    async fn depth(&self, target: &Target) -> Answer {
        let symbol = target.value("symbol").unwrap_or_default().to_uppercase();
        let limit = match target.value("limit").map(str::parse).transpose() {
            Ok(limit) => limit,
            Err(_) => {
                return Answer::error(
                    400,
                    binance::rest_error(-1100, "Illegal characters found in parameter 'limit'."),
                );
            }
        };
        let image = {
            let mut stage = lock(&self.stage);
            let at_ns = self.at_ns(&stage);
            stage.image(&symbol, limit, at_ns)
        };
        match image {
            Ok(Image::Now(body)) => Answer::ok(body),
            Ok(Image::Later(later)) => {
                self.changed.notify_waiters();
                later.await.map_or_else(
                    |_| Answer::error(503, binance::rest_error(-1001, "The replay began again.")),
                    Answer::ok,
                )
            }
            Err(NoImage::UnknownSymbol) => {
                Answer::error(400, binance::rest_error(-1121, "Invalid symbol."))
            }
            Err(NoImage::TooMany) => {
                Answer::error(429, binance::rest_error(-1003, "Too many requests."))
            }
        }
    }

    fn instruments(&self, target: &Target) -> Answer {
        if self.recording.instruments.is_empty() {
            let message = "This recording has no list of instruments.";
            return Answer::error(404, binance::rest_error(-1, message));
        }
        let Recording { dialect, instruments, .. } = &*self.recording;
        Answer::ok(dialect.instruments(&target.query, instruments))
    }
}

impl Exchange for Replay {
    async fn answer(&self, target: Target) -> Answer {
        let rest = self.recording.dialect.rest(&target.path);
        match (target.path.as_str(), rest) {
            ("/replay", _) => self.status(),
            ("/replay/start", _) if target.is_post => {
                lock(&self.stage).is_asked_to_start = true;
                self.changed.notify_waiters();
                self.status()
            }
            (_, Some(Rest::Depth)) => self.depth(&target).await,
            (_, Some(Rest::Instruments)) => self.instruments(&target),
            _ => Answer::error(404, binance::rest_error(-1, "There is nothing at this path.")),
        }
    }

    fn open(&self, target: &Target, outbox: Arc<Outbox>) -> u64 {
        let connection = lock(&self.stage).open(target, outbox);
        self.changed.notify_waiters();
        connection
    }

    fn message(&self, connection: u64, text: &str) {
        {
            let mut stage = lock(&self.stage);
            let at_ns = self.at_ns(&stage);
            stage.message(connection, text, &self.script, at_ns);
        }
        self.changed.notify_waiters();
    }

    fn closed(&self, connection: u64) {
        lock(&self.stage).closed(connection);
        self.changed.notify_waiters();
    }
}
