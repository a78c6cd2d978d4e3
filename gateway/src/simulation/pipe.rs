//! A client's byte stream without a socket: a bounded buffer that the client drains as it likes.
//!
//! The shard holds one end behind the trait `Socket`, the simulated client the other. Whatever the
//! buffer takes is seen by the checker at once, as it was sent.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::random::Random;
use crate::fanout::socket::Socket;

/// Both ends.
#[derive(Debug)]
pub(super) struct Pipe {
    /// Bytes that the buffer holds at most.
    capacity: usize,
    /// Bytes in the buffer.
    buffered: usize,
    /// Bytes that one call takes at most, drawn; 0 = all that fit.
    bite: u64,
    /// Bytes taken and not yet checked.
    taken: Vec<u8>,
    to_gateway: VecDeque<u8>,
    is_gone: bool,
    random: Random,
}

/// A shared [`Pipe`].
#[derive(Debug, Clone)]
pub(super) struct End(Arc<Mutex<Pipe>>);

impl End {
    pub(super) fn new(capacity: usize, bite: u64, random: Random) -> Self {
        Self(Arc::new(Mutex::new(Pipe {
            capacity,
            buffered: 0,
            bite,
            taken: Vec::new(),
            to_gateway: VecDeque::new(),
            is_gone: false,
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

    /// The client is gone without a word.
    pub(super) fn abort(&self) {
        self.with(|pipe| pipe.is_gone = true);
    }

    /// There is something for the client to read.
    pub(super) fn has_output(&self) -> bool {
        self.with(|pipe| pipe.buffered > 0)
    }

    pub(super) fn is_readable(&self) -> bool {
        self.with(|pipe| pipe.is_gone || !pipe.to_gateway.is_empty())
    }

    pub(super) fn is_writable(&self) -> bool {
        self.with(|pipe| pipe.is_gone || pipe.buffered < pipe.capacity)
    }

    /// What was sent since the last call.
    pub(super) fn take_sent(&self) -> Vec<u8> {
        self.with(|pipe| std::mem::take(&mut pipe.taken))
    }
}

impl Socket for End {
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.with(|pipe| {
            if pipe.is_gone {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            let mut count = bytes.len().min(pipe.capacity - pipe.buffered);
            if pipe.bite > 0 {
                count = count.min(pipe.random.between(1, pipe.bite) as usize);
            }
            pipe.buffered += count;
            pipe.taken.extend_from_slice(&bytes[..count]);
            Ok(count)
        })
    }

    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        self.with(|pipe| {
            if pipe.is_gone {
                return Ok(Some(0));
            }
            let mut count = pipe.to_gateway.len().min(buffer.len());
            if pipe.bite > 0 {
                count = count.min(pipe.random.between(1, pipe.bite) as usize);
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
