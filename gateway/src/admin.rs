//! The admin listener: is it alive, is it ready, what has it counted, and how is everybody served.
//!
//! Runs on the door's thread; on loopback unless the configuration says otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use tickfan_core::market::{Nanos, State};
use tickfan_core::snapshot::{Entry, Registry};
use tickfan_core::view::BudgetClass;
use tickfan_core::wire::message::ErrorCode;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout;

use crate::clock::Clock;
use crate::fanout::ShardHandle;
use crate::http::{self, Answer};
use crate::limits::{
    ADMIN_CONNECTIONS_MAX, OVERVIEW_WAIT_NS, WATCHDOG_NS_MAX, WORST_CONNECTIONS_MAX,
};
use crate::overview::{
    BookOverview, ClassOverview, FeedOverview, Overview, ShardOverview, ShardReport, WorstBy,
};
use crate::stats::SharedStats;

/// A thread's watchdog: its name, and when it was ticked last.
pub type Watchdog = (String, Arc<AtomicU64>);

/// What the admin listener needs to answer.
#[derive(Debug)]
pub struct Admin {
    /// The instruments.
    pub registry: Arc<Registry>,
    /// Those who know the connections.
    pub shards: Arc<[ShardHandle]>,
    /// Counters.
    pub stats: SharedStats,
    /// The clock.
    pub clock: Clock,
    /// The threads that must go round.
    pub watchdogs: Vec<Watchdog>,
    /// Clients are let in.
    pub is_open: Arc<AtomicBool>,
    /// The gateway goes away.
    pub is_draining: Arc<AtomicBool>,
    /// Held by who asks the shards: a shard answers one at a time.
    pub asking: Mutex<()>,
}

impl Admin {
    /// Serves operators until the task is dropped.
    pub async fn run(self: Arc<Self>, listener: TcpListener) {
        let connections = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
        loop {
            let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let admin = Arc::clone(&self);
            tokio::spawn(async move {
                http::serve(stream, |request| {
                    let admin = Arc::clone(&admin);
                    async move { admin.answer(&request).await }
                })
                .await;
                drop(permit);
            });
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Answer {
        match (http::asked(request.method()), request.uri().path()) {
            (&Method::GET, "/livez") => self.livez(),
            (&Method::GET, "/readyz") => self.readyz(),
            (&Method::GET, "/metrics") => http::text(StatusCode::OK, self.stats.text()),
            (&Method::GET, "/overview") => match worst_by(request.uri().query()) {
                Some(by) => self.overview(by).await,
                None => http::error(
                    StatusCode::BAD_REQUEST,
                    ErrorCode::BadRequest,
                    "write /overview?by=lag, or merged, or blocked",
                ),
            },
            _ => http::error(
                StatusCode::NOT_FOUND,
                ErrorCode::BadRequest,
                "paths are /livez, /readyz, /metrics, /overview",
            ),
        }
    }

    /// Every thread goes round.
    fn livez(&self) -> Answer {
        let now = self.clock.now();
        let stuck: Vec<&str> = self
            .watchdogs
            .iter()
            .filter(|(_, ticked)| {
                now.saturating_sub(ticked.load(Ordering::Relaxed)) > WATCHDOG_NS_MAX
            })
            .map(|(name, _)| name.as_str())
            .collect();
        if stuck.is_empty() {
            return http::text(StatusCode::OK, "alive\n");
        }
        http::text(StatusCode::SERVICE_UNAVAILABLE, format!("stuck: {}\n", stuck.join(", ")))
    }

    /// Clients are let in, every book has had its image, and nobody is being sent away.
    fn readyz(&self) -> Answer {
        if self.is_draining.load(Ordering::Relaxed) {
            return http::text(StatusCode::SERVICE_UNAVAILABLE, "draining\n");
        }
        if !self.is_open.load(Ordering::Relaxed) {
            return http::text(StatusCode::SERVICE_UNAVAILABLE, "starting: nobody is let in yet\n");
        }
        let table = self.registry.table();
        let syncing = table
            .entries()
            .iter()
            .filter(|entry| entry.load().book.status.state == State::Syncing)
            .count();
        if syncing == 0 && !table.entries().is_empty() {
            return http::text(StatusCode::OK, "ready\n");
        }
        let message = format!("{syncing} of {} books wait for an image\n", table.entries().len());
        http::text(StatusCode::SERVICE_UNAVAILABLE, message)
    }
}

/// What `/overview` is to rank connections by; `None` when it is asked for what there is not.
fn worst_by(query: Option<&str>) -> Option<WorstBy> {
    query.map_or(Some(WorstBy::default()), |query| WorstBy::from_name(query.strip_prefix("by=")?))
}

// --- The overview.

/// Nanoseconds in a microsecond.
const MICRO_NS: Nanos = 1_000;

impl Admin {
    async fn overview(&self, by: WorstBy) -> Answer {
        let reports = self.ask_shards(by).await;
        let now = self.clock.now();
        let mut worst = Vec::new();
        for report in reports.iter().flatten() {
            worst.extend_from_slice(&report.worst);
        }
        by.keep(&mut worst, WORST_CONNECTIONS_MAX);
        let gauge = |gauge: i64| u64::try_from(gauge).unwrap_or(0);
        let overview = Overview {
            gateway: concat!("tickfan/", env!("CARGO_PKG_VERSION")).to_owned(),
            time_us: now / MICRO_NS,
            draining: self.is_draining.load(Ordering::Relaxed),
            connections: gauge(self.stats.connections.get()),
            subscriptions: gauge(self.stats.subscriptions.get()),
            lanes: gauge(self.stats.lanes.get()),
            feeds: self.feeds(now),
            shards: self.shards(&reports),
            classes: self.classes(&reports),
            worst,
        };
        http::json(StatusCode::OK, serde_json::json!(overview).to_string())
    }

    /// What the shards know, in their order; `None` of one that did not answer in time.
    async fn ask_shards(&self, by: WorstBy) -> Vec<Option<ShardReport>> {
        let _asking = self.asking.lock().await;
        let mut answers: Vec<_> = self.shards.iter().map(|shard| shard.survey(by)).collect();
        let mut reports = Vec::with_capacity(answers.len());
        let in_turn = async {
            for answer in &mut answers {
                reports.push(answer.await.ok());
            }
        };
        if timeout(Duration::from_nanos(OVERVIEW_WAIT_NS), in_turn).await.is_err() {
            // One is late; those behind it may have answered.
            let behind = answers.iter_mut().skip(reports.len());
            reports.extend(behind.map(|answer| answer.try_recv().ok()));
        }
        reports
    }

    fn shards(&self, reports: &[Option<ShardReport>]) -> Vec<ShardOverview> {
        let shards = self.shards.iter().zip(reports);
        (0..)
            .zip(shards)
            .map(|(shard, (handle, report))| {
                let stats = self.stats.shard(shard);
                ShardOverview {
                    shard,
                    answered: report.is_some(),
                    connections: handle.load() as u64,
                    blocked_now: report.as_ref().map_or(0, |report| report.blocked_now),
                    lag_us: report.as_ref().map_or(0, |report| report.lag_us),
                    frames: stats.frames.get(),
                    updates: stats.updates.get(),
                    bytes: stats.bytes.get(),
                    merged: stats.merged.get(),
                    blocked: stats.blocked.get(),
                    late_gateway: stats.late_gateway.get(),
                    late_client: stats.late_client.get(),
                }
            })
            .collect()
    }

    fn classes(&self, reports: &[Option<ShardReport>]) -> Vec<ClassOverview> {
        BudgetClass::all()
            .map(|class| {
                let answered = reports.iter().flatten();
                let [missed_gateway, missed_client] =
                    self.stats.misses(class).map(|counter| counter.get());
                ClassOverview {
                    budget_ms: class.ms(),
                    seats: answered.clone().map(|report| report.seats[class.index()]).sum(),
                    p99_us: answered.filter_map(|report| report.p99_us[class.index()]).max(),
                    missed_gateway,
                    missed_client,
                }
            })
            .filter(|class| class.seats > 0 || class.p99_us.is_some())
            .collect()
    }

    /// The venues, the worst first.
    fn feeds(&self, now: Nanos) -> Vec<FeedOverview> {
        let mut feeds: Vec<(Trouble, FeedOverview)> = Vec::new();
        for entry in self.registry.table().entries() {
            let venue = entry.instrument.venue;
            let (trouble, book, newest_ns) = judge(entry, now);
            let at = feeds.iter().position(|(_, feed)| feed.venue == venue.name());
            let at = at.unwrap_or_else(|| {
                let stats = self.stats.feed(venue);
                let feed = FeedOverview {
                    venue: venue.name().to_owned(),
                    books: 0,
                    not_live: 0,
                    age_us: None,
                    messages: stats.messages.get(),
                    bytes: stats.bytes.get(),
                    gaps: stats.gaps.get(),
                    checksum_mismatches: stats.checksum_mismatches.get(),
                    worst: None,
                };
                feeds.push((Trouble::default(), feed));
                feeds.len() - 1
            });
            let (worst, feed) = &mut feeds[at];
            feed.books += 1;
            feed.not_live += u64::from(book.state != State::Live.name());
            let age_us = age_us(newest_ns, now);
            feed.age_us = match (feed.age_us, age_us) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
            if feed.worst.is_none() || trouble > *worst {
                *worst = trouble;
                feed.worst = Some(book);
            }
        }
        feeds.sort_by_key(|(worst, _)| std::cmp::Reverse(*worst));
        feeds.into_iter().map(|(_, feed)| feed).collect()
    }
}

/// How bad a book is: its state first, then for how long nothing came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Trouble {
    state: u8,
    quiet_ns: Nanos,
}

/// How bad the book of an instrument is, what is told of it, and when anything came of the
/// instrument last.
fn judge(entry: &Entry, now: Nanos) -> (Trouble, BookOverview, Nanos) {
    let snapshot = entry.load();
    let (book, status) = (&snapshot.book, &snapshot.book.status);
    let newest_ns = book.tr_ns.max(snapshot.bbo.tr_ns).max(snapshot.trades.tr_ns);
    let state = match status.state {
        State::Gap => 5,
        State::Stale => 4,
        State::Syncing => 3,
        State::Suspect => 2,
        State::Halted | State::Closed => 1,
        State::Live => 0,
    };
    let overview = BookOverview {
        symbol: entry.instrument.symbol.to_string(),
        state: status.state.name().to_owned(),
        why: status.why.name().to_owned(),
        for_us: now.saturating_sub(status.since_ns) / MICRO_NS,
        age_us: age_us(book.tr_ns, now),
    };
    (Trouble { state, quiet_ns: now.saturating_sub(newest_ns) }, overview, newest_ns)
}

/// How long ago something was received; `None` when it never was.
fn age_us(received_ns: Nanos, now: Nanos) -> Option<u64> {
    (received_ns > 0).then(|| now.saturating_sub(received_ns) / MICRO_NS)
}
