//! Texts of the gateway → their fields, as a client that has only the protocol's page would read
//! them.
//!
//! Called by a session for each text. It judges nothing; what is not of the protocol's shape is an
//! error. It shares no code with the gateway's encoders.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// What every text has: a control message has a type, a data frame a number.
#[derive(Debug, Deserialize)]
pub(crate) struct Envelope<'a> {
    /// The type of a control message.
    #[serde(rename = "type", borrow, default)]
    pub(crate) control: Option<&'a str>,
    /// The number of a data frame.
    #[serde(default)]
    pub(crate) n: Option<u64>,
    /// When it was sent, microseconds.
    #[serde(default)]
    pub(crate) ts: Option<u64>,
    /// Which updates were over their budget.
    #[serde(default)]
    pub(crate) late: Option<Vec<usize>>,
    /// By how much the worst of them.
    #[serde(default)]
    pub(crate) late_us: Option<u64>,
    /// The updates, verbatim.
    #[serde(borrow, default)]
    pub(crate) u: Option<Vec<&'a RawValue>>,
}

/// One update of a data frame.
#[derive(Debug, Deserialize)]
pub(crate) struct Update<'a> {
    /// Its kind.
    #[serde(borrow)]
    pub(crate) t: &'a str,
    /// The view.
    pub(crate) v: u32,
    /// The epoch.
    pub(crate) e: Option<u64>,
    /// The version after it.
    pub(crate) s: Option<u64>,
    /// The version before it.
    pub(crate) p: Option<u64>,
    /// The venue's sequence.
    pub(crate) q: Option<u64>,
    /// The venue's time of the newest event.
    pub(crate) te: Option<u64>,
    /// The gateway's receipt of it.
    pub(crate) tr: Option<u64>,
    /// The gateway's receipt of the oldest event.
    pub(crate) to: Option<u64>,
    /// The state.
    pub(crate) state: Option<&'a str>,
    /// Why it is in that state.
    pub(crate) why: Option<&'a str>,
    /// Since when.
    pub(crate) since: Option<u64>,
    /// Bids: a list of levels, or one for a best bid and offer.
    #[serde(borrow)]
    pub(crate) b: Option<&'a RawValue>,
    /// Asks.
    #[serde(borrow)]
    pub(crate) a: Option<&'a RawValue>,
    /// How many levels of each side are known to be complete.
    pub(crate) trusted: Option<(usize, usize)>,
    /// Trades.
    #[serde(borrow)]
    pub(crate) x: Option<Vec<TradeText<'a>>>,
    /// How many trades were lost.
    pub(crate) lost: Option<u64>,
}

/// Price and quantity.
pub(crate) type LevelText<'a> = (&'a str, &'a str);

/// Venue's time, price, quantity, side of the aggressor, id.
pub(crate) type TradeText<'a> = (u64, &'a str, &'a str, &'a str, Cow<'a, str>);

/// A list of levels; what is absent has none.
pub(crate) fn levels<'a>(raw: Option<&'a RawValue>) -> serde_json::Result<Vec<LevelText<'a>>> {
    raw.map_or_else(|| Ok(Vec::new()), |raw| serde_json::from_str(raw.get()))
}

/// One level, or none.
pub(crate) fn level<'a>(raw: Option<&'a RawValue>) -> serde_json::Result<Option<LevelText<'a>>> {
    raw.map(|raw| serde_json::from_str(raw.get())).transpose()
}

/// The answer to a subscription.
#[derive(Debug, Deserialize)]
pub(crate) struct Subscribed<'a> {
    /// Which request it answers.
    pub(crate) id: usize,
    /// One result a symbol.
    #[serde(borrow)]
    pub(crate) results: Vec<Subscription<'a>>,
}

/// The result for one symbol.
#[derive(Debug, Deserialize)]
pub(crate) struct Subscription<'a> {
    /// The symbol.
    #[serde(borrow)]
    pub(crate) symbol: Cow<'a, str>,
    /// It succeeded.
    pub(crate) ok: bool,
    /// The number of the view.
    pub(crate) view: Option<u32>,
    /// The channel.
    pub(crate) channel: Option<&'a str>,
    /// The depth in force: a number or `full`.
    pub(crate) depth: Option<serde_json::Value>,
    /// The budget in force.
    pub(crate) budget_ms: Option<u64>,
    /// The epoch.
    pub(crate) epoch: Option<u64>,
    /// Where the view stands.
    pub(crate) s: Option<u64>,
    /// The state.
    pub(crate) state: Option<&'a str>,
}
