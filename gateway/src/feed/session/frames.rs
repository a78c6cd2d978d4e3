//! The client side of WebSocket frames (RFC 6455): bytes of a venue → messages and control frames.
//!
//! Called by the session on the feed thread. A read that is given up loses nothing: bytes are in the
//! buffer or still in the socket, so that two connections can be waited for at once. Memory is
//! taken for what came, never for what a frame announces.

use std::io;
use std::ops::Range;
use std::str;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::limits::{VENUE_BUFFER_BYTES_KEPT, VENUE_MESSAGE_BYTES_MAX, VENUE_READ_BYTES};

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What a venue said.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A whole message, which may be overwritten. A text is UTF-8.
    Message(&'a mut [u8]),
    /// To be answered with a pong that repeats this.
    Ping(&'a [u8]),
    /// The answer to a ping.
    Pong,
    /// The venue ends the connection.
    Close,
}

/// How a venue broke the WebSocket protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// No extension was agreed to that could use them.
    #[error("expected reserved bits 000, got others")]
    ReservedBits,
    /// There is no such frame.
    #[error("expected opcode 0, 1, 2, 8, 9 or 10, got {0}")]
    UnknownOpcode(u8),
    /// Servers do not mask.
    #[error("expected an unmasked frame, got a masked one")]
    Masked,
    /// Control frames come in one piece.
    #[error("expected a control frame in one piece, got a fragment")]
    FragmentedControl,
    /// Control frames are short.
    #[error("expected at most 125 bytes in a control frame, got more")]
    ControlTooLong,
    /// There is nothing to continue.
    #[error("expected the start of a message, got a continuation")]
    ContinuationFirst,
    /// The message before it has not ended.
    #[error("expected a continuation, got the start of a message")]
    MessageInMessage,
    /// A message over the limit.
    #[error("expected a message of at most {VENUE_MESSAGE_BYTES_MAX} bytes, got a longer one")]
    MessageTooLong,
    /// A text that is none.
    #[error("expected text in UTF-8, got other bytes")]
    InvalidText,
}

impl Violation {
    /// The code with which the connection is closed.
    pub const fn close_code(self) -> u16 {
        match self {
            Self::InvalidText => 1007,
            Self::MessageTooLong => 1009,
            _ => 1002,
        }
    }
}

/// The header of a frame.
struct Header {
    is_final: bool,
    opcode: u8,
    /// Bytes of the header itself.
    bytes: usize,
    payload_bytes: usize,
}

impl Header {
    /// Reads a header; `None` when more bytes are needed.
    fn read(bytes: &[u8]) -> Result<Option<Self>, Violation> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(Violation::ReservedBits);
        }
        if second & 0x80 != 0 {
            return Err(Violation::Masked);
        }
        let (is_final, opcode) = (first & 0x80 != 0, first & 0x0f);
        match opcode {
            CONTINUATION | TEXT | BINARY => {}
            CLOSE | PING | PONG if !is_final => return Err(Violation::FragmentedControl),
            CLOSE | PING | PONG if second & 0x7f > 125 => return Err(Violation::ControlTooLong),
            CLOSE | PING | PONG => {}
            other => return Err(Violation::UnknownOpcode(other)),
        }
        let (bytes, payload_bytes) = match (second & 0x7f, rest) {
            (126, [a, b, ..]) => (4, u64::from(u16::from_be_bytes([*a, *b]))),
            (127, [a, b, c, d, e, f, g, h, ..]) => {
                (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]))
            }
            (126 | 127, _) => return Ok(None),
            (short, _) => (2, u64::from(short)),
        };
        if payload_bytes > VENUE_MESSAGE_BYTES_MAX as u64 {
            return Err(Violation::MessageTooLong);
        }
        Ok(Some(Self { is_final, opcode, bytes, payload_bytes: payload_bytes as usize }))
    }
}

/// A message of which fragments are missing.
#[derive(Debug)]
struct Fragments {
    is_text: bool,
    bytes: Vec<u8>,
}

/// Bytes that came and were not taken yet.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: Vec<u8>,
    /// What lies before this in the buffer was taken.
    start: usize,
    fragments: Option<Fragments>,
    /// Fragments that were taken as a message, kept for as long as it is looked at.
    joined: Vec<u8>,
}

impl Frames {
    /// Reads once from the socket; returns how many bytes came, 0 at its end.
    ///
    /// # Errors
    /// When the connection broke.
    pub async fn fill(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        if self.start == self.buffer.len() {
            self.start = 0;
            self.buffer.clear();
            if self.buffer.capacity() > VENUE_BUFFER_BYTES_KEPT {
                self.buffer = Vec::new();
            }
        } else if self.start > 0 && self.buffer.capacity() < self.buffer.len() + VENUE_READ_BYTES {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        // Doubles when it must grow, so that a large message is moved a few times only.
        self.buffer.reserve(VENUE_READ_BYTES);
        stream.read_buf(&mut self.buffer).await
    }

    /// The next thing that the venue said, once it is there whole.
    ///
    /// # Errors
    /// [`Violation`]: nothing that follows can be made sense of.
    pub fn take(&mut self) -> Result<Option<Incoming<'_>>, Violation> {
        self.joined = Vec::new();
        loop {
            let Some(header) = Header::read(&self.buffer[self.start..])? else { return Ok(None) };
            self.admit(&header)?;
            let begin = self.start + header.bytes;
            let payload = begin..begin + header.payload_bytes;
            if payload.end > self.buffer.len() {
                return Ok(None);
            }
            self.start = payload.end;
            match header.opcode {
                CLOSE => return Ok(Some(Incoming::Close)),
                PING => return Ok(Some(Incoming::Ping(&self.buffer[payload]))),
                PONG => return Ok(Some(Incoming::Pong)),
                opcode if header.is_final && self.fragments.is_none() => {
                    let message = &mut self.buffer[payload];
                    check(message, opcode == TEXT)?;
                    return Ok(Some(Incoming::Message(message)));
                }
                opcode => {
                    if self.join(opcode, header.is_final, payload)? {
                        return Ok(Some(Incoming::Message(&mut self.joined)));
                    }
                }
            }
        }
    }

    /// Whether a frame may come now, and fits.
    fn admit(&self, header: &Header) -> Result<(), Violation> {
        match (&self.fragments, header.opcode) {
            (None, CONTINUATION) => Err(Violation::ContinuationFirst),
            (Some(_), TEXT | BINARY) => Err(Violation::MessageInMessage),
            (Some(fragments), CONTINUATION)
                if fragments.bytes.len() + header.payload_bytes > VENUE_MESSAGE_BYTES_MAX =>
            {
                Err(Violation::MessageTooLong)
            }
            _ => Ok(()),
        }
    }

    /// Adds a fragment; returns whether the message is whole with it.
    fn join(
        &mut self,
        opcode: u8,
        is_final: bool,
        payload: Range<usize>,
    ) -> Result<bool, Violation> {
        let mut fragments = self
            .fragments
            .take()
            .unwrap_or(Fragments { is_text: opcode == TEXT, bytes: Vec::new() });
        fragments.bytes.extend_from_slice(&self.buffer[payload]);
        if !is_final {
            self.fragments = Some(fragments);
            return Ok(false);
        }
        check(&fragments.bytes, fragments.is_text)?;
        self.joined = fragments.bytes;
        Ok(true)
    }
}

fn check(message: &[u8], is_text: bool) -> Result<(), Violation> {
    if is_text && str::from_utf8(message).is_err() {
        return Err(Violation::InvalidText);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(head: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![head];
        match payload.len() {
            len @ 0..=125 => frame.push(len as u8),
            len @ 126..=0xffff => {
                frame.push(126);
                frame.extend((len as u16).to_be_bytes());
            }
            len => {
                frame.push(127);
                frame.extend((len as u64).to_be_bytes());
            }
        }
        frame.extend(payload);
        frame
    }

    /// What is said by bytes that come in pieces, and how it ended.
    fn said(pieces: &[&[u8]]) -> (Vec<String>, Option<Violation>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (mut frames, mut said) = (Frames::default(), Vec::new());
        for mut piece in pieces.iter().copied() {
            while !piece.is_empty() {
                runtime.block_on(frames.fill(&mut piece)).unwrap();
            }
            loop {
                match frames.take() {
                    Ok(Some(Incoming::Message(message))) => {
                        said.push(String::from_utf8_lossy(message).into_owned());
                        message.fill(b'x');
                    }
                    Ok(Some(other)) => said.push(format!("{other:?}")),
                    Ok(None) => break,
                    Err(violation) => return (said, Some(violation)),
                }
            }
        }
        (said, None)
    }

    #[test]
    fn a_stream_says_the_same_wherever_it_is_cut() {
        let long = "ä".repeat(100);
        let stream = [
            frame(0x81, b"one"),
            frame(0x89, b"?"),
            frame(0x01, "two \u{20AC}".as_bytes().split_last().unwrap().1),
            frame(0x8a, b""),
            frame(0x00, b""),
            frame(0x80, "\u{20AC}".as_bytes().split_at(2).1),
            frame(0x82, long.as_bytes()),
            frame(0x88, b"\x03\xe8bye"),
        ]
        .concat();
        let expected = ["one", "Ping([63])", "Pong", "two \u{20AC}", &long, "Close"];
        for cut in 0..=stream.len() {
            let (said, violation) = said(&[&stream[..cut], &stream[cut..]]);
            assert_eq!((&said[..], violation), (&expected.map(str::to_owned)[..], None), "{cut}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(said(&bytes).0, expected);
    }

    #[test]
    fn nothing_of_a_broken_frame_is_said() {
        for (broken, violation) in [
            (frame(0xc1, b"{}"), Violation::ReservedBits),
            (frame(0x83, b"{}"), Violation::UnknownOpcode(3)),
            (vec![0x81, 0x80, 0, 0, 0, 0], Violation::Masked),
            (frame(0x09, b""), Violation::FragmentedControl),
            (frame(0x89, &[0; 126]), Violation::ControlTooLong),
            (frame(0x80, b"{}"), Violation::ContinuationFirst),
            ([frame(0x01, b"{"), frame(0x81, b"{}")].concat(), Violation::MessageInMessage),
            (frame(0x81, b"{\xff}"), Violation::InvalidText),
            ([frame(0x01, b"\xe2\x82"), frame(0x80, b"")].concat(), Violation::InvalidText),
        ] {
            let stream = [frame(0x81, b"good"), broken, frame(0x81, b"later")].concat();
            assert_eq!(said(&[&stream]), (vec!["good".to_owned()], Some(violation)));
        }
    }

    #[test]
    fn a_message_may_have_the_limit_and_not_one_byte_more() {
        let header = |bytes: usize| [&[0x82, 127][..], &(bytes as u64).to_be_bytes()].concat();
        assert_eq!(said(&[&header(VENUE_MESSAGE_BYTES_MAX)]), (vec![], None));
        let over = said(&[&header(VENUE_MESSAGE_BYTES_MAX + 1)]);
        assert_eq!(over, (vec![], Some(Violation::MessageTooLong)));
        assert_eq!(said(&[&header(usize::MAX)]).1, Some(Violation::MessageTooLong));
        let mut fragment = frame(0x02, b"x");
        let mut rest = header(VENUE_MESSAGE_BYTES_MAX);
        rest[0] = 0x80;
        fragment.extend(rest);
        assert_eq!(said(&[&fragment]), (vec![], Some(Violation::MessageTooLong)));
    }

    #[test]
    fn memory_is_taken_for_what_came_and_given_back() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut frames = Frames::default();
        let message = frame(0x81, &[b' '; 5_080_000]);
        let fill = |frames: &mut Frames, mut bytes: &[u8]| {
            while !bytes.is_empty() {
                runtime.block_on(frames.fill(&mut bytes)).unwrap();
            }
        };
        fill(&mut frames, &message[..100]);
        assert_eq!(frames.take(), Ok(None));
        assert!(frames.buffer.capacity() < 2 * VENUE_READ_BYTES, "announced only");
        fill(&mut frames, &message[100..]);
        assert!(frames.buffer.capacity() < 3 * message.len());
        assert!(matches!(frames.take(), Ok(Some(Incoming::Message(m))) if m.len() == 5_080_000));
        fill(&mut frames, &frame(0x81, b"{}"));
        assert!(frames.buffer.capacity() <= VENUE_BUFFER_BYTES_KEPT);
    }
}
