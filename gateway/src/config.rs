//! The configuration file: TOML text → a checked [`Config`], or an error that says what is wrong on
//! which line, and what to write instead.
//!
//! `main` calls it once, before any thread is started. The table is walked by hand rather than
//! derived, because only so does every complaint, also one about values that contradict each other,
//! name its line. It never guesses: a key that it does not know is an error, not a comment.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::Path;
use std::thread;

use thiserror::Error;
use tickfan_core::market::{Nanos, Venue};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::limits::{
    CONNECTIONS_MAX, HANDSHAKES_MAX, LISTINGS_EVERY_NS, SHARDS_MAX, SOCKET_BYTES,
    SOCKET_SEND_BYTES, SOCKET_UNSENT_BYTES,
};
use crate::venue::TradeStream;

/// How alike two names must be, from 0 to 1, for one to be offered in place of the other.
const LIKENESS_MIN: f64 = 0.7;

const KEYS: &[&str] = &[
    "listen",
    "admin",
    "shards",
    "feed_core",
    "shard_cores",
    "send_buffer_bytes",
    "unsent_bytes",
    "origins",
    "connections_max",
    "connections_per_address",
    "handshakes_max",
    "handshakes_per_address",
    "feed",
];
const FEED_KEYS: &[&str] = &["venue", "symbols", "url", "rest_url", "depth", "trades"];

/// What the gateway is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where metrics and health are served.
    pub admin: SocketAddr,
    /// Over how many threads the subscribers are spread.
    pub shards: usize,
    /// The core that the feed thread is pinned to; `None` = wherever the system puts it.
    pub feed_core: Option<usize>,
    /// The cores that the shards are pinned to, in turn; empty = wherever the system puts them.
    pub shard_cores: Vec<usize>,
    /// What the kernel may hold of what a client was sent.
    pub send_buffer_bytes: usize,
    /// Unsent bytes in the kernel at which a client's connection counts as writable.
    pub unsent_bytes: u32,
    /// Who is let in.
    pub door: DoorRules,
    /// The connections to venues, in the order of the file; at least one.
    pub feeds: Vec<FeedConfig>,
}

/// Who is let in, and how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoorRules {
    /// The web pages that may open a WebSocket, as browsers name them; `None` = all.
    pub origins: Option<Vec<String>>,
    /// Connections in all.
    pub connections_max: usize,
    /// Connections of one address; `None` = the default, which spares loopback.
    pub connections_per_address: Option<usize>,
    /// Connections that have not been answered.
    pub handshakes_max: usize,
    /// Those of one address; `None` = the default, which spares loopback.
    pub handshakes_per_address: Option<usize>,
}

/// What is taken from one venue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedConfig {
    /// Which venue.
    pub venue: Venue,
    /// Which of its instruments.
    pub symbols: Symbols,
    /// Scheme, host and port of its stream; `None` = the venue's own.
    pub url: Option<String>,
    /// Scheme, host and port of its REST interface; `None` = the venue's own.
    pub rest_url: Option<String>,
    /// The depth that the venue is asked for; `None` = its deepest.
    pub depth: Option<u32>,
    /// Which of its trade streams to take; `None` = the venue's default.
    pub trades: Option<TradeStream>,
    /// How often its instrument list is read again. No key sets it.
    pub listings_every_ns: Nanos,
}

/// Which instruments of a venue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Symbols {
    /// All that the venue lists.
    All,
    /// These, in the venue's own spelling.
    Named(Vec<String>),
}

/// A configuration that cannot be used: the fault of whoever wrote the file, to be mended there.
#[derive(Debug, Error)]
#[error("{}: {problem}", place(.file, *.line))]
pub struct ConfigError {
    /// The file.
    pub file: String,
    /// The line, from 1, where there is one.
    pub line: Option<usize>,
    /// What is wrong there.
    pub problem: Problem,
}

/// What can be wrong with a configuration.
#[derive(Debug, Error)]
pub enum Problem {
    /// The file cannot be read.
    #[error("cannot be read ({0}); name another with --config, or none to run the simulator")]
    Unreadable(io::Error),
    /// The text is not TOML.
    #[error("not TOML: {0}")]
    Syntax(String),
    /// There is no such key.
    #[error("unknown key {key:?}{}", instead(.key, .known, "keys here are"))]
    UnknownKey {
        /// The key that came.
        key: String,
        /// The keys that may stand there.
        known: &'static [&'static str],
    },
    /// A key that must be there is missing.
    #[error("{key} is missing; write {example}")]
    Missing {
        /// The key.
        key: &'static str,
        /// How it may look.
        example: &'static str,
    },
    /// A value is of another type than its key takes.
    #[error("{key} must be {expected}, not {}", article(.came))]
    WrongType {
        /// The key.
        key: &'static str,
        /// What it takes, with an example.
        expected: &'static str,
        /// The TOML type that came.
        came: &'static str,
    },
    /// A value is of the right type, and not one that its key takes.
    #[error("{key} is {came:?}; {expected}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// The value as written.
        came: String,
        /// What it takes.
        expected: String,
    },
    /// There is no such venue.
    #[error("unknown venue {came:?}{}", instead(.came, &venue_names(), "venues are"))]
    UnknownVenue {
        /// The name that came.
        came: String,
    },
    /// A feed without symbols.
    #[error("symbols is empty; name some, or write [\"*\"] for all that the venue lists")]
    NoSymbols,
    /// A feed of all symbols and of some.
    #[error("symbols mixes \"*\" with names; \"*\" stands alone and means all")]
    MixedSymbols,
    /// A symbol is taken twice.
    #[error("{venue}:{symbol} is taken twice; line {first_line} has {first:?} already")]
    DuplicateSymbol {
        /// The venue.
        venue: &'static str,
        /// The symbol in the venue's spelling, or `*`.
        symbol: String,
        /// What took it first.
        first: String,
        /// Where that stands.
        first_line: usize,
    },
    /// Nothing is to be served.
    #[error("no [[feed]]; add one, or run without --config to serve the built-in simulator")]
    NoFeeds,
    /// Both listeners on one address.
    #[error("listen and admin are both {0}; give them different ports")]
    SameAddress(SocketAddr),
    /// The venue's book comes whole.
    #[error("{venue} sends whole books: leave `depth` out")]
    NoDepthChoice {
        /// The venue.
        venue: &'static str,
    },
    /// A key that says nothing at this venue.
    #[error("trades is a choice of Binance only; {venue} has one trade stream, so leave it out")]
    NoTradeChoice {
        /// The venue.
        venue: &'static str,
    },
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`] when the file cannot be read or says something that cannot be done.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, &file),
            Err(error) => {
                Err(ConfigError { file, line: None, problem: Problem::Unreadable(error) })
            }
        }
    }

    /// Checks the text of a file; the name is for errors only.
    ///
    /// # Errors
    /// [`ConfigError`] for the first thing that is wrong.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, ConfigError> {
        read(text).map_err(|Wrong { span, problem }| ConfigError {
            file: file_name.to_owned(),
            line: span.map(|span| line_of(text, span.start)),
            problem,
        })
    }

    /// Where clients connect when nothing else is said.
    pub const fn default_listen() -> SocketAddr {
        SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080)
    }

    /// Where metrics and health are served when nothing else is said.
    pub const fn default_admin() -> SocketAddr {
        SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9180)
    }

    /// One core is left to the feed.
    pub fn default_shards() -> usize {
        thread::available_parallelism().map_or(1, |cores| (cores.get() - 1).max(1))
    }
}

/// A problem and where in the text it stands.
struct Wrong {
    span: Option<Range<usize>>,
    problem: Problem,
}

type Checked<T> = Result<T, Wrong>;
type Value<'a> = Spanned<DeValue<'a>>;

fn wrong<T>(span: Range<usize>, problem: Problem) -> Checked<T> {
    Err(Wrong { span: Some(span), problem })
}

fn bad_value<T>(at: &Value<'_>, key: &'static str, came: &str, expected: &str) -> Checked<T> {
    let problem = Problem::BadValue { key, came: came.to_owned(), expected: expected.to_owned() };
    wrong(at.span(), problem)
}

fn wrong_type<T>(at: &Value<'_>, key: &'static str, expected: &'static str) -> Checked<T> {
    let came = at.get_ref().type_str();
    wrong(at.span(), Problem::WrongType { key, expected, came })
}

fn read(text: &str) -> Checked<Config> {
    let root = DeTable::parse(text).map_err(|error| Wrong {
        span: error.span(),
        problem: Problem::Syntax(error.message().replace('\n', ", ")),
    })?;
    let root = root.get_ref();
    known_keys(root, KEYS)?;
    let listen = optional(root, "listen", address)?.unwrap_or(Config::default_listen());
    let admin = optional(root, "admin", address)?.unwrap_or(Config::default_admin());
    // Port 0 asks the system for a free one, and so twice for two different ones.
    if listen == admin && listen.port() != 0 {
        let at = root.get("admin").or(root.get("listen")).map(Spanned::span);
        return Err(Wrong { span: at, problem: Problem::SameAddress(listen) });
    }
    let shards = optional(root, "shards", shards)?.unwrap_or_else(Config::default_shards);
    let door = door_rules(root)?;

    let feed_core = optional(root, "feed_core", core)?;
    let shard_cores = optional(root, "shard_cores", cores)?.unwrap_or_default();
    let send_buffer_bytes =
        optional(root, "send_buffer_bytes", kernel_bytes)?.unwrap_or(SOCKET_SEND_BYTES);
    let unsent_bytes = optional(root, "unsent_bytes", kernel_bytes)?
        .map_or(SOCKET_UNSENT_BYTES, |bytes| bytes as u32);

    let mut taken = Taken { text, symbols: Vec::new() };
    let mut feeds = Vec::new();
    for one in optional(root, "feed", feed_tables)?.unwrap_or_default() {
        feeds.push(feed(one, &mut taken)?);
    }
    if feeds.is_empty() {
        return Err(Wrong { span: None, problem: Problem::NoFeeds });
    }
    Ok(Config {
        listen,
        admin,
        shards,
        feed_core,
        shard_cores,
        send_buffer_bytes,
        unsent_bytes,
        door,
        feeds,
    })
}

fn door_rules(root: &DeTable<'_>) -> Checked<DoorRules> {
    let count = |key, max| {
        optional(root, key, |value, key| {
            let fits = |count| (1..=max).contains(&count);
            whole(value, key, fits, &format!("write a number from 1 to {max}"))
        })
    };
    Ok(DoorRules {
        origins: optional(root, "origins", origins)?,
        connections_max: count("connections_max", CONNECTIONS_MAX)?.unwrap_or(CONNECTIONS_MAX),
        connections_per_address: count("connections_per_address", CONNECTIONS_MAX)?,
        handshakes_max: count("handshakes_max", HANDSHAKES_MAX)?.unwrap_or(HANDSHAKES_MAX),
        handshakes_per_address: count("handshakes_per_address", HANDSHAKES_MAX)?,
    })
}

/// Origins as browsers write them (RFC 6454 §6.1), because they are compared as texts.
fn origins(value: &Value<'_>, key: &'static str) -> Checked<Vec<String>> {
    const EXPECTED: &str = "a list of texts like [\"https://example.com\"]";
    let DeValue::Array(items) = value.get_ref() else { return wrong_type(value, key, EXPECTED) };
    let mut origins = Vec::with_capacity(items.len());
    for item in items.iter() {
        let origin = text(item, key, EXPECTED)?;
        let expected = match origin.split_once("://") {
            Some((_, host)) if host.is_empty() || host.contains(['/', '?', '#', '@', '*', ' ']) => {
                "write scheme, host and port only, as in \"https://example.com:8443\""
            }
            Some(("https", host)) if host.ends_with(":443") => "leave :443 out, as browsers do",
            Some(("http", host)) if host.ends_with(":80") => "leave :80 out, as browsers do",
            Some(_) if origin.chars().any(char::is_uppercase) => "write it in small letters",
            Some(_) => {
                origins.push(origin.to_owned());
                continue;
            }
            None if origin == "*" => "leave origins out to let every page in",
            None => "begin it with the scheme, as in \"https://example.com\"",
        };
        return bad_value(item, key, origin, expected);
    }
    Ok(origins)
}

fn feed_tables<'a>(value: &'a Value<'a>, key: &'static str) -> Checked<&'a [Value<'a>]> {
    match value.get_ref() {
        DeValue::Array(tables) => Ok(tables),
        _ => wrong_type(value, key, "a list of tables, each written [[feed]]"),
    }
}

fn feed(value: &Value<'_>, taken: &mut Taken<'_>) -> Checked<FeedConfig> {
    let DeValue::Table(table) = value.get_ref() else {
        return wrong_type(value, "feed", "a list of tables, each written [[feed]]");
    };
    known_keys(table, FEED_KEYS)?;
    let missing = |key, example| wrong(value.span(), Problem::Missing { key, example });

    let Some(venue) = optional(table, "venue", venue)? else {
        return missing("venue", "venue = \"sim\" or another name of a venue");
    };
    let Some(symbols) = table.get("symbols") else {
        return missing("symbols", "symbols = [\"BTCUSDT\"], or [\"*\"] for all");
    };
    let symbols = symbols_of(venue, symbols, taken)?;

    let url = optional(table, "url", |value, key| base_url(value, key, ["ws://", "wss://"]))?;
    let rest_url =
        optional(table, "rest_url", |value, key| base_url(value, key, ["http://", "https://"]))?;
    if venue == Venue::Sim && url.is_none() {
        return missing("url", "where the simulator listens: url = \"ws://127.0.0.1:9001\"");
    }
    if venue == Venue::Sim && rest_url.is_none() {
        return missing(
            "rest_url",
            "where the simulator listens: rest_url = \"http://127.0.0.1:9001\"",
        );
    }
    let depth = optional(table, "depth", |value, key| depth(venue, value, key))?;
    let trades = optional(table, "trades", |value, key| trade_stream(venue, value, key))?;
    let listings_every_ns = LISTINGS_EVERY_NS;
    Ok(FeedConfig { venue, symbols, url, rest_url, depth, trades, listings_every_ns })
}

/// Every key of the table is one of `known`; complains of the one that stands first.
fn known_keys(table: &DeTable<'_>, known: &'static [&'static str]) -> Checked<()> {
    let unknown = table
        .keys()
        .filter(|key| !known.contains(&key.get_ref().as_ref()))
        .min_by_key(|key| key.span().start);
    match unknown {
        None => Ok(()),
        Some(key) => {
            let name = key.get_ref().clone().into_owned();
            wrong(key.span(), Problem::UnknownKey { key: name, known })
        }
    }
}

/// The value of a key, read by `read`, if the key is there.
fn optional<'a, T>(
    table: &'a DeTable<'a>,
    key: &'static str,
    read: impl FnOnce(&'a Value<'a>, &'static str) -> Checked<T>,
) -> Checked<Option<T>> {
    table.get(key).map(|value| read(value, key)).transpose()
}

fn text<'a>(value: &'a Value<'a>, key: &'static str, expected: &'static str) -> Checked<&'a str> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text),
        _ => wrong_type(value, key, expected),
    }
}

fn address(value: &Value<'_>, key: &'static str) -> Checked<SocketAddr> {
    let came = text(value, key, "an address like \"127.0.0.1:8080\"")?;
    came.parse().or_else(|_| {
        let expected = "write an IP address and a port from 0 to 65535, as in \"127.0.0.1:8080\"";
        bad_value(value, key, came, expected)
    })
}

/// A whole number that `fits`; `expected` says which do.
fn whole(
    value: &Value<'_>,
    key: &'static str,
    fits: impl Fn(usize) -> bool,
    expected: &str,
) -> Checked<usize> {
    let DeValue::Integer(number) = value.get_ref() else {
        return wrong_type(value, key, "a whole number");
    };
    match usize::from_str_radix(number.as_str(), number.radix()) {
        Ok(number) if fits(number) => Ok(number),
        _ => bad_value(value, key, number.as_str(), expected),
    }
}

fn shards(value: &Value<'_>, key: &'static str) -> Checked<usize> {
    let fits = |shards| (1..=SHARDS_MAX).contains(&shards);
    whole(value, key, fits, &format!("write a number from 1 to {SHARDS_MAX}"))
}

fn core(value: &Value<'_>, key: &'static str) -> Checked<usize> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let expected = format!("write a core of this machine, from 0 to {}", cores - 1);
    whole(value, key, |core| core < cores, &expected)
}

fn cores(value: &Value<'_>, key: &'static str) -> Checked<Vec<usize>> {
    match value.get_ref() {
        DeValue::Array(items) => items.iter().map(|item| core(item, key)).collect(),
        _ => wrong_type(value, key, "a list of cores like [1, 2]"),
    }
}

fn kernel_bytes(value: &Value<'_>, key: &'static str) -> Checked<usize> {
    let fits = |bytes: usize| SOCKET_BYTES.contains(&bytes);
    let (least, most) = (SOCKET_BYTES.start(), SOCKET_BYTES.end());
    whole(value, key, fits, &format!("write a number of bytes from {least} to {most}"))
}

fn venue(value: &Value<'_>, key: &'static str) -> Checked<Venue> {
    let came = text(value, key, "the name of a venue like \"binance-spot\"")?;
    match Venue::from_name(came) {
        Some(venue) => Ok(venue),
        None => wrong(value.span(), Problem::UnknownVenue { came: came.to_owned() }),
    }
}

fn symbols_of(venue: Venue, value: &Value<'_>, taken: &mut Taken<'_>) -> Checked<Symbols> {
    const EXPECTED: &str = "a list of texts like [\"BTCUSDT\"]";
    let DeValue::Array(items) = value.get_ref() else {
        return wrong_type(value, "symbols", EXPECTED);
    };
    let mut names = Vec::with_capacity(items.len());
    for item in items.iter() {
        let name = text(item, "symbols", EXPECTED)?;
        if name.is_empty() || name.contains(char::is_whitespace) {
            return bad_value(item, "symbols", name, "a symbol has letters and no spaces");
        }
        if let Some((prefix, native)) = name.split_once(':')
            && prefix == venue.name()
        {
            let expected = format!("write it without the venue, as {native:?}");
            return bad_value(item, "symbols", name, &expected);
        }
        names.push(name.to_owned());
    }
    if names.is_empty() {
        return wrong(value.span(), Problem::NoSymbols);
    }
    let all = names.iter().any(|name| name == "*");
    if all && names.len() > 1 {
        return wrong(value.span(), Problem::MixedSymbols);
    }
    for (name, item) in names.iter().zip(items.iter()) {
        taken.take(venue, name, item.span())?;
    }
    Ok(if all { Symbols::All } else { Symbols::Named(names) })
}

/// The symbols taken by the feeds so far.
struct Taken<'a> {
    text: &'a str,
    /// Venue, symbol or `*`, and the line.
    symbols: Vec<(Venue, String, usize)>,
}

impl Taken<'_> {
    fn take(&mut self, venue: Venue, symbol: &str, span: Range<usize>) -> Checked<()> {
        let overlaps = |other: &str| other == symbol || other == "*" || symbol == "*";
        let earlier = self.symbols.iter().find(|(v, other, _)| *v == venue && overlaps(other));
        if let Some((_, first, first_line)) = earlier {
            let problem = Problem::DuplicateSymbol {
                venue: venue.name(),
                symbol: symbol.to_owned(),
                first: first.clone(),
                first_line: *first_line,
            };
            return wrong(span, problem);
        }
        let line = line_of(self.text, span.start);
        self.symbols.push((venue, symbol.to_owned(), line));
        Ok(())
    }
}

/// Scheme, host and port, as in `ws://127.0.0.1:9001`; the paths are the decoder's affair.
fn base_url(value: &Value<'_>, key: &'static str, schemes: [&str; 2]) -> Checked<String> {
    let came = text(value, key, "a text: scheme, host and port")?;
    let [plain, tls] = schemes;
    let Some(rest) = schemes.iter().find_map(|scheme| came.strip_prefix(scheme)) else {
        let expected = format!("it must begin with {plain} or {tls}");
        return bad_value(value, key, came, &expected);
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#', '@']) {
        let expected = "write scheme, host and port only; the paths are known";
        return bad_value(value, key, came, expected);
    }
    // The colons of an IPv6 address stand in brackets.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if host.is_empty() || host.contains(char::is_whitespace) {
        return bad_value(value, key, came, "the host is missing or has spaces in it");
    }
    if port.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port != 0)) {
        return bad_value(value, key, came, "the port must be a number from 1 to 65535");
    }
    Ok(came.strip_suffix('/').unwrap_or(came).to_owned())
}

/// The depths that a venue can be asked for: none but the whole, any up to the last, or exactly these.
enum Depths {
    Whole,
    UpTo(usize),
    OneOf(&'static [usize]),
}

const fn depths(venue: Venue) -> Depths {
    match venue {
        Venue::Sim | Venue::BinanceSpot => Depths::UpTo(5000),
        Venue::BinanceUsdm | Venue::BinanceCoinm => Depths::OneOf(&[5, 10, 20, 50, 100, 500, 1000]),
        Venue::Kraken | Venue::KrakenV1 => Depths::OneOf(&[10, 25, 100, 500, 1000]),
        Venue::Coinbase | Venue::CoinbaseAdvanced => Depths::Whole,
        Venue::Okx => Depths::OneOf(&[400]),
        Venue::BybitSpot | Venue::BybitLinear => Depths::OneOf(&[1, 50, 200, 1000]),
        Venue::Deribit => Depths::Whole,
        Venue::Bitfinex => Depths::OneOf(&[1, 25, 100, 250]),
    }
}

fn depth(venue: Venue, value: &Value<'_>, key: &'static str) -> Checked<u32> {
    let depth = match depths(venue) {
        Depths::Whole => {
            return wrong(value.span(), Problem::NoDepthChoice { venue: venue.name() });
        }
        Depths::UpTo(max) => {
            let fits = |depth| (1..=max).contains(&depth);
            whole(value, key, fits, &format!("write a number from 1 to {max}"))?
        }
        Depths::OneOf(offered) => {
            let fits = |depth| offered.contains(&depth);
            whole(value, key, fits, &format!("{} offers {offered:?}", venue.name()))?
        }
    };
    Ok(depth as u32)
}

fn trade_stream(venue: Venue, value: &Value<'_>, key: &'static str) -> Checked<TradeStream> {
    let came = text(value, key, "\"trade\" or \"aggTrade\"")?;
    match venue {
        Venue::BinanceSpot | Venue::BinanceUsdm | Venue::BinanceCoinm => {}
        _ => {
            return wrong(value.span(), Problem::NoTradeChoice { venue: venue.name() });
        }
    }
    match came {
        "trade" => Ok(TradeStream::Trade),
        "aggTrade" => Ok(TradeStream::AggTrade),
        _ => bad_value(value, key, came, "write \"trade\" or \"aggTrade\""),
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

fn place(file: &str, line: Option<usize>) -> String {
    line.map_or_else(|| file.to_owned(), |line| format!("{file}:{line}"))
}

fn venue_names() -> Vec<&'static str> {
    Venue::ALL.iter().map(|venue| venue.name()).collect()
}

/// What to offer in place of an unknown name: the nearest known one, and all of them.
fn instead(came: &str, known: &[&str], are: &str) -> String {
    let nearest = known
        .iter()
        .map(|name| (strsim::jaro_winkler(came, name), name))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let guess = nearest.map_or(String::new(), |(_, name)| format!("; did you mean {name:?}?"));
    let end = if guess.is_empty() { ";" } else { "" };
    format!("{guess}{end} {are} {}", known.join(", "))
}

fn article(toml_type: &str) -> String {
    let article = if toml_type.starts_with(['a', 'i', 'o']) { "an" } else { "a" };
    format!("{article} {toml_type}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, "tickfan.toml").map_err(|error| error.to_string())
    }

    #[test]
    fn everything_can_be_said() {
        let config = parse(
            r#"
            listen = "0.0.0.0:80"
            admin  = "[::1]:9180"
            shards = 3
            feed_core = 0
            shard_cores = [0, 0]
            send_buffer_bytes = 131_072
            unsent_bytes = 8_192
            origins = ["https://example.com", "http://localhost:3000"]
            connections_max = 20_000
            connections_per_address = 100
            handshakes_max = 64
            handshakes_per_address = 8
            [[feed]]
            venue    = "binance-spot"
            symbols  = ["BTCUSDT", "ETHUSDT"]
            url      = "ws://127.0.0.1:9001/"
            rest_url = "https://[::1]"
            depth    = 1_000
            trades   = "aggTrade"
            [[feed]]
            venue    = "kraken"
            symbols  = ["*"]
            "#,
        );
        let binance = FeedConfig {
            venue: Venue::BinanceSpot,
            symbols: Symbols::Named(vec!["BTCUSDT".to_owned(), "ETHUSDT".to_owned()]),
            url: Some("ws://127.0.0.1:9001".to_owned()),
            rest_url: Some("https://[::1]".to_owned()),
            depth: Some(1000),
            trades: Some(TradeStream::AggTrade),
            listings_every_ns: LISTINGS_EVERY_NS,
        };
        let kraken = FeedConfig {
            venue: Venue::Kraken,
            symbols: Symbols::All,
            url: None,
            rest_url: None,
            depth: None,
            trades: None,
            listings_every_ns: LISTINGS_EVERY_NS,
        };
        let expected = Config {
            listen: "0.0.0.0:80".parse().unwrap(),
            admin: "[::1]:9180".parse().unwrap(),
            shards: 3,
            feed_core: Some(0),
            shard_cores: vec![0, 0],
            send_buffer_bytes: 131_072,
            unsent_bytes: 8_192,
            door: DoorRules {
                origins: Some(vec![
                    "https://example.com".to_owned(),
                    "http://localhost:3000".to_owned(),
                ]),
                connections_max: 20_000,
                connections_per_address: Some(100),
                handshakes_max: 64,
                handshakes_per_address: Some(8),
            },
            feeds: vec![binance, kraken],
        };
        assert_eq!(config, Ok(expected));
    }

    #[test]
    fn what_is_left_out_has_defaults() {
        let config = parse(
            r#"
            [[feed]]
            venue = "sim"
            symbols = ["*"]
            url = "ws://sim:1"
            rest_url = "http://sim:1"
            "#,
        )
        .unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.admin.to_string(), "127.0.0.1:9180");
        assert!(config.shards >= 1);
        let door = DoorRules {
            origins: None,
            connections_max: CONNECTIONS_MAX,
            connections_per_address: None,
            handshakes_max: HANDSHAKES_MAX,
            handshakes_per_address: None,
        };
        assert_eq!(config.door, door);
        assert_eq!(config.feeds[0].venue, Venue::Sim);
    }

    #[test]
    fn both_listeners_may_ask_for_a_free_port() {
        let both = "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n";
        let feed = "feed = [{ venue = \"kraken\", symbols = [\"*\"] }]";
        assert!(parse(&format!("{both}{feed}")).is_ok());
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Config::load(Path::new("no/such/tickfan.toml")).unwrap_err().to_string();
        assert!(error.starts_with("no/such/tickfan.toml: cannot be read"), "{error}");
    }

    /// The complaint about every text of `testdata/bad_configs.txt`.
    #[test]
    fn every_complaint_names_its_line_and_a_way_out() {
        let mut text = String::new();
        let mut checked = 0;
        let mut differences = String::new();
        for line in include_str!("../testdata/bad_configs.txt").lines() {
            let Some(expected) = line.strip_prefix("=> ") else {
                text.push_str(line);
                text.push('\n');
                continue;
            };
            let came = Config::parse(&text, "tickfan.toml")
                .map_or_else(|error| error.to_string(), |_| "accepted".to_owned());
            if came != expected {
                differences.push_str(&format!("{text}=> {came}\n"));
            }
            text.clear();
            checked += 1;
        }
        assert!(differences.is_empty(), "complaints came out as:\n{differences}");
        assert!(checked >= 40, "only {checked} texts were found");
    }
}
