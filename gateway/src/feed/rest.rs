//! REST requests to venues: images and instrument lists, and images of the stream that are too large
//! to be decoded between two messages.
//!
//! Runs on the REST thread, which also decodes the images, because a large one takes longer than
//! the feed thread may spend on anything. Requests keep within the venue's limits, all feeds of a
//! host together; a venue that says "too many" is left alone for as long as it says.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{ACCEPT, CONNECTION, HOST, RETRY_AFTER, USER_AGENT};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tickfan_core::market::{EventBatch, InstrumentId, Nanos};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::tls::{Address, Connector};
use crate::clock::Clock;
use crate::limits::{
    BAN_FIRST_NS, BAN_MAX_NS, DECODE_QUEUE_MAX, REST_BODY_BYTES_MAX, REST_CONCURRENT_MAX,
    REST_QUEUE_MAX, REST_TIMEOUT_NS, SECOND_NS,
};
use crate::stats::FeedStats;
use crate::venue::ImageDecoder;

/// Why a REST request failed.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    /// The connection could not be made, or broke.
    #[error("connection: {0}")]
    Io(#[from] std::io::Error),
    /// The venue does not speak HTTP as expected.
    #[error("http: {0}")]
    Http(#[from] hyper::Error),
    /// Our request could not be formed.
    #[error("request: {0}")]
    Request(#[from] hyper::http::Error),
    /// The body is too large, or broke off.
    #[error("body: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// The venue refused.
    #[error("the venue answered {status}")]
    Status {
        /// With this status.
        status: StatusCode,
        /// And asked to be left alone for this long.
        retry_after_ns: Option<Nanos>,
    },
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
    /// The venue asked to be left alone before the request was sent.
    #[error("not asked: the venue wants to be left alone")]
    Banned,
}

impl RestError {
    /// Whether the venue wants to be left alone, and for how long where it says: it says "too many"
    /// (429, and 418 for those who go on all the same), or when to come back.
    fn ban(&self) -> Option<Option<Nanos>> {
        match self {
            Self::Status { status, retry_after_ns } => {
                let is_refusal =
                    *status == StatusCode::TOO_MANY_REQUESTS || *status == StatusCode::IM_A_TEAPOT;
                (is_refusal || retry_after_ns.is_some()).then_some(*retry_after_ns)
            }
            _ => None,
        }
    }
}

/// For how long an answer asks to leave the venue alone.
pub(super) fn retry_after_ns(headers: &HeaderMap) -> Option<Nanos> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse::<u64>().ok()?;
    Some(seconds.saturating_mul(SECOND_NS))
}

/// The REST host of a venue, and what may still be asked of it; shared by all who ask there.
#[derive(Debug)]
pub struct RestHost {
    connector: Connector,
    address: Address,
    clock: Clock,
    under_way: Arc<Semaphore>,
    /// Held while it is waited for the budget: who came first goes first, whatever it weighs.
    turn: tokio::sync::Mutex<()>,
    budget: Mutex<Budget>,
}

/// Leave to make one request.
#[derive(Debug)]
pub struct Admission(Option<OwnedSemaphorePermit>);

impl RestHost {
    /// A host of which so much weight may be asked for in a minute.
    pub fn new(
        connector: Connector,
        address: Address,
        weight_per_minute: u32,
        clock: Clock,
    ) -> Self {
        let budget = Mutex::new(Budget::full(weight_per_minute, clock.now()));
        Self {
            connector,
            address,
            clock,
            under_way: Arc::new(Semaphore::new(REST_CONCURRENT_MAX)),
            turn: tokio::sync::Mutex::new(()),
            budget,
        }
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a request of this weight may be made.
    pub async fn admit(&self, weight: u32) -> Admission {
        // The permit first: one of those under way may bring a ban. It is never closed.
        let permit = Arc::clone(&self.under_way).acquire_owned().await.ok();
        let _turn = self.turn.lock().await;
        loop {
            let wait_ns = self.budget().take(weight, self.clock.now());
            if wait_ns == 0 {
                return Admission(permit);
            }
            tokio::time::sleep(Duration::from_nanos(wait_ns)).await;
        }
    }

    /// GETs a path once a request of this weight may be made.
    ///
    /// # Errors
    /// [`RestError`]; nothing is tried again here.
    pub async fn get(
        &self,
        path: &str,
        weight: u32,
        stats: &FeedStats,
    ) -> Result<Bytes, RestError> {
        let admission = self.admit(weight).await;
        self.get_admitted(admission, path, stats).await
    }

    /// GETs a path.
    ///
    /// # Errors
    /// [`RestError`]; nothing is tried again here.
    pub async fn get_admitted(
        &self,
        Admission(permit): Admission,
        path: &str,
        stats: &FeedStats,
    ) -> Result<Bytes, RestError> {
        let limit = Duration::from_nanos(REST_TIMEOUT_NS);
        let got = tokio::time::timeout(limit, self.get_unlimited(path))
            .await
            .unwrap_or(Err(RestError::Timeout));
        match &got {
            Ok(_) => self.budget().served(),
            Err(error) => {
                if let Some(asked_ns) = error.ban() {
                    let now = self.clock.now();
                    let until_ns = self.budget().ban(asked_ns, now);
                    stats.bans.inc();
                    tracing::warn!(
                        venue = %self.address.authority(),
                        %error,
                        pause_s = until_ns.saturating_sub(now) / SECOND_NS,
                        "the venue wants to be left alone"
                    );
                }
            }
        }
        // Whoever waits for it finds the ban.
        drop(permit);
        got
    }

    async fn get_unlimited(&self, path: &str) -> Result<Bytes, RestError> {
        let stream = self.connector.connect(&self.address).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::get(path)
            .header(HOST, self.address.authority())
            .header(USER_AGENT, concat!("tickfan/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "application/json")
            .header(CONNECTION, "close")
            .body(Empty::<Bytes>::new())?;
        // Another request may have brought a ban while this one was connecting.
        if self.budget().is_banned(self.clock.now()) {
            return Err(RestError::Banned);
        }
        let respond = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            if !status.is_success() {
                let retry_after_ns = retry_after_ns(response.headers());
                return Err(RestError::Status { status, retry_after_ns });
            }
            let body = Limited::new(response.into_body(), REST_BODY_BYTES_MAX);
            Ok(body.collect().await.map_err(RestError::Body)?.to_bytes())
        };
        let (response, ended) = tokio::join!(respond, connection);
        // An error of the connection after the whole body came is of no interest.
        match (response, ended) {
            (Ok(body), _) => Ok(body),
            (Err(error), _) => Err(error),
        }
    }
}

/// An image to be fetched.
#[derive(Debug)]
pub struct ImageRequest {
    /// Of which instrument.
    pub instrument: InstrumentId,
    /// On which connection it is waited for.
    pub connection: u32,
    /// Where.
    pub path: String,
    /// Who wants it.
    pub reply: mpsc::Sender<ImageResult>,
}

/// A message of the stream that is an image, to be decoded.
#[derive(Debug)]
pub struct DecodeRequest {
    /// Of which instrument.
    pub instrument: InstrumentId,
    /// On which connection it came.
    pub connection: u32,
    /// The message.
    pub message: Vec<u8>,
    /// Who wants it.
    pub reply: mpsc::Sender<ImageResult>,
}

/// An image that was fetched and decoded, or `None` when it failed.
#[derive(Debug)]
pub struct ImageResult {
    /// Of which instrument.
    pub instrument: InstrumentId,
    /// For which connection.
    pub connection: u32,
    /// The one image event.
    pub image: Option<EventBatch>,
}

/// What the REST thread is to do for one venue: the end of the sessions.
#[derive(Debug, Clone)]
pub struct RestQueue {
    images: mpsc::Sender<ImageRequest>,
    spares: mpsc::Sender<ImageRequest>,
    messages: mpsc::Sender<DecodeRequest>,
}

/// The end of the REST thread.
#[derive(Debug)]
pub struct RestWork {
    images: mpsc::Receiver<ImageRequest>,
    spares: mpsc::Receiver<ImageRequest>,
    messages: mpsc::Receiver<DecodeRequest>,
}

/// The queue does not take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueFull;

impl RestQueue {
    /// A queue with nothing in it.
    pub fn new() -> (Self, RestWork) {
        let (image_sender, images) = mpsc::channel(REST_QUEUE_MAX);
        let (spare_sender, spares) = mpsc::channel(REST_QUEUE_MAX);
        let (message_sender, messages) = mpsc::channel(DECODE_QUEUE_MAX);
        let queue = Self { images: image_sender, spares: spare_sender, messages: message_sender };
        (queue, RestWork { images, spares, messages })
    }

    /// Asks for an image. One that nobody sees yet is `is_urgent` to nobody, and goes after all
    /// others.
    ///
    /// # Errors
    /// [`QueueFull`], which one request per instrument and connection does not bring about.
    pub fn ask(&self, request: ImageRequest, is_urgent: bool) -> Result<(), QueueFull> {
        let queue = if is_urgent { &self.images } else { &self.spares };
        queue.try_send(request).map_err(|_| QueueFull)
    }

    /// Asks for a message to be decoded.
    ///
    /// # Errors
    /// [`QueueFull`] when more are large at once than memory is meant for.
    pub fn decode(&self, request: DecodeRequest) -> Result<(), QueueFull> {
        self.messages.try_send(request).map_err(|_| QueueFull)
    }
}

/// Fetches and decodes the images of one feed, over all of its connections.
pub struct ImageFetcher {
    /// The venue's REST host.
    pub host: Arc<RestHost>,
    /// Decodes what comes.
    pub decode: ImageDecoder,
    /// What one image weighs.
    pub weight: u32,
    /// Counters.
    pub stats: FeedStats,
}

impl std::fmt::Debug for ImageFetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageFetcher").field("host", &self.host).finish_non_exhaustive()
    }
}

impl ImageFetcher {
    /// Serves requests until every session is gone.
    pub async fn run(self, work: RestWork) {
        let fetcher = Arc::new(self);
        let RestWork { images, spares, messages } = work;
        tokio::join!(Arc::clone(&fetcher).fetch_all(images, spares), fetcher.decode_all(messages));
    }

    async fn fetch_all(
        self: Arc<Self>,
        mut images: mpsc::Receiver<ImageRequest>,
        mut spares: mpsc::Receiver<ImageRequest>,
    ) {
        loop {
            let request = tokio::select! {
                biased;
                Some(request) = images.recv() => request,
                Some(request) = spares.recv() => request,
                else => return,
            };
            if request.reply.is_closed() {
                // The connection that wanted it is gone.
                continue;
            }
            let admission = self.host.admit(self.weight).await;
            let fetcher = Arc::clone(&self);
            tokio::spawn(async move { fetcher.fetch(request, admission).await });
        }
    }

    async fn fetch(&self, request: ImageRequest, admission: Admission) {
        let ImageRequest { instrument, connection, path, reply } = request;
        let image = match self.host.get_admitted(admission, &path, &self.stats).await {
            Ok(body) => self.read(instrument, &mut Vec::from(body)),
            Err(error) => {
                tracing::warn!(%path, %error, "an image could not be fetched");
                None
            }
        };
        // The session may be gone: then nobody misses the image.
        let _ = reply.send(ImageResult { instrument, connection, image }).await;
    }

    async fn decode_all(&self, mut messages: mpsc::Receiver<DecodeRequest>) {
        while let Some(request) = messages.recv().await {
            let DecodeRequest { instrument, connection, mut message, reply } = request;
            let image = self.read(instrument, &mut message);
            // One session that does not take it must not keep the others waiting; of an instrument
            // one is under way at most.
            tokio::spawn(async move {
                let _ = reply.send(ImageResult { instrument, connection, image }).await;
            });
            // A large one takes long, and requests share this thread.
            tokio::task::yield_now().await;
        }
    }

    fn read(&self, instrument: InstrumentId, body: &mut [u8]) -> Option<EventBatch> {
        let mut image = EventBatch::default();
        match (self.decode)(instrument, body, &mut image) {
            Ok(()) => Some(image),
            Err(error) => {
                tracing::warn!(instrument = instrument.0, %error, "an image could not be read");
                None
            }
        }
    }
}

/// What may be asked of a host: a bucket that holds a minute's worth of weight, and a ban.
#[derive(Debug)]
pub(crate) struct Budget {
    per_minute: u64,
    /// Weight times a minute, so that it refills in whole numbers.
    level: u64,
    refilled_ns: Nanos,
    banned_until_ns: Nanos,
    /// Bans in a row.
    bans: u32,
}

const MINUTE_NS: Nanos = 60 * SECOND_NS;

impl Budget {
    /// Nothing was asked for yet.
    pub(crate) fn full(per_minute: u32, now: Nanos) -> Self {
        let per_minute = u64::from(per_minute.max(1));
        Self {
            per_minute,
            level: per_minute * MINUTE_NS,
            refilled_ns: now,
            banned_until_ns: 0,
            bans: 0,
        }
    }

    /// The venue wants to be left alone.
    pub(crate) fn is_banned(&self, now: Nanos) -> bool {
        now < self.banned_until_ns
    }

    /// The venue wants to be left alone, for as long as it asked or, where it did not say, for twice
    /// as long as the last time; returns until when. What was under way together is banned once.
    pub(crate) fn ban(&mut self, asked_ns: Option<Nanos>, now: Nanos) -> Nanos {
        let pause_ns = match asked_ns {
            Some(asked_ns) => asked_ns,
            None if self.is_banned(now) => 0,
            None => BAN_FIRST_NS.saturating_mul(1 << self.bans.min(16)).min(BAN_MAX_NS),
        };
        if !self.is_banned(now) {
            self.bans = self.bans.saturating_add(1);
        }
        self.banned_until_ns = self.banned_until_ns.max(now.saturating_add(pause_ns));
        self.banned_until_ns
    }

    /// The venue serves us.
    pub(crate) const fn served(&mut self) {
        self.bans = 0;
    }

    /// Takes a weight and returns 0, or returns how long to wait before asking again. What weighs
    /// more than a minute's worth takes all of it.
    pub(crate) fn take(&mut self, weight: u32, now: Nanos) -> Nanos {
        if self.is_banned(now) {
            return self.banned_until_ns - now;
        }
        let elapsed = now.saturating_sub(self.refilled_ns).min(MINUTE_NS);
        self.refilled_ns = now;
        self.level = (self.level + elapsed * self.per_minute).min(self.per_minute * MINUTE_NS);
        let needed = u64::from(weight).min(self.per_minute) * MINUTE_NS;
        if self.level >= needed {
            self.level -= needed;
            return 0;
        }
        (needed - self.level).div_ceil(self.per_minute)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Stats;
    use tickfan_core::market::{MarketEvent, Venue};

    /// Takes any message for an image but an empty one.
    fn fetcher(address: &str) -> ImageFetcher {
        let (connector, address) = (Connector::new(&[]).unwrap(), Address::parse(address).unwrap());
        ImageFetcher {
            host: Arc::new(RestHost::new(connector, address, 60, Clock::start())),
            decode: Arc::new(|_, message, out| {
                out.events.push(MarketEvent::Shutdown);
                if message.is_empty() { Err(crate::venue::Malformed::NotJson) } else { Ok(()) }
            }),
            weight: 1,
            stats: Stats::default().feed(Venue::Sim),
        }
    }

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
    }

    #[test]
    fn messages_are_decoded_at_once_while_images_wait_for_a_ban_to_end() {
        run(async {
            let fetcher = fetcher("http://127.0.0.1:1");
            let now = fetcher.host.clock.now();
            fetcher.host.budget().ban(None, now);
            let (queue, work) = RestQueue::new();
            let (reply, mut results) = mpsc::channel(4);
            let (connection, path) = (3, "/".to_owned());
            let image = ImageRequest {
                instrument: InstrumentId(0),
                connection,
                path,
                reply: reply.clone(),
            };
            queue.ask(image, true).unwrap();
            for (id, message) in [(1, b"{}".to_vec()), (2, Vec::new())] {
                let (instrument, reply) = (InstrumentId(id), reply.clone());
                let request = DecodeRequest { instrument, connection, message, reply };
                queue.decode(request).unwrap();
            }
            tokio::spawn(fetcher.run(work));
            for (id, is_read) in [(1, true), (2, false)] {
                let result = results.recv().await.unwrap();
                let came = (result.instrument.0, result.connection, result.image.is_some());
                assert_eq!(came, (id, 3, is_read));
            }
            assert!(results.try_recv().is_err(), "the image is not asked for");
        });
    }

    #[test]
    fn nothing_is_asked_of_the_venue_for_a_connection_that_is_gone() {
        run(async {
            // One request a minute: who waits behind another waits for long.
            let mut fetcher = fetcher("http://127.0.0.1:1");
            fetcher.weight = 60;
            let (queue, work) = RestQueue::new();
            let (gone, _) = mpsc::channel(1);
            let (reply, mut results) = mpsc::channel(1);
            for (id, reply) in [(0, gone.clone()), (1, gone), (2, reply)] {
                let (instrument, path) = (InstrumentId(id), "/".to_owned());
                queue.ask(ImageRequest { instrument, connection: 0, path, reply }, true).unwrap();
            }
            tokio::spawn(fetcher.run(work));
            let result = tokio::time::timeout(Duration::from_secs(30), results.recv()).await;
            assert_eq!(result.unwrap().unwrap().instrument, InstrumentId(2));
        });
    }

    #[test]
    fn a_session_that_takes_no_results_holds_no_other_up() {
        run(async {
            let (queue, work) = RestQueue::new();
            tokio::spawn(fetcher("http://127.0.0.1:1").run(work));
            let (stuck, _untaken) = mpsc::channel(1);
            let (reply, mut results) = mpsc::channel(1);
            for (id, reply) in [(0, &stuck), (1, &stuck), (2, &reply)] {
                let (instrument, reply) = (InstrumentId(id), reply.clone());
                let message = b"{}".to_vec();
                queue.decode(DecodeRequest { instrument, connection: 0, message, reply }).unwrap();
            }
            let result = tokio::time::timeout(Duration::from_secs(30), results.recv()).await;
            assert_eq!(result.unwrap().unwrap().instrument, InstrumentId(2));
        });
    }

    #[test]
    fn no_more_messages_wait_than_memory_is_meant_for() {
        let (queue, _work) = RestQueue::new();
        let (reply, _results) = mpsc::channel(1);
        let ask = || {
            let (instrument, reply) = (InstrumentId(0), reply.clone());
            queue.decode(DecodeRequest { instrument, connection: 0, message: vec![0], reply })
        };
        for _ in 0..DECODE_QUEUE_MAX {
            assert_eq!(ask(), Ok(()));
        }
        assert_eq!(ask(), Err(QueueFull));
    }

    #[test]
    fn a_minute_holds_its_weight_and_not_one_more() {
        for (weight, requests) in [(250, 12), (50, 60), (5, 600)] {
            let mut budget = Budget::full(3_000, 0);
            for _ in 0..requests {
                assert_eq!(budget.take(weight, 0), 0);
            }
            let wait_ns = budget.take(weight, 0);
            assert_eq!(wait_ns, MINUTE_NS / requests);
            assert_ne!(budget.take(weight, wait_ns - 1), 0);
            assert_eq!(budget.take(weight, wait_ns), 0);
        }
    }

    #[test]
    fn what_weighs_more_than_a_minute_takes_all_of_it() {
        let mut budget = Budget::full(100, 0);
        assert_eq!(budget.take(101, 0), 0);
        assert_eq!(budget.take(1, 0), MINUTE_NS / 100);
        assert_eq!(budget.take(101, MINUTE_NS), 0);
    }

    #[test]
    fn a_ban_stops_everything_until_it_ends() {
        let mut budget = Budget::full(24, 0);
        assert_eq!(budget.ban(Some(5 * SECOND_NS), 0), 5 * SECOND_NS);
        assert_eq!(budget.take(1, SECOND_NS), 4 * SECOND_NS);
        // A shorter one that came later ends nothing.
        assert_eq!(budget.ban(Some(SECOND_NS), SECOND_NS), 5 * SECOND_NS);
        assert!(budget.is_banned(5 * SECOND_NS - 1));
        assert_eq!(budget.take(1, 5 * SECOND_NS), 0);
    }

    #[test]
    fn bans_without_a_time_double_until_the_venue_serves() {
        let mut budget = Budget::full(24, 0);
        let mut now = 0;
        for pause_ns in [1, 2, 4, 8].map(|times| times * BAN_FIRST_NS) {
            assert_eq!(budget.ban(None, now), now + pause_ns);
            // What was under way at the same time tells nothing new.
            assert_eq!(budget.ban(None, now), now + pause_ns);
            now += pause_ns;
        }
        for _ in 0..20 {
            now = budget.ban(None, now);
        }
        assert_eq!(budget.ban(None, now), now + BAN_MAX_NS);
        now += BAN_MAX_NS;
        budget.served();
        assert_eq!(budget.ban(None, now), now + BAN_FIRST_NS);
    }
}
