//! Connections to a venue's stream, made one after the other: an address → an open [`Line`].
//!
//! Runs on the feed thread. All sessions that lead to one host share its [`Spacing`], so that they
//! come back one by one when the venue has cut all of them, within the rate that it allows, and none of
//! them before the time that the venue named to one that it refused.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::header::{CONNECTION, HOST, UPGRADE};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tickfan_core::market::Nanos;

use super::SessionError;
use super::line::{Line, Turns};
use crate::clock::Clock;
use crate::feed::rest::retry_after_ns;
use crate::feed::tls::{Address, Connector};
use crate::limits::{BAN_MAX_NS, CONNECT_TIMEOUT_NS};

/// When the next connection to a host may be begun.
#[derive(Debug)]
pub struct Spacing {
    spacing_ns: Nanos,
    queue: Mutex<Queue>,
}

/// Who may go when.
#[derive(Debug)]
struct Queue {
    /// The next turn, when it has come.
    next_ns: Nanos,
    /// No turn counts before that.
    held_until_ns: Nanos,
}

impl Spacing {
    /// Connections that begin at least so far apart.
    pub const fn new(spacing_ns: Nanos) -> Self {
        Self { spacing_ns, queue: Mutex::new(Queue { next_ns: 0, held_until_ns: 0 }) }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No turn is before that; those that were taken for sooner are lost.
    pub fn hold(&self, until_ns: Nanos) {
        let mut queue = self.queue();
        queue.held_until_ns = until_ns.max(queue.held_until_ns);
        queue.next_ns = until_ns.max(queue.next_ns);
    }

    /// Whoever has a turn now has lost it.
    pub fn is_held(&self, now: Nanos) -> bool {
        now < self.queue().held_until_ns
    }

    /// Takes the next turn; returns when it is.
    pub fn take(&self, now: Nanos) -> Nanos {
        let mut queue = self.queue();
        let turn_ns = now.max(queue.next_ns);
        queue.next_ns = turn_ns + self.spacing_ns;
        turn_ns
    }
}

/// Opens connections to one venue.
#[derive(Debug, Clone)]
pub struct Dialer {
    /// Makes connections.
    pub connector: Connector,
    /// Where the venue's stream is.
    pub address: Address,
    /// The turns of all who connect there.
    pub spacing: Arc<Spacing>,
    /// Least time between two texts on one connection.
    pub turns: Turns,
    /// The clock.
    pub clock: Clock,
}

impl Dialer {
    /// Waits for its turn and connects.
    ///
    /// # Errors
    /// When the connection cannot be made, or not in time.
    pub async fn dial(self, path: String) -> Result<Line, SessionError> {
        loop {
            let now = self.clock.now();
            let wait_ns = self.spacing.take(now) - now;
            tokio::time::sleep(Duration::from_nanos(wait_ns)).await;
            // Another may have been refused meanwhile.
            if !self.spacing.is_held(self.clock.now()) {
                break;
            }
        }
        let limit = Duration::from_nanos(CONNECT_TIMEOUT_NS);
        let opened = tokio::time::timeout(limit, self.open(&path)).await;
        let opened = opened.map_err(|_| SessionError::ConnectTimeout)?;
        if let Err(SessionError::Refused { retry_after_ns: Some(pause_ns), .. }) = &opened {
            self.spacing.hold(self.clock.now().saturating_add(*pause_ns.min(&BAN_MAX_NS)));
        }
        opened
    }

    async fn open(&self, path: &str) -> Result<Line, SessionError> {
        let stream = self.connector.connect(&self.address).await?;
        let request = Request::get(path)
            .header(HOST, self.address.authority())
            .header(UPGRADE, "websocket")
            .header(CONNECTION, "Upgrade")
            .header("Sec-WebSocket-Key", fastwebsockets::handshake::generate_key())
            .header("Sec-WebSocket-Version", "13")
            .body(Empty::<Bytes>::new())?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the upgrade; an error before that is the request's, too.
        tokio::spawn(connection.with_upgrades());
        let mut response = sender.send_request(request).await?;
        let upgrade = response.headers().get(UPGRADE).and_then(|name| name.to_str().ok());
        let is_websocket = upgrade.is_some_and(|name| name.eq_ignore_ascii_case("websocket"));
        let status = response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS || !is_websocket {
            let retry_after_ns = retry_after_ns(response.headers());
            return Err(SessionError::Refused { status, retry_after_ns });
        }
        let upgraded = hyper::upgrade::on(&mut response).await?;
        Ok(Line::new(TokioIo::new(upgraded), self.turns, self.clock.now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::SECOND_NS;

    #[test]
    fn those_who_come_together_go_one_by_one() {
        let spacing = Spacing::new(2 * SECOND_NS);
        let turns: Vec<Nanos> = (0..4).map(|_| spacing.take(100)).collect();
        let expected = [0, 2, 4, 6].map(|seconds| 100 + seconds * SECOND_NS);
        assert_eq!(turns, expected);
        assert_eq!(spacing.take(7 * SECOND_NS), 100 + 8 * SECOND_NS);
        assert_eq!(spacing.take(60 * SECOND_NS), 60 * SECOND_NS, "who comes late need not wait");
        spacing.hold(70 * SECOND_NS);
        spacing.hold(65 * SECOND_NS);
        let turns = [61, 61].map(|seconds| spacing.take(seconds * SECOND_NS));
        assert_eq!(turns, [70 * SECOND_NS, 72 * SECOND_NS], "nobody before the venue wants it");
        let held = [69, 70].map(|seconds| spacing.is_held(seconds * SECOND_NS));
        assert_eq!(held, [true, false], "not even who has a turn");
    }
}
