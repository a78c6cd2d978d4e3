//! The encoding `tickfan.bin.v1`: data frames as fixed little-endian fields, and their reading by
//! clients, in place.
//!
//! The encoding half runs on the hot path of the shards: it writes what it is given and allocates
//! nothing but the room in `out`. The reading half believes nothing: whatever bytes come, it says
//! what it expected, and never panics.

use std::str;

use thiserror::Error;

use super::{
    Encoder, Frame, FrameHead, Head, NANOS_PER_MICRO, Payload, Received, StatsReport, TextLevel,
    TextTrade, Update,
};
use crate::decimal::{SCALE_MAX, write_decimal};
use crate::market::{Aggressor, Level, Nanos, Px, Qty, Scales, State, Trade, TradeId};

/// The encoder of `tickfan.bin.v1`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Binary;

/// What a frame begins with, before its updates.
pub const FRAME_HEAD_BYTES: usize = 32;

/// What a record begins with, before what its kind adds.
pub const RECORD_HEAD_BYTES: usize = 64;

/// As many updates has a frame at most: so many bits has `late`.
pub const RECORDS_MAX: usize = 64;

const MAGIC: u16 = 0x4654;
const VERSION: u8 = 1;

/// Every length is a multiple of this, so that every field is aligned.
const ALIGNMENT: usize = 8;

/// Two counts of levels, two of those that may be relied on.
const BOOK_HEAD_BYTES: usize = 16;
const LEVEL_BYTES: usize = 16;

/// How many trades, how many lost.
const TRADES_HEAD_BYTES: usize = 8;
const TRADE_BYTES: usize = 40;

/// Since when, and how long the reason is.
const STATE_HEAD_BYTES: usize = 12;

const STATS_BYTES: usize = 12 * 8;

/// In the counts of trusted levels: all of them.
const ALL_LEVELS: u32 = u32::MAX;

const FLAG_SEQUENCE: u16 = 1;
/// The fifth bits of the scales: four hold up to 15, and a scale may be 18.
const FLAG_PX_SCALE_16: u16 = 1 << 1;
const FLAG_QTY_SCALE_16: u16 = 1 << 2;
const PX_SCALE_SHIFT: u16 = 8;
const QTY_SCALE_SHIFT: u16 = 12;

const IMAGE: u8 = 1;
const DELTA: u8 = 2;
const BBO: u8 = 3;
const TRADES: u8 = 4;
const STATE: u8 = 5;
const STATS: u8 = 6;

impl Encoder for Binary {
    fn subprotocol(&self) -> &'static str {
        "tickfan.bin.v1"
    }

    fn is_text(&self) -> bool {
        false
    }

    fn update(&self, update: &Update<'_>, out: &mut Vec<u8>) {
        let head = &update.head;
        // What the JSON of a kind does not say is 0 here, so that both say the same.
        match update.payload {
            Payload::Image { bids, asks, trusted } => {
                book(IMAGE, &Head { p: 0, to_ns: 0, ..*head }, bids, asks, trusted, out);
            }
            Payload::Delta { bids, asks } => {
                book(DELTA, head, bids, asks, [None, None], out);
            }
            Payload::Bbo { bid, ask } => {
                let head = Head { p: 0, ..*head };
                book(BBO, &head, bid.as_slice(), ask.as_slice(), [None, None], out);
            }
            Payload::Trades { trades, lost } => {
                let bytes = TRADES_HEAD_BYTES + trades.len() * TRADE_BYTES;
                record(TRADES, &Head { te_ns: 0, q: None, ..*head }, bytes, out);
                put_u32(trades.len() as u32, out);
                // Where it does not fit, s - p says it.
                put_u32(u32::try_from(lost).unwrap_or(u32::MAX), out);
                for one in trades {
                    out.extend_from_slice(&trade(one));
                }
            }
            Payload::State { why, since_ns } => {
                let told = Head { state: head.state, epoch: head.epoch, ..Head::NONE };
                let reason = why.name().as_bytes();
                let bytes = (STATE_HEAD_BYTES + reason.len()).next_multiple_of(ALIGNMENT);
                record(STATE, &Head { view: head.view, ..told }, bytes, out);
                put_u64(since_ns, out);
                put_u32(reason.len() as u32, out);
                out.extend_from_slice(reason);
                out.resize(out.len() + bytes - STATE_HEAD_BYTES - reason.len(), 0);
            }
            Payload::Stats(report) => {
                record(STATS, &Head::NONE, STATS_BYTES, out);
                for number in [
                    report.every_ms,
                    report.p50_us,
                    report.p99_us,
                    report.max_us,
                    report.sent,
                    report.merged,
                    report.late,
                    report.late_gateway,
                    report.late_client,
                    // The bits of an i64, as the others are: none of them grows beyond one.
                    report.feed_age_p50_us.cast_unsigned(),
                    report.unsent_bytes,
                    0,
                ] {
                    put_u64(number, out);
                }
            }
        }
    }

    fn separator(&self) -> &'static [u8] {
        b""
    }

    fn frame_head(&self, head: &FrameHead<'_>, out: &mut Vec<u8>) {
        let late = head.late.iter().fold(0u64, |bits, index| {
            bits | 1u64.checked_shl(u32::from(*index)).unwrap_or_default()
        });
        let mut bytes = [0; FRAME_HEAD_BYTES];
        bytes[0..2].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[2] = VERSION;
        bytes[4..6].copy_from_slice(&(head.count as u16).to_le_bytes());
        bytes[8..16].copy_from_slice(&head.n.to_le_bytes());
        bytes[16..24].copy_from_slice(&head.ts_ns.to_le_bytes());
        bytes[24..32].copy_from_slice(&late.to_le_bytes());
        out.extend_from_slice(&bytes);
    }

    fn frame_tail(&self) -> &'static [u8] {
        b""
    }
}

fn put_u32(value: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_u64(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Begins a record that has so many bytes behind its head.
fn record(kind: u8, head: &Head, bytes: usize, out: &mut Vec<u8>) {
    let length = RECORD_HEAD_BYTES + bytes;
    out.reserve(length);
    let mut record = [0; RECORD_HEAD_BYTES];
    record[0..4].copy_from_slice(&(length as u32).to_le_bytes());
    record[4] = kind;
    record[5] = head.state as u8;
    record[6..8].copy_from_slice(&flags(head).to_le_bytes());
    record[8..12].copy_from_slice(&head.view.unwrap_or_default().to_le_bytes());
    record[12..16].copy_from_slice(&head.epoch.to_le_bytes());
    record[16..24].copy_from_slice(&head.s.to_le_bytes());
    record[24..32].copy_from_slice(&head.p.to_le_bytes());
    record[32..40].copy_from_slice(&head.te_ns.to_le_bytes());
    record[40..48].copy_from_slice(&head.tr_ns.to_le_bytes());
    record[48..56].copy_from_slice(&head.to_ns.to_le_bytes());
    record[56..64].copy_from_slice(&head.q.unwrap_or_default().to_le_bytes());
    out.extend_from_slice(&record);
}

fn flags(head: &Head) -> u16 {
    let Scales { px, qty } = head.scales;
    let mut flags = u16::from(px & 15) << PX_SCALE_SHIFT | u16::from(qty & 15) << QTY_SCALE_SHIFT;
    if head.q.is_some() {
        flags |= FLAG_SEQUENCE;
    }
    if px > 15 {
        flags |= FLAG_PX_SCALE_16;
    }
    if qty > 15 {
        flags |= FLAG_QTY_SCALE_16;
    }
    flags
}

fn book(
    kind: u8,
    head: &Head,
    bids: &[Level],
    asks: &[Level],
    trusted: [Option<usize>; 2],
    out: &mut Vec<u8>,
) {
    record(kind, head, BOOK_HEAD_BYTES + (bids.len() + asks.len()) * LEVEL_BYTES, out);
    put_u32(bids.len() as u32, out);
    put_u32(asks.len() as u32, out);
    for levels in trusted {
        put_u32(levels.map_or(ALL_LEVELS, |levels| levels as u32), out);
    }
    for level in bids.iter().chain(asks) {
        let mut bytes = [0; LEVEL_BYTES];
        bytes[0..8].copy_from_slice(&level.px.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&level.qty.0.to_le_bytes());
        out.extend_from_slice(&bytes);
    }
}

fn trade(trade: &Trade) -> [u8; TRADE_BYTES] {
    let id = match trade.id {
        TradeId::Number(id) => id,
        TradeId::Text(_) => 0,
    };
    let mut bytes = [0; TRADE_BYTES];
    bytes[0..8].copy_from_slice(&trade.te_ns.to_le_bytes());
    bytes[8..16].copy_from_slice(&trade.px.0.to_le_bytes());
    bytes[16..24].copy_from_slice(&trade.qty.0.to_le_bytes());
    bytes[24..32].copy_from_slice(&id.to_le_bytes());
    bytes[32] = match trade.aggressor {
        Aggressor::Unknown => 0,
        Aggressor::Buy => 1,
        Aggressor::Sell => 2,
    };
    bytes
}

/// Why bytes are no frame of `tickfan.bin.v1`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the message of each names its fields")]
pub enum Malformed {
    #[error("a frame begins with {FRAME_HEAD_BYTES} bytes; {came} came")]
    NoFrameHead { came: usize },
    #[error("a frame begins with the number {MAGIC:#06x}; {came:#06x} came")]
    Magic { came: u16 },
    #[error("expected version {VERSION} of the frame; version {came} came")]
    Version { came: u8 },
    #[error("a frame has at most {RECORDS_MAX} updates; this one says {came}")]
    TooMany { came: u16 },
    #[error("update {index} begins with {RECORD_HEAD_BYTES} bytes; {came} are left")]
    NoRecordHead { index: u16, came: usize },
    #[error(
        "the length of update {index} is at least {RECORD_HEAD_BYTES} and a multiple of \
         {ALIGNMENT}; {came} came"
    )]
    Length { index: u16, came: u32 },
    #[error("update {index} is {expected} bytes long; {came} are left")]
    Cut { index: u16, expected: u32, came: usize },
    #[error("what update {index} says it holds takes {expected} bytes; its length is {came}")]
    Content { index: u16, expected: u64, came: usize },
    #[error("a state is a number below {}; {came} came in update {index}", State::ALL.len())]
    State { index: u16, came: u8 },
    #[error("a scale is at most {SCALE_MAX}; {came} came in update {index}")]
    Scale { index: u16, came: u8 },
    #[error("a side of a best bid and offer has at most one level; {came} came in update {index}")]
    Side { index: u16, came: u32 },
    #[error("the reason of a state is UTF-8; that of update {index} is not")]
    Reason { index: u16 },
    #[error("the frame ends with its last update; {came} bytes follow")]
    Trailing { came: usize },
}

/// A data frame, read in place.
#[derive(Debug, Clone, Copy)]
pub struct RawFrame<'a> {
    /// The running number.
    pub n: u64,
    /// The send time.
    pub ts_ns: Nanos,
    /// Bit i: update i is over its budget.
    pub late: u64,
    count: u16,
    records: &'a [u8],
}

/// The updates of a frame, in order; it ends after the first that cannot be read.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    index: u16,
    count: u16,
    left: &'a [u8],
}

/// One update, read in place.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// What it says of itself.
    pub head: Head,
    /// What it carries.
    pub content: Content<'a>,
}

/// What an update carries, as [`Payload`] has it for the gateway.
#[derive(Debug, Clone, Copy)]
pub enum Content<'a> {
    /// A whole book, best first.
    Image {
        /// The bids.
        bids: Levels<'a>,
        /// The asks.
        asks: Levels<'a>,
        /// How many of each may be relied on, where the venue's own image was cut.
        trusted: [Option<usize>; 2],
    },
    /// A change of a book; quantity 0 removes.
    Delta {
        /// Changes of the bids.
        bids: Levels<'a>,
        /// Changes of the asks.
        asks: Levels<'a>,
    },
    /// The best bid and offer, whole.
    Bbo {
        /// The best bid.
        bid: Option<Level>,
        /// The best offer.
        ask: Option<Level>,
    },
    /// Trades, oldest first.
    Trades {
        /// The trades.
        trades: Trades<'a>,
        /// Trades that were lost before these.
        lost: u64,
    },
    /// A change of state.
    State {
        /// Its reason, in the words of the protocol.
        why: &'a str,
        /// Since when it holds.
        since_ns: Nanos,
    },
    /// How the connection is served.
    Stats(StatsReport),
    /// A kind that this version does not know.
    Unknown,
}

/// Levels in place.
#[derive(Debug, Clone, Copy)]
pub struct Levels<'a>(&'a [[u8; LEVEL_BYTES]]);

/// Trades in place.
#[derive(Debug, Clone, Copy)]
pub struct Trades<'a>(&'a [[u8; TRADE_BYTES]]);

impl<'a> RawFrame<'a> {
    /// Reads the head of a frame; the updates are read when they are asked for.
    ///
    /// # Errors
    /// [`Malformed`] when it is none.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (head, records) = bytes
            .split_first_chunk::<FRAME_HEAD_BYTES>()
            .ok_or(Malformed::NoFrameHead { came: bytes.len() })?;
        let magic = u16_at(head, 0);
        if magic != MAGIC {
            return Err(Malformed::Magic { came: magic });
        }
        if head[2] != VERSION {
            return Err(Malformed::Version { came: head[2] });
        }
        let count = u16_at(head, 4);
        if usize::from(count) > RECORDS_MAX {
            return Err(Malformed::TooMany { came: count });
        }
        let (n, ts_ns, late) = (u64_at(head, 8), u64_at(head, 16), u64_at(head, 24));
        Ok(Self { n, ts_ns, late, count, records })
    }

    /// The updates.
    pub const fn records(&self) -> Records<'a> {
        Records { index: 0, count: self.count, left: self.records }
    }

    /// The frame as clients of every encoding read it. Its worst overrun and trade ids that are no
    /// numbers are not in this encoding.
    ///
    /// # Errors
    /// [`Malformed`] when an update cannot be read.
    pub fn received(&self) -> Result<Frame, Malformed> {
        Ok(Frame {
            n: self.n,
            ts: self.ts_ns / NANOS_PER_MICRO,
            late: (0..RECORDS_MAX as u16).filter(|index| self.late >> index & 1 == 1).collect(),
            late_us: 0,
            u: self
                .records()
                .map(|record| record.map(|record| record.received()))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index == self.count {
            let came = std::mem::take(&mut self.left).len();
            return (came > 0).then_some(Err(Malformed::Trailing { came }));
        }
        let record = self.record();
        if record.is_err() {
            self.index = self.count;
            self.left = &[];
        } else {
            self.index += 1;
        }
        Some(record)
    }
}

impl<'a> Records<'a> {
    fn record(&mut self) -> Result<Record<'a>, Malformed> {
        let (index, came) = (self.index, self.left.len());
        let (head, rest) = self
            .left
            .split_first_chunk::<RECORD_HEAD_BYTES>()
            .ok_or(Malformed::NoRecordHead { index, came })?;
        let length = u32_at(head, 0);
        let content_bytes = match (length as usize).checked_sub(RECORD_HEAD_BYTES) {
            Some(bytes) if bytes % ALIGNMENT == 0 => bytes,
            _ => return Err(Malformed::Length { index, came: length }),
        };
        let (content, left) = rest.split_at_checked(content_bytes).ok_or(Malformed::Cut {
            index,
            expected: length,
            came,
        })?;
        self.left = left;
        Reading { index, head, content }.record()
    }
}

/// A record that is there as long as it says.
struct Reading<'a> {
    index: u16,
    head: &'a [u8; RECORD_HEAD_BYTES],
    content: &'a [u8],
}

impl<'a> Reading<'a> {
    fn record(&self) -> Result<Record<'a>, Malformed> {
        let content = match self.head[4] {
            IMAGE => {
                let (bids, asks, trusted) = self.book()?;
                Content::Image { bids, asks, trusted }
            }
            DELTA => {
                let (bids, asks, _) = self.book()?;
                Content::Delta { bids, asks }
            }
            BBO => {
                let (bids, asks, _) = self.book()?;
                Content::Bbo { bid: self.best(bids)?, ask: self.best(asks)? }
            }
            TRADES => self.trades()?,
            STATE => self.state()?,
            STATS => self.stats()?,
            // What it means by its head, only its version knows.
            _ => return Ok(Record { head: Head::NONE, content: Content::Unknown }),
        };
        Ok(Record { head: self.head()?, content })
    }

    fn head(&self) -> Result<Head, Malformed> {
        let (index, head) = (self.index, self.head);
        let came = head[5];
        let state = State::ALL.get(usize::from(came)).ok_or(Malformed::State { index, came })?;
        let flags = u16_at(head, 6);
        let scale = |shift: u16, sixteen: u16| {
            let more = if flags & sixteen == 0 { 0 } else { 16 };
            match (flags >> shift & 15) as u8 + more {
                scale if scale <= SCALE_MAX => Ok(scale),
                came => Err(Malformed::Scale { index, came }),
            }
        };
        let view = u32_at(head, 8);
        Ok(Head {
            view: (view != 0).then_some(view),
            state: *state,
            epoch: u32_at(head, 12),
            s: u64_at(head, 16),
            p: u64_at(head, 24),
            q: (flags & FLAG_SEQUENCE != 0).then(|| u64_at(head, 56)),
            te_ns: u64_at(head, 32),
            tr_ns: u64_at(head, 40),
            to_ns: u64_at(head, 48),
            scales: Scales {
                px: scale(PX_SCALE_SHIFT, FLAG_PX_SCALE_16)?,
                qty: scale(QTY_SCALE_SHIFT, FLAG_QTY_SCALE_16)?,
            },
        })
    }

    /// The first bytes of the content, and the rest.
    fn split<const N: usize>(&self) -> Result<(&'a [u8; N], &'a [u8]), Malformed> {
        self.content.split_first_chunk::<N>().ok_or_else(|| self.wrong(N as u64))
    }

    /// The content should be so long.
    fn wrong(&self, content_bytes: u64) -> Malformed {
        Malformed::Content {
            index: self.index,
            expected: RECORD_HEAD_BYTES as u64 + content_bytes,
            came: RECORD_HEAD_BYTES + self.content.len(),
        }
    }

    fn book(&self) -> Result<(Levels<'a>, Levels<'a>, [Option<usize>; 2]), Malformed> {
        let (head, rest) = self.split::<BOOK_HEAD_BYTES>()?;
        let (bids, asks) = (u32_at(head, 0), u32_at(head, 4));
        let levels = rest.as_chunks::<LEVEL_BYTES>();
        let count = u64::from(bids) + u64::from(asks);
        if levels.0.len() as u64 != count || !levels.1.is_empty() {
            return Err(self.wrong(BOOK_HEAD_BYTES as u64 + count * LEVEL_BYTES as u64));
        }
        let (bids, asks) = levels.0.split_at(bids as usize);
        let trusted = [8, 12].map(|at| match u32_at(head, at) {
            ALL_LEVELS => None,
            levels => Some(levels as usize),
        });
        Ok((Levels(bids), Levels(asks), trusted))
    }

    fn best(&self, side: Levels<'a>) -> Result<Option<Level>, Malformed> {
        match side.len() {
            0 | 1 => Ok(side.iter().next()),
            came => Err(Malformed::Side { index: self.index, came: came as u32 }),
        }
    }

    fn trades(&self) -> Result<Content<'a>, Malformed> {
        let (head, rest) = self.split::<TRADES_HEAD_BYTES>()?;
        let count = u64::from(u32_at(head, 0));
        let trades = rest.as_chunks::<TRADE_BYTES>();
        if trades.0.len() as u64 != count || !trades.1.is_empty() {
            return Err(self.wrong(TRADES_HEAD_BYTES as u64 + count * TRADE_BYTES as u64));
        }
        let lost = match u32_at(head, 4) {
            u32::MAX => u64_at(self.head, 16).saturating_sub(u64_at(self.head, 24)),
            lost => u64::from(lost),
        };
        Ok(Content::Trades { trades: Trades(trades.0), lost })
    }

    fn state(&self) -> Result<Content<'a>, Malformed> {
        let (head, rest) = self.split::<STATE_HEAD_BYTES>()?;
        let reason_bytes = u32_at(head, 8) as usize;
        let content_bytes = (STATE_HEAD_BYTES as u64 + reason_bytes as u64).next_multiple_of(8);
        if content_bytes != self.content.len() as u64 {
            return Err(self.wrong(content_bytes));
        }
        let why = str::from_utf8(&rest[..reason_bytes])
            .map_err(|_| Malformed::Reason { index: self.index })?;
        Ok(Content::State { why, since_ns: u64_at(head, 0) })
    }

    fn stats(&self) -> Result<Content<'a>, Malformed> {
        let (numbers, rest) = self.split::<STATS_BYTES>()?;
        if !rest.is_empty() {
            return Err(self.wrong(STATS_BYTES as u64));
        }
        let number = |i: usize| u64_at(numbers, i * 8);
        Ok(Content::Stats(StatsReport {
            every_ms: number(0),
            p50_us: number(1),
            p99_us: number(2),
            max_us: number(3),
            sent: number(4),
            merged: number(5),
            late: number(6),
            late_gateway: number(7),
            late_client: number(8),
            feed_age_p50_us: number(9).cast_signed(),
            unsent_bytes: number(10),
        }))
    }
}

impl Record<'_> {
    /// The update as clients of every encoding read it.
    pub fn received(&self) -> Received {
        let Head { view: v, epoch: e, s, p, q, scales, .. } = self.head;
        let time = |time_ns: Nanos| (time_ns != 0).then_some(time_ns / NANOS_PER_MICRO);
        let [te, tr, to] = [self.head.te_ns, self.head.tr_ns, self.head.to_ns].map(time);
        let state = self.head.state.name().to_owned();
        match self.content {
            Content::Image { bids, asks, trusted } => Received::Image {
                v,
                e,
                s,
                q,
                te,
                tr,
                state,
                b: bids.text(scales),
                a: asks.text(scales),
                trusted: (trusted != [None, None])
                    .then(|| (trusted[0].unwrap_or(bids.len()), trusted[1].unwrap_or(asks.len()))),
            },
            Content::Delta { bids, asks } => {
                let (b, a) = (bids.text(scales), asks.text(scales));
                Received::Delta { v, s, p, q, te, tr, to, b, a }
            }
            Content::Bbo { bid, ask } => {
                let [b, a] = [bid, ask].map(|best| best.map(|best| level_text(best, scales)));
                Received::Bbo { v, s, q, te, tr, to, b, a }
            }
            Content::Trades { trades, lost } => {
                let x = trades.iter().map(|trade| trade_text(&trade, scales)).collect();
                Received::Trades { v, s, p, lost, tr, to, x }
            }
            Content::State { why, since_ns } => {
                let since = since_ns / NANOS_PER_MICRO;
                Received::State { v, e, state, why: why.to_owned(), since }
            }
            Content::Stats(report) => Received::Stats(report),
            Content::Unknown => Received::Unknown,
        }
    }
}

impl<'a> Levels<'a> {
    /// How many there are.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// There is none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The levels.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Level> + use<'a> {
        let read = |bytes: &[u8; LEVEL_BYTES]| Level {
            px: Px(u64_at(bytes, 0).cast_signed()),
            qty: Qty(u64_at(bytes, 8).cast_signed()),
        };
        self.0.iter().map(read)
    }

    fn text(&self, scales: Scales) -> Vec<TextLevel> {
        self.iter().map(|level| level_text(level, scales)).collect()
    }
}

impl<'a> Trades<'a> {
    /// How many there are.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// There is none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The trades; where the venue's id is no number, it is 0.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Trade> + use<'a> {
        let read = |bytes: &[u8; TRADE_BYTES]| Trade {
            te_ns: u64_at(bytes, 0),
            px: Px(u64_at(bytes, 8).cast_signed()),
            qty: Qty(u64_at(bytes, 16).cast_signed()),
            id: TradeId::Number(u64_at(bytes, 24)),
            aggressor: match bytes[32] {
                1 => Aggressor::Buy,
                2 => Aggressor::Sell,
                _ => Aggressor::Unknown,
            },
        };
        self.0.iter().map(read)
    }
}

fn decimal_text(mantissa: i64, scale: u8) -> String {
    let mut text = Vec::new();
    write_decimal(mantissa, scale, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

fn level_text(level: Level, scales: Scales) -> TextLevel {
    (decimal_text(level.px.0, scales.px), decimal_text(level.qty.0, scales.qty))
}

fn trade_text(trade: &Trade, scales: Scales) -> TextTrade {
    let aggressor = match trade.aggressor {
        Aggressor::Unknown => "",
        Aggressor::Buy => "buy",
        Aggressor::Sell => "sell",
    };
    let id = match &trade.id {
        TradeId::Number(0) => String::new(),
        TradeId::Number(id) => id.to_string(),
        TradeId::Text(id) => id.as_ref().to_owned(),
    };
    let (px, qty) = (decimal_text(trade.px.0, scales.px), decimal_text(trade.qty.0, scales.qty));
    (trade.te_ns / NANOS_PER_MICRO, px, qty, aggressor.to_owned(), id)
}

/// The `N` bytes at a place that every caller knows to be there.
fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut found = [0; N];
    found.copy_from_slice(&bytes[at..at + N]);
    found
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::market::Why;

    const LEVEL: Level = Level { px: Px(1), qty: Qty(2) };

    fn frame(count: usize, updates: &[Payload<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        Binary.frame_head(&FrameHead { n: 1, ts_ns: 2, count, late: &[], late_ns: 0 }, &mut out);
        for payload in updates {
            Binary.update(&Update { head: Head::NONE, payload: *payload }, &mut out);
        }
        out
    }

    fn read(bytes: &[u8]) -> Result<Frame, Malformed> {
        RawFrame::read(bytes)?.received()
    }

    /// What comes of a frame of one update when some of its bytes are others.
    fn changed(payload: Payload<'_>, at: usize, others: &[u8]) -> Malformed {
        let mut bytes = frame(1, &[payload]);
        bytes[at..at + others.len()].copy_from_slice(others);
        read(&bytes).unwrap_err()
    }

    #[test]
    fn what_is_wrong_is_told_with_what_was_expected() {
        let bbo = Payload::Bbo { bid: Some(LEVEL), ask: Some(LEVEL) };
        let delta = Payload::Delta { bids: &[LEVEL, LEVEL], asks: &[] };
        let trades = Payload::Trades { trades: &[], lost: 1 };
        let state = Payload::State { why: Why::Synced, since_ns: 1 };
        let stats = Payload::Stats(StatsReport::default());
        // Where the head of the first update and its content begin.
        let (head, content) = (FRAME_HEAD_BYTES, FRAME_HEAD_BYTES + RECORD_HEAD_BYTES);
        for (malformed, words) in [
            (read(&[]).unwrap_err(), "a frame begins with 32 bytes; 0 came"),
            (changed(bbo, 0, b"{\""), "a frame begins with the number 0x4654; 0x227b came"),
            (changed(bbo, 2, &[2]), "expected version 1 of the frame; version 2 came"),
            (changed(bbo, 4, &[65]), "a frame has at most 64 updates; this one says 65"),
            (read(&frame(1, &[])).unwrap_err(), "update 0 begins with 64 bytes; 0 are left"),
            (read(&frame(2, &[bbo])[..]).unwrap_err(), "update 1 begins with 64 bytes; 0 are left"),
            (
                read(&frame(1, &[bbo, bbo])).unwrap_err(),
                "the frame ends with its last update; 112 bytes follow",
            ),
            (
                changed(bbo, head, &[60]),
                "the length of update 0 is at least 64 and a multiple of 8; 60 came",
            ),
            (
                changed(bbo, head, &[111]),
                "the length of update 0 is at least 64 and a multiple of 8; 111 came",
            ),
            (changed(bbo, head, &[120]), "update 0 is 120 bytes long; 112 are left"),
            (changed(bbo, head + 5, &[7]), "a state is a number below 7; 7 came in update 0"),
            (changed(bbo, head + 6, &[2, 15]), "a scale is at most 18; 31 came in update 0"),
            (
                changed(bbo, content, &[3]),
                "what update 0 says it holds takes 144 bytes; its length is 112",
            ),
            (
                changed(bbo, content, &[0xff; 8]),
                "what update 0 says it holds takes 137438953520 bytes; its length is 112",
            ),
            (
                changed(delta, head + 4, &[BBO]),
                "a side of a best bid and offer has at most one level; 2 came in update 0",
            ),
            (
                changed(trades, content, &[1]),
                "what update 0 says it holds takes 112 bytes; its length is 72",
            ),
            (
                changed(state, content + 8, &[200]),
                "what update 0 says it holds takes 280 bytes; its length is 88",
            ),
            (
                changed(state, content + 8, &[0xff; 4]),
                "what update 0 says it holds takes 4294967376 bytes; its length is 88",
            ),
            (
                changed(state, content + 12, &[0xff]),
                "the reason of a state is UTF-8; that of update 0 is not",
            ),
            (
                changed(stats, head + 4, &[IMAGE]),
                "what update 0 says it holds takes 80 bytes; its length is 160",
            ),
        ] {
            assert_eq!(malformed.to_string(), words);
        }
    }

    #[test]
    fn what_is_of_the_future_is_passed_over() {
        let mut bytes = frame(2, &[Payload::Bbo { bid: None, ask: None }; 2]);
        // An unknown kind, in a state and with flags that only its version knows.
        bytes[FRAME_HEAD_BYTES + 4..FRAME_HEAD_BYTES + 8].fill(0xff);
        let read = read(&bytes).unwrap();
        assert_eq!(read.u[0], Received::Unknown);
        assert!(matches!(read.u[1], Received::Bbo { b: None, a: None, .. }));
    }

    #[test]
    fn a_loss_that_does_not_fit_is_told_by_the_numbers() {
        let lost = u64::from(u32::MAX) + 1;
        let head = Head { s: lost + 5, p: 5, ..Head::NONE };
        let mut bytes = frame(1, &[]);
        Binary.update(&Update { head, payload: Payload::Trades { trades: &[], lost } }, &mut bytes);
        let read = read(&bytes).unwrap();
        assert!(matches!(read.u[0], Received::Trades { lost: told, .. } if told == lost));
    }

    #[test]
    fn every_update_leaves_the_next_one_aligned() {
        for why in Why::ALL {
            let bytes = frame(1, &[Payload::State { why: *why, since_ns: 1 }]);
            assert_eq!(bytes.len() % ALIGNMENT, 0, "{}", why.name());
        }
        for levels in [&[][..], &[LEVEL], &[LEVEL; 3]] {
            let image = Payload::Image { bids: levels, asks: &[], trusted: [None, None] };
            assert_eq!(frame(1, &[image]).len() % ALIGNMENT, 0);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = read(&bytes);
        }

        /// Behind a good head, whatever may come is read as far as it goes.
        #[test]
        fn no_records_panic(
            count in 0usize..=64,
            kind in 0u8..8,
            length in 0u32..40,
            bytes in proptest::collection::vec(any::<u8>(), 64..512),
        ) {
            let mut frame = frame(count, &[]);
            frame.extend_from_slice(&bytes);
            frame[FRAME_HEAD_BYTES..FRAME_HEAD_BYTES + 4]
                .copy_from_slice(&(64 + length * 8).to_le_bytes());
            frame[FRAME_HEAD_BYTES + 4] = kind;
            let _ = read(&frame);
        }

        #[test]
        fn books_read_back(
            bids in proptest::collection::vec((any::<i64>(), any::<i64>()), 0..20),
            asks in proptest::collection::vec((any::<i64>(), any::<i64>()), 0..20),
            trusted in any::<[Option<u16>; 2]>(),
            scales in (0..=SCALE_MAX, 0..=SCALE_MAX),
            (view, epoch, s, q) in any::<(u32, u32, u64, Option<u64>)>(),
        ) {
            let levels = |side: &[(i64, i64)]| -> Vec<Level> {
                side.iter().map(|(px, qty)| Level { px: Px(*px), qty: Qty(*qty) }).collect()
            };
            let (bids, asks) = (levels(&bids), levels(&asks));
            let trusted = trusted.map(|side| side.map(usize::from));
            let head = Head {
                view: (view != 0).then_some(view),
                epoch,
                s,
                q,
                scales: Scales { px: scales.0, qty: scales.1 },
                ..Head::NONE
            };
            let mut bytes = frame(1, &[]);
            let payload = Payload::Image { bids: &bids, asks: &asks, trusted };
            Binary.update(&Update { head, payload }, &mut bytes);
            let record = RawFrame::read(&bytes).unwrap().records().next().unwrap().unwrap();
            prop_assert_eq!(record.head, head);
            let Content::Image { bids: b, asks: a, trusted: t } = record.content else {
                return Err(TestCaseError::fail("not an image"));
            };
            prop_assert_eq!(b.iter().collect::<Vec<_>>(), bids);
            prop_assert_eq!(a.iter().collect::<Vec<_>>(), asks);
            prop_assert_eq!(t, trusted);
        }
    }
}
