//! What clients do → whether the venue puts up with it, and what it says when it does not.
//!
//! Used by whoever serves an exchange, when asked to: a client that is far below the limits of a venue
//! and one that is banned by it within a minute look the same otherwise. All clients here are one to
//! the venue, which counts by address. It is pure: times are arguments. The limit of streams on a
//! connection is kept by the sessions, always.

use std::collections::{BTreeMap, VecDeque};

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::venue::{Dialect, Rest, binance, query_value};

const SECOND_NS: u64 = 1_000_000_000;

/// So many within such a time.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    count: usize,
    within_ns: u64,
}

const fn within_seconds(count: usize, seconds: u64) -> Option<Allowance> {
    Some(Allowance { count, within_ns: seconds * SECOND_NS })
}

/// The limits that a venue documents; `None` where it documents none.
#[derive(Debug, Clone, Copy, Default)]
struct Limits {
    /// Attempts to connect.
    connects: Option<Allowance>,
    /// Weight of REST requests.
    weight: Option<Allowance>,
    /// Messages of one connection.
    messages: Option<Allowance>,
    /// Topics that one message may name.
    topics: Option<usize>,
    /// Length of one message.
    message_bytes: Option<usize>,
}

impl Limits {
    const fn of(dialect: Dialect) -> Self {
        const NONE: Limits = Limits {
            connects: None,
            weight: None,
            messages: None,
            topics: None,
            message_bytes: None,
        };
        match dialect {
            Dialect::BinanceSpot => Self {
                connects: within_seconds(300, 300),
                weight: within_seconds(6_000, 60),
                messages: within_seconds(5, 1),
                ..NONE
            },
            Dialect::BinanceUsdm | Dialect::BinanceCoinm => {
                Self { connects: within_seconds(300, 300), messages: within_seconds(10, 1), ..NONE }
            }
            Dialect::Coinbase => Self { messages: within_seconds(8, 1), ..NONE },
            Dialect::Kraken | Dialect::KrakenV1 => {
                Self { connects: within_seconds(150, 600), ..NONE }
            }
            Dialect::Okx => Self {
                connects: within_seconds(3, 1),
                messages: within_seconds(480, 3_600),
                message_bytes: Some(64 * 1024),
                ..NONE
            },
            Dialect::BybitSpot => Self {
                connects: within_seconds(500, 300),
                topics: Some(10),
                message_bytes: Some(21_000),
                ..NONE
            },
            Dialect::BybitLinear => {
                Self { connects: within_seconds(500, 300), message_bytes: Some(21_000), ..NONE }
            }
            Dialect::CoinbaseAdvanced | Dialect::Deribit | Dialect::Bitfinex => NONE,
        }
    }
}

/// The times of what was allowed lately; no more of them than are allowed.
#[derive(Debug, Default)]
struct Window(VecDeque<u64>);

impl Window {
    /// One more now, if that is allowed.
    fn take(&mut self, allowance: Option<Allowance>, now_ns: u64) -> bool {
        self.take_many(1, allowance, now_ns).is_ok()
    }

    /// So many more now; when they are not allowed, after how long one of them would be.
    fn take_many(
        &mut self,
        many: usize,
        allowance: Option<Allowance>,
        now_ns: u64,
    ) -> Result<(), u64> {
        let Some(Allowance { count, within_ns }) = allowance else { return Ok(()) };
        while self.0.front().is_some_and(|at_ns| at_ns.saturating_add(within_ns) <= now_ns) {
            self.0.pop_front();
        }
        if self.0.len() + many > count {
            let oldest_ns = self.0.front().copied().unwrap_or(now_ns);
            return Err(oldest_ns.saturating_add(within_ns).saturating_sub(now_ns));
        }
        self.0.extend(std::iter::repeat_n(now_ns, many));
        Ok(())
    }
}

/// What becomes of a client's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The venue hears it.
    Heard,
    /// The venue does not, and says this.
    Refused(String),
    /// The venue closes the connection for this reason, as a policy violation (1008).
    Closed(&'static str),
}

/// Keeps the limits of a venue.
#[derive(Debug)]
pub struct Limiter {
    dialect: Dialect,
    limits: Limits,
    connects: Window,
    weight: Window,
    messages: BTreeMap<u64, Window>,
}

impl Limiter {
    /// A venue that nobody has annoyed yet.
    pub fn new(dialect: Dialect) -> Self {
        let limits = Limits::of(dialect);
        let (connects, weight) = (Window::default(), Window::default());
        Self { dialect, limits, connects, weight, messages: BTreeMap::new() }
    }

    /// Somebody wants to connect.
    ///
    /// # Errors
    /// The HTTP status and the body of the refusal.
    pub fn connect(&mut self, now_ns: u64) -> Result<(), (u16, &'static str)> {
        if self.connects.take(self.limits.connects, now_ns) {
            return Ok(());
        }
        Err(refusal(self.dialect))
    }

    /// Somebody asks over REST.
    ///
    /// # Errors
    /// After how long it is worth asking again.
    pub fn request(&mut self, path: &str, query: &str, now_ns: u64) -> Result<(), u64> {
        let weight = match self.dialect.rest(path) {
            Some(Rest::Depth) => {
                let limit = query_value(query, "limit").and_then(|limit| limit.parse().ok());
                binance::depth_weight(binance::depth_limit(self.dialect, limit))
            }
            Some(Rest::Instruments) => binance::LIST_WEIGHT,
            None => 1,
        };
        self.weight.take_many(weight, self.limits.weight, now_ns)
    }

    /// A connection says something.
    pub fn message(&mut self, connection: u64, text: &str, now_ns: u64) -> Verdict {
        if self.limits.message_bytes.is_some_and(|most| text.len() > most) {
            return self.refuse("args length", "60012", "Request too long");
        }
        if self.limits.topics.is_some_and(|most| topics(text) > most) {
            return self.refuse("args size >10", "60012", "Too many channels");
        }
        if !self.counts(text) {
            return Verdict::Heard;
        }
        let window = self.messages.entry(connection).or_default();
        if window.take(self.limits.messages, now_ns) {
            return Verdict::Heard;
        }
        self.refuse("too many visits", "60014", "Requests too frequent")
    }

    /// The venue counts this message: some count requests, and no signs of life.
    fn counts(&self, text: &str) -> bool {
        self.dialect != Dialect::Okx
            || matches!(operation(text).as_str(), "subscribe" | "unsubscribe" | "login")
    }

    /// A connection is gone.
    pub fn forget(&mut self, connection: u64) {
        self.messages.remove(&connection);
    }

    /// The refusal of a message, in the venue's words.
    fn refuse(&self, bybit: &str, okx_code: &str, okx: &str) -> Verdict {
        Verdict::Refused(match self.dialect {
            Dialect::BinanceSpot | Dialect::BinanceUsdm | Dialect::BinanceCoinm => {
                return Verdict::Closed("Too many requests");
            }
            Dialect::Okx => {
                format!(r#"{{"event":"error","code":"{okx_code}","msg":"{okx}","connId":""}}"#)
            }
            Dialect::BybitSpot | Dialect::BybitLinear => format!(
                r#"{{"success":false,"ret_msg":"{bybit}","conn_id":"","req_id":"","op":"subscribe"}}"#
            ),
            _ => r#"{"type":"error","message":"rate limit exceeded"}"#.to_owned(),
        })
    }
}

/// The HTTP status and the body with which a venue refuses whoever asks too often.
pub(crate) const fn refusal(dialect: Dialect) -> (u16, &'static str) {
    match dialect {
        Dialect::BinanceSpot | Dialect::BinanceUsdm | Dialect::BinanceCoinm => {
            (429, r#"{"code":-1003,"msg":"Too many requests."}"#)
        }
        Dialect::BybitSpot | Dialect::BybitLinear => {
            (403, r#"{"retCode":10018,"retMsg":"access too frequent"}"#)
        }
        Dialect::Okx => (429, r#"{"code":"50011","msg":"Too Many Requests"}"#),
        _ => (429, r#"{"message":"Too Many Requests"}"#),
    }
}

/// The same for whoever went on asking.
pub(crate) const fn ban(dialect: Dialect) -> (u16, &'static str) {
    match dialect {
        Dialect::BinanceSpot | Dialect::BinanceUsdm | Dialect::BinanceCoinm => {
            (418, r#"{"code":-1003,"msg":"Way too many requests; IP banned."}"#)
        }
        _ => refusal(dialect),
    }
}

/// What a message asks for, where it has a word for that.
fn operation(text: &str) -> String {
    #[derive(Deserialize)]
    struct Call {
        op: String,
    }
    serde_json::from_str::<Call>(text).map_or_else(|_| String::new(), |call| call.op)
}

/// How many topics a message names, where it has a list of them.
fn topics(text: &str) -> usize {
    #[derive(Deserialize)]
    struct Call {
        #[serde(default)]
        args: Vec<IgnoredAny>,
    }
    serde_json::from_str::<Call>(text).map_or(0, |call| call.args.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_holds_one_past_it_and_ends_with_its_time() {
        for (dialect, count, within_s) in [
            (Dialect::BinanceSpot, 300, 300),
            (Dialect::Kraken, 150, 600),
            (Dialect::Okx, 3, 1),
            (Dialect::BybitLinear, 500, 300),
        ] {
            let mut limiter = Limiter::new(dialect);
            for _ in 0..count {
                assert_eq!(limiter.connect(0), Ok(()), "{dialect:?}");
            }
            let end_ns = within_s * SECOND_NS;
            assert!(limiter.connect(end_ns - 1).is_err(), "{dialect:?}");
            assert_eq!(limiter.connect(end_ns), Ok(()), "{dialect:?}");
        }
    }

    #[test]
    fn who_speaks_too_fast_is_refused_in_the_venue_s_words_and_nobody_else() {
        let refused = |text: &str| Verdict::Refused(text.to_owned());
        for (dialect, count, verdict) in [
            (Dialect::BinanceSpot, 5, Verdict::Closed("Too many requests")),
            (Dialect::BinanceUsdm, 10, Verdict::Closed("Too many requests")),
            (Dialect::Coinbase, 8, refused(r#"{"type":"error","message":"rate limit exceeded"}"#)),
            (
                Dialect::Okx,
                480,
                refused(
                    r#"{"event":"error","code":"60014","msg":"Requests too frequent","connId":""}"#,
                ),
            ),
        ] {
            let mut limiter = Limiter::new(dialect);
            let text = r#"{"op":"subscribe"}"#;
            for _ in 0..count {
                assert_eq!(limiter.message(1, text, 0), Verdict::Heard, "{dialect:?}");
            }
            assert_eq!(limiter.message(1, text, 1), verdict);
            assert_eq!(limiter.message(2, text, 1), Verdict::Heard, "{dialect:?}");
            limiter.forget(1);
            assert_eq!(limiter.message(1, text, 1), Verdict::Heard, "{dialect:?}");
        }
    }

    #[test]
    fn okx_counts_what_is_asked_for_and_no_sign_of_life() {
        let mut limiter = Limiter::new(Dialect::Okx);
        for _ in 0..1_000 {
            assert_eq!(limiter.message(1, "ping", 0), Verdict::Heard);
        }
        for place in 0..480 {
            let op = ["subscribe", "unsubscribe", "login"][place % 3];
            let text = format!(r#"{{"op":"{op}","args":[]}}"#);
            assert_eq!(limiter.message(1, &text, 0), Verdict::Heard, "{place}");
        }
        let one_more = limiter.message(1, r#"{"op":"unsubscribe","args":[]}"#, 0);
        assert!(matches!(one_more, Verdict::Refused(_)));
        assert_eq!(limiter.message(1, "ping", 0), Verdict::Heard);
    }

    #[test]
    fn requests_have_weights_and_a_deep_image_a_great_one() {
        let mut limiter = Limiter::new(Dialect::BinanceSpot);
        let deep = "symbol=BTCUSDT&limit=5000";
        for _ in 0..24 {
            assert_eq!(limiter.request("/api/v3/depth", deep, 0), Ok(()));
        }
        let minute_ns = 60 * SECOND_NS;
        assert_eq!(limiter.request("/api/v3/depth", "limit=5", 1), Err(minute_ns - 1));
        assert_eq!(limiter.request("/api/v3/depth", "limit=5", minute_ns), Ok(()));
        let mut okx = Limiter::new(Dialect::Okx);
        assert!((0..10_000).all(|_| okx.request("/api/v5/public/instruments", "", 0).is_ok()));
    }

    #[test]
    fn a_message_may_name_so_much_and_be_so_long() {
        let call = |topics: usize| {
            format!(r#"{{"op":"subscribe","args":[{}]}}"#, vec![r#""t""#; topics].join(","))
        };
        let mut spot = Limiter::new(Dialect::BybitSpot);
        assert_eq!(spot.message(1, &call(10), 0), Verdict::Heard);
        assert!(
            matches!(spot.message(1, &call(11), 0), Verdict::Refused(text) if text.contains("args size >10"))
        );
        let mut linear = Limiter::new(Dialect::BybitLinear);
        assert_eq!(linear.message(1, &call(11), 0), Verdict::Heard);
        assert!(matches!(linear.message(1, &" ".repeat(21_001), 0), Verdict::Refused(_)));
    }
}
