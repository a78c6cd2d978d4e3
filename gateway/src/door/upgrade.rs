//! From an HTTP request to a raw socket on a shard.
//!
//! Checks what RFC 6455 §4.2.1 asks of a request, chooses the subprotocol, and takes the bare TCP
//! stream back out of the HTTP server, with whatever bytes came behind the request.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{
    CONNECTION, HOST, HeaderMap, HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tickfan_core::wire::Encoding;
use tickfan_core::wire::message::ErrorCode;
use tickfan_core::ws;

use super::Door;
use crate::http::{self, Answer, StrictStream};

/// The only version of the WebSocket protocol.
const VERSION: &str = "13";

/// The close code of the protocol for a gateway that has too much to do; its reason names the
/// milliseconds after which to try again.
const OVERLOADED: u16 = 4102;

const RETRY_AFTER_MS: u32 = 1_000;

/// What the shards can send.
const SERVED: [Encoding; 1] = [Encoding::Json];

/// A key is 16 bytes in base64.
const KEY_CHARS: usize = 24;

/// Upgrades the request, or says why not.
pub(super) fn answer(door: &Arc<Door>, mut request: Request<Incoming>) -> Answer {
    let chosen = match check(&request) {
        Ok(chosen) => chosen,
        Err(refusal) => return *refusal,
    };
    if door.least_loaded().is_none() {
        let message = "too many connections, or going away; try again later";
        return http::error(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::RateLimited, message);
    }
    let (upgraded, future) = match fastwebsockets::upgrade::upgrade(&mut request) {
        Ok(upgraded) => upgraded,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let door = Arc::clone(door);
    tokio::spawn(async move {
        match future.await {
            Ok(socket) => hand_over(&door, socket.into_inner().into_inner()),
            Err(error) => tracing::debug!(%error, "a client left during its upgrade"),
        }
    });
    let (parts, _) = upgraded.into_parts();
    let mut answer = Response::from_parts(parts, Full::<Bytes>::default());
    if let Some(encoding) = chosen {
        let subprotocol = HeaderValue::from_static(encoding.subprotocol());
        answer.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    answer
}

/// Takes the socket out of the HTTP server and gives it to a shard.
fn hand_over(door: &Door, upgraded: hyper::upgrade::Upgraded) {
    let Ok(parts) = upgraded.downcast::<TokioIo<StrictStream>>() else {
        tracing::error!("the upgraded stream is not the one that was accepted");
        return;
    };
    let stream = match parts.io.into_inner().into_inner().into_std() {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, "a client left during its upgrade");
            return;
        }
    };
    // Frames may have come with the handshake.
    let early = parts.read_buf.to_vec();
    let refused = match door.least_loaded() {
        Some(shard) => shard.accept(stream, early).err().map(|overloaded| overloaded.0),
        None => Some(stream),
    };
    if let Some(mut stream) = refused {
        door.stats.close("overloaded").inc();
        let mut frame = Vec::new();
        ws::write_close(OVERLOADED, &format!("overloaded: {RETRY_AFTER_MS}"), &mut frame);
        // Best effort: a new connection has room for it.
        let _ = stream.write(&frame);
    }
}

/// Holds the request against RFC 6455 §4.2.1; gives the encoding whose subprotocol is to be echoed,
/// if any.
fn check(request: &Request<Incoming>) -> Result<Option<Encoding>, Box<Answer>> {
    let headers = request.headers();
    let refuse = |message: &str| Err(Box::new(refuse(StatusCode::BAD_REQUEST, message)));
    if request.version() != Version::HTTP_11 {
        return refuse("a WebSocket begins with HTTP/1.1");
    }
    if !headers.contains_key(HOST) {
        return refuse("the Host header is missing");
    }
    if headers.contains_key(TRANSFER_ENCODING) || !request.body().is_end_stream() {
        return refuse("a WebSocket request has no body");
    }
    if !has_token(headers, CONNECTION.as_str(), "upgrade")
        || !has_token(headers, UPGRADE.as_str(), "websocket")
    {
        return refuse("expected the headers Connection: Upgrade and Upgrade: websocket");
    }
    match headers.get(SEC_WEBSOCKET_VERSION) {
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
            && bytes.ends_with(b"==")
            && bytes[..KEY_CHARS - 2]
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
    };
    if !headers.get(SEC_WEBSOCKET_KEY).is_some_and(is_key) {
        return refuse("Sec-WebSocket-Key is not 16 bytes in base64");
    }
    negotiate(headers, &SERVED).or_else(|message| refuse(&message))
}

/// The encoding that the client wants most of those that are served; `None` if it does not ask.
/// Otherwise the words that tell it what it could have asked for.
fn negotiate(headers: &HeaderMap, served: &[Encoding]) -> Result<Option<Encoding>, String> {
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
        .filter_map(|offered| Encoding::from_subprotocol(offered.trim()))
        .find(|encoding| served.contains(encoding));
    match wanted {
        Some(encoding) => Ok(Some(encoding)),
        None => {
            let names: Vec<_> = served.iter().map(|encoding| encoding.subprotocol()).collect();
            Err(format!("no subprotocol on offer is known; known is {}", names.join(", ")))
        }
    }
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
        negotiate(&headers, &Encoding::ALL)
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
        let mut headers = HeaderMap::new();
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("tickfan.bin.v1"));
        let words = "no subprotocol on offer is known; known is tickfan.json.v1";
        assert_eq!(negotiate(&headers, &[Encoding::Json]), Err(words.to_owned()));
    }
}
