//! Venue payloads → what the book truly is: the oracle against which clients are judged.
//!
//! Called by the replay (one book for all connections) and by the bench (line by line beside the
//! thing under test). It is deliberately plain: two sorted maps a symbol, keyed by exact integers,
//! and the texts as the venue wrote them. It shares no code with the gateway's book or decoders.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;
use compact_str::CompactString;
use tickfan_core::decimal::{Decimal, SCALE_MAX, write_decimal};
use tickfan_core::market::Side;

use crate::recording::{Kind, Line};
use crate::venue::{BookMessage, Dialect, Reader, binance};

/// Events that may wait for their symbol's image; the oldest falls out.
const WAITING_MAX: usize = 10_000;

/// A side of a book: price at 18 digits behind the point → level, lowest price first.
type Levels = BTreeMap<i128, TruthLevel>;

/// A number as a venue writes it. All but the longest are held in place, and cost no allocation.
pub type Text = CompactString;

/// One level, in the venue's own texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TruthLevel {
    /// The price.
    pub px: Text,
    /// What is offered there in all.
    pub qty: Text,
}

impl TruthLevel {
    fn hash(&self, side: Side) -> u64 {
        level_hash(side, &normalise(&self.px), &normalise(&self.qty))
    }
}

/// The shortest exact decimal of a text: no exponent, no trailing zeros, no trailing point. A text
/// that is no decimal is returned as it is.
pub fn normalise(text: &str) -> String {
    let Ok(decimal) = Decimal::parse(text.as_bytes()) else { return text.to_owned() };
    let mut out = Vec::with_capacity(text.len());
    write_decimal(decimal.mantissa, decimal.scale, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// The part that one level has in the digest of a book: FNV-1a, 64 bits (offset basis
/// `0xcbf29ce484222325`, prime `0x100000001b3`), over the bytes of `b` or `a`, the price, a colon
/// and the quantity, both normalised: `b10.5:2`. The digest of a book is the wrapping sum of this
/// over all levels of both sides, so that it can be kept up to date change by change.
pub fn level_hash(side: Side, px: &str, qty: &str) -> u64 {
    let letter = match side {
        Side::Bid => b'b',
        Side::Ask => b'a',
    };
    let bytes = std::iter::once(letter).chain(px.bytes()).chain([b':']).chain(qty.bytes());
    fnv1a(FNV_BASIS, bytes)
}

/// Where FNV-1a of 64 bits begins.
pub(crate) const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;

/// Goes on with FNV-1a of 64 bits.
pub(crate) fn fnv1a(hash: u64, bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// One symbol's book, whole.
#[derive(Debug, Clone, Default)]
pub struct TruthBook {
    bids: Levels,
    asks: Levels,
    digest: u64,
    id: Option<u64>,
    order: Option<u64>,
}

impl TruthBook {
    /// The venue's update id of this state, where it has one.
    pub const fn id(&self) -> Option<u64> {
        self.id
    }

    /// The venue's second number of this state, where it has two: Bybit's place among all topics.
    pub const fn order(&self) -> Option<u64> {
        self.order
    }

    /// The levels of a side, best first.
    pub fn levels(&self, side: Side) -> Box<dyn Iterator<Item = &TruthLevel> + '_> {
        match side {
            Side::Bid => Box::new(self.bids.values().rev()),
            Side::Ask => Box::new(self.asks.values()),
        }
    }

    /// The best level of a side.
    pub fn best(&self, side: Side) -> Option<&TruthLevel> {
        self.levels(side).next()
    }

    /// How many levels a side has.
    pub fn depth(&self, side: Side) -> usize {
        match side {
            Side::Bid => self.bids.len(),
            Side::Ask => self.asks.len(),
        }
    }

    /// Sum of [`level_hash`] over all levels of both sides.
    pub const fn digest(&self) -> u64 {
        self.digest
    }

    /// CRC-32 of the 20 best levels as the recordings' states have it: `px:qty,…|px:qty,…`, bids
    /// first, best first, normalised.
    pub fn crc_top20(&self) -> u32 {
        self.crc_top(20)
    }

    /// The same over the `count` best levels.
    pub fn crc_top(&self, count: usize) -> u32 {
        let mut text = String::new();
        for side in [Side::Bid, Side::Ask] {
            for (index, level) in self.levels(side).take(count).enumerate() {
                let comma = if index == 0 { "" } else { "," };
                // Writing to a string cannot fail.
                let _ = write!(text, "{comma}{}:{}", normalise(&level.px), normalise(&level.qty));
            }
            if side == Side::Bid {
                text.push('|');
            }
        }
        crc32fast::hash(text.as_bytes())
    }

    /// Sets the quantity at a price, in the texts of the venue; zero removes the level. A text that
    /// is no decimal changes nothing.
    pub fn set(&mut self, side: Side, px: &str, qty: &str) {
        let (Some(key), Ok(quantity)) = (price_key(px), Decimal::parse(qty.as_bytes())) else {
            return;
        };
        let levels = match side {
            Side::Bid => &mut self.bids,
            Side::Ask => &mut self.asks,
        };
        let (old, new) = if quantity.is_zero() {
            (levels.remove(&key), None)
        } else {
            let level = TruthLevel { px: px.into(), qty: qty.into() };
            let hash = level.hash(side);
            (levels.insert(key, level), Some(hash))
        };
        let gone = old.map_or(0, |level| level.hash(side));
        self.digest = self.digest.wrapping_sub(gone).wrapping_add(new.unwrap_or(0));
    }

    /// Cuts each side back to its `depth` best levels.
    pub fn truncate(&mut self, depth: usize) {
        while self.bids.len() > depth
            && let Some((_, level)) = self.bids.pop_first()
        {
            self.digest = self.digest.wrapping_sub(level.hash(Side::Bid));
        }
        while self.asks.len() > depth
            && let Some((_, level)) = self.asks.pop_last()
        {
            self.digest = self.digest.wrapping_sub(level.hash(Side::Ask));
        }
    }

    pub(crate) const fn set_id(&mut self, id: u64) {
        self.id = Some(id);
    }

    pub(crate) const fn set_order(&mut self, order: Option<u64>) {
        self.order = order;
    }

    /// A message of a venue whose images come on the stream changes it.
    pub(crate) fn change(&mut self, message: &BookMessage<'_>) {
        self.set_all(&message.bids, &message.asks);
        if let Some(depth) = message.cut_to {
            self.truncate(depth);
        }
        self.id = message.id;
        self.order = message.order;
    }

    fn set_all(&mut self, bids: &[(&str, &str)], asks: &[(&str, &str)]) {
        for (side, levels) in [(Side::Bid, bids), (Side::Ask, asks)] {
            for (px, qty) in levels {
                self.set(side, px, qty);
            }
        }
    }
}

fn price_key(px: &str) -> Option<i128> {
    let decimal = Decimal::parse(px.as_bytes()).ok()?;
    Some(i128::from(decimal.mantissa) * 10i128.pow(u32::from(SCALE_MAX - decimal.scale)))
}

/// A symbol's way from nothing to a valid book.
#[derive(Debug, Default)]
struct Progress {
    book: Option<TruthBook>,
    /// Binance: events that came before the image.
    waiting: VecDeque<Bytes>,
    /// Binance: an event was applied on top of the image.
    is_joined: bool,
}

impl Progress {
    /// Applies an event that is not older than the book. On futures the first event on top of an
    /// image may end at the image's own id: the venue's rule drops only what ends before it.
    fn apply_event(&mut self, dialect: Dialect, event: &binance::DepthEvent<'_>) -> bool {
        let Some(book) = &mut self.book else { return false };
        let id = book.id.unwrap_or(0);
        let ends_at_image =
            dialect != Dialect::BinanceSpot && !self.is_joined && event.last_update_id == id;
        if event.last_update_id <= id && !ends_at_image {
            return false;
        }
        book.set_all(&event.bids, &event.asks);
        book.id = Some(event.last_update_id);
        self.is_joined = true;
        true
    }
}

/// Whose book a line changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The symbol, as the venue spells it.
    pub symbol: Arc<str>,
}

/// The books of all symbols of a recording.
#[derive(Debug)]
pub struct Truth {
    dialect: Dialect,
    reader: Box<dyn Reader>,
    symbols: HashMap<Arc<str>, Progress>,
}

impl Truth {
    /// No book yet.
    pub fn new(dialect: Dialect) -> Self {
        Self { dialect, reader: dialect.reader(), symbols: HashMap::new() }
    }

    /// The book of a symbol, once it is valid.
    pub fn book(&self, symbol: &str) -> Option<&TruthBook> {
        self.symbols.get(symbol)?.book.as_ref()
    }

    /// Applies one line of the recording. Says whose valid book it brought or changed, `None` if
    /// nobody's.
    pub fn apply_line(&mut self, line: &Line) -> Option<Changed> {
        match line.kind {
            Kind::Open | Kind::Send => None,
            Kind::Rest if self.dialect.fetches_images() => {
                self.apply_binance_image(line.rest_symbol()?, line.text())
            }
            Kind::Rest => None,
            Kind::Recv if self.dialect.fetches_images() => self.apply_binance(&line.payload),
            Kind::Recv => self.apply_recorded(line.text()),
        }
    }

    fn progress(&mut self, symbol: &str) -> (Arc<str>, &mut Progress) {
        let name = match self.symbols.get_key_value(symbol) {
            Some((name, _)) => Arc::clone(name),
            None => Arc::from(symbol),
        };
        (Arc::clone(&name), self.symbols.entry(name).or_default())
    }

    fn apply_binance(&mut self, payload: &Bytes) -> Option<Changed> {
        let text = std::str::from_utf8(payload).ok()?;
        let event = binance::DepthEvent::read(text)?;
        let dialect = self.dialect;
        let (symbol, progress) = self.progress(event.symbol);
        if progress.book.is_none() {
            if progress.waiting.len() == WAITING_MAX {
                progress.waiting.pop_front();
            }
            progress.waiting.push_back(payload.clone());
            return None;
        }
        progress.apply_event(dialect, &event).then_some(Changed { symbol })
    }

    fn apply_binance_image(&mut self, symbol: &str, body: &str) -> Option<Changed> {
        let image = binance::DepthImage::read(body)?;
        let dialect = self.dialect;
        let (symbol, progress) = self.progress(symbol);
        let mut book = TruthBook { id: Some(image.last_update_id), ..TruthBook::default() };
        book.set_all(&image.bids, &image.asks);
        progress.book = Some(book);
        progress.is_joined = false;
        for payload in std::mem::take(&mut progress.waiting) {
            let text = std::str::from_utf8(&payload).unwrap_or_default();
            if let Some(event) = binance::DepthEvent::read(text) {
                progress.apply_event(dialect, &event);
            }
        }
        Some(Changed { symbol })
    }

    /// A message of a venue whose images come on the stream, in order with their changes.
    fn apply_recorded(&mut self, text: &str) -> Option<Changed> {
        let recorded = self.reader.read(text)?;
        let message = recorded.book?;
        let (symbol, progress) = self.progress(&recorded.symbol?);
        if message.is_snapshot {
            progress.book = Some(TruthBook::default());
        }
        progress.book.as_mut()?.change(&message);
        Some(Changed { symbol })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_s_example_of_the_checksum() {
        let mut book = TruthBook::default();
        book.set_all(&[("10.50", "2.0"), ("10.4", "1")], &[("10.6", "3")]);
        assert_eq!(book.crc_top20(), 2_626_897_968);
    }

    #[test]
    fn the_digest_depends_on_the_levels_alone() {
        let mut book = TruthBook::default();
        book.set_all(&[("10.50", "2.0"), ("10.4", "1"), ("10.4", "3.10")], &[("11", "1")]);
        book.set(Side::Ask, "11.00", "0.000");
        let mut other = TruthBook::default();
        other.set_all(&[("10.4", "3.1"), ("10.5", "2"), ("10.3", "1")], &[]);
        other.truncate(2);
        assert_eq!(book.digest(), other.digest());
        let expected =
            level_hash(Side::Bid, "10.5", "2").wrapping_add(level_hash(Side::Bid, "10.4", "3.1"));
        assert_eq!(book.digest(), expected);
    }

    #[test]
    fn the_hash_of_a_level_is_plain_fnv() {
        // Computed by hand from the published definition: FNV-1a of the text `b10.5:2`.
        let mut hash: u64 = 14_695_981_039_346_656_037;
        for byte in b"b10.5:2" {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(1_099_511_628_211);
        }
        assert_eq!(level_hash(Side::Bid, "10.5", "2"), hash);
    }
}
