//! A client's byte stream without a socket: a bounded buffer that the client drains as it likes.
//!
//! The shard holds one end behind the trait `Socket`, the simulated client the other. Whatever the
//! buffer takes is seen by the checker at once, as it was sent. A call may cost time, as one of the
//! system does: then the shard's clock goes on while it sends.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tickfan_core::market::Nanos;

use super::random::Random;
use super::venue::MICRO_NS;
use crate::fanout::socket::Socket;

/// What the buffer took without a break.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) bytes: Vec<u8>,
    /// Bytes that were offered last and did not fit.
    pub(super) refused: usize,
    /// When the shard began to send again, after the buffer had refused something.
    pub(super) resumed_ns: Nanos,
}

/// What a stream is like.
#[derive(Debug, Clone)]
pub(super) struct PipeOptions {
    /// Bytes that the buffer holds at most.
    pub(super) capacity: usize,
    /// Bytes that one call moves at most, drawn; 0 = all that fit.
    pub(super) bite: u64,
    /// The shard's clock.
    pub(super) clock: Arc<AtomicU64>,
    /// Microseconds that one call takes, from and to.
    pub(super) cost_us: (u64, u64),
}

/// How a client can be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Here,
    /// The stream ends, and what is sent still vanishes in it, as it does in that of a dead peer.
    Ended,
    /// Every call fails.
    Reset,
}

/// Both ends.
#[derive(Debug)]
struct Pipe {
    options: PipeOptions,
    /// Bytes in the buffer.
    buffered: usize,
    /// Taken and not yet checked.
    taken: Vec<Taken>,
    /// Bytes taken in all.
    bytes: u64,
    /// Bytes of the last refused call that are still to come.
    owed: usize,
    is_refusing: bool,
    resumed_ns: Nanos,
    to_gateway: VecDeque<u8>,
    presence: Presence,
    random: Random,
}

impl Pipe {
    fn spend(&mut self) {
        let (from, to) = self.options.cost_us;
        if to > 0 {
            let cost_ns = self.random.between(from, to) * MICRO_NS;
            self.options.clock.fetch_add(cost_ns, Ordering::Relaxed);
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        if self.taken.last().is_none_or(|taken| taken.refused > 0) || self.owed > 0 {
            self.taken.push(Taken { resumed_ns: self.resumed_ns, ..Taken::default() });
        }
        if let Some(taken) = self.taken.last_mut() {
            taken.bytes.extend_from_slice(bytes);
            taken.refused = self.owed.saturating_sub(bytes.len());
        }
        self.owed = self.owed.saturating_sub(bytes.len());
        if self.owed == 0 && self.resumed_ns > 0 {
            // What is offered after it was not yet made when the buffer refused.
            self.resumed_ns = 0;
            self.taken.push(Taken::default());
        }
    }

    fn refuse(&mut self, count: usize) {
        self.owed = count;
        self.is_refusing = true;
        match self.taken.last_mut() {
            Some(taken) => taken.refused = count,
            None => self.taken.push(Taken { refused: count, ..Taken::default() }),
        }
    }
}

/// A shared [`Pipe`].
#[derive(Debug, Clone)]
pub(super) struct End(Arc<Mutex<Pipe>>);

impl End {
    pub(super) fn new(options: PipeOptions, random: Random) -> Self {
        Self(Arc::new(Mutex::new(Pipe {
            options,
            buffered: 0,
            taken: Vec::new(),
            bytes: 0,
            owed: 0,
            is_refusing: false,
            resumed_ns: 0,
            to_gateway: VecDeque::new(),
            presence: Presence::Here,
            random,
        })))
    }

    fn with<R>(&self, act: impl FnOnce(&mut Pipe) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The client sends bytes.
    pub(super) fn write(&self, bytes: &[u8]) {
        self.with(|pipe| pipe.to_gateway.extend(bytes));
    }

    /// The client reads up to so many bytes.
    pub(super) fn drain(&self, count: usize) {
        self.with(|pipe| pipe.buffered = pipe.buffered.saturating_sub(count));
    }

    /// The client is gone without a word; where it is `reset`, nothing can be sent any more.
    pub(super) fn abort(&self, reset: bool) {
        let presence = if reset { Presence::Reset } else { Presence::Ended };
        self.with(|pipe| pipe.presence = presence);
    }

    /// There is something for the client to read.
    pub(super) fn has_output(&self) -> bool {
        self.with(|pipe| pipe.buffered > 0)
    }

    pub(super) fn is_readable(&self) -> bool {
        self.with(|pipe| pipe.presence != Presence::Here || !pipe.to_gateway.is_empty())
    }

    pub(super) fn is_writable(&self) -> bool {
        self.with(|pipe| pipe.presence != Presence::Here || pipe.buffered < pipe.options.capacity)
    }

    /// What was sent since the last call.
    pub(super) fn take_sent(&self) -> Vec<Taken> {
        self.with(|pipe| std::mem::take(&mut pipe.taken))
    }

    /// Bytes taken in all.
    pub(super) fn bytes(&self) -> u64 {
        self.with(|pipe| pipe.bytes)
    }
}

impl Socket for End {
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.with(|pipe| {
            if std::mem::take(&mut pipe.is_refusing) {
                pipe.resumed_ns = pipe.options.clock.load(Ordering::Relaxed);
            }
            pipe.spend();
            let room = match pipe.presence {
                Presence::Reset => return Err(io::ErrorKind::ConnectionReset.into()),
                Presence::Ended => usize::MAX,
                Presence::Here => pipe.options.capacity - pipe.buffered,
            };
            let mut count = bytes.len().min(room);
            if pipe.options.bite > 0 && count > 0 {
                count = count.min(pipe.random.between(1, pipe.options.bite) as usize);
            }
            if count == 0 {
                pipe.refuse(bytes.len());
            } else {
                pipe.buffered = (pipe.buffered + count).min(pipe.options.capacity);
                pipe.take(&bytes[..count]);
            }
            Ok(count)
        })
    }

    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        self.with(|pipe| {
            if pipe.presence != Presence::Here {
                return Ok(Some(0));
            }
            let mut count = pipe.to_gateway.len().min(buffer.len());
            if pipe.options.bite > 0 {
                count = count.min(pipe.random.between(1, pipe.options.bite) as usize);
            }
            if count == 0 {
                return Ok(None);
            }
            for (place, byte) in buffer.iter_mut().zip(pipe.to_gateway.drain(..count)) {
                *place = byte;
            }
            Ok(Some(count))
        })
    }
}
