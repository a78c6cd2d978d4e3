//! Requests for a WebSocket, good and bad, and the HTTP status that each must get: the cases of
//! RFC 6455 §4.2.1 and RFC 9112 that servers are known to get wrong.

/// A valid request.
pub(crate) const UPGRADE: &str = "GET /v1/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

const HOST: &str = "Host: x";
const VERSION: &str = "Sec-WebSocket-Version: 13";
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
const UPGRADE_HEADER: &str = "Upgrade: websocket";
const CONNECTION: &str = "Connection: Upgrade";

/// The valid request with one line replaced, taken out (an empty one) or put before the others.
pub(crate) fn request(line: &str, replacement: &str) -> String {
    let replacement =
        if replacement.is_empty() { String::new() } else { format!("{replacement}\r\n") };
    if line.is_empty() {
        return UPGRADE.replacen("Host: x\r\n", &format!("Host: x\r\n{replacement}"), 1);
    }
    let line = format!("{line}\r\n");
    assert!(UPGRADE.contains(&line), "{line}");
    UPGRADE.replacen(&line, &replacement, 1)
}

/// The request line.
fn line(line: &str) -> String {
    request("GET /v1/stream HTTP/1.1", line)
}

/// The valid request with so many header fields.
fn with_fields(count: usize) -> String {
    let own = UPGRADE.lines().count() - 2;
    let more: Vec<String> = (own..count).map(|i| format!("X-{i}: y")).collect();
    request("", &more.join("\r\n"))
}

/// The valid request, so many bytes long.
fn with_bytes(count: usize) -> String {
    let name = "X-A: ";
    request("", &format!("{name}{}", "y".repeat(count - UPGRADE.len() - name.len() - 2)))
}

/// A name, what is sent, and the statuses that are right.
pub(crate) type Case = (&'static str, String, &'static [u16]);

/// All cases, for a server that takes heads of so many fields and bytes. With 426 comes the version
/// that is spoken, with 101 never an extension.
pub(crate) fn cases(fields_max: usize, bytes_max: usize) -> Vec<Case> {
    let at_the_limit = vec![
        ("as many fields as may be", with_fields(fields_max), &[101][..]),
        ("one field more", with_fields(fields_max + 1), &[431]),
        ("as many bytes as may be", with_bytes(bytes_max), &[101]),
        ("one byte more", with_bytes(bytes_max + 1), &[431]),
    ];
    [upgrades(), refusals(), requests(), at_the_limit].concat()
}

/// The head of an answer is right.
pub(crate) fn expect(name: &str, head: &str, statuses: &[u16]) -> Result<(), String> {
    let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
    let small = head.to_ascii_lowercase();
    let is_right = match status {
        101 => {
            small.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n")
                && !small.contains("extensions")
        }
        426 => small.contains("sec-websocket-version: 13\r\n"),
        _ => true,
    };
    if statuses.contains(&status) && is_right {
        return Ok(());
    }
    Err(format!("{name}: expected {statuses:?}, got {head}"))
}

/// What is let in, spelt in all ways that are allowed.
fn upgrades() -> Vec<Case> {
    vec![
        ("valid", UPGRADE.to_owned(), &[101]),
        ("names in small letters", UPGRADE.replace("Sec-WebSocket", "sec-websocket"), &[101]),
        ("Upgrade: WebSocket", request(UPGRADE_HEADER, "Upgrade: WebSocket"), &[101]),
        ("one of two upgrades", request(UPGRADE_HEADER, "Upgrade: h2c, websocket"), &[101]),
        (
            "one of two connection options",
            request(CONNECTION, "Connection: keep-alive, Upgrade"),
            &[101],
        ),
        (
            "connection options in two fields",
            request(CONNECTION, "Connection: keep-alive\r\nConnection: upgrade"),
            &[101],
        ),
        ("spaces around a value", request(VERSION, "Sec-WebSocket-Version: \t 13  "), &[101]),
        ("a query", line("GET /v1/stream?x=%20 HTTP/1.1"), &[101]),
        ("the absolute form", line("GET http://x/v1/stream HTTP/1.1"), &[101]),
        ("an empty line first", format!("\r\n{UPGRADE}"), &[101]),
        ("Content-Length: 0", request("", "Content-Length: 0"), &[101]),
        (
            "compression on offer",
            request("", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"),
            &[101],
        ),
        (
            "two extensions on offer",
            request("", "Sec-WebSocket-Extensions: x-webkit-deflate-frame, permessage-deflate"),
            &[101],
        ),
        ("our subprotocol", request("", "Sec-WebSocket-Protocol: tickfan.json.v1"), &[101]),
    ]
}

/// RFC 6455 §4.2.1.
fn refusals() -> Vec<Case> {
    vec![
        ("version 8", request(VERSION, "Sec-WebSocket-Version: 8"), &[426]),
        ("version 013", request(VERSION, "Sec-WebSocket-Version: 013"), &[400, 426]),
        ("two versions", request("", "Sec-WebSocket-Version: 8"), &[400, 426]),
        ("a list of versions", request(VERSION, "Sec-WebSocket-Version: 8, 13"), &[400, 426]),
        ("no version", request(VERSION, ""), &[400, 426]),
        ("Upgrade: h2c", request(UPGRADE_HEADER, "Upgrade: h2c"), &[400, 426]),
        ("no Upgrade", request(UPGRADE_HEADER, ""), &[400, 426]),
        ("Upgrade: websockets", request(UPGRADE_HEADER, "Upgrade: websockets"), &[400, 426]),
        ("Connection: close", request(CONNECTION, "Connection: close"), &[400, 426]),
        ("no Connection", request(CONNECTION, ""), &[400, 426]),
        ("no key", request(KEY, ""), &[400]),
        ("an empty key", request(KEY, "Sec-WebSocket-Key: "), &[400]),
        ("key abc", request(KEY, "Sec-WebSocket-Key: abc"), &[400]),
        ("a key of 15 bytes", request(KEY, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA"), &[400]),
        (
            "a key that is no base64",
            request(KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j_Q=="),
            &[400],
        ),
        (
            "a key with bits to spare",
            request(KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR=="),
            &[400],
        ),
        ("two keys", request("", KEY), &[400]),
        (
            "only unknown subprotocols",
            request("", "Sec-WebSocket-Protocol: graphql-ws, soap"),
            &[400],
        ),
        ("HTTP/1.0", line("GET /v1/stream HTTP/1.0"), &[400, 505]),
        ("POST", line("POST /v1/stream HTTP/1.1"), &[400, 405]),
        ("HEAD", line("HEAD /v1/stream HTTP/1.1"), &[400, 405]),
        ("PUT", line("PUT /v1/stream HTTP/1.1"), &[400, 405]),
        ("OPTIONS", line("OPTIONS /v1/stream HTTP/1.1"), &[400, 405]),
        ("another path", line("GET /v1/streams HTTP/1.1"), &[404]),
        ("a body", request("", "Content-Length: 5"), &[400]),
        ("a chunked body", request("", "Transfer-Encoding: chunked"), &[400]),
    ]
}

/// RFC 9112, and what one server lets pass and another does not.
fn requests() -> Vec<Case> {
    vec![
        ("no Host", request(HOST, ""), &[400]),
        ("two Hosts", request("", "Host: y"), &[400]),
        (
            "Content-Length and Transfer-Encoding",
            request("", "Content-Length: 4\r\nTransfer-Encoding: chunked"),
            &[400],
        ),
        ("two Content-Lengths", request("", "Content-Length: 4\r\nContent-Length: 5"), &[400]),
        ("Content-Length: -1", request("", "Content-Length: -1"), &[400]),
        ("Content-Length: +5", request("", "Content-Length: +5"), &[400]),
        ("Content-Length: 0x5", request("", "Content-Length: 0x5"), &[400]),
        ("a length past all", request("", "Content-Length: 99999999999999999999"), &[400]),
        ("a folded header", request("", "X-A: b\r\n c"), &[400]),
        ("a space before the colon", request("", "X-A : b"), &[400]),
        ("a header without a colon", request("", "X-A"), &[400]),
        ("a header without a name", request("", ": b"), &[400]),
        ("a name with a space", request("", "X A: b"), &[400]),
        ("a name in UTF-8", request("", "X-Ä: b"), &[400]),
        ("a bare line feed inside a header", request("", "X-A: b\nX-B: c"), &[400]),
        ("bare line feeds only", UPGRADE.replace("\r\n", "\n") + "\r\n\r\n", &[400]),
        ("a bare carriage return inside a header", request("", "X-A: b\rX-B: c"), &[400]),
        ("a NUL in a header", request("", "X-A: b\0c"), &[400]),
        ("a DEL in a header", request("", "X-A: b\x7fc"), &[400]),
        ("no version of HTTP", line("GET /v1/stream"), &[400]),
        ("version 1.2 of HTTP", line("GET /v1/stream HTTP/1.2"), &[400, 505]),
        ("version 9 of HTTP", line("GET /v1/stream HTTP/9.0"), &[400, 505]),
        ("a method that is none", line("G@T /v1/stream HTTP/1.1"), &[400]),
        ("a space in the path", line("GET /v1/ stream HTTP/1.1"), &[400]),
        ("a space before the method", line(" GET /v1/stream HTTP/1.1"), &[400]),
        ("no request at all", "hello\r\n\r\n".to_owned(), &[400]),
        ("a TLS greeting", "\x16\x03\x01\x02\0\x01\0\x01\u{7c}\x03\x03\r\n\r\n".to_owned(), &[400]),
        ("200 fields", with_fields(200), &[431]),
        ("a header of 32 KiB", request("", &format!("X-A: {}", "y".repeat(32 << 10))), &[431]),
        (
            "a path of 32 KiB",
            line(&format!("GET /v1/stream?{} HTTP/1.1", "y".repeat(32 << 10))),
            &[414, 431],
        ),
    ]
}
