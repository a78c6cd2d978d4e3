//! The door: where clients come in. HTTP requests are answered here, WebSockets are upgraded and
//! handed to the least loaded shard.
//!
//! Runs on the door's thread, with tokio. It reads snapshots and never waits for a shard.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use tickfan_core::snapshot::Registry;
use tickfan_core::wire::message::ErrorCode;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

pub mod control;
pub mod upgrade;

use crate::clock::Clock;
use crate::fanout::ShardHandle;
use crate::http::{self, Answer};
use crate::limits::{CONNECTIONS_MAX, HANDSHAKES_MAX};
use crate::stats::SharedStats;

/// What the door needs to answer.
#[derive(Debug)]
pub struct Door {
    /// The instruments.
    pub registry: Arc<Registry>,
    /// Where connections go.
    pub shards: Arc<[ShardHandle]>,
    /// Counters.
    pub stats: SharedStats,
    /// The clock.
    pub clock: Clock,
    /// The gateway goes away: nobody is let in any more.
    pub is_draining: Arc<AtomicBool>,
}

impl Door {
    /// Serves clients until the task is dropped.
    pub async fn run(self: Arc<Self>, listener: TcpListener) {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        loop {
            // The permit first: while all are taken, clients wait in the kernel's queue.
            let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: others must end before one can begin.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            };
            let door = Arc::clone(&self);
            tokio::spawn(async move {
                http::serve(stream, |request| {
                    let door = Arc::clone(&door);
                    async move { door.answer(request) }
                })
                .await;
                drop(permit);
            });
        }
    }

    fn answer(self: &Arc<Self>, request: Request<Incoming>) -> Answer {
        let answer = match (request.method(), request.uri().path()) {
            (&Method::GET, "/v1/stream") => upgrade::answer(self, request),
            (&Method::GET, "/v1/instruments") => control::instruments(&self.registry, &request),
            (&Method::GET, "/v1/book") => control::book(&self.registry, &request),
            (&Method::GET, "/v1/trades") => control::trades(&self.registry, &request),
            (&Method::GET, "/") => http::text(StatusCode::OK, WELCOME),
            (_, "/v1/stream" | "/v1/instruments" | "/v1/book" | "/v1/trades" | "/") => http::error(
                StatusCode::METHOD_NOT_ALLOWED,
                ErrorCode::BadRequest,
                "only GET is served here",
            ),
            _ => http::error(
                StatusCode::NOT_FOUND,
                ErrorCode::BadRequest,
                "paths are /v1/stream (WebSocket), /v1/instruments, /v1/book, /v1/trades",
            ),
        };
        if !answer.status().is_success() && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            self.stats.door_refused.inc();
        }
        answer
    }

    /// The shard with the fewest connections, unless the gateway is full.
    fn least_loaded(&self) -> Option<&ShardHandle> {
        let in_all: usize = self.shards.iter().map(ShardHandle::load).sum();
        if in_all >= CONNECTIONS_MAX || self.is_draining.load(Ordering::Relaxed) {
            return None;
        }
        self.shards.iter().min_by_key(|shard| shard.load())
    }
}

const WELCOME: &str = "Tickfan: market data fan-out gateway\n\n\
    WebSocket  /v1/stream\n\
    REST       /v1/instruments  /v1/book?symbol=&depth=  /v1/trades?symbol=&limit=\n";
