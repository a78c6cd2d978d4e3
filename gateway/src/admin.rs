//! The admin listener: is it alive, is it ready, and what has it counted.
//!
//! Runs on the door's thread; on loopback unless the configuration says otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use tickfan_core::market::State;
use tickfan_core::snapshot::Registry;
use tickfan_core::wire::message::ErrorCode;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::http::{self, Answer};
use crate::limits::{ADMIN_CONNECTIONS_MAX, WATCHDOG_NS_MAX};
use crate::stats::SharedStats;

/// A thread's watchdog: its name, and when it was ticked last.
pub type Watchdog = (String, Arc<AtomicU64>);

/// What the admin listener needs to answer.
#[derive(Debug)]
pub struct Admin {
    /// The instruments.
    pub registry: Arc<Registry>,
    /// Counters.
    pub stats: SharedStats,
    /// The clock.
    pub clock: Clock,
    /// The threads that must go round.
    pub watchdogs: Vec<Watchdog>,
    /// The gateway goes away.
    pub is_draining: Arc<AtomicBool>,
}

impl Admin {
    /// Serves operators until the task is dropped.
    pub async fn run(self: Arc<Self>, listener: TcpListener) {
        let connections = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
        loop {
            let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            };
            let admin = Arc::clone(&self);
            tokio::spawn(async move {
                http::serve(stream, |request| {
                    let admin = Arc::clone(&admin);
                    async move { admin.answer(&request) }
                })
                .await;
                drop(permit);
            });
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Answer {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/livez") => self.livez(),
            (&Method::GET, "/readyz") => self.readyz(),
            (&Method::GET, "/metrics") => http::text(StatusCode::OK, self.stats.text()),
            _ => http::error(
                StatusCode::NOT_FOUND,
                ErrorCode::BadRequest,
                "paths are /livez, /readyz, /metrics",
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

    /// Every book has had its image, and nobody is being sent away.
    fn readyz(&self) -> Answer {
        if self.is_draining.load(Ordering::Relaxed) {
            return http::text(StatusCode::SERVICE_UNAVAILABLE, "draining\n");
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
