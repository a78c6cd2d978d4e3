//! One client's connection: its socket, what it has sent in part, and what the socket has not taken.
//!
//! A shard's thread alone owns it. It keeps no buffer while nothing is under way: an idle connection
//! costs its fields, and a blocked one the rest of one send.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use tickfan_core::market::Nanos;
use tickfan_core::wire::message::RequestId;
use tickfan_core::ws;

use super::SeatKey;
use super::request::Work;
use super::socket::Socket;
use crate::limits::{
    BAD_REQUESTS_MAX, BAD_REQUESTS_NS, CLIENT_MESSAGES_BURST, CLIENT_MESSAGES_EXCESS_MAX,
    CLIENT_MESSAGES_PER_S, CLIENT_PINGS_MAX, CLIENT_PINGS_NS, SECOND_NS,
};
use crate::mutant::{Mutant, planted};

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

/// The place of a subscription: in which seat, and where in it.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The view's number.
    pub view: u32,
    /// The seat.
    pub seat: SeatKey,
    /// The index among its subscriptions.
    pub index: u32,
}

/// What a client may still do.
#[derive(Debug)]
pub struct Allowance {
    /// Messages times a second, so that they refill in whole numbers.
    messages: u64,
    messages_ns: Nanos,
    excess: u32,
    pings: u32,
    pings_since_ns: Nanos,
    bad: u32,
    bad_since_ns: Nanos,
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
        Self {
            messages: CLIENT_MESSAGES_BURST as u64 * SECOND_NS,
            messages_ns: now,
            excess: 0,
            pings: 0,
            pings_since_ns: now,
            bad: 0,
            bad_since_ns: now,
        }
    }

    /// One more message.
    pub fn message(&mut self, now: Nanos) -> Admission {
        let elapsed = now.saturating_sub(self.messages_ns).min(60 * SECOND_NS);
        self.messages_ns = now;
        self.messages = (self.messages + elapsed * u64::from(CLIENT_MESSAGES_PER_S))
            .min(u64::from(CLIENT_MESSAGES_BURST) * SECOND_NS);
        if self.messages >= SECOND_NS {
            self.messages -= SECOND_NS;
            self.excess = 0;
            return Admission::Served;
        }
        self.excess += 1;
        if self.excess > CLIENT_MESSAGES_EXCESS_MAX { Admission::Flood } else { Admission::Refused }
    }

    /// One more ping; returns whether it may be answered.
    pub fn ping(&mut self, now: Nanos) -> bool {
        if now >= self.pings_since_ns + CLIENT_PINGS_NS {
            self.pings_since_ns = now;
            self.pings = 0;
        }
        self.pings += 1;
        self.pings <= CLIENT_PINGS_MAX
    }

    /// One more bad request; returns whether the client may go on.
    pub fn bad_request(&mut self, now: Nanos) -> bool {
        if now >= self.bad_since_ns + BAD_REQUESTS_NS {
            self.bad_since_ns = now;
            self.bad = 0;
        }
        self.bad += 1;
        self.bad < BAD_REQUESTS_MAX
    }
}

/// One client.
pub struct Connection {
    /// Its byte stream.
    pub socket: Box<dyn Socket>,
    /// Its frames.
    pub reader: ws::Reader,
    /// Its places in the classes.
    pub seats: Vec<SeatKey>,
    /// Its subscriptions, by view.
    pub places: Vec<Place>,
    /// Data frames sent so far.
    pub frames: u64,
    /// Whole WebSocket frames that go before any data.
    pub control: Vec<u8>,
    rest: VecDeque<Rest>,
    rest_taken: usize,
    /// Bytes read that could not be looked at yet, because an answer has to go first.
    pub unread: Vec<u8>,
    /// The request that is being carried out, a part at a time.
    pub work: Option<Work>,
    /// Whether it goes on.
    pub phase: Phase,
    /// What it may still do.
    pub allowance: Allowance,
    /// Views that were sent whole on request lately, and when.
    pub images: Vec<(u32, Nanos)>,
    /// An empty frame is wanted after this long without any; 0 = not wanted.
    pub heartbeat_ns: Nanos,
    /// When the last data frame was sent.
    pub frame_sent_ns: Nanos,
    /// When anything was read last.
    pub read_ns: Nanos,
    /// When the socket took bytes last.
    pub taken_ns: Nanos,
    /// Until when it was blocked last.
    pub blocked_until_ns: Nanos,
    /// Pings sent since anything was read.
    pub pings_unanswered: u32,
    /// When the last of them was sent.
    pub pinged_ns: Nanos,
    /// When its timers are looked at next.
    pub timer_ns: Nanos,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("places", &self.places.len())
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// A connection that was just upgraded.
    pub fn new(socket: Box<dyn Socket>, now: Nanos) -> Self {
        Self {
            socket,
            reader: ws::Reader::default(),
            seats: Vec::new(),
            places: Vec::new(),
            frames: 0,
            control: Vec::new(),
            rest: VecDeque::new(),
            rest_taken: 0,
            unread: Vec::new(),
            work: None,
            phase: Phase::Open,
            allowance: Allowance::new(now),
            images: Vec::new(),
            heartbeat_ns: 0,
            frame_sent_ns: now,
            read_ns: now,
            taken_ns: now,
            blocked_until_ns: 0,
            pings_unanswered: 0,
            pinged_ns: 0,
            timer_ns: 0,
        }
    }

    /// The socket did not take all of a send.
    pub fn is_blocked(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Bytes of a send that the socket has not taken, shared ones not counted: they are not ours.
    pub fn blocked_bytes(&self) -> usize {
        let copied: usize = self
            .rest
            .iter()
            .map(|rest| match rest {
                Rest::Copied(bytes) => bytes.len(),
                Rest::Shared(_) => 0,
            })
            .sum();
        copied + self.unread.len() + self.control.len()
    }

    /// It is served: neither closing nor blocked.
    pub fn may_send(&self) -> bool {
        let is_free = !self.is_blocked() || planted(Mutant::BlockedKeepsAll);
        is_free && !matches!(self.phase, Phase::Closing(_))
    }

    /// It may be read from: its last answer is on its way, and it is not closing.
    pub fn may_read(&self) -> bool {
        self.may_send() && self.work.is_none() && self.unread.is_empty()
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
            match piece {
                Piece::Copied(bytes) => self.rest.push_back(Rest::Copied(bytes[taken..].to_vec())),
                Piece::Shared(bytes) => {
                    if self.rest.is_empty() {
                        self.rest_taken = taken;
                    }
                    self.rest.push_back(Rest::Shared(Arc::clone(bytes)));
                }
            }
        }
        Ok(taken_in_all)
    }

    /// Sends more of what the socket has not taken. Returns how many bytes it took.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn flush(&mut self, now: Nanos) -> io::Result<usize> {
        let mut taken_in_all = 0;
        while let Some(rest) = self.rest.front() {
            let count = self.socket.send(&rest.bytes()[self.rest_taken..])?;
            if count == 0 {
                break;
            }
            self.taken_ns = now;
            taken_in_all += count;
            self.rest_taken += count;
            if self.rest_taken == rest.bytes().len() {
                self.rest.pop_front();
                self.rest_taken = 0;
            }
        }
        if self.rest.is_empty() {
            self.rest = VecDeque::new();
            self.blocked_until_ns = now;
        }
        Ok(taken_in_all)
    }

    /// Where a view's subscription is.
    pub fn place(&self, view: u32) -> Option<Place> {
        let at = self.places.binary_search_by_key(&view, |place| place.view).ok()?;
        Some(self.places[at])
    }

    /// Remembers where a view's subscription is.
    pub fn set_place(&mut self, place: Place) {
        match self.places.binary_search_by_key(&place.view, |place| place.view) {
            Ok(at) => self.places[at] = place,
            Err(at) => self.places.insert(at, place),
        }
    }

    /// Forgets a view's subscription.
    pub fn remove_place(&mut self, view: u32) {
        if let Ok(at) = self.places.binary_search_by_key(&view, |place| place.view) {
            self.places.remove(at);
        }
    }

    /// Puts a control message before any data that is sent later.
    pub fn push_control(&mut self, text: &str) {
        ws::write_header(ws::Opcode::Text, text.len(), &mut self.control);
        self.control.extend_from_slice(text.as_bytes());
    }
}

/// The `id` of a request, for its answers.
pub type AnswerId = Option<RequestId>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MILLI_NS;

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
                let mut connection = Connection::new(Box::new(Arc::clone(&socket)), 0);
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
