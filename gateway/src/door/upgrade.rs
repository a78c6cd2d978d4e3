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
    CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tickfan_core::wire::Encoder;
use tickfan_core::wire::json::Json;
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

/// A key is 16 bytes in base64.
const KEY_CHARS: usize = 24;

/// Upgrades the request, or says why not.
pub(super) fn answer(door: &Arc<Door>, mut request: Request<Incoming>) -> Answer {
    let subprotocol = match check(&request) {
        Ok(subprotocol) => subprotocol,
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
    if let Some(subprotocol) = subprotocol {
        answer.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
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

/// Holds the request against RFC 6455 §4.2.1; gives the subprotocol to be echoed, if any.
fn check(request: &Request<Incoming>) -> Result<Option<&'static str>, Box<Answer>> {
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
    if !headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
        return Ok(None);
    }
    let ours = Json.subprotocol();
    if headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|offered| offered.trim() == ours)
    {
        return Ok(Some(ours));
    }
    refuse("no subprotocol on offer is known; known is tickfan.json.v1")
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
