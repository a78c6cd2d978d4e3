//! A recording → what each of its lines is to the clients of the replay.
//!
//! Made once per replay, so that playing a line is a look-up.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::recording::{Kind, Line, Recording};
use crate::venue::{Dialect, binance, kraken};

/// What a line is to the clients.
#[derive(Debug)]
pub(super) enum Cue {
    /// It concerned the recorder only: a socket opened, a request, an acknowledgement.
    Nothing,
    /// It goes to who subscribed to a stream.
    Message(Message),
    /// It answers the first request for a symbol's depth.
    Image(Arc<str>),
}

/// A message of a stream.
#[derive(Debug)]
pub(super) struct Message {
    /// The stream: Binance's name of it, or Kraken's channel and symbol.
    pub(super) key: String,
    /// Kraken: it is a change of the book of this symbol, or the book itself.
    pub(super) book_symbol: Option<Arc<str>>,
    /// As recorded.
    pub(super) payload: Bytes,
    /// Binance: without the wrapper of a combined stream.
    pub(super) inner: Option<Bytes>,
}

/// The key of a channel of a symbol at Kraken.
pub(super) fn kraken_key(channel: &str, symbol: &str) -> String {
    format!("{channel} {symbol}")
}

/// The key of what every connection to Kraken with a subscription is sent.
pub(super) const HEARTBEAT_KEY: &str = "heartbeat ";

/// What all lines of a recording are to the clients.
#[derive(Debug)]
pub(super) struct Script {
    /// One cue for each line.
    pub(super) cues: Vec<Cue>,
    /// Kraken: the depth at which each symbol's book was recorded; 0 when only its trades were.
    depths: HashMap<String, usize>,
}

impl Script {
    pub(super) fn new(recording: &Recording) -> Self {
        let mut script = Self { cues: Vec::new(), depths: HashMap::new() };
        for line in &recording.lines {
            let cue = match (recording.dialect, line.kind) {
                (_, Kind::Open | Kind::Send) => Cue::Nothing,
                (Dialect::Kraken, Kind::Recv) => script.kraken_cue(line),
                (_, Kind::Recv) => binance_cue(line),
                (_, Kind::Rest) => {
                    line.rest_symbol().map_or(Cue::Nothing, |symbol| Cue::Image(symbol.into()))
                }
            };
            script.cues.push(cue);
        }
        script
    }

    /// Something of this symbol was recorded at Kraken.
    pub(super) fn has_symbol(&self, symbol: &str) -> bool {
        self.depths.contains_key(symbol)
    }

    /// The depth at which a symbol's book was recorded at Kraken.
    pub(super) fn depth(&self, symbol: &str) -> usize {
        self.depths.get(symbol).copied().unwrap_or(0)
    }

    fn kraken_cue(&mut self, line: &Line) -> Cue {
        let (key, book_symbol) = match kraken::Recorded::read(line.text()) {
            None => return Cue::Nothing,
            Some(kraken::Recorded::Subscribed { symbol, depth }) => {
                self.depths.insert(symbol.into_owned(), depth);
                return Cue::Nothing;
            }
            Some(kraken::Recorded::Book(book)) => {
                (kraken_key("book", &book.symbol), Some(Arc::from(&*book.symbol)))
            }
            Some(kraken::Recorded::Other { channel, symbol }) => {
                if let Some(symbol) = &symbol {
                    self.depths.entry(symbol.clone().into_owned()).or_insert(0);
                }
                (kraken_key(channel, symbol.as_deref().unwrap_or_default()), None)
            }
        };
        Cue::Message(Message { key, book_symbol, payload: line.payload.clone(), inner: None })
    }
}

fn binance_cue(line: &Line) -> Cue {
    let Some((stream, inner)) = binance::unwrap_combined(&line.payload) else {
        return Cue::Nothing;
    };
    Cue::Message(Message {
        key: binance::stream_key(stream),
        book_symbol: None,
        payload: line.payload.clone(),
        inner: Some(inner),
    })
}
