//! One client's connection: its socket, what it has sent in part, and what the socket has not taken.
//!
//! A shard's thread alone owns it. It keeps no buffer while nothing is under way: an idle connection
//! costs its fields, and a blocked one the rest of one send.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use tickfan_core::market::Nanos;
use tickfan_core::snapshot::Snapshot;
use tickfan_core::wire::Encoding;
use tickfan_core::wire::message::RequestId;
use tickfan_core::ws;

use super::poller::Interest;
use super::request::Work;
use super::seat::Bridge;
use super::socket::Socket;
use super::table::{LaneKey, SeatKey};
use crate::limits::{
    BAD_REQUESTS_MAX, BAD_REQUESTS_NS, CLIENT_MESSAGES_BURST, CLIENT_MESSAGES_EXCESS_MAX,
    CLIENT_MESSAGES_PER_S, CLIENT_PINGS_MAX, CLIENT_PINGS_NS, IMAGE_REQUEST_NS, MILLI_NS,
    SECOND_NS,
};
use crate::mutant::{Mutant, planted};
use crate::stats::Report;

/// Why a connection ended: the same word in the close frame's reason, the log and the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The client closed it.
    Done,
    /// The client's end is gone without a close.
    Gone,
    /// The gateway goes away.
    Restart,
    /// The client broke the WebSocket protocol, with this close code.
    Protocol(u16),
    /// Binary messages are not understood.
    Unsupported,
    /// Too many messages or pings.
    Flood,
    /// Our fault.
    Internal,
    /// Bad requests, again and again.
    BadRequests,
    /// It took no byte for too long.
    Stalled,
    /// It answered no ping and took no byte.
    Silent,
}

impl Cause {
    /// The close code of the protocol.
    pub const fn close_code(self) -> u16 {
        match self {
            Self::Done | Self::Gone => 1000,
            Self::Restart => 1012,
            Self::Protocol(code) => code,
            Self::Unsupported => 1003,
            Self::Flood => 1008,
            Self::Internal => 1011,
            Self::BadRequests => 4005,
            Self::Stalled => 4201,
            Self::Silent => 4202,
        }
    }

    /// The word for metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Gone => "gone",
            Self::Restart => "restart",
            Self::Protocol(1007) => "bad_utf8",
            Self::Protocol(1008) => "fragments",
            Self::Protocol(1009) => "message_too_large",
            Self::Protocol(_) => "protocol_error",
            Self::Unsupported => "unsupported",
            Self::Flood => "flood",
            Self::Internal => "internal",
            Self::BadRequests => "bad_requests",
            Self::Stalled => "stalled",
            Self::Silent => "silent",
        }
    }
}

/// Bytes to be sent.
#[derive(Debug, Clone)]
pub enum Piece<'a> {
    /// To be copied if the socket does not take them.
    Copied(&'a [u8]),
    /// Shared with others, and not to be copied.
    Shared(&'a Arc<[u8]>),
}

/// Bytes that the socket has not taken.
#[derive(Debug)]
enum Rest {
    Copied(Vec<u8>),
    Shared(Arc<[u8]>),
}

impl Rest {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Copied(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

/// Whether a connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It is served.
    Open,
    /// It is to be closed once at this time, after a drain was told.
    Draining(Nanos),
    /// A close frame was sent, or waits to be; at this time the connection ends whatever comes.
    Closing(Nanos),
}

/// What a client may still do. Windows are kept in milliseconds that wrap after 49 days.
#[derive(Debug)]
pub struct Allowance {
    /// The time at which all messages so far would have been within the rate.
    messages_until_ns: Nanos,
    pings_since_ms: u32,
    bad_since_ms: u32,
    excess: u16,
    pings: u16,
    bad: u16,
}

/// What is made of a message by its rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Answer it.
    Served,
    /// Refuse it as `rate_limited`.
    Refused,
    /// Close the connection.
    Flood,
}

impl Allowance {
    const fn new(now: Nanos) -> Self {
        let now_ms = (now / MILLI_NS) as u32;
        Self {
            messages_until_ns: 0,
            pings_since_ms: now_ms,
            bad_since_ms: now_ms,
            excess: 0,
            pings: 0,
            bad: 0,
        }
    }

    /// One more message.
    pub fn message(&mut self, now: Nanos) -> Admission {
        let each_ns = SECOND_NS / Nanos::from(CLIENT_MESSAGES_PER_S);
        let until_ns = self.messages_until_ns.max(now) + each_ns;
        if until_ns - now <= each_ns * Nanos::from(CLIENT_MESSAGES_BURST) {
            self.messages_until_ns = until_ns;
            self.excess = 0;
            return Admission::Served;
        }
        self.excess = self.excess.saturating_add(1);
        if u32::from(self.excess) > CLIENT_MESSAGES_EXCESS_MAX {
            Admission::Flood
        } else {
            Admission::Refused
        }
    }

    /// One more ping; returns whether it may be answered.
    pub fn ping(&mut self, now: Nanos) -> bool {
        begin_window(&mut self.pings_since_ms, &mut self.pings, CLIENT_PINGS_NS, now);
        self.pings = self.pings.saturating_add(1);
        u32::from(self.pings) <= CLIENT_PINGS_MAX
    }

    /// One more bad request; returns whether the client may go on.
    pub fn bad_request(&mut self, now: Nanos) -> bool {
        begin_window(&mut self.bad_since_ms, &mut self.bad, BAD_REQUESTS_NS, now);
        self.bad = self.bad.saturating_add(1);
        u32::from(self.bad) < BAD_REQUESTS_MAX
    }
}

/// Begins to count anew when the window has passed.
fn begin_window(since_ms: &mut u32, count: &mut u16, window_ns: Nanos, now: Nanos) {
    let now_ms = (now / MILLI_NS) as u32;
    if Nanos::from(now_ms.wrapping_sub(*since_ms)) >= window_ns / MILLI_NS {
        *since_ms = now_ms;
        *count = 0;
    }
}

/// What a connection holds only while something of it is under way.
#[derive(Default)]
pub struct Pending {
    /// The part of a message that has come.
    pub reader: ws::Reader,
    /// Whole WebSocket frames that go before any data.
    pub control: Vec<u8>,
    rest: VecDeque<Rest>,
    rest_taken: usize,
    /// Bytes read that could not be looked at yet, because an answer has to go first.
    pub unread: Vec<u8>,
    /// The request that is being carried out, a part at a time.
    pub work: Option<Work>,
    /// Views that were sent whole on request lately, and when.
    pub images: Vec<(u32, Nanos)>,
    /// Snapshots from which subscriptions that moved are bridged.
    pub bridges: Vec<Bridge>,
}

impl Pending {
    fn is_settled(&mut self, now: Nanos) -> bool {
        self.images.retain(|(_, at_ns)| now < at_ns + IMAGE_REQUEST_NS);
        self.reader.is_between_messages()
            && self.control.is_empty()
            && self.rest.is_empty()
            && self.unread.is_empty()
            && self.work.is_none()
            && self.images.is_empty()
            && self.bridges.is_empty()
    }
}

/// What a client wants again and again.
#[derive(Debug, Default)]
pub struct Periodic {
    /// An empty frame is wanted after this long without any; 0 = not wanted.
    pub heartbeat_ns: Nanos,
    /// When the last data frame was sent.
    pub frame_sent_ns: Nanos,
    /// Its own figures, where it wants them.
    pub report: Option<Box<Report>>,
}

/// One client.
pub struct Connection {
    /// Its byte stream.
    pub socket: Box<dyn Socket>,
    pending: Option<Box<Pending>>,
    /// What it wants again and again.
    pub periodic: Option<Box<Periodic>>,
    /// Data frames sent so far.
    pub frames: u64,
    /// Venue events that were merged into later ones in what it was sent.
    pub merged: u64,
    /// Whether it goes on.
    pub phase: Phase,
    /// What it may still do.
    pub allowance: Allowance,
    /// When anything was read last.
    pub read_ns: Nanos,
    /// When the socket took bytes last.
    pub taken_ns: Nanos,
    /// Until when it was blocked last.
    pub blocked_until_ns: Nanos,
    /// When the last ping was sent.
    pub pinged_ns: Nanos,
    /// When its timers are looked at next.
    pub timer_ns: Nanos,
    /// The first of its seats.
    pub first_seat: Option<SeatKey>,
    /// Its subscriptions in all seats.
    pub subscriptions: u32,
    /// How its data frames are encoded.
    pub encoding: Encoding,
    /// Pings sent since anything was read.
    pub pings_unanswered: u8,
    /// What the poller watches it for.
    pub watched: Option<Interest>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("subscriptions", &self.subscriptions)
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// A connection that was just upgraded.
    pub const fn new(socket: Box<dyn Socket>, encoding: Encoding, now: Nanos) -> Self {
        Self {
            socket,
            pending: None,
            periodic: None,
            frames: 0,
            merged: 0,
            phase: Phase::Open,
            allowance: Allowance::new(now),
            read_ns: now,
            taken_ns: now,
            blocked_until_ns: 0,
            pinged_ns: 0,
            timer_ns: 0,
            first_seat: None,
            subscriptions: 0,
            encoding,
            pings_unanswered: 0,
            watched: None,
        }
    }

    /// What is under way, if anything is.
    pub fn pending(&self) -> Option<&Pending> {
        self.pending.as_deref()
    }

    /// What is under way, if anything is.
    pub fn pending_if_any(&mut self) -> Option<&mut Pending> {
        self.pending.as_deref_mut()
    }

    /// What is under way.
    pub fn pending_mut(&mut self) -> &mut Pending {
        self.pending.get_or_insert_default()
    }

    /// Frees the memory for what is under way when nothing is.
    pub fn settle(&mut self, now: Nanos) {
        if self.pending.as_mut().is_some_and(|pending| pending.is_settled(now)) {
            self.pending = None;
        }
    }

    /// Takes the control frames that wait.
    pub fn take_control(&mut self) -> Vec<u8> {
        self.pending.as_mut().map_or_else(Vec::new, |pending| std::mem::take(&mut pending.control))
    }

    /// Takes the snapshot from which the subscription of a lane is to be bridged.
    pub fn take_bridge(&mut self, lane: LaneKey) -> Option<Arc<Snapshot>> {
        let bridges = &mut self.pending.as_mut()?.bridges;
        let at = bridges.iter().position(|bridge| bridge.lane == lane)?;
        Some(bridges.swap_remove(at).from)
    }

    /// The socket did not take all of a send.
    pub fn is_blocked(&self) -> bool {
        self.pending().is_some_and(|pending| !pending.rest.is_empty())
    }

    /// Bytes of a send that the socket has not taken, shared ones not counted: they are not ours.
    pub fn blocked_bytes(&self) -> usize {
        let Some(pending) = self.pending() else { return 0 };
        let copied: usize = pending
            .rest
            .iter()
            .map(|rest| match rest {
                Rest::Copied(bytes) => bytes.len(),
                Rest::Shared(_) => 0,
            })
            .sum();
        copied + pending.unread.len() + pending.control.len()
    }

    /// It is served: neither closing nor blocked.
    pub fn may_send(&self) -> bool {
        let is_free = !self.is_blocked() || planted(Mutant::BlockedKeepsAll);
        is_free && !matches!(self.phase, Phase::Closing(_))
    }

    /// It may be read from: its last answer is on its way, and it is not closing.
    pub fn may_read(&self) -> bool {
        self.may_send()
            && self
                .pending()
                .is_none_or(|pending| pending.work.is_none() && pending.unread.is_empty())
    }

    /// Sends pieces, in order; keeps what the socket does not take. Returns how many bytes it took.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn send(&mut self, pieces: &[Piece<'_>], now: Nanos) -> io::Result<usize> {
        let mut taken_in_all = 0;
        for piece in pieces {
            let bytes: &[u8] = match piece {
                Piece::Copied(bytes) => bytes,
                Piece::Shared(bytes) => bytes,
            };
            let mut taken = 0;
            while !self.is_blocked() && taken < bytes.len() {
                let count = self.socket.send(&bytes[taken..])?;
                if count == 0 {
                    break;
                }
                taken += count;
                self.taken_ns = now;
            }
            taken_in_all += taken;
            if taken == bytes.len() {
                continue;
            }
            let pending = self.pending_mut();
            pending.rest.push_back(match piece {
                Piece::Copied(bytes) => Rest::Copied(bytes[taken..].to_vec()),
                Piece::Shared(bytes) => {
                    if pending.rest.is_empty() {
                        pending.rest_taken = taken;
                    }
                    Rest::Shared(Arc::clone(bytes))
                }
            });
        }
        Ok(taken_in_all)
    }

    /// Sends more of what the socket has not taken. Returns how many bytes it took.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn flush(&mut self, now: Nanos) -> io::Result<usize> {
        let Some(pending) = &mut self.pending else { return Ok(0) };
        let mut taken_in_all = 0;
        while let Some(rest) = pending.rest.front() {
            let count = self.socket.send(&rest.bytes()[pending.rest_taken..])?;
            if count == 0 {
                break;
            }
            self.taken_ns = now;
            taken_in_all += count;
            pending.rest_taken += count;
            if pending.rest_taken == rest.bytes().len() {
                pending.rest.pop_front();
                pending.rest_taken = 0;
            }
        }
        if pending.rest.is_empty() {
            pending.rest = VecDeque::new();
            self.blocked_until_ns = now;
        }
        Ok(taken_in_all)
    }

    /// Puts a control message before any data that is sent later.
    pub fn push_control(&mut self, text: &str) {
        let control = &mut self.pending_mut().control;
        ws::write_header(ws::Opcode::Text, text.len(), control);
        control.extend_from_slice(text.as_bytes());
    }
}

/// The `id` of a request, for its answers.
pub type AnswerId = Option<RequestId>;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Narrow {
        room: usize,
        taken: Vec<u8>,
    }

    impl Socket for Arc<std::sync::Mutex<Narrow>> {
        fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut narrow = self.lock().unwrap();
            let count = bytes.len().min(narrow.room);
            narrow.room -= count;
            narrow.taken.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn recv(&mut self, _: &mut [u8]) -> io::Result<Option<usize>> {
            Ok(None)
        }
    }

    #[test]
    fn a_send_cut_at_any_place_arrives_whole_and_in_order() {
        let shared: Arc<[u8]> = Arc::from(&b"defgh"[..]);
        let pieces = [Piece::Copied(b"abc"), Piece::Shared(&shared), Piece::Copied(b"ij")];
        for first in 0..=10 {
            for second in 0..=10 - first {
                let socket = Arc::new(std::sync::Mutex::new(Narrow { room: first, taken: vec![] }));
                let mut connection =
                    Connection::new(Box::new(Arc::clone(&socket)), Encoding::Json, 0);
                assert_eq!(connection.send(&pieces, 1).unwrap(), first);
                assert_eq!(connection.is_blocked(), first < 10);
                socket.lock().unwrap().room = second;
                connection.flush(2).unwrap();
                socket.lock().unwrap().room = 10;
                connection.flush(3).unwrap();
                assert!(!connection.is_blocked());
                assert_eq!(socket.lock().unwrap().taken, b"abcdefghij", "{first} {second}");
            }
        }
    }

    #[test]
    fn one_message_over_the_burst_is_refused_and_time_heals() {
        let mut allowance = Allowance::new(0);
        for _ in 0..CLIENT_MESSAGES_BURST {
            assert_eq!(allowance.message(0), Admission::Served);
        }
        assert_eq!(allowance.message(0), Admission::Refused);
        assert_eq!(allowance.message(50 * MILLI_NS), Admission::Served, "20 a second");
        for _ in 0..CLIENT_MESSAGES_EXCESS_MAX {
            assert_eq!(allowance.message(50 * MILLI_NS), Admission::Refused);
        }
        assert_eq!(allowance.message(50 * MILLI_NS), Admission::Flood);
    }

    #[test]
    fn one_ping_and_one_bad_request_over_the_limit_end_it() {
        let mut allowance = Allowance::new(0);
        for _ in 0..CLIENT_PINGS_MAX {
            assert!(allowance.ping(1));
        }
        assert!(!allowance.ping(1));
        assert!(allowance.ping(1 + CLIENT_PINGS_NS));
        for _ in 1..BAD_REQUESTS_MAX {
            assert!(allowance.bad_request(1));
        }
        assert!(!allowance.bad_request(1));
        assert!(allowance.bad_request(1 + BAD_REQUESTS_NS));
    }
}
