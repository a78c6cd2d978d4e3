//! Bytes of a client's stream → what they say, as fast as a load generator must.
//!
//! Reads only what the peers write, in the order in which they write it: anything else is an error
//! that ends the run, so that a change of a format cannot pass as a measurement.

use memchr::memchr;

use crate::peer::RIVAL_UPDATE_BYTES;

/// The bytes are not what was agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable;

type Scanned<T> = Result<T, Unreadable>;

/// A frame of a server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// Text, binary, close, ping or pong.
    pub(super) opcode: u8,
    /// What it carries.
    pub(super) payload: &'a [u8],
    /// Its bytes, with the header.
    pub(super) bytes: usize,
}

/// The first frame, if it is there whole.
pub(super) fn frame(bytes: &[u8]) -> Scanned<Option<Frame<'_>>> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    // Servers do not mask, and none of them splits a message.
    if first & 0xf0 != 0x80 || second & 0x80 != 0 {
        return Err(Unreadable);
    }
    let (head, length) = match (second, rest) {
        (126, [a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
        (127, [a, b, c, d, e, f, g, h, ..]) => {
            (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]) as usize)
        }
        (126 | 127, _) => return Ok(None),
        (length, _) => (2, usize::from(*length)),
    };
    Ok(bytes.get(head..head + length).map(|payload| Frame {
        opcode: first & 0x0f,
        payload,
        bytes: head + length,
    }))
}

/// A rival's update: its topic and number.
pub(super) fn rival(payload: &[u8]) -> Scanned<(usize, u64)> {
    if payload.len() != RIVAL_UPDATE_BYTES {
        return Err(Unreadable);
    }
    Ok((padded(&payload[5..10])? as usize, padded(&payload[15..35])?))
}

/// A number with spaces before it.
fn padded(field: &[u8]) -> Scanned<u64> {
    let mut value = 0u64;
    for byte in field {
        match byte {
            b' ' => {}
            b'0'..=b'9' => value = value.wrapping_mul(10).wrapping_add(u64::from(byte - b'0')),
            _ => return Err(Unreadable),
        }
    }
    Ok(value)
}

/// What one of the gateway's updates says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Update {
    /// What it is.
    pub(super) kind: Kind,
    /// Of which view.
    pub(super) view: u32,
    /// When the gateway received what is newest in it.
    pub(super) received_us: u64,
    /// When it was sent.
    pub(super) sent_us: u64,
    /// Its bytes, where it is a book's.
    pub(super) bytes: usize,
}

/// The kinds of update that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One trade: its id and price.
    Trade { number: u64, cents: u64 },
    /// Best bid and offer: the venue's number and the bid.
    Bbo { number: u64, cents: u64 },
    /// An image of a book as of this number of the venue.
    Image { number: u64 },
    /// A change of a book up to this number of the venue.
    Delta { number: u64 },
    /// So many trades were lost.
    Lost(u64),
    /// A change of state, statistics.
    Other,
}

/// Reads a data frame in JSON; returns how many updates it marks as late.
pub(super) fn json(payload: &[u8], visit: &mut impl FnMut(Update)) -> Scanned<usize> {
    let mut scan = Scan { bytes: payload };
    scan.eat(b"{\"n\":")?;
    scan.number()?;
    scan.eat(b",\"ts\":")?;
    let sent_us = scan.number()?;
    let mut late = 0;
    if !scan.eats(b",\"u\":[") {
        scan.eat(b",\"late\":[")?;
        late = 1 + scan.skip_past(b']')?.iter().filter(|byte| **byte == b',').count();
        scan.eat(b",\"late_us\":")?;
        scan.number()?;
        scan.eat(b",\"u\":[")?;
    }
    if scan.eats(b"]}") {
        return Ok(late);
    }
    loop {
        scan.update(sent_us, visit)?;
        if !scan.eats(b",") {
            return scan.eat(b"]}").map(|()| late);
        }
    }
}

/// Begins every binary frame.
const MAGIC: &[u8] = &[0x54, 0x46, 1, 0];
const FRAME_HEAD_BYTES: usize = 32;
const RECORD_HEAD_BYTES: usize = 64;
const TRADE_BYTES: usize = 40;

/// Where a record's price scale stands in its flags.
const SCALE_SHIFT: u32 = 8;

/// Reads a binary data frame; returns how many updates it marks as late.
pub(super) fn binary(payload: &[u8], visit: &mut impl FnMut(Update)) -> Scanned<usize> {
    if !payload.starts_with(MAGIC) {
        return Err(Unreadable);
    }
    let sent_us = u64_at(payload, 16)? / 1_000;
    let late = u64_at(payload, 24)?.count_ones() as usize;
    let mut rest = payload.get(FRAME_HEAD_BYTES..).ok_or(Unreadable)?;
    while !rest.is_empty() {
        let length = u32_at(rest, 0)? as usize;
        if length < RECORD_HEAD_BYTES || length > rest.len() {
            return Err(Unreadable);
        }
        let (record, after) = rest.split_at(length);
        rest = after;
        let update = Update {
            kind: Kind::Other,
            view: u32_at(record, 8)?,
            received_us: u64_at(record, 40)? / 1_000,
            sent_us,
            bytes: length,
        };
        let scale = u32_at(record, 4)? >> (16 + SCALE_SHIFT) & 0xf;
        let number = u64_at(record, 56)?;
        let kind = match record[4] {
            1 => Kind::Image { number },
            2 => Kind::Delta { number },
            3 => Kind::Bbo { number, cents: cents(u64_at(record, 80)?, scale)? },
            4 => {
                let lost = u32_at(record, 68)?;
                if lost > 0 {
                    visit(Update { kind: Kind::Lost(u64::from(lost)), ..update });
                }
                for trade in record[RECORD_HEAD_BYTES + 8..].chunks_exact(TRADE_BYTES) {
                    let cents = cents(u64_at(trade, 8)?, scale)?;
                    visit(Update {
                        kind: Kind::Trade { number: u64_at(trade, 24)?, cents },
                        ..update
                    });
                }
                continue;
            }
            _ => continue,
        };
        visit(Update { kind, ..update });
    }
    Ok(late)
}

fn u32_at(bytes: &[u8], at: usize) -> Scanned<u32> {
    let field = bytes.get(at..).and_then(<[u8]>::first_chunk).ok_or(Unreadable)?;
    Ok(u32::from_le_bytes(*field))
}

fn u64_at(bytes: &[u8], at: usize) -> Scanned<u64> {
    let field = bytes.get(at..).and_then(<[u8]>::first_chunk).ok_or(Unreadable)?;
    Ok(u64::from_le_bytes(*field))
}

/// A price in cents.
fn cents(mantissa: u64, scale: u32) -> Scanned<u64> {
    match scale {
        0..=2 => Ok(mantissa * 10u64.pow(2 - scale)),
        _ if mantissa.is_multiple_of(10u64.pow(scale - 2)) => Ok(mantissa / 10u64.pow(scale - 2)),
        _ => Err(Unreadable),
    }
}

/// The rest of a text.
struct Scan<'a> {
    bytes: &'a [u8],
}

impl<'a> Scan<'a> {
    fn eats(&mut self, text: &[u8]) -> bool {
        match self.bytes.strip_prefix(text) {
            Some(rest) => {
                self.bytes = rest;
                true
            }
            None => false,
        }
    }

    fn eat(&mut self, text: &[u8]) -> Scanned<()> {
        if self.eats(text) { Ok(()) } else { Err(Unreadable) }
    }

    /// What stands before a byte; goes past it.
    fn skip_past(&mut self, byte: u8) -> Scanned<&'a [u8]> {
        let at = memchr(byte, self.bytes).ok_or(Unreadable)?;
        let before = &self.bytes[..at];
        self.bytes = &self.bytes[at + 1..];
        Ok(before)
    }

    fn number(&mut self) -> Scanned<u64> {
        let mut value = 0u64;
        let mut at = 0;
        while let Some(digit) = self.bytes.get(at).map(|byte| byte.wrapping_sub(b'0'))
            && digit < 10
        {
            value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
            at += 1;
        }
        self.bytes = &self.bytes[at..];
        if at == 0 { Err(Unreadable) } else { Ok(value) }
    }

    /// A price in quotes, in cents.
    fn cents(&mut self) -> Scanned<u64> {
        self.eat(b"\"")?;
        let whole = self.number()?;
        let mut cents = whole * 100;
        if self.eats(b".") {
            let digits = self.bytes.len();
            let fraction = self.number()?;
            cents += match digits - self.bytes.len() {
                1 => fraction * 10,
                2 => fraction,
                _ => return Err(Unreadable),
            };
        }
        self.eat(b"\"")?;
        Ok(cents)
    }

    fn update(&mut self, sent_us: u64, visit: &mut impl FnMut(Update)) -> Scanned<()> {
        let begin = self.bytes.len();
        self.eat(b"{\"t\":\"")?;
        let kind = self.skip_past(b'"')?;
        let mut update = Update { kind: Kind::Other, view: 0, received_us: 0, sent_us, bytes: 0 };
        let mut number = 0;
        while self.eats(b",\"") {
            let key = self.skip_past(b'"')?;
            self.eat(b":")?;
            match key {
                b"v" => update.view = self.number()? as u32,
                b"tr" => update.received_us = self.number()?,
                b"q" => number = self.number()?,
                b"lost" => visit(Update { kind: Kind::Lost(self.number()?), ..update }),
                b"x" => {
                    self.trades(&update, visit)?;
                    return self.eat(b"}");
                }
                b"b" => {
                    update.kind = match kind {
                        b"bbo" => {
                            self.eat(b"[")?;
                            Kind::Bbo { number, cents: self.cents()? }
                        }
                        b"delta" => Kind::Delta { number },
                        _ => return Err(Unreadable),
                    };
                    break;
                }
                b"state" if kind == b"image" => {
                    update.kind = Kind::Image { number };
                    break;
                }
                b"s" | b"p" | b"to" | b"te" | b"e" => {
                    self.number()?;
                }
                _ => break,
            }
        }
        // No text of this protocol holds a brace.
        self.skip_past(b'}')?;
        update.bytes = begin - self.bytes.len();
        visit(update);
        Ok(())
    }

    fn trades(&mut self, update: &Update, visit: &mut impl FnMut(Update)) -> Scanned<()> {
        self.eat(b"[")?;
        if self.eats(b"]") {
            return Ok(());
        }
        loop {
            self.eat(b"[")?;
            self.number()?;
            self.eat(b",")?;
            let cents = self.cents()?;
            self.eat(b",\"")?;
            self.skip_past(b'"')?;
            if !self.eats(b",\"buy\",\"") {
                self.eat(b",\"sell\",\"")?;
            }
            let number = self.number()?;
            self.eat(b"\"]")?;
            visit(Update { kind: Kind::Trade { number, cents }, ..*update });
            if !self.eats(b",") {
                return self.eat(b"]");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer;

    fn updates(text: &str) -> Scanned<Vec<Update>> {
        let mut updates = Vec::new();
        json(text.as_bytes(), &mut |update| updates.push(update)).map(|_| updates)
    }

    /// A frame around one record of this kind, as the protocol lays it out.
    fn binary_frame(kind: u8, body: &[u64]) -> Vec<u8> {
        let mut frame = MAGIC.to_vec();
        frame.extend([1, 0, 0, 0]);
        for word in [812u64, 950_000, 1] {
            frame.extend(word.to_le_bytes());
        }
        let length = (RECORD_HEAD_BYTES + 8 * body.len()) as u32;
        frame.extend(length.to_le_bytes());
        // Live, `q` known, two digits of price and eight of quantity.
        frame.extend([kind, 1, 0x01, 0x82]);
        frame.extend(5u32.to_le_bytes());
        frame.extend(17u32.to_le_bytes());
        for word in [902u64, 900, 0, 7_000, 8_000, 160] {
            frame.extend(word.to_le_bytes());
        }
        body.iter().for_each(|word| frame.extend(word.to_le_bytes()));
        frame
    }

    #[test]
    fn reads_binary_frames() {
        let read = |frame: &[u8]| {
            let mut updates = Vec::new();
            binary(frame, &mut |update| updates.push(update)).map(|late| (updates, late))
        };
        let two = 2 | 3 << 32;
        let trades = [two, 1, 4_528_350, 9, 12, 1, 2, 4_528_300, 9, 13, 2];
        let (updates, late) = read(&binary_frame(4, &trades)).unwrap();
        assert_eq!(late, 1);
        assert_eq!(
            updates.iter().map(|update| update.kind).collect::<Vec<_>>(),
            [
                Kind::Lost(3),
                Kind::Trade { number: 12, cents: 4_528_350 },
                Kind::Trade { number: 13, cents: 4_528_300 },
            ]
        );
        assert_eq!((updates[1].view, updates[1].received_us, updates[1].sent_us), (5, 7, 950));
        let bbo = binary_frame(3, &[1 | 1 << 32, u64::MAX, 4_528_305, 1, 4_528_306, 1]);
        let (updates, _) = read(&bbo).unwrap();
        assert_eq!(updates[0].kind, Kind::Bbo { number: 160, cents: 4_528_305 });
        assert_eq!(updates[0].bytes, 112);
        assert_eq!(read(&bbo[..100]), Err(Unreadable));
    }

    #[test]
    fn finds_frames_and_waits_for_what_is_missing() {
        let bytes = [0x81, 3, b'a', b'b', b'c', 0x89, 0];
        let found = frame(&bytes).unwrap().unwrap();
        assert_eq!((found.opcode, found.payload, found.bytes), (1, &b"abc"[..], 5));
        assert_eq!(frame(&bytes[5..]).unwrap().unwrap().opcode, 9);
        for cut in 0..5 {
            assert_eq!(frame(&bytes[..cut]), Ok(None));
        }
        assert_eq!(frame(&[0x81, 0x83, 1, 2]), Err(Unreadable));
    }

    #[test]
    fn reads_a_rival_s_update() {
        assert_eq!(rival(&peer::rival_update(7, 12, 345)), Ok((7, 12)));
        assert_eq!(rival(b"short"), Err(Unreadable));
    }

    #[test]
    fn reads_the_gateway_s_updates() {
        let text = r#"{"n":812,"ts":950,"late":[0,1],"late_us":21,"u":[{"t":"trades","v":5,"s":902,"p":900,"tr":7,"to":8,"x":[[1,"45283","0.1","buy","12"],[2,"45283.5","0.1","sell","13"]]},{"t":"bbo","v":4,"s":3,"q":160,"te":1,"tr":9,"to":8,"b":["45283.05","0.1"],"a":null},{"t":"state","v":3,"e":17,"state":"stale","why":"venue_silent","since":5},{"t":"image","v":3,"e":17,"s":1040,"q":157,"tr":4,"state":"live","b":[["45283","0.1"]],"a":[]}]}"#;
        let read = updates(text).unwrap();
        let kinds: Vec<Kind> = read.iter().map(|update| update.kind).collect();
        assert_eq!(
            kinds,
            [
                Kind::Trade { number: 12, cents: 4_528_300 },
                Kind::Trade { number: 13, cents: 4_528_350 },
                Kind::Bbo { number: 160, cents: 4_528_305 },
                Kind::Other,
                Kind::Image { number: 157 },
            ]
        );
        assert_eq!((read[2].view, read[2].received_us, read[2].sent_us), (4, 9, 950));
        assert_eq!(updates(r#"{"n":1,"ts":2,"u":[]}"#), Ok(Vec::new()));
        assert_eq!(updates(&text[..400]), Err(Unreadable));
    }
}
