//! What clients send after the handshake, good and bad, and what each must be answered: the cases of
//! RFC 6455 that servers are known to get wrong, limits of the gateway, and messages that are no
//! requests.

use tickfan::limits::{
    BAD_REQUESTS_MAX, CLIENT_FRAGMENTS_MAX, CLIENT_MESSAGE_BYTES_MAX, CLIENT_PINGS_MAX,
};

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;
pub(crate) const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A client's frame with this mask; `first` is the first byte of its header.
fn masked_frame(first: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(MASKED | length as u8),
        length @ 126..=0xffff => {
            bytes.push(MASKED | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(MASKED | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A client's frame; `first` is the first byte of its header.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    masked_frame(first, MASK, payload)
}

pub(crate) fn text(payload: &[u8]) -> Vec<u8> {
    frame(FIN | TEXT, payload)
}

fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, payload.len() as u8], payload].concat()
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// A header that announces a length in two bytes, then the payload, whatever its length.
fn with_length_16(first: u8, length: u16, payload: &[u8]) -> Vec<u8> {
    let masked = &frame(first, payload)[2..];
    [&[first, MASKED | 126][..], &length.to_be_bytes(), masked].concat()
}

/// The same in eight bytes.
fn with_length_64(first: u8, length: u64, payload: &[u8]) -> Vec<u8> {
    let masked = &frame(first, payload)[2..];
    [&[first, MASKED | 127][..], &length.to_be_bytes(), masked].concat()
}

/// A text message in these fragments.
pub(crate) fn fragments(parts: &[&[u8]]) -> Vec<u8> {
    let last = parts.len() - 1;
    let frames = parts.iter().enumerate().map(|(i, part)| {
        let fin = if i == last { FIN } else { 0 };
        frame(fin | if i == 0 { TEXT } else { 0 }, part)
    });
    frames.collect::<Vec<_>>().concat()
}

/// What the gateway sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A pong with this payload.
    Pong(&'static [u8]),
    /// A control message of this type.
    Message(&'static str),
    /// An error with this code.
    Error(&'static str),
    /// A close with this code, or without any. Nothing follows.
    Close(Option<u16>),
}

/// A name, what the client sends, and what it is answered, in this order. Where the last answer is
/// no close, the connection is served on.
pub(crate) type Case = (String, Vec<u8>, Vec<Answer>);

use Answer::{Close, Error, Message, Pong};

const PING_OP: &[u8] = br#"{"op":"ping"}"#;

fn row(name: impl Into<String>, bytes: impl Into<Vec<u8>>, answers: &[Answer]) -> Case {
    (name.into(), bytes.into(), answers.to_vec())
}

/// The message was taken as a whole; being no request, it gets an error.
const TAKEN: &[Answer] = &[Error("bad_request")];
const PROTOCOL: &[Answer] = &[Close(Some(1002))];
const UNSUPPORTED: &[Answer] = &[Close(Some(1003))];
const BAD_TEXT: &[Answer] = &[Close(Some(1007))];
const FLOOD: &[Answer] = &[Close(Some(1008))];
const TOO_LARGE: &[Answer] = &[Close(Some(1009))];

/// All cases.
pub(crate) fn cases() -> Vec<Case> {
    [headers(), lengths(), controls(), closes(), sequences(), utf8(), limits(), messages()].concat()
}

/// §5.1, §5.2: masks, reserved bits, opcodes.
fn headers() -> Vec<Case> {
    let mut cases = vec![
        row("an unmasked text", unmasked(FIN | TEXT, b"hi"), PROTOCOL),
        row("an unmasked empty text", unmasked(FIN | TEXT, b""), PROTOCOL),
        row("an unmasked binary", unmasked(FIN | BINARY, b"hi"), PROTOCOL),
        row("an unmasked ping", unmasked(FIN | PING, b"p"), PROTOCOL),
        row("an unmasked pong", unmasked(FIN | PONG, b"p"), PROTOCOL),
        row("an unmasked close", unmasked(FIN | CLOSE, &1000u16.to_be_bytes()), PROTOCOL),
        row(
            "an unmasked continuation",
            [frame(TEXT, b"h"), unmasked(FIN, b"i")].concat(),
            PROTOCOL,
        ),
        row("a mask of zeros", masked_frame(FIN | TEXT, [0; 4], PING_OP), &[Message("pong")]),
        row("a mask of ones", masked_frame(FIN | TEXT, [0xff; 4], PING_OP), &[Message("pong")]),
        row("RSV1 of a ping", frame(FIN | 0x40 | PING, b"p"), PROTOCOL),
        row("RSV2 of a close", frame(FIN | 0x20 | CLOSE, b""), PROTOCOL),
        row(
            "RSV1 of a continuation",
            [frame(TEXT, b"h"), frame(FIN | 0x40, b"i")].concat(),
            PROTOCOL,
        ),
        row(
            "RSV1 after a good message",
            [text(PING_OP), frame(FIN | 0x40 | TEXT, b"hi")].concat(),
            &[Message("pong"), Close(Some(1002))],
        ),
    ];
    for bits in 1..=7u8 {
        let name = format!("reserved bits {bits:03b} of a text");
        cases.push(row(name, frame(FIN | bits << 4 | TEXT, b"hi"), PROTOCOL));
    }
    for opcode in (3..=7).chain(11..=15) {
        cases.push(row(format!("opcode {opcode}"), frame(FIN | opcode, b"hi"), PROTOCOL));
    }
    cases
}

/// §5.2: the length in its shortest form.
fn lengths() -> Vec<Case> {
    let (data, spaces) = (FIN | TEXT, [b' '; 0x1_0000]);
    vec![
        row("5 bytes with a length of 16 bits", with_length_16(data, 5, b"hello"), PROTOCOL),
        row("5 bytes with a length of 64 bits", with_length_64(data, 5, b"hello"), PROTOCOL),
        row("0 bytes with a length of 16 bits", with_length_16(data, 0, b""), PROTOCOL),
        row("0 bytes with a length of 64 bits", with_length_64(data, 0, b""), PROTOCOL),
        row("125 bytes with 16 bits", with_length_16(data, 125, &spaces[..125]), PROTOCOL),
        row("126 bytes with 64 bits", with_length_64(data, 126, &spaces[..126]), PROTOCOL),
        row("65,535 bytes with 64 bits", with_length_64(data, 0xffff, &spaces[..9]), PROTOCOL),
        row("125 bytes", text(&spaces[..125]), TAKEN),
        row("126 bytes", text(&spaces[..126]), TAKEN),
        row("127 bytes", text(&spaces[..127]), TAKEN),
        row("a length with the top bit set", with_length_64(FIN | BINARY, 1 << 63, b""), PROTOCOL),
        row("a length of all ones", with_length_64(FIN | BINARY, u64::MAX, b""), PROTOCOL),
        row("2^63 - 1 bytes announced", with_length_64(data, (1 << 63) - 1, b"hi"), TOO_LARGE),
        row("4 GiB announced", with_length_64(data, 1 << 32, b"hi"), TOO_LARGE),
        row("60 MiB announced", with_length_64(FIN | BINARY, 60 << 20, b""), TOO_LARGE),
        row("65,536 bytes announced", with_length_64(data, 0x1_0000, b""), TOO_LARGE),
        row("65,535 bytes announced", with_length_16(data, 0xffff, b""), TOO_LARGE),
    ]
}

/// §5.5: pings, pongs, and what a control frame may not be.
fn controls() -> Vec<Case> {
    let ping = |payload: &[u8]| frame(FIN | PING, payload);
    vec![
        row("a ping without payload", ping(b""), &[Pong(b"")]),
        row("a ping", ping(b"p"), &[Pong(b"p")]),
        row("a ping of 125 bytes", ping(&[b'p'; 125]), &[Pong(&[b'p'; 125])]),
        row("a ping that is no UTF-8", ping(b"\xff\xfe\0"), &[Pong(b"\xff\xfe\0")]),
        row("two pings", [ping(b"1"), ping(b"2")].concat(), &[Pong(b"1"), Pong(b"2")]),
        row(
            "a ping before a message and one after",
            [ping(b"1"), text(PING_OP), ping(b"2")].concat(),
            &[Pong(b"1"), Message("pong"), Pong(b"2")],
        ),
        row("a ping of 126 bytes", ping(&[b'p'; 126]), PROTOCOL),
        row("a ping of 65,536 bytes", ping(&[b'p'; 0x1_0000]), PROTOCOL),
        row("a fragmented ping", frame(PING, b"p"), PROTOCOL),
        row("a ping with a length of 16 bits", with_length_16(FIN | PING, 1, b"p"), PROTOCOL),
        row("a pong nobody asked for", frame(FIN | PONG, b"p"), &[]),
        row("a pong of 125 bytes", frame(FIN | PONG, &[b'p'; 125]), &[]),
        row("a pong of 200 bytes", frame(FIN | PONG, &[b'p'; 200]), PROTOCOL),
        row("a fragmented pong", frame(PONG, b"p"), PROTOCOL),
        row("5,000 pongs", frame(FIN | PONG, b"p").repeat(5_000), &[]),
        row(
            "one ping more than may be",
            ping(b"p").repeat(CLIENT_PINGS_MAX as usize + 1),
            &[&[Pong(b"p"); CLIENT_PINGS_MAX as usize], FLOOD].concat(),
        ),
        row(
            "as many pings as may be",
            ping(b"p").repeat(CLIENT_PINGS_MAX as usize),
            &[Pong(b"p"); CLIENT_PINGS_MAX as usize],
        ),
    ]
}

/// §5.5.1, §7: the end.
fn closes() -> Vec<Case> {
    let done = &[Close(Some(1000))];
    let mut cases = vec![
        row("an empty close", frame(FIN | CLOSE, b""), &[Close(None)]),
        row("a close with a reason", close(1000, "schön".as_bytes()), done),
        row("a close with 123 bytes of reason", close(1000, &[b'x'; 123]), done),
        row("a close with 124 bytes of reason", close(1000, &[b'x'; 124]), PROTOCOL),
        row("a close with 200 bytes of reason", close(1000, &[b'x'; 200]), PROTOCOL),
        row("a close of one byte", frame(FIN | CLOSE, &[3]), PROTOCOL),
        row("a fragmented close", frame(CLOSE, &1000u16.to_be_bytes()), PROTOCOL),
        row("a close reason in bad UTF-8", close(1000, b"\xff\xfe"), BAD_TEXT),
        row("a close reason with half a character", close(1000, b"a\xe2\x82"), BAD_TEXT),
        row("a close reason with a surrogate", close(1000, b"\xed\xa0\x80"), BAD_TEXT),
        row("two closes", [close(1000, b""), close(1001, b"")].concat(), done),
        row("a close and a text", [close(1000, b""), text(PING_OP)].concat(), done),
        row("a close and a ping", [close(1000, b""), frame(FIN | PING, b"p")].concat(), done),
        row("a close and nonsense", [close(1000, b""), vec![0xff; 40]].concat(), done),
        row(
            "a ping and a close",
            [frame(FIN | PING, b"p"), close(1000, b"")].concat(),
            &[Pong(b"p"), Close(Some(1000))],
        ),
        row(
            "a message and a close",
            [text(PING_OP), close(1000, b"")].concat(),
            &[Message("pong"), Close(Some(1000))],
        ),
        row("a close inside a message", [frame(TEXT, b"h"), close(1000, b"")].concat(), done),
        row(
            "what would be a message after a violation",
            [frame(FIN | 3, b""), text(PING_OP)].concat(),
            PROTOCOL,
        ),
    ];
    let may_be_sent = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014];
    for code in may_be_sent.into_iter().chain([3000, 3999, 4000, 4999]) {
        cases.push(row(format!("close code {code}"), close(code, b""), &[Close(Some(code))]));
    }
    let may_not = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535];
    for code in may_not {
        cases.push(row(format!("close code {code}"), close(code, b""), PROTOCOL));
    }
    cases
}

/// §5.4: fragments, and what may stand between them.
fn sequences() -> Vec<Case> {
    let hello = [frame(TEXT, b"hel"), frame(FIN, b"lo")].concat();
    vec![
        row("a continuation first", frame(FIN, b"hi"), PROTOCOL),
        row("an unfinished continuation first", frame(0, b"hi"), PROTOCOL),
        row("two fragments", hello.clone(), TAKEN),
        row("two messages of two fragments", hello.repeat(2), &[TAKEN[0]; 2]),
        row(
            "a continuation after a message",
            [hello, frame(FIN, b"hi")].concat(),
            &[TAKEN[0], Close(Some(1002))],
        ),
        row(
            "a text inside a text",
            [frame(TEXT, b"h"), frame(FIN | TEXT, b"i")].concat(),
            PROTOCOL,
        ),
        row(
            "a binary inside a text",
            [frame(TEXT, b"h"), frame(FIN | BINARY, b"i")].concat(),
            PROTOCOL,
        ),
        row(
            "a text inside a binary",
            [frame(BINARY, b"h"), frame(FIN | TEXT, b"i")].concat(),
            PROTOCOL,
        ),
        row(
            "a ping inside a text",
            [frame(TEXT, b"h"), frame(FIN | PING, b"p"), frame(FIN, b"i")].concat(),
            &[Pong(b"p"), TAKEN[0]],
        ),
        row(
            "a pong inside a text",
            [frame(TEXT, b"h"), frame(FIN | PONG, b"p"), frame(FIN, b"i")].concat(),
            TAKEN,
        ),
        row(
            "pings between all fragments of a request",
            [
                frame(TEXT, &PING_OP[..4]),
                frame(FIN | PING, b"1"),
                frame(0, &PING_OP[4..9]),
                frame(FIN | PING, b"2"),
                frame(FIN, &PING_OP[9..]),
            ]
            .concat(),
            &[Pong(b"1"), Pong(b"2"), Message("pong")],
        ),
        row(
            "a bad ping inside a text",
            [frame(TEXT, b"h"), frame(PING, b"p"), frame(FIN, b"i")].concat(),
            PROTOCOL,
        ),
        row(
            "empty fragments around a request",
            fragments(&[b"", PING_OP, b""]),
            &[Message("pong")],
        ),
        row("ten requests in one segment", text(PING_OP).repeat(10), &[Message("pong"); 10]),
        row("a binary message", frame(FIN | BINARY, PING_OP), UNSUPPORTED),
        row("an empty binary message", frame(FIN | BINARY, b""), UNSUPPORTED),
        row(
            "a binary message in fragments",
            [frame(BINARY, b"\xff"), frame(FIN, b"\xfe")].concat(),
            UNSUPPORTED,
        ),
    ]
}

/// §8.1: text is UTF-8, judged as soon as it can be.
fn utf8() -> Vec<Case> {
    let bad: [(&str, &[u8]); 11] = [
        ("a character with a wrong second byte", b"\xc3\x28"),
        ("a continuation byte alone", b"a\x80"),
        ("a byte that is none", b"a\xff"),
        ("half a character at the end", b"a\xe2\x82"),
        ("an overlong slash of two bytes", b"\xc0\xaf"),
        ("an overlong slash of three bytes", b"\xe0\x80\xaf"),
        ("an overlong slash of four bytes", b"\xf0\x80\x80\xaf"),
        ("a surrogate", b"\xed\xa0\x80"),
        ("a pair of surrogates", b"\xed\xa0\xbd\xed\xb8\x80"),
        ("a character past the last", b"\xf4\x90\x80\x80"),
        ("a character of five bytes", b"\xf8\x88\x80\x80\x80"),
    ];
    let mut cases: Vec<Case> =
        bad.iter().map(|(name, bytes)| row(*name, text(bytes), BAD_TEXT)).collect();
    cases.extend([
        row("bad UTF-8 across fragments", fragments(&[b"\xe2\x82", b"\x28"]), BAD_TEXT),
        row("a character that never ends", fragments(&[b"\xe2\x82", b""]), BAD_TEXT),
        row("bad UTF-8 in a fragment that is not the last", frame(TEXT, b"\xff"), BAD_TEXT),
        row("an overlong beginning across fragments", fragments(&[b"\xe0", b"\x80\xaf"]), BAD_TEXT),
        row("a surrogate across fragments", fragments(&[b"\xed", b"\xa0", b"\x80"]), BAD_TEXT),
        row("bad UTF-8 in a frame that is not complete", &text(b"\xff and more")[..8], BAD_TEXT),
        row("a character across fragments", fragments(&[b"\xe2\x82", b"\xac"]), TAKEN),
        row(
            "a character in four fragments",
            fragments(&[b"\xf0", b"\x9f", b"\x90", b"\x9f"]),
            TAKEN,
        ),
        row(
            "a ping inside a character",
            [frame(TEXT, b"\xe2"), frame(FIN | PING, b"\xac"), frame(FIN, b"\x82\xac")].concat(),
            &[Pong(b"\xac"), TAKEN[0]],
        ),
        row("the last character there is", text(b"\xf4\x8f\xbf\xbf"), TAKEN),
        row("a character that is none by name", text(b"\xef\xbf\xbf"), TAKEN),
        row("a NUL", text(b"\0"), TAKEN),
        row("a byte order mark before a request", text(b"\xef\xbb\xbf{\"op\":\"ping\"}"), TAKEN),
    ]);
    cases
}

/// The gateway's own limits, at each and one past it.
fn limits() -> Vec<Case> {
    let longest = vec![b' '; CLIENT_MESSAGE_BYTES_MAX];
    let (front, back) = longest.split_at(1_000);
    let most = [&b" "[..]; CLIENT_FRAGMENTS_MAX];
    vec![
        row("the longest message", text(&longest), TAKEN),
        row("a message one byte longer", text(&[&longest[..], b" "].concat()), TOO_LARGE),
        row("the longest message in two fragments", fragments(&[front, back]), TAKEN),
        row("one byte longer in three fragments", fragments(&[front, back, b" "]), TOO_LARGE),
        row(
            "a fragment that announces too much",
            [frame(TEXT, front), with_length_16(FIN, CLIENT_MESSAGE_BYTES_MAX as u16, b"")]
                .concat(),
            TOO_LARGE,
        ),
        row("1,000 fragments of 1,000 bytes", fragments(&vec![front; 1_000]), TOO_LARGE),
        row("as many fragments as may be", fragments(&most), TAKEN),
        row("one fragment more", fragments(&[&most[..], &[b" "]].concat()), FLOOD),
        row("10,000 empty fragments", fragments(&vec![&b""[..]; 10_000]), FLOOD),
        row(
            "pings are no fragments",
            [
                frame(TEXT, b" "),
                frame(FIN | PING, b"").repeat(CLIENT_FRAGMENTS_MAX),
                frame(FIN, b" "),
            ]
            .concat(),
            &[&[Pong(b""); CLIENT_FRAGMENTS_MAX], TAKEN].concat(),
        ),
    ]
}

/// Messages that are whole, and what is said to them.
fn messages() -> Vec<Case> {
    let no_requests: [&[u8]; 22] = [
        b"",
        b" \t\r\n",
        b"hello",
        b"null",
        b"[]",
        b"{}",
        b"{",
        br#""ping""#,
        br#"{"op":1}"#,
        br#"{"op":null}"#,
        br#"{"op":"ping"} {}"#,
        br#"{"op":"ping","op":"ping"}"#,
        br#"{"op":"ping","id":1.5}"#,
        br#"{"op":"ping","id":[]}"#,
        br#"{"op":"ping","id":1e999}"#,
        br#"{"op":"ping","id":9223372036854775808}"#,
        br#"{"op":"subscribe","channel":"bbo"}"#,
        br#"{"op":"subscribe","channel":"bbo","symbols":[1]}"#,
        br#"{"op":"unsubscribe","views":[-1]}"#,
        br#"{"op":"modify","views":[4294967296]}"#,
        br#"{"op":"heartbeat","every_ms":249}"#,
        b"{\"op\":\"pi\x00ng\"}",
    ];
    let mut cases: Vec<Case> = no_requests
        .iter()
        .map(|text| row(format!("no request: {:?}", String::from_utf8_lossy(text)), *text, TAKEN))
        .collect();
    let (deep, long) = ("[".repeat(10_000), "x".repeat(65));
    cases.push(row("10,000 brackets", deep, TAKEN));
    cases.push(row("an id of 65 characters", format!(r#"{{"op":"ping","id":"{long}"}}"#), TAKEN));
    for (message, answer) in [
        (r#"{"op":"fly"}"#, Error("unknown_op")),
        (r#"{"op":"subscribe","channel":"boook","symbols":[]}"#, Error("unknown_channel")),
        (
            r#"{"op":"subscribe","channel":"book","symbols":[],"depth":7,"strict":true}"#,
            Error("bad_depth"),
        ),
        (r#"{"op":"subscribe","channel":"bbo","symbols":[],"budget_ms":-1}"#, Error("bad_budget")),
        (r#"{"op":"image","views":[4000000000]}"#, Error("not_subscribed")),
        (r#"{"op":"ping","id":"p","unknown":{"a":[1]}}"#, Message("pong")),
        (r#"{"op":"unsubscribe","views":[4000000000]}"#, Message("unsubscribed")),
        (
            r#"{"op":"subscribe","channel":"bbo","symbols":["sim:NOPE","\u0000"]}"#,
            Message("subscribed"),
        ),
        (r#"{"op":"modify","views":[4000000000],"budget_ms":0}"#, Message("subscribed")),
        (r#"{"op":"instruments","match":"nothing:*"}"#, Message("instruments")),
    ] {
        cases.push(row(message, message, &[answer]));
    }
    for (_, message, _) in &mut cases {
        *message = text(message);
    }
    const ENOUGH: usize = BAD_REQUESTS_MAX as usize;
    let bad = text(b"hello");
    let refused = [TAKEN[0]; ENOUGH];
    cases.push(row("nearly enough bad requests", bad.repeat(ENOUGH - 1), &refused[1..]));
    let ended = [&refused[..], &[Close(Some(4005))]].concat();
    cases.push(row("enough bad requests", bad.repeat(ENOUGH), &ended));
    cases
}
