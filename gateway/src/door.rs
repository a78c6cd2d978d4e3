//! The door: where clients come in. HTTP requests are answered here, WebSockets are upgraded and
//! handed to the least loaded shard.
//!
//! Runs on the door's thread, with tokio. It reads snapshots and never waits for a shard.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use tickfan_core::snapshot::Registry;
use tickfan_core::wire::message::ErrorCode;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub mod assets;
pub mod control;
pub mod upgrade;

use crate::clock::Clock;
use crate::config::DoorRules;
use crate::fanout::ShardHandle;
use crate::http::{self, Answer};
use crate::limits::{HANDSHAKES_PER_ADDRESS, ROOM_WAIT_NS};
use crate::places::{Place, Places};
use crate::stats::{Raised, SharedStats};

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
    /// The places of connections.
    pub places: Arc<Places>,
    /// Who is let in.
    pub rules: DoorRules,
}

/// Somebody at the door. The handshake is under way until the last of these is dropped.
#[derive(Debug)]
struct Visit {
    address: IpAddr,
    _handshake: (OwnedSemaphorePermit, Place, Raised),
}

impl Door {
    /// Serves clients until the task is dropped.
    pub async fn run(self: Arc<Self>, listener: TcpListener) {
        let handshakes = Arc::new(Semaphore::new(self.rules.handshakes_max));
        let of_addresses = Places::new(
            self.rules.handshakes_max,
            self.rules.handshakes_per_address,
            HANDSHAKES_PER_ADDRESS,
        );
        loop {
            // While the shards have enough to do with those that are through, the rest waits where it
            // costs nothing.
            while !self.shards.iter().any(ShardHandle::has_room) {
                tokio::time::sleep(Duration::from_nanos(ROOM_WAIT_NS)).await;
            }
            // The permit first: while all are taken, clients wait in the kernel's queue.
            let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else { return };
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: others must end before one can begin.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(place) = of_addresses.take(peer.ip()) else {
                self.stats.handshakes_refused.inc();
                http::refuse_unread(stream, TOO_MANY_HANDSHAKES);
                continue;
            };
            let visit = Arc::new(Visit {
                address: peer.ip(),
                _handshake: (permit, place, self.stats.handshake()),
            });
            let door = Arc::clone(&self);
            tokio::spawn(async move {
                http::serve(stream, |request| {
                    let (door, visit) = (Arc::clone(&door), Arc::clone(&visit));
                    async move { door.answer(request, visit) }
                })
                .await;
            });
        }
    }

    fn answer(self: &Arc<Self>, request: Request<Incoming>, visit: Arc<Visit>) -> Answer {
        let answer = match (http::asked(request.method()), request.uri().path()) {
            (&Method::GET, path) if assets::is_served(path) => {
                assets::answer(path, request.headers())
            }
            (&Method::GET, "/v1/stream") => upgrade::answer(self, request, visit),
            (&Method::GET, "/v1/instruments") => control::instruments(&self.registry, &request),
            (&Method::GET, "/v1/book") => control::book(&self.registry, &request),
            (&Method::GET, "/v1/trades") => control::trades(&self.registry, &request),
            (_, path) if is_known(path) => http::only_get(),
            _ => http::error(
                StatusCode::NOT_FOUND,
                ErrorCode::BadRequest,
                "paths are / (the page), /client.js, /v1/stream (WebSocket), /v1/instruments, /v1/book, /v1/trades",
            ),
        };
        if answer.status().is_client_error() || answer.status().is_server_error() {
            self.stats.door_refused.inc();
        }
        answer
    }

    /// The shard with the fewest connections.
    fn least_loaded(&self) -> Option<&ShardHandle> {
        self.shards.iter().min_by_key(|shard| shard.load())
    }
}

fn is_known(path: &str) -> bool {
    matches!(path, "/v1/stream" | "/v1/instruments" | "/v1/book" | "/v1/trades")
        || assets::is_served(path)
}

const TOO_MANY_HANDSHAKES: &str =
    "too many requests of this address are under way; finish some, then try again";

#[cfg(test)]
#[path = "../tests/common/handshakes.rs"]
mod handshakes;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{
        CONNECTIONS_MAX, HANDSHAKES_MAX, INSTRUMENTS_MAX, REQUEST_HEAD_BYTES_MAX,
        REQUEST_HEADERS_MAX,
    };
    use crate::stats::Stats;
    use std::net::Ipv4Addr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    fn door() -> Arc<Door> {
        let (stats, clock) = (SharedStats::new(Stats::default()), Clock::start());
        let registry = Arc::new(Registry::new(INSTRUMENTS_MAX));
        Arc::new(Door {
            registry,
            shards: Arc::new([]),
            stats,
            clock,
            is_draining: Arc::default(),
            places: Places::new(CONNECTIONS_MAX, None, CONNECTIONS_MAX),
            rules: DoorRules {
                origins: None,
                connections_max: CONNECTIONS_MAX,
                connections_per_address: None,
                handshakes_max: HANDSHAKES_MAX,
                handshakes_per_address: None,
            },
        })
    }

    fn visit(door: &Door) -> Arc<Visit> {
        let address = Ipv4Addr::LOCALHOST.into();
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let place = door.places.take(address).unwrap();
        Arc::new(Visit { address, _handshake: (permit, place, door.stats.handshake()) })
    }

    /// The head of what is answered to a request that comes in two pieces; the first is read before
    /// the second comes.
    async fn head_in_pieces(door: &Arc<Door>, front: &[u8], back: &[u8]) -> String {
        let (mut client, server): (DuplexStream, _) = tokio::io::duplex(1 << 20);
        let visit = visit(door);
        let serving = http::serve(server, |request| {
            let (door, visit) = (Arc::clone(door), Arc::clone(&visit));
            async move { door.answer(request, visit) }
        });
        let talking = async {
            for piece in [front, back] {
                // What comes after it was refused need not arrive.
                let _ = client.write_all(piece).await;
                // One thread: whoever can go on does so before we are asked again.
                tokio::task::yield_now().await;
            }
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).await.unwrap() > 0 {
                head.extend(byte);
            }
            String::from_utf8(head).unwrap()
        };
        tokio::pin!(serving, talking);
        tokio::select! {
            biased;
            () = &mut serving => talking.await,
            head = &mut talking => head,
        }
    }

    #[test]
    fn a_handshake_is_judged_alike_wherever_it_is_cut() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let door = door();
            let cases = handshakes::cases(REQUEST_HEADERS_MAX, REQUEST_HEAD_BYTES_MAX);
            for (name, request, statuses) in cases {
                // Every offset, and of the long ones, which are long by one header that repeats a
                // letter or by many alike, only some.
                let step = 1 + request.len() / 400;
                for cut in (0..=request.len()).step_by(step) {
                    let (front, back) = request.as_bytes().split_at(cut);
                    let head = head_in_pieces(&door, front, back).await;
                    let judged = handshakes::expect(name, &head, statuses);
                    assert_eq!(judged, Ok(()), "cut at {cut}");
                }
            }
        });
    }
}
