//! The control messages of the protocol, which are JSON in every encoding: what clients ask and what
//! the gateway answers.
//!
//! Requests are read leniently (unknown keys are ignored) and checked strictly: whatever is wrong is
//! told with a code and words, and nothing a client sends can panic.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::market::Channel;
use crate::view::{BUDGETS_MS, BudgetClass, DEPTHS, Depth};

/// The most trades that a subscription may begin with.
pub const LAST_TRADES_MAX: u64 = 1_000;

/// The longest `id` that is echoed.
pub const ID_CHARS_MAX: usize = 64;

/// The default depth of a book subscription.
const DEPTH_DEFAULT: u64 = 20;

/// The default latency budget.
const BUDGET_MS_DEFAULT: u64 = 100;

/// The error codes of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the protocol's and say it")]
pub enum ErrorCode {
    BadRequest,
    UnknownOp,
    UnknownChannel,
    UnknownSymbol,
    BadDepth,
    BadBudget,
    TooManySubscriptions,
    RateLimited,
    Unauthorized,
    Forbidden,
    NotSubscribed,
    Internal,
}

/// What is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The `id` of the request, when it could be read.
    pub id: Option<RequestId>,
    /// Which error.
    pub code: ErrorCode,
    /// What was expected and what came.
    pub message: String,
}

/// The `id` by which a client recognises the answer: any integer or a string.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RequestId {
    /// A number.
    Number(i64),
    /// A text of up to [`ID_CHARS_MAX`] characters.
    Text(String),
}

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Echoed in the answer.
    pub id: Option<RequestId>,
    /// What to do.
    pub op: Op,
}

/// What a client wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Begin views.
    Subscribe(Subscribe),
    /// End views by number.
    UnsubscribeViews(Vec<u32>),
    /// End every view of a channel of these symbols.
    UnsubscribeSymbols {
        /// Which channel.
        channel: Channel,
        /// Which symbols.
        symbols: Vec<String>,
    },
    /// Change the budget of views.
    Modify {
        /// Which views.
        views: Vec<u32>,
        /// To which class.
        budget: BudgetClass,
    },
    /// Send views whole.
    Image {
        /// Which views.
        views: Vec<u32>,
    },
    /// Send an empty frame when nothing else was sent for this long.
    Heartbeat {
        /// How long, in milliseconds.
        every_ms: u32,
    },
    /// Tell the connection's own figures again and again.
    Stats {
        /// How often, in milliseconds; 0 = not at all.
        every_ms: u32,
    },
    /// Answer.
    Ping,
    /// List instruments whose symbol matches.
    Instruments {
        /// A symbol, or a beginning of one and `*`.
        pattern: String,
    },
}

/// The particulars of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// Which channel.
    pub channel: Channel,
    /// Which symbols; `venue:*` means all of a venue.
    pub symbols: Vec<String>,
    /// How deep, for a book.
    pub depth: Depth,
    /// With how many of the newest trades to begin.
    pub last: u64,
    /// Under which budget.
    pub budget: BudgetClass,
}

/// A request as it stands in the text, before it is checked.
#[derive(Debug, Default, Serialize, Deserialize)]
struct RawRequest {
    #[serde(default)]
    op: Value,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    id: Value,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    channel: Value,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    symbols: Value,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    depth: Value,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    last: Value,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    budget_ms: Value,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    strict: Value,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    views: Value,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    every_ms: Value,
    #[serde(default, rename = "match", skip_serializing_if = "Value::is_null")]
    pattern: Value,
}

type Checked<T> = Result<T, (ErrorCode, String)>;

impl Request {
    /// Reads and checks a request.
    ///
    /// # Errors
    /// [`Refusal`] with the protocol's code, and words that name what was expected and what came.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let raw: RawRequest = serde_json::from_str(text).map_err(|error| Refusal {
            id: None,
            code: ErrorCode::BadRequest,
            message: format!("expected a JSON object with an \"op\": {error}"),
        })?;
        let (id, op) = match raw.id() {
            Ok(id) => (id, raw.op()),
            Err(wrong) => (None, Err(wrong)),
        };
        match op {
            Ok(op) => Ok(Self { id, op }),
            Err((code, message)) => Err(Refusal { id, code, message }),
        }
    }

    /// The text that a client sends.
    pub fn to_json(&self) -> String {
        let mut raw = RawRequest::default();
        if let Some(id) = &self.id {
            raw.id = match id {
                RequestId::Number(number) => Value::from(*number),
                RequestId::Text(text) => Value::from(text.as_str()),
            };
        }
        raw.op = Value::from(match &self.op {
            Op::Subscribe(subscribe) => {
                raw.channel = Value::from(subscribe.channel.name());
                raw.symbols = Value::from(subscribe.symbols.clone());
                raw.budget_ms = Value::from(subscribe.budget.ms());
                match subscribe.channel {
                    Channel::Book => raw.depth = depth_value(subscribe.depth),
                    Channel::Trades => raw.last = Value::from(subscribe.last),
                    Channel::Bbo => {}
                }
                "subscribe"
            }
            Op::UnsubscribeViews(views) => {
                raw.views = Value::from(views.clone());
                "unsubscribe"
            }
            Op::UnsubscribeSymbols { channel, symbols } => {
                raw.channel = Value::from(channel.name());
                raw.symbols = Value::from(symbols.clone());
                "unsubscribe"
            }
            Op::Modify { views, budget } => {
                raw.views = Value::from(views.clone());
                raw.budget_ms = Value::from(budget.ms());
                "modify"
            }
            Op::Image { views } => {
                raw.views = Value::from(views.clone());
                "image"
            }
            Op::Heartbeat { every_ms } => {
                raw.every_ms = Value::from(*every_ms);
                "heartbeat"
            }
            Op::Stats { every_ms } => {
                raw.every_ms = Value::from(*every_ms);
                "stats"
            }
            Op::Ping => "ping",
            Op::Instruments { pattern } => {
                raw.pattern = Value::from(pattern.as_str());
                "instruments"
            }
        });
        serde_json::json!(raw).to_string()
    }
}

impl RawRequest {
    fn id(&self) -> Checked<Option<RequestId>> {
        match &self.id {
            Value::Null => Ok(None),
            Value::String(text) if text.chars().count() <= ID_CHARS_MAX => {
                Ok(Some(RequestId::Text(text.clone())))
            }
            other => match other.as_i64() {
                Some(number) => Ok(Some(RequestId::Number(number))),
                None => bad(format!(
                    "id must be an integer or a string of up to {ID_CHARS_MAX} characters"
                )),
            },
        }
    }

    fn op(&self) -> Checked<Op> {
        let Value::String(op) = &self.op else {
            return bad("op is missing; expected \"op\":\"subscribe\" or the like".to_owned());
        };
        match op.as_str() {
            "subscribe" => self.subscribe().map(Op::Subscribe),
            "unsubscribe" if self.views.is_null() => Ok(Op::UnsubscribeSymbols {
                channel: self.channel()?,
                symbols: texts("symbols", &self.symbols)?,
            }),
            "unsubscribe" => self.views().map(Op::UnsubscribeViews),
            "modify" => Ok(Op::Modify { views: self.views()?, budget: self.budget()? }),
            "image" => Ok(Op::Image { views: self.views()? }),
            "heartbeat" => {
                let every_ms = whole("every_ms", &self.every_ms, 10_000)?;
                if !(250..=60_000).contains(&every_ms) {
                    return bad(format!("every_ms is {every_ms}; expected 250 to 60000"));
                }
                Ok(Op::Heartbeat { every_ms: every_ms as u32 })
            }
            "stats" => {
                let every_ms = whole("every_ms", &self.every_ms, 0)?;
                if every_ms != 0 && !(100..=60_000).contains(&every_ms) {
                    return bad(format!("every_ms is {every_ms}; expected 0, or 100 to 60000"));
                }
                Ok(Op::Stats { every_ms: every_ms as u32 })
            }
            "ping" => Ok(Op::Ping),
            "instruments" => match &self.pattern {
                Value::Null => Ok(Op::Instruments { pattern: "*".to_owned() }),
                Value::String(pattern) => Ok(Op::Instruments { pattern: pattern.clone() }),
                _ => bad("match must be a string".to_owned()),
            },
            unknown => Err((
                ErrorCode::UnknownOp,
                format!(
                    "unknown op {}; ops are subscribe, unsubscribe, modify, image, stats, \
                     heartbeat, ping, instruments",
                    quoted(unknown)
                ),
            )),
        }
    }

    fn subscribe(&self) -> Checked<Subscribe> {
        let channel = self.channel()?;
        Ok(Subscribe {
            channel,
            symbols: texts("symbols", &self.symbols)?,
            depth: match channel {
                Channel::Book => self.depth()?,
                _ => Depth::Levels(1),
            },
            last: match channel {
                Channel::Trades => whole("last", &self.last, 0)?.min(LAST_TRADES_MAX),
                _ => 0,
            },
            budget: self.budget()?,
        })
    }

    fn channel(&self) -> Checked<Channel> {
        let names = || Channel::ALL.iter().map(|c| c.name()).collect::<Vec<_>>().join(", ");
        match &self.channel {
            Value::String(name) => Channel::from_name(name).ok_or_else(|| {
                (
                    ErrorCode::UnknownChannel,
                    format!("unknown channel {}; channels are {}", quoted(name), names()),
                )
            }),
            _ => bad(format!("channel is missing; channels are {}", names())),
        }
    }

    fn strict(&self) -> bool {
        self.strict == Value::Bool(true)
    }

    fn depth(&self) -> Checked<Depth> {
        let wrong = || {
            (
                ErrorCode::BadDepth,
                "depth must be a positive integer or \"full\"; \
                 1 5 10 20 50 100 200 500 1000 are exact"
                    .to_owned(),
            )
        };
        let asked = match &self.depth {
            Value::Null => DEPTH_DEFAULT,
            Value::String(full) if full == "full" => return Ok(Depth::Full),
            other => other.as_u64().filter(|levels| *levels > 0).ok_or_else(wrong)?,
        };
        let depth = Depth::at_least(asked);
        if self.strict() && depth.limit() as u64 != asked {
            return Err(wrong());
        }
        Ok(depth)
    }

    fn budget(&self) -> Checked<BudgetClass> {
        let asked = match &self.budget_ms {
            Value::Null => Some(BUDGET_MS_DEFAULT),
            other => other.as_u64(),
        };
        let class = asked.map(BudgetClass::at_most);
        match (asked, class) {
            (Some(asked), Some(class)) if !self.strict() || u64::from(class.ms()) == asked => {
                Ok(class)
            }
            _ => Err((
                ErrorCode::BadBudget,
                format!(
                    "budget_ms must be a whole number of milliseconds; on offer are {BUDGETS_MS:?}"
                ),
            )),
        }
    }

    fn views(&self) -> Checked<Vec<u32>> {
        let wrong = || "views must be a list of view numbers".to_owned();
        let Value::Array(views) = &self.views else { return bad(wrong()) };
        views
            .iter()
            .map(|view| view.as_u64().and_then(|view| u32::try_from(view).ok()))
            .collect::<Option<_>>()
            .ok_or_else(|| (ErrorCode::BadRequest, wrong()))
    }
}

fn bad<T>(message: String) -> Checked<T> {
    Err((ErrorCode::BadRequest, message))
}

fn whole(key: &str, value: &Value, default: u64) -> Checked<u64> {
    match value {
        Value::Null => Ok(default),
        other => match other.as_u64() {
            Some(number) => Ok(number),
            None => bad(format!("{key} must be a whole number")),
        },
    }
}

fn texts(key: &str, value: &Value) -> Checked<Vec<String>> {
    let wrong = || format!("{key} must be a list of strings like \"sim:BTCUSDT\"");
    let Value::Array(items) = value else { return bad(wrong()) };
    items
        .iter()
        .map(|item| item.as_str().map(str::to_owned))
        .collect::<Option<_>>()
        .ok_or_else(|| (ErrorCode::BadRequest, wrong()))
}

/// Client text for an error message: quoted, escaped and short.
pub fn quoted(text: &str) -> String {
    const CHARS_MAX: usize = 40;
    let mut short: String = text.chars().take(CHARS_MAX).collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        short.push('…');
    }
    format!("{short:?}")
}

fn depth_value(depth: Depth) -> Value {
    match depth {
        Depth::Levels(levels) => Value::from(levels),
        Depth::Full => Value::from("full"),
    }
}

/// The limits that `hello` names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloLimits {
    /// Subscriptions per connection.
    pub subscriptions: usize,
    /// Bytes of one client message.
    pub message_bytes: usize,
    /// Client messages per second.
    pub messages_per_s: u32,
}

/// What was made of one symbol of a subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SymbolResult {
    /// The symbol as the client spelt it, or as `venue:*` expanded.
    pub symbol: String,
    /// It worked.
    pub ok: bool,
    /// The view, when it worked.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub subscribed: Option<SubscribedView>,
    /// The error code, when it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<ErrorCode>,
    /// The error's words, when it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl SymbolResult {
    /// The result of a symbol that did not work.
    pub fn refused(symbol: String, code: ErrorCode, message: String) -> Self {
        Self { symbol, ok: false, subscribed: None, code: Some(code), message: Some(message) }
    }

    /// The result of a symbol that worked.
    pub fn accepted(symbol: String, subscribed: SubscribedView) -> Self {
        Self { symbol, ok: true, subscribed: Some(subscribed), code: None, message: None }
    }
}

/// A view as it is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscribedView {
    /// Its number.
    pub view: u32,
    /// Its channel.
    pub channel: String,
    /// Its depth, for a book: a number or `"full"`.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub depth: Value,
    /// Its budget in milliseconds.
    pub budget_ms: u32,
    /// `accepted` or `infeasible`.
    pub budget: String,
    /// What its class measured lately, in microseconds; absent before anything was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_us: Option<u64>,
    /// Digits of prices.
    pub price_scale: u8,
    /// Digits of quantities.
    pub qty_scale: u8,
    /// The epoch of the channel.
    pub epoch: u32,
    /// Where the view stands.
    pub s: u64,
    /// The state of the channel.
    pub state: String,
}

impl SubscribedView {
    /// The protocol's spelling of a depth, absent where the channel has none.
    pub fn depth_value(channel: Channel, depth: Depth) -> Value {
        if channel == Channel::Book { depth_value(depth) } else { Value::Null }
    }
}

/// An instrument as clients see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstrumentInfo {
    /// Our symbol.
    pub symbol: String,
    /// The venue.
    pub venue: String,
    /// The venue's spelling.
    pub native: String,
    /// What is bought.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// What is paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quote: Option<String>,
    /// `spot`, `perpetual` …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Smallest step of a price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tick: Option<String>,
    /// Smallest step of a quantity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lot: Option<String>,
    /// Digits of prices.
    pub price_scale: u8,
    /// Digits of quantities.
    pub qty_scale: u8,
    /// The state of its book.
    pub state: String,
}

/// What the gateway says besides data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are those of the protocol, under their own names")]
pub enum Control {
    /// The first message of a connection.
    Hello {
        protocol: u32,
        gateway: String,
        session: String,
        time: u64,
        limits: HelloLimits,
        budgets_ms: Vec<u32>,
        depths: Vec<Value>,
    },
    /// The answer to `subscribe` and `modify`.
    Subscribed {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<RequestId>,
        results: Vec<SymbolResult>,
    },
    /// The answer to `unsubscribe`.
    Unsubscribed {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<RequestId>,
        views: Vec<u32>,
    },
    /// The answer to `instruments`.
    Instruments {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<RequestId>,
        instruments: Vec<InstrumentInfo>,
    },
    /// A request that could not be carried out.
    Error {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<RequestId>,
        code: ErrorCode,
        message: String,
    },
    /// The gateway will close this connection.
    Drain { in_ms: u64, retry_after_ms: u64, reason: String },
    /// The answer to `ping`.
    Pong {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<RequestId>,
        received: u64,
        sent: u64,
    },
}

impl Control {
    /// The text on the wire.
    pub fn to_json(&self) -> String {
        serde_json::json!(self).to_string()
    }

    /// Reads a control message, as a client does.
    ///
    /// # Errors
    /// The JSON error when the text is none.
    pub fn parse(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }

    /// The values that `hello` names besides those of the gateway.
    pub fn offered_depths() -> Vec<Value> {
        DEPTHS.into_iter().map(depth_value).collect()
    }
}

impl From<Refusal> for Control {
    fn from(refusal: Refusal) -> Self {
        Self::Error { id: refusal.id, code: refusal.code, message: refusal.message }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(text: &str) -> ErrorCode {
        Request::parse(text).unwrap_err().code
    }

    #[test]
    fn requests_have_their_defaults_and_classes() {
        let request = Request::parse(
            r#"{"op":"subscribe","id":7,"channel":"book","symbols":["sim:A"],"depth":11,
               "budget_ms":99,"of the future":true}"#,
        )
        .unwrap();
        assert_eq!(request.id, Some(RequestId::Number(7)));
        assert_eq!(
            request.op,
            Op::Subscribe(Subscribe {
                channel: Channel::Book,
                symbols: vec!["sim:A".to_owned()],
                depth: Depth::Levels(20),
                last: 0,
                budget: BudgetClass::at_most(50),
            })
        );
        let Op::Subscribe(defaults) =
            Request::parse(r#"{"op":"subscribe","channel":"trades","symbols":[]}"#).unwrap().op
        else {
            panic!("not a subscription")
        };
        assert_eq!((defaults.last, defaults.budget.ms()), (0, 100));
    }

    #[test]
    fn what_is_wrong_is_told_by_code() {
        for (text, expected) in [
            ("", ErrorCode::BadRequest),
            ("[]", ErrorCode::BadRequest),
            ("{}", ErrorCode::BadRequest),
            (r#"{"op":7}"#, ErrorCode::BadRequest),
            (r#"{"op":"buy"}"#, ErrorCode::UnknownOp),
            (r#"{"op":"subscribe","channel":"boook","symbols":[]}"#, ErrorCode::UnknownChannel),
            (r#"{"op":"subscribe","channel":"book"}"#, ErrorCode::BadRequest),
            (r#"{"op":"subscribe","channel":"book","symbols":[1]}"#, ErrorCode::BadRequest),
            (r#"{"op":"subscribe","channel":"book","symbols":[],"depth":0}"#, ErrorCode::BadDepth),
            (
                r#"{"op":"subscribe","channel":"book","symbols":[],"depth":7,"strict":true}"#,
                ErrorCode::BadDepth,
            ),
            (
                r#"{"op":"subscribe","channel":"bbo","symbols":[],"budget_ms":-1}"#,
                ErrorCode::BadBudget,
            ),
            (
                r#"{"op":"subscribe","channel":"bbo","symbols":[],"budget_ms":7,"strict":true}"#,
                ErrorCode::BadBudget,
            ),
            (r#"{"op":"modify","views":[-1],"budget_ms":5}"#, ErrorCode::BadRequest),
            (r#"{"op":"image","views":"all"}"#, ErrorCode::BadRequest),
            (r#"{"op":"heartbeat","every_ms":100}"#, ErrorCode::BadRequest),
            (r#"{"op":"stats","every_ms":99}"#, ErrorCode::BadRequest),
            (r#"{"op":"ping","id":1.5}"#, ErrorCode::BadRequest),
        ] {
            assert_eq!(code(text), expected, "{text}");
        }
        let long_id = format!(r#"{{"op":"ping","id":"{}"}}"#, "x".repeat(ID_CHARS_MAX + 1));
        assert_eq!(code(&long_id), ErrorCode::BadRequest);
    }

    #[test]
    fn error_words_name_what_came_and_what_exists() {
        let refusal = Request::parse(r#"{"op":"subscribe","id":7,"channel":"boook","symbols":[]}"#)
            .unwrap_err();
        assert_eq!(refusal.id, Some(RequestId::Number(7)));
        assert_eq!(refusal.message, "unknown channel \"boook\"; channels are book, bbo, trades");
    }

    #[test]
    fn requests_read_back_as_written() {
        for op in [
            Op::Subscribe(Subscribe {
                channel: Channel::Book,
                symbols: vec!["sim:A".to_owned()],
                depth: Depth::Full,
                last: 0,
                budget: BudgetClass::at_most(10),
            }),
            Op::UnsubscribeViews(vec![1, 2]),
            Op::UnsubscribeSymbols { channel: Channel::Bbo, symbols: vec!["sim:A".to_owned()] },
            Op::Modify { views: vec![3], budget: BudgetClass::at_most(0) },
            Op::Image { views: vec![3] },
            Op::Heartbeat { every_ms: 500 },
            Op::Ping,
            Op::Instruments { pattern: "sim:*".to_owned() },
        ] {
            let request = Request { id: Some(RequestId::Text("a".to_owned())), op };
            assert_eq!(Request::parse(&request.to_json()), Ok(request));
        }
    }

    #[test]
    fn golden_answers() {
        let subscribed = Control::Subscribed {
            id: Some(RequestId::Number(7)),
            results: vec![
                SymbolResult::accepted(
                    "sim:BTCUSDT".to_owned(),
                    SubscribedView {
                        view: 3,
                        channel: "book".to_owned(),
                        depth: Value::from(20),
                        budget_ms: 50,
                        budget: "accepted".to_owned(),
                        p99_us: Some(310),
                        price_scale: 2,
                        qty_scale: 8,
                        epoch: 17,
                        s: 1040,
                        state: "live".to_owned(),
                    },
                ),
                SymbolResult::refused(
                    "sim:NOPE".to_owned(),
                    ErrorCode::UnknownSymbol,
                    "no instrument sim:NOPE".to_owned(),
                ),
            ],
        };
        let text = subscribed.to_json();
        let expected: Value = serde_json::from_str(
            r#"{"type":"subscribed","id":7,"results":[
              {"symbol":"sim:BTCUSDT","ok":true,"view":3,"channel":"book","depth":20,"budget_ms":50,
               "budget":"accepted","p99_us":310,"price_scale":2,"qty_scale":8,"epoch":17,"s":1040,
               "state":"live"},
              {"symbol":"sim:NOPE","ok":false,"code":"unknown_symbol",
               "message":"no instrument sim:NOPE"}]}"#,
        )
        .unwrap();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
        assert_eq!(Control::parse(&text).unwrap(), subscribed);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _ = Request::parse(&text);
            let _ = quoted(&text);
        }
    }
}
