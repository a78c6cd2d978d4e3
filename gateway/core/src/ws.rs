//! The server side of WebSocket frames (RFC 6455): bytes of a client → messages and control frames,
//! and payload lengths → the headers that go before our own frames.
//!
//! Called by the shard that owns a connection, on its thread: once per read, with what the socket
//! gave, and once per frame that it builds. It never touches a socket, never allocates for bytes
//! that a client has only announced, and keeps no heap for a connection that is between messages.
//! No extension is spoken, so reserved bits are refused.

use std::mem;
use std::str;

use thiserror::Error;

/// The longest header of a server's frame: two bytes and a 64-bit length (§5.2; no masking key).
pub const HEADER_BYTES_MAX: usize = 10;

/// The longest payload of a control frame (§5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// The longest reason of a close frame: what its code leaves of [`CONTROL_BYTES_MAX`] (§5.5.1).
pub const REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;

/// The longest header of a client's frame, which carries a masking key as well.
const CLIENT_HEADER_BYTES_MAX: usize = HEADER_BYTES_MAX + 4;

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
/// In the length field: the length follows in 16 bits, in 64 bits.
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

/// What a frame is (§5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// A further fragment of a message.
    Continuation = 0,
    /// A text message, or its first fragment.
    Text = 1,
    /// A binary message, or its first fragment.
    Binary = 2,
    /// The last frame of its sender.
    Close = 8,
    /// A question whether the other side still answers.
    Ping = 9,
    /// The answer to a ping.
    Pong = 10,
}

impl Opcode {
    const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The header of an unfragmented server frame and how many of the bytes it takes, for a caller that
/// puts it directly before a payload it has already built.
#[inline]
pub fn header(opcode: Opcode, payload_bytes: usize) -> ([u8; HEADER_BYTES_MAX], usize) {
    let mut header = [0; HEADER_BYTES_MAX];
    header[0] = FIN | opcode as u8;
    // §5.2: the shortest form must be used.
    let header_bytes = match payload_bytes {
        0..=125 => {
            header[1] = payload_bytes as u8;
            2
        }
        126..=0xffff => {
            header[1] = LENGTH_16;
            header[2..4].copy_from_slice(&(payload_bytes as u16).to_be_bytes());
            4
        }
        _ => {
            header[1] = LENGTH_64;
            header[2..].copy_from_slice(&(payload_bytes as u64).to_be_bytes());
            HEADER_BYTES_MAX
        }
    };
    (header, header_bytes)
}

/// Appends the header of an unfragmented server frame. A close frame without a code, the answer to
/// a client's, is `write_header(Opcode::Close, 0, out)`.
pub fn write_header(opcode: Opcode, payload_bytes: usize, out: &mut Vec<u8>) {
    let (header, header_bytes) = header(opcode, payload_bytes);
    out.extend_from_slice(&header[..header_bytes]);
}

/// Appends a close frame (§5.5.1). The reason is cut to [`REASON_BYTES_MAX`], between characters.
pub fn write_close(code: u16, reason: &str, out: &mut Vec<u8>) {
    let reason = &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)];
    write_header(Opcode::Close, 2 + reason.len(), out);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

/// Appends a ping (§5.5.2). The payload is cut to [`CONTROL_BYTES_MAX`].
pub fn write_ping(payload: &[u8], out: &mut Vec<u8>) {
    write_control(Opcode::Ping, payload, out);
}

/// Appends a pong (§5.5.3), which repeats the payload of the ping it answers. The payload is cut to
/// [`CONTROL_BYTES_MAX`].
pub fn write_pong(payload: &[u8], out: &mut Vec<u8>) {
    write_control(Opcode::Pong, payload, out);
}

fn write_control(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    let payload = &payload[..payload.len().min(CONTROL_BYTES_MAX)];
    write_header(opcode, payload.len(), out);
    out.extend_from_slice(payload);
}

/// How much a client may send before its message is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest message, all fragments together.
    pub message_bytes_max: usize,
    /// The most frames in which one message may come.
    pub fragments_max: usize,
}

/// What a client has sent: a whole message or a control frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
    /// A ping, whose payload the pong repeats.
    Ping(&'a [u8]),
    /// A pong, asked for or not (§5.5.3 allows both).
    Pong(&'a [u8]),
    /// The client's last word; nothing is read after it.
    Close {
        /// Why, if the client says so.
        code: Option<u16>,
        /// The client's own words, often empty.
        reason: &'a str,
    },
}

impl<'a> Incoming<'a> {
    fn text(payload: &'a [u8]) -> Result<Self, Violation> {
        str::from_utf8(payload).map(Self::Text).map_err(|_| Violation::InvalidText)
    }

    fn close(payload: &'a [u8]) -> Result<Self, Violation> {
        let (code, reason) = match payload {
            [] => return Ok(Self::Close { code: None, reason: "" }),
            [_] => return Err(Violation::HalfCloseCode),
            [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
        };
        if !may_be_sent(code) {
            return Err(Violation::CloseCode(code));
        }
        let reason = str::from_utf8(reason).map_err(|_| Violation::InvalidReason)?;
        Ok(Self::Close { code: Some(code), reason })
    }
}

/// Whether a close code may stand in a frame: those of §7.4.1 that are no mere signals of a local
/// API (1004–1006, 1015), those registered later (1012–1014), and the ranges of §7.4.2.
const fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// How a client broke the protocol or a limit. The connection is to be closed with
/// [`Violation::close_code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Violation {
    /// A reserved bit is set although no extension was agreed (§5.2).
    #[error("expected reserved bits 000, got {0:03b}")]
    ReservedBits(u8),
    /// The opcode is reserved (§5.2).
    #[error("expected opcode 0, 1, 2, 8, 9 or 10, got {0}")]
    UnknownOpcode(u8),
    /// A client has to mask every frame (§5.1).
    #[error("expected a masked frame, got an unmasked one")]
    Unmasked,
    /// A control frame is never fragmented (§5.5).
    #[error("expected a control frame in one piece, got a fragment")]
    FragmentedControl,
    /// The payload of a control frame is longer than [`CONTROL_BYTES_MAX`] (§5.5).
    #[error("expected at most 125 bytes in a control frame, got more")]
    ControlTooLong,
    /// The length would have fitted a shorter field (§5.2).
    #[error("expected the shortest form of length {0}, got a longer one")]
    LengthNotMinimal(u64),
    /// The top bit of a 64-bit length is set (§5.2).
    #[error("expected a length below 2^63, got {0}")]
    LengthTopBit(u64),
    /// A continuation came while no message was open (§5.4).
    #[error("expected the start of a message, got a continuation")]
    ContinuationFirst,
    /// A message began before the one that was open had ended (§5.4).
    #[error("expected a continuation, got the start of a message")]
    MessageInMessage,
    /// A header announced more than [`Limits::message_bytes_max`] allows.
    #[error("expected a message of at most {0} bytes, got a longer one")]
    MessageTooLong(usize),
    /// A message came in more frames than [`Limits::fragments_max`] allows.
    #[error("expected a message of at most {0} fragments, got more")]
    TooManyFragments(usize),
    /// A text message is not UTF-8 (§8.1).
    #[error("expected text in UTF-8, got other bytes")]
    InvalidText,
    /// The payload of a close frame is one byte long (§5.5.1).
    #[error("expected a close code of 2 bytes, got 1 byte")]
    HalfCloseCode,
    /// The close code must not stand in a frame (§7.4).
    #[error("expected a close code that may be sent, got {0}")]
    CloseCode(u16),
    /// The reason of a close frame is not UTF-8 (§5.5.1).
    #[error("expected a close reason in UTF-8, got other bytes")]
    InvalidReason,
}

impl Violation {
    /// The code of the close frame that answers this violation (§7.4.1).
    pub const fn close_code(self) -> u16 {
        match self {
            Self::ReservedBits(_)
            | Self::UnknownOpcode(_)
            | Self::Unmasked
            | Self::FragmentedControl
            | Self::ControlTooLong
            | Self::LengthNotMinimal(_)
            | Self::LengthTopBit(_)
            | Self::ContinuationFirst
            | Self::MessageInMessage
            | Self::HalfCloseCode
            | Self::CloseCode(_) => 1002,
            Self::InvalidText | Self::InvalidReason => 1007,
            Self::TooManyFragments(_) => 1008,
            Self::MessageTooLong(_) => 1009,
        }
    }
}

/// Finds the messages and control frames in the bytes of one client, however they were cut.
///
/// A frame that lies whole in the input is unmasked and given out there. Only what is incomplete at
/// the end of the input, or belongs to a fragmented message, is copied and kept: at most
/// [`Limits::message_bytes_max`] and one control frame.
#[derive(Debug, Default)]
pub struct Reader {
    stage: Stage,
    /// The open message, from its first header to its last byte.
    message: Option<Message>,
    /// What has come of the open message, then what has come of a control frame; all unmasked.
    buffer: Vec<u8>,
}

impl Reader {
    /// Takes the next message or control frame off the front of `input`, the bytes that were read
    /// from the socket. Call it until it returns `None`: then all input has been taken, and what the
    /// last call gave out is freed. After a close frame or a violation the rest is thrown away.
    ///
    /// # Errors
    /// A [`Violation`], as early as the bytes show it: the length of a message is judged by its
    /// header, and text before its frame is complete.
    pub fn next<'r, 'i: 'r>(
        &'r mut self,
        input: &mut &'i mut [u8],
        limits: &Limits,
    ) -> Result<Option<Incoming<'r>>, Violation> {
        self.release();
        let Some(whole) = self.gather(input, limits)? else { return Ok(None) };
        let Whole { opcode, in_input } = whole;
        let start = self.payload_start(opcode);
        let payload = match in_input {
            Some(payload) => payload,
            None => &self.buffer[start..],
        };
        let incoming = match opcode {
            Opcode::Close => return Incoming::close(payload).map(Some),
            Opcode::Ping => Incoming::Ping(payload),
            Opcode::Pong => Incoming::Pong(payload),
            Opcode::Text | Opcode::Binary | Opcode::Continuation => match self.message.take() {
                Some(Message { is_text: true, .. }) => Incoming::text(payload)?,
                _ => Incoming::Binary(payload),
            },
        };
        self.stage = Stage::default();
        Ok(Some(incoming))
    }

    /// The heap that this connection holds: nothing between messages, otherwise about twice, at
    /// most, what has really come of the open message and a control frame.
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Nothing has come of the next frame, and no message is open: a new reader would do as well.
    pub fn is_between_messages(&self) -> bool {
        matches!(self.stage, Stage::Header(PartialHeader { len: 0, .. })) && self.message.is_none()
    }

    /// Frees what the last call gave out.
    fn release(&mut self) {
        match self.stage {
            Stage::Payload(_) => return,
            Stage::Header(_) => {}
            Stage::Closed => self.message = None,
        }
        self.buffer.truncate(self.message_bytes());
        if self.buffer.is_empty() {
            self.buffer = Vec::new();
        }
    }

    /// Reads until a message or a control frame is complete.
    ///
    /// That, like a violation, leaves the stage at `Closed`: the caller moves on from there once it
    /// has found the payload good, too.
    fn gather<'i>(
        &mut self,
        input: &mut &'i mut [u8],
        limits: &Limits,
    ) -> Result<Option<Whole<'i>>, Violation> {
        let mut stage = mem::replace(&mut self.stage, Stage::Closed);
        loop {
            let mut frame = match stage {
                Stage::Header(mut partial) => match partial.complete(input)? {
                    Some(frame) => {
                        self.admit(&frame, limits)?;
                        frame
                    }
                    None => {
                        self.stage = Stage::Header(partial);
                        return Ok(None);
                    }
                },
                Stage::Payload(frame) => frame,
                Stage::Closed => {
                    *input = &mut [];
                    return Ok(None);
                }
            };
            let payload = frame.take_payload(input);
            let frame_ends = frame.missing_bytes == 0;
            let ends = frame_ends && frame.fin;
            if ends && self.buffer.len() == self.payload_start(frame.opcode) {
                return Ok(Some(Whole { opcode: frame.opcode, in_input: Some(payload) }));
            }
            self.buffer.extend_from_slice(payload);
            if ends {
                return Ok(Some(Whole { opcode: frame.opcode, in_input: None }));
            }
            if !frame.opcode.is_control() {
                self.extend_message(payload.len())?;
            }
            if !frame_ends {
                self.stage = Stage::Payload(frame);
                return Ok(None);
            }
            stage = Stage::default();
        }
    }

    /// Checks a header against the open message and the limits, and opens a message.
    fn admit(&mut self, frame: &Frame, limits: &Limits) -> Result<(), Violation> {
        if frame.opcode.is_control() {
            return Ok(());
        }
        let message = match (&mut self.message, frame.opcode) {
            (Some(message), Opcode::Continuation) => message,
            (None, Opcode::Continuation) => return Err(Violation::ContinuationFirst),
            (Some(_), _) => return Err(Violation::MessageInMessage),
            (none, opcode) => none.insert(Message::new(opcode == Opcode::Text)),
        };
        // The length first: of a message that breaks both limits it is what matters.
        let left_bytes = limits.message_bytes_max.saturating_sub(message.bytes);
        if frame.missing_bytes > left_bytes as u64 {
            return Err(Violation::MessageTooLong(limits.message_bytes_max));
        }
        message.fragments = message.fragments.saturating_add(1);
        if message.fragments as usize > limits.fragments_max {
            return Err(Violation::TooManyFragments(limits.fragments_max));
        }
        Ok(())
    }

    /// Counts `added_bytes` at the end of the buffer to the open message; text is checked up to its
    /// last character, which the next bytes may complete.
    fn extend_message(&mut self, added_bytes: usize) -> Result<(), Violation> {
        let Some(message) = &mut self.message else { return Ok(()) };
        if message.is_text {
            let unchecked = &self.buffer[message.bytes - usize::from(message.cut_bytes)..];
            message.cut_bytes = match str::from_utf8(unchecked) {
                Ok(_) => 0,
                Err(e) if e.error_len().is_none() => (unchecked.len() - e.valid_up_to()) as u8,
                Err(_) => return Err(Violation::InvalidText),
            };
        }
        message.bytes += added_bytes;
        Ok(())
    }

    /// Where in the buffer the payload of a control frame, or a message, starts.
    fn payload_start(&self, opcode: Opcode) -> usize {
        if opcode.is_control() { self.message_bytes() } else { 0 }
    }

    fn message_bytes(&self) -> usize {
        self.message.as_ref().map_or(0, |message| message.bytes)
    }
}

/// Where in the stream a reader stands.
#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Before or inside a header.
    Header(PartialHeader),
    /// Inside the payload of a frame.
    Payload(Frame),
    /// Behind a close frame or a violation.
    Closed,
}

impl Default for Stage {
    fn default() -> Self {
        Self::Header(PartialHeader::default())
    }
}

/// A message or a control frame that has come to its end.
struct Whole<'i> {
    /// The opcode of its last frame.
    opcode: Opcode,
    /// The payload if it lies whole in the input; otherwise it is at the end of the buffer.
    in_input: Option<&'i [u8]>,
}

/// A message of which something is still to come.
#[derive(Debug)]
struct Message {
    is_text: bool,
    /// How many of its bytes, at the end, are the beginning of a character.
    cut_bytes: u8,
    fragments: u32,
    /// How many of its bytes are in the buffer.
    bytes: usize,
}

impl Message {
    const fn new(is_text: bool) -> Self {
        Self { is_text, cut_bytes: 0, fragments: 0, bytes: 0 }
    }
}

/// What has come of a header.
#[derive(Debug, Clone, Copy, Default)]
struct PartialHeader {
    bytes: [u8; CLIENT_HEADER_BYTES_MAX],
    len: u8,
}

impl PartialHeader {
    /// Takes the rest of the header off the front of the input, or all input if that is not enough.
    fn complete(&mut self, input: &mut &mut [u8]) -> Result<Option<Frame>, Violation> {
        let old = usize::from(self.len);
        let new = input.len().min(self.bytes.len() - old);
        self.bytes[old..old + new].copy_from_slice(&input[..new]);
        let Some((frame, header_bytes)) = Frame::parse(&self.bytes[..old + new])? else {
            self.len += new as u8;
            take_front(input, new);
            return Ok(None);
        };
        take_front(input, header_bytes - old);
        Ok(Some(frame))
    }
}

/// A frame whose header has been read.
#[derive(Debug, Clone, Copy)]
struct Frame {
    opcode: Opcode,
    /// No further fragment follows; always so with a control frame.
    fin: bool,
    /// The masking key, turned so that its first byte is that of the next byte of payload.
    mask: [u8; 4],
    /// How many bytes of the payload are still to come.
    missing_bytes: u64,
}

impl Frame {
    /// Reads a header (§5.2) at the front of `bytes`, and how long it is; `None` when it is cut.
    /// Checks all that a header shows by itself, in the order of its bytes.
    fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Violation> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        let reserved = (first >> 4) & 0b111;
        if reserved != 0 {
            return Err(Violation::ReservedBits(reserved));
        }
        let bits = first & 0x0f;
        let opcode = Opcode::from_bits(bits).ok_or(Violation::UnknownOpcode(bits))?;
        let fin = first & FIN != 0;
        if second & MASKED == 0 {
            return Err(Violation::Unmasked);
        }
        let length = second & !MASKED;
        if opcode.is_control() && !fin {
            return Err(Violation::FragmentedControl);
        }
        if opcode.is_control() && usize::from(length) > CONTROL_BYTES_MAX {
            return Err(Violation::ControlTooLong);
        }
        let (payload_bytes, payload_bytes_min, rest) = match length {
            LENGTH_16 => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), 126, rest),
                None => return Ok(None),
            },
            LENGTH_64 => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from_be_bytes(*length), 0x1_0000, rest),
                None => return Ok(None),
            },
            _ => (u64::from(length), 0, rest),
        };
        if payload_bytes < payload_bytes_min {
            return Err(Violation::LengthNotMinimal(payload_bytes));
        }
        if payload_bytes >> 63 != 0 {
            return Err(Violation::LengthTopBit(payload_bytes));
        }
        let Some((mask, rest)) = rest.split_first_chunk() else { return Ok(None) };
        let frame = Self { opcode, fin, mask: *mask, missing_bytes: payload_bytes };
        Ok(Some((frame, bytes.len() - rest.len())))
    }

    /// Takes what there is of the payload off the front of the input, and unmasks it there (§5.3).
    fn take_payload<'i>(&mut self, input: &mut &'i mut [u8]) -> &'i mut [u8] {
        let taken = self.missing_bytes.min(input.len() as u64);
        let payload = take_front(input, taken as usize);
        for (i, byte) in payload.iter_mut().enumerate() {
            *byte ^= self.mask[i % 4];
        }
        self.mask.rotate_left(payload.len() % 4);
        self.missing_bytes -= taken;
        payload
    }
}

fn take_front<'i>(input: &mut &'i mut [u8], bytes: usize) -> &'i mut [u8] {
    let (front, rest) = mem::take(input).split_at_mut(bytes);
    *input = rest;
    front
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { message_bytes_max: 4096, fragments_max: 16 };
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    /// What came out of a stream: everything read, as text, and how it ended.
    type Outcome = (Vec<String>, Option<Violation>);

    /// Reads the pieces one after the other, each in a scratch of its own as from a socket.
    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
        let mut reader = Reader::default();
        let mut seen = Vec::new();
        for piece in pieces {
            let mut scratch = piece.to_vec();
            let mut input = &mut scratch[..];
            loop {
                match reader.next(&mut input, &LIMITS) {
                    Ok(Some(incoming)) => seen.push(format!("{incoming:?}")),
                    Ok(None) => break,
                    Err(violation) => return (seen, Some(violation)),
                }
            }
            assert!(input.is_empty(), "input was left behind");
            let held_max = 2 * (LIMITS.message_bytes_max + CONTROL_BYTES_MAX);
            assert!(reader.buffered_bytes() <= held_max, "{} bytes", reader.buffered_bytes());
        }
        (seen, None)
    }

    /// The bytes of a client's frame with `first` as its first byte.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let (header, header_bytes) = header(Opcode::Text, payload.len());
        let mut out = header[..header_bytes].to_vec();
        out[0] = first;
        out[1] |= MASKED;
        out.extend_from_slice(&MASK);
        out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
        out
    }

    fn close(code: u16, reason: &[u8]) -> Vec<u8> {
        frame(0x88, &[&code.to_be_bytes(), reason].concat())
    }

    /// A client's frame whose length stands in a field of our choice.
    fn with_length(first: u8, length: &[u8], payload: &[u8]) -> Vec<u8> {
        let rest = frame(first, payload)[2..].to_vec();
        [&[first], length, &rest].concat()
    }

    /// A name, what the client sends, what comes out, and the close code that a violation leads to.
    type Case = (&'static str, Vec<u8>, Vec<Incoming<'static>>, Option<u16>);

    /// What clients do, broken and hostile ones included, as far as a codec can judge it: floods of
    /// pings and silence are for the shard.
    fn cases() -> Vec<Case> {
        let text = Incoming::Text;
        let closed = |code| Incoming::Close { code, reason: "" };
        vec![
            ("unmasked text", b"\x81\x02hi".to_vec(), vec![], Some(1002)),
            ("unmasked ping", b"\x89\x01p".to_vec(), vec![], Some(1002)),
            ("RSV1 set on text", frame(0xc1, b"hi"), vec![], Some(1002)),
            ("RSV2 set on ping", frame(0xa9, b"hi"), vec![], Some(1002)),
            ("RSV3 set on close", frame(0x98, b""), vec![], Some(1002)),
            ("reserved opcode 3", frame(0x83, b"hi"), vec![], Some(1002)),
            ("reserved opcode 11", frame(0x8b, b"hi"), vec![], Some(1002)),
            ("fragmented ping", frame(0x09, b"p"), vec![], Some(1002)),
            ("fragmented close", frame(0x08, b""), vec![], Some(1002)),
            ("ping of 125 bytes", frame(0x89, &[7; 125]), vec![Incoming::Ping(&[7; 125])], None),
            ("ping of 126 bytes", frame(0x89, &[7; 126]), vec![], Some(1002)),
            ("pong of 200 bytes", frame(0x8a, &[7; 200]), vec![], Some(1002)),
            ("close of 1 byte", frame(0x88, b"\x03"), vec![], Some(1002)),
            ("close with code and 200 bytes", close(1000, &[b'a'; 200]), vec![], Some(1002)),
            ("close code 1005", close(1005, b""), vec![], Some(1002)),
            ("close code 0", close(0, b""), vec![], Some(1002)),
            ("close code 5000", close(5000, b""), vec![], Some(1002)),
            ("close reason ff fe", close(1000, b"\xff\xfe"), vec![], Some(1007)),
            ("empty close", frame(0x88, b""), vec![closed(None)], None),
            ("close 1000", close(1000, b""), vec![closed(Some(1000))], None),
            (
                "close with a reason",
                close(4000, "schlüß".as_bytes()),
                vec![Incoming::Close { code: Some(4000), reason: "schlüß" }],
                None,
            ),
            (
                "close 1000 twice",
                [close(1000, b""), close(1000, b"")].concat(),
                vec![closed(Some(1000))],
                None,
            ),
            (
                "close 1000, then text",
                [close(1000, b""), frame(0x81, b"hi")].concat(),
                vec![closed(Some(1000))],
                None,
            ),
            (
                "close 1000, then nonsense",
                [close(1000, b""), vec![0xff; 40]].concat(),
                vec![closed(Some(1000))],
                None,
            ),
            (
                "close inside a fragmented text",
                [frame(0x01, b"hi"), close(1001, b"")].concat(),
                vec![closed(Some(1001))],
                None,
            ),
            ("text c3 28", frame(0x81, b"\xc3\x28"), vec![], Some(1007)),
            ("text that ends inside a character", frame(0x81, b"a\xe2\x82"), vec![], Some(1007)),
            ("fragment that ends wrongly", frame(0x01, b"a\xe2\x28"), vec![], Some(1007)),
            (
                "text e2 82, continuation 28",
                [frame(0x01, b"\xe2\x82"), frame(0x80, b"\x28")].concat(),
                vec![],
                Some(1007),
            ),
            (
                "text e2 82, empty continuation",
                [frame(0x01, b"\xe2\x82"), frame(0x80, b"")].concat(),
                vec![],
                Some(1007),
            ),
            (
                "text e2 82, continuation ac",
                [frame(0x01, b"\xe2\x82"), frame(0x80, b"\xac")].concat(),
                vec![text("€")],
                None,
            ),
            (
                "one byte of a character per fragment",
                [
                    frame(0x01, b"a\xf0"),
                    frame(0x00, b"\x9f"),
                    frame(0x00, b""),
                    frame(0x00, b"\x90"),
                    frame(0x80, b"\x9f"),
                ]
                .concat(),
                vec![text("a🐟")],
                None,
            ),
            ("continuation first", frame(0x80, b"hi"), vec![], Some(1002)),
            (
                "continuation after a whole message",
                [frame(0x81, b"hi"), frame(0x80, b"hi")].concat(),
                vec![text("hi")],
                Some(1002),
            ),
            (
                "text inside an unfinished fragmented text",
                [frame(0x01, b"a"), frame(0x81, b"b")].concat(),
                vec![],
                Some(1002),
            ),
            (
                "ping inside a fragmented text",
                [frame(0x01, b"a"), frame(0x89, b"p"), frame(0x80, b"b")].concat(),
                vec![Incoming::Ping(b"p"), text("ab")],
                None,
            ),
            (
                "fragments, all but the last empty",
                [frame(0x02, b""), frame(0x00, b""), frame(0x80, b"b")].concat(),
                vec![Incoming::Binary(b"b")],
                None,
            ),
            (
                "5 bytes with 16-bit length",
                with_length(0x81, &[0xfe, 0, 5], b"hello"),
                vec![],
                Some(1002),
            ),
            (
                "5 bytes with 64-bit length",
                with_length(0x81, &[0xff, 0, 0, 0, 0, 0, 0, 0, 5], b"hello"),
                vec![],
                Some(1002),
            ),
            (
                "125 bytes with 16-bit length",
                with_length(0x82, &[0xfe, 0, 125], &[7; 125]),
                vec![],
                Some(1002),
            ),
            (
                "65535 bytes with 64-bit length",
                with_length(0x82, &[0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff], b""),
                vec![],
                Some(1002),
            ),
            (
                "64-bit length with the top bit",
                with_length(0x82, &[0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], b""),
                vec![],
                Some(1002),
            ),
            (
                "header claiming 60 MiB, nothing after",
                with_length(0x82, &[0xff, 0, 0, 0, 0, 0x03, 0xc0, 0, 0], b""),
                vec![],
                Some(1009),
            ),
            ("4 KiB binary", frame(0x82, &[7; 4096]), vec![Incoming::Binary(&[7; 4096])], None),
            ("4 KiB and 1 byte", frame(0x82, &[7; 4097]), vec![], Some(1009)),
            ("8 KiB text", frame(0x81, &[b'a'; 8192]), vec![], Some(1009)),
            (
                "1000 fragments of 1 KiB",
                [frame(0x01, &[b'a'; 1024]), frame(0x00, &[b'a'; 1024]).repeat(999)].concat(),
                vec![],
                Some(1009),
            ),
            (
                "10,000 empty fragments",
                [frame(0x01, b""), frame(0x00, b"").repeat(9_999)].concat(),
                vec![],
                Some(1008),
            ),
            (
                "16 fragments",
                [frame(0x01, b"a"), frame(0x00, b"").repeat(14), frame(0x80, b"b")].concat(),
                vec![text("ab")],
                None,
            ),
            ("5,000 pongs", frame(0x8a, b"").repeat(5_000), vec![Incoming::Pong(b""); 5_000], None),
            ("one byte, then silence", vec![0x81], vec![], None),
            ("empty messages", frame(0x81, b"").repeat(2), vec![text(""); 2], None),
        ]
    }

    #[test]
    fn every_case_ends_as_it_should_however_it_is_cut() {
        for (name, stream, incoming, code) in cases() {
            let whole = read([&stream[..]]);
            let wanted: Vec<String> = incoming.iter().map(|i| format!("{i:?}")).collect();
            assert_eq!(whole.0, wanted, "{name}");
            assert_eq!(whole.1.map(Violation::close_code), code, "{name}: {:?}", whole.1);

            assert_eq!(read(stream.chunks(1)), whole, "{name}, byte by byte");
            // Every offset, except that of the floods, which repeat themselves, only some.
            let step = if stream.len() > 10_000 { stream.len() / 100 } else { 1 };
            for cut in (0..stream.len()).step_by(step) {
                let (front, back) = stream.split_at(cut);
                assert_eq!(read([front, back]), whole, "{name}, cut at {cut}");
            }
        }
    }

    #[test]
    fn close_codes_of_the_wire_are_told_from_the_others() {
        for code in [1000, 1001, 1002, 1003, 1007, 1011, 1012, 1014, 3000, 3999, 4000, 4999] {
            let incoming = format!("{:?}", Incoming::Close { code: Some(code), reason: "" });
            assert_eq!(read([&close(code, b"")[..]]), (vec![incoming], None));
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert_eq!(read([&close(code, b"")[..]]), (vec![], Some(Violation::CloseCode(code))));
        }
    }

    #[test]
    fn bad_text_is_found_before_its_frame_is_complete() {
        let stream = frame(0x81, b"good \xff and a long rest");
        let (front, _) = stream.split_at(6 + 6);
        assert_eq!(read([front]), (vec![], Some(Violation::InvalidText)));
    }

    #[test]
    fn nothing_is_read_after_a_violation() {
        let mut reader = Reader::default();
        let mut stream = [frame(0x01, b"kept"), frame(0x83, b""), frame(0x89, b"p")].concat();
        let mut input = &mut stream[..];
        assert_eq!(reader.next(&mut input, &LIMITS), Err(Violation::UnknownOpcode(3)));
        assert_eq!(reader.next(&mut input, &LIMITS), Ok(None));
        assert!(input.is_empty());
        assert_eq!(reader.buffered_bytes(), 0);
    }

    #[test]
    fn a_reader_between_messages_is_small_and_holds_no_heap() {
        assert!(size_of::<Reader>() <= 64, "{} bytes", size_of::<Reader>());
        let mut reader = Reader::default();
        let stream = [
            frame(0x81, b"whole"),
            frame(0x01, b"in "),
            frame(0x89, b"ping"),
            frame(0x80, b"two"),
            frame(0x8a, b"pong"),
        ]
        .concat();
        let mut was_buffered = false;
        for piece in stream.chunks(3) {
            let mut piece = piece.to_vec();
            let mut input = &mut piece[..];
            while reader.next(&mut input, &LIMITS).unwrap().is_some() {}
            was_buffered |= reader.buffered_bytes() > 0;
        }
        assert!(was_buffered);
        assert_eq!(reader.buffered_bytes(), 0);
    }

    #[test]
    fn a_header_that_claims_a_long_message_allocates_nothing_for_it() {
        let mut reader = Reader::default();
        let mut header = frame(0x82, &[0; 4096])[..8].to_vec();
        assert_eq!(reader.next(&mut &mut header[..], &LIMITS), Ok(None));
        assert_eq!(reader.buffered_bytes(), 0);
    }

    #[test]
    fn server_headers_take_the_shortest_form() {
        for (payload_bytes, expected) in [
            (0, &[0x82, 0][..]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (65535, &[0x82, 126, 0xff, 0xff]),
            (65536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut out = Vec::new();
            write_header(Opcode::Binary, payload_bytes, &mut out);
            assert_eq!(out, expected, "{payload_bytes}");
        }
    }

    #[test]
    fn headers_of_every_form_are_read_back() {
        for payload_bytes in [0, 125, 126, 65535, 65536] {
            let payload = vec![b'a'; payload_bytes];
            let mut stream = frame(0x82, &payload);
            let limits = Limits { message_bytes_max: payload_bytes, fragments_max: 1 };
            let mut reader = Reader::default();
            let incoming = reader.next(&mut &mut stream[..], &limits);
            assert_eq!(incoming, Ok(Some(Incoming::Binary(&payload))));
        }
    }

    #[test]
    fn control_frames_are_written_as_they_must_be() {
        let mut out = Vec::new();
        write_ping(b"a", &mut out);
        write_pong(b"", &mut out);
        write_close(1012, "restart", &mut out);
        write_header(Opcode::Close, 0, &mut out);
        assert_eq!(out, b"\x89\x01a\x8a\x00\x88\x09\x03\xf4restart\x88\x00");

        out.clear();
        write_pong(&[7; 200], &mut out);
        assert_eq!((out.len(), out[1]), (2 + 125, 125));

        // 122 bytes, then a character of two of which only one would fit.
        out.clear();
        write_close(1000, &format!("{}éa", "a".repeat(122)), &mut out);
        assert_eq!((out.len(), out[1]), (2 + 2 + 122, 124));
    }

    /// A message in fragments with a ping before each, or a control frame, as bytes and as what is
    /// to come out.
    fn part() -> impl Strategy<Value = (Vec<u8>, Vec<String>)> {
        let text = ("\\PC{0,40}", prop::collection::vec(0usize..160, 0..4));
        let binary = prop::collection::vec(any::<u8>(), 0..300);
        let control = prop::collection::vec(any::<u8>(), 0..125);
        prop_oneof![
            text.prop_map(|(text, mut cuts)| {
                let bytes = text.as_bytes();
                cuts.push(bytes.len());
                cuts.iter_mut().for_each(|cut| *cut = (*cut).min(bytes.len()));
                cuts.sort_unstable();
                let mut stream = Vec::new();
                let mut seen = Vec::new();
                let mut from = 0;
                for (i, to) in cuts.iter().enumerate() {
                    let fin = if i + 1 == cuts.len() { FIN } else { 0 };
                    stream.extend(frame(0x89, &[i as u8; 3]));
                    seen.push(format!("{:?}", Incoming::Ping(&[i as u8; 3])));
                    stream.extend(frame(fin | u8::from(i == 0), &bytes[from..*to]));
                    from = *to;
                }
                seen.push(format!("{:?}", Incoming::Text(&text)));
                (stream, seen)
            }),
            binary.prop_map(|b| (frame(0x82, &b), vec![format!("{:?}", Incoming::Binary(&b))])),
            control.prop_map(|b| (frame(0x8a, &b), vec![format!("{:?}", Incoming::Pong(&b))])),
        ]
    }

    proptest! {
        #[test]
        fn any_cut_of_a_valid_stream_gives_the_same_messages(
            parts in prop::collection::vec(part(), 0..8),
            lengths in prop::collection::vec(1usize..200, 1..8),
        ) {
            let (streams, seen): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
            let stream = streams.concat();
            let mut pieces = Vec::new();
            let mut rest = &stream[..];
            for length in lengths.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, tail) = rest.split_at(rest.len().min(*length));
                pieces.push(piece);
                rest = tail;
            }
            prop_assert_eq!(read(pieces), (seen.concat(), None));
        }

        #[test]
        fn no_bytes_panic_and_no_cut_changes_what_they_say(
            // Frames of which some are good, and noise.
            parts in prop::collection::vec(
                prop_oneof![
                    (any::<u8>(), prop::collection::vec(any::<u8>(), 0..8))
                        .prop_map(|(first, payload)| frame(first & 0x8b, &payload)),
                    prop::collection::vec(any::<u8>(), 0..20),
                ],
                0..12,
            ),
            cut in 0usize..200,
        ) {
            let noise = parts.concat();
            let whole = read([&noise[..]]);
            let (front, back) = noise.split_at(cut.min(noise.len()));
            prop_assert_eq!(&read([front, back]), &whole);
            prop_assert_eq!(&read(noise.chunks(1)), &whole);
        }
    }
}
