//! The subscribers: shards of connections, each driven by one plain loop on a thread of its own.
//!
//! The loop here is all that knows a poller and a real clock; what it drives is a function of times,
//! readiness and marks. The door hands connections over by a bounded queue of commands.

use std::io;
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use tickfan_core::market::Nanos;
use tickfan_core::snapshot::Registry;
use tickfan_core::snapshot::marks::Marks;
use tickfan_core::wire::Encoding;
use tokio::sync::oneshot;

pub mod table;
pub mod log;
pub mod lane;
pub mod seat;
pub mod class;
pub mod socket;
pub mod poller;
pub mod connection;
pub mod request;
pub mod send;
pub mod survey;
mod seating;
mod lifetime;
pub mod shard;

use connection::{Cause, Connection, Phase};
use poller::{Events, Interest, Poller};
use shard::{Shard, ShardOptions};
use socket::{SocketOptions, TcpSocket};
use table::{ConnectionKey, Key};

use crate::affinity;
use crate::clock::Clock;
use crate::limits::{
    COMMANDS_PER_ROUND, EVENTS_PER_ROUND, INSTRUMENTS_MAX, SHARD_COMMANDS_MAX, SLEEP_NS_MAX,
};
use crate::overview::{ShardReport, WorstBy};
use crate::places::Place;
use crate::stats::SharedStats;

/// What a shard is told from outside.
#[derive(Debug)]
enum Command {
    /// Serve this connection, which was just upgraded; the bytes came behind its request, and the
    /// place is its own until it ends.
    Accept(TcpStream, Encoding, Vec<u8>, Place),
    /// Say goodbye to everybody.
    Drain,
    /// Tell an operator of all connections. Who asks later takes the place of who asked before.
    Survey(WorstBy, oneshot::Sender<ShardReport>),
}

/// How a shard's thread and sockets are set up.
#[derive(Debug, Clone, Copy, Default)]
pub struct DriverOptions {
    /// The core that it is pinned to.
    pub core: Option<usize>,
    /// Its clients' sockets.
    pub sockets: SocketOptions,
}

/// A running shard, as others see it.
#[derive(Debug)]
pub struct ShardHandle {
    commands: Sender<Command>,
    poller: Arc<Poller>,
    /// Its dirty marks.
    pub marks: Arc<Marks>,
    /// Its connections, those on the way to it included.
    load: Arc<AtomicUsize>,
    /// When its loop went round last.
    pub watchdog: Arc<AtomicU64>,
}

/// A shard has too much to do to take one more connection: here it is again.
#[derive(Debug)]
pub struct Overloaded(pub TcpStream);

impl ShardHandle {
    /// Starts a shard on a thread of its own.
    ///
    /// # Errors
    /// When there is no poller or no thread to be had.
    pub fn spawn(
        id: u32,
        registry: Arc<Registry>,
        stats: SharedStats,
        clock: Clock,
        options: DriverOptions,
    ) -> io::Result<Self> {
        let poller = Arc::new(Poller::new()?);
        let wake = Arc::clone(&poller);
        // A poller that cannot be woken has gone with its shard.
        let marks = Arc::new(Marks::new(INSTRUMENTS_MAX, move || {
            let _ = wake.wake();
        }));
        let (commands, receiver) = bounded(SHARD_COMMANDS_MAX);
        let load = Arc::new(AtomicUsize::new(0));
        let watchdog = Arc::new(AtomicU64::new(clock.now()));
        let driver = Driver {
            id,
            registry,
            stats,
            clock,
            poller: Arc::clone(&poller),
            marks: Arc::clone(&marks),
            commands: receiver,
            load: Arc::clone(&load),
            watchdog: Arc::clone(&watchdog),
            options,
            asked: None,
        };
        std::thread::Builder::new().name(format!("shard-{id}")).spawn(move || driver.run())?;
        Ok(Self { commands, poller, marks, load, watchdog })
    }

    /// How many connections it has.
    pub fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// Its queue is not half full: who is let in now will find a place there.
    pub fn has_room(&self) -> bool {
        self.commands.len() < SHARD_COMMANDS_MAX / 2
    }

    /// Hands a connection over.
    ///
    /// # Errors
    /// [`Overloaded`] when the queue is full.
    pub fn accept(
        &self,
        stream: TcpStream,
        encoding: Encoding,
        early: Vec<u8>,
        place: Place,
    ) -> Result<(), Overloaded> {
        self.load.fetch_add(1, Ordering::Relaxed);
        match self.command(Command::Accept(stream, encoding, early, place)) {
            Err(Command::Accept(stream, ..)) => {
                self.load.fetch_sub(1, Ordering::Relaxed);
                Err(Overloaded(stream))
            }
            _ => Ok(()),
        }
    }

    /// Tells the shard to say goodbye to everybody.
    pub fn drain(&self) {
        // A full queue means that the shard is about to look at it; it is not full twice.
        while self.command(Command::Drain).is_err() {
            std::thread::yield_now();
        }
    }

    /// Asks about its connections. The answer never comes when the shard has too much to do to take
    /// the question, or when somebody else asks before it is there.
    pub fn survey(&self, by: WorstBy) -> oneshot::Receiver<ShardReport> {
        let (told, answer) = oneshot::channel();
        // A command that does not fit is dropped, and with it the sender: that is the sign.
        let _ = self.command(Command::Survey(by, told));
        answer
    }

    /// Gives the command back when the queue is full.
    fn command(&self, command: Command) -> Result<(), Command> {
        match self.commands.try_send(command) {
            Ok(()) => {
                // A poller that cannot be woken has gone with its shard.
                let _ = self.poller.wake();
                Ok(())
            }
            Err(TrySendError::Full(command) | TrySendError::Disconnected(command)) => Err(command),
        }
    }
}

/// The loop around a shard.
struct Driver {
    id: u32,
    registry: Arc<Registry>,
    stats: SharedStats,
    clock: Clock,
    poller: Arc<Poller>,
    marks: Arc<Marks>,
    commands: Receiver<Command>,
    load: Arc<AtomicUsize>,
    watchdog: Arc<AtomicU64>,
    options: DriverOptions,
    /// Who asked about the connections and has not been told.
    asked: Option<oneshot::Sender<ShardReport>>,
}

impl Driver {
    /// Runs for as long as anybody holds the handle.
    fn run(mut self) {
        if let Some(core) = self.options.core {
            affinity::pin(core, &format!("shard {}", self.id));
        }
        loop {
            let clock = self.clock.clone();
            let mut shard = Shard::new(ShardOptions {
                id: self.id,
                registry: Arc::clone(&self.registry),
                marks: Arc::clone(&self.marks),
                stats: Arc::clone(&self.stats),
                time: Box::new(move || clock.now()),
            });
            // A panic is a bug of ours: the clients of this shard are told so, the others never
            // notice, and the shard begins anew.
            let result = catch_unwind(AssertUnwindSafe(|| self.serve(&mut shard)));
            let has_ended = result.is_ok();
            shard.abandon();
            self.settle(&mut shard);
            if has_ended {
                return;
            }
            tracing::error!(shard = self.id, "a shard failed; its clients were closed with 1011");
        }
    }

    fn serve(&mut self, shard: &mut Shard) {
        let mut events = Events::with_capacity(EVENTS_PER_ROUND);
        let mut due_ns: Nanos = 0;
        loop {
            let now = self.clock.now();
            self.watchdog.store(now, Ordering::Relaxed);
            let mut sleep_ns = due_ns.saturating_sub(now).min(SLEEP_NS_MAX);
            if !self.commands.is_empty() {
                sleep_ns = 0;
            }
            if sleep_ns > 0 && !self.marks.park(now + sleep_ns) {
                sleep_ns = 0;
            }
            let waited = self.poller.wait(&mut events, Duration::from_nanos(sleep_ns));
            self.marks.unpark();
            if let Err(error) = waited {
                tracing::error!(shard = self.id, %error, "the poller failed");
                return;
            }
            for _ in 0..COMMANDS_PER_ROUND {
                match self.commands.try_recv() {
                    Ok(Command::Accept(stream, encoding, early, place)) => {
                        self.accept(shard, stream, encoding, &early, place);
                    }
                    Ok(Command::Drain) => shard.drain(),
                    Ok(Command::Survey(by, told)) => {
                        shard.survey(by);
                        self.asked = Some(told);
                    }
                    Err(crossbeam::channel::TryRecvError::Empty) => break,
                    Err(crossbeam::channel::TryRecvError::Disconnected) => return,
                }
            }
            for ready in events.iter() {
                let key = ConnectionKey::from_index(ready.key);
                if ready.interest.writing {
                    shard.on_writable(key);
                }
                if ready.interest.reading {
                    shard.on_readable(key);
                }
            }
            due_ns = shard.turn();
            self.settle(shard);
            if let Some(report) = shard.take_report()
                && let Some(told) = self.asked.take()
            {
                // Who asked may have gone.
                let _ = told.send(report);
            }
        }
    }

    fn accept(
        &mut self,
        shard: &mut Shard,
        stream: TcpStream,
        encoding: Encoding,
        early: &[u8],
        place: Place,
    ) {
        match TcpSocket::new(stream, self.options.sockets, place) {
            Ok(socket) => {
                shard.accept(Box::new(socket), encoding, early);
            }
            Err(error) => {
                self.load.fetch_sub(1, Ordering::Relaxed);
                tracing::debug!(%error, "a connection was gone before it was served");
            }
        }
    }

    /// Has the poller watch each connection for what it is to be watched for now.
    fn settle(&mut self, shard: &mut Shard) {
        for key in shard.take_touched() {
            let Some(connection) = shard.connection_mut(key) else { continue };
            let is_closing = matches!(connection.phase, Phase::Closing(_));
            let wanted = Interest {
                reading: connection.may_read() || is_closing,
                writing: connection.is_blocked(),
            };
            let before = connection.watched.replace(wanted);
            let Some(tcp) = connection.socket.tcp() else { continue };
            let watched = match before {
                Some(before) if before == wanted => Ok(()),
                Some(_) => self.poller.change(tcp, key.index(), wanted),
                None => self.poller.watch(tcp, key.index(), wanted),
            };
            if let Err(error) = watched {
                // It will be closed as silent.
                tracing::warn!(%error, "a connection cannot be watched");
            }
        }
        for (_, connection) in shard.take_ended() {
            self.load.fetch_sub(1, Ordering::Relaxed);
            drop::<Connection>(connection);
        }
    }
}

impl Shard {
    /// Ends every connection as our fault.
    fn abandon(&mut self) {
        let keys: Vec<ConnectionKey> = self.connections.keys().collect();
        for key in keys {
            if let Some(connection) = self.connections.get_mut(key) {
                let mut frame = Vec::new();
                let code = Cause::Internal.close_code();
                tickfan_core::ws::write_close(code, "our fault", &mut frame);
                // Best effort: it is not known in what state the connection is.
                let _ = connection.socket.send(&frame);
            }
            self.end(key, Cause::Internal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::places::Places;
    use std::net::{Ipv4Addr, TcpListener};

    #[test]
    fn one_connection_more_than_a_shard_can_queue_is_given_back() {
        let (commands, _unread) = bounded(SHARD_COMMANDS_MAX);
        let shard = ShardHandle {
            commands,
            poller: Arc::new(Poller::new().unwrap()),
            marks: Arc::new(Marks::new(1, || ())),
            load: Arc::default(),
            watchdog: Arc::default(),
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let places = Places::new(2, None, 2);
        let arrive = || {
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let place = places.take(Ipv4Addr::LOCALHOST.into()).unwrap();
            shard.accept(stream, Encoding::Json, Vec::new(), place)
        };
        for _ in 1..SHARD_COMMANDS_MAX {
            shard.command(Command::Drain).unwrap();
        }
        assert!(arrive().is_ok());
        assert!(arrive().is_err());
        let unheard = shard.survey(WorstBy::Lag).blocking_recv();
        assert!(unheard.is_err(), "who asks is not kept waiting");
        assert_eq!((shard.load(), places.taken()), (1, 1));
    }
}
