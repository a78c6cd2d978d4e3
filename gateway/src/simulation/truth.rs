//! What the market truly was at each of its own numbers, and when the gateway was told of it.
//!
//! The venue writes it from messages before any fault; the checker reads it. It is the oracle for
//! the gateway's decoders, books, differences and encodings, so it shares no code with them: sorted
//! lists of exact integers, and a reader of decimals of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use tickfan_core::market::{Channel, Nanos};

/// Digits behind the point of every number here.
const DIGITS: usize = 8;

/// Price and quantity, in units of 10^-8.
pub(super) type Level = (i64, i64);

/// A decimal as the venue or the gateway writes it, in units of 10^-8.
pub(super) fn units(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) || fraction.len() > DIGITS {
        return None;
    }
    let mut digits = whole.bytes().chain(fraction.bytes());
    let value = digits
        .try_fold(0i64, |sum, digit| sum.checked_mul(10)?.checked_add(i64::from(digit - b'0')));
    value?.checked_mul(10i64.pow((DIGITS - fraction.len()) as u32))
}

/// The same, for texts that must be the shortest of their value.
pub(super) fn shortest_units(text: &str) -> Option<i64> {
    let is_padded = text.len() > 1 && text.starts_with('0') && !text.starts_with("0.");
    let has_idle_zeros = text.contains('.') && (text.ends_with('0') || text.ends_with('.'));
    if is_padded || has_idle_zeros { None } else { units(text) }
}

/// Both sides of a book, best first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Book {
    pub(super) bids: Vec<Level>,
    pub(super) asks: Vec<Level>,
}

impl Book {
    /// Sets a level; 0 removes it. Returns what it was.
    pub(super) fn set(&mut self, is_bid: bool, (px, qty): Level) -> i64 {
        let side = if is_bid { &mut self.bids } else { &mut self.asks };
        let place =
            side.binary_search_by(|(held, _)| if is_bid { px.cmp(held) } else { held.cmp(&px) });
        match (place, qty) {
            (Ok(at), 0) => side.remove(at).1,
            (Ok(at), _) => std::mem::replace(&mut side[at].1, qty),
            (Err(_), 0) => 0,
            (Err(at), _) => {
                side.insert(at, (px, qty));
                0
            }
        }
    }

    /// The best levels of each side.
    pub(super) fn cut(&self, depth: usize) -> [&[Level]; 2] {
        [&self.bids, &self.asks].map(|side| &side[..side.len().min(depth)])
    }

    pub(super) fn best(&self) -> Best {
        [self.bids.first().copied(), self.asks.first().copied()]
    }
}

/// Best bid and best offer.
pub(super) type Best = [Option<Level>; 2];

/// Something that the market was, and when the gateway was first told; `None` = never yet.
#[derive(Debug, Clone)]
pub(super) struct Known<T> {
    pub(super) value: T,
    pub(super) received_ns: Option<Nanos>,
}

impl<T> Known<T> {
    pub(super) const fn new(value: T) -> Self {
        Self { value, received_ns: None }
    }

    const fn receive(&mut self, now: Nanos) {
        if self.received_ns.is_none() {
            self.received_ns = Some(now);
        }
    }
}

/// One trade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trade {
    pub(super) te_us: u64,
    pub(super) level: Level,
    pub(super) side: &'static str,
}

/// Everything about one symbol.
#[derive(Debug, Default)]
pub(super) struct SymbolTruth {
    pub(super) name: String,
    /// The book as of the newest depth message.
    pub(super) live: Book,
    /// By update id: those at which a depth message ends, and those of images.
    pub(super) books: BTreeMap<u64, Known<Arc<Book>>>,
    /// By update id.
    pub(super) tickers: BTreeMap<u64, Known<Best>>,
    /// By id.
    pub(super) trades: BTreeMap<u64, Known<Trade>>,
    /// The running numbers that the gateway's rule gives to the trades it was told of, and their ids.
    pub(super) trade_ids: BTreeMap<u64, u64>,
    /// When the connection to the venue was made last.
    pub(super) connected_ns: Nanos,
    /// Trades whose ids were skipped.
    pub(super) trades_skipped: u64,
    /// By channel: when the gateway was told anything of it, or that its state is another.
    moments: [Vec<Nanos>; Channel::ALL.len()],
    /// What was told last is published: a time that comes again is told again.
    is_published: [bool; Channel::ALL.len()],
    newest_trade: Option<u64>,
    newest_number: u64,
}

impl SymbolTruth {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// The gateway is told something about a channel.
    pub(super) fn tell(&mut self, channel: Channel, now: Nanos) {
        let moments = &mut self.moments[channel.index()];
        if std::mem::take(&mut self.is_published[channel.index()]) || moments.last() != Some(&now) {
            moments.push(now);
        }
    }

    /// What the gateway was told is published.
    pub(super) const fn publish(&mut self) {
        self.is_published = [true; Channel::ALL.len()];
    }

    /// The gateway is told something about every channel.
    pub(super) fn tell_all(&mut self, now: Nanos) {
        for channel in Channel::ALL {
            self.tell(*channel, now);
        }
    }

    /// When the gateway was told anything of a channel, in order.
    pub(super) fn moments(&self, channel: Channel) -> &[Nanos] {
        &self.moments[channel.index()]
    }

    pub(super) fn receive_book(&mut self, id: u64, now: Nanos) {
        if let Some(book) = self.books.get_mut(&id) {
            book.receive(now);
        }
    }

    pub(super) fn receive_ticker(&mut self, id: u64, now: Nanos) {
        if let Some(ticker) = self.tickers.get_mut(&id) {
            ticker.receive(now);
        }
    }

    /// A trade is told: it gets the number after the one before, ids that skip pass theirs.
    pub(super) fn receive_trade(&mut self, id: u64, now: Nanos) {
        let Some(trade) = self.trades.get_mut(&id) else { return };
        let steps = match self.newest_trade {
            Some(newest) if id <= newest => return,
            Some(newest) => id - newest,
            None => 1,
        };
        self.newest_number += steps;
        self.trades_skipped += steps - 1;
        trade.receive(now);
        self.newest_trade = Some(id);
        self.trade_ids.insert(self.newest_number, id);
    }

    /// The connection is made anew.
    pub(super) const fn reconnect(&mut self, now: Nanos) {
        self.connected_ns = now;
    }

    pub(super) fn newest_number(&self) -> u64 {
        self.newest_number
    }

    /// The best as of an update id, if the market ever told or showed it.
    pub(super) fn best_at(&self, id: u64) -> Option<Best> {
        let ticker = self.tickers.get(&id).map(|known| known.value);
        ticker.or_else(|| self.books.get(&id).map(|known| known.value.best()))
    }
}
