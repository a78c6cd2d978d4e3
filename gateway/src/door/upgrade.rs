//! From an HTTP request to a raw socket on a shard.
//!
//! Checks what RFC 6455 §4.2.1 asks of a request, chooses the subprotocol, and takes the bare TCP
//! stream back out of the HTTP server, with whatever bytes came behind the request.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, RETRY_AFTER, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tickfan_core::wire::Encoding;
use tickfan_core::wire::message::ErrorCode;
use tickfan_core::ws;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Door, Visit};
use crate::http::{self, Answer, StrictStream};
use crate::limits::{CLOSE_LINGER_NS, REFUSED_RETRY_MS};
use crate::places::{NoPlace, Place};

/// The only version of the WebSocket protocol.
const VERSION: &str = "13";

/// Why a client that was upgraded is not served: the same word in the reason of its close frame and in
/// the metric.
#[derive(Debug, Clone, Copy)]
enum Turned {
    /// There are as many connections as there may be.
    GatewayFull,
    /// Its address has as many as it may.
    AddressFull,
    /// The shards have too much to do.
    Overloaded,
}

impl Turned {
    const fn close_code(self) -> u16 {
        match self {
            Self::GatewayFull | Self::AddressFull => 4101,
            Self::Overloaded => 4102,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::GatewayFull => "gateway_full",
            Self::AddressFull => "address_full",
            Self::Overloaded => "overloaded",
        }
    }
}

/// A key is 16 bytes in base64.
const KEY_CHARS: usize = 24;

/// Upgrades the request, or says why not.
pub(super) fn answer(
    door: &Arc<Door>,
    mut request: Request<Incoming>,
    visit: Arc<Visit>,
) -> Answer {
    let chosen = match check(&request) {
        Ok(chosen) => chosen,
        Err(refusal) => return *refusal,
    };
    if !may_come_from(door.rules.origins.as_deref(), request.headers()) {
        door.stats.origins_refused.inc();
        let message = "this Origin may not connect; the operator names those that may";
        return http::error(StatusCode::FORBIDDEN, ErrorCode::Forbidden, message);
    }
    if door.is_draining.load(Ordering::Relaxed) {
        let message = "the gateway goes away; try again later";
        let mut answer =
            http::error(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::RateLimited, message);
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        return answer;
    }
    // A page cannot see the status of a refused upgrade, so who is one too many is told by a close.
    let place = door.places.take(visit.address).map_err(|full| match full {
        NoPlace::InAll => Turned::GatewayFull,
        NoPlace::OfAddress => Turned::AddressFull,
    });
    let (upgraded, future) = match fastwebsockets::upgrade::upgrade(&mut request) {
        Ok(upgraded) => upgraded,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let door = Arc::clone(door);
    tokio::spawn(async move {
        match future.await {
            Ok(socket) => {
                let encoding = chosen.unwrap_or(Encoding::Json);
                let turned = hand_over(&door, socket.into_inner().into_inner(), encoding, place);
                if let Some((stream, why)) = turned {
                    turn_away(&door, stream, why).await;
                }
            }
            Err(error) => tracing::debug!(%error, "a client left during its upgrade"),
        }
        // It was at the door until now.
        drop(visit);
    });
    let (parts, _) = upgraded.into_parts();
    let mut answer = Response::from_parts(parts, Full::<Bytes>::default());
    if let Some(encoding) = chosen {
        let subprotocol = HeaderValue::from_static(encoding.subprotocol());
        answer.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    answer
}

/// Takes the socket out of the HTTP server and gives it to a shard; gives back who cannot be served.
fn hand_over(
    door: &Door,
    upgraded: hyper::upgrade::Upgraded,
    encoding: Encoding,
    place: Result<Place, Turned>,
) -> Option<(TcpStream, Turned)> {
    let Ok(parts) = upgraded.downcast::<TokioIo<StrictStream<TcpStream>>>() else {
        tracing::error!("the upgraded stream is not the one that was accepted");
        return None;
    };
    let stream = parts.io.into_inner().into_inner();
    let place = match place {
        // The shards have said goodbye to everybody, and would not to this one.
        Ok(_) if door.is_draining.load(Ordering::Relaxed) => {
            return Some((stream, Turned::Overloaded));
        }
        Ok(place) => place,
        Err(turned) => return Some((stream, turned)),
    };
    let stream = match stream.into_std() {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, "a client left during its upgrade");
            return None;
        }
    };
    // Frames may have come with the handshake.
    let early = parts.read_buf.to_vec();
    let refused = match door.least_loaded() {
        Some(shard) => {
            shard.accept(stream, encoding, early, place).err().map(|overloaded| overloaded.0)
        }
        None => Some(stream),
    };
    Some((TcpStream::from_std(refused?).ok()?, Turned::Overloaded))
}

/// Says goodbye with a close frame that names when to come back, and waits a moment for the peer to
/// end the connection: the kernel would take the frame back for what comes after we have gone.
async fn turn_away(door: &Door, mut stream: TcpStream, why: Turned) {
    door.stats.close(why.name()).inc();
    // Spread by the microsecond of the day; it need not be random.
    let spread_ms = door.clock.now() / 1_000 % (REFUSED_RETRY_MS - 1_000);
    let mut frame = Vec::new();
    ws::write_close(
        why.close_code(),
        &format!("{}: {}", why.name(), 1_000 + spread_ms),
        &mut frame,
    );
    let mut rest = [0; 1 << 10];
    let goodbye = async {
        stream.write_all(&frame).await?;
        stream.shutdown().await?;
        while stream.read(&mut rest).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    // Best effort: who is gone already needs no goodbye.
    let _ = tokio::time::timeout(Duration::from_nanos(CLOSE_LINGER_NS), goodbye).await;
}

/// Whether the page that the request comes from may connect: one that the operator names, or our own,
/// which was loaded from where the request goes to. Programs name no page.
fn may_come_from(allowed: Option<&[String]>, headers: &HeaderMap) -> bool {
    let Some(allowed) = allowed else { return true };
    let host = only(headers, &HOST).map(HeaderValue::as_bytes);
    headers.get_all(ORIGIN).iter().all(|origin| {
        // A proxy may speak TLS in our place, so that its scheme is not ours.
        let mut authorities = [&b"https://"[..], b"http://"]
            .into_iter()
            .filter_map(|scheme| origin.as_bytes().strip_prefix(scheme));
        authorities.any(|authority| host.is_some_and(|host| authority.eq_ignore_ascii_case(host)))
            || allowed.iter().any(|allowed| origin.as_bytes() == allowed.as_bytes())
    })
}

/// Holds the request against RFC 6455 §4.2.1; gives the encoding whose subprotocol is to be echoed,
/// if any.
fn check(request: &Request<Incoming>) -> Result<Option<Encoding>, Box<Answer>> {
    let headers = request.headers();
    let refuse = |message: &str| Err(Box::new(refuse(StatusCode::BAD_REQUEST, message)));
    if request.version() != Version::HTTP_11 {
        return refuse("a WebSocket begins with HTTP/1.1");
    }
    // A proxy before us and we must not see two different ones.
    if only(headers, &HOST).is_none() {
        return refuse("expected one Host header");
    }
    if headers.contains_key(TRANSFER_ENCODING) || !request.body().is_end_stream() {
        return refuse("a WebSocket request has no body");
    }
    if !has_token(headers, CONNECTION.as_str(), "upgrade")
        || !has_token(headers, UPGRADE.as_str(), "websocket")
    {
        return refuse("expected the headers Connection: Upgrade and Upgrade: websocket");
    }
    match only(headers, &SEC_WEBSOCKET_VERSION) {
        Some(version) if version == VERSION => {}
        _ => {
            let message = "expected Sec-WebSocket-Version: 13";
            let mut answer = self::refuse(StatusCode::UPGRADE_REQUIRED, message);
            answer.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION));
            return Err(Box::new(answer));
        }
    }
    let is_key = |key: &HeaderValue| {
        let bytes = key.as_bytes();
        bytes.len() == KEY_CHARS
            // Of the last digit two bits count, and the other four are zero.
            && [b"A==", b"Q==", b"g==", b"w=="].iter().any(|end| bytes.ends_with(*end))
            && bytes[..KEY_CHARS - 2]
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
    };
    if !only(headers, &SEC_WEBSOCKET_KEY).is_some_and(is_key) {
        return refuse("Sec-WebSocket-Key is not 16 bytes in base64");
    }
    // The last, so that HEAD is told what GET would be.
    if request.method() != Method::GET {
        return refuse("a WebSocket begins with GET");
    }
    negotiate(headers).or_else(|message| refuse(&message))
}

/// The encoding that the client wants most; `None` if it does not ask. Otherwise the words that tell
/// it what it could have asked for.
fn negotiate(headers: &HeaderMap) -> Result<Option<Encoding>, String> {
    if !headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
        return Ok(None);
    }
    // §4.1: in the order of the client's preference, over one header or several. Names are compared
    // as they are written.
    let wanted = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|offered| Encoding::from_subprotocol(offered.trim()));
    match wanted {
        Some(encoding) => Ok(Some(encoding)),
        None => {
            let names = Encoding::ALL.map(Encoding::subprotocol);
            Err(format!("no subprotocol on offer is known; known is {}", names.join(", ")))
        }
    }
}

/// The value of a header that may come once only (§11.3).
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

fn has_token(headers: &HeaderMap, name: &str, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

fn refuse(status: StatusCode, message: &str) -> Answer {
    http::error(status, ErrorCode::BadRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of these headers, one value each.
    fn negotiated(offers: &[&'static str]) -> Result<Option<Encoding>, String> {
        let mut headers = HeaderMap::new();
        for offer in offers {
            headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(offer));
        }
        negotiate(&headers)
    }

    #[test]
    fn a_page_of_our_own_is_known_by_the_host_that_it_is_asked_of() {
        for (host, origin, may) in [
            ("127.0.0.1:8080", "http://127.0.0.1:8080", true),
            ("[::1]:8080", "http://[::1]:8080", true),
            ("prices.example", "https://prices.example", true),
            ("Prices.Example", "https://prices.example", true),
            ("127.0.0.1:8080", "http://127.0.0.1:3000", false),
            ("127.0.0.1:8080", "http://127.0.0.1", false),
            ("127.0.0.1:8080", "http://localhost:8080", false),
            ("prices.example", "https://evil.example", false),
            ("prices.example", "https://prices.example.evil.example", false),
            ("prices.example", "null", false),
            ("null", "null", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.append(HOST, HeaderValue::from_static(host));
            headers.append(ORIGIN, HeaderValue::from_static(origin));
            assert_eq!(may_come_from(Some(&[]), &headers), may, "{origin} at {host}");
        }
    }

    #[test]
    fn the_first_offered_that_is_known_wins() {
        let (json, binary) = (Ok(Some(Encoding::Json)), Ok(Some(Encoding::Binary)));
        for (offers, expected) in [
            (&[][..], Ok(None)),
            (&["tickfan.json.v1"], json.clone()),
            (&["tickfan.bin.v1"], binary.clone()),
            (&["tickfan.json.v1, tickfan.bin.v1"], json.clone()),
            (&["tickfan.bin.v1,tickfan.json.v1"], binary.clone()),
            (&["graphql-ws ,\ttickfan.bin.v1 , tickfan.json.v1"], binary.clone()),
            (&["graphql-ws", "tickfan.bin.v1", "tickfan.json.v1"], binary),
            (&["tickfan.bin.v2, tickfan.json.v1"], json.clone()),
            (&["", ",,", "tickfan.json.v1,"], json),
        ] {
            assert_eq!(negotiated(offers), expected, "{offers:?}");
        }
    }

    #[test]
    fn who_offers_only_what_is_unknown_is_told_what_is_known() {
        for offers in [
            &[""][..],
            &["graphql-ws"],
            &["tickfan.bin.v2"],
            &["TICKFAN.BIN.V1"],
            &["tickfan.bin.v1 tickfan.json.v1"],
            &["xtickfan.json.v1", "tickfan.json.v11"],
        ] {
            let words =
                "no subprotocol on offer is known; known is tickfan.json.v1, tickfan.bin.v1";
            assert_eq!(negotiated(offers), Err(words.to_owned()), "{offers:?}");
        }
    }
}
