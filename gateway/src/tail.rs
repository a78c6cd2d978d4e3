//! `tickfan tail`: the gateway's stream, as lines on a terminal or for another program to read.
//!
//! The first client of the gateway, and so its first check: everything that it prints it has also
//! rebuilt in a [`Mirror`], and it stops with exit code 1 when it was told what cannot be true.
//! `main` runs it on a runtime of its own. Updates go to `out` and nothing else does; words for a
//! person go to `notes`. It only speaks the protocol, and knows nothing of how a gateway works.

use std::fmt::Write as _;
use std::future::Future;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use fastwebsockets::{FragmentCollector, Frame, OpCode, Payload, WebSocketError, handshake};
use http_body_util::Empty;
use hyper::header::{CONNECTION, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL};
use hyper::header::{SEC_WEBSOCKET_VERSION, UPGRADE};
use hyper::rt::Executor;
use hyper::upgrade::Upgraded;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use thiserror::Error;
use tickfan_core::market::{Channel, Nanos};
use tickfan_core::view::{BudgetClass, Depth};
use tickfan_core::wire::binary::RawFrame;
use tickfan_core::wire::message::{self, Control, Op, Subscribe, SubscribedView};
use tickfan_core::wire::{Encoding, Received};
use tokio::net::TcpStream;
use tokio::time;

use crate::clock::Clock;

pub mod mirror;

use mirror::{Applied, Broken, Mirror, Number, ViewMirror};

/// Connecting and upgrading together; whoever waits at a terminal wants to know by then.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a gateway serves its stream when the URL names no path.
const STREAM_PATH: &str = "/v1/stream";

const NANOS_PER_MICRO: Nanos = 1_000;

/// Print the updates of some symbols, and check that they can be true.
///
/// Ages are in milliseconds, since the exchange's time and since the gateway's receipt.
#[derive(Debug, Clone, clap::Args)]
pub struct TailOptions {
    /// Symbols like sim:BTCUSDT, or sim:* for all of a venue
    #[arg(required = true, value_name = "SYMBOL")]
    pub symbols: Vec<String>,
    /// What to watch: book, bbo or trades
    #[arg(long, default_value = "book", value_parser = parse_channel)]
    pub channel: Channel,
    /// Levels of each side, or full; rounded up to a depth on offer
    #[arg(long, default_value = "10", value_parser = parse_depth)]
    pub depth: Depth,
    /// The longest that a change may wait in the gateway; rounded down to a budget on offer
    #[arg(long, default_value_t = 50)]
    pub budget_ms: u64,
    /// Print the updates as they came, one JSON object a line, with the symbol added
    #[arg(long)]
    pub json: bool,
    /// Ask for the updates in binary (tickfan.bin.v1); they are printed as ever
    #[arg(long)]
    pub binary: bool,
    /// Stop after this many updates
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// The stream of the gateway
    #[arg(long, default_value = "ws://127.0.0.1:8080/v1/stream")]
    pub url: String,
}

impl TailOptions {
    const fn encoding(&self) -> Encoding {
        if self.binary { Encoding::Binary } else { Encoding::Json }
    }
}

fn parse_channel(name: &str) -> Result<Channel, String> {
    Channel::from_name(name).ok_or_else(|| "channels are book, bbo, trades".to_owned())
}

fn parse_depth(text: &str) -> Result<Depth, String> {
    match text.parse() {
        Ok(levels) if levels > 0 => Ok(Depth::at_least(levels)),
        _ if text == "full" => Ok(Depth::Full),
        _ => Err("write a number of levels, or full".to_owned()),
    }
}

/// Why `tail` ended without having been told to.
#[derive(Debug, Error)]
enum TailError {
    #[error("{0:?} is no URL of a gateway; write one like ws://127.0.0.1:8080/v1/stream")]
    Url(String),
    #[error(
        "cannot connect to {url} ({cause}); start a gateway with `tickfan`, or name one with --url"
    )]
    Connect { url: String, cause: String },
    #[error("{url} refuses the connection ({cause}); a gateway serves its stream at {STREAM_PATH}")]
    Handshake { url: String, cause: WebSocketError },
    #[error("{symbol}: {words}")]
    Refused { symbol: String, words: String },
    #[error("the gateway answers: {0}")]
    Gateway(String),
    #[error("the gateway closed the connection: {code} {reason}")]
    Closed { code: u16, reason: String },
    #[error("the connection was lost: {0}")]
    Lost(WebSocketError),
    #[error(
        "BROKEN CHAIN in {symbol}: {broken}. This is a fault of the gateway; it was told by: {text}"
    )]
    Broken { symbol: String, broken: Broken, text: String },
    #[error("the gateway sent updates in {came}, though it was asked for {asked}")]
    Encoding { asked: &'static str, came: &'static str },
    #[error("the gateway sent what is not of protocol 1 ({cause}): {text}")]
    NotUnderstood { cause: String, text: String },
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

/// Follows the stream until the count is reached, Ctrl-C, or an error, which it reports on standard
/// error.
pub async fn run(options: TailOptions) -> ExitCode {
    let (mut out, mut notes) = (io::stdout(), io::stderr());
    // Reading is not cancel-safe, and need not be: who is interrupted reads no more.
    let ended = tokio::select! {
        ended = follow(&options, &mut out, &mut notes) => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our lines has had enough of them.
        Err(TailError::Output(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tickfan tail: {error}");
            ExitCode::FAILURE
        }
    }
}

type Stream = FragmentCollector<TokioIo<Upgraded>>;

async fn follow(
    options: &TailOptions,
    out: &mut impl Write,
    notes: &mut impl Write,
) -> Result<(), TailError> {
    let mut stream = connect(&options.url, options.encoding()).await?;
    let subscribe = Op::Subscribe(Subscribe {
        channel: options.channel,
        symbols: options.symbols.clone(),
        depth: options.depth,
        last: 0,
        budget: BudgetClass::at_most(options.budget_ms),
    });
    let request = message::Request { id: None, op: subscribe }.to_json();
    let text = Frame::text(Payload::Owned(request.into_bytes()));
    stream.write_frame(text).await.map_err(TailError::Lost)?;

    let mut tail = Tail {
        clock: Clock::start(),
        mirror: Mirror::default(),
        json: options.json,
        encoding: options.encoding(),
        left: options.count,
    };
    while tail.left != Some(0) {
        let frame = stream.read_frame().await.map_err(TailError::Lost)?;
        match frame.opcode {
            OpCode::Text => {
                let text = String::from_utf8_lossy(&frame.payload);
                tail.text(&text, out, notes)?;
                out.flush()?;
            }
            OpCode::Binary => {
                tail.binary(&frame.payload, out)?;
                out.flush()?;
            }
            OpCode::Close => return Err(closed(&frame.payload)),
            _ => {}
        }
    }
    // A courtesy: everything that was asked for has come.
    let _ = stream.write_frame(Frame::close(1000, b"")).await;
    Ok(())
}

async fn connect(url: &str, encoding: Encoding) -> Result<Stream, TailError> {
    let no_url = || TailError::Url(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| no_url())?;
    let (Some("ws"), Some(host)) = (uri.scheme_str(), uri.host()) else {
        return Err(no_url());
    };
    let address = format!("{host}:{}", uri.port_u16().unwrap_or(80));
    let path = match uri.path_and_query() {
        Some(path) if path != "/" => path.as_str(),
        _ => STREAM_PATH,
    };
    let request = Request::get(path)
        .header(HOST, &address)
        .header(UPGRADE, "websocket")
        .header(CONNECTION, "upgrade")
        .header(SEC_WEBSOCKET_KEY, handshake::generate_key())
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_PROTOCOL, encoding.subprotocol())
        .body(Empty::<Bytes>::new())
        .map_err(|_| no_url())?;

    let unreachable = |cause| TailError::Connect { url: url.to_owned(), cause };
    let upgraded = async {
        let socket = TcpStream::connect(&address).await;
        let socket = socket.map_err(|error| unreachable(error.to_string()))?;
        let upgraded = handshake::client(&Spawn, request, socket).await;
        upgraded.map_err(|cause| TailError::Handshake { url: url.to_owned(), cause })
    };
    let (socket, _) = time::timeout(CONNECT_TIMEOUT, upgraded)
        .await
        .unwrap_or_else(|_| Err(unreachable("no answer in time".to_owned())))?;
    Ok(FragmentCollector::new(socket))
}

/// hyper runs its side of the connection as a task.
struct Spawn;

impl<F> Executor<F> for Spawn
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        tokio::spawn(future);
    }
}

fn closed(payload: &[u8]) -> TailError {
    let (code, reason) = match payload {
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
        // The code that stands for a close frame without one (RFC 6455 §7.1.5).
        _ => (1005, &[][..]),
    };
    TailError::Closed { code, reason: String::from_utf8_lossy(reason).into_owned() }
}

/// A text message: a data frame if it has an `n`, else a control message.
#[derive(Deserialize)]
struct Text<'a> {
    n: Option<u64>,
    #[serde(default)]
    ts: u64,
    #[serde(default)]
    late: Vec<usize>,
    #[serde(borrow, default)]
    u: Vec<&'a RawValue>,
}

/// What is kept from message to message.
struct Tail {
    clock: Clock,
    mirror: Mirror,
    json: bool,
    /// What was asked for.
    encoding: Encoding,
    /// Updates still to be printed, if they are counted.
    left: Option<u64>,
}

impl Tail {
    fn text(
        &mut self,
        text: &str,
        out: &mut impl Write,
        notes: &mut impl Write,
    ) -> Result<(), TailError> {
        let frame: Text<'_> =
            serde_json::from_str(text).map_err(|error| not_understood(error, text))?;
        let Some(n) = frame.n else {
            // A control message of a kind that we do not know is to be ignored.
            return Control::parse(text).map_or(Ok(()), |control| self.control(control, notes));
        };
        self.frame(Encoding::Json, n, text)?;
        for (index, raw) in frame.u.iter().enumerate() {
            let update: Received = serde_json::from_str(raw.get())
                .map_err(|error| not_understood(error, raw.get()))?;
            let late = frame.late.contains(&index);
            self.update(&update, raw.get(), frame.ts, late, out)?;
            if self.left == Some(0) {
                break;
            }
        }
        Ok(())
    }

    fn binary(&mut self, bytes: &[u8], out: &mut impl Write) -> Result<(), TailError> {
        let text = format!("a binary message of {} bytes", bytes.len());
        let frame = RawFrame::read(bytes).map_err(|error| not_understood(error, &text))?;
        self.frame(Encoding::Binary, frame.n, &text)?;
        for (index, record) in frame.records().enumerate() {
            let update = record.map_err(|error| not_understood(error, &text))?.received();
            let late = frame.late >> index & 1 == 1;
            let told = serde_json::to_string(&update).map_err(|e| not_understood(e, &text))?;
            self.update(&update, &told, frame.ts_ns / NANOS_PER_MICRO, late, out)?;
            if self.left == Some(0) {
                break;
            }
        }
        Ok(())
    }

    /// A data frame begins.
    fn frame(&mut self, came: Encoding, n: u64, text: &str) -> Result<(), TailError> {
        if came != self.encoding {
            let asked = self.encoding.subprotocol();
            return Err(TailError::Encoding { asked, came: came.subprotocol() });
        }
        self.mirror.frame(n).map_err(|broken| fault("the connection", broken, text))
    }

    /// An update of a frame, which is this JSON object in the words of the protocol.
    fn update(
        &mut self,
        update: &Received,
        raw: &str,
        ts_us: u64,
        late: bool,
        out: &mut impl Write,
    ) -> Result<(), TailError> {
        let applied = self.mirror.update(update).map_err(|broken| {
            let view = view_of(update).and_then(|view| self.mirror.view(view));
            fault(view.map_or("an unknown view", |view| &view.symbol), broken, raw)
        })?;
        let Some(applied) = applied else { return Ok(()) };
        let Some(view) = self.mirror.view(applied.view) else { return Ok(()) };
        if self.json {
            // The update is an object: the symbol becomes its first member.
            let symbol = Value::from(view.symbol.as_str());
            writeln!(out, "{{\"symbol\":{symbol},{}", &raw[1..])?;
        } else {
            let now_us = (self.clock.now() / NANOS_PER_MICRO) as i64;
            let line = Line { ts_us, now_us, view, update, applied, late };
            writeln!(out, "{}", line.text())?;
        }
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
        Ok(())
    }

    fn control(&mut self, control: Control, notes: &mut impl Write) -> Result<(), TailError> {
        match control {
            Control::Subscribed { results, .. } => {
                for result in results {
                    let Some(ack) = result.subscribed else {
                        let words = result.message.unwrap_or_else(|| "refused".to_owned());
                        return Err(TailError::Refused { symbol: result.symbol, words });
                    };
                    self.mirror
                        .subscribed(&result.symbol, &ack)
                        .map_err(|broken| fault(&result.symbol, broken, "its acknowledgement"))?;
                    writeln!(notes, "{}", acknowledged(&result.symbol, &ack))?;
                }
                Ok(())
            }
            Control::Error { message, .. } => Err(TailError::Gateway(message)),
            Control::Drain { in_ms, reason, .. } => {
                writeln!(notes, "the gateway will close this connection in {in_ms} ms: {reason}")?;
                Ok(())
            }
            Control::Hello { .. }
            | Control::Unsubscribed { .. }
            | Control::Instruments { .. }
            | Control::Pong { .. } => Ok(()),
        }
    }
}

fn fault(symbol: &str, broken: Broken, text: &str) -> TailError {
    TailError::Broken { symbol: symbol.to_owned(), broken, text: text.to_owned() }
}

fn not_understood(error: impl std::error::Error, text: &str) -> TailError {
    TailError::NotUnderstood { cause: error.to_string(), text: text.to_owned() }
}

/// The view that an update names.
fn view_of(update: &Received) -> Option<u32> {
    match update {
        Received::Image { v, .. }
        | Received::Delta { v, .. }
        | Received::Bbo { v, .. }
        | Received::Trades { v, .. }
        | Received::State { v, .. } => *v,
        Received::Stats(_) | Received::Unknown => None,
    }
}

/// What is in force, for a person.
fn acknowledged(symbol: &str, ack: &SubscribedView) -> String {
    let mut words = format!("{symbol}: {}", ack.channel);
    if !ack.depth.is_null() {
        let _ = write!(words, " to depth {}", ack.depth.to_string().trim_matches('"'));
    }
    let _ = write!(words, " within {} ms, {}", ack.budget_ms, ack.state);
    if ack.budget == "infeasible" {
        let _ = write!(words, "; the gateway cannot hold that budget at present");
        if let Some(p99_us) = ack.p99_us {
            let _ = write!(words, " (p99 {p99_us} us)");
        }
    }
    words
}

/// An update as one line for a person.
struct Line<'a> {
    ts_us: u64,
    now_us: i64,
    /// The view after the update.
    view: &'a ViewMirror,
    update: &'a Received,
    applied: Applied,
    late: bool,
}

impl Line<'_> {
    fn text(&self) -> String {
        let mut line = format!("{} {} ", time_of_day(self.ts_us), self.view.symbol);
        // Nothing can go wrong in writing to a string.
        let _ = self.what(&mut line);
        if self.applied.merged > 0 {
            let _ = write!(line, "  merged {}", self.applied.merged);
        }
        if self.late {
            line.push_str("  LATE");
        }
        line
    }

    fn what(&self, line: &mut String) -> std::fmt::Result {
        let best = |best: Option<(&Number, &Number)>| {
            best.map_or_else(|| "-".to_owned(), |(px, qty)| format!("{px} x {qty}"))
        };
        let bbo = format!("{} | {}", best(self.view.best_bid()), best(self.view.best_ask()));
        let levels = format!("{}+{} levels", self.view.bids.len(), self.view.asks.len());
        match self.update {
            Received::Image { te, tr, state, .. } => {
                write!(line, "image  {bbo}  {levels}, {state}")?;
                self.age(line, *te, *tr)
            }
            Received::Delta { te, tr, b, a, .. } => {
                write!(line, "delta  {bbo}  {levels}, {} changed", b.len() + a.len())?;
                self.age(line, *te, *tr)
            }
            Received::Bbo { te, tr, .. } => {
                write!(line, "bbo    {bbo}")?;
                self.age(line, *te, *tr)
            }
            Received::Trades { lost, tr, x, .. } => {
                line.push_str("trades ");
                if *lost > 0 {
                    write!(line, "{lost} LOST ")?;
                }
                let Some((te, px, qty, side, _)) = x.last() else { return Ok(()) };
                let side = if side.is_empty() { "?" } else { side };
                write!(line, "{side} {px} x {qty}")?;
                if x.len() > 1 {
                    write!(line, ", the last of {}", x.len())?;
                }
                self.age(line, Some(*te), *tr)
            }
            Received::State { state, why, e, .. } => {
                write!(line, "state  {state}: {why}, epoch {e}")
            }
            Received::Stats(_) | Received::Unknown => Ok(()),
        }
    }

    /// How old the newest news of the update is, by the exchange's clock and by the gateway's.
    fn age(&self, line: &mut String, te_us: Option<u64>, tr_us: Option<u64>) -> std::fmt::Result {
        let age = |then_us: Option<u64>| match then_us {
            Some(then_us) if then_us > 0 => {
                format!("{:.1}", (self.now_us - then_us as i64) as f64 / 1e3)
            }
            _ => "-".to_owned(),
        };
        write!(line, "  age {}/{} ms", age(te_us), age(tr_us))
    }
}

/// `hh:mm:ss.micros` of a time in microseconds since the Unix epoch, in UTC.
fn time_of_day(time_us: u64) -> String {
    let (seconds, micros) = (time_us / 1_000_000, time_us % 1_000_000);
    let (hours, minutes) = (seconds / 3_600 % 24, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{micros:06}", seconds % 60)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use tickfan_core::market::{Level, Px, Qty, Scales, State, Why};
    use tickfan_core::wire::{FrameHead, Head, Payload as Wire, StatsReport, Update};
    use tokio_tungstenite::tungstenite;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::handshake::server;
    use tokio_tungstenite::tungstenite::protocol::CloseFrame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

    use super::*;

    const HELLO: &str = r#"{"type":"hello","protocol":1,"gateway":"g","session":"s","time":1,
        "limits":{"subscriptions":1,"message_bytes":1,"messages_per_s":1},
        "budgets_ms":[],"depths":[]}"#;
    const ACK: &str = r#"{"type":"subscribed","results":[{"symbol":"sim:A","ok":true,"view":3,
        "channel":"book","depth":10,"budget_ms":50,"budget":"infeasible","p99_us":70000,
        "price_scale":2,"qty_scale":8,"epoch":17,"s":1040,"state":"live"}]}"#;
    const IMAGE: &str =
        r#"{"t":"image","v":3,"e":17,"s":1040,"state":"live","b":[["100","1"]],"a":[]}"#;
    const DELTA: &str =
        r#"{"t":"delta","v":3,"s":1047,"p":1040,"b":[["100","0"],["99.5","1"]],"a":[]}"#;
    const STATE: &str =
        r#"{"t":"state","v":3,"e":17,"state":"stale","why":"venue_silent","since":1}"#;

    fn frame(n: u64, updates: &[&str]) -> String {
        let updates = updates.join(",");
        format!(r#"{{"n":{n},"ts":3661000002,"late":[1],"late_us":9,"u":[{updates}]}}"#)
    }

    struct Told {
        ended: Result<(), String>,
        out: String,
        notes: String,
        /// What the gateway was asked.
        asked: String,
        /// The subprotocol that it was asked for.
        offered: String,
    }

    /// What `tail` does with a gateway that says all this and then closes.
    async fn tail(says: &[&str], change: impl FnOnce(&mut TailOptions)) -> Told {
        tail_of(says.iter().map(|text| Message::text(*text)).collect(), change).await
    }

    async fn tail_of(says: Vec<Message>, change: impl FnOnce(&mut TailOptions)) -> Told {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut options = TailOptions {
            symbols: vec!["sim:A".to_owned()],
            channel: Channel::Book,
            depth: Depth::Levels(10),
            budget_ms: 50,
            json: false,
            binary: false,
            count: None,
            url: format!("ws://{}", listener.local_addr().unwrap()),
        };
        change(&mut options);
        let gateway = thread::spawn(move || {
            let mut offered = String::new();
            #[expect(clippy::result_large_err, reason = "the library asks for its own type")]
            let callback = |request: &server::Request, answer| {
                let value = &request.headers()["sec-websocket-protocol"];
                offered = value.to_str().unwrap().to_owned();
                Ok(answer)
            };
            let stream = listener.accept().unwrap().0;
            let mut socket = tungstenite::accept_hdr(stream, callback).unwrap();
            let asked = socket.read().unwrap().into_text().unwrap().to_string();
            for message in says {
                // A client that has seen enough is gone.
                let _ = socket.send(message);
            }
            let code = CloseCode::Restart;
            let _ = socket.close(Some(CloseFrame { code, reason: "deploy".into() }));
            while socket.read().is_ok() {}
            (asked, offered)
        });
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let ended = follow(&options, &mut out, &mut notes).await;
        let (asked, offered) = gateway.join().unwrap();
        Told {
            ended: ended.map_err(|error| error.to_string()),
            out: String::from_utf8(out).unwrap(),
            notes: String::from_utf8(notes).unwrap(),
            asked,
            offered,
        }
    }

    #[tokio::test]
    async fn prints_updates_until_the_count() {
        let frames = [frame(1, &[IMAGE]), frame(2, &[STATE, DELTA])];
        let live = STATE.replace("stale", "live");
        let told = tail(&[HELLO, ACK, &frames[0], &frame(2, &[STATE, &live, DELTA])], |options| {
            options.count = Some(4)
        })
        .await;
        assert_eq!(told.ended, Ok(()));
        assert_eq!(
            told.asked,
            r#"{"budget_ms":50,"channel":"book","depth":10,"op":"subscribe","symbols":["sim:A"]}"#
        );
        assert_eq!(
            told.notes,
            "sim:A: book to depth 10 within 50 ms, live; the gateway cannot hold that budget at \
             present (p99 70000 us)\n"
        );
        assert_eq!(
            told.out,
            "01:01:01.000002 sim:A image  100 x 1 | -  1+0 levels, live  age -/- ms\n\
             01:01:01.000002 sim:A state  stale: venue_silent, epoch 17\n\
             01:01:01.000002 sim:A state  live: venue_silent, epoch 17  LATE\n\
             01:01:01.000002 sim:A delta  99.5 x 1 | -  1+0 levels, 2 changed  age -/- ms  \
             merged 6\n"
        );
        // The same in the words of the protocol, and no change while the venue is silent.
        let told = tail(&[HELLO, ACK, &frames[0], &frames[1]], |options| options.json = true).await;
        assert!(told.ended.unwrap_err().starts_with("BROKEN CHAIN in sim:A: prices came while"));
        let expected: String = [IMAGE, STATE]
            .map(|update| format!("{{\"symbol\":\"sim:A\",{}\n", &update[1..]))
            .concat();
        assert_eq!(told.out, expected);
    }

    /// A frame as a gateway encodes it.
    fn encoded(encoding: Encoding, n: u64, updates: &[Update<'_>]) -> Message {
        let encoder = encoding.encoder();
        let mut bytes = Vec::new();
        let (ts_ns, late_ns) = (3_661_000_002_000, 9_000);
        let head = FrameHead { n, ts_ns, count: updates.len(), late: &[1], late_ns };
        encoder.frame_head(&head, &mut bytes);
        for (i, update) in updates.iter().enumerate() {
            if i > 0 {
                bytes.extend_from_slice(encoder.separator());
            }
            encoder.update(update, &mut bytes);
        }
        bytes.extend_from_slice(encoder.frame_tail());
        if encoder.is_text() {
            Message::text(String::from_utf8(bytes).unwrap())
        } else {
            Message::binary(bytes)
        }
    }

    /// Two frames about the view of [`ACK`].
    fn told_in(encoding: Encoding) -> Vec<Message> {
        let level = |px, qty| Level { px: Px(px), qty: Qty(qty) };
        let head = Head {
            view: Some(3),
            state: State::Live,
            epoch: 17,
            s: 1040,
            q: Some(1),
            scales: Scales { px: 2, qty: 8 },
            ..Head::NONE
        };
        let bids = [level(10_000, 100_000_000), level(9_900, 1)];
        let image = Wire::Image { bids: &bids, asks: &[], trusted: [None, Some(0)] };
        let gone = [level(10_000, 0)];
        let delta = Wire::Delta { bids: &gone, asks: &[level(10_050, 5)] };
        let state = Wire::State { why: Why::VenueSilent, since_ns: 1_000 };
        vec![
            Message::text(ACK),
            encoded(
                encoding,
                1,
                &[Update { head, payload: image }, Update::stats(StatsReport::default())],
            ),
            encoded(
                encoding,
                2,
                &[
                    Update { head: Head { s: 1047, p: 1040, ..head }, payload: delta },
                    Update { head: Head { state: State::Stale, ..head }, payload: state },
                ],
            ),
        ]
    }

    #[tokio::test]
    async fn prints_the_same_of_both_encodings() {
        for json in [false, true] {
            let text = tail_of(told_in(Encoding::Json), |options| options.json = json).await;
            let binary = tail_of(told_in(Encoding::Binary), |options| {
                (options.json, options.binary) = (json, true);
            })
            .await;
            assert_eq!(text.offered, "tickfan.json.v1");
            assert_eq!(binary.offered, "tickfan.bin.v1");
            assert_eq!(text.out.lines().count(), 3, "{}", text.out);
            assert_eq!(binary.out, text.out);
            assert_eq!(binary.ended, text.ended);
        }
    }

    #[tokio::test]
    async fn holds_a_gateway_to_the_encoding_that_was_asked_for() {
        let ended = tail_of(told_in(Encoding::Json), |options| options.binary = true).await.ended;
        let expected = "the gateway sent updates in tickfan.json.v1, though it was asked for \
                        tickfan.bin.v1";
        assert_eq!(ended, Err(expected.to_owned()));
        let ended = tail_of(told_in(Encoding::Binary), |_| {}).await.ended.unwrap_err();
        assert!(ended.starts_with("the gateway sent updates in tickfan.bin.v1"), "{ended}");
        let cut = vec![Message::text(ACK), Message::binary(&b"TF\x01"[..])];
        let ended = tail_of(cut, |options| options.binary = true).await.ended;
        let expected = "the gateway sent what is not of protocol 1 (a frame begins with 32 bytes; \
                        3 came): a binary message of 3 bytes";
        assert_eq!(ended, Err(expected.to_owned()));
    }

    #[tokio::test]
    async fn ends_with_words_for_what_went_wrong() {
        let refused = r#"{"type":"subscribed","results":[{"symbol":"sim:NOPE","ok":false,
            "code":"unknown_symbol","message":"no instrument sim:NOPE; did you mean sim:A?"}]}"#;
        let error = r#"{"type":"error","code":"bad_request","message":"no"}"#;
        let future = r#"{"type":"weather","sun":true}"#;
        for (says, expected) in [
            (vec![HELLO, refused], "sim:NOPE: no instrument sim:NOPE; did you mean sim:A?"),
            (vec![HELLO, error], "the gateway answers: no"),
            (vec![HELLO, future], "the gateway closed the connection: 1012 deploy"),
            (
                vec![HELLO, ACK, &frame(2, &[IMAGE])],
                "BROKEN CHAIN in the connection: frame 2 came where 1 was due",
            ),
            (
                vec![HELLO, ACK, &frame(1, &[DELTA])],
                "BROKEN CHAIN in sim:A: an update follows version 1040, but nothing is held",
            ),
            (vec![HELLO, ACK, "hello"], "the gateway sent what is not of protocol 1"),
        ] {
            let ended = tail(&says, |_| {}).await.ended.unwrap_err();
            assert!(ended.starts_with(expected), "{ended}");
        }
    }

    #[tokio::test]
    async fn says_how_to_reach_a_gateway() {
        for (url, expected) in [
            ("ws://127.0.0.1:1/v1/stream", "cannot connect to ws://127.0.0.1:1/v1/stream ("),
            ("http://127.0.0.1:1", "\"http://127.0.0.1:1\" is no URL of a gateway"),
            ("127.0.0.1:8080", "\"127.0.0.1:8080\" is no URL of a gateway"),
            ("ws:///v1/stream", "\"ws:///v1/stream\" is no URL of a gateway"),
        ] {
            let error = connect(url, Encoding::Json).await.err().unwrap().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn options_are_read_and_explained() {
        #[derive(Debug, clap::Parser)]
        struct Cli {
            #[command(flatten)]
            tail: TailOptions,
        }
        let parse = |line: &str| <Cli as clap::Parser>::try_parse_from(line.split(' '));
        let options = parse("tail sim:A sim:B --channel bbo --depth full --count 3").unwrap().tail;
        assert_eq!(options.symbols, ["sim:A", "sim:B"]);
        assert_eq!(
            (options.channel, options.depth, options.count),
            (Channel::Bbo, Depth::Full, Some(3))
        );
        assert_eq!(parse("tail sim:A --depth 11").unwrap().tail.depth, Depth::Levels(20));
        for line in
            ["tail", "tail sim:A --channel boook", "tail sim:A --depth 0", "tail sim:A --count 0"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
