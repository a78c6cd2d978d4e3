//! The load generator: thousands of clients on one thread, each of which reads and checks.
//!
//! One poller, one read per readiness into a shared buffer, a clock reading per read. Where checking
//! everything would make the generator the limit, every k-th client is checked and of the others the
//! bytes are counted; what is checked then stands for all, and the bytes say whether it may.

pub(crate) mod check;
pub(crate) mod client;
mod scan;
pub(crate) mod tally;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use tickfan_core::ws::Opcode;

use crate::clock;
use crate::peer::{Channel, nats, venue};
use check::{Expected, UNKNOWN};
use client::{Client, Found, Milestones, Pace, Phase, Plan};
use scan::{Kind, Unreadable, Update};
use tally::{Tally, record};

/// Connections that have been begun and not been answered.
const UNANSWERED_MAX: usize = 256;

/// Bytes of one read: more than a server sends at once.
const READ_BYTES: usize = 256 * 1024;

/// Readinesses taken from the poller at once.
const EVENTS_MAX: usize = 512;

/// The longest sleep while clients are being connected.
const CONNECT_STEP_NS: u64 = 10_000_000;

const SECOND_NS: u64 = 1_000_000_000;
const MILLI_NS: u64 = 1_000_000;

/// The gateway's close code for who is to come again later; the reason names the milliseconds.
const OVERLOADED: u16 = 4102;

/// A slow client reads this often …
const SLOW_EVERY_NS: u64 = 50_000_000;

/// … so many bytes: some 40 KB a second, a tenth of what one that is to get everything would need.
const SLOW_BYTES: usize = 2_048;

/// The gateway's encodings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Encoding {
    /// As the rivals'.
    Json,
    /// Records of fixed layout.
    Binary,
}

/// How many and how large the updates of a kind were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) updates: u64,
    pub(crate) bytes: u64,
}

impl Sizes {
    fn add(&mut self, bytes: usize) {
        self.updates += 1;
        self.bytes += bytes as u64;
    }
}

/// What a server's clients read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    /// The gateway's protocol.
    Tickfan(Channel, Encoding),
    /// [`crate::peer::rival_update`]s.
    Rival,
    /// The same in the protocol of NATS.
    Nats,
}

/// The clients of one server.
pub(crate) struct Load {
    wire: Wire,
    port: u16,
    poller: OwnedFd,
    ready: Vec<epoll::Event>,
    buffer: Vec<u8>,
    clients: Vec<Client>,
    /// The next to be connected.
    next: usize,
    unanswered: usize,
    /// Those that were turned away, and when they may come again.
    turned_away: Vec<(u64, usize)>,
    turns: usize,
    live: usize,
    /// When slow clients read again.
    slow_ns: u64,
    state: State,
    /// Sleeps for readiness are replaced by asking again and again: for latencies below a
    /// millisecond.
    pub(crate) is_spinning: bool,
}

/// What the checks of all clients share.
#[derive(Debug)]
struct State {
    wire: Wire,
    expected: Expected,
    tallies: Vec<Tally>,
    /// The topic of each of the gateway's views, plus one.
    topic_of_view: Vec<u32>,
    /// Clients that the server closed.
    gone: usize,
    /// What it said to the first of them.
    parting: String,
    /// The gateway's stages are taken apart.
    has_stages: bool,
    now_ns: u64,
    images: Sizes,
    deltas: Sizes,
}

impl Load {
    /// Clients of the server at a port; none is connected yet.
    ///
    /// # Errors
    /// When the system has no poller.
    pub(crate) fn new(wire: Wire, port: u16, topics: usize, plans: Vec<Plan>) -> Result<Self> {
        let groups = plans.iter().map(|plan| plan.group + 1).max().unwrap_or(1);
        Ok(Self {
            wire,
            port,
            poller: epoll::create(CreateFlags::CLOEXEC)?,
            ready: Vec::with_capacity(EVENTS_MAX),
            buffer: vec![0; READ_BYTES],
            clients: plans.into_iter().map(|plan| Client::new(plan, topics)).collect(),
            next: 0,
            unanswered: 0,
            turned_away: Vec::new(),
            turns: 0,
            live: 0,
            slow_ns: 0,
            state: State {
                wire,
                expected: Expected::nothing(topics),
                tallies: (0..groups).map(|_| Tally::new()).collect::<Result<_>>()?,
                topic_of_view: Vec::new(),
                gone: 0,
                parting: "without a word".to_owned(),
                has_stages: false,
                now_ns: clock::wall_ns(),
                images: Sizes::default(),
                deltas: Sizes::default(),
            },
            is_spinning: false,
        })
    }

    /// Connects and subscribes everybody.
    ///
    /// # Errors
    /// When that takes longer than `within_ns`, or a client is refused.
    pub(crate) fn connect(&mut self, within_ns: u64) -> Result<()> {
        let until_ns = clock::wall_ns() + within_ns;
        while self.live + self.state.gone < self.clients.len() {
            let now = clock::wall_ns();
            ensure!(now < until_ns, "{} of {} clients are live", self.live, self.clients.len());
            self.run_until((now + CONNECT_STEP_NS).min(until_ns))?;
        }
        let gone = self.state.gone;
        ensure!(gone == 0, "{gone} clients were cut off: {}", self.state.parting);
        Ok(())
    }

    /// Begins an order: what is received from now on is held against it. Of every k-th client of a
    /// group everything is checked, k being that of the group.
    ///
    /// With `is_quiet`, nothing is under way, so that it is known what every client holds.
    ///
    /// # Errors
    /// Never, as the bounds of the histograms are right.
    pub(crate) fn begin(
        &mut self,
        expected: Expected,
        check_every: &[usize],
        is_quiet: bool,
    ) -> Result<()> {
        for tally in &mut self.state.tallies {
            *tally = Tally::new()?;
        }
        let mut places = vec![0; self.state.tallies.len()];
        for client in &mut self.clients {
            let group = client.plan.group;
            client.is_checked = usize::is_multiple_of(places[group], check_every[group]);
            places[group] += 1;
            client.silence_ns = 0;
            client.read_ns = 0;
            if is_quiet {
                client.rest.clear();
                for topic in &client.plan.topics {
                    client.last[*topic as usize] = expected.base(*topic as usize);
                }
            }
        }
        self.state.expected = expected;
        Ok(())
    }

    /// What each group received.
    pub(crate) fn tallies(&self) -> &[Tally] {
        &self.state.tallies
    }

    /// The gateway's stages are taken apart, too.
    pub(crate) fn measure_stages(&mut self) {
        self.state.has_stages = true;
    }

    /// Deliveries due in the window: to a group's checked clients, and to all of the group.
    pub(crate) fn due(&self, group: usize) -> (u64, u64) {
        let (mut checked, mut all) = (0, 0);
        for client in self.clients.iter().filter(|client| client.plan.group == group) {
            let topics = client.plan.topics.iter();
            let due = topics.map(|topic| self.state.expected.due(*topic as usize)).sum::<u64>();
            all += due;
            if client.is_checked {
                checked += due;
            }
        }
        (checked, all)
    }

    /// Every checked client of a group holds the last event of each of its topics.
    pub(crate) fn is_complete(&self) -> bool {
        let ends = self.state.expected.ends();
        let prompt = self.clients.iter().filter(|client| {
            client.is_checked && client.pace == Pace::Prompt && client.phase == Phase::Live
        });
        prompt.into_iter().all(|client| {
            client.plan.topics.iter().all(|topic| {
                let topic = *topic as usize;
                client.last[topic] == ends[topic]
            })
        })
    }

    /// Images and deltas of books that checked clients received.
    pub(crate) fn book_updates(&self) -> (Sizes, Sizes) {
        (self.state.images, self.state.deltas)
    }

    /// How many clients of a group are checked, and how many there are.
    pub(crate) fn checked(&self, group: usize) -> (usize, usize) {
        let clients = self.clients.iter().filter(|client| client.plan.group == group);
        clients.fold((0, 0), |(checked, all), client| {
            (checked + usize::from(client.is_checked), all + 1)
        })
    }

    /// For how long nobody has received anything.
    pub(crate) fn quiet_ns(&self) -> u64 {
        clock::wall_ns().saturating_sub(self.state.now_ns)
    }

    /// Clients that the server closed.
    pub(crate) fn gone(&self) -> usize {
        self.state.gone
    }

    /// How often clients were turned away, and came again when they were told to.
    pub(crate) fn turns(&self) -> usize {
        self.turns
    }

    /// What the server said to the first of those.
    pub(crate) fn parting(&self) -> &str {
        &self.state.parting
    }

    /// Reads until a time.
    ///
    /// # Errors
    /// When a client received what it must not, or cannot read.
    pub(crate) fn run_until(&mut self, until_ns: u64) -> Result<()> {
        loop {
            while self.unanswered < UNANSWERED_MAX && self.next < self.clients.len() {
                self.begin_connection(self.next)?;
                self.next += 1;
            }
            let now = clock::wall_ns();
            while self.unanswered < UNANSWERED_MAX
                && let Some(due) = self.turned_away.iter().position(|(at_ns, _)| *at_ns <= now)
            {
                let (_, index) = self.turned_away.swap_remove(due);
                self.begin_connection(index)?;
            }
            if now >= until_ns {
                return Ok(());
            }
            let mut until_ns = until_ns;
            if self.slow_ns != 0 {
                if now >= self.slow_ns {
                    self.slow_ns = now + SLOW_EVERY_NS;
                    self.read_slowly()?;
                }
                until_ns = until_ns.min(self.slow_ns);
            }
            let left_ns = if self.is_spinning { 0 } else { until_ns.saturating_sub(now) };
            let timeout = Timespec {
                tv_sec: (left_ns / SECOND_NS) as i64,
                tv_nsec: (left_ns % SECOND_NS) as _,
            };
            let mut ready = std::mem::take(&mut self.ready);
            ready.clear();
            match epoll::wait(
                &self.poller,
                rustix::buffer::spare_capacity(&mut ready),
                Some(&timeout),
            ) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("the poller failed"),
            }
            for event in &ready {
                let index = event.data.u64() as usize;
                self.on_ready(index, READ_BYTES).with_context(|| format!("client {index}"))?;
            }
            self.ready = ready;
        }
    }

    fn read_slowly(&mut self) -> Result<()> {
        for index in 0..self.clients.len() {
            if self.clients[index].pace == Pace::Slow && self.clients[index].phase == Phase::Live {
                self.on_ready(index, SLOW_BYTES).with_context(|| format!("client {index}"))?;
            }
        }
        Ok(())
    }

    /// Has the clients of a group read otherwise from now on.
    ///
    /// # Errors
    /// When the poller refuses a client.
    pub(crate) fn set_pace(&mut self, group: usize, pace: Pace) -> Result<()> {
        let now = clock::wall_ns();
        for (index, client) in self.clients.iter_mut().enumerate() {
            if client.plan.group != group || client.phase != Phase::Live || client.pace == pace {
                continue;
            }
            let stream = client.stream.as_ref().context("no connection")?;
            if client.pace == Pace::Prompt {
                epoll::delete(&self.poller, stream)?;
            }
            if pace == Pace::Prompt {
                client.found = Found { resumed_ns: now, ..Found::default() };
                let data = EventData::new_u64(index as u64);
                epoll::add(&self.poller, stream, data, EventFlags::IN)?;
            }
            client.pace = pace;
            if pace == Pace::Slow {
                self.slow_ns = now;
            }
        }
        Ok(())
    }

    /// What the clients of a group found when they read again.
    pub(crate) fn found(&self, group: usize) -> Vec<Found> {
        let clients = self.clients.iter().filter(|client| client.plan.group == group);
        clients.map(|client| client.found).collect()
    }

    /// When each client had what.
    pub(crate) fn milestones(&self) -> Vec<Milestones> {
        let milestones = |client: &Client| Milestones {
            upgraded_ns: client.upgraded_ns,
            first_ns: client.first_ns,
            complete_ns: client.complete_ns,
        };
        self.clients.iter().map(milestones).collect()
    }

    /// Forgets how long clients were silent; they are from now on.
    pub(crate) fn begin_silence(&mut self) {
        let now = clock::wall_ns();
        for client in &mut self.clients {
            (client.read_ns, client.silence_ns) = (now, 0);
        }
    }

    /// The longest silence of a client that is still there.
    pub(crate) fn silence_ns(&self) -> u64 {
        let now = clock::wall_ns();
        let live = self.clients.iter().filter(|client| client.phase == Phase::Live);
        live.map(|client| client.silence_ns.max(now - client.read_ns)).max().unwrap_or(0)
    }

    /// Every other client vanishes without a word.
    pub(crate) fn vanish(&mut self) {
        for client in self.clients.iter_mut().step_by(2) {
            if client.phase == Phase::Live {
                client.phase = Phase::Vanished;
                // The poller forgets a descriptor that is closed.
                client.stream = None;
                self.live -= 1;
            }
        }
    }

    fn begin_connection(&mut self, index: usize) -> Result<()> {
        let client = &mut self.clients[index];
        client.connect(self.port)?;
        self.unanswered += 1;
        let stream = client.stream.as_ref().context("no connection")?;
        epoll::add(&self.poller, stream, EventData::new_u64(index as u64), EventFlags::OUT)?;
        Ok(())
    }

    fn on_ready(&mut self, index: usize, bytes_max: usize) -> Result<()> {
        let client = &mut self.clients[index];
        if client.phase == Phase::Connecting {
            client.connected(self.wire)?;
            let stream = client.stream.as_ref().context("no connection")?;
            epoll::modify(&self.poller, stream, EventData::new_u64(index as u64), EventFlags::IN)?;
            return Ok(());
        }
        let Some(count) = client.recv(&mut self.buffer[..bytes_max])? else { return Ok(()) };
        let now = clock::wall_ns();
        self.state.now_ns = now;
        if count == 0 {
            return self.on_end(index);
        }
        let is_open = self.state.expected.is_open(now);
        let tally = &mut self.state.tallies[client.plan.group];
        if client.phase == Phase::Live && !client.is_checked {
            if is_open {
                tally.bytes_unchecked += count as u64;
            }
            return Ok(());
        }
        if is_open {
            tally.reads += 1;
            tally.bytes += count as u64;
        }
        if client.read_ns != 0 {
            client.silence_ns = client.silence_ns.max(now - client.read_ns);
        }
        client.read_ns = now;

        let mut rest = std::mem::take(&mut client.rest);
        let bytes = if rest.is_empty() {
            &self.buffer[..count]
        } else {
            rest.extend_from_slice(&self.buffer[..count]);
            &rest[..]
        };
        let before = client.phase;
        let used = read_all(client, bytes, &mut self.state)?;
        if rest.is_empty() {
            rest.extend_from_slice(&self.buffer[used..count]);
        } else {
            rest.drain(..used);
        }
        client.rest = rest;
        if before == Phase::Upgrading && client.phase != Phase::Upgrading {
            self.unanswered -= 1;
        }
        if before != Phase::Live && client.phase == Phase::Live {
            self.live += 1;
        }
        Ok(())
    }

    /// The server ended the connection.
    fn on_end(&mut self, index: usize) -> Result<()> {
        let client = &mut self.clients[index];
        if client.phase == Phase::Upgrading {
            bail!("the server ended the connection instead of upgrading it");
        }
        if let Some(stream) = client.stream.take() {
            epoll::delete(&self.poller, &stream)?;
        }
        if let (Phase::Subscribing(_), Some(again_ns)) = (client.phase, client.again_ns.take()) {
            client.phase = Phase::Waiting;
            client.rest.clear();
            self.turned_away.push((self.state.now_ns + again_ns, index));
            self.turns += 1;
            return Ok(());
        }
        if client.phase == Phase::Live {
            self.live -= 1;
        }
        client.phase = Phase::Gone;
        self.state.gone += 1;
        Ok(())
    }
}

/// Reads all frames that are there whole; returns how many bytes those are.
fn read_all(client: &mut Client, bytes: &[u8], state: &mut State) -> Result<usize> {
    let mut at = 0;
    if client.phase == Phase::Upgrading {
        match client::upgrade_answer(bytes)? {
            Some(length) => at = length,
            None => return Ok(0),
        }
        client.upgraded(state.wire, state.now_ns)?;
    }
    let unreadable = |payload: &[u8]| {
        format!("unreadable: {}", String::from_utf8_lossy(&payload[..payload.len().min(400)]))
    };
    loop {
        let left = &bytes[at..];
        let frame = match scan::frame(left) {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(at),
            Err(Unreadable) => bail!(unreadable(left)),
        };
        at += frame.bytes;
        match (frame.opcode, state.wire) {
            (1, Wire::Rival) => {
                let Ok((topic, number)) = scan::rival(frame.payload) else {
                    bail!(unreadable(frame.payload))
                };
                state.deliver(client, topic, number)?;
            }
            (1, Wire::Tickfan(..)) if !frame.payload.starts_with(b"{\"n\":") => {
                for (topic, view) in client::subscriptions(frame.payload)? {
                    state.name_view(view, topic);
                    if let Phase::Subscribing(left) = &mut client.phase {
                        *left -= 1;
                        if *left == 0 {
                            client.phase = Phase::Live;
                        }
                    }
                }
            }
            (2, Wire::Nats) => {
                for update in nats::updates(frame.payload) {
                    let Ok((topic, number)) = scan::rival(update) else {
                        bail!(unreadable(update))
                    };
                    state.deliver(client, topic, number)?;
                }
            }
            (1 | 2, Wire::Tickfan(_, encoding)) => {
                let mut checked = Ok(());
                let mut visit = |update| {
                    if checked.is_ok() {
                        checked = state.take(client, update);
                    }
                };
                let read = match encoding {
                    Encoding::Json => scan::json(frame.payload, &mut visit),
                    Encoding::Binary => scan::binary(frame.payload, &mut visit),
                };
                let Ok(late) = read else {
                    bail!(unreadable(frame.payload));
                };
                checked?;
                if state.expected.is_open(state.now_ns) {
                    state.tallies[client.plan.group].late += late as u64;
                }
            }
            (9, _) => client.send_frame(Opcode::Pong, frame.payload)?,
            (8, _) => {
                if let Some((code, reason)) = frame.payload.split_first_chunk() {
                    let (code, reason) =
                        (u16::from_be_bytes(*code), String::from_utf8_lossy(reason));
                    if code == OVERLOADED {
                        let wait_ms = reason.rsplit(' ').next().and_then(|ms| ms.parse().ok());
                        client.again_ns = wait_ms.map(|ms: u64| ms * MILLI_NS);
                    }
                    if state.gone == 0 {
                        state.parting = format!("{code} {reason}");
                    }
                }
            }
            (10, _) => {}
            _ => bail!(unreadable(left)),
        }
    }
}

impl State {
    fn name_view(&mut self, view: u32, topic: usize) {
        let view = view as usize;
        if self.topic_of_view.len() <= view {
            self.topic_of_view.resize(view + 1, 0);
        }
        self.topic_of_view[view] = topic as u32 + 1;
    }

    /// One of the gateway's updates.
    fn take(&mut self, client: &mut Client, update: Update) -> Result<()> {
        if update.kind == Kind::Other {
            return Ok(());
        }
        let topic = self.topic_of_view.get(update.view as usize).copied().unwrap_or(0);
        let topic = topic.checked_sub(1).with_context(|| format!("view {}", update.view))? as usize;
        let number = match update.kind {
            Kind::Trade { number, cents } => {
                ensure!(cents == venue::cents(number), "trade {number} at {cents} cents");
                number
            }
            Kind::Bbo { number, cents } => {
                let number = number.checked_sub(venue::IMAGE_ID).context("before the image")?;
                ensure!(
                    number == 0 || cents == venue::cents(number),
                    "best bid {number} at {cents} cents"
                );
                number
            }
            Kind::Image { number } | Kind::Delta { number } => {
                match update.kind {
                    Kind::Image { .. } => self.images.add(update.bytes),
                    _ => self.deltas.add(update.bytes),
                }
                number.checked_sub(venue::IMAGE_ID).context("before the image")?
            }
            Kind::Lost(lost) => {
                // The next trade follows those that were lost.
                client.last[topic] += lost;
                self.tallies[client.plan.group].missing += lost;
                return Ok(());
            }
            Kind::Other => return Ok(()),
        };
        if self.has_stages
            && let Some(intended_ns) = self.expected.intended_ns(topic, number)
            && self.expected.counts(intended_ns)
        {
            let tally = &mut self.tallies[client.plan.group];
            let (received_ns, sent_ns) = (update.received_us * 1_000, update.sent_us * 1_000);
            record(&mut tally.venue, intended_ns, received_ns);
            record(&mut tally.gateway, received_ns, sent_ns);
            record(&mut tally.wire, sent_ns, self.now_ns);
            record(&mut tally.inside, received_ns, self.now_ns);
        }
        self.deliver(client, topic, number)
    }

    /// A client received an event, or a state as of it.
    fn deliver(&mut self, client: &mut Client, topic: usize, number: u64) -> Result<()> {
        let last = std::mem::replace(&mut client.last[topic], number);
        if last == UNKNOWN {
            client.hold(self.now_ns);
            return Ok(());
        }
        ensure!(number >= last, "event {number} of topic {topic} after {last}");
        if number == last {
            // A state may be told again, an event may not.
            ensure!(self.conflates(), "event {number} of topic {topic} twice");
            return Ok(());
        }
        let intended_ns = self.expected.intended_ns(topic, number);
        let Some(intended_ns) = intended_ns else {
            bail!("event {number} of topic {topic} was never published");
        };
        client.found.add(self.now_ns.saturating_sub(intended_ns), self.now_ns);
        if !self.expected.counts(intended_ns) {
            return Ok(());
        }
        let conflates = self.conflates();
        let tally = &mut self.tallies[client.plan.group];
        tally.updates += 1;
        record(&mut tally.received, intended_ns, self.now_ns);
        if conflates {
            tally.changes += number - last;
            let oldest_ns = self.expected.intended_ns(topic, last + 1).unwrap_or(intended_ns);
            record(&mut tally.oldest, oldest_ns, self.now_ns);
        } else {
            tally.changes += 1;
            tally.missing += number - last - 1;
            if client.held == 0 {
                client.hold(self.now_ns);
            }
        }
        Ok(())
    }

    /// Only the newest counts, and what it replaced is contained in it.
    fn conflates(&self) -> bool {
        matches!(self.wire, Wire::Tickfan(Channel::Bbo | Channel::Book, _))
    }
}
