//! The REST side of the protocol (§7): instruments, a book, the newest trades.
//!
//! Each answer is made from one snapshot, on the door's thread. Errors carry the protocol's codes.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use tickfan_core::market::{Channel, Trade};
use tickfan_core::snapshot::{Entry, Registry};
use tickfan_core::view::Depth;
use tickfan_core::wire::json::Json;
use tickfan_core::wire::message::ErrorCode;
use tickfan_core::wire::{Encoder, Head, Payload, Update};

use crate::fanout::lane;
use crate::fanout::request::{instrument_info, matching, unknown_symbol};
use crate::http::{self, Answer};
use crate::limits::HTTP_TRADES_MAX;

/// The default depth of a book.
const DEPTH_DEFAULT: u64 = 20;

/// The default number of trades.
const TRADES_DEFAULT: usize = 100;

/// `GET /v1/instruments?match=*`
pub(super) fn instruments(registry: &Registry, request: &Request<Incoming>) -> Answer {
    let pattern = parameter(request, "match").unwrap_or_else(|| "*".to_owned());
    let found: Vec<_> =
        matching(&registry.table(), &pattern).iter().map(|entry| instrument_info(entry)).collect();
    http::json(StatusCode::OK, serde_json::json!({ "instruments": found }).to_string())
}

/// `GET /v1/book?symbol=…&depth=20`
pub(super) fn book(registry: &Registry, request: &Request<Incoming>) -> Answer {
    let depth = match parameter(request, "depth").as_deref() {
        None => Depth::at_least(DEPTH_DEFAULT),
        Some("full") => Depth::Full,
        Some(text) => match text.parse() {
            Ok(levels @ 1..) => Depth::at_least(levels),
            _ => {
                let message = "depth must be a positive integer or full";
                return http::error(StatusCode::BAD_REQUEST, ErrorCode::BadDepth, message);
            }
        },
    };
    let entry = match entry(registry, request) {
        Ok(entry) => entry,
        Err(refusal) => return *refusal,
    };
    let snapshot = entry.load();
    let status = snapshot.book.status;
    if !status.state.has_whole() {
        let message = format!("the book is {}: {}", status.state.name(), status.why.name());
        return http::error(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Internal, &message);
    }
    let (mut bids, mut asks) = (Vec::new(), Vec::new());
    let head = lane::head(&snapshot, Channel::Book, None, 0, 0);
    let payload = lane::image(&snapshot, depth.limit(), &mut bids, &mut asks);
    encoded(&Update { head, payload })
}

/// `GET /v1/trades?symbol=…&limit=100`
pub(super) fn trades(registry: &Registry, request: &Request<Incoming>) -> Answer {
    let limit = match parameter(request, "limit").map(|text| text.parse::<usize>()) {
        None => TRADES_DEFAULT,
        Some(Ok(limit)) => limit.min(HTTP_TRADES_MAX),
        Some(Err(_)) => {
            let message = "limit must be a whole number";
            return http::error(StatusCode::BAD_REQUEST, ErrorCode::BadRequest, message);
        }
    };
    let entry = match entry(registry, request) {
        Ok(entry) => entry,
        Err(refusal) => return *refusal,
    };
    let snapshot = entry.load();
    let tail = &snapshot.trades.tail;
    let before = tail.newest() - (limit as u64).min(tail.newest() - tail.floor());
    let newest: Vec<Trade> = tail.after(before).cloned().collect();
    let lost = tail.newest() - before - newest.len() as u64;
    let head = Head { p: before, ..lane::head(&snapshot, Channel::Trades, None, before, 0) };
    encoded(&Update { head, payload: Payload::Trades { trades: &newest, lost } })
}

fn encoded(update: &Update<'_>) -> Answer {
    let mut body = Vec::new();
    Json.update(update, &mut body);
    http::json(StatusCode::OK, body)
}

fn entry(registry: &Registry, request: &Request<Incoming>) -> Result<Arc<Entry>, Box<Answer>> {
    let Some(symbol) = parameter(request, "symbol") else {
        let message = "symbol is missing, as in ?symbol=sim:BTCUSDT";
        let refusal = http::error(StatusCode::BAD_REQUEST, ErrorCode::BadRequest, message);
        return Err(Box::new(refusal));
    };
    let table = registry.table();
    table.find(&symbol).cloned().ok_or_else(|| {
        let message = unknown_symbol(&table, &symbol, true);
        Box::new(http::error(StatusCode::NOT_FOUND, ErrorCode::UnknownSymbol, &message))
    })
}

/// A parameter of the query, with its `%` escapes resolved.
fn parameter(request: &Request<Incoming>, name: &str) -> Option<String> {
    query_parameter(request.uri().query()?, name)
}

fn query_parameter(query: &str, name: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })?;
    let mut out = Vec::with_capacity(value.len());
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        out.push((digit()? * 16 + digit()?) as u8);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_come_escaped_or_plain() {
        for (query, expected) in [
            ("symbol=kraken:BTC/USD", Some("kraken:BTC/USD")),
            ("depth=5&symbol=kraken%3ABTC%2FUSD", Some("kraken:BTC/USD")),
            ("symbol", Some("")),
            ("symbols=x", None),
            ("symbol=%", None),
            ("symbol=%ff", None),
        ] {
            assert_eq!(query_parameter(query, "symbol").as_deref(), expected, "{query}");
        }
    }
}
