//! REST requests to venues: images and instrument lists.
//!
//! Runs on the REST thread, which also decodes the images, because a large one takes longer than
//! the feed thread may spend on anything. Requests keep within the venue's limits; a venue that says
//! "too many" is left alone for as long as it says.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{ACCEPT, CONNECTION, HOST, RETRY_AFTER, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tickfan_core::market::{EventBatch, InstrumentId, Nanos};
use tokio::sync::{Semaphore, mpsc};

use super::tls::{Address, Connector};
use crate::clock::Clock;
use crate::limits::{REST_BODY_BYTES_MAX, REST_CONCURRENT_MAX, REST_TIMEOUT_NS, SECOND_NS};
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
}

impl RestError {
    /// For how long the venue asked to be left alone.
    pub const fn retry_after_ns(&self) -> Option<Nanos> {
        match self {
            Self::Status { retry_after_ns, .. } => *retry_after_ns,
            _ => None,
        }
    }
}

/// GETs a path at a venue's REST host.
///
/// # Errors
/// [`RestError`]; nothing is tried again here.
pub async fn get(connector: &Connector, address: &Address, path: &str) -> Result<Bytes, RestError> {
    let limit = Duration::from_nanos(REST_TIMEOUT_NS);
    tokio::time::timeout(limit, get_unlimited(connector, address, path))
        .await
        .unwrap_or(Err(RestError::Timeout))
}

async fn get_unlimited(
    connector: &Connector,
    address: &Address,
    path: &str,
) -> Result<Bytes, RestError> {
    let stream = connector.connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header(HOST, address.authority())
        .header(USER_AGENT, concat!("tickfan/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "application/json")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let respond = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        if !status.is_success() {
            let retry_after_ns = response
                .headers()
                .get(RETRY_AFTER)
                .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
                .map(|seconds| seconds.saturating_mul(SECOND_NS));
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

/// An image to be fetched.
#[derive(Debug)]
pub struct ImageRequest {
    /// Of which instrument.
    pub instrument: InstrumentId,
    /// Where.
    pub path: String,
    /// Over which connection its events come.
    pub connection: u32,
    /// Who wants it.
    pub reply: mpsc::Sender<ImageResult>,
}

/// An image that was fetched and decoded, or `None` when it failed.
#[derive(Debug)]
pub struct ImageResult {
    /// Of which instrument.
    pub instrument: InstrumentId,
    /// As in its request.
    pub connection: u32,
    /// The one image event.
    pub image: Option<EventBatch>,
}

/// Fetches the images of one feed, over all of its connections.
pub struct ImageFetcher {
    /// Makes the connections.
    pub connector: Connector,
    /// The venue's REST host.
    pub address: Address,
    /// Decodes what comes.
    pub decode: ImageDecoder,
    /// How many images may be asked for in a minute.
    pub images_per_minute: u32,
    /// The clock.
    pub clock: Clock,
}

impl std::fmt::Debug for ImageFetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageFetcher").field("address", &self.address).finish_non_exhaustive()
    }
}

impl ImageFetcher {
    /// Serves requests until every session is gone.
    pub async fn run(self, mut requests: mpsc::Receiver<ImageRequest>) {
        let fetcher = Arc::new(self);
        let under_way = Arc::new(Semaphore::new(REST_CONCURRENT_MAX));
        let mut allowance = Allowance::full(fetcher.images_per_minute, fetcher.clock.now());
        let (ban_sender, mut bans) = mpsc::channel::<Nanos>(REST_CONCURRENT_MAX);
        while let Some(request) = requests.recv().await {
            // The permit first: one of those under way may bring a ban.
            let Ok(permit) = Arc::clone(&under_way).acquire_owned().await else { return };
            loop {
                while let Ok(until_ns) = bans.try_recv() {
                    allowance.ban(until_ns);
                }
                let wait_ns = allowance.take(fetcher.clock.now());
                if wait_ns == 0 {
                    break;
                }
                tokio::time::sleep(Duration::from_nanos(wait_ns)).await;
            }
            let fetcher = Arc::clone(&fetcher);
            let ban_sender = ban_sender.clone();
            tokio::spawn(async move {
                let image = fetcher.fetch(&request, &ban_sender).await;
                // The session may be gone: then nobody misses the image.
                let result = ImageResult {
                    instrument: request.instrument,
                    connection: request.connection,
                    image,
                };
                let _ = request.reply.send(result).await;
                drop(permit);
            });
        }
    }

    async fn fetch(
        &self,
        request: &ImageRequest,
        bans: &mpsc::Sender<Nanos>,
    ) -> Option<EventBatch> {
        let body = match get(&self.connector, &self.address, &request.path).await {
            Ok(body) => body,
            Err(error) => {
                tracing::warn!(path = %request.path, %error, "an image could not be fetched");
                if let Some(pause_ns) = error.retry_after_ns() {
                    let _ = bans.try_send(self.clock.now() + pause_ns);
                }
                return None;
            }
        };
        let mut image = EventBatch::default();
        match (self.decode)(request.instrument, &mut Vec::from(body), &mut image) {
            Ok(()) => Some(image),
            Err(error) => {
                tracing::warn!(path = %request.path, %error, "an image could not be read");
                None
            }
        }
    }
}

/// A token bucket that holds a minute's worth, and a ban.
#[derive(Debug)]
struct Allowance {
    per_minute: u64,
    /// Tokens times a minute, so that they refill in whole numbers.
    level: u64,
    refilled_ns: Nanos,
    banned_until_ns: Nanos,
}

const MINUTE_NS: Nanos = 60 * SECOND_NS;

impl Allowance {
    fn full(per_minute: u32, now: Nanos) -> Self {
        let per_minute = u64::from(per_minute.max(1));
        Self { per_minute, level: per_minute * MINUTE_NS, refilled_ns: now, banned_until_ns: 0 }
    }

    fn ban(&mut self, until_ns: Nanos) {
        self.banned_until_ns = self.banned_until_ns.max(until_ns);
    }

    /// Takes a token and returns 0, or returns how long to wait before asking again.
    fn take(&mut self, now: Nanos) -> Nanos {
        if now < self.banned_until_ns {
            return self.banned_until_ns - now;
        }
        let elapsed = now.saturating_sub(self.refilled_ns).min(MINUTE_NS);
        self.refilled_ns = now;
        self.level = (self.level + elapsed * self.per_minute).min(self.per_minute * MINUTE_NS);
        if self.level >= MINUTE_NS {
            self.level -= MINUTE_NS;
            return 0;
        }
        (MINUTE_NS - self.level).div_ceil(self.per_minute)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_holds_its_allowance_and_not_one_more() {
        let mut allowance = Allowance::full(24, 0);
        for _ in 0..24 {
            assert_eq!(allowance.take(0), 0);
        }
        let wait_ns = allowance.take(0);
        assert_eq!(wait_ns, MINUTE_NS / 24);
        assert_ne!(allowance.take(wait_ns - 1), 0);
        assert_eq!(allowance.take(wait_ns), 0);
    }

    #[test]
    fn a_ban_stops_everything_until_it_ends() {
        let mut allowance = Allowance::full(24, 0);
        allowance.ban(5 * SECOND_NS);
        assert_eq!(allowance.take(SECOND_NS), 4 * SECOND_NS);
        assert_eq!(allowance.take(5 * SECOND_NS), 0);
    }
}
