//! What a shard sleeps on: the kernel's readiness of its sockets, and a wake-up from other threads.
//!
//! A shard's thread waits here, once a round; the feed and the door wake it. Made of `epoll` and an
//! `eventfd` alone, so that a wake-up costs one system call on either side and a sleep another: on
//! the way of every update there is nothing to read, to arm again or to set a timer with.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::fd::OwnedFd;

/// The key of the wake-up, which no connection has.
const WAKE_KEY: u64 = u64::MAX;

/// What a socket is watched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interest {
    /// There is something to read, or the peer has ended.
    pub reading: bool,
    /// There is room to write.
    pub writing: bool,
}

/// A socket that is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// The key that it was watched under.
    pub key: usize,
    /// What it is ready for.
    pub interest: Interest,
}

/// Watches sockets and can be woken.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
    wake: OwnedFd,
}

impl Poller {
    /// A poller that watches nothing yet.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // Edge-triggered: each write is told once, and the count is never read.
        epoll::add(&epoll, &wake, EventData::new_u64(WAKE_KEY), EventFlags::IN | EventFlags::ET)?;
        Ok(Self { epoll, wake })
    }

    /// Ends the wait that is under way, or else the next one.
    ///
    /// # Errors
    /// None that a living poller gives; the signature is that of a write.
    pub fn wake(&self) -> io::Result<()> {
        rustix::io::write(&self.wake, &1u64.to_ne_bytes())?;
        Ok(())
    }

    /// Watches a socket, level-triggered, until it is closed.
    ///
    /// # Errors
    /// When it is watched already, or the kernel has no room.
    pub fn watch(&self, tcp: &TcpStream, key: usize, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, tcp, EventData::new_u64(key as u64), flags(interest))?)
    }

    /// Watches a socket for something else from now on.
    ///
    /// # Errors
    /// When it is not watched.
    pub fn change(&self, tcp: &TcpStream, key: usize, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, tcp, EventData::new_u64(key as u64), flags(interest))?)
    }

    /// Waits until a socket is ready, somebody wakes it, or the time is over; puts what is ready in
    /// the place of what `ready` holds, as much as it has room for.
    ///
    /// # Errors
    /// When the kernel fails; an interruption by a signal counts as the end of the time.
    pub fn wait(&self, ready: &mut Events, limit: Duration) -> io::Result<()> {
        ready.0.clear();
        let limit = Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(limit.subsec_nanos()),
        };
        match epoll::wait(&self.epoll, spare_capacity(&mut ready.0), Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

const fn flags(interest: Interest) -> EventFlags {
    match (interest.reading, interest.writing) {
        (true, true) => EventFlags::IN.union(EventFlags::OUT),
        (true, false) => EventFlags::IN,
        (false, true) => EventFlags::OUT,
        (false, false) => EventFlags::empty(),
    }
}

/// What one wait found ready.
pub struct Events(Vec<epoll::Event>);

impl Events {
    /// Room for this many.
    pub fn with_capacity(count: usize) -> Self {
        Self(Vec::with_capacity(count))
    }

    /// The sockets that are ready. An error or the end of a connection counts as both, so that
    /// whoever uses it next meets it.
    pub fn iter(&self) -> impl Iterator<Item = Ready> + '_ {
        let broken = EventFlags::ERR | EventFlags::HUP;
        self.0.iter().filter(|event| event.data.u64() != WAKE_KEY).map(move |event| {
            let flags = event.flags;
            Ready {
                key: event.data.u64() as usize,
                interest: Interest {
                    reading: flags.intersects(EventFlags::IN | broken),
                    writing: flags.intersects(EventFlags::OUT | broken),
                },
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{Ipv4Addr, TcpListener};

    const LONG: Duration = Duration::from_secs(60);

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    fn ready(poller: &Poller, limit: Duration) -> Vec<Ready> {
        let mut events = Events::with_capacity(8);
        poller.wait(&mut events, limit).unwrap();
        events.iter().collect()
    }

    #[test]
    fn every_wake_ends_one_wait_and_is_no_socket() {
        let poller = Poller::new().unwrap();
        for _ in 0..3 {
            poller.wake().unwrap();
            // It would last a minute.
            assert_eq!(ready(&poller, LONG), []);
        }
        // Two wakes before a wait end that one alone.
        poller.wake().unwrap();
        poller.wake().unwrap();
        assert_eq!(ready(&poller, LONG), []);
        let mut events = Events::with_capacity(8);
        poller.wait(&mut events, Duration::ZERO).unwrap();
        assert_eq!(events.0.len(), 0, "the second wake was left over");
    }

    #[test]
    fn a_socket_is_told_for_what_it_is_watched_and_its_end_for_both() {
        let poller = Poller::new().unwrap();
        let (near, mut far) = pair();
        let nothing = Interest { reading: false, writing: false };
        let reading = Interest { reading: true, writing: false };
        let writing = Interest { reading: false, writing: true };
        poller.watch(&near, 7, reading).unwrap();
        assert_eq!(ready(&poller, Duration::ZERO), []);
        far.write_all(b"x").unwrap();
        assert_eq!(ready(&poller, LONG), [Ready { key: 7, interest: reading }]);
        // Level-triggered: it was not read.
        assert_eq!(ready(&poller, LONG), [Ready { key: 7, interest: reading }]);
        poller.change(&near, 7, writing).unwrap();
        assert_eq!(ready(&poller, LONG), [Ready { key: 7, interest: writing }]);
        poller.change(&near, 7, nothing).unwrap();
        assert_eq!(ready(&poller, Duration::ZERO), []);
        assert!(poller.watch(&near, 8, reading).is_err(), "watched twice");
        socket2::SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
        drop(far);
        let both = Interest { reading: true, writing: true };
        assert_eq!(ready(&poller, LONG), [Ready { key: 7, interest: both }]);
        drop(near);
        assert_eq!(ready(&poller, Duration::ZERO), []);
    }
}
