//! A client of the protocol on another WebSocket library, which checks what is true of every stream:
//! frames are numbered without a hole, and each delta follows what the client holds.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::{HashMap, VecDeque};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

/// Nothing that a test waits for takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who waits for an update and gets so many others waits in vain.
const UNWANTED_MAX: usize = 10_000;

/// What came.
#[derive(Debug, Clone)]
pub(crate) enum Heard {
    /// A control message.
    Control(Value),
    /// An update, with the send time of its frame.
    Update(Value, u64),
    /// A frame without updates, and its send time.
    Heartbeat(u64),
    /// A close frame: its code and reason. Nothing follows it.
    Close(u16, String),
}

/// A client.
pub(crate) struct Client {
    /// Its WebSocket.
    pub(crate) socket: WebSocket<TcpStream>,
    /// The first message.
    pub(crate) hello: Value,
    /// Data frames so far.
    pub(crate) frames: u64,
    /// Epoch (of books) and version that each view holds, or the number of its last trade.
    held: HashMap<u64, (u64, u64)>,
    waiting: VecDeque<Heard>,
}

impl Client {
    /// Connects and takes the greeting.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let request = format!("ws://{address}/v1/stream").into_client_request().unwrap();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (socket, _) = tungstenite::client(request, stream).unwrap();
        let mut client = Self::without_greeting(socket);
        client.hello = client.control("hello");
        client
    }

    /// A client that may be told anything first.
    pub(crate) fn without_greeting(socket: WebSocket<TcpStream>) -> Self {
        Self {
            socket,
            hello: Value::Null,
            frames: 0,
            held: HashMap::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Sends a request.
    pub(crate) fn say(&mut self, request: &Value) {
        self.socket.send(Message::text(request.to_string())).unwrap();
    }

    /// The next thing that comes.
    pub(crate) fn hear(&mut self) -> Heard {
        loop {
            if let Some(heard) = self.waiting.pop_front() {
                self.check(&heard);
                return heard;
            }
            match self.socket.read().unwrap() {
                Message::Text(text) => self.take(&text),
                Message::Close(frame) => {
                    let (code, reason) = frame
                        .map_or((1005, String::new()), |f| (f.code.into(), f.reason.to_string()));
                    return Heard::Close(code, reason);
                }
                _ => {}
            }
        }
    }

    fn take(&mut self, text: &str) {
        let message: Value =
            serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let Some(n) = message.get("n") else {
            self.waiting.push_back(Heard::Control(message));
            return;
        };
        self.frames += 1;
        assert_eq!(*n, json!(self.frames), "a hole in the frames: {text}");
        let ts = message["ts"].as_u64().unwrap();
        let updates = message["u"].as_array().unwrap();
        if updates.is_empty() {
            self.waiting.push_back(Heard::Heartbeat(ts));
        }
        self.waiting.extend(updates.iter().map(|update| Heard::Update(update.clone(), ts)));
    }

    /// Where trades stand when they are subscribed to, and what is held no longer.
    fn check_control(&mut self, message: &Value) {
        for view in message["views"].as_array().into_iter().flatten() {
            self.held.remove(&view.as_u64().unwrap());
        }
        for result in message["results"].as_array().into_iter().flatten() {
            if result["channel"] == "trades" {
                let (view, s) = (result["view"].as_u64().unwrap(), result["s"].as_u64().unwrap());
                let held = self.held.insert(view, (0, s));
                assert!(held.is_none_or(|held| held.1 == s), "it stands elsewhere: {result}");
            }
        }
    }

    /// Each delta and each trade follows what is held.
    fn check(&mut self, heard: &Heard) {
        let update = match heard {
            Heard::Update(update, _) => update,
            Heard::Control(message) => return self.check_control(message),
            Heard::Heartbeat(_) | Heard::Close(..) => return,
        };
        let number = |key: &str| update[key].as_u64().unwrap_or_else(|| panic!("{key}: {update}"));
        match update["t"].as_str().unwrap() {
            "image" => {
                let new = (number("e"), number("s"));
                let old = self.held.insert(number("v"), new);
                assert!(old.is_none_or(|old| old <= new), "versions go back: {old:?} {update}");
            }
            "delta" | "trades" => {
                let held = self.held.get_mut(&number("v")).unwrap_or_else(|| panic!("{update}"));
                assert_eq!(held.1, number("p"), "a delta does not follow: {update}");
                assert!(number("s") > held.1, "{update}");
                held.1 = number("s");
            }
            _ => {}
        }
    }

    /// The next control message, which must be of this type; updates before it are passed over.
    pub(crate) fn control(&mut self, kind: &str) -> Value {
        loop {
            match self.hear() {
                Heard::Control(message) => {
                    assert_eq!(message["type"], kind, "{message}");
                    return message;
                }
                Heard::Update(..) | Heard::Heartbeat(_) => {}
                Heard::Close(code, reason) => panic!("closed with {code}: {reason}"),
            }
        }
    }

    /// The next update that is of interest, and the send time of its frame.
    pub(crate) fn update(&mut self, mut is_wanted: impl FnMut(&Value) -> bool) -> (Value, u64) {
        for _ in 0..UNWANTED_MAX {
            match self.hear() {
                Heard::Update(update, ts) if is_wanted(&update) => return (update, ts),
                Heard::Update(..) | Heard::Heartbeat(_) => {}
                Heard::Control(message) => panic!("{message}"),
                Heard::Close(code, reason) => panic!("closed with {code}: {reason}"),
            }
        }
        panic!("{UNWANTED_MAX} updates came, and none that was waited for");
    }

    /// The next update of this kind of a view.
    pub(crate) fn update_of(&mut self, view: u64, kind: &str) -> Value {
        self.update(|update| update["v"] == view && update["t"] == kind).0
    }

    /// Subscribes and gives the results.
    pub(crate) fn subscribe(&mut self, request: Value) -> Vec<Value> {
        let mut request = request;
        request["op"] = json!("subscribe");
        self.say(&request);
        self.control("subscribed")["results"].as_array().unwrap().clone()
    }

    /// Subscribes to one symbol and gives its view.
    pub(crate) fn view(&mut self, request: Value) -> u64 {
        let results = self.subscribe(request);
        assert_eq!(results[0]["ok"], true, "{results:?}");
        results[0]["view"].as_u64().unwrap()
    }

    /// The close code that ends the stream.
    pub(crate) fn close_code(&mut self) -> u16 {
        loop {
            if let Heard::Close(code, _) = self.hear() {
                return code;
            }
        }
    }
}
