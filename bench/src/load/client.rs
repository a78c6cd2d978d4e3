//! One client of the load: its socket and where it is between connecting and receiving.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;
use serde::Deserialize;
use socket2::{Domain, Socket, Type};
use tickfan_core::ws::{self, Opcode};

use super::check::UNKNOWN;
use super::{Encoding, Wire};
use crate::peer::{Channel, nats, venue};

/// A masking key of zeros leaves a payload as it is.
const MASK: [u8; 4] = [0; 4];

/// What a client is to be.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// What it subscribes to.
    pub(crate) topics: Vec<u32>,
    /// At what budget, where the server has such a thing.
    pub(crate) budget_ms: u32,
    /// Whose figures it counts towards.
    pub(crate) group: usize,
    /// The size of its receive buffer, where it is not the system's.
    pub(crate) recv_buffer: Option<usize>,
}

/// Where a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not begun.
    Waiting,
    /// Waits for the connection.
    Connecting,
    /// Waits for the answer to its upgrade.
    Upgrading,
    /// Waits for the results of so many subscriptions.
    Subscribing(usize),
    /// Receives.
    Live,
    /// Was closed by the server.
    Gone,
    /// Ended the connection itself.
    Vanished,
}

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) plan: Plan,
    pub(super) phase: Phase,
    pub(super) stream: Option<TcpStream>,
    /// All of its updates are read and checked, not only counted.
    pub(super) is_checked: bool,
    /// The beginning of a frame.
    pub(super) rest: Vec<u8>,
    /// The number of the last event of each topic.
    pub(super) last: Box<[u64]>,
    /// Topics of which something was received.
    pub(super) held: usize,
    /// When the connection was upgraded, the first update came, and the first of the last topic.
    pub(super) upgraded_ns: u64,
    pub(super) first_ns: u64,
    pub(super) complete_ns: u64,
    /// When it last read something.
    pub(super) read_ns: u64,
    /// The longest time between two reads since [`super::Load::begin`].
    pub(super) silence_ns: u64,
    /// The server has too much to do: it may come again after so long.
    pub(super) again_ns: Option<u64>,
    /// How it reads.
    pub(super) pace: Pace,
    /// What it found when it read again.
    pub(super) found: Found,
}

/// How a client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// At once.
    Prompt,
    /// Not at all.
    Stalled,
    /// So many bytes at most, every so often.
    Slow,
}

/// What a client finds when it reads again after a stall.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// When it read again.
    pub(crate) resumed_ns: u64,
    /// The age of the first update; 0 = none yet.
    pub(crate) first_age_ns: u64,
    /// Old updates before the first fresh one.
    pub(crate) old: u64,
    /// When the first fresh one came; 0 = not yet.
    pub(crate) fresh_ns: u64,
}

/// Updates younger than this are fresh.
const FRESH_NS: u64 = 1_000_000_000;

impl Found {
    /// An update of this age came.
    pub(super) fn add(&mut self, age_ns: u64, now_ns: u64) {
        if self.resumed_ns == 0 || self.fresh_ns != 0 {
            return;
        }
        if self.first_age_ns == 0 {
            self.first_age_ns = age_ns.max(1);
        }
        if age_ns < FRESH_NS {
            self.fresh_ns = now_ns;
        } else {
            self.old += 1;
        }
    }
}

/// When a client had what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Milestones {
    /// The connection was upgraded.
    pub(crate) upgraded_ns: u64,
    /// The first update came; 0 = none yet.
    pub(crate) first_ns: u64,
    /// The first update of the last of its topics came; 0 = not yet.
    pub(crate) complete_ns: u64,
}

impl Client {
    pub(super) fn new(plan: Plan, topics: usize) -> Self {
        Self {
            last: vec![UNKNOWN; topics].into(),
            plan,
            phase: Phase::Waiting,
            stream: None,
            is_checked: true,
            rest: Vec::new(),
            held: 0,
            upgraded_ns: 0,
            first_ns: 0,
            complete_ns: 0,
            read_ns: 0,
            silence_ns: 0,
            again_ns: None,
            pace: Pace::Prompt,
            found: Found::default(),
        }
    }

    /// Begins to connect.
    pub(super) fn connect(&mut self, port: u16) -> Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)
            .context("no socket: is the limit of open files high enough?")?;
        socket.set_nonblocking(true)?;
        if let Some(bytes) = self.plan.recv_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error).context("cannot connect"),
        }
        self.stream = Some(socket.into());
        self.phase = Phase::Connecting;
        Ok(())
    }

    /// The connection is there or failed: asks for the upgrade.
    pub(super) fn connected(&mut self, wire: Wire) -> Result<()> {
        let stream = self.stream.as_ref().context("no connection")?;
        if let Some(error) = stream.take_error()? {
            return Err(error).context("cannot connect");
        }
        stream.set_nodelay(true)?;
        let path = match wire {
            Wire::Tickfan(..) => "/v1/stream",
            Wire::Rival | Wire::Nats => "/",
        };
        let encoding = match wire {
            Wire::Tickfan(_, Encoding::Json) => "Sec-WebSocket-Protocol: tickfan.json.v1\r\n",
            Wire::Tickfan(_, Encoding::Binary) => "Sec-WebSocket-Protocol: tickfan.bin.v1\r\n",
            Wire::Rival | Wire::Nats => "",
        };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{encoding}\r\n"
        );
        self.send(request.as_bytes())?;
        self.phase = Phase::Upgrading;
        Ok(())
    }

    /// The server agreed: subscribes.
    pub(super) fn upgraded(&mut self, wire: Wire, now_ns: u64) -> Result<()> {
        self.upgraded_ns = now_ns;
        match wire {
            Wire::Rival => {
                let topics: Vec<String> = self.plan.topics.iter().map(u32::to_string).collect();
                self.send_frame(Opcode::Text, format!("sub {}", topics.join(",")).as_bytes())?;
                self.phase = Phase::Live;
            }
            Wire::Nats => {
                self.send_frame(Opcode::Binary, &nats::greeting(&self.plan.topics))?;
                self.phase = Phase::Live;
            }
            Wire::Tickfan(channel, _) => {
                let channel = match channel {
                    Channel::Bbo => "bbo",
                    Channel::Trades => "trades",
                    Channel::Book => "book",
                };
                let symbols: Vec<String> = self
                    .plan
                    .topics
                    .iter()
                    .map(|topic| format!("\"sim:{}\"", venue::symbol(*topic as usize)))
                    .collect();
                let text = format!(
                    r#"{{"op":"subscribe","id":1,"channel":"{channel}","symbols":[{}],"budget_ms":{}}}"#,
                    symbols.join(","),
                    self.plan.budget_ms
                );
                self.send_frame(Opcode::Text, text.as_bytes())?;
                self.phase = Phase::Subscribing(self.plan.topics.len());
            }
        }
        Ok(())
    }

    /// Sends one frame, which a socket that was read until now has room for.
    pub(super) fn send_frame(&self, opcode: Opcode, payload: &[u8]) -> Result<()> {
        let mut frame = Vec::with_capacity(payload.len() + 14);
        ws::write_header(opcode, payload.len(), &mut frame);
        frame[1] |= 0x80;
        frame.extend_from_slice(&MASK);
        frame.extend_from_slice(payload);
        self.send(&frame)
    }

    fn send(&self, bytes: &[u8]) -> Result<()> {
        let mut stream = self.stream.as_ref().context("no connection")?;
        let taken = stream.write(bytes).context("cannot send")?;
        ensure!(taken == bytes.len(), "a request does not fit a socket");
        Ok(())
    }

    /// Reads once; `None` when there is nothing, and `Some(0)` at the end.
    pub(super) fn recv(&self, buffer: &mut [u8]) -> Result<Option<usize>> {
        let Some(mut stream) = self.stream.as_ref() else { return Ok(None) };
        match stream.read(buffer) {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(Some(0)),
            Err(error) => Err(error).context("cannot read"),
        }
    }

    /// Something came of a topic for the first time.
    pub(super) fn hold(&mut self, now_ns: u64) {
        if self.held == 0 {
            self.first_ns = now_ns;
        }
        self.held += 1;
        if self.held == self.plan.topics.len() {
            self.complete_ns = now_ns;
        }
    }
}

/// The length of the answer to an upgrade, once it is there whole.
pub(super) fn upgrade_answer(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        ensure!(bytes.len() < 8_192, "the server's answer has no end");
        return Ok(None);
    };
    if !bytes.starts_with(b"HTTP/1.1 101") {
        bail!("no upgrade: {}", String::from_utf8_lossy(&bytes[..end]));
    }
    Ok(Some(end + 4))
}

#[derive(Deserialize)]
struct Control<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(default)]
    results: Vec<Subscribed>,
}

#[derive(Deserialize)]
struct Subscribed {
    symbol: String,
    ok: bool,
    #[serde(default)]
    view: u32,
}

/// What the gateway answered to subscriptions: topic and view of each.
pub(super) fn subscriptions(payload: &[u8]) -> Result<Vec<(usize, u32)>> {
    let text = String::from_utf8_lossy(payload);
    let control: Control<'_> =
        serde_json::from_str(&text).with_context(|| format!("not understood: {text}"))?;
    ensure!(matches!(control.kind, "hello" | "subscribed"), "the gateway says {text}");
    control
        .results
        .iter()
        .map(|result| {
            ensure!(result.ok, "refused: {text}");
            let digits = result.symbol.get("sim:S".len()..).and_then(|rest| rest.get(..5));
            let topic = digits.and_then(|digits| digits.parse().ok());
            Ok((topic.with_context(|| format!("no symbol of ours in {text}"))?, result.view))
        })
        .collect()
}
