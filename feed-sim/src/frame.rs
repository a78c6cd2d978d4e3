//! A payload → the frames of a WebSocket server, as bytes.
//!
//! Called by the door for all that it sends, by the faults, which break them on purpose, and by whoever
//! lets an exchange speak without a socket. Nothing is masked: a server's frames are not.

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// The rest of a message.
    Continuation = 0x0,
    /// A text message, or its first part.
    Text = 0x1,
    /// The end of the connection.
    Close = 0x8,
    /// A question whether the other side is there.
    Ping = 0x9,
    /// Its answer.
    Pong = 0xa,
}

/// The head of a frame; `is_last` when no other frame of its message follows.
pub fn head(opcode: Opcode, is_last: bool, payload_len: usize) -> Vec<u8> {
    let first = opcode as u8 | if is_last { 0x80 } else { 0 };
    match payload_len {
        0..=125 => vec![first, payload_len as u8],
        126..=0xffff => [&[first, 126], &(payload_len as u16).to_be_bytes()[..]].concat(),
        _ => [&[first, 127], &(payload_len as u64).to_be_bytes()[..]].concat(),
    }
}

/// A whole frame.
pub fn frame(opcode: Opcode, is_last: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = head(opcode, is_last, payload.len());
    bytes.extend_from_slice(payload);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_in_three_ways() {
        assert_eq!(frame(Opcode::Text, true, b"ab"), [0x81, 2, b'a', b'b']);
        assert_eq!(head(Opcode::Ping, true, 125), [0x89, 125]);
        assert_eq!(head(Opcode::Continuation, false, 126), [0, 126, 0, 126]);
        assert_eq!(head(Opcode::Text, false, 65_535), [1, 126, 255, 255]);
        assert_eq!(head(Opcode::Close, true, 65_536), [0x88, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }
}
