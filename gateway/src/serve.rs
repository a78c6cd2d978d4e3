//! Starts and stops everything: the only place, with `main`, that knows both halves of the gateway.
//!
//! Threads: one for the feeds, one for REST requests to venues, one per shard, one for the door and
//! the admin listener, and one for the simulator where it is the feed.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, Hasher};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use feed_sim::exchange::ExchangeOptions;
use feed_sim::serve::ServedExchange;
use feed_sim::venue::Dialect;
use tickfan_core::market::{Channel, Listing, Nanos, Scales, State, Trading, Why};
use tickfan_core::snapshot::marks::Marks;
use tickfan_core::snapshot::{Entry, Registry};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::admin::Admin;
use crate::affinity;
use crate::clock::Clock;
use crate::config::{Config, FeedConfig, Symbols};
use crate::door::Door;
use crate::fanout::socket::SocketOptions;
use crate::fanout::{DriverOptions, ShardHandle};
use crate::feed::rest::{ImageFetcher, RestHost, RestQueue};
use crate::feed::session::dial::{Dialer, Spacing};
use crate::feed::session::line::Turns;
use crate::feed::session::{Listings, Session};
use crate::feed::tls::{Address, Connector};
use crate::feed::{Feed, FeedOptions};
use crate::http;
use crate::limits::{
    BACKOFF_FIRST_NS, BACKOFF_MAX_NS, CONNECTIONS_PER_ADDRESS, DRAIN_NS, FEED_FAILURES_MAX,
    FEED_FAILURES_NS, INSTRUMENTS_MAX, LIST_PAGES_MAX, SECOND_NS,
};
use crate::places::Places;
use crate::stats::{SharedStats, Stats};
use crate::venue::{self, Endpoints, Subscription};

mod opening;

use opening::Opening;

/// A running gateway. It stops when this is dropped.
#[derive(Debug)]
pub struct Running {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where operators look.
    pub admin: SocketAddr,
    /// The instruments.
    pub registry: Arc<Registry>,
    /// Counters.
    pub stats: SharedStats,
    shards: Arc<[ShardHandle]>,
    is_draining: Arc<AtomicBool>,
    /// Dropped to stop the threads that run tokio.
    _stop: watch::Sender<()>,
    failed: mpsc::Receiver<String>,
}

impl Running {
    /// Waits until something fails for good; says what.
    pub async fn failed(&mut self) -> String {
        self.failed.recv().await.unwrap_or_else(|| "the threads are gone".to_owned())
    }

    /// Tells every client to come back later, closes them spread over a while, and returns when that
    /// is done.
    pub async fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
        for shard in &*self.shards {
            shard.drain();
        }
        // The last is closed at the end of the drain and has a moment to answer.
        let mut left = DRAIN_NS + SECOND_NS;
        let step_ns = SECOND_NS / 20;
        while left > 0 && self.shards.iter().any(|shard| shard.load() > 0) {
            tokio::time::sleep(Duration::from_nanos(step_ns)).await;
            left = left.saturating_sub(step_ns);
        }
    }
}

/// Says what [`start`] would refuse of a configuration without trying anything.
///
/// # Errors
/// When an address of a venue cannot be read, or a venue has no list of all its instruments.
pub fn check(config: &Config) -> Result<()> {
    config.feeds.iter().try_for_each(|feed| addresses(feed).map(drop))
}

/// Starts a gateway. Nothing is started unless everything can be.
///
/// # Errors
/// When an address cannot be had, an address of a venue cannot be read, or a thread cannot be
/// started.
pub fn start(config: Config) -> Result<Running> {
    let clock = Clock::start();
    let stats = SharedStats::new(Stats::default());
    let registry = Arc::new(Registry::new(INSTRUMENTS_MAX));
    let (stop, stopped) = watch::channel(());

    let door_runtime = runtime()?;
    let door_entered = door_runtime.enter();
    let listener = http::listen(config.listen)
        .with_context(|| format!("cannot listen on {} for clients", config.listen))?;
    let admin_listener = http::listen(config.admin)
        .with_context(|| format!("cannot listen on {} for operators", config.admin))?;
    let (listen, admin) = (listener.local_addr()?, admin_listener.local_addr()?);
    drop(door_entered);

    let shards: Arc<[ShardHandle]> = (0..config.shards as u32)
        .map(|id| {
            let cores = &config.shard_cores;
            let options = DriverOptions {
                core: cores.get(id as usize % cores.len().max(1)).copied(),
                sockets: SocketOptions {
                    send_bytes: config.send_buffer_bytes,
                    unsent_bytes: config.unsent_bytes,
                },
            };
            let (registry, stats) = (Arc::clone(&registry), Arc::clone(&stats));
            ShardHandle::spawn(id, registry, stats, clock.clone(), options)
        })
        .collect::<std::io::Result<_>>()
        .context("cannot start a shard")?;

    let rest_runtime = runtime()?;
    let feed_runtime = runtime()?;
    let mut opening = Opening::new(clock.now());
    let mut watchdogs: Vec<_> = shards
        .iter()
        .enumerate()
        .map(|(id, shard)| (format!("shard-{id}"), Arc::clone(&shard.watchdog)))
        .collect();
    let (fail, failed) = mpsc::channel(1);
    let mut feeds = Vec::new();
    let mut hosts = Hosts::new(clock.clone())?;
    for feed in config.feeds {
        let watchdog = Arc::new(AtomicU64::new(clock.now()));
        watchdogs.push((format!("feed {}", feed.venue.name()), Arc::clone(&watchdog)));
        let addresses = addresses(&feed)?;
        let endpoints = venue::endpoints(feed.venue);
        let is_listed = match feed.symbols {
            Symbols::All => opening.await_list(feed.venue, stats.feed(feed.venue)),
            // They are known whether or not the list comes.
            Symbols::Named(_) => watch::Sender::new(false),
        };
        let feed = FeedTask {
            dialer: hosts.dialer(addresses.stream, &endpoints),
            rest_host: hosts.rest(addresses.rest, &endpoints),
            endpoints,
            config: feed,
            registry: Arc::clone(&registry),
            marks: shards.iter().map(|shard| Arc::clone(&shard.marks)).collect(),
            stats: Arc::clone(&stats),
            clock: clock.clone(),
            rest: rest_runtime.handle().clone(),
            epoch: opening.epoch(),
            is_listed,
            watchdog,
        };
        feed.register_named()?;
        feeds.push(feed);
    }
    for feed in feeds {
        feed_runtime.spawn(feed.supervise(fail.clone()));
    }
    for (name, runtime) in [("door", &door_runtime), ("rest", &rest_runtime)] {
        let watchdog = Arc::new(AtomicU64::new(clock.now()));
        watchdogs.push((name.to_owned(), Arc::clone(&watchdog)));
        let clock = clock.clone();
        runtime.spawn(async move { tick(&watchdog, &clock).await });
    }

    let is_open = Arc::new(AtomicBool::new(false));
    let is_draining = Arc::new(AtomicBool::new(false));
    let door = Arc::new(Door {
        registry: Arc::clone(&registry),
        shards: Arc::clone(&shards),
        stats: Arc::clone(&stats),
        clock: clock.clone(),
        is_draining: Arc::clone(&is_draining),
        places: Places::new(
            config.door.connections_max,
            config.door.connections_per_address,
            CONNECTIONS_PER_ADDRESS,
        ),
        rules: config.door,
    });
    let operators = Arc::new(Admin {
        registry: Arc::clone(&registry),
        shards: Arc::clone(&shards),
        stats: Arc::clone(&stats),
        clock: clock.clone(),
        watchdogs,
        is_open: Arc::clone(&is_open),
        is_draining: Arc::clone(&is_draining),
        asking: tokio::sync::Mutex::default(),
    });
    let clients = door_runtime.spawn(async move {
        opening.wait().await;
        is_open.store(true, Ordering::Relaxed);
        door.run(listener).await;
    });
    let operators = door_runtime.spawn(operators.run(admin_listener));
    door_runtime.spawn(async move {
        tokio::select! { _ = clients => {} _ = operators => {} }
        // Somebody else may have failed for good at the same moment.
        let _ = fail.try_send("a listener failed".to_owned());
    });
    door_runtime.spawn(discipline(clock));
    for (name, runtime, core) in [
        ("door", door_runtime, None),
        ("rest", rest_runtime, None),
        ("feed", feed_runtime, config.feed_core),
    ] {
        run_until_stopped(name, runtime, core, stopped.clone())?;
    }
    Ok(Running { listen, admin, registry, stats, shards, is_draining, _stop: stop, failed })
}

/// Starts the built-in simulator on a thread of its own; gives its address. It lives as long as the
/// process.
///
/// # Errors
/// When it cannot listen on loopback.
pub fn start_simulator(seed: u64, symbols: usize, rate: u32) -> Result<SocketAddr> {
    let runtime = runtime()?;
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)))
        .context("cannot listen on loopback for the simulator")?;
    let address = listener.local_addr()?;
    let start_ns = feed_sim::clock::wall_ns();
    let options = ExchangeOptions::of(Dialect::BinanceSpot, seed, symbols, start_ns).at_rate(rate);
    std::thread::Builder::new().name("simulator".to_owned()).spawn(move || {
        let served = runtime.block_on(async { ServedExchange::new(options).serve(listener).await });
        if let Err(error) = served {
            tracing::error!(%error, "the simulator failed");
        }
    })?;
    Ok(address)
}

fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("cannot start a runtime")
}

fn run_until_stopped(
    name: &'static str,
    runtime: Runtime,
    core: Option<usize>,
    mut stopped: watch::Receiver<()>,
) -> Result<()> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            if let Some(core) = core {
                affinity::pin(core, name);
            }
            // An error means that the sender was dropped: that is the sign.
            let _ = runtime.block_on(stopped.changed());
        })
        .with_context(|| format!("cannot start the {name} thread"))?;
    Ok(())
}

async fn discipline(clock: Clock) {
    let mut every_second = tokio::time::interval(Duration::from_secs(1));
    loop {
        every_second.tick().await;
        clock.discipline();
    }
}

/// Where a feed's venue is.
#[derive(Debug, Clone)]
struct Addresses {
    stream: Address,
    rest: Address,
}

fn addresses(feed: &FeedConfig) -> Result<Addresses> {
    let endpoints = venue::endpoints(feed.venue);
    if feed.symbols == Symbols::All && endpoints.instruments_paths.is_empty() {
        let venue = feed.venue.name();
        return Err(anyhow!("{venue} has no instrument list for \"*\": name the symbols"));
    }
    let stream = feed.url.as_deref().unwrap_or(endpoints.stream);
    let rest = feed.rest_url.as_deref().unwrap_or(endpoints.rest);
    Ok(Addresses { stream: Address::parse(stream)?, rest: Address::parse(rest)? })
}

/// The hosts of venues, whose limits all who go there share.
struct Hosts {
    connector: Connector,
    clock: Clock,
    spacings: HashMap<String, Arc<Spacing>>,
    rest: HashMap<String, Arc<RestHost>>,
}

impl Hosts {
    fn new(clock: Clock) -> Result<Self> {
        let connector = Connector::new(&[])?;
        Ok(Self { connector, clock, spacings: HashMap::new(), rest: HashMap::new() })
    }

    fn dialer(&mut self, address: Address, endpoints: &Endpoints) -> Dialer {
        let spacing = self
            .spacings
            .entry(address.authority())
            .or_insert_with(|| Arc::new(Spacing::new(endpoints.connect_spacing_ns)));
        Dialer {
            connector: self.connector.clone(),
            address,
            spacing: Arc::clone(spacing),
            turns: Turns::of(endpoints),
            clock: self.clock.clone(),
        }
    }

    fn rest(&mut self, address: Address, endpoints: &Endpoints) -> Arc<RestHost> {
        let host = self.rest.entry(address.authority()).or_insert_with(|| {
            let (connector, clock) = (self.connector.clone(), self.clock.clone());
            Arc::new(RestHost::new(connector, address, endpoints.rest_weight_per_minute, clock))
        });
        Arc::clone(host)
    }
}

/// The sessions of a feed, and what they share.
struct Sessions {
    running: JoinSet<()>,
    /// The instruments that have one.
    served: HashSet<Arc<str>>,
    rest: RestQueue,
    listings: watch::Receiver<Listings>,
}

/// One `[[feed]]` of the configuration.
#[derive(Clone)]
struct FeedTask {
    config: FeedConfig,
    endpoints: Endpoints,
    dialer: Dialer,
    rest_host: Arc<RestHost>,
    registry: Arc<Registry>,
    marks: Vec<Arc<Marks>>,
    stats: SharedStats,
    clock: Clock,
    rest: Handle,
    epoch: u32,
    /// Told when the instruments of the venue's list are known.
    is_listed: watch::Sender<bool>,
    watchdog: Arc<AtomicU64>,
}

impl FeedTask {
    /// Keeps the feed running; when it fails again and again, the gateway ends for its supervisor.
    async fn supervise(self, fail: mpsc::Sender<String>) {
        let venue = self.config.venue.name();
        let mut recent: VecDeque<Nanos> = VecDeque::new();
        loop {
            // A panic is a bug of ours: it stays within this feed.
            let Err(error) = tokio::spawn(self.clone().run()).await else { return };
            let now = self.clock.now();
            self.mark_failed(now);
            self.stats.feed(self.config.venue).restarts.inc();
            tracing::error!(venue, %error, "the feed failed and is started again");
            recent.push_back(now);
            recent.retain(|at_ns| now < at_ns + FEED_FAILURES_NS);
            if recent.len() >= FEED_FAILURES_MAX {
                // Somebody else may have failed for good at the same moment.
                let _ = fail.try_send(format!("the feed {venue} failed {FEED_FAILURES_MAX} times"));
                return;
            }
            tokio::time::sleep(Duration::from_nanos(BACKOFF_FIRST_NS << recent.len())).await;
        }
    }

    /// What the feed published last is stale from now on.
    fn mark_failed(&self, now: Nanos) {
        let table = self.registry.table();
        let instruments = table
            .entries()
            .iter()
            .filter(|entry| self.has(entry))
            .map(|entry| (Arc::clone(entry), None))
            .collect::<Vec<_>>();
        self.feed(&instruments).on_disconnected(Why::FeedRestarted, now);
    }

    fn has(&self, entry: &Entry) -> bool {
        let is_named = match &self.config.symbols {
            Symbols::All => true,
            Symbols::Named(names) => names.iter().any(|name| **name == *entry.instrument.native),
        };
        is_named && entry.instrument.venue == self.config.venue
    }

    /// Instruments that are named are there from the start.
    fn register_named(&self) -> Result<()> {
        if let Symbols::Named(names) = &self.config.symbols {
            let natives: Vec<Arc<str>> = names.iter().map(|name| Arc::from(&**name)).collect();
            self.register(&natives)?;
        }
        Ok(())
    }

    fn register(&self, natives: &[Arc<str>]) -> Result<Vec<Arc<Entry>>> {
        let now = self.clock.now();
        Ok(self.registry.register(self.config.venue, natives, self.epoch, now)?)
    }

    /// Keeps the feed running for ever; a panic in one session ends all.
    async fn run(self) {
        tokio::select! {
            () = self.serve() => {}
            never = tick(&self.watchdog, &self.clock) => match never {},
        }
    }

    async fn serve(&self) {
        let rest = self.start_fetcher();
        let first = self.first_listings().await;
        let (told, listings) = watch::channel(first.clone());
        let mut sessions =
            Sessions { running: JoinSet::new(), served: HashSet::new(), rest, listings };
        self.start_sessions(&mut sessions, &first);
        self.is_listed.send_replace(true);
        let mut next_listings = pin!(self.next_listings());
        loop {
            tokio::select! {
                Some(ended) = sessions.running.join_next() => {
                    if let Err(error) = ended
                        && let Ok(panic) = error.try_into_panic()
                    {
                        std::panic::resume_unwind(panic);
                    }
                }
                listed = &mut next_listings, if !self.endpoints.instruments_paths.is_empty() => {
                    self.start_sessions(&mut sessions, &listed);
                    told.send_replace(listed);
                    next_listings.set(self.next_listings());
                }
                // A feed without instruments or a list has nothing to wait for.
                else => std::future::pending().await,
            }
        }
    }

    /// Runs sessions for the instruments that have none yet, as many in each as one connection
    /// carries.
    fn start_sessions(&self, sessions: &mut Sessions, listed: &Listings) {
        let instruments = self.instruments(listed, &mut sessions.served);
        for instruments in instruments.chunks(self.endpoints.instruments_per_connection) {
            let session = Session {
                dialer: self.dialer.clone(),
                rest: sessions.rest.clone(),
                listed: listed.clone(),
                listings: sessions.listings.clone(),
                connection_life_ns: self.endpoints.connection_life_ns,
                stats: self.stats.feed(self.config.venue),
            };
            sessions.running.spawn(session.run(self.feed(instruments)));
        }
    }

    fn start_fetcher(&self) -> RestQueue {
        let venue = self.config.venue;
        let decoder = venue::decoder(
            venue,
            Subscription { instruments: Vec::new(), depth: self.config.depth, trades: None },
        );
        let fetcher = ImageFetcher {
            host: Arc::clone(&self.rest_host),
            decode: decoder.image_decoder(),
            weight: decoder.image_weight(),
            stats: self.stats.feed(venue),
        };
        let (queue, work) = RestQueue::new();
        self.rest.spawn(fetcher.run(work));
        queue
    }

    /// The instruments that are to be served and are not yet, with their scales.
    fn instruments(
        &self,
        listed: &Listings,
        served: &mut HashSet<Arc<str>>,
    ) -> Vec<(Arc<Entry>, Option<Scales>)> {
        let venue = self.config.venue;
        let mut natives: Vec<Arc<str>> = match (&self.config.symbols, listed) {
            (Symbols::Named(names), _) => names.iter().map(|name| Arc::from(&**name)).collect(),
            (Symbols::All, Some(listed)) => {
                // Venues go on listing what has been halted for years.
                let open = listed.values().filter(|listing| listing.trading == Trading::Open);
                let mut natives: Vec<_> = open.map(|l| Arc::clone(&l.native)).collect();
                natives.sort_unstable();
                natives
            }
            (Symbols::All, None) => Vec::new(),
        };
        natives.retain(|native| !served.contains(native));
        let entries = match self.register(&natives) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::error!(venue = venue.name(), %error, "instruments are not served");
                return Vec::new();
            }
        };
        let mut instruments = Vec::with_capacity(entries.len());
        for entry in entries {
            let listing = listed.as_ref().map(|listed| listed.get(&entry.instrument.native));
            let scales = match listing {
                None => None,
                Some(Some(listing)) => {
                    entry.set_listing(listing.clone());
                    Some(listing.scales())
                }
                Some(None) => {
                    self.close_unlisted(&entry);
                    continue;
                }
            };
            served.insert(Arc::clone(&entry.instrument.native));
            instruments.push((entry, scales));
        }
        instruments
    }

    fn feed(&self, instruments: &[(Arc<Entry>, Option<Scales>)]) -> Feed {
        Feed::new(FeedOptions {
            venue: self.config.venue,
            instruments: instruments.to_vec(),
            depth: self.config.depth,
            trades: self.config.trades,
            marks: self.marks.clone(),
            stats: self.stats.feed(self.config.venue),
            seed: random(),
        })
    }

    /// The venue's instrument list, as often as it must be asked for where all instruments are
    /// wanted; none where it has none, or where it cannot be had and the instruments are named.
    async fn first_listings(&self) -> Listings {
        let venue = self.config.venue.name();
        if self.endpoints.instruments_paths.is_empty() {
            return None;
        }
        let mut pause_ns = BACKOFF_FIRST_NS;
        loop {
            let error = match self.fetch_listings().await {
                Ok(listings) => return Some(listings),
                Err(error) => format!("{error:#}"),
            };
            if self.config.symbols != Symbols::All {
                tracing::warn!(
                    venue, %error, "no instrument list; scales come from the first images"
                );
                return None;
            }
            tracing::warn!(venue, %error, "no instrument list yet; it is asked for again");
            tokio::time::sleep(Duration::from_nanos(pause_ns)).await;
            pause_ns = (2 * pause_ns).min(BACKOFF_MAX_NS);
        }
    }

    /// The list as it is after a while. One that cannot be had changes nothing.
    async fn next_listings(&self) -> Listings {
        let every_ns = self.config.listings_every_ns;
        loop {
            let pause_ns = every_ns - every_ns / 4 + random() % (every_ns / 2).max(1);
            tokio::time::sleep(Duration::from_nanos(pause_ns)).await;
            match self.fetch_listings().await {
                Ok(listings) => return Some(listings),
                Err(error) => tracing::warn!(
                    venue = self.config.venue.name(), error = %format!("{error:#}"),
                    "the instrument list could not be read again; the old one stands"
                ),
            }
        }
    }

    async fn fetch_listings(&self) -> Result<Arc<HashMap<Arc<str>, Listing>>> {
        let (venue, endpoints) = (self.config.venue, self.endpoints);
        let (host, stats) = (Arc::clone(&self.rest_host), self.stats.feed(venue));
        // It may be 20 MB: fetched and read on the REST thread.
        let fetched = self.rest.spawn(async move {
            let mut listings = HashMap::new();
            for first in endpoints.instruments_paths {
                let mut path = Some((*first).to_owned());
                for _ in 0..LIST_PAGES_MAX {
                    let Some(page) = path.take() else { break };
                    let body = host.get(&page, endpoints.instruments_weight, &stats).await?;
                    let part = venue::listings(venue, &body)?;
                    listings.extend(part.into_iter().map(|l| (Arc::clone(&l.native), l)));
                    path = venue::next_page(venue, first, &body)?;
                }
                if path.is_some() {
                    // Half a list would close what is in the other half.
                    return Err(anyhow!("it has more than {LIST_PAGES_MAX} pages"));
                }
            }
            anyhow::Ok(listings)
        });
        let listings = fetched.await??;
        if listings.is_empty() {
            return Err(anyhow!("it is empty"));
        }
        Ok(Arc::new(listings))
    }

    /// An instrument that the venue does not list is shown as closed.
    fn close_unlisted(&self, entry: &Entry) {
        if entry.load().book.status.state == State::Closed {
            return;
        }
        tracing::error!(symbol = %entry.instrument.symbol, "the venue does not list it");
        let now = self.clock.now();
        let mut snapshot = (*entry.load()).clone();
        for channel in Channel::ALL {
            snapshot.status_mut(*channel).turn(State::Closed, Why::Refused, now);
        }
        entry.publish(Arc::new(snapshot));
        for marks in &self.marks {
            for channel in Channel::ALL {
                marks.mark(entry.instrument.id, *channel, now);
            }
            marks.wake_if_parked(now);
        }
    }
}

/// A random number to spread retries with.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Keeps a watchdog quiet while something else is waited for.
async fn tick(watchdog: &AtomicU64, clock: &Clock) -> std::convert::Infallible {
    loop {
        watchdog.store(clock.now(), Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
