//! What all rivals share: a server that takes ticks, and the loop that makes them.
//!
//! The loop is the process's main thread: it carries out the orders, sleeps until a tick's intended
//! time and hands the whole tick to the server in one piece, at the cost of one wake-up. Updates
//! are written before it sleeps, so that writing them delays nobody.

use std::future::Future;
use std::io::{BufRead, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use feed_sim::clock::wall_ns;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, oneshot};

use super::{Order, PeerOptions, RIVAL_UPDATE_BYTES, Report, rival_update};
use crate::schedule::{Schedule, TICK_NS};

/// Connections that may wait to be accepted, as many as Linux allows by default: with the usual
/// 1024 or fewer, a storm would measure how long the kernel waits before it repeats a SYN.
pub(super) const BACKLOG: u32 = 4096;

/// Ticks that a server may be behind before the loop waits for it; further ones are late, which
/// counts as latency all the same.
const TICKS_WAITING_MAX: usize = 64;

/// One update, ready to be sent.
#[derive(Debug, Clone)]
pub(super) struct Update {
    /// Which topic, from 0.
    pub(super) topic: u32,
    /// The message to its subscribers.
    pub(super) bytes: [u8; RIVAL_UPDATE_BYTES],
}

/// All updates that are due at the same time.
pub(super) type Tick = Vec<Update>;

/// A rival at work.
pub(super) trait Server {
    /// Where clients find it, on loopback.
    fn port(&self) -> u16;

    /// Publishes a tick; may wait for a server that is far behind.
    ///
    /// # Errors
    /// When the server has ended.
    fn publish(&mut self, tick: Tick) -> Result<()>;

    /// Ends it, with all connections.
    ///
    /// # Errors
    /// When the server had failed.
    fn stop(self) -> Result<()>;
}

/// Runs a rival for the load generator that is at the other end of standard input and output.
///
/// # Errors
/// When it does not start, fails, or is given orders that make no sense.
pub(super) fn run<S: Server>(
    options: &PeerOptions,
    start: impl FnOnce(usize) -> Result<S>,
) -> Result<()> {
    let mut server = start(options.topics)?;
    obey(options, &mut server, std::io::stdin().lock(), std::io::stdout())?;
    server.stop()
}

/// Carries out orders until told to quit, or until nobody is there who could.
fn obey(
    options: &PeerOptions,
    server: &mut impl Server,
    orders: impl BufRead,
    mut reports: impl Write,
) -> Result<()> {
    let mut report = |report: Report| {
        writeln!(reports, "{report}")?;
        reports.flush()
    };
    report(Report::Listening(server.port()))?;
    let mut numbers = vec![0; options.topics];
    for line in orders.lines() {
        match line.context("standard input")?.parse()? {
            Order::Publish { rate_per_s, start_ns, ticks } => {
                let schedule = Schedule::new(options.seed, options.topics, rate_per_s);
                report(publish(server, schedule, &mut numbers, start_ns, ticks)?)?;
            }
            Order::Quit => break,
        }
    }
    Ok(())
}

/// Publishes ticks of a schedule at their times. Every order begins a schedule of its own, whose
/// numbers go on from those of earlier ones.
fn publish(
    server: &mut impl Server,
    mut schedule: Schedule,
    numbers: &mut [u64],
    start_ns: u64,
    ticks: u64,
) -> Result<Report> {
    let mut events = Vec::new();
    let mut lag_ns_max = 0;
    for tick in 0..ticks {
        let intended_ns = start_ns + tick * TICK_NS;
        schedule.next_tick(&mut events);
        let updates = events.iter().map(|event| {
            let number = numbers[event.topic as usize] + event.number;
            let bytes = rival_update(event.topic, number, intended_ns);
            Update { topic: event.topic, bytes }
        });
        let updates: Tick = updates.collect();
        if let Some(early_ns) = intended_ns.checked_sub(wall_ns()) {
            thread::sleep(Duration::from_nanos(early_ns));
        }
        lag_ns_max = lag_ns_max.max(wall_ns().saturating_sub(intended_ns));
        if !updates.is_empty() {
            server.publish(updates)?;
        }
    }
    for (number, count) in numbers.iter_mut().zip(schedule.numbers()) {
        *number += count;
    }
    Ok(Report::Published { events: schedule.numbers().iter().sum(), lag_ns_max })
}

/// A server on a thread of its own with a single-threaded tokio runtime.
pub(super) struct OnTokio {
    port: u16,
    ticks: mpsc::Sender<Tick>,
    thread: JoinHandle<Result<()>>,
}

impl OnTokio {
    /// Starts a server, which ends when there will be no more ticks.
    ///
    /// # Errors
    /// When no socket can be listened on.
    pub(super) fn start<F>(
        serve: impl FnOnce(TcpListener, mpsc::Receiver<Tick>) -> F + Send + 'static,
    ) -> Result<Self>
    where
        F: Future<Output = Result<()>>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (ticks, waiting) = mpsc::channel(TICKS_WAITING_MAX);
        let (found, port) = oneshot::channel();
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                let listener = listen().context("no socket on loopback to listen on")?;
                let _ = found.send(listener.local_addr()?.port());
                serve(listener, waiting).await
            })
        });
        match port.blocking_recv() {
            Ok(port) => Ok(Self { port, ticks, thread }),
            Err(_) => Err(join(thread).err().unwrap_or_else(|| anyhow!("the server has ended"))),
        }
    }
}

impl Server for OnTokio {
    fn port(&self) -> u16 {
        self.port
    }

    fn publish(&mut self, tick: Tick) -> Result<()> {
        self.ticks.blocking_send(tick).context("the server has ended")
    }

    fn stop(self) -> Result<()> {
        drop(self.ticks);
        join(self.thread)
    }
}

/// Waits for a server's thread to end.
pub(super) fn join(thread: JoinHandle<Result<()>>) -> Result<()> {
    thread.join().map_err(|_| anyhow!("the server panicked"))?
}

fn listen() -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    socket.listen(BACKLOG)
}

/// The topics that a client's message names: `sub 3,7,9`. What is not understood names none, as
/// only the load generator is a client.
pub(super) fn topics_in(message: &str) -> impl Iterator<Item = usize> {
    let topics = message.strip_prefix("sub ").unwrap_or_default();
    topics.split(',').filter_map(|topic| topic.parse().ok())
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use futures_util::{SinkExt, StreamExt};
    use tokio::net::TcpStream;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

    use super::*;
    use crate::peer::{Channel, Name};

    type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

    pub(in crate::peer) const TOPICS: usize = 10;
    const RATE_PER_S: u64 = 2_500;
    const START_NS: u64 = 1_000;
    const TICKS: u64 = 100;

    /// When a client that still waits is told that it waits in vain.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// Two clients with a topic in common each get exactly the updates of their topics, and those
    /// of a topic in order.
    pub(in crate::peer) fn serves_each_client_its_topics(mut server: impl Server + Send) {
        let options = PeerOptions {
            name: Name::Naive,
            topics: TOPICS,
            channel: Channel::Trades,
            seed: 7,
            core: None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut clients = Vec::new();
            for topics in [vec![0, 2, 5], vec![5, 9]] {
                clients.push((subscribe(server.port(), &topics).await, topics));
            }
            let order = Order::Publish { rate_per_s: RATE_PER_S, start_ns: START_NS, ticks: TICKS };
            let mut reports = Vec::new();
            let orders = format!("{order}\n{order}\nquit\n");
            // A tick may wait for the server, which no task may.
            thread::scope(|threads| {
                threads.spawn(|| {
                    obey(&options, &mut server, orders.as_bytes(), &mut reports).unwrap();
                });
            });
            let reports = String::from_utf8(reports).unwrap();
            assert_eq!(reports.matches("published 250 ").count(), 2, "{reports}");
            for (client, topics) in &mut clients {
                let expected = expected(options.seed, topics);
                let count = expected.values().map(Vec::len).sum();
                let got = tokio::time::timeout(PATIENCE, updates(client, count)).await;
                assert_eq!(got.expect("updates are missing"), expected);
            }
        });
        server.stop().unwrap();
    }

    async fn subscribe(port: u16, topics: &[u32]) -> Client {
        let url = format!("ws://127.0.0.1:{port}/");
        let (mut client, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let list: Vec<String> = topics.iter().map(u32::to_string).collect();
        client.send(Message::text(format!("sub {}", list.join(",")))).await.unwrap();
        // Messages are handled in order, so the answer says that the subscription stands.
        client.send(Message::Ping("subscribed".into())).await.unwrap();
        match client.next().await.unwrap().unwrap() {
            Message::Pong(payload) => assert_eq!(payload, "subscribed"),
            other => panic!("a subscription is answered by nothing, not {other:?}"),
        }
        client
    }

    /// What a client gets until it has as many updates as it should, and until the answer to a
    /// ping after them; by topic.
    async fn updates(client: &mut Client, count: usize) -> BTreeMap<u32, Vec<String>> {
        let mut got: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for n in 1.. {
            match client.next().await.unwrap().unwrap() {
                Message::Text(text) => {
                    let topic = text[5..10].trim().parse().unwrap();
                    got.entry(topic).or_default().push(text.as_str().to_owned());
                }
                Message::Pong(_) => break,
                other => panic!("{other:?}"),
            }
            if n == count {
                client.send(Message::Ping("no more?".into())).await.unwrap();
            }
        }
        got
    }

    fn expected(seed: u64, topics: &[u32]) -> BTreeMap<u32, Vec<String>> {
        let mut expected: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        let mut events = Vec::new();
        for _order in 0..2 {
            let mut schedule = Schedule::new(seed, TOPICS, RATE_PER_S);
            for tick in 0..TICKS {
                schedule.next_tick(&mut events);
                for topic in events.iter().map(|event| event.topic) {
                    if topics.contains(&topic) {
                        let updates = expected.entry(topic).or_default();
                        let number = updates.len() as u64 + 1;
                        let update = rival_update(topic, number, START_NS + tick * TICK_NS);
                        updates.push(String::from_utf8(update.to_vec()).unwrap());
                    }
                }
            }
        }
        expected
    }
}
