//! A venue on loopback that publishes the schedule as Binance spot would, for as little CPU as
//! possible: it runs on the gateway's core and is counted as the gateway's.
//!
//! A message is a template whose digits are overwritten. One socket write carries all messages of a
//! tick. REST images and the list of instruments are what the gateway needs to begin.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tickfan_core::ws::{self, Opcode};
use tokio_tungstenite::tungstenite::{self, Message};

use super::Channel;
use crate::clock;
use crate::schedule::{Event, Schedule, TICK_NS};

/// Instruments that the gateway takes over one connection.
const TOPICS_MAX: usize = 340;

/// Streams of an instrument that the gateway subscribes to.
const STREAMS_PER_TOPIC: usize = 3;

/// A venue says something at least this often.
const PING_EVERY: Duration = Duration::from_secs(10);

/// How long the gateway may take to subscribe to everything.
const SUBSCRIBED_MAX: Duration = Duration::from_secs(20);

/// Levels a side of the book.
const LEVELS: u64 = 20;

/// The number that an image carries: that of event n is n more.
pub(crate) const IMAGE_ID: u64 = 1;

/// A topic's symbol in the venue's spelling.
pub(crate) fn symbol(topic: usize) -> String {
    format!("S{topic:05}USDT")
}

/// The price of a topic's n-th event in cents: what a checker holds a delivery against.
pub(crate) const fn cents(number: u64) -> u64 {
    1_000_000 + number.wrapping_mul(7_919) % 900_000
}

/// The venue.
pub(crate) struct Venue {
    topics: usize,
    seed: u64,
    floor: Arc<Floor>,
    /// Where its stream is.
    pub(crate) stream: SocketAddr,
    /// Where its REST interface is.
    pub(crate) rest: SocketAddr,
    templates: Vec<Template>,
    /// Events that each topic has had in earlier orders.
    numbers: Vec<u64>,
}

/// The connection to the gateway, once it subscribed to everything.
#[derive(Default)]
struct Floor {
    gateway: Mutex<Option<TcpStream>>,
    subscribed: Condvar,
}

impl Floor {
    fn lock(&self) -> MutexGuard<'_, Option<TcpStream>> {
        self.gateway.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Venue {
    /// Begins to listen, on threads of its own that live as long as the process.
    ///
    /// # Errors
    /// When it cannot listen, or has too many topics.
    pub(crate) fn start(seed: u64, topics: usize, channel: Channel) -> Result<Self> {
        ensure!(topics <= TOPICS_MAX, "at most {TOPICS_MAX} topics fit the venue's connection");
        let floor = Arc::new(Floor::default());
        let stream = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let rest = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addresses = (stream.local_addr()?, rest.local_addr()?);
        let listening = Arc::clone(&floor);
        thread::spawn(move || {
            for connection in stream.incoming().flatten() {
                let floor = Arc::clone(&listening);
                // A connection that ends is made anew by the gateway.
                thread::spawn(move || serve_stream(connection, topics, &floor));
            }
        });
        thread::spawn(move || {
            for connection in rest.incoming().flatten() {
                thread::spawn(move || serve_rest(connection, topics));
            }
        });
        let pinging = Arc::clone(&floor);
        thread::spawn(move || {
            loop {
                thread::sleep(PING_EVERY);
                let mut ping = Vec::new();
                ws::write_ping(b"", &mut ping);
                if let Some(gateway) = &mut *pinging.lock() {
                    let _ = gateway.write_all(&ping);
                }
            }
        });
        Ok(Self {
            topics,
            seed,
            floor,
            stream: addresses.0,
            rest: addresses.1,
            templates: (0..topics).map(|topic| Template::new(channel, topic)).collect(),
            numbers: vec![0; topics],
        })
    }

    /// Waits until the gateway has subscribed to everything.
    ///
    /// # Errors
    /// When it does not in time.
    pub(crate) fn wait_until_subscribed(&self) -> Result<()> {
        let gateway = self.floor.lock();
        let (gateway, _) = self
            .floor
            .subscribed
            .wait_timeout_while(gateway, SUBSCRIBED_MAX, |gateway| gateway.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        ensure!(gateway.is_some(), "the gateway did not subscribe to its venue");
        Ok(())
    }

    /// Publishes ticks of a schedule; gives the number of events and how late the latest tick was.
    ///
    /// # Errors
    /// When the gateway is gone.
    pub(crate) fn publish(
        &mut self,
        rate_per_s: u64,
        start_ns: u64,
        ticks: u64,
    ) -> Result<(u64, u64)> {
        let mut schedule = Schedule::new(self.seed, self.topics, rate_per_s);
        let (mut events, mut bytes) = (Vec::new(), Vec::new());
        let (mut published, mut lag_ns_max) = (0, 0);
        for tick in 0..ticks {
            let intended_ns = start_ns + tick * TICK_NS;
            schedule.next_tick(&mut events);
            bytes.clear();
            for Event { topic, number } in &events {
                let topic = *topic as usize;
                let number = self.numbers[topic] + number;
                self.templates[topic].write(number, intended_ns / 1_000, &mut bytes);
            }
            let now = clock::wall_ns();
            if now < intended_ns {
                thread::sleep(Duration::from_nanos(intended_ns - now));
            }
            lag_ns_max = lag_ns_max.max(clock::wall_ns().saturating_sub(intended_ns));
            if !bytes.is_empty() {
                let mut gateway = self.floor.lock();
                let gateway = gateway.as_mut().context("the gateway is gone")?;
                gateway.write_all(&bytes).context("the gateway is gone")?;
            }
            published += events.len() as u64;
        }
        for (base, number) in self.numbers.iter_mut().zip(schedule.numbers()) {
            *base += number;
        }
        Ok((published, lag_ns_max))
    }
}

/// A message of one topic, framed, with the places of what changes.
struct Template {
    bytes: Vec<u8>,
    numbers: Vec<usize>,
    times: Vec<usize>,
    content: Content,
}

/// What a message says besides its number and time.
enum Content {
    /// Prices: the first as of the number, each other a cent more than the one before.
    Prices(Vec<usize>),
    /// A level on one of the sides: where its price is and where its quantity.
    Level { bid: (usize, usize), ask: (usize, usize) },
}

const NUMBER: &str = "NNNNNNNNNNNN";
const TIME: &str = "TTTTTTTTTTTTTTTT";
const PRICE: &str = "PPPPPPPP";
const QUANTITY: &str = "QQQQQQQQQQ";

impl Template {
    fn new(channel: Channel, topic: usize) -> Self {
        let symbol = symbol(topic);
        let stream = symbol.to_ascii_lowercase();
        let text = match channel {
            Channel::Trades => format!(
                r#"{{"stream":"{stream}@trade","data":{{"e":"trade","E":{TIME},"s":"{symbol}","t":{NUMBER},"p":"{PRICE}","q":"0.00100000","T":{TIME},"m":false,"M":true}}}}"#
            ),
            Channel::Bbo => format!(
                r#"{{"stream":"{stream}@bookTicker","data":{{"u":{NUMBER},"s":"{symbol}","b":"{PRICE}","B":"0.50000000","a":"{PRICE}","A":"0.70000000"}}}}"#
            ),
            Channel::Book => format!(
                r#"{{"stream":"{stream}@depth@100ms","data":{{"e":"depthUpdate","E":{TIME},"s":"{symbol}","U":{NUMBER},"u":{NUMBER},"b":[["{PRICE}","{QUANTITY}"]],"a":[["{PRICE}","{QUANTITY}"]]}}}}"#
            ),
        };
        let mut bytes = Vec::new();
        ws::write_header(Opcode::Text, text.len(), &mut bytes);
        let head = bytes.len();
        bytes.extend_from_slice(text.as_bytes());
        let places = |mark: &str| -> Vec<usize> {
            text.match_indices(mark).map(|(at, _)| head + at).collect()
        };
        let prices = places(PRICE);
        let content = match (channel, &prices[..], &places(QUANTITY)[..]) {
            (Channel::Book, [bid, ask], [of_bid, of_ask]) => {
                Content::Level { bid: (*bid, *of_bid), ask: (*ask, *of_ask) }
            }
            _ => Content::Prices(prices),
        };
        Self { numbers: places(NUMBER), times: places(TIME), content, bytes }
    }

    fn write(&mut self, number: u64, time_us: u64, out: &mut Vec<u8>) {
        // Trades have ids of their own; the others follow the image.
        let id = if matches!(&self.content, Content::Prices(prices) if prices.len() == 1) {
            number
        } else {
            IMAGE_ID + number
        };
        let bytes = &mut self.bytes;
        for at in &self.numbers {
            write_number(id, b' ', &mut bytes[*at..*at + NUMBER.len()]);
        }
        for at in &self.times {
            write_number(time_us, b'0', &mut bytes[*at..*at + TIME.len()]);
        }
        match &self.content {
            Content::Prices(places) => {
                for (at, cents) in places.iter().zip(cents(number)..) {
                    write_cents(cents, &mut bytes[*at..*at + PRICE.len()]);
                }
            }
            Content::Level { bid, ask } => {
                let step = number % LEVELS;
                for ((price, quantity), cents) in
                    [(bid, BEST_BID - step), (ask, BEST_BID + 1 + step)]
                {
                    write_cents(cents, &mut bytes[*price..*price + PRICE.len()]);
                    let quantity = &mut bytes[*quantity..*quantity + QUANTITY.len()];
                    quantity[..2].copy_from_slice(b"1.");
                    write_number(number % 100_000_000, b'0', &mut quantity[2..]);
                }
            }
        }
        out.extend_from_slice(bytes);
    }
}

/// The best bid of a book, in cents; the best ask is one more.
const BEST_BID: u64 = 1_000_000;

/// Writes a number to the right end of a field and fills its left.
fn write_number(mut number: u64, fill: u8, field: &mut [u8]) {
    let mut at = field.len();
    while at > 0 {
        at -= 1;
        field[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    field[..at].fill(fill);
}

fn write_cents(cents: u64, field: &mut [u8]) {
    let point = field.len() - 3;
    write_number(cents / 100, b'0', &mut field[..point]);
    field[point] = b'.';
    write_number(cents % 100, b'0', &mut field[point + 1..]);
}

#[derive(Deserialize)]
struct Call {
    id: u64,
    params: Vec<String>,
}

/// Answers subscriptions; once there are all, the connection is the publisher's.
fn serve_stream(connection: TcpStream, topics: usize, floor: &Floor) -> Result<()> {
    connection.set_nodelay(true)?;
    let writing = connection.try_clone()?;
    let mut socket = tungstenite::accept(connection)?;
    let mut streams = 0;
    loop {
        let Message::Text(text) = socket.read()? else { continue };
        let call: Call = serde_json::from_str(&text)?;
        streams += call.params.len();
        socket.send(Message::text(format!(r#"{{"result":null,"id":{}}}"#, call.id)))?;
        if streams == topics * STREAMS_PER_TOPIC {
            *floor.lock() = Some(writing.try_clone()?);
            floor.subscribed.notify_all();
        }
    }
}

/// Answers requests until the connection ends.
fn serve_rest(connection: TcpStream, topics: usize) -> io::Result<()> {
    let mut writing = connection.try_clone()?;
    let mut reading = BufReader::new(connection);
    loop {
        let mut request = String::new();
        if reading.read_line(&mut request)? == 0 {
            return Ok(());
        }
        loop {
            let mut line = String::new();
            if reading.read_line(&mut line)? == 0 || line.trim().is_empty() {
                break;
            }
        }
        let body = if request.contains("/exchangeInfo") { listings(topics) } else { image() };
        write!(
            writing,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
    }
}

fn listings(topics: usize) -> String {
    let listings: Vec<String> = (0..topics)
        .map(|topic| {
            let (symbol, base) = (symbol(topic), &symbol(topic)[..6]);
            format!(
                r#"{{"symbol":"{symbol}","status":"TRADING","baseAsset":"{base}","quoteAsset":"USDT","filters":[{{"filterType":"PRICE_FILTER","tickSize":"0.01000000"}},{{"filterType":"LOT_SIZE","stepSize":"0.00000001"}}]}}"#
            )
        })
        .collect();
    format!(r#"{{"symbols":[{}]}}"#, listings.join(","))
}

fn image() -> String {
    let side = |cents: &dyn Fn(u64) -> u64| {
        let levels: Vec<String> = (0..LEVELS)
            .map(|step| {
                let cents = cents(step);
                format!(r#"["{}.{:02}","1.00000000"]"#, cents / 100, cents % 100)
            })
            .collect();
        levels.join(",")
    };
    format!(
        r#"{{"lastUpdateId":{IMAGE_ID},"bids":[{}],"asks":[{}]}}"#,
        side(&|step| BEST_BID - step),
        side(&|step| BEST_BID + 1 + step)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(channel: Channel, number: u64) -> String {
        let mut out = Vec::new();
        Template::new(channel, 7).write(number, 1_790_000_000_000_001, &mut out);
        let head = if out[1] == 126 { 4 } else { 2 };
        String::from_utf8(out[head..].to_vec()).unwrap()
    }

    #[test]
    fn messages_are_what_the_venue_would_send() {
        let trade: serde_json::Value = serde_json::from_str(&written(Channel::Trades, 12)).unwrap();
        assert_eq!(trade["stream"], "s00007usdt@trade");
        assert_eq!(trade["data"]["t"], 12);
        assert_eq!(trade["data"]["T"], 1_790_000_000_000_001u64);
        assert_eq!(trade["data"]["p"], "10950.28");
        let bbo: serde_json::Value = serde_json::from_str(&written(Channel::Bbo, 12)).unwrap();
        assert_eq!(bbo["data"]["u"], 12 + IMAGE_ID);
        assert_eq!(
            (&bbo["data"]["b"], &bbo["data"]["a"]),
            (&"10950.28".into(), &"10950.29".into())
        );
        let depth: serde_json::Value = serde_json::from_str(&written(Channel::Book, 21)).unwrap();
        assert_eq!(depth["data"]["b"][0][0], "09999.99");
        assert_eq!(depth["data"]["b"][0][1], "1.00000021");
        assert_eq!(depth["data"]["a"][0][0], "10000.02");
    }

    #[test]
    fn the_list_and_the_image_are_json() {
        let list: serde_json::Value = serde_json::from_str(&listings(3)).unwrap();
        assert_eq!(list["symbols"].as_array().unwrap().len(), 3);
        let image: serde_json::Value = serde_json::from_str(&image()).unwrap();
        assert_eq!(image["bids"].as_array().unwrap().len(), 20);
    }
}
