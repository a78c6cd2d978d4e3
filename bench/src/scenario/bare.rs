//! What the machine can do without a server: the anchors of two goals.
//!
//! Both loops have the threads of a server on the server's core and the reader on the load's, over
//! the same kind of sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use hdrhistogram::Histogram;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use super::session::SERVER_CORE;
use crate::clock;
use crate::load::tally::record;
use crate::pin::pin;

/// Between two messages of the latency loop.
const EVERY: Duration = Duration::from_millis(5);

/// Bytes of a message of the latency loop: those of a small update, of which the first eight are the
/// time at which it was received.
const MESSAGE_BYTES: usize = 160;

/// Bytes of one send of the sending loop: some twenty updates.
const SEND_BYTES: usize = 3_000;

fn pair(listener: &TcpListener) -> Result<(TcpStream, TcpStream)> {
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    server.set_nodelay(true)?;
    Ok((server, client))
}

/// Receives on one thread, wakes another, which sends; gives received − sent on by the reader.
///
/// # Errors
/// When a socket fails.
pub(super) fn relay(messages: u32) -> Result<Histogram<u64>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let (mut venue, mut feed) = pair(&listener)?;
    let (mut shard, mut client) = pair(&listener)?;
    let received = Arc::new(AtomicU64::new(0));
    let sending = {
        let received = Arc::clone(&received);
        thread::spawn(move || -> Result<()> {
            pin(SERVER_CORE)?;
            let mut message = [0; MESSAGE_BYTES];
            for _ in 0..messages {
                let at_ns = loop {
                    match received.swap(0, Ordering::Acquire) {
                        0 => thread::park(),
                        at_ns => break at_ns,
                    }
                };
                message[..8].copy_from_slice(&at_ns.to_le_bytes());
                shard.write_all(&message)?;
            }
            Ok(())
        })
    };
    let woken = sending.thread().clone();
    let receiving = thread::spawn(move || -> Result<()> {
        pin(SERVER_CORE)?;
        let mut message = [0; MESSAGE_BYTES];
        for _ in 0..messages {
            feed.read_exact(&mut message)?;
            received.store(clock::wall_ns(), Ordering::Release);
            woken.unpark();
        }
        Ok(())
    });
    let publishing = thread::spawn(move || -> Result<()> {
        pin(SERVER_CORE)?;
        for _ in 0..messages {
            thread::sleep(EVERY);
            venue.write_all(&[0; MESSAGE_BYTES])?;
        }
        Ok(())
    });
    let mut histogram = Histogram::new_with_bounds(1, 10_000_000_000, 3)?;
    let mut message = [0; MESSAGE_BYTES];
    // As the load does where it measures such latencies, the reader asks again and again.
    client.set_nonblocking(true)?;
    for _ in 0..messages {
        let mut have = 0;
        while have < MESSAGE_BYTES {
            match client.read(&mut message[have..]) {
                Ok(0) => return Err(anyhow!("the loop ended early")),
                Ok(count) => have += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        let now = clock::wall_ns();
        let (at_ns, _) = message.split_first_chunk().context("a short message")?;
        record(&mut histogram, u64::from_le_bytes(*at_ns), now);
    }
    for thread in [publishing, receiving, sending] {
        thread.join().map_err(|_| anyhow!("the loop panicked"))??;
    }
    Ok(histogram)
}

/// Sends to many sockets in turn for a while, as fast as it goes; gives sends per second.
///
/// # Errors
/// When a socket fails.
pub(super) fn sends_per_s(sockets: usize, window: Duration) -> Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let poller = epoll::create(CreateFlags::CLOEXEC)?;
    let (mut servers, mut clients) = (Vec::new(), Vec::new());
    for index in 0..sockets {
        let (server, client) = pair(&listener)?;
        server.set_nonblocking(true)?;
        client.set_nonblocking(true)?;
        epoll::add(&poller, &client, EventData::new_u64(index as u64), EventFlags::IN)?;
        servers.push(server);
        clients.push(client);
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let ending = Arc::clone(&is_over);
    let sending = thread::spawn(move || -> Result<f64> {
        pin(SERVER_CORE)?;
        let bytes = [b'x'; SEND_BYTES];
        let began = clock::now();
        let mut sends = 0u64;
        while !ending.load(Ordering::Relaxed) {
            for server in &mut servers {
                match server.write(&bytes) {
                    Ok(_) => sends += 1,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(sends as f64 / began.elapsed().as_secs_f64())
    });
    let began = clock::now();
    let mut ready: Vec<epoll::Event> = Vec::with_capacity(512);
    let mut buffer = vec![0; 256 * 1024];
    let step = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
    while began.elapsed() < window {
        ready.clear();
        epoll::wait(&poller, rustix::buffer::spare_capacity(&mut ready), Some(&step))?;
        for event in &ready {
            let index = event.data.u64() as usize;
            match clients[index].read(&mut buffer) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    is_over.store(true, Ordering::Relaxed);
    sending.join().map_err(|_| anyhow!("the loop panicked"))?
}
