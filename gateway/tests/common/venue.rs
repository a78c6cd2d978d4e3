//! A venue of which the test writes every word: a WebSocket and a REST host on loopback.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

/// Nothing that a test waits for takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is looked whether somebody has come.
const PAUSE: Duration = Duration::from_millis(2);

/// The venue's two listeners.
pub(crate) struct ScriptedVenue {
    stream: TcpListener,
    rest: TcpListener,
}

/// A connection of the gateway's feed.
pub(crate) struct Session {
    socket: WebSocket<TcpStream>,
}

/// A REST request that waits for its answer.
pub(crate) struct RestRequest {
    stream: TcpStream,
    /// Path and query.
    pub(crate) target: String,
}

fn listener() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

fn accept_now(listener: &TcpListener) -> Option<TcpStream> {
    match listener.accept() {
        Ok((stream, _)) => {
            stream.set_nonblocking(false).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            Some(stream)
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

fn accept(listener: &TcpListener, what: &str) -> TcpStream {
    for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
        if let Some(stream) = accept_now(listener) {
            return stream;
        }
        std::thread::sleep(PAUSE);
    }
    panic!("no {what} came");
}

impl ScriptedVenue {
    /// A venue to which nobody has come.
    pub(crate) fn open() -> Self {
        Self { stream: listener(), rest: listener() }
    }

    /// The `[[feed]]` that leads here.
    pub(crate) fn feed(&self, venue: &str, symbols: &[&str]) -> String {
        format!(
            "[[feed]]\nvenue = {venue:?}\nsymbols = {symbols:?}\n\
             url = \"ws://{}\"\nrest_url = \"http://{}\"\n",
            self.stream.local_addr().unwrap(),
            self.rest.local_addr().unwrap()
        )
    }

    /// Waits for the next connection of the feed.
    pub(crate) fn session(&self) -> Session {
        Session { socket: tungstenite::accept(accept(&self.stream, "connection")).unwrap() }
    }

    /// Waits for the next REST request.
    pub(crate) fn request(&self) -> RestRequest {
        RestRequest::read(accept(&self.rest, "request"))
    }

    /// The REST request that is there already.
    pub(crate) fn request_now(&self) -> Option<RestRequest> {
        accept_now(&self.rest).map(RestRequest::read)
    }
}

impl Session {
    /// The next text of the feed.
    pub(crate) fn hear(&mut self) -> String {
        loop {
            if let Message::Text(text) = self.socket.read().unwrap() {
                return text.to_string();
            }
        }
    }

    /// Sends a text.
    pub(crate) fn say(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    /// Sends bytes that need not be a frame.
    pub(crate) fn say_raw(&mut self, bytes: &[u8]) {
        self.socket.get_mut().write_all(bytes).unwrap();
    }

    /// Waits until the feed has ended the connection.
    pub(crate) fn expect_end(mut self) {
        while self.socket.read().is_ok() {}
    }

    /// Waits until the feed has closed the connection, and gives its code.
    pub(crate) fn expect_close(mut self) -> Option<u16> {
        loop {
            match self.socket.read() {
                Ok(Message::Close(frame)) => return frame.map(|frame| frame.code.into()),
                Ok(_) => {}
                Err(error) => panic!("it ended without a close: {error}"),
            }
        }
    }

    /// Closes the connection.
    pub(crate) fn close(mut self) {
        self.socket.close(None).unwrap();
    }
}

impl RestRequest {
    fn read(mut stream: TcpStream) -> Self {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        Self { stream, target: head.split(' ').nth(1).unwrap().to_owned() }
    }

    /// Answers: a status with its words, further header lines, a body.
    pub(crate) fn answer(mut self, status: &str, headers: &str, body: &str) {
        write!(
            self.stream,
            "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
    }
}
