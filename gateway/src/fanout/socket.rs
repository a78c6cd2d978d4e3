//! The sockets of clients behind a trait, so that a shard runs the same over TCP and in a test.
//!
//! A shard's thread alone uses them. Nothing here blocks.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use crate::limits::{SOCKET_SEND_BYTES, SOCKET_UNSENT_BYTES};
use crate::places::Place;

/// A client's byte stream, which never blocks.
pub trait Socket: Send {
    /// Sends what fits; returns how many bytes were taken, 0 when none fits now.
    ///
    /// # Errors
    /// When the connection is broken.
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Reads what is there; `None` when nothing is there now, `Some(0)` at the end of the stream.
    ///
    /// # Errors
    /// When the connection is broken.
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>>;

    /// The descriptor to poll, where there is one.
    fn tcp(&self) -> Option<&TcpStream> {
        None
    }

    /// Says that nothing more is sent. What the peer sends is still read.
    fn finish(&mut self) {}

    /// Ends the connection at once, so that what the kernel still holds is not sent.
    fn abort(&mut self) {}
}

/// How much the kernel may hold of what a client was sent: a returning reader gets that first, and
/// by then it is old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketOptions {
    /// `SO_SNDBUF`: bytes sent and not acknowledged.
    pub send_bytes: usize,
    /// `TCP_NOTSENT_LOWAT`: bytes not yet sent at which a socket counts as writable.
    pub unsent_bytes: u32,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self { send_bytes: SOCKET_SEND_BYTES, unsent_bytes: SOCKET_UNSENT_BYTES }
    }
}

/// A plain TCP connection.
#[derive(Debug)]
pub struct TcpSocket {
    tcp: TcpStream,
    /// Given back when the connection is dropped.
    _place: Place,
}

impl TcpSocket {
    /// Takes over a connection: no delay, no blocking, and bounded buffers in the kernel.
    ///
    /// # Errors
    /// When the options cannot be set.
    pub fn new(tcp: TcpStream, options: SocketOptions, place: Place) -> io::Result<Self> {
        tcp.set_nonblocking(true)?;
        tcp.set_nodelay(true)?;
        let socket = socket2::SockRef::from(&tcp);
        socket.set_send_buffer_size(options.send_bytes)?;
        #[cfg(target_os = "linux")]
        socket.set_tcp_notsent_lowat(options.unsent_bytes)?;
        Ok(Self { tcp, _place: place })
    }
}

impl Socket for TcpSocket {
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.tcp.write(bytes) {
                Ok(0) if !bytes.is_empty() => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => return Ok(taken),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match self.tcp.read(buffer) {
                Ok(count) => return Ok(Some(count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn tcp(&self) -> Option<&TcpStream> {
        Some(&self.tcp)
    }

    fn finish(&mut self) {
        // Best effort: a peer that is gone needs no sign.
        let _ = self.tcp.shutdown(std::net::Shutdown::Write);
    }

    fn abort(&mut self) {
        // Best effort: the connection ends either way.
        let _ = socket2::SockRef::from(&self.tcp).set_linger(Some(std::time::Duration::ZERO));
    }
}
